// SPDX-License-Identifier: Apache-2.0
// store_switch: what people ask of a store's states, judged and kept. The one place that
// says which switch is refused: `deputyctl store` and the admin API of a proxy both end
// here.
//
//   store_match: what was typed --> store_switch: drilled, refused or written
//
// The rule. A key or CA does not go out of service while names would be left with nothing
// usable; a name does not go to a level with nothing usable; nor do all names to a level
// that has nothing usable for any. Force overrides each, and the ruling says how many
// names it is about. Nothing is written twice: what is in force already is answered as
// such.
#ifndef DEPUTY_CERTSTORE_STORE_SWITCH_H_
#define DEPUTY_CERTSTORE_STORE_SWITCH_H_

#include "certstore/store.h"
#include "certstore/store_write.h"

#define STORE_DC_LEAVE (-1)

// Names that obey the states of this store without being in it: those of a proxy's
// configuration. All-zero: there are none.
struct store_beside {
  bool has_subject;  // the key, CA or name is (also) one of theirs
  uint64_t num_names, num_moved, num_without_backup, num_partly;  // under that key or CA
  uint64_t num_usable;  // at the level that is asked for: 0 or 1 for a name
  const char *first;    // of those without a backup
  const char *label;    // NAME: of the level; the name is theirs, and `preferred` is set
};

struct store_order {
  enum state_level level;
  struct bytes subject;  // as store_match gives it
  unsigned preferred;    // NAME, FLEET: 1 + the level to go to; 0: not said
  int dc;                // NAME, FLEET: 0 off, 1 on; or STORE_DC_LEAVE
  bool is_in_service;    // KEY, CA
  bool is_compromised;
  bool is_forced;
  int64_t until_s;  // 0: no end
  const char *reason;
  const char *author;
  int64_t author_uid;
  struct store_beside beside;
};

struct store_ruling {
  uint64_t id;      // of the change, made now or (is_already) before
  bool is_already;  // it is in force
  bool was_forced;  // without force it would have been refused
  unsigned preferred;
  const char *label;   // of that level; NULL
  bool has_counts;     // the five below are known
  uint64_t num_names;  // all
  uint64_t num_moved;  // KEY, CA
  uint64_t num_without_backup;
  uint64_t num_partly;
  uint64_t num_usable;              // FLEET: names with something usable at the level
  struct store_drill_report drill;  // KEY, CA: of the store's names; may be empty
};

// How far it is; may be NULL. False from `progress` ends it (STATUS_CLOSED).
struct store_watcher {
  bool (*progress)(void *arg, uint64_t done, uint64_t all);
  void *arg;
};

// store_switch judges by the reader's snapshot, and writes. The reader may be parked
// afterwards. A forced switch of a key or CA is written first and counted then.
//   STATUS_NOT_FOUND  there is no such subject, or no such level
//   STATUS_FORMAT     words that do not belong to the level; an end in the past
//   STATUS_REFUSED    the rule above, with how many names; *out has the counts
//   STATUS_LIMIT, STATUS_SYSTEM, STATUS_UNAVAILABLE  as store_apply
//   STATUS_CLOSED     ended by the watcher
enum status store_switch(struct store_ruling *out, struct store *store, struct store_reader *reader,
                         const struct store_order *order, int64_t now_s,
                         const struct store_watcher *watcher, struct errmsg *err);
void store_ruling_cleanup(struct store_ruling *ruling);

// store_restore takes back all that stands for a subject but what was said of delegated
// credentials; `out_ids` are they. STATUS_NOT_FOUND: nothing stands.
enum status store_restore(uint64_t out_ids[STORE_MAX_STANDING], size_t *out_num,
                          struct store *store, struct store_reader *reader, enum state_level level,
                          struct bytes subject, const char *author, int64_t now_s,
                          struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_STORE_SWITCH_H_
