// SPDX-License-Identifier: Apache-2.0
#include "common/tls/sealing.h"

#include <openssl/aead.h>
#include <openssl/base64.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hpke.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/cert.h"
#include "common/tls/pem.h"

#define INFO "deputy sealed key 1"
#define PRIVATE_KEY_LEN 32u  // X25519
#define SEALED_CONTENT_KEY_LEN (SEALED_KEY_CONTENT_KEY_LEN + SEALED_KEY_TAG_LEN)
#define STACK_WIPED_LEN (32u << 10)
#define PEM_BEGIN "-----BEGIN PRIVATE KEY-----\n"
#define PEM_END "\n-----END PRIVATE KEY-----\n"

// RFC 8410: a SubjectPublicKeyInfo is these, then the key; a PKCS#8 private key
// without its public half likewise.
static const uint8_t spki_prefix[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                      0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00};
static const uint8_t pkcs8_prefix[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                       0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20};

struct sealing_identity {
  EVP_HPKE_KEY *key;
  uint8_t public_key[SEALING_PUBLIC_KEY_LEN];
  uint8_t id[SEALED_KEY_ID_LEN];
};

// wipe_stack clears what the functions before it have left below the caller's frame:
// BoringSSL wipes its heap, but not each copy of a private key that it makes on
// its way (a memory search finds one in upstream's, in none of Debian's).
static __attribute__((noinline)) void wipe_stack(void) {
  uint8_t below[STACK_WIPED_LEN];
  OPENSSL_cleanse(below, sizeof below);
}

// --- identities ------------------------------------------------------------------------------

void sealing_identity_free(struct sealing_identity *identity) {
  if (identity != NULL) {
    EVP_HPKE_KEY_free(identity->key);  // BoringSSL wipes what it frees
    free(identity);
  }
}

const uint8_t *sealing_identity_public(const struct sealing_identity *identity) {
  return identity->public_key;
}

const uint8_t *sealing_identity_id(const struct sealing_identity *identity) { return identity->id; }

void sealing_key_id(uint8_t out[SEALED_KEY_ID_LEN], const uint8_t key[SEALING_PUBLIC_KEY_LEN]) {
  SHA256(key, SEALING_PUBLIC_KEY_LEN, out);
}

// identity_of takes a raw private key, or makes one when it is NULL.
static enum status identity_of(struct sealing_identity **out, const uint8_t *raw,
                               struct errmsg *err) {
  struct sealing_identity *identity = calloc(1, sizeof *identity);
  const EVP_HPKE_KEM *kem = EVP_hpke_x25519_hkdf_sha256();
  size_t len = 0;

  *out = NULL;
  if (identity == NULL || (identity->key = EVP_HPKE_KEY_new()) == NULL) {
    sealing_identity_free(identity);
    (void)errmsg_set(err, STATUS_MEMORY, "no memory");
    return STATUS_MEMORY;
  }
  if (!(raw == NULL ? EVP_HPKE_KEY_generate(identity->key, kem)
                    : EVP_HPKE_KEY_init(identity->key, kem, raw, PRIVATE_KEY_LEN)) ||
      !EVP_HPKE_KEY_public_key(identity->key, identity->public_key, &len,
                               sizeof identity->public_key)) {
    ERR_clear_error();
    sealing_identity_free(identity);
    (void)errmsg_set(err, STATUS_CRYPTO, "this key cannot be used");
    return STATUS_CRYPTO;
  }
  sealing_key_id(identity->id, identity->public_key);
  *out = identity;
  return STATUS_OK;
}

// raw_of_der takes PKCS#8 apart with BoringSSL's parser. STATUS_FORMAT: another kind.
static enum status raw_of_der(uint8_t out[PRIVATE_KEY_LEN], struct bytes der) {
  CBS cbs;
  EVP_PKEY *key = NULL;
  size_t len = PRIVATE_KEY_LEN;
  enum status st = STATUS_FORMAT;

  CBS_init(&cbs, der.data, der.len);
  key = EVP_parse_private_key(&cbs);
  if (key != NULL && CBS_len(&cbs) == 0 && EVP_PKEY_id(key) == EVP_PKEY_X25519 &&
      EVP_PKEY_get_raw_private_key(key, out, &len) && len == PRIVATE_KEY_LEN) {
    st = STATUS_OK;
  }
  EVP_PKEY_free(key);
  ERR_clear_error();
  return st;
}

enum status sealing_identity_read(struct sealing_identity **out, const char *path,
                                  struct errmsg *err) {
  struct secret file = {0};
  struct secret der = {0};
  uint8_t raw[PRIVATE_KEY_LEN] = {0};
  enum status st = STATUS_OK;

  *out = NULL;
  TRY(secret_read_file(&file, path, SEALING_IDENTITY_MAX_LEN, true, err));
  st = pem_private_key_der(&der, bytes_of(file.data, file.len), path, err);
  if (st == STATUS_OK) {
    st = raw_of_der(raw, bytes_of(der.data, der.len));
  } else if (st == STATUS_NOT_FOUND) {
    st = STATUS_FORMAT;
  } else {
    goto out;
  }
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st,
                   "%s: no identity of a key server: one X25519 key in PEM, as 'deputyctl key "
                   "identity new' makes it",
                   path));
  }
  st = identity_of(out, raw, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
  }

out:
  OPENSSL_cleanse(raw, sizeof raw);
  secret_wipe(&der);
  secret_wipe(&file);
  wipe_stack();
  return st;
}

// write_pem: PKCS#8 of an X25519 key has one form, of 48 bytes, which are one line.
static enum status write_pem(struct secret *out, const uint8_t raw[PRIVATE_KEY_LEN]) {
  uint8_t der[sizeof pkcs8_prefix + PRIVATE_KEY_LEN];
  uint8_t line[4 * ((sizeof der + 2) / 3) + 1];
  enum status st = STATUS_OK;

  memcpy(der, pkcs8_prefix, sizeof pkcs8_prefix);
  memcpy(der + sizeof pkcs8_prefix, raw, PRIVATE_KEY_LEN);
  (void)EVP_EncodeBlock(line, der, sizeof der);
  TRY(secret_alloc(out, strlen(PEM_BEGIN) + sizeof line - 1 + strlen(PEM_END) + 1));
  (void)snprintf((char *)out->data, out->len, PEM_BEGIN "%s" PEM_END, (const char *)line);
  out->len--;  // the terminator is no part of the file

out:
  OPENSSL_cleanse(der, sizeof der);
  OPENSSL_cleanse(line, sizeof line);
  return st;
}

enum status sealing_identity_new(struct sealing_identity **out, struct secret *out_pem,
                                 struct errmsg *err) {
  uint8_t raw[EVP_HPKE_MAX_PRIVATE_KEY_LENGTH] = {0};
  struct sealing_identity *identity = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  *out = NULL;
  *out_pem = (struct secret){0};
  TRY(identity_of(&identity, NULL, err));
  if (!EVP_HPKE_KEY_private_key(identity->key, raw, &len, sizeof raw) || len != PRIVATE_KEY_LEN) {
    TRY(errmsg_set(err, STATUS_CRYPTO, "the new key cannot be written"));
  }
  st = write_pem(out_pem, raw);
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "no memory");
    goto out;
  }
  *out = identity;
  identity = NULL;

out:
  OPENSSL_cleanse(raw, sizeof raw);
  sealing_identity_free(identity);
  wipe_stack();
  return st;
}

enum status sealing_public_parse(uint8_t out[SEALING_PUBLIC_KEY_LEN], const char *text) {
  uint8_t *data = NULL;
  size_t len = 0;
  enum status st =
      bytes_from_base64(&data, &len, bytes_text(text), sizeof spki_prefix + SEALING_PUBLIC_KEY_LEN);
  size_t at = 0;

  if (st == STATUS_OK && len == sizeof spki_prefix + SEALING_PUBLIC_KEY_LEN &&
      memcmp(data, spki_prefix, sizeof spki_prefix) == 0) {
    at = sizeof spki_prefix;
  }
  if (st != STATUS_OK || len - at != SEALING_PUBLIC_KEY_LEN) {
    free(data);
    return st == STATUS_MEMORY ? st : STATUS_FORMAT;
  }
  memcpy(out, data + at, SEALING_PUBLIC_KEY_LEN);
  free(data);
  return STATUS_OK;
}

void sealing_public_format(char out[SEALING_PUBLIC_TEXT_LEN],
                           const uint8_t key[SEALING_PUBLIC_KEY_LEN]) {
  (void)EVP_EncodeBlock((uint8_t *)out, key, SEALING_PUBLIC_KEY_LEN);
}

// --- content keys: HPKE ------------------------------------------------------------------------

static enum status wrap(uint8_t enc[SEALED_KEY_ENC_LEN], uint8_t out[SEALED_CONTENT_KEY_LEN],
                        const uint8_t content_key[SEALED_KEY_CONTENT_KEY_LEN],
                        const struct sealing_recipient *to, struct bytes head) {
  EVP_HPKE_CTX *ctx = EVP_HPKE_CTX_new();
  size_t enc_len = 0;
  size_t len = 0;
  enum status st = ctx == NULL ? STATUS_MEMORY : STATUS_OK;

  if (st == STATUS_OK && (!EVP_HPKE_CTX_setup_sender(
                              ctx, enc, &enc_len, SEALED_KEY_ENC_LEN, EVP_hpke_x25519_hkdf_sha256(),
                              EVP_hpke_hkdf_sha256(), EVP_hpke_aes_256_gcm(), to->public_key,
                              sizeof to->public_key, (const uint8_t *)INFO, strlen(INFO)) ||
                          enc_len != SEALED_KEY_ENC_LEN ||
                          !EVP_HPKE_CTX_seal(ctx, out, &len, SEALED_CONTENT_KEY_LEN, content_key,
                                             SEALED_KEY_CONTENT_KEY_LEN, head.data, head.len) ||
                          len != SEALED_CONTENT_KEY_LEN)) {
    st = STATUS_CRYPTO;
  }
  EVP_HPKE_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

static enum status unwrap(uint8_t out[SEALED_CONTENT_KEY_LEN], const struct sealed_recipient *from,
                          const struct sealing_identity *identity, struct bytes head) {
  EVP_HPKE_CTX *ctx = EVP_HPKE_CTX_new();
  size_t len = 0;
  enum status st = ctx == NULL ? STATUS_MEMORY : STATUS_OK;

  if (st == STATUS_OK &&
      (!EVP_HPKE_CTX_setup_recipient(ctx, identity->key, EVP_hpke_hkdf_sha256(),
                                     EVP_hpke_aes_256_gcm(), from->enc, SEALED_KEY_ENC_LEN,
                                     (const uint8_t *)INFO, strlen(INFO)) ||
       !EVP_HPKE_CTX_open(ctx, out, &len, SEALED_CONTENT_KEY_LEN, from->content_key,
                          SEALED_CONTENT_KEY_LEN, head.data, head.len) ||
       len != SEALED_KEY_CONTENT_KEY_LEN)) {
    st = STATUS_CRYPTO;
  }
  EVP_HPKE_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

// --- sealing -----------------------------------------------------------------------------------

// Everything of one sealing. `sealed` points into the arrays beside it, which are
// filled step by step; its head and bound point into `encoded`.
struct draft {
  struct sealed_key sealed;
  uint8_t content_key[SEALED_KEY_CONTENT_KEY_LEN];
  uint8_t nonce[SEALED_KEY_NONCE_LEN];
  struct slot {
    uint8_t id[SEALED_KEY_ID_LEN];
    uint8_t enc[SEALED_KEY_ENC_LEN];
    uint8_t content_key[SEALED_CONTENT_KEY_LEN];
  } slots[SEALED_KEY_MAX_RECIPIENTS];
  uint8_t ciphertext[SEALED_KEY_MAX_CIPHERTEXT_LEN];
  uint8_t encoded[SEALED_KEY_MAX_LEN];
  size_t encoded_len;
};

static enum status fill_slots(struct draft *draft, const struct sealing_recipient *recipients,
                              size_t num, struct errmsg *err) {
  if (num == 0 || num > SEALED_KEY_MAX_RECIPIENTS) {
    return errmsg_set(err, STATUS_LIMIT, "a key is sealed to 1 to %u key servers, not to %zu",
                      SEALED_KEY_MAX_RECIPIENTS, num);
  }
  for (size_t i = 0; i < num; i++) {
    struct slot *slot = &draft->slots[i];
    sealing_key_id(slot->id, recipients[i].public_key);
    draft->sealed.recipients[i] = (struct sealed_recipient){
        .name = bytes_text(recipients[i].name),
        .key_id = slot->id,
        .enc = slot->enc,
        .content_key = slot->content_key,
    };
  }
  draft->sealed.num_recipients = num;
  return STATUS_OK;
}

// encode writes what there is so far. What goes out is read back in: the parser
// judges label, names and policy, and says where head and bound end.
static enum status encode(struct draft *draft, struct errmsg *err) {
  enum status st =
      sealed_key_encode(draft->encoded, sizeof draft->encoded, &draft->encoded_len, &draft->sealed);
  struct sealed_key *check = NULL;

  if (st != STATUS_OK) {
    return errmsg_set(err, st, "more than a sealed key holds");
  }
  check = malloc(sizeof *check);
  if (check == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  st = sealed_key_parse(check, bytes_of(draft->encoded, draft->encoded_len), err);
  if (st == STATUS_OK) {
    draft->sealed.head = check->head;
    draft->sealed.bound = check->bound;
  }
  free(check);
  return st;
}

static enum status wrap_all(struct draft *draft, const struct sealing_recipient *recipients,
                            struct errmsg *err) {
  for (size_t i = 0; i < draft->sealed.num_recipients; i++) {
    struct slot *slot = &draft->slots[i];
    const enum status st =
        wrap(slot->enc, slot->content_key, draft->content_key, &recipients[i], draft->sealed.head);
    if (st != STATUS_OK) {
      return errmsg_set(err, st, "%s: nothing can be sealed to this public key",
                        recipients[i].name);
    }
  }
  return STATUS_OK;
}

static enum status encrypt(struct draft *draft, struct bytes plain) {
  EVP_AEAD_CTX *ctx = EVP_AEAD_CTX_new(EVP_aead_aes_256_gcm(), draft->content_key,
                                       sizeof draft->content_key, SEALED_KEY_TAG_LEN);
  size_t len = 0;
  const bool is_done = ctx != NULL &&
                       EVP_AEAD_CTX_seal(ctx, draft->ciphertext, &len, draft->sealed.ciphertext.len,
                                         draft->nonce, sizeof draft->nonce, plain.data, plain.len,
                                         draft->sealed.bound.data, draft->sealed.bound.len) &&
                       len == draft->sealed.ciphertext.len;

  EVP_AEAD_CTX_free(ctx);
  ERR_clear_error();
  return is_done ? STATUS_OK : STATUS_CRYPTO;
}

// pkcs8_of returns new bytes; BoringSSL wipes what it frees.
static enum status pkcs8_of(uint8_t **out, size_t *out_len, const EVP_PKEY *key,
                            struct errmsg *err) {
  CBB cbb;

  if (!CBB_init(&cbb, 256) || !EVP_marshal_private_key(&cbb, key) ||
      !CBB_finish(&cbb, out, out_len)) {
    CBB_cleanup(&cbb);
    ERR_clear_error();
    return errmsg_set(err, STATUS_CRYPTO, "the private key cannot be written");
  }
  if (*out_len + SEALED_KEY_TAG_LEN > SEALED_KEY_MAX_CIPHERTEXT_LEN) {
    return errmsg_set(err, STATUS_LIMIT, "the private key is longer than any that is sealed");
  }
  return STATUS_OK;
}

enum status sealing_seal(char **out, size_t *out_len, const EVP_PKEY *key, const char *label,
                         struct bytes policy, const struct sealing_recipient *recipients,
                         size_t num, struct errmsg *err) {
  struct draft *draft = calloc(1, sizeof *draft);
  uint8_t *spki = NULL;
  uint8_t *pkcs8 = NULL;
  size_t spki_len = 0;
  size_t pkcs8_len = 0;
  enum status st = STATUS_OK;

  *out = NULL;
  if (draft == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(key_spki(&spki, &spki_len, key));
  TRY(pkcs8_of(&pkcs8, &pkcs8_len, key, err));
  draft->sealed.label = bytes_text(label);
  draft->sealed.policy_text = policy;
  draft->sealed.spki = bytes_of(spki, spki_len);
  draft->sealed.nonce = draft->nonce;
  draft->sealed.ciphertext = bytes_of(draft->ciphertext, pkcs8_len + SEALED_KEY_TAG_LEN);
  TRY(fill_slots(draft, recipients, num, err));
  (void)RAND_bytes(draft->content_key, sizeof draft->content_key);  // it cannot fail: it aborts
  (void)RAND_bytes(draft->nonce, sizeof draft->nonce);
  TRY(encode(draft, err));  // the head, which the content keys are bound to
  TRY(wrap_all(draft, recipients, err));
  TRY(encode(draft, err));  // all that the private key is bound to
  TRY(encrypt(draft, bytes_of(pkcs8, pkcs8_len)));
  TRY(encode(draft, err));
  TRY(sealed_key_armour(out, out_len, bytes_of(draft->encoded, draft->encoded_len)));

out:
  OPENSSL_free(spki);
  OPENSSL_free(pkcs8);
  OPENSSL_cleanse(draft->content_key, sizeof draft->content_key);
  free(draft);
  wipe_stack();
  return st;
}

// --- opening -----------------------------------------------------------------------------------

enum status sealing_read(struct sealed_key **out_sealed, uint8_t **out_bytes, struct bytes text,
                         struct errmsg *err) {
  size_t len = 0;
  enum status st = STATUS_OK;

  *out_bytes = NULL;
  *out_sealed = malloc(sizeof **out_sealed);
  if (*out_sealed == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
  }
  TRY(sealed_key_unarmour(out_bytes, &len, text, err));
  TRY(sealed_key_parse(*out_sealed, bytes_of(*out_bytes, len), err));

out:
  return st;
}

static enum status decrypt(struct secret *out, const struct sealed_key *sealed,
                           const uint8_t content_key[SEALED_KEY_CONTENT_KEY_LEN]) {
  EVP_AEAD_CTX *ctx = NULL;
  enum status st = STATUS_OK;

  TRY(secret_alloc(out, sealed->ciphertext.len));
  ctx = EVP_AEAD_CTX_new(EVP_aead_aes_256_gcm(), content_key, SEALED_KEY_CONTENT_KEY_LEN,
                         SEALED_KEY_TAG_LEN);
  if (ctx == NULL ||
      !EVP_AEAD_CTX_open(ctx, out->data, &out->len, out->len, sealed->nonce, SEALED_KEY_NONCE_LEN,
                         sealed->ciphertext.data, sealed->ciphertext.len, sealed->bound.data,
                         sealed->bound.len)) {
    out->len = sealed->ciphertext.len;  // what was allocated, so that all of it is wiped
    st = STATUS_CRYPTO;
  }

out:
  EVP_AEAD_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

// check_pair: the head's public key is what an operator sees and what clients name.
static enum status check_pair(const EVP_PKEY *key, struct bytes spki, struct errmsg *err) {
  uint8_t *own = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  TRY(key_spki(&own, &len, key));
  if (!bytes_equal(bytes_of(own, len), spki)) {
    st = errmsg_set(err, STATUS_CRYPTO, "the private key is not that of the public key beside it");
  }

out:
  OPENSSL_free(own);
  return st;
}

enum status sealing_open(EVP_PKEY **out, const struct sealed_key *sealed,
                         const struct sealing_identity *identity, struct errmsg *err) {
  const struct sealed_recipient *mine = sealed_key_find(sealed, identity->id);
  uint8_t content_key[SEALED_CONTENT_KEY_LEN] = {0};
  struct secret plain = {0};
  EVP_PKEY *key = NULL;
  enum status st = STATUS_OK;

  *out = NULL;
  if (mine == NULL) {
    return errmsg_set(err, STATUS_NOT_FOUND, "it is not sealed to this identity");
  }
  st = unwrap(content_key, mine, identity, sealed->head);
  if (st == STATUS_OK) {
    st = decrypt(&plain, sealed, content_key);
  }
  if (st != STATUS_OK) {
    st = errmsg_set(err, st,
                    st == STATUS_MEMORY ? "no memory"
                                        : "it has been changed since it was sealed, or is damaged");
    goto out;
  }
  TRY(key_parse(&key, bytes_of(plain.data, plain.len), "what is sealed", err));
  TRY(check_pair(key, sealed->spki, err));
  *out = key;
  key = NULL;

out:
  EVP_PKEY_free(key);
  secret_wipe(&plain);
  OPENSSL_cleanse(content_key, sizeof content_key);
  wipe_stack();
  return st;
}
