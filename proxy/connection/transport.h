// SPDX-License-Identifier: Apache-2.0
// transport: sealed bytes between a client's socket and BoringSSL. All SSL objects
// of a worker share one BIO, which works for the connection that transport_use
// named last: no object per connection, and BoringSSL's many small reads and
// writes become one recv and one send for each wake-up.
//
//   socket --recv--> conn->in --BIO read--> BoringSSL --BIO write--> conn->out --send--> socket
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_TRANSPORT_H_
#define DEPUTY_PROXY_CONNECTION_TRANSPORT_H_

#include <openssl/bio.h>

#include "common/base/status.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

// transport_new makes a worker's BIO. STATUS_MEMORY.
enum status transport_new(BIO **out, struct worker *worker);

// transport_use: calls into the library are now for this connection. Before each.
static inline SSL *transport_use(struct conn *conn) {
  conn->worker->active = conn;
  return conn->ssl;
}

// transport_receive adds what the socket has to conn->in. STATUS_AGAIN: nothing now;
// STATUS_CLOSED: no more will come (client.has_ended or is_broken says how).
enum status transport_receive(struct conn *conn);

// transport_flush sends what is in conn->out. STATUS_OK: nothing is left (and the
// block is given back); STATUS_AGAIN: wait until the client is writable;
// STATUS_CLOSED: the connection is broken, and what was left is dropped.
enum status transport_flush(struct conn *conn);

// transport_end ends our direction in order, once: the close_notify is in conn->out.
void transport_end(struct conn *conn);

// transport_end ends our direction in order, once: the close_notify is in conn->out.
void transport_end(struct conn *conn);

#endif  // DEPUTY_PROXY_CONNECTION_TRANSPORT_H_
