// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void pool_lends_what_came_back(void **state) {
  (void)state;
  struct pool pool = {.size = 100, .max_free = 2};
  void *objects[4];
  for (size_t i = 0; i < 4; i++) {
    objects[i] = pool_take(&pool);
    assert_non_null(objects[i]);
    memset(objects[i], 0xff, 100);
  }
  assert_int_equal(pool.num_lent, 4);
  for (size_t i = 0; i < 4; i++) {
    pool_give(&pool, objects[i]);
  }
  assert_int_equal(pool.num_lent, 0);
  assert_true(pool.num_free <= 2);
  if (pool.num_free > 0) {  // not under ASan, where all go back to malloc
    // The last that was kept is the first that is lent.
    assert_ptr_equal(pool_take(&pool), objects[1]);
    pool_give(&pool, objects[1]);
  }
  pool_give(&pool, NULL);
  pool_cleanup(&pool);
}

static void block_starts_again_when_it_is_empty(void **state) {
  (void)state;
  struct pool pool = {.size = sizeof(struct block), .max_free = 1};
  struct block *block = NULL;

  assert_int_equal(block_len(block), 0);
  assert_true(block_borrow(&block, &pool));
  assert_int_equal(block_len(block), 0);
  assert_int_equal(block_room(block), BLOCK_LEN);
  memcpy(block_free(block), "hello", 5);
  block_add(block, 5);
  block_use(block, 2);
  assert_memory_equal(block_bytes(block), "llo", 3);
  assert_int_equal(block_room(block), BLOCK_LEN - 5);
  block_return(&block, &pool);
  assert_non_null(block);  // not empty: stays
  block_use(block, 3);
  assert_int_equal(block_room(block), BLOCK_LEN);
  block_return(&block, &pool);
  assert_null(block);
  assert_int_equal(pool.num_lent, 0);
  pool_cleanup(&pool);
}

static void borrowing_twice_keeps_what_is_there(void **state) {
  (void)state;
  struct pool pool = {.size = sizeof(struct block), .max_free = 1};
  struct block *block = NULL;
  struct block *first = NULL;

  assert_true(block_borrow(&block, &pool));
  first = block;
  block_add(block, 7);
  assert_true(block_borrow(&block, &pool));
  assert_ptr_equal(block, first);
  assert_int_equal(block_len(block), 7);
  block_use(block, 7);
  block_return(&block, &pool);
  pool_cleanup(&pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pool_lends_what_came_back),
      cmocka_unit_test(block_starts_again_when_it_is_empty),
      cmocka_unit_test(borrowing_twice_keeps_what_is_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
