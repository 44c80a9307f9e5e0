// SPDX-License-Identifier: Apache-2.0
// A store without what nobody needs, in a new file that takes the place of the old one.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certstore/store_private.h"

// Which chains are named: a bit for each id.
struct named {
  uint8_t *bits;
  uint64_t num;
};

static bool mark_named(void *arg, struct bytes key, struct bytes value) {
  struct named *named = arg;
  struct store_name name;
  (void)key;
  if (store_name_decode(&name, value) != STATUS_OK) {
    return false;
  }
  for (size_t i = 0; i < name.num_slots; i++) {
    uint64_t id = name.slots[i].chain_id;
    if (id < named->num) {
      named->bits[id / 8] = (uint8_t)(named->bits[id / 8] | 1U << (id % 8));
    }
  }
  return true;
}

struct sweep {
  struct named named;
  uint64_t num_dropped;
};

static enum status drop_chain(struct store_txn *txn, const struct store_chain *chain, uint64_t id,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t id_key[STORE_ID_LEN];
  uint8_t key[32 + STORE_ID_LEN];
  struct bytes by_id = store_id_key(id_key, id);
  memcpy(key, chain->facts.key_id, 32);
  (void)store_id_key(key + 32, id);
  const struct {
    enum store_table table;
    struct bytes key;
  } places[] = {
      {TABLE_LEAVES, bytes_of(chain->leaf_sha256, 32)},
      {TABLE_KEYS, bytes_of(key, sizeof(key))},
      {TABLE_STAPLES, by_id},
      {TABLE_REVOKED, by_id},
      {TABLE_CHAINS, by_id},
  };
  for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
    st = store_txn_del(txn, places[i].table, places[i].key, err);
    if (st != STATUS_NOT_FOUND) {
      TRY(st);
    }
  }
  st = STATUS_OK;

out:
  return st;
}

static enum status drop_keys(struct store_txn *txn, enum store_table table,
                             const struct store_unused *unused, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < unused->num && st == STATUS_OK; i++) {
    st = store_txn_del(txn, table, bytes_of(unused->keys[i], 32), err);
  }
  return st;
}

// drop_unused removes the certificates of issuers, and the CAs, that no chain has now.
static enum status drop_unused(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store_unused issuers = {0};
  struct store_unused cas = {0};
  st = store_find_unused(&issuers, &cas, store_txn_mdb(txn), store_txn_store(txn));
  if (st != STATUS_OK) {
    st = st == STATUS_MEMORY ? errmsg_set(err, STATUS_MEMORY, "no memory")
                             : store_txn_damaged(txn, "chain", err);
    goto out;
  }
  TRY(drop_keys(txn, TABLE_ISSUERS, &issuers, err));
  TRY(drop_keys(txn, TABLE_CAS, &cas, err));

out:
  store_unused_cleanup(&issuers);
  store_unused_cleanup(&cas);
  return st;
}

// drop_unnamed removes the chains that no name has, and what only they had. The last chain
// stays in any case, so that its id is not given away again.
static enum status drop_unnamed(struct store_txn *txn, void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct sweep *sweep = arg;
  const MDB_dbi *tables = store_txn_store(txn)->tables;

  sweep->num_dropped = 0;
  sweep->named.num = store_txn_next_chain(txn);
  free(sweep->named.bits);
  sweep->named.bits = calloc(store_txn_next_chain(txn) / 8 + 1, 1);
  if (sweep->named.bits == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(store_walk(store_txn_mdb(txn), tables[TABLE_NAMES], mark_named, &sweep->named));
  for (uint64_t id = 1; id + 1 < store_txn_next_chain(txn); id++) {
    uint8_t key[STORE_ID_LEN];
    struct bytes record;
    struct store_chain chain;
    if ((sweep->named.bits[id / 8] & 1U << (id % 8)) != 0 ||
        store_txn_get(txn, TABLE_CHAINS, store_id_key(key, id), &record) != STATUS_OK) {
      continue;
    }
    if (store_chain_decode(&chain, record) != STATUS_OK) {
      TRY(store_txn_damaged(txn, "chain", err));
    }
    TRY(drop_chain(txn, &chain, id, err));
    sweep->num_dropped++;
  }
  TRY(drop_unused(txn, err));

out:
  return st;
}

// take_after gives the copy the owner, group and mode of the file that it replaces.
static enum status take_after(const char *beside, const char *old, struct errmsg *err) {
  struct stat is;
  if (stat(old, &is) != 0 || chmod(beside, is.st_mode & 07777) != 0) {
    return store_fail(err, errno, beside, "cannot be given the old file's mode");
  }
  // Only root can give a file away; anyone else is the owner already, or may not be.
  return chown(beside, is.st_uid, is.st_gid) == 0 || errno == EPERM
             ? STATUS_OK
             : store_fail(err, errno, beside, "cannot be given the old file's owner");
}

static enum status sync_file(const char *path, int flags, struct errmsg *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
  int rc = fd < 0 || fsync(fd) != 0 ? errno : 0;
  if (fd >= 0) {
    (void)close(fd);
  }
  return rc == 0 ? STATUS_OK : store_fail(err, rc, path, "cannot be synced");
}

// copy_to writes the next generation beside, whole and synced, before it has its name.
static enum status copy_to(struct store *store, const char *beside, const char *path,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  (void)unlink(beside);  // of one that was killed
  int rc = mdb_env_copy2(store->chains, beside, MDB_CP_COMPACT);
  if (rc != 0) {
    TRY(store_fail(err, rc, beside, "cannot be written"));
  }
  TRY(take_after(beside, store->chains_path, err));
  TRY(sync_file(beside, 0, err));
  if (rename(beside, path) != 0) {
    TRY(store_fail(err, errno, path, "cannot be renamed"));
  }
  TRY(sync_file(store->folder, O_DIRECTORY, err));

out:
  if (st != STATUS_OK) {
    (void)unlink(beside);
  }
  return st;
}

static void remove_old(const char *chains_path) {
  char *lock_path = NULL;
  (void)unlink(chains_path);
  if (asprintf(&lock_path, "%s-lock", chains_path) >= 0) {
    (void)unlink(lock_path);
    free(lock_path);
  }
}

enum status store_compact(struct store **store, uint64_t *out_num_dropped, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store *old = *store;
  struct store_options options = old->options;
  struct sweep sweep = {0};
  char *folder = NULL;
  char *path = NULL;
  char *beside = NULL;
  bool is_locked = false;

  TRY(store_lock(old, err));
  is_locked = true;
  TRY(store_run(old, drop_unnamed, &sweep, err));
  if (asprintf(&path, "%s/chains-%llu.mdb", old->folder, (unsigned long long)old->generation + 1) <
          0 ||
      asprintf(&beside, "%s/compact.new", old->folder) < 0 ||
      (folder = strdup(old->folder)) == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  TRY(copy_to(old, beside, path, err));
  remove_old(old->chains_path);
  store_close(old);  // lets go of the lock
  is_locked = false;
  *store = NULL;
  *out_num_dropped = sweep.num_dropped;
  TRY(store_open(store, folder, &options, err));

out:
  if (is_locked) {
    store_unlock(old);
  }
  free(sweep.named.bits);
  free(folder);
  free(path);
  free(beside);
  return st;
}
