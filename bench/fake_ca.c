// SPDX-License-Identifier: Apache-2.0
#include "bench/fake_ca.h"

#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SCALAR_LEN 32
#define POINT_LEN 65
#define DAY_S 86400
#define SOURCE_LEN 800
#define TAG_FIRST (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0)
#define AD_OCSP 1
#define AD_ISSUERS 2
#define NUM_SCTS 2u
#define SCT_HEAD 41u
#define SCT_LEN 118u  // with an ECDSA signature
#define NAME_LEN FAKE_CA_NAME_LEN
#define CERT_LEN FAKE_CA_CERT_LEN

// --- keys and numbers out of the seed -------------------------------------------------

// derive gives a number from 1 to the group's order less one: 512 bits, reduced, so that
// no value is noticeably more likely.
static bool derive(const struct fake_ca *ca, uint8_t out[SCALAR_LEN], const char *what,
                   uint64_t index) {
  char text[512];
  uint8_t hash[SHA512_DIGEST_LENGTH];
  BIGNUM *wide = NULL;
  int len = snprintf(text, sizeof(text), "%.300s/%s/%s/%llu", ca->seed, ca->level, what,
                     (unsigned long long)index);
  SHA512((const uint8_t *)text, (size_t)len, hash);
  wide = BN_bin2bn(hash, sizeof(hash), NULL);
  bool is_good = wide != NULL && BN_nnmod(wide, wide, EC_GROUP_get0_order(ca->group), ca->bn) &&
                 !BN_is_zero(wide) && BN_bn2bin_padded(out, SCALAR_LEN, wide);
  BN_free(wide);
  return is_good;
}

static EC_KEY *derive_key(const struct fake_ca *ca, const char *what, uint64_t index) {
  uint8_t scalar[SCALAR_LEN];
  EC_KEY *key = EC_KEY_new();
  EC_POINT *point = EC_POINT_new(ca->group);
  BIGNUM *number = derive(ca, scalar, what, index) ? BN_bin2bn(scalar, SCALAR_LEN, NULL) : NULL;
  bool is_good = key != NULL && point != NULL && number != NULL &&
                 EC_POINT_mul(ca->group, point, number, NULL, NULL, ca->bn) &&
                 EC_KEY_set_group(key, ca->group) && EC_KEY_set_private_key(key, number) &&
                 EC_KEY_set_public_key(key, point);
  BN_free(number);
  EC_POINT_free(point);
  if (!is_good) {
    EC_KEY_free(key);
    key = NULL;
  }
  return key;
}

// --- certificates ---------------------------------------------------------------------

struct spec {
  const char *cn;
  const char *issuer_cn;
  const EC_KEY *key;
  const EC_KEY *issuer_key;
  const char *what;  // with index: of what its serial number and nonce are made
  uint64_t index;
  bool is_ca;
  bool is_must_staple;
  bool is_public;
  int64_t not_before_s;
  int64_t not_after_s;
};

static const uint8_t oid_ecdsa_sha256[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const uint8_t oid_cn[] = {0x55, 0x04, 0x03};
static const uint8_t spki_prefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

static bool get_point(const struct fake_ca *ca, uint8_t out[POINT_LEN], const EC_KEY *key) {
  return EC_POINT_point2oct(ca->group, EC_KEY_get0_public_key(key), POINT_CONVERSION_UNCOMPRESSED,
                            out, POINT_LEN, ca->bn) == POINT_LEN;
}

static bool add_algorithm(CBB *cbb) {
  CBB sequence;
  CBB oid;
  return CBB_add_asn1(cbb, &sequence, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&sequence, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, oid_ecdsa_sha256, sizeof(oid_ecdsa_sha256)) && CBB_flush(cbb);
}

static bool add_name(CBB *cbb, const char *cn) {
  CBB name;
  CBB set;
  CBB pair;
  CBB oid;
  CBB text;
  return CBB_add_asn1(cbb, &name, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&name, &set, CBS_ASN1_SET) &&
         CBB_add_asn1(&set, &pair, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&pair, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, oid_cn, sizeof(oid_cn)) &&
         CBB_add_asn1(&pair, &text, CBS_ASN1_UTF8STRING) &&
         CBB_add_bytes(&text, (const uint8_t *)cn, strlen(cn)) && CBB_flush(cbb);
}

static bool add_time(CBB *cbb, int64_t at_s) {
  char text[32];
  struct tm tm;
  time_t at = (time_t)at_s;
  CBB time;
  bool is_utc = gmtime_r(&at, &tm) != NULL && tm.tm_year < 150;  // RFC 5280, 4.1.2.5
  size_t skip = is_utc ? 2 : 0;                                  // UTCTime leaves the century out
  size_t len = strftime(text, sizeof(text), "%Y%m%d%H%M%SZ", &tm);
  return CBB_add_asn1(cbb, &time, is_utc ? CBS_ASN1_UTCTIME : CBS_ASN1_GENERALIZEDTIME) &&
         CBB_add_bytes(&time, (const uint8_t *)text + skip, len - skip) && CBB_flush(cbb);
}

// add_extension adds one whose value is there already; `oid` with its length first.
static bool add_extension(CBB *list, const uint8_t *oid, bool is_critical, struct bytes value) {
  CBB extension;
  CBB child;
  if (!CBB_add_asn1(list, &extension, CBS_ASN1_SEQUENCE) ||
      !CBB_add_asn1(&extension, &child, CBS_ASN1_OBJECT) ||
      !CBB_add_bytes(&child, oid + 1, oid[0]) ||
      (is_critical && !CBB_add_asn1_bool(&extension, 1))) {
    return false;
  }
  return CBB_add_asn1(&extension, &child, CBS_ASN1_OCTETSTRING) &&
         CBB_add_bytes(&child, value.data, value.len) && CBB_flush(list);
}

static const uint8_t oid_ski[] = {3, 0x55, 0x1d, 0x0e};
static const uint8_t oid_key_usage[] = {3, 0x55, 0x1d, 0x0f};
static const uint8_t oid_san[] = {3, 0x55, 0x1d, 0x11};
static const uint8_t oid_basic[] = {3, 0x55, 0x1d, 0x13};
static const uint8_t oid_aki[] = {3, 0x55, 0x1d, 0x23};
static const uint8_t oid_eku[] = {3, 0x55, 0x1d, 0x25};
static const uint8_t oid_feature[] = {8, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18};
static const uint8_t oid_delegation[] = {9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xda, 0x4b, 0x2c};

static const uint8_t oid_aia[] = {8, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01};
static const uint8_t oid_crl[] = {3, 0x55, 0x1d, 0x1f};
static const uint8_t oid_policy[] = {3, 0x55, 0x1d, 0x20};
static const uint8_t oid_scts[] = {10, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02};

// RFC 5280, section 4.2.1.2, method 1.
static bool add_key_ids(const struct fake_ca *ca, CBB *list, const struct spec *spec) {
  uint8_t point[POINT_LEN];
  uint8_t ski[2 + 20] = {0x04, 20};
  uint8_t aki[4 + 20] = {0x30, 22, 0x80, 20};
  if (!get_point(ca, point, spec->key)) {
    return false;
  }
  SHA1(point, POINT_LEN, ski + 2);
  if (!get_point(ca, point, spec->issuer_key)) {
    return false;
  }
  SHA1(point, POINT_LEN, aki + 4);
  return add_extension(list, oid_ski, false, bytes_of(ski, sizeof(ski))) &&
         add_extension(list, oid_aki, false, bytes_of(aki, sizeof(aki)));
}

static bool add_leaf_extensions(CBB *list, const struct spec *spec) {
  static const uint8_t key_usage[] = {0x03, 0x02, 0x07, 0x80};
  static const uint8_t eku[] = {0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06,
                                0x01, 0x05, 0x05, 0x07, 0x03, 0x01};
  static const uint8_t null[] = {0x05, 0x00};
  static const uint8_t feature[] = {0x30, 0x03, 0x02, 0x01, 0x05};
  uint8_t san[4 + NAME_LEN];
  size_t len = strlen(spec->cn);
  san[0] = 0x30;
  san[1] = (uint8_t)(len + 2);
  san[2] = 0x82;
  san[3] = (uint8_t)len;
  memcpy(san + 4, spec->cn, len);
  return add_extension(list, oid_key_usage, true, bytes_of(key_usage, sizeof(key_usage))) &&
         add_extension(list, oid_eku, false, bytes_of(eku, sizeof(eku))) &&
         add_extension(list, oid_san, false, bytes_of(san, len + 4)) &&
         add_extension(list, oid_delegation, false, bytes_of(null, sizeof(null))) &&
         (!spec->is_must_staple ||
          add_extension(list, oid_feature, false, bytes_of(feature, sizeof(feature))));
}

// What a public CA adds, at its true length: policy, two
// SCTs (RFC 6962, section 3.3). The SCTs' bytes are hashes: no log has seen these.
static bool add_scts(const struct fake_ca *ca, CBB *list, const struct spec *spec) {
  uint8_t scts[2 + 2 + 2 + NUM_SCTS * (2 + SCT_LEN)] = {
      0x04, 0x81, sizeof(scts) - 3, 0, 0};  // an OCTET STRING, then the list's length
  // No extensions; ecdsa with sha256; the signature's length.
  static const uint8_t sct_rest[] = {0, 0, 4, 3, 0, SCT_LEN - SCT_HEAD - 6};
  uint8_t *at = scts + 3;
  char text[512];
  *at++ = 0;
  *at++ = NUM_SCTS * (2 + SCT_LEN);
  for (unsigned i = 0; i < NUM_SCTS; i++) {
    uint8_t hash[2 * SHA512_DIGEST_LENGTH];
    int len = snprintf(text, sizeof(text), "%.300s/%s/sct%u/%llu", ca->seed, ca->level, i,
                       (unsigned long long)spec->index);
    SHA512((const uint8_t *)text, (size_t)len, hash);
    SHA512(hash, SHA512_DIGEST_LENGTH, hash + SHA512_DIGEST_LENGTH);
    *at++ = 0;
    *at++ = SCT_LEN;
    memcpy(at, hash, SCT_LEN);
    at[0] = 0;                                          // v1, then the log and the time
    memcpy(at + SCT_HEAD, sct_rest, sizeof(sct_rest));  // then the signature
    at += SCT_LEN;
  }
  return add_extension(list, oid_scts, false, bytes_of(scts, sizeof(scts)));
}

static bool add_uri(CBB *list, const char *url) {
  CBB name;
  return CBB_add_asn1(list, &name, CBS_ASN1_CONTEXT_SPECIFIC | 6) &&
         CBB_add_bytes(&name, (const uint8_t *)url, strlen(url)) && CBB_flush(list);
}

// add_access adds to AuthorityInfoAccess (RFC 5280, section 4.2.2.1): id-ad and its URL.
static bool add_access(CBB *all, uint8_t ad, const char *url) {
  const uint8_t oid[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, ad};
  CBB one;
  CBB name;
  return url == NULL ||
         (CBB_add_asn1(all, &one, CBS_ASN1_SEQUENCE) &&
          CBB_add_asn1(&one, &name, CBS_ASN1_OBJECT) && CBB_add_bytes(&name, oid, sizeof(oid)) &&
          add_uri(&one, url) && CBB_flush(all));
}

static bool add_authority(CBB *list, const char *ocsp_url, const char *issuer_url) {
  uint8_t value[SOURCE_LEN];
  CBB cbb;
  CBB all;
  size_t len = 0;
  CBB_init_fixed(&cbb, value, sizeof(value));
  bool is_good = CBB_add_asn1(&cbb, &all, CBS_ASN1_SEQUENCE) &&
                 add_access(&all, AD_OCSP, ocsp_url) && add_access(&all, AD_ISSUERS, issuer_url) &&
                 CBB_finish(&cbb, NULL, &len) &&
                 add_extension(list, oid_aia, false, bytes_of(value, len));
  CBB_cleanup(&cbb);
  return is_good;
}

// RFC 5280, section 4.2.1.13: one point, by its full name.
static bool add_points(CBB *list, const char *crl_url) {
  uint8_t value[SOURCE_LEN];
  CBB cbb;
  CBB all;
  CBB one;
  CBB name;
  CBB full;
  size_t len = 0;
  CBB_init_fixed(&cbb, value, sizeof(value));
  return CBB_add_asn1(&cbb, &all, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&all, &one, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&one, &name, TAG_FIRST) &&
         CBB_add_asn1(&name, &full, TAG_FIRST) && add_uri(&full, crl_url) &&
         CBB_finish(&cbb, NULL, &len) && add_extension(list, oid_crl, false, bytes_of(value, len));
}

// add_sources says where a leaf's status can be asked for.
static bool add_sources(const struct fake_ca *ca, CBB *list, const struct spec *spec) {
  const char *ocsp_url = ca->ocsp_url;
  const char *crl_url = ca->crl_url;
  const char *issuer_url = spec->is_public ? "http://i.bench.invalid/c" : NULL;
  if (spec->is_public) {
    ocsp_url = ocsp_url != NULL ? ocsp_url : "http://o.bench.invalid";
    crl_url = crl_url != NULL ? crl_url : "http://c.bench.invalid/117.crl";
  }
  return ((ocsp_url == NULL && issuer_url == NULL) || add_authority(list, ocsp_url, issuer_url)) &&
         (crl_url == NULL || add_points(list, crl_url));
}

static bool add_public_extensions(const struct fake_ca *ca, CBB *list, const struct spec *spec) {
  // CA/B, domain validated.
  static const uint8_t policy[] = "\x30\x0a\x30\x08\x06\x06\x67\x81\x0c\x01\x02\x01";
  return add_extension(list, oid_policy, false, bytes_of(policy, sizeof(policy) - 1)) &&
         add_scts(ca, list, spec);
}

static bool add_extensions(const struct fake_ca *ca, CBB *tbs, const struct spec *spec) {
  static const uint8_t yes[] = {0x30, 0x03, 0x01, 0x01, 0xff};
  static const uint8_t no[] = {0x30, 0x00};
  static const uint8_t sign_certs[] = {0x03, 0x02, 0x01, 0x06};  // and lists
  CBB outer;
  CBB list;
  if (!CBB_add_asn1(tbs, &outer, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 3) ||
      !CBB_add_asn1(&outer, &list, CBS_ASN1_SEQUENCE) || !add_key_ids(ca, &list, spec) ||
      !add_extension(&list, oid_basic, true,
                     spec->is_ca ? bytes_of(yes, sizeof(yes)) : bytes_of(no, sizeof(no)))) {
    return false;
  }
  return (spec->is_ca
              ? add_extension(&list, oid_key_usage, true, bytes_of(sign_certs, sizeof(sign_certs)))
              : add_leaf_extensions(&list, spec) && add_sources(ca, &list, spec) &&
                    (!spec->is_public || add_public_extensions(ca, &list, spec))) &&
         CBB_flush(tbs);
}

static bool add_spki(const struct fake_ca *ca, CBB *tbs, const EC_KEY *key) {
  uint8_t point[POINT_LEN];
  return get_point(ca, point, key) && CBB_add_bytes(tbs, spki_prefix, sizeof(spki_prefix)) &&
         CBB_add_bytes(tbs, point, POINT_LEN);
}

static bool add_serial(const struct fake_ca *ca, CBB *tbs, const struct spec *spec) {
  uint8_t serial[SCALAR_LEN];
  CBB number;
  if (!derive(ca, serial, "serial", spec->index + (spec->is_ca ? 1ULL << 60 : 0))) {
    return false;
  }
  serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40);  // positive, and of full length
  return CBB_add_asn1(tbs, &number, CBS_ASN1_INTEGER) && CBB_add_bytes(&number, serial, 16) &&
         CBB_flush(tbs);
}

static bool add_tbs(const struct fake_ca *ca, CBB *cbb, const struct spec *spec) {
  CBB tbs;
  CBB version;
  CBB validity;
  return CBB_add_asn1(cbb, &tbs, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&tbs, &version, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
         CBB_add_asn1_uint64(&version, 2) && add_serial(ca, &tbs, spec) && add_algorithm(&tbs) &&
         add_name(&tbs, spec->issuer_cn) && CBB_add_asn1(&tbs, &validity, CBS_ASN1_SEQUENCE) &&
         add_time(&validity, spec->not_before_s) && add_time(&validity, spec->not_after_s) &&
         add_name(&tbs, spec->cn) && add_spki(ca, &tbs, spec->key) &&
         add_extensions(ca, &tbs, spec) && CBB_flush(cbb);
}

static bool add_signature(const struct fake_ca *ca, CBB *certificate, const struct spec *spec,
                          struct bytes tbs) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  uint8_t nonce[SCALAR_LEN];
  CBB bits;
  SHA256(tbs.data, tbs.len, digest);
  if (!derive(ca, nonce, spec->what, spec->index)) {
    return false;
  }
  // The seed gives the nonce too: these keys are no secret.
  ECDSA_SIG *signature = ECDSA_sign_with_nonce_and_leak_private_key_for_testing(
      digest, sizeof(digest), spec->issuer_key, nonce, sizeof(nonce));
  bool is_good = signature != NULL && CBB_add_asn1(certificate, &bits, CBS_ASN1_BITSTRING) &&
                 CBB_add_u8(&bits, 0) && ECDSA_SIG_marshal(&bits, signature) &&
                 CBB_flush(certificate);
  ECDSA_SIG_free(signature);
  return is_good;
}

static bool make_certificate(const struct fake_ca *ca, uint8_t out[CERT_LEN], size_t *out_len,
                             const struct spec *spec) {
  uint8_t tbs[CERT_LEN];
  size_t tbs_len = 0;
  CBB cbb;
  CBB certificate;
  if (!CBB_init_fixed(&cbb, tbs, sizeof(tbs)) || !add_tbs(ca, &cbb, spec) ||
      !CBB_finish(&cbb, NULL, &tbs_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  if (!CBB_init_fixed(&cbb, out, CERT_LEN) ||
      !CBB_add_asn1(&cbb, &certificate, CBS_ASN1_SEQUENCE) ||
      !CBB_add_bytes(&certificate, tbs, tbs_len) || !add_algorithm(&certificate) ||
      !add_signature(ca, &certificate, spec, bytes_of(tbs, tbs_len)) ||
      !CBB_finish(&cbb, NULL, out_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  return true;
}

// --- the CA itself ----------------------------------------------------------------------

static bool make_cas(struct fake_ca *ca) {
  char root_cn[NAME_LEN];
  (void)snprintf(root_cn, sizeof(root_cn), "Bench Root %s", ca->level);
  (void)snprintf(ca->cn, sizeof(ca->cn), "Bench CA %s", ca->level);
  ca->root = derive_key(ca, "root", 0);
  ca->issuer = derive_key(ca, "issuer", 0);
  if (ca->root == NULL || ca->issuer == NULL) {
    return false;
  }
  const struct spec root = {.cn = root_cn,
                            .issuer_cn = root_cn,
                            .key = ca->root,
                            .issuer_key = ca->root,
                            .what = "root-nonce",
                            .is_ca = true,
                            .not_before_s = ca->not_before_s - DAY_S,
                            .not_after_s = ca->not_before_s + (int64_t)20 * 365 * DAY_S};
  struct spec issuer = root;
  issuer.cn = ca->cn;
  issuer.key = ca->issuer;
  issuer.what = "issuer-nonce";
  issuer.index = 1;
  return make_certificate(ca, ca->root_cert, &ca->root_cert_len, &root) &&
         make_certificate(ca, ca->issuer_cert, &ca->issuer_cert_len, &issuer);
}

static bool hash_for_staples(struct fake_ca *ca) {
  uint8_t name[2 * NAME_LEN];
  uint8_t point[POINT_LEN];
  size_t len = 0;
  CBB cbb;
  if (!CBB_init_fixed(&cbb, name, sizeof(name)) || !add_name(&cbb, ca->cn) ||
      !CBB_finish(&cbb, NULL, &len) || !get_point(ca, point, ca->issuer)) {
    return false;
  }
  SHA1(name, len, ca->name_sha1);
  SHA1(point, POINT_LEN, ca->key_sha1);
  return true;
}

enum status fake_ca_init(struct fake_ca *out, const char *seed, const char *level,
                         int64_t not_before_s, struct errmsg *err) {
  *out = (struct fake_ca){.seed = seed, .level = level, .not_before_s = not_before_s, .days = 90};
  EC_KEY *any = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  out->group = any != NULL ? EC_KEY_get0_group(any) : NULL;  // static: outlives the key
  EC_KEY_free(any);
  out->bn = BN_CTX_new();
  return out->group != NULL && out->bn != NULL && make_cas(out) && hash_for_staples(out)
             ? STATUS_OK
             : errmsg_set(err, STATUS_CRYPTO, "the CAs cannot be made");
}

void fake_ca_cleanup(struct fake_ca *ca) {
  EC_KEY_free(ca->root);
  EC_KEY_free(ca->issuer);
  BN_CTX_free(ca->bn);
  *ca = (struct fake_ca){0};
}

EC_KEY *fake_ca_leaf_key(const struct fake_ca *ca, uint64_t index) {
  return derive_key(ca, "leaf", index);
}

bool fake_ca_leaf(const struct fake_ca *ca, uint8_t out[FAKE_CA_CERT_LEN], size_t *out_len,
                  const char *name, const EC_KEY *key, uint64_t index) {
  const struct spec leaf = {.cn = name,
                            .issuer_cn = ca->cn,
                            .key = key,
                            .issuer_key = ca->issuer,
                            .what = "leaf-nonce",
                            .index = index,
                            .is_must_staple = ca->is_must_staple,
                            .is_public = ca->is_public,
                            .not_before_s = ca->not_before_s,
                            .not_after_s = ca->not_before_s + ca->days * DAY_S};
  return make_certificate(ca, out, out_len, &leaf);
}

// --- staples ----------------------------------------------------------------------------

static bool add_generalized_time(CBB *cbb, int64_t at_s) {
  char text[32];
  struct tm tm;
  time_t at = (time_t)at_s;
  CBB time;
  return gmtime_r(&at, &tm) != NULL && CBB_add_asn1(cbb, &time, CBS_ASN1_GENERALIZEDTIME) &&
         CBB_add_bytes(&time, (const uint8_t *)text,
                       strftime(text, sizeof(text), "%Y%m%d%H%M%SZ", &tm)) &&
         CBB_flush(cbb);
}

// RFC 6960, section 4.1.1; by SHA-1, as RFC 5019 has it.
static bool add_cert_id(const struct fake_ca *ca, CBB *cbb, struct bytes serial) {
  static const uint8_t sha1[] = {0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00};
  CBB id;
  CBB child;
  return CBB_add_asn1(cbb, &id, CBS_ASN1_SEQUENCE) && CBB_add_bytes(&id, sha1, sizeof(sha1)) &&
         CBB_add_asn1(&id, &child, CBS_ASN1_OCTETSTRING) &&
         CBB_add_bytes(&child, ca->name_sha1, sizeof(ca->name_sha1)) &&
         CBB_add_asn1(&id, &child, CBS_ASN1_OCTETSTRING) &&
         CBB_add_bytes(&child, ca->key_sha1, sizeof(ca->key_sha1)) &&
         CBB_add_asn1(&id, &child, CBS_ASN1_INTEGER) &&
         CBB_add_bytes(&child, serial.data, serial.len) && CBB_flush(cbb);
}

static bool add_single_response(const struct fake_ca *ca, CBB *cbb,
                                const struct fake_staple *staple) {
  CBB list;
  CBB single;
  CBB child;
  return CBB_add_asn1(cbb, &list, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&list, &single, CBS_ASN1_SEQUENCE) &&
         add_cert_id(ca, &single, staple->serial) &&
         CBB_add_asn1(&single, &child, CBS_ASN1_CONTEXT_SPECIFIC | 0) &&  // good
         add_generalized_time(&single, staple->this_update_s) &&
         CBB_add_asn1(&single, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
         add_generalized_time(&child, staple->next_update_s) && CBB_flush(cbb);
}

// ResponseData, the responder named by its key.
static bool add_response_data(const struct fake_ca *ca, CBB *cbb,
                              const struct fake_staple *staple) {
  CBB data;
  CBB child;
  CBB key;
  return CBB_add_asn1(cbb, &data, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&data, &child, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 2) &&
         CBB_add_asn1(&child, &key, CBS_ASN1_OCTETSTRING) &&
         CBB_add_bytes(&key, ca->key_sha1, sizeof(ca->key_sha1)) &&
         add_generalized_time(&data, staple->this_update_s) &&
         add_single_response(ca, &data, staple) && CBB_flush(cbb);
}

// wrap_response puts a BasicOCSPResponse into an OCSPResponse that was successful.
static bool wrap_response(uint8_t *out, size_t max, size_t *out_len, struct bytes basic) {
  static const uint8_t head[] = {0x0a, 0x01, 0x00};
  static const uint8_t oid_basic_response[] = {0x2b, 0x06, 0x01, 0x05, 0x05,
                                               0x07, 0x30, 0x01, 0x01};
  CBB cbb;
  CBB outer;
  CBB tagged;
  CBB pair;
  CBB child;
  bool is_good =
      CBB_init_fixed(&cbb, out, max) && CBB_add_asn1(&cbb, &outer, CBS_ASN1_SEQUENCE) &&
      CBB_add_bytes(&outer, head, sizeof(head)) &&
      CBB_add_asn1(&outer, &tagged, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
      CBB_add_asn1(&tagged, &pair, CBS_ASN1_SEQUENCE) &&
      CBB_add_asn1(&pair, &child, CBS_ASN1_OBJECT) &&
      CBB_add_bytes(&child, oid_basic_response, sizeof(oid_basic_response)) &&
      CBB_add_asn1(&pair, &child, CBS_ASN1_OCTETSTRING) &&
      CBB_add_bytes(&child, basic.data, basic.len) && CBB_finish(&cbb, NULL, out_len);
  if (!is_good) {
    CBB_cleanup(&cbb);
  }
  return is_good;
}

bool fake_ca_staple(const struct fake_ca *ca, uint8_t out[FAKE_CA_STAPLE_LEN], size_t *out_len,
                    const struct fake_staple *staple) {
  uint8_t data[FAKE_CA_STAPLE_LEN];
  uint8_t basic[FAKE_CA_STAPLE_LEN];
  size_t data_len = 0;
  size_t basic_len = 0;
  CBB cbb;
  CBB response;
  const struct spec spec = {
      .issuer_key = ca->issuer, .what = "staple-nonce", .index = staple->index};
  if (!CBB_init_fixed(&cbb, data, sizeof(data)) || !add_response_data(ca, &cbb, staple) ||
      !CBB_finish(&cbb, NULL, &data_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  if (!CBB_init_fixed(&cbb, basic, sizeof(basic)) ||
      !CBB_add_asn1(&cbb, &response, CBS_ASN1_SEQUENCE) ||
      !CBB_add_bytes(&response, data, data_len) || !add_algorithm(&response) ||
      !add_signature(ca, &response, &spec, bytes_of(data, data_len)) ||
      !CBB_finish(&cbb, NULL, &basic_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  return wrap_response(out, FAKE_CA_STAPLE_LEN, out_len, bytes_of(basic, basic_len));
}
