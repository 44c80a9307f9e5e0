// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/lookup.h"

#include <stdlib.h>

#include "proxy/connection/conn.h"
#include "proxy/store/loader.h"
#include "proxy/worker.h"

#define MAX_ASKS 256  // names that one worker waits for
#define MAX_TRIES 3   // loads for one handshake: its name may be evicted at once

// A name that connections of one worker wait for.
struct ask {
  struct load_ask load;  // the loader's, from its post to control until the post back
  struct desk *desk;
  struct ask *next;  // of the free ones
  struct looking *waiting;
  bool is_used;
};

// What one worker has of its own.
struct desk {
  struct worker *worker;
  struct ask *free;
  struct ask asks[MAX_ASKS];
};

static void on_answered(void *arg);

static void init_desk(struct desk *desk, struct loader *loader, struct worker *worker) {
  desk->worker = worker;
  for (size_t i = 0; i < MAX_ASKS; i++) {
    struct ask *ask = &desk->asks[i];
    ask->load = (struct load_ask){
        .loader = loader, .loop = worker->loop, .on_answered = on_answered, .arg = ask};
    ask->desk = desk;
    ask->next = desk->free;
    desk->free = ask;
  }
}

enum status lookup_init(struct lookup *lookup, struct loader *loader, struct worker *const *workers,
                        size_t num_workers) {
  lookup->handle = loader->handle;
  lookup->cache = loader->names->cache;
  lookup->follower = loader->names->follower;
  lookup->loader = loader;
  lookup->desks = calloc(num_workers, sizeof(*lookup->desks));
  if (lookup->desks == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num_workers; i++) {
    init_desk(&lookup->desks[i], loader, workers[i]);
  }
  return STATUS_OK;
}

void lookup_cleanup(struct lookup *lookup) {
  free(lookup->desks);
  lookup->desks = NULL;
}

// --- asking ------------------------------------------------------------------------------

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
    looking->st = ask->load.st;
    worker_run_later(desk->worker, looking->conn);
  }
  ask->is_used = false;
  ask->next = desk->free;
  desk->free = ask;
}

static struct ask *find_ask(struct desk *desk, const struct cache_query *query) {
  for (size_t i = 0; i < MAX_ASKS; i++) {
    struct ask *ask = &desk->asks[i];
    if (ask->is_used && ask->load.query.exact.hash == query->exact.hash &&
        bytes_equal(ask->load.query.exact.text, query->exact.text)) {
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
    load_ask_set(&ask->load, query);
    loop_post(conn->worker->host->loop, loader_on_ask, &ask->load);
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
  const struct lookup *lookup = conn->worker->host->lookup;
  struct handshake *hs = conn->hs;
  const struct store *store = store_handle_shown(lookup->handle);
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

// --- choosing by the states of this moment ------------------------------------------------

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

enum status lookup_choose(struct choice *out, struct conn *conn, int64_t now_s,
                          bool (*takes)(void *arg, enum key_kind kind), void *arg) {
  const struct lookup *lookup = conn->worker->host->lookup;
  struct handshake *hs = conn->hs;
  const struct certstore *configured = hs->view->site->store;
  const struct store *store = lookup == NULL ? NULL : store_handle_shown(lookup->handle);
  struct certstore_words words;
  int64_t end_s = 0;

  if (store == NULL ||
      state_follower_is_current(lookup->follower, store, hs->looking.ready, now_s)) {
    return certstore_choose(out, configured, hs->name, now_s, takes, arg);
  }
  struct store_reader *reader = lookup->handle->readers[READER_OF_WORKERS + conn->worker->index];
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
