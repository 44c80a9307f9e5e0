// SPDX-License-Identifier: Apache-2.0
#include "tests/support/ocsp.h"

#include <openssl/asn1.h>
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_S ((int64_t)24 * 3600)

static const uint8_t oid_sha1[] = {0x2b, 0x0e, 0x03, 0x02, 0x1a};
static const uint8_t oid_sha256[] = {0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
static const uint8_t oid_ecdsa_sha256[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const uint8_t oid_basic[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01};

static void add(CBB *cbb, unsigned tag, const void *data, size_t len) {
  CBB child;
  CHECK(CBB_add_asn1(cbb, &child, tag) && CBB_add_bytes(&child, data, len) && CBB_flush(cbb));
}

static void open_as(CBB *cbb, CBB *child, unsigned tag) { CHECK(CBB_add_asn1(cbb, child, tag)); }

static void add_time(CBB *cbb, int64_t at_s) {
  time_t at = (time_t)at_s;
  struct tm tm;
  char text[64];
  CHECK(gmtime_r(&at, &tm) != NULL);
  CHECK(strftime(text, sizeof(text), "%Y%m%d%H%M%SZ", &tm) == 15);
  add(cbb, CBS_ASN1_GENERALIZEDTIME, text, 15);
}

static void add_digest(CBB *cbb, bool is_sha256, const void *data, size_t len) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned digest_len = 0;
  CHECK(EVP_Digest(data, len, digest, &digest_len, is_sha256 ? EVP_sha256() : EVP_sha1(), NULL));
  add(cbb, CBS_ASN1_OCTETSTRING, digest, digest_len);
}

static void add_cert_id(CBB *cbb, const struct test_ocsp *spec, X509 *leaf, X509 *issuer,
                        bool is_other) {
  CBB id;
  CBB algorithm;
  uint8_t *name = NULL;
  uint8_t *serial = NULL;
  int name_len = i2d_X509_NAME(X509_get_subject_name(issuer), &name);
  int serial_len = i2d_ASN1_INTEGER(X509_get_serialNumber(leaf), &serial);
  ASN1_BIT_STRING *bits = X509_get0_pubkey_bitstr(issuer);
  size_t bits_len = (size_t)ASN1_STRING_length(bits);

  CHECK(name_len > 0 && serial_len > 2 && bits != NULL);
  if (is_other) {
    serial[serial_len - 1] ^= 1;
  }
  open_as(cbb, &id, CBS_ASN1_SEQUENCE);
  open_as(&id, &algorithm, CBS_ASN1_SEQUENCE);
  add(&algorithm, CBS_ASN1_OBJECT, spec->is_sha256 ? oid_sha256 : oid_sha1,
      spec->is_sha256 ? sizeof(oid_sha256) : sizeof(oid_sha1));
  add(&algorithm, CBS_ASN1_NULL, "", 0);
  add_digest(&id, spec->is_sha256, name, (size_t)name_len);
  add_digest(&id, spec->is_sha256, ASN1_STRING_get0_data(bits),
             spec->is_key_hash_wrong ? bits_len - 1 : bits_len);
  CHECK(CBB_add_bytes(&id, serial, (size_t)serial_len) && CBB_flush(cbb));
  OPENSSL_free(name);
  OPENSSL_free(serial);
}

static void add_single(CBB *cbb, const struct test_ocsp *spec, X509 *leaf, X509 *issuer,
                       bool is_other) {
  CBB single;
  CBB child;
  int64_t now_s = (int64_t)time(NULL);
  open_as(cbb, &single, CBS_ASN1_SEQUENCE);
  add_cert_id(&single, spec, leaf, issuer, is_other);
  switch (spec->status) {
    case TEST_OCSP_GOOD:
      add(&single, CBS_ASN1_CONTEXT_SPECIFIC | 0, "", 0);
      break;
    case TEST_OCSP_REVOKED:
      open_as(&single, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 1);
      add_time(&child, now_s - DAY_S);
      break;
    case TEST_OCSP_UNKNOWN:
      add(&single, CBS_ASN1_CONTEXT_SPECIFIC | 2, "", 0);
      break;
  }
  add_time(&single, spec->this_update_s != 0 ? spec->this_update_s : now_s - 3600);
  if (!spec->has_no_next_update) {
    open_as(&single, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0);
    add_time(&child, spec->next_update_s != 0 ? spec->next_update_s : now_s + 4 * DAY_S);
  }
  CHECK(CBB_flush(cbb));
}

// response_data returns new DER of the ResponseData, which is what is signed.
static void response_data(uint8_t **out, size_t *out_len, const struct test_ocsp *spec, X509 *leaf,
                          X509 *issuer, X509 *signer) {
  CBB cbb;
  CBB data;
  CBB child;
  uint8_t *name = NULL;
  X509 *responder = signer != NULL ? signer : issuer;
  int name_len = i2d_X509_NAME(X509_get_subject_name(responder), &name);

  CHECK(name_len > 0 && CBB_init(&cbb, 512));
  open_as(&cbb, &data, CBS_ASN1_SEQUENCE);
  add(&data, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 1, name, (size_t)name_len);
  add_time(&data, (int64_t)time(NULL) - 3600);
  open_as(&data, &child, CBS_ASN1_SEQUENCE);
  if (spec->is_preceded_by_other) {
    add_single(&child, spec, leaf, issuer, true);
  }
  add_single(&child, spec, leaf, issuer, false);
  CHECK(CBB_finish(&cbb, out, out_len));
  OPENSSL_free(name);
}

// basic_response returns new DER of the BasicOCSPResponse.
static void basic_response(uint8_t **out, size_t *out_len, const struct test_ocsp *spec, X509 *leaf,
                           X509 *issuer, X509 *signer, EVP_PKEY *signer_key) {
  CBB cbb;
  CBB basic;
  CBB child;
  CBB inner;
  EVP_MD_CTX *md = EVP_MD_CTX_new();
  uint8_t *data = NULL;
  size_t data_len = 0;
  uint8_t signature[256];
  size_t signature_len = sizeof(signature);
  uint8_t *cert = NULL;

  response_data(&data, &data_len, spec, leaf, issuer, signer);
  CHECK(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, signer_key));
  CHECK(EVP_DigestSign(md, signature, &signature_len, data, data_len));
  signature[signature_len - 1] ^= spec->is_signature_wrong ? 1 : 0;
  CHECK(CBB_init(&cbb, 1024));
  open_as(&cbb, &basic, CBS_ASN1_SEQUENCE);
  CHECK(CBB_add_bytes(&basic, data, data_len));
  open_as(&basic, &child, CBS_ASN1_SEQUENCE);
  add(&child, CBS_ASN1_OBJECT, oid_ecdsa_sha256, sizeof(oid_ecdsa_sha256));
  open_as(&basic, &child, CBS_ASN1_BITSTRING);
  CHECK(CBB_add_u8(&child, 0) && CBB_add_bytes(&child, signature, signature_len));
  if (signer != NULL) {
    int cert_len = i2d_X509(signer, &cert);
    open_as(&basic, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0);
    open_as(&child, &inner, CBS_ASN1_SEQUENCE);
    CHECK(cert_len > 0 && CBB_add_bytes(&inner, cert, (size_t)cert_len));
  }
  CHECK(CBB_finish(&cbb, out, out_len));
  OPENSSL_free(cert);
  OPENSSL_free(data);
  EVP_MD_CTX_free(md);
}

struct bytes test_ocsp_new(const struct test_ocsp *spec, X509 *leaf, X509 *issuer, X509 *signer,
                           EVP_PKEY *signer_key) {
  CBB cbb;
  CBB response;
  CBB child;
  CBB bytes;
  uint8_t *basic = NULL;
  size_t basic_len = 0;
  uint8_t *out = NULL;
  size_t out_len = 0;
  uint8_t status = (uint8_t)spec->error;

  CHECK(CBB_init(&cbb, 1024));
  open_as(&cbb, &response, CBS_ASN1_SEQUENCE);
  add(&response, CBS_ASN1_ENUMERATED, &status, 1);
  if (spec->error == 0) {
    basic_response(&basic, &basic_len, spec, leaf, issuer, signer, signer_key);
    open_as(&response, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0);
    open_as(&child, &bytes, CBS_ASN1_SEQUENCE);
    add(&bytes, CBS_ASN1_OBJECT, oid_basic, sizeof(oid_basic));
    add(&bytes, CBS_ASN1_OCTETSTRING, basic, basic_len);
  }
  CHECK(CBB_finish(&cbb, &out, &out_len));
  OPENSSL_free(basic);
  return bytes_of(out, out_len);
}
