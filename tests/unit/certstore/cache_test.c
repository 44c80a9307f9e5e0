// SPDX-License-Identifier: Apache-2.0
#include "certstore/cache.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// After what it needs.
#include <cmocka.h>

#define MAX_RETIRED 20000

// What has left the cache; freed at the end, as grace would when readers have passed.
static struct ready *retired[MAX_RETIRED];
static size_t num_retired;
static struct cache_absent *retired_absent[MAX_RETIRED];
static size_t num_retired_absent;

static void retire_ready(void *arg, struct ready *ready) {
  (void)arg;
  assert_true(num_retired < MAX_RETIRED);
  retired[num_retired++] = ready;
}

static void retire_absent(void *arg, struct cache_absent *absent) {
  (void)arg;
  assert_true(num_retired_absent < MAX_RETIRED);
  retired_absent[num_retired_absent++] = absent;
}

static struct cache *new_cache(size_t max_ready, size_t max_absent) {
  const struct cache_hooks hooks = {NULL, retire_ready, retire_absent};
  struct cache *cache = NULL;
  num_retired = 0;
  num_retired_absent = 0;
  assert_int_equal(cache_new(&cache, max_ready, max_absent, &hooks), STATUS_OK);
  return cache;
}

static void free_all(struct cache *cache) {
  cache_free(cache);
  while (num_retired > 0) {
    ready_unref(retired[--num_retired]);
  }
  while (num_retired_absent > 0) {
    free(retired_absent[--num_retired_absent]);
  }
}

static struct ready *new_ready(const char *name) {
  struct ready *ready = calloc(1, sizeof(*ready));
  assert_non_null(ready);
  atomic_store(&ready->num_refs, 1);
  ready->name.name = strdup(name);
  ready->name.state = &ready->state;
  ready->name_len = strlen(name);
  return ready;
}

static enum cache_answer look(const struct cache *cache, const char *host, int64_t now_ms,
                              uint64_t version, const char **out_name) {
  struct cache_query query;
  struct ready *ready = NULL;
  assert_true(cache_query_of(&query, cache, bytes_text(host)));
  enum cache_answer answer = cache_find_host(cache, &ready, &query, now_ms, version);
  if (out_name != NULL) {
    *out_name = answer == CACHE_READY ? ready->name.name : NULL;
  }
  return answer;
}

static void put_absent(struct cache *cache, const char *name, int64_t firm_ms, int64_t ends_ms,
                       uint64_t version) {
  const struct cache_host host = cache_host_of(cache, bytes_text(name));
  assert_int_equal(cache_put_absent(cache, &host, firm_ms, ends_ms, version), STATUS_OK);
}

static void test_finds_exact_then_wildcard(void **state) {
  struct cache *cache = new_cache(64, 64);
  const char *name = NULL;
  (void)state;
  cache_put(cache, new_ready("a.example"));
  cache_put(cache, new_ready("*.example"));
  assert_int_equal(look(cache, "A.Example.", 0, 1, &name), CACHE_READY);
  assert_string_equal(name, "a.example");
  // Nobody has said yet that there is no b.example.
  assert_int_equal(look(cache, "b.example", 0, 1, NULL), CACHE_MISS);
  put_absent(cache, "b.example", 10, 20, 1);
  assert_int_equal(look(cache, "b.example", 0, 1, &name), CACHE_READY);
  assert_string_equal(name, "*.example");
  put_absent(cache, "a.b.example", 10, 20, 1);
  assert_int_equal(look(cache, "a.b.example", 0, 1, NULL), CACHE_MISS);
  put_absent(cache, "*.b.example", 10, 20, 1);
  assert_int_equal(look(cache, "a.b.example", 0, 1, NULL), CACHE_ABSENT);
  struct cache_query query;
  assert_false(cache_query_of(&query, cache, bytes_text("no host!")));
  assert_false(cache_query_of(&query, cache, bytes_text("")));
  free_all(cache);
}

static void test_unknown_names_are_forgotten(void **state) {
  struct cache *cache = new_cache(64, 64);
  (void)state;
  put_absent(cache, "x", 10, 20, 7);
  assert_int_equal(look(cache, "x", 9, 8, NULL), CACHE_ABSENT);  // firm
  assert_int_equal(look(cache, "x", 10, 8, NULL), CACHE_MISS);   // something was imported
  assert_int_equal(look(cache, "x", 19, 7, NULL), CACHE_ABSENT);
  assert_int_equal(look(cache, "x", 20, 7, NULL), CACHE_MISS);
  // A name that comes to be is no longer absent, and the other way round.
  put_absent(cache, "x", 100, 200, 7);
  cache_put(cache, new_ready("x"));
  assert_int_equal(look(cache, "x", 50, 7, NULL), CACHE_READY);
  assert_int_equal(num_retired_absent, 2);
  put_absent(cache, "x", 100, 200, 7);
  assert_int_equal(look(cache, "x", 50, 7, NULL), CACHE_ABSENT);
  assert_int_equal(num_retired, 1);
  free_all(cache);
}

static void test_a_later_one_takes_the_place(void **state) {
  struct cache *cache = new_cache(64, 64);
  struct ready *first = new_ready("a");
  struct ready *second = new_ready("a");
  struct ready *found = NULL;
  struct cache_counts counts;
  (void)state;
  cache_put(cache, first);
  cache_put(cache, second);
  assert_int_equal(num_retired, 1);
  assert_ptr_equal(retired[0], first);
  const struct cache_host host = cache_host_of(cache, bytes_text("a"));
  assert_int_equal(cache_find(cache, &found, &host, 0, 0), CACHE_READY);
  assert_ptr_equal(found, second);
  cache_count(cache, &counts);
  assert_int_equal(counts.num_ready, 1);
  assert_int_equal(counts.num_evicted, 0);
  free_all(cache);
}

static void test_the_unseen_one_goes(void **state) {
  struct cache *cache = new_cache(CACHE_WAYS, CACHE_WAYS);  // one set
  struct cache_counts counts;
  char name[8];
  (void)state;
  for (unsigned i = 0; i < CACHE_WAYS; i++) {
    (void)snprintf(name, sizeof(name), "n%u", i);
    cache_put(cache, new_ready(name));
  }
  for (unsigned i = 0; i < CACHE_WAYS; i++) {
    (void)snprintf(name, sizeof(name), "n%u", i);
    if (i != 5) {
      assert_int_equal(look(cache, name, 0, 0, NULL), CACHE_READY);
    }
  }
  cache_put(cache, new_ready("new"));
  assert_int_equal(look(cache, "n5", 0, 0, NULL), CACHE_MISS);
  for (unsigned i = 0; i < CACHE_WAYS; i++) {
    (void)snprintf(name, sizeof(name), "n%u", i);
    assert_int_equal(look(cache, name, 0, 0, NULL), i == 5 ? CACHE_MISS : CACHE_READY);
  }
  // Any number of unknown names drives out none.
  for (unsigned i = 0; i < 100; i++) {
    (void)snprintf(name, sizeof(name), "u%u", i);
    put_absent(cache, name, 10, 20, 0);
  }
  cache_count(cache, &counts);
  assert_int_equal(counts.num_ready, CACHE_WAYS);
  assert_int_equal(counts.num_evicted, 1);
  assert_int_equal(counts.num_absent, CACHE_WAYS);
  assert_int_equal(counts.num_absent_evicted, 100 - CACHE_WAYS);
  free_all(cache);
}

static void test_each_hands_out_all(void **state) {
  struct cache *cache = new_cache(256, 8);
  struct ready *some[7];
  char name[8];
  size_t at = 0;
  size_t num = 0;
  struct cache_counts counts;
  (void)state;
  for (unsigned i = 0; i < 100; i++) {
    (void)snprintf(name, sizeof(name), "n%u", i);
    cache_put(cache, new_ready(name));
  }
  do {
    num += cache_each(cache, &at, some, 7);
  } while (at != 0);
  cache_count(cache, &counts);
  assert_int_equal(num, counts.num_ready);
  assert_int_equal(num + num_retired, 100);
  free_all(cache);
}

// --- readers and the owner at the same time (ThreadSanitizer looks on) -----------------

static struct cache *shared;
static _Atomic bool is_over;

static void *read_all(void *arg) {
  size_t num_found = 0;
  char name[16];
  (void)arg;
  for (unsigned i = 0; !atomic_load(&is_over); i++) {
    struct cache_query query;
    struct ready *ready = NULL;
    (void)snprintf(name, sizeof(name), "n%u.x", i % 40);
    if (cache_query_of(&query, shared, bytes_text(name)) &&
        cache_find_host(shared, &ready, &query, 0, 1) == CACHE_READY) {
      num_found += ready->name.name[0] == 'n' && ready->mark.digest[0] == 42 ? 1 : 0;
      (void)ready_ref(ready);
      ready_unref(ready);
      if (ready->mark.digest[0] != 42) {
        abort();
      }
    }
  }
  return (void *)num_found;
}

static void test_readers_while_names_come_and_go(void **state) {
  pthread_t threads[3];
  char name[16];
  (void)state;
  shared = new_cache(16, 16);
  atomic_store(&is_over, false);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, read_all, NULL), 0);
  }
  for (unsigned i = 0; i < 8000; i++) {
    (void)snprintf(name, sizeof(name), "n%u.x", (i * 7) % 40);
    struct ready *ready = new_ready(name);
    ready->mark.digest[0] = 42;
    cache_put(shared, ready);
    (void)snprintf(name, sizeof(name), "n%u.x", (i * 11) % 40);
    put_absent(shared, name, 1, 2, 1);
  }
  atomic_store(&is_over, true);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  }
  free_all(shared);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_finds_exact_then_wildcard),
      cmocka_unit_test(test_unknown_names_are_forgotten),
      cmocka_unit_test(test_a_later_one_takes_the_place),
      cmocka_unit_test(test_the_unseen_one_goes),
      cmocka_unit_test(test_each_hands_out_all),
      cmocka_unit_test(test_readers_while_names_come_and_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
