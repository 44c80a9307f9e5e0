// SPDX-License-Identifier: Apache-2.0
#include "common/wire/keygen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void takes_labels_that_make_no_path(void **state) {
  static const char *const good[] = {"a", "www.example.org", "cm-2026_1", "7"};
  static const char *const bad[] = {"",    ".",   "..",   ".hidden", "-x",   "_x",
                                    "a/b", "a b", "a\nb", "../a",    "a\\b", "\xc3\xa9",
                                    "a:b", "a*",  "a,b",  "a\x7f",   "a\"b"};
  char longest[KEYGEN_MAX_LABEL_LEN + 2];
  (void)state;

  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    assert_true(keygen_label_is_good(bytes_text(good[i])));
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_false(keygen_label_is_good(bytes_text(bad[i])));
  }
  assert_false(keygen_label_is_good(bytes_of("a\0b", 3)));
  memset(longest, 'a', sizeof longest);
  assert_true(keygen_label_is_good(bytes_of(longest, KEYGEN_MAX_LABEL_LEN)));
  assert_false(keygen_label_is_good(bytes_of(longest, KEYGEN_MAX_LABEL_LEN + 1)));
}

static void requests_come_back_as_they_were(void **state) {
  uint8_t out[KEYGEN_MAX_REQUEST_LEN];
  size_t len = 0;
  (void)state;

  for (int kind = KEYGEN_P256; kind <= KEYGEN_ED25519; kind++) {
    struct keygen_request request = {(enum keygen_kind)kind, bytes_text("web-1")};
    struct keygen_request again = {0};
    enum keygen_kind named = KEYGEN_P256;
    assert_int_equal(keygen_request_encode(out, sizeof out, &len, &request), STATUS_OK);
    assert_int_equal(keygen_request_decode(&again, bytes_of(out, len)), STATUS_OK);
    assert_int_equal(again.kind, kind);
    assert_true(bytes_equal(again.label, request.label));
    assert_int_equal(keygen_kind_from_name(&named, keygen_kind_name(request.kind)), STATUS_OK);
    assert_int_equal(named, kind);
  }
  assert_int_equal(keygen_bits(KEYGEN_RSA_3072), 3072);
  assert_int_equal(keygen_key_kind(KEYGEN_RSA_3072), KEY_KIND_RSA);
}

static void refuses_what_is_no_request(void **state) {
  static const struct {
    const char *data;
    size_t len;
  } bad[] = {
      {"", 0},
      {"\x01", 1},
      {"\x01\x00", 2},
      {"\x01\x02"
       "a",
       3},
      {"\x01\x01"
       "ab",
       4},
      {"\x00\x01"
       "a",
       3},
      {"\x07\x01"
       "a",
       3},  // no such kind
      {"\xff\x01"
       "a",
       3},
      {"\x01\x03"
       "a/b",
       5},
      {"\x01\x02"
       "..",
       4},
  };
  struct keygen_request request;
  uint8_t out[KEYGEN_MAX_REQUEST_LEN];
  size_t len = 0;
  const struct keygen_request path = {KEYGEN_P256, bytes_text("../x")};
  const struct keygen_request kind = {(enum keygen_kind)9, bytes_text("x")};
  const struct keygen_request good = {KEYGEN_P256, bytes_text("x")};
  (void)state;

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(keygen_request_decode(&request, bytes_of(bad[i].data, bad[i].len)),
                     STATUS_FORMAT);
    assert_null(request.label.data);
  }
  assert_int_equal(keygen_request_encode(out, sizeof out, &len, &path), STATUS_FORMAT);
  assert_int_equal(keygen_request_encode(out, sizeof out, &len, &kind), STATUS_FORMAT);
  assert_int_equal(keygen_request_encode(out, 2, &len, &good), STATUS_LIMIT);
}

static void replies_come_back_as_they_were(void **state) {
  uint8_t out[KEYGEN_MAX_REPLY_LEN];
  size_t len = 0;
  struct keygen_reply reply = {.ski = {1, 2, 3}, .spki = bytes_text("not looked into")};
  struct keygen_reply again = {0};
  (void)state;

  assert_int_equal(keygen_reply_encode(out, sizeof out, &len, &reply), STATUS_OK);
  assert_int_equal(keygen_reply_decode(&again, bytes_of(out, len)), STATUS_OK);
  assert_memory_equal(again.ski, reply.ski, sizeof reply.ski);
  assert_true(bytes_equal(again.spki, reply.spki));
  for (size_t cut = 0; cut < len; cut++) {
    assert_int_equal(keygen_reply_decode(&again, bytes_of(out, cut)), STATUS_FORMAT);
  }
  out[len] = 0;
  assert_int_equal(keygen_reply_decode(&again, bytes_of(out, len + 1)), STATUS_FORMAT);
  reply.spki.len = 0;
  assert_int_equal(keygen_reply_encode(out, sizeof out, &len, &reply), STATUS_LIMIT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(takes_labels_that_make_no_path),
      cmocka_unit_test(requests_come_back_as_they_were),
      cmocka_unit_test(refuses_what_is_no_request),
      cmocka_unit_test(replies_come_back_as_they_were),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
