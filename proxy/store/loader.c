// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/loader.h"

#include <stdlib.h>

#include "common/base/log.h"
#include "proxy/handshake/signer.h"

#define RELEASE_EVERY 256  // names, until their pages are given back

// A name that is being read. Control's, but for what the thread fills, until done.
struct load {
  struct job job;
  struct loader *loader;
  struct load *next;  // in its bucket
  struct load *next_held;
  struct load_ask *asks;
  struct cache_query query;
  bool has_wildcard;  // is in the cache already
  // Filled by the thread.
  enum status st;       // of the exact name
  enum status wild_st;  // of the wildcard, when the exact name is absent
  struct ready *ready;
  uint64_t chains_version;  // of what was read
  struct errmsg err;
};

// --- on the thread --------------------------------------------------------------------

static struct store_reader *reader_of(const struct loader *loader) {
  return loader->handle->readers[READER_OF_LOADER];
}

static void release_pages(struct loader *loader) {
  loader->num_mapped = 0;
  store_release_pages(reader_of(loader));
}

enum status loader_begin(struct loader *loader, uint64_t *out_version) {
  enum status st = store_reader_refresh(reader_of(loader));
  if (st == STATUS_OK) {
    *out_version = store_reader_chains_version(reader_of(loader));
  }
  return st;
}

enum status loader_read(struct loader *loader, struct ready **out, struct bytes name,
                        const struct ready_mark *known, struct errmsg *err) {
  return ready_load(out, reader_of(loader), name, known, &signer_method, loader->pool, err);
}

void loader_end(struct loader *loader, size_t num) {
  loader->num_mapped += (unsigned)num;
  if (loader->num_mapped >= RELEASE_EVERY) {
    release_pages(loader);
  }
  store_reader_park(reader_of(loader));
}

static void load_work(void *arg) {
  struct load *load = arg;
  struct loader *loader = load->loader;
  const struct bytes wildcard = load->query.wildcard.text;
  load->st = loader_begin(loader, &load->chains_version);
  if (load->st != STATUS_OK) {
    return;
  }
  load->st = loader_read(loader, &load->ready, load->query.exact.text, NULL, &load->err);
  load->wild_st = STATUS_NOT_FOUND;
  if (load->st == STATUS_NOT_FOUND && wildcard.len > 0 && !load->has_wildcard) {
    load->wild_st = loader_read(loader, &load->ready, wildcard, NULL, &load->err);
  }
  loader_end(loader, 1);
}

static void release_work(void *arg) {
  struct loader *loader = arg;
  if (loader->num_mapped > 0 && store_reader_refresh(reader_of(loader)) == STATUS_OK) {
    release_pages(loader);
    store_reader_park(reader_of(loader));
  }
}

// --- what was found ---------------------------------------------------------------------

static void log_failure(const struct load *load, enum status st) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  if (log_gate_pass(&gate, 5, &num_held)) {
    log_error(0, "name_unreadable", "name=%s status=%s reason=\"%s\" remedy=\"%s\" held=%llu",
              load->query.exact_text, status_name(st), load->err.text, "deputyctl store verify",
              (unsigned long long)num_held);
  }
}

// take_load files what the thread found; the status is what those who wait are told.
static enum status take_load(struct loader *loader, struct load *load) {
  enum status st = load->st;
  struct ready *ready = load->ready;
  load->ready = NULL;
  if (st == STATUS_NOT_FOUND) {
    name_cache_put_absent(loader->names, &load->query.exact, load->chains_version);
    st = load->wild_st == STATUS_NOT_FOUND ? STATUS_OK : load->wild_st;
    if (load->wild_st == STATUS_NOT_FOUND && !load->has_wildcard) {
      if (load->query.wildcard.text.len > 0) {
        name_cache_put_absent(loader->names, &load->query.wildcard, load->chains_version);
      }
      counter_add_own(&loader->num_unknown, 1);
    }
  }
  if (ready != NULL) {
    st = name_cache_put(loader->names, ready) ? STATUS_OK : STATUS_FORMAT;
    loader->has_outdated =
        loader->has_outdated || load->chains_version != store_chains_version(loader->handle->store);
    counter_add_own(&loader->num_loaded, 1);
  }
  if (st != STATUS_OK) {
    counter_add_own(&loader->num_failed, 1);
    log_failure(load, st);
  }
  return st;
}

static void answer(struct load_ask *ask, enum status st) {
  ask->st = st;
  loop_post(ask->loop, ask->on_answered, ask->arg);
}

static void answer_all(struct load *load, enum status st) {
  struct load_ask *ask = load->asks;
  while (ask != NULL) {
    struct load_ask *next = ask->next;
    answer(ask, st);
    ask = next;
  }
}

static void start_load(struct loader *loader, struct load *load);

static void load_done(void *arg) {
  struct load *load = arg;
  struct loader *loader = load->loader;
  if (load->st == STATUS_UNAVAILABLE) {  // the file has outgrown the map
    store_handle_reopen(loader->handle);
    start_load(loader, load);
    store_handle_leave(loader->handle);
    return;
  }
  struct load **at = &loader->buckets[load->query.exact.hash % LOADER_NUM_BUCKETS];
  while (*at != load) {
    at = &(*at)->next;
  }
  *at = load->next;
  answer_all(load, take_load(loader, load));
  free(load);
  loader_done(loader);
}

// --- what is asked ----------------------------------------------------------------------

static void copy_query(struct cache_query *out, const struct cache_query *query) {
  *out = *query;
  out->exact.text.data = (const uint8_t *)out->exact_text;
  out->wildcard.text.data = (const uint8_t *)out->wildcard_text;
}

void load_ask_set(struct load_ask *ask, const struct cache_query *query) {
  copy_query(&ask->query, query);
}

static void start_load(struct loader *loader, struct load *load) {
  struct ready *known = NULL;
  if (loader->handle->is_closing) {
    load->next_held = loader->held;
    loader->held = load;
    return;
  }
  load->has_wildcard =
      load->query.wildcard.text.len > 0 &&
      cache_find(loader->names->cache, &known, &load->query.wildcard, loop_now_ms(loader->loop),
                 store_chains_version(loader->handle->store)) == CACHE_READY;
  loader_run(loader, &load->job);
}

static struct load *find_load(const struct loader *loader, const struct cache_host *host) {
  struct load *load = loader->buckets[host->hash % LOADER_NUM_BUCKETS];
  while (load != NULL && !(load->query.exact.hash == host->hash &&
                           bytes_equal(load->query.exact.text, host->text))) {
    load = load->next;
  }
  return load;
}

// A load that ended while the ask was under way has put into the cache what is asked for.
static bool is_answered(const struct loader *loader, const struct load_ask *ask) {
  const struct store *store = store_handle_shown(loader->handle);
  struct ready *known = NULL;
  return cache_find_host(loader->names->cache, &known, &ask->query, loop_now_ms(loader->loop),
                         store != NULL ? store_chains_version(store) : 0) != CACHE_MISS;
}

void loader_on_ask(void *arg) {
  struct load_ask *ask = arg;
  struct loader *loader = ask->loader;
  struct load *load = find_load(loader, &ask->query.exact);
  if (load != NULL) {
    ask->next = load->asks;
    load->asks = ask;
    return;
  }
  if (is_answered(loader, ask)) {
    answer(ask, STATUS_OK);
    return;
  }
  load = calloc(1, sizeof(*load));
  if (load == NULL) {
    answer(ask, STATUS_MEMORY);
    return;
  }
  struct load **bucket = &loader->buckets[ask->query.exact.hash % LOADER_NUM_BUCKETS];
  load->job = (struct job){.work = load_work, .done = load_done, .arg = load};
  load->loader = loader;
  copy_query(&load->query, &ask->query);
  ask->next = NULL;
  load->asks = ask;
  load->next = *bucket;
  *bucket = load;
  start_load(loader, load);
}

void loader_restart(struct loader *loader) {
  struct load *load = loader->held;
  loader->held = NULL;
  while (load != NULL) {
    struct load *next = load->next_held;
    start_load(loader, load);
    load = next;
  }
}

// --- jobs -------------------------------------------------------------------------------

void loader_run(struct loader *loader, struct job *job) {
  store_handle_use(loader->handle);
  jobs_start(loader->jobs, job);
}

void loader_done(struct loader *loader) {
  loader->has_mapped = true;
  store_handle_leave(loader->handle);
}

static void release_done(void *arg) {
  struct loader *loader = arg;
  store_handle_leave(loader->handle);
}

void loader_release_if_idle(struct loader *loader) {
  if (loader->has_mapped && loader->handle->num_jobs == 0) {
    loader->has_mapped = false;
    loader_run(loader, &loader->release);
  }
}

// --- start and end ----------------------------------------------------------------------

enum status loader_init(struct loader *loader, struct loop *loop, struct store_handle *handle,
                        struct name_cache *names) {
  loader->loop = loop;
  loader->handle = handle;
  loader->names = names;
  loader->release = (struct job){.work = release_work, .done = release_done, .arg = loader};
  loader->pool = cert_pool_new();
  return loader->pool == NULL ? STATUS_MEMORY : STATUS_OK;
}

enum status loader_start(struct loader *loader) { return jobs_new(&loader->jobs, loader->loop); }

void loader_stop(struct loader *loader) {
  jobs_free(loader->jobs);
  loader->jobs = NULL;
  for (size_t i = 0; i < LOADER_NUM_BUCKETS; i++) {
    while (loader->buckets[i] != NULL) {
      struct load *load = loader->buckets[i];
      loader->buckets[i] = load->next;
      ready_unref(load->ready);
      free(load);
    }
  }
  loader->held = NULL;
}

void loader_cleanup(struct loader *loader) {
  cert_pool_free(loader->pool);
  loader->pool = NULL;
}
