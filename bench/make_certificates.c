// SPDX-License-Identifier: Apache-2.0
// make-certificates: a million names and more, with really signed leaves: for each name
// a primary of one CA and a backup of another, P-256, DelegationUsage, a key for each.
// All comes out of a seed, signatures included, so that a run can be had again and a key
// server can be given the keys of some names without keeping two million of them.
//
//   OUT/primary.der, OUT/backup.der   leaf, intermediate, leaf, intermediate, ...
//                                     (.pem with --format pem)
//   OUT/roots.pem                     the two roots
//   OUT/keys/NAME.primary.key, ...    PKCS#8 of the first --keys names
//   OUT/keys/ca.primary.key, ...      of the CAs, when leaves name a responder or a list
//
// The CA keys are as public as the seed: nobody trusts these.
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "bench/bench.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"

#define NUM_LEVELS 2
#define CERT_LEN 2048  // room for one
#define NAME_LEN 64
#define DAY_S 86400
#define SCALAR_LEN 32
#define POINT_LEN 65
#define PEM_LINE 64
#define SOURCE_LEN 400
#define TAG_FIRST (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0)

static const char *const level_names[NUM_LEVELS] = {"primary", "backup"};

enum format { FORMAT_DER, FORMAT_PEM };

struct make_options {
  int64_t count;
  int64_t num_keys;
  int64_t days;
  const char *out;
  const char *seed;
  const char *domain;
  const char *ocsp_url;
  const char *crl_url;
  int format;
  bool is_must_staple;
};

static const char *const formats[] = {"der", "pem", NULL};
static const struct option_row options[] = {
    {"count", OPTION_COUNT, offsetof(struct make_options, count), "1000", 1, 100000000, NULL,
     "names", false},
    {"out", OPTION_TEXT, offsetof(struct make_options, out), NULL, 0, 0, NULL,
     "the folder to write to", true},
    {"seed", OPTION_TEXT, offsetof(struct make_options, seed), "deputy", 0, 0, NULL,
     "what all keys and signatures come from", false},
    {"domain", OPTION_TEXT, offsetof(struct make_options, domain), "bench.test", 0, 0, NULL,
     "names are n0.DOMAIN, n1.DOMAIN, ...", false},
    {"days", OPTION_COUNT, offsetof(struct make_options, days), "90", 1, 36500, NULL,
     "validity of a leaf, from today on", false},
    {"format", OPTION_WORD, offsetof(struct make_options, format), "der", 0, 0, formats,
     "der: certificates one after the other; pem: the same as text", false},
    {"keys", OPTION_COUNT, offsetof(struct make_options, num_keys), "0", 0, 100000000, NULL,
     "write the private keys of the first KEYS names", false},
    {"must-staple", OPTION_FLAG, offsetof(struct make_options, is_must_staple), NULL, 0, 0, NULL,
     "leaves demand a staple (RFC 7633)", false},
    {"ocsp", OPTION_TEXT, offsetof(struct make_options, ocsp_url), NULL, 0, 0, NULL,
     "URL of the responder that leaves name", false},
    {"crl", OPTION_TEXT, offsetof(struct make_options, crl_url), NULL, 0, 0, NULL,
     "URL of the revocation list that leaves name", false},
    {0},
};

// --- keys and numbers out of the seed -------------------------------------------------

struct maker {
  const struct make_options *options;
  unsigned level;
  int64_t not_before_s;
  const EC_GROUP *group;
  BN_CTX *bn;
  EC_KEY *root;
  EC_KEY *issuer;
  uint8_t root_cert[CERT_LEN];
  size_t root_cert_len;
  uint8_t issuer_cert[CERT_LEN];
  size_t issuer_cert_len;
  struct errmsg err;
  enum status st;
};

// derive gives a number from 1 to the group's order less one: 512 bits, reduced, so that
// no value is noticeably more likely.
static bool derive(const struct maker *maker, uint8_t out[SCALAR_LEN], const char *what,
                   uint64_t index) {
  char text[512];
  uint8_t hash[SHA512_DIGEST_LENGTH];
  BIGNUM *wide = NULL;
  int len = snprintf(text, sizeof(text), "%.300s/%s/%s/%llu", maker->options->seed,
                     level_names[maker->level], what, (unsigned long long)index);
  SHA512((const uint8_t *)text, (size_t)len, hash);
  wide = BN_bin2bn(hash, sizeof(hash), NULL);
  bool is_good = wide != NULL &&
                 BN_nnmod(wide, wide, EC_GROUP_get0_order(maker->group), maker->bn) &&
                 !BN_is_zero(wide) && BN_bn2bin_padded(out, SCALAR_LEN, wide);
  BN_free(wide);
  return is_good;
}

static EC_KEY *derive_key(const struct maker *maker, const char *what, uint64_t index) {
  uint8_t scalar[SCALAR_LEN];
  EC_KEY *key = EC_KEY_new();
  EC_POINT *point = EC_POINT_new(maker->group);
  BIGNUM *number = derive(maker, scalar, what, index) ? BN_bin2bn(scalar, SCALAR_LEN, NULL) : NULL;
  bool is_good = key != NULL && point != NULL && number != NULL &&
                 EC_POINT_mul(maker->group, point, number, NULL, NULL, maker->bn) &&
                 EC_KEY_set_group(key, maker->group) && EC_KEY_set_private_key(key, number) &&
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
  const char *ocsp_url;  // NULL: none
  const char *crl_url;   // the same
  bool is_must_staple;
  int64_t not_before_s;
  int64_t not_after_s;
};

static const uint8_t oid_ecdsa_sha256[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const uint8_t oid_cn[] = {0x55, 0x04, 0x03};
static const uint8_t spki_prefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

static bool get_point(const struct maker *maker, uint8_t out[POINT_LEN], const EC_KEY *key) {
  return EC_POINT_point2oct(maker->group, EC_KEY_get0_public_key(key),
                            POINT_CONVERSION_UNCOMPRESSED, out, POINT_LEN, maker->bn) == POINT_LEN;
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
static const uint8_t oid_points[] = {3, 0x55, 0x1d, 0x1f};
static const uint8_t oid_access[] = {8, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01};
static const uint8_t oid_ocsp[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01};
static const uint8_t oid_feature[] = {8, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18};
static const uint8_t oid_delegation[] = {9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xda, 0x4b, 0x2c};

// RFC 5280, section 4.2.1.2, method 1.
static bool add_key_ids(const struct maker *maker, CBB *list, const struct spec *spec) {
  uint8_t point[POINT_LEN];
  uint8_t ski[2 + 20] = {0x04, 20};
  uint8_t aki[4 + 20] = {0x30, 22, 0x80, 20};
  if (!get_point(maker, point, spec->key)) {
    return false;
  }
  SHA1(point, POINT_LEN, ski + 2);
  if (!get_point(maker, point, spec->issuer_key)) {
    return false;
  }
  SHA1(point, POINT_LEN, aki + 4);
  return add_extension(list, oid_ski, false, bytes_of(ski, sizeof(ski))) &&
         add_extension(list, oid_aki, false, bytes_of(aki, sizeof(aki)));
}

static bool add_uri(CBB *list, const char *url) {
  CBB name;
  return CBB_add_asn1(list, &name, CBS_ASN1_CONTEXT_SPECIFIC | 6) &&
         CBB_add_bytes(&name, (const uint8_t *)url, strlen(url)) && CBB_flush(list);
}

static bool add_responder(CBB *list, const char *url) {
  uint8_t value[SOURCE_LEN];
  CBB cbb;
  CBB all;
  CBB one;
  CBB name;
  size_t len = 0;
  CBB_init_fixed(&cbb, value, sizeof(value));
  bool is_ok =
      CBB_add_asn1(&cbb, &all, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&all, &one, CBS_ASN1_SEQUENCE) &&
      CBB_add_asn1(&one, &name, CBS_ASN1_OBJECT) &&
      CBB_add_bytes(&name, oid_ocsp, sizeof(oid_ocsp)) && add_uri(&one, url) &&
      CBB_finish(&cbb, NULL, &len) && add_extension(list, oid_access, false, bytes_of(value, len));
  CBB_cleanup(&cbb);
  return is_ok;
}

static bool add_list(CBB *list, const char *url) {
  uint8_t value[SOURCE_LEN];
  CBB cbb;
  CBB all;
  CBB one;
  CBB name;
  CBB full;
  size_t len = 0;
  CBB_init_fixed(&cbb, value, sizeof(value));
  bool is_ok = CBB_add_asn1(&cbb, &all, CBS_ASN1_SEQUENCE) &&
               CBB_add_asn1(&all, &one, CBS_ASN1_SEQUENCE) &&
               CBB_add_asn1(&one, &name, TAG_FIRST) && CBB_add_asn1(&name, &full, TAG_FIRST) &&
               add_uri(&full, url) && CBB_finish(&cbb, NULL, &len) &&
               add_extension(list, oid_points, false, bytes_of(value, len));
  CBB_cleanup(&cbb);
  return is_ok;
}

// add_sources says where a leaf's status can be asked for (RFC 5280, sections 4.2.2.1 and
// 4.2.1.13).
static bool add_sources(CBB *list, const struct spec *spec) {
  return (spec->ocsp_url == NULL || add_responder(list, spec->ocsp_url)) &&
         (spec->crl_url == NULL || add_list(list, spec->crl_url));
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
          add_extension(list, oid_feature, false, bytes_of(feature, sizeof(feature)))) &&
         add_sources(list, spec);
}

static bool add_extensions(const struct maker *maker, CBB *tbs, const struct spec *spec) {
  static const uint8_t ca[] = {0x30, 0x03, 0x01, 0x01, 0xff};
  static const uint8_t not_ca[] = {0x30, 0x00};
  static const uint8_t sign_certs[] = {0x03, 0x02, 0x01, 0x06};  // and lists
  CBB outer;
  CBB list;
  if (!CBB_add_asn1(tbs, &outer, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 3) ||
      !CBB_add_asn1(&outer, &list, CBS_ASN1_SEQUENCE) || !add_key_ids(maker, &list, spec) ||
      !add_extension(&list, oid_basic, true,
                     spec->is_ca ? bytes_of(ca, sizeof(ca)) : bytes_of(not_ca, sizeof(not_ca)))) {
    return false;
  }
  return (spec->is_ca
              ? add_extension(&list, oid_key_usage, true, bytes_of(sign_certs, sizeof(sign_certs)))
              : add_leaf_extensions(&list, spec)) &&
         CBB_flush(tbs);
}

static bool add_spki(const struct maker *maker, CBB *tbs, const EC_KEY *key) {
  uint8_t point[POINT_LEN];
  return get_point(maker, point, key) && CBB_add_bytes(tbs, spki_prefix, sizeof(spki_prefix)) &&
         CBB_add_bytes(tbs, point, POINT_LEN);
}

static bool add_serial(const struct maker *maker, CBB *tbs, const struct spec *spec) {
  uint8_t serial[SCALAR_LEN];
  CBB number;
  if (!derive(maker, serial, "serial", spec->index + (spec->is_ca ? 1ULL << 60 : 0))) {
    return false;
  }
  serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40);  // positive, and of full length
  return CBB_add_asn1(tbs, &number, CBS_ASN1_INTEGER) && CBB_add_bytes(&number, serial, 16) &&
         CBB_flush(tbs);
}

static bool add_tbs(const struct maker *maker, CBB *cbb, const struct spec *spec) {
  CBB tbs;
  CBB version;
  CBB validity;
  return CBB_add_asn1(cbb, &tbs, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&tbs, &version, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
         CBB_add_asn1_uint64(&version, 2) && add_serial(maker, &tbs, spec) && add_algorithm(&tbs) &&
         add_name(&tbs, spec->issuer_cn) && CBB_add_asn1(&tbs, &validity, CBS_ASN1_SEQUENCE) &&
         add_time(&validity, spec->not_before_s) && add_time(&validity, spec->not_after_s) &&
         add_name(&tbs, spec->cn) && add_spki(maker, &tbs, spec->key) &&
         add_extensions(maker, &tbs, spec) && CBB_flush(cbb);
}

static bool add_signature(const struct maker *maker, CBB *certificate, const struct spec *spec,
                          struct bytes tbs) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  uint8_t nonce[SCALAR_LEN];
  CBB bits;
  SHA256(tbs.data, tbs.len, digest);
  if (!derive(maker, nonce, spec->what, spec->index)) {
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

static bool make_certificate(const struct maker *maker, uint8_t out[CERT_LEN], size_t *out_len,
                             const struct spec *spec) {
  uint8_t tbs[CERT_LEN];
  size_t tbs_len = 0;
  CBB cbb;
  CBB certificate;
  if (!CBB_init_fixed(&cbb, tbs, sizeof(tbs)) || !add_tbs(maker, &cbb, spec) ||
      !CBB_finish(&cbb, NULL, &tbs_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  if (!CBB_init_fixed(&cbb, out, CERT_LEN) ||
      !CBB_add_asn1(&cbb, &certificate, CBS_ASN1_SEQUENCE) ||
      !CBB_add_bytes(&certificate, tbs, tbs_len) || !add_algorithm(&certificate) ||
      !add_signature(maker, &certificate, spec, bytes_of(tbs, tbs_len)) ||
      !CBB_finish(&cbb, NULL, out_len)) {
    CBB_cleanup(&cbb);
    return false;
  }
  return true;
}

// --- one level --------------------------------------------------------------------------

static bool make_cas(struct maker *maker) {
  char root_cn[NAME_LEN];
  char cn[NAME_LEN];
  (void)snprintf(root_cn, sizeof(root_cn), "Bench Root %s", level_names[maker->level]);
  (void)snprintf(cn, sizeof(cn), "Bench CA %s", level_names[maker->level]);
  maker->root = derive_key(maker, "root", 0);
  maker->issuer = derive_key(maker, "issuer", 0);
  if (maker->root == NULL || maker->issuer == NULL) {
    return false;
  }
  const struct spec root = {.cn = root_cn,
                            .issuer_cn = root_cn,
                            .key = maker->root,
                            .issuer_key = maker->root,
                            .what = "root-nonce",
                            .is_ca = true,
                            .not_before_s = maker->not_before_s - DAY_S,
                            .not_after_s = maker->not_before_s + (int64_t)20 * 365 * DAY_S};
  struct spec issuer = root;
  issuer.cn = cn;
  issuer.key = maker->issuer;
  issuer.what = "issuer-nonce";
  issuer.index = 1;
  return make_certificate(maker, maker->root_cert, &maker->root_cert_len, &root) &&
         make_certificate(maker, maker->issuer_cert, &maker->issuer_cert_len, &issuer);
}

static bool write_cert(FILE *file, int format, struct bytes der) {
  if (format == FORMAT_DER) {
    return fwrite(der.data, 1, der.len, file) == der.len;
  }
  char *text = bytes_to_base64(der);
  if (text == NULL) {
    return false;
  }
  (void)fputs("-----BEGIN CERTIFICATE-----\n", file);
  for (size_t at = 0, len = strlen(text); at < len; at += PEM_LINE) {
    (void)fprintf(file, "%.*s\n", PEM_LINE, text + at);
  }
  free(text);
  return fputs("-----END CERTIFICATE-----\n", file) >= 0;
}

static bool write_key(const struct maker *maker, const char *name, EC_KEY *key) {
  char path[4096];
  EVP_PKEY *pkey = EVP_PKEY_new();
  (void)snprintf(path, sizeof(path), "%s/keys/%s.%s.key", maker->options->out, name,
                 level_names[maker->level]);
  FILE *file = fopen(path, "we");
  bool is_good = file != NULL && fchmod(fileno(file), 0600) == 0 && pkey != NULL &&
                 EVP_PKEY_set1_EC_KEY(pkey, key) &&
                 PEM_write_PKCS8PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL);
  EVP_PKEY_free(pkey);
  if (file != NULL && fclose(file) != 0) {
    is_good = false;
  }
  return is_good;
}

static bool make_leaf(struct maker *maker, FILE *file, uint64_t index) {
  const struct make_options *o = maker->options;
  char name[NAME_LEN];
  char issuer_cn[NAME_LEN];
  uint8_t cert[CERT_LEN];
  size_t len = 0;
  EC_KEY *key = derive_key(maker, "leaf", index);
  (void)snprintf(name, sizeof(name), "n%llu.%.40s", (unsigned long long)index, o->domain);
  (void)snprintf(issuer_cn, sizeof(issuer_cn), "Bench CA %s", level_names[maker->level]);
  const struct spec leaf = {.cn = name,
                            .issuer_cn = issuer_cn,
                            .key = key,
                            .issuer_key = maker->issuer,
                            .what = "leaf-nonce",
                            .index = index,
                            .ocsp_url = o->ocsp_url,
                            .crl_url = o->crl_url,
                            .is_must_staple = o->is_must_staple,
                            .not_before_s = maker->not_before_s,
                            .not_after_s = maker->not_before_s + o->days * DAY_S};
  bool is_good =
      key != NULL && make_certificate(maker, cert, &len, &leaf) &&
      write_cert(file, o->format, bytes_of(cert, len)) &&
      write_cert(file, o->format, bytes_of(maker->issuer_cert, maker->issuer_cert_len)) &&
      (index >= (uint64_t)o->num_keys || write_key(maker, name, key));
  EC_KEY_free(key);
  return is_good;
}

static enum status make_level(struct maker *maker) {
  const struct make_options *o = maker->options;
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/%s.%s", o->out, level_names[maker->level],
                 formats[o->format]);
  FILE *file = fopen(path, "we");
  if (file == NULL) {
    return errmsg_set(&maker->err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
  }
  // Who names a responder or a list will want to be it.
  bool is_good = o->num_keys == 0 || (o->ocsp_url == NULL && o->crl_url == NULL) ||
                 write_key(maker, "ca", maker->issuer);
  for (int64_t i = 0; i < o->count && is_good; i++) {
    is_good = make_leaf(maker, file, (uint64_t)i);
  }
  int reason = errno;
  if (fclose(file) != 0 || !is_good) {
    return errmsg_set(&maker->err, STATUS_SYSTEM, "%s: cannot be made (%s)", path,
                      strerror(reason));
  }
  return STATUS_OK;
}

static void *run_level(void *arg) {
  struct maker *maker = arg;
  maker->st = make_level(maker);
  return NULL;
}

static enum status maker_init(struct maker *maker, const struct make_options *o, unsigned level,
                              int64_t today_s, struct errmsg *err) {
  *maker = (struct maker){.options = o, .level = level, .not_before_s = today_s};
  EC_KEY *any = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  maker->group = any != NULL ? EC_KEY_get0_group(any) : NULL;  // static: outlives the key
  EC_KEY_free(any);
  maker->bn = BN_CTX_new();
  return maker->group != NULL && maker->bn != NULL && make_cas(maker)
             ? STATUS_OK
             : errmsg_set(err, STATUS_CRYPTO, "the CAs cannot be made");
}

static void maker_cleanup(struct maker *maker) {
  EC_KEY_free(maker->root);
  EC_KEY_free(maker->issuer);
  BN_CTX_free(maker->bn);
}

static enum status prepare_folder(const struct make_options *o, struct errmsg *err) {
  char keys[4096];
  (void)snprintf(keys, sizeof(keys), "%s/keys", o->out);
  if ((mkdir(o->out, 0755) != 0 && errno != EEXIST) ||
      (o->num_keys > 0 && mkdir(keys, 0700) != 0 && errno != EEXIST)) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: %s", o->out, strerror(errno));
  }
  if (strlen(o->domain) > 40) {
    return errmsg_set(err, STATUS_CONFIG, "--domain: at most 40 characters");
  }
  return STATUS_OK;
}

static enum status write_roots(const struct make_options *o, const struct maker *makers,
                               struct errmsg *err) {
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/roots.pem", o->out);
  FILE *file = fopen(path, "we");
  bool is_good = file != NULL;
  for (size_t i = 0; i < NUM_LEVELS && is_good; i++) {
    is_good = write_cert(file, FORMAT_PEM, bytes_of(makers[i].root_cert, makers[i].root_cert_len));
  }
  if (file == NULL || fclose(file) != 0 || !is_good) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
  }
  return STATUS_OK;
}

static enum status make_all(struct maker makers[NUM_LEVELS], struct errmsg *err) {
  pthread_t threads[NUM_LEVELS];
  enum status st = STATUS_OK;
  size_t started = 0;
  while (started < NUM_LEVELS &&
         pthread_create(&threads[started], NULL, run_level, &makers[started]) == 0) {
    started++;
  }
  for (size_t i = 0; i < started; i++) {
    (void)pthread_join(threads[i], NULL);
    if (makers[i].st != STATUS_OK) {
      st = errmsg_set(err, makers[i].st, "%s", makers[i].err.text);
    }
  }
  return started == NUM_LEVELS ? st : errmsg_set(err, STATUS_SYSTEM, "no thread can be started");
}

int make_certificates_main(int argc, char **argv) {
  struct make_options o = {0};
  struct maker makers[NUM_LEVELS] = {0};
  struct errmsg err = {0};
  bool is_done = false;
  enum status st = STATUS_OK;
  int64_t began_us = clock_monotonic_us();
  int64_t today_s = clock_wall_s() / DAY_S * DAY_S;

  TRY(options_parse(&o, &is_done, options, argc, argv, &err));
  if (is_done) {
    return bench_usage(argv[0], "Makes names with a primary and a backup leaf each, really signed.",
                       options);
  }
  TRY(prepare_folder(&o, &err));
  for (unsigned i = 0; i < NUM_LEVELS; i++) {
    TRY(maker_init(&makers[i], &o, i, today_s, &err));
  }
  TRY(write_roots(&o, makers, &err));
  TRY(make_all(makers, &err));
  json_t *summary = bench_about(argc, argv);
  double seconds = (double)(clock_monotonic_us() - began_us) / 1e6;
  (void)json_object_set_new(summary, "names", json_integer((json_int_t)o.count));
  (void)json_object_set_new(summary, "seconds", json_real(seconds));
  (void)json_object_set_new(summary, "leaves_per_second",
                            json_real(NUM_LEVELS * (double)o.count / seconds));
  bench_print(summary);

out:
  for (size_t i = 0; i < NUM_LEVELS; i++) {
    maker_cleanup(&makers[i]);
  }
  return st == STATUS_OK ? 0 : bench_fail(argv[0], st, &err);
}
