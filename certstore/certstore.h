// SPDX-License-Identifier: Apache-2.0
// certstore: names and their ordered chains, and which of them answers a
// handshake. A snapshot is immutable and shared by all workers; a reload makes a
// new one. (The states behind it are not part of the snapshot: state.h.) Later
// stores (LMDB, a fleet) stand behind the same calls.
#ifndef DEPUTY_CERTSTORE_CERTSTORE_H_
#define DEPUTY_CERTSTORE_CERTSTORE_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "certstore/chain.h"
#include "certstore/state.h"
#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define CERTSTORE_MAX_LEVELS 8u     // primary, backup, more
#define CERTSTORE_MAX_PER_LEVEL 2u  // one ECDSA, one RSA
#define CERTSTORE_NAME_MAX_LEN 253u

// A level: what stands in for the one before it. Its label is the first chain's.
struct cert_level {
  struct chain *chains[CERTSTORE_MAX_PER_LEVEL];  // ECDSA/EdDSA before RSA
  size_t num_chains;
};

struct cert_name {
  char *name;  // lower case; "*.x" for a wildcard
  struct cert_level levels[CERTSTORE_MAX_LEVELS];
  size_t num_levels;
  const struct state *state;
  void *policy;  // the proxy's own settings for the name; borrowed
  // What handshakes that want a DC are noted by (proxy/dc/heat.h); 0: by nothing. Set by
  // the control thread, at any time.
  _Atomic uint32_t heat_number;
};

struct certstore;

// --- building (control thread) -----------------------------------------------
enum status certstore_new(struct certstore **out, struct states *states);
// certstore_add_chain loads a chain, or returns the one that this store loaded from
// the same path under the same label; the store owns it. As chain_load.
enum status certstore_add_chain(struct chain **out, struct certstore *store, const char *label,
                                const char *path, const SSL_PRIVATE_KEY_METHOD *method,
                                struct errmsg *err);
// certstore_add_name makes a name with no levels yet: a host name of ASCII letters,
// digits, - and _, or "*." before one; case and a dot at the end do not matter.
// STATUS_EXISTS, STATUS_FORMAT (not a host name), STATUS_MEMORY.
enum status certstore_add_name(struct cert_name **out, struct certstore *store, const char *name,
                               void *policy, struct errmsg *err);
// certstore_add_level appends a chain: to the last level when it has the same
// label and another kind of key, else as a new level. Refuses a leaf that does
// not cover the name (STATUS_CONFIG), a second chain of one kind in a level, a
// label that an earlier level has, and a backup with the same key as a level
// before it; more levels than CERTSTORE_MAX_LEVELS: STATUS_LIMIT. Writes a sentence
// into `warning` (else "") for what is allowed but unwise (same CA as a level
// before it).
enum status certstore_add_level(struct certstore *store, struct cert_name *name,
                                struct chain *chain, struct errmsg *warning, struct errmsg *err);
// certstore_set_default names who answers when no SNI or an unknown one comes;
// none: the handshake ends with unrecognized_name. STATUS_NOT_FOUND: no such name.
enum status certstore_set_default(struct certstore *store, const char *name, struct errmsg *err);
// certstore_free frees names and chains. No worker may still read it.
void certstore_free(struct certstore *store);

// --- looking (any thread, lock-free) ---------------------------------------------
// certstore_find: exact, then one-label wildcard, then the default. `host` need
// not be lower case; a dot at its end does not count; one that is no host name is
// like an unknown one. NULL: none. RFC 6066, section 3.
const struct cert_name *certstore_find(const struct certstore *store, struct bytes host);
// certstore_find_named is the same without the default; certstore_default borrows
// that, or NULL.
const struct cert_name *certstore_find_named(const struct certstore *store, struct bytes host);
const struct cert_name *certstore_default(const struct certstore *store);
// certstore_find_exact finds a name as configured ("*.x" too), never the default.
const struct cert_name *certstore_find_exact(const struct certstore *store, const char *name);

const struct cert_name *const *certstore_names(const struct certstore *store, size_t *out_num);
struct chain *const *certstore_chains(const struct certstore *store, size_t *out_num);
const struct chain *certstore_find_leaf(const struct certstore *store, const uint8_t sha256[32]);
const struct state *certstore_fleet(const struct certstore *store);

// What answers a handshake.
struct choice {
  struct chain *chain;
  unsigned level;       // index
  bool is_last_resort;  // nothing was usable; this one is at least unexpired
  bool may_use_dc;      // neither name nor fleet has DCs off
};

// certstore_choose applies the fixed rule: the operator's preferred level (the
// name's, else the fleet's) goes first if usable, else the first usable level, else
// the last chain that is at least unexpired (one that is not yet valid only if
// there is no other). `takes` says whether the client can verify a key of this kind
// (NULL: any); in a level the first chain that fits serves. No lock, no allocation.
// STATUS_NOT_FOUND: no chain can answer (all expired, or no kind fits).
enum status certstore_choose(struct choice *out, const struct certstore *store,
                             const struct cert_name *name, int64_t now_s,
                             bool (*takes)(void *arg, enum key_kind kind), void *arg);

// What is said of one name's subjects, in a copy of one's own: key and CA of each of
// its chains, by level and place.
struct certstore_words {
  struct state fleet;
  struct state name;
  struct state keys[CERTSTORE_MAX_LEVELS][CERTSTORE_MAX_PER_LEVEL];
  struct state cas[CERTSTORE_MAX_LEVELS][CERTSTORE_MAX_PER_LEVEL];
};
// certstore_choose_by is certstore_choose by these words instead of those that name
// and chains point at.
enum status certstore_choose_by(struct choice *out, const struct certstore_words *words,
                                const struct cert_name *name, int64_t now_s,
                                bool (*takes)(void *arg, enum key_kind kind), void *arg);

// Why the choice is what it is, in one word for tables and logs.
enum choice_reason {
  CHOICE_NAME_PREFERRED,   // the operator chose the level for the name
  CHOICE_FLEET_PREFERRED,  // ... for all names
  CHOICE_FIRST_USABLE,
  CHOICE_LAST_RESORT,  // nothing is usable
  CHOICE_NONE,         // nothing can answer
  CHOICE_NUM_REASONS,
};
const char *choice_reason_name(enum choice_reason reason);
// choice_reason_of explains what certstore_choose answered at the same time.
enum choice_reason choice_reason_of(const struct certstore *store, const struct cert_name *name,
                                    enum status st, const struct choice *choice);

// --- drill (control thread): what would happen, without doing it -------------------
// Supposed is: that CA or key out of service; or the level that the name (FLEET:
// each name) is answered from taken away.
struct drill_report {
  size_t num_names;              // in the store
  size_t num_moved;              // names whose answer would change
  size_t num_without_backup;     // of these, names that would be left with nothing usable
  size_t num_partly;             // moved names whose RSA-only clients would have nothing usable
  size_t num_unusable_already;   // names with nothing usable as it is
  size_t num_without_dc;         // moved names whose backup has no DC in memory
  int64_t oldest_staple_ends_s;  // among the backups that would serve; 0: no staples
  int64_t oldest_dc_ends_s;      // 0: none
  // Arrays of their own; the names are the store's.
  const struct cert_name **without_backup;
  const struct cert_name **moved;
};
// certstore_drill: STATUS_NOT_FOUND (no such subject in the store), STATUS_MEMORY.
enum status certstore_drill(struct drill_report *out, const struct certstore *store,
                            enum state_level level, const char *subject, int64_t now_s);
void drill_report_cleanup(struct drill_report *report);

// certstore_match finds the full subject for what an operator typed: a name; a
// key or CA by unique hex prefix (8 digits at least) or a CA by its issuer name.
// STATUS_NOT_FOUND, STATUS_FORMAT (ambiguous), with the sentence. FLEET: "" always.
enum status certstore_match(char out_subject[STATE_SUBJECT_MAX_LEN], const struct certstore *store,
                            enum state_level level, const char *typed, struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_CERTSTORE_H_
