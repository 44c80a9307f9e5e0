// SPDX-License-Identifier: Apache-2.0
// What threads would have to meet in the wrong moment for, step by step.
#include "common/base/sink_ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/sink.h"

static struct sink_ring ring;
static uint8_t out[64u << 10];

static int make_ring(void **state) {
  (void)state;
  return sink_ring_init(&ring, 0) == STATUS_OK ? 0 : -1;
}

static int free_ring(void **state) {
  (void)state;
  sink_ring_cleanup(&ring);
  return 0;
}

static void assert_all_zero(void) {
  for (size_t i = 0; i < ring.len; i++) {
    assert_int_equal(ring.data[i], 0);
  }
}

// A producer that was interrupted between reserving and committing holds back
// what lies behind it, and nothing of the old content shows.
static void stops_at_a_record_that_is_not_committed(void **state) {
  (void)state;
  assert_true(sink_ring_put(&ring, bytes_text("one")));
  (void)atomic_fetch_add(&ring.head, 8);
  assert_true(sink_ring_put(&ring, bytes_text("three")));
  assert_int_equal(sink_ring_take(&ring, out, sizeof(out)), 4);
  assert_memory_equal(out, "one\n", 4);
  assert_false(sink_ring_has_line(&ring));
  assert_int_equal(sink_ring_take(&ring, out, sizeof(out)), 0);
  // It goes on: its header, then its text are in place.
  memcpy(ring.data + 8 + 4, "two\n", 4);
  atomic_store((_Atomic uint32_t *)(void *)(ring.data + 8), 4);
  assert_true(sink_ring_has_line(&ring));
  assert_int_equal(sink_ring_take(&ring, out, sizeof(out)), 10);
  assert_memory_equal(out, "two\n", 4);
}

// Every place in the ring that was used reads "not committed" again, wherever
// the records begin and wrap.
static void leaves_zeroes_behind_itself(void **state) {
  static uint8_t line[SINK_LINE_MAX_LEN];
  (void)state;
  memset(line, 0xff, sizeof(line));
  for (size_t len = 0; len < 3000; len++) {
    assert_true(sink_ring_put(&ring, bytes_of(line, len)));
    assert_true(sink_ring_put(&ring, bytes_of(line, 3001 - len)));
    assert_int_equal(sink_ring_take(&ring, out, sizeof(out)), 3003);
    assert_int_equal(out[len], '\n');
    if (len % 16 == 0) {
      assert_all_zero();
    }
  }
  assert_all_zero();
}

static void holds_exactly_its_length(void **state) {
  (void)state;
  // Records of 16 bytes: 4 for the header, 11 for the line, one for its end.
  for (uint64_t i = 0; i < ring.len / 16; i++) {
    assert_true(sink_ring_put(&ring, bytes_text("0123456789a")));
  }
  assert_int_equal(sink_ring_used(&ring), ring.len);
  assert_false(sink_ring_put(&ring, bytes_text("")));
  assert_int_equal(sink_ring_take(&ring, out, 12), 12);
  assert_false(sink_ring_put(&ring, bytes_text("0123456789ab")));  // needs 24
  assert_true(sink_ring_put(&ring, bytes_text("")));
  assert_true(sink_ring_put(&ring, bytes_text("")));
  assert_false(sink_ring_put(&ring, bytes_text("")));
}

static void takes_whole_lines_only(void **state) {
  (void)state;
  assert_true(sink_ring_put(&ring, bytes_text("abc")));
  assert_true(sink_ring_put(&ring, bytes_text("defg")));
  assert_int_equal(sink_ring_take(&ring, out, 8), 4);
  assert_int_equal(sink_ring_take(&ring, out, 5), 5);
  assert_memory_equal(out, "defg\n", 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_ring, free_ring)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(stops_at_a_record_that_is_not_committed),
      TEST(leaves_zeroes_behind_itself),
      TEST(holds_exactly_its_length),
      TEST(takes_whole_lines_only),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
