// SPDX-License-Identifier: Apache-2.0
// Packets of the key server's protocol: docs/PROTOCOL.keyserver.md, sections 2
// to 5. No allocation: items are written into the caller's buffer and read in place.
#include "common/wire/frame.h"

#include <openssl/bytestring.h>

#include "common/wire/writer.h"

#define ITEM_HEADER_LEN 3u
#define MAX_STRAY_LEN 2u  // bytes after the last item that cannot be an item
#define IPV4_LEN 4u
#define IPV6_LEN 16u

const char *frame_error_name(enum frame_error code) {
  switch (code) {
    case FRAME_ERROR_NONE:
      return "none";
    case FRAME_ERROR_CRYPTOGRAPHY:
      return "cryptography";
    case FRAME_ERROR_KEY_NOT_FOUND:
      return "key_not_found";
    case FRAME_ERROR_READ:
      return "read";
    case FRAME_ERROR_VERSION:
      return "version";
    case FRAME_ERROR_BAD_OPCODE:
      return "bad_opcode";
    case FRAME_ERROR_UNEXPECTED_OPCODE:
      return "unexpected_opcode";
    case FRAME_ERROR_FORMAT:
      return "format";
    case FRAME_ERROR_INTERNAL:
      return "internal";
    case FRAME_ERROR_CERT_NOT_FOUND:
      return "cert_not_found";
    case FRAME_ERROR_EXPIRED:
      return "expired";
    case FRAME_ERROR_REMOTE_CONFIG:
      return "remote_config";
    case FRAME_ERROR_NOT_AUTHORISED:
      return "not_authorised";
    case FRAME_ERROR_BAD_MESSAGE:
      return "bad_message";
    case FRAME_ERROR_RATE:
      return "rate";
    case FRAME_ERROR_BUSY:
      return "busy";
    default:
      return "unknown";  // a foreign server may send any byte
  }
}

static const struct opcode_name {
  uint8_t opcode;
  const char *name;
} opcode_names[] = {
    {FRAME_OP_RSA_DECRYPT, "rsa_decrypt"},
    {FRAME_OP_RSA_MD5SHA1, "rsa_md5sha1"},
    {FRAME_OP_RSA_SHA1, "rsa_sha1"},
    {FRAME_OP_RSA_SHA224, "rsa_sha224"},
    {FRAME_OP_RSA_SHA256, "rsa_sha256"},
    {FRAME_OP_RSA_SHA384, "rsa_sha384"},
    {FRAME_OP_RSA_SHA512, "rsa_sha512"},
    {FRAME_OP_ECDSA_MD5SHA1, "ecdsa_md5sha1"},
    {FRAME_OP_ECDSA_SHA1, "ecdsa_sha1"},
    {FRAME_OP_ECDSA_SHA224, "ecdsa_sha224"},
    {FRAME_OP_ECDSA_SHA256, "ecdsa_sha256"},
    {FRAME_OP_ECDSA_SHA384, "ecdsa_sha384"},
    {FRAME_OP_ECDSA_SHA512, "ecdsa_sha512"},
    {FRAME_OP_ED25519, "ed25519"},
    {FRAME_OP_SEAL, "seal"},
    {FRAME_OP_UNSEAL, "unseal"},
    {FRAME_OP_RPC, "rpc"},
    {FRAME_OP_CUSTOM, "custom"},
    {FRAME_OP_PSS_SHA256, "pss_sha256"},
    {FRAME_OP_PSS_SHA384, "pss_sha384"},
    {FRAME_OP_PSS_SHA512, "pss_sha512"},
    {FRAME_OP_SUCCESS, "success"},
    {FRAME_OP_PING, "ping"},
    {FRAME_OP_PONG, "pong"},
    {FRAME_OP_ERROR, "error"},
};

const char *frame_opcode_name(uint8_t opcode) {
  for (size_t i = 0; i < sizeof(opcode_names) / sizeof(opcode_names[0]); i++) {
    if (opcode_names[i].opcode == opcode) {
      return opcode_names[i].name;
    }
  }
  return "unknown";
}

bool frame_error_may_failover(enum frame_error code) {
  switch (code) {
    // What is wrong with the request is wrong everywhere; and a rate must not be got
    // round by going next door. Rights are each server's own: one that grants this
    // client nothing says so also of keys that it has not got.
    case FRAME_ERROR_NONE:
    case FRAME_ERROR_BAD_OPCODE:
    case FRAME_ERROR_UNEXPECTED_OPCODE:
    case FRAME_ERROR_FORMAT:
    case FRAME_ERROR_EXPIRED:
    case FRAME_ERROR_BAD_MESSAGE:
    case FRAME_ERROR_RATE:
      return false;
    default:
      return true;
  }
}

void frame_header_decode(struct frame_header *out, const uint8_t data[FRAME_HEADER_LEN]) {
  out->major = data[0];
  out->minor = data[1];
  out->body_len = (uint16_t)((data[2] << 8) | data[3]);
  out->id = ((uint32_t)data[4] << 24) | ((uint32_t)data[5] << 16) | ((uint32_t)data[6] << 8) |
            (uint32_t)data[7];
}

// is_known_tag: those that may not come twice. Tags 0x15 and 0x16 carry other
// people's tracing; we know them only in order to count them.
static bool is_known_tag(uint8_t tag) {
  return (tag >= FRAME_TAG_KEY_DIGEST && tag <= FRAME_TAG_CERT_ID) ||
         (tag >= FRAME_TAG_OPCODE && tag <= FRAME_TAG_REGION) || tag == FRAME_TAG_PADDING;
}

static enum status take_byte(bool *out_has, uint8_t *out, struct bytes value) {
  if (value.len != 1) {
    return STATUS_FORMAT;
  }
  *out_has = true;
  *out = value.data[0];
  return STATUS_OK;
}

static enum status take_ip(struct bytes *out, struct bytes value) {
  if (value.len != IPV4_LEN && value.len != IPV6_LEN) {
    return STATUS_FORMAT;
  }
  *out = value;
  return STATUS_OK;
}

// take_id keeps a key's name of the right length and drops others, as other
// servers do: the request then has no such name.
static enum status take_id(struct bytes *out, struct bytes value, size_t len) {
  if (value.len == len) {
    *out = value;
  }
  return STATUS_OK;
}

static enum status take_item(struct frame *out, uint8_t tag, struct bytes value) {
  switch (tag) {
    case FRAME_TAG_OPCODE:
      return take_byte(&out->has_opcode, &out->opcode, value);
    case FRAME_TAG_REGION:
      return take_byte(&out->has_region, &out->region, value);
    case FRAME_TAG_CLIENT_IP:
      return take_ip(&out->client_ip, value);
    case FRAME_TAG_SERVER_IP:
      return take_ip(&out->server_ip, value);
    case FRAME_TAG_SKI:
      return take_id(&out->ski, value, FRAME_SKI_LEN);
    case FRAME_TAG_KEY_DIGEST:
      return take_id(&out->key_digest, value, FRAME_DIGEST_LEN);
    case FRAME_TAG_PAYLOAD:
      out->payload = value;
      return STATUS_OK;
    case FRAME_TAG_EXTRA:
      out->extra = value;
      return STATUS_OK;
    case FRAME_TAG_SNI:
      out->sni = value;
      return STATUS_OK;
    case FRAME_TAG_CERT_ID:
      out->cert_id = value;
      return STATUS_OK;
    case FRAME_TAG_CUSTOM:
      out->custom = value;
      return STATUS_OK;
    default:
      return STATUS_OK;  // padding, tracing, tags of a later day
  }
}

enum status frame_body_decode(struct frame *out, struct bytes body) {
  CBS items;
  uint64_t seen = 0;  // a bit for each known tag: all are below 64

  *out = (struct frame){0};
  CBS_init(&items, body.data, body.len);
  while (CBS_len(&items) > MAX_STRAY_LEN) {
    CBS value;
    uint8_t tag = 0;
    enum status st;
    if (!CBS_get_u8(&items, &tag) || !CBS_get_u16_length_prefixed(&items, &value)) {
      return STATUS_FORMAT;
    }
    if (is_known_tag(tag)) {
      const uint64_t bit = UINT64_C(1) << tag;
      if ((seen & bit) != 0) {
        return STATUS_FORMAT;
      }
      seen |= bit;
    }
    st = take_item(out, tag, bytes_of(CBS_data(&value), CBS_len(&value)));
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

static void add_item(struct writer *w, enum frame_tag tag, struct bytes value) {
  size_t value_at;
  if (value.len == 0) {
    return;
  }
  writer_u8(w, (uint8_t)tag);
  value_at = w->len;
  writer_u16(w, 0);
  writer_u16_at(w, value_at, value.len);
  writer_bytes(w, value);
}

static void add_byte(struct writer *w, enum frame_tag tag, bool has, uint8_t value) {
  if (has) {
    add_item(w, tag, bytes_of(&value, 1));
  }
}

// add_padding: a packet of n < 1024 bytes grows to 1024, or by an empty item
// where that is already more (1022 gives 1025, 1023 gives 1026).
static void add_padding(struct writer *w) {
  const size_t with_item = w->len + ITEM_HEADER_LEN;
  if (w->len >= FRAME_PAD_TO_LEN) {
    return;
  }
  const size_t num_zeros = with_item < FRAME_PAD_TO_LEN ? FRAME_PAD_TO_LEN - with_item : 0;
  writer_u8(w, FRAME_TAG_PADDING);
  writer_u16(w, (uint16_t)num_zeros);
  writer_fill(w, 0, num_zeros);
}

// has_right_lengths keeps what we send to what we would accept.
static bool has_right_lengths(const struct frame *frame) {
  const struct bytes *ips[] = {&frame->client_ip, &frame->server_ip};
  for (size_t i = 0; i < 2; i++) {
    if (ips[i]->len != 0 && ips[i]->len != IPV4_LEN && ips[i]->len != IPV6_LEN) {
      return false;
    }
  }
  return (frame->ski.len == 0 || frame->ski.len == FRAME_SKI_LEN) &&
         (frame->key_digest.len == 0 || frame->key_digest.len == FRAME_DIGEST_LEN);
}

// add_items writes all but the padding, in the order that peers are used to.
static void add_items(struct writer *w, const struct frame *frame) {
  add_byte(w, FRAME_TAG_OPCODE, frame->has_opcode, frame->opcode);
  add_item(w, FRAME_TAG_PAYLOAD, frame->payload);
  add_item(w, FRAME_TAG_EXTRA, frame->extra);
  add_item(w, FRAME_TAG_SKI, frame->ski);
  add_item(w, FRAME_TAG_KEY_DIGEST, frame->key_digest);
  add_item(w, FRAME_TAG_CLIENT_IP, frame->client_ip);
  add_item(w, FRAME_TAG_SERVER_IP, frame->server_ip);
  add_item(w, FRAME_TAG_SNI, frame->sni);
  add_item(w, FRAME_TAG_CERT_ID, frame->cert_id);
  add_item(w, FRAME_TAG_CUSTOM, frame->custom);
  add_byte(w, FRAME_TAG_REGION, frame->has_region, frame->region);
}

enum status frame_encode(uint8_t *out, size_t max, size_t *out_len, const struct frame *frame) {
  struct writer w = writer_of(out, max);
  size_t body_len_at;

  *out_len = 0;
  if (!has_right_lengths(frame)) {
    return STATUS_LIMIT;
  }
  writer_u8(&w, FRAME_VERSION_MAJOR);
  writer_u8(&w, 0);
  body_len_at = w.len;
  writer_u16(&w, 0);
  writer_u32(&w, frame->id);
  add_items(&w, frame);
  add_padding(&w);
  writer_u16_at(&w, body_len_at, w.len - FRAME_HEADER_LEN);
  return writer_finish(&w, out_len);
}

enum status frame_encode_response(uint8_t *out, size_t max, size_t *out_len, uint32_t id,
                                  uint8_t opcode, struct bytes payload) {
  const struct frame frame = {.id = id, .has_opcode = true, .opcode = opcode, .payload = payload};
  return frame_encode(out, max, out_len, &frame);
}

enum status frame_encode_error(uint8_t *out, size_t max, size_t *out_len, uint32_t id,
                               enum frame_error code) {
  const uint8_t byte = (uint8_t)code;
  return frame_encode_response(out, max, out_len, id, FRAME_OP_ERROR, bytes_of(&byte, 1));
}
