// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/record_size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>  // after the above

// How many bytes the next `num` records have, of plenty.
static size_t seal(struct record_size *size, unsigned num) {
  size_t len = 0;
  for (unsigned i = 0; i < num; i++) {
    len += record_size_next(size, SIZE_MAX);
    record_size_sealed(size);
  }
  return len;
}

static void bytes_come(struct record_size *size, int64_t now_ms) {
  record_size_look(size, now_ms);
  record_size_came(size, now_ms);
}

static void begins_short_and_grows(void **state) {
  (void)state;
  struct record_size size = {0};
  bytes_come(&size, 5000000);
  assert_int_equal(seal(&size, RECORD_NUM_SHORT), RECORD_NUM_SHORT * RECORD_SHORT_LEN);
  assert_int_equal(seal(&size, 3), 3 * RECORD_MAX_LEN);
  // What there is goes into one, if it fits.
  assert_int_equal(record_size_next(&size, 77), 77);
}

static void a_pause_begins_again(void **state) {
  (void)state;
  struct record_size size = {0};
  int64_t now_ms = INT64_C(0x1fffffe00);  // its low half wraps on the way
  bytes_come(&size, now_ms);
  (void)seal(&size, RECORD_NUM_SHORT);
  for (unsigned i = 0; i < 5; i++) {
    now_ms += RECORD_PAUSE_MS;
    bytes_come(&size, now_ms);
    assert_int_equal(seal(&size, 1), RECORD_MAX_LEN);
  }
  // Looks that found nothing are no end of a pause.
  record_size_look(&size, now_ms + RECORD_PAUSE_MS);
  assert_int_equal(record_size_next(&size, SIZE_MAX), RECORD_MAX_LEN);
  bytes_come(&size, now_ms + RECORD_PAUSE_MS + 1);
  assert_int_equal(seal(&size, 1), RECORD_SHORT_LEN);
}

// All that is fetched for a block fits into it, whatever the records.
static void a_block_holds_what_was_fetched_for_it(void **state) {
  (void)state;
  for (unsigned num_short = 0; num_short <= RECORD_NUM_SHORT; num_short++) {
    struct record_size size = {.num_short = (uint8_t)num_short};
    size_t left = BLOCK_LEN - record_size_overhead(&size, BLOCK_LEN);
    size_t sealed = 0;
    while (left > 0) {
      size_t len = record_size_next(&size, left);
      left -= len;
      sealed += len + RECORD_MAX_OVERHEAD;
      record_size_sealed(&size);
    }
    assert_true(sealed <= BLOCK_LEN);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(begins_short_and_grows),
      cmocka_unit_test(a_pause_begins_again),
      cmocka_unit_test(a_block_holds_what_was_fetched_for_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
