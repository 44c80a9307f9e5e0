// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

static void formats_known_times(void **state) {
  char text[CLOCK_RFC3339_LEN];
  (void)state;
  assert_string_equal(clock_format_rfc3339(text, 0), "1970-01-01T00:00:00Z");
  assert_string_equal(clock_format_rfc3339(text, -1), "1969-12-31T23:59:59Z");
  assert_string_equal(clock_format_rfc3339(text, 951782400), "2000-02-29T00:00:00Z");
  assert_string_equal(clock_format_rfc3339(text, 4107542400), "2100-03-01T00:00:00Z");
  assert_string_equal(clock_format_rfc3339(text, 1795308695), "2026-11-22T00:51:35Z");
  assert_string_equal(clock_format_rfc3339(text, INT64_MAX), "9999-12-31T23:59:59Z");
  assert_string_equal(clock_format_rfc3339(text, INT64_MIN), "0000-01-01T00:00:00Z");
}

// Every 11 days or so over the whole range, against the C library.
static void agrees_with_the_c_library(void **state) {
  char text[CLOCK_RFC3339_LEN];
  char expected[CLOCK_RFC3339_LEN];
  (void)state;
  for (int64_t s = -62167219200; s <= 253402300799; s += 1000003) {
    time_t now = (time_t)s;
    struct tm parts;
    assert_non_null(gmtime_r(&now, &parts));
    // strftime pads years to four digits only with glibc's modifier.
    assert_true(strftime(expected, sizeof(expected), "%4Y-%m-%dT%H:%M:%SZ", &parts) > 0);
    assert_string_equal(clock_format_rfc3339(text, s), expected);
  }
}

static void cuts_fractions(void **state) {
  char text[CLOCK_RFC3339_LEN];
  (void)state;
  assert_string_equal(clock_format_rfc3339_us(text, 1999999, 6), "1970-01-01T00:00:01.999999Z");
  assert_string_equal(clock_format_rfc3339_us(text, 1999999, 3), "1970-01-01T00:00:01.999Z");
  assert_string_equal(clock_format_rfc3339_us(text, 1000, 3), "1970-01-01T00:00:00.001Z");
  assert_string_equal(clock_format_rfc3339_us(text, -1, 6), "1969-12-31T23:59:59.999999Z");
}

static void clocks_agree_and_go_forward(void **state) {
  int64_t before_us = clock_monotonic_us();
  int64_t wall_s = clock_wall_s();
  (void)state;
  assert_true(clock_monotonic_us() >= before_us);
  assert_in_range(clock_monotonic_ms(), before_us / 1000, before_us / 1000 + 60000);
  assert_in_range(wall_s, time(NULL) - 1, time(NULL) + 1);
  assert_in_range(clock_wall_us() / 1000000, wall_s, wall_s + 60);
}

static void wall_clock_can_be_set_for_tests(void **state) {
  int64_t before_us = clock_monotonic_us();
  (void)state;
  clock_override_wall_s(1000);
  assert_int_equal(clock_wall_s(), 1000);
  assert_int_equal(clock_wall_us(), 1000000000);
  assert_true(clock_monotonic_us() >= before_us);  // deadlines do not move
  clock_override_wall_s(0);
  assert_true(clock_wall_s() > 1000000000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formats_known_times),
      cmocka_unit_test(agrees_with_the_c_library),
      cmocka_unit_test(cuts_fractions),
      cmocka_unit_test(clocks_agree_and_go_forward),
      cmocka_unit_test(wall_clock_can_be_set_for_tests),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
