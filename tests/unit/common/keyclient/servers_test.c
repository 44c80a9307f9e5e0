// SPDX-License-Identifier: Apache-2.0
// Several key servers: which is asked, what is hedged, who is avoided.
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/keyclient/report.h"
#include "tests/unit/common/keyclient/stand.h"

static const struct keyclient_server_stats *stats_of(size_t i) {
  return keyclient_server_stats(kc, i);
}

static bool are_measured(void) {
  for (size_t i = 0; i < keyclient_num_servers(kc); i++) {
    if (counter_get(&stats_of(i)->distance_us) == 0) {
      return false;
    }
  }
  return true;
}

// start starts a client of the first `num` fakes and waits until all are measured.
static void start(size_t num) {
  start_client(num);
  run_until_ready((unsigned)num);
  run_until(are_measured);
}

static void ask_one_by_one(unsigned num) {
  for (unsigned i = 0; i < num; i++) {
    (void)ask();
    assert_answers(1, STATUS_OK);
  }
}

static uint64_t state_of(size_t i) { return counter_get(&stats_of(i)->breaker); }

// --- distance ----------------------------------------------------------------------------

static void asks_the_nearest(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start_fake(2, FAKE_SIGN);
  fakes[0].far_ms = 60;
  fakes[1].far_ms = 30;
  start(3);
  ask_one_by_one(5);
  assert_int_equal(fakes[2].num_requests, 5);
  assert_int_equal(counter_get(&stats_of(2)->place), 1);
  assert_int_equal(counter_get(&stats_of(0)->place), 3);
  // The nearest but one, and back.
  fake_keyserver_stop(&fakes[2]);
  run_until_ready(2);
  ask_one_by_one(5);
  assert_int_equal(fakes[1].num_requests, 5);
  start_fake(2, FAKE_SIGN);
  run_until_ready(3);
  ask_one_by_one(5);
  assert_int_equal(fakes[2].num_requests, 10);
  assert_int_equal(fakes[0].num_requests, 0);
}

static void keeps_the_configured_order_of_equals(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  fakes[0].far_ms = fakes[1].far_ms = 20;
  start(2);
  ask_one_by_one(10);
  assert_int_equal(fakes[0].num_requests, 10);
}

static bool is_second_first(void) { return counter_get(&stats_of(1)->place) == 1; }

static void leaves_one_that_goes_away_while_it_is_used(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(5);
  fakes[0].far_ms = 60;
  ask_one_by_one(1);  // gives reason for a doubt, which pings settle long before ping_ms
  run_until(is_second_first);
  fakes[1].num_requests = 0;
  ask_one_by_one(5);
  assert_int_equal(fakes[1].num_requests, 5);
}

// What a key costs is not distance.
static void stays_with_one_whose_keys_are_slow(void **state) {
  (void)state;
  start_fake(0, FAKE_LATE);
  fakes[0].delay_ms = 40;
  start_fake(1, FAKE_SIGN);
  start(2);
  for (int i = 0; i < 60; i++) {  // for several ticks
    ask_one_by_one(1);
  }
  assert_int_equal(fakes[0].num_requests, 60);
}

// --- keys ----------------------------------------------------------------------------------

static void passes_over_who_has_not_got_the_key(void **state) {
  static const enum frame_error codes[] = {FRAME_ERROR_KEY_NOT_FOUND, FRAME_ERROR_NOT_AUTHORISED};
  (void)state;
  start_fake(0, FAKE_ERROR);
  start_fake(1, FAKE_SIGN);
  start(2);
  for (unsigned i = 0; i < 2; i++) {
    ski[0] = (uint8_t)i;
    fakes[0].error = codes[i];
    ask_one_by_one(5);
    assert_int_equal(fakes[0].num_requests, i + 1);
    assert_int_equal(counter_get(&stats_of(0)->num_skipped), 4 * (i + 1));
  }
  assert_int_equal(counter_get(&stats_of(0)->num_failed[KEYCLIENT_NO_KEY]), 2);
  // It is no failure of the server, and for other keys it is the first.
  assert_int_equal(state_of(0), BREAKER_CLOSED);
  ski[0] = 7;
  fakes[0].manner = FAKE_SIGN;
  ask_one_by_one(1);
  assert_int_equal(fakes[0].num_requests, 3);
  // When nobody else is left it is asked all the same, and may have got the key by now.
  ski[0] = 0;
  fake_keyserver_stop(&fakes[1]);
  run_until_ready(1);
  ask_one_by_one(1);
  start_fake(1, FAKE_SIGN);
  run_until_ready(2);
  ask_one_by_one(1);
  assert_int_equal(fakes[0].num_requests, 5);
}

// --- hedges ----------------------------------------------------------------------------------

static void hedges_what_takes_too_long(void **state) {
  int64_t started_ms = 0;
  (void)state;
  config.hedge_percent = 5;
  config.attempt_ms = 2000;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(30);
  assert_true(counter_get(&stats_of(0)->hedge_after_us) > 0);
  fakes[0].manner = FAKE_SILENT;
  started_ms = clock_monotonic_ms();
  ask_one_by_one(1);
  assert_in_range(clock_monotonic_ms() - started_ms, 0, config.attempt_ms - 500);
  assert_int_equal(counter_get(&stats_of(1)->num_hedges), 1);
  assert_int_equal(counter_get(&stats_of(1)->num_hedge_wins), 1);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_attempt_timeouts), 0);
}

static bool is_late_counted(void) {
  return counter_get(&keyclient_stats(kc)->num_late_replies) == 1;
}

static void measures_the_answer_that_lost(void **state) {
  uint64_t num_before = 0;
  (void)state;
  config.hedge_percent = 5;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(30);
  num_before = counter_get(&stats_of(0)->srtt_us);
  fakes[0].manner = FAKE_LATE;
  fakes[0].delay_ms = 200;
  ask_one_by_one(1);
  assert_int_equal(counter_get(&stats_of(0)->num_in_flight), 1);
  run_until(is_late_counted);
  assert_int_equal(counter_get(&stats_of(0)->num_in_flight), 0);
  assert_true(counter_get(&stats_of(0)->srtt_us) > num_before + 10000);
  assert_int_equal(kc->num_requests, 0);
  assert_int_equal(got.num, 0);  // nobody is answered twice
}

// A server that becomes slow with much under way is not relieved by asking twice.
static void keeps_to_the_budget(void **state) {
  uint64_t num_hedges = 0;
  (void)state;
  config.hedge_percent = 10;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(100);
  fakes[0].manner = FAKE_LATE;
  fakes[0].delay_ms = 40;
  for (int i = 0; i < 200; i++) {
    (void)ask();
  }
  assert_answers(200, STATUS_OK);
  num_hedges = counter_get(&stats_of(1)->num_hedges);
  assert_in_range(num_hedges, 1, HEDGE_BURST + 30);
  assert_int_equal(fakes[0].num_requests + fakes[1].num_requests, 300 + num_hedges);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_hedges_denied), 200 - num_hedges);
}

static void hedges_nothing_without_a_budget(void **state) {
  (void)state;
  config.hedge_percent = 0;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(50);
  assert_int_equal(counter_get(&stats_of(0)->hedge_after_us), 0);
  fakes[0].manner = FAKE_LATE;
  fakes[0].delay_ms = 40;
  ask_one_by_one(10);
  assert_int_equal(fakes[1].num_requests, 0);
}

// A hedge's refusal is not the answer while the first is still asked.
static void waits_for_the_other_when_one_refuses(void **state) {
  (void)state;
  config.hedge_percent = 100;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_ERROR);
  fakes[1].error = FRAME_ERROR_RATE;
  start(2);
  ask_one_by_one(30);
  fakes[0].manner = FAKE_LATE;
  fakes[0].delay_ms = 100;
  ask_one_by_one(1);
  assert_int_equal(counter_get(&stats_of(1)->num_failed[KEYCLIENT_REFUSED]), 1);
}

// --- breakers ----------------------------------------------------------------------------------

static bool is_first_open(void) { return state_of(0) == BREAKER_OPEN; }
static bool is_first_closed(void) { return state_of(0) == BREAKER_CLOSED; }

static void avoids_a_server_that_hangs(void **state) {
  unsigned num = 0;
  int64_t started_ms = 0;
  (void)state;
  config.attempt_ms = 100;
  config.deadline_ms = 500;
  start_fake(0, FAKE_HUNG);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  for (int i = 0; i < 10; i++) {
    (void)ask();
  }
  assert_answers(10, STATUS_OK);  // by the second, after an attempt's time
  run_until(is_first_open);
  num = fakes[0].num_requests;
  started_ms = clock_monotonic_ms();
  ask_one_by_one(50);
  assert_in_range(clock_monotonic_ms() - started_ms, 0, 2000);
  assert_int_equal(fakes[0].num_requests, num);
  // It is well again: a ping finds out, not a user's request.
  fakes[0].manner = FAKE_SIGN;
  run_until(is_first_closed);
  assert_int_equal(fakes[0].num_requests, num);
  run_until(are_measured);
  ask_one_by_one(3);
  assert_int_equal(fakes[0].num_requests, num + 3);
  assert_true(counter_get(&stats_of(0)->num_openings) >= 1);
}

static void asks_the_best_of_the_bad(void **state) {
  (void)state;
  start_fake(0, FAKE_ERROR);
  fakes[0].error = FRAME_ERROR_INTERNAL;
  start(1);
  for (unsigned i = 0; i < BREAKER_IN_ROW; i++) {
    (void)ask();
    assert_answers(1, STATUS_UNAVAILABLE);
  }
  assert_int_equal(state_of(0), BREAKER_OPEN);
  (void)ask();
  assert_answers(1, STATUS_UNAVAILABLE);
  assert_int_equal(fakes[0].num_requests, BREAKER_IN_ROW + 1);  // it was tried
  fakes[0].manner = FAKE_SIGN;
  ask_one_by_one(1);
  assert_int_equal(state_of(0), BREAKER_CLOSED);  // and an answer counts
}

static bool is_first_down(void) {
  return state_of(0) == BREAKER_OPEN && counter_get(&stats_of(0)->num_connections) == 0;
}

// No pause is waited for when a server is started again.
static void uses_a_server_as_soon_as_it_is_back(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  fake_keyserver_stop(&fakes[0]);
  run_until(is_first_down);
  kc->servers[0].breaker.probe_ms = INT64_MAX;
  start_fake(0, FAKE_SIGN);
  run_until_ready(2);
  run_until(is_first_closed);
  ask_one_by_one(3);
  assert_int_equal(fakes[0].num_requests, 3);
}

// --- ends --------------------------------------------------------------------------------------

static void leaves_a_server_that_drains_without_an_error(void **state) {
  (void)state;
  config.num_connections = 2;
  start_fake(0, FAKE_SILENT);
  start_fake(1, FAKE_SIGN);
  start(2);
  for (int i = 0; i < 100; i++) {
    (void)ask();
  }
  fake_keyserver_drain(&fakes[0]);
  (void)ask();
  assert_answers(101, STATUS_OK);
  assert_int_equal(fakes[1].num_requests, 101);
  assert_int_equal(counter_get(&stats_of(0)->num_drained), 2);
  assert_int_equal(counter_get(&stats_of(0)->num_failed[KEYCLIENT_LOST]), 0);
  assert_int_equal(state_of(0), BREAKER_CLOSED);
}

// --- reports -----------------------------------------------------------------------------------

static void sums_up_what_clients_know(void **state) {
  const struct keyclient *clients[3] = {NULL};
  struct keyclient_report rows[KEYCLIENT_MAX_SERVERS];
  struct metrics_text text = {0};
  char want[128];
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start(2);
  ask_one_by_one(3);
  clients[0] = clients[2] = kc;  // as two workers; the third is changing its own
  assert_int_equal(keyclient_report(rows, clients, 3), 2);
  assert_string_equal(rows[1].server, servers[1].address);
  assert_int_equal(rows[0].num_clients, 2);
  assert_int_equal(rows[0].num_up, 2);
  assert_int_equal(rows[0].num_answered, 6);
  assert_int_equal(rows[0].srtt_us, counter_get(&stats_of(0)->srtt_us));  // a mean
  assert_string_equal(keyclient_report_state(&rows[0]), "up");
  rows[0].num_breakers[BREAKER_CLOSED] = 1;
  assert_string_equal(keyclient_report_state(&rows[0]), "partly avoided");
  rows[0].num_breakers[BREAKER_CLOSED] = 0;
  assert_string_equal(keyclient_report_state(&rows[0]), "avoided");
  rows[0].num_up = 0;
  assert_string_equal(keyclient_report_state(&rows[0]), "down");
  keyclient_report_metrics(&text, "x_", clients, 3);
  (void)snprintf(want, sizeof want, "\nx_key_server_answered_total{server=\"%s\"} 6\n",
                 servers[0].address);
  assert_non_null(strstr(text.data, want));
  (void)snprintf(want, sizeof want, "\nx_key_server_breaker{server=\"%s\",state=\"closed\"} 2\n",
                 servers[1].address);
  assert_non_null(strstr(text.data, want));
  metrics_text_cleanup(&text);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(asks_the_nearest),
      TEST(keeps_the_configured_order_of_equals),
      TEST(leaves_one_that_goes_away_while_it_is_used),
      TEST(stays_with_one_whose_keys_are_slow),
      TEST(passes_over_who_has_not_got_the_key),
      TEST(hedges_what_takes_too_long),
      TEST(measures_the_answer_that_lost),
      TEST(keeps_to_the_budget),
      TEST(hedges_nothing_without_a_budget),
      TEST(waits_for_the_other_when_one_refuses),
      TEST(avoids_a_server_that_hangs),
      TEST(asks_the_best_of_the_bad),
      TEST(uses_a_server_as_soon_as_it_is_back),
      TEST(leaves_a_server_that_drains_without_an_error),
      TEST(sums_up_what_clients_know),
  };
  return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
