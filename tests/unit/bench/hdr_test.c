// SPDX-License-Identifier: Apache-2.0
#include "bench/hdr.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct hdr *h;

static int make(void **state) {
  (void)state;
  h = calloc(1, sizeof(*h));
  return h == NULL ? -1 : 0;
}

static int drop(void **state) {
  (void)state;
  free(h);
  return 0;
}

static void is_empty_at_first(void **state) {
  (void)state;
  assert_int_equal(hdr_quantile(h, 0.5), 0);
  assert_true(hdr_mean(h) == 0);
}

// One value at a time: what comes back is the middle of its bucket, unless min and
// max would hide that; hence a neighbour on each side.
static void keeps_the_error_bound_over_the_whole_range(void **state) {
  (void)state;
  for (int i = 0; i < 11800; i++) {  // 1 to 9.1e18
    const int64_t value = (int64_t)exp(i * 0.0037);
    memset(h, 0, sizeof(*h));
    hdr_record(h, 0);
    hdr_record(h, value);
    hdr_record(h, INT64_MAX);
    const double answer = (double)hdr_quantile(h, 0.5);
    const double error = fabs(answer - (double)value) / (double)value;
    assert_true(error <= HDR_MAX_ERROR);
    assert_true(error <= 0.01);
  }
}

static void small_values_are_exact(void **state) {
  (void)state;
  for (int64_t value = 0; value < 256; value++) {
    memset(h, 0, sizeof(*h));
    hdr_record(h, 0);
    hdr_record(h, value);
    hdr_record(h, 1000000);
    assert_int_equal(hdr_quantile(h, 0.5), value);
  }
}

static void quantiles_are_by_nearest_rank(void **state) {
  (void)state;
  for (int64_t value = 1; value <= 100; value++) {
    hdr_record(h, value);
  }
  assert_int_equal(hdr_quantile(h, 0.5), 50);
  assert_int_equal(hdr_quantile(h, 0.99), 99);
  assert_int_equal(hdr_quantile(h, 0.991), 100);
  assert_int_equal(hdr_quantile(h, 0), 1);
  assert_int_equal(hdr_quantile(h, 1), 100);
  assert_true(hdr_mean(h) == 50.5);
}

// A bucket's middle may lie outside of what was recorded; an answer may not.
static void answers_stay_between_min_and_max(void **state) {
  (void)state;
  hdr_record(h, 1000001);
  assert_int_equal(hdr_quantile(h, 0.01), 1000001);
  assert_int_equal(hdr_quantile(h, 0.99), 1000001);
}

static void negative_values_count_as_zero(void **state) {
  (void)state;
  hdr_record(h, -5);
  assert_int_equal(h->min, 0);
  assert_int_equal(h->num, 1);
}

static void merging_is_recording_both(void **state) {
  (void)state;
  struct hdr *other = calloc(1, sizeof(*other));
  struct hdr *both = calloc(1, sizeof(*both));
  assert_non_null(other);
  assert_non_null(both);
  for (int64_t i = 1; i < 2000; i++) {
    hdr_record(i % 3 == 0 ? h : other, i * i);
    hdr_record(both, i * i);
  }
  hdr_merge(h, other);
  assert_memory_equal(h->counts, both->counts, sizeof(h->counts));
  assert_int_equal(h->num, both->num);
  assert_int_equal(h->min, both->min);
  assert_int_equal(h->max, both->max);
  memset(other, 0, sizeof(*other));
  hdr_merge(other, h);
  assert_int_equal(other->min, 1);
  free(other);
  free(both);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(is_empty_at_first, make, drop),
      cmocka_unit_test_setup_teardown(keeps_the_error_bound_over_the_whole_range, make, drop),
      cmocka_unit_test_setup_teardown(small_values_are_exact, make, drop),
      cmocka_unit_test_setup_teardown(quantiles_are_by_nearest_rank, make, drop),
      cmocka_unit_test_setup_teardown(answers_stay_between_min_and_max, make, drop),
      cmocka_unit_test_setup_teardown(negative_values_count_as_zero, make, drop),
      cmocka_unit_test_setup_teardown(merging_is_recording_both, make, drop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
