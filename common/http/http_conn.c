// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_conn.h"

#include <errno.h>
#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/tls_error.h"
#include "common/tls/trust.h"

#define WRITE_MAX_LEN 16384u  // one TLS record

static void on_ready(void *arg, unsigned ready);

enum step { STEP_GO, STEP_WAIT };

static const struct {
  int code;
  const char *word;
  const char *phrase;
} refusals[] = {
    {400, "bad_request", "Bad Request"},
    {408, "timeout", "Request Timeout"},
    {413, "too_large", "Content Too Large"},
    {417, "expectation_failed", "Expectation Failed"},
    {431, "headers_too_large", "Request Header Fields Too Large"},
    {501, "not_implemented", "Not Implemented"},
    {503, "unavailable", "Service Unavailable"},
    {505, "version_not_supported", "HTTP Version Not Supported"},
};

// --- bytes in and out ----------------------------------------------------------

static enum status tls_result(struct http_conn *conn, int result) {
  char reason[TLS_ERROR_TEXT_LEN];
  switch (SSL_get_error(conn->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return STATUS_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
      return STATUS_CLOSED;
    case SSL_ERROR_SYSCALL:
      (void)tls_error_drain(reason, sizeof(reason));
      return STATUS_CLOSED;
    default:
      (void)tls_error_drain(reason, sizeof(reason));
      log_debug(0, "http_tls_error", "reason=%s", reason);
      return STATUS_CRYPTO;
  }
}

static enum status conn_recv(struct http_conn *conn, uint8_t *out, size_t max, size_t *out_len) {
  *out_len = 0;
  if (conn->ssl != NULL) {
    int n = SSL_read(conn->ssl, out, (int)max);
    if (n > 0) {
      *out_len = (size_t)n;
      return STATUS_OK;
    }
    return tls_result(conn, n);
  }
  for (;;) {
    ssize_t n = recv(conn->fd, out, max, 0);
    if (n > 0) {
      *out_len = (size_t)n;
      return STATUS_OK;
    }
    if (n == 0) {
      return STATUS_CLOSED;
    }
    if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? STATUS_AGAIN : STATUS_CLOSED;
    }
  }
}

static enum status conn_send(struct http_conn *conn, const uint8_t *data, size_t len,
                             size_t *out_sent) {
  *out_sent = 0;
  if (conn->ssl != NULL) {
    int n = SSL_write(conn->ssl, data, (int)len);
    if (n > 0) {
      *out_sent = (size_t)n;
      return STATUS_OK;
    }
    return tls_result(conn, n);
  }
  for (;;) {
    ssize_t n = send(conn->fd, data, len, MSG_NOSIGNAL);
    if (n >= 0) {
      *out_sent = (size_t)n;
      return STATUS_OK;
    }
    if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? STATUS_AGAIN : STATUS_CLOSED;
    }
  }
}

// So that the peer can tell an end from a cut (RFC 8446, section 6.1).
static void send_close_notify(struct http_conn *conn) {
  if (conn->ssl != NULL) {
    (void)SSL_shutdown(conn->ssl);
    ERR_clear_error();
  }
}

// What evhttp has written goes to the socket, as far as that takes it. Called
// by libevent from within step_busy only: evhttp enables writing after it has
// added a whole reply. Must not end the connection: evhttp is on the stack.
static enum bufferevent_filter_result on_output(struct evbuffer *src, struct evbuffer *dst,
                                                ev_ssize_t limit, enum bufferevent_flush_mode mode,
                                                void *arg) {
  struct http_conn *conn = arg;
  bool has_written = false;
  size_t len = 0;
  (void)dst;
  (void)limit;
  (void)mode;
  if (conn->state != HTTP_CONN_BUSY || conn->is_failed) {
    return BEV_NEED_MORE;
  }
  while ((len = evbuffer_get_length(src)) > 0) {
    size_t sent = 0;
    const uint8_t *data = NULL;
    len = len < WRITE_MAX_LEN ? len : WRITE_MAX_LEN;
    data = evbuffer_pullup(src, (ev_ssize_t)len);
    switch (data == NULL ? STATUS_MEMORY : conn_send(conn, data, len, &sent)) {
      case STATUS_OK:
        (void)evbuffer_drain(src, sent);
        has_written = true;
        break;
      case STATUS_AGAIN:
        return has_written ? BEV_OK : BEV_NEED_MORE;
      default:
        conn->is_failed = true;
        return BEV_ERROR;
    }
  }
  if (conn->is_last) {
    // evhttp shuts the socket down as soon as it learns that all is sent.
    send_close_notify(conn);
  }
  return has_written ? BEV_OK : BEV_NEED_MORE;
}

// Input is put into evhttp's buffer by deliver(), never by libevent.
static enum bufferevent_filter_result on_input(struct evbuffer *src, struct evbuffer *dst,
                                               ev_ssize_t limit, enum bufferevent_flush_mode mode,
                                               void *arg) {
  (void)src;
  (void)dst;
  (void)limit;
  (void)mode;
  (void)arg;
  return BEV_NEED_MORE;
}

// --- life ------------------------------------------------------------------------

// The server ends while a handler still has the request. (A client's end is not
// looked for meanwhile: it shows when the reply is written.) evhttp frees its own
// part with the connection.
static void orphan_request(struct http_conn *conn) {
  if (conn->request != NULL) {
    conn->request->evreq = NULL;
    conn->request->conn = NULL;
    conn->request = NULL;
    conn->ssl = NULL;  // goes on living as the request's: who asked may still be of interest
  }
}

void http_conn_detach(struct http_conn *conn) {
  struct http_server *server = conn->server;
  if (conn->state == HTTP_CONN_CLOSED) {
    return;
  }
  orphan_request(conn);
  conn->state = HTTP_CONN_CLOSED;
  conn->bev = NULL;
  conn->server = NULL;
  LIST_REMOVE(conn, link);
  io_cleanup(&conn->io);
  timer_cleanup(&conn->limit);
  timer_cleanup(&conn->kick);
  http_server_closed(server);
}

static void on_evhttp_close(struct evhttp_connection *evcon, void *arg) {
  (void)evcon;
  http_conn_detach(arg);
}

// libevent's last word: the filter is gone, the descriptor goes next.
static void on_filter_free(void *arg) {
  struct http_conn *conn = arg;
  CHECK(conn->state == HTTP_CONN_CLOSED);
  SSL_free(conn->ssl);
  free(conn->in);
  free(conn->head);
  free(conn->body);
  free(conn->own);
  free(conn);
}

void http_conn_kill(struct http_conn *conn) {
  if (conn->state != HTTP_CONN_CLOSED) {
    // evhttp takes it for the peer's end, and closes (on_evhttp_close).
    bufferevent_trigger_event(conn->bev, BEV_EVENT_EOF | BEV_EVENT_READING, 0);
    CHECK(conn->state == HTTP_CONN_CLOSED);
  }
}

void http_conn_close_idle(struct http_conn *conn) {
  if (http_conn_is_idle(conn)) {
    send_close_notify(conn);
    http_conn_kill(conn);
  }
}

bool http_conn_is_idle(const struct http_conn *conn) {
  return conn->state == HTTP_CONN_READ && conn->in_len == 0 && conn->head == NULL;
}

static void enter(struct http_conn *conn, enum http_conn_state next, int64_t limit_ms) {
  CHECK(conn->state != HTTP_CONN_CLOSED);
  conn->state = next;
  if (limit_ms > 0) {
    timer_arm_ms(&conn->limit, limit_ms);
  } else {
    timer_cancel(&conn->limit);
  }
}

static int64_t limit_ms(const struct http_conn *conn) {
  return conn->server->config.limit_ms > 0 ? conn->server->config.limit_ms
                                           : HTTP_REQUEST_TIMEOUT_MS;
}

// --- refusals of our own -----------------------------------------------------------

static void count_refusal(struct http_server *server, int code) {
  if (code == 408) {
    server->stats.num_timeouts++;
  } else if (code == 413 || code == 431) {
    server->stats.num_too_large++;
  } else {
    server->stats.num_malformed++;
  }
}

static enum step refuse(struct http_conn *conn, int code, const char *why) {
  size_t row = 0;
  char *body = NULL;
  int len = -1;
  while (row + 1 < sizeof(refusals) / sizeof(refusals[0]) && refusals[row].code != code) {
    row++;
  }
  count_refusal(conn->server, code);
  log_debug(0, "http_refused", "code=%d reason=\"%s\"", code, why);
  body = http_error_body(refusals[row].word, why);
  if (body != NULL) {
    len = asprintf(&conn->own,
                   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                   "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s",
                   code, refusals[row].phrase, strlen(body), body);
    free(body);
  }
  if (len < 0) {
    conn->own = NULL;
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  conn->own_len = (size_t)len;
  conn->own_sent = 0;
  enter(conn, HTTP_CONN_REFUSE, HTTP_REFUSE_TIMEOUT_MS);
  return STEP_GO;
}

static enum step step_refuse(struct http_conn *conn) {
  while (conn->own_sent < conn->own_len) {
    size_t sent = 0;
    enum status st = conn_send(conn, (const uint8_t *)conn->own + conn->own_sent,
                               conn->own_len - conn->own_sent, &sent);
    if (st == STATUS_AGAIN) {
      return STEP_WAIT;
    }
    if (st != STATUS_OK) {
      http_conn_kill(conn);
      return STEP_WAIT;
    }
    conn->own_sent += sent;
  }
  send_close_notify(conn);
  (void)shutdown(conn->fd, SHUT_WR);
  conn->state = HTTP_CONN_LINGER;  // under the same limit
  return STEP_GO;
}

// Closing with unread bytes in the kernel sends a RST, which may make the peer
// drop the refusal before it is read.
static enum step step_linger(struct http_conn *conn) {
  char waste[4096];
  while (conn->num_lingered < HTTP_LINGER_MAX_LEN) {
    ssize_t n = recv(conn->fd, waste, sizeof(waste), 0);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return STEP_WAIT;
    }
    if (n <= 0) {
      break;
    }
    conn->num_lingered += (size_t)n;
  }
  http_conn_kill(conn);
  return STEP_WAIT;
}

// --- handshake -----------------------------------------------------------------------

static void log_handshake(struct http_conn *conn, const char *reason) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  struct address peer = {0};
  char text[ADDRESS_TEXT_LEN] = "";
  conn->server->stats.num_handshake_failed++;
  if (log_gate_pass(&gate, 5, &num_held)) {
    if (address_of_peer(&peer, conn->fd) == STATUS_OK) {
      (void)address_format(text, &peer);
    }
    log_info(0, "http_handshake_failed", "peer=%s reason=%s held_back=%llu", text, reason,
             (unsigned long long)num_held);
  }
}

static enum step step_handshake(struct http_conn *conn) {
  char reason[TLS_ERROR_TEXT_LEN] = "";
  enum tls_refusal refusal = TLS_REFUSAL_NONE;
  int64_t spent_ms = 0;
  int result = SSL_do_handshake(conn->ssl);
  if (result == 1) {
    spent_ms = clock_monotonic_ms() - conn->began_ms;
    enter(conn, HTTP_CONN_READ, limit_ms(conn) > spent_ms ? limit_ms(conn) - spent_ms : 1);
    return STEP_GO;
  }
  switch (SSL_get_error(conn->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return STEP_WAIT;
    default:
      (void)tls_error_drain(reason, sizeof(reason));
      refusal = tls_refusal_of(conn->ssl, reason);
      conn->server->stats.num_untrusted[refusal]++;
      log_handshake(conn, refusal != TLS_REFUSAL_NONE ? tls_refusal_name(refusal)
                          : reason[0] != '\0'         ? reason
                                                      : "closed");
      http_conn_kill(conn);
      return STEP_WAIT;
  }
}

// --- reading a request -----------------------------------------------------------------

static void consume(struct http_conn *conn, size_t len) {
  CHECK(len <= conn->in_len);
  memmove(conn->in, conn->in + len, conn->in_len - len);
  conn->in_len -= len;
  conn->scanned = 0;
}

// Memory follows what has come, not what was announced.
static enum status body_add(struct http_conn *conn, struct bytes in) {
  size_t max = conn->server->config.max_body_len;
  if (in.len > max - conn->body_len) {
    return STATUS_LIMIT;
  }
  if (conn->body_len + in.len > conn->body_cap) {
    size_t cap = conn->body_cap == 0 ? HTTP_MAX_HEADERS_LEN : conn->body_cap * 2;
    uint8_t *body = NULL;
    cap = cap < conn->body_len + in.len ? conn->body_len + in.len : cap;
    cap = cap > max ? max : cap;
    body = realloc(conn->body, cap);
    if (body == NULL) {
      return STATUS_MEMORY;
    }
    conn->body = body;
    conn->body_cap = cap;
  }
  if (in.len > 0) {
    memcpy(conn->body + conn->body_len, in.data, in.len);
    conn->body_len += in.len;
  }
  return STATUS_OK;
}

// Takes what is in `in` for the body. OK: the body is whole.
static enum status body_take(struct http_conn *conn) {
  size_t used_all = 0;
  enum status st = STATUS_AGAIN;
  if (!conn->is_chunked) {
    size_t len = conn->in_len < conn->left ? conn->in_len : (size_t)conn->left;
    st = body_add(conn, bytes_of(conn->in, len));
    if (st != STATUS_OK) {
      return st;
    }
    conn->left -= len;
    consume(conn, len);
    return conn->left == 0 ? STATUS_OK : STATUS_AGAIN;
  }
  while (used_all < conn->in_len && st == STATUS_AGAIN) {
    size_t used = 0;
    struct bytes data = {0};
    enum status kept = STATUS_OK;
    st = http_chunked_decode(&conn->chunked, bytes_of(conn->in + used_all, conn->in_len - used_all),
                             &used, &data);
    used_all += used;
    kept = body_add(conn, data);
    st = kept == STATUS_OK ? st : kept;
  }
  consume(conn, used_all);
  return st;
}

// Fields that speak of this connection or of the body's framing: evhttp gets the
// request without a body and with a word of ours on the connection.
static bool is_hop_field(struct bytes name) {
  static const char *const names[] = {
      "Connection", "Content-Length", "Expect",           "Keep-Alive",       "TE",
      "Trailer",    "Upgrade",        "Proxy-Connection", "Transfer-Encoding"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    if (name.len == strlen(names[i]) &&
        strncasecmp((const char *)name.data, names[i], name.len) == 0) {
      return true;
    }
  }
  return false;
}

static bool write_head(struct evbuffer *to, const struct http_head *head) {
  bool is_ok = evbuffer_add(to, head->method.data, head->method.len) == 0 &&
               evbuffer_add(to, " ", 1) == 0 &&
               evbuffer_add(to, head->target.data, head->target.len) == 0 &&
               evbuffer_add(to, " HTTP/1.1\r\n", 11) == 0;
  for (size_t i = 0; i < head->num_fields && is_ok; i++) {
    const struct http_field *field = &head->fields[i];
    if (!is_hop_field(field->name)) {
      is_ok = evbuffer_add(to, field->name.data, field->name.len) == 0 &&
              evbuffer_add(to, ": ", 2) == 0 &&
              evbuffer_add(to, field->value.data, field->value.len) == 0 &&
              evbuffer_add(to, "\r\n", 2) == 0;
    }
  }
  if (head->is_last) {
    is_ok = is_ok && evbuffer_add(to, "Connection: close\r\n", 19) == 0;
  }
  return is_ok && evbuffer_add(to, "\r\n", 2) == 0;
}

// The request is whole: evhttp reads it and calls http_request_deliver.
static enum step deliver(struct http_conn *conn, const struct http_head *head) {
  struct http_server *server = conn->server;
  conn->is_answered = false;
  conn->is_last = head->is_last;
  enter(conn, HTTP_CONN_BUSY, 0);
  if (!write_head(bufferevent_get_input(conn->bev), head)) {
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  free(conn->head);
  conn->head = NULL;
  server->stats.num_requests++;
  server->delivering = conn;
  bufferevent_trigger(conn->bev, EV_READ, 0);
  server->delivering = NULL;
  if (conn->state == HTTP_CONN_BUSY && conn->request == NULL) {
    // Answered at once, by the handler or by evhttp itself.
    timer_arm_ms(&conn->limit, limit_ms(conn));
  }
  return STEP_GO;
}

static bool is_bodiless(struct bytes method) {
  return bytes_equal(method, bytes_text("HEAD")) || bytes_equal(method, bytes_text("TRACE")) ||
         bytes_equal(method, bytes_text("CONNECT"));
}

// A head has come: is its body acceptable?
static enum step begin_body(struct http_conn *conn, const struct http_head *head) {
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  bool has_body = head->is_chunked || head->content_length > 0;
  size_t sent = 0;
  if (has_body && is_bodiless(head->method)) {
    return refuse(conn, 400, "this method takes no body");
  }
  if (head->content_length > conn->server->config.max_body_len) {
    return refuse(conn, 413, "the body is larger than this server accepts");
  }
  conn->is_chunked = head->is_chunked;
  conn->left = head->content_length;
  conn->chunked = (struct http_chunked){0};
  conn->body_len = 0;
  if (has_body && head->expects_continue && conn->in_len == 0) {
    // These few bytes fit the socket, unless the peer reads nothing at all.
    if (conn_send(conn, (const uint8_t *)go_on, sizeof(go_on) - 1, &sent) != STATUS_OK ||
        sent != sizeof(go_on) - 1) {
      http_conn_kill(conn);
      return STEP_WAIT;
    }
  }
  return STEP_GO;
}

// Moves the head from `in` to `head` when it is whole.
static enum step use_head(struct http_conn *conn) {
  struct http_head head;
  size_t len = 0;
  enum status st = STATUS_OK;

  while (conn->scanned == 0 && conn->in_len >= 2 && memcmp(conn->in, "\r\n", 2) == 0) {
    consume(conn, 2);  // RFC 9112, section 2.2
  }
  st = http_head_measure(&conn->scanned, bytes_of(conn->in, conn->in_len), &len);
  if (st == STATUS_FORMAT) {
    return refuse(conn, 400, "this is not HTTP/1.1");
  }
  if (st == STATUS_AGAIN) {
    return conn->in_len == HTTP_MAX_HEADERS_LEN ? refuse(conn, 431, "the head is too long")
                                                : STEP_WAIT;
  }
  conn->head = bytes_copy(bytes_of(conn->in, len));
  conn->head_len = len;
  if (conn->head == NULL) {
    return refuse(conn, 503, "no memory");
  }
  consume(conn, len);
  if (http_head_parse(&head, bytes_of(conn->head, conn->head_len)) != STATUS_OK) {
    return refuse(conn, head.refusal, head.why);
  }
  return begin_body(conn, &head);
}

static enum step use_body(struct http_conn *conn) {
  struct http_head head;
  switch (body_take(conn)) {
    case STATUS_OK:
      break;
    case STATUS_AGAIN:
      return STEP_WAIT;
    case STATUS_LIMIT:
      return refuse(conn, 413, "the body is larger than this server accepts");
    case STATUS_MEMORY:
      return refuse(conn, 503, "no memory");
    default:
      return refuse(conn, 400, "a chunk of the body is malformed");
  }
  CHECK(http_head_parse(&head, bytes_of(conn->head, conn->head_len)) == STATUS_OK);
  return deliver(conn, &head);
}

// The peer has ended its side, or the connection broke.
static enum step end_of_input(struct http_conn *conn, enum status st) {
  if (!http_conn_is_idle(conn)) {
    conn->server->stats.num_cut++;
  } else if (st == STATUS_CLOSED) {
    send_close_notify(conn);
  }
  http_conn_kill(conn);
  return STEP_WAIT;
}

static enum step step_read(struct http_conn *conn) {
  if (conn->in == NULL) {
    conn->in = malloc(HTTP_MAX_HEADERS_LEN);
    if (conn->in == NULL) {
      return refuse(conn, 503, "no memory");
    }
  }
  for (unsigned num_reads = 0; num_reads < HTTP_MAX_READS_PER_TURN; num_reads++) {
    size_t len = 0;
    enum status st = STATUS_OK;
    enum step step = conn->head == NULL ? use_head(conn) : use_body(conn);
    if (step == STEP_GO || conn->state != HTTP_CONN_READ) {
      return step;
    }
    st = conn_recv(conn, conn->in + conn->in_len, HTTP_MAX_HEADERS_LEN - conn->in_len, &len);
    if (st == STATUS_AGAIN) {
      return STEP_WAIT;
    }
    if (st != STATUS_OK) {
      return end_of_input(conn, st);
    }
    conn->in_len += len;
  }
  timer_arm_ms(&conn->kick, 0);  // the others first
  return STEP_WAIT;
}

// --- while it is answered ---------------------------------------------------------------

static enum step step_busy(struct http_conn *conn) {
  if (conn->request != NULL) {
    return STEP_WAIT;
  }
  (void)bufferevent_flush(conn->bev, EV_WRITE, BEV_NORMAL);
  if (conn->state == HTTP_CONN_CLOSED) {
    return STEP_WAIT;
  }
  if (conn->is_failed) {
    conn->server->stats.num_cut++;
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  if (!conn->is_answered) {
    return STEP_WAIT;
  }
  // evhttp is ready for the next request.
  enter(conn, HTTP_CONN_READ, limit_ms(conn));
  if (++conn->num_in_turn >= HTTP_MAX_REQUESTS_PER_TURN) {
    timer_arm_ms(&conn->kick, 0);
    return STEP_WAIT;
  }
  return STEP_GO;
}

// --- the machine ------------------------------------------------------------------------

static enum step step_start(struct http_conn *conn) {
  void *evcon = NULL;
  const int on = 1;
  bufferevent_getcb(conn->bev, NULL, NULL, NULL, &evcon);
  evhttp_connection_set_closecb(evcon, on_evhttp_close, conn);
  conn->fd = bufferevent_getfd(conn->bev);
  if (conn->is_over_limit) {
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // not for AF_UNIX
  if (io_init(&conn->io, conn->server->loop, conn->fd, on_ready, conn) != STATUS_OK) {
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  if (conn->server->config.tls == NULL) {
    enter(conn, HTTP_CONN_READ, limit_ms(conn));
    return STEP_GO;
  }
  conn->ssl = SSL_new(conn->server->config.tls);
  if (conn->ssl == NULL || SSL_set_fd(conn->ssl, conn->fd) != 1) {
    log_handshake(conn, "no memory");
    http_conn_kill(conn);
    return STEP_WAIT;
  }
  SSL_set_accept_state(conn->ssl);
  SSL_set_mode(conn->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  enter(conn, HTTP_CONN_HANDSHAKE,
        limit_ms(conn) < HTTP_HANDSHAKE_TIMEOUT_MS ? limit_ms(conn) : HTTP_HANDSHAKE_TIMEOUT_MS);
  return STEP_GO;
}

static enum step step_closed(struct http_conn *conn) {
  (void)conn;
  return STEP_WAIT;
}

static enum step (*const steps[HTTP_CONN_NUM_STATES])(struct http_conn *conn) = {
    [HTTP_CONN_START] = step_start,   [HTTP_CONN_HANDSHAKE] = step_handshake,
    [HTTP_CONN_READ] = step_read,     [HTTP_CONN_BUSY] = step_busy,
    [HTTP_CONN_REFUSE] = step_refuse, [HTTP_CONN_LINGER] = step_linger,
    [HTTP_CONN_CLOSED] = step_closed,
};

void http_conn_run(struct http_conn *conn) {
  if (conn->is_running) {
    return;  // a reply from within the handler: the loop below goes on
  }
  conn->is_running = true;
  conn->num_in_turn = 0;
  while (steps[conn->state](conn) == STEP_GO) {
  }
  conn->is_running = false;
}

static void on_ready(void *arg, unsigned ready) {
  struct http_conn *conn = arg;
  (void)ready;
  if (conn->state != HTTP_CONN_START) {
    http_conn_run(conn);
  }
}

static void on_kick(void *arg) { http_conn_run(arg); }

static void on_limit(void *arg) {
  struct http_conn *conn = arg;
  switch (conn->state) {
    case HTTP_CONN_HANDSHAKE:
      log_handshake(conn, "timeout");
      break;
    case HTTP_CONN_READ:
      if (!http_conn_is_idle(conn)) {
        (void)refuse(conn, 408, "the request did not come in time");
        http_conn_run(conn);
        return;
      }
      send_close_notify(conn);
      break;
    case HTTP_CONN_BUSY:
      conn->server->stats.num_timeouts++;  // the peer does not read the reply
      break;
    default:
      break;
  }
  http_conn_kill(conn);
}

void http_conn_answered(struct http_conn *conn, bool is_last) {
  conn->request = NULL;
  conn->is_last |= is_last;
  timer_arm_ms(&conn->limit, limit_ms(conn));
  http_conn_run(conn);
}

// evhttp would serve plain HTTP on a bufferevent of its own if it got none from
// here, so memory is checked the hard way.
struct bufferevent *http_conn_new(struct event_base *base, void *arg) {
  struct http_server *server = arg;
  struct http_conn *conn = calloc(1, sizeof(*conn));
  struct bufferevent *socket = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
  CHECK(conn != NULL && socket != NULL);
  conn->bev = bufferevent_filter_new(socket, on_input, on_output, BEV_OPT_CLOSE_ON_FREE,
                                     on_filter_free, conn);
  CHECK(conn->bev != NULL);
  (void)bufferevent_disable(socket, EV_READ | EV_WRITE);  // it only owns the descriptor
  conn->server = server;
  conn->fd = -1;
  conn->io.fd = -1;
  conn->began_ms = clock_monotonic_ms();
  CHECK(timer_init(&conn->limit, server->loop, on_limit, conn) == STATUS_OK);
  CHECK(timer_init(&conn->kick, server->loop, on_kick, conn) == STATUS_OK);
  server->stats.num_connections++;
  if (server->stats.num_open >= server->config.max_connections || server->is_draining) {
    server->stats.num_refused++;
    conn->is_over_limit = true;
  }
  server->stats.num_open++;
  LIST_INSERT_HEAD(&server->conns, conn, link);
  timer_arm_ms(&conn->kick, 0);  // evhttp sets the descriptor after this
  return conn->bev;
}
