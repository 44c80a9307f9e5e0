// SPDX-License-Identifier: Apache-2.0
// frame: the packets between a key server and those who ask it for signatures
// (docs/PROTOCOL.keyserver.md). Bytes in, struct out, and back; no I/O, no
// allocation. Filled by keyserver/ and common/keyclient; both ends of each
// packet are in this file.
//
//   header   major(1) minor(1) length(2) id(4)            big endian
//   body     items: tag(1) length(2) value
//
// Tolerated on receipt: items in any order, unknown tags (also repeated), one
// or two stray bytes at the end, any minor version. Refused: a known tag twice,
// an item past the end, wrong lengths of fixed items.
#ifndef DEPUTY_COMMON_WIRE_FRAME_H_
#define DEPUTY_COMMON_WIRE_FRAME_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define FRAME_HEADER_LEN 8u
#define FRAME_MAX_BODY_LEN 65535u
#define FRAME_MAX_LEN (FRAME_HEADER_LEN + FRAME_MAX_BODY_LEN)
#define FRAME_PAD_TO_LEN 1024u  // shorter packets are padded to this
#define FRAME_VERSION_MAJOR 1u
#define FRAME_SKI_LEN 20u
#define FRAME_DIGEST_LEN 32u

enum frame_tag {
  FRAME_TAG_KEY_DIGEST = 0x01,
  FRAME_TAG_SNI = 0x02,
  FRAME_TAG_CLIENT_IP = 0x03,
  FRAME_TAG_SKI = 0x04,
  FRAME_TAG_SERVER_IP = 0x05,
  FRAME_TAG_CERT_ID = 0x06,
  FRAME_TAG_OPCODE = 0x11,
  FRAME_TAG_PAYLOAD = 0x12,
  FRAME_TAG_CUSTOM = 0x13,
  FRAME_TAG_EXTRA = 0x14,  // here: the whole message to be signed
  FRAME_TAG_SPAN = 0x15,
  FRAME_TAG_CONTEXT = 0x16,
  FRAME_TAG_REGION = 0x17,
  FRAME_TAG_PADDING = 0x20,
};

enum frame_opcode {
  FRAME_OP_RSA_DECRYPT = 0x01,
  FRAME_OP_RSA_MD5SHA1 = 0x02,
  FRAME_OP_RSA_SHA1 = 0x03,
  FRAME_OP_RSA_SHA224 = 0x04,
  FRAME_OP_RSA_SHA256 = 0x05,
  FRAME_OP_RSA_SHA384 = 0x06,
  FRAME_OP_RSA_SHA512 = 0x07,
  FRAME_OP_ECDSA_MD5SHA1 = 0x12,
  FRAME_OP_ECDSA_SHA1 = 0x13,
  FRAME_OP_ECDSA_SHA224 = 0x14,
  FRAME_OP_ECDSA_SHA256 = 0x15,
  FRAME_OP_ECDSA_SHA384 = 0x16,
  FRAME_OP_ECDSA_SHA512 = 0x17,
  FRAME_OP_ED25519 = 0x18,
  FRAME_OP_SEAL = 0x21,
  FRAME_OP_UNSEAL = 0x22,
  FRAME_OP_RPC = 0x23,
  FRAME_OP_CUSTOM = 0x24,
  FRAME_OP_PSS_SHA256 = 0x35,
  FRAME_OP_PSS_SHA384 = 0x36,
  FRAME_OP_PSS_SHA512 = 0x37,
  FRAME_OP_SUCCESS = 0xF0,
  FRAME_OP_PING = 0xF1,
  FRAME_OP_PONG = 0xF2,
  FRAME_OP_ERROR = 0xFF,
};

// The one payload byte of an error packet. Those from 0x40 on are ours; a
// foreign client takes them for "some error", as it must.
enum frame_error {
  FRAME_ERROR_NONE = 0x00,
  FRAME_ERROR_CRYPTOGRAPHY = 0x01,  // signing failed, digest of the wrong length
  FRAME_ERROR_KEY_NOT_FOUND = 0x02,
  FRAME_ERROR_READ = 0x03,
  FRAME_ERROR_VERSION = 0x04,  // major version is not 1
  FRAME_ERROR_BAD_OPCODE = 0x05,
  FRAME_ERROR_UNEXPECTED_OPCODE = 0x06,  // a response's opcode in a request
  FRAME_ERROR_FORMAT = 0x07,             // the packet is malformed
  FRAME_ERROR_INTERNAL = 0x08,           // no SKI, or a fault of ours
  FRAME_ERROR_CERT_NOT_FOUND = 0x09,
  FRAME_ERROR_EXPIRED = 0x0A,
  FRAME_ERROR_REMOTE_CONFIG = 0x0B,
  FRAME_ERROR_NOT_AUTHORISED = 0x40,  // this client, this key, this purpose: no
  FRAME_ERROR_BAD_MESSAGE = 0x41,     // the message is none that we sign, or not of this key
  FRAME_ERROR_RATE = 0x42,            // over the client's rate; later
  FRAME_ERROR_BUSY = 0x43,            // over our own limits or draining; another server
};

// frame_error_name: a word for logs and metrics, "not_authorised".
const char *frame_error_name(enum frame_error code);
// frame_opcode_name: "ecdsa_sha256"; "unknown" for others.
const char *frame_opcode_name(uint8_t opcode);
// frame_error_may_failover: could another server answer this request better?
bool frame_error_may_failover(enum frame_error code);

struct frame_header {
  uint8_t major;
  uint8_t minor;
  uint16_t body_len;
  uint32_t id;
};

// A request or response. All runs are borrowed: from the caller when encoding,
// from the packet when decoding. An absent item has data NULL; a present empty
// one has data non-NULL and len 0.
struct frame {
  uint32_t id;
  bool has_opcode;
  uint8_t opcode;
  struct bytes payload;
  struct bytes extra;
  struct bytes ski;         // FRAME_SKI_LEN bytes, else absent (wrong length: ignored)
  struct bytes key_digest;  // FRAME_DIGEST_LEN bytes, else absent
  struct bytes client_ip;   // 4 or 16
  struct bytes server_ip;   // 4 or 16
  struct bytes sni;
  struct bytes cert_id;
  struct bytes custom;
  bool has_region;
  uint8_t region;
};

// frame_header_decode reads FRAME_HEADER_LEN bytes. It cannot fail: the version
// is the caller's to judge.
void frame_header_decode(struct frame_header *out, const uint8_t data[FRAME_HEADER_LEN]);

// frame_body_decode reads a body. STATUS_FORMAT when malformed (answer
// FRAME_ERROR_FORMAT); out->id is the caller's to fill from the header.
enum status frame_body_decode(struct frame *out, struct bytes body);

// frame_encode writes header and items in the usual order (11, 12, 14, 04, 01,
// 03, 05, 02, 06, 13, 17, 20) with padding to FRAME_PAD_TO_LEN. Empty or absent
// runs are left out. STATUS_LIMIT when it would not fit `max` or the format.
enum status frame_encode(uint8_t *out, size_t max, size_t *out_len, const struct frame *frame);

// frame_encode_response writes a success/pong (payload) packet;
// frame_encode_error an error packet.
enum status frame_encode_response(uint8_t *out, size_t max, size_t *out_len, uint32_t id,
                                  uint8_t opcode, struct bytes payload);
enum status frame_encode_error(uint8_t *out, size_t max, size_t *out_len, uint32_t id,
                               enum frame_error code);

#endif  // DEPUTY_COMMON_WIRE_FRAME_H_
