// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/sources.h"

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

#include "tests/support/certs.h"

static struct leaf_sources read_of(const struct test_cert *spec, enum status expected) {
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  X509 *x509 = test_cert_new(spec, key, NULL, NULL);
  struct bytes der = test_cert_der(x509);
  struct leaf_sources sources;

  assert_int_equal(leaf_sources_read(&sources, der), expected);
  assert_int_equal(leaf_may_have_sources(der), spec->ocsp_url != NULL || spec->crl_url != NULL);
  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
  EVP_PKEY_free(key);
  return sources;
}

static void finds_responder_and_list(void **state) {
  (void)state;
  const uint8_t name[] = "\x86\x13http://c.test/1.crl";
  const uint8_t other[] = "\x86\x13http://c.test/2.crl";
  struct leaf_sources sources = read_of(&(struct test_cert){.cn = "a",
                                                            .ocsp_url = "http://o.test/x",
                                                            .crl_url = "http://c.test/1.crl",
                                                            .serial = 0x80},
                                        STATUS_OK);
  assert_string_equal(sources.ocsp_url, "http://o.test/x");
  assert_int_equal(sources.num_crl_urls, 1);
  assert_string_equal(sources.crl_urls[0], "http://c.test/1.crl");
  assert_true(leaf_sources_has_point(&sources, bytes_of(name, sizeof name - 1)));
  assert_false(leaf_sources_has_point(&sources, bytes_of(other, sizeof other - 1)));
  assert_false(leaf_sources_has_point(&sources, bytes_of(name, sizeof name - 2)));
  assert_int_equal(sources.serial_len, 2);  // positive: 00 80
  assert_memory_equal(sources.serial, "\x00\x80", 2);
  assert_false(sources.is_ca);
  leaf_sources_cleanup(&sources);
  // One of the two is enough.
  sources = read_of(&(struct test_cert){.cn = "a", .ocsp_url = "http://o.test/x"}, STATUS_OK);
  leaf_sources_cleanup(&sources);
  sources = read_of(&(struct test_cert){.cn = "a", .crl_url = "http://c.test/x"}, STATUS_OK);
  leaf_sources_cleanup(&sources);
}

static void passes_over_what_it_cannot_fetch(void **state) {
  (void)state;
  static const char *const urls[] = {"ldap://c.test/x",  "file:///etc/passwd", "http://",
                                     "http://a b.test/", "http://a\r\n.test/", "httpx://a.test"};
  for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
    struct leaf_sources sources =
        read_of(&(struct test_cert){.cn = "a", .ocsp_url = urls[i], .crl_url = urls[i]}, STATUS_OK);
    assert_null(sources.ocsp_url);
    assert_int_equal(sources.num_crl_urls, 0);
    leaf_sources_cleanup(&sources);
  }
  struct leaf_sources none = read_of(&(struct test_cert){.cn = "a", .is_ca = true}, STATUS_OK);
  assert_null(none.ocsp_url);
  assert_int_equal(none.num_crl_urls, 0);
  assert_true(none.is_ca);
  leaf_sources_cleanup(&none);
}

static void refuses_what_is_no_certificate(void **state) {
  (void)state;
  struct leaf_sources sources;
  assert_int_equal(leaf_sources_read(&sources, bytes_text("x")), STATUS_FORMAT);
  assert_int_equal(leaf_sources_read(&sources, (struct bytes){0}), STATUS_FORMAT);
  assert_false(leaf_may_have_sources((struct bytes){0}));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_responder_and_list),
      cmocka_unit_test(passes_over_what_it_cannot_fetch),
      cmocka_unit_test(refuses_what_is_no_certificate),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
