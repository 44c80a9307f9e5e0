// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/store_handle.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

// --- opening and closing ----------------------------------------------------------------

void store_handle_close(struct store_handle *handle) {
  for (size_t i = 0; i < READER_MAX; i++) {
    store_reader_free(handle->readers[i]);
    handle->readers[i] = NULL;
  }
  store_close(handle->store);
  handle->store = NULL;
}

void store_handle_cleanup(struct store_handle *handle) {
  store_handle_close(handle);
  free(handle->folder);
  handle->folder = NULL;
}

static enum status open_reader(struct store_handle *handle, size_t i, struct errmsg *err) {
  enum status st = store_reader_new(&handle->readers[i], handle->store, err);
  if (st == STATUS_OK) {
    store_reader_park(handle->readers[i]);
  }
  return st;
}

// open_at_best opens it so that switches can be made here, if the folder lets us.
static enum status open_at_best(struct store_handle *handle, struct errmsg *err) {
  struct store_options options = {.mode = STORE_STATES, .is_serving = true};
  enum status st = store_open(&handle->store, handle->folder, &options, err);
  if (st == STATUS_SYSTEM) {
    options.mode = STORE_READ;
    st = store_open(&handle->store, handle->folder, &options, err);
    if (st == STATUS_OK) {
      log_warn(0, "store_is_read_only", "folder=%s effect=no_switches_by_the_admin_api",
               handle->folder);
    }
  }
  return st;
}

static enum status open_store(struct store_handle *handle, struct errmsg *err) {
  enum status st = STATUS_OK;

  TRY(open_at_best(handle, err));
  for (size_t i = 0; i < handle->num_readers; i++) {
    TRY(open_reader(handle, i, err));
  }

out:
  if (st != STATUS_OK) {
    store_handle_close(handle);
  }
  return st;
}

enum status store_handle_open(struct store_handle *handle, const char *folder, struct errmsg *err) {
  handle->folder = strdup(folder);
  if (handle->folder == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  handle->num_readers = READER_OF_WORKERS;
  return open_store(handle, err);
}

enum status store_handle_start(struct store_handle *handle, struct grace *grace, size_t num_workers,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  handle->grace = grace;
  for (size_t i = 0; i < num_workers; i++) {
    TRY(open_reader(handle, handle->num_readers, err));
    handle->num_readers += 1;
  }
  atomic_store_explicit(&handle->shown, handle->store, memory_order_release);

out:
  return st;
}

// --- opening anew -------------------------------------------------------------------------

// Once nobody uses the old store: a few milliseconds on the control thread.
static void reopen_if_quiet(struct store_handle *handle) {
  struct errmsg err = {0};
  if (!handle->is_closing || !handle->is_quiet || handle->num_jobs > 0) {
    return;
  }
  store_handle_close(handle);
  if (open_store(handle, &err) != STATUS_OK) {
    // What is in the cache serves on by what was last said; tried again each second.
    log_error(0, "store_not_opened", "reason=\"%s\" effect=known_names_are_served", err.text);
    return;
  }
  counter_add_own(&handle->num_reopened, 1);
  log_info(0, "store_reopened", "folder=%s", handle->folder);
  handle->is_closing = false;
  handle->is_quiet = false;
  atomic_store(&handle->must_let_go, false);
  handle->on_reopened(handle->arg);
  atomic_store_explicit(&handle->shown, handle->store, memory_order_release);
}

static void on_quiet(void *arg) {
  struct store_handle *handle = arg;
  handle->is_quiet = true;
  reopen_if_quiet(handle);
}

void store_handle_reopen(struct store_handle *handle) {
  if (handle->is_closing) {
    return;
  }
  handle->is_closing = true;
  atomic_store(&handle->must_let_go, true);
  atomic_store_explicit(&handle->shown, NULL, memory_order_release);
  grace_after(handle->grace, on_quiet, handle);
}

void store_handle_retry(struct store_handle *handle) { reopen_if_quiet(handle); }

void store_handle_use(struct store_handle *handle) { handle->num_jobs += 1; }

void store_handle_leave(struct store_handle *handle) {
  handle->num_jobs -= 1;
  reopen_if_quiet(handle);
}

// --- control's reader -----------------------------------------------------------------------

bool store_handle_refresh(struct store_handle *handle, uint64_t *out_version) {
  struct store_reader *reader = handle->readers[READER_OF_CONTROL];
  if (store_reader_refresh(reader) != STATUS_OK) {
    return false;
  }
  *out_version = store_reader_states_version(reader);
  return true;
}

void store_handle_park(struct store_handle *handle) {
  store_reader_park(handle->readers[READER_OF_CONTROL]);
}
