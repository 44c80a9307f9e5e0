// SPDX-License-Identifier: Apache-2.0
#include "common/tls/cert_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/status.h"

#define NUM 1000  // more than the pool begins with room for

static CRYPTO_BUFFER *take(struct cert_pool *pool, uint32_t number) {
  CRYPTO_BUFFER *buffer = cert_pool_take(pool, bytes_of(&number, sizeof(number)));
  assert_non_null(buffer);
  assert_memory_equal(CRYPTO_BUFFER_data(buffer), &number, sizeof(number));
  return buffer;
}

static void keeps_each_once_while_somebody_has_it(void **state) {
  (void)state;
  struct cert_pool *pool = cert_pool_new();
  CRYPTO_BUFFER *first[NUM];
  CRYPTO_BUFFER *second[NUM];
  for (uint32_t i = 0; i < NUM; i++) {
    first[i] = take(pool, i);
  }
  for (uint32_t i = 0; i < NUM; i++) {
    second[i] = take(pool, i);
    assert_ptr_equal(first[i], second[i]);
    assert_true(i == 0 || first[i] != first[i - 1]);
    cert_pool_give(pool, first[i]);
  }
  for (uint32_t i = 0; i < NUM; i++) {
    first[i] = take(pool, i);
    assert_ptr_equal(first[i], second[i]);
    cert_pool_give(pool, first[i]);
    cert_pool_give(pool, second[i]);
  }
  cert_pool_free(pool);  // aborts unless nobody has any
}

static void without_a_pool_each_is_new(void **state) {
  (void)state;
  CRYPTO_BUFFER *a = take(NULL, 7);
  CRYPTO_BUFFER *b = take(NULL, 7);
  assert_ptr_not_equal(a, b);
  cert_pool_give(NULL, a);
  cert_pool_give(NULL, b);
  cert_pool_give(NULL, NULL);
  cert_pool_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keeps_each_once_while_somebody_has_it),
      cmocka_unit_test(without_a_pool_each_is_new),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
