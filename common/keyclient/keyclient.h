// SPDX-License-Identifier: Apache-2.0
// keyclient: asks key servers for signatures (docs/PROTOCOL.keyserver.md). One
// object per loop; several servers, several connections to each, requests
// multiplexed by id, a deadline for each request, fail-over at once on what
// another server could cure. Never blocks. Used by proxy (a handshake waits in
// the SIGNING state) and dcissuer.
//
// A request goes to the first server of the list that has a connection. It moves
// on to the next when its connection fails, when the server says so
// (frame_error_may_failover), or when it has not answered in attempt_ms; in the
// last case a late answer is still taken. When no server is connected it waits,
// at most attempt_ms, for one to come back. The signature is not verified here:
// whoever asked checks it, or his peer does.
#ifndef DEPUTY_COMMON_KEYCLIENT_KEYCLIENT_H_
#define DEPUTY_COMMON_KEYCLIENT_KEYCLIENT_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "common/tls/context.h"
#include "common/wire/frame.h"
#include "common/wire/scheme.h"

#define KEYCLIENT_MAX_SERVERS 16
#define KEYCLIENT_MAX_CONNECTIONS 64   // to one server
#define KEYCLIENT_MAX_IN_FLIGHT 1024   // per connection
#define KEYCLIENT_MAX_REQUESTS 100000  // at a time, those that wait included
#define KEYCLIENT_MAX_ATTEMPTS 8       // of one request
#define KEYCLIENT_MAX_SNI_LEN 255

// The "key_servers" object of a configuration file; rows: keyclient_options.
struct keyclient_server_config {
  char *address;  // "host:port"
  char *name;     // expected in its certificate; default: the host
};
struct keyclient_config {
  struct keyclient_server_config *servers;
  size_t num_servers;
  struct tls_identity tls;
  bool allow_tls12;     // for foreign servers that know nothing newer
  int64_t deadline_ms;  // a request's whole life, fail-over included
  int64_t attempt_ms;   // one server's share before the next is tried
  int64_t connect_ms;
  int64_t num_connections;  // to each server
};
extern const struct config_option keyclient_options[];

// Counters of one keyclient; written by its loop, read by any thread.
struct keyclient_stats {
  struct counter num_requests;
  struct counter num_signed;
  struct counter num_failed[STATUS_NUM];
  struct counter num_failovers;
  struct counter num_attempt_timeouts;
  struct counter num_late_replies;  // after their deadline, or of an unknown id
  struct counter num_bad_replies;   // malformed: the connection is dropped
  struct counter num_connects;      // handshake done
  struct counter num_connect_failed;
  struct counter num_disconnects;  // of those that were connected
  struct histogram latency;
};

struct keyclient;

// keyclient_new copies what it needs of `config`, reads the TLS files, and
// connects from the loop. STATUS_CONFIG (an address), what tls_context_client
// returns, STATUS_MEMORY.
enum status keyclient_new(struct keyclient **out, struct loop *loop,
                          const struct keyclient_config *config, struct errmsg *err);
// keyclient_free: open requests end without a callback. Not from a callback of
// its own; before loop_free.
void keyclient_free(struct keyclient *kc);
const struct keyclient_stats *keyclient_stats(const struct keyclient *kc);
// keyclient_num_ready counts servers with at least one open connection. Any thread.
unsigned keyclient_num_ready(const struct keyclient *kc);

struct sign_request {
  const uint8_t *ski;  // FRAME_SKI_LEN bytes; copied
  const struct scheme *scheme;
  uint8_t opcode;        // usually scheme->opcode
  struct bytes message;  // whole; copied: goes into item 0x14
  struct bytes sni;      // for the server's audit line; copied; may be empty
};

struct sign_answer {
  enum status st;          // OK; REFUSED, NOT_FOUND, TIMEOUT, UNAVAILABLE, CRYPTO, LIMIT
  enum frame_error code;   // what the last server said, or NONE
  struct bytes signature;  // borrowed for the callback
};

// keyclient_sign sends a request and calls `fn` exactly once, later, unless it is
// cancelled. The id is never 0 and is not reused while anybody could confuse it.
// STATUS_LIMIT: message too long, or KEYCLIENT_MAX_REQUESTS are open; STATUS_MEMORY;
// STATUS_CRYPTO: the message cannot be hashed. From within `fn` this and
// keyclient_cancel may be called.
enum status keyclient_sign(uint64_t *out_id, struct keyclient *kc,
                           const struct sign_request *request,
                           void (*fn)(void *arg, const struct sign_answer *answer), void *arg);
void keyclient_cancel(struct keyclient *kc, uint64_t id);

#endif  // DEPUTY_COMMON_KEYCLIENT_KEYCLIENT_H_
