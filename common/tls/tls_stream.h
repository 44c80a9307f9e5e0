// SPDX-License-Identifier: Apache-2.0
// tls_stream: one TLS connection that carries packets, on a loop: the key server's
// side and the client's side of docs/PROTOCOL.keyserver.md. Bytes are gathered
// into one input buffer per wake-up and sent from one output buffer, so that
// many packets cost one system call each way. (The proxy's visitors do not come
// here: their path is proxy/connection/conn.c.)
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

// Events come from the loop only, never from within a call of the owner. The owner
// may free the stream in any of them.
struct tls_stream_events {
  void (*on_open)(void *arg);  // handshake done
  // on_data: look at tls_stream_input, consume whole packets; called again only
  // when more has come. Replies written here leave together afterwards. At most some
  // 80 KB come in one call: then it is the turn of other connections.
  void (*on_data)(void *arg);
  // on_eof: the peer sent its close_notify or FIN; what is queued is still sent.
  // The owner closes when its last reply is written (tls_stream_close_when_sent).
  // NULL: close when sent.
  void (*on_eof)(void *arg);
  // on_end: it is over; called once, last. `why` is a sentence for a log line; it may
  // hold the library's reason, never the peer's text. The owner drops its pointer
  // (tls_stream_free). A client whose certificate is refused sees TLS_STREAM_ERROR
  // after on_open: in TLS 1.3 the server looks at it last.
  void (*on_end)(void *arg, enum tls_stream_end end, const char *why);
};

struct tls_stream_limits {
  int64_t handshake_ms;   // TCP connect included on the client's side
  int64_t idle_ms;        // no byte either way; 0: none
  int64_t write_ms;       // queued bytes make no progress; 0: none
  size_t max_input_len;   // a packet never needs more; a buffer that is full and of
                          // which nothing is consumed ends the connection
  size_t max_output_len;  // unread replies: above a half of it reading stops until a
                          // quarter is left, and write_ms ends with OVERFLOW
};

// tls_stream_accept takes an accepted, non-blocking descriptor (*fd is -1 then);
// tls_stream_connect starts a connection (host for SNI and verification; borrowed for
// the call). Limits are copied; events outlive the stream. Events come later, from
// the loop; that a connection cannot be made, too. STATUS_MEMORY, STATUS_SYSTEM, and
// STATUS_FORMAT for a host that cannot be one.
enum status tls_stream_accept(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx, int *fd,
                              const struct tls_stream_limits *limits,
                              const struct tls_stream_events *events, void *arg);
enum status tls_stream_connect(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx,
                               const struct address *address, const char *host,
                               const struct tls_stream_limits *limits,
                               const struct tls_stream_events *events, void *arg);
// tls_stream_free closes, with a close_notify when nothing is unsent. NULL allowed.
void tls_stream_free(struct tls_stream *stream);

const SSL *tls_stream_ssl(const struct tls_stream *stream);

// Input: borrow what is there, then say how much was used.
struct bytes tls_stream_input(const struct tls_stream *stream);
void tls_stream_consume(struct tls_stream *stream, size_t len);
// tls_stream_has_unread: bytes have come that no on_data has shown yet. Asks the kernel.
bool tls_stream_has_unread(const struct tls_stream *stream);
// tls_stream_pause stops reading (the owner has too much in hand); resume later. What
// is in the buffer then is shown again by on_data.
void tls_stream_pause(struct tls_stream *stream, bool is_paused);
// tls_stream_again: the owner left whole packets in the input, as its share of the
// round was used up or its output full. on_data is called again in a later round,
// and not before there is room for output.
void tls_stream_again(struct tls_stream *stream);

// Output: reserve room for at most `max` bytes, write there, commit what was
// written; flushed at the end of the round (or by tls_stream_flush). What is written
// before the handshake is done leaves after it. STATUS_LIMIT when max_output_len would
// be passed; STATUS_CLOSED when it is over, or tls_stream_close_when_sent was called.
enum status tls_stream_reserve(struct tls_stream *stream, uint8_t **out, size_t max);
void tls_stream_commit(struct tls_stream *stream, size_t len);
void tls_stream_flush(struct tls_stream *stream);
size_t tls_stream_unsent(const struct tls_stream *stream);
// tls_stream_close_when_sent sends what is queued, close_notify and FIN, and waits
// (write_ms at most) for the peer's FIN: on_end says CLOSED. What the peer still sends
// is thrown away.
void tls_stream_close_when_sent(struct tls_stream *stream);

#endif  // DEPUTY_COMMON_TLS_TLS_STREAM_H_
