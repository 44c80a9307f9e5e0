// SPDX-License-Identifier: Apache-2.0
// Lists by themselves; partitions, indirect and delta lists made by the openssl program
// are in tests/e2e/test_staples.py.
#include "common/revocation/crl.h"

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
#include "tests/unit/common/revocation/crls.h"

static EVP_PKEY *ca_key;
static X509 *ca;
static struct bytes ca_der;
static int64_t now_s;

static int set_up(void **state) {
  (void)state;
  now_s = clock_wall_s();
  ca_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(
      &(struct test_cert){.cn = "CA", .is_ca = true, .key_usage = "keyCertSign,cRLSign"}, ca_key,
      NULL, NULL);
  ca_der = test_cert_der(ca);
  return 0;
}

static void free_bytes(struct bytes in) { OPENSSL_free((void *)(uintptr_t)in.data); }

static int tear_down(void **state) {
  (void)state;
  free_bytes(ca_der);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  return 0;
}

static struct crl_query query(int64_t skew_s) {
  return (struct crl_query){.issuer = ca_der, .now_s = now_s, .skew_s = skew_s};
}

static enum crl_fault open_as(const struct test_crl *spec, const struct crl_query *asked) {
  struct crl crl;
  struct bytes list = test_crl_new(spec, ca, ca_key);
  enum crl_fault fault = crl_open(&crl, asked, list);
  free_bytes(list);
  return fault;
}

static bool has(const struct crl *crl, const void *serial, size_t len, struct crl_entry *entry) {
  bool is_found = false;
  assert_int_equal(crl_find(entry, &is_found, crl, bytes_of(serial, len)), CRL_NO_FAULT);
  return is_found;
}

static void finds_who_is_revoked(void **state) {
  (void)state;
  const struct crl_query asked = query(0);
  const struct leaf_sources none = {0};
  struct crl crl;
  struct crl_entry entry;
  struct bytes list =
      test_crl_new(&(struct test_crl){.serials = {5, 0x1234, 0x80}, .reason = 1}, ca, ca_key);

  assert_int_equal(crl_open(&crl, &asked, list), CRL_NO_FAULT);
  assert_int_equal(crl_covers(&crl, &none), CRL_NO_FAULT);  // the whole of the CA
  assert_true(has(&crl, "\x12\x34", 2, &entry));
  assert_int_equal(entry.reason, 1);
  assert_in_range(entry.revoked_s, now_s - 2 * 86400 - 100, now_s - 2 * 86400 + 100);
  assert_true(has(&crl, "\x05", 1, &entry));
  assert_true(has(&crl, "\x00\x80", 2, &entry));
  assert_false(has(&crl, "\x80", 1, &entry));  // a negative number is another one
  assert_false(has(&crl, "\x12\x35", 2, &entry));
  assert_false(has(&crl, "", 0, &entry));
  free_bytes(list);

  list = test_crl_new(&(struct test_crl){0}, ca, ca_key);
  assert_int_equal(crl_open(&crl, &asked, list), CRL_NO_FAULT);
  assert_false(has(&crl, "\x05", 1, &entry));
  free_bytes(list);
}

static void keeps_to_its_times(void **state) {
  (void)state;
  struct crl_query asked = query(0);
  const struct test_crl early = {.this_update_s = now_s + 50, .next_update_s = now_s + 500};
  const struct test_crl late = {.this_update_s = now_s - 500, .next_update_s = now_s - 50};

  assert_int_equal(open_as(&early, &asked), CRL_NOT_YET_VALID);
  assert_int_equal(open_as(&late, &asked), CRL_EXPIRED);
  assert_int_equal(open_as(&(struct test_crl){.has_no_next_update = true}, &asked), CRL_NO_END);
  // After 2049 a time has four digits of the year.
  assert_int_equal(open_as(&(struct test_crl){.next_update_s = 2600000000}, &asked), CRL_NO_FAULT);
  asked = query(60);
  assert_int_equal(open_as(&early, &asked), CRL_NO_FAULT);
  assert_int_equal(open_as(&late, &asked), CRL_NO_FAULT);
  asked.min_this_update = now_s - 499;
  assert_int_equal(open_as(&late, &asked), CRL_REPLAYED);
}

static void believes_the_issuer_only(void **state) {
  (void)state;
  struct crl_query asked = query(0);
  EVP_PKEY *other_key = test_key_new(KEY_KIND_P256);
  X509 *twin = test_cert_new(
      &(struct test_cert){.cn = "CA", .is_ca = true, .key_usage = "keyCertSign,cRLSign"}, other_key,
      NULL, NULL);
  X509 *unfit = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  X509 *other = test_cert_new(
      &(struct test_cert){.cn = "Other", .is_ca = true, .key_usage = "keyCertSign,cRLSign"}, ca_key,
      NULL, NULL);
  X509 *const issuers[] = {twin, unfit, other};
  const enum crl_fault expected[] = {CRL_BAD_SIGNATURE, CRL_ISSUER_UNFIT, CRL_OTHER_ISSUER};

  for (size_t i = 0; i < 3; i++) {
    asked.issuer = test_cert_der(issuers[i]);
    assert_int_equal(open_as(&(struct test_crl){0}, &asked), expected[i]);
    free_bytes(asked.issuer);
    X509_free(issuers[i]);
  }
  asked = query(0);
  assert_int_equal(open_as(&(struct test_crl){.is_signature_wrong = true}, &asked),
                   CRL_BAD_SIGNATURE);
  assert_int_equal(open_as(&(struct test_crl){.is_sha1 = true}, &asked), CRL_WEAK_ALGORITHM);
  asked.issuer = bytes_text("x");
  assert_int_equal(open_as(&(struct test_crl){0}, &asked), CRL_BAD_CERTIFICATE);
  EVP_PKEY_free(other_key);
}

static void knows_the_kinds_of_keys(void **state) {
  (void)state;
  EVP_PKEY *keys[] = {test_key_new(KEY_KIND_P384), test_rsa_key_new(2048)};
  for (size_t i = 0; i < 2; i++) {
    X509 *issuer = test_cert_new(
        &(struct test_cert){.cn = "CA", .is_ca = true, .key_usage = "keyCertSign,cRLSign"}, keys[i],
        NULL, NULL);
    struct bytes list = test_crl_new(&(struct test_crl){.serials = {7}}, issuer, keys[i]);
    struct crl_query asked = query(0);
    struct crl crl;
    asked.issuer = test_cert_der(issuer);
    assert_int_equal(crl_open(&crl, &asked, list), CRL_NO_FAULT);
    free_bytes(asked.issuer);
    free_bytes(list);
    X509_free(issuer);
    EVP_PKEY_free(keys[i]);
  }
}

static void one_unknown_critical_entry_spoils_the_list(void **state) {
  (void)state;
  static const struct {
    const char *oid;
    enum crl_fault fault;
  } rows[] = {{"1.2.3.4", CRL_UNKNOWN_CRITICAL}, {"2.5.29.29", CRL_INDIRECT}};
  const struct crl_query asked = query(0);
  for (size_t i = 0; i < 2; i++) {
    struct crl crl;
    struct crl_entry entry;
    bool is_found = true;
    struct bytes list =
        test_crl_new(&(struct test_crl){.serials = {7, 8}, .entry_oid = rows[i].oid}, ca, ca_key);
    assert_int_equal(crl_open(&crl, &asked, list), CRL_NO_FAULT);
    assert_int_equal(crl_find(&entry, &is_found, &crl, bytes_of("\x07", 1)), rows[i].fault);
    assert_false(is_found);
    free_bytes(list);
  }
}

static void refuses_garbage_and_every_cut(void **state) {
  (void)state;
  const struct crl_query asked = query(0);
  struct crl crl;
  struct bytes list = test_crl_new(&(struct test_crl){.serials = {5}, .reason = 1}, ca, ca_key);
  uint8_t *copy = bytes_copy(list);

  for (size_t len = 0; len < list.len; len++) {
    assert_int_not_equal(crl_open(&crl, &asked, bytes_of(list.data, len)), CRL_NO_FAULT);
  }
  for (size_t i = 0; i < list.len; i++) {  // all of it is signed, or the signature
    copy[i] ^= 0x55;
    assert_int_not_equal(crl_open(&crl, &asked, bytes_of(copy, list.len)), CRL_NO_FAULT);
    copy[i] ^= 0x55;
  }
  free(copy);
  free_bytes(list);
}

static void reads_a_long_list_where_it_lies(void **state) {
  (void)state;
  const struct crl_query asked = query(0);
  struct crl crl;
  struct crl_entry entry;
  struct bytes list =
      test_crl_new(&(struct test_crl){.serials = {5}, .num_others = 50000}, ca, ca_key);
  assert_true(list.len > 1000000);
  assert_int_equal(crl_open(&crl, &asked, list), CRL_NO_FAULT);
  assert_true(has(&crl, "\x05", 1, &entry));
  assert_true(entry.serial.data > list.data && entry.serial.data < list.data + list.len);
  free_bytes(list);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_who_is_revoked),
      cmocka_unit_test(keeps_to_its_times),
      cmocka_unit_test(believes_the_issuer_only),
      cmocka_unit_test(knows_the_kinds_of_keys),
      cmocka_unit_test(one_unknown_critical_entry_spoils_the_list),
      cmocka_unit_test(refuses_garbage_and_every_cut),
      cmocka_unit_test(reads_a_long_list_where_it_lies),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
