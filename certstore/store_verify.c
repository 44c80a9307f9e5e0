// SPDX-License-Identifier: Apache-2.0
// Every record, by itself and against the others. What is read may be damaged: a
// sentence, not a CHECK, is what a wrong record gets.
#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/certstore_private.h"
#include "certstore/store_private.h"
#include "common/base/clock.h"
#include "common/wire/cert_der.h"

#define PROGRESS_EVERY 4096u

struct verify {
  const struct store_reader *reader;
  const struct store_verify_options *options;
  uint64_t num_done;
  uint64_t num_all;
  uint64_t num_faults;
  bool is_ended;
};

static void fault(struct verify *verify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void fault(struct verify *verify, const char *format, ...) {
  char sentence[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(sentence, sizeof(sentence), format, args);
  va_end(args);
  verify->num_faults++;
  verify->options->on_fault(verify->options->arg, sentence);
}

static bool go_on(struct verify *verify) {
  verify->num_done++;
  if (verify->options->progress != NULL && verify->num_done % PROGRESS_EVERY == 0 &&
      !verify->options->progress(verify->options->arg, verify->num_done, verify->num_all)) {
    verify->is_ended = true;
  }
  return !verify->is_ended;
}

// --- chains ----------------------------------------------------------------------------

static bool has_facts_of(const struct store_chain *chain, const struct cert_der *leaf) {
  struct store_facts facts = {
      .kind = leaf->kind,
      .has_delegation_usage = leaf->has_delegation_usage,
      .has_digital_signature = leaf->has_digital_signature,
      .is_must_staple = leaf->is_must_staple,
      .not_before_s = leaf->not_before_s,
      .not_after_s = leaf->not_after_s,
  };
  uint8_t ski[20];
  cert_der_key_id(facts.key_id, leaf);
  cert_der_ca_id(facts.ca_id, leaf);
  cert_der_ski(ski, leaf);
  return store_facts_equal(&facts, &chain->facts) && memcmp(ski, chain->ski, sizeof(ski)) == 0;
}

static bool has_good_signature(struct bytes certificate, struct bytes issuer) {
  const uint8_t *at = certificate.data;
  X509 *subject = d2i_X509(NULL, &at, (long)certificate.len);
  at = issuer.data;
  X509 *parent = d2i_X509(NULL, &at, (long)issuer.len);
  EVP_PKEY *key = parent != NULL ? X509_get_pubkey(parent) : NULL;
  bool is_good = subject != NULL && key != NULL && X509_verify(subject, key) == 1;
  EVP_PKEY_free(key);
  X509_free(parent);
  X509_free(subject);
  ERR_clear_error();
  return is_good;
}

static void check_issuers(struct verify *verify, uint64_t id, const struct store_chain *chain,
                          const struct cert_der *leaf) {
  struct cert_der last = *leaf;
  struct bytes last_der = chain->leaf;
  for (size_t i = 0; i < chain->num_issuers; i++) {
    struct bytes der;
    struct cert_der issuer;
    if (store_get_issuer(verify->reader, &der, chain->issuers.data + 32 * i) != STATUS_OK) {
      fault(verify, "chain %" PRIu64 ": certificate %zu is missing", id, i + 2);
      return;
    }
    if (cert_der_parse(&issuer, der) != STATUS_OK || !cert_der_is_issued_by(&last, &issuer)) {
      fault(verify, "chain %" PRIu64 ": certificate %zu did not issue certificate %zu", id, i + 2,
            i + 1);
      return;
    }
    if (verify->options->is_deep && i == 0 && !has_good_signature(last_der, der)) {
      fault(verify, "chain %" PRIu64 ": the leaf's signature does not verify with its issuer's key",
            id);
    }
    last = issuer;
    last_der = der;
  }
}

static void check_indices(struct verify *verify, uint64_t id, const struct store_chain *chain) {
  struct store_ca ca;
  struct bytes nothing;
  uint8_t key[32 + STORE_ID_LEN];
  uint64_t found = 0;
  if (store_find_leaf(verify->reader, &found, chain->leaf_sha256) != STATUS_OK || found != id) {
    fault(verify, "chain %" PRIu64 ": its leaf is not found by its hash", id);
  }
  memcpy(key, chain->facts.key_id, 32);
  (void)store_id_key(key + 32, id);
  if (store_get(verify->reader->chains, verify->reader->store->tables[TABLE_KEYS],
                bytes_of(key, sizeof(key)), &nothing) != STATUS_OK) {
    fault(verify, "chain %" PRIu64 ": it is not found by its key", id);
  }
  if (store_get_ca(verify->reader, &ca, chain->facts.ca_id) != STATUS_OK) {
    fault(verify, "chain %" PRIu64 ": its CA has no record", id);
  }
}

static bool on_chain(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_chain chain;
  struct cert_der leaf;
  uint8_t sha256[32];
  uint64_t id = key.len == STORE_ID_LEN ? store_id_of(key.data) : 0;
  if (id == 0 || store_chain_decode(&chain, value) != STATUS_OK) {
    fault(verify, "chain %" PRIu64 ": its record is damaged, or of a later version", id);
    return go_on(verify);
  }
  SHA256(chain.leaf.data, chain.leaf.len, sha256);
  if (memcmp(sha256, chain.leaf_sha256, 32) != 0) {
    fault(verify, "chain %" PRIu64 ": the leaf is not the one that its hash says", id);
  } else if (cert_der_parse(&leaf, chain.leaf) != STATUS_OK || !has_facts_of(&chain, &leaf)) {
    fault(verify, "chain %" PRIu64 ": what is noted of the leaf is not what the leaf says", id);
  } else {
    check_issuers(verify, id, &chain, &leaf);
  }
  check_indices(verify, id, &chain);
  return go_on(verify);
}

static bool on_issuer(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  uint8_t sha256[32];
  SHA256(value.data, value.len, sha256);
  if (key.len != 32 || memcmp(key.data, sha256, 32) != 0) {
    fault(verify, "an intermediate certificate is not the one that its hash says");
  }
  return go_on(verify);
}

static bool on_leaf(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_chain chain;
  if (key.len != 32 || value.len != STORE_ID_LEN ||
      store_get_chain(verify->reader, &chain, store_id_of(value.data)) != STATUS_OK ||
      memcmp(chain.leaf_sha256, key.data, 32) != 0) {
    fault(verify, "the index of leaves has one that leads nowhere");
  }
  return go_on(verify);
}

static bool on_key(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_chain chain;
  (void)value;
  if (key.len != 32 + STORE_ID_LEN ||
      store_get_chain(verify->reader, &chain, store_id_of(key.data + 32)) != STATUS_OK ||
      memcmp(chain.facts.key_id, key.data, 32) != 0) {
    fault(verify, "the index of keys has one that leads nowhere");
  }
  return go_on(verify);
}

// --- names -----------------------------------------------------------------------------

static void check_slot(struct verify *verify, const char *name, const struct store_slot *slot) {
  struct store_chain chain;
  struct cert_der leaf;
  if (store_get_chain(verify->reader, &chain, slot->chain_id) != STATUS_OK) {
    fault(verify, "%s: its %s (chain %" PRIu64 ") is missing", name, store_level_name(slot->level),
          slot->chain_id);
    return;
  }
  if (!store_facts_equal(&slot->facts, &chain.facts)) {
    fault(verify, "%s: what is noted of its %s is not what chain %" PRIu64 " says", name,
          store_level_name(slot->level), slot->chain_id);
  }
  if (cert_der_parse(&leaf, chain.leaf) != STATUS_OK || !cert_der_covers(&leaf, name)) {
    fault(verify, "%s: the leaf of its %s is not for it", name, store_level_name(slot->level));
  }
}

static bool shares_key(const struct store_name *name) {
  for (size_t i = 0; i + 1 < name->num_slots; i++) {
    for (size_t j = i + 1; j < name->num_slots; j++) {
      if (memcmp(name->slots[i].facts.key_id, name->slots[j].facts.key_id, 32) == 0) {
        return true;
      }
    }
  }
  return false;
}

static bool on_name(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_name record;
  struct host host;
  if (!host_read(&host, key, true) || !bytes_equal(bytes_of(host.text, host.len), key)) {
    fault(verify, "a name is not one that a host can have");
    return go_on(verify);
  }
  if (store_name_decode(&record, value) != STATUS_OK) {
    fault(verify, "%s: its record is damaged, or of a later version", host.text);
    return go_on(verify);
  }
  for (size_t i = 0; i < record.num_slots; i++) {
    check_slot(verify, host.text, &record.slots[i]);
  }
  if (shares_key(&record)) {
    fault(verify, "%s: two of its chains have the same key", host.text);
  }
  return go_on(verify);
}

// --- what hangs on chains ------------------------------------------------------------------

static bool on_staple(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_staple staple;
  struct store_chain chain;
  if (key.len != STORE_ID_LEN || store_staple_decode(&staple, value) != STATUS_OK ||
      store_get_chain(verify->reader, &chain, store_id_of(key.data)) != STATUS_OK) {
    fault(verify, "a staple is damaged, or belongs to no chain");
  }
  return go_on(verify);
}

static bool on_revoked(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_revoked revoked;
  struct store_chain chain;
  if (key.len != STORE_ID_LEN || store_revoked_decode(&revoked, value) != STATUS_OK ||
      store_get_chain(verify->reader, &chain, store_id_of(key.data)) != STATUS_OK) {
    fault(verify, "a revocation is damaged, or belongs to no chain");
  }
  return go_on(verify);
}

static bool on_ca(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_ca ca;
  if (key.len != 32 || store_ca_decode(&ca, value) != STATUS_OK) {
    fault(verify, "the record of a CA is damaged");
  }
  return go_on(verify);
}

// --- states ------------------------------------------------------------------------------

static bool on_change(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_change change;
  if (key.len != STORE_ID_LEN || store_change_decode(&change, value) != STATUS_OK) {
    fault(verify, "a switch in the log is damaged, or of a later version");
  }
  return go_on(verify);
}

static bool same_words(const struct store_words *a, const struct store_words *b) {
  return a->service == b->service && a->preferred == b->preferred && a->is_dc_off == b->is_dc_off &&
         a->is_compromised == b->is_compromised && a->until_s == b->until_s;
}

// A state must be what its standing changes say together, before the first of them
// ended; and each of these must be about this subject.
static bool is_sum(const struct verify *verify, struct bytes key, struct store_state *state) {
  struct store_words words;
  MDB_dbi log = verify->reader->store->tables[TABLE_LOG];
  size_t num = state->num_standing;
  for (size_t i = 0; i < num; i++) {
    struct store_change change;
    uint8_t change_key[STORE_SUBJECT_KEY_MAX_LEN];
    size_t len = 0;
    if (store_get_change(verify->reader, &change, state->standing[i]) != STATUS_OK ||
        change.is_undone ||
        !store_subject_key(change_key, &len, (enum state_level)change.level, change.subject) ||
        !bytes_equal(bytes_of(change_key, len), key)) {
      return false;
    }
  }
  return store_fold(&words, verify->reader->states, log, state->standing, &num,
                    state->words.until_s != 0 ? state->words.until_s - 1 : clock_wall_s()) ==
             STATUS_OK &&
         num == state->num_standing && same_words(&words, &state->words);
}

static bool on_state(void *arg, struct bytes key, struct bytes value) {
  struct verify *verify = arg;
  struct store_state state;
  if (store_state_decode(&state, value) != STATUS_OK || state.num_standing == 0 ||
      !is_sum(verify, key, &state)) {
    fault(verify, "what is said of a subject is not what the log says");
  }
  return go_on(verify);
}

// --- all of it -----------------------------------------------------------------------------

enum status store_verify(const struct store_reader *reader,
                         const struct store_verify_options *options, struct errmsg *err) {
  static const struct {
    enum store_table table;
    bool (*each)(void *arg, struct bytes key, struct bytes value);
  } tables[] = {
      {TABLE_ISSUERS, on_issuer},  {TABLE_CAS, on_ca},     {TABLE_CHAINS, on_chain},
      {TABLE_LEAVES, on_leaf},     {TABLE_KEYS, on_key},   {TABLE_STAPLES, on_staple},
      {TABLE_REVOKED, on_revoked}, {TABLE_NAMES, on_name}, {TABLE_LOG, on_change},
      {TABLE_STATES, on_state},
  };
  enum { NUM = sizeof(tables) / sizeof(tables[0]) };
  struct verify verify = {.reader = reader, .options = options};
  MDB_txn *const txns[2] = {reader->chains, reader->states};

  for (size_t i = 0; i < NUM; i++) {
    verify.num_all += store_num(txns[tables[i].table >= NUM_CHAIN_TABLES],
                                reader->store->tables[tables[i].table]);
  }
  for (size_t i = 0; i < NUM && !verify.is_ended; i++) {
    if (store_walk(txns[tables[i].table >= NUM_CHAIN_TABLES],
                   reader->store->tables[tables[i].table], tables[i].each, &verify) != STATUS_OK) {
      fault(&verify, "LMDB cannot walk through table %zu", i);
    }
  }
  if (verify.num_faults > 0) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: %" PRIu64 " records of %" PRIu64
                      " are wrong. Put back a copy of the store, or import the certificates into a "
                      "new one",
                      reader->store->folder, verify.num_faults, verify.num_all);
  }
  return verify.is_ended ? STATUS_CLOSED : STATUS_OK;
}
