// SPDX-License-Identifier: Apache-2.0
#include "tests/support/certs.h"

#include <fcntl.h>
#include <ftw.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/digest.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/tls/cert.h"
#include "common/wire/dc.h"

#define DAY_S (24 * 3600)

// --- keys ------------------------------------------------------------------------

static EVP_PKEY *ec_key_new(int nid) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(nid);

  CHECK(key != NULL && ec != NULL && EC_KEY_generate_key(ec) && EVP_PKEY_set1_EC_KEY(key, ec));
  EC_KEY_free(ec);
  return key;
}

EVP_PKEY *test_rsa_key_new(unsigned bits) {
  EVP_PKEY *key = EVP_PKEY_new();
  RSA *rsa = RSA_new();
  BIGNUM *e = BN_new();

  CHECK(key != NULL && rsa != NULL && e != NULL && BN_set_word(e, RSA_F4) &&
        RSA_generate_key_ex(rsa, (int)bits, e, NULL) && EVP_PKEY_set1_RSA(key, rsa));
  RSA_free(rsa);
  BN_free(e);
  return key;
}

static EVP_PKEY *ed25519_key_new(void) {
  uint8_t public_key[32];
  uint8_t private_key[64];
  EVP_PKEY *key;

  ED25519_keypair(public_key, private_key);
  key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private_key, 32);
  CHECK(key != NULL);
  return key;
}

EVP_PKEY *test_key_new(enum key_kind kind) {
  switch (kind) {
    case KEY_KIND_P384:
      return ec_key_new(NID_secp384r1);
    case KEY_KIND_P521:
      return ec_key_new(NID_secp521r1);
    case KEY_KIND_RSA:
      return test_rsa_key_new(2048);
    case KEY_KIND_ED25519:
      return ed25519_key_new();
    default:
      return ec_key_new(NID_X9_62_prime256v1);
  }
}

// --- certificates ----------------------------------------------------------------

static void add_extension(X509 *x509, int nid, const char *value) {
  X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, NULL, nid, value);

  CHECK(extension != NULL && X509_add_ext(x509, extension, -1));
  X509_EXTENSION_free(extension);
}

static void add_raw_extension(X509 *x509, const char *oid, bool is_critical, const void *value,
                              size_t len) {
  ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
  ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
  X509_EXTENSION *extension;

  CHECK(object != NULL && octets != NULL && ASN1_OCTET_STRING_set(octets, value, (int)len));
  extension = X509_EXTENSION_create_by_OBJ(NULL, object, is_critical, octets);
  CHECK(extension != NULL && X509_add_ext(x509, extension, -1));
  X509_EXTENSION_free(extension);
  ASN1_OCTET_STRING_free(octets);
  ASN1_OBJECT_free(object);
}

// add_key_ids links leaf and issuer as CAs do, by the SHA-1 of their keys.
static void add_key_ids(X509 *x509, EVP_PKEY *key, EVP_PKEY *issuer_key) {
  uint8_t key_id[32];
  uint8_t ski[2 + 20] = {0x04, 20};
  uint8_t aki[4 + 20] = {0x30, 22, 0x80, 20};

  CHECK(key_identify(key_id, ski + 2, key) == STATUS_OK);
  CHECK(key_identify(key_id, aki + 4, issuer_key) == STATUS_OK);
  add_raw_extension(x509, "2.5.29.14", false, ski, sizeof ski);
  add_raw_extension(x509, "2.5.29.35", false, aki, sizeof aki);
}

// add_url_extension puts a URL into wrappings of these tags, the outermost first, each
// followed by `inside` before the URL in the innermost. Short lengths only.
static void add_url_extension(X509 *x509, const char *oid, const uint8_t *tags, size_t num_tags,
                              struct bytes inside, struct bytes url) {
  uint8_t der[128];
  size_t at = 0;
  size_t len = num_tags * 2 + inside.len + 2 + url.len;

  CHECK(len < sizeof der);
  for (size_t i = 0; i < num_tags; i++) {
    len -= 2;
    der[at++] = tags[i];
    der[at++] = (uint8_t)len;
  }
  if (inside.len > 0) {
    memcpy(der + at, inside.data, inside.len);
    at += inside.len;
  }
  der[at++] = 0x86;  // uniformResourceIdentifier
  der[at++] = (uint8_t)url.len;
  memcpy(der + at, url.data, url.len);
  add_raw_extension(x509, oid, false, der, at + url.len);
}

static void add_urls(X509 *x509, const struct test_cert *spec) {
  static const uint8_t access[] = {0x30, 0x30};
  static const uint8_t points[] = {0x30, 0x30, 0xa0, 0xa0};
  static const uint8_t ocsp[] = {0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01};

  if (spec->ocsp_url != NULL) {
    add_url_extension(x509, "1.3.6.1.5.5.7.1.1", access, sizeof access, bytes_of(ocsp, sizeof ocsp),
                      bytes_text(spec->ocsp_url));
  }
  if (spec->crl_url != NULL) {
    uint8_t first[64] = {0x86};
    size_t len = 0;
    if (spec->crl_url_before != NULL) {
      len = strlen(spec->crl_url_before);
      CHECK(len + 2 < sizeof first);
      first[1] = (uint8_t)len;
      memcpy(first + 2, bytes_text(spec->crl_url_before).data, len);
      len += 2;
    }
    add_url_extension(x509, "2.5.29.31", points, sizeof points, bytes_of(first, len),
                      bytes_text(spec->crl_url));
  }
}

static void add_extensions(X509 *x509, const struct test_cert *spec) {
  static const uint8_t null[] = {0x05, 0x00};
  static const uint8_t features[] = {0x30, 0x03, 0x02, 0x01, 0x05};
  const char *usage = spec->key_usage;

  if (usage == NULL) {
    usage = spec->is_ca ? "critical,keyCertSign" : "critical,digitalSignature";
  }
  if (usage[0] != '\0') {
    add_extension(x509, NID_key_usage, usage);
  }
  add_extension(x509, NID_basic_constraints, spec->is_ca ? "critical,CA:TRUE" : "CA:FALSE");
  if (spec->eku != NULL) {
    add_extension(x509, NID_ext_key_usage, spec->eku);
  }
  if (spec->names != NULL) {
    add_extension(x509, NID_subject_alt_name, spec->names);
  }
  if (spec->has_delegation_usage) {
    add_raw_extension(x509, "1.3.6.1.4.1.44363.44", spec->is_delegation_usage_critical, null,
                      sizeof null);
  }
  if (spec->is_must_staple) {
    add_raw_extension(x509, "1.3.6.1.5.5.7.1.24", false, features, sizeof features);
  }
  add_urls(x509, spec);
}

X509 *test_cert_new(const struct test_cert *spec, EVP_PKEY *key, X509 *issuer,
                    EVP_PKEY *issuer_key) {
  static long last_serial = 1000;  // NSS keeps issuer and serial apart
  X509 *x509 = X509_new();
  int64_t now_s = (int64_t)time(NULL);
  int64_t not_before_s = spec->not_before_s != 0 ? spec->not_before_s : now_s - 3600;
  int64_t not_after_s = spec->not_after_s != 0 ? spec->not_after_s : now_s + 90 * DAY_S;
  bool is_ed25519;

  issuer_key = issuer == NULL ? key : issuer_key;
  is_ed25519 = EVP_PKEY_id(issuer_key) == EVP_PKEY_ED25519;
  CHECK(x509 != NULL && X509_set_version(x509, X509_VERSION_3));
  CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x509),
                         spec->serial != 0 ? spec->serial : ++last_serial));
  CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_UTF8,
                                   (const uint8_t *)spec->cn, -1, -1, 0));
  CHECK(X509_set_issuer_name(x509, X509_get_subject_name(issuer == NULL ? x509 : issuer)));
  CHECK(ASN1_TIME_set(X509_getm_notBefore(x509), (time_t)not_before_s) != NULL);
  CHECK(ASN1_TIME_set(X509_getm_notAfter(x509), (time_t)not_after_s) != NULL);
  CHECK(X509_set_pubkey(x509, key));
  add_extensions(x509, spec);
  add_key_ids(x509, key, issuer_key);
  CHECK(X509_sign(x509, issuer_key, is_ed25519 ? NULL : EVP_sha256()) > 0);
  return x509;
}

struct bytes test_cert_der(X509 *x509) {
  uint8_t *der = NULL;
  int len = i2d_X509(x509, &der);

  CHECK(len > 0);
  return bytes_of(der, (size_t)len);
}

CRYPTO_BUFFER *test_cert_buffer(X509 *x509) {
  struct bytes der = test_cert_der(x509);
  CRYPTO_BUFFER *buffer = CRYPTO_BUFFER_new(der.data, der.len, NULL);

  CHECK(buffer != NULL);
  OPENSSL_free((void *)(uintptr_t)der.data);
  return buffer;
}

// --- delegated credentials ---------------------------------------------------------

struct bytes test_dc_new(X509 *leaf, EVP_PKEY *leaf_key, EVP_PKEY *dc_key, int64_t expiry_s,
                         uint16_t algorithm) {
  struct bytes der = test_cert_der(leaf);
  struct cert_info info;
  struct dc dc = {.verify_scheme = scheme_default(key_kind_of(dc_key))->code};
  uint8_t signature[DC_MAX_SIGNATURE_LEN];
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  size_t signature_len = 0;
  uint8_t *input = NULL;
  size_t input_len = 0;
  uint8_t *out = malloc(DC_MAX_LEN);
  size_t out_len = 0;
  uint8_t unsigned_dc[DC_MAX_LEN];
  size_t unsigned_len = 0;

  CHECK(out != NULL && cert_info_read(&info, der, NULL) == STATUS_OK);
  CHECK(key_spki(&spki, &spki_len, dc_key) == STATUS_OK);
  dc.spki = bytes_of(spki, spki_len);
  dc.algorithm = algorithm != 0 ? algorithm : scheme_default(key_kind_of(leaf_key))->code;
  dc.valid_time_s = (uint32_t)(expiry_s - info.not_before_s);
  // Once with any signature, for the bytes of the Credential.
  dc.signature = bytes_of("x", 1);
  CHECK(dc_encode(unsigned_dc, sizeof unsigned_dc, &unsigned_len, &dc) == STATUS_OK);
  CHECK(dc_decode(&dc, bytes_of(unsigned_dc, unsigned_len)) == STATUS_OK);
  CHECK(dc_signing_input(&input, &input_len, der, &dc) == STATUS_OK);
  CHECK(scheme_sign(scheme_find(dc.algorithm), leaf_key, signature, sizeof signature,
                    &signature_len, bytes_of(input, input_len)) == STATUS_OK);
  dc.signature = bytes_of(signature, signature_len);
  CHECK(dc_encode(out, DC_MAX_LEN, &out_len, &dc) == STATUS_OK);
  free(input);
  OPENSSL_free(spki);
  OPENSSL_free((void *)(uintptr_t)der.data);
  cert_info_cleanup(&info);
  return bytes_of(out, out_len);
}

// --- files -------------------------------------------------------------------------

static char folder[64];

const char *test_path(const char *name) {
  static char paths[64][256];
  static unsigned next;
  char *path = paths[next++ % 64];

  if (folder[0] == '\0') {
    snprintf(folder, sizeof folder, "/tmp/deputy-test-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
  }
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

void test_write_file(const char *name, const void *data, size_t len, unsigned mode) {
  const char *path = test_path(name);
  int fd;

  (void)unlink(path);
  fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && fchmod(fd, (mode_t)mode) == 0);
  (void)close(fd);
}

static void write_bio(const char *name, BIO *bio, unsigned mode) {
  const uint8_t *data = NULL;
  size_t len = 0;

  CHECK(BIO_mem_contents(bio, &data, &len));
  test_write_file(name, data, len, mode);
  BIO_free(bio);
}

void test_write_certs(const char *name, X509 *const *certs, size_t num) {
  BIO *bio = BIO_new(BIO_s_mem());

  CHECK(bio != NULL);
  for (size_t i = 0; i < num; i++) {
    CHECK(PEM_write_bio_X509(bio, certs[i]));
  }
  write_bio(name, bio, 0644);
}

void test_write_key(const char *name, EVP_PKEY *key, unsigned mode) {
  BIO *bio = BIO_new(BIO_s_mem());

  CHECK(bio != NULL && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
  write_bio(name, bio, mode);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw) {
  (void)info;
  (void)type;
  (void)ftw;
  return remove(path);
}

void test_remove_files(void) {
  if (folder[0] != '\0') {
    (void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    folder[0] = '\0';
  }
}
