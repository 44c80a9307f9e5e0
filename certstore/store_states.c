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

// What one transaction does.
struct deed {
  const struct store_change *changes;  // to apply
  const uint64_t *ids;                 // to undo
  size_t num;
  const char *author;
  const struct store_log_limits *limits;
  int64_t now_s;
  uint64_t result;  // the last id given, or how many
};

static enum status encode(uint8_t out[STORE_CHANGE_RECORD_MAX_LEN], size_t *out_len,
                          uint8_t key[STORE_SUBJECT_KEY_MAX_LEN], size_t *key_len,
                          const struct store_change *change, struct errmsg *err) {
  if (store_change_encode(out, STORE_CHANGE_RECORD_MAX_LEN, out_len, change) != STATUS_OK ||
      !store_subject_key(key, key_len, (enum state_level)change->level, change->subject)) {
    return errmsg_set(
        err, STATUS_FORMAT,
        "what is said does not belong to the level, or a text is longer than %u bytes",
        STORE_TEXT_MAX_LEN);
  }
  return STATUS_OK;
}

// append writes a change under the next id, and what its subject says from now on.
static enum status append(struct saying *saying, const struct store_change *change,
                          struct deed *deed) {
  enum status st = STATUS_OK;
  struct store_state state;
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  uint8_t id_key[STORE_ID_LEN];
  uint8_t record[STORE_CHANGE_RECORD_MAX_LEN];
  size_t key_len = 0;
  size_t len = 0;
  bool stands = !change->is_undone && (change->until_s == 0 || deed->now_s < change->until_s);

  TRY(encode(record, &len, key, &key_len, change, saying->err));
  TRY(get_state(saying, &state, bytes_of(key, key_len)));
  if (stands && state.num_standing == STORE_MAX_STANDING) {
    TRY(errmsg_set(saying->err, STATUS_LIMIT,
                   "%u changes stand for this subject: restore some of them first",
                   STORE_MAX_STANDING));
  }
  deed->result++;
  TRY(put(saying, TABLE_LOG, store_id_key(id_key, deed->result), bytes_of(record, len),
          MDB_APPEND));
  if (stands) {
    state.standing[state.num_standing++] = deed->result;
    TRY(put_state(saying, bytes_of(key, key_len), &state, deed->now_s));
  }

out:
  return st;
}

static enum status apply(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  struct store_change change = *deed->changes;
  change.at_s = deed->now_s;
  change.is_undone = false;
  change.undone_at_s = 0;
  change.undone_by = (struct bytes){0};
  if (change.until_s != 0 && change.until_s <= deed->now_s) {
    return errmsg_set(saying->err, STATUS_FORMAT, "its end is in the past");
  }
  TRY(last_id(saying, &deed->result));
  TRY(append(saying, &change, deed));

out:
  return st;
}

static enum status take_over(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  TRY(last_id(saying, &deed->result));
  if (deed->result != 0) {
    TRY(errmsg_set(saying->err, STATUS_EXISTS,
                   "this store has switches of its own already: nothing was taken over"));
  }
  for (size_t i = 0; i < deed->num; i++) {
    TRY(append(saying, &deed->changes[i], deed));
  }

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

// read_change lends a change of the log.
static enum status read_change(struct saying *saying, struct store_change *out, uint64_t id) {
  uint8_t key[STORE_ID_LEN];
  struct bytes record;
  enum status st =
      store_get(saying->txn, saying->store->tables[TABLE_LOG], store_id_key(key, id), &record);
  if (st == STATUS_NOT_FOUND) {
    return errmsg_set(saying->err, st, "there is no switch %" PRIu64, id);
  }
  return st == STATUS_OK && store_change_decode(out, record) == STATUS_OK ? STATUS_OK
                                                                          : damaged(saying);
}

static enum status undo_one(struct saying *saying, const struct deed *deed, uint64_t id) {
  enum status st = STATUS_OK;
  struct store_state state;
  struct store_change change = {0};
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  uint8_t id_key[STORE_ID_LEN];
  uint8_t record[STORE_CHANGE_RECORD_MAX_LEN];
  size_t key_len = 0;
  size_t len = 0;

  TRY(read_change(saying, &change, id));
  if (change.is_undone) {
    TRY(errmsg_set(saying->err, STATUS_EXISTS, "switch %" PRIu64 " is restored already", id));
  }
  change.is_undone = true;
  change.undone_at_s = deed->now_s;
  change.undone_by = bytes_text(deed->author);
  if (change.undone_by.len > STORE_TEXT_MAX_LEN) {
    change.undone_by.len = STORE_TEXT_MAX_LEN;
  }
  // The texts of `change` are lent by the record that is written over: encoded first.
  TRY(encode(record, &len, key, &key_len, &change, saying->err));
  TRY(put(saying, TABLE_LOG, store_id_key(id_key, id), bytes_of(record, len), 0));
  TRY(get_state(saying, &state, bytes_of(key, key_len)));
  take_out(&state, id);
  TRY(put_state(saying, bytes_of(key, key_len), &state, deed->now_s));

out:
  return st;
}

static enum status undo(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < deed->num && st == STATUS_OK; i++) {
    st = undo_one(saying, deed, deed->ids[i]);
  }
  return st;
}

// --- trimming ------------------------------------------------------------------------

#define TRIM_MAX 1024u  // changes of one transaction: it holds the ids

struct trimming {
  const struct deed *deed;
  uint64_t num_left;
  uint64_t last;
  uint64_t ids[TRIM_MAX];
  size_t num;
};

static bool choose_dead(void *arg, struct bytes key, struct bytes value) {
  struct trimming *trimming = arg;
  const struct store_log_limits *limits = trimming->deed->limits;
  struct store_change change;
  if (key.len != STORE_ID_LEN || store_change_decode(&change, value) != STATUS_OK) {
    return false;  // for `store verify`
  }
  bool is_dead =
      change.is_undone || (change.until_s != 0 && change.until_s <= trimming->deed->now_s);
  bool is_old = limits->max_age_s != 0 && change.at_s < trimming->deed->now_s - limits->max_age_s;
  bool is_too_many = limits->max_num != 0 && trimming->num_left > limits->max_num;
  uint64_t id = store_id_of(key.data);
  if (is_dead && (is_old || is_too_many) && id != trimming->last) {
    trimming->ids[trimming->num++] = id;
    trimming->num_left--;
  }
  return trimming->num < TRIM_MAX;
}

// forget removes one change. What ended by itself may still be counted with its subject.
static enum status forget(struct saying *saying, const struct deed *deed, uint64_t id) {
  enum status st = STATUS_OK;
  struct store_change change = {0};
  struct store_state state;
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  uint8_t id_key[STORE_ID_LEN];
  size_t key_len = 0;

  TRY(read_change(saying, &change, id));
  if (!change.is_undone) {
    CHECK(store_subject_key(key, &key_len, (enum state_level)change.level, change.subject));
    TRY(get_state(saying, &state, bytes_of(key, key_len)));
    take_out(&state, id);
    TRY(put_state(saying, bytes_of(key, key_len), &state, deed->now_s));
  }
  MDB_val k = store_val(store_id_key(id_key, id));
  int rc = mdb_del(saying->txn, saying->store->tables[TABLE_LOG], &k, NULL);
  TRY(rc == 0 ? STATUS_OK : fail(saying, rc));

out:
  return st;
}

static enum status trim(struct saying *saying, struct deed *deed) {
  enum status st = STATUS_OK;
  struct trimming trimming = {.deed = deed};
  const MDB_dbi log = saying->store->tables[TABLE_LOG];
  deed->result = 0;
  trimming.num_left = store_num(saying->txn, log);
  TRY(last_id(saying, &trimming.last));
  TRY(store_walk(saying->txn, log, choose_dead, &trimming));
  for (size_t i = 0; i < trimming.num; i++) {
    TRY(forget(saying, deed, trimming.ids[i]));
  }
  deed->result = trimming.num;

out:
  return st;
}

// --- transactions ----------------------------------------------------------------------

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
  if (!store_may_write_states(store)) {
    return errmsg_set(err, STATUS_REFUSED, "%s: is open for reading only", store->folder);
  }
  for (;;) {
    enum status st = run_once(&saying, act, deed);
    if (saying.rc == MDB_MAP_FULL) {
      st = store_grow(store, store->states, store->states_path, err);
    } else if (saying.rc == MDB_MAP_RESIZED && !store->options.is_serving &&
               atomic_load(&store->num_in_use) == 0) {
      st = mdb_env_set_mapsize(store->states, 0) == 0 ? STATUS_OK : st;
    } else {
      return st;
    }
    if (st != STATUS_OK) {
      return st;
    }
  }
}

enum status store_apply(struct store *store, uint64_t *out_id, const struct store_change *change,
                        int64_t now_s, struct errmsg *err) {
  struct deed deed = {.changes = change, .num = 1, .now_s = now_s};
  enum status st = run(store, apply, &deed, err);
  *out_id = st == STATUS_OK ? deed.result : 0;
  return st;
}

enum status store_undo_all(struct store *store, const uint64_t *ids, size_t num, const char *author,
                           int64_t now_s, struct errmsg *err) {
  struct deed deed = {.ids = ids, .num = num, .author = author, .now_s = now_s};
  return run(store, undo, &deed, err);
}

enum status store_undo(struct store *store, uint64_t id, const char *author, int64_t now_s,
                       struct errmsg *err) {
  return store_undo_all(store, &id, 1, author, now_s, err);
}

enum status store_trim_log(struct store *store, uint64_t *out_num,
                           const struct store_log_limits *limits, int64_t now_s,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct deed deed = {.limits = limits, .now_s = now_s};
  *out_num = 0;
  do {
    TRY(run(store, trim, &deed, err));
    *out_num += deed.result;
  } while (deed.result == TRIM_MAX);

out:
  return st;
}

enum status store_take_over(struct store *store, const struct store_change *changes, size_t num,
                            int64_t now_s, struct errmsg *err) {
  struct deed deed = {.changes = changes, .num = num, .now_s = now_s};
  return run(store, take_over, &deed, err);
}
