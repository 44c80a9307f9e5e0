// SPDX-License-Identifier: Apache-2.0
#include "certmanager/ceiling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void takes_up_to_its_limit_and_no_more(void **state) {
  (void)state;
  struct ceiling ceiling = {0};
  assert_int_equal(ceiling_take(&ceiling, 6, 10, 1000), CEILING_TAKEN);
  assert_int_equal(ceiling_take(&ceiling, 5, 10, 1000), CEILING_WAIT);
  assert_int_equal(ceiling_take(&ceiling, 4, 10, 1001), CEILING_TAKEN);
  assert_int_equal(ceiling_take(&ceiling, 1, 10, 1059), CEILING_WAIT);
  assert_int_equal(ceiling_take(&ceiling, 0, 10, 1059), CEILING_TAKEN);  // moves nobody
  assert_int_equal(ceiling_used(&ceiling, 1059), 10);
}

static void leaves_to_a_person_what_alone_is_too_many(void **state) {
  (void)state;
  struct ceiling ceiling = {0};
  assert_int_equal(ceiling_take(&ceiling, 11, 10, 5), CEILING_TOO_MANY);
  assert_int_equal(ceiling_take(&ceiling, 1, 0, 5), CEILING_TOO_MANY);  // 0: never
  assert_int_equal(ceiling_used(&ceiling, 5), 0);
  assert_int_equal(ceiling_take(&ceiling, 10, 10, 5), CEILING_TAKEN);
  // Lowered meanwhile: what was taken is more than the limit.
  assert_int_equal(ceiling_take(&ceiling, 1, 5, 6), CEILING_WAIT);
}

static void counts_what_another_process_did(void **state) {
  (void)state;
  struct ceiling ceiling = {0};
  ceiling_note(&ceiling, 7, 100);
  ceiling_note(&ceiling, 7, 130);
  assert_int_equal(ceiling_used(&ceiling, 140), 14);
  assert_int_equal(ceiling_take(&ceiling, 1, 10, 140), CEILING_WAIT);
  assert_int_equal(ceiling_take(&ceiling, 3, 10, 161), CEILING_TAKEN);  // the first has passed
}

// Against a plain list of all that was taken: no 60 seconds have more than the limit.
static void holds_in_every_window(void **state) {
  (void)state;
  enum { SECONDS = 1000, MAX = 50 };
  struct ceiling ceiling = {0};
  static uint64_t taken[SECONDS];
  uint32_t seed = 7;
  uint64_t all = 0;
  for (int64_t now_s = 0; now_s < SECONDS; now_s++) {
    for (unsigned i = 0; i < 4; i++) {
      seed = seed * 1664525u + 1013904223u;
      const uint64_t num = (seed >> 8) % 20;
      if (ceiling_take(&ceiling, num, MAX, now_s) == CEILING_TAKEN) {
        taken[now_s] += num;
        all += num;
      }
    }
    uint64_t window = 0;
    for (int64_t s = now_s < CEILING_WINDOW_S ? 0 : now_s - CEILING_WINDOW_S; s <= now_s; s++) {
      window += taken[s];
    }
    assert_true(window <= MAX);
    assert_int_equal(window, ceiling_used(&ceiling, now_s));
  }
  assert_true(all > SECONDS / 61 * MAX / 2);  // and it does let pass
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(takes_up_to_its_limit_and_no_more),
      cmocka_unit_test(leaves_to_a_person_what_alone_is_too_many),
      cmocka_unit_test(counts_what_another_process_did),
      cmocka_unit_test(holds_in_every_window),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
