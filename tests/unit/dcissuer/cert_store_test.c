// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/cert_store.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/support/certs.h"

static EVP_PKEY *key;

static X509 *make(const char *names, long serial) {
  const struct test_cert spec = {.cn = "x",
                                 .names = names,
                                 .eku = "serverAuth",
                                 .has_delegation_usage = true,
                                 .serial = serial};
  return test_cert_new(&spec, key, NULL, NULL);
}

static struct certificate *parse(const char *names) {
  X509 *x509 = make(names, 1);
  struct bytes der = test_cert_der(x509);
  struct certificate *cert = NULL;
  struct errmsg err = {0};
  assert_int_equal(certificate_new(&cert, der, &err), STATUS_OK);
  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
  return cert;
}

static void knows_every_name(void **state) {
  struct certificate *cert = parse("DNS:B.test,DNS:*.a.test,IP:127.0.0.1,IP:::1");
  (void)state;
  assert_int_equal(cert->num_hosts, 4);
  assert_string_equal(cert->hosts[0], "b.test");
  assert_string_equal(cert->hosts[1], "*.a.test");
  assert_string_equal(cert->hosts[2], "127.0.0.1");
  assert_string_equal(cert->hosts[3], "::1");
  assert_false(cert->has_other_names);
  assert_string_equal(cert->algorithm->name, "ecdsa_secp256r1_sha256");
  certificate_unref(cert);
  cert = parse("URI:https://a.test/,DNS:a.test");
  assert_int_equal(cert->num_hosts, 1);
  assert_true(cert->has_other_names);
  certificate_unref(cert);
  cert = parse(NULL);
  assert_int_equal(cert->num_hosts, 0);
  certificate_unref(cert);
}

static void refuses_what_is_no_certificate(void **state) {
  X509 *x509 = make("DNS:a.test", 1);
  struct bytes der = test_cert_der(x509);
  static uint8_t long_one[CERT_MAX_LEN + 1];
  struct certificate *cert = NULL;
  (void)state;
  for (size_t len = 0; len < der.len; len += 7) {
    assert_int_equal(certificate_new(&cert, bytes_of(der.data, len), NULL), STATUS_FORMAT);
    assert_null(cert);
  }
  assert_int_equal(certificate_new(&cert, bytes_of(long_one, sizeof(long_one)), NULL),
                   STATUS_LIMIT);
  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
}

static void sets_find_by_hash(void **state) {
  struct cert_set *set = NULL;
  struct errmsg err = {0};
  char *paths[2];
  char folder[256];
  char single[256];
  X509 *certs[20];
  (void)state;
  (void)snprintf(folder, sizeof(folder), "%s", test_path("folder"));
  (void)snprintf(single, sizeof(single), "%s", test_path("single.any"));
  assert_int_equal(mkdir(folder, 0700), 0);
  for (int i = 0; i < 20; i++) {
    char name[64];
    certs[i] = make("DNS:a.test", i + 1);
    (void)snprintf(name, sizeof(name), i == 0 ? "single.any" : "folder/%d.%s", i,
                   i % 2 == 0 ? "pem" : "crt");
    test_write_certs(name, &certs[i], 1);
  }
  test_write_file("folder/ignored.txt", "x", 1, 0600);
  test_write_file("folder/.hidden.pem", "x", 1, 0600);
  paths[0] = single;
  paths[1] = folder;
  assert_int_equal(cert_set_load(&set, paths, 2, &err), STATUS_OK);
  assert_int_equal(cert_set_num(set), 20);
  for (int i = 0; i < 20; i++) {
    struct bytes der = test_cert_der(certs[i]);
    struct certificate *cert = NULL;
    struct certificate *found = NULL;
    assert_int_equal(certificate_new(&cert, der, NULL), STATUS_OK);
    found = cert_set_find(set, cert->info.sha256);
    assert_non_null(found);
    assert_int_equal(found->der_len, der.len);
    assert_memory_equal(found->der, der.data, der.len);
    cert->info.sha256[0] ^= 1;
    assert_null(cert_set_find(set, cert->info.sha256));
    certificate_unref(cert);
    OPENSSL_free((void *)(uintptr_t)der.data);
    X509_free(certs[i]);
  }
  cert_set_free(set);
  // One bad file spoils the set, and is named.
  test_write_file("folder/bad.pem", "x", 1, 0600);
  assert_int_not_equal(cert_set_load(&set, paths, 2, &err), STATUS_OK);
  assert_null(set);
  assert_non_null(strstr(err.text, "bad.pem"));
  paths[0] = single;
  (void)snprintf(single, sizeof(single), "%s", test_path("missing"));
  assert_int_equal(cert_set_load(&set, paths, 1, &err), STATUS_SYSTEM);
}

static void an_empty_set_finds_nothing(void **state) {
  struct cert_set *set = NULL;
  const uint8_t sha256[32] = {0};
  (void)state;
  assert_int_equal(cert_set_load(&set, NULL, 0, NULL), STATUS_OK);
  assert_null(cert_set_find(set, sha256));
  cert_set_free(set);
}

static struct certificate *get(struct cert_cache *cache, long serial) {
  X509 *x509 = make("DNS:a.test", serial);
  struct bytes der = test_cert_der(x509);
  struct certificate *cert = NULL;
  assert_int_equal(cert_cache_get(&cert, cache, der), STATUS_OK);
  assert_memory_equal(cert->der, der.data, der.len);
  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
  return cert;
}

static void the_cache_is_bounded(void **state) {
  struct cert_cache *cache = NULL;
  struct certificate *kept = NULL;
  X509 *x509 = make("DNS:a.test", 7777);
  struct bytes der = test_cert_der(x509);
  struct certificate *again = NULL;
  (void)state;
  assert_int_equal(cert_cache_new(&cache, 5), STATUS_OK);
  assert_int_equal(cert_cache_get(&kept, cache, der), STATUS_OK);
  (void)certificate_ref(kept);
  for (long i = 1; i <= 50; i++) {
    (void)get(cache, i);
    assert_true(cert_cache_num(cache) <= 5);
    // What is asked for stays.
    assert_int_equal(cert_cache_get(&again, cache, der), STATUS_OK);
    assert_ptr_equal(again, kept);
  }
  for (long i = 100; i < 105; i++) {
    (void)get(cache, i);
  }
  assert_int_equal(cert_cache_num(cache), 5);
  // It has gone from the cache, but not from those who hold it.
  assert_int_equal(kept->num_refs, 1);
  assert_int_equal(cert_cache_get(&again, cache, der), STATUS_OK);
  assert_ptr_not_equal(again, kept);
  cert_cache_free(cache);
  assert_memory_equal(kept->der, der.data, der.len);
  certificate_unref(kept);
  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
}

static void the_cache_keeps_no_faults(void **state) {
  struct cert_cache *cache = NULL;
  struct certificate *cert = NULL;
  (void)state;
  assert_int_equal(cert_cache_new(&cache, 5), STATUS_OK);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(cert_cache_get(&cert, cache, bytes_text("junk")), STATUS_FORMAT);
    assert_null(cert);
  }
  assert_int_equal(cert_cache_num(cache), 0);
  cert_cache_free(cache);
}

static int setup(void **state) {
  (void)state;
  key = test_key_new(KEY_KIND_P256);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  EVP_PKEY_free(key);
  test_remove_files();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(knows_every_name),     cmocka_unit_test(refuses_what_is_no_certificate),
      cmocka_unit_test(sets_find_by_hash),    cmocka_unit_test(an_empty_set_finds_nothing),
      cmocka_unit_test(the_cache_is_bounded), cmocka_unit_test(the_cache_keeps_no_faults),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
