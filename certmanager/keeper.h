// SPDX-License-Identifier: Apache-2.0
// keeper: the work on one store, as long as this process is the one that does it: knows
// its chains (catalog.h), asks responders and lists about them (common/revocation), keeps
// staples (writer.h) and judges what is revoked (switcher.h). What reads or writes much of
// the store runs on a thread of its own, and answers are checked on another; the loop reads
// single records.
//
//   every second: has the store changed? -> scan (names) -> look (new leaves) -> schedules
//   staple_fetch -> writer -> store        revocation_watch, staple_fetch -> switcher -> store
//
// A store that is compacted is opened anew; one that cannot be opened or written is tried
// again, and nothing is asked of responders that could not be kept. Threads: the loop's.
#ifndef DEPUTY_CERTMANAGER_KEEPER_H_
#define DEPUTY_CERTMANAGER_KEEPER_H_

#include "certmanager/options.h"
#include "certmanager/stats.h"
#include "common/base/errmsg.h"
#include "common/base/sink.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/revocation/staple_fetch.h"

struct keeper;

struct keeper_options {
  struct loop *loop;
  struct jobs *jobs;  // where lists are looked through, and switches made; freed before it
  struct sink *audit;
  struct stats *stats;
  const struct options *options;  // borrowed
};

// keeper_new opens the store, and begins. As store_open; STATUS_MEMORY, STATUS_UNAVAILABLE.
enum status keeper_new(struct keeper **out, const struct keeper_options *options,
                       struct errmsg *err);
// keeper_reload takes over what may change of these; the rest stays as it was.
void keeper_reload(struct keeper *keeper, const struct revocation_options *revocation);
// keeper_free keeps what still waits to be written. When the loop has ended; NULL allowed.
void keeper_free(struct keeper *keeper);

struct keeper_view {
  bool has_store;    // it is open
  bool has_scanned;  // its chains are known
  uint64_t num_chains;
  uint64_t num_asked;   // of these, chains with a responder
  uint64_t num_listed;  // chains with revocation lists
  uint64_t num_lists;
  uint64_t num_revoked;  // seen revoked now
  uint64_t num_waiting;  // staples on their way to the store
  uint64_t ceiling_used;
  int64_t scan_us;  // what the last walk over the names took
  bool has_fetch;
  struct staple_fetch_stats fetch;
};
void keeper_read_view(const struct keeper *keeper, struct keeper_view *out);

#endif  // DEPUTY_CERTMANAGER_KEEPER_H_
