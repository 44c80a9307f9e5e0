// SPDX-License-Identifier: Apache-2.0
#include "common/http/freshness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NOW_S 1792000000  // 2026-10-14T17:46:40Z
#define DAY_S (24 * 3600)

static void assert_fresh(const char *cache_control, const char *expires, const char *date,
                         const char *age, int64_t fresh_s) {
  const struct http_freshness f = http_freshness_read(cache_control, expires, date, age, NOW_S);
  assert_true(f.is_said == (cache_control != NULL || expires != NULL));
  assert_int_equal(f.fresh_s, fresh_s);
}

static void reads_max_age_less_age(void **state) {
  (void)state;
  assert_fresh("max-age=100", NULL, NULL, NULL, 100);
  assert_fresh("public, Max-Age=100,no-transform", NULL, NULL, "30", 70);
  assert_fresh("max-age=\"100\"", NULL, NULL, NULL, 100);
  assert_fresh("max-age=100", NULL, NULL, "200", 0);
  assert_fresh("max-age=100, max-age=5", NULL, NULL, "x", 100);
  assert_fresh("max-age=99999999999999999999999", NULL, NULL, NULL, FRESHNESS_MAX_S);
}

static void what_forbids_or_is_garbage_is_not_fresh(void **state) {
  (void)state;
  const struct http_freshness none = http_freshness_read(NULL, NULL, NULL, NULL, NOW_S);
  assert_false(none.is_said);
  assert_int_equal(none.fresh_s, 0);
  assert_fresh("max-age=100, no-store", NULL, NULL, NULL, 0);
  assert_fresh("no-cache, max-age=100", NULL, NULL, NULL, 0);
  assert_fresh("max-age=x", NULL, NULL, NULL, 0);
  assert_fresh("max-age=-1", NULL, NULL, NULL, 0);
  assert_fresh("max-age=", NULL, NULL, NULL, 0);
  assert_fresh(NULL, "0", NULL, NULL, 0);
  assert_fresh(NULL, "-1", NULL, NULL, 0);
  assert_fresh(NULL, "soon", NULL, NULL, 0);
}

static void reads_expires_against_date(void **state) {
  (void)state;
  assert_fresh(NULL, "Thu, 15 Oct 2026 17:46:40 GMT", NULL, NULL, DAY_S);
  assert_fresh(NULL, "Thu, 15 Oct 2026 17:46:40 GMT", "Thu, 15 Oct 2026 17:45:40 GMT", NULL, 60);
  assert_fresh(NULL, "Tue, 13 Oct 2026 17:46:40 GMT", NULL, NULL, 0);
  assert_fresh("max-age=5", "Thu, 15 Oct 2026 17:46:40 GMT", NULL, NULL, 5);
}

static void reads_retry_after(void **state) {
  (void)state;
  assert_int_equal(http_retry_after_s(NULL, NOW_S), 0);
  assert_int_equal(http_retry_after_s("120", NOW_S), 120);
  assert_int_equal(http_retry_after_s("Thu, 15 Oct 2026 17:46:40 GMT", NOW_S), DAY_S);
  assert_int_equal(http_retry_after_s("Tue, 13 Oct 2026 17:46:40 GMT", NOW_S), 0);
  assert_int_equal(http_retry_after_s("later", NOW_S), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_max_age_less_age),
      cmocka_unit_test(what_forbids_or_is_garbage_is_not_fresh),
      cmocka_unit_test(reads_expires_against_date),
      cmocka_unit_test(reads_retry_after),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
