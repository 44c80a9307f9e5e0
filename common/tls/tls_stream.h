// SPDX-License-Identifier: Apache-2.0
// tls_stream: one TLS connection that carries packets, on a loop: the key server's
// side and the client's side of docs/PROTOCOL.keyserver.md. Bytes are gathered
// into one input buffer per wake-up and sent from one output buffer, so that
// many packets cost one system call each way. (The proxy's visitors do not come
// here: their path is proxy/conn.c.)
#ifndef DEPUTY_COMMON_TLS_TLS_STREAM_H_
#define DEPUTY_COMMON_TLS_TLS_STREAM_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "common/net/loop.h"

struct tls_stream;

enum tls_stream_end {
  TLS_STREAM_CLOSED,          // close_notify or EOF after the handshake
  TLS_STREAM_CONNECT_FAILED,  // TCP
  TLS_STREAM_HANDSHAKE_FAILED,
  TLS_STREAM_TIMEOUT,   // handshake or idle or write limit
  TLS_STREAM_ERROR,     // read or write failed, bad record
  TLS_STREAM_OVERFLOW,  // the peer does not read what it asked for
};
const char *tls_stream_end_name(enum tls_stream_end end);

struct tls_stream_events {
  void (*on_open)(void *arg);  // handshake done
  // on_data: look at tls_stream_input, consume whole packets; called again only
  // when more has come. Replies written here leave together afterwards.
  void (*on_data)(void *arg);
  // on_eof: the peer sent its close_notify or FIN; what is queued is still sent.
  // The owner closes when its last reply is written (tls_stream_close_when_sent).
  void (*on_eof)(void *arg);
  // on_end: it is over; called once, last, never from within a call of the owner.
  // The owner drops its pointer (tls_stream_free).
  void (*on_end)(void *arg, enum tls_stream_end end, const char *why);
};

struct tls_stream_limits {
  int64_t handshake_ms;   // TCP connect included on the client's side
  int64_t idle_ms;        // no byte either way; 0: none
  int64_t write_ms;       // queued bytes make no progress
  size_t max_input_len;   // a packet never needs more
  size_t max_output_len;  // unread replies beyond this: reading stops
};

// tls_stream_accept takes an accepted descriptor; tls_stream_connect starts a
// connection (host for SNI and verification; borrowed for the call). Events come
// later, from the loop.
enum status tls_stream_accept(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx, int *fd,
                              const struct tls_stream_limits *limits,
                              const struct tls_stream_events *events, void *arg);
enum status tls_stream_connect(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx,
                               const struct address *address, const char *host,
                               const struct tls_stream_limits *limits,
                               const struct tls_stream_events *events, void *arg);
void tls_stream_free(struct tls_stream *stream);  // at any time outside its own callbacks

const SSL *tls_stream_ssl(const struct tls_stream *stream);

// Input: borrow what is there, then say how much was used.
struct bytes tls_stream_input(const struct tls_stream *stream);
void tls_stream_consume(struct tls_stream *stream, size_t len);
// tls_stream_pause stops reading (the owner has too much in hand); resume later.
void tls_stream_pause(struct tls_stream *stream, bool is_paused);
// tls_stream_again: the owner left whole packets in the input, as its share of the
// round was used up or its output full. on_data is called again in a later round,
// and not before there is room for output.
void tls_stream_again(struct tls_stream *stream);

// Output: reserve room for at most `max` bytes, write there, commit what was
// written; flushed at the end of the round (or by tls_stream_flush). STATUS_LIMIT
// when max_output_len would be passed.
enum status tls_stream_reserve(struct tls_stream *stream, uint8_t **out, size_t max);
void tls_stream_commit(struct tls_stream *stream, size_t len);
void tls_stream_flush(struct tls_stream *stream);
size_t tls_stream_unsent(const struct tls_stream *stream);
void tls_stream_close_when_sent(struct tls_stream *stream);

#endif  // DEPUTY_COMMON_TLS_TLS_STREAM_H_
