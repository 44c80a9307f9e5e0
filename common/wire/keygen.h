// SPDX-License-Identifier: Apache-2.0
// keygen: asking a key server to make a key (docs/PROTOCOL.keyserver.md, section
// 13). Both ends of both payloads are in this file; no I/O, no allocation.
//
//   request   kind(1) label<1..64>            custom function KEYGEN_FUNCTION
//   reply     ski(20) spki<1..2^16-1>         spki is DER
//
// A label becomes the name of a file, so it is held to letters, digits, ".", "_"
// and "-", and begins with a letter or digit: no path can be made of it.
#ifndef DEPUTY_COMMON_WIRE_KEYGEN_H_
#define DEPUTY_COMMON_WIRE_KEYGEN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/frame.h"
#include "common/wire/scheme.h"

#define KEYGEN_FUNCTION "deputy.generate_key"  // item 0x13, with opcode FRAME_OP_CUSTOM
#define KEYGEN_MAX_LABEL_LEN 64u
#define KEYGEN_MAX_REQUEST_LEN (2u + KEYGEN_MAX_LABEL_LEN)
#define KEYGEN_MAX_REPLY_LEN (FRAME_SKI_LEN + 2u + SCHEME_MAX_SPKI_LEN)

enum keygen_kind {
  KEYGEN_P256 = 1,
  KEYGEN_P384 = 2,
  KEYGEN_RSA_2048 = 3,
  KEYGEN_RSA_3072 = 4,
  KEYGEN_RSA_4096 = 5,
  KEYGEN_ED25519 = 6,
};

const char *keygen_kind_name(enum keygen_kind kind);                         // "rsa2048"
enum status keygen_kind_from_name(enum keygen_kind *out, const char *name);  // STATUS_NOT_FOUND
enum key_kind keygen_key_kind(enum keygen_kind kind);
int keygen_bits(enum keygen_kind kind);  // of an RSA modulus; 0 for others

struct keygen_request {
  enum keygen_kind kind;
  struct bytes label;  // borrowed; valid
};

struct keygen_reply {
  uint8_t ski[FRAME_SKI_LEN];
  struct bytes spki;  // borrowed; not looked into
};

// keygen_label_is_good: may a key be called that?
bool keygen_label_is_good(struct bytes label);

// keygen_request_decode: STATUS_FORMAT for anything but one good request.
enum status keygen_request_decode(struct keygen_request *out, struct bytes in);
// keygen_request_encode: STATUS_FORMAT (kind or label), STATUS_LIMIT.
enum status keygen_request_encode(uint8_t *out, size_t max, size_t *out_len,
                                  const struct keygen_request *request);

// keygen_reply_decode: STATUS_FORMAT. keygen_reply_encode: STATUS_LIMIT.
enum status keygen_reply_decode(struct keygen_reply *out, struct bytes in);
enum status keygen_reply_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct keygen_reply *reply);

#endif  // DEPUTY_COMMON_WIRE_KEYGEN_H_
