// SPDX-License-Identifier: Apache-2.0
// store_task: something that is read from the store, or said in its states, for the
// control thread, on a thread beside it: an operator's questions and switches. Who runs
// it has the store (proxy/store/store_tasks.h); who asks knows the admin API
// (proxy/admin/admin_store.h).
#ifndef DEPUTY_PROXY_STORE_STORE_TASK_H_
#define DEPUTY_PROXY_STORE_STORE_TASK_H_

#include "certstore/store.h"
#include "common/net/job.h"

#define STORE_TASK_MAX_WAITING 64u  // of each kind; more are refused

enum store_task_kind {
  STORE_TASK_LOOK,    // may take seconds (a drill over all names)
  STORE_TASK_CHANGE,  // waits for no look
  STORE_TASK_NUM_KINDS,
};

struct store_tasks;

// Embedded in the asker, who keeps it until done has run or the loop has ended.
struct store_task {
  enum store_task_kind kind;
  // On the thread of its kind, with a reader of the newest snapshot.
  void (*work)(void *arg, struct store *store, struct store_reader *reader);
  // On the loop. Anything but STATUS_OK: `work` has not run, as the store cannot be read.
  void (*done)(void *arg, enum status st);
  void *arg;

  struct job job;  // private, as what follows
  struct store_tasks *tasks;
  struct store_task *next;
  enum status st;
};

// What the admin API asks of whoever has the store. All on the loop but `must_let_go`.
struct store_host {
  void *arg;
  // start hands a task over. STATUS_UNAVAILABLE: too many wait.
  enum status (*start)(void *arg, struct store_task *task);
  // must_let_go: is the store to be opened anew, or the process to end? Then long work
  // ends early, and may be started again. Any thread.
  bool (*must_let_go)(void *arg);
  // catch_up brings what is in memory of configured names and the fleet up to the states
  // of this moment. find does so for a name in the cache, by its name as it is kept, and
  // lends it for the callback that it is asked in; NULL: it is not there.
  void (*catch_up)(void *arg);
  const struct cert_name *(*find)(void *arg, const char *name);
  uint64_t (*count_names)(void *arg);
};

#endif  // DEPUTY_PROXY_STORE_STORE_TASK_H_
