// SPDX-License-Identifier: Apache-2.0
// scheme: the TLS SignatureSchemes this project signs with, and everything a
// scheme decides: its name, its hash, the kind of key, the key server's opcode.
// RFC 8446 section 4.2.3; docs/PROTOCOL.keyserver.md for the opcodes.
//
// Curve and hash. TLS 1.3 ties an ECDSA scheme to one curve. TLS 1.2 does not
// (RFC 8446, section 4.2.3, "ecdsa_..."; RFC 5246, section 7.4.1.4.1): there the
// same code point means only the hash, and a P-256 key may sign with SHA-384.
// The same holds for opcodes, which name a hash and no curve. So a row here is
// a *hash with a family of keys*, and two questions are asked of it:
//   scheme_fits_key    can such a signature be made at all? any curve for ECDSA
//   scheme_fits_tls13  may it stand in a CertificateVerify or a delegated
//                      credential? that very curve, and no PKCS#1 v1.5
// scheme_sign and scheme_verify ask the first. Whoever speaks TLS 1.3 or checks
// a credential asks the second before.
#ifndef DEPUTY_COMMON_WIRE_SCHEME_H_
#define DEPUTY_COMMON_WIRE_SCHEME_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define SCHEME_RSA_MIN_BITS 2048        // a shorter key is of no kind
#define SCHEME_RSA_MAX_BITS 8192        // a longer one costs too much to use
#define SCHEME_MAX_SPKI_LEN 1536u       // room for the longest RSA key
#define SCHEME_MAX_SIGNATURE_LEN 1024u  // of any key that has a kind
#define SCHEME_ED25519_SIGNATURE_LEN 64u

enum key_kind {
  KEY_KIND_NONE,
  KEY_KIND_P256,
  KEY_KIND_P384,
  KEY_KIND_P521,
  KEY_KIND_RSA,
  KEY_KIND_ED25519
};

struct scheme {
  uint16_t code;       // SSL_SIGN_...
  const char *name;    // "ecdsa_secp256r1_sha256"
  enum key_kind kind;  // the key a TLS 1.3 CertificateVerify needs; ECDSA of TLS 1.2
                       // is any EC key with this hash
  uint8_t opcode;      // enum frame_opcode; each opcode has one row
  size_t digest_len;   // 0: the message itself is signed (Ed25519)
  bool is_pss;
  bool may_sign_tls13;  // rsa_pkcs1_* may not
};

// scheme_find / _by_name borrow a static row or return NULL.
const struct scheme *scheme_find(uint16_t code);
const struct scheme *scheme_by_name(const char *name);
// scheme_default is what such a key signs a TLS 1.3 handshake with: a curve fixes the
// hash (RFC 8446, section 4.2.3), RSA gets rsa_pss_rsae_sha256. KEY_KIND_NONE: NULL.
const struct scheme *scheme_default(enum key_kind kind);

// scheme_by_opcode borrows the row that signs for `opcode` with a key of `kind`,
// or returns NULL when such a key cannot (RSA opcode, EC key), or we will not
// (SHA-1, raw RSA). For ECDSA the opcode alone picks the row: ECDSA_SHA384 with
// a P-256 key gives ecdsa_secp384r1_sha384, which scheme_sign applies to that
// key as it is (TLS 1.2, foreign clients). When the message is a TLS 1.3 or
// credential input, ask scheme_fits_tls13 too.
const struct scheme *scheme_by_opcode(uint8_t opcode, enum key_kind kind);

// scheme_fits_key, scheme_fits_tls13: see above.
bool scheme_fits_key(const struct scheme *scheme, enum key_kind kind);
bool scheme_fits_tls13(const struct scheme *scheme, enum key_kind kind);

// scheme_digest hashes `message` with the scheme's hash; out holds 64 bytes.
// For Ed25519 out_len is 0.
enum status scheme_digest(const struct scheme *scheme, uint8_t out[64], size_t *out_len,
                          struct bytes message);

// scheme_sign / scheme_verify sign or check a whole message with a key in
// memory (DC keys, tests, the key server). scheme_sign: STATUS_CRYPTO (also a
// key that does not fit), STATUS_LIMIT (max is less than the longest signature
// of this key; SCHEME_MAX_SIGNATURE_LEN is always enough). scheme_verify:
// STATUS_CRYPTO when it does not. Both leave BoringSSL's reason in its queue.
// Threads: any number may use one key at once.
enum status scheme_sign(const struct scheme *scheme, EVP_PKEY *key, uint8_t *out, size_t max,
                        size_t *out_len, struct bytes message);
enum status scheme_verify(const struct scheme *scheme, EVP_PKEY *key, struct bytes message,
                          struct bytes signature);

// scheme_sign_digest is scheme_sign for one who has hashed already (the key
// server, which compares digests first) or has nothing else (blind clients).
// `digest` has exactly digest_len bytes, else STATUS_CRYPTO; for Ed25519 it is
// the whole message.
enum status scheme_sign_digest(const struct scheme *scheme, EVP_PKEY *key, uint8_t *out, size_t max,
                               size_t *out_len, struct bytes digest);

// scheme_verify_digest is the other end of scheme_sign_digest.
enum status scheme_verify_digest(const struct scheme *scheme, EVP_PKEY *key, struct bytes digest,
                                 struct bytes signature);

// key_kind_of tells what a key is; KEY_KIND_NONE for what we do not use.
enum key_kind key_kind_of(const EVP_PKEY *key);
// key_kind_of_spki is the same for the DER of one SubjectPublicKeyInfo with
// nothing behind it; KEY_KIND_NONE also when it is none.
enum key_kind key_kind_of_spki(struct bytes spki);
const char *key_kind_name(enum key_kind kind);

#endif  // DEPUTY_COMMON_WIRE_SCHEME_H_
