// SPDX-License-Identifier: Apache-2.0
// The order and the budgets of delegated credentials, by a clock of the test's own.
#include "proxy/dc/dc_schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// cmocka needs the four above first.
#include <cmocka.h>

#define MANY 100000
#define SECOND INT64_C(1000)
#define HOUR (3600 * SECOND)
#define WALL INT64_C(1790000000000)  // where the wall clock starts

static uint64_t seed;
static uint64_t fake_random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static const struct dc_limits usual = {.max_held = 1000,
                                       .per_s = 1000000,
                                       .life_ms = 48 * HOUR,
                                       .retry_min_ms = SECOND,
                                       .retry_max_ms = 600 * SECOND};

struct world {
  struct dc_schedule s;
  struct dc_entry *entries;
  size_t num;
  int64_t now;  // both clocks go together
};

static int64_t wall(const struct world *w) { return WALL + w->now; }

static void setup(struct world *w, size_t num, const struct dc_limits *limits) {
  seed = 0x9e3779b97f4a7c15;
  *w = (struct world){.num = num, .now = 1000 * HOUR};
  w->entries = calloc(num, sizeof(*w->entries));
  assert_non_null(w->entries);
  dc_schedule_init(&w->s, limits, fake_random, w->now);
  for (size_t i = 0; i < num; i++) {
    assert_int_equal(dc_schedule_add(&w->s, &w->entries[i]), STATUS_OK);
    dc_schedule_stand(&w->s, &w->entries[i], DC_CACHED, w->now);
  }
}

static void teardown(struct world *w) {
  for (size_t i = 0; i < w->num; i++) {
    dc_schedule_remove(&w->s, &w->entries[i]);
  }
  for (size_t i = 0; i < DC_SCHEDULE_NUM_HEAPS; i++) {
    assert_int_equal(w->s.heaps[i].num, 0);
  }
  assert_int_equal(w->s.num_asked + w->s.num_asked_new, 0);
  assert_int_equal(w->s.num_waiting_new + w->s.num_held_loose, 0);
  dc_schedule_cleanup(&w->s);
  free(w->entries);
}

static void want(struct world *w, size_t i, unsigned times) {
  for (; times > 0; times--) {
    dc_schedule_want(&w->s, &w->entries[i], 1, w->now);
  }
}

// The index of who is next; -1: nobody.
static int next(struct world *w) {
  const struct dc_entry *entry = dc_schedule_next(&w->s, w->now, wall(w));
  return entry == NULL ? -1 : (int)(entry - w->entries);
}

static void put(struct world *w, size_t i, int64_t life_ms) {
  dc_schedule_put(&w->s, &w->entries[i], life_ms, wall(w) + life_ms * 7 / 8, wall(w) + life_ms,
                  wall(w));
}

static void nobody_is_asked_for_before_a_client_wants_one(void **state) {
  struct world w;
  (void)state;
  setup(&w, 3, &usual);
  assert_int_equal(next(&w), -1);
  assert_int_equal(dc_schedule_wait_ms(&w.s, w.now, wall(&w), 777), 777);
  want(&w, 1, 1);
  assert_int_equal(dc_schedule_wait_ms(&w.s, w.now, wall(&w), 777), 0);
  assert_int_equal(next(&w), 1);
  assert_int_equal(next(&w), -1);  // with an issuer
  dc_schedule_stand(&w.s, &w.entries[2], DC_CONFIGURED, w.now);
  assert_int_equal(next(&w), 2);
  teardown(&w);
}

static void the_hottest_goes_first_and_heat_fades(void **state) {
  struct world w;
  (void)state;
  setup(&w, 4, &usual);
  want(&w, 0, 8);
  assert_true(fabs(dc_schedule_heat(&w.entries[0], w.now) - 8) < 1e-6);
  w.now += 2 * DC_SCHEDULE_HALF_LIFE_MS;
  assert_true(fabs(dc_schedule_heat(&w.entries[0], w.now) - 2) < 1e-6);
  want(&w, 1, 1);
  want(&w, 2, 3);
  dc_schedule_stand(&w.s, &w.entries[3], DC_CONFIGURED, w.now);
  assert_int_equal(next(&w), 3);  // what is configured goes before what is visited
  assert_int_equal(next(&w), 2);
  assert_int_equal(next(&w), 0);
  assert_int_equal(next(&w), 1);
  // And heat that comes while one waits for its turn counts.
  for (size_t i = 0; i < 3; i++) {
    dc_schedule_return(&w.s, &w.entries[i]);
  }
  want(&w, 1, 5);
  assert_int_equal(next(&w), 1);
  teardown(&w);
}

static void of_equally_hot_ones_the_first_to_expire_goes_first(void **state) {
  struct world w;
  (void)state;
  setup(&w, 2, &usual);
  for (size_t i = 0; i < 2; i++) {
    want(&w, i, 4);
    (void)next(&w);
  }
  put(&w, 0, 48 * HOUR);
  put(&w, 1, 40 * HOUR);
  for (size_t i = 0; i < 2; i++) {
    want(&w, i, 1);
  }
  assert_int_equal(next(&w), -1);
  w.now += 17 * HOUR;
  assert_int_equal(next(&w), -1);  // half of 40 h less a tenth is to come
  w.now += 10 * HOUR;
  assert_int_equal(next(&w), 1);
  assert_int_equal(next(&w), 0);
  // Eight times as hot outweighs the hours.
  dc_schedule_return(&w.s, &w.entries[0]);
  dc_schedule_return(&w.s, &w.entries[1]);
  want(&w, 0, 160);
  assert_int_equal(next(&w), 0);
  assert_int_equal(next(&w), 1);
  teardown(&w);
}

static void what_can_soon_not_be_shown_passes_what_is_missing(void **state) {
  struct world w;
  (void)state;
  setup(&w, 2, &usual);
  want(&w, 0, 4);
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  w.now += 28 * HOUR;
  want(&w, 0, 64);
  want(&w, 1, 2);
  // 14 h are left until it cannot be shown: seven halvings of a heat 32 times as great.
  assert_int_equal(next(&w), 1);
  dc_schedule_return(&w.s, &w.entries[1]);
  w.now += 8 * HOUR;  // three halvings now
  want(&w, 0, 64);
  want(&w, 1, 2);
  assert_int_equal(next(&w), 0);
  teardown(&w);
}

static void renewals_are_spread_about_half_of_the_life(void **state) {
  const size_t num = 2000;
  const struct dc_limits limits = {.max_held = 5000,
                                   .per_s = 1000000,
                                   .life_ms = 48 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  size_t in_tenths[10] = {0};
  (void)state;
  setup(&w, num, &limits);
  for (size_t i = 0; i < num; i++) {
    want(&w, i, 1);
    assert_int_not_equal(next(&w), -1);
  }
  for (size_t i = 0; i < num; i++) {
    put(&w, i, 48 * HOUR);
    const int64_t after = w.entries[i].at_ms - wall(&w);
    const int64_t earliest = 24 * HOUR * 90 / 100;
    const int64_t latest = 24 * HOUR * 110 / 100;
    assert_in_range(after, earliest, latest);
    in_tenths[(after - earliest) * 10 / (latest - earliest + 1)] += 1;
  }
  for (size_t i = 0; i < 10; i++) {
    assert_in_range(in_tenths[i], num / 20, num / 5);  // a tenth, within a half or double
  }
  teardown(&w);
}

static void who_nobody_wants_is_not_renewed(void **state) {
  struct world w;
  (void)state;
  setup(&w, 2, &usual);
  want(&w, 0, 1);
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  w.now += 30 * HOUR;
  assert_int_equal(next(&w), -1);
  assert_int_equal(w.s.num_let_go, 1);
  assert_int_equal(dc_schedule_num_held(&w.s), 1);  // serves to its end
  want(&w, 0, 1);
  assert_int_equal(next(&w), 0);  // and at once when somebody comes
  put(&w, 0, 48 * HOUR);
  w.now += 30 * HOUR;
  want(&w, 0, 1);
  assert_int_equal(next(&w), 0);
  teardown(&w);
}

static void the_budget_is_kept_and_the_coldest_go(void **state) {
  const size_t num = 300;
  const struct dc_limits limits = {.max_held = 100,
                                   .per_s = 1000000,
                                   .life_ms = 48 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  (void)state;
  setup(&w, num, &limits);
  for (size_t i = 0; i < num; i++) {
    want(&w, i, (unsigned)(i % 3 == 0 ? 1 : i % 3 == 1 ? 4 : 16));
    const int asked = next(&w);
    if (asked >= 0) {
      put(&w, (size_t)asked, 48 * HOUR);
    }
    const struct dc_entry *evicted = NULL;
    while ((evicted = dc_schedule_evict(&w.s, w.now)) != NULL) {
      assert_false(evicted->is_held);
    }
    assert_in_range(dc_schedule_num_held(&w.s), 0, 100);
  }
  assert_int_equal(dc_schedule_num_held(&w.s), 100);
  for (size_t i = 0; i < num; i++) {
    assert_true(!w.entries[i].is_held || i % 3 == 2);  // the 100 hottest
  }
  assert_true(w.s.num_evicted > 0);
  assert_true(w.s.num_no_room > 0);
  // One that is as hot as the coldest drives nobody out.
  const uint64_t num_evicted = w.s.num_evicted;
  want(&w, 0, 15);
  assert_int_equal(next(&w), -1);
  assert_int_equal(w.s.num_evicted, num_evicted);
  // What has left the cache goes before what is in it, however hot.
  want(&w, 2, 100);
  dc_schedule_stand(&w.s, &w.entries[2], DC_LOOSE, w.now);
  assert_int_equal(w.s.num_held_loose, 1);
  want(&w, 1, 1);
  assert_int_equal(next(&w), 1);
  put(&w, 1, 48 * HOUR);
  assert_ptr_equal(dc_schedule_evict(&w.s, w.now), &w.entries[2]);
  assert_null(dc_schedule_evict(&w.s, w.now));
  // A lower limit counts at once.
  struct dc_limits less = limits;
  less.max_held = 10;
  dc_schedule_set_limits(&w.s, &less);
  while (dc_schedule_evict(&w.s, w.now) != NULL) {
  }
  assert_int_equal(dc_schedule_num_held(&w.s), 10);
  teardown(&w);
}

static void configured_names_that_do_not_fit_are_tried_again(void **state) {
  const struct dc_limits limits = {.max_held = 1,
                                   .per_s = 1000,
                                   .life_ms = 48 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  (void)state;
  setup(&w, 2, &limits);
  dc_schedule_stand(&w.s, &w.entries[0], DC_CONFIGURED, w.now);
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  dc_schedule_stand(&w.s, &w.entries[1], DC_CONFIGURED, w.now);
  assert_int_equal(next(&w), -1);
  assert_int_equal(w.s.num_no_room, 1);
  assert_int_equal(dc_schedule_num(&w.s, DC_QUEUE_WAITING), 1);
  dc_schedule_drop(&w.s, &w.entries[0]);
  dc_schedule_stand(&w.s, &w.entries[0], DC_LOOSE, w.now);
  w.now += DC_SCHEDULE_PARK_MS;
  assert_int_equal(next(&w), 1);
  teardown(&w);
}

static void failures_back_off_within_bounds(void **state) {
  struct world w;
  (void)state;
  setup(&w, 1, &usual);
  want(&w, 0, 1);
  for (unsigned i = 0; i < 40; i++) {
    assert_int_equal(next(&w), 0);
    dc_schedule_fail(&w.s, &w.entries[0], false, w.now);
    const int64_t pause = w.entries[0].at_ms - w.now;
    const int64_t full = i < 10 && SECOND << i < 600 * SECOND ? SECOND << i : 600 * SECOND;
    assert_in_range(pause, full / 2, full);
    assert_int_equal(dc_schedule_wait_ms(&w.s, w.now, wall(&w), INT64_MAX), pause);
    w.now += pause - 1;
    assert_int_equal(next(&w), -1);
    w.now += 1;
  }
  // A firm refusal is not asked about at full speed even the first time.
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  assert_int_equal(w.entries[0].num_failures, 0);
  w.now += 30 * HOUR;
  want(&w, 0, 1);
  assert_int_equal(next(&w), 0);
  dc_schedule_fail(&w.s, &w.entries[0], true, w.now);
  assert_in_range(w.entries[0].at_ms - w.now, 300 * SECOND, 600 * SECOND);
  // Nor does the wish of a client, nor an operator's hurry (it has one), change that.
  want(&w, 0, 100);
  dc_schedule_hurry(&w.s);
  assert_int_equal(next(&w), -1);
  dc_schedule_drop(&w.s, &w.entries[0]);
  dc_schedule_hurry(&w.s);
  assert_int_equal(next(&w), 0);
  teardown(&w);
}

static void no_more_than_so_many_a_second(void **state) {
  const struct dc_limits limits = {.max_held = MANY,
                                   .per_s = 50,
                                   .life_ms = 48 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  size_t num_asked = 0;
  const int64_t seconds = 20;
  (void)state;
  setup(&w, 5000, &limits);
  for (size_t i = 0; i < w.num; i++) {
    want(&w, i, 1);
  }
  const int64_t end = w.now + seconds * SECOND;
  while (w.now < end) {
    while (next(&w) >= 0) {
      num_asked += 1;
    }
    const int64_t wait = dc_schedule_wait_ms(&w.s, w.now, wall(&w), SECOND);
    assert_in_range(wait, 1, 21);
    w.now += wait;
  }
  assert_in_range(num_asked, 49 * (size_t)seconds, 50 * (size_t)(seconds + 1));
  // A long quiet time saves up one second's worth, not more.
  w.now += HOUR;
  num_asked = 0;
  while (next(&w) >= 0) {
    num_asked += 1;
  }
  assert_int_equal(num_asked, 50);
  teardown(&w);
}

static void clocks_that_are_set_do_no_harm(void **state) {
  struct world w;
  (void)state;
  setup(&w, 1, &usual);
  want(&w, 0, 1);
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  want(&w, 0, 1);
  // The wall clock alone goes: a day back, nothing is due.
  assert_null(dc_schedule_next(&w.s, w.now, wall(&w) - 24 * HOUR));
  assert_null(dc_schedule_event(&w.s, wall(&w) - 24 * HOUR));
  // Three days on: the end has come.
  assert_ptr_equal(dc_schedule_event(&w.s, wall(&w) + 72 * HOUR), &w.entries[0]);
  dc_schedule_drop(&w.s, &w.entries[0]);
  assert_null(dc_schedule_event(&w.s, wall(&w) + 72 * HOUR));
  assert_int_equal(next(&w), 0);
  teardown(&w);
}

static void a_new_leaf_takes_the_place_of_the_one_before(void **state) {
  struct world w;
  (void)state;
  setup(&w, 4, &usual);
  want(&w, 0, 9);
  assert_int_equal(next(&w), 0);
  put(&w, 0, 48 * HOUR);
  dc_schedule_inherit(&w.s, &w.entries[1], &w.entries[0], w.now);
  dc_schedule_inherit(&w.s, &w.entries[3], &w.entries[2], w.now);  // 2 was cold
  assert_true(dc_schedule_heat(&w.entries[1], w.now) >= 9);
  assert_int_equal(next(&w), 1);
  assert_int_equal(next(&w), -1);
  teardown(&w);
}

static double rank(const struct dc_entry *entry) { return entry->heat + 64.0 * entry->standing; }

// Every entry is where its heap says, and no heap is out of order.
static void check_heaps(const struct world *w) {
  size_t num_queued = 0;
  for (size_t h = 0; h < DC_SCHEDULE_NUM_HEAPS; h++) {
    const struct dc_heap *heap = &w->s.heaps[h];
    const unsigned place = h < 4 ? 0 : (unsigned)h - 3;
    for (size_t i = 0; i < heap->num; i++) {
      assert_int_equal(heap->items[i]->places[place], i);
      const struct dc_entry *parent = heap->items[i == 0 ? 0 : (i - 1) / 2];
      assert_true(h != 4 || rank(parent) <= rank(heap->items[i]));
      assert_true(h != 5 || parent->event_ms <= heap->items[i]->event_ms);
    }
    num_queued += h < 4 ? heap->num : 0;
  }
  size_t num = 0;
  size_t num_held = 0;
  for (size_t i = 0; i < w->num; i++) {
    num += w->entries[i].queue >= DC_QUEUE_WAITING && w->entries[i].queue <= DC_QUEUE_EXPIRING;
    num_held += w->entries[i].is_held;
  }
  assert_int_equal(num, num_queued);
  assert_int_equal(num_held, dc_schedule_num_held(&w->s));
}

static void step(struct world *w) {
  const uint64_t dice = fake_random();
  struct dc_entry *entry = &w->entries[dice / 16 % w->num];
  w->now += (int64_t)(fake_random() % (30 * SECOND));
  switch (dice % 8) {
    case 0:
    case 1:
    case 2:
      dc_schedule_want(&w->s, entry, 1, w->now);
      break;
    case 3:
      entry = dc_schedule_next(&w->s, w->now, wall(w));
      if (entry != NULL && dice % 64 < 48) {
        dc_schedule_put(&w->s, entry, 6 * HOUR, wall(w) + 5 * HOUR, wall(w) + 6 * HOUR, wall(w));
      } else if (entry != NULL) {
        dc_schedule_fail(&w->s, entry, dice % 128 < 64, w->now);
      }
      break;
    case 4:
      dc_schedule_stand(&w->s, entry, (enum dc_standing)((int)(dice / 8 % 3) - 1), w->now);
      break;
    case 5:
      if (entry->is_held && dice % 128 < 64) {
        dc_schedule_drop(&w->s, entry);
      }
      break;
    case 6:
      while ((entry = dc_schedule_event(&w->s, wall(w))) != NULL) {
        dc_schedule_drop(&w->s, entry);
      }
      break;
    default:
      if (dice % 512 == 7) {
        dc_schedule_hurry(&w->s);
      }
      break;
  }
  while (dc_schedule_evict(&w->s, w->now) != NULL) {
  }
}

static void anything_in_any_order_keeps_all_in_place(void **state) {
  const struct dc_limits limits = {.max_held = 20,
                                   .per_s = 10,
                                   .life_ms = 6 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  (void)state;
  setup(&w, 200, &limits);
  for (unsigned i = 0; i < 40000; i++) {
    step(&w);
    if (i % 100 == 0) {
      check_heaps(&w);
    }
  }
  assert_true(w.s.num_evicted > 100);
  teardown(&w);
}

// --- 100,000 -------------------------------------------------------------------------------

static double compares_for(struct world *w, uint64_t before, double num_calls) {
  return (double)(w->s.num_compares - before) / num_calls;
}

static void a_hundred_thousand_cost_the_logarithm(void **state) {
  const struct dc_limits limits = {.max_held = MANY / 2,
                                   .per_s = 1000000,
                                   .life_ms = 48 * HOUR,
                                   .retry_min_ms = SECOND,
                                   .retry_max_ms = 600 * SECOND};
  struct world w;
  const double log_n = log2(MANY);
  (void)state;
  setup(&w, MANY, &limits);

  uint64_t before = w.s.num_compares;
  for (size_t i = 0; i < MANY; i++) {
    dc_schedule_want(&w.s, &w.entries[i], 1 + (double)(fake_random() % 1000), w.now);
  }
  assert_true(compares_for(&w, before, MANY) < 2 * log_n);

  // They come by heat.
  double last = INFINITY;
  size_t num = 0;
  before = w.s.num_compares;
  for (int i = next(&w); i >= 0 && num < MANY / 2; num++) {
    assert_true(w.entries[i].heat <= last);
    last = w.entries[i].heat;
    put(&w, (size_t)i, 48 * HOUR);
    w.now += 1;
    i = num + 1 < MANY / 2 ? next(&w) : -1;
  }
  assert_int_equal(num, MANY / 2);
  assert_true(compares_for(&w, before, MANY / 2.0) < 6 * log_n);

  // The budget is full; visits to all, with what they drive out.
  before = w.s.num_compares;
  for (size_t i = 0; i < MANY; i++) {
    dc_schedule_want(&w.s, &w.entries[fake_random() % MANY], 1, w.now);
    const int asked = next(&w);
    if (asked >= 0) {
      put(&w, (size_t)asked, 48 * HOUR);
      while (dc_schedule_evict(&w.s, w.now) != NULL) {
      }
    }
    assert_in_range(dc_schedule_num_held(&w.s), 0, MANY / 2);
  }
  assert_true(compares_for(&w, before, MANY) < 12 * log_n);

  // All renewals fall due while an issuer is away for a day; they come back in order.
  w.now += 26 * HOUR + 30 * 60 * SECOND;
  for (size_t i = 0; i < MANY; i++) {
    if (w.entries[i].is_held) {
      want(&w, i, 1);
    }
  }
  before = w.s.num_compares;
  num = 0;
  while (next(&w) >= 0) {
    num += 1;
  }
  assert_int_equal(num, MANY / 2);
  assert_true(compares_for(&w, before, (double)num) < 6 * log_n);
  teardown(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nobody_is_asked_for_before_a_client_wants_one),
      cmocka_unit_test(the_hottest_goes_first_and_heat_fades),
      cmocka_unit_test(of_equally_hot_ones_the_first_to_expire_goes_first),
      cmocka_unit_test(what_can_soon_not_be_shown_passes_what_is_missing),
      cmocka_unit_test(renewals_are_spread_about_half_of_the_life),
      cmocka_unit_test(who_nobody_wants_is_not_renewed),
      cmocka_unit_test(the_budget_is_kept_and_the_coldest_go),
      cmocka_unit_test(configured_names_that_do_not_fit_are_tried_again),
      cmocka_unit_test(failures_back_off_within_bounds),
      cmocka_unit_test(no_more_than_so_many_a_second),
      cmocka_unit_test(clocks_that_are_set_do_no_harm),
      cmocka_unit_test(a_new_leaf_takes_the_place_of_the_one_before),
      cmocka_unit_test(anything_in_any_order_keeps_all_in_place),
      cmocka_unit_test(a_hundred_thousand_cost_the_logarithm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
