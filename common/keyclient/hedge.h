// SPDX-License-Identifier: Apache-2.0
// hedge: when a request that is not answered is sent to a second server as well, and how
// often that may happen. After the 95th percentile of the first server's signatures, not
// sooner than HEDGE_MIN_MS, and not at all when that would be no sooner than the end of
// the attempt. Each request earns a share of a token, a hedge costs one; at most
// HEDGE_BURST are saved up, and so many are there at first: of N requests at most
// N * budget + HEDGE_BURST are hedged, so that a fleet whose servers are slow does not
// ask them twice. Pure, one thread.
#ifndef DEPUTY_COMMON_KEYCLIENT_HEDGE_H_
#define DEPUTY_COMMON_KEYCLIENT_HEDGE_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/keyclient/latency.h"

#define HEDGE_MIN_MS 5
#define HEDGE_BURST 10

struct hedge_budget {
  int64_t percent;  // of requests; 0: none is hedged
  int64_t saved;    // hundredths of a token
};

void hedge_budget_init(struct hedge_budget *budget, int64_t percent);
void hedge_budget_earn(struct hedge_budget *budget);
bool hedge_budget_spend(struct hedge_budget *budget);

// hedge_after_ms: -1 for never: too little is known of the server, or it is no sooner
// than `attempt_ms`.
int64_t hedge_after_ms(const struct latency *latency, int64_t attempt_ms);

#endif  // DEPUTY_COMMON_KEYCLIENT_HEDGE_H_
