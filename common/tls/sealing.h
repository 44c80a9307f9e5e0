// SPDX-License-Identifier: Apache-2.0
// sealing: private keys that only chosen key servers can open (docs/SEALED-KEYS.md).
// The private key is encrypted once under a content key, which is sealed to each
// recipient by HPKE (RFC 9180, base mode; X25519, HKDF-SHA256, AES-256-GCM). The
// file's format is common/wire/sealed_key.h. Used by deputyctl, which seals, and by
// the key server, which opens.
//
// What it promises: nobody without a recipient's identity reads the key, and nothing
// in the file (policy, label, recipients) can be changed without a recipient's
// noticing. What it does not: that the key came from anybody in particular. Who can
// write to a key folder can put a key of his own there, sealed or not.
//
// Threads: any, on objects of their own.
#ifndef DEPUTY_COMMON_TLS_SEALING_H_
#define DEPUTY_COMMON_TLS_SEALING_H_

#include <openssl/base.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "common/wire/sealed_key.h"

#define SEALING_PUBLIC_KEY_LEN 32u      // X25519
#define SEALING_IDENTITY_MAX_LEN 4096u  // of its file
#define SEALING_PUBLIC_TEXT_LEN 45      // base64 with its terminator

// A key server's own key pair: a PKCS#8 PEM file like any X25519 key's.
struct sealing_identity;

// sealing_identity_read reads the file, which must be readable by its owner only.
// STATUS_SYSTEM, STATUS_REFUSED (mode, encrypted), STATUS_FORMAT, STATUS_MEMORY;
// the sentence names the file and the remedy.
enum status sealing_identity_read(struct sealing_identity **out, const char *path,
                                  struct errmsg *err);
// sealing_identity_new makes one; *out_pem is the file to be.
enum status sealing_identity_new(struct sealing_identity **out, struct secret *out_pem,
                                 struct errmsg *err);
void sealing_identity_free(struct sealing_identity *identity);  // wiped; NULL is allowed

// The public half, borrowed: SEALING_PUBLIC_KEY_LEN and SEALED_KEY_ID_LEN bytes.
const uint8_t *sealing_identity_public(const struct sealing_identity *identity);
const uint8_t *sealing_identity_id(const struct sealing_identity *identity);

// sealing_public_parse reads the base64 of a raw key, or of its SubjectPublicKeyInfo
// (a PEM file without its first and last line). STATUS_FORMAT.
enum status sealing_public_parse(uint8_t out[SEALING_PUBLIC_KEY_LEN], const char *text);
void sealing_public_format(char out[SEALING_PUBLIC_TEXT_LEN],
                           const uint8_t key[SEALING_PUBLIC_KEY_LEN]);
void sealing_key_id(uint8_t out[SEALED_KEY_ID_LEN], const uint8_t key[SEALING_PUBLIC_KEY_LEN]);

struct sealing_recipient {
  const char *name;  // as keygen_label_is_good
  uint8_t public_key[SEALING_PUBLIC_KEY_LEN];
};

// sealing_seal writes a new, terminated text (free) with `key` sealed to the
// recipients under a fresh content key. It does not ask whether the policy admits
// them: the caller chose them by it.
//   STATUS_FORMAT  the policy is none, or label or a name is not as it must be
//   STATUS_LIMIT   no recipient, or more than SEALED_KEY_MAX_RECIPIENTS
//   STATUS_CRYPTO  a public key that nothing can be sealed to
//   STATUS_MEMORY
enum status sealing_seal(char **out, size_t *out_len, const EVP_PKEY *key, const char *label,
                         struct bytes policy, const struct sealing_recipient *recipients,
                         size_t num, struct errmsg *err);

// sealing_read takes a file apart: *out_sealed borrows from *out_bytes; free both,
// also after a failure. As sealed_key_unarmour and sealed_key_parse; err names no file.
enum status sealing_read(struct sealed_key **out_sealed, uint8_t **out_bytes, struct bytes text,
                         struct errmsg *err);

// sealing_open returns new the private key, which is that of the public key in the
// head. The policy is the caller's business.
//   STATUS_NOT_FOUND  it is not sealed to this identity
//   STATUS_CRYPTO     it has been changed since it was sealed, or the two keys are no pair
//   STATUS_FORMAT     what was sealed is no private key that is signed with here
//   STATUS_MEMORY
enum status sealing_open(EVP_PKEY **out, const struct sealed_key *sealed,
                         const struct sealing_identity *identity, struct errmsg *err);

#endif  // DEPUTY_COMMON_TLS_SEALING_H_
