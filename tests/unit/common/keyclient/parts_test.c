// SPDX-License-Identifier: Apache-2.0
// The parts of a keyclient that have no clock of their own: latency, breaker, hedge,
// key_notes, and the order of servers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/keyclient/breaker.h"
#include "common/keyclient/hedge.h"
#include "common/keyclient/internal.h"
#include "common/keyclient/key_notes.h"
#include "common/keyclient/latency.h"

// --- latency -------------------------------------------------------------------------------

static void add_answers(struct latency *latency, unsigned num, int64_t us) {
  for (unsigned i = 0; i < num; i++) {
    latency_add_answer(latency, us);
  }
}

static void add_pings(struct latency *latency, unsigned num, int64_t us) {
  for (unsigned i = 0; i < num; i++) {
    latency_add_ping(latency, us);
  }
}

// RFC 6298, section 2.
static void smooths_round_trips(void **state) {
  struct latency latency = {0};
  (void)state;
  latency_add_answer(&latency, 8000);
  assert_int_equal(latency.srtt_us, 8000);
  assert_int_equal(latency.rttvar_us, 4000);
  latency_add_answer(&latency, 16000);
  assert_int_equal(latency.srtt_us, 9000);
  assert_int_equal(latency.rttvar_us, 5000);
  add_answers(&latency, 100, 16000);
  assert_in_range(latency.srtt_us, 15900, 16000);
  assert_in_range(latency.rttvar_us, 0, 100);
}

static void finds_the_95th_percentile(void **state) {
  struct latency latency = {0};
  (void)state;
  add_answers(&latency, LATENCY_MIN_SAMPLES - 1, 300);
  assert_int_equal(latency_p95_us(&latency), 0);  // too few
  memset(&latency, 0, sizeof latency);
  for (int i = 0; i < 40; i++) {
    latency_add_answer(&latency, i % 10 == 9 ? 50000 : 400);  // one of ten
    latency_add_answer(&latency, 400);
  }
  assert_in_range(latency_p95_us(&latency), 400, 500);  // 5 % are above: not more
  add_answers(&latency, 20, 50000);
  assert_in_range(latency_p95_us(&latency), 50000, 62500);
}

// Its bucket's end is not below a value, and not more than a quarter above it.
static void is_true_to_a_quarter_at_all_scales(void **state) {
  (void)state;
  for (int64_t us = 32; us < 12000000; us += us / 3 + 1) {
    struct latency latency = {0};
    add_answers(&latency, 64, us);
    assert_in_range(latency_p95_us(&latency), us, us + us / 4 + 32);
  }
}

static void survives_times_that_cannot_be(void **state) {
  struct latency latency = {0};
  (void)state;
  add_answers(&latency, 100, -5);
  assert_in_range(latency_p95_us(&latency), 1, 32);
  add_answers(&latency, 2000, INT64_C(3600000000));
  assert_true(latency_p95_us(&latency) > 10000000);
}

static void forgets_old_times(void **state) {
  struct latency latency = {0};
  (void)state;
  add_answers(&latency, 5000, 20000);
  add_answers(&latency, 3 * LATENCY_WINDOW, 300);
  assert_in_range(latency_p95_us(&latency), 300, 400);
  for (int i = 0; i < 10; i++) {
    latency_fade(&latency);
  }
  assert_true(latency.num_samples < 64);
}

static void measures_the_distance_by_its_nearest_pings(void **state) {
  struct latency latency = {0};
  (void)state;
  add_pings(&latency, LATENCY_NUM_PINGS - 1, 500);
  assert_int_equal(latency_distance_us(&latency), -1);
  latency_add_ping(&latency, 9000);  // noise
  assert_int_equal(latency_distance_us(&latency), 500);
  add_pings(&latency, LATENCY_NUM_PINGS - 1, 7000);
  assert_int_equal(latency_distance_us(&latency), 7000);
  add_pings(&latency, 1000, 800);
  assert_int_equal(latency_distance_us(&latency), 800);
  latency_forget_distance(&latency);
  assert_int_equal(latency_distance_us(&latency), -1);
}

static void tells_slow_keys_from_distance(void **state) {
  struct latency latency = {0};
  (void)state;
  add_pings(&latency, LATENCY_NUM_PINGS, 500);
  add_answers(&latency, 50, 20000);
  assert_int_equal(latency_distance_us(&latency), 500);  // it may be the key
  assert_true(latency_is_in_doubt(&latency));
  latency_add_ping(&latency, 500);
  assert_false(latency_is_in_doubt(&latency));
  latency_add_answer(&latency, 1400);
  assert_false(latency_is_in_doubt(&latency));
  latency_add_answer(&latency, 300);  // nearer than it seemed
  assert_int_equal(latency_distance_us(&latency), 300);
}

// --- breaker ---------------------------------------------------------------------------------

static void opens_after_failures_in_a_row(void **state) {
  struct breaker breaker = {0};
  (void)state;
  for (unsigned i = 1; i < BREAKER_IN_ROW; i++) {
    assert_false(breaker_note_bad(&breaker, 1000, 0));
  }
  assert_false(breaker_note_good(&breaker, 1000, 1000));  // not in a row any more
  for (unsigned i = 1; i < BREAKER_IN_ROW; i++) {
    assert_false(breaker_note_bad(&breaker, 1000, 0));
  }
  assert_true(breaker_note_bad(&breaker, 1000, 0));
  assert_int_equal(breaker.state, BREAKER_OPEN);
  assert_false(breaker_note_bad(&breaker, 1000, 0));  // is open
}

static void opens_when_half_of_many_fail(void **state) {
  struct breaker breaker = {0};
  unsigned num = 0;
  (void)state;
  while (breaker.state == BREAKER_CLOSED) {
    (void)breaker_note_good(&breaker, 1000, 1000);
    (void)breaker_note_bad(&breaker, 1000, 0);
    num += 2;
    assert_in_range(num, 1, BREAKER_MIN_NUM);
  }
  assert_int_equal(num, BREAKER_MIN_NUM);
}

static void counts_shares_in_a_window(void **state) {
  struct breaker breaker = {0};
  (void)state;
  for (int64_t ms = 0; ms < 100 * BREAKER_WINDOW_MS; ms += BREAKER_WINDOW_MS / 4) {
    (void)breaker_note_good(&breaker, ms, ms);
    (void)breaker_note_bad(&breaker, ms, 0);
  }
  assert_int_equal(breaker.state, BREAKER_CLOSED);  // a half, but of few
}

static struct breaker opened(int64_t now_ms) {
  struct breaker breaker = {0};
  while (!breaker_note_bad(&breaker, now_ms, UINT16_MAX / 2)) {
  }
  return breaker;
}

static void lets_a_ping_close_it(void **state) {
  struct breaker breaker = opened(100000);
  (void)state;
  assert_false(breaker_may_probe(&breaker, 100000 + BREAKER_FIRST_MS / 2));
  assert_true(breaker_may_probe(&breaker, 100000 + BREAKER_FIRST_MS));
  assert_false(breaker_probe_done(&breaker, true, 100001, 0));  // there was none
  breaker_probe(&breaker);
  assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
  assert_false(breaker_may_probe(&breaker, 200000));  // one at a time
  assert_true(breaker_probe_done(&breaker, true, 100600, 0));
  assert_int_equal(breaker.state, BREAKER_CLOSED);
  assert_false(breaker_note_bad(&breaker, 100600, 0));  // counts from the beginning
}

static void pauses_longer_each_time(void **state) {
  struct breaker breaker = opened(100000);
  int64_t pause_ms = BREAKER_FIRST_MS;
  int64_t now_ms = breaker.probe_ms;
  (void)state;
  for (int i = 0; i < 20; i++) {
    breaker_probe(&breaker);
    assert_true(breaker_probe_done(&breaker, false, now_ms, UINT16_MAX / 2));
    pause_ms = pause_ms * 2 < BREAKER_LAST_MS ? pause_ms * 2 : BREAKER_LAST_MS;
    assert_in_range(breaker.probe_ms - now_ms, pause_ms - 1, pause_ms);
    now_ms = breaker.probe_ms;
  }
  // A server that comes and goes is not taken for well.
  breaker_probe(&breaker);
  (void)breaker_probe_done(&breaker, true, now_ms, 0);
  while (!breaker_note_bad(&breaker, now_ms + 1000, 0)) {
  }
  assert_in_range(breaker.probe_ms - now_ms - 1000, BREAKER_LAST_MS * 3 / 4, BREAKER_LAST_MS);
  // One that was well for long is.
  breaker_probe(&breaker);
  (void)breaker_probe_done(&breaker, true, now_ms, 0);
  now_ms += BREAKER_CALM_MS;
  while (!breaker_note_bad(&breaker, now_ms, UINT16_MAX)) {
  }
  assert_in_range(breaker.probe_ms - now_ms, BREAKER_FIRST_MS, BREAKER_FIRST_MS * 5 / 4);
}

static void only_new_requests_close_it(void **state) {
  struct breaker breaker = opened(100000);
  (void)state;
  assert_false(breaker_note_good(&breaker, 99999, 100100));
  assert_int_equal(breaker.state, BREAKER_OPEN);
  assert_true(breaker_note_good(&breaker, 100050, 100100));
  assert_int_equal(breaker.state, BREAKER_CLOSED);
}

// --- hedge -----------------------------------------------------------------------------------

static void hedges_a_share_of_requests(void **state) {
  struct hedge_budget budget;
  unsigned num = 0;
  (void)state;
  hedge_budget_init(&budget, 5);
  for (int i = 0; i < 1000; i++) {
    hedge_budget_earn(&budget);
    num += hedge_budget_spend(&budget) ? 1 : 0;
  }
  assert_in_range(num, 49 + HEDGE_BURST, 50 + HEDGE_BURST);  // the first came to a full purse
  for (int i = 0; i < 100000; i++) {
    hedge_budget_earn(&budget);
  }
  for (num = 0; hedge_budget_spend(&budget); num++) {
  }
  assert_int_equal(num, HEDGE_BURST);  // no more is saved up
  hedge_budget_init(&budget, 0);
  hedge_budget_earn(&budget);
  assert_false(hedge_budget_spend(&budget));
}

static void hedges_within_bounds_of_time(void **state) {
  struct latency latency = {0};
  (void)state;
  assert_int_equal(hedge_after_ms(&latency, 1000), -1);  // nothing is known
  add_answers(&latency, 100, 300);
  assert_int_equal(hedge_after_ms(&latency, 1000), HEDGE_MIN_MS);
  add_answers(&latency, 2000, 80000);
  assert_in_range(hedge_after_ms(&latency, 1000), 80, 100);
  assert_int_equal(hedge_after_ms(&latency, 50), -1);  // the attempt ends before
}

// --- key_notes -------------------------------------------------------------------------------

static struct key_notes notes;

static void make_ski(uint8_t ski[FRAME_SKI_LEN], uint32_t n) {
  memset(ski, 0, FRAME_SKI_LEN);
  memcpy(ski, &n, sizeof n);
}

static void notes_who_has_not_got_a_key(void **state) {
  uint8_t one[FRAME_SKI_LEN];
  uint8_t two[FRAME_SKI_LEN];
  (void)state;
  memset(&notes, 0, sizeof notes);
  make_ski(one, 1);
  make_ski(two, 1 + KEY_NOTES_SETS);  // in the same place
  key_notes_add(&notes, one, 0, 1000);
  key_notes_add(&notes, one, 3, 2000);
  assert_int_equal(key_notes_find(&notes, one, 3000), 9);
  assert_int_equal(key_notes_find(&notes, two, 3000), 0);
  key_notes_drop(&notes, one, 0);
  key_notes_drop(&notes, one, 5);
  assert_int_equal(key_notes_find(&notes, one, 3000), 8);
  // The life counts from the first word.
  assert_int_equal(key_notes_find(&notes, one, 1000 + KEY_NOTES_LIFE_MS - 1), 8);
  assert_int_equal(key_notes_find(&notes, one, 1000 + KEY_NOTES_LIFE_MS), 0);
  assert_int_equal(notes.num, 0);
  key_notes_add(&notes, one, 1, 0);
  key_notes_add(&notes, one, 2, KEY_NOTES_LIFE_MS);  // the first is over
  assert_int_equal(key_notes_find(&notes, one, KEY_NOTES_LIFE_MS), 4);
  key_notes_drop(&notes, one, 2);
  key_notes_drop(&notes, one, 2);
  assert_int_equal(notes.num, 0);
}

static void keeps_a_bounded_number_of_notes(void **state) {
  uint8_t ski[FRAME_SKI_LEN];
  (void)state;
  memset(&notes, 0, sizeof notes);
  for (uint32_t i = 0; i < 100000; i++) {
    make_ski(ski, i);
    key_notes_add(&notes, ski, i % 16, i);
  }
  assert_int_equal(notes.num, KEY_NOTES_SETS * KEY_NOTES_WAYS);
  make_ski(ski, 99999);
  assert_int_equal(key_notes_find(&notes, ski, 100000 - 1), 1u << (99999 % 16));
}

// --- order -----------------------------------------------------------------------------------

static void assert_order(const int64_t *distance_us, uint8_t *order, const char *want) {
  char got[KEYCLIENT_MAX_SERVERS + 1] = "";
  const size_t num = strlen(want);
  order_sort(order, num, distance_us);
  for (size_t i = 0; i < num; i++) {
    got[i] = (char)('0' + order[i]);
  }
  assert_string_equal(got, want);
}

static void puts_the_nearest_first(void **state) {
  uint8_t order[] = {0, 1, 2, 3};
  (void)state;
  assert_order((int64_t[]){-1, -1, -1, -1}, order, "0123");
  assert_order((int64_t[]){50000, 20000, 300, 5000}, order, "2310");
}

static void leaves_equals_and_the_unmeasured_where_they_are(void **state) {
  uint8_t order[] = {0, 1, 2};
  (void)state;
  assert_order((int64_t[]){900, 300, 100}, order, "012");        // less than a millisecond
  assert_order((int64_t[]){50000, 40000, 39000}, order, "012");  // less than a quarter
  assert_order((int64_t[]){50000, -1, 100}, order, "210");
  assert_order((int64_t[]){50000, -1, -1}, order, "210");
}

// One that went away and came back to where the others are stays behind them: two that are
// the same do not take turns.
static void does_not_flap(void **state) {
  uint8_t order[] = {0, 1};
  (void)state;
  assert_order((int64_t[]){80000, 300}, order, "10");
  for (int64_t us = 100; us < 1300; us += 100) {
    assert_order((int64_t[]){us, 1000}, order, "10");
    assert_order((int64_t[]){1000, us}, order, "10");
  }
  assert_order((int64_t[]){300, 1500}, order, "01");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(smooths_round_trips),
      cmocka_unit_test(finds_the_95th_percentile),
      cmocka_unit_test(is_true_to_a_quarter_at_all_scales),
      cmocka_unit_test(survives_times_that_cannot_be),
      cmocka_unit_test(forgets_old_times),
      cmocka_unit_test(measures_the_distance_by_its_nearest_pings),
      cmocka_unit_test(tells_slow_keys_from_distance),
      cmocka_unit_test(opens_after_failures_in_a_row),
      cmocka_unit_test(opens_when_half_of_many_fail),
      cmocka_unit_test(counts_shares_in_a_window),
      cmocka_unit_test(lets_a_ping_close_it),
      cmocka_unit_test(pauses_longer_each_time),
      cmocka_unit_test(only_new_requests_close_it),
      cmocka_unit_test(hedges_a_share_of_requests),
      cmocka_unit_test(hedges_within_bounds_of_time),
      cmocka_unit_test(notes_who_has_not_got_a_key),
      cmocka_unit_test(keeps_a_bounded_number_of_notes),
      cmocka_unit_test(puts_the_nearest_first),
      cmocka_unit_test(leaves_equals_and_the_unmeasured_where_they_are),
      cmocka_unit_test(does_not_flap),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
