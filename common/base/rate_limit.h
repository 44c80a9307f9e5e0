// SPDX-License-Identifier: Apache-2.0
// rate_limit: so many in a second (or a minute) on average, and so many at once after a
// quiet time. It is one number, the "theoretical arrival time" of the generic cell rate
// algorithm (ITU-T I.371), which all threads move forward together, without a lock: what
// is let through comes interval_ns apart on average and may run ahead by tolerance_ns.
#ifndef DEPUTY_COMMON_BASE_RATE_LIMIT_H_
#define DEPUTY_COMMON_BASE_RATE_LIMIT_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// All-zero lets everything through.
struct rate_limit {
  int64_t interval_ns;  // 0: unlimited
  int64_t tolerance_ns;
  _Atomic int64_t arrival_ns;
};

// rate_limit_set allows `num` in each `period_ns` (0: unlimited), and `burst` at once
// (0: `num`). What is used up stays. Not while others take.
void rate_limit_set(struct rate_limit *limit, int64_t num, int64_t period_ns, int64_t burst);

// rate_limit_inherit takes over what `old` has used up, so that a reload is no fresh
// allowance.
void rate_limit_inherit(struct rate_limit *limit, struct rate_limit *old);

// rate_limit_take charges one, or returns false (and charges nothing) when that would
// pass the rate. `now_ns` is monotonic. Threads: any.
bool rate_limit_take(struct rate_limit *limit, int64_t now_ns);

#endif  // DEPUTY_COMMON_BASE_RATE_LIMIT_H_
