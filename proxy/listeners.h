// SPDX-License-Identifier: Apache-2.0
// listeners: the sockets on which TLS is accepted, as the configuration names
// them. Each has one descriptor for each worker (SO_REUSEPORT), so that the kernel
// spreads connections and no two workers share a queue. A reload keeps those whose
// name and address stay: their queues are not disturbed.
//
// Threads: control.
#ifndef DEPUTY_PROXY_LISTENERS_H_
#define DEPUTY_PROXY_LISTENERS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "proxy/options.h"
#include "proxy/worker.h"

struct listener {
  uint64_t id;  // never used again in this process; not 0
  char *name;
  char *text;              // the address as configured
  struct address address;  // as bound: with the port that the kernel chose
  bool is_deferred;
  bool is_new;
  int *fds;  // one for each worker, each taken by its worker in the end
  size_t num_fds;
};

struct listeners {
  struct listener *items;
  size_t num;
};

// listeners_open makes the listeners of a configuration: those of `current` (may be
// empty) that stay, by id and without descriptors; new ones bound. `current` is
// not changed, so failing leaves everything as it was. STATUS_CONFIG (address),
// STATUS_SYSTEM (cannot bind), STATUS_MEMORY.
enum status listeners_open(struct listeners *out, const struct options *options,
                           const struct listeners *current, size_t num_workers, struct errmsg *err);

// listeners_plan hands worker `index` its part; new descriptors change hands.
void listeners_plan(struct listening_plan *out, struct listeners *listeners, size_t index);

// listeners_close closes what no worker has taken, and frees.
void listeners_close(struct listeners *listeners);

#endif  // DEPUTY_PROXY_LISTENERS_H_
