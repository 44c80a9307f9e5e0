// SPDX-License-Identifier: Apache-2.0
// clock: the three clocks, each with its unit in its name. Deadlines use the
// monotonic clock; validity of certificates and credentials the wall clock.
#ifndef DEPUTY_COMMON_BASE_CLOCK_H_
#define DEPUTY_COMMON_BASE_CLOCK_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

// clock_monotonic_ms / _us: since some fixed point, never set back.
int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_us(void);

// clock_thread_cpu_us is how long this thread has run. A system call, unlike the others.
int64_t clock_thread_cpu_us(void);

// clock_wall_s: POSIX seconds. Threads: any.
int64_t clock_wall_s(void);
int64_t clock_wall_us(void);

// clock_file_us is the wall clock by which the kernel dates files, which moves in
// ticks of some milliseconds: what is changed from now on is not older than this.
int64_t clock_file_us(void);

// clock_override_wall_s makes every wall clock of this process say `now_s`
// (0 ends that). For tests only.
void clock_override_wall_s(int64_t now_s);

// clock_format_rfc3339 writes e.g. "2026-11-22T00:51:35Z". `out` holds 32.
#define CLOCK_RFC3339_LEN 32
char *clock_format_rfc3339(char out[CLOCK_RFC3339_LEN], int64_t wall_s);

// clock_parse_rfc3339 reads what clock_format_rfc3339 writes. STATUS_FORMAT.
enum status clock_parse_rfc3339(int64_t *out_s, const char *text);

// clock_format_rfc3339_us writes the same with a fraction of `num_digits` (1 to
// 6) digits, cut, not rounded: "2026-11-22T00:51:35.123456Z".
char *clock_format_rfc3339_us(char out[CLOCK_RFC3339_LEN], int64_t wall_us, int num_digits);

#endif  // DEPUTY_COMMON_BASE_CLOCK_H_
