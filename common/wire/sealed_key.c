// SPDX-License-Identifier: Apache-2.0
#include "common/wire/sealed_key.h"

#include <openssl/bytestring.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/writer.h"

#define MAGIC "DPSEALED"
#define BEGIN "-----BEGIN DEPUTY SEALED KEY-----"
#define END "-----END DEPUTY SEALED KEY-----"
#define LINE_LEN 64u

_Static_assert(SEALED_KEY_FILE_MAX_LEN > SEALED_KEY_MAX_LEN / 3 * 4 * 65 / 64 + 128,
               "the longest sealed key fits its armour");

// --- the bytes -----------------------------------------------------------------------------

static struct bytes bytes_of_cbs(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

static enum status damaged(struct errmsg *err, const char *what) {
  return errmsg_set(err, STATUS_FORMAT, "the sealed key is damaged: %s", what);
}

static enum status parse_version(CBS *cbs, struct errmsg *err) {
  CBS magic;
  uint8_t version = 0;

  if (!CBS_get_bytes(cbs, &magic, strlen(MAGIC)) ||
      !CBS_mem_equal(&magic, (const uint8_t *)MAGIC, strlen(MAGIC))) {
    return damaged(err, "it does not begin as one");
  }
  if (!CBS_get_u8(cbs, &version)) {
    return damaged(err, "it is cut");
  }
  if (version != SEALED_KEY_VERSION) {
    return errmsg_set(err, STATUS_FORMAT,
                      "a sealed key of version %u; this program knows version %d only", version,
                      SEALED_KEY_VERSION);
  }
  return STATUS_OK;
}

static enum status parse_head(struct sealed_key *out, CBS *cbs, struct errmsg *err) {
  CBS label;
  CBS policy;
  CBS spki;
  enum status st = STATUS_OK;

  TRY(parse_version(cbs, err));
  if (!CBS_get_u8_length_prefixed(cbs, &label) || !CBS_get_u16_length_prefixed(cbs, &policy) ||
      !CBS_get_u16_length_prefixed(cbs, &spki)) {
    TRY(damaged(err, "it is cut"));
  }
  if (!keygen_label_is_good(bytes_of_cbs(&label))) {
    TRY(damaged(err, "its label is none"));
  }
  if (CBS_len(&spki) == 0 || CBS_len(&spki) > SCHEME_MAX_SPKI_LEN) {
    TRY(damaged(err, "its public key is of no possible length"));
  }
  st = region_policy_parse(&out->policy, bytes_of_cbs(&policy), err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "the sealed key's policy");
    goto out;
  }
  out->label = bytes_of_cbs(&label);
  out->policy_text = bytes_of_cbs(&policy);
  out->spki = bytes_of_cbs(&spki);

out:
  return st;
}

static bool take(const uint8_t **out, CBS *cbs, size_t len) {
  *out = CBS_data(cbs);
  return CBS_skip(cbs, len);
}

static enum status parse_recipients(struct sealed_key *out, CBS *cbs, struct errmsg *err) {
  uint16_t num = 0;

  if (!CBS_get_u16(cbs, &num)) {
    return damaged(err, "it is cut");
  }
  if (num == 0 || num > SEALED_KEY_MAX_RECIPIENTS) {
    return damaged(err, "a number of recipients that cannot be");
  }
  for (size_t i = 0; i < num; i++) {
    struct sealed_recipient *r = &out->recipients[i];
    CBS name;
    if (!CBS_get_u8_length_prefixed(cbs, &name) || !take(&r->key_id, cbs, SEALED_KEY_ID_LEN) ||
        !take(&r->enc, cbs, SEALED_KEY_ENC_LEN) ||
        !take(&r->content_key, cbs, SEALED_KEY_CONTENT_KEY_LEN + SEALED_KEY_TAG_LEN)) {
      return damaged(err, "it is cut");
    }
    r->name = bytes_of_cbs(&name);
    if (!keygen_label_is_good(r->name)) {
      return damaged(err, "a recipient's name that is none");
    }
    if (sealed_key_find(out, r->key_id) != NULL) {
      return damaged(err, "a recipient that is there twice");
    }
    out->num_recipients++;
  }
  return STATUS_OK;
}

static struct bytes up_to(struct bytes in, const CBS *rest) {
  return bytes_of(in.data, in.len - CBS_len(rest));
}

enum status sealed_key_parse(struct sealed_key *out, struct bytes in, struct errmsg *err) {
  CBS cbs;
  uint16_t len = 0;
  enum status st = STATUS_OK;

  out->num_recipients = 0;
  out->policy.num_nodes = 0;
  CBS_init(&cbs, in.data, in.len);
  TRY(parse_head(out, &cbs, err));
  out->head = up_to(in, &cbs);
  TRY(parse_recipients(out, &cbs, err));
  if (!take(&out->nonce, &cbs, SEALED_KEY_NONCE_LEN) || !CBS_get_u16(&cbs, &len)) {
    TRY(damaged(err, "it is cut"));
  }
  out->bound = up_to(in, &cbs);
  out->ciphertext = bytes_of_cbs(&cbs);
  if (CBS_len(&cbs) != len) {
    TRY(damaged(err, CBS_len(&cbs) < len ? "it is cut" : "something follows it"));
  }
  if (len <= SEALED_KEY_TAG_LEN || len > SEALED_KEY_MAX_CIPHERTEXT_LEN) {
    TRY(damaged(err, "its private key is of no possible length"));
  }

out:
  return st;
}

enum status sealed_key_encode(uint8_t *out, size_t max, size_t *out_len,
                              const struct sealed_key *sealed) {
  struct writer w = writer_of(out, max);

  writer_bytes(&w, bytes_text(MAGIC));
  writer_u8(&w, SEALED_KEY_VERSION);
  writer_u8(&w, (uint8_t)sealed->label.len);
  writer_bytes(&w, sealed->label);
  writer_u16(&w, (uint16_t)sealed->policy_text.len);
  writer_bytes(&w, sealed->policy_text);
  writer_u16(&w, (uint16_t)sealed->spki.len);
  writer_bytes(&w, sealed->spki);
  writer_u16(&w, (uint16_t)sealed->num_recipients);
  for (size_t i = 0; i < sealed->num_recipients; i++) {
    const struct sealed_recipient *r = &sealed->recipients[i];
    writer_u8(&w, (uint8_t)r->name.len);
    writer_bytes(&w, r->name);
    writer_bytes(&w, bytes_of(r->key_id, SEALED_KEY_ID_LEN));
    writer_bytes(&w, bytes_of(r->enc, SEALED_KEY_ENC_LEN));
    writer_bytes(&w, bytes_of(r->content_key, SEALED_KEY_CONTENT_KEY_LEN + SEALED_KEY_TAG_LEN));
  }
  writer_bytes(&w, bytes_of(sealed->nonce, SEALED_KEY_NONCE_LEN));
  writer_u16(&w, (uint16_t)sealed->ciphertext.len);
  writer_bytes(&w, sealed->ciphertext);
  if (sealed->label.len > UINT8_MAX || sealed->policy_text.len > UINT16_MAX ||
      sealed->spki.len > UINT16_MAX || sealed->ciphertext.len > UINT16_MAX) {
    w.is_full = true;
  }
  return writer_finish(&w, out_len);
}

const struct sealed_recipient *sealed_key_find(const struct sealed_key *sealed,
                                               const uint8_t key_id[SEALED_KEY_ID_LEN]) {
  for (size_t i = 0; i < sealed->num_recipients; i++) {
    if (memcmp(sealed->recipients[i].key_id, key_id, SEALED_KEY_ID_LEN) == 0) {
      return &sealed->recipients[i];
    }
  }
  return NULL;
}

// --- the armour ------------------------------------------------------------------------------

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static struct bytes trimmed(struct bytes text) {
  while (text.len > 0 && is_blank(text.data[0])) {
    text = bytes_of(text.data + 1, text.len - 1);
  }
  while (text.len > 0 && is_blank(text.data[text.len - 1])) {
    text.len--;
  }
  return text;
}

// body_of takes the first and the last line off.
static enum status body_of(struct bytes *out, struct bytes text, struct errmsg *err) {
  const size_t begin_len = strlen(BEGIN);
  const size_t end_len = strlen(END);

  text = trimmed(text);
  if (text.len < begin_len || memcmp(text.data, BEGIN, begin_len) != 0) {
    return errmsg_set(err, STATUS_FORMAT, "no sealed key: it does not begin with \"%s\"", BEGIN);
  }
  text = bytes_of(text.data + begin_len, text.len - begin_len);
  if (text.len < end_len || memcmp(text.data + text.len - end_len, END, end_len) != 0) {
    return errmsg_set(err, STATUS_FORMAT, "the sealed key is cut: it does not end with \"%s\"",
                      END);
  }
  *out = bytes_of(text.data, text.len - end_len);
  return STATUS_OK;
}

enum status sealed_key_unarmour(uint8_t **out, size_t *out_len, struct bytes text,
                                struct errmsg *err) {
  struct bytes body = {0};
  uint8_t *packed = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  *out = NULL;
  *out_len = 0;
  if (text.len > SEALED_KEY_FILE_MAX_LEN) {
    TRY(errmsg_set(err, STATUS_LIMIT, "longer than any sealed key: %u bytes",
                   SEALED_KEY_FILE_MAX_LEN));
  }
  TRY(body_of(&body, text, err));
  packed = malloc(body.len + 1);
  if (packed == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  for (size_t i = 0; i < body.len; i++) {
    if (!is_blank(body.data[i])) {
      packed[len++] = body.data[i];
    }
  }
  st = bytes_from_base64(out, out_len, bytes_of(packed, len), SEALED_KEY_MAX_LEN);
  if (st != STATUS_OK) {
    st = errmsg_set(
        err, st,
        st == STATUS_FORMAT ? "the sealed key's base64 is damaged" : "longer than any sealed key");
  }

out:
  free(packed);
  return st;
}

enum status sealed_key_armour(char **out, size_t *out_len, struct bytes in) {
  char *base64 = bytes_to_base64(in);
  const size_t len = base64 == NULL ? 0 : strlen(base64);
  const size_t max = len + len / LINE_LEN + strlen(BEGIN) + strlen(END) + 8;
  struct writer w = {0};

  *out = base64 == NULL ? NULL : malloc(max);
  if (*out == NULL) {
    free(base64);
    return STATUS_MEMORY;
  }
  w = writer_of((uint8_t *)*out, max);
  writer_bytes(&w, bytes_text(BEGIN "\n"));
  for (size_t at = 0; at < len; at += LINE_LEN) {
    writer_bytes(&w, bytes_of(base64 + at, len - at < LINE_LEN ? len - at : LINE_LEN));
    writer_u8(&w, '\n');
  }
  writer_bytes(&w, bytes_text(END "\n"));
  *out_len = w.len;
  writer_u8(&w, 0);
  CHECK(!w.is_full);
  free(base64);
  return STATUS_OK;
}
