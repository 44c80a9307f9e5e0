// SPDX-License-Identifier: Apache-2.0
// loop_internal: what loop.c and loop_timer.c share. Private to common/net.
#ifndef DEPUTY_COMMON_NET_LOOP_INTERNAL_H_
#define DEPUTY_COMMON_NET_LOOP_INTERNAL_H_

#include <stddef.h>
#include <stdint.h>

#include "common/net/loop.h"

// The armed timers as a binary heap, earliest first. A timer knows its place.
struct timers {
  struct timer **heap;
  size_t num;
  size_t cap;
};

// loop_timers borrows the heap of a loop.
struct timers *loop_timers(struct loop *loop);

// timers_run calls what is due at `now_ms`; one that is armed again meanwhile
// waits for the next round.
void timers_run(struct timers *timers, int64_t now_ms);

// timers_due_ms is when the earliest is due; INT64_MAX: none is armed.
int64_t timers_due_ms(const struct timers *timers);
void timers_cleanup(struct timers *timers);

#endif  // DEPUTY_COMMON_NET_LOOP_INTERNAL_H_
