// SPDX-License-Identifier: Apache-2.0
// key_load: asks a key server for signatures (docs/PROTOCOL.keyserver.md) over
// mutual TLS, as many at a time or as many per second as wanted, and records each.
// Its owner is keyserver.c.
//
// One thread, one loop; connections of common/tls/tls_stream.h, each with `window`
// requests in flight, matched by id. Every request has a deadline; a connection that
// ends fails what was in flight and is opened again after a pause.
#ifndef DEPUTY_BENCH_KEY_LOAD_H_
#define DEPUTY_BENCH_KEY_LOAD_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/pacer.h"
#include "bench/recorder.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "common/wire/frame.h"
#include "common/wire/scheme.h"

#define KEY_LOAD_MAX_WINDOW 4096
#define KEY_LOAD_MAX_CONNECTIONS 20000
#define KEY_LOAD_MAX_FLIGHTS 1000000  // connections times window

// A key to sign with. `public_key` is borrowed; NULL when signatures cannot be checked.
struct key_target {
  const struct scheme *scheme;
  uint8_t ski[FRAME_SKI_LEN];
  EVP_PKEY *public_key;
  const char *name;
};

struct key_load_options {
  struct address target;
  const char *host;  // the name the server must have
  SSL_CTX *ctx;
  const struct key_target *keys;
  size_t num_keys;  // they take turns; 0: pings
  bool is_blind;    // a bare digest, without the message (item 0x14)
  bool is_unpadded;
  int64_t connections;
  int64_t window;
  double rate_per_s;  // 0: closed loop
  enum pacer_kind pacer;
  uint64_t seed;
  int64_t count;  // 0: until duration_ms
  int64_t duration_ms;
  int64_t warmup;
  int64_t timeout_ms;
  int64_t verify_every;  // 0: never
  bool is_holding;       // no request at all: the connections stay idle
  // Of a closed loop, 0: none. The server (the recorder's) is stopped while the first
  // requests are sent, then goes on alone for so long: nobody reads meanwhile, and no
  // client's work competes for its processors.
  int64_t burst_ms;
  bool is_polling;  // never sleep: the server's send wakes nobody (over loopback it would)
  bool shows_progress;
};

struct key_load_result {
  bool is_interrupted;
  int64_t num_late;            // open loop: sent over 1 ms after they were due
  int64_t num_opened;          // connections
  struct word_counts ends;     // why connections ended, but for our own closing
  struct word_counts schemes;  // of signatures that came
  struct hdr connect;          // start to connection open, TLS included
};

// key_load_run does it all; blocks until it is over, or SIGINT or SIGTERM.
// STATUS_UNAVAILABLE: no connection could be opened; STATUS_SYSTEM, STATUS_MEMORY.
enum status key_load_run(struct key_load_result *out, const struct key_load_options *options,
                         struct recorder *recorder, struct errmsg *err);

#endif  // DEPUTY_BENCH_KEY_LOAD_H_
