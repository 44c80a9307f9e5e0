// SPDX-License-Identifier: Apache-2.0
#include "bench/fake_ca.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "certstore/staple.h"
#include "common/tls/cert.h"
#include "common/wire/cert_der.h"

#define NOW_S ((int64_t)1790000000)
#define DAY_S ((int64_t)86400)

static struct fake_ca ca;
static struct errmsg err;

static int make_ca(void **state) {
  (void)state;
  return fake_ca_init(&ca, "seed", "primary", NOW_S / DAY_S * DAY_S, &err) == STATUS_OK ? 0 : -1;
}

static int free_ca(void **state) {
  (void)state;
  fake_ca_cleanup(&ca);
  return 0;
}

struct leaf {
  uint8_t der[FAKE_CA_CERT_LEN];
  size_t len;
};

static struct bytes make(struct leaf *leaf, uint64_t index) {
  EC_KEY *key = fake_ca_leaf_key(&ca, index);
  assert_non_null(key);
  assert_true(fake_ca_leaf(&ca, leaf->der, &leaf->len, "n7.bench.test", key, index));
  EC_KEY_free(key);
  return bytes_of(leaf->der, leaf->len);
}

static struct bytes issuer(void) { return bytes_of(ca.issuer_cert, ca.issuer_cert_len); }

static void leaf_is_what_a_store_takes(void **state) {
  (void)state;
  struct leaf leaf;
  struct cert_der cert;
  struct cert_der by;
  for (int i = 0; i < 2; i++) {
    ca.is_public = i == 1;
    assert_int_equal(cert_der_parse(&cert, make(&leaf, 7)), STATUS_OK);
    assert_int_equal(cert_der_parse(&by, issuer()), STATUS_OK);
    assert_true(cert_der_is_issued_by(&cert, &by));
    assert_true(cert_der_covers(&cert, "n7.bench.test"));
    assert_true(cert.has_delegation_usage && cert.has_digital_signature && !cert.is_must_staple);
    struct cert_info info = {0};
    assert_int_equal(cert_info_read(&info, bytes_of(leaf.der, leaf.len), &err), STATUS_OK);
    assert_string_equal(info.issuer, "Bench CA primary");
    cert_info_cleanup(&info);
  }
  assert_true(leaf.len > 850);  // as public CAs' are
}

static void same_seed_same_bytes(void **state) {
  (void)state;
  struct leaf one;
  struct leaf two;
  struct leaf other;
  struct bytes first = make(&one, 7);
  fake_ca_cleanup(&ca);
  assert_int_equal(make_ca(NULL), 0);
  assert_true(bytes_equal(first, make(&two, 7)));
  assert_false(bytes_equal(first, make(&other, 8)));
}

// read_serial: version [0], then the serial number.
static struct bytes serial_of(struct bytes der) {
  CBS in;
  CBS certificate;
  CBS tbs;
  CBS serial;
  CBS_init(&in, der.data, der.len);
  assert_true(CBS_get_asn1(&in, &certificate, CBS_ASN1_SEQUENCE) &&
              CBS_get_asn1(&certificate, &tbs, CBS_ASN1_SEQUENCE) &&
              CBS_get_asn1(&tbs, NULL, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
              CBS_get_asn1(&tbs, &serial, CBS_ASN1_INTEGER));
  return bytes_of(CBS_data(&serial), CBS_len(&serial));
}

static void staple_passes_the_stores_checks(void **state) {
  (void)state;
  struct leaf leaf;
  struct leaf other;
  struct staple_facts facts = {0};
  uint8_t response[FAKE_CA_STAPLE_LEN];
  size_t len = 0;
  struct bytes der = make(&leaf, 7);
  const struct fake_staple staple = {.serial = serial_of(der),
                                     .index = 1,
                                     .this_update_s = NOW_S,
                                     .next_update_s = NOW_S + 7 * DAY_S};
  assert_true(fake_ca_staple(&ca, response, &len, &staple));
  struct bytes made = bytes_of(response, len);
  if (staple_check(&facts, made, der, issuer(), NOW_S + 1, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_true(facts.is_signature_checked);
  assert_int_equal(facts.next_update_s, NOW_S + 7 * DAY_S);
  assert_int_equal(staple_check(&facts, made, make(&other, 8), issuer(), NOW_S + 1, &err),
                   STATUS_FORMAT);
  response[len - 1] ^= 1;
  assert_int_equal(staple_check(&facts, made, der, issuer(), NOW_S + 1, &err), STATUS_CRYPTO);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(leaf_is_what_a_store_takes, make_ca, free_ca),
      cmocka_unit_test_setup_teardown(same_seed_same_bytes, make_ca, free_ca),
      cmocka_unit_test_setup_teardown(staple_passes_the_stores_checks, make_ca, free_ca),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
