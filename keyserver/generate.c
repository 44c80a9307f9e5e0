// SPDX-License-Identifier: Apache-2.0
#include "keyserver/generate.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/rate_limit.h"
#include "common/tls/cert.h"

#define NS_PER_MINUTE INT64_C(60000000000)

struct generate_task *generate_task_of(struct signer_job *job) {
  return (struct generate_task *)(void *)job;
}

// --- making ----------------------------------------------------------------------------------

static bool make_ec(EVP_PKEY *out, int nid) {
  EC_KEY *key = EC_KEY_new_by_curve_name(nid);
  const bool is_made = key != NULL && EC_KEY_generate_key(key) && EVP_PKEY_set1_EC_KEY(out, key);
  EC_KEY_free(key);
  return is_made;
}

static bool make_rsa(EVP_PKEY *out, int bits) {
  RSA *rsa = RSA_new();
  BIGNUM *e = BN_new();
  const bool is_made = rsa != NULL && e != NULL && BN_set_word(e, RSA_F4) &&
                       RSA_generate_key_ex(rsa, bits, e, NULL) && EVP_PKEY_set1_RSA(out, rsa);
  BN_free(e);
  RSA_free(rsa);
  return is_made;
}

static EVP_PKEY *make_ed25519(void) {
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
  EVP_PKEY *key = NULL;

  if (ctx == NULL || !EVP_PKEY_keygen_init(ctx) || !EVP_PKEY_keygen(ctx, &key)) {
    key = NULL;
  }
  EVP_PKEY_CTX_free(ctx);
  return key;
}

static EVP_PKEY *make_key(enum keygen_kind kind) {
  EVP_PKEY *key = NULL;
  bool is_made = false;

  if (kind == KEYGEN_ED25519) {
    return make_ed25519();
  }
  key = EVP_PKEY_new();
  if (key == NULL) {
    return NULL;
  }
  if (keygen_bits(kind) != 0) {
    is_made = make_rsa(key, keygen_bits(kind));
  } else {
    is_made = make_ec(key, kind == KEYGEN_P384 ? NID_secp384r1 : NID_X9_62_prime256v1);
  }
  if (!is_made) {
    EVP_PKEY_free(key);
    return NULL;
  }
  return key;
}

// --- storing ---------------------------------------------------------------------------------

static bool path_of(char out[PATH_MAX], const struct snapshot *snapshot, const char *label,
                    const char *suffix) {
  const int len =
      snprintf(out, PATH_MAX, "%s/%s.key%s", snapshot->options.generation.folder, label, suffix);
  return len > 0 && len < PATH_MAX;
}

// store writes PKCS#8 as PEM; the copy in memory is wiped.
static enum status store(const struct generate_task *task, EVP_PKEY *key, struct errmsg *err) {
  char path[PATH_MAX];
  BIO *bio = BIO_new(BIO_s_mem());
  const uint8_t *pem = NULL;
  size_t len = 0;
  enum status st = STATUS_MEMORY;

  if (bio != NULL && path_of(path, task->snapshot, task->label, "") &&
      PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) &&
      BIO_mem_contents(bio, &pem, &len)) {
    st = file_create(path, bytes_of(pem, len), err);
    OPENSSL_cleanse((void *)(uintptr_t)pem, len);
  }
  BIO_free(bio);
  return st;
}

enum refusal generate_judge(const struct snapshot *snapshot, const char *label) {
  char path[PATH_MAX];

  if (keystore_has_label(snapshot->keys, label) ||
      (path_of(path, snapshot, label, "") && access(path, F_OK) == 0) ||
      (path_of(path, snapshot, label, ".retired") && access(path, F_OK) == 0)) {
    return REFUSAL_KEY_EXISTS;
  }
  return keystore_num_keys(snapshot->keys) < (size_t)snapshot->options.generation.max_keys
             ? REFUSAL_NONE
             : REFUSAL_RATE;
}

// may_make: room, and the rate of all clients together. The generating thread's own.
static enum refusal may_make(const struct generate_task *task) {
  static struct rate_limit rate;
  const struct generation_options *options = &task->snapshot->options.generation;
  const enum refusal refusal = generate_judge(task->snapshot, task->label);

  if (refusal != REFUSAL_NONE) {
    return refusal;
  }
  // A minute's worth may come at once.
  rate_limit_set(&rate, options->per_minute, NS_PER_MINUTE, options->per_minute);
  return rate_limit_take(&rate, clock_monotonic_us() * 1000) ? REFUSAL_NONE : REFUSAL_RATE;
}

// --- the task ------------------------------------------------------------------------------------

static enum refusal fill_reply(struct generate_task *task) {
  struct keygen_reply reply = {0};
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  enum refusal refusal = REFUSAL_INTERNAL;

  memcpy(reply.ski, task->key->ski, sizeof reply.ski);
  if (key_spki(&spki, &spki_len, task->key->pkey) == STATUS_OK) {
    reply.spki = bytes_of(spki, spki_len);
    if (keygen_reply_encode(task->task.payload, sizeof task->task.payload, &task->task.len,
                            &reply) == STATUS_OK) {
      refusal = REFUSAL_NONE;
    }
  }
  OPENSSL_free(spki);
  return refusal;
}

static enum refusal make_and_store(struct generate_task *task, struct errmsg *err) {
  enum refusal refusal = may_make(task);
  EVP_PKEY *pkey = NULL;
  EVP_PKEY *borrowed = NULL;
  enum status st = STATUS_OK;

  if (refusal != REFUSAL_NONE) {
    return refusal;
  }
  pkey = make_key(task->kind);
  if (pkey == NULL) {
    return REFUSAL_CRYPTO;
  }
  borrowed = pkey;
  if (key_new(&task->key, &pkey, task->label, err) != STATUS_OK) {
    return REFUSAL_CRYPTO;
  }
  refusal = fill_reply(task);
  if (refusal == REFUSAL_NONE) {
    st = store(task, borrowed, err);
    refusal = st == STATUS_OK       ? REFUSAL_NONE
              : st == STATUS_EXISTS ? REFUSAL_KEY_EXISTS
                                    : REFUSAL_KEY_NOT_STORED;
  }
  return refusal;
}

static void work(struct signer_job *job) {
  struct generate_task *task = generate_task_of(job);
  struct errmsg why = {0};

  task->task.refusal = make_and_store(task, &why);
  ERR_clear_error();
  if (task->task.refusal == REFUSAL_NONE) {
    return;
  }
  if (why.text[0] != '\0') {
    log_error(0, "key_not_made", "key=%s why=\"%s\"", task->label, why.text);
  }
  key_unref(task->key);
  task->key = NULL;
}

static void free_task(struct signer_job *job) {
  struct generate_task *task = generate_task_of(job);

  key_unref(task->key);
  snapshot_unref(task->snapshot);
  free(task);
}

struct generate_task *generate_task_new(uint64_t id, unsigned flow, const struct request *req,
                                        struct snapshot *snapshot, struct signer_inbox *made,
                                        struct signer_inbox *reply_to) {
  struct generate_task *task = calloc(1, sizeof *task);

  if (task == NULL) {
    return NULL;
  }
  task->task.job =
      (struct signer_job){.id = id, .flow = flow, .inbox = made, .work = work, .free = free_task};
  task->reply_to = reply_to;
  task->snapshot = snapshot_ref(snapshot);
  task->kind = req->new_kind;
  memcpy(task->label, req->new_label, sizeof task->label);
  return task;
}
