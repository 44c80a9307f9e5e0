// SPDX-License-Identifier: Apache-2.0
// hdr: a histogram of durations whose answers have a bounded relative error,
// whatever the range: buckets are 1/128 of an octave wide, so what it says of a
// quantile is within HDR_MAX_ERROR of a value that was recorded. Recording is a
// few instructions, the size is fixed. Filled by recorder.h.
//
// Threads: one histogram belongs to one thread; hdr_merge joins them afterwards.
#ifndef DEPUTY_BENCH_HDR_H_
#define DEPUTY_BENCH_HDR_H_

#include <stdint.h>

#define HDR_SUB_BITS 7
#define HDR_MAX_ERROR (1.0 / 256)  // half a bucket, relative to its lower end
#define HDR_NUM_BUCKETS ((64 - HDR_SUB_BITS) << HDR_SUB_BITS)

// All-zero is empty. Values are nanoseconds here, but any unit will do.
struct hdr {
  uint64_t num;
  int64_t min;
  int64_t max;
  double sum;
  uint64_t counts[HDR_NUM_BUCKETS];
};

// hdr_record counts a value; what is negative counts as 0.
void hdr_record(struct hdr *h, int64_t value);
void hdr_merge(struct hdr *into, const struct hdr *from);

// hdr_quantile is the value below or at which the part `q` (0..1) of the values
// lies, by nearest rank: the middle of its bucket, never outside min..max. 0 when
// empty.
int64_t hdr_quantile(const struct hdr *h, double q);
double hdr_mean(const struct hdr *h);  // exact, not by buckets

#endif  // DEPUTY_BENCH_HDR_H_
