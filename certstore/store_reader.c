// SPDX-License-Identifier: Apache-2.0
// Snapshots, and single records out of them.
#include <stdlib.h>
#include <string.h>

#include "certstore/certstore_private.h"
#include "certstore/store_private.h"

// --- snapshots ---------------------------------------------------------------------

enum status store_reader_new(struct store_reader **out, struct store *store, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store_reader *reader = calloc(1, sizeof(*reader));
  if (reader == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  reader->store = store;
  reader->is_parked = true;
  int rc = mdb_txn_begin(store->chains, NULL, MDB_RDONLY, &reader->chains);
  rc = rc != 0 ? rc : mdb_txn_begin(store->states, NULL, MDB_RDONLY, &reader->states);
  if (rc != 0 && rc != MDB_MAP_RESIZED) {
    mdb_txn_abort(reader->chains);
    free(reader);
    return store_fail(err, rc, store->folder, "cannot be read");
  }
  if (rc == 0) {
    reader->is_parked = false;
    atomic_fetch_add(&store->num_in_use, 1);
  } else {
    mdb_txn_abort(reader->chains);
    mdb_txn_abort(reader->states);
    reader->chains = NULL;
    reader->states = NULL;
    TRY(store_reader_refresh(reader));
  }
  *out = reader;
  reader = NULL;

out:
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s: cannot be read now: it has grown", store->folder);
  }
  store_reader_free(reader);
  return st;
}

void store_reader_park(struct store_reader *reader) {
  if (reader->is_parked) {
    return;
  }
  mdb_txn_reset(reader->chains);
  mdb_txn_reset(reader->states);
  reader->is_parked = true;
  atomic_fetch_sub(&reader->store->num_in_use, 1);
}

void store_reader_free(struct store_reader *reader) {
  if (reader == NULL) {
    return;
  }
  store_reader_park(reader);
  mdb_txn_abort(reader->chains);
  mdb_txn_abort(reader->states);
  free(reader);
}

static int renew(MDB_env *env, MDB_txn **txn) {
  return *txn == NULL ? mdb_txn_begin(env, NULL, MDB_RDONLY, txn) : mdb_txn_renew(*txn);
}

// adopt_size: another process made the file larger than our map. That of a server may be
// read by other threads at this moment, if only for its version: it stays where it is.
static int adopt_size(struct store *store, MDB_env *env) {
  return store->options.is_serving || atomic_load(&store->num_in_use) != 0
             ? MDB_MAP_RESIZED
             : mdb_env_set_mapsize(env, 0);
}

static int renew_or_adopt(struct store *store, MDB_env *env, MDB_txn **txn) {
  int rc = renew(env, txn);
  if (rc == MDB_MAP_RESIZED) {
    rc = adopt_size(store, env);
    rc = rc != 0 ? rc : renew(env, txn);
  }
  return rc;
}

enum status store_reader_refresh(struct store_reader *reader) {
  struct store *store = reader->store;
  if (!reader->is_parked && mdb_txn_id(reader->chains) == store_chains_version(store) &&
      mdb_txn_id(reader->states) == store_states_version(store)) {
    return STATUS_OK;
  }
  store_reader_park(reader);
  int rc = renew_or_adopt(store, store->chains, &reader->chains);
  if (rc == 0) {
    rc = renew_or_adopt(store, store->states, &reader->states);
    if (rc != 0) {
      mdb_txn_reset(reader->chains);
    }
  }
  if (rc != 0) {
    return rc == MDB_MAP_RESIZED ? STATUS_UNAVAILABLE : store_fail(NULL, rc, store->folder, "");
  }
  reader->is_parked = false;
  atomic_fetch_add(&store->num_in_use, 1);
  return STATUS_OK;
}

uint64_t store_reader_chains_version(const struct store_reader *reader) {
  CHECK(!reader->is_parked);
  return mdb_txn_id(reader->chains);
}

uint64_t store_reader_states_version(const struct store_reader *reader) {
  CHECK(!reader->is_parked);
  return mdb_txn_id(reader->states);
}

// --- looking -----------------------------------------------------------------------

enum status store_get(MDB_txn *txn, MDB_dbi table, struct bytes key, struct bytes *out) {
  MDB_val k = store_val(key);
  MDB_val v = {0};
  int rc = mdb_get(txn, table, &k, &v);
  if (rc == 0) {
    *out = store_bytes(v);
    return STATUS_OK;
  }
  return rc == MDB_NOTFOUND ? STATUS_NOT_FOUND : STATUS_FORMAT;
}

uint64_t store_num(MDB_txn *txn, MDB_dbi table) {
  MDB_stat stat = {0};
  (void)mdb_stat(txn, table, &stat);
  return stat.ms_entries;
}

enum status store_reader_get(const struct store_reader *reader, enum store_table table,
                             struct bytes key, struct bytes *out) {
  return store_get(table < NUM_CHAIN_TABLES ? reader->chains : reader->states,
                   reader->store->tables[table], key, out);
}

static enum status get_by_id(const struct store_reader *reader, enum store_table table, uint64_t id,
                             struct bytes *out) {
  uint8_t key[STORE_ID_LEN];
  return store_reader_get(reader, table, store_id_key(key, id), out);
}

enum status store_find_exact(const struct store_reader *reader, struct store_name *out,
                             struct bytes name) {
  struct bytes record;
  enum status st = STATUS_OK;
  TRY(store_reader_get(reader, TABLE_NAMES, name, &record));
  TRY(store_name_decode(out, record));

out:
  return st;
}

enum status store_find(const struct store_reader *reader, struct store_name *out, struct bytes in) {
  struct host host;
  if (!host_read(&host, in, false)) {
    return STATUS_NOT_FOUND;
  }
  enum status st = store_find_exact(reader, out, bytes_of(host.text, host.len));
  if (st == STATUS_NOT_FOUND && host.first_dot < host.len) {
    // "a.b" is found under "*.b": the star takes the place of the label's last byte.
    char *wildcard = &host.text[host.first_dot - 1];
    wildcard[0] = '*';
    st = store_find_exact(reader, out, bytes_of(wildcard, host.len - host.first_dot + 1));
  }
  return st;
}

// The records of one kind each: look up, decode.
#define DEFINE_GET(name, table, type, decode)                                                \
  enum status name(const struct store_reader *reader, struct type *out, uint64_t chain_id) { \
    struct bytes record;                                                                     \
    enum status st = get_by_id(reader, table, chain_id, &record);                            \
    return st == STATUS_OK ? decode(out, record) : st;                                       \
  }
DEFINE_GET(store_get_chain, TABLE_CHAINS, store_chain, store_chain_decode)
DEFINE_GET(store_get_staple, TABLE_STAPLES, store_staple, store_staple_decode)
DEFINE_GET(store_get_revoked, TABLE_REVOKED, store_revoked, store_revoked_decode)
DEFINE_GET(store_get_change, TABLE_LOG, store_change, store_change_decode)

enum status store_get_issuer(const struct store_reader *reader, struct bytes *out_der,
                             const uint8_t sha256[32]) {
  return store_reader_get(reader, TABLE_ISSUERS, bytes_of(sha256, 32), out_der);
}

enum status store_get_ca(const struct store_reader *reader, struct store_ca *out,
                         const uint8_t ca_id[32]) {
  struct bytes record;
  enum status st = store_reader_get(reader, TABLE_CAS, bytes_of(ca_id, 32), &record);
  return st == STATUS_OK ? store_ca_decode(out, record) : st;
}

enum status store_find_leaf(const struct store_reader *reader, uint64_t *out_chain_id,
                            const uint8_t sha256[32]) {
  struct bytes record;
  enum status st = store_reader_get(reader, TABLE_LEAVES, bytes_of(sha256, 32), &record);
  if (st == STATUS_OK && record.len != STORE_ID_LEN) {
    st = STATUS_FORMAT;
  }
  if (st == STATUS_OK) {
    *out_chain_id = store_id_of(record.data);
  }
  return st;
}

enum status store_each_chain_of_key(const struct store_reader *reader, const uint8_t key_id[32],
                                    bool (*each)(void *arg, uint64_t chain_id), void *arg) {
  MDB_cursor *cursor = NULL;
  MDB_val key = store_val(bytes_of(key_id, 32));
  MDB_val value = {0};
  int rc = mdb_cursor_open(reader->chains, reader->store->tables[TABLE_KEYS], &cursor);
  if (rc != 0) {
    return store_fail(NULL, rc, reader->store->folder, "");
  }
  rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  while (rc == 0 && key.mv_size == 32 + STORE_ID_LEN && memcmp(key.mv_data, key_id, 32) == 0 &&
         each(arg, store_id_of((const uint8_t *)key.mv_data + 32))) {
    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : STATUS_FORMAT;
}
