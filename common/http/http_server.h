// SPDX-License-Identifier: Apache-2.0
// http_server: HTTP/1.1 for machines: the issuer's API (mutual TLS by BoringSSL
// over libevent's evhttp), the admin API on a UNIX socket, /metrics. Bodies are
// whole and bounded; a handler answers now or later, on the loop.
#ifndef DEPUTY_COMMON_HTTP_HTTP_SERVER_H_
#define DEPUTY_COMMON_HTTP_HTTP_SERVER_H_

#include <jansson.h>
#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "common/net/loop.h"
#include "common/tls/trust.h"

#define HTTP_MAX_HEADERS_LEN (16u << 10)
#define HTTP_REQUEST_TIMEOUT_MS 30000  // a whole request, TLS handshake included
// Of these the handshake may take 10 s. A peer that reads no reply, or begins no
// further request for as long, is closed too.

struct http_server;
struct http_request;

// How a request names its route: method ("GET", "POST") and exact path.
struct http_route {
  const char *method;
  const char *path;
  void (*handle)(void *arg, struct http_request *request);
};

struct http_server_config {
  const struct http_route *routes;  // ended by a zero row; borrowed for the server's life
  void *arg;                        // given to every handler
  size_t max_body_len;              // bytes; larger: 413
  size_t max_connections;           // more are closed at accept and counted
  SSL_CTX *tls;                     // a reference is kept; NULL: plain (UNIX socket, loopback)
  int64_t limit_ms;                 // a whole request, a whole reply, the idle time between
                                    // requests; 0: HTTP_REQUEST_TIMEOUT_MS
};

struct http_server_stats {
  _Atomic uint64_t num_requests;
  _Atomic uint64_t num_connections;                 // ever
  _Atomic uint64_t num_open;                        // now
  _Atomic uint64_t num_refused;                     // over max_connections
  _Atomic uint64_t num_handshake_failed;            // TLS
  _Atomic uint64_t num_untrusted[TLS_REFUSAL_NUM];  // of these, for the peer's certificate
  _Atomic uint64_t num_malformed;                   // 400, 417, 501, 505: not asked of any route
  _Atomic uint64_t num_too_large;                   // 413, 431
  _Atomic uint64_t num_timeouts;                    // request or reply not through in time
  _Atomic uint64_t num_cut;                         // ended within a request or a reply
};

// http_server_new makes a server on the loop; http_server_listen adds a
// listening socket (taken). The process must ignore SIGPIPE (program_harden). Unknown path: 404;
// known path, other method: 405; both with a JSON body {"error":{"code","message"}}.
enum status http_server_new(struct http_server **out, struct loop *loop,
                            const struct http_server_config *config);
enum status http_server_listen(struct http_server *server, int *fd, struct errmsg *err);
// http_server_drain stops accepting; requests under way are finished. fn(arg) is
// called later, from the loop, when no connection is left.
void http_server_drain(struct http_server *server, void (*fn)(void *arg), void *arg);
// http_server_free closes everything. Requests that are not answered yet stay
// valid and are still to be answered (to nobody). Before loop_free.
void http_server_free(struct http_server *server);
// http_server_set_tls uses another context for connections to come. Those that
// are there end with their next reply, so that whom the new one does not trust
// is not let in for long.
void http_server_set_tls(struct http_server *server, SSL_CTX *tls);
const struct http_server_stats *http_server_stats(const struct http_server *server);

// --- within a handler, and until the reply --------------------------------------
// A request lives until it is answered. If the client goes away first, the
// answer is dropped quietly: handlers need not know.
struct bytes http_request_body(const struct http_request *request);
// http_request_query borrows the value of ?name=..., or NULL.
const char *http_request_query(const struct http_request *request, const char *name);
const char *http_request_header(const struct http_request *request, const char *name);
// http_request_ssl is the TLS connection (peer certificate), or NULL if plain.
const SSL *http_request_ssl(const struct http_request *request);
// The address of the peer as text, for audit lines.
const char *http_request_peer(const struct http_request *request);
// http_request_peer_uid is the user at the other end of a UNIX socket when it
// connected (unix(7), SO_PEERCRED); -1 for other sockets.
int64_t http_request_peer_uid(const struct http_request *request);

// http_request_send_fd passes an open file to the client at the other end of a UNIX
// socket (unix(7), SCM_RIGHTS), as a companion of an informational response that goes
// ahead of the reply (RFC 9110, section 15.2: 100, of which clients that ask for no file
// think nothing). `fd` is borrowed.
//   STATUS_REFUSED  no UNIX socket, or the client is gone
//   STATUS_SYSTEM   it cannot be sent at once
enum status http_request_send_fd(struct http_request *request, int fd);

// Exactly one of these answers a request, and ends its life.
void http_reply(struct http_request *request, int code, const char *content_type,
                struct bytes body);
void http_reply_json(struct http_request *request, int code, json_t *body);  // steals body
void http_reply_error(struct http_request *request, int code, const char *error_code,
                      const char *message);
// http_reply_metrics answers with what was written to `text` (500, if there was no memory
// for it), and cleans it.
void http_reply_metrics(struct http_request *request, struct metrics_text *text);

#endif  // DEPUTY_COMMON_HTTP_HTTP_SERVER_H_
