// SPDX-License-Identifier: Apache-2.0
// run_options: what the clients that measure a server (handshakes, nss, keyserver) are all
// told: how many, how fast, and what is kept of it. Rows that say the same in each have
// their text here; the others are the client's own.
#ifndef DEPUTY_BENCH_RUN_OPTIONS_H_
#define DEPUTY_BENCH_RUN_OPTIONS_H_

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/options.h"
#include "bench/pacer.h"
#include "bench/recorder.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"

struct run_options {
  const char *target;
  const char *label;
  const char *server_pid;
  const char *raw;
  int arrivals;       // run_pacer
  double rate_per_s;  // 0: closed loop
  int64_t seed;
  int64_t count;
  int64_t duration_ms;
  int64_t warmup;
  int64_t timeout_ms;
  bool shows_progress;
};

extern const char *const run_arrival_words[];

// Rows of a table of options for the member `run` of `holder`; `thing` is what is
// measured.
// clang-format off
#define RUN_PACE_OPTION_ROWS(holder)                                                        \
  {"arrivals", OPTION_WORD, offsetof(holder, run.arrivals), .fallback = "constant",         \
   .words = run_arrival_words, .help = "with --rate, how they are spaced"},                 \
  {"seed", OPTION_COUNT, offsetof(holder, run.seed), .fallback = "1", .min = 0,             \
   .max = 1e15, .help = "of Poisson arrivals: the same seed, the same times"}

#define RUN_WARMUP_OPTION_ROW(holder, thing)                                                \
  {"warmup", OPTION_COUNT, offsetof(holder, run.warmup), .fallback = "0", .min = 0,         \
   .max = 1e9, .help = thing "s first that are not counted"}

#define RUN_REPORT_OPTION_ROWS(holder, thing)                                               \
  {"raw", OPTION_TEXT, offsetof(holder, run.raw),                                           \
   .help = "file for one JSON line per " thing},                                            \
  {"server-pid", OPTION_TEXT, offsetof(holder, run.server_pid),                             \
   .help = "process ids of the server, with commas between them: their CPU time in the "    \
           "measured part goes into the summary"},                                          \
  {"label", OPTION_TEXT, offsetof(holder, run.label),                                       \
   .help = "text to keep in the summary"},                                                  \
  {"progress", OPTION_FLAG, offsetof(holder, run.shows_progress),                           \
   .help = "a line each second on standard error"}
// clang-format on

static inline enum pacer_kind run_pacer(const struct run_options *o) {
  return o->arrivals == 0 ? PACER_CONSTANT : PACER_POISSON;
}

// run_count is the count, or `fallback` when neither it nor a duration is given.
static inline int64_t run_count(const struct run_options *o, int64_t fallback) {
  return o->count == 0 && o->duration_ms == 0 ? fallback : o->count;
}

// run_describe adds label, target, and kind of loop to a summary.
void run_describe(json_t *about, const struct run_options *o, const struct address *target);

// run_open makes the recorder: raw file, the server's processes. As recorder_new and
// proc_cpu_parse.
enum status run_open(struct recorder **out, const struct run_options *o, struct errmsg *err);

#endif  // DEPUTY_BENCH_RUN_OPTIONS_H_
