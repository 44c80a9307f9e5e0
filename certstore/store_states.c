// SPDX-License-Identifier: Apache-2.0
// What is said of names, keys, CAs and the fleet: state.h's rule, kept in LMDB. A
// subject's record holds what its standing changes say together, and their ids, so
// that a change is two records written whatever the number of names, and taking one
// back reads only the changes of that subject.
#include <inttypes.h>
#include <string.h>

#include "certstore/store_private.h"

// A transaction on states.mdb. It is short, and never waits for one on chains.
struct saying {
  struct store *store;
  MDB_txn *txn;
  int rc;
  struct errmsg *err;
};

static enum status fail(struct saying *saying, int rc) {
  saying->rc = rc;
  return store_fail(saying->err, rc, saying->store->states_path, "cannot be written");
}

static enum status damaged(struct saying *saying) {
  return errmsg_set(saying->err, STATUS_FORMAT,
                    "%s: a record is damaged: `deputyctl store verify` lists what is. Put back a "
                    "copy of the store",
                    saying->store->states_path);
}

static enum status put(struct saying *saying, enum store_table table, struct bytes key,
                       struct bytes value, unsigned flags) {
  MDB_val k = store_val(key);
  MDB_val v = store_val(value);
  int rc = mdb_put(saying->txn, saying->store->tables[table], &k, &v, flags);
  return rc == 0 ? STATUS_OK : fail(saying, rc);
}

static enum status get_state(struct saying *saying, struct store_state *out, struct bytes key) {
  struct bytes record;
  enum status st = store_get(saying->txn, saying->store->tables[TABLE_STATES], key, &record);
  *out = (struct store_state){0};
  if (st == STATUS_NOT_FOUND) {
    return STATUS_OK;
  }
  return st == STATUS_OK && store_state_decode(out, record) == STATUS_OK ? STATUS_OK
                                                                         : damaged(saying);
}

// put_state adds up what stands and keeps it; a subject of which nothing is said any
// more has no record.
static enum status put_state(struct saying *saying, struct bytes key, struct store_state *state,
                             int64_t now_s) {
  enum status st = STATUS_OK;
  uint8_t record[STORE_STATE_RECORD_MAX_LEN];
  size_t len = 0;
  if (store_fold(&state->words, saying->txn, saying->store->tables[TABLE_LOG], state->standing,
                 &state->num_standing, now_s) != STATUS_OK) {
    TRY(damaged(saying));
  }
  if (state->num_standing == 0) {
    MDB_val k = store_val(key);
    int rc = mdb_del(saying->txn, saying->store->tables[TABLE_STATES], &k, NULL);
    return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : fail(saying, rc);
  }
  TRY(store_state_encode(record, sizeof(record), &len, state));
  TRY(put(saying, TABLE_STATES, key, bytes_of(record, len), 0));

out:
  return st;
}

static enum status last_id(struct saying *saying, uint64_t *out) {
  MDB_cursor *cursor = NULL;
  MDB_val key = {0};
  MDB_val value = {0};
  *out = 0;
  int rc = mdb_cursor_open(saying->txn, saying->store->tables[TABLE_LOG], &cursor);
  if (rc != 0) {
    return fail(saying, rc);
  }
  rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
  mdb_cursor_close(cursor);
  if (rc == 0 && key.mv_size == STORE_ID_LEN) {
    *out = store_id_of(key.mv_data);
  }
  return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : fail(saying, rc);
}

// What one transaction does: apply (change set) or undo (author set).
struct deed {
  const struct store_change *change;
  const char *author;
  uint64_t id;
  int64_t now_s;
};

static enum status apply(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  struct store_state state;
  struct store_change change = *deed->change;
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  uint8_t id_key[STORE_ID_LEN];
  uint8_t record[STORE_CHANGE_RECORD_MAX_LEN];
  size_t key_len = 0;
  size_t len = 0;

  change.at_s = deed->now_s;
  change.is_undone = false;
  change.undone_at_s = 0;
  change.undone_by = (struct bytes){0};
  if (store_change_encode(record, sizeof(record), &len, &change) != STATUS_OK ||
      !store_subject_key(key, &key_len, (enum state_level)change.level, change.subject)) {
    return errmsg_set(
        saying->err, STATUS_FORMAT,
        "what is said does not belong to the level, or a text is longer than %u bytes",
        STORE_TEXT_MAX_LEN);
  }
  if (change.until_s != 0 && change.until_s <= deed->now_s) {
    return errmsg_set(saying->err, STATUS_FORMAT, "its end is in the past");
  }
  TRY(get_state(saying, &state, bytes_of(key, key_len)));
  if (state.num_standing == STORE_MAX_STANDING) {
    TRY(errmsg_set(saying->err, STATUS_LIMIT,
                   "%u changes stand for this subject: restore some of them first",
                   STORE_MAX_STANDING));
  }
  TRY(last_id(saying, &deed->id));
  deed->id++;
  TRY(put(saying, TABLE_LOG, store_id_key(id_key, deed->id), bytes_of(record, len), MDB_APPEND));
  state.standing[state.num_standing++] = deed->id;
  TRY(put_state(saying, bytes_of(key, key_len), &state, deed->now_s));

out:
  return st;
}

static void take_out(struct store_state *state, uint64_t id) {
  size_t kept = 0;
  for (size_t i = 0; i < state->num_standing; i++) {
    if (state->standing[i] != id) {
      state->standing[kept++] = state->standing[i];
    }
  }
  state->num_standing = kept;
}

static enum status undo(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  struct store_state state;
  struct store_change change;
  struct bytes there;
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  uint8_t id_key[STORE_ID_LEN];
  uint8_t record[STORE_CHANGE_RECORD_MAX_LEN];
  size_t key_len = 0;
  size_t len = 0;

  st = store_get(saying->txn, saying->store->tables[TABLE_LOG], store_id_key(id_key, deed->id),
                 &there);
  if (st == STATUS_NOT_FOUND) {
    return errmsg_set(saying->err, st, "there is no switch %" PRIu64, deed->id);
  }
  if (st != STATUS_OK || store_change_decode(&change, there) != STATUS_OK) {
    return damaged(saying);
  }
  if (change.is_undone) {
    return errmsg_set(saying->err, STATUS_EXISTS, "switch %" PRIu64 " is restored already",
                      deed->id);
  }
  change.is_undone = true;
  change.undone_at_s = deed->now_s;
  change.undone_by = bytes_text(deed->author);
  if (change.undone_by.len > STORE_TEXT_MAX_LEN) {
    change.undone_by.len = STORE_TEXT_MAX_LEN;
  }
  // The texts of `change` are lent by the record that is written over: encoded first.
  TRY(store_change_encode(record, sizeof(record), &len, &change));
  CHECK(store_subject_key(key, &key_len, (enum state_level)change.level, change.subject));
  TRY(put(saying, TABLE_LOG, store_id_key(id_key, deed->id), bytes_of(record, len), 0));
  TRY(get_state(saying, &state, bytes_of(key, key_len)));
  take_out(&state, deed->id);
  TRY(put_state(saying, bytes_of(key, key_len), &state, deed->now_s));

out:
  return st;
}

static enum status run_once(struct saying *saying,
                            enum status (*act)(struct saying *saying, struct deed *deed),
                            struct deed *deed) {
  enum status st = STATUS_OK;
  int rc = mdb_txn_begin(saying->store->states, NULL, 0, &saying->txn);
  saying->rc = 0;
  if (rc != 0) {
    return fail(saying, rc);
  }
  st = act(saying, deed);
  if (st != STATUS_OK) {
    mdb_txn_abort(saying->txn);
    return st;
  }
  rc = mdb_txn_commit(saying->txn);
  return rc == 0 ? STATUS_OK : fail(saying, rc);
}

static enum status run(struct store *store,
                       enum status (*act)(struct saying *saying, struct deed *deed),
                       struct deed *deed, struct errmsg *err) {
  struct saying saying = {.store = store, .err = err};
  if (store->options.mode == STORE_READ) {
    return errmsg_set(err, STATUS_REFUSED, "%s: is open for reading only", store->folder);
  }
  for (;;) {
    uint64_t id = deed->id;
    enum status st = run_once(&saying, act, deed);
    if (saying.rc == MDB_MAP_FULL) {
      st = store_grow(store, store->states, store->states_path, err);
    } else if (saying.rc == MDB_MAP_RESIZED && atomic_load(&store->num_in_use) == 0) {
      st = mdb_env_set_mapsize(store->states, 0) == 0 ? STATUS_OK : st;
    } else {
      return st;
    }
    if (st != STATUS_OK) {
      return st;
    }
    deed->id = id;
  }
}

enum status store_apply(struct store *store, uint64_t *out_id, const struct store_change *change,
                        int64_t now_s, struct errmsg *err) {
  struct deed deed = {.change = change, .now_s = now_s};
  enum status st = run(store, apply, &deed, err);
  *out_id = st == STATUS_OK ? deed.id : 0;
  return st;
}

enum status store_undo(struct store *store, uint64_t id, const char *author, int64_t now_s,
                       struct errmsg *err) {
  struct deed deed = {.author = author, .id = id, .now_s = now_s};
  return run(store, undo, &deed, err);
}
