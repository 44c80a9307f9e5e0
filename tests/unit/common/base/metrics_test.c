// SPDX-License-Identifier: Apache-2.0
#include "common/base/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_text(struct metrics_text *text, const char *expected) {
  assert_false(text->is_failed);
  assert_string_equal(text->data, expected);
  assert_int_equal(text->len, strlen(expected));
  metrics_text_cleanup(text);
}

static void writes_families_and_samples(void **state) {
  struct metrics_text text = {0};
  (void)state;
  metrics_family(&text, "x_total", METRIC_COUNTER, "Things of \\ and\nmore \"x\".");
  metrics_sample(&text, "x_total", 3, NULL);
  metrics_sample(&text, "x_total", 4, "reason", "eof", NULL);
  metrics_sample(&text, "x_total", 5, "reason", "a\"b\\c\nd", "name", NULL, NULL);
  metrics_family(&text, "y", METRIC_GAUGE, "A level.");
  metrics_family(&text, "z", METRIC_HISTOGRAM, "A distribution.");
  assert_text(&text,
              "# HELP x_total Things of \\\\ and\\nmore \"x\".\n# TYPE x_total counter\n"
              "x_total 3\n"
              "x_total{reason=\"eof\"} 4\n"
              "x_total{reason=\"a\\\"b\\\\c\\nd\",name=\"\"} 5\n"
              "# HELP y A level.\n# TYPE y gauge\n"
              "# HELP z A distribution.\n# TYPE z histogram\n");
}

static void writes_numbers_exactly(void **state) {
  static const struct {
    double value;
    const char *text;
  } rows[] = {
      {0, "0"},
      {-1, "-1"},
      {9007199254740991.0, "9007199254740991"},
      {0.25, "0.25"},
      {0.1, "0.1"},
      {1e300, "1e+300"},
      {1e-9, "1e-09"},
      {NAN, "NaN"},
      {INFINITY, "+Inf"},
      {-INFINITY, "-Inf"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct metrics_text text = {0};
    char expected[64];
    metrics_sample(&text, "v", rows[i].value, NULL);
    (void)snprintf(expected, sizeof(expected), "v %s\n", rows[i].text);
    assert_text(&text, expected);
  }
}

static void histogram_counts_up_to_and_including_its_bounds(void **state) {
  struct histogram one = {0};
  struct histogram two = {0};
  const struct histogram *const both[] = {&one, &two};
  struct metrics_text text = {0};
  (void)state;
  histogram_add_us(&one, 0);
  histogram_add_us(&one, 50);
  histogram_add_us(&one, 51);
  histogram_add_us(&two, 13107200);  // the last bound
  histogram_add_us(&two, 13107201);  // past it
  metrics_histogram(&text, "t_seconds", "source", "dc", both, 2);
  assert_non_null(strstr(text.data,
                         "t_seconds_bucket{source=\"dc\",le=\"0.00005\"} 2\n"
                         "t_seconds_bucket{source=\"dc\",le=\"0.0001\"} 3\n"
                         "t_seconds_bucket{source=\"dc\",le=\"0.0002\"} 3\n"));
  assert_non_null(strstr(text.data,
                         "t_seconds_bucket{source=\"dc\",le=\"13.1072\"} 4\n"
                         "t_seconds_bucket{source=\"dc\",le=\"+Inf\"} 5\n"
                         "t_seconds_sum{source=\"dc\"} 26.214502\n"
                         "t_seconds_count{source=\"dc\"} 5\n"));
  metrics_text_cleanup(&text);
  metrics_histogram(&text, "t", NULL, NULL, both, 1);
  assert_non_null(strstr(text.data, "t_bucket{le=\"0.00005\"} 2\n"));
  assert_non_null(strstr(text.data, "t_sum 0.000101\nt_count 3\n"));
  metrics_text_cleanup(&text);
}

static void grows_as_far_as_needed(void **state) {
  struct metrics_text text = {0};
  (void)state;
  for (int i = 0; i < 10000; i++) {
    metrics_sample(&text, "x_total", i, "reason", "some reason", NULL);
  }
  assert_false(text.is_failed);
  assert_int_equal(text.len, strlen(text.data));
  metrics_text_cleanup(&text);
  metrics_text_cleanup(&text);
}

static void counters_add(void **state) {
  struct counter c = {0};
  (void)state;
  counter_add(&c, 2);
  counter_add_own(&c, 3);
  assert_int_equal(counter_get(&c), 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(writes_families_and_samples),
      cmocka_unit_test(writes_numbers_exactly),
      cmocka_unit_test(histogram_counts_up_to_and_including_its_bounds),
      cmocka_unit_test(grows_as_far_as_needed),
      cmocka_unit_test(counters_add),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
