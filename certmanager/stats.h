// SPDX-License-Identifier: Apache-2.0
// stats: what the manager counts, on its loop and on its thread of jobs; shown by
// metrics.c.
#ifndef DEPUTY_CERTMANAGER_STATS_H_
#define DEPUTY_CERTMANAGER_STATS_H_

#include <stdatomic.h>
#include <stdbool.h>

#include "certmanager/switcher.h"
#include "common/base/metrics.h"
#include "common/revocation/crl.h"
#include "common/revocation/fetch.h"

struct stats {
  struct counter num_staples_kept;
  struct counter num_staples_left;   // not newer than what the store has by now, or no chain
  struct counter num_writes_failed;  // transactions
  _Atomic bool is_write_failing;     // the last one failed
  struct counter num_seen_ocsp;      // revocations
  struct counter num_seen_list;
  struct counter num_taken_back;  // by the CA
  struct counter num_verdicts[SWITCH_NUM_VERDICTS];
  struct counter num_names_moved;   // those that the ceiling was charged with
  struct counter num_list_answers;  // lists that came, or were unchanged
  struct counter num_list_fetch_faults[FETCH_NUM_FAULTS];
  struct counter num_list_faults[CRL_NUM_FAULTS];
  struct counter num_scans;
  struct counter num_scans_failed;
  struct counter num_reopens;
};

#endif  // DEPUTY_CERTMANAGER_STATS_H_
