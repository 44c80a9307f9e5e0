// SPDX-License-Identifier: Apache-2.0
// pacer: when the arrivals of an open-loop run are due. The times are fixed by
// the rate alone and never wait for an answer: a server that stalls is charged
// for everybody who would have come meanwhile (no coordinated omission).
#ifndef DEPUTY_BENCH_PACER_H_
#define DEPUTY_BENCH_PACER_H_

#include <stdbool.h>
#include <stdint.h>

enum pacer_kind { PACER_CONSTANT, PACER_POISSON };

struct pacer {
  enum pacer_kind kind;
  double interval_ns;  // mean
  int64_t start_ns;
  uint64_t num;    // arrivals taken
  double offset;   // Poisson: of the next arrival, in ns from the start
  uint64_t state;  // of the random numbers
};

// pacer_init: arrivals at `rate_per_s` from `start_ns` on (the first one at once).
// The same seed gives the same times.
void pacer_init(struct pacer *p, enum pacer_kind kind, double rate_per_s, int64_t start_ns,
                uint64_t seed);

// pacer_due_ns is when the next arrival is due; pacer_take passes to the one after.
int64_t pacer_due_ns(const struct pacer *p);
void pacer_take(struct pacer *p);

#endif  // DEPUTY_BENCH_PACER_H_
