// SPDX-License-Identifier: Apache-2.0
// keyclient: asks key servers for signatures (docs/PROTOCOL.keyserver.md). One
// object per loop; several servers, several connections to each, requests
// multiplexed by id, a deadline for each request. Never blocks. Used by proxy (a
// handshake waits in the SIGNING state) and dcissuer.
//
// Where a request goes. Servers are ordered by distance, the time that a ping takes: one
// goes before another when it is nearer by a quarter of the other's distance and by at
// least KEYCLIENT_ORDER_MARGIN_US; else, and before they are measured, the order of the
// configuration stays. The first of that order is asked that is connected, whose breaker
// is closed, that owes no answer for too long, and that did not say in the last minute
// that it has not got this key (key_notes.h); if there is none, the best of the others:
// a request is not failed without an attempt.
//
// What if there is no answer. A copy goes to the next server when the first takes longer
// than 95 % of its signatures do, within a budget (hedge.h): the first good answer wins.
// A request moves on to the next server at once when its connection fails, when the server
// says something that another could cure, and when it has not answered in attempt_ms; a
// late answer is still taken. When no server is connected it waits, at most attempt_ms, for
// one to come back. Failures open a server's breaker (breaker.h), which a ping closes. The
// signature is not verified here: whoever asked checks it, or his peer does.
//
// Connections. A host name is looked up at the start, every resolve_ms, and when a
// connection is made again; all its addresses are used. Connections to an address that is
// in the answer no more take no new requests once there is another, and are closed after
// their last reply. A server that closes (drains) is left without an error.
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
#include "common/keyclient/breaker.h"
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
#define KEYCLIENT_ORDER_MARGIN_US 1000

// The "key_servers" object of a configuration file; rows: keyclient_options. What is
// added here counts in keyclient_config_id, too.
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
  int64_t num_connections;  // to each server; more if its name has more addresses
  int64_t ping_ms;          // of quiet on a connection; with 25 % jitter. 0: the default
  int64_t resolve_ms;       // from one look-up of a name to the next. 0: the default
  int64_t hedge_percent;    // of requests at most; 0: no hedging
};
extern const struct config_option keyclient_options[];

// keyclient_config_id makes a hash of all of it, and of its files: two that are equal may
// share connections, so that a reload does not make new ones. STATUS_SYSTEM, STATUS_LIMIT,
// with the sentence. It reads files: not on a loop.
enum status keyclient_config_id(uint8_t out[32], const struct keyclient_config *config,
                                struct errmsg *err);

// Counters of one keyclient; written by its loop, read by any thread.
struct keyclient_stats {
  struct counter num_requests;
  struct counter num_signed;
  struct counter num_failed[STATUS_NUM];
  struct counter num_failovers;
  struct counter num_attempt_timeouts;
  struct counter num_late_replies;  // nobody waits any more: answered by another server,
                                    // after the deadline, of an unknown id
  struct counter num_bad_replies;   // malformed: the connection is dropped
  struct counter num_connects;      // handshake done
  struct counter num_connect_failed;
  struct counter num_disconnects;    // of those that were connected, closed by servers or lost
  struct counter num_hedges_denied;  // by the budget
  struct counter num_resolve_failed;
  struct histogram latency;
};

// Why a server did not give a signature that it was asked for, or could not be asked.
enum keyclient_failure {
  KEYCLIENT_TIMEOUT,  // no answer in attempt_ms
  KEYCLIENT_LOST,     // the connection broke
  KEYCLIENT_CONNECT,  // could not be connected to
  KEYCLIENT_NO_KEY,   // has not got the key, or not for us
  KEYCLIENT_ERROR,    // another error that another server could cure
  KEYCLIENT_REFUSED,  // an error that none could
  KEYCLIENT_NUM_FAILURES,
};
const char *keyclient_failure_name(enum keyclient_failure failure);  // "timeout"

// The same for one server of it. The gauges are stored whole.
struct keyclient_server_stats {
  struct counter num_requests;  // sent to it, hedges included
  struct counter num_answered;  // signatures, also late ones
  struct counter num_failed[KEYCLIENT_NUM_FAILURES];
  struct counter num_hedges;      // of the requests: sent to it as the second
  struct counter num_hedge_wins;  // and it was the first to answer
  struct counter num_skipped;     // requests that went past it: it had not got the key
  struct counter num_openings;    // of its breaker
  struct counter num_drained;     // connections closed in good order
  struct counter num_pings;
  // Gauges.
  struct counter num_connections;
  struct counter num_in_flight;  // requests
  struct counter breaker;        // enum breaker_state
  struct counter srtt_us;        // smoothed; 0: not measured
  struct counter rttvar_us;
  struct counter distance_us;     // 0: not measured
  struct counter hedge_after_us;  // 0: requests are not hedged
  struct counter place;           // in the order now, from 1
};

struct keyclient;

// keyclient_check_servers says what keyclient_new would of the servers' addresses and names:
// for configurations that are not in use yet. STATUS_CONFIG.
enum status keyclient_check_servers(const struct keyclient_config *config, struct errmsg *err);

// keyclient_new copies what it needs of `config`, reads the TLS files, and
// connects from the loop. STATUS_CONFIG (an address), what tls_context_client
// returns, STATUS_MEMORY.
enum status keyclient_new(struct keyclient **out, struct loop *loop,
                          const struct keyclient_config *config, struct errmsg *err);
// keyclient_free: open requests end without a callback. Not from a callback of
// its own; before loop_free.
void keyclient_free(struct keyclient *kc);

// What it counts; any thread, as long as the object lives. Servers are in the order of the
// configuration; the name is "host:port" as written there.
const struct keyclient_stats *keyclient_stats(const struct keyclient *kc);
size_t keyclient_num_servers(const struct keyclient *kc);
const char *keyclient_server_name(const struct keyclient *kc, size_t index);
const struct keyclient_server_stats *keyclient_server_stats(const struct keyclient *kc,
                                                            size_t index);
// keyclient_num_ready counts servers with at least one open connection.
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
