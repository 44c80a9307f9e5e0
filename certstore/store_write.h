// SPDX-License-Identifier: Apache-2.0
// store_write: changes of a store (store.h). All of a transaction is done, or nothing:
// whatever ends it early (a refusal, a full disk, kill -9) leaves the store as it was.
#ifndef DEPUTY_CERTSTORE_STORE_WRITE_H_
#define DEPUTY_CERTSTORE_STORE_WRITE_H_

#include "certstore/store.h"

struct store_txn;

// store_write runs `change` in a transaction and commits. When the map is full it is
// made larger and `change` runs again, from the start, in a new transaction: it must
// be able to. `change` ends with STATUS_OK to commit, with anything else to leave all
// as it was. Waits for another writer to end.
//   what `change` returned
//   STATUS_SYSTEM  the disk is full, or fails; nothing has changed
//   STATUS_CLOSED  the store was compacted meanwhile: open it anew
enum status store_write(struct store *store,
                        enum status (*change)(struct store_txn *txn, void *arg, struct errmsg *err),
                        void *arg, struct errmsg *err);

// --- chains and names ----------------------------------------------------------------

// What is noticed while chains are filed.
enum store_issue {
  STORE_ISSUE_SAME_KEY,        // refused: the name's other level has this very key
  STORE_ISSUE_SAME_CA,         // a warning: with the CA go both levels
  STORE_ISSUE_EXPIRED_BACKUP,  // a warning
  STORE_ISSUE_OLDER,           // not filed: what is there begins later
  STORE_NUM_ISSUES,
};
const char *store_issue_name(enum store_issue issue);

struct store_addition {
  const struct bytes *certs;  // DER, leaf first, each followed by its issuer
  size_t num_certs;
  unsigned level;
  const char *const *names;  // lower case; NULL: all dNSNames of the leaf
  size_t num_names;
  bool is_replacing;    // file it even where a chain that begins later is
  struct bytes staple;  // OCSP response, checked before; empty: none
  int64_t staple_this_update_s;
  int64_t staple_next_update_s;
  uint32_t source;  // handed to on_issue: where it came from
};

// store_add files a chain under its names. A leaf that is there already is not kept
// twice (its issuers and staple are those given last). In each level of a name there is
// at most one RSA chain and one other: the one whose notBefore is later stays. The
// names are brought together at the end of the transaction, in order.
//   STATUS_FORMAT  a certificate does not parse, or its key is of no kind we serve
//   STATUS_REFUSED the certificates do not follow each other by issuer, the leaf is a
//                  CA's, or does not cover a name
//   STATUS_LIMIT   too many certificates, or too long
enum status store_add(struct store_txn *txn, const struct store_addition *addition,
                      struct errmsg *err);

// store_on_issue: `on_issue` hears of each; returns false to end the transaction with
// STATUS_REFUSED and `sentence`. Without it refusals end it and warnings are dropped.
void store_on_issue(struct store_txn *txn,
                    bool (*on_issue)(void *arg, enum store_issue issue, uint32_t source,
                                     const char *sentence),
                    void *arg);

// store_on_progress: hears, while a large transaction ends, how much of it is filed.
void store_on_progress(struct store_txn *txn,
                       void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg);

// store_txn_is_broken: did the disk or the map refuse, rather than the rules above? Then
// nothing more can be done in this transaction: end it with the status that was given.
bool store_txn_is_broken(const struct store_txn *txn);

// store_expect makes room in the map for so many bytes of certificates beforehand.
void store_expect(struct store *store, uint64_t len);

// store_remove_name: STATUS_NOT_FOUND. Its chains stay until a compaction, if no other
// name has them.
enum status store_remove_name(struct store_txn *txn, const char *name, struct errmsg *err);
enum status store_put_staple(struct store_txn *txn, uint64_t chain_id,
                             const struct store_staple *staple, struct errmsg *err);
// store_put_revoked: NULL takes it back.
enum status store_put_revoked(struct store_txn *txn, uint64_t chain_id,
                              const struct store_revoked *revoked, struct errmsg *err);

// --- states --------------------------------------------------------------------------

// store_apply keeps a change (its texts, words and until_s; the rest is set here), and
// makes it visible: one write, whatever the number of names, that waits for no import.
//   STATUS_FORMAT  not a change: words that do not belong to the level
//   STATUS_LIMIT   STORE_MAX_STANDING changes stand for the subject
//   STATUS_SYSTEM  the disk
enum status store_apply(struct store *store, uint64_t *out_id, const struct store_change *change,
                        int64_t now_s, struct errmsg *err);
// store_undo takes a change back: STATUS_NOT_FOUND, STATUS_EXISTS (undone already).
enum status store_undo(struct store *store, uint64_t id, const char *author, int64_t now_s,
                       struct errmsg *err);
// store_undo_all takes back these, all of them or none. As store_undo.
enum status store_undo_all(struct store *store, const uint64_t *ids, size_t num, const char *author,
                           int64_t now_s, struct errmsg *err);

// store_trim_log forgets changes that stand no longer (taken back, or ended): those that
// were made more than `max_age_s` ago, and the oldest of those that are more than
// `max_num` (0: no such limit). What stands is never forgotten, nor the last change, so
// that no id is given twice.
struct store_log_limits {
  uint64_t max_num;
  int64_t max_age_s;
};
enum status store_trim_log(struct store *store, uint64_t *out_num,
                           const struct store_log_limits *limits, int64_t now_s,
                           struct errmsg *err);

// store_take_over files changes that were kept elsewhere, in their order, with their
// times and authors and under new ids: all or none. STATUS_EXISTS: the log is not empty.
enum status store_take_over(struct store *store, const struct store_change *changes, size_t num,
                            int64_t now_s, struct errmsg *err);

// --- compaction ------------------------------------------------------------------------

// store_compact leaves out chains that no name has and pages that hold nothing: writes
// chains-(N+1).mdb, syncs it, and removes chains-N.mdb. Writers wait; readers go on in
// the old file until they open the store anew (store_is_replaced). The store given is
// closed and opened anew within. `out_num_dropped`: chains that nobody had.
enum status store_compact(struct store **store, uint64_t *out_num_dropped, struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_STORE_WRITE_H_
