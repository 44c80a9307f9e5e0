// SPDX-License-Identifier: Apache-2.0
// origin_tls: TLS to an origin, inside the connection's CONNECT (the handshake) and
// RELAY (its bytes). The origin must show a certificate of the pool's CAs for its name;
// the application protocol that the client agreed on is the only one that is offered.
// Sessions are resumed: each worker keeps the newest of some endpoints, for the very
// context that verified it.
//
// Threads: contexts by control; all else of the connection's worker.
#ifndef DEPUTY_PROXY_ORIGIN_ORIGIN_TLS_H_
#define DEPUTY_PROXY_ORIGIN_ORIGIN_TLS_H_

#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "proxy/config/origin_options.h"

#define ORIGIN_TLS_NUM_SESSIONS 64  // that a worker keeps

struct conn;
struct origin_tls;

// Of one worker; all-zero is empty.
struct origin_sessions {
  struct origin_session {
    uint32_t endpoint_id;
    SSL_CTX *ctx;  // held, so that no other can have its address
    SSL_SESSION *session;
  } slots[ORIGIN_TLS_NUM_SESSIONS];
};
void origin_sessions_cleanup(struct origin_sessions *sessions);

// origin_tls_context_new makes a pool's context. STATUS_CONFIG and its like, with a
// sentence.
enum status origin_tls_context_new(SSL_CTX **out, const struct origin_tls_options *options,
                                   struct errmsg *err);

// origin_tls_begin: TCP is connected. STATUS_MEMORY.
enum status origin_tls_begin(struct conn *conn);
// origin_tls_handshake goes on. STATUS_AGAIN: wait for the origin; STATUS_CRYPTO: it
// failed, and the log has the reason.
enum status origin_tls_handshake(struct conn *conn);

// origin_tls_note: the loop says what the socket is ready for.
void origin_tls_note(struct conn *conn, unsigned ready);
// origin_tls_park: this round is over.
void origin_tls_park(struct conn *conn);

// origin_tls_send and origin_tls_recv are as send and recv, errno included. An end
// without close_notify is an error. What they wait for is taken out of conn->origin.ready.
ssize_t origin_tls_send(struct conn *conn, const uint8_t *data, size_t len);
ssize_t origin_tls_recv(struct conn *conn, uint8_t *out, size_t max);
// origin_tls_end sends close_notify.
void origin_tls_end(struct conn *conn);

void origin_tls_free(struct conn *conn);

#endif  // DEPUTY_PROXY_ORIGIN_ORIGIN_TLS_H_
