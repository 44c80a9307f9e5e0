// SPDX-License-Identifier: Apache-2.0
#include "keyserver/census.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void bounds_the_total(void **state) {
  struct census *census = NULL;
  (void)state;
  assert_int_equal(census_new(&census), STATUS_OK);
  assert_true(census_enter(census, 2));
  assert_true(census_enter(census, 2));
  assert_false(census_enter(census, 2));
  assert_int_equal(census_num(census), 2);
  census_leave(census);
  assert_true(census_enter(census, 2));
  census_free(census);
}

static void bounds_each_client_by_itself(void **state) {
  uint8_t a[32] = {1, 2, 3, 4, 5};
  uint8_t b[32] = {1, 2, 3, 4, 6};  // the same bucket
  struct census *census = NULL;
  struct census_entry *entries[4] = {0};
  (void)state;

  assert_int_equal(census_new(&census), STATUS_OK);
  assert_int_equal(census_join(&entries[0], census, a, 2), STATUS_OK);
  assert_int_equal(census_join(&entries[1], census, a, 2), STATUS_OK);
  assert_int_equal(census_join(&entries[2], census, a, 2), STATUS_LIMIT);
  assert_null(entries[2]);
  assert_int_equal(census_join(&entries[2], census, b, 2), STATUS_OK);
  census_part(census, entries[0]);
  assert_int_equal(census_join(&entries[3], census, a, 2), STATUS_OK);
  census_part(census, entries[1]);
  census_part(census, entries[2]);
  census_part(census, entries[3]);
  census_part(census, NULL);
  census_free(census);  // checks that nobody is left
}

static void *come_and_go(void *arg) {
  struct census *census = arg;
  for (uint32_t i = 0; i < 20000; i++) {
    uint8_t who[32] = {0};
    struct census_entry *entry = NULL;
    who[0] = (uint8_t)(i & 7);
    if (census_enter(census, 3)) {
      if (census_join(&entry, census, who, 1) == STATUS_OK) {
        census_part(census, entry);
      }
      census_leave(census);
    }
  }
  return NULL;
}

static void counts_right_with_several_threads(void **state) {
  struct census *census = NULL;
  pthread_t threads[4];
  (void)state;

  assert_int_equal(census_new(&census), STATUS_OK);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, census), 0);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
  }
  assert_int_equal(census_num(census), 0);
  census_free(census);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bounds_the_total),
      cmocka_unit_test(bounds_each_client_by_itself),
      cmocka_unit_test(counts_right_with_several_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
