// SPDX-License-Identifier: Apache-2.0
// http_conn: one visitor of an http_server; internal to common/http.
//
//   socket <-> [TLS] <-> http_conn <-> struct evhttp
//
// libevent's evhttp finds routes, keeps headers and writes replies, and gets to
// see only whole, strictly read requests, one at a time: what it does by itself
// with half a request, with "Expect: other", or with bytes that come while it
// writes, ends in doubled replies or in exit(1) (2.1.12). The bufferevent that it
// is given is a filter whose functions write to the socket directly, so its
// output is empty exactly when the kernel has all of it, which is when evhttp
// may shut the socket down. The socket bufferevent underneath only owns the
// descriptor.
//
//  HANDSHAKE --> READ <--> BUSY           BUSY: evhttp and the handler have it
//      |          |
//      |          +------> REFUSE --> LINGER      a reply of our own, 4xx and 5xx
//  START, any --> CLOSED
#ifndef DEPUTY_COMMON_HTTP_HTTP_CONN_H_
#define DEPUTY_COMMON_HTTP_HTTP_CONN_H_

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "common/http/http_server.h"
#include "common/wire/http_head.h"

#define HTTP_HANDSHAKE_TIMEOUT_MS 10000
#define HTTP_REFUSE_TIMEOUT_MS 5000      // to send a refusal and let the peer finish
#define HTTP_LINGER_MAX_LEN (64u << 20)  // bytes thrown away meanwhile
#define HTTP_MAX_REQUESTS_PER_TURN 8     // pipelined, before others get a turn
#define HTTP_MAX_READS_PER_TURN 64

enum http_conn_state {
  HTTP_CONN_START,      // accepted; evhttp is still at it
  HTTP_CONN_HANDSHAKE,  // TLS
  HTTP_CONN_READ,       // a head or a body
  HTTP_CONN_BUSY,       // a whole request is being answered
  HTTP_CONN_REFUSE,     // sending a refusal
  HTTP_CONN_LINGER,     // so that no RST overtakes the refusal
  HTTP_CONN_CLOSED,     // evhttp has let go; freed by libevent soon
  HTTP_CONN_NUM_STATES,
};

struct http_conn {
  LIST_ENTRY(http_conn) link;
  struct http_server *server;  // NULL once CLOSED
  struct bufferevent *bev;     // evhttp's end; NULL once CLOSED
  SSL *ssl;                    // NULL: plain
  int fd;                      // owned by the bufferevent underneath
  enum http_conn_state state;
  struct io io;
  struct timer limit;
  struct timer kick;
  int64_t began_ms;
  bool is_running;
  bool is_over_limit;            // accepted above max_connections: closed at once
  bool is_failed;                // a write failed
  bool is_last;                  // the connection ends after this reply
  bool is_outdated;              // made with a context that has been replaced
  bool is_answered;              // evhttp has sent the whole reply
  unsigned num_in_turn;          // requests since others had a turn
  struct http_request *request;  // at the handler; NULL once replied to

  uint8_t *in;  // HTTP_MAX_HEADERS_LEN bytes, from the first use
  size_t in_len;
  size_t scanned;
  uint8_t *head;  // whole; NULL while it is still coming
  size_t head_len;
  bool is_chunked;
  uint64_t left;  // of the body, if not chunked
  struct http_chunked chunked;
  uint8_t *body;
  size_t body_len;
  size_t body_cap;

  char *own;  // a reply of ours
  size_t own_len;
  size_t own_sent;
  size_t num_lingered;
};

struct http_server {
  LIST_ENTRY(http_server) link;
  struct loop *loop;
  struct evhttp *evhttp;
  struct http_server_config config;
  struct http_server_stats stats;
  LIST_HEAD(, http_conn) conns;
  LIST_HEAD(, http_request) requests;
  struct http_conn *delivering;  // whose request evhttp is reading right now
  struct timer accept_pause;     // after EMFILE and its like
  struct timer drained;
  bool is_draining;
  void (*on_drained)(void *arg);
  void *on_drained_arg;
};

struct http_request {
  LIST_ENTRY(http_request) link;
  struct http_server *server;    // NULL: it is gone
  struct http_conn *conn;        // NULL: the client is gone
  struct evhttp_request *evreq;  // NULL: gone with the server
  SSL *ssl;                      // the connection's; owned here once that is gone
  uint8_t *body;
  size_t body_len;
  struct evkeyvalq query;
  char peer[ADDRESS_TEXT_LEN];
  int64_t peer_uid;
};

// http_conn_new is evhttp's bufferevent callback: it never fails.
struct bufferevent *http_conn_new(struct event_base *base, void *arg);

// http_conn_run does what can be done now.
void http_conn_run(struct http_conn *conn);

// http_conn_answered: a reply was handed to evhttp; the request is gone.
void http_conn_answered(struct http_conn *conn, bool is_last);

// http_conn_detach cuts the ties to the server and to evhttp.
void http_conn_detach(struct http_conn *conn);

// http_conn_is_idle: no request has begun.
bool http_conn_is_idle(const struct http_conn *conn);

// http_conn_close_idle ends it in good order if it is idle.
void http_conn_close_idle(struct http_conn *conn);

// http_conn_kill ends it now.
void http_conn_kill(struct http_conn *conn);

// http_request_deliver is called by evhttp (within the conn's run).
void http_request_deliver(struct evhttp_request *evreq, void *arg);

// http_server_closed: a connection is gone.
void http_server_closed(struct http_server *server);

// http_error_body returns new JSON text {"error":{"code","message"}}, or NULL.
char *http_error_body(const char *error_code, const char *message);

#endif  // DEPUTY_COMMON_HTTP_HTTP_CONN_H_
