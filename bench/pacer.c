// SPDX-License-Identifier: Apache-2.0
#include "bench/pacer.h"

#include <math.h>

// SplitMix64: any state, also 0, starts a good sequence.
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

void pacer_init(struct pacer *p, enum pacer_kind kind, double rate_per_s, int64_t start_ns,
                uint64_t seed) {
  *p = (struct pacer){
      .kind = kind, .interval_ns = 1e9 / rate_per_s, .start_ns = start_ns, .state = seed};
}

int64_t pacer_due_ns(const struct pacer *p) {
  // By multiplication: a sum of rounded intervals would drift off the rate.
  const double offset = p->kind == PACER_CONSTANT ? (double)p->num * p->interval_ns : p->offset;
  return p->start_ns + (int64_t)offset;
}

void pacer_take(struct pacer *p) {
  p->num += 1;
  if (p->kind == PACER_POISSON) {
    // 53 bits, in (0, 1]: the logarithm stays finite.
    const double u = (double)((next_random(&p->state) >> 11) + 1) * 0x1p-53;
    p->offset += -log(u) * p->interval_ns;
  }
}
