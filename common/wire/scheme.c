// SPDX-License-Identifier: Apache-2.0
// The table of schemes, and signing by it. RSA and ECDSA go straight to their
// own functions with a digest on the stack: the EVP layer would add contexts
// that are allocated and freed for each signature.
#include "common/wire/scheme.h"

#include <limits.h>
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <string.h>

#include "common/wire/frame.h"

// clang-format off
static const struct scheme schemes[] = {
    {SSL_SIGN_ECDSA_SECP256R1_SHA256, "ecdsa_secp256r1_sha256", KEY_KIND_P256,    FRAME_OP_ECDSA_SHA256, 32, false, true},
    {SSL_SIGN_ECDSA_SECP384R1_SHA384, "ecdsa_secp384r1_sha384", KEY_KIND_P384,    FRAME_OP_ECDSA_SHA384, 48, false, true},
    {SSL_SIGN_ECDSA_SECP521R1_SHA512, "ecdsa_secp521r1_sha512", KEY_KIND_P521,    FRAME_OP_ECDSA_SHA512, 64, false, true},
    {SSL_SIGN_RSA_PSS_RSAE_SHA256,    "rsa_pss_rsae_sha256",    KEY_KIND_RSA,     FRAME_OP_PSS_SHA256,   32, true,  true},
    {SSL_SIGN_RSA_PSS_RSAE_SHA384,    "rsa_pss_rsae_sha384",    KEY_KIND_RSA,     FRAME_OP_PSS_SHA384,   48, true,  true},
    {SSL_SIGN_RSA_PSS_RSAE_SHA512,    "rsa_pss_rsae_sha512",    KEY_KIND_RSA,     FRAME_OP_PSS_SHA512,   64, true,  true},
    {SSL_SIGN_RSA_PKCS1_SHA256,       "rsa_pkcs1_sha256",       KEY_KIND_RSA,     FRAME_OP_RSA_SHA256,   32, false, false},
    {SSL_SIGN_RSA_PKCS1_SHA384,       "rsa_pkcs1_sha384",       KEY_KIND_RSA,     FRAME_OP_RSA_SHA384,   48, false, false},
    {SSL_SIGN_RSA_PKCS1_SHA512,       "rsa_pkcs1_sha512",       KEY_KIND_RSA,     FRAME_OP_RSA_SHA512,   64, false, false},
    {SSL_SIGN_ED25519,                "ed25519",                KEY_KIND_ED25519, FRAME_OP_ED25519,       0, false, true},
};
// clang-format on

#define NUM_SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

const struct scheme *scheme_find(uint16_t code) {
  for (size_t i = 0; i < NUM_SCHEMES; i++) {
    if (schemes[i].code == code) {
      return &schemes[i];
    }
  }
  return NULL;
}

const struct scheme *scheme_by_name(const char *name) {
  for (size_t i = 0; i < NUM_SCHEMES; i++) {
    if (strcmp(schemes[i].name, name) == 0) {
      return &schemes[i];
    }
  }
  return NULL;
}

static bool is_ec(enum key_kind kind) {
  return kind == KEY_KIND_P256 || kind == KEY_KIND_P384 || kind == KEY_KIND_P521;
}

bool scheme_fits_key(const struct scheme *scheme, enum key_kind kind) {
  return kind != KEY_KIND_NONE && (scheme->kind == kind || (is_ec(scheme->kind) && is_ec(kind)));
}

bool scheme_fits_tls13(const struct scheme *scheme, enum key_kind kind) {
  return scheme->may_sign_tls13 && scheme->kind == kind;
}

const struct scheme *scheme_by_opcode(uint8_t opcode, enum key_kind kind) {
  for (size_t i = 0; i < NUM_SCHEMES; i++) {
    if (schemes[i].opcode == opcode) {  // one row for each opcode
      return scheme_fits_key(&schemes[i], kind) ? &schemes[i] : NULL;
    }
  }
  return NULL;
}

static enum key_kind kind_of_curve(const EC_KEY *key) {
  switch (EC_GROUP_get_curve_name(EC_KEY_get0_group(key))) {
    case NID_X9_62_prime256v1:
      return KEY_KIND_P256;
    case NID_secp384r1:
      return KEY_KIND_P384;
    case NID_secp521r1:
      return KEY_KIND_P521;
    default:
      return KEY_KIND_NONE;
  }
}

enum key_kind key_kind_of(const EVP_PKEY *key) {
  switch (EVP_PKEY_id(key)) {
    case EVP_PKEY_EC:
      return kind_of_curve(EVP_PKEY_get0_EC_KEY(key));
    case EVP_PKEY_ED25519:
      return KEY_KIND_ED25519;
    case EVP_PKEY_RSA: {
      const int bits = EVP_PKEY_bits(key);
      return bits >= SCHEME_RSA_MIN_BITS && bits <= SCHEME_RSA_MAX_BITS ? KEY_KIND_RSA
                                                                        : KEY_KIND_NONE;
    }
    default:
      return KEY_KIND_NONE;
  }
}

enum key_kind key_kind_of_spki(struct bytes spki) {
  enum key_kind kind = KEY_KIND_NONE;
  EVP_PKEY *key = NULL;
  CBS cbs;

  // The length bounds the work of parsing before the key's own size is known.
  if (spki.len > SCHEME_MAX_SPKI_LEN) {
    return KEY_KIND_NONE;
  }
  CBS_init(&cbs, spki.data, spki.len);
  key = EVP_parse_public_key(&cbs);
  if (key != NULL && CBS_len(&cbs) == 0) {
    kind = key_kind_of(key);
  }
  EVP_PKEY_free(key);
  ERR_clear_error();  // the answer says it all
  return kind;
}

const struct scheme *scheme_default(enum key_kind kind) {
  static const uint16_t codes[] = {
      [KEY_KIND_P256] = SSL_SIGN_ECDSA_SECP256R1_SHA256,
      [KEY_KIND_P384] = SSL_SIGN_ECDSA_SECP384R1_SHA384,
      [KEY_KIND_P521] = SSL_SIGN_ECDSA_SECP521R1_SHA512,
      [KEY_KIND_RSA] = SSL_SIGN_RSA_PSS_RSAE_SHA256,
      [KEY_KIND_ED25519] = SSL_SIGN_ED25519,
  };
  return kind == KEY_KIND_NONE ? NULL : scheme_find(codes[kind]);
}

const char *key_kind_name(enum key_kind kind) {
  switch (kind) {
    case KEY_KIND_P256:
      return "p256";
    case KEY_KIND_P384:
      return "p384";
    case KEY_KIND_P521:
      return "p521";
    case KEY_KIND_RSA:
      return "rsa";
    case KEY_KIND_ED25519:
      return "ed25519";
    case KEY_KIND_NONE:
    default:
      return "none";
  }
}

enum status scheme_digest(const struct scheme *scheme, uint8_t out[64], size_t *out_len,
                          struct bytes message) {
  *out_len = scheme->digest_len;
  switch (scheme->digest_len) {
    case SHA256_DIGEST_LENGTH:
      SHA256(message.data, message.len, out);
      return STATUS_OK;
    case SHA384_DIGEST_LENGTH:
      SHA384(message.data, message.len, out);
      return STATUS_OK;
    case SHA512_DIGEST_LENGTH:
      SHA512(message.data, message.len, out);
      return STATUS_OK;
    default:
      return STATUS_OK;  // Ed25519 hashes by itself
  }
}

static const EVP_MD *md_of(const struct scheme *scheme) {
  switch (scheme->digest_len) {
    case SHA256_DIGEST_LENGTH:
      return EVP_sha256();
    case SHA384_DIGEST_LENGTH:
      return EVP_sha384();
    default:
      return EVP_sha512();
  }
}

static enum status sign_ecdsa(EVP_PKEY *pkey, uint8_t *out, size_t max, size_t *out_len,
                              struct bytes digest) {
  const EC_KEY *key = EVP_PKEY_get0_EC_KEY(pkey);
  unsigned len = 0;
  if (max < ECDSA_size(key)) {
    return STATUS_LIMIT;
  }
  if (!ECDSA_sign(0, digest.data, digest.len, out, &len, key)) {
    return STATUS_CRYPTO;
  }
  *out_len = len;
  return STATUS_OK;
}

static enum status sign_rsa(const struct scheme *scheme, EVP_PKEY *pkey, uint8_t *out, size_t max,
                            size_t *out_len, struct bytes digest) {
  RSA *key = EVP_PKEY_get0_RSA(pkey);
  const EVP_MD *md = md_of(scheme);
  unsigned len = 0;
  if (max < RSA_size(key)) {
    return STATUS_LIMIT;
  }
  if (scheme->is_pss) {
    // RFC 8446, section 4.2.3: the salt is as long as the digest, MGF1 uses the
    // same hash.
    if (!RSA_sign_pss_mgf1(key, out_len, out, max, digest.data, digest.len, md, md,
                           (int)scheme->digest_len)) {
      *out_len = 0;
      return STATUS_CRYPTO;
    }
    return STATUS_OK;
  }
  if (!RSA_sign(EVP_MD_type(md), digest.data, (unsigned)digest.len, out, &len, key)) {
    return STATUS_CRYPTO;
  }
  *out_len = len;
  return STATUS_OK;
}

// sign_ed25519 goes by EVP: only there is the key kept in its expanded form.
static enum status sign_ed25519(EVP_PKEY *key, uint8_t *out, size_t max, size_t *out_len,
                                struct bytes message) {
  enum status st = STATUS_OK;
  EVP_MD_CTX ctx;
  size_t len = max;

  EVP_MD_CTX_init(&ctx);
  if (max < SCHEME_ED25519_SIGNATURE_LEN) {
    TRY(STATUS_LIMIT);
  }
  if (!EVP_DigestSignInit(&ctx, NULL, NULL, NULL, key) ||
      !EVP_DigestSign(&ctx, out, &len, message.data, message.len)) {
    TRY(STATUS_CRYPTO);
  }
  *out_len = len;

out:
  EVP_MD_CTX_cleanup(&ctx);
  return st;
}

enum status scheme_sign_digest(const struct scheme *scheme, EVP_PKEY *key, uint8_t *out, size_t max,
                               size_t *out_len, struct bytes digest) {
  const enum key_kind kind = key_kind_of(key);
  *out_len = 0;
  if (!scheme_fits_key(scheme, kind)) {
    return STATUS_CRYPTO;
  }
  if (kind == KEY_KIND_ED25519) {
    return sign_ed25519(key, out, max, out_len, digest);
  }
  if (digest.len != scheme->digest_len) {
    return STATUS_CRYPTO;
  }
  if (kind == KEY_KIND_RSA) {
    return sign_rsa(scheme, key, out, max, out_len, digest);
  }
  return sign_ecdsa(key, out, max, out_len, digest);
}

enum status scheme_sign(const struct scheme *scheme, EVP_PKEY *key, uint8_t *out, size_t max,
                        size_t *out_len, struct bytes message) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  size_t digest_len = 0;
  enum status st;
  if (scheme->digest_len == 0) {
    return scheme_sign_digest(scheme, key, out, max, out_len, message);
  }
  *out_len = 0;
  st = scheme_digest(scheme, digest, &digest_len, message);
  if (st != STATUS_OK) {
    return st;
  }
  return scheme_sign_digest(scheme, key, out, max, out_len, bytes_of(digest, digest_len));
}

static bool verify_ed25519(EVP_PKEY *key, struct bytes message, struct bytes signature) {
  EVP_MD_CTX ctx;
  bool is_good;
  EVP_MD_CTX_init(&ctx);
  is_good = EVP_DigestVerifyInit(&ctx, NULL, NULL, NULL, key) &&
            EVP_DigestVerify(&ctx, signature.data, signature.len, message.data, message.len);
  EVP_MD_CTX_cleanup(&ctx);
  return is_good;
}

static bool verify_rsa(const struct scheme *scheme, EVP_PKEY *pkey, struct bytes digest,
                       struct bytes signature) {
  RSA *key = EVP_PKEY_get0_RSA(pkey);
  const EVP_MD *md = md_of(scheme);
  if (scheme->is_pss) {
    return RSA_verify_pss_mgf1(key, digest.data, digest.len, md, md, (int)scheme->digest_len,
                               signature.data, signature.len);
  }
  return RSA_verify(EVP_MD_type(md), digest.data, digest.len, signature.data, signature.len, key);
}

enum status scheme_verify_digest(const struct scheme *scheme, EVP_PKEY *key, struct bytes digest,
                                 struct bytes signature) {
  const enum key_kind kind = key_kind_of(key);
  bool is_good;
  if (!scheme_fits_key(scheme, kind) ||
      (scheme->digest_len != 0 && digest.len != scheme->digest_len)) {
    return STATUS_CRYPTO;
  }
  if (kind == KEY_KIND_ED25519) {
    is_good = verify_ed25519(key, digest, signature);
  } else if (kind == KEY_KIND_RSA) {
    is_good = verify_rsa(scheme, key, digest, signature);
  } else {
    is_good = ECDSA_verify(0, digest.data, digest.len, signature.data, signature.len,
                           EVP_PKEY_get0_EC_KEY(key));
  }
  return is_good ? STATUS_OK : STATUS_CRYPTO;
}

enum status scheme_verify(const struct scheme *scheme, EVP_PKEY *key, struct bytes message,
                          struct bytes signature) {
  uint8_t data[EVP_MAX_MD_SIZE];
  struct bytes digest = {data, 0};
  enum status st;
  if (scheme->digest_len == 0) {
    return scheme_verify_digest(scheme, key, message, signature);
  }
  st = scheme_digest(scheme, data, &digest.len, message);
  if (st != STATUS_OK) {
    return st;
  }
  return scheme_verify_digest(scheme, key, digest, signature);
}
