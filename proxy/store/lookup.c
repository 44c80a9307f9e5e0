// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/lookup.h"

#include <openssl/pool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/job.h"
#include "proxy/connection/conn.h"
#include "proxy/handshake/signer.h"
#include "proxy/worker.h"

#define TICK_MS 100          // between two looks at the versions of the store
#define RESTLESS_MS 1000     // between two looks at the folder, and at what was imported
#define MAX_ASKS 256         // names that one worker waits for
#define MAX_TRIES 3          // loads for one handshake: its name may be evicted at once
#define ABSENT_FIRM_MS 1000  // an unknown name stays unknown, whatever is imported
#define ABSENT_MS 30000      // and so long if nothing is
#define ABSENT_PER_READY 4   // places for unknown names, to one for a known name
#define STATES_MIN_CHUNK 16  // names whose words are brought up to date in one go,
#define STATES_MAX_CHUNK 512
#define STATES_CHUNKS 512  // in so many: nothing waits for it, and workers may share the
#define STATES_PAUSE_MS 5  // processor with control
#define RELEASE_EVERY 256  // loads, until their pages are given back
#define RENEWAL_CHUNK 64   // names that one job compares with the store
#define NUM_BUCKETS 256    // of loads under way

// A name that connections of one worker wait for. The worker's, but for the time from
// its post to control until the post back.
struct ask {
  struct desk *desk;
  struct ask *next;  // free ones of the desk; then those of one load
  struct looking *waiting;
  enum status st;
  bool is_used;
  struct cache_query query;
};

// What one worker has of its own.
struct desk {
  struct lookup *lookup;
  struct worker *worker;
  struct store_reader *reader;  // for the words of states
  struct ask *free;
  struct ask asks[MAX_ASKS];
};

// A name that is being read. Control's, but for `out` (the loader's until done).
struct load {
  struct job job;
  struct lookup *lookup;
  struct load *next;  // in its bucket
  struct load *next_held;
  struct ask *asks;
  struct cache_query query;
  bool has_wildcard;  // is in the cache already
  // Filled by the loader.
  enum status st;       // of the exact name
  enum status wild_st;  // of the wildcard, when the exact name is absent
  struct ready *ready;
  uint64_t chains_version;  // of what was read
  struct errmsg err;
};

// Ready names that are compared with the store.
struct renewal {
  struct job job;
  struct lookup *lookup;
  struct ready *names[RENEWAL_CHUNK];
  struct ready *made[RENEWAL_CHUNK];
  enum status st[RENEWAL_CHUNK];
  size_t num;
  size_t at;  // cache_each; 0: a round is over
  bool is_running;
  uint64_t version;  // of the chains, the earliest that the round has read
};

// Tasks of one kind: one after the other, on a thread of their own.
struct tasks {
  struct jobs *jobs;
  struct store_reader *reader;  // theirs
  struct store_task *first;     // while the store is opened anew
  struct store_task **last;
  size_t num;  // handed over, not done
};

struct lookup {
  struct loop *loop;
  struct grace *grace;
  struct states *states;
  struct state *fleet;
  const struct site *site;
  struct jobs *jobs;
  struct timer timer;
  char *folder;
  struct cache *cache;
  void (*on_change)(void *arg, struct ready *in, struct ready *out);
  void *on_change_arg;
  struct ready *entering;    // while it is put into the cache, and has not been told of
  CRYPTO_BUFFER_POOL *pool;  // intermediates are kept once

  struct store *store;            // control's
  _Atomic(struct store *) shown;  // workers'; NULL while it is opened anew
  struct store_reader *reader;    // control's: words
  struct store_reader *loader;    // the loader's: chains
  unsigned num_mapped;            // the loader's: loads whose pages are mapped
  struct tasks tasks[STORE_TASK_NUM_KINDS];
  _Atomic bool must_let_go;  // tasks are waited for
  struct desk *desks;
  size_t num_desks;

  struct load *buckets[NUM_BUCKETS];
  struct load *held;  // while the store is opened anew
  size_t num_jobs;
  struct job release;
  bool has_mapped;  // loads since the last release
  struct renewal renewal;
  uint64_t renewed_version;  // of the chains, that all names in the cache have
  bool must_renew;           // a name has come that was read before the latest import
  int64_t restless_ms;
  bool is_closing;  // the store is to be opened anew
  bool is_quiet;    // and no worker uses it any more

  // States of configured names and the fleet.
  _Atomic uint64_t config_version;
  _Atomic int64_t config_end_s;
  size_t states_chunk;
  bool is_walking;
  size_t walk_at;
  uint64_t walk_version;
  int64_t walk_end_s;
  uint64_t walked_version;
  int64_t walked_end_s;  // the first end of a word in memory; 0: none

  struct counter num_loaded, num_unknown, num_failed, num_renewed, num_reopened;
};

static int64_t sooner(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

// --- states (control) ------------------------------------------------------------------

// refresh_own moves control's reader to the newest snapshot, of *out_version.
static bool refresh_own(struct lookup *lookup, uint64_t *out_version) {
  if (store_reader_refresh(lookup->reader) != STATUS_OK) {
    return false;
  }
  *out_version = store_reader_states_version(lookup->reader);
  return true;
}

// put_words brings one ready name up to date with control's reader.
static bool put_words(struct lookup *lookup, struct ready *ready, uint64_t version,
                      int64_t *out_end_s) {
  struct certstore_words words;
  enum status st =
      ready_read_words(&words, out_end_s, lookup->reader, &ready->name, clock_wall_s());
  if (st != STATUS_OK) {
    static struct log_gate gate;
    uint64_t num_held = 0;
    if (log_gate_pass(&gate, 1, &num_held)) {
      log_error(0, "states_unreadable", "name=%s reason=%s remedy=\"deputyctl store verify\"",
                ready->name.name, status_name(st));
    }
    return false;
  }
  // The version of a name vouches for the fleet's words as well.
  state_put_words(lookup->fleet, &words.fleet);
  ready_put_words(ready, &words, *out_end_s, version);
  return true;
}

static void put_words_of_chain(struct lookup *lookup, const struct chain *chain,
                               const struct state *key, const struct state *ca) {
  char hex[65];
  struct state *own = NULL;
  own = states_get(lookup->states, STATE_LEVEL_KEY,
                   bytes_to_hex(hex, bytes_of(chain->info.key_id, 32)));
  if (own != NULL) {
    state_put_words(own, key);
  }
  own = states_get(lookup->states, STATE_LEVEL_CA,
                   bytes_to_hex(hex, bytes_of(chain->info.ca_id, 32)));
  if (own != NULL) {
    state_put_words(own, ca);
  }
}

static int64_t put_words_of_configured(struct lookup *lookup, const struct cert_name *name,
                                       int64_t now_s) {
  struct certstore_words words;
  int64_t end_s = 0;
  struct state *own = states_get(lookup->states, STATE_LEVEL_NAME, name->name);
  if (own == NULL || ready_read_words(&words, &end_s, lookup->reader, name, now_s) != STATUS_OK) {
    return 0;
  }
  state_put_words(lookup->fleet, &words.fleet);
  state_put_words(own, &words.name);
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      put_words_of_chain(lookup, name->levels[i].chains[j], &words.keys[i][j], &words.cas[i][j]);
    }
  }
  return end_s;
}

// put_words_of_fleet is for when there are no configured names, and none in the cache.
static int64_t put_words_of_fleet(struct lookup *lookup, int64_t now_s) {
  struct store_words said;
  struct state words = {0};
  if (store_get_words(lookup->reader, &said, STATE_LEVEL_FLEET, (struct bytes){0}, now_s) !=
      STATUS_OK) {
    return 0;
  }
  atomic_init(&words.preferred, said.preferred);
  atomic_init(&words.is_dc_off, said.is_dc_off);
  state_put_words(lookup->fleet, &words);
  return said.until_s;
}

// A handful of names: all at once. The version is shown when all words are in place.
static int64_t put_words_of_site(struct lookup *lookup, uint64_t version) {
  int64_t now_s = clock_wall_s();
  int64_t end_s = 0;
  size_t num = 0;
  const struct cert_name *const *names = NULL;
  if (lookup->site == NULL) {
    return 0;
  }
  end_s = put_words_of_fleet(lookup, now_s);
  names = certstore_names(lookup->site->store, &num);
  for (size_t i = 0; i < num; i++) {
    end_s = sooner(end_s, put_words_of_configured(lookup, names[i], now_s));
  }
  atomic_store_explicit(&lookup->config_end_s, end_s, memory_order_relaxed);
  atomic_store_explicit(&lookup->config_version, version, memory_order_release);
  return end_s;
}

// walk_states brings the next few names of the cache up to date; false: not all yet.
static bool walk_states(struct lookup *lookup) {
  struct ready *names[STATES_MAX_CHUNK];
  uint64_t version = 0;
  if (!refresh_own(lookup, &version)) {
    return true;  // the next tick tries again
  }
  if (!lookup->is_walking) {
    lookup->is_walking = true;
    lookup->walk_at = 0;
    lookup->walk_version = version;
    lookup->walk_end_s = put_words_of_site(lookup, version);
  }
  size_t num = cache_each(lookup->cache, &lookup->walk_at, names, lookup->states_chunk);
  for (size_t i = 0; i < num; i++) {
    int64_t end_s = 0;
    (void)put_words(lookup, names[i], version, &end_s);
    lookup->walk_end_s = sooner(lookup->walk_end_s, end_s);
  }
  store_reader_park(lookup->reader);
  if (lookup->walk_at != 0) {
    return false;
  }
  lookup->is_walking = false;
  lookup->walked_version = lookup->walk_version;
  lookup->walked_end_s = lookup->walk_end_s;
  return true;
}

static bool has_news(const struct lookup *lookup) {
  return lookup->is_walking || lookup->walked_version != store_states_version(lookup->store) ||
         (lookup->walked_end_s != 0 && clock_wall_s() >= lookup->walked_end_s);
}

// --- what leaves the cache ------------------------------------------------------------

static void drop_ready(void *arg) { ready_unref(arg); }

static void tell_change(struct lookup *lookup, struct ready *in, struct ready *out) {
  if (lookup->on_change != NULL) {
    lookup->on_change(lookup->on_change_arg, in, out);
  }
}

static void retire_ready(void *arg, struct ready *ready) {
  struct lookup *lookup = arg;
  struct ready *in = lookup->entering;
  if (in != NULL && strcmp(in->name.name, ready->name.name) == 0) {
    lookup->entering = NULL;
    tell_change(lookup, in, ready);
  } else {
    tell_change(lookup, NULL, ready);
  }
  grace_after(lookup->grace, drop_ready, ready);
}

static void retire_absent(void *arg, struct cache_absent *absent) {
  struct lookup *lookup = arg;
  grace_after(lookup->grace, free, absent);
}

// publish puts a name that was made into the cache, with its words; taken. False:
// its states cannot be read, and without them nothing may be served.
static bool publish(struct lookup *lookup, struct ready *ready) {
  uint64_t version = 0;
  int64_t end_s = 0;
  bool is_good = refresh_own(lookup, &version) && put_words(lookup, ready, version, &end_s);
  store_reader_park(lookup->reader);
  if (!is_good) {
    ready_unref(ready);
    return false;
  }
  lookup->walked_end_s = sooner(lookup->walked_end_s, end_s);
  lookup->walk_end_s = sooner(lookup->walk_end_s, end_s);
  lookup->entering = ready;
  cache_put(lookup->cache, ready);
  if (lookup->entering != NULL) {
    lookup->entering = NULL;
    tell_change(lookup, ready, NULL);
  }
  return true;
}

// --- loads ----------------------------------------------------------------------------

// release_pages lets the kernel have back what loads have mapped (store_pages.c).
static void release_pages(struct lookup *lookup) {
  lookup->num_mapped = 0;
  store_release_pages(lookup->loader);
}

static void load_work(void *arg) {
  struct load *load = arg;
  struct lookup *lookup = load->lookup;
  load->st = store_reader_refresh(lookup->loader);
  if (load->st != STATUS_OK) {
    return;
  }
  load->chains_version = store_reader_chains_version(lookup->loader);
  load->st = ready_load(&load->ready, lookup->loader, load->query.exact.text, NULL, &signer_method,
                        lookup->pool, &load->err);
  load->wild_st = STATUS_NOT_FOUND;
  if (load->st == STATUS_NOT_FOUND && load->query.wildcard.text.len > 0 && !load->has_wildcard) {
    load->wild_st = ready_load(&load->ready, lookup->loader, load->query.wildcard.text, NULL,
                               &signer_method, lookup->pool, &load->err);
  }
  lookup->num_mapped += 1;
  if (lookup->num_mapped >= RELEASE_EVERY) {
    release_pages(lookup);
  }
  store_reader_park(lookup->loader);
}

static void note_absent(struct lookup *lookup, const struct cache_host *host, uint64_t version) {
  int64_t now_ms = loop_now_ms(lookup->loop);
  // Without memory the next handshake asks again.
  (void)!cache_put_absent(lookup->cache, host, now_ms + ABSENT_FIRM_MS, now_ms + ABSENT_MS,
                          version);
}

static void log_failure(const struct load *load, enum status st) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  if (log_gate_pass(&gate, 5, &num_held)) {
    log_error(0, "name_unreadable", "name=%s status=%s reason=\"%s\" remedy=\"%s\" held=%llu",
              load->query.exact_text, status_name(st), load->err.text, "deputyctl store verify",
              (unsigned long long)num_held);
  }
}

// take_load files what the loader found; the status is what those who wait are told.
static enum status take_load(struct lookup *lookup, struct load *load) {
  enum status st = load->st;
  struct ready *ready = load->ready;
  load->ready = NULL;
  if (st == STATUS_NOT_FOUND) {
    note_absent(lookup, &load->query.exact, load->chains_version);
    st = load->wild_st == STATUS_NOT_FOUND ? STATUS_OK : load->wild_st;
    if (load->wild_st == STATUS_NOT_FOUND && !load->has_wildcard) {
      if (load->query.wildcard.text.len > 0) {
        note_absent(lookup, &load->query.wildcard, load->chains_version);
      }
      counter_add_own(&lookup->num_unknown, 1);
    }
  }
  if (ready != NULL) {
    st = publish(lookup, ready) ? STATUS_OK : STATUS_FORMAT;
    lookup->must_renew =
        lookup->must_renew || load->chains_version != store_chains_version(lookup->store);
    counter_add_own(&lookup->num_loaded, 1);
  }
  if (st != STATUS_OK) {
    counter_add_own(&lookup->num_failed, 1);
    log_failure(load, st);
  }
  return st;
}

static void reopen_if_quiet(struct lookup *lookup);
static void begin_reopen(struct lookup *lookup);
static void start_load(struct lookup *lookup, struct load *load);
static void on_answered(void *arg);

static void answer_all(struct load *load, enum status st) {
  struct ask *ask = load->asks;
  while (ask != NULL) {
    struct ask *next = ask->next;
    ask->st = st;
    loop_post(ask->desk->worker->loop, on_answered, ask);
    ask = next;
  }
}

static void load_done(void *arg) {
  struct load *load = arg;
  struct lookup *lookup = load->lookup;
  if (load->st == STATUS_UNAVAILABLE) {  // the file has outgrown the map
    lookup->num_jobs -= 1;
    begin_reopen(lookup);
    start_load(lookup, load);
    reopen_if_quiet(lookup);
    return;
  }
  struct load **at = &lookup->buckets[load->query.exact.hash % NUM_BUCKETS];
  while (*at != load) {
    at = &(*at)->next;
  }
  *at = load->next;
  answer_all(load, take_load(lookup, load));
  free(load);
  lookup->num_jobs -= 1;
  lookup->has_mapped = true;
  reopen_if_quiet(lookup);
}

// Once no name is being read, of the last ones too.
static void release_work(void *arg) {
  struct lookup *lookup = arg;
  if (lookup->num_mapped > 0 && store_reader_refresh(lookup->loader) == STATUS_OK) {
    release_pages(lookup);
    store_reader_park(lookup->loader);
  }
}

static void release_done(void *arg) {
  struct lookup *lookup = arg;
  lookup->num_jobs -= 1;
  reopen_if_quiet(lookup);
}

static void release_if_idle(struct lookup *lookup) {
  if (lookup->has_mapped && lookup->num_jobs == 0) {
    lookup->has_mapped = false;
    lookup->num_jobs += 1;
    jobs_start(lookup->jobs, &lookup->release);
  }
}

static void start_load(struct lookup *lookup, struct load *load) {
  struct ready *known = NULL;
  if (lookup->is_closing) {
    load->next_held = lookup->held;
    lookup->held = load;
    return;
  }
  load->has_wildcard =
      load->query.wildcard.text.len > 0 &&
      cache_find(lookup->cache, &known, &load->query.wildcard, loop_now_ms(lookup->loop),
                 store_chains_version(lookup->store)) == CACHE_READY;
  lookup->num_jobs += 1;
  jobs_start(lookup->jobs, &load->job);
}

static void copy_query(struct cache_query *out, const struct cache_query *query) {
  *out = *query;
  out->exact.text.data = (const uint8_t *)out->exact_text;
  out->wildcard.text.data = (const uint8_t *)out->wildcard_text;
}

// on_asked: a worker misses a name. One that is being read already is not read twice.
static void on_asked(void *arg) {
  struct ask *ask = arg;
  struct lookup *lookup = ask->desk->lookup;
  const struct cache_host *host = &ask->query.exact;
  struct load **bucket = &lookup->buckets[host->hash % NUM_BUCKETS];
  struct load *load = *bucket;
  while (load != NULL && !(load->query.exact.hash == host->hash &&
                           bytes_equal(load->query.exact.text, host->text))) {
    load = load->next;
  }
  if (load != NULL) {
    ask->next = load->asks;
    load->asks = ask;
    return;
  }
  load = calloc(1, sizeof(*load));
  if (load == NULL) {
    ask->st = STATUS_MEMORY;
    loop_post(ask->desk->worker->loop, on_answered, ask);
    return;
  }
  load->job = (struct job){.work = load_work, .done = load_done, .arg = load};
  load->lookup = lookup;
  copy_query(&load->query, &ask->query);
  ask->next = NULL;
  load->asks = ask;
  load->next = *bucket;
  *bucket = load;
  start_load(lookup, load);
}

// --- renewal: names in the cache that the store has changed -----------------------------

static void renewal_work(void *arg) {
  struct renewal *renewal = arg;
  struct lookup *lookup = renewal->lookup;
  enum status st = store_reader_refresh(lookup->loader);
  for (size_t i = 0; i < renewal->num; i++) {
    const struct ready *name = renewal->names[i];
    struct errmsg err = {0};
    renewal->made[i] = NULL;
    renewal->st[i] = st != STATUS_OK ? st
                                     : ready_load(&renewal->made[i], lookup->loader,
                                                  bytes_of(name->name.name, name->name_len),
                                                  &name->mark, &signer_method, lookup->pool, &err);
  }
  // A round vouches for the earliest that it has read; 0: for nothing.
  uint64_t version = st == STATUS_OK ? store_reader_chains_version(lookup->loader) : 0;
  renewal->version = version < renewal->version ? version : renewal->version;
  if (st == STATUS_OK) {
    lookup->num_mapped += (unsigned)renewal->num;
    if (lookup->num_mapped >= RELEASE_EVERY) {
      release_pages(lookup);
    }
    store_reader_park(lookup->loader);
  }
}

static void take_renewed(struct lookup *lookup, size_t i) {
  struct renewal *renewal = &lookup->renewal;
  const struct ready *name = renewal->names[i];
  const struct cache_host host = {name->hash, bytes_of(name->name.name, name->name_len)};
  if (renewal->st[i] == STATUS_NOT_FOUND) {
    note_absent(lookup, &host, renewal->version);
  } else if (renewal->made[i] != NULL) {
    counter_add_own(&lookup->num_renewed, 1);
    (void)publish(lookup, renewal->made[i]);  // else the earlier one serves on
  }
}

static void renew_next(struct lookup *lookup);

static void renewal_done(void *arg) {
  struct renewal *renewal = arg;
  struct lookup *lookup = renewal->lookup;
  for (size_t i = 0; i < renewal->num; i++) {
    take_renewed(lookup, i);
    ready_unref(renewal->names[i]);
  }
  renewal->is_running = false;
  lookup->num_jobs -= 1;
  lookup->has_mapped = true;
  if (renewal->at == 0) {
    lookup->renewed_version = renewal->version;
  } else if (!lookup->is_closing) {
    renew_next(lookup);
  }
  reopen_if_quiet(lookup);
}

static void renew_next(struct lookup *lookup) {
  struct renewal *renewal = &lookup->renewal;
  renewal->num = cache_each(lookup->cache, &renewal->at, renewal->names, RENEWAL_CHUNK);
  for (size_t i = 0; i < renewal->num; i++) {
    (void)ready_ref(renewal->names[i]);
  }
  renewal->is_running = true;
  lookup->num_jobs += 1;
  jobs_start(lookup->jobs, &renewal->job);
}

static void renew_if_changed(struct lookup *lookup) {
  bool is_due =
      lookup->must_renew || store_chains_version(lookup->store) != lookup->renewed_version;
  if (!lookup->renewal.is_running && is_due) {
    lookup->must_renew = false;
    lookup->renewal.at = 0;
    lookup->renewal.version = UINT64_MAX;
    renew_next(lookup);
  }
}

// --- opening and closing ----------------------------------------------------------------

static void close_store(struct lookup *lookup) {
  for (size_t i = 0; i < lookup->num_desks; i++) {
    store_reader_free(lookup->desks[i].reader);
    lookup->desks[i].reader = NULL;
  }
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    store_reader_free(lookup->tasks[i].reader);
    lookup->tasks[i].reader = NULL;
  }
  store_reader_free(lookup->reader);
  store_reader_free(lookup->loader);
  lookup->reader = NULL;
  lookup->loader = NULL;
  store_close(lookup->store);
  lookup->store = NULL;
}

static enum status new_reader(struct store_reader **out, struct store *store, struct errmsg *err) {
  enum status st = store_reader_new(out, store, err);
  if (st == STATUS_OK) {
    store_reader_park(*out);
  }
  return st;
}

// open_at_best opens it so that switches can be made here, if the folder lets us.
static enum status open_at_best(struct lookup *lookup, struct errmsg *err) {
  struct store_options options = {.mode = STORE_STATES, .is_serving = true};
  enum status st = store_open(&lookup->store, lookup->folder, &options, err);
  if (st == STATUS_SYSTEM) {
    options.mode = STORE_READ;
    st = store_open(&lookup->store, lookup->folder, &options, err);
    if (st == STATUS_OK) {
      log_warn(0, "store_is_read_only", "folder=%s effect=no_switches_by_the_admin_api",
               lookup->folder);
    }
  }
  return st;
}

static enum status open_store(struct lookup *lookup, struct errmsg *err) {
  enum status st = STATUS_OK;

  TRY(open_at_best(lookup, err));
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    TRY(new_reader(&lookup->tasks[i].reader, lookup->store, err));
  }
  TRY(new_reader(&lookup->reader, lookup->store, err));
  TRY(new_reader(&lookup->loader, lookup->store, err));
  for (size_t i = 0; i < lookup->num_desks; i++) {
    TRY(new_reader(&lookup->desks[i].reader, lookup->store, err));
  }

out:
  if (st != STATUS_OK) {
    close_store(lookup);
  }
  return st;
}

static void restart_held(struct lookup *lookup) {
  struct load *load = lookup->held;
  lookup->held = NULL;
  while (load != NULL) {
    struct load *next = load->next_held;
    start_load(lookup, load);
    load = next;
  }
}

// --- tasks ------------------------------------------------------------------------------

static void task_work(void *arg) {
  struct store_task *task = arg;
  struct lookup *lookup = task->lookup;
  struct store_reader *reader = lookup->tasks[task->kind].reader;
  task->st = store_reader_refresh(reader);
  if (task->st == STATUS_OK) {
    task->work(task->arg, lookup->store, reader);
    store_reader_park(reader);
  }
}

static void start_or_hold(struct lookup *lookup, struct store_task *task) {
  struct tasks *tasks = &lookup->tasks[task->kind];
  if (lookup->is_closing) {
    task->next = NULL;
    *tasks->last = task;
    tasks->last = &task->next;
    return;
  }
  lookup->num_jobs += 1;
  jobs_start(tasks->jobs, &task->job);
}

static void task_done(void *arg) {
  struct store_task *task = arg;
  struct lookup *lookup = task->lookup;
  lookup->num_jobs -= 1;
  if (task->st == STATUS_UNAVAILABLE) {  // the file has outgrown the map
    begin_reopen(lookup);
    start_or_hold(lookup, task);
  } else {
    lookup->tasks[task->kind].num -= 1;
    task->done(task->arg, task->st);
  }
  reopen_if_quiet(lookup);
}

static enum status start_task(void *arg, struct store_task *task) {
  struct lookup *lookup = arg;
  struct tasks *tasks = &lookup->tasks[task->kind];
  if (tasks->num >= STORE_TASK_MAX_WAITING) {
    return STATUS_UNAVAILABLE;
  }
  task->job = (struct job){.work = task_work, .done = task_done, .arg = task};
  task->lookup = lookup;
  tasks->num += 1;
  start_or_hold(lookup, task);
  return STATUS_OK;
}

static void restart_tasks(struct lookup *lookup) {
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    struct store_task *task = lookup->tasks[i].first;
    lookup->tasks[i].first = NULL;
    lookup->tasks[i].last = &lookup->tasks[i].first;
    while (task != NULL) {
      struct store_task *next = task->next;
      start_or_hold(lookup, task);
      task = next;
    }
  }
}

static bool must_let_go(void *arg) {
  const struct lookup *lookup = arg;
  return atomic_load(&lookup->must_let_go);
}

static void catch_up(void *arg) {
  struct lookup *lookup = arg;
  uint64_t version = 0;
  int64_t end_s = atomic_load_explicit(&lookup->config_end_s, memory_order_relaxed);
  if (lookup->is_closing || !refresh_own(lookup, &version)) {
    return;
  }
  if (atomic_load_explicit(&lookup->config_version, memory_order_relaxed) != version ||
      (end_s != 0 && clock_wall_s() >= end_s)) {
    lookup->walked_end_s = sooner(lookup->walked_end_s, put_words_of_site(lookup, version));
  }
  store_reader_park(lookup->reader);
}

static const struct cert_name *find_in_cache(void *arg, const char *name) {
  struct lookup *lookup = arg;
  struct ready *ready = NULL;
  uint64_t version = 0;
  int64_t end_s = 0;
  const struct cache_host host = cache_host_of(lookup->cache, bytes_text(name));
  if (lookup->is_closing || cache_find(lookup->cache, &ready, &host, loop_now_ms(lookup->loop),
                                       store_chains_version(lookup->store)) != CACHE_READY) {
    return NULL;
  }
  bool is_current = refresh_own(lookup, &version) && put_words(lookup, ready, version, &end_s);
  store_reader_park(lookup->reader);
  return is_current ? &ready->name : NULL;
}

static uint64_t count_names(void *arg) {
  struct lookup *lookup = arg;
  struct store_counts counts = {0};
  uint64_t version = 0;
  if (!lookup->is_closing && refresh_own(lookup, &version)) {
    store_count_records(&counts, lookup->reader);
    store_reader_park(lookup->reader);
  }
  return counts.num_names;
}

struct store_host lookup_store_host(struct lookup *lookup) {
  return (struct store_host){.arg = lookup,
                             .start = start_task,
                             .must_let_go = must_let_go,
                             .catch_up = catch_up,
                             .find = find_in_cache,
                             .count_names = count_names};
}

void lookup_add_status(struct lookup *lookup, json_t *object) {
  struct store_counts counts = {0};
  struct cache_counts cached;
  uint64_t version = 0;
  bool is_open = lookup->store != NULL && !lookup->is_closing && refresh_own(lookup, &version);
  cache_count(lookup->cache, &cached);
  if (is_open) {
    store_count_records(&counts, lookup->reader);
    store_reader_park(lookup->reader);
  }
  (void)json_object_set_new(
      object, "store",
      json_pack("{s:s,s:b,s:b,s:I,s:I,s:I,s:I,s:I}", "path", lookup->folder, "is_open", is_open,
                "may_switch", is_open && store_may_write_states(lookup->store), "names",
                (json_int_t)counts.num_names, "chains", (json_int_t)counts.num_chains, "subjects",
                (json_int_t)counts.num_subjects, "changes", (json_int_t)counts.num_changes,
                "cached", (json_int_t)cached.num_ready));
}

// Once nobody uses the old store: a few milliseconds on the control thread.
static void reopen_if_quiet(struct lookup *lookup) {
  struct errmsg err = {0};
  if (!lookup->is_closing || !lookup->is_quiet || lookup->num_jobs > 0) {
    return;
  }
  close_store(lookup);
  if (open_store(lookup, &err) != STATUS_OK) {
    // What is in the cache serves on by what was last said; tried again each second.
    log_error(0, "store_not_opened", "reason=\"%s\" effect=known_names_are_served", err.text);
    return;
  }
  counter_add_own(&lookup->num_reopened, 1);
  log_info(0, "store_reopened", "folder=%s", lookup->folder);
  lookup->is_closing = false;
  lookup->is_quiet = false;
  lookup->is_walking = false;
  lookup->walked_version = UINT64_MAX;
  lookup->renewed_version = UINT64_MAX;
  (void)walk_states(lookup);
  atomic_store_explicit(&lookup->shown, lookup->store, memory_order_release);
  atomic_store(&lookup->must_let_go, false);
  restart_held(lookup);
  restart_tasks(lookup);
}

static void on_quiet(void *arg) {
  struct lookup *lookup = arg;
  lookup->is_quiet = true;
  reopen_if_quiet(lookup);
}

static void begin_reopen(struct lookup *lookup) {
  if (lookup->is_closing) {
    return;
  }
  lookup->is_closing = true;
  atomic_store(&lookup->must_let_go, true);
  atomic_store_explicit(&lookup->shown, NULL, memory_order_release);
  grace_after(lookup->grace, on_quiet, lookup);
}

static void on_tick(void *arg) {
  struct lookup *lookup = arg;
  int64_t now_ms = loop_now_ms(lookup->loop);
  bool is_restless = now_ms - lookup->restless_ms >= RESTLESS_MS;
  int64_t next_ms = TICK_MS;

  if (is_restless) {
    lookup->restless_ms = now_ms;
  }
  if (lookup->is_closing) {
    if (is_restless) {
      reopen_if_quiet(lookup);
    }
  } else {
    if (has_news(lookup) && !walk_states(lookup)) {
      next_ms = STATES_PAUSE_MS;
    }
    if (is_restless) {
      release_if_idle(lookup);
      renew_if_changed(lookup);
    }
    if (store_is_outgrown(lookup->store) || (is_restless && store_is_replaced(lookup->store))) {
      begin_reopen(lookup);
    }
  }
  timer_arm_ms(&lookup->timer, next_ms);
}

enum status lookup_open(struct lookup **out, struct loop *loop, struct states *states,
                        const struct store_place_options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct lookup *lookup = calloc(1, sizeof(*lookup));
  const size_t max = (size_t)options->max_cached;
  const struct cache_hooks hooks = {lookup, retire_ready, retire_absent};

  *out = NULL;
  if (lookup == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  lookup->loop = loop;
  lookup->states = states;
  lookup->fleet = states_get(states, STATE_LEVEL_FLEET, "");
  lookup->folder = strdup(options->path);
  lookup->pool = CRYPTO_BUFFER_POOL_new();
  lookup->release = (struct job){.work = release_work, .done = release_done, .arg = lookup};
  lookup->states_chunk = max / STATES_CHUNKS;
  lookup->states_chunk = lookup->states_chunk < STATES_MIN_CHUNK   ? STATES_MIN_CHUNK
                         : lookup->states_chunk > STATES_MAX_CHUNK ? STATES_MAX_CHUNK
                                                                   : lookup->states_chunk;
  lookup->renewal.lookup = lookup;
  lookup->renewal.job =
      (struct job){.work = renewal_work, .done = renewal_done, .arg = &lookup->renewal};
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    lookup->tasks[i].last = &lookup->tasks[i].first;
  }
  atomic_store(&lookup->config_version, UINT64_MAX);
  lookup->walked_version = UINT64_MAX;
  if (lookup->fleet == NULL || lookup->folder == NULL || lookup->pool == NULL ||
      cache_new(&lookup->cache, max, ABSENT_PER_READY * max, &hooks) != STATUS_OK ||
      timer_init(&lookup->timer, loop, on_tick, lookup) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for the store's cache"));
  }
  TRY(open_store(lookup, err));
  *out = lookup;
  lookup = NULL;

out:
  lookup_stop(lookup);
  lookup_free(lookup);
  return st;
}

static void init_desk(struct lookup *lookup, struct desk *desk, struct worker *worker) {
  desk->lookup = lookup;
  desk->worker = worker;
  for (size_t i = 0; i < MAX_ASKS; i++) {
    desk->asks[i].desk = desk;
    desk->asks[i].next = desk->free;
    desk->free = &desk->asks[i];
  }
}

enum status lookup_start(struct lookup *lookup, struct grace *grace, struct worker *const *workers,
                         size_t num_workers, struct errmsg *err) {
  enum status st = STATUS_OK;
  lookup->grace = grace;
  lookup->desks = calloc(num_workers, sizeof(*lookup->desks));
  if (lookup->desks == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < num_workers; i++) {
    init_desk(lookup, &lookup->desks[i], workers[i]);
    lookup->num_desks = i + 1;
    TRY(new_reader(&lookup->desks[i].reader, lookup->store, err));
  }
  TRY(jobs_new(&lookup->jobs, lookup->loop));
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    TRY(jobs_new(&lookup->tasks[i].jobs, lookup->loop));
  }
  lookup->renewed_version = store_chains_version(lookup->store);
  atomic_store_explicit(&lookup->shown, lookup->store, memory_order_release);
  timer_arm_ms(&lookup->timer, TICK_MS);

out:
  return st;
}

void lookup_on_change(struct lookup *lookup,
                      void (*fn)(void *arg, struct ready *in, struct ready *out), void *arg) {
  lookup->on_change = fn;
  lookup->on_change_arg = arg;
}

void lookup_set_site(struct lookup *lookup, const struct site *site) {
  uint64_t version = 0;
  lookup->site = site;
  if (!lookup->is_closing && refresh_own(lookup, &version)) {
    int64_t end_s = put_words_of_site(lookup, version);
    lookup->walked_end_s = sooner(lookup->walked_end_s, end_s);
    store_reader_park(lookup->reader);
  }
}

void lookup_end_tasks(struct lookup *lookup) {
  if (lookup == NULL) {
    return;
  }
  atomic_store(&lookup->must_let_go, true);
  for (size_t i = 0; i < STORE_TASK_NUM_KINDS; i++) {
    jobs_free(lookup->tasks[i].jobs);
    lookup->tasks[i].jobs = NULL;
  }
}

void lookup_stop(struct lookup *lookup) {
  if (lookup == NULL) {
    return;
  }
  lookup_end_tasks(lookup);
  jobs_free(lookup->jobs);
  lookup->jobs = NULL;
  for (size_t i = 0; i < NUM_BUCKETS; i++) {
    while (lookup->buckets[i] != NULL) {
      struct load *load = lookup->buckets[i];
      lookup->buckets[i] = load->next;
      ready_unref(load->ready);
      free(load);
    }
  }
  for (size_t i = 0; lookup->renewal.is_running && i < lookup->renewal.num; i++) {
    ready_unref(lookup->renewal.names[i]);
    ready_unref(lookup->renewal.made[i]);
  }
  lookup->renewal.is_running = false;
  timer_cleanup(&lookup->timer);
  close_store(lookup);
}

void lookup_free(struct lookup *lookup) {
  if (lookup == NULL) {
    return;
  }
  cache_free(lookup->cache);
  CRYPTO_BUFFER_POOL_free(lookup->pool);
  free(lookup->desks);
  free(lookup->folder);
  free(lookup);
}

// --- workers -----------------------------------------------------------------------------

static struct desk *desk_of(const struct conn *conn) {
  const struct worker *worker = conn->worker;
  return &worker->host->lookup->desks[worker->index];
}

static void leave_ask(struct looking *looking) {
  if (looking->ask != NULL) {
    *looking->link = looking->next;
    if (looking->next != NULL) {
      looking->next->link = looking->link;
    }
    looking->ask = NULL;
  }
}

static void on_answered(void *arg) {
  struct ask *ask = arg;
  struct desk *desk = ask->desk;
  while (ask->waiting != NULL) {
    struct looking *looking = ask->waiting;
    leave_ask(looking);
    looking->st = ask->st;
    worker_run_later(desk->worker, looking->conn);
  }
  ask->is_used = false;
  ask->next = desk->free;
  desk->free = ask;
}

static struct ask *find_ask(struct desk *desk, const struct cache_query *query) {
  for (size_t i = 0; i < MAX_ASKS; i++) {
    struct ask *ask = &desk->asks[i];
    if (ask->is_used && ask->query.exact.hash == query->exact.hash &&
        bytes_equal(ask->query.exact.text, query->exact.text)) {
      return ask;
    }
  }
  return NULL;
}

static enum lookup_answer wait_for_load(struct conn *conn, const struct cache_query *query) {
  struct desk *desk = desk_of(conn);
  struct looking *looking = &conn->hs->looking;
  struct ask *ask = find_ask(desk, query);
  if (ask == NULL && desk->free == NULL) {
    count(&conn->worker->counters.lookups_shed);
    return LOOKUP_FAILED;
  }
  if (ask == NULL) {
    ask = desk->free;
    desk->free = ask->next;
    ask->is_used = true;
    ask->waiting = NULL;
    copy_query(&ask->query, query);
    loop_post(conn->worker->host->loop, on_asked, ask);
  }
  looking->conn = conn;
  looking->num_tries += 1;
  looking->ask = ask;
  looking->next = ask->waiting;
  looking->link = &ask->waiting;
  if (looking->next != NULL) {
    looking->next->link = &looking->next;
  }
  ask->waiting = looking;
  count(&conn->worker->counters.lookups_waited);
  return LOOKUP_WAIT;
}

enum lookup_answer lookup_find(struct conn *conn, struct bytes sni) {
  struct lookup *lookup = conn->worker->host->lookup;
  struct handshake *hs = conn->hs;
  const struct store *store = atomic_load_explicit(&lookup->shown, memory_order_acquire);
  struct cache_query query;
  struct ready *ready = NULL;

  if (!cache_query_of(&query, lookup->cache, sni)) {
    return LOOKUP_ABSENT;
  }
  if (hs->looking.st != STATUS_OK) {
    return LOOKUP_FAILED;
  }
  switch (cache_find_host(lookup->cache, &ready, &query, loop_now_ms(conn->worker->loop),
                          store != NULL ? store_chains_version(store) : 0)) {
    case CACHE_READY:
      hs->looking.ready = ready_ref(ready);
      hs->name = &ready->name;
      return LOOKUP_FOUND;
    case CACHE_ABSENT:
      return LOOKUP_ABSENT;
    case CACHE_MISS:
      break;
  }
  return hs->looking.num_tries < MAX_TRIES ? wait_for_load(conn, &query) : LOOKUP_FAILED;
}

bool lookup_is_over(const struct conn *conn) { return conn->hs->looking.ask == NULL; }

void lookup_release(struct conn *conn) {
  struct looking *looking = &conn->hs->looking;
  leave_ask(looking);
  ready_unref(looking->ready);
  looking->ready = NULL;
}

static bool has_compromise(const struct certstore_words *words, const struct cert_name *name) {
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      if (words->keys[i][j].is_compromised || words->cas[i][j].is_compromised) {
        return true;
      }
    }
  }
  return false;
}

// Is what is in memory what the store says now?
static bool is_current(struct lookup *lookup, const struct store *store, const struct ready *ready,
                       int64_t now_s) {
  uint64_t version = atomic_load_explicit(
      ready != NULL ? &ready->states_version : &lookup->config_version, memory_order_acquire);
  int64_t end_s = atomic_load_explicit(ready != NULL ? &ready->words_end_s : &lookup->config_end_s,
                                       memory_order_relaxed);
  return version == store_states_version(store) && (end_s == 0 || now_s < end_s);
}

enum status lookup_choose(struct choice *out, struct conn *conn, int64_t now_s,
                          bool (*takes)(void *arg, enum key_kind kind), void *arg) {
  struct lookup *lookup = conn->worker->host->lookup;
  struct handshake *hs = conn->hs;
  const struct certstore *configured = hs->view->site->store;
  const struct store *store =
      lookup == NULL ? NULL : atomic_load_explicit(&lookup->shown, memory_order_acquire);
  struct certstore_words words;
  int64_t end_s = 0;

  if (store == NULL || is_current(lookup, store, hs->looking.ready, now_s)) {
    return certstore_choose(out, configured, hs->name, now_s, takes, arg);
  }
  struct store_reader *reader = desk_of(conn)->reader;
  enum status st = store_reader_refresh(reader);
  if (st == STATUS_OK) {
    st = ready_read_words(&words, &end_s, reader, hs->name, now_s);
    store_reader_park(reader);
  }
  if (st != STATUS_OK) {
    count(&conn->worker->counters.states_unread);
    hs->is_resume_off = true;  // of a compromise nobody could tell us
    return certstore_choose(out, configured, hs->name, now_s, takes, arg);
  }
  count(&conn->worker->counters.states_read);
  hs->is_resume_off = has_compromise(&words, hs->name);
  return certstore_choose_by(out, &words, hs->name, now_s, takes, arg);
}

// --- metrics -------------------------------------------------------------------------------

static void put_number(struct metrics_text *text, const char *name, enum metric_type type,
                       const char *help, double value) {
  metrics_family(text, name, type, help);
  metrics_sample(text, name, value, NULL);
}

void lookup_write_metrics(const struct lookup *lookup, struct metrics_text *text) {
  struct cache_counts counts;
  cache_count(lookup->cache, &counts);
  metrics_family(text, "deputy_proxy_store_loads_total", METRIC_COUNTER,
                 "Names looked for in the store, by what came of it.");
  metrics_sample(text, "deputy_proxy_store_loads_total", (double)counter_get(&lookup->num_loaded),
                 "result", "found", NULL);
  metrics_sample(text, "deputy_proxy_store_loads_total", (double)counter_get(&lookup->num_unknown),
                 "result", "absent", NULL);
  metrics_sample(text, "deputy_proxy_store_loads_total", (double)counter_get(&lookup->num_failed),
                 "result", "failed", NULL);
  put_number(text, "deputy_proxy_store_renewed_total", METRIC_COUNTER,
             "Names in the cache that were made ready anew after an import.",
             (double)counter_get(&lookup->num_renewed));
  put_number(text, "deputy_proxy_store_reopened_total", METRIC_COUNTER,
             "Times the store was opened anew after a compaction.",
             (double)counter_get(&lookup->num_reopened));
  put_number(text, "deputy_proxy_store_is_open", METRIC_GAUGE,
             "1 while the store is open; 0: names in the cache alone are served.",
             lookup->store != NULL && !lookup->is_closing ? 1 : 0);
  put_number(text, "deputy_proxy_store_loading", METRIC_GAUGE, "Names that are being read.",
             (double)lookup->num_jobs);
  put_number(text, "deputy_proxy_store_cached", METRIC_GAUGE, "Ready names in the cache.",
             (double)counts.num_ready);
  put_number(text, "deputy_proxy_store_cached_absent", METRIC_GAUGE, "Unknown names in the cache.",
             (double)counts.num_absent);
  put_number(text, "deputy_proxy_store_evicted_total", METRIC_COUNTER,
             "Ready names that made room for others.", (double)counts.num_evicted);
}
