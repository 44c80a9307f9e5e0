// SPDX-License-Identifier: Apache-2.0
#include "common/base/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BOUND_US 50
#define EXACT_MAX 9007199254740992.0  // 2^53: above it a double skips integers

// --- the growing text --------------------------------------------------------

static void put(struct metrics_text *text, const char *more, size_t len) {
  if (text->is_failed) {
    return;
  }
  if (text->cap - text->len <= len) {
    size_t cap = (text->cap + len + 1) * 2;
    char *bigger = realloc(text->data, cap);
    if (bigger == NULL) {
      text->is_failed = true;
      return;
    }
    text->data = bigger;
    text->cap = cap;
  }
  memcpy(text->data + text->len, more, len);
  text->len += len;
  text->data[text->len] = '\0';
}

static void put_cstr(struct metrics_text *text, const char *more) { put(text, more, strlen(more)); }

// Escapes backslash and newline, and the double quote in label values.
static void put_escaped(struct metrics_text *text, const char *value, bool is_label) {
  for (const char *c = value; *c != '\0'; c++) {
    if (*c == '\n') {
      put(text, "\\n", 2);
    } else if (*c == '\\' || (*c == '"' && is_label)) {
      put(text, "\\", 1);
      put(text, c, 1);
    } else {
      put(text, c, 1);
    }
  }
}

static void put_value(struct metrics_text *text, double value) {
  char digits[400];
  if (isnan(value)) {
    put_cstr(text, "NaN");
  } else if (isinf(value)) {
    put_cstr(text, value > 0 ? "+Inf" : "-Inf");
  } else if (fabs(value) < EXACT_MAX && value == floor(value)) {
    (void)snprintf(digits, sizeof(digits), "%.0f", value);
    put_cstr(text, digits);
  } else {
    (void)snprintf(digits, sizeof(digits), "%.15g", value);
    put_cstr(text, digits);
  }
}

void metrics_one(struct metrics_text *text, const char *name, enum metric_type type,
                 const char *help, double value) {
  metrics_family(text, name, type, help);
  metrics_sample(text, name, value, NULL);
}

void metrics_text_cleanup(struct metrics_text *text) {
  free(text->data);
  *text = (struct metrics_text){0};
}

// --- families and samples ----------------------------------------------------

void metrics_family(struct metrics_text *text, const char *name, enum metric_type type,
                    const char *help) {
  static const char *const types[] = {
      [METRIC_COUNTER] = "counter",
      [METRIC_GAUGE] = "gauge",
      [METRIC_HISTOGRAM] = "histogram",
  };
  put_cstr(text, "# HELP ");
  put_cstr(text, name);
  put_cstr(text, " ");
  put_escaped(text, help, false);
  put_cstr(text, "\n# TYPE ");
  put_cstr(text, name);
  put_cstr(text, " ");
  put_cstr(text, types[type]);
  put_cstr(text, "\n");
}

static void put_label(struct metrics_text *text, bool *has_label, const char *key,
                      const char *value) {
  put_cstr(text, *has_label ? "," : "{");
  *has_label = true;
  put_cstr(text, key);
  put_cstr(text, "=\"");
  put_escaped(text, value == NULL ? "" : value, true);
  put_cstr(text, "\"");
}

void metrics_sample(struct metrics_text *text, const char *name, double value, ...) {
  va_list labels;
  const char *key = NULL;
  bool has_label = false;

  put_cstr(text, name);
  va_start(labels, value);
  while ((key = va_arg(labels, const char *)) != NULL) {
    put_label(text, &has_label, key, va_arg(labels, const char *));
  }
  va_end(labels);
  put_cstr(text, has_label ? "} " : " ");
  put_value(text, value);
  put_cstr(text, "\n");
}

// --- histograms --------------------------------------------------------------

void histogram_add_us(struct histogram *h, uint64_t us) {
  size_t i = 0;
  uint64_t bound = FIRST_BOUND_US;
  while (i < HISTOGRAM_NUM_BUCKETS - 1 && us > bound) {
    i += 1;
    bound *= 2;
  }
  counter_add_own(&h->buckets[i], 1);
  counter_add_own(&h->sum_us, us);
}

// A bound in seconds as decimals without trailing zeros: 50 us is "0.00005".
static void format_bound(char *out, size_t out_len, size_t i) {
  size_t len = 0;
  if (i == HISTOGRAM_NUM_BUCKETS - 1) {
    (void)snprintf(out, out_len, "+Inf");
    return;
  }
  (void)snprintf(out, out_len, "%.5f", (double)((uint64_t)FIRST_BOUND_US << i) / 1e6);
  len = strlen(out);
  while (out[len - 1] == '0') {
    out[--len] = '\0';
  }
}

static void put_histogram_line(struct metrics_text *text, const char *name, const char *suffix,
                               const char *label_key, const char *label_value, const char *bound,
                               double value) {
  bool has_label = false;
  put_cstr(text, name);
  put_cstr(text, suffix);
  if (label_key != NULL) {
    put_label(text, &has_label, label_key, label_value);
  }
  if (bound != NULL) {
    put_label(text, &has_label, "le", bound);
  }
  put_cstr(text, has_label ? "} " : " ");
  put_value(text, value);
  put_cstr(text, "\n");
}

void metrics_histogram(struct metrics_text *text, const char *name, const char *label_key,
                       const char *label_value, const struct histogram *const *hs, size_t num) {
  uint64_t count = 0;
  uint64_t sum_us = 0;

  for (size_t i = 0; i < HISTOGRAM_NUM_BUCKETS; i++) {
    char bound[32];
    for (size_t k = 0; k < num; k++) {
      count += counter_get(&hs[k]->buckets[i]);  // buckets are cumulative in the text
    }
    format_bound(bound, sizeof(bound), i);
    put_histogram_line(text, name, "_bucket", label_key, label_value, bound, (double)count);
  }
  for (size_t k = 0; k < num; k++) {
    sum_us += counter_get(&hs[k]->sum_us);
  }
  put_histogram_line(text, name, "_sum", label_key, label_value, NULL, (double)sum_us / 1e6);
  put_histogram_line(text, name, "_count", label_key, label_value, NULL, (double)count);
}
