// SPDX-License-Identifier: Apache-2.0
#include "certstore/ready.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#define PATH_PREFIX "store:"

// What one name consists of, in the map.
struct found {
  struct store_name name;
  struct store_chain chains[STORE_MAX_SLOTS];
  struct store_staple staples[STORE_MAX_SLOTS];
  bool is_revoked[STORE_MAX_SLOTS];
  uint8_t reasons[STORE_MAX_SLOTS];
};

// Absent is an answer, too.
static enum status or_none(enum status st) { return st == STATUS_NOT_FOUND ? STATUS_OK : st; }

static enum status find_slot(struct found *found, const struct store_reader *reader, size_t i) {
  enum status st = STATUS_OK;
  const uint64_t id = found->name.slots[i].chain_id;
  struct store_revoked revoked;

  st = store_get_chain(reader, &found->chains[i], id);
  if (st == STATUS_NOT_FOUND) {
    st = STATUS_FORMAT;  // a name whose chain is not there
  }
  TRY(st);
  found->staples[i] = (struct store_staple){0};
  TRY(or_none(store_get_staple(reader, &found->staples[i], id)));
  st = store_get_revoked(reader, &revoked, id);
  found->is_revoked[i] = st == STATUS_OK;
  found->reasons[i] = st == STATUS_OK ? revoked.reason : 0;
  TRY(or_none(st));

out:
  return st;
}

static void mark_found(struct ready_mark *out, const struct found *found) {
  SHA256_CTX hash;
  SHA256_Init(&hash);
  for (size_t i = 0; i < found->name.num_slots; i++) {
    const struct store_slot *slot = &found->name.slots[i];
    const struct store_chain *chain = &found->chains[i];
    const struct store_staple *staple = &found->staples[i];
    SHA256_Update(&hash, &slot->level, sizeof(slot->level));
    SHA256_Update(&hash, chain->leaf_sha256, sizeof(chain->leaf_sha256));
    SHA256_Update(&hash, chain->issuers.data, chain->issuers.len);
    SHA256_Update(&hash, &staple->next_update_s, sizeof(staple->next_update_s));
    SHA256_Update(&hash, &staple->fetched_s, sizeof(staple->fetched_s));
    SHA256_Update(&hash, &found->is_revoked[i], sizeof(found->is_revoked[i]));
    SHA256_Update(&hash, &found->reasons[i], sizeof(found->reasons[i]));
  }
  SHA256_Final(out->digest, &hash);
}

static enum status make_chain(struct ready *ready, const struct found *found, size_t i,
                              const struct store_reader *reader,
                              const SSL_PRIVATE_KEY_METHOD *method, struct cert_pool *pool,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_chain *chain = &found->chains[i];
  const unsigned at = found->name.slots[i].level;
  struct cert_level *level = &ready->name.levels[at];
  struct bytes certs[1 + STORE_MAX_ISSUERS] = {chain->leaf};
  char path[sizeof(PATH_PREFIX) + CERTSTORE_NAME_MAX_LEN];

  if (level->num_chains == CERTSTORE_MAX_PER_LEVEL) {
    return errmsg_set(err, STATUS_FORMAT, "%s: a level with too many chains", ready->name.name);
  }
  for (size_t k = 0; k < chain->num_issuers; k++) {
    TRY(store_get_issuer(reader, &certs[1 + k], chain->issuers.data + 32 * k));
  }
  (void)snprintf(path, sizeof(path), PATH_PREFIX "%s", ready->name.name);
  const struct chain_parts parts = {
      .label = store_level_name(at),
      .path = path,
      .certs = certs,
      .num_certs = 1 + chain->num_issuers,
      .staple = found->staples[i].response,
      .staple_ends_s = found->staples[i].next_update_s,
      .is_revoked = found->is_revoked[i],
      .revoked_reason = found->reasons[i],
      .key_state = &ready->keys[at][level->num_chains],
      .ca_state = &ready->cas[at][level->num_chains],
  };
  TRY(chain_make(&level->chains[level->num_chains], &parts, method, pool, err));
  level->num_chains += 1;
  ready->name.num_levels = at + 1;  // slots come in the order of their levels

out:
  return st == STATUS_NOT_FOUND ? STATUS_FORMAT : st;
}

enum status ready_load(struct ready **out, const struct store_reader *reader, struct bytes name,
                       const struct ready_mark *known, const SSL_PRIVATE_KEY_METHOD *method,
                       struct cert_pool *pool, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct found found;
  struct ready_mark mark;
  struct ready *ready = NULL;

  *out = NULL;
  TRY(store_find_exact(reader, &found.name, name));
  for (size_t i = 0; i < found.name.num_slots; i++) {
    TRY(find_slot(&found, reader, i));
  }
  mark_found(&mark, &found);
  if (known != NULL && memcmp(&mark, known, sizeof(mark)) == 0) {
    goto out;
  }
  ready = calloc(1, sizeof(*ready));
  if (ready == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  atomic_store(&ready->num_refs, 1);
  atomic_store(&ready->is_seen, true);
  atomic_store(&ready->states_version, UINT64_MAX);
  ready->mark = mark;
  ready->name_len = name.len;
  ready->name.state = &ready->state;
  ready->name.name = strndup((const char *)name.data, name.len);
  if (ready->name.name == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
  }
  for (size_t i = 0; i < found.name.num_slots; i++) {
    TRY(make_chain(ready, &found, i, reader, method, pool, err));
  }
  *out = ready;
  ready = NULL;

out:
  ready_unref(ready);
  return st;
}

void ready_unref(struct ready *ready) {
  if (ready == NULL || atomic_fetch_sub_explicit(&ready->num_refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  for (size_t i = 0; i < ready->name.num_levels; i++) {
    for (size_t j = 0; j < ready->name.levels[i].num_chains; j++) {
      chain_free(ready->name.levels[i].chains[j]);
    }
  }
  free(ready->name.name);
  free(ready);
}

// --- words -------------------------------------------------------------------------

static enum status read_one(struct state *out, int64_t *end_s, const struct store_reader *reader,
                            enum state_level level, struct bytes subject, int64_t now_s) {
  struct store_words words;
  enum status st = store_get_words(reader, &words, level, subject, now_s);
  if (st != STATUS_OK) {
    return st;
  }
  atomic_init(&out->service, words.service);
  atomic_init(&out->preferred, words.preferred);
  atomic_init(&out->is_dc_off, words.is_dc_off);
  atomic_init(&out->is_compromised, words.is_compromised);
  if (words.until_s != 0 && (*end_s == 0 || words.until_s < *end_s)) {
    *end_s = words.until_s;
  }
  return STATUS_OK;
}

enum status ready_read_words(struct certstore_words *out, int64_t *out_end_s,
                             const struct store_reader *reader, const struct cert_name *name,
                             int64_t now_s) {
  enum status st = STATUS_OK;
  *out_end_s = 0;
  TRY(read_one(&out->fleet, out_end_s, reader, STATE_LEVEL_FLEET, (struct bytes){0}, now_s));
  TRY(read_one(&out->name, out_end_s, reader, STATE_LEVEL_NAME, bytes_text(name->name), now_s));
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      const struct cert_info *info = &name->levels[i].chains[j]->info;
      TRY(read_one(&out->keys[i][j], out_end_s, reader, STATE_LEVEL_KEY,
                   bytes_of(info->key_id, sizeof(info->key_id)), now_s));
      TRY(read_one(&out->cas[i][j], out_end_s, reader, STATE_LEVEL_CA,
                   bytes_of(info->ca_id, sizeof(info->ca_id)), now_s));
    }
  }

out:
  return st;
}

#define PUT(member)                                                                     \
  do {                                                                                  \
    if (atomic_load_explicit(&out->member, memory_order_relaxed) !=                     \
        atomic_load_explicit(&words->member, memory_order_relaxed)) {                   \
      atomic_store_explicit(&out->member,                                               \
                            atomic_load_explicit(&words->member, memory_order_relaxed), \
                            memory_order_relaxed);                                      \
    }                                                                                   \
  } while (0)

void state_put_words(struct state *out, const struct state *words) {
  PUT(service);
  PUT(preferred);
  PUT(is_dc_off);
  PUT(is_compromised);
}

void ready_put_words(struct ready *ready, const struct certstore_words *words, int64_t end_s,
                     uint64_t version) {
  state_put_words(&ready->state, &words->name);
  for (size_t i = 0; i < ready->name.num_levels; i++) {
    for (size_t j = 0; j < ready->name.levels[i].num_chains; j++) {
      state_put_words(&ready->keys[i][j], &words->keys[i][j]);
      state_put_words(&ready->cas[i][j], &words->cas[i][j]);
    }
  }
  atomic_store_explicit(&ready->words_end_s, end_s, memory_order_relaxed);
  // Whoever sees the version sees the words.
  atomic_store_explicit(&ready->states_version, version, memory_order_release);
}
