// SPDX-License-Identifier: Apache-2.0
#include "certstore/store_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "certstore/store_txn.h"
#include "common/base/clock.h"

#define PROGRESS_EVERY 4096u  // records
#define MAP_PER_LEAF_BYTE 6u  // address space for each byte of certificates

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

void store_txn_step(struct store_txn *txn) {
  txn->num_done++;
  if (txn->on_progress != NULL && txn->num_done % PROGRESS_EVERY == 0) {
    txn->on_progress(txn->progress_arg, txn->num_done, txn->num_to_do);
  }
}

enum status store_txn_fail(struct store_txn *txn, int rc, struct errmsg *err) {
  txn->rc = rc;
  return store_fail(err, rc, txn->store->chains_path, "cannot be written");
}

// --- records -----------------------------------------------------------------------

enum status store_txn_put(struct store_txn *txn, enum store_table table, struct bytes key,
                          struct bytes value, unsigned flags, struct errmsg *err) {
  MDB_val k = store_val(key);
  MDB_val v = store_val(value);
  int rc = mdb_put(txn->txn, txn->store->tables[table], &k, &v, flags);
  if (rc == 0 || (rc == MDB_KEYEXIST && (flags & MDB_NOOVERWRITE) != 0)) {
    return STATUS_OK;
  }
  return store_txn_fail(txn, rc, err);
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
  return rc == 0 ? STATUS_OK : store_txn_fail(txn, rc, err);
}

enum status store_txn_damaged(struct store_txn *txn, const char *what, struct errmsg *err) {
  return errmsg_set(
      err, STATUS_FORMAT,
      "%s: a record (%s) is damaged: `deputyctl store verify` lists what is. Put back "
      "a copy of the store, or import the certificates into a new one",
      txn->store->chains_path, what);
}

enum status store_put_staple(struct store_txn *txn, uint64_t chain_id,
                             const struct store_staple *staple, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t key[STORE_ID_LEN];
  size_t len = 0;
  if (store_staple_encode(txn->record, STORE_STAPLE_RECORD_MAX_LEN, &len, staple) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_LIMIT, "a staple of %zu bytes", staple->response.len));
  }
  TRY(store_txn_put(txn, TABLE_STAPLES, store_id_key(key, chain_id), bytes_of(txn->record, len), 0,
                    err));

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
  TRY(store_txn_put(txn, TABLE_REVOKED, store_id_key(key, chain_id), bytes_of(record, len), 0,
                    err));

out:
  return st;
}

enum status store_remove_name(struct store_txn *txn, const char *name, struct errmsg *err) {
  enum status st = store_txn_del(txn, TABLE_NAMES, bytes_text(name), err);
  return st == STATUS_NOT_FOUND
             ? errmsg_set(err, st, "\"%.253s\" is not a name in this store", name)
             : st;
}

// --- the transaction -------------------------------------------------------------------

static void txn_cleanup(struct store_txn *txn) {
  mdb_txn_abort(txn->txn);
  store_txn_forget_issuers(txn);
  store_txn_forget_pending(txn);
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
    return store_txn_no_memory(err);
  }
  int rc = mdb_txn_begin(store->chains, NULL, 0, &txn->txn);
  if (rc != 0) {
    TRY(store_txn_fail(txn, rc, err));
  }
  if (next_id(&txn->next_chain, txn->txn, store->tables[TABLE_CHAINS]) != STATUS_OK) {
    TRY(store_txn_damaged(txn, "chain", err));
  }
  TRY(change(txn, arg, err));
  TRY(store_txn_flush(txn, err));
  rc = mdb_txn_commit(txn->txn);
  txn->txn = NULL;
  if (rc != 0) {
    TRY(store_txn_fail(txn, rc, err));
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
