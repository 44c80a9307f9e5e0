// SPDX-License-Identifier: Apache-2.0
// revocation_watch: which of our own leaves has its CA put on a CRL? The control thread's.
// It fetches each list once for all leaves that share it, and tells what has changed;
// what follows (off, report, switch) is the caller's policy. OCSP's half of the watch is
// staple_fetch.h with poll_s, which asks anyway.
//
//   * Lists are shared by distribution point: one record for each point and issuer, whatever
//     the number of leaves. Asked for with If-None-Match and If-Modified-Since, so a list
//     that has not changed costs a few hundred bytes. A list itself is not kept: it is
//     looked through once for all our leaves, on a thread of its own, and let go. At most
//     max_open lists of max_len bytes are in memory.
//   * Every poll_s, a little more or less by chance, whatever HTTP says of freshness: a
//     revocation is the case in which the CA itself did not foresee the change. Failures
//     are tried again sooner (a minute, two, ...), never later than poll_s.
//   * A list older than the last good one is refused: nobody makes a leaf good again by
//     showing what was true yesterday.
//   * Where a leaf names several places for its list, the next is asked when one fails; one
//     that answers is kept to.
//
// Memory: 32 bytes for each leaf with a CRL; none for others. Threads: the loop's.
#ifndef DEPUTY_COMMON_REVOCATION_REVOCATION_WATCH_H_
#define DEPUTY_COMMON_REVOCATION_REVOCATION_WATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/http/http_client.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/revocation/crl.h"
#include "common/revocation/fetch.h"

#define REVOCATION_POLL_S 3600
#define REVOCATION_LIMIT_MS 120000  // of one list
#define REVOCATION_SKEW_S 300

enum revocation_status { REVOCATION_UNKNOWN, REVOCATION_GOOD, REVOCATION_REVOKED };
const char *revocation_status_name(enum revocation_status status);  // "good"; static

// What became of a leaf.
struct revocation_change {
  enum revocation_status status;  // REVOKED; GOOD: it was on the list, and is no longer
  int64_t revoked_s;
  int reason;       // RFC 5280, section 5.3.1
  const char *url;  // of the list; borrowed for the callback
};

// What came of asking for a list.
struct revocation_point {
  const char *url;
  enum fetch_fault fetch_fault;  // it did not come; else:
  enum crl_fault fault;          // it cannot be believed; else it holds
  bool is_unchanged;
  size_t num_leaves;  // of ours
  size_t num_revoked;
  int64_t this_update_s;  // of the last good list; 0: none yet
  int64_t next_update_s;
  int64_t next_s;  // when it is asked for again
};

struct revocation_watch_options {
  struct loop *loop;
  struct http_client *http;
  struct jobs *jobs;    // where lists are looked through
  size_t max_open;      // lists at a time; 0: 1
  size_t max_len;       // bytes of one; 0: CRL_DEFAULT_MAX_LEN
  int64_t poll_s;       // 0: REVOCATION_POLL_S
  int64_t limit_ms;     // 0: REVOCATION_LIMIT_MS
  int64_t settle_s;     // many leaves are added at once, and asked for by one request so much
                        // later; 0: 2; negative: at once
  const char *ca_path;  // borrowed; for https://
  // on_change may add and remove leaves. on_point may be NULL.
  void (*on_change)(void *arg, uint64_t chain, const struct revocation_change *change);
  void (*on_point)(void *arg, const struct revocation_point *point);
  void *arg;
};

struct revocation_watch;

enum status revocation_watch_new(struct revocation_watch **out,
                                 const struct revocation_watch_options *options);
// revocation_watch_free ends without callbacks. Its jobs must have ended (jobs_free first).
void revocation_watch_free(struct revocation_watch *watch);

// revocation_watch_add: `chain` is the caller's word for this leaf, given back on a change.
// Its list is asked for soon, unless it has been just now. STATUS_NOT_FOUND: the leaf names
// no list, and nothing is kept. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status revocation_watch_add(struct revocation_watch *watch, uint64_t chain, struct bytes leaf,
                                 struct bytes issuer);
// revocation_watch_remove takes the same leaf; one that is not there is ignored.
void revocation_watch_remove(struct revocation_watch *watch, uint64_t chain, struct bytes leaf,
                             struct bytes issuer);

// revocation_watch_status: what the last good list said of the leaf, as long as it holds.
enum revocation_status revocation_watch_status(struct revocation_watch *watch, struct bytes leaf,
                                               struct bytes issuer);

size_t revocation_watch_num_points(const struct revocation_watch *watch);

#endif  // DEPUTY_COMMON_REVOCATION_REVOCATION_WATCH_H_
