// SPDX-License-Identifier: Apache-2.0
// metrics: counters that the hot path may touch, and the Prometheus text
// format (version 0.0.4) that shows them. A counter has one writing thread or
// is added to atomically; reading sums relaxed loads.
#ifndef DEPUTY_COMMON_BASE_METRICS_H_
#define DEPUTY_COMMON_BASE_METRICS_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

struct counter {
  _Atomic uint64_t value;
};

// counter_add_own is for the one thread that writes this counter: no locked
// instruction. counter_add is for several writers.
static inline void counter_add_own(struct counter *c, uint64_t n) {
  atomic_store_explicit(&c->value, atomic_load_explicit(&c->value, memory_order_relaxed) + n,
                        memory_order_relaxed);
}
static inline void counter_add(struct counter *c, uint64_t n) {
  atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}
static inline uint64_t counter_get(const struct counter *c) {
  return atomic_load_explicit(&c->value, memory_order_relaxed);
}

// A growing text. All-zero is empty; free with metrics_text_cleanup.
struct metrics_text {
  char *data;
  size_t len;
  size_t cap;
  bool is_failed;  // memory ran out; the text is not to be used
};

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

// metrics_family writes the # HELP and # TYPE lines.
void metrics_family(struct metrics_text *text, const char *name, enum metric_type type,
                    const char *help);
// metrics_sample writes one sample. Labels are pairs of key and value, ended by
// NULL; values are escaped: metrics_sample(t, "x_total", 3, "reason", "eof", NULL).
void metrics_sample(struct metrics_text *text, const char *name, double value, ...)
    __attribute__((sentinel));
// metrics_one writes a family of one sample without labels.
void metrics_one(struct metrics_text *text, const char *name, enum metric_type type,
                 const char *help, double value);
static inline void metrics_gauge(struct metrics_text *text, const char *name, const char *help,
                                 double value) {
  metrics_one(text, name, METRIC_GAUGE, help, value);
}
static inline void metrics_total(struct metrics_text *text, const char *name, const char *help,
                                 double value) {
  metrics_one(text, name, METRIC_COUNTER, help, value);
}
void metrics_text_cleanup(struct metrics_text *text);

// A histogram of durations with fixed bounds, one writing thread.
#define HISTOGRAM_NUM_BUCKETS 20  // 50 us doubling, the last is +Inf
struct histogram {
  struct counter buckets[HISTOGRAM_NUM_BUCKETS];
  struct counter sum_us;
};
void histogram_add_us(struct histogram *h, uint64_t us);
// metrics_histogram writes the samples of the sum of `num` histograms under
// one label pair (or NULL, NULL).
void metrics_histogram(struct metrics_text *text, const char *name, const char *label_key,
                       const char *label_value, const struct histogram *const *hs, size_t num);

#endif  // DEPUTY_COMMON_BASE_METRICS_H_
