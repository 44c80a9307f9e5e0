// SPDX-License-Identifier: Apache-2.0
// scheme: the TLS SignatureSchemes this project signs with, and everything a
// scheme decides: its name, its hash, the kind of key, the key server's opcode.
// RFC 8446 section 4.2.3; docs/PROTOCOL.keyserver.md for the opcodes.
#ifndef DEPUTY_COMMON_WIRE_SCHEME_H_
#define DEPUTY_COMMON_WIRE_SCHEME_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

enum key_kind { KEY_KIND_NONE, KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521, KEY_KIND_RSA, KEY_KIND_ED25519 };

struct scheme {
  uint16_t code;          // SSL_SIGN_...
  const char *name;       // "ecdsa_secp256r1_sha256"
  enum key_kind kind;     // the key a TLS 1.3 CertificateVerify needs; ECDSA of TLS 1.2
                          // is any EC key with this hash
  uint8_t opcode;         // enum frame_opcode
  size_t digest_len;      // 0: the message itself is signed (Ed25519)
  bool is_pss;
  bool may_sign_tls13;    // rsa_pkcs1_* may not
};

// scheme_find / _by_name / _by_opcode borrow a static row or return NULL.
const struct scheme *scheme_find(uint16_t code);
const struct scheme *scheme_by_name(const char *name);
const struct scheme *scheme_by_opcode(uint8_t opcode, enum key_kind kind);

// scheme_digest hashes `message` with the scheme's hash; out holds 64 bytes.
// For Ed25519 out_len is 0.
enum status scheme_digest(const struct scheme *scheme, uint8_t out[64], size_t *out_len,
                          struct bytes message);

// scheme_sign / scheme_verify sign or check a whole message with a key in
// memory (DC keys, tests, the key server). scheme_sign: STATUS_CRYPTO,
// STATUS_LIMIT (max too small). scheme_verify: STATUS_CRYPTO when it does not.
enum status scheme_sign(const struct scheme *scheme, EVP_PKEY *key, uint8_t *out, size_t max,
                        size_t *out_len, struct bytes message);
enum status scheme_verify(const struct scheme *scheme, EVP_PKEY *key, struct bytes message,
                          struct bytes signature);

// key_kind_of tells what a key is; KEY_KIND_NONE for what we do not use.
enum key_kind key_kind_of(const EVP_PKEY *key);
const char *key_kind_name(enum key_kind kind);

#endif  // DEPUTY_COMMON_WIRE_SCHEME_H_
