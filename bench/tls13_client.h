// SPDX-License-Identifier: Apache-2.0
// tls13_client: a TLS 1.3 client (RFC 8446) for load, as light as it can be made,
// that knows delegated credentials (RFC 9345): no I/O, one connection in one
// struct, bytes in and bytes out. What a server sees of it is an ordinary client
// with X25519, a NSS-like list of signature algorithms and extension 34.
//
// It is a measuring device, not a client for anybody's secrets:
//  - the server's Finished is always checked, so the keys are the right ones;
//  - CertificateVerify is checked in one of `verify_every` full handshakes;
//  - a delegated credential is checked as RFC 9345 asks, once per credential;
//  - the chain is not validated and the name not compared: nss.c does that;
//  - the key share may be the same for all connections, or even no secret at all
//    (TLS13_SHARE_BASE): the server's work is the same, the client's is less.
// Not supported: TLS 1.2, other groups, HelloRetryRequest, client certificates, 0-RTT,
// KeyUpdate. Each is a fault with its name.
//
//   start --> SERVER_HELLO --> EXTENSIONS --> CERTIFICATE --> VERIFY --> FINISHED --> DONE
//                                   |                                       ^
//                                   +---- resumed --------------------------+
// Threads: a shared object and its clients belong to one thread.
#ifndef DEPUTY_BENCH_TLS13_CLIENT_H_
#define DEPUTY_BENCH_TLS13_CLIENT_H_

#include <stdbool.h>
#include <stdint.h>

#include "bench/buffer.h"
#include "bench/peers.h"
#include "bench/tls13_flight.h"
#include "bench/tls13_hello.h"
#include "bench/tls13_keys.h"
#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/dc_check.h"

#define TLS13_MAX_SUITES 3U
#define TLS13_MAX_NAMES 100000U

enum tls13_share {
  TLS13_SHARE_FRESH,   // a new key pair for each connection, as browsers do
  TLS13_SHARE_REUSED,  // one key pair for the run: saves its making
  // The base point itself: the private key is 1, so the shared secret is the
  // server's share. Saves the client all of X25519 and the server nothing.
  TLS13_SHARE_BASE,
};

struct tls13_client;

struct tls13_options {
  const char *const *names;  // SNI of connections; an empty text or an IP sends none
  size_t num_names;
  const char *alpn;  // one protocol, or NULL
  bool offers_dc;
  bool offers_staple;
  enum tls13_share share;
  const struct tls13_suite *suites[TLS13_MAX_SUITES];  // in order of preference
  size_t num_suites;
  uint32_t verify_every;  // 0: never
  // Both may be NULL: data is then thrown away, tickets are not looked at.
  void (*on_data)(struct tls13_client *client, struct bytes data);
  void (*on_ticket)(struct tls13_client *client, const struct tls13_ticket *ticket);
};

// What all clients of a run have in common: the options (copied, but `names` are
// borrowed for the call only), ready-made ClientHellos, the peers that were met.
struct tls13_shared;
enum status tls13_shared_new(struct tls13_shared **out, const struct tls13_options *options,
                             struct errmsg *err);
void tls13_shared_free(struct tls13_shared *shared);

enum tls13_client_state {
  TLS13_CLIENT_IDLE,
  TLS13_CLIENT_SERVER_HELLO,
  TLS13_CLIENT_EXTENSIONS,
  TLS13_CLIENT_CERTIFICATE,
  TLS13_CLIENT_VERIFY,
  TLS13_CLIENT_FINISHED,
  TLS13_CLIENT_DONE,
  TLS13_CLIENT_FAILED,
};

// All-zero may be started and cleaned. Fields are to be read, not written, by the
// owner, but for `arg`.
struct tls13_client {
  struct tls13_shared *shared;
  void *arg;  // the owner's
  enum tls13_client_state state;
  enum tls13_fault fault;
  // What the handshake was.
  const struct tls13_suite *suite;
  const struct peer *peer;  // NULL when resumed; lives as long as `shared`
  bool is_resumed;
  bool has_dc;
  bool is_verified;
  bool has_staple;
  bool is_peer_closed;     // close_notify came
  uint8_t alert;           // with TLS13_FAULT_ALERT
  enum dc_fault dc_fault;  // with TLS13_FAULT_DC
  uint16_t verify_scheme;  // of CertificateVerify
  // Internal from here.
  uint8_t private_key[32];
  uint8_t session_id[32];
  const struct tls13_suite *psk_suite;
  struct tls13_secret psk_early;  // the early secret of the ticket that was offered
  struct tls13_transcript transcript;
  struct tls13_secret handshake;
  struct tls13_secret client_handshake;
  struct tls13_secret server_handshake;
  struct tls13_secret master;
  struct tls13_secret server_finished_hash;
  struct tls13_secret resumption_master;
  bool has_resumption_master;
  struct tls13_traffic read;
  struct tls13_traffic write;
  struct buffer hello;
  struct buffer record;   // an incomplete record
  struct buffer message;  // an incomplete handshake message
};

// tls13_client_start begins a connection (whatever the client was before) and adds
// its ClientHello to `out`. `name` counts through the options' names, modulo their
// number. `ticket` is for the call only; NULL for a full handshake. `now_ms` is monotonic.
enum tls13_fault tls13_client_start(struct tls13_client *client, struct tls13_shared *shared,
                                    uint64_t name, const struct tls13_ticket *ticket,
                                    int64_t now_ms, struct buffer *out);

// tls13_client_feed takes bytes from the server, which it decrypts in place, and adds
// what is to be sent to `out`. The handshake is over when state is DONE; the client
// is useless after any fault (nothing is sent to say so).
enum tls13_fault tls13_client_feed(struct tls13_client *client, uint8_t *data, size_t len,
                                   struct buffer *out);

// tls13_client_send adds records with application data, tls13_client_close one with
// close_notify. After DONE only.
enum tls13_fault tls13_client_send(struct tls13_client *client, struct bytes data,
                                   struct buffer *out);
enum tls13_fault tls13_client_close(struct tls13_client *client, struct buffer *out);

// tls13_client_reason writes the fault for people and statistics: "bad_finished",
// "alert_40", "dc_expired". Returns out.
#define TLS13_REASON_LEN 32
char *tls13_client_reason(const struct tls13_client *client, char out[TLS13_REASON_LEN]);

void tls13_client_cleanup(struct tls13_client *client);

#endif  // DEPUTY_BENCH_TLS13_CLIENT_H_
