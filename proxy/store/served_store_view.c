// SPDX-License-Identifier: Apache-2.0
// What a served store tells, and what the admin API asks of it.
#include "common/base/clock.h"
#include "proxy/store/served_store_internal.h"

// --- the admin API ------------------------------------------------------------------------

static enum status start_task(void *arg, struct store_task *task) {
  struct served_store *served = arg;
  return store_tasks_add(&served->tasks, task);
}

static bool must_let_go(void *arg) {
  const struct served_store *served = arg;
  return atomic_load(&served->handle.must_let_go);
}

static void catch_up(void *arg) {
  struct served_store *served = arg;
  state_follower_catch_up(&served->follower);
}

static const struct cert_name *find_in_cache(void *arg, const char *name) {
  struct served_store *served = arg;
  const struct cache *cache = served->names.cache;
  struct ready *ready = NULL;
  const struct cache_host host = cache_host_of(cache, bytes_text(name));
  if (served->handle.is_closing ||
      cache_find(cache, &ready, &host, loop_now_ms(served->loop),
                 store_chains_version(served->handle.store)) != CACHE_READY) {
    return NULL;
  }
  return state_follower_update(&served->follower, ready) ? &ready->name : NULL;
}

// count_records is of the newest snapshot. False: the store is not open.
static bool count_records(struct served_store *served, struct store_counts *out) {
  uint64_t version = 0;
  *out = (struct store_counts){0};
  if (served->handle.is_closing || !store_handle_refresh(&served->handle, &version)) {
    return false;
  }
  store_count_records(out, served->handle.readers[READER_OF_CONTROL]);
  store_handle_park(&served->handle);
  return true;
}

static uint64_t count_names(void *arg) {
  struct store_counts counts;
  return count_records(arg, &counts) ? counts.num_names : 0;
}

struct store_host served_store_host(struct served_store *served) {
  return (struct store_host){.arg = served,
                             .start = start_task,
                             .must_let_go = must_let_go,
                             .catch_up = catch_up,
                             .find = find_in_cache,
                             .count_names = count_names};
}

void served_store_add_status(struct served_store *served, json_t *object) {
  struct store_counts counts;
  struct cache_counts cached;
  bool is_open = count_records(served, &counts);
  cache_count(served->names.cache, &cached);
  (void)json_object_set_new(
      object, "store",
      json_pack("{s:s,s:b,s:b,s:I,s:I,s:I,s:I,s:I}", "path", served->handle.folder, "is_open",
                is_open, "may_switch", is_open && store_may_write_states(served->handle.store),
                "names", (json_int_t)counts.num_names, "chains", (json_int_t)counts.num_chains,
                "subjects", (json_int_t)counts.num_subjects, "changes",
                (json_int_t)counts.num_changes, "cached", (json_int_t)cached.num_ready));
}

// --- metrics --------------------------------------------------------------------------------

// Seconds left, and not the time: an alert then needs no clock of its own.
static void put_life_left(struct served_store *served, struct metrics_text *text) {
  const char *family = "deputy_proxy_store_seconds_left";
  struct life_left *left = &served->life_left;
  const int64_t now_s = clock_wall_s();

  life_left_look(left, served->names.cache);
  metrics_family(text, family, METRIC_GAUGE,
                 "Seconds until the first end of a certificate, a staple, a delegated credential "
                 "among the names of the store that are in memory; nothing where there is none.");
  for (unsigned life = 0; life < LIFE_NUM; life++) {
    if (left->told_s[life] != 0) {
      metrics_sample(text, family, (double)(left->told_s[life] - now_s), "of",
                     life_name((enum life)life), NULL);
    }
  }
}

void served_store_write_metrics(struct served_store *served, struct metrics_text *text) {
  struct cache_counts counts;
  cache_count(served->names.cache, &counts);
  metrics_family(text, "deputy_proxy_store_loads_total", METRIC_COUNTER,
                 "Names looked for in the store, by what came of it.");
  metrics_sample(text, "deputy_proxy_store_loads_total",
                 (double)counter_get(&served->loader.num_loaded), "result", "found", NULL);
  metrics_sample(text, "deputy_proxy_store_loads_total",
                 (double)counter_get(&served->loader.num_unknown), "result", "absent", NULL);
  metrics_sample(text, "deputy_proxy_store_loads_total",
                 (double)counter_get(&served->loader.num_failed), "result", "failed", NULL);
  metrics_one(text, "deputy_proxy_store_renewed_total", METRIC_COUNTER,
              "Names in the cache that were made ready anew after an import.",
              (double)counter_get(&served->renewal.num_renewed));
  metrics_one(text, "deputy_proxy_store_reopened_total", METRIC_COUNTER,
              "Times the store was opened anew after a compaction.",
              (double)counter_get(&served->handle.num_reopened));
  metrics_one(text, "deputy_proxy_store_is_open", METRIC_GAUGE,
              "1 while the store is open; 0: names in the cache alone are served.",
              served->handle.store != NULL && !served->handle.is_closing ? 1 : 0);
  metrics_one(text, "deputy_proxy_store_loading", METRIC_GAUGE, "Names that are being read.",
              (double)served->handle.num_jobs);
  metrics_one(text, "deputy_proxy_store_cached", METRIC_GAUGE, "Ready names in the cache.",
              (double)counts.num_ready);
  metrics_one(text, "deputy_proxy_store_cached_absent", METRIC_GAUGE, "Unknown names in the cache.",
              (double)counts.num_absent);
  metrics_one(text, "deputy_proxy_store_evicted_total", METRIC_COUNTER,
              "Ready names that made room for others.", (double)counts.num_evicted);
  put_life_left(served, text);
}
