// SPDX-License-Identifier: Apache-2.0
// All records of a kind, one after the other, and how many there are.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "certstore/store_private.h"

// --- walking -----------------------------------------------------------------------

enum status store_walk(MDB_txn *txn, MDB_dbi table,
                       bool (*each)(void *arg, struct bytes key, struct bytes value), void *arg) {
  MDB_cursor *cursor = NULL;
  MDB_val key = {0};
  MDB_val value = {0};
  if (mdb_cursor_open(txn, table, &cursor) != 0) {
    return STATUS_MEMORY;
  }
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  while (rc == 0 && each(arg, store_bytes(key), store_bytes(value))) {
    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : STATUS_FORMAT;
}

// What the three walks below have in common.
struct walk {
  bool (*change)(void *arg, uint64_t id, const struct store_change *change);
  bool (*name)(void *arg, struct bytes name, const struct store_name *record);
  bool (*ca)(void *arg, const uint8_t ca_id[32], const struct store_ca *ca);
  void *arg;
  enum status st;
};

static bool on_change(void *arg, struct bytes key, struct bytes value) {
  struct walk *walk = arg;
  struct store_change change;
  walk->st = key.len == STORE_ID_LEN ? store_change_decode(&change, value) : STATUS_FORMAT;
  return walk->st == STATUS_OK && walk->change(walk->arg, store_id_of(key.data), &change);
}

static bool on_name(void *arg, struct bytes key, struct bytes value) {
  struct walk *walk = arg;
  struct store_name name;
  walk->st = store_name_decode(&name, value);
  return walk->st == STATUS_OK && walk->name(walk->arg, key, &name);
}

static bool on_ca(void *arg, struct bytes key, struct bytes value) {
  struct walk *walk = arg;
  struct store_ca ca;
  walk->st = key.len == 32 ? store_ca_decode(&ca, value) : STATUS_FORMAT;
  return walk->st == STATUS_OK && walk->ca(walk->arg, key.data, &ca);
}

enum status store_each_change(const struct store_reader *reader,
                              bool (*each)(void *arg, uint64_t id,
                                           const struct store_change *change),
                              void *arg) {
  struct walk walk = {.change = each, .arg = arg};
  enum status st = store_walk(reader->states, reader->store->tables[TABLE_LOG], on_change, &walk);
  return st != STATUS_OK ? st : walk.st;
}

enum status store_each_name(const struct store_reader *reader,
                            bool (*each)(void *arg, struct bytes name,
                                         const struct store_name *record),
                            void *arg) {
  struct walk walk = {.name = each, .arg = arg};
  enum status st = store_walk(reader->chains, reader->store->tables[TABLE_NAMES], on_name, &walk);
  return st != STATUS_OK ? st : walk.st;
}

enum status store_each_name_after(const struct store_reader *reader, struct bytes after,
                                  bool (*each)(void *arg, struct bytes name,
                                               const struct store_name *record),
                                  void *arg) {
  struct walk walk = {.name = each, .arg = arg};
  MDB_cursor *cursor = NULL;
  MDB_val key = store_val(after);
  MDB_val value = {0};
  if (mdb_cursor_open(reader->chains, reader->store->tables[TABLE_NAMES], &cursor) != 0) {
    return STATUS_MEMORY;
  }
  int rc = mdb_cursor_get(cursor, &key, &value, after.len > 0 ? MDB_SET_RANGE : MDB_FIRST);
  if (rc == 0 && after.len > 0 && bytes_equal(store_bytes(key), after)) {
    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  while (rc == 0 && on_name(&walk, store_bytes(key), store_bytes(value))) {
    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return rc == 0 || rc == MDB_NOTFOUND ? walk.st : STATUS_FORMAT;
}

enum status store_each_ca(const struct store_reader *reader,
                          bool (*each)(void *arg, const uint8_t ca_id[32],
                                       const struct store_ca *ca),
                          void *arg) {
  struct walk walk = {.ca = each, .arg = arg};
  enum status st = store_walk(reader->chains, reader->store->tables[TABLE_CAS], on_ca, &walk);
  return st != STATUS_OK ? st : walk.st;
}

// --- counting ----------------------------------------------------------------------

// The pages that LMDB keeps for later are listed in its first table, number 0: each
// value is a list of page numbers that begins with its length.
static bool add_free_pages(void *arg, struct bytes key, struct bytes value) {
  uint64_t *num = arg;
  size_t pages = 0;
  (void)key;
  if (value.len >= sizeof(pages)) {
    memcpy(&pages, value.data, sizeof(pages));
    *num += pages;
  }
  return true;
}

void store_count_records(struct store_counts *out, const struct store_reader *reader) {
  const struct store *store = reader->store;
  out->num_names = store_num(reader->chains, store->tables[TABLE_NAMES]);
  out->num_chains = store_num(reader->chains, store->tables[TABLE_CHAINS]);
  out->num_issuers = store_num(reader->chains, store->tables[TABLE_ISSUERS]);
  out->num_staples = store_num(reader->chains, store->tables[TABLE_STAPLES]);
  out->num_revoked = store_num(reader->chains, store->tables[TABLE_REVOKED]);
  out->num_cas = store_num(reader->chains, store->tables[TABLE_CAS]);
  out->num_subjects = store_num(reader->states, store->tables[TABLE_STATES]);
  out->num_changes = store_num(reader->states, store->tables[TABLE_LOG]);
}

enum status store_count(struct store_counts *out, const struct store_reader *reader,
                        struct errmsg *err) {
  const struct store *store = reader->store;
  struct stat chains;
  struct stat states;
  MDB_envinfo info;
  MDB_stat stat_of_env;
  uint64_t num_free = 0;
  int rc = 0;
  *out = (struct store_counts){.generation = store->generation};
  mdb_filehandle_t fd = -1;
  (void)mdb_env_get_fd(store->chains, &fd);
  rc = fstat(fd, &chains);
  (void)mdb_env_get_fd(store->states, &fd);
  if (rc != 0 || fstat(fd, &states) != 0) {
    return store_fail(err, errno, store->folder, "cannot be measured");
  }
  store_count_records(out, reader);
  out->chains_len = (uint64_t)chains.st_size;
  out->states_len = (uint64_t)states.st_size;
  (void)mdb_env_info(store->chains, &info);
  (void)mdb_env_stat(store->chains, &stat_of_env);
  out->num_readers = info.me_numreaders;
  (void)!store_walk(reader->chains, 0, add_free_pages, &num_free);
  out->free_len = num_free * stat_of_env.ms_psize;
  return STATUS_OK;
}
