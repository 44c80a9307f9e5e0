// SPDX-License-Identifier: Apache-2.0
#include "common/wire/pem_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct pem_block block;

static enum status next(struct bytes *text, bool is_all) { return pem_next(&block, text, is_all); }

static void tells_certificates_keys_and_others_apart(void **state) {
  (void)state;
  struct bytes text = bytes_text(
      "# hitch\n-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"
      "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
      "-----BEGIN DH PARAMETERS-----\nCCCC\n-----END DH PARAMETERS-----");
  assert_int_equal(next(&text, true), STATUS_OK);
  assert_int_equal(block.kind, PEM_PRIVATE_KEY);
  assert_int_equal(next(&text, true), STATUS_OK);
  assert_int_equal(block.kind, PEM_CERTIFICATE);
  assert_true(bytes_equal(block.body, bytes_text("\nBBBB\n")));
  assert_int_equal(next(&text, true), STATUS_OK);
  assert_int_equal(block.kind, PEM_OTHER);
  assert_int_equal(next(&text, true), STATUS_NOT_FOUND);
  assert_int_equal(text.len, 0);
}

static void waits_for_the_rest_of_a_block(void **state) {
  (void)state;
  static const char whole[] = "x-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
  for (size_t len = 0; len + 1 < strlen(whole); len++) {
    struct bytes text = bytes_of(whole, len);
    enum status st = next(&text, false);
    assert_true(st == STATUS_AGAIN || st == STATUS_NOT_FOUND);
    // What is left begins no later than the block.
    assert_true(text.data <= (const uint8_t *)whole + 1 || st == STATUS_AGAIN);
    text = bytes_of(whole, len);
    st = next(&text, true);
    assert_true(st == STATUS_FORMAT || st == STATUS_NOT_FOUND);
  }
}

static void refuses_an_end_of_another_block(void **state) {
  (void)state;
  struct bytes text = bytes_text("-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATF-----\n");
  assert_int_equal(next(&text, true), STATUS_FORMAT);
}

static void decodes_base64(void **state) {
  (void)state;
  uint8_t out[8];
  size_t len = 0;
  assert_int_equal(pem_decode(out, sizeof(out), &len, bytes_text("\r\nZm9v\nYg==\n")), STATUS_OK);
  assert_int_equal(len, 4);
  assert_memory_equal(out, "foob", 4);
  assert_int_equal(pem_decode(out, sizeof(out), &len, bytes_text("")), STATUS_OK);
  assert_int_equal(len, 0);
  assert_int_equal(pem_decode(out, 3, &len, bytes_text("Zm9vYg==")), STATUS_LIMIT);
  static const char *const bad[] = {
      "Z", "Zm9", "Zm9v=", "Z===", "Zg==Zg==", "Zm9v!", "Zg=a", "===="};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    assert_int_equal(pem_decode(out, sizeof(out), &len, bytes_text(bad[i])), STATUS_FORMAT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tells_certificates_keys_and_others_apart),
      cmocka_unit_test(waits_for_the_rest_of_a_block),
      cmocka_unit_test(refuses_an_end_of_another_block),
      cmocka_unit_test(decodes_base64),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
