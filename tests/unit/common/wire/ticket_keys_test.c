// SPDX-License-Identifier: Apache-2.0
#include "common/wire/ticket_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define A "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define B "10112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static enum status parse(struct ticket_keys *out, const char *text, size_t *line) {
  const char *why = NULL;
  const enum status st = ticket_keys_parse(out, bytes_text(text), line, &why);

  assert_int_equal(why == NULL, st == STATUS_OK);
  return st;
}

static void reads_keys_with_their_times(void **state) {
  (void)state;
  struct ticket_keys keys;
  size_t line = 0;
  int64_t next_s = 0;

  assert_int_equal(
      parse(&keys, "# two\n\n1970-01-01T00:01:40Z " A "\n2026-11-22T06:00:00Z " B, &line),
      STATUS_OK);
  assert_int_equal(keys.num, 2);
  assert_int_equal(keys.keys[0].from_s, 100);
  assert_int_equal(keys.keys[1].from_s, 1795327200);
  assert_int_equal(keys.keys[0].secret[1], 0x11);
  assert_int_equal(keys.keys[1].secret[31], 0xff);
  // The first also seals before its time: there is no other.
  assert_int_equal(ticket_keys_current(&keys, 0, &next_s), 0);
  assert_int_equal(next_s, 1795327200);
  assert_int_equal(ticket_keys_current(&keys, 1795327199, &next_s), 0);
  assert_int_equal(ticket_keys_current(&keys, 1795327200, &next_s), 1);
  assert_int_equal(next_s, INT64_MAX);
}

static void refuses_what_is_not_of_this_form(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t line;
  } bad[] = {
      {"", 0},
      {"# nothing\n", 1},
      {"2026-11-22T06:00:00Z", 1},
      {"2026-11-22T06:00:00Z ", 1},
      {"2026-11-22 06:00:00Z " A, 1},
      {"2026-11-22T06:00:00+ " A, 1},
      {"2026-02-29T06:00:00Z " A, 1},
      {"2026-13-01T06:00:00Z " A, 1},
      {"2026-11-22T24:00:00Z " A, 1},
      {"2026-11-22T06:00:-1Z " A, 1},
      {"2026-11-22T06:00:00Z  " A, 1},
      {"2026-11-22T06:00:00Z " A "0", 1},
      {"2026-11-22T06:00:00Z " A "\r\n", 1},
      {" 2026-11-22T06:00:00Z " A, 1},
      {"2026-11-22T06:00:00Z g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", 1},
      {"2026-11-22T06:00:00Z " A "\n\n2026-11-22T06:00:00Z " B, 3},
      {"2026-11-22T06:00:00Z " A "\n2026-11-22T07:00:00Z " A, 2},
  };

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct ticket_keys keys;
    size_t line = 0;
    if (parse(&keys, bad[i].text, &line) != STATUS_FORMAT || line != bad[i].line) {
      fail_msg("%s (line %zu)", bad[i].text, line);
    }
  }
}

static void takes_eight_keys_and_no_more(void **state) {
  (void)state;
  char text[2048] = "";
  struct ticket_keys keys;
  size_t line = 0;
  size_t len = 0;

  for (unsigned i = 1; i <= TICKET_KEYS_MAX + 1; i++) {
    len += (size_t)snprintf(text + len, sizeof text - len, "2026-11-22T06:00:0%uZ %064x\n", i, i);
    assert_int_equal(parse(&keys, text, &line), i <= TICKET_KEYS_MAX ? STATUS_OK : STATUS_LIMIT);
  }
  assert_int_equal(line, TICKET_KEYS_MAX + 1);
}

static void set_for_a_successor_comes_back_as_it_was(void **state) {
  (void)state;
  struct ticket_key_set set = {.is_shared = true, .age_ms = 123456789012, .num = 0};
  struct ticket_key_set read;
  uint8_t bytes[TICKET_KEY_SET_MAX_LEN + 1] = {0};
  size_t len = 0;

  for (unsigned i = 0; i < TICKET_KEYS_MAX; i++) {
    memset(set.secrets[set.num++], (int)(0xa0 + i), TICKET_KEYS_SECRET_LEN);
    len = ticket_key_set_encode(bytes, &set);
    assert_int_equal(ticket_key_set_decode(&read, bytes_of(bytes, len)), STATUS_OK);
    assert_true(read.is_shared);
    assert_int_equal(read.age_ms, set.age_ms);
    assert_int_equal(read.num, set.num);
    assert_memory_equal(read.secrets, set.secrets, sizeof set.secrets);
  }
  assert_int_equal(len, TICKET_KEY_SET_MAX_LEN);
}

static void refuses_sets_that_are_not_whole(void **state) {
  (void)state;
  const struct ticket_key_set set = {.age_ms = 1, .num = 2};
  static const struct {
    size_t at;
    uint8_t value;
  } wrong[] = {{0, 0}, {0, 2}, {0, '{'}, {1, 2}, {2, 0x80}, {10, 0}, {10, 1}, {10, 3}, {10, 9}};
  struct ticket_key_set read;
  uint8_t bytes[TICKET_KEY_SET_MAX_LEN] = {0};
  const size_t len = ticket_key_set_encode(bytes, &set);

  for (size_t i = 0; i <= sizeof bytes; i++) {
    if (i < sizeof bytes && i != len) {
      assert_int_equal(ticket_key_set_decode(&read, bytes_of(bytes, i)), STATUS_FORMAT);
    }
  }
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    const uint8_t right = bytes[wrong[i].at];
    bytes[wrong[i].at] = wrong[i].value;
    assert_int_equal(ticket_key_set_decode(&read, bytes_of(bytes, len)), STATUS_FORMAT);
    bytes[wrong[i].at] = right;
  }
  assert_int_equal(ticket_key_set_decode(&read, bytes_of(bytes, len)), STATUS_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_keys_with_their_times),
      cmocka_unit_test(refuses_what_is_not_of_this_form),
      cmocka_unit_test(takes_eight_keys_and_no_more),
      cmocka_unit_test(set_for_a_successor_comes_back_as_it_was),
      cmocka_unit_test(refuses_sets_that_are_not_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
