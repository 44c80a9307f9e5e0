// SPDX-License-Identifier: Apache-2.0
// load: drives many connections of tls13_client.h from one thread, in closed loop
// (so many at a time) or open loop (so many per second, whatever the server does),
// and records each. Its owner is handshakes.c.
//
//  of a connection:  CONNECT --> HANDSHAKE --> [RESPONSE ...] --> CLOSING --> free
//                                                   |
//                                                   +--> HELD (until the run ends)
//  of a run:         PRIME (tickets) --> RUN --> HOLD --> DRAIN
//
// Every wait has an end: a connection's by timeout_ms (again for each response),
// the run's by count, duration, and timeout_ms more.
#ifndef DEPUTY_BENCH_LOAD_H_
#define DEPUTY_BENCH_LOAD_H_

#include <stdbool.h>
#include <stdint.h>

#include "bench/pacer.h"
#include "bench/recorder.h"
#include "bench/tls13_client.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"

struct load_options {
  struct address target;
  struct address bind;  // len 0: the kernel chooses
  const char *const *names;
  size_t num_names;
  int64_t concurrency;  // closed loop: connections at a time; open loop: at most
  double rate_per_s;    // 0: closed loop
  enum pacer_kind pacer;
  uint64_t seed;
  int64_t count;        // handshakes to measure; 0: until duration_ms
  int64_t duration_ms;  // 0: until count
  int64_t warmup;       // handshakes before, not measured
  int64_t timeout_ms;
  int64_t num_tickets;       // 0: no resumption; else full handshakes first, for so many
  bool primes_with_request;  // the server sends tickets only with a response
  int64_t num_requests;      // per connection; 0: none
  int64_t download_len;      // 0: none; else bytes of one response to read
  const char *request;       // the bytes of one request
  int64_t num_held;          // 0: none; else keep so many open
  bool resets;               // end by RST, not by close_notify and waiting
  bool shows_progress;
};

struct load_result {
  bool is_interrupted;
  int64_t num_late;     // open loop: started over 1 ms after they were due
  int64_t num_unclean;  // the server did not close within a second of our close_notify
  int64_t num_lost;     // held connections that the server closed
};

// load_run does it all; blocks until the run is over, or SIGINT or SIGTERM, which it
// takes over meanwhile. STATUS_UNAVAILABLE: priming got no ticket; STATUS_SYSTEM,
// STATUS_MEMORY. What was recorded until then is in `recorder` in any case.
enum status load_run(struct load_result *out, const struct load_options *options,
                     const struct tls13_options *tls, struct recorder *recorder,
                     struct errmsg *err);

#endif  // DEPUTY_BENCH_LOAD_H_
