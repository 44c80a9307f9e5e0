// SPDX-License-Identifier: Apache-2.0
#include "proxy/memory_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#define BLOCK_LEN (64 << 20)

static void rule_has_a_gap_between_begin_and_end(void **state) {
  (void)state;
  assert_false(memory_watch_next(false, 1000, 1000));
  assert_true(memory_watch_next(false, 1001, 1000));
  assert_true(memory_watch_next(true, 951, 1000));
  assert_false(memory_watch_next(true, 950, 1000));
  assert_false(memory_watch_next(false, 960, 1000));
  assert_false(memory_watch_next(true, 1 << 30, 0));  // no ceiling
}

static void counts_what_is_the_process_own(void **state) {
  (void)state;
  struct loop *loop = NULL;
  struct memory_watch *watch = NULL;
  int64_t before = 0;
  int64_t now = 0;
  void *own = NULL;

  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(memory_watch_new(&watch, loop), STATUS_OK);
  before = memory_watch_bytes(watch);
  assert_true(before >= 0);
  own = mmap(NULL, BLOCK_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(own != MAP_FAILED);
  assert_true(memory_watch_bytes(watch) < before + BLOCK_LEN / 4);
  memset(own, 1, BLOCK_LEN);
  now = memory_watch_bytes(watch);  // more by a multiple where a sanitizer has its shadow
  assert_true(now > before + BLOCK_LEN / 4 * 3);

  assert_false(memory_watch_is_over(watch));
  memory_watch_set(watch, now - BLOCK_LEN / 2);
  assert_true(memory_watch_is_over(watch));
  memory_watch_set(watch, now + BLOCK_LEN);
  assert_false(memory_watch_is_over(watch));
  memory_watch_set(watch, now - BLOCK_LEN / 2);
  assert_true(memory_watch_is_over(watch));
  memory_watch_set(watch, 0);
  assert_false(memory_watch_is_over(watch));

  (void)munmap(own, BLOCK_LEN);
  memory_watch_free(watch);
  loop_free(loop);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rule_has_a_gap_between_begin_and_end),
      cmocka_unit_test(counts_what_is_the_process_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
