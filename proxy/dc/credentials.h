// SPDX-License-Identifier: Apache-2.0
// credentials: keeps leaves supplied with delegated credentials (RFC 9345), those of
// backups too: a switch must not wait for an issuer. One schedule for configured names,
// which are always supplied, and for names of a store, which are once a client has wanted
// one (dc_schedule.h has order and budgets).
//
//   worker: a client wants one --heat--> name -> its leaves, all levels --> dc_schedule
//   dc_schedule --due--> dc_issuers: whom? --> dc_fetch: batch, checks --> dc_leaf: in force
//
// No handshake ever waits for any of this: without a credential, or within the margin of
// its end, the certificate's key answers (select.c).
//
// Threads: control. Keys are wiped when the last handshake that uses them ends.
#ifndef DEPUTY_PROXY_DC_CREDENTIALS_H_
#define DEPUTY_PROXY_DC_CREDENTIALS_H_

#include <jansson.h>

#include "certstore/ready.h"
#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "proxy/dc/dc_fetch.h"
#include "proxy/grace.h"
#include "proxy/site.h"

struct credentials;
struct worker;

// credentials_new: `grace` says when a credential that was taken out can go; heat comes
// from the workers (both borrowed). STATUS_MEMORY, STATUS_SYSTEM, STATUS_UNAVAILABLE
// (libcurl).
enum status credentials_new(struct credentials **out, struct loop *loop, struct grace *grace,
                            struct worker *const *workers, size_t num_workers);

// credentials_prepare gives chains of a site that is not in force yet what is already
// here for their leaves.
void credentials_prepare(struct credentials *credentials, struct site *site);

// credentials_set_site makes `site`, now in force, the one to supply; the chains of the
// one before are let go of. What is under way goes on. Pauses after failures end. Without
// memory chains that are new stay without until the next reload.
void credentials_set_site(struct credentials *credentials, struct site *site);

// credentials_change: a name of the store enters the cache, leaves it, or is made anew
// (served_store_on_change). What its leaves have stays while there is room. Without memory a
// chain stays without.
void credentials_change(struct credentials *credentials, struct ready *in, struct ready *out);

// credentials_hurry ends the pauses of leaves without a credential.
void credentials_hurry(struct credentials *credentials);

// credentials_why tells why the chain has none: a static phrase, or NULL.
const char *credentials_why(const struct credentials *credentials, const struct chain *chain);

// credentials_num_missing counts the leaves that are to have a credential and have none.
size_t credentials_num_missing(const struct credentials *credentials);

// How it goes (credentials_report.c shows it).
struct credentials_counts {
  size_t num_ready;    // leaves of names in memory that have one
  size_t num_kept;     // leaves that have one, and no name in memory
  size_t max_ready;    // of both
  size_t num_wanted;   // that are to have one, ready or not
  size_t num_due;      // to be asked for, as soon as their turn comes
  size_t num_asked;    // that issuers are asked for now
  size_t num_waiting;  // after a failure
  size_t num_leaves;   // known
  size_t bytes;        // estimated
  unsigned num_issuers, num_issuers_paused;
  uint64_t num_keys_made;
  uint64_t num_evicted, num_no_room, num_let_go, num_ended, num_heat_lost;
  uint64_t results[DC_RESULT_NUM];
  uint64_t faults[DC_FAULT_NUM];
};
void credentials_count(const struct credentials *credentials, struct credentials_counts *out);

void credentials_write_metrics(const struct credentials *credentials, struct metrics_text *text);
// credentials_status returns the same for `deputyctl status`, new; NULL: there
// is no issuer, or no memory.
json_t *credentials_status(const struct credentials *credentials);

// credentials_free: no call under way is answered. The loop has ended.
void credentials_free(struct credentials *credentials);

#endif  // DEPUTY_PROXY_DC_CREDENTIALS_H_
