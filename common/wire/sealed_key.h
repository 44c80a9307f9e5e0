// SPDX-License-Identifier: Apache-2.0
// sealed_key: the file that holds a private key which only the key servers that a
// policy admits can open (docs/SEALED-KEYS.md, "The file"). Both directions, and
// the armour around them; no I/O, no cryptography: common/tls/sealing.h seals and
// opens.
//
//   file       -----BEGIN DEPUTY SEALED KEY-----, base64, -----END ...
//   sealed     head recipients nonce(12) ciphertext<17..2^16-1>
//   head       "DPSEALED" version(1)=1 label<1..64> policy<1..1024> spki<1..1536>
//   recipients num(2) num * (name<1..64> key_id(32) enc(32) content_key(48))
//
// Lengths of label and name have one byte, the others two, most significant first.
// Version 1 is X25519, HKDF-SHA256 and AES-256-GCM throughout; another suite would
// be another version, so there is nothing to talk anybody down to.
#ifndef DEPUTY_COMMON_WIRE_SEALED_KEY_H_
#define DEPUTY_COMMON_WIRE_SEALED_KEY_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/wire/keygen.h"
#include "common/wire/region_policy.h"
#include "common/wire/scheme.h"

#define SEALED_KEY_VERSION 1
#define SEALED_KEY_MAX_RECIPIENTS 256u
#define SEALED_KEY_ID_LEN 32u  // SHA-256 of the recipient's public key
#define SEALED_KEY_ENC_LEN 32u
#define SEALED_KEY_TAG_LEN 16u
#define SEALED_KEY_CONTENT_KEY_LEN 32u
#define SEALED_KEY_NONCE_LEN 12u
#define SEALED_KEY_MAX_CIPHERTEXT_LEN (16u << 10)  // PKCS#8 of RSA-8192 takes 4.7 KB
#define SEALED_KEY_MAX_NAME_LEN KEYGEN_MAX_LABEL_LEN
#define SEALED_KEY_RECIPIENT_LEN \
  (SEALED_KEY_ID_LEN + SEALED_KEY_ENC_LEN + SEALED_KEY_CONTENT_KEY_LEN + SEALED_KEY_TAG_LEN)
#define SEALED_KEY_MAX_LEN                                                                 \
  (32u + SEALED_KEY_MAX_NAME_LEN + REGION_POLICY_MAX_LEN + SCHEME_MAX_SPKI_LEN +           \
   SEALED_KEY_MAX_RECIPIENTS * (1u + SEALED_KEY_MAX_NAME_LEN + SEALED_KEY_RECIPIENT_LEN) + \
   SEALED_KEY_MAX_CIPHERTEXT_LEN)
#define SEALED_KEY_FILE_MAX_LEN (128u << 10)  // with armour; blanks count

struct sealed_recipient {
  struct bytes name;           // for people; as keygen_label_is_good
  const uint8_t *key_id;       // SEALED_KEY_ID_LEN
  const uint8_t *enc;          // SEALED_KEY_ENC_LEN: RFC 9180, section 4
  const uint8_t *content_key;  // sealed: SEALED_KEY_CONTENT_KEY_LEN and a tag
};

// All of it is borrowed from the bytes that were parsed, but for `policy`. Too
// large for a stack.
struct sealed_key {
  struct bytes label;  // as keygen_label_is_good
  struct bytes policy_text;
  struct region_policy policy;
  struct bytes spki;  // not looked into
  struct sealed_recipient recipients[SEALED_KEY_MAX_RECIPIENTS];
  size_t num_recipients;
  const uint8_t *nonce;
  struct bytes ciphertext;
  struct bytes head;   // associated data of each content key
  struct bytes bound;  // all before the ciphertext: associated data of the private key
};

// sealed_key_parse reads what is inside the armour. STATUS_FORMAT: damaged, cut, of
// another version, or with a policy that is none; STATUS_LIMIT. err has the sentence.
enum status sealed_key_parse(struct sealed_key *out, struct bytes in, struct errmsg *err);

// sealed_key_encode writes label, policy_text, spki, recipients, nonce and
// ciphertext; `max` of SEALED_KEY_MAX_LEN is always enough. It does not judge:
// sealed_key_parse does. STATUS_LIMIT.
enum status sealed_key_encode(uint8_t *out, size_t max, size_t *out_len,
                              const struct sealed_key *sealed);

// sealed_key_unarmour returns new memory (free) with what is between the lines.
// Nothing but blanks may be around them. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status sealed_key_unarmour(uint8_t **out, size_t *out_len, struct bytes text,
                                struct errmsg *err);

// sealed_key_armour returns a new, terminated text. STATUS_MEMORY.
enum status sealed_key_armour(char **out, size_t *out_len, struct bytes in);

// sealed_key_find borrows the recipient with this key id, or returns NULL.
const struct sealed_recipient *sealed_key_find(const struct sealed_key *sealed,
                                               const uint8_t key_id[SEALED_KEY_ID_LEN]);

#endif  // DEPUTY_COMMON_WIRE_SEALED_KEY_H_
