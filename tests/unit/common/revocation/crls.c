// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/revocation/crls.h"

#include <openssl/asn1.h>
#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/obj.h>
#include <openssl/x509.h>
#include <time.h>

#define DAY_S ((int64_t)24 * 3600)
#define FIRST_OTHER 10000000L

static ASN1_TIME *time_new(int64_t at_s) {
  ASN1_TIME *at = ASN1_TIME_set(NULL, (time_t)at_s);
  CHECK(at != NULL);
  return at;
}

static void add_reason(X509_REVOKED *entry, int reason) {
  ASN1_ENUMERATED *value = ASN1_ENUMERATED_new();
  CHECK(value != NULL && ASN1_ENUMERATED_set(value, reason));
  CHECK(X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, value, 0, 0));
  ASN1_ENUMERATED_free(value);
}

static void add_critical(X509_REVOKED *entry, const char *oid) {
  static const uint8_t null[] = {0x05, 0x00};
  ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
  ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
  X509_EXTENSION *extension = NULL;

  CHECK(object != NULL && octets != NULL && ASN1_OCTET_STRING_set(octets, null, sizeof null));
  extension = X509_EXTENSION_create_by_OBJ(NULL, object, 1, octets);
  CHECK(extension != NULL && X509_REVOKED_add_ext(entry, extension, -1));
  X509_EXTENSION_free(extension);
  ASN1_OCTET_STRING_free(octets);
  ASN1_OBJECT_free(object);
}

static void add_entry(X509_CRL *crl, const struct test_crl *spec, long serial) {
  X509_REVOKED *entry = X509_REVOKED_new();
  ASN1_INTEGER *number = ASN1_INTEGER_new();
  ASN1_TIME *at = time_new((int64_t)time(NULL) - 2 * DAY_S);

  CHECK(entry != NULL && number != NULL && ASN1_INTEGER_set(number, serial));
  CHECK(X509_REVOKED_set_serialNumber(entry, number) && X509_REVOKED_set_revocationDate(entry, at));
  if (spec->reason != 0) {
    add_reason(entry, spec->reason);
  }
  if (spec->entry_oid != NULL) {
    add_critical(entry, spec->entry_oid);
  }
  CHECK(X509_CRL_add0_revoked(crl, entry));
  ASN1_INTEGER_free(number);
  ASN1_TIME_free(at);
}

struct bytes test_crl_new(const struct test_crl *spec, X509 *issuer, EVP_PKEY *issuer_key) {
  X509_CRL *crl = X509_CRL_new();
  const int64_t now_s = (int64_t)time(NULL);
  ASN1_TIME *begin = time_new(spec->this_update_s != 0 ? spec->this_update_s : now_s - 3600);
  ASN1_TIME *end = time_new(spec->next_update_s != 0 ? spec->next_update_s : now_s + DAY_S);
  uint8_t *der = NULL;
  int len = 0;

  CHECK(crl != NULL && X509_CRL_set_version(crl, X509_CRL_VERSION_2));
  CHECK(X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer)));
  CHECK(X509_CRL_set1_lastUpdate(crl, begin));
  CHECK(spec->has_no_next_update || X509_CRL_set1_nextUpdate(crl, end));
  for (size_t i = 0; i < spec->num_others; i++) {
    add_entry(crl, spec, FIRST_OTHER + (long)i);
  }
  for (size_t i = 0; i < TEST_CRL_MAX_SERIALS && spec->serials[i] != 0; i++) {
    add_entry(crl, spec, spec->serials[i]);
  }
  CHECK(X509_CRL_sign(crl, issuer_key, spec->is_sha1 ? EVP_sha1() : EVP_sha256()) > 0);
  len = i2d_X509_CRL(crl, &der);
  CHECK(len > 0);
  der[len - 1] ^= spec->is_signature_wrong ? 1 : 0;
  X509_CRL_free(crl);
  ASN1_TIME_free(begin);
  ASN1_TIME_free(end);
  return bytes_of(der, (size_t)len);
}
