// SPDX-License-Identifier: Apache-2.0
#include "common/wire/keygen.h"

#include <openssl/bytestring.h>
#include <string.h>

#include "common/wire/writer.h"

static const struct row {
  const char *name;
  enum key_kind kind;
  int bits;
} rows[] = {
    [KEYGEN_P256] = {"p256", KEY_KIND_P256, 0},
    [KEYGEN_P384] = {"p384", KEY_KIND_P384, 0},
    [KEYGEN_RSA_2048] = {"rsa2048", KEY_KIND_RSA, 2048},
    [KEYGEN_RSA_3072] = {"rsa3072", KEY_KIND_RSA, 3072},
    [KEYGEN_RSA_4096] = {"rsa4096", KEY_KIND_RSA, 4096},
    [KEYGEN_ED25519] = {"ed25519", KEY_KIND_ED25519, 0},
};
#define NUM_ROWS (sizeof rows / sizeof rows[0])

static bool is_kind(unsigned kind) { return kind > 0 && kind < NUM_ROWS; }

const char *keygen_kind_name(enum keygen_kind kind) {
  return is_kind(kind) ? rows[kind].name : "unknown";
}

enum status keygen_kind_from_name(enum keygen_kind *out, const char *name) {
  for (unsigned kind = 1; kind < NUM_ROWS; kind++) {
    if (strcmp(rows[kind].name, name) == 0) {
      *out = (enum keygen_kind)kind;
      return STATUS_OK;
    }
  }
  return STATUS_NOT_FOUND;
}

enum key_kind keygen_key_kind(enum keygen_kind kind) {
  return is_kind(kind) ? rows[kind].kind : KEY_KIND_NONE;
}

int keygen_bits(enum keygen_kind kind) { return is_kind(kind) ? rows[kind].bits : 0; }

static bool is_alphanumeric(uint8_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool keygen_label_is_good(struct bytes label) {
  if (label.len == 0 || label.len > KEYGEN_MAX_LABEL_LEN || !is_alphanumeric(label.data[0])) {
    return false;
  }
  for (size_t i = 1; i < label.len; i++) {
    const uint8_t c = label.data[i];
    if (!is_alphanumeric(c) && c != '.' && c != '_' && c != '-') {
      return false;
    }
  }
  return true;
}

enum status keygen_request_decode(struct keygen_request *out, struct bytes in) {
  CBS cbs;
  CBS label;
  uint8_t kind = 0;

  *out = (struct keygen_request){0};
  CBS_init(&cbs, in.data, in.len);
  if (!CBS_get_u8(&cbs, &kind) || !CBS_get_u8_length_prefixed(&cbs, &label) || CBS_len(&cbs) != 0 ||
      !is_kind(kind) || !keygen_label_is_good(bytes_of(CBS_data(&label), CBS_len(&label)))) {
    return STATUS_FORMAT;
  }
  out->kind = (enum keygen_kind)kind;
  out->label = bytes_of(CBS_data(&label), CBS_len(&label));
  return STATUS_OK;
}

enum status keygen_request_encode(uint8_t *out, size_t max, size_t *out_len,
                                  const struct keygen_request *request) {
  struct writer w = writer_of(out, max);

  *out_len = 0;
  if (!is_kind(request->kind) || !keygen_label_is_good(request->label)) {
    return STATUS_FORMAT;
  }
  writer_u8(&w, (uint8_t)request->kind);
  writer_u8(&w, (uint8_t)request->label.len);
  writer_bytes(&w, request->label);
  return writer_finish(&w, out_len);
}

enum status keygen_reply_decode(struct keygen_reply *out, struct bytes in) {
  CBS cbs;
  CBS spki;

  *out = (struct keygen_reply){0};
  CBS_init(&cbs, in.data, in.len);
  if (!CBS_copy_bytes(&cbs, out->ski, sizeof out->ski) ||
      !CBS_get_u16_length_prefixed(&cbs, &spki) || CBS_len(&cbs) != 0 || CBS_len(&spki) == 0) {
    *out = (struct keygen_reply){0};
    return STATUS_FORMAT;
  }
  out->spki = bytes_of(CBS_data(&spki), CBS_len(&spki));
  return STATUS_OK;
}

enum status keygen_reply_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct keygen_reply *reply) {
  struct writer w = writer_of(out, max);

  *out_len = 0;
  if (reply->spki.len == 0 || reply->spki.len > UINT16_MAX) {
    return STATUS_LIMIT;
  }
  writer_bytes(&w, bytes_of(reply->ski, sizeof reply->ski));
  writer_u16(&w, (uint16_t)reply->spki.len);
  writer_bytes(&w, reply->spki);
  return writer_finish(&w, out_len);
}
