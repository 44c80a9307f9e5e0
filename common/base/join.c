// SPDX-License-Identifier: Apache-2.0
#include "common/base/join.h"

#include <time.h>

#include "common/base/clock.h"

#define LOOK_NS 1000000

// pthread_timedjoin_np goes by the wall clock; pthread_clockjoin_np does not, but the
// sanitizers of gcc 12 and clang 14 do not know it, and would miss the join.
bool join_by(pthread_t thread, int64_t until_ms) {
  const struct timespec pause = {.tv_nsec = LOOK_NS};

  while (pthread_tryjoin_np(thread, NULL) != 0) {
    if (clock_monotonic_ms() >= until_ms) {
      return false;
    }
    (void)nanosleep(&pause, NULL);
  }
  return true;
}
