// SPDX-License-Identifier: Apache-2.0
// What certstore's chain_test and tests/e2e/test_staples.py do not see: times and their
// skew, replays, URLs. Who may sign is theirs.
#include "common/revocation/ocsp.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/support/ocsp.h"

static EVP_PKEY *ca_key;
static EVP_PKEY *key;
static X509 *ca;
static X509 *leaf;
static struct bytes ca_der;
static struct bytes leaf_der;
static int64_t now_s;

static int set_up(void **state) {
  (void)state;
  now_s = clock_wall_s();
  ca_key = test_key_new(KEY_KIND_P256);
  key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  leaf = test_cert_new(&(struct test_cert){.cn = "leaf"}, key, ca, ca_key);
  ca_der = test_cert_der(ca);
  leaf_der = test_cert_der(leaf);
  return 0;
}

static void free_bytes(struct bytes in) { OPENSSL_free((void *)(uintptr_t)in.data); }

static int tear_down(void **state) {
  (void)state;
  free_bytes(ca_der);
  free_bytes(leaf_der);
  X509_free(ca);
  X509_free(leaf);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  return 0;
}

static enum ocsp_fault check(struct ocsp_answer *out, const struct test_ocsp *spec, int64_t skew_s,
                             int64_t min_this_update_s) {
  struct bytes response = test_ocsp_new(spec, leaf, ca, NULL, ca_key);
  const struct ocsp_query query = {.leaf = leaf_der,
                                   .issuer = ca_der,
                                   .now_s = now_s,
                                   .skew_s = skew_s,
                                   .min_this_update = min_this_update_s};
  struct errmsg err = {0};
  enum ocsp_fault fault = ocsp_check(out, &query, response, &err);
  assert_true((fault == OCSP_NO_FAULT) == (err.text[0] == '\0'));
  free_bytes(response);
  return fault;
}

static void allows_for_clocks_at_both_ends(void **state) {
  (void)state;
  struct ocsp_answer answer;
  const struct test_ocsp early = {.this_update_s = now_s + 100, .next_update_s = now_s + 1000};
  const struct test_ocsp late = {.this_update_s = now_s - 1000, .next_update_s = now_s - 100};

  assert_int_equal(check(&answer, &early, 99, 0), OCSP_NOT_YET_VALID);
  assert_int_equal(check(&answer, &early, 100, 0), OCSP_NO_FAULT);
  assert_false(ocsp_may_staple(&answer, OCSP_NO_FAULT, now_s));  // clients have no skew
  assert_true(ocsp_may_staple(&answer, OCSP_NO_FAULT, now_s + 100));
  assert_false(ocsp_may_staple(&answer, OCSP_NO_FAULT, now_s + 1000));
  assert_int_equal(check(&answer, &late, 100, 0), OCSP_EXPIRED);
  assert_int_equal(check(&answer, &late, 101, 0), OCSP_NO_FAULT);
}

static void refuses_what_is_older_than_what_it_knows(void **state) {
  (void)state;
  struct ocsp_answer answer;
  const struct test_ocsp spec = {.this_update_s = now_s - 50};
  assert_int_equal(check(&answer, &spec, 0, now_s - 50), OCSP_NO_FAULT);
  assert_int_equal(check(&answer, &spec, 0, now_s - 49), OCSP_REPLAYED);
}

static void revoked_lasts_longer_than_the_answer(void **state) {
  (void)state;
  struct ocsp_answer answer;
  const struct test_ocsp old = {
      .status = TEST_OCSP_REVOKED, .this_update_s = now_s - 1000, .next_update_s = now_s - 100};
  enum ocsp_fault fault = check(&answer, &old, 0, 0);
  assert_int_equal(fault, OCSP_EXPIRED);
  assert_true(ocsp_says_revoked(&answer, fault));
  assert_true(answer.revoked_s > 0);
  answer.reason = 6;  // on hold: it may be good again
  assert_false(ocsp_says_revoked(&answer, fault));
  assert_true(ocsp_says_revoked(&answer, OCSP_NO_FAULT));
  assert_false(ocsp_says_revoked(&answer, OCSP_BAD_SIGNATURE));
  fault = check(&answer,
                &(struct test_ocsp){.status = TEST_OCSP_REVOKED, .is_signature_wrong = true}, 0, 0);
  assert_int_equal(fault, OCSP_BAD_SIGNATURE);
  assert_false(ocsp_says_revoked(&answer, fault));
}

static void names_the_faults_of_form(void **state) {
  (void)state;
  static uint8_t long_one[OCSP_MAX_LEN + 1];
  struct ocsp_answer answer;
  const struct ocsp_query query = {.leaf = leaf_der, .issuer = ca_der, .now_s = now_s};
  const struct ocsp_query no_leaf = {.leaf = bytes_text("x"), .issuer = ca_der, .now_s = now_s};
  struct bytes good = test_ocsp_new(&(struct test_ocsp){0}, leaf, ca, NULL, ca_key);

  assert_int_equal(ocsp_check(&answer, &query, bytes_of(long_one, sizeof long_one), NULL),
                   OCSP_TOO_LONG);
  assert_int_equal(ocsp_check(&answer, &query, bytes_of(long_one, 100), NULL), OCSP_MALFORMED);
  assert_int_equal(ocsp_check(&answer, &query, (struct bytes){0}, NULL), OCSP_MALFORMED);
  assert_int_equal(ocsp_check(&answer, &no_leaf, good, NULL), OCSP_BAD_CERTIFICATE);
  for (int fault = 0; fault < OCSP_NUM_FAULTS; fault++) {
    assert_non_null(ocsp_fault_name((enum ocsp_fault)fault));
  }
  free_bytes(good);
}

static void asks_by_get_when_it_is_short(void **state) {
  (void)state;
  const uint8_t request[] = {0xfb, 0xff, 0xfe};  // base64 with + and /
  static uint8_t long_one[300];
  char responder[OCSP_MAX_GET_LEN];
  char *url = ocsp_get_url("http://o.test", bytes_of(request, sizeof request));

  assert_string_equal(url, "http://o.test/%2B%2F%2F%2B");
  free(url);
  url = ocsp_get_url("http://o.test/a/", bytes_of(request, 1));
  assert_string_equal(url, "http://o.test/a/%2Bw%3D%3D");
  free(url);
  assert_null(ocsp_get_url("http://o.test/?x", bytes_of(request, 3)));
  assert_null(ocsp_get_url("http://o.test", bytes_of(long_one, sizeof long_one)));
  // Exactly as long as allowed, and one more.
  memset(responder, 'o', sizeof responder);
  for (size_t len = OCSP_MAX_GET_LEN - 20; len < OCSP_MAX_GET_LEN - 1; len++) {
    responder[len] = '\0';
    url = ocsp_get_url(responder, bytes_of("\0\0\0", 3));  // AAAA
    assert_true((url != NULL) == (len + 1 + 4 <= OCSP_MAX_GET_LEN));
    assert_true(url == NULL || strlen(url) == len + 5);
    free(url);
    responder[len] = 'o';
  }
}

static void makes_a_request_that_fits_a_get(void **state) {
  (void)state;
  uint8_t *request = NULL;
  size_t len = 0;
  uint8_t *with_nonce = NULL;
  size_t with_nonce_len = 0;

  assert_int_equal(ocsp_request_new(&request, &len, leaf_der, ca_der, (struct bytes){0}, NULL),
                   STATUS_OK);
  assert_true(len > 60 && len < 100);
  assert_int_equal(ocsp_request_new(&with_nonce, &with_nonce_len, leaf_der, ca_der,
                                    bytes_of("0123456789abcdef", OCSP_NONCE_LEN), NULL),
                   STATUS_OK);
  assert_non_null(memmem(with_nonce, with_nonce_len, "0123456789abcdef", OCSP_NONCE_LEN));
  free(request);
  free(with_nonce);
  assert_int_equal(
      ocsp_request_new(&request, &len, bytes_text("x"), ca_der, (struct bytes){0}, NULL),
      STATUS_FORMAT);
  assert_null(request);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(allows_for_clocks_at_both_ends),
      cmocka_unit_test(refuses_what_is_older_than_what_it_knows),
      cmocka_unit_test(revoked_lasts_longer_than_the_answer),
      cmocka_unit_test(names_the_faults_of_form),
      cmocka_unit_test(asks_by_get_when_it_is_short),
      cmocka_unit_test(makes_a_request_that_fits_a_get),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
