// SPDX-License-Identifier: Apache-2.0
#include "common/base/rate_limit.h"

void rate_limit_set(struct rate_limit *limit, int64_t num, int64_t period_ns, int64_t burst) {
  limit->interval_ns = num > 0 ? period_ns / num : 0;
  // A burst of one has no tolerance: the next one waits a whole interval.
  limit->tolerance_ns = ((burst > 0 ? burst : num) - 1) * limit->interval_ns;
}

void rate_limit_inherit(struct rate_limit *limit, struct rate_limit *old) {
  atomic_store_explicit(&limit->arrival_ns,
                        atomic_load_explicit(&old->arrival_ns, memory_order_relaxed),
                        memory_order_relaxed);
}

bool rate_limit_take(struct rate_limit *limit, int64_t now_ns) {
  int64_t arrival = 0;
  int64_t next = 0;

  if (limit->interval_ns == 0) {
    return true;
  }
  arrival = atomic_load_explicit(&limit->arrival_ns, memory_order_relaxed);
  do {
    const int64_t from = arrival > now_ns ? arrival : now_ns;
    if (from - now_ns > limit->tolerance_ns) {
      return false;
    }
    next = from + limit->interval_ns;
  } while (!atomic_compare_exchange_weak_explicit(&limit->arrival_ns, &arrival, next,
                                                  memory_order_relaxed, memory_order_relaxed));
  return true;
}
