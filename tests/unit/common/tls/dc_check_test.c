// SPDX-License-Identifier: Apache-2.0
#include "common/tls/dc_check.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/support/certs.h"
#include "tests/unit/common/wire/vectors.h"

#define DAY_S (24 * 3600)

// --- the vectors, with the clock put where it belongs ---------------------------

struct vector {
  uint8_t der[VECTOR_CERT_MAX_LEN];
  struct bytes leaf;
  struct cert_info info;
  uint8_t dc[DC_MAX_LEN];
  size_t dc_len;
};

static void vector_init(struct vector *v, size_t leaf, const char *credential) {
  v->leaf = bytes_of(v->der, vector_certificate(v->der, &vector_dcs[leaf]));
  assert_int_equal(cert_info_read(&v->info, v->leaf, NULL), STATUS_OK);
  v->dc_len = vector_unhex(v->dc, sizeof v->dc, credential);
}

static void assert_vector_fault(struct vector *v, enum dc_fault expected, int64_t now_s,
                                int64_t margin_s) {
  struct dc dc;
  enum dc_fault fault = DC_FAULT_NUM;
  enum status st =
      dc_check(&dc, &fault, bytes_of(v->dc, v->dc_len), v->leaf, &v->info, NULL, now_s, margin_s);

  assert_string_equal(dc_fault_name(fault), dc_fault_name(expected));
  assert_int_equal(st == STATUS_OK, expected == DC_FAULT_NONE);
  assert_int_equal(ERR_peek_error(), 0);
}

static void passes_the_vectors(void **state) {
  struct vector v;
  (void)state;

  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    vector_init(&v, i, vector_dcs[i].credential);
    assert_vector_fault(&v, DC_FAULT_NONE, VECTOR_EXPIRY_S - DAY_S, 0);
    cert_info_cleanup(&v.info);
  }
}

static void fills_the_fields(void **state) {
  struct vector v;
  struct dc dc;
  enum dc_fault fault;
  (void)state;

  vector_init(&v, VECTOR_DC_P256, vector_dcs[VECTOR_DC_P256].credential);
  assert_int_equal(dc_check(&dc, &fault, bytes_of(v.dc, v.dc_len), v.leaf, &v.info, NULL,
                            VECTOR_EXPIRY_S - DAY_S, 0),
                   STATUS_OK);
  assert_int_equal(dc.valid_time_s, 2332800);
  assert_int_equal(dc.verify_scheme, 0x0403);
  assert_int_equal(dc_expiry_s(&dc, v.info.not_before_s), VECTOR_EXPIRY_S);
  cert_info_cleanup(&v.info);
}

static void keeps_to_the_window_and_the_margin(void **state) {
  struct vector v;
  (void)state;

  vector_init(&v, VECTOR_DC_P256, vector_dcs[VECTOR_DC_P256].credential);
  assert_vector_fault(&v, DC_FAULT_NONE, VECTOR_EXPIRY_S, 0);
  assert_vector_fault(&v, DC_FAULT_EXPIRED, VECTOR_EXPIRY_S + 1, 0);
  assert_vector_fault(&v, DC_FAULT_NONE, VECTOR_EXPIRY_S - 3600, 3600);
  assert_vector_fault(&v, DC_FAULT_EXPIRED, VECTOR_EXPIRY_S - 3599, 3600);
  assert_vector_fault(&v, DC_FAULT_NONE, VECTOR_EXPIRY_S - 7 * DAY_S, 0);
  assert_vector_fault(&v, DC_FAULT_TOO_LONG, VECTOR_EXPIRY_S - 7 * DAY_S - 1, 0);
  cert_info_cleanup(&v.info);
}

static void refuses_the_client_context(void **state) {
  struct vector v;
  (void)state;

  vector_init(&v, VECTOR_DC_P256, VECTOR_DC_CLIENT);
  assert_vector_fault(&v, DC_FAULT_SIGNATURE, VECTOR_EXPIRY_S - DAY_S, 0);
  cert_info_cleanup(&v.info);
}

static void refuses_the_vector_under_another_leaf(void **state) {
  struct vector v;
  (void)state;

  vector_init(&v, VECTOR_DC_P384, vector_dcs[VECTOR_DC_P256].credential);
  assert_vector_fault(&v, DC_FAULT_ALGORITHM, VECTOR_EXPIRY_S - DAY_S, 0);
  cert_info_cleanup(&v.info);
}

// Each single flipped bit, each cut and one byte more, is refused by something.
static void refuses_every_altered_vector(void **state) {
  struct vector v;
  struct dc dc;
  enum dc_fault fault;
  (void)state;

  vector_init(&v, VECTOR_DC_P256, vector_dcs[VECTOR_DC_P256].credential);
  for (size_t i = 0; i < v.dc_len; i++) {
    v.dc[i] ^= 1;
    assert_int_not_equal(dc_check(&dc, &fault, bytes_of(v.dc, v.dc_len), v.leaf, &v.info, NULL,
                                  VECTOR_EXPIRY_S - DAY_S, 0),
                         STATUS_OK);
    assert_int_not_equal(fault, DC_FAULT_NONE);
    v.dc[i] ^= 1;
  }
  for (size_t len = 0; len < v.dc_len; len++) {
    assert_int_equal(dc_check(&dc, &fault, bytes_of(v.dc, len), v.leaf, &v.info, NULL,
                              VECTOR_EXPIRY_S - DAY_S, 0),
                     STATUS_FORMAT);
  }
  v.dc[v.dc_len] = 0;
  v.dc_len++;
  assert_vector_fault(&v, DC_FAULT_FORMAT, VECTOR_EXPIRY_S - DAY_S, 0);
  cert_info_cleanup(&v.info);
}

// --- made here ------------------------------------------------------------------

static EVP_PKEY *ca_key, *leaf_key, *dc_key;
static X509 *ca;
static int64_t now_s;

struct made {
  X509 *leaf;
  struct bytes der;
  struct cert_info info;
};

static void made_init(struct made *m, const struct test_cert *spec, EVP_PKEY *key) {
  m->leaf = test_cert_new(spec, key, ca, ca_key);
  m->der = test_cert_der(m->leaf);
  assert_int_equal(cert_info_read(&m->info, m->der, NULL), STATUS_OK);
}

static void made_cleanup(struct made *m) {
  X509_free(m->leaf);
  OPENSSL_free((void *)(uintptr_t)m->der.data);
  cert_info_cleanup(&m->info);
}

static enum dc_fault fault_of(const struct made *m, struct bytes dc_bytes, EVP_PKEY *key) {
  struct dc dc;
  enum dc_fault fault = DC_FAULT_NUM;
  enum status st = dc_check(&dc, &fault, dc_bytes, m->der, &m->info, key, now_s, 0);

  assert_int_equal(st == STATUS_OK, fault == DC_FAULT_NONE);
  assert_int_equal(st == STATUS_EXPIRED, fault == DC_FAULT_EXPIRED);
  assert_int_equal(st == STATUS_CRYPTO, fault == DC_FAULT_SIGNATURE || fault == DC_FAULT_KEY);
  assert_int_equal(ERR_peek_error(), 0);
  free((void *)(uintptr_t)dc_bytes.data);
  return fault;
}

static const struct test_cert good_leaf = {
    .cn = "x", .names = "DNS:x.test", .has_delegation_usage = true};

static void passes_each_kind_of_key(void **state) {
  static const enum key_kind kinds[] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521,
                                        KEY_KIND_ED25519};
  (void)state;

  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    EVP_PKEY *key = test_key_new(kinds[i]);
    struct made m;

    made_init(&m, &good_leaf, key);
    assert_int_equal(fault_of(&m, test_dc_new(m.leaf, key, dc_key, now_s + DAY_S, 0), dc_key),
                     DC_FAULT_NONE);
    made_cleanup(&m);
    made_init(&m, &good_leaf, leaf_key);
    assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, key, now_s + DAY_S, 0), key),
                     DC_FAULT_NONE);
    made_cleanup(&m);
    EVP_PKEY_free(key);
  }
}

static void refuses_leaves_that_may_not_delegate(void **state) {
  static const struct test_cert leaves[] = {
      {.cn = "x"},
      {.cn = "x", .has_delegation_usage = true, .key_usage = ""},
      {.cn = "x", .has_delegation_usage = true, .key_usage = "keyAgreement"},
  };
  (void)state;

  for (size_t i = 0; i < sizeof leaves / sizeof leaves[0]; i++) {
    struct made m;

    made_init(&m, &leaves[i], leaf_key);
    assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S, 0), NULL),
                     DC_FAULT_CERTIFICATE);
    made_cleanup(&m);
  }
}

static void refuses_times_that_do_not_fit(void **state) {
  const struct test_cert short_leaf = {
      .cn = "x", .has_delegation_usage = true, .not_after_s = now_s + DAY_S};
  struct made m;
  (void)state;

  made_init(&m, &short_leaf, leaf_key);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S, 0), NULL),
                   DC_FAULT_PAST_CERTIFICATE);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S - 1, 0), NULL),
                   DC_FAULT_NONE);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s - 1, 0), NULL),
                   DC_FAULT_EXPIRED);
  assert_int_equal(
      fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + 7 * DAY_S + 1, 0), NULL),
      DC_FAULT_TOO_LONG);
  made_cleanup(&m);
}

static void refuses_rsa_keys_in_a_dc(void **state) {
  EVP_PKEY *rsa = test_key_new(KEY_KIND_RSA);
  struct made m;
  (void)state;

  made_init(&m, &good_leaf, leaf_key);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, rsa, now_s + DAY_S, 0), NULL),
                   DC_FAULT_SCHEME);
  made_cleanup(&m);
  EVP_PKEY_free(rsa);
}

// The scheme says P-384 while the key is of P-256: nobody could verify with it.
static void refuses_a_scheme_of_another_curve(void **state) {
  struct made m;
  struct bytes dc;
  uint8_t *bytes;
  (void)state;

  made_init(&m, &good_leaf, leaf_key);
  dc = test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S, 0);
  bytes = (uint8_t *)(uintptr_t)dc.data;
  bytes[4] = 0x05;  // 0403 -> 0503
  assert_int_equal(fault_of(&m, dc, NULL), DC_FAULT_SCHEME);
  made_cleanup(&m);
}

static void refuses_pkcs1_as_delegation_algorithm(void **state) {
  EVP_PKEY *rsa = test_key_new(KEY_KIND_RSA);
  struct made m;
  (void)state;

  made_init(&m, &good_leaf, rsa);
  assert_int_equal(
      fault_of(&m, test_dc_new(m.leaf, rsa, dc_key, now_s + DAY_S, SSL_SIGN_RSA_PKCS1_SHA256),
               NULL),
      DC_FAULT_ALGORITHM);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, rsa, dc_key, now_s + DAY_S, 0), NULL),
                   DC_FAULT_NONE);
  made_cleanup(&m);
  EVP_PKEY_free(rsa);
}

static void refuses_a_signature_of_another_key(void **state) {
  struct made m;
  (void)state;

  made_init(&m, &good_leaf, leaf_key);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, ca_key, dc_key, now_s + DAY_S, 0), dc_key),
                   DC_FAULT_SIGNATURE);
  made_cleanup(&m);
}

static void refuses_a_private_key_that_does_not_belong(void **state) {
  EVP_PKEY *p384 = test_key_new(KEY_KIND_P384);
  struct made m;
  (void)state;

  made_init(&m, &good_leaf, leaf_key);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S, 0), ca_key),
                   DC_FAULT_KEY);
  assert_int_equal(fault_of(&m, test_dc_new(m.leaf, leaf_key, dc_key, now_s + DAY_S, 0), p384),
                   DC_FAULT_KEY);
  made_cleanup(&m);
  EVP_PKEY_free(p384);
}

static void refuses_the_certificates_own_key(void **state) {
  struct made m;
  (void)state;

  made_init(&m, &good_leaf, leaf_key);
  assert_int_equal(
      fault_of(&m, test_dc_new(m.leaf, leaf_key, leaf_key, now_s + DAY_S, 0), leaf_key),
      DC_FAULT_OWN_KEY_IN_LEAF);
  made_cleanup(&m);
}

static void names_every_fault(void **state) {
  (void)state;
  for (int i = 0; i < DC_FAULT_NUM; i++) {
    assert_string_not_equal(dc_fault_name((enum dc_fault)i), "unknown");
  }
  assert_string_equal(dc_fault_name(DC_FAULT_NUM), "unknown");
}

static int make_keys(void **state) {
  (void)state;
  now_s = (int64_t)time(NULL);
  ca_key = test_key_new(KEY_KIND_P256);
  leaf_key = test_key_new(KEY_KIND_P256);
  dc_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  return 0;
}

static int free_keys(void **state) {
  (void)state;
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(leaf_key);
  EVP_PKEY_free(dc_key);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(passes_the_vectors),
      cmocka_unit_test(fills_the_fields),
      cmocka_unit_test(keeps_to_the_window_and_the_margin),
      cmocka_unit_test(refuses_the_client_context),
      cmocka_unit_test(refuses_the_vector_under_another_leaf),
      cmocka_unit_test(refuses_every_altered_vector),
      cmocka_unit_test(passes_each_kind_of_key),
      cmocka_unit_test(refuses_leaves_that_may_not_delegate),
      cmocka_unit_test(refuses_times_that_do_not_fit),
      cmocka_unit_test(refuses_rsa_keys_in_a_dc),
      cmocka_unit_test(refuses_a_scheme_of_another_curve),
      cmocka_unit_test(refuses_pkcs1_as_delegation_algorithm),
      cmocka_unit_test(refuses_a_signature_of_another_key),
      cmocka_unit_test(refuses_a_private_key_that_does_not_belong),
      cmocka_unit_test(refuses_the_certificates_own_key),
      cmocka_unit_test(names_every_fault),
  };
  return cmocka_run_group_tests(tests, make_keys, free_keys);
}
