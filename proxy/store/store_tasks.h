// SPDX-License-Identifier: Apache-2.0
// store_tasks: runs what operators ask of the store (store_task.h): one thread for each
// kind, each with a reader of its own, one task after the other; while the store is opened
// anew they are held. Neither a handshake nor a switch waits for a drill.
//
// Threads: control.
#ifndef DEPUTY_PROXY_STORE_STORE_TASKS_H_
#define DEPUTY_PROXY_STORE_STORE_TASKS_H_

#include "proxy/store/store_handle.h"
#include "proxy/store/store_task.h"

struct store_tasks {
  struct store_handle *handle;
  struct {
    struct jobs *jobs;
    struct store_task *first;  // held
    struct store_task **last;
    size_t num;  // handed over, not done
  } of[STORE_TASK_NUM_KINDS];
};

// store_tasks_init borrows the handle. store_tasks_start starts the threads:
// STATUS_MEMORY, STATUS_SYSTEM.
void store_tasks_init(struct store_tasks *tasks, struct store_handle *handle);
enum status store_tasks_start(struct store_tasks *tasks, struct loop *loop);

// store_tasks_add has a task run. STATUS_UNAVAILABLE: too many wait.
enum status store_tasks_add(struct store_tasks *tasks, struct store_task *task);

// store_tasks_restart: the store has been opened anew.
void store_tasks_restart(struct store_tasks *tasks);

// store_tasks_end waits for those that run; no done is called any more. The loop has
// ended. Twice is fine.
void store_tasks_end(struct store_tasks *tasks);

#endif  // DEPUTY_PROXY_STORE_STORE_TASKS_H_
