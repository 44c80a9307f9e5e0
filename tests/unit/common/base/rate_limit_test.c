// SPDX-License-Identifier: Apache-2.0
#include "common/base/rate_limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define SECOND INT64_C(1000000000)  // in ns
#define DAY (86400 * SECOND)

static int64_t take(struct rate_limit *limit, int64_t now_ns, int64_t num) {
  int64_t taken = 0;
  for (int64_t i = 0; i < num; i++) {
    taken += rate_limit_take(limit, now_ns) ? 1 : 0;
  }
  return taken;
}

static void all_zero_is_no_limit(void **state) {
  struct rate_limit limit = {0};
  (void)state;
  assert_int_equal(take(&limit, 1, 10000), 10000);
  rate_limit_set(&limit, 0, SECOND, 5);
  assert_int_equal(take(&limit, 1, 10000), 10000);
}

static void a_quiet_time_gives_the_burst_back_once(void **state) {
  struct rate_limit limit = {0};
  (void)state;
  rate_limit_set(&limit, 60, 60 * SECOND, 5);
  assert_int_equal(take(&limit, DAY, 100), 5);
  assert_int_equal(take(&limit, DAY + SECOND - 1, 100), 0);
  assert_int_equal(take(&limit, DAY + SECOND, 100), 1);
  assert_int_equal(take(&limit, 2 * DAY, 100), 5);
}

static void the_burst_is_a_periods_worth_if_none_is_said(void **state) {
  struct rate_limit limit = {0};
  (void)state;
  rate_limit_set(&limit, 7, 60 * SECOND, 0);
  assert_int_equal(take(&limit, DAY, 100), 7);
}

static void the_widest_limits_do_not_overflow(void **state) {
  struct rate_limit limit = {0};
  (void)state;
  rate_limit_set(&limit, 1, 60 * SECOND, 100000000);
  assert_int_equal(take(&limit, 1000 * DAY, 1000), 1000);
  rate_limit_set(&limit, 100000000, 60 * SECOND, 1);
  assert_true(limit.interval_ns > 0);
}

static void what_is_used_up_outlives_a_reload(void **state) {
  struct rate_limit old = {0};
  struct rate_limit limit = {0};
  (void)state;
  rate_limit_set(&old, 1, SECOND, 1);
  rate_limit_set(&limit, 1, SECOND, 1);
  assert_true(rate_limit_take(&old, DAY));
  rate_limit_inherit(&limit, &old);
  assert_false(rate_limit_take(&limit, DAY));
  rate_limit_set(&limit, 1, SECOND, 2);  // another limit is no fresh allowance either
  assert_int_equal(take(&limit, DAY, 100), 1);
  assert_true(rate_limit_take(&limit, DAY + SECOND));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(all_zero_is_no_limit),
      cmocka_unit_test(a_quiet_time_gives_the_burst_back_once),
      cmocka_unit_test(the_burst_is_a_periods_worth_if_none_is_said),
      cmocka_unit_test(the_widest_limits_do_not_overflow),
      cmocka_unit_test(what_is_used_up_outlives_a_reload),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
