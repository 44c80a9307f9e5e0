// SPDX-License-Identifier: Apache-2.0
// A keyclient and key servers that behave, or do not, on one loop.
#include "common/keyclient/keyclient.h"

#include <string.h>

#include "common/base/clock.h"
#include "tests/unit/common/keyclient/stand.h"

// --- as it should be ------------------------------------------------------------------

static void gets_a_signature(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  run_until_ready(1);
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_string_equal(fakes[0].last_sni, "www.test");
  assert_memory_equal(fakes[0].last_ski, "0123456789abcdefghi", 20);
  assert_int_equal(fakes[0].last_message_len, message.len);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_signed), 1);
}

static void asks_before_it_is_connected(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  (void)ask();
  assert_answers(1, STATUS_OK);
}

static void multiplexes_many_requests(void **state) {
  (void)state;
  config.num_connections = 3;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  for (int i = 0; i < 2000; i++) {
    (void)ask();
  }
  assert_answers(2000, STATUS_OK);
  assert_int_equal(fakes[0].num_accepted, 3);
}

static void matches_answers_by_id_in_any_order(void **state) {
  (void)state;
  start_fake(0, FAKE_BACKWARDS);
  start_client(1);
  run_until_ready(1);
  for (int i = 0; i < 100; i++) {
    (void)ask();
  }
  assert_answers(100, STATUS_OK);
}

static void sends_long_messages(void **state) {
  static uint8_t big[20000];
  struct bytes before = message;
  (void)state;

  start_fake(0, FAKE_SIGN);
  start_client(1);
  message = bytes_of(big, sizeof big);
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_int_equal(fakes[0].last_message_len, sizeof big);
  message = before;
}

static void refuses_messages_past_the_limit(void **state) {
  static uint8_t big[40000];
  const struct scheme *scheme = scheme_by_name("ed25519");
  const struct sign_request request = {
      .ski = big, .scheme = scheme, .opcode = scheme->opcode, .message = bytes_of(big, sizeof big)};
  uint64_t id = 7;
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  assert_int_equal(keyclient_sign(&id, kc, &request, on_answer, NULL), STATUS_LIMIT);
  assert_int_equal(id, 0);
}

// --- errors --------------------------------------------------------------------------------

static void tells_what_the_server_said(void **state) {
  static const struct {
    enum frame_error code;
    enum status st;
  } rows[] = {
      {FRAME_ERROR_NOT_AUTHORISED, STATUS_REFUSED},  {FRAME_ERROR_BAD_MESSAGE, STATUS_REFUSED},
      {FRAME_ERROR_BAD_OPCODE, STATUS_REFUSED},      {FRAME_ERROR_RATE, STATUS_LIMIT},
      {FRAME_ERROR_KEY_NOT_FOUND, STATUS_NOT_FOUND}, {FRAME_ERROR_CRYPTOGRAPHY, STATUS_CRYPTO},
      {FRAME_ERROR_BUSY, STATUS_UNAVAILABLE},        {FRAME_ERROR_INTERNAL, STATUS_UNAVAILABLE},
      {(enum frame_error)0x99, STATUS_REFUSED},
  };
  (void)state;
  start_fake(0, FAKE_ERROR);
  start_client(1);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    fakes[0].error = rows[i].code;
    (void)ask();
    run_until_answered(1);
    assert_int_equal(got.code[0], rows[i].code);
    assert_answers(1, rows[i].st);
  }
}

static void asks_the_next_server_about_what_it_could_cure(void **state) {
  (void)state;
  start_fake(0, FAKE_ERROR);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  fakes[0].error = FRAME_ERROR_BUSY;
  (void)ask();
  assert_answers(1, STATUS_OK);
  fakes[0].error = FRAME_ERROR_KEY_NOT_FOUND;
  (void)ask();
  assert_answers(1, STATUS_OK);
  ski[0]++;  // another key: what was said of the first does not count
  fakes[0].error = FRAME_ERROR_NOT_AUTHORISED;
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_int_equal(fakes[1].num_requests, 3);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_failovers), 3);
}

static void does_not_go_next_door_with_a_refusal(void **state) {
  (void)state;
  start_fake(0, FAKE_ERROR);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  fakes[0].error = FRAME_ERROR_BAD_MESSAGE;
  (void)ask();
  assert_answers(1, STATUS_REFUSED);
  fakes[0].error = FRAME_ERROR_RATE;
  (void)ask();
  assert_answers(1, STATUS_LIMIT);
  assert_int_equal(fakes[1].num_requests, 0);
}

static void gives_up_when_all_have_said_no(void **state) {
  (void)state;
  start_fake(0, FAKE_ERROR);
  start_fake(1, FAKE_ERROR);
  fakes[0].error = fakes[1].error = FRAME_ERROR_KEY_NOT_FOUND;
  start_client(2);
  run_until_ready(2);
  (void)ask();
  assert_answers(1, STATUS_NOT_FOUND);
  assert_int_equal(fakes[0].num_requests + fakes[1].num_requests, 2);
}

// --- servers that do not answer ------------------------------------------------------------

static void prefers_the_first_server(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  for (int i = 0; i < 50; i++) {
    (void)ask();
  }
  assert_answers(50, STATUS_OK);
  assert_int_equal(fakes[0].num_requests, 50);
  assert_int_equal(fakes[1].num_requests, 0);
}

static void asks_the_next_server_after_the_attempts_time(void **state) {
  int64_t started_ms = clock_monotonic_ms();
  (void)state;
  config.attempt_ms = 1000;
  start_fake(0, FAKE_HUNG);  // an answer to a ping would speak for it
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_in_range(clock_monotonic_ms() - started_ms, 1000, 2900);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_attempt_timeouts), 1);
  // From now on the silent one is asked last.
  started_ms = clock_monotonic_ms();
  for (int i = 0; i < 20; i++) {
    (void)ask();
  }
  assert_answers(20, STATUS_OK);
  assert_in_range(clock_monotonic_ms() - started_ms, 0, 900);
}

static void takes_a_late_answer_of_the_first_server(void **state) {
  (void)state;
  config.attempt_ms = 50;
  start_fake(0, FAKE_LATE);
  fakes[0].delay_ms = 250;
  start_fake(1, FAKE_SILENT);
  start_client(2);
  run_until_ready(2);
  (void)ask();
  assert_answers(1, STATUS_OK);
}

static void ignores_a_late_error_of_the_first_server(void **state) {
  (void)state;
  config.attempt_ms = 50;
  start_fake(0, FAKE_LATE_ERROR);
  fakes[0].error = FRAME_ERROR_NOT_AUTHORISED;
  fakes[0].delay_ms = 150;
  start_fake(1, FAKE_LATE);
  fakes[1].delay_ms = 400;
  start_client(2);
  run_until_ready(2);
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_late_replies), 1);
}

static bool is_dropped(void) { return counter_get(&keyclient_stats(kc)->num_disconnects) > 0; }

static void gives_a_server_up_that_owes_answers(void **state) {
  (void)state;
  config.deadline_ms = 100;
  start_fake(0, FAKE_SILENT);
  start_client(1);
  run_until_ready(1);
  (void)ask();
  assert_answers(1, STATUS_TIMEOUT);
  run_until(is_dropped);
  fakes[0].manner = FAKE_SIGN;
  run_until_ready(1);
  (void)ask();
  assert_answers(1, STATUS_OK);
}

static bool is_pinged(void) { return fakes[0].num_pings >= 2; }

static void pings_when_it_is_quiet(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  kc->ping_ms = 100;
  run_until_ready(1);
  run_until(is_pinged);
  (void)ask();
  assert_answers(1, STATUS_OK);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_disconnects), 0);
}

static void keeps_to_the_deadline(void **state) {
  const int64_t started_ms = clock_monotonic_ms();
  (void)state;
  config.deadline_ms = 300;
  config.attempt_ms = 100;
  start_fake(0, FAKE_SILENT);
  start_client(1);
  (void)ask();
  (void)ask();
  assert_answers(2, STATUS_TIMEOUT);
  assert_in_range(clock_monotonic_ms() - started_ms, 300, 1500);
}

static void drops_and_counts_answers_after_the_deadline(void **state) {
  (void)state;
  config.deadline_ms = 100;
  start_fake(0, FAKE_LATE);
  fakes[0].delay_ms = 300;
  start_client(1);
  run_until_ready(1);
  (void)ask();
  assert_answers(1, STATUS_TIMEOUT);
  fakes[0].manner = FAKE_SIGN;
  config.deadline_ms = 3000;
  while (counter_get(&keyclient_stats(kc)->num_late_replies) == 0) {
    (void)ask();
    run_until_answered(1);
    forget_answers();
  }
  assert_int_equal(keyclient_num_ready(kc), 1);  // the connection is none the worse
}

// --- servers that come and go ------------------------------------------------------------------

static void moves_requests_of_a_lost_connection(void **state) {
  const int64_t started_ms = clock_monotonic_ms();
  (void)state;
  start_fake(0, FAKE_SILENT);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  run_until_ready(2);
  for (int i = 0; i < 100; i++) {
    (void)ask();
  }
  fakes[0].manner = FAKE_CLOSE;
  (void)ask();
  assert_answers(101, STATUS_OK);
  assert_in_range(clock_monotonic_ms() - started_ms, 0, config.attempt_ms - 100);  // at once
  assert_int_equal(fakes[1].num_requests, 101);
}

static void waits_for_a_server_that_restarts(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  run_until_ready(1);
  fake_keyserver_stop(&fakes[0]);
  run_until_ready(0);
  (void)ask();
  start_fake(0, FAKE_SIGN);  // on the same port
  assert_answers(1, STATUS_OK);
}

static void fails_soon_when_there_is_no_server(void **state) {
  int64_t started_ms = 0;
  (void)state;
  config.attempt_ms = 200;
  start_fake(0, FAKE_SIGN);
  fake_keyserver_stop(&fakes[0]);
  start_client(1);
  started_ms = clock_monotonic_ms();
  (void)ask();
  assert_answers(1, STATUS_UNAVAILABLE);
  assert_in_range(clock_monotonic_ms() - started_ms, 200, 1500);
}

static void recovers_by_itself(void **state) {
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  for (int i = 0; i < 5; i++) {
    run_until_ready(1);
    (void)ask();
    assert_answers(1, STATUS_OK);
    fake_keyserver_drop(&fakes[0]);
    run_until_ready(0);
  }
  run_until_ready(1);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_disconnects), 5);
}

static void refuses_a_server_of_another_name(void **state) {
  static char name[] = "other.test";
  (void)state;
  config.attempt_ms = 300;
  start_fake(0, FAKE_SIGN);
  servers[0].name = name;
  start_client(1);
  (void)ask();
  assert_answers(1, STATUS_UNAVAILABLE);
  assert_true(counter_get(&keyclient_stats(kc)->num_connect_failed) > 0);
  assert_int_equal(fakes[0].num_requests, 0);
}

static void accepts_a_server_by_its_configured_name(void **state) {
  static char name[] = "keys.test";
  (void)state;
  start_fake(0, FAKE_SIGN);
  servers[0].name = name;
  start_client(1);
  (void)ask();
  assert_answers(1, STATUS_OK);
}

// --- servers that answer nonsense
// ------------------------------------------------------------------

static void drops_a_connection_that_talks_nonsense(void **state) {
  static const enum fake_manner manners[] = {FAKE_GARBAGE, FAKE_VERSION, FAKE_NO_OPCODE,
                                             FAKE_EMPTY};
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_fake(1, FAKE_SIGN);
  start_client(2);
  for (size_t i = 0; i < sizeof manners / sizeof manners[0]; i++) {
    run_until_ready(2);
    fakes[0].manner = manners[i];
    (void)ask();
    assert_answers(1, STATUS_OK);  // by the other one
    assert_int_equal(fakes[1].num_requests, i + 1);
    assert_int_equal(counter_get(&keyclient_stats(kc)->num_bad_replies), i + 1);
  }
}

static void is_not_confused_by_other_ids(void **state) {
  (void)state;
  config.deadline_ms = 300;
  start_fake(0, FAKE_OTHER_ID);
  start_client(1);
  run_until_ready(1);
  (void)ask();
  assert_answers(1, STATUS_TIMEOUT);
  assert_int_equal(counter_get(&keyclient_stats(kc)->num_late_replies), 1);
  assert_int_equal(keyclient_num_ready(kc), 1);
}

static void answers_once_when_the_server_answers_twice(void **state) {
  (void)state;
  start_fake(0, FAKE_TWICE);
  start_client(1);
  for (int i = 0; i < 10; i++) {
    (void)ask();
  }
  run_until_answered(10);
  (void)ask();
  run_until_answered(11);
  assert_int_equal(got.num, 11);
  forget_answers();
  assert_true(counter_get(&keyclient_stats(kc)->num_late_replies) >= 10);
}

// --- callers
// ---------------------------------------------------------------------------------------

static void does_not_call_back_what_was_cancelled(void **state) {
  uint64_t ids[100];
  (void)state;
  start_fake(0, FAKE_SIGN);
  start_client(1);
  for (int i = 0; i < 100; i++) {
    ids[i] = ask();
  }
  for (int i = 0; i < 100; i += 2) {
    keyclient_cancel(kc, ids[i]);
    keyclient_cancel(kc, ids[i]);  // twice is once
  }
  keyclient_cancel(kc, 0);
  keyclient_cancel(kc, 1u << 30);
  keyclient_cancel(kc, ids[1] + (UINT64_C(1) << 32));  // another one, the same on the wire
  run_until_answered(50);
  (void)ask();
  run_until_answered(51);
  assert_int_equal(got.num, 51);
  forget_answers();
}

static uint64_t others[10];
static void on_answer_act(void *arg, const struct sign_answer *answer) {
  on_answer(arg, answer);
  for (int i = 0; i < 10; i++) {
    keyclient_cancel(kc, others[i]);
  }
  (void)ask();
}

static void lets_a_callback_ask_and_cancel(void **state) {
  const struct scheme *scheme = scheme_by_name("ecdsa_secp256r1_sha256");
  const struct sign_request request = {
      .ski = ski, .scheme = scheme, .opcode = scheme->opcode, .message = message};
  uint64_t id = 0;
  (void)state;

  start_fake(0, FAKE_SIGN);
  start_client(1);
  run_until_ready(1);
  assert_int_equal(keyclient_sign(&id, kc, &request, on_answer_act, NULL), STATUS_OK);
  for (int i = 0; i < 10; i++) {
    others[i] = ask();
  }
  run_until_answered(2);
  assert_int_equal(got.num, 2);
  forget_answers();
  // The same when the connection is lost with everything on it.
  fakes[0].manner = FAKE_SILENT;
  config.attempt_ms = 100;
  assert_int_equal(keyclient_sign(&id, kc, &request, on_answer_act, NULL), STATUS_OK);
  for (int i = 0; i < 10; i++) {
    others[i] = ask();
  }
  fake_keyserver_drop(&fakes[0]);
  fakes[0].manner = FAKE_SIGN;
  run_until_answered(2);
  forget_answers();
}

static void is_freed_with_requests_open(void **state) {
  (void)state;
  start_fake(0, FAKE_SILENT);
  start_client(1);
  run_until_ready(1);
  for (int i = 0; i < 50; i++) {
    (void)ask();
  }
  keyclient_free(kc);
  kc = NULL;
  assert_int_equal(got.num, 0);
}

static void names_what_is_wrong_with_its_configuration(void **state) {
  static char nowhere[] = "no-port";
  struct errmsg err = {0};
  (void)state;
  servers[0].address = nowhere;
  config.num_servers = 1;
  assert_int_equal(keyclient_new(&kc, loop, &config, &err), STATUS_CONFIG);
  assert_non_null(strstr(err.text, nowhere));
  config.tls.ca = path_of("tls.key");
  assert_int_not_equal(keyclient_new(&kc, loop, &config, &err), STATUS_OK);
  assert_null(kc);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(gets_a_signature),
      TEST(asks_before_it_is_connected),
      TEST(multiplexes_many_requests),
      TEST(matches_answers_by_id_in_any_order),
      TEST(sends_long_messages),
      TEST(refuses_messages_past_the_limit),
      TEST(tells_what_the_server_said),
      TEST(asks_the_next_server_about_what_it_could_cure),
      TEST(does_not_go_next_door_with_a_refusal),
      TEST(gives_up_when_all_have_said_no),
      TEST(prefers_the_first_server),
      TEST(asks_the_next_server_after_the_attempts_time),
      TEST(takes_a_late_answer_of_the_first_server),
      TEST(ignores_a_late_error_of_the_first_server),
      TEST(gives_a_server_up_that_owes_answers),
      TEST(pings_when_it_is_quiet),
      TEST(keeps_to_the_deadline),
      TEST(drops_and_counts_answers_after_the_deadline),
      TEST(moves_requests_of_a_lost_connection),
      TEST(waits_for_a_server_that_restarts),
      TEST(fails_soon_when_there_is_no_server),
      TEST(recovers_by_itself),
      TEST(refuses_a_server_of_another_name),
      TEST(accepts_a_server_by_its_configured_name),
      TEST(drops_a_connection_that_talks_nonsense),
      TEST(is_not_confused_by_other_ids),
      TEST(answers_once_when_the_server_answers_twice),
      TEST(does_not_call_back_what_was_cancelled),
      TEST(lets_a_callback_ask_and_cancel),
      TEST(is_freed_with_requests_open),
      TEST(names_what_is_wrong_with_its_configuration),
  };
  return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
