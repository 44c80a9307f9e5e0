// SPDX-License-Identifier: Apache-2.0
#include "common/keyclient/latency.h"

#include <string.h>

#define UNIT_SHIFT 5u  // the first bucket ends at 32 us
#define PER_OCTAVE 4u
#define REFRESH 16u  // samples from one computing of p95 to the next
#define FADE_MIN 64u

static size_t bucket_of(int64_t us) {
  const uint64_t v = us > 0 ? (uint64_t)us >> UNIT_SHIFT : 0;
  size_t index = 0;
  unsigned msb = 0;

  if (v < PER_OCTAVE) {
    return (size_t)v;
  }
  msb = 63u - (unsigned)__builtin_clzll(v);
  index = (size_t)PER_OCTAVE * (msb - 1) + (size_t)((v >> (msb - 2)) & (PER_OCTAVE - 1));
  return index < LATENCY_NUM_BUCKETS ? index : LATENCY_NUM_BUCKETS - 1;
}

static int64_t end_of_bucket(size_t index) {
  const uint64_t sub = index % PER_OCTAVE;
  const unsigned octave = (unsigned)(index / PER_OCTAVE);

  if (octave == 0) {
    return (int64_t)((sub + 1) << UNIT_SHIFT);
  }
  return (int64_t)(((PER_OCTAVE + sub + 1) << (octave - 1)) << UNIT_SHIFT);
}

static void compute_p95(struct latency *latency) {
  const uint32_t above = latency->num_samples / 20;  // may lie above it
  uint32_t num = 0;
  size_t i = LATENCY_NUM_BUCKETS;

  while (i > 0 && num + latency->buckets[i - 1] <= above) {
    num += latency->buckets[--i];
  }
  latency->p95_us = i > 0 ? end_of_bucket(i - 1) : 0;
  latency->num_stale = 0;
}

static void halve(struct latency *latency) {
  latency->num_samples = 0;
  for (size_t i = 0; i < LATENCY_NUM_BUCKETS; i++) {
    latency->buckets[i] /= 2;
    latency->num_samples += latency->buckets[i];
  }
}

static void smooth(struct latency *latency, int64_t us) {
  const int64_t error = us - latency->srtt_us;

  if (!latency->is_measured) {
    latency->is_measured = true;
    latency->srtt_us = us;
    latency->rttvar_us = us / 2;
    return;
  }
  latency->rttvar_us += ((error < 0 ? -error : error) - latency->rttvar_us) / 4;
  latency->srtt_us += error / 8;
}

static void keep_ping(struct latency *latency, int64_t us) {
  latency->pings_us[latency->num_pings % LATENCY_NUM_PINGS] = us;
  latency->num_pings++;
  if (latency->num_pings >= 2 * LATENCY_NUM_PINGS) {
    latency->num_pings -= LATENCY_NUM_PINGS;  // so that it never wraps
  }
}

void latency_add_answer(struct latency *latency, int64_t us) {
  const int64_t distance_us = latency_distance_us(latency);

  smooth(latency, us);
  latency->buckets[bucket_of(us)]++;
  latency->num_samples++;
  latency->num_stale++;
  if (latency->num_samples >= LATENCY_WINDOW) {
    halve(latency);
  }
  if (latency->num_stale >= REFRESH || latency->p95_us == 0) {
    compute_p95(latency);
  }
  if (distance_us < 0) {
    return;
  }
  if (us < distance_us) {
    keep_ping(latency, us);
  } else if (us > 2 * distance_us + LATENCY_DOUBT_US) {
    latency->is_in_doubt = true;
  }
}

void latency_add_ping(struct latency *latency, int64_t us) {
  smooth(latency, us);
  keep_ping(latency, us);
  latency->is_in_doubt = false;
}

void latency_forget_distance(struct latency *latency) {
  latency->num_pings = 0;
  latency->is_in_doubt = false;
}

void latency_fade(struct latency *latency) {
  if (latency->num_samples >= FADE_MIN) {
    halve(latency);
    compute_p95(latency);
  }
}

int64_t latency_p95_us(const struct latency *latency) {
  return latency->num_samples < LATENCY_MIN_SAMPLES ? 0 : latency->p95_us;
}

int64_t latency_distance_us(const struct latency *latency) {
  int64_t least_us = -1;

  if (latency->num_pings < LATENCY_NUM_PINGS) {
    return -1;
  }
  for (unsigned i = 0; i < LATENCY_NUM_PINGS; i++) {
    if (least_us < 0 || latency->pings_us[i] < least_us) {
      least_us = latency->pings_us[i];
    }
  }
  return least_us;
}

bool latency_is_in_doubt(const struct latency *latency) { return latency->is_in_doubt; }
