// SPDX-License-Identifier: Apache-2.0
// latency: how long one key server takes, from what it answered. Three figures for
// three uses:
//   srtt, rttvar  smoothed time of its answers and their deviation (RFC 6298, section
//                 2: gains of 1/8 and 1/4): for people, in metrics and status
//   p95           of its recent signatures: when a request is asked elsewhere as well
//   distance      the least of its last LATENCY_NUM_PINGS pings: which server is the
//                 nearest. A signature's time has the key's own cost in it (RSA-4096,
//                 a token), so that a server that signs would seem farther than one
//                 that is idle; and noise only ever adds. A signature's time is an upper
//                 bound all the same: a shorter one counts, and a much longer one is a
//                 reason to ping (latency_is_in_doubt).
// Pure: no clock, no I/O, no allocation. One writing thread; all-zero is unmeasured.
#ifndef DEPUTY_COMMON_KEYCLIENT_LATENCY_H_
#define DEPUTY_COMMON_KEYCLIENT_LATENCY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LATENCY_NUM_PINGS 4u     // what distance looks at; fewer: not measured
#define LATENCY_NUM_BUCKETS 72u  // a quarter of an octave each, 32 us to 16 s
#define LATENCY_WINDOW 1024u     // signatures; then each bucket is halved
#define LATENCY_MIN_SAMPLES 20u  // fewer: no p95
#define LATENCY_DOUBT_US 1000    // over twice the distance and this: doubt

struct latency {
  bool is_measured;
  bool is_in_doubt;
  int64_t srtt_us;
  int64_t rttvar_us;
  int64_t pings_us[LATENCY_NUM_PINGS];  // the newest at (num_pings - 1) % LATENCY_NUM_PINGS
  unsigned num_pings;
  uint32_t buckets[LATENCY_NUM_BUCKETS];
  uint32_t num_samples;  // sum of buckets
  unsigned num_stale;    // samples since p95 was computed
  int64_t p95_us;
};

// latency_add_answer takes a signature's time; latency_add_ping a ping's.
void latency_add_answer(struct latency *latency, int64_t us);
void latency_add_ping(struct latency *latency, int64_t us);

// latency_forget_distance: the next pings measure anew (another path, another host).
void latency_forget_distance(struct latency *latency);

// latency_fade halves what p95 rests on, so that it follows a server of which little is
// asked.
void latency_fade(struct latency *latency);

// latency_p95_us is the upper bound of its bucket: up to a quarter too long. 0: not
// known yet.
int64_t latency_p95_us(const struct latency *latency);

// latency_distance_us: -1 when it is not measured.
int64_t latency_distance_us(const struct latency *latency);

// latency_is_in_doubt: answers take much longer than pings did; another ping will tell
// whether the server went away or its keys are slow. A ping ends it.
bool latency_is_in_doubt(const struct latency *latency);

#endif  // DEPUTY_COMMON_KEYCLIENT_LATENCY_H_
