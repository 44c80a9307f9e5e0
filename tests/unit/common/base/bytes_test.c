// SPDX-License-Identifier: Apache-2.0
#include "common/base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void compares_content_not_address(void **state) {
  (void)state;
  assert_true(bytes_equal(bytes_text("abc"), bytes_of("abcd", 3)));
  assert_false(bytes_equal(bytes_text("abc"), bytes_text("abd")));
  assert_false(bytes_equal(bytes_text("abc"), bytes_text("abcd")));
  assert_true(bytes_equal(bytes_of(NULL, 0), bytes_text("")));
  assert_true(bytes_equal(bytes_text(NULL), bytes_text("")));
}

static void hex_goes_both_ways(void **state) {
  uint8_t all[256];
  uint8_t back[256];
  char text[513];
  (void)state;
  for (size_t i = 0; i < sizeof(all); i++) {
    all[i] = (uint8_t)i;
  }
  assert_ptr_equal(bytes_to_hex(text, bytes_of(all, sizeof(all))), text);
  assert_memory_equal(text, "000102030405060708090a0b0c0d0e0f10", 34);
  assert_int_equal(strlen(text), 512);
  assert_int_equal(bytes_from_hex(back, sizeof(back), text), STATUS_OK);
  assert_memory_equal(back, all, sizeof(all));
  assert_int_equal(bytes_from_hex(back, 2, "AbCd"), STATUS_OK);
  assert_memory_equal(back, "\xab\xcd", 2);
  assert_int_equal(bytes_from_hex(back, 0, ""), STATUS_OK);
}

static void refuses_hex_of_another_length_or_alphabet(void **state) {
  static const char *const wrong[] = {"",       "a",    "ab",   "abc",  "abcde",
                                      "abcdef", "ag00", "a b0", "0x12", "ab\xff\xff"};
  uint8_t out[2];
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    assert_int_equal(bytes_from_hex(out, sizeof(out), wrong[i]), STATUS_FORMAT);
  }
}

static void base64_gives_the_vectors_of_rfc4648(void **state) {
  static const char *const pairs[][2] = {{"", ""},
                                         {"f", "Zg=="},
                                         {"fo", "Zm8="},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg=="},
                                         {"fooba", "Zm9vYmE="},
                                         {"foobar", "Zm9vYmFy"}};
  (void)state;
  for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
    char *text = bytes_to_base64(bytes_text(pairs[i][0]));
    uint8_t *data = NULL;
    size_t len = 0;
    assert_non_null(text);
    assert_string_equal(text, pairs[i][1]);
    assert_int_equal(bytes_from_base64(&data, &len, bytes_text(text), strlen(pairs[i][0])),
                     STATUS_OK);
    assert_true(bytes_equal(bytes_of(data, len), bytes_text(pairs[i][0])));
    free(data);
    free(text);
  }
}

static void refuses_bad_and_too_long_base64(void **state) {
  static const char *const wrong[] = {"Z",    "Zg",    "Zg=",  "Zg= ", "Zg==\n",
                                      "Z===", "Zm9v=", "Zm-v", "=Zm9", "Zg==Zg=="};
  uint8_t *data = NULL;
  size_t len = 0;
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    assert_int_equal(bytes_from_base64(&data, &len, bytes_text(wrong[i]), 100), STATUS_FORMAT);
    assert_null(data);
  }
  assert_int_equal(bytes_from_base64(&data, &len, bytes_text("Zm9vYg=="), 3), STATUS_LIMIT);
  assert_int_equal(bytes_from_base64(&data, &len, bytes_text("Zm9vYmFy"), 5), STATUS_LIMIT);
  assert_int_equal(bytes_from_base64(&data, &len, bytes_text("Zm9vYmFyZm9vYmFy"), 5), STATUS_LIMIT);
  assert_null(data);
}

static void copies_even_nothing(void **state) {
  uint8_t *copy = bytes_copy(bytes_of(NULL, 0));
  (void)state;
  assert_non_null(copy);
  free(copy);
  copy = bytes_copy(bytes_text("xyz"));
  assert_non_null(copy);
  assert_memory_equal(copy, "xyz", 3);
  free(copy);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(compares_content_not_address),
      cmocka_unit_test(hex_goes_both_ways),
      cmocka_unit_test(refuses_hex_of_another_length_or_alphabet),
      cmocka_unit_test(base64_gives_the_vectors_of_rfc4648),
      cmocka_unit_test(refuses_bad_and_too_long_base64),
      cmocka_unit_test(copies_even_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
