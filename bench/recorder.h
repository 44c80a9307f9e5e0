// SPDX-License-Identifier: Apache-2.0
// recorder: what a run keeps of each handshake (or signature), and the summary it
// prints. The raw file has one JSON object a line: first the run itself, then one
// for each sample, times in microseconds since the run's zero; CLOCK_MONOTONIC and
// wall clock at zero are in the first line and in the summary, so that other
// processes' events (a switch) can be placed among them.
//
// Threads: one recorder belongs to one thread, or its owner locks.
#ifndef DEPUTY_BENCH_RECORDER_H_
#define DEPUTY_BENCH_RECORDER_H_

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bench/hdr.h"
#include "bench/proc_cpu.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define RECORDER_MAX_WORDS 256U  // different reasons, issuers, suites; more are "other"

int64_t recorder_now_ns(void);  // CLOCK_MONOTONIC

// One handshake. Times are CLOCK_MONOTONIC ns, 0: not reached. Texts are borrowed
// for the call; NULL: unknown.
struct sample {
  uint64_t number;
  int64_t scheduled_ns;
  int64_t start_ns;
  int64_t connected_ns;
  int64_t handshake_ns;
  int64_t first_byte_ns;
  int64_t end_ns;
  bool is_warmup;
  bool is_resumed;
  bool has_dc;
  bool is_verified;
  bool has_staple;
  uint64_t num_requests;
  uint64_t bytes;
  const char *name;    // SNI
  const char *issuer;  // of the leaf
  const char *suite;
  const char *failure;  // NULL: it went well
};

struct word_count {
  char word[128];
  uint64_t num;
};
struct word_counts {
  struct word_count words[RECORDER_MAX_WORDS];
  size_t num;
};
void word_counts_add(struct word_counts *counts, const char *word, uint64_t num);

enum recorder_latency {
  LATENCY_CONNECT,     // start to TCP established
  LATENCY_HANDSHAKE,   // scheduled start to handshake done
  LATENCY_SERVICE,     // actual start to handshake done
  LATENCY_FIRST_BYTE,  // scheduled start to the first byte of a response
  LATENCY_REQUEST,     // a request on an open connection, until its response is whole
  LATENCY_NUM,
};

struct recorder {
  FILE *raw;  // NULL: none
  char *raw_buffer;
  int64_t zero_ns;
  int64_t zero_wall_us;
  uint64_t num_ok;
  uint64_t num_failed;
  uint64_t num_abandoned;
  uint64_t num_warmup;
  uint64_t num_resumed;
  uint64_t num_dc;
  uint64_t num_verified;
  uint64_t num_stapled;
  uint64_t num_requests;
  uint64_t bytes;
  struct word_counts failures;
  struct word_counts issuers;
  struct word_counts suites;
  struct hdr latencies[LATENCY_NUM];
  // Of the measured part.
  int64_t measure_start_ns;
  int64_t measure_end_ns;
  int64_t cpu_user_us;  // of this process
  int64_t cpu_system_us;
  struct proc_cpu server;  // filled in by the owner: whose CPU time to count, if any
  int64_t server_cpu_ns;
  bool is_measuring;
};

// recorder_new returns new memory; it is too large for a stack. `raw_path` may be
// NULL. STATUS_SYSTEM (the raw file), STATUS_MEMORY.
enum status recorder_new(struct recorder **out, const char *raw_path, struct errmsg *err);
void recorder_free(struct recorder *r);

// recorder_write_run writes the raw file's first line: `about` with the zero added.
void recorder_write_run(struct recorder *r, const json_t *about);

// recorder_start_measuring and _stop_measuring enclose what is not warm-up: wall
// clock, CPU time of this process and of the server's. Only the first call of each
// counts.
void recorder_start_measuring(struct recorder *r);
void recorder_stop_measuring(struct recorder *r);

// recorder_add counts a sample and writes its line. A failure "abandoned" is that
// of a run which was stopped: no failure of the server's.
#define FAILURE_ABANDONED "abandoned"
void recorder_add(struct recorder *r, const struct sample *sample);

// recorder_merge adds the counts of `from`, of another thread.
void recorder_merge(struct recorder *into, const struct recorder *from);

// recorder_close flushes the raw file. STATUS_SYSTEM: not all of it is on disk.
enum status recorder_close(struct recorder *r, struct errmsg *err);

// recorder_summary adds counts, failures, latencies and CPU time to `summary`; `unit`
// is what CPU time is divided by: "handshake", "request".
void recorder_summary(const struct recorder *r, const char *unit, json_t *summary);

// recorder_latency_json describes one histogram, in us: num, min, mean, p50 ... max.
json_t *recorder_latency_json(const struct hdr *h);

// recorder_words_json makes {"word": num}, largest first.
json_t *recorder_words_json(const struct word_counts *counts);

#endif  // DEPUTY_BENCH_RECORDER_H_
