// SPDX-License-Identifier: Apache-2.0
#include "bench/tls13_keys.h"

#include <openssl/digest.h>
#include <openssl/hkdf.h>
#include <openssl/hmac.h>
#include <string.h>

static const struct tls13_suite suites[] = {
    {0x1301, "aes128", EVP_sha256, EVP_aead_aes_128_gcm, 32, 16},
    {0x1302, "aes256", EVP_sha384, EVP_aead_aes_256_gcm, 48, 32},
    {0x1303, "chacha20", EVP_sha256, EVP_aead_chacha20_poly1305, 32, 32},
};
#define NUM_SUITES (sizeof(suites) / sizeof(suites[0]))

const struct tls13_suite *tls13_suite_find(uint16_t code) {
  for (size_t i = 0; i < NUM_SUITES; i++) {
    if (suites[i].code == code) {
      return &suites[i];
    }
  }
  return NULL;
}

const struct tls13_suite *tls13_suite_by_name(const char *name) {
  for (size_t i = 0; i < NUM_SUITES; i++) {
    if (strcmp(suites[i].name, name) == 0) {
      return &suites[i];
    }
  }
  return NULL;
}

// --- transcript --------------------------------------------------------------

void tls13_transcript_init(struct tls13_transcript *t, const struct tls13_suite *suite) {
  t->hash_len = suite->hash_len;
  if (t->hash_len == SHA256_DIGEST_LENGTH) {
    (void)SHA256_Init(&t->sha256);
  } else {
    (void)SHA384_Init(&t->sha384);
  }
}

void tls13_transcript_add(struct tls13_transcript *t, struct bytes message) {
  if (t->hash_len == SHA256_DIGEST_LENGTH) {
    (void)SHA256_Update(&t->sha256, message.data, message.len);
  } else {
    (void)SHA384_Update(&t->sha384, message.data, message.len);
  }
}

void tls13_transcript_hash(const struct tls13_transcript *t, struct tls13_secret *out) {
  struct tls13_transcript copy = *t;
  if (t->hash_len == SHA256_DIGEST_LENGTH) {
    (void)SHA256_Final(out->data, &copy.sha256);
  } else {
    (void)SHA384_Final(out->data, &copy.sha384);
  }
}

// --- key schedule ------------------------------------------------------------

enum status tls13_extract(const struct tls13_suite *suite, struct tls13_secret *out,
                          const struct tls13_secret *salt, struct bytes ikm) {
  static const uint8_t zeros[TLS13_MAX_HASH_LEN] = {0};
  size_t len = 0;
  if (ikm.data == NULL) {
    ikm = bytes_of(zeros, suite->hash_len);
  }
  // HMAC pads its key with zeros: any number of zeros is the same salt.
  const uint8_t *salt_data = salt == NULL ? zeros : salt->data;
  if (HKDF_extract(out->data, &len, suite->md(), ikm.data, ikm.len, salt_data, suite->hash_len) !=
      1) {
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

// struct HkdfLabel, RFC 8446 section 7.1.
#define LABEL_PREFIX "tls13 "
#define MAX_LABEL_LEN 32u  // ours, with the prefix
#define MAX_INFO_LEN (2 + 1 + MAX_LABEL_LEN + 1 + TLS13_MAX_HASH_LEN)

enum status tls13_expand_label(const struct tls13_suite *suite, uint8_t *out, size_t out_len,
                               const struct tls13_secret *secret, const char *label,
                               struct bytes context) {
  uint8_t info[MAX_INFO_LEN];
  const size_t prefix_len = sizeof(LABEL_PREFIX) - 1;
  const size_t label_len = strlen(label);
  uint8_t *p = info;
  CHECK(prefix_len + label_len <= MAX_LABEL_LEN && context.len <= TLS13_MAX_HASH_LEN);
  *p++ = (uint8_t)(out_len >> 8);
  *p++ = (uint8_t)out_len;
  *p++ = (uint8_t)(prefix_len + label_len);
  memcpy(p, LABEL_PREFIX, prefix_len);
  p += prefix_len;
  memcpy(p, label, label_len);
  p += label_len;
  *p++ = (uint8_t)context.len;
  if (context.len > 0) {
    memcpy(p, context.data, context.len);
    p += context.len;
  }
  if (HKDF_expand(out, out_len, suite->md(), secret->data, suite->hash_len, info,
                  (size_t)(p - info)) != 1) {
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

enum status tls13_derive(const struct tls13_suite *suite, struct tls13_secret *out,
                         const struct tls13_secret *secret, const char *label,
                         const struct tls13_secret *transcript_hash) {
  struct tls13_secret empty;
  if (transcript_hash == NULL) {
    struct tls13_transcript t;
    tls13_transcript_init(&t, suite);
    tls13_transcript_hash(&t, &empty);
    transcript_hash = &empty;
  }
  return tls13_expand_label(suite, out->data, suite->hash_len, secret, label,
                            bytes_of(transcript_hash->data, suite->hash_len));
}

enum status tls13_finished(const struct tls13_suite *suite, struct tls13_secret *out,
                           const struct tls13_secret *base,
                           const struct tls13_secret *transcript_hash) {
  enum status st = STATUS_OK;
  struct tls13_secret key;
  unsigned len = 0;

  TRY(tls13_expand_label(suite, key.data, suite->hash_len, base, "finished", (struct bytes){0}));
  if (HMAC(suite->md(), key.data, suite->hash_len, transcript_hash->data, suite->hash_len,
           out->data, &len) == NULL) {
    st = STATUS_CRYPTO;
  }

out:
  return st;
}

// --- records -----------------------------------------------------------------

enum status tls13_traffic_start(struct tls13_traffic *t, const struct tls13_suite *suite,
                                const struct tls13_secret *secret) {
  enum status st = STATUS_OK;
  uint8_t key[32];

  tls13_traffic_cleanup(t);
  TRY(tls13_expand_label(suite, key, suite->key_len, secret, "key", (struct bytes){0}));
  TRY(tls13_expand_label(suite, t->iv, sizeof(t->iv), secret, "iv", (struct bytes){0}));
  if (EVP_AEAD_CTX_init(&t->aead, suite->aead(), key, suite->key_len, TLS13_TAG_LEN, NULL) != 1) {
    st = STATUS_CRYPTO;
    goto out;
  }
  t->seq = 0;
  t->is_on = true;

out:
  return st;
}

void tls13_traffic_cleanup(struct tls13_traffic *t) {
  if (t->is_on) {
    EVP_AEAD_CTX_cleanup(&t->aead);
    t->is_on = false;
  }
}

// RFC 8446, section 5.3: the sequence number, padded on the left, over the IV.
static void make_nonce(const struct tls13_traffic *t, uint8_t out[TLS13_IV_LEN]) {
  memcpy(out, t->iv, TLS13_IV_LEN);
  for (size_t i = 0; i < 8; i++) {
    out[TLS13_IV_LEN - 1 - i] ^= (uint8_t)(t->seq >> (8 * i));
  }
}

enum status tls13_record_seal(struct tls13_traffic *t, uint8_t *out, uint8_t type,
                              struct bytes content) {
  uint8_t nonce[TLS13_IV_LEN];
  const size_t inner_len = content.len + 1;
  const size_t sealed_len = inner_len + TLS13_TAG_LEN;
  uint8_t *body = out + TLS13_RECORD_HEADER_LEN;
  size_t len = 0;
  CHECK(content.len <= TLS13_MAX_PLAINTEXT_LEN);
  const uint8_t header[TLS13_RECORD_HEADER_LEN] = {23, 3, 3, (uint8_t)(sealed_len >> 8),
                                                   (uint8_t)sealed_len};
  memcpy(out, header, sizeof(header));
  memcpy(body, content.data, content.len);
  body[content.len] = type;
  make_nonce(t, nonce);
  if (EVP_AEAD_CTX_seal(&t->aead, body, &len, sealed_len, nonce, sizeof(nonce), body, inner_len,
                        header, sizeof(header)) != 1) {
    return STATUS_CRYPTO;
  }
  t->seq += 1;
  return STATUS_OK;
}

enum status tls13_record_open(struct tls13_traffic *t, uint8_t *out_type, struct bytes *out_content,
                              uint8_t *record, size_t record_len) {
  uint8_t nonce[TLS13_IV_LEN];
  uint8_t *body = record + TLS13_RECORD_HEADER_LEN;
  const size_t sealed_len = record_len - TLS13_RECORD_HEADER_LEN;
  size_t len = 0;
  make_nonce(t, nonce);
  if (EVP_AEAD_CTX_open(&t->aead, body, &len, sealed_len, nonce, sizeof(nonce), body, sealed_len,
                        record, TLS13_RECORD_HEADER_LEN) != 1) {
    return STATUS_CRYPTO;
  }
  t->seq += 1;
  while (len > 0 && body[len - 1] == 0) {  // section 5.4: padding
    len -= 1;
  }
  if (len == 0) {
    return STATUS_FORMAT;
  }
  *out_type = body[len - 1];
  *out_content = bytes_of(body, len - 1);
  return STATUS_OK;
}
