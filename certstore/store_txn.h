// SPDX-License-Identifier: Apache-2.0
// store_txn: a transaction of store_write.h from within, for the files that make it:
//   store_write.c    its beginning and end, single records
//   store_add.c      a chain looked at, and written
//   store_pending.c  what is filed by hash or name, which waits for the end
#ifndef DEPUTY_CERTSTORE_STORE_TXN_H_
#define DEPUTY_CERTSTORE_STORE_TXN_H_

#include "certstore/store_private.h"
#include "common/wire/cert_der.h"

#define STORE_TXN_CACHE_NUM 64u  // issuers and CAs met last

struct arena;  // of names

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

  struct known_issuer issuers[STORE_TXN_CACHE_NUM];
  size_t num_issuers;
  uint8_t cas[STORE_TXN_CACHE_NUM][32];
  size_t num_cas;
  uint8_t *record;  // room for the longest

  bool (*on_issue)(void *arg, enum store_issue issue, uint32_t source, const char *sentence);
  void *issue_arg;
  void (*on_progress)(void *arg, uint64_t done, uint64_t all);
  void *progress_arg;
  uint64_t num_done;
  uint64_t num_to_do;
};

// --- store_write.c -------------------------------------------------------------------

// store_txn_fail notes what LMDB said: of some things the transaction is done again.
enum status store_txn_fail(struct store_txn *txn, int rc, struct errmsg *err);
static inline enum status store_txn_no_memory(struct errmsg *err) {
  return errmsg_set(err, STATUS_MEMORY, "no memory");
}
// store_txn_put takes LMDB's flags; with MDB_NOOVERWRITE what is there may stay.
enum status store_txn_put(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct bytes value, unsigned flags, struct errmsg *err);
// store_txn_step: one more record is written; tells of it now and then.
void store_txn_step(struct store_txn *txn);

// --- store_add.c ---------------------------------------------------------------------

void store_txn_forget_issuers(struct store_txn *txn);

// --- store_pending.c -----------------------------------------------------------------

// store_txn_find_leaf: among those that wait, then in the file. STATUS_NOT_FOUND.
enum status store_txn_find_leaf(struct store_txn *txn, uint64_t *out, const uint8_t sha256[32],
                                struct errmsg *err);
// What waits from here on: a chain's leaf and key; a name. STATUS_MEMORY.
enum status store_txn_note_chain(struct store_txn *txn, const uint8_t leaf[32],
                                 const uint8_t key_id[32], uint64_t id);
enum status store_txn_note_name(struct store_txn *txn, const char *name, size_t len,
                                const struct store_slot *slot,
                                const struct store_addition *addition);
// store_txn_flush writes it, in order.
enum status store_txn_flush(struct store_txn *txn, struct errmsg *err);
void store_txn_forget_pending(struct store_txn *txn);

#endif  // DEPUTY_CERTSTORE_STORE_TXN_H_
