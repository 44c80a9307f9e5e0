// SPDX-License-Identifier: Apache-2.0
// join: waiting for a thread's end, and no longer than that may take.
#ifndef DEPUTY_COMMON_BASE_JOIN_H_
#define DEPUTY_COMMON_BASE_JOIN_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

// join_by joins `thread`, or returns false at `until_ms` of the monotonic clock: whoever
// sets the wall clock meanwhile changes nothing. Not for event loops.
bool join_by(pthread_t thread, int64_t until_ms);

#endif  // DEPUTY_COMMON_BASE_JOIN_H_
