// SPDX-License-Identifier: Apache-2.0
// Chains go into the file as they come, at its end. What is filed by hash or name
// (leaves, keys, names) waits in memory and is put in order at the end of the
// transaction: each page of a large tree is then touched once, not once for each
// record, and a table that was empty gets pages that are full.
#include "certstore/store_write.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "certstore/certstore_private.h"
#include "certstore/store_private.h"
#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "common/wire/cert_der.h"

#define CACHE_NUM 64u         // issuers and CAs met last
#define ARENA_LEN (1u << 20)  // bytes of names, at a time
#define PROGRESS_EVERY 4096u  // records
#define MAP_PER_LEAF_BYTE 6u  // address space for each byte of certificates

// A record that waits: a hash (of a leaf, or a key's id) and the chain.
struct pending_hash {
  uint8_t hash[32];
  uint64_t chain_id;
};

struct pending_name {
  const char *name;  // in an arena
  struct store_slot slot;
  uint32_t source;
  bool is_replacing;
};

struct arena {
  struct arena *next;
  size_t len;
  char text[ARENA_LEN];
};

// An issuer that was met before: the same bytes need no second look.
struct known_issuer {
  uint8_t *der;
  size_t len;
  struct cert_der cert;  // borrows from der
  uint8_t sha256[32];
};

struct store_txn {
  struct store *store;
  MDB_txn *txn;
  int rc;  // what LMDB said last when it was not 0
  int64_t now_s;
  uint64_t next_chain;

  struct pending_hash *leaves;
  struct pending_hash *keys;
  size_t num_chains;  // in both
  size_t chains_room;
  uint32_t *leaf_index;  // 1 + index into leaves, by hash
  size_t index_room;     // a power of two

  struct pending_name *names;
  size_t num_names;
  size_t names_room;
  struct arena *arena;

  struct known_issuer issuers[CACHE_NUM];
  size_t num_issuers;
  uint8_t cas[CACHE_NUM][32];
  size_t num_cas;
  uint8_t *record;  // room for the longest

  bool (*on_issue)(void *arg, enum store_issue issue, uint32_t source, const char *sentence);
  void *issue_arg;
  void (*on_progress)(void *arg, uint64_t done, uint64_t all);
  void *progress_arg;
  uint64_t num_done;
  uint64_t num_to_do;
};

const char *store_issue_name(enum store_issue issue) {
  static const char *const names[STORE_NUM_ISSUES] = {
      [STORE_ISSUE_SAME_KEY] = "same_key",
      [STORE_ISSUE_SAME_CA] = "same_ca",
      [STORE_ISSUE_EXPIRED_BACKUP] = "expired_backup",
      [STORE_ISSUE_OLDER] = "older",
  };
  CHECK((unsigned)issue < STORE_NUM_ISSUES);
  return names[issue];
}

void store_on_issue(struct store_txn *txn,
                    bool (*on_issue)(void *arg, enum store_issue issue, uint32_t source,
                                     const char *sentence),
                    void *arg) {
  txn->on_issue = on_issue;
  txn->issue_arg = arg;
}

void store_on_progress(struct store_txn *txn,
                       void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg) {
  txn->on_progress = progress;
  txn->progress_arg = arg;
}

MDB_txn *store_txn_mdb(const struct store_txn *txn) { return txn->txn; }
struct store *store_txn_store(const struct store_txn *txn) {
  return txn->store;
}
uint64_t store_txn_next_chain(const struct store_txn *txn) { return txn->next_chain; }

bool store_txn_is_broken(const struct store_txn *txn) { return txn->rc != 0; }

static void step(struct store_txn *txn) {
  txn->num_done++;
  if (txn->on_progress != NULL && txn->num_done % PROGRESS_EVERY == 0) {
    txn->on_progress(txn->progress_arg, txn->num_done, txn->num_to_do);
  }
}

static enum status fail(struct store_txn *txn, int rc, struct errmsg *err) {
  txn->rc = rc;
  return store_fail(err, rc, txn->store->chains_path, "cannot be written");
}

static enum status no_memory(struct errmsg *err) {
  return errmsg_set(err, STATUS_MEMORY, "no memory");
}

// --- records -----------------------------------------------------------------------

static enum status put(struct store_txn *txn, enum store_table table, struct bytes key,
                       struct bytes value, unsigned flags, struct errmsg *err) {
  MDB_val k = store_val(key);
  MDB_val v = store_val(value);
  int rc = mdb_put(txn->txn, txn->store->tables[table], &k, &v, flags);
  if (rc == 0 || (rc == MDB_KEYEXIST && (flags & MDB_NOOVERWRITE) != 0)) {
    return STATUS_OK;
  }
  return fail(txn, rc, err);
}

enum status store_txn_get(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct bytes *out) {
  return store_get(txn->txn, txn->store->tables[table], key, out);
}

enum status store_txn_del(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct errmsg *err) {
  MDB_val k = store_val(key);
  int rc = mdb_del(txn->txn, txn->store->tables[table], &k, NULL);
  if (rc == MDB_NOTFOUND) {
    return STATUS_NOT_FOUND;
  }
  return rc == 0 ? STATUS_OK : fail(txn, rc, err);
}

enum status store_txn_damaged(struct store_txn *txn, const char *what, struct errmsg *err) {
  return errmsg_set(
      err, STATUS_FORMAT,
      "%s: a record (%s) is damaged: `deputyctl store verify` lists what is. Put back "
      "a copy of the store, or import the certificates into a new one",
      txn->store->chains_path, what);
}

static enum status grow(void **array, size_t *room, size_t num, size_t len) {
  if (num < *room) {
    return STATUS_OK;
  }
  size_t more = *room == 0 ? 64 : *room * 2;
  void *bigger = realloc(*array, more * len);
  if (bigger == NULL) {
    return STATUS_MEMORY;
  }
  *array = bigger;
  *room = more;
  return STATUS_OK;
}

// --- leaves that wait ----------------------------------------------------------------

static size_t place_of(const struct store_txn *txn, const uint8_t hash[32]) {
  uint64_t start = 0;
  memcpy(&start, hash, sizeof(start));
  size_t at = (size_t)start & (txn->index_room - 1);
  while (txn->leaf_index[at] != 0 &&
         memcmp(txn->leaves[txn->leaf_index[at] - 1].hash, hash, 32) != 0) {
    at = (at + 1) & (txn->index_room - 1);
  }
  return at;
}

static enum status make_index(struct store_txn *txn) {
  if (txn->num_chains * 2 < txn->index_room) {
    return STATUS_OK;
  }
  size_t room = txn->index_room == 0 ? 256 : txn->index_room * 2;
  uint32_t *index = calloc(room, sizeof(*index));
  if (index == NULL || txn->num_chains >= UINT32_MAX - 1) {
    free(index);
    return STATUS_MEMORY;
  }
  free(txn->leaf_index);
  txn->leaf_index = index;
  txn->index_room = room;
  for (size_t i = 0; i < txn->num_chains; i++) {
    txn->leaf_index[place_of(txn, txn->leaves[i].hash)] = (uint32_t)(i + 1);
  }
  return STATUS_OK;
}

static enum status note_chain(struct store_txn *txn, const uint8_t leaf[32],
                              const uint8_t key_id[32], uint64_t id) {
  enum status st = STATUS_OK;
  size_t room = txn->chains_room;
  TRY(make_index(txn));
  TRY(grow((void **)&txn->leaves, &room, txn->num_chains, sizeof(*txn->leaves)));
  room = txn->chains_room;
  TRY(grow((void **)&txn->keys, &room, txn->num_chains, sizeof(*txn->keys)));
  txn->chains_room = room;
  struct pending_hash *waiting = &txn->leaves[txn->num_chains];
  memcpy(waiting->hash, leaf, 32);
  waiting->chain_id = id;
  waiting = &txn->keys[txn->num_chains];
  memcpy(waiting->hash, key_id, 32);
  waiting->chain_id = id;
  txn->leaf_index[place_of(txn, leaf)] = (uint32_t)(txn->num_chains + 1);
  txn->num_chains++;

out:
  return st;
}

static enum status find_leaf(struct store_txn *txn, uint64_t *out, const uint8_t sha256[32],
                             struct errmsg *err) {
  struct bytes record;
  if (txn->index_room > 0) {
    uint32_t index = txn->leaf_index[place_of(txn, sha256)];
    if (index != 0) {
      *out = txn->leaves[index - 1].chain_id;
      return STATUS_OK;
    }
  }
  enum status st = store_txn_get(txn, TABLE_LEAVES, bytes_of(sha256, 32), &record);
  if (st == STATUS_OK && record.len == STORE_ID_LEN) {
    *out = store_id_of(record.data);
  } else if (st != STATUS_NOT_FOUND) {
    return store_txn_damaged(txn, "leaf", err);
  }
  return st;
}

// --- names that wait -----------------------------------------------------------------

static const char *keep_text(struct store_txn *txn, const char *text, size_t len) {
  struct arena *arena = txn->arena;
  if (arena == NULL || ARENA_LEN - arena->len < len + 1) {
    arena = malloc(sizeof(*arena));
    if (arena == NULL) {
      return NULL;
    }
    arena->next = txn->arena;
    arena->len = 0;
    txn->arena = arena;
  }
  char *kept = arena->text + arena->len;
  memcpy(kept, text, len);
  kept[len] = '\0';
  arena->len += len + 1;
  return kept;
}

static enum status note_name(struct store_txn *txn, const char *name, size_t len,
                             const struct store_slot *slot, const struct store_addition *addition) {
  enum status st = STATUS_OK;
  TRY(grow((void **)&txn->names, &txn->names_room, txn->num_names, sizeof(*txn->names)));
  struct pending_name *waiting = &txn->names[txn->num_names];
  waiting->name = keep_text(txn, name, len);
  if (waiting->name == NULL) {
    return STATUS_MEMORY;
  }
  waiting->slot = *slot;
  waiting->source = addition->source;
  waiting->is_replacing = addition->is_replacing;
  txn->num_names++;

out:
  return st;
}

// --- issuers and CAs -----------------------------------------------------------------

static void forget_issuer(struct known_issuer *issuer) {
  free(issuer->der);
  *issuer = (struct known_issuer){0};
}

// find_issuer lends what is known of these bytes, reading and keeping them if they are
// new.
static enum status find_issuer(struct store_txn *txn, struct known_issuer **out, struct bytes der,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < CACHE_NUM; i++) {
    struct known_issuer *known = &txn->issuers[i];
    if (known->der != NULL && bytes_equal(bytes_of(known->der, known->len), der)) {
      *out = known;
      return STATUS_OK;
    }
  }
  struct known_issuer *made = &txn->issuers[txn->num_issuers++ % CACHE_NUM];
  forget_issuer(made);
  made->der = bytes_copy(der);
  if (made->der == NULL) {
    return no_memory(err);
  }
  made->len = der.len;
  st = cert_der_parse(&made->cert, bytes_of(made->der, made->len));
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st, "a certificate after the leaf does not parse"));
  }
  SHA256(made->der, made->len, made->sha256);
  TRY(put(txn, TABLE_ISSUERS, bytes_of(made->sha256, 32), bytes_of(made->der, made->len),
          MDB_NOOVERWRITE, err));
  *out = made;

out:
  if (st != STATUS_OK) {
    forget_issuer(made);
  }
  return st;
}

// note_ca keeps the name of a CA that is new: the one time that texts are read.
static enum status note_ca(struct store_txn *txn, const uint8_t ca_id[32], struct bytes leaf,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_info info = {0};
  struct bytes there;
  uint8_t record[STORE_CA_RECORD_MAX_LEN];
  size_t len = 0;
  for (size_t i = 0; i < txn->num_cas && i < CACHE_NUM; i++) {
    if (memcmp(txn->cas[i], ca_id, 32) == 0) {
      return STATUS_OK;
    }
  }
  if (store_txn_get(txn, TABLE_CAS, bytes_of(ca_id, 32), &there) != STATUS_OK) {
    TRY(cert_info_read(&info, leaf, err));
    const struct store_ca ca = {.issuer = bytes_text(info.issuer)};
    TRY(store_ca_encode(record, sizeof(record), &len, &ca));
    TRY(put(txn, TABLE_CAS, bytes_of(ca_id, 32), bytes_of(record, len), MDB_NOOVERWRITE, err));
  }
  memcpy(txn->cas[txn->num_cas++ % CACHE_NUM], ca_id, 32);

out:
  cert_info_cleanup(&info);
  return st;
}

// --- one chain -----------------------------------------------------------------------

static void read_facts(struct store_facts *out, const struct cert_der *cert) {
  *out = (struct store_facts){
      .kind = cert->kind,
      .has_delegation_usage = cert->has_delegation_usage,
      .has_digital_signature = cert->has_digital_signature,
      .is_must_staple = cert->is_must_staple,
      .not_before_s = cert->not_before_s,
      .not_after_s = cert->not_after_s,
  };
  cert_der_key_id(out->key_id, cert);
  cert_der_ca_id(out->ca_id, cert);
}

static enum status check_leaf(const struct cert_der *leaf, const struct store_addition *addition,
                              struct errmsg *err) {
  char first[CERT_DER_MAX_NAME_LEN + 1] = "";
  struct bytes names = leaf->names;
  if (leaf->kind == KEY_KIND_NONE) {
    return errmsg_set(err, STATUS_FORMAT,
                      "the leaf's key is of a kind that is not served: P-256, P-384, P-521, "
                      "Ed25519, or RSA of 2048 to 8192 bits");
  }
  if (leaf->is_ca) {
    return errmsg_set(err, STATUS_REFUSED,
                      "the first certificate is a CA's; the leaf comes first, then its issuer");
  }
  if (!cert_der_next_name(first, &names)) {
    return errmsg_set(err, STATUS_REFUSED,
                      "the leaf has no DNS name (subjectAltName): no client would take it");
  }
  for (size_t i = 0; i < addition->num_names; i++) {
    if (!cert_der_covers(leaf, addition->names[i])) {
      return errmsg_set(err, STATUS_REFUSED, "the leaf is not for %s: it is for %s%s",
                        addition->names[i], first, names.len > 0 ? " and others" : "");
    }
  }
  return STATUS_OK;
}

// link_issuers checks that each certificate issued the one before it, and gathers the
// hashes.
static enum status link_issuers(struct store_txn *txn, uint8_t out[32 * STORE_MAX_ISSUERS],
                                const struct cert_der *leaf, const struct store_addition *addition,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_der last = *leaf;
  for (size_t i = 1; i < addition->num_certs; i++) {
    struct known_issuer *issuer = NULL;
    TRY(find_issuer(txn, &issuer, addition->certs[i], err));
    if (!cert_der_is_issued_by(&last, &issuer->cert)) {
      TRY(errmsg_set(err, STATUS_REFUSED,
                     "the chain does not fit: certificate %zu did not issue certificate %zu; order "
                     "them leaf first, each followed by its issuer",
                     i + 1, i));
    }
    memcpy(out + 32 * (i - 1), issuer->sha256, 32);
    last = issuer->cert;
  }

out:
  return st;
}

// same_chain: is what is kept under `id` already what we would write?
static bool same_chain(struct store_txn *txn, uint64_t id, const struct store_chain *chain) {
  uint8_t key[STORE_ID_LEN];
  struct bytes record;
  struct store_chain there;
  return store_txn_get(txn, TABLE_CHAINS, store_id_key(key, id), &record) == STATUS_OK &&
         store_chain_decode(&there, record) == STATUS_OK &&
         bytes_equal(there.issuers, chain->issuers) && bytes_equal(there.leaf, chain->leaf);
}

static enum status put_chain(struct store_txn *txn, uint64_t *out_id, struct store_chain *chain,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t key[STORE_ID_LEN];
  size_t len = 0;
  uint64_t id = 0;
  st = find_leaf(txn, &id, chain->leaf_sha256, err);
  bool is_new = st == STATUS_NOT_FOUND;
  if (!is_new) {
    TRY(st);
    if (same_chain(txn, id, chain)) {
      *out_id = id;
      return STATUS_OK;
    }
  } else {
    id = txn->next_chain;
  }
  TRY(store_chain_encode(txn->record, STORE_CHAIN_RECORD_MAX_LEN, &len, chain));
  TRY(put(txn, TABLE_CHAINS, store_id_key(key, id), bytes_of(txn->record, len),
          is_new ? MDB_APPEND : 0, err));
  if (is_new) {
    txn->next_chain++;
    if (note_chain(txn, chain->leaf_sha256, chain->facts.key_id, id) != STATUS_OK) {
      TRY(no_memory(err));
    }
  }
  *out_id = id;

out:
  return st;
}

static enum status put_addition_staple(struct store_txn *txn, uint64_t id,
                                       const struct store_addition *addition, struct errmsg *err) {
  if (addition->staple.len == 0) {
    return STATUS_OK;
  }
  const struct store_staple staple = {
      .this_update_s = addition->staple_this_update_s,
      .next_update_s = addition->staple_next_update_s,
      .fetched_s = txn->now_s,
      .response = addition->staple,
  };
  return store_put_staple(txn, id, &staple, err);
}

static enum status file_names(struct store_txn *txn, const struct cert_der *leaf,
                              const struct store_slot *slot, const struct store_addition *addition,
                              struct errmsg *err) {
  char name[CERT_DER_MAX_NAME_LEN + 1];
  struct bytes names = leaf->names;
  for (size_t i = 0; i < addition->num_names; i++) {
    if (note_name(txn, addition->names[i], strlen(addition->names[i]), slot, addition) !=
        STATUS_OK) {
      return no_memory(err);
    }
  }
  while (addition->names == NULL && cert_der_next_name(name, &names)) {
    struct host host;
    if (!host_read(&host, bytes_text(name), true) || strcmp(host.text, name) != 0) {
      continue;  // no client asks for it
    }
    if (note_name(txn, name, strlen(name), slot, addition) != STATUS_OK) {
      return no_memory(err);
    }
  }
  return STATUS_OK;
}

enum status store_add(struct store_txn *txn, const struct store_addition *addition,
                      struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_der leaf;
  struct store_slot slot = {.level = (uint8_t)addition->level};
  struct store_chain chain = {.added_s = txn->now_s};
  uint8_t issuers[32 * STORE_MAX_ISSUERS];

  CHECK(addition->num_certs > 0 && addition->level < STORE_MAX_LEVELS);
  if (addition->num_certs > STORE_MAX_ISSUERS + 1) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u certificates in one chain",
                      STORE_MAX_ISSUERS + 1);
  }
  st = cert_der_parse(&leaf, addition->certs[0]);
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the leaf does not parse as a certificate");
  }
  TRY(check_leaf(&leaf, addition, err));
  TRY(link_issuers(txn, issuers, &leaf, addition, err));
  read_facts(&chain.facts, &leaf);
  TRY(note_ca(txn, chain.facts.ca_id, addition->certs[0], err));
  SHA256(addition->certs[0].data, addition->certs[0].len, chain.leaf_sha256);
  cert_der_ski(chain.ski, &leaf);
  chain.leaf = addition->certs[0];
  chain.num_issuers = addition->num_certs - 1;
  chain.issuers = bytes_of(issuers, 32 * chain.num_issuers);
  TRY(put_chain(txn, &slot.chain_id, &chain, err));
  TRY(put_addition_staple(txn, slot.chain_id, addition, err));
  slot.facts = chain.facts;
  TRY(file_names(txn, &leaf, &slot, addition, err));

out:
  return st;
}

enum status store_put_staple(struct store_txn *txn, uint64_t chain_id,
                             const struct store_staple *staple, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t key[STORE_ID_LEN];
  size_t len = 0;
  if (store_staple_encode(txn->record, STORE_STAPLE_RECORD_MAX_LEN, &len, staple) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_LIMIT, "a staple of %zu bytes", staple->response.len));
  }
  TRY(put(txn, TABLE_STAPLES, store_id_key(key, chain_id), bytes_of(txn->record, len), 0, err));

out:
  return st;
}

enum status store_put_revoked(struct store_txn *txn, uint64_t chain_id,
                              const struct store_revoked *revoked, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t key[STORE_ID_LEN];
  uint8_t record[STORE_REVOKED_RECORD_MAX_LEN];
  size_t len = 0;
  if (revoked == NULL) {
    st = store_txn_del(txn, TABLE_REVOKED, store_id_key(key, chain_id), err);
    return st == STATUS_NOT_FOUND ? STATUS_OK : st;
  }
  TRY(store_revoked_encode(record, sizeof(record), &len, revoked));
  TRY(put(txn, TABLE_REVOKED, store_id_key(key, chain_id), bytes_of(record, len), 0, err));

out:
  return st;
}

enum status store_remove_name(struct store_txn *txn, const char *name, struct errmsg *err) {
  enum status st = store_txn_del(txn, TABLE_NAMES, bytes_text(name), err);
  return st == STATUS_NOT_FOUND
             ? errmsg_set(err, st, "\"%.253s\" is not a name in this store", name)
             : st;
}

// --- names, in order -------------------------------------------------------------------

// report tells of an issue; false: the transaction ends.
static bool report(struct store_txn *txn, enum store_issue issue, const struct pending_name *name,
                   const struct store_slot *other, struct errmsg *err) {
  static const char *const sentences[STORE_NUM_ISSUES] = {
      [STORE_ISSUE_SAME_KEY] =
          "%s: its %s has the same key as its %s: a backup must have a key of its own, or it dies "
          "on the same day; refused",
      [STORE_ISSUE_SAME_CA] =
          "%s: its %s is from the same CA as its %s: if that CA is out of service, so are both",
      [STORE_ISSUE_EXPIRED_BACKUP] = "%s: its %s has expired%.0s",
      [STORE_ISSUE_OLDER] =
          "%s: this %s begins before the one that is there and is not filed (--replace files "
          "it)%.0s",
  };
  char sentence[ERRMSG_MAX_LEN];
  // The table's formats take the same three texts; %.0s passes over the last.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  (void)snprintf(sentence, sizeof(sentence), sentences[issue], name->name,
                 store_level_name(name->slot.level), store_level_name(other->level));
#pragma GCC diagnostic pop
  bool may_go_on = txn->on_issue != NULL
                       ? txn->on_issue(txn->issue_arg, issue, name->source, sentence)
                       : issue != STORE_ISSUE_SAME_KEY;
  if (!may_go_on) {
    (void)errmsg_set(err, STATUS_REFUSED, "%s", sentence);
  }
  return may_go_on;
}

static bool is_later(const struct store_facts *a, const struct store_facts *b) {
  return a->not_before_s != b->not_before_s ? a->not_before_s > b->not_before_s
                                            : a->not_after_s > b->not_after_s;
}

// insert puts the slot at its place, in place of one of the same level and kind.
static void insert(struct store_name *name, const struct store_slot *slot) {
  size_t at = 0;
  while (at < name->num_slots && store_slot_comes_before(&name->slots[at], slot)) {
    at++;
  }
  bool is_taken = at < name->num_slots && !store_slot_comes_before(slot, &name->slots[at]);
  if (!is_taken) {
    memmove(&name->slots[at + 1], &name->slots[at],
            (name->num_slots - at) * sizeof(name->slots[0]));
    name->num_slots++;
  }
  name->slots[at] = *slot;
}

// What is to become of a slot that was asked for.
enum verdict { FILE_IT, PASS_OVER, END };

static enum verdict against(struct store_txn *txn, const struct pending_name *waiting,
                            const struct store_slot *there, struct errmsg *err) {
  const struct store_slot *slot = &waiting->slot;
  bool has_same_key = memcmp(there->facts.key_id, slot->facts.key_id, 32) == 0;
  if (!store_slot_comes_before(there, slot) && !store_slot_comes_before(slot, there)) {
    if (there->chain_id == slot->chain_id || waiting->is_replacing ||
        is_later(&slot->facts, &there->facts)) {
      return FILE_IT;
    }
    return report(txn, STORE_ISSUE_OLDER, waiting, there, err) ? PASS_OVER : END;
  }
  if (there->level == slot->level) {
    return FILE_IT;
  }
  if (has_same_key) {
    return report(txn, STORE_ISSUE_SAME_KEY, waiting, there, err) ? PASS_OVER : END;
  }
  if (memcmp(there->facts.ca_id, slot->facts.ca_id, 32) == 0 &&
      !report(txn, STORE_ISSUE_SAME_CA, waiting, there, err)) {
    return END;
  }
  return FILE_IT;
}

static enum status merge(struct store_txn *txn, struct store_name *name,
                         const struct pending_name *waiting, struct errmsg *err) {
  enum verdict verdict = FILE_IT;
  for (size_t i = 0; i < name->num_slots && verdict == FILE_IT; i++) {
    verdict = against(txn, waiting, &name->slots[i], err);
  }
  if (verdict == FILE_IT && waiting->slot.level > 0 &&
      waiting->slot.facts.not_after_s < txn->now_s &&
      !report(txn, STORE_ISSUE_EXPIRED_BACKUP, waiting, &waiting->slot, err)) {
    verdict = END;
  }
  if (verdict == FILE_IT) {
    insert(name, &waiting->slot);
  }
  return verdict == END ? STATUS_REFUSED : STATUS_OK;
}

// By name; for one name in the order in which they came (which is that of memory).
static int compare_names(const void *a, const void *b) {
  const struct pending_name *one = *(const struct pending_name *const *)a;
  const struct pending_name *two = *(const struct pending_name *const *)b;
  int order = strcmp(one->name, two->name);
  return order != 0 ? order : (one > two) - (one < two);
}

static enum status write_name(struct store_txn *txn, const struct pending_name **group, size_t num,
                              unsigned flags, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct bytes key = bytes_text(group[0]->name);
  struct store_name name = {0};
  struct bytes record;
  size_t len = 0;

  st = flags == MDB_APPEND ? STATUS_NOT_FOUND : store_txn_get(txn, TABLE_NAMES, key, &record);
  if (st == STATUS_OK) {
    st = store_name_decode(&name, record);
  } else if (st == STATUS_NOT_FOUND) {
    st = STATUS_OK;
  }
  if (st != STATUS_OK) {
    return store_txn_damaged(txn, "name", err);
  }
  for (size_t i = 0; i < num; i++) {
    TRY(merge(txn, &name, group[i], err));
    step(txn);
  }
  if (name.num_slots == 0) {
    goto out;  // all were passed over
  }
  TRY(store_name_encode(txn->record, STORE_NAME_RECORD_MAX_LEN, &len, &name));
  TRY(put(txn, TABLE_NAMES, key, bytes_of(txn->record, len), flags, err));

out:
  return st;
}

static enum status write_names(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct pending_name **order = NULL;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_NAMES]) == 0 ? MDB_APPEND : 0;

  if (txn->num_names == 0) {
    return STATUS_OK;
  }
  order = malloc(txn->num_names * sizeof(struct pending_name *));
  if (order == NULL) {
    return no_memory(err);
  }
  for (size_t i = 0; i < txn->num_names; i++) {
    order[i] = &txn->names[i];
  }
  qsort(order, txn->num_names, sizeof(struct pending_name *), compare_names);
  for (size_t i = 0; i < txn->num_names;) {
    size_t end = i + 1;
    while (end < txn->num_names && strcmp(order[end]->name, order[i]->name) == 0) {
      end++;
    }
    TRY(write_name(txn, order + i, end - i, flags, err));
    i = end;
  }

out:
  free(order);
  return st;
}

static int compare_hashes(const void *a, const void *b) {
  const struct pending_hash *one = a;
  const struct pending_hash *two = b;
  int order = memcmp(one->hash, two->hash, 32);
  return order != 0 ? order : (one->chain_id > two->chain_id) - (one->chain_id < two->chain_id);
}

static enum status write_leaves(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_LEAVES]) == 0 ? MDB_APPEND : 0;
  qsort(txn->leaves, txn->num_chains, sizeof(*txn->leaves), compare_hashes);
  for (size_t i = 0; i < txn->num_chains; i++) {
    uint8_t id[STORE_ID_LEN];
    TRY(put(txn, TABLE_LEAVES, bytes_of(txn->leaves[i].hash, 32),
            store_id_key(id, txn->leaves[i].chain_id), flags, err));
    step(txn);
  }

out:
  return st;
}

static enum status write_keys(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_KEYS]) == 0 ? MDB_APPEND : 0;
  qsort(txn->keys, txn->num_chains, sizeof(*txn->keys), compare_hashes);
  for (size_t i = 0; i < txn->num_chains; i++) {
    uint8_t key[32 + STORE_ID_LEN];
    memcpy(key, txn->keys[i].hash, 32);
    (void)store_id_key(key + 32, txn->keys[i].chain_id);
    TRY(put(txn, TABLE_KEYS, bytes_of(key, sizeof(key)), (struct bytes){0}, flags, err));
    step(txn);
  }

out:
  return st;
}

// flush writes what waits.
static enum status flush(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  txn->num_done = 0;
  txn->num_to_do = 2 * txn->num_chains + txn->num_names;
  if (txn->num_chains > 0) {
    TRY(write_leaves(txn, err));
    TRY(write_keys(txn, err));
  }
  TRY(write_names(txn, err));

out:
  return st;
}

// --- the transaction -------------------------------------------------------------------

static void txn_cleanup(struct store_txn *txn) {
  mdb_txn_abort(txn->txn);
  for (size_t i = 0; i < CACHE_NUM; i++) {
    forget_issuer(&txn->issuers[i]);
  }
  while (txn->arena != NULL) {
    struct arena *next = txn->arena->next;
    free(txn->arena);
    txn->arena = next;
  }
  free(txn->leaves);
  free(txn->keys);
  free(txn->leaf_index);
  free(txn->names);
  free(txn->record);
  *txn = (struct store_txn){0};
}

// The id after the last: chains are never given another's, as long as none is removed
// (a compaction leaves out only what nobody names).
static enum status next_id(uint64_t *out, MDB_txn *txn, MDB_dbi table) {
  MDB_cursor *cursor = NULL;
  MDB_val key = {0};
  MDB_val value = {0};
  *out = 1;
  if (mdb_cursor_open(txn, table, &cursor) != 0) {
    return STATUS_MEMORY;
  }
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
  mdb_cursor_close(cursor);
  if (rc == 0 && key.mv_size == STORE_ID_LEN) {
    *out = store_id_of(key.mv_data) + 1;
  }
  return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : STATUS_FORMAT;
}

static enum status run_once(struct store_txn *txn, struct store *store,
                            enum status (*change)(struct store_txn *txn, void *arg,
                                                  struct errmsg *err),
                            void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  *txn = (struct store_txn){.store = store, .now_s = clock_wall_s()};
  txn->record = malloc(STORE_CHAIN_RECORD_MAX_LEN);
  if (txn->record == NULL) {
    return no_memory(err);
  }
  int rc = mdb_txn_begin(store->chains, NULL, 0, &txn->txn);
  if (rc != 0) {
    TRY(fail(txn, rc, err));
  }
  if (next_id(&txn->next_chain, txn->txn, store->tables[TABLE_CHAINS]) != STATUS_OK) {
    TRY(store_txn_damaged(txn, "chain", err));
  }
  TRY(change(txn, arg, err));
  TRY(flush(txn, err));
  rc = mdb_txn_commit(txn->txn);
  txn->txn = NULL;
  if (rc != 0) {
    TRY(fail(txn, rc, err));
  }

out:
  return st;
}

// run repeats the change until the map is large enough for it.
enum status store_run(struct store *store,
                      enum status (*change)(struct store_txn *txn, void *arg, struct errmsg *err),
                      void *arg, struct errmsg *err) {
  struct store_txn txn;
  enum status st = STATUS_OK;
  for (;;) {
    st = run_once(&txn, store, change, arg, err);
    int rc = txn.rc;
    txn_cleanup(&txn);
    if (st == STATUS_OK) {
      return st;
    }
    if (rc == MDB_MAP_FULL) {
      st = store_grow(store, store->chains, store->chains_path, err);
    } else if (rc == MDB_MAP_RESIZED && atomic_load(&store->num_in_use) == 0) {
      // Another process made it larger.
      st = mdb_env_set_mapsize(store->chains, 0) == 0 ? STATUS_OK : st;
    }
    if (st != STATUS_OK) {
      return st;
    }
  }
}

enum status store_lock(const struct store *store, struct errmsg *err) {
  if (store->lock_fd < 0) {
    return errmsg_set(err, STATUS_REFUSED, "%s: is open for reading only", store->folder);
  }
  while (flock(store->lock_fd, LOCK_EX) != 0) {
    if (errno != EINTR) {
      return store_fail(err, errno, store->folder, "writer.lock cannot be taken");
    }
  }
  if (store_is_replaced(store)) {
    (void)flock(store->lock_fd, LOCK_UN);
    return errmsg_set(err, STATUS_CLOSED, "%s: was compacted meanwhile; do it again",
                      store->folder);
  }
  return STATUS_OK;
}

void store_unlock(const struct store *store) { (void)flock(store->lock_fd, LOCK_UN); }

enum status store_write(struct store *store,
                        enum status (*change)(struct store_txn *txn, void *arg, struct errmsg *err),
                        void *arg, struct errmsg *err) {
  enum status st = store_lock(store, err);
  if (st != STATUS_OK) {
    return st;
  }
  int num_dead = 0;
  (void)mdb_reader_check(store->chains, &num_dead);
  st = store_run(store, change, arg, err);
  store_unlock(store);
  return st;
}

void store_expect(struct store *store, uint64_t len) {
  MDB_envinfo info;
  (void)mdb_env_info(store->chains, &info);
  uint64_t want = (uint64_t)info.me_last_pgno * 4096 + len * MAP_PER_LEAF_BYTE;
  if (want > info.me_mapsize && atomic_load(&store->num_in_use) == 0) {
    (void)mdb_env_set_mapsize(store->chains, want);  // if not, it grows when it is full
  }
}
