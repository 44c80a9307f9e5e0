// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/admission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

static const struct admission_limits limits = {
    .num_handshakes = 4, .lag_us = 100000, .share_percent = 50};

static int64_t cpu_us = 5000;

// A pulse that took `lag_us`, `ran_us` of it on the processor and `work_us` for
// handshakes; *now_us moves on.
static void pulse_of(struct admission *a, int64_t *now_us, int64_t lag_us, int64_t ran_us,
                     int64_t work_us) {
  *now_us += ADMISSION_PULSE_EVERY_US;
  assert_true(admission_wants_pulse(a, *now_us));
  admission_note_sent(a, *now_us, cpu_us);
  admission_note_work(a, work_us);
  *now_us += lag_us;
  cpu_us += ran_us;
  assert_int_equal(admission_on_pulse(a, &limits, *now_us, cpu_us), lag_us);
}

static void pulse(struct admission *a, int64_t *now_us, int64_t lag_us, int64_t work_us) {
  pulse_of(a, now_us, lag_us, lag_us, work_us);
}

static void budget_is_used_up(void **state) {
  (void)state;
  struct admission a = {0};
  for (; a.num_handshakes < 4; a.num_handshakes++) {
    assert_int_equal(admission_judge(&a, &limits, 10, 0, 1), ADMISSION_YES);
  }
  assert_int_equal(admission_judge(&a, &limits, 10, 0, 1), ADMISSION_HANDSHAKES);
  a.num_handshakes = 3;
  assert_int_equal(admission_judge(&a, &limits, 10, 0, 1), ADMISSION_YES);
}

static void old_handshake_makes_room_and_young_does_not(void **state) {
  (void)state;
  struct admission a = {.num_handshakes = 4};
  assert_int_equal(admission_judge(&a, &limits, 0, ADMISSION_DISPLACE_US, 1), ADMISSION_DISPLACE);
  assert_int_equal(admission_judge(&a, &limits, 0, ADMISSION_DISPLACE_US - 1, 1),
                   ADMISSION_HANDSHAKES);
}

static void no_budget_is_no_limit(void **state) {
  (void)state;
  const struct admission_limits none = {.share_percent = 50};
  struct admission a = {.num_handshakes = 1000000};
  assert_int_equal(admission_judge(&a, &none, 0, 0, 1), ADMISSION_YES);
}

static void one_pulse_at_a_time_and_not_too_often(void **state) {
  (void)state;
  struct admission a = {0};
  int64_t now_us = 1000000;
  assert_true(admission_wants_pulse(&a, now_us));
  admission_note_sent(&a, now_us, 1);
  assert_false(admission_wants_pulse(&a, now_us + 5000000));
  assert_int_equal(admission_on_pulse(&a, &limits, now_us + 7, 1), 7);
  assert_false(admission_wants_pulse(&a, now_us + 7 + ADMISSION_PULSE_EVERY_US - 1));
  assert_true(admission_wants_pulse(&a, now_us + 7 + ADMISSION_PULSE_EVERY_US));
}

static void busy_needs_both_a_wait_and_handshakes_as_its_cause(void **state) {
  (void)state;
  static const struct {
    int64_t lag_us;
    int64_t work_us;
    bool is_busy;
  } rows[] = {
      {100000, 100000, false},  // no longer than allowed
      {100002, 50001, true},
      {100002, 50000, false},  // something else is the cause
      {900000, 0, false},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct admission a = {0};
    int64_t now_us = 1000000;
    pulse(&a, &now_us, rows[i].lag_us, rows[i].work_us);
    assert_int_equal(admission_is_busy(&a, now_us), rows[i].is_busy);
    assert_int_equal(admission_judge(&a, &limits, 1, 0, now_us),
                     rows[i].is_busy ? ADMISSION_BUSY : ADMISSION_YES);
    // Nobody is there to be protected.
    assert_int_equal(admission_judge(&a, &limits, 0, 0, now_us), ADMISSION_YES);
  }
}

// The processor was others': half a second late, a hundred ms of work.
static void late_is_not_busy(void **state) {
  (void)state;
  struct admission a = {0};
  int64_t now_us = 1000000;
  pulse_of(&a, &now_us, 500000, 100000, 500000);
  assert_false(admission_is_busy(&a, now_us));
  pulse_of(&a, &now_us, 500000, 100001, 500000);
  assert_true(admission_is_busy(&a, now_us));
}

static void busy_ends_at_half_of_the_limits(void **state) {
  (void)state;
  struct admission a = {0};
  int64_t now_us = 1000000;
  pulse(&a, &now_us, 200000, 200000);
  pulse(&a, &now_us, 60000, 60000);
  assert_true(admission_is_busy(&a, now_us));
  pulse(&a, &now_us, 50000, 50000);
  assert_false(admission_is_busy(&a, now_us));
  pulse(&a, &now_us, 60000, 60000);  // and does not begin there
  assert_false(admission_is_busy(&a, now_us));
  pulse(&a, &now_us, 200000, 200000);
  pulse(&a, &now_us, 200000, 49999);  // a quarter: handshakes are not the cause any more
  assert_false(admission_is_busy(&a, now_us));
}

// Handshakes that take turns keep nobody waiting but each other.
static void long_line_of_handshakes_is_busy(void **state) {
  (void)state;
  struct admission a = {0};
  int64_t now_us = 1000000;
  admission_note_wait(&a, 100000);
  pulse(&a, &now_us, 2000, 2000);
  assert_false(admission_is_busy(&a, now_us));
  admission_note_wait(&a, 100001);
  pulse(&a, &now_us, 2000, 2000);
  assert_true(admission_is_busy(&a, now_us));
  admission_note_wait(&a, 50001);
  pulse(&a, &now_us, 2000, 2000);
  assert_true(admission_is_busy(&a, now_us));
  admission_note_wait(&a, 50000);
  pulse(&a, &now_us, 2000, 2000);
  assert_false(admission_is_busy(&a, now_us));
}

static void old_judgement_is_none(void **state) {
  (void)state;
  struct admission a = {0};
  int64_t now_us = 1000000;
  pulse(&a, &now_us, 200000, 200000);
  assert_true(admission_is_busy(&a, now_us + ADMISSION_BUSY_US - 1));
  assert_false(admission_is_busy(&a, now_us + ADMISSION_BUSY_US));
}

static void lag_of_zero_is_no_limit(void **state) {
  (void)state;
  const struct admission_limits none = {.num_handshakes = 4, .share_percent = 50};
  struct admission a = {0};
  int64_t now_us = 1000000;
  pulse(&a, &now_us, 200000, 200000);
  assert_int_equal(admission_judge(&a, &none, 1, 0, now_us), ADMISSION_YES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(budget_is_used_up),
      cmocka_unit_test(old_handshake_makes_room_and_young_does_not),
      cmocka_unit_test(no_budget_is_no_limit),
      cmocka_unit_test(one_pulse_at_a_time_and_not_too_often),
      cmocka_unit_test(busy_needs_both_a_wait_and_handshakes_as_its_cause),
      cmocka_unit_test(late_is_not_busy),
      cmocka_unit_test(busy_ends_at_half_of_the_limits),
      cmocka_unit_test(long_line_of_handshakes_is_busy),
      cmocka_unit_test(old_judgement_is_none),
      cmocka_unit_test(lag_of_zero_is_no_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
