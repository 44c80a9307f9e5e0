// SPDX-License-Identifier: Apache-2.0
// reload: what SIGHUP sets off in a program whose files take time to read. They are read
// on the jobs' thread, while the loop goes on answering with what is there; then all of
// it is put in force at once, or, when anything is wrong, nothing, and the log says why.
// One at a time: what is asked for during one follows it, as that may have read too early.
//
//   reload_ask --> [begin] --> prepare (thread) --> commit --> [end] --> the next, if wanted
//                                  |                              ^
//                                  +--- failed: a line in the log |
//
// Threads: the loop's, but for `prepare`.
#ifndef DEPUTY_COMMON_NET_RELOAD_H_
#define DEPUTY_COMMON_NET_RELOAD_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/job.h"

// `scope` is the owner's own: how much is read, from 1 on; more includes less.
struct reload_steps {
  void (*begin)(void *arg);  // NULL: nothing to do
  // prepare reads everything, on the jobs' thread. What it makes is kept by `arg`.
  enum status (*prepare)(void *arg, int scope, struct errmsg *err);
  // commit puts it in force and logs that; if it fails, it has changed nothing.
  enum status (*commit)(void *arg, int scope, struct errmsg *err);
  // end frees what was made and is not in force.
  void (*end)(void *arg);  // NULL: nothing to do
};

// Embedded in the owner, who keeps it until the jobs have ended.
struct reload {
  bool is_running;
  uint64_t num_good;
  uint64_t num_failed;
  // Private.
  const struct reload_steps *steps;
  void *arg;
  struct jobs *jobs;
  struct job job;
  int scope;
  int wanted;  // by who asked while one was running; 0: nobody
  bool is_stopped;
  enum status st;
  struct errmsg err;
};

void reload_init(struct reload *reload, struct jobs *jobs, const struct reload_steps *steps,
                 void *arg);

// reload_ask begins one, or has it follow the one that runs, with the widest scope that
// was asked for. Scope 0 asks for nothing.
void reload_ask(struct reload *reload, int scope);

// reload_stop: the program is about to end. No further one begins, and one that runs is not
// put in force.
void reload_stop(struct reload *reload);

#endif  // DEPUTY_COMMON_NET_RELOAD_H_
