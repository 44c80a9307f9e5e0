// SPDX-License-Identifier: Apache-2.0
// drain: how the proxy ends: nobody is accepted any more, connections that are open may
// end by themselves until a limit, then they are closed; when the last worker has none
// left, control_serve returns.
//
// Threads: control.
#ifndef DEPUTY_PROXY_CONTROL_DRAIN_H_
#define DEPUTY_PROXY_CONTROL_DRAIN_H_

#include <stdbool.h>

#include "common/base/status.h"
#include "common/net/loop.h"

struct control;
struct worker;

struct drain {
  struct timer limit;
  bool is_draining;
  size_t num_drained;  // workers
};

enum status drain_init(struct control *control);  // STATUS_MEMORY

// drain_begin begins, once, and says nothing to the service manager. `has_heir`: another
// process has the listening sockets.
void drain_begin(struct control *control, bool has_heir);

// drain_or_end is what SIGTERM asks: begin, with a word to the service manager; asked
// twice: close what is left now. The control in `arg`.
void drain_or_end(void *arg);

// drain_on_drained: a worker has no connection left (worker.h).
void drain_on_drained(void *arg, struct worker *worker);

#endif  // DEPUTY_PROXY_CONTROL_DRAIN_H_
