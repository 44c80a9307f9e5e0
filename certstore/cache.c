// SPDX-License-Identifier: Apache-2.0
#include "certstore/cache.h"

#include <openssl/rand.h>
#include <openssl/siphash.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/certstore_private.h"

// Both tables are sets of CACHE_WAYS places; a set's hand is where its clock stands.
struct table_of {
  size_t num_sets;  // a power of two
  uint8_t *hands;
  size_t num;
  uint64_t num_evicted;
};

struct cache {
  uint64_t seed[2];
  struct cache_hooks hooks;
  struct table_of ready;
  struct table_of absent;
  _Atomic(struct ready *) *ready_places;
  _Atomic(struct cache_absent *) *absent_places;
};

static size_t sets_for(size_t max) {
  size_t num = 1;
  while (num * CACHE_WAYS < max) {
    num *= 2;
  }
  return num;
}

enum status cache_new(struct cache **out, size_t max_ready, size_t max_absent,
                      const struct cache_hooks *hooks) {
  struct cache *cache = calloc(1, sizeof(*cache));
  if (cache == NULL) {
    return STATUS_MEMORY;
  }
  (void)RAND_bytes((uint8_t *)cache->seed, sizeof(cache->seed));  // cannot fail in BoringSSL
  cache->hooks = *hooks;
  cache->ready.num_sets = sets_for(max_ready);
  cache->absent.num_sets = sets_for(max_absent);
  cache->ready.hands = calloc(cache->ready.num_sets, 1);
  cache->absent.hands = calloc(cache->absent.num_sets, 1);
  cache->ready_places = calloc(cache->ready.num_sets * CACHE_WAYS, sizeof(*cache->ready_places));
  cache->absent_places = calloc(cache->absent.num_sets * CACHE_WAYS, sizeof(*cache->absent_places));
  if (cache->ready.hands == NULL || cache->absent.hands == NULL || cache->ready_places == NULL ||
      cache->absent_places == NULL) {
    cache_free(cache);
    return STATUS_MEMORY;
  }
  *out = cache;
  return STATUS_OK;
}

void cache_free(struct cache *cache) {
  if (cache == NULL) {
    return;
  }
  for (size_t i = 0; cache->ready_places != NULL && i < cache->ready.num_sets * CACHE_WAYS; i++) {
    ready_unref(atomic_load(&cache->ready_places[i]));
  }
  for (size_t i = 0; cache->absent_places != NULL && i < cache->absent.num_sets * CACHE_WAYS; i++) {
    free(atomic_load(&cache->absent_places[i]));
  }
  free((void *)cache->ready_places);
  free((void *)cache->absent_places);
  free(cache->ready.hands);
  free(cache->absent.hands);
  free(cache);
}

struct cache_host cache_host_of(const struct cache *cache, struct bytes name) {
  return (struct cache_host){SIPHASH_24(cache->seed, name.data, name.len), name};
}

static size_t first_place(const struct table_of *table, uint64_t hash) {
  return ((size_t)hash & (table->num_sets - 1)) * CACHE_WAYS;
}

static bool is_of(uint64_t hash, const char *name, size_t len, const struct cache_host *host) {
  return hash == host->hash && len == host->text.len && memcmp(name, host->text.data, len) == 0;
}

// A flag that is set already is not written: the line stays shared between readers.
static void note_seen(_Atomic bool *is_seen) {
  if (!atomic_load_explicit(is_seen, memory_order_relaxed)) {
    atomic_store_explicit(is_seen, true, memory_order_relaxed);
  }
}

// --- looking -----------------------------------------------------------------------

static bool holds_ready(const struct ready *ready, const struct cache_host *host) {
  return ready != NULL && is_of(ready->hash, ready->name.name, ready->name_len, host);
}

static bool holds_absent(const struct cache_absent *absent, const struct cache_host *host) {
  return absent != NULL && is_of(absent->hash, absent->name, absent->name_len, host);
}

enum cache_answer cache_find(const struct cache *cache, struct ready **out,
                             const struct cache_host *host, int64_t now_ms,
                             uint64_t chains_version) {
  size_t first = first_place(&cache->ready, host->hash);
  for (size_t i = first; i < first + CACHE_WAYS; i++) {
    struct ready *ready = atomic_load_explicit(&cache->ready_places[i], memory_order_acquire);
    if (holds_ready(ready, host)) {
      note_seen(&ready->is_seen);
      *out = ready;
      return CACHE_READY;
    }
  }
  first = first_place(&cache->absent, host->hash);
  for (size_t i = first; i < first + CACHE_WAYS; i++) {
    struct cache_absent *absent =
        atomic_load_explicit(&cache->absent_places[i], memory_order_acquire);
    if (!holds_absent(absent, host)) {
      continue;
    }
    if (now_ms < absent->firm_until_ms ||
        (now_ms < absent->ends_ms && absent->chains_version == chains_version)) {
      note_seen(&absent->is_seen);
      return CACHE_ABSENT;
    }
  }
  return CACHE_MISS;
}

bool cache_query_of(struct cache_query *out, const struct cache *cache, struct bytes sni) {
  struct host host;
  out->wildcard = (struct cache_host){0};
  if (!host_read(&host, sni, false)) {
    return false;
  }
  memcpy(out->exact_text, host.text, host.len + 1);
  out->exact = cache_host_of(cache, bytes_of(out->exact_text, host.len));
  if (host.first_dot < host.len) {
    size_t len = host.len - host.first_dot + 1;
    out->wildcard_text[0] = '*';
    memcpy(out->wildcard_text + 1, host.text + host.first_dot, len);  // with the 0
    out->wildcard = cache_host_of(cache, bytes_of(out->wildcard_text, len));
  }
  return true;
}

enum cache_answer cache_find_host(const struct cache *cache, struct ready **out,
                                  const struct cache_query *query, int64_t now_ms,
                                  uint64_t chains_version) {
  enum cache_answer answer = cache_find(cache, out, &query->exact, now_ms, chains_version);
  if (answer == CACHE_ABSENT && query->wildcard.text.len > 0) {
    answer = cache_find(cache, out, &query->wildcard, now_ms, chains_version);
  }
  return answer;
}

// --- filling -----------------------------------------------------------------------

static void drop_ready(struct cache *cache, size_t place, struct ready *next) {
  struct ready *old =
      atomic_exchange_explicit(&cache->ready_places[place], next, memory_order_acq_rel);
  cache->ready.num += next != NULL ? 1 : 0;
  if (old != NULL) {
    cache->ready.num -= 1;
    cache->hooks.retire_ready(cache->hooks.arg, old);
  }
}

static void drop_absent(struct cache *cache, size_t place, struct cache_absent *next) {
  struct cache_absent *old =
      atomic_exchange_explicit(&cache->absent_places[place], next, memory_order_acq_rel);
  cache->absent.num += next != NULL ? 1 : 0;
  if (old != NULL) {
    cache->absent.num -= 1;
    cache->hooks.retire_absent(cache->hooks.arg, old);
  }
}

// Where a newcomer goes: to the place of the same name, a free one, or that of the
// first which the set's clock finds unseen. `seen_at` is NULL for a free place.
struct places {
  bool (*is_same)(const void *arg, size_t place, const struct cache_host *host);
  _Atomic bool *(*seen_at)(const void *arg, size_t place);
};

static size_t pick(struct table_of *table, const struct cache *cache, const struct places *places,
                   const struct cache_host *host) {
  const size_t first = first_place(table, host->hash);
  uint8_t *hand = &table->hands[first / CACHE_WAYS];
  size_t free_place = SIZE_MAX;
  for (size_t i = first; i < first + CACHE_WAYS; i++) {
    if (places->is_same(cache, i, host)) {
      return i;
    }
    free_place = places->seen_at(cache, i) == NULL && free_place == SIZE_MAX ? i : free_place;
  }
  if (free_place != SIZE_MAX) {
    return free_place;
  }
  table->num_evicted += 1;
  for (;;) {
    size_t place = first + *hand;
    _Atomic bool *is_seen = places->seen_at(cache, place);
    *hand = (uint8_t)((*hand + 1u) % CACHE_WAYS);
    if (!atomic_exchange_explicit(is_seen, false, memory_order_relaxed)) {
      return place;
    }
  }
}

static bool is_same_ready(const void *arg, size_t place, const struct cache_host *host) {
  const struct cache *cache = arg;
  return holds_ready(atomic_load_explicit(&cache->ready_places[place], memory_order_relaxed), host);
}

static _Atomic bool *seen_of_ready(const void *arg, size_t place) {
  const struct cache *cache = arg;
  struct ready *ready = atomic_load_explicit(&cache->ready_places[place], memory_order_relaxed);
  return ready == NULL ? NULL : &ready->is_seen;
}

static bool is_same_absent(const void *arg, size_t place, const struct cache_host *host) {
  const struct cache *cache = arg;
  return holds_absent(atomic_load_explicit(&cache->absent_places[place], memory_order_relaxed),
                      host);
}

static _Atomic bool *seen_of_absent(const void *arg, size_t place) {
  const struct cache *cache = arg;
  struct cache_absent *absent =
      atomic_load_explicit(&cache->absent_places[place], memory_order_relaxed);
  return absent == NULL ? NULL : &absent->is_seen;
}

static const struct places ready_kind = {.is_same = is_same_ready, .seen_at = seen_of_ready};
static const struct places absent_kind = {.is_same = is_same_absent, .seen_at = seen_of_absent};

static void forget_absent(struct cache *cache, const struct cache_host *host) {
  size_t first = first_place(&cache->absent, host->hash);
  for (size_t i = first; i < first + CACHE_WAYS; i++) {
    if (is_same_absent(cache, i, host)) {
      drop_absent(cache, i, NULL);
    }
  }
}

static void forget_ready(struct cache *cache, const struct cache_host *host) {
  size_t first = first_place(&cache->ready, host->hash);
  for (size_t i = first; i < first + CACHE_WAYS; i++) {
    if (is_same_ready(cache, i, host)) {
      drop_ready(cache, i, NULL);
    }
  }
}

void cache_put(struct cache *cache, struct ready *ready) {
  const struct cache_host host = cache_host_of(cache, bytes_of(ready->name.name, ready->name_len));
  ready->hash = host.hash;
  drop_ready(cache, pick(&cache->ready, cache, &ready_kind, &host), ready);
  forget_absent(cache, &host);
}

enum status cache_put_absent(struct cache *cache, const struct cache_host *host,
                             int64_t firm_until_ms, int64_t ends_ms, uint64_t chains_version) {
  struct cache_absent *absent = malloc(sizeof(*absent) + host->text.len);
  if (absent == NULL) {
    return STATUS_MEMORY;
  }
  *absent = (struct cache_absent){.hash = host->hash,
                                  .name_len = host->text.len,
                                  .firm_until_ms = firm_until_ms,
                                  .ends_ms = ends_ms,
                                  .chains_version = chains_version};
  memcpy(absent->name, host->text.data, host->text.len);
  drop_absent(cache, pick(&cache->absent, cache, &absent_kind, host), absent);
  forget_ready(cache, host);
  return STATUS_OK;
}

// --- looking after it ----------------------------------------------------------------

size_t cache_each(const struct cache *cache, size_t *at, struct ready **out, size_t max) {
  const size_t end = cache->ready.num_sets * CACHE_WAYS;
  size_t num = 0;
  for (; *at < end && num < max; *at += 1) {
    struct ready *ready = atomic_load_explicit(&cache->ready_places[*at], memory_order_relaxed);
    if (ready != NULL) {
      out[num++] = ready;
    }
  }
  *at = *at == end ? 0 : *at;
  return num;
}

void cache_count(const struct cache *cache, struct cache_counts *out) {
  *out = (struct cache_counts){
      .num_ready = cache->ready.num,
      .max_ready = cache->ready.num_sets * CACHE_WAYS,
      .num_absent = cache->absent.num,
      .max_absent = cache->absent.num_sets * CACHE_WAYS,
      .num_evicted = cache->ready.num_evicted,
      .num_absent_evicted = cache->absent.num_evicted,
  };
}
