// SPDX-License-Identifier: Apache-2.0
// scan: what is read of the store off the loop: which chains have names, and for chains
// that are new what their leaves say about where to ask. On the thread of jobs.
#ifndef DEPUTY_CERTMANAGER_SCAN_H_
#define DEPUTY_CERTMANAGER_SCAN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "certmanager/catalog.h"
#include "certstore/store.h"
#include "common/base/errmsg.h"

// scan_names walks over all names. Some tenths of a second for a million.
// *out_version is that of the store before the walk: what comes later may be in it, and
// is looked for again. STATUS_MEMORY, STATUS_UNAVAILABLE, STATUS_FORMAT, with the sentence.
enum status scan_names(struct tally *out, uint64_t *out_version, struct store *store,
                       struct errmsg *err);

#define SCAN_MAX_LOOKS 256u

// One chain whose leaf is read.
struct look {
  uint64_t chain;  // in
  bool has_responder;
  bool has_lists;
  bool has_issuer;  // without one no answer can be checked
  int64_t due_s;    // when its responder is to be asked; 0: now
};

// scan_looks fills them in. A chain that is not there, or whose leaf names nobody or cannot
// be read, has nothing. `poll_s` as staple_fetch has it.
enum status scan_looks(struct look *looks, size_t num, struct store *store, int64_t poll_s,
                       struct errmsg *err);

// scan_due_s: when to ask about a chain at a start, from the staple that is kept
// (this_update_s 0: none) and the time it was fetched. What is overdue only by poll_s is
// spread over one poll, so that a restart is no burst; a staple that needs it is asked
// for at once.
int64_t scan_due_s(int64_t this_update_s, int64_t next_update_s, int64_t fetched_s, int64_t poll_s,
                   int64_t now_s);

#endif  // DEPUTY_CERTMANAGER_SCAN_H_
