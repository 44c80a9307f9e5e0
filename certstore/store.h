// SPDX-License-Identifier: Apache-2.0
// store: a million names on disk, in LMDB (docs/STORE.md): names with their ordered
// chains, leaves, intermediates kept once, staples, revocations, states and the log of
// switches. A folder with two environments, so that a switch never waits behind an
// import:
//   chains-N.mdb  what came from certificates; N grows by one with each compaction
//   states.mdb    what operators and watchers have said (state.h), and its log
//
// One process writes at a time, any number read, each from a snapshot: half a change
// is never seen. What a writing call has answered with STATUS_OK is on the disk
// (LMDB's own order of syncs; none is ever left out), also after kill -9.
//
//   store.h        open, read (the hot path), choose, drill
//   store_write.h  add chains and names, states
//
// Threads: a store may be used by several at once; a reader, or a transaction, by one
// at a time.
#ifndef DEPUTY_CERTSTORE_STORE_H_
#define DEPUTY_CERTSTORE_STORE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "certstore/state.h"
#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/ca.h"
#include "common/wire/store_record.h"

#define STORE_DEFAULT_FOLDER "/var/lib/deputy/store"
#define STORE_FORMAT_VERSION 1
#define STORE_MAX_READERS 512u

struct store;

enum store_mode {
  STORE_READ,    // the folder may be on a read-only disk
  STORE_STATES,  // as above, but states may be written
  STORE_WRITE,   // all may be written
  STORE_CREATE,  // as above; makes what is missing
};

struct store_options {
  enum store_mode mode;
  // Look-ups at random: the kernel reads no pages ahead. And threads look without a lock,
  // so the map never moves: a file that outgrows it is to be opened anew.
  bool is_serving;
  size_t map_len;  // bytes of address space to begin with; 0: plenty. For tests.
};

// store_open opens the store in `folder`; one at a time of the same folder in a
// process. (LMDB's locks end with the first to be closed.) Slots of readers that died
// are given back.
//   STATUS_NOT_FOUND  no store there
//   STATUS_SYSTEM     the disk or its permissions; read-only for STORE_WRITE
//   STATUS_FORMAT     damaged, or not a store
//   STATUS_REFUSED    of a format version that this program does not know
//   STATUS_LIMIT      STORE_MAX_READERS readers are open, STATUS_MEMORY
// The sentence says what to do.
enum status store_open(struct store **out, const char *folder, const struct store_options *options,
                       struct errmsg *err);
void store_close(struct store *store);  // no reader may be left; NULL allowed
const char *store_folder(const struct store *store);

// store_is_replaced: has a compaction made a newer file? Then open the store anew
// (after closing this one); until then it shows what it was. One system call.
bool store_is_replaced(const struct store *store);
// store_is_outgrown: has another process made a file longer than the map (is_serving)?
// Open it anew as well. A few loads.
bool store_is_outgrown(const struct store *store);
// store_may_write_states: was it opened for that?
bool store_may_write_states(const struct store *store);

// store_chains_version, store_states_version: grow with each transaction that another
// process or thread has written. A few loads, no system call: a cache of what was
// found asks these before each use.
uint64_t store_chains_version(const struct store *store);
uint64_t store_states_version(const struct store *store);

// store_level_name: "primary", "backup", "spare2" ... "spare7". store_level_from_name:
// STATUS_NOT_FOUND.
const char *store_level_name(unsigned level);
enum status store_level_from_name(unsigned *out, const char *name);

// --- reading -----------------------------------------------------------------------

// A reader is one snapshot at a time. Look-ups take no lock, allocate nothing, call no
// system once pages are warm, and parse no PEM or X.509. All runs that they lend are
// in the map, until the reader is refreshed, parked or freed.
struct store_reader;

// store_reader_new: STATUS_LIMIT (all slots are taken), STATUS_MEMORY, STATUS_FORMAT.
enum status store_reader_new(struct store_reader **out, struct store *store, struct errmsg *err);
void store_reader_free(struct store_reader *reader);

// store_reader_refresh moves to the newest snapshot; does nothing when it is that
// already. STATUS_UNAVAILABLE: the file has outgrown the map, which is that of a server
// (store_is_outgrown), or is held by other readers of this process: park them, and try
// again. A reader that failed is parked.
enum status store_reader_refresh(struct store_reader *reader);

// store_reader_chains_version, ..._states_version: of the snapshot that it reads. What was
// read is to be filed under this, and never under store_..._version asked before or
// after: the file says that a transaction is there some milliseconds (LMDB's last sync)
// before a new snapshot has it. Not of a parked one.
uint64_t store_reader_chains_version(const struct store_reader *reader);
uint64_t store_reader_states_version(const struct store_reader *reader);

// store_reader_park lets go of the snapshot: one that is kept for hours keeps its
// pages from being used again, and the file grows. Refresh before the next look.
void store_reader_park(struct store_reader *reader);

// store_release_pages takes the pages that look-ups of this process have touched out of its
// memory; they stay in the kernel's page cache, and are mapped again when they are looked
// at. Not of a parked reader.
void store_release_pages(const struct store_reader *reader);

// store_find: exact, then one-label wildcard; `host` as certstore_find takes it.
// STATUS_NOT_FOUND; STATUS_FORMAT (a damaged record), STATUS_REFUSED (a newer one).
enum status store_find(const struct store_reader *reader, struct store_name *out,
                       struct bytes host);
// store_find_exact finds a name as it is kept (lower case, "*.x").
enum status store_find_exact(const struct store_reader *reader, struct store_name *out,
                             struct bytes name);
// store_get_*: by the id of a chain; or by hash. As store_find.
enum status store_get_chain(const struct store_reader *reader, struct store_chain *out,
                            uint64_t chain_id);
enum status store_get_issuer(const struct store_reader *reader, struct bytes *out_der,
                             const uint8_t sha256[32]);
enum status store_get_staple(const struct store_reader *reader, struct store_staple *out,
                             uint64_t chain_id);
enum status store_get_revoked(const struct store_reader *reader, struct store_revoked *out,
                              uint64_t chain_id);
enum status store_get_ca(const struct store_reader *reader, struct store_ca *out,
                         const uint8_t ca_id[32]);
enum status store_find_leaf(const struct store_reader *reader, uint64_t *out_chain_id,
                            const uint8_t sha256[32]);

// store_each_chain_of_key walks over the chains whose leaf has this key.
enum status store_each_chain_of_key(const struct store_reader *reader, const uint8_t key_id[32],
                                    bool (*each)(void *arg, uint64_t chain_id), void *arg);

// store_get_words tells what is said of a subject at `now_s`: a name, 32 bytes of id,
// or nothing for the fleet. Silent (all zero) when nothing is. Looks into the log only
// when a change with an end has ended and nobody has written since.
enum status store_get_words(const struct store_reader *reader, struct store_words *out,
                            enum state_level level, struct bytes subject, int64_t now_s);

// store_standing lists the changes that stand for a subject at `now_s`, oldest first.
enum status store_standing(const struct store_reader *reader, uint64_t out[STORE_MAX_STANDING],
                           size_t *out_num, enum state_level level, struct bytes subject,
                           int64_t now_s);

// The log. store_each_change calls `each` with every change, oldest first, until it
// returns false.
enum status store_get_change(const struct store_reader *reader, struct store_change *out,
                             uint64_t id);
enum status store_each_change(const struct store_reader *reader,
                              bool (*each)(void *arg, uint64_t id,
                                           const struct store_change *change),
                              void *arg);
// store_each_name walks in order of bytes, store_each_ca as well.
enum status store_each_name(const struct store_reader *reader,
                            bool (*each)(void *arg, struct bytes name,
                                         const struct store_name *record),
                            void *arg);
// store_each_name_after begins behind `after` (empty: at the first).
enum status store_each_name_after(const struct store_reader *reader, struct bytes after,
                                  bool (*each)(void *arg, struct bytes name,
                                               const struct store_name *record),
                                  void *arg);
enum status store_each_ca(const struct store_reader *reader,
                          bool (*each)(void *arg, const uint8_t ca_id[32],
                                       const struct store_ca *ca),
                          void *arg);

// --- choosing ----------------------------------------------------------------------

enum store_fault {
  STORE_USABLE,
  STORE_EXPIRED,
  STORE_NOT_YET_VALID,
  STORE_REVOKED,
  STORE_KEY_OUT,
  STORE_CA_OUT,
  STORE_NO_STAPLE,
  STORE_NUM_FAULTS,
};
const char *store_fault_name(enum store_fault fault);  // as chain_fault_name

// What a drill supposes: that key or CA out of service, or the level gone.
struct store_supposition {
  const uint8_t *key_id;  // 32 bytes, or NULL
  const uint8_t *ca_id;
  bool is_level_gone;
  unsigned level;
};

// store_judge: as chain_judge (chain.h), from the records.
enum store_fault store_judge(const struct store_reader *reader, const struct store_slot *slot,
                             int64_t now_s, const struct store_supposition *supposed);

struct store_choice {
  const struct store_slot *slot;  // in the name
  bool is_last_resort;
  bool may_use_dc;
};

// store_choose is certstore_choose on records. `subject` is the name's own key in the
// store. STATUS_NOT_FOUND: no chain can answer.
enum status store_choose(struct store_choice *out, const struct store_reader *reader,
                         struct bytes subject, const struct store_name *name, int64_t now_s,
                         bool (*takes)(void *arg, enum key_kind kind), void *arg,
                         const struct store_supposition *supposed);

// --- looking after it ----------------------------------------------------------------

struct store_counts {
  uint64_t num_names, num_chains, num_issuers, num_staples, num_revoked, num_cas;
  uint64_t num_subjects, num_changes;
  uint64_t chains_len, states_len;  // bytes of the two files
  uint64_t free_len;                // of these, bytes in pages that wait for use
  uint64_t generation;              // the N of chains-N.mdb
  unsigned num_readers;             // slots in use, of all processes
};
// store_count_records counts only what takes no time: the first two lines.
void store_count_records(struct store_counts *out, const struct store_reader *reader);
enum status store_count(struct store_counts *out, const struct store_reader *reader,
                        struct errmsg *err);

// A drill over the store: as certstore_drill, with what only a store can know.
#define STORE_DRILL_LISTED 1000u
struct store_drill_report {
  uint64_t num_names, num_moved, num_without_backup, num_partly, num_unusable_already;
  uint64_t num_same_ca;          // moved or not: names whose levels share one CA
  uint64_t num_staples;          // moved names whose next chain has a good staple
  int64_t oldest_staple_ends_s;  // of these; 0: none
  int64_t oldest_backup_ends_s;  // notAfter of the chains that would serve; 0: none
  char (*without_backup)[256];   // the first STORE_DRILL_LISTED
  char (*same_ca)[256];
};
// `progress` (may be NULL) is told now and then how many of all names are done; false
// from it ends the drill (STATUS_CLOSED). STATUS_NOT_FOUND: no such subject.
enum status store_drill(struct store_drill_report *out, const struct store_reader *reader,
                        enum state_level level, struct bytes subject, int64_t now_s,
                        bool (*progress)(void *arg, uint64_t done, uint64_t all), void *arg);
void store_drill_cleanup(struct store_drill_report *report);

// store_match finds the subject for what was typed, as certstore_match: out holds the
// name, or 32 bytes of id. A CA is known by its id, its name as an issuer, and its key (SHA-256
// of the SubjectPublicKeyInfo). STATUS_NOT_FOUND, STATUS_FORMAT (ambiguous).
enum status store_match(uint8_t out[STATE_SUBJECT_MAX_LEN], size_t *out_len,
                        const struct store_reader *reader, enum state_level level,
                        const char *typed, struct errmsg *err);

// store_match_ca finds the id under which leaves name this CA. As store_match.
enum status store_match_ca(uint8_t out[32], const struct store_reader *reader,
                           const struct cert_ca *ca, struct errmsg *err);

// store_verify reads every record and checks it against the others: hashes, facts
// against the leaf, names against what the leaf covers, indices both ways, states
// against the log. Calls `on_fault` with a sentence for each that is wrong, and goes
// on; returns STATUS_FORMAT if there was one. `is_deep` also verifies the signature of
// each leaf by its issuer's key.
struct store_verify_options {
  bool is_deep;
  void (*on_fault)(void *arg, const char *sentence);
  bool (*progress)(void *arg, uint64_t done, uint64_t all);
  void *arg;
};
enum status store_verify(const struct store_reader *reader,
                         const struct store_verify_options *options, struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_STORE_H_
