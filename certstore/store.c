// SPDX-License-Identifier: Apache-2.0
#include "certstore/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "certstore/store_private.h"

// Address space, not memory: the file is as long as what is in it.
#define DEFAULT_MAP_LEN ((size_t)256 << 30)
#define STATES_MAP_LEN ((size_t)4 << 30)
#define MAX_TABLES 16
#define MAX_TRIES 20u
#define LOCK_TRIES 5u
#define LOCK_PAUSE_NS 2000000  // 2 ms
#define FILE_MODE 0660
#define FOLDER_MODE 0750
#define FORMAT_NAME "deputy-store"
#define CHAINS_PATTERN "chains-%" PRIu64 ".mdb"

static const char *const table_names[NUM_TABLES] = {
    [TABLE_META] = "meta",        [TABLE_NAMES] = "names",     [TABLE_CHAINS] = "chains",
    [TABLE_LEAVES] = "leaves",    [TABLE_KEYS] = "keys",       [TABLE_ISSUERS] = "issuers",
    [TABLE_CAS] = "cas",          [TABLE_STAPLES] = "staples", [TABLE_REVOKED] = "revoked",
    [TABLE_STATES_META] = "meta", [TABLE_STATES] = "states",   [TABLE_LOG] = "log",
};

// --- errors ----------------------------------------------------------------------

static enum status fail_disk(struct errmsg *err, int rc, const char *path, const char *what) {
  errno = rc;
  switch (rc) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return errmsg_set(err, STATUS_SYSTEM,
                        "%s: %s: the disk is full (%s). Nothing has changed: make room, and do it "
                        "again",
                        path, what, strerror(rc));
    case EIO:  // LMDB's word for a write that was cut short, too
      return errmsg_set(
          err, STATUS_SYSTEM,
          "%s: %s: the disk is full, or fails. Nothing has changed: make room, look at "
          "the kernel's log, and do it again",
          path, what);
    case EROFS:
      return errmsg_set(err, STATUS_SYSTEM,
                        "%s: %s: the disk is read-only. Nothing has changed: mount it for writing",
                        path, what);
    case EACCES:
    case EPERM:
      return errmsg_set(err, STATUS_SYSTEM,
                        "%s: %s: %s. Readers too need to write the lock file beside it: run this "
                        "as the owner of the store, or join its group",
                        path, what, strerror(rc));
    default:
      return errmsg_set(err, STATUS_SYSTEM, "%s: %s: %s", path, what, mdb_strerror(rc));
  }
}

enum status store_fail(struct errmsg *err, int rc, const char *path, const char *what) {
  switch (rc) {
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_BAD_VALSIZE:
      return errmsg_set(err, STATUS_FORMAT,
                        "%s: %s: the file is damaged, or not a store (%s). Put back a copy of it, "
                        "or move it away and import the certificates again",
                        path, what, mdb_strerror(rc));
    case MDB_VERSION_MISMATCH:
      return errmsg_set(err, STATUS_REFUSED,
                        "%s: %s: made by another version of LMDB. Export it with the program that "
                        "made it, and import that here",
                        path, what);
    case MDB_MAP_FULL:
      return errmsg_set(err, STATUS_LIMIT, "%s: %s: the map is full", path, what);
    case MDB_READERS_FULL:
      return errmsg_set(err, STATUS_LIMIT,
                        "%s: %s: all %u slots of readers are taken: end some of the processes that "
                        "read it",
                        path, what, STORE_MAX_READERS);
    case MDB_MAP_RESIZED:
      return errmsg_set(err, STATUS_UNAVAILABLE, "%s: %s: it has grown beyond the map", path, what);
    case ENOMEM:
      return errmsg_set(err, STATUS_MEMORY, "%s: %s: no memory", path, what);
    case ENOENT:
      return errmsg_set(err, STATUS_NOT_FOUND, "%s: %s: there is no such file", path, what);
    default:
      return fail_disk(err, rc, path, what);
  }
}

// --- the folder --------------------------------------------------------------------

// find_generation finds the newest chains-N.mdb; 0: none.
static enum status find_generation(uint64_t *out, const char *folder, struct errmsg *err) {
  DIR *dir = opendir(folder);
  struct dirent *entry = NULL;
  *out = 0;
  if (dir == NULL) {
    int reason = errno;
    return reason == ENOENT
               ? errmsg_set(err, STATUS_NOT_FOUND,
                            "%s: there is no such folder. Import certificates to make a store",
                            folder)
               : store_fail(err, reason, folder, "cannot be opened");
  }
  while ((entry = readdir(dir)) != NULL) {
    char name[64];
    uint64_t number = 0;
    if (sscanf(entry->d_name, CHAINS_PATTERN, &number) == 1) {  // NOLINT(cert-err34-c)
      // Written back, to pass over chains-7.mdb-lock and chains-007.mdb.
      (void)snprintf(name, sizeof(name), CHAINS_PATTERN, number);
      if (strcmp(name, entry->d_name) == 0 && number > *out) {
        *out = number;
      }
    }
  }
  (void)closedir(dir);
  return STATUS_OK;
}

static enum status make_paths(struct store *store, struct errmsg *err) {
  free(store->chains_path);
  free(store->states_path);
  store->states_path = NULL;
  if (asprintf(&store->chains_path, "%s/" CHAINS_PATTERN, store->folder, store->generation) < 0) {
    store->chains_path = NULL;
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  if (asprintf(&store->states_path, "%s/states.mdb", store->folder) < 0) {
    store->states_path = NULL;
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  return STATUS_OK;
}

static bool may_write(const struct store *store, bool is_states) {
  return store->options.mode >= STORE_WRITE || (is_states && store->options.mode == STORE_STATES);
}

static enum status prepare_folder(struct store *store, struct errmsg *err) {
  enum status st = STATUS_OK;
  bool may_create = store->options.mode == STORE_CREATE;
  char *lock = NULL;

  if (may_create && mkdir(store->folder, FOLDER_MODE) != 0 && errno != EEXIST) {
    return store_fail(err, errno, store->folder, "cannot be made");
  }
  TRY(find_generation(&store->generation, store->folder, err));
  if (store->generation == 0 && !may_create) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND,
                   "%s: there is no store in this folder (no chains-N.mdb). Import certificates to "
                   "make one",
                   store->folder));
  }
  store->generation = store->generation == 0 ? 1 : store->generation;
  TRY(make_paths(store, err));
  if (!may_write(store, false)) {
    goto out;
  }
  if (asprintf(&lock, "%s/writer.lock", store->folder) < 0) {
    lock = NULL;
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  store->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
  if (store->lock_fd < 0) {
    st = store_fail(err, errno, lock, "cannot be opened");
  }

out:
  free(lock);
  return st;
}

// --- opening -----------------------------------------------------------------------

// check_length: a file that was cut off would end the process with SIGBUS. Its length is
// asked for last: a writer may make it longer meanwhile, before it says so.
static enum status check_length(MDB_env *env, const char *path, struct errmsg *err) {
  MDB_envinfo info;
  MDB_stat stat;
  struct stat file;
  mdb_filehandle_t fd = -1;
  int rc = mdb_env_get_fd(env, &fd);
  (void)mdb_env_info(env, &info);
  (void)mdb_env_stat(env, &stat);
  if (rc != 0 || fstat(fd, &file) != 0) {
    return store_fail(err, rc != 0 ? rc : errno, path, "cannot be opened");
  }
  uint64_t len = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
  if ((uint64_t)file.st_size < len) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: the file is damaged: it is cut off after %lld of %" PRIu64
                      " bytes. Put back a copy of it, or move it away and import the certificates "
                      "again",
                      path, (long long)file.st_size, len);
  }
  return STATUS_OK;
}

// adopt_length: another process has made the map of the file larger than ours is.
static int adopt_length(MDB_env *env, size_t map_len) {
  MDB_envinfo info;
  int rc = mdb_env_set_mapsize(env, 0);
  (void)mdb_env_info(env, &info);
  return rc == 0 && info.me_mapsize < map_len ? mdb_env_set_mapsize(env, map_len) : rc;
}

static int make_env(MDB_env **out, const char *path, unsigned flags, size_t map_len) {
  MDB_env *env = NULL;
  int rc = mdb_env_create(&env);
  rc = rc != 0 ? rc : mdb_env_set_maxdbs(env, MAX_TABLES);
  rc = rc != 0 ? rc : mdb_env_set_maxreaders(env, STORE_MAX_READERS);
  rc = rc != 0 ? rc : mdb_env_set_mapsize(env, map_len);
  rc = rc != 0 ? rc : mdb_env_open(env, path, flags, FILE_MODE);
  rc = rc != 0 ? rc : adopt_length(env, map_len);
  if (rc != 0) {
    mdb_env_close(env);
    env = NULL;
  }
  *out = env;
  return rc;
}

// open_settled is make_env, again while a lock file may be nobody's: who comes first makes it,
// and the others wait for that; if the first is killed there, they have an empty file (EINVAL)
// or one of zeros (MDB_INVALID), and the first of them to ask again makes it.
static int open_settled(MDB_env **out, const char *path, unsigned flags, size_t map_len) {
  int rc = make_env(out, path, flags, map_len);
  for (unsigned i = 0; i < LOCK_TRIES && (rc == EINVAL || rc == MDB_INVALID); i++) {
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
    (void)nanosleep(&pause, NULL);
    rc = make_env(out, path, flags, map_len);
  }
  return rc;
}

static enum status open_env(MDB_env **out, const struct store *store, const char *path,
                            bool is_states, struct errmsg *err) {
  enum status st = STATUS_OK;
  MDB_env *env = NULL;
  struct stat file;
  unsigned flags = MDB_NOSUBDIR | MDB_NOTLS;
  const size_t map_len = store->options.map_len != 0 ? store->options.map_len
                         : is_states                 ? STATES_MAP_LEN
                                                     : DEFAULT_MAP_LEN;
  int num_dead = 0;
  int rc = 0;

  CHECK(path != NULL);
  flags |= may_write(store, is_states) ? 0 : MDB_RDONLY;
  flags |= store->options.is_serving ? MDB_NORDAHEAD : 0;
  if (store->options.mode != STORE_CREATE && stat(path, &file) != 0) {
    return store_fail(err, errno, path, "cannot be opened");
  }
  if (store->options.mode != STORE_CREATE && file.st_size == 0) {
    return store_fail(err, MDB_INVALID, path, "cannot be opened");
  }
  rc = open_settled(&env, path, flags, map_len);
  if (rc != 0) {
    TRY(store_fail(err, rc, path, "cannot be opened"));
  }
  TRY(check_length(env, path, err));
  (void)mdb_reader_check(env, &num_dead);
  *out = env;
  env = NULL;

out:
  mdb_env_close(env);
  return st;
}

// check_format: "deputy-store", then one byte of version.
static enum status check_format(MDB_txn *txn, MDB_dbi meta, const char *path, bool may_create,
                                struct errmsg *err) {
  MDB_val key = store_val(bytes_text(STORE_FORMAT_KEY));
  MDB_val value = {0};
  char format[sizeof(FORMAT_NAME)] = FORMAT_NAME;
  int rc = mdb_get(txn, meta, &key, &value);
  if (rc == MDB_NOTFOUND && may_create) {
    format[sizeof(format) - 1] = STORE_FORMAT_VERSION;
    value = store_val(bytes_of(format, sizeof(format)));
    rc = mdb_put(txn, meta, &key, &value, 0);
    return rc == 0 ? STATUS_OK : store_fail(err, rc, path, "cannot be made");
  }
  if (rc != 0 || value.mv_size != sizeof(format) ||
      memcmp(value.mv_data, format, sizeof(format) - 1) != 0) {
    return store_fail(err, rc == 0 || rc == MDB_NOTFOUND ? MDB_INVALID : rc, path,
                      "cannot be opened");
  }
  unsigned version = ((const uint8_t *)value.mv_data)[sizeof(format) - 1];
  if (version != STORE_FORMAT_VERSION) {
    return errmsg_set(err, STATUS_REFUSED,
                      "%s: its format has version %u, this program knows version %d. Use the "
                      "program that wrote it, or export with that one and import here",
                      path, version, STORE_FORMAT_VERSION);
  }
  return STATUS_OK;
}

static enum status open_tables(struct store *store, MDB_env *env, const char *path, unsigned first,
                               unsigned end, struct errmsg *err) {
  enum status st = STATUS_OK;
  bool may_create = store->options.mode == STORE_CREATE;
  bool is_writer = may_write(store, env == store->states);
  MDB_txn *txn = NULL;
  int rc = mdb_txn_begin(env, NULL, is_writer ? 0 : MDB_RDONLY, &txn);

  if (rc != 0) {
    return store_fail(err, rc, path, "cannot be opened");
  }
  for (unsigned i = first; i < end; i++) {
    rc = mdb_dbi_open(txn, table_names[i], may_create ? MDB_CREATE : 0, &store->tables[i]);
    if (rc == MDB_NOTFOUND) {
      TRY(errmsg_set(err, STATUS_NOT_FOUND,
                     "%s: is empty: the import that made it has not ended, or was cut off. Import "
                     "again",
                     path));
    }
    if (rc != 0) {
      TRY(store_fail(err, rc, path, "cannot be opened"));
    }
  }
  TRY(check_format(txn, store->tables[first], path, may_create, err));
  rc = mdb_txn_commit(txn);
  txn = NULL;
  if (rc != 0) {
    TRY(store_fail(err, rc, path, "cannot be opened"));
  }

out:
  mdb_txn_abort(txn);
  return st;
}

static enum status open_once(struct store **out, uint64_t *out_generation, const char *folder,
                             const struct store_options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store *store = calloc(1, sizeof(*store));

  if (store == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  store->lock_fd = -1;
  store->options = *options;
  store->folder = strdup(folder);
  if (store->folder == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  TRY(prepare_folder(store, err));
  *out_generation = store->generation;
  TRY(open_env(&store->states, store, store->states_path, true, err));
  TRY(open_tables(store, store->states, store->states_path, TABLE_STATES_META, NUM_TABLES, err));
  TRY(open_env(&store->chains, store, store->chains_path, false, err));
  TRY(open_tables(store, store->chains, store->chains_path, TABLE_META, NUM_CHAIN_TABLES, err));
  *out = store;
  store = NULL;

out:
  store_close(store);
  return st;
}

// is_outrun: did a compaction end between the look at the folder and the opening?
static bool is_outrun(const char *folder, uint64_t generation) {
  uint64_t newest = 0;
  return find_generation(&newest, folder, NULL) == STATUS_OK && newest > generation;
}

enum status store_open(struct store **out, const char *folder, const struct store_options *options,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  uint64_t generation = 0;
  for (unsigned i = 0; i < MAX_TRIES; i++) {
    *out = NULL;
    generation = 0;
    st = open_once(out, &generation, folder, options, err);
    if (generation == 0 || !is_outrun(folder, generation)) {
      return st;
    }
    if (st == STATUS_OK) {
      store_close(*out);
      *out = NULL;
      st = errmsg_set(err, STATUS_UNAVAILABLE, "%s: is compacted again and again", folder);
    }
  }
  return st;
}

void store_close(struct store *store) {
  if (store == NULL) {
    return;
  }
  CHECK(atomic_load(&store->num_in_use) == 0);
  if (store->chains != NULL) {
    mdb_env_close(store->chains);
  }
  if (store->states != NULL) {
    mdb_env_close(store->states);
  }
  if (store->lock_fd >= 0) {
    (void)close(store->lock_fd);
  }
  free(store->chains_path);
  free(store->states_path);
  free(store->folder);
  free(store);
}

const char *store_folder(const struct store *store) { return store->folder; }

bool store_is_replaced(const struct store *store) {
  char *next = NULL;
  if (asprintf(&next, "%s/" CHAINS_PATTERN, store->folder, store->generation + 1) < 0) {
    return false;
  }
  bool is_replaced = access(next, F_OK) == 0 || access(store->chains_path, F_OK) != 0;
  free(next);
  return is_replaced;
}

// The last page lies beyond the map.
static bool has_outgrown(MDB_env *env) {
  MDB_envinfo info;
  MDB_stat stat;
  (void)mdb_env_info(env, &info);
  (void)mdb_env_stat(env, &stat);
  return (info.me_last_pgno + 1) * stat.ms_psize > info.me_mapsize;
}

bool store_is_outgrown(const struct store *store) {
  return has_outgrown(store->chains) || has_outgrown(store->states);
}

bool store_may_write_states(const struct store *store) { return may_write(store, true); }

static uint64_t version_of(MDB_env *env) {
  MDB_envinfo info;
  (void)mdb_env_info(env, &info);
  return info.me_last_txnid;
}

uint64_t store_chains_version(const struct store *store) { return version_of(store->chains); }
uint64_t store_states_version(const struct store *store) { return version_of(store->states); }

enum status store_grow(struct store *store, MDB_env *env, const char *path, struct errmsg *err) {
  MDB_envinfo info;
  if (store->options.is_serving) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "%s: the map is full, and that of a server does not move: any command of "
                      "`deputyctl store` that writes makes it larger",
                      path);
  }
  if (atomic_load(&store->num_in_use) != 0) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "%s: the map is full while readers hold it", path);
  }
  (void)mdb_env_info(env, &info);
  int rc = mdb_env_set_mapsize(env, info.me_mapsize * 2);
  return rc == 0 ? STATUS_OK : store_fail(err, rc, path, "the map cannot be made larger");
}

// --- levels ------------------------------------------------------------------------

static const char *const level_names[STORE_MAX_LEVELS] = {
    "primary", "backup", "spare2", "spare3", "spare4", "spare5", "spare6", "spare7",
};

const char *store_level_name(unsigned level) {
  CHECK(level < STORE_MAX_LEVELS);
  return level_names[level];
}

enum status store_level_from_name(unsigned *out, const char *name) {
  for (unsigned i = 0; i < STORE_MAX_LEVELS; i++) {
    if (strcmp(level_names[i], name) == 0) {
      *out = i;
      return STATUS_OK;
    }
  }
  return STATUS_NOT_FOUND;
}
