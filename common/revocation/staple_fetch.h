// SPDX-License-Identifier: Apache-2.0
// staple_fetch: fresh OCSP responses for very many chains, ahead of need. The control
// thread's: it asks responders (ocsp_ask.h) and hands over what was checked; where
// staples are kept, and what a revoked leaf leads to, is the caller's.
//
//   * A staple is asked for again from half of its life on, a little earlier or later by
//     chance, and not while HTTP says that the answer would be the same; with poll_s also
//     at least so often, to see a revocation (common/revocation/revocation_watch.h).
//   * What fails is tried again after a minute, two, four ... an hour, each by chance half
//     as long or full, sooner if the staple is about to end; Retry-After is obeyed.
//   * A good staple is kept to its end: STAPLE_NEW is handed over only if it is good, and
//     not older than the one that is there.
//   * A responder that does not answer three times in a row is left alone for half a
//     minute, then one, two ... fifteen, and gets one question at a time until it does.
//     What waits for it costs nothing meanwhile, and holds nobody else up.
//
// Memory: 28 bytes for each chain (16 here, 12 in due.h), up to half as much again while
// growing; certificates are loaded when they are due, for as long as they are asked about.
// Chains without a responder are not kept at all. Threads: the loop's.
#ifndef DEPUTY_COMMON_REVOCATION_STAPLE_FETCH_H_
#define DEPUTY_COMMON_REVOCATION_STAPLE_FETCH_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/http/http_client.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/revocation/ocsp_ask.h"

// What is known of a chain when its turn has come. Borrowed until the next load, or until
// the callback that asked has returned.
struct staple_work {
  struct bytes leaf;      // DER
  struct bytes issuer;    // DER
  int64_t this_update_s;  // of the staple that is kept; 0: none
  int64_t next_update_s;
  const char *etag;  // it came with; NULL: none
  const char *last_modified;
};

enum staple_outcome {
  STAPLE_NEW,       // a good one: keep it instead of the old
  STAPLE_SAME,      // the one that is kept is still the newest
  STAPLE_REVOKED,   // the leaf is revoked: answer has when and why
  STAPLE_UNKNOWN,   // the CA does not know the leaf (yet)
  STAPLE_UNFIT,     // good, but not to be shown: without an end, or not begun by our clock
  STAPLE_FAILED,    // ask has the fault
  STAPLE_NO_SOURCE  // no responder, or no issuer: the chain has been let go
};
#define STAPLE_NUM_OUTCOMES (STAPLE_NO_SOURCE + 1)
const char *staple_outcome_name(enum staple_outcome outcome);  // "new"; static

struct staple_result {
  enum staple_outcome outcome;
  const struct ocsp_ask_result *ask;  // borrowed; NULL with STAPLE_NO_SOURCE
  int64_t next_s;                     // when it is asked for again; 0: never
};

struct staple_fetch_options {
  struct loop *loop;
  struct http_client *http;
  struct jobs *jobs;              // where answers are checked; NULL: on the loop
  size_t max_open;                // questions at a time; 0: 32
  size_t max_open_per_responder;  // 0: 4
  int64_t limit_ms;               // of one; 0: OCSP_ASK_LIMIT_MS
  int64_t poll_s;                 // 0: only as staples need it
  const char *ca_path;            // borrowed; for https:// responders
  // load: STATUS_OK; STATUS_NOT_FOUND lets the chain go; anything else: later.
  enum status (*load)(void *arg, uint64_t chain, struct staple_work *out);
  // done may add and remove chains, the one at hand included.
  void (*done)(void *arg, uint64_t chain, const struct staple_result *result);
  void *arg;
};

// For metrics. Written by the loop's thread.
struct staple_fetch_stats {
  uint64_t num_asked;
  uint64_t num_outcomes[STAPLE_NUM_OUTCOMES];
  uint64_t num_fetch_faults[FETCH_NUM_FAULTS];
  uint64_t num_ocsp_faults[OCSP_NUM_FAULTS];
  uint32_t num_chains;
  uint32_t num_open;
  uint32_t num_waiting;  // due, but for the bounds
  uint32_t num_responders;
  uint32_t num_responders_closed;  // left alone for the moment
};

struct staple_fetch;

enum status staple_fetch_new(struct staple_fetch **out, const struct staple_fetch_options *options);
// staple_fetch_free ends without callbacks. Its jobs must have ended (jobs_free first). NULL
// is allowed.
void staple_fetch_free(struct staple_fetch *fetch);

// staple_fetch_add: `chain` is the caller's word for a chain that names a responder, due
// first at `due_s` (staple_due_s, or 0: now). *out_item is the handle. STATUS_MEMORY,
// STATUS_LIMIT.
enum status staple_fetch_add(uint32_t *out_item, struct staple_fetch *fetch, uint64_t chain,
                             int64_t due_s);
void staple_fetch_hurry(struct staple_fetch *fetch, uint32_t item);  // due now
void staple_fetch_remove(struct staple_fetch *fetch, uint32_t item);

void staple_fetch_read_stats(const struct staple_fetch *fetch, struct staple_fetch_stats *out);

// staple_due_s: when to ask again for a staple of this life, in POSIX seconds: about half
// of it, later if HTTP holds it fresh for longer, at the latest when three quarters are gone.
int64_t staple_due_s(int64_t this_update_s, int64_t next_update_s, int64_t fresh_s, int64_t now_s);

#endif  // DEPUTY_COMMON_REVOCATION_STAPLE_FETCH_H_
