// SPDX-License-Identifier: Apache-2.0
// store_handle: the store while it is open: its file, and a reader for each thread that
// has need of one. When a compaction has replaced the file, or it has outgrown its map,
// it is opened anew:
//
//   reopen    workers see no store, tasks are to let go, what would be started is held
//   quiet     every worker has passed (grace.h), no job uses the old one
//   reopened  all readers are new; on_reopened starts what was held
//
// Meanwhile what is in memory serves on by what was last said.
//
// Threads: control, but where another is named.
#ifndef DEPUTY_PROXY_STORE_STORE_HANDLE_H_
#define DEPUTY_PROXY_STORE_STORE_HANDLE_H_

#include <stdatomic.h>
#include <stdbool.h>

#include "certstore/store.h"
#include "common/base/metrics.h"
#include "proxy/config/options.h"
#include "proxy/grace.h"
#include "proxy/store/store_task.h"

// Whose a reader is; it is parked while its thread does not read.
enum reader_of {
  READER_OF_CONTROL,                                           // words of states, and counts
  READER_OF_LOADER,                                            // names and their chains
  READER_OF_TASKS,                                             // + kind
  READER_OF_WORKERS = READER_OF_TASKS + STORE_TASK_NUM_KINDS,  // + index: words of states
  READER_MAX = READER_OF_WORKERS + OPTIONS_MAX_WORKERS,
};

struct store_handle {
  struct grace *grace;
  char *folder;
  struct store *store;            // NULL: could not be opened anew as yet
  _Atomic(struct store *) shown;  // to workers; NULL while it is opened anew
  struct store_reader *readers[READER_MAX];
  size_t num_readers;
  size_t num_jobs;  // that use it
  bool is_closing;  // it is to be opened anew
  bool is_quiet;    // and no worker uses it any more
  _Atomic bool must_let_go;
  void (*on_reopened)(void *arg);  // before workers are shown it
  void *arg;
  struct counter num_reopened;
};

// store_handle_open opens the store in `folder` (copied), so that its states can be
// written if the folder lets us. As store_open, and STATUS_MEMORY. On failure it is
// still to be cleaned up.
enum status store_handle_open(struct store_handle *handle, const char *folder, struct errmsg *err);

// store_handle_start shows it to that many workers. As store_reader_new.
enum status store_handle_start(struct store_handle *handle, struct grace *grace, size_t num_workers,
                               struct errmsg *err);

// store_handle_close: no thread but the caller's reads. All-zero is fine; so is twice.
void store_handle_close(struct store_handle *handle);
void store_handle_cleanup(struct store_handle *handle);

// store_handle_use: a job is about to read; store_handle_leave: it is done.
void store_handle_use(struct store_handle *handle);
void store_handle_leave(struct store_handle *handle);

// store_handle_reopen begins to open it anew; at most once at a time.
void store_handle_reopen(struct store_handle *handle);
// store_handle_retry does so now, where it failed before and nothing is in its way.
void store_handle_retry(struct store_handle *handle);

// store_handle_refresh moves control's reader to the newest snapshot, of *out_version of
// the states. False: it cannot be read. store_handle_park lets go of it, in any case.
bool store_handle_refresh(struct store_handle *handle, uint64_t *out_version);
void store_handle_park(struct store_handle *handle);

// store_handle_shown is the store for a callback of a worker; NULL: not now. Any thread.
static inline const struct store *store_handle_shown(const struct store_handle *handle) {
  return atomic_load_explicit(&handle->shown, memory_order_acquire);
}

#endif  // DEPUTY_PROXY_STORE_STORE_HANDLE_H_
