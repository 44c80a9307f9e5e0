// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/served_store.h"

#include <stdlib.h>

#include "proxy/store/served_store_internal.h"

#define TICK_MS 100       // between two looks at the versions of the store
#define RESTLESS_MS 1000  // between two looks at the folder, and at what was imported
#define PAUSE_MS 5        // between two chunks of states: workers may share the processor

// --- time ---------------------------------------------------------------------------------

static void on_tick(void *arg) {
  struct served_store *served = arg;
  struct store_handle *handle = &served->handle;
  int64_t now_ms = loop_now_ms(served->loop);
  bool is_restless = now_ms - served->restless_ms >= RESTLESS_MS;
  int64_t next_ms = TICK_MS;

  if (is_restless) {
    served->restless_ms = now_ms;
  }
  if (handle->is_closing) {
    if (is_restless) {
      store_handle_retry(handle);
    }
  } else {
    if (!state_follower_run(&served->follower)) {
      next_ms = PAUSE_MS;
    }
    if (is_restless) {
      loader_release_if_idle(&served->loader);
      renewal_run(&served->renewal);
    }
    if (store_is_outgrown(handle->store) || (is_restless && store_is_replaced(handle->store))) {
      store_handle_reopen(handle);
    }
  }
  timer_arm_ms(&served->timer, next_ms);
}

static void on_reopened(void *arg) {
  struct served_store *served = arg;
  renewal_restart(&served->renewal);
  state_follower_restart(&served->follower);
  loader_restart(&served->loader);
  store_tasks_restart(&served->tasks);
}

// --- start and end ------------------------------------------------------------------------

enum status served_store_open(struct served_store **out, struct loop *loop, struct states *states,
                              const struct store_place_options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct served_store *served = calloc(1, sizeof(*served));
  const size_t max = (size_t)options->max_cached;

  *out = NULL;
  if (served == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  served->loop = loop;
  served->handle.on_reopened = on_reopened;
  served->handle.arg = served;
  renewal_init(&served->renewal, &served->loader);
  store_tasks_init(&served->tasks, &served->handle);
  if (name_cache_init(&served->names, loop, &served->follower, max) != STATUS_OK ||
      state_follower_init(&served->follower, &served->handle, served->names.cache, max, states) !=
          STATUS_OK ||
      loader_init(&served->loader, loop, &served->handle, &served->names) != STATUS_OK ||
      timer_init(&served->timer, loop, on_tick, served) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for the store's cache"));
  }
  TRY(store_handle_open(&served->handle, options->path, err));
  *out = served;
  served = NULL;

out:
  served_store_stop(served);
  served_store_free(served);
  return st;
}

enum status served_store_start(struct served_store *served, struct grace *grace,
                               struct worker *const *workers, size_t num_workers,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  served->names.grace = grace;
  TRY(lookup_init(&served->lookup, &served->loader, workers, num_workers));
  TRY(loader_start(&served->loader));
  TRY(store_tasks_start(&served->tasks, served->loop));
  TRY(store_handle_start(&served->handle, grace, num_workers, err));
  renewal_start(&served->renewal);
  timer_arm_ms(&served->timer, TICK_MS);

out:
  return st;
}

void served_store_end_tasks(struct served_store *served) {
  if (served != NULL) {
    store_tasks_end(&served->tasks);
  }
}

void served_store_stop(struct served_store *served) {
  if (served == NULL) {
    return;
  }
  store_tasks_end(&served->tasks);
  loader_stop(&served->loader);
  renewal_stop(&served->renewal);
  timer_cleanup(&served->timer);
  store_handle_close(&served->handle);
}

void served_store_free(struct served_store *served) {
  if (served == NULL) {
    return;
  }
  name_cache_cleanup(&served->names);
  loader_cleanup(&served->loader);
  lookup_cleanup(&served->lookup);
  store_handle_cleanup(&served->handle);
  free(served);
}

// --- what others have of it -----------------------------------------------------------------

void served_store_on_change(struct served_store *served,
                            void (*fn)(void *arg, struct ready *in, struct ready *out), void *arg) {
  served->names.on_change = fn;
  served->names.arg = arg;
}

void served_store_set_site(struct served_store *served, const struct site *site) {
  state_follower_set_site(&served->follower, site);
}

struct lookup *served_store_lookup(struct served_store *served) {
  return served == NULL ? NULL : &served->lookup;
}
