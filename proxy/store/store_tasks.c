// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/store_tasks.h"

static void task_work(void *arg) {
  struct store_task *task = arg;
  struct store_handle *handle = task->tasks->handle;
  struct store_reader *reader = handle->readers[READER_OF_TASKS + task->kind];
  task->st = store_reader_refresh(reader);
  if (task->st == STATUS_OK) {
    task->work(task->arg, handle->store, reader);
    store_reader_park(reader);
  }
}

static void start_or_hold(struct store_tasks *tasks, struct store_task *task) {
  if (tasks->handle->is_closing) {
    task->next = NULL;
    *tasks->of[task->kind].last = task;
    tasks->of[task->kind].last = &task->next;
    return;
  }
  store_handle_use(tasks->handle);
  jobs_start(tasks->of[task->kind].jobs, &task->job);
}

static void task_done(void *arg) {
  struct store_task *task = arg;
  struct store_tasks *tasks = task->tasks;
  if (task->st == STATUS_UNAVAILABLE) {  // the file has outgrown the map
    store_handle_reopen(tasks->handle);
    start_or_hold(tasks, task);
  } else {
    tasks->of[task->kind].num -= 1;
    task->done(task->arg, task->st);  // the task may be gone
  }
  store_handle_leave(tasks->handle);
}

enum status store_tasks_add(struct store_tasks *tasks, struct store_task *task) {
  if (tasks->of[task->kind].num >= STORE_TASK_MAX_WAITING) {
    return STATUS_UNAVAILABLE;
  }
  task->job = (struct job){.work = task_work, .done = task_done, .arg = task};
  task->tasks = tasks;
  tasks->of[task->kind].num += 1;
  start_or_hold(tasks, task);
  return STATUS_OK;
}

void store_tasks_restart(struct store_tasks *tasks) {
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    struct store_task *task = tasks->of[i].first;
    tasks->of[i].first = NULL;
    tasks->of[i].last = &tasks->of[i].first;
    while (task != NULL) {
      struct store_task *next = task->next;
      start_or_hold(tasks, task);
      task = next;
    }
  }
}

void store_tasks_init(struct store_tasks *tasks, struct store_handle *handle) {
  tasks->handle = handle;
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    tasks->of[i].last = &tasks->of[i].first;
  }
}

enum status store_tasks_start(struct store_tasks *tasks, struct loop *loop) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    TRY(jobs_new(&tasks->of[i].jobs, loop));
  }
out:
  return st;
}

void store_tasks_end(struct store_tasks *tasks) {
  if (tasks->handle == NULL) {
    return;
  }
  atomic_store(&tasks->handle->must_let_go, true);
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    jobs_free(tasks->of[i].jobs);
    tasks->of[i].jobs = NULL;
  }
}
