// SPDX-License-Identifier: Apache-2.0
// make-staples: an OCSP response for each leaf of a store that make-certificates made,
// really signed by the leaf's issuer (fake_ca.h), put where fetched staples are put.
// Threads sign, one writes, in the order of the chains.
#include <inttypes.h>
#include <openssl/bytestring.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/fake_ca.h"
#include "certstore/store.h"
#include "certstore/store_write.h"
#include "common/base/clock.h"

#define NUM_LEVELS 2
#define MAX_THREADS 16
#define BATCH 50000u  // staples in one transaction
#define DAY_S 86400

static const char *const level_names[NUM_LEVELS] = {"primary", "backup"};

struct staples_options {
  const char *store;
  const char *seed;
  int64_t days;
  int64_t num_threads;
  bool shows_progress;
};

// clang-format off
static const struct option_row options[] = {
  {"store", OPTION_TEXT, offsetof(struct staples_options, store), .is_required = true,
   .help = "the store"},
  {"seed", OPTION_TEXT, offsetof(struct staples_options, seed), .fallback = "deputy",
   .help = "as make-certificates was told"},
  {"days", OPTION_COUNT, offsetof(struct staples_options, days), .fallback = "7", .min = 1,
   .max = 365, .help = "from thisUpdate, now, to nextUpdate"},
  {"threads", OPTION_COUNT, offsetof(struct staples_options, num_threads), .min = 1,
   .max = MAX_THREADS, .help = "that sign (default: as many as there are processors)"},
  {"progress", OPTION_FLAG, offsetof(struct staples_options, shows_progress),
   .help = "say on standard error how far it is"},
  {0},
};
// clang-format on

// One response; len 0: the chain is not there (any more).
struct made {
  uint16_t len;
  uint8_t response[FAKE_CA_STAPLE_LEN];
};

struct batch {
  uint64_t first_id;
  uint64_t num;
  int64_t now_s;
  int64_t next_update_s;
  struct made *made;
};

// One thread that signs: every num_threads-th of a batch.
struct signer {
  struct batch *batch;
  uint64_t at;
  uint64_t step;
  struct store_reader *reader;
  struct fake_ca cas[NUM_LEVELS];
  uint8_t ca_ids[NUM_LEVELS][SHA256_DIGEST_LENGTH];
  uint64_t num_made;
  struct errmsg err;
  enum status st;
};

// read_serial finds the serial number (RFC 5280, section 4.1): the INTEGER's content.
static bool read_serial(struct bytes *out, struct bytes leaf) {
  CBS in;
  CBS certificate;
  CBS tbs;
  CBS serial;
  CBS_init(&in, leaf.data, leaf.len);
  if (!CBS_get_asn1(&in, &certificate, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&certificate, &tbs, CBS_ASN1_SEQUENCE) ||
      !CBS_get_optional_asn1(&tbs, NULL, NULL,
                             CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) ||
      !CBS_get_asn1(&tbs, &serial, CBS_ASN1_INTEGER)) {
    return false;
  }
  *out = bytes_of(CBS_data(&serial), CBS_len(&serial));
  return true;
}

static const struct fake_ca *ca_of(const struct signer *signer, const struct store_chain *chain) {
  for (unsigned i = 0; i < NUM_LEVELS; i++) {
    if (memcmp(signer->ca_ids[i], chain->facts.ca_id, sizeof(signer->ca_ids[i])) == 0) {
      return &signer->cas[i];
    }
  }
  return NULL;
}

static enum status sign_one(struct signer *signer, uint64_t i) {
  enum status st = STATUS_OK;
  struct batch *batch = signer->batch;
  struct made *made = &batch->made[i];
  struct store_chain chain;
  size_t len = 0;
  struct fake_staple staple = {.index = batch->first_id + i,
                               .this_update_s = batch->now_s,
                               .next_update_s = batch->next_update_s};
  made->len = 0;
  st = store_get_chain(signer->reader, &chain, batch->first_id + i);
  if (st == STATUS_NOT_FOUND) {
    return STATUS_OK;
  }
  TRY(st);
  const struct fake_ca *ca = ca_of(signer, &chain);
  if (ca == NULL || !read_serial(&staple.serial, chain.leaf)) {
    return errmsg_set(&signer->err, STATUS_REFUSED,
                      "chain %" PRIu64 " is of no CA of make-certificates with this seed",
                      batch->first_id + i);
  }
  if (!fake_ca_staple(ca, made->response, &len, &staple)) {
    return errmsg_set(&signer->err, STATUS_CRYPTO, "a response cannot be signed");
  }
  made->len = (uint16_t)len;
  signer->num_made += 1;

out:
  return st;
}

static void *sign_part(void *arg) {
  struct signer *signer = arg;
  signer->st = store_reader_refresh(signer->reader);
  for (uint64_t i = signer->at; i < signer->batch->num && signer->st == STATUS_OK;
       i += signer->step) {
    signer->st = sign_one(signer, i);
  }
  store_reader_park(signer->reader);  // or pages that are free could not be used again
  return NULL;
}

static enum status sign_batch(struct signer *signers, size_t num, struct errmsg *err) {
  pthread_t threads[MAX_THREADS];
  enum status st = STATUS_OK;
  size_t started = 0;
  while (started < num &&
         pthread_create(&threads[started], NULL, sign_part, &signers[started]) == 0) {
    started++;
  }
  for (size_t i = 0; i < started; i++) {
    (void)pthread_join(threads[i], NULL);
    if (signers[i].st != STATUS_OK) {
      st = errmsg_set(err, signers[i].st, "%s", signers[i].err.text);
    }
  }
  return started == num ? st : errmsg_set(err, STATUS_SYSTEM, "no thread can be started");
}

static enum status put_batch(struct store_txn *txn, void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct batch *batch = arg;
  for (uint64_t i = 0; i < batch->num; i++) {
    const struct made *made = &batch->made[i];
    const struct store_staple staple = {.this_update_s = batch->now_s,
                                        .next_update_s = batch->next_update_s,
                                        .fetched_s = batch->now_s,
                                        .response = bytes_of(made->response, made->len)};
    if (made->len > 0) {
      TRY(store_put_staple(txn, batch->first_id + i, &staple, err));
    }
  }

out:
  return st;
}

static enum status signer_init(struct signer *signer, struct store *store, struct batch *batch,
                               const char *seed, struct errmsg *err) {
  enum status st = STATUS_OK;
  *signer = (struct signer){.batch = batch};
  TRY(store_reader_new(&signer->reader, store, err));
  for (unsigned i = 0; i < NUM_LEVELS; i++) {
    struct fake_ca *ca = &signer->cas[i];
    TRY(fake_ca_init(ca, seed, level_names[i], batch->now_s / DAY_S * DAY_S, err));
    SHA256(ca->key_sha1, sizeof(ca->key_sha1), signer->ca_ids[i]);
  }

out:
  return st;
}

static void signer_cleanup(struct signer *signer) {
  store_reader_free(signer->reader);
  for (unsigned i = 0; i < NUM_LEVELS; i++) {
    fake_ca_cleanup(&signer->cas[i]);
  }
}

static enum status run_batches(struct store *store, struct batch *batch, struct signer *signers,
                               size_t num, uint64_t num_chains, bool shows_progress,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  for (batch->first_id = 1; batch->first_id <= num_chains; batch->first_id += batch->num) {
    batch->num = num_chains - batch->first_id + 1;
    batch->num = batch->num < BATCH ? batch->num : BATCH;
    TRY(sign_batch(signers, num, err));
    TRY(store_write(store, put_batch, batch, err));
    if (shows_progress) {
      (void)fprintf(stderr, "%" PRIu64 " of %" PRIu64 " staples\n",
                    batch->first_id + batch->num - 1, num_chains);
    }
  }

out:
  return st;
}

static enum status make_staples(json_t *summary, const struct staples_options *o,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_options how = {.mode = STORE_WRITE};
  struct store *store = NULL;
  struct batch batch = {.now_s = clock_wall_s()};
  struct store_counts counts = {0};
  struct signer *signers = NULL;
  uint64_t num_made = 0;
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  size_t num = o->num_threads > 0 ? (size_t)o->num_threads : (size_t)processors;
  size_t ready = 0;

  num = num == 0 ? 1 : num > MAX_THREADS ? MAX_THREADS : num;
  batch.next_update_s = batch.now_s + o->days * DAY_S;
  batch.made = calloc(BATCH, sizeof(*batch.made));
  signers = calloc(num, sizeof(*signers));
  if (batch.made == NULL || signers == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  TRY(store_open(&store, o->store, &how, err));
  for (; ready < num; ready++) {
    TRY(signer_init(&signers[ready], store, &batch, o->seed, err));
    signers[ready].at = ready;
    signers[ready].step = num;
  }
  TRY(store_count(&counts, signers[0].reader, err));
  for (size_t i = 0; i < num; i++) {
    store_reader_park(signers[i].reader);
  }
  TRY(run_batches(store, &batch, signers, num, counts.num_chains, o->shows_progress, err));
  for (size_t i = 0; i < num; i++) {
    num_made += signers[i].num_made;
  }
  (void)json_object_set_new(summary, "staples", json_integer((json_int_t)num_made));

out:
  for (size_t i = 0; signers != NULL && i < num; i++) {
    signer_cleanup(&signers[i]);
  }
  store_close(store);
  free(signers);
  free(batch.made);
  return st;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  int64_t began_us = clock_monotonic_us();
  const enum status st = make_staples(summary, arg, err);
  (void)json_object_set_new(summary, "seconds",
                            json_real((double)(clock_monotonic_us() - began_us) / 1e6));
  return st;
}

const struct subcommand store_staples_subcommand = {
    .name = "make-staples",
    .summary = "an OCSP response for each leaf of such a store",
    .help = "Makes a staple for each leaf of a store of make-certificates.",
    .options = options,
    .options_len = sizeof(struct staples_options),
    .run = run,
};
