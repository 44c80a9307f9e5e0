// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MAX 8
#define NUM_CLIENTS 20000

static struct origin origins[MAX];
static struct endpoint endpoints[MAX];
static struct origin_set *set;
static unsigned counts[MAX];

// A set of `num` endpoints with these weights (NULL: all 1).
static void make(size_t num, const uint32_t *weights) {
  free(set);
  set = calloc(1, sizeof(*set) + num * sizeof(set->places[0]));
  assert_non_null(set);
  memset(counts, 0, sizeof(counts));
  set->num = num;
  for (size_t i = 0; i < num; i++) {
    char text[32];
    const int len = snprintf(text, sizeof(text), "192.0.2.%zu:80", i);
    origins[i] = (struct origin){0};
    endpoints[i] = (struct endpoint){.origin = &origins[i], .id = (uint32_t)i + 1, .fd = -1};
    endpoints[i].hash = balance_hash(text, (size_t)len);
    set->places[i].endpoint = &endpoints[i];
    set->places[i].weight = weights == NULL ? 1 : weights[i];
  }
  balance_fill(set);
}

static int tear_down(void **state) {
  (void)state;
  free(set);
  set = NULL;
  return 0;
}

// The place that is chosen; -1: none.
static int choose(enum balance balance, uint64_t client) {
  const struct endpoint *chosen = balance_choose(set, balance, client, NULL, 0);
  if (chosen == NULL) {
    return -1;
  }
  counts[chosen - endpoints] += 1;
  return (int)(chosen - endpoints);
}

static uint64_t client_hash(uint32_t i) { return balance_hash(&i, sizeof(i)); }

static void take_out(size_t at, unsigned why) { atomic_store(&endpoints[at].state, why); }

static void each_has_its_turn(void **state) {
  (void)state;
  make(3, NULL);
  for (int i = 0; i < 9; i++) {
    assert_int_equal(choose(BALANCE_ROUND_ROBIN, 0), i % 3);
  }
}

static void weights_are_shares_and_interleaved(void **state) {
  const uint32_t weights[] = {5, 1, 2};
  int longest = 0;
  int run = 0;
  (void)state;
  make(3, weights);
  for (int i = 0; i < 8000; i++) {
    run = choose(BALANCE_ROUND_ROBIN, 0) == 0 ? run + 1 : 0;
    longest = run > longest ? run : longest;
  }
  assert_in_range(counts[0], 4990, 5010);
  assert_in_range(counts[1], 990, 1010);
  assert_in_range(counts[2], 1990, 2010);
  assert_true(longest <= 5);
}

static void the_share_of_one_that_is_out_goes_to_all(void **state) {
  const unsigned reasons[] = {ENDPOINT_OUT, ENDPOINT_DOWN, ENDPOINT_OUT | ENDPOINT_DOWN};
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    make(4, NULL);
    take_out(1, reasons[i]);
    for (int j = 0; j < 3000; j++) {
      assert_true(choose(BALANCE_ROUND_ROBIN, 0) >= 0);
    }
    assert_int_equal(counts[1], 0);
    assert_in_range(counts[0], 990, 1010);
    assert_in_range(counts[2], 990, 1010);
    assert_in_range(counts[3], 990, 1010);
  }
}

static void nobody_when_all_are_out_or_tried(void **state) {
  const enum balance all[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS, BALANCE_HASH_CLIENT};
  const uint32_t uneven[] = {3, 1, 1};
  (void)state;
  for (size_t i = 0; i < 6; i++) {
    uint32_t tried[MAX];
    make(3, i < 3 ? NULL : uneven);
    for (size_t num = 0; num < 3; num++) {
      const struct endpoint *chosen = balance_choose(set, all[i % 3], 7, tried, num);
      assert_non_null(chosen);
      for (size_t j = 0; j < num; j++) {
        assert_int_not_equal(chosen->id, tried[j]);
      }
      tried[num] = chosen->id;
    }
    assert_null(balance_choose(set, all[i % 3], 7, tried, 3));
    take_out(0, ENDPOINT_OUT);
    take_out(1, ENDPOINT_OUT);
    assert_int_equal(choose(all[i % 3], 7), 2);
    take_out(2, ENDPOINT_DOWN);
    assert_int_equal(choose(all[i % 3], 7), -1);
  }
  make(0, NULL);
  assert_int_equal(choose(BALANCE_ROUND_ROBIN, 0), -1);
  assert_null(balance_choose(NULL, BALANCE_ROUND_ROBIN, 0, NULL, 0));
}

static void the_only_one_is_tried_although_it_failed(void **state) {
  const uint32_t tried[] = {1};
  (void)state;
  make(1, NULL);
  take_out(0, ENDPOINT_OUT);
  assert_int_equal(choose(BALANCE_ROUND_ROBIN, 0), 0);
  assert_null(balance_choose(set, BALANCE_ROUND_ROBIN, 0, tried, 1));
  // A check that is asked for is believed.
  take_out(0, ENDPOINT_DOWN);
  assert_int_equal(choose(BALANCE_ROUND_ROBIN, 0), -1);
}

// Of four the last two are the set's reserve.
static void backups_serve_when_nobody_else_can(void **state) {
  const enum balance all[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS, BALANCE_HASH_CLIENT};
  struct origin_set *reserve = calloc(1, sizeof(*reserve) + 2 * sizeof(struct origin_place));
  uint32_t tried[4];
  (void)state;
  assert_non_null(reserve);
  for (size_t i = 0; i < 3; i++) {
    make(4, NULL);
    memcpy(reserve->places, &set->places[2], 2 * sizeof(struct origin_place));
    reserve->num = 2;
    set->num = 2;
    set->reserve = reserve;
    balance_fill(set);
    for (size_t num = 0; num < 4; num++) {
      const struct endpoint *chosen = balance_choose(set, all[i], 7, tried, num);
      assert_non_null(chosen);
      tried[num] = chosen->id;
      assert_int_equal(tried[num] > 2, num >= 2);
    }
    assert_null(balance_choose(set, all[i], 7, tried, 4));
    take_out(0, ENDPOINT_DOWN);
    assert_int_equal(choose(all[i], 7), 1);
    take_out(1, ENDPOINT_OUT);
    assert_in_range(choose(all[i], 7), 2, 3);
    // The only one of the main set is not tried if it is out: there are others.
    set->num = 1;
    balance_fill(set);
    take_out(0, ENDPOINT_OUT);
    assert_in_range(choose(all[i], 7), 2, 3);
    take_out(0, 0);
    assert_int_equal(choose(all[i], 7), 0);
    // No address of theirs is known.
    set->num = 0;
    balance_fill(set);
    assert_in_range(choose(all[i], 7), 2, 3);
  }
  set->reserve = NULL;
  free(reserve);
}

static void who_has_enough_connections_is_passed_over(void **state) {
  const enum balance all[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS, BALANCE_HASH_CLIENT};
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    make(3, NULL);
    for (size_t j = 0; j < 3; j++) {
      atomic_store(&origins[j].max_open, 2);
    }
    for (size_t num = 0; num < 6; num++) {
      const int at = choose(all[i], num);
      assert_in_range(at, 0, 2);
      assert_false(balance_is_full(set) && atomic_load(&endpoints[at].num_open) == 2);
      assert_true(endpoint_enter(&endpoints[at]));
    }
    assert_int_equal(choose(all[i], 7), -1);
    assert_true(balance_is_full(set));
    // Somebody else was faster.
    assert_false(endpoint_enter(&endpoints[1]));
    assert_int_equal(atomic_load(&endpoints[1].num_open), 2);
    atomic_store(&endpoints[1].num_open, 1);
    assert_int_equal(choose(all[i], 7), 1);
    // Out is not full.
    for (size_t j = 0; j < 3; j++) {
      take_out(j, ENDPOINT_DOWN);
    }
    assert_false(balance_is_full(set));
  }
}

static void the_least_loaded_for_its_weight(void **state) {
  const uint32_t weights[] = {1, 4};
  (void)state;
  make(3, NULL);
  atomic_store(&endpoints[0].num_open, 5);
  atomic_store(&endpoints[1].num_open, 4);
  atomic_store(&endpoints[2].num_open, 6);
  assert_int_equal(choose(BALANCE_LEAST_CONNECTIONS, 0), 1);
  take_out(1, ENDPOINT_OUT);
  assert_int_equal(choose(BALANCE_LEAST_CONNECTIONS, 0), 0);
  // Equals take turns.
  make(2, NULL);
  for (int i = 0; i < 10; i++) {
    (void)choose(BALANCE_LEAST_CONNECTIONS, 0);
  }
  assert_int_equal(counts[0], 5);
  // Connections that stay: four fifths are the heavier one's.
  make(2, weights);
  for (int i = 0; i < 100; i++) {
    const int at = choose(BALANCE_LEAST_CONNECTIONS, 0);
    atomic_fetch_add(&endpoints[at].num_open, 1);
  }
  assert_in_range(counts[1], 79, 81);
}

static void a_client_stays_where_it_was(void **state) {
  static int before[NUM_CLIENTS];
  (void)state;
  make(5, NULL);
  for (uint32_t i = 0; i < NUM_CLIENTS; i++) {
    before[i] = choose(BALANCE_HASH_CLIENT, client_hash(i));
    assert_int_equal(choose(BALANCE_HASH_CLIENT, client_hash(i)), before[i]);
  }
  for (size_t i = 0; i < 5; i++) {
    assert_in_range(counts[i], 2 * NUM_CLIENTS / 5 * 95 / 100, 2 * NUM_CLIENTS / 5 * 105 / 100);
  }
  // Only those of the one that goes move, and to all the others.
  memset(counts, 0, sizeof(counts));
  take_out(3, ENDPOINT_OUT);
  for (uint32_t i = 0; i < NUM_CLIENTS; i++) {
    const int now = choose(BALANCE_HASH_CLIENT, client_hash(i));
    assert_true(now != 3 && (before[i] == 3 || now == before[i]));
  }
  for (size_t i = 0; i < 5; i++) {
    if (i != 3) {
      assert_in_range(counts[i], NUM_CLIENTS / 4 * 9 / 10, NUM_CLIENTS / 4 * 11 / 10);
    }
  }
}

static void clients_are_shared_out_by_weight(void **state) {
  const uint32_t weights[] = {1, 3};
  (void)state;
  make(2, weights);
  for (uint32_t i = 0; i < NUM_CLIENTS; i++) {
    (void)choose(BALANCE_HASH_CLIENT, client_hash(i));
  }
  assert_in_range(counts[0], NUM_CLIENTS / 4 * 95 / 100, NUM_CLIENTS / 4 * 105 / 100);
}

static void the_hash_is_the_same_everywhere(void **state) {
  (void)state;
  // A fleet of proxies agrees on it: a change moves every client.
  make(4, NULL);
  assert_int_equal(choose(BALANCE_HASH_CLIENT, balance_hash("\x7f\0\0\1", 4)), 3);
  assert_true(balance_hash("", 0) != balance_hash("\0", 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_has_its_turn),
      cmocka_unit_test(weights_are_shares_and_interleaved),
      cmocka_unit_test(the_share_of_one_that_is_out_goes_to_all),
      cmocka_unit_test(nobody_when_all_are_out_or_tried),
      cmocka_unit_test(the_only_one_is_tried_although_it_failed),
      cmocka_unit_test(backups_serve_when_nobody_else_can),
      cmocka_unit_test(who_has_enough_connections_is_passed_over),
      cmocka_unit_test(the_least_loaded_for_its_weight),
      cmocka_unit_test(a_client_stays_where_it_was),
      cmocka_unit_test(clients_are_shared_out_by_weight),
      cmocka_unit_test(the_hash_is_the_same_everywhere),
  };
  return cmocka_run_group_tests_name("balance", tests, NULL, tear_down);
}
