// SPDX-License-Identifier: Apache-2.0
#include "common/wire/cert_der.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/tls/cert.h"
#include "tests/support/certs.h"

static EVP_PKEY *key;
static X509 *ca;
static EVP_PKEY *ca_key;

static int make_ca(void **state) {
  (void)state;
  key = test_key_new(KEY_KIND_P256);
  ca_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "Test CA", .is_ca = true}, ca_key, NULL, NULL);
  return 0;
}

static int free_ca(void **state) {
  (void)state;
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  return 0;
}

static struct bytes make(const struct test_cert *spec) {
  X509 *x509 = test_cert_new(spec, key, ca, ca_key);
  struct bytes der = test_cert_der(x509);
  X509_free(x509);
  return der;
}

static void finds_what_boringssl_finds(void **state) {
  (void)state;
  struct cert_der cert;
  struct cert_info info;
  uint8_t id[32];
  struct bytes der = make(&(struct test_cert){.cn = "a",
                                              .names = "DNS:A.test,URI:x://y,DNS:*.b.test",
                                              .has_delegation_usage = true,
                                              .is_must_staple = true,
                                              .not_before_s = 951782400,    // 2000-02-29
                                              .not_after_s = 4107542399});  // 2100-02-28
  assert_int_equal(cert_der_parse(&cert, der), STATUS_OK);
  assert_int_equal(cert_info_read(&info, der, NULL), STATUS_OK);
  assert_true(cert.not_before_s == 951782400 && cert.not_after_s == 4107542399);
  assert_true(cert.not_before_s == info.not_before_s && cert.not_after_s == info.not_after_s);
  assert_int_equal(cert.kind, KEY_KIND_P256);
  assert_true(cert.has_delegation_usage && cert.has_digital_signature && cert.is_must_staple);
  assert_false(cert.is_ca);
  cert_der_key_id(id, &cert);
  assert_memory_equal(id, info.key_id, 32);
  cert_der_ca_id(id, &cert);
  assert_memory_equal(id, info.ca_id, 32);
  cert_der_ski(id, &cert);
  assert_memory_equal(id, info.ski, 20);
  assert_true(cert_der_covers(&cert, "a.test") && cert_der_covers(&cert, "x.b.test") &&
              cert_der_covers(&cert, "*.b.test"));
  assert_false(cert_der_covers(&cert, "b.test") || cert_der_covers(&cert, "x.y.b.test") ||
               cert_der_covers(&cert, "*.a.test") || cert_der_covers(&cert, ".b.test"));
  cert_info_cleanup(&info);
  OPENSSL_free((void *)(uintptr_t)der.data);
}

static void refuses_what_is_cut_or_has_more(void **state) {
  (void)state;
  struct cert_der cert;
  size_t len = 0;
  struct bytes der = make(&(struct test_cert){.cn = "a", .names = "DNS:a.test"});
  for (size_t i = 0; i < der.len; i++) {
    assert_int_equal(cert_der_parse(&cert, bytes_of(der.data, i)), STATUS_FORMAT);
    enum status st = cert_der_measure(&len, bytes_of(der.data, i));
    assert_true(i < 4 ? st == STATUS_AGAIN : st == STATUS_OK && len == der.len);
  }
  assert_int_equal(cert_der_measure(&len, bytes_text("MIIB")), STATUS_FORMAT);
  assert_int_equal(cert_der_measure(&len, bytes_of("\x30\x82\xff\xff", 4)), STATUS_LIMIT);
  OPENSSL_free((void *)(uintptr_t)der.data);
}

static void tells_who_issued(void **state) {
  (void)state;
  struct cert_der leaf;
  struct cert_der issuer;
  struct cert_der other;
  struct bytes der = make(&(struct test_cert){.cn = "a", .names = "DNS:a.test"});
  struct bytes ca_der = test_cert_der(ca);
  // The same name, another key.
  X509 *twin = test_cert_new(&(struct test_cert){.cn = "Test CA", .is_ca = true}, key, NULL, NULL);
  struct bytes twin_der = test_cert_der(twin);
  assert_int_equal(cert_der_parse(&leaf, der), STATUS_OK);
  assert_int_equal(cert_der_parse(&issuer, ca_der), STATUS_OK);
  assert_int_equal(cert_der_parse(&other, twin_der), STATUS_OK);
  assert_true(issuer.is_ca);
  assert_true(cert_der_is_issued_by(&leaf, &issuer));
  assert_false(cert_der_is_issued_by(&issuer, &leaf));
  if (leaf.aki.len > 0 && other.ski.len > 0) {
    assert_false(cert_der_is_issued_by(&leaf, &other));
  }
  X509_free(twin);
  OPENSSL_free((void *)(uintptr_t)twin_der.data);
  OPENSSL_free((void *)(uintptr_t)ca_der.data);
  OPENSSL_free((void *)(uintptr_t)der.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_what_boringssl_finds),
      cmocka_unit_test(refuses_what_is_cut_or_has_more),
      cmocka_unit_test(tells_who_issued),
  };
  return cmocka_run_group_tests(tests, make_ca, free_ca);
}
