// SPDX-License-Identifier: Apache-2.0
// store_private: what the files of the store know of each other.
//   store.c          the folder, its environments, versions
//   store_reader.c   snapshots, single records      store_walk.c     all of a kind, counts
//   store_words.c    what is said of a subject      store_states.c   saying it: the log
//   store_choose.c   which chain answers            store_match.c    subjects that people name
//   store_write.c    transactions, with store_add.c and store_pending.c (store_txn.h)
//   store_compact.c  a new file                     store_sweep.c    what nobody has
//   store_verify.c   every record against all       store_pages.c    memory of look-ups
#ifndef DEPUTY_CERTSTORE_STORE_PRIVATE_H_
#define DEPUTY_CERTSTORE_STORE_PRIVATE_H_

#include <lmdb.h>
#include <stdatomic.h>

#include "certstore/store.h"
#include "certstore/store_write.h"

#define STORE_ID_LEN 8u  // a chain's or change's, big-endian: keys sort by number

enum store_table {
  // in chains-N.mdb
  TABLE_META,
  TABLE_NAMES,    // name -> store_name
  TABLE_CHAINS,   // chain id -> store_chain
  TABLE_LEAVES,   // SHA-256 of the leaf -> chain id
  TABLE_KEYS,     // key id, chain id -> nothing
  TABLE_ISSUERS,  // SHA-256 -> DER
  TABLE_CAS,      // CA id -> store_ca
  TABLE_STAPLES,  // chain id -> store_staple
  TABLE_REVOKED,  // chain id -> store_revoked
  NUM_CHAIN_TABLES,
  // in states.mdb
  TABLE_STATES_META = NUM_CHAIN_TABLES,
  TABLE_STATES,  // level, subject -> store_state
  TABLE_LOG,     // change id -> store_change
  NUM_TABLES,
};

#define STORE_FORMAT_KEY "format"  // in both tables of meta

struct store {
  char *folder;
  char *chains_path;
  char *states_path;
  uint64_t generation;
  struct store_options options;
  MDB_env *chains;
  MDB_env *states;
  MDB_dbi tables[NUM_TABLES];
  int lock_fd;             // writer.lock; -1 when only read
  _Atomic int num_in_use;  // snapshots held in this process
};

struct store_reader {
  struct store *store;
  MDB_txn *chains;  // NULL before the first refresh
  MDB_txn *states;
  bool is_parked;
};

static inline MDB_val store_val(struct bytes in) {
  return (MDB_val){.mv_size = in.len, .mv_data = (void *)(uintptr_t)in.data};
}

static inline struct bytes store_bytes(MDB_val val) { return bytes_of(val.mv_data, val.mv_size); }

static inline struct bytes store_id_key(uint8_t out[STORE_ID_LEN], uint64_t id) {
  for (unsigned i = 0; i < STORE_ID_LEN; i++) {
    out[i] = (uint8_t)(id >> (56 - 8 * i));
  }
  return bytes_of(out, STORE_ID_LEN);
}

static inline uint64_t store_id_of(const uint8_t in[STORE_ID_LEN]) {
  uint64_t id = 0;
  for (unsigned i = 0; i < STORE_ID_LEN; i++) {
    id = id << 8 | in[i];
  }
  return id;
}

// store_fail makes of what LMDB says a status and a sentence with the remedy.
enum status store_fail(struct errmsg *err, int rc, const char *path, const char *what);

// store_grow doubles the map of an environment. STATUS_UNAVAILABLE while readers of
// this process hold a snapshot.
enum status store_grow(struct store *store, MDB_env *env, const char *path, struct errmsg *err);

// --- store_reader.c ------------------------------------------------------------------

// store_get looks a record up. STATUS_NOT_FOUND, STATUS_FORMAT.
enum status store_get(MDB_txn *txn, MDB_dbi table, struct bytes key, struct bytes *out);
enum status store_reader_get(const struct store_reader *reader, enum store_table table,
                             struct bytes key, struct bytes *out);

// store_num counts the records of a table.
uint64_t store_num(MDB_txn *txn, MDB_dbi table);

// --- store_words.c -------------------------------------------------------------------

#define STORE_SUBJECT_KEY_MAX_LEN (1u + STATE_SUBJECT_MAX_LEN)
// store_subject_key writes the key of a subject; false: too long.
bool store_subject_key(uint8_t out[STORE_SUBJECT_KEY_MAX_LEN], size_t *out_len,
                       enum state_level level, struct bytes subject);

// store_fold adds up the changes with these ids, as they stand at `now_s`, into the
// words; `*num` is the number that still counts, and `ids` becomes theirs.
enum status store_fold(struct store_words *out, MDB_txn *txn, MDB_dbi log, uint64_t *ids,
                       size_t *num, int64_t now_s);

// --- store_walk.c --------------------------------------------------------------------

// Every record of a table in order; `each` returns false to stop.
enum status store_walk(MDB_txn *txn, MDB_dbi table,
                       bool (*each)(void *arg, struct bytes key, struct bytes value), void *arg);

// --- store_write.c -------------------------------------------------------------------

MDB_txn *store_txn_mdb(const struct store_txn *txn);
struct store *store_txn_store(const struct store_txn *txn);
uint64_t store_txn_next_chain(const struct store_txn *txn);  // the id that comes next
// Records within a transaction: STATUS_NOT_FOUND, and what store_write says.
enum status store_txn_get(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct bytes *out);
enum status store_txn_del(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct errmsg *err);
enum status store_txn_damaged(struct store_txn *txn, const char *what, struct errmsg *err);
// store_run is store_write for one that has the lock. store_lock: STATUS_CLOSED (compacted
// meanwhile), STATUS_REFUSED (open for reading).
enum status store_run(struct store *store,
                      enum status (*change)(struct store_txn *txn, void *arg, struct errmsg *err),
                      void *arg, struct errmsg *err);
enum status store_lock(const struct store *store, struct errmsg *err);
void store_unlock(const struct store *store);

// --- store_sweep.c -------------------------------------------------------------------

// store_find_unused finds the keys of issuers' certificates and CAs that no chain has.
// Clean both in any case. STATUS_MEMORY, STATUS_FORMAT (a damaged chain).
struct store_unused {
  uint8_t (*keys)[32];
  bool *is_used;  // while it looks
  size_t num, room;
};
enum status store_find_unused(struct store_unused *out_issuers, struct store_unused *out_cas,
                              MDB_txn *txn, const struct store *store);
void store_unused_cleanup(struct store_unused *set);

#endif  // DEPUTY_CERTSTORE_STORE_PRIVATE_H_
