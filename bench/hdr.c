// SPDX-License-Identifier: Apache-2.0
#include "bench/hdr.h"

#include <math.h>
#include <stddef.h>

// Values below 2 * 2^SUB_BITS have a bucket each; above, each octave has
// 2^SUB_BITS of them.
static size_t bucket_of(uint64_t value) {
  if (value < (2U << HDR_SUB_BITS)) {
    return (size_t)value;
  }
  const int exponent = 63 - __builtin_clzll(value);
  const int shift = exponent - HDR_SUB_BITS;
  return ((size_t)shift << HDR_SUB_BITS) + (size_t)(value >> shift);
}

static int64_t middle_of(size_t bucket) {
  if (bucket < (2U << HDR_SUB_BITS)) {
    return (int64_t)bucket;
  }
  const int shift = (int)(bucket >> HDR_SUB_BITS) - 1;
  const uint64_t mantissa = (bucket & ((1U << HDR_SUB_BITS) - 1)) + (1U << HDR_SUB_BITS);
  return (int64_t)((mantissa << shift) + (1ULL << (shift - 1)));
}

void hdr_record(struct hdr *h, int64_t value) {
  if (value < 0) {
    value = 0;
  }
  if (h->num == 0 || value < h->min) {
    h->min = value;
  }
  if (h->num == 0 || value > h->max) {
    h->max = value;
  }
  h->num += 1;
  h->sum += (double)value;
  h->counts[bucket_of((uint64_t)value)] += 1;
}

void hdr_merge(struct hdr *into, const struct hdr *from) {
  if (from->num == 0) {
    return;
  }
  into->min = into->num == 0 || from->min < into->min ? from->min : into->min;
  into->max = into->num == 0 || from->max > into->max ? from->max : into->max;
  into->num += from->num;
  into->sum += from->sum;
  for (size_t i = 0; i < HDR_NUM_BUCKETS; i++) {
    into->counts[i] += from->counts[i];
  }
}

int64_t hdr_quantile(const struct hdr *h, double q) {
  if (h->num == 0) {
    return 0;
  }
  const double rank = ceil(q * (double)h->num);
  uint64_t seen = 0;
  size_t bucket = 0;
  for (; bucket < HDR_NUM_BUCKETS; bucket++) {
    seen += h->counts[bucket];
    if ((double)seen >= rank) {
      break;
    }
  }
  const int64_t value = bucket < HDR_NUM_BUCKETS ? middle_of(bucket) : h->max;
  return value < h->min ? h->min : value > h->max ? h->max : value;
}

double hdr_mean(const struct hdr *h) { return h->num == 0 ? 0 : h->sum / (double)h->num; }
