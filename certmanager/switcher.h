// SPDX-License-Identifier: Apache-2.0
// switcher: what follows when CAs have revoked leaves of ours and the policy is "switch".
// The leaf's key goes out of service in the store: one change in its log, with an id, a
// reason and an author, seen by every proxy at its next handshake, that may have an end,
// and that `deputyctl store restore ID` takes back. (A chain's own record of revocation
// could not be taken back by a person, and its words would not be in the log.) With the
// key go all chains that have it: a key whose leaf had to be revoked is no key to trust,
// and a renewal is to have a new one.
//
// What a person has said stands. A key that is out already is left as it is; one of which
// a person said that it is in service stays so; one whose automatic switch a person has
// restored is not switched again.
//
// The ceiling counts all names that have a chain with that key, moved or not: more is
// never moved than it says. What is above waits its turn; a key with more names than
// the ceiling alone is left to a person. Both are told, once.
//
//   loop: switcher_judge -> job: switcher_apply -> loop: switcher_done
#ifndef DEPUTY_CERTMANAGER_SWITCHER_H_
#define DEPUTY_CERTMANAGER_SWITCHER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "certmanager/catalog.h"
#include "certmanager/ceiling.h"
#include "certstore/store.h"
#include "common/base/errmsg.h"
#include "common/base/sink.h"

#define SWITCHER_AUTHOR "deputy-certmanager"
#define SWITCHER_MAX_BATCH 32u
#define SWITCHER_AGAIN_S 60  // all are judged again so often

enum switch_verdict {
  SWITCH_NOT_JUDGED,
  SWITCH_MADE,         // the key is out of service by our change
  SWITCH_WAITS,        // the ceiling lets it pass later
  SWITCH_TOO_MANY,     // its names alone are above the ceiling: a person's
  SWITCH_OUT_ALREADY,  // somebody else has switched
  SWITCH_KEPT_IN,      // a person said that the key is in service
  SWITCH_RESTORED,     // a person took our switch back
  SWITCH_GONE,         // the store has the chain no more
  SWITCH_FAILED,       // the store could not be read or written; tried again
};
#define SWITCH_NUM_VERDICTS (SWITCH_FAILED + 1)
const char *switch_verdict_name(enum switch_verdict verdict);  // "too_many"; static

// What is known of a key when it is judged.
struct switch_case {
  enum state_service said;  // of the key, in the store
  bool was_restored;
  uint64_t num_names;
};
// switch_judge decides; SWITCH_MADE stands for: to be made, and the ceiling is charged.
enum switch_verdict switch_judge(const struct switch_case *of, struct ceiling *ceiling,
                                 uint64_t max, int64_t monotonic_s);

// Who says so.
enum sighting_source { SIGHTING_OCSP, SIGHTING_LIST };

// A leaf that was seen revoked.
struct sighting {
  uint64_t chain;  // 0: this place is free
  int64_t revoked_s;
  uint8_t reason;  // RFC 5280, section 5.3.1
  uint8_t source;  // enum sighting_source
  uint8_t verdict;
};

struct planned_switch {
  size_t place;
  uint64_t chain;
  uint64_t num_names;
  struct sighting sighting;
  uint8_t key_id[32];
  uint64_t change_id;
  enum status st;
};

struct stats;
struct switcher {
  struct sink *audit;
  struct stats *stats;
  struct ceiling ceiling;
  struct sighting *sightings;
  size_t num;
  size_t room;
  size_t num_free;
  size_t next;      // whose turn it is
  int64_t again_s;  // monotonic: when the first has its turn again
  // The job's, from judge to done.
  struct planned_switch batch[SWITCHER_MAX_BATCH];
  size_t num_batch;
  int64_t until_s;  // 0: no end
  struct errmsg err;
};

void switcher_init(struct switcher *switcher, struct sink *audit, struct stats *stats);
// switcher_recall charges the ceiling with what a process before this one has switched in
// the last minute: a restart opens no gap.
enum status switcher_recall(struct switcher *switcher, const struct store_reader *reader,
                            const struct catalog *catalog, int64_t now_s, int64_t monotonic_s);
// switcher_see notes a leaf; *out_place is 1 + its place. STATUS_MEMORY, STATUS_LIMIT.
enum status switcher_see(uint32_t *out_place, struct switcher *switcher,
                         const struct sighting *sighting);
void switcher_forget(struct switcher *switcher, uint32_t place);
// switcher_judge plans what may be switched now; false: nothing. The rest of its turn
// comes with the next call.
bool switcher_judge(struct switcher *switcher, const struct store_reader *reader,
                    const struct catalog *catalog, uint64_t ceiling, int64_t until_ms,
                    int64_t now_s, int64_t monotonic_s);
void switcher_apply(struct switcher *switcher, struct store *store);
void switcher_done(struct switcher *switcher);
size_t switcher_num(const struct switcher *switcher);  // seen revoked now
void switcher_cleanup(struct switcher *switcher);

#endif  // DEPUTY_CERTMANAGER_SWITCHER_H_
