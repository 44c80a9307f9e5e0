// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/due.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NUM 2000u

static void gives_the_earliest_first(void **state) {
  (void)state;
  struct due due = {0};
  struct due_entry first;
  uint32_t last_s = 0;
  unsigned num = 0;

  assert_false(due_first(&due, &first));
  due_remove(&due, 5);  // not in it
  for (uint32_t i = 0; i < NUM; i++) {
    assert_int_equal(due_set(&due, i, (i * 7919u) % 1009u), STATUS_OK);
  }
  for (; due_first(&due, &first); num++) {
    assert_true(first.at_s >= last_s);
    assert_int_equal(first.at_s, (first.item * 7919u) % 1009u);
    last_s = first.at_s;
    due_remove(&due, first.item);
  }
  assert_int_equal(num, NUM);
  due_cleanup(&due);
}

// Against a plain array, with items that are set again and removed from anywhere.
static void agrees_with_a_plain_search(void **state) {
  (void)state;
  struct due due = {0};
  uint32_t at_s[NUM];
  struct due_entry first;
  uint32_t seed = 1;

  memset(at_s, 0xff, sizeof at_s);  // all ones: not in it
  for (unsigned step = 0; step < 20000; step++) {
    uint32_t least = UINT32_MAX;
    seed = seed * 1664525u + 1013904223u;
    const uint32_t item = (seed >> 8) % NUM;
    if ((seed & 3u) == 0) {
      due_remove(&due, item);
      at_s[item] = UINT32_MAX;
    } else {
      at_s[item] = (seed >> 4) % 100000u;
      assert_int_equal(due_set(&due, item, at_s[item]), STATUS_OK);
    }
    if (step % 50 == 0) {
      for (uint32_t i = 0; i < NUM; i++) {
        least = at_s[i] < least ? at_s[i] : least;
      }
      assert_true(due_first(&due, &first) == (least != UINT32_MAX));
      assert_true(least == UINT32_MAX || first.at_s == least);
      assert_true(least == UINT32_MAX || at_s[first.item] == least);
    }
  }
  due_cleanup(&due);
}

static void refuses_too_large_a_number(void **state) {
  (void)state;
  struct due due = {0};
  assert_int_equal(due_set(&due, DUE_MAX_ITEM + 1u, 0), STATUS_LIMIT);
  assert_int_equal(due.num, 0);
  due_cleanup(&due);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gives_the_earliest_first),
      cmocka_unit_test(agrees_with_a_plain_search),
      cmocka_unit_test(refuses_too_large_a_number),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
