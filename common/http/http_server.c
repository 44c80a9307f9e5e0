// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_server.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/http/http_conn.h"

#define ACCEPT_PAUSE_MS 100  // with no descriptor left, accepting again at once only burns CPU

static const struct {
  int code;
  const char *phrase;
} phrases[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

static const char *phrase_of(int code) {
  for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
    if (phrases[i].code == code) {
      return phrases[i].phrase;
    }
  }
  return "Other";
}

// --- accepting -------------------------------------------------------------------

// libevent tells a listener's error with the evhttp as argument, which does not
// lead to its server: hence this list. Errors are rare.
static pthread_mutex_t servers_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, http_server) servers = LIST_HEAD_INITIALIZER(servers);

static void set_accepting(struct evhttp_bound_socket *bound, void *arg) {
  const bool *is_on = arg;
  struct evconnlistener *listener = evhttp_bound_socket_get_listener(bound);
  if (*is_on) {
    (void)evconnlistener_enable(listener);
  } else {
    (void)evconnlistener_disable(listener);
  }
}

static void on_accept_resume(void *arg) {
  struct http_server *server = arg;
  bool is_on = true;
  evhttp_foreach_bound_socket(server->evhttp, set_accepting, &is_on);
}

static void on_accept_error(struct evconnlistener *listener, void *arg) {
  static struct log_gate gate;
  int reason = errno;
  uint64_t num_held = 0;
  struct http_server *server = NULL;
  (void)pthread_mutex_lock(&servers_lock);
  LIST_FOREACH (server, &servers, link) {
    if (server->evhttp == arg) {
      break;
    }
  }
  (void)pthread_mutex_unlock(&servers_lock);
  if (log_gate_pass(&gate, 1, &num_held)) {
    log_error(0, "http_accept_failed", "reason=\"%s\" held_back=%llu", strerror(reason),
              (unsigned long long)num_held);
  }
  if (server != NULL) {
    (void)evconnlistener_disable(listener);
    timer_arm_ms(&server->accept_pause, ACCEPT_PAUSE_MS);
  }
}

enum status http_server_listen(struct http_server *server, int *fd, struct errmsg *err) {
  // Backlog 0: it listens already, and by now the sandbox may have no listen.
  struct evconnlistener *listener = evconnlistener_new(
      loop_base(server->loop), NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, *fd);
  if (listener == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for a listener");
  }
  evconnlistener_set_error_cb(listener, on_accept_error);
  if (evhttp_bind_listener(server->evhttp, listener) == NULL) {
    evconnlistener_free(listener);
    *fd = -1;
    return errmsg_set(err, STATUS_MEMORY, "no memory for a listener");
  }
  *fd = -1;
  return STATUS_OK;
}

// --- life --------------------------------------------------------------------------

static void on_drained(void *arg) {
  struct http_server *server = arg;
  server->on_drained(server->on_drained_arg);
}

enum status http_server_new(struct http_server **out, struct loop *loop,
                            const struct http_server_config *config) {
  enum status st = STATUS_OK;
  struct http_server *server = calloc(1, sizeof(*server));
  *out = NULL;
  if (server == NULL) {
    return STATUS_MEMORY;
  }
  server->loop = loop;
  server->config = *config;
  LIST_INIT(&server->conns);
  LIST_INIT(&server->requests);
  if (config->tls != NULL) {
    (void)SSL_CTX_up_ref(config->tls);
  }
  (void)pthread_mutex_lock(&servers_lock);
  LIST_INSERT_HEAD(&servers, server, link);
  (void)pthread_mutex_unlock(&servers_lock);
  TRY(timer_init(&server->accept_pause, loop, on_accept_resume, server));
  TRY(timer_init(&server->drained, loop, on_drained, server));
  server->evhttp = evhttp_new(loop_base(loop));
  if (server->evhttp == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  evhttp_set_bevcb(server->evhttp, http_conn_new, server);
  evhttp_set_gencb(server->evhttp, http_request_deliver, server);
  // Every method reaches the routes: 405 is theirs to say.
  evhttp_set_allowed_methods(server->evhttp, 0xffff);
  *out = server;
  server = NULL;

out:
  http_server_free(server);
  return st;
}

void http_server_free(struct http_server *server) {
  struct http_request *request = NULL;
  if (server == NULL) {
    return;
  }
  server->on_drained = NULL;
  while (!LIST_EMPTY(&server->conns)) {
    http_conn_detach(LIST_FIRST(&server->conns));
  }
  while ((request = LIST_FIRST(&server->requests)) != NULL) {
    LIST_REMOVE(request, link);
    request->server = NULL;
  }
  if (server->evhttp != NULL) {
    evhttp_free(server->evhttp);
  }
  (void)pthread_mutex_lock(&servers_lock);
  LIST_REMOVE(server, link);
  (void)pthread_mutex_unlock(&servers_lock);
  timer_cleanup(&server->accept_pause);
  timer_cleanup(&server->drained);
  SSL_CTX_free(server->config.tls);
  free(server);
}

void http_server_set_tls(struct http_server *server, SSL_CTX *tls) {
  struct http_conn *conn = NULL;
  (void)SSL_CTX_up_ref(tls);
  SSL_CTX_free(server->config.tls);
  server->config.tls = tls;
  // Closing the idle ones now would cut off a request that is on its way.
  LIST_FOREACH (conn, &server->conns, link) {
    conn->is_outdated = true;
  }
}

const struct http_server_stats *http_server_stats(const struct http_server *server) {
  return &server->stats;
}

static void take_first_listener(struct evhttp_bound_socket *bound, void *arg) {
  struct evhttp_bound_socket **out = arg;
  *out = bound;
}

void http_server_drain(struct http_server *server, void (*fn)(void *arg), void *arg) {
  struct http_conn *conn = NULL;
  struct http_conn *next = NULL;
  server->is_draining = true;
  server->on_drained = fn;
  server->on_drained_arg = arg;
  timer_cancel(&server->accept_pause);
  for (;;) {
    struct evhttp_bound_socket *bound = NULL;
    evhttp_foreach_bound_socket(server->evhttp, take_first_listener, &bound);
    if (bound == NULL) {
      break;
    }
    evhttp_del_accept_socket(server->evhttp, bound);
  }
  for (conn = LIST_FIRST(&server->conns); conn != NULL; conn = next) {
    next = LIST_NEXT(conn, link);
    http_conn_close_idle(conn);
  }
  if (LIST_EMPTY(&server->conns)) {
    timer_arm_ms(&server->drained, 0);
  }
}

void http_server_closed(struct http_server *server) {
  server->stats.num_open--;
  if (server->on_drained != NULL && server->stats.num_open == 0) {
    timer_arm_ms(&server->drained, 0);
  }
}

// --- requests ------------------------------------------------------------------------

static void request_free(struct http_request *request) {
  if (request->server != NULL) {
    LIST_REMOVE(request, link);
  }
  evhttp_clear_headers(&request->query);
  if (request->conn == NULL) {
    SSL_free(request->ssl);
  }
  free(request->body);
  free(request);
}

static void on_complete(struct evhttp_request *evreq, void *arg) {
  struct http_conn *conn = arg;
  (void)evreq;
  conn->is_answered = true;
}

static const char *method_name(const struct evhttp_request *evreq) {
  switch (evhttp_request_get_command(evreq)) {
    case EVHTTP_REQ_GET:
      return "GET";
    case EVHTTP_REQ_POST:
      return "POST";
    case EVHTTP_REQ_HEAD:
      return "HEAD";
    case EVHTTP_REQ_PUT:
      return "PUT";
    case EVHTTP_REQ_DELETE:
      return "DELETE";
    case EVHTTP_REQ_PATCH:
      return "PATCH";
    default:
      return "";
  }
}

static void route(struct http_server *server, struct http_request *request) {
  const char *method = method_name(request->evreq);
  const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(request->evreq));
  bool has_path = false;
  for (const struct http_route *row = server->config.routes; row->path != NULL; row++) {
    if (path == NULL || strcmp(row->path, path) != 0) {
      continue;
    }
    has_path = true;
    if (strcmp(row->method, method) == 0) {
      row->handle(server->config.arg, request);
      return;
    }
  }
  if (has_path) {
    http_reply_error(request, 405, "method_not_allowed", "this path has other methods");
  } else {
    http_reply_error(request, 404, "not_found", "no such path");
  }
}

static int64_t uid_of_peer(const struct address *peer, int fd) {
  struct ucred credentials;
  socklen_t len = sizeof(credentials);
  if (peer->storage.ss_family != AF_UNIX ||
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) != 0) {
    return -1;
  }
  return (int64_t)credentials.uid;
}

void http_request_deliver(struct evhttp_request *evreq, void *arg) {
  struct http_server *server = arg;
  struct http_conn *conn = server->delivering;
  struct http_request *request = calloc(1, sizeof(*request));
  struct address peer = {0};
  const char *query = NULL;

  CHECK(conn != NULL);
  evhttp_request_set_on_complete_cb(evreq, on_complete, conn);
  if (request == NULL) {
    evhttp_send_error(evreq, 503, "Service Unavailable");
    return;
  }
  TAILQ_INIT(&request->query);
  request->server = server;
  request->conn = conn;
  request->evreq = evreq;
  request->ssl = conn->ssl;
  request->body = conn->body;
  request->body_len = conn->body_len;
  conn->body = NULL;
  conn->body_len = conn->body_cap = 0;
  request->peer_uid = -1;
  if (address_of_peer(&peer, conn->fd) == STATUS_OK) {
    (void)address_format(request->peer, &peer);
    request->peer_uid = uid_of_peer(&peer, conn->fd);
  }
  query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(evreq));
  if (query != NULL) {
    (void)evhttp_parse_query_str(query, &request->query);  // malformed: as if there were none
  }
  LIST_INSERT_HEAD(&server->requests, request, link);
  conn->request = request;
  route(server, request);
}

struct bytes http_request_body(const struct http_request *request) {
  return bytes_of(request->body, request->body_len);
}

const char *http_request_query(const struct http_request *request, const char *name) {
  return evhttp_find_header(&request->query, name);
}

const char *http_request_header(const struct http_request *request, const char *name) {
  return request->evreq == NULL
             ? NULL
             : evhttp_find_header(evhttp_request_get_input_headers(request->evreq), name);
}

const SSL *http_request_ssl(const struct http_request *request) { return request->ssl; }

const char *http_request_peer(const struct http_request *request) { return request->peer; }

int64_t http_request_peer_uid(const struct http_request *request) { return request->peer_uid; }

enum status http_request_send_fd(struct http_request *request, int fd) {
  static const char head[] = "HTTP/1.1 100 Continue\r\n\r\n";
  union {
    struct cmsghdr header;  // aligns the bytes
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec text = {.iov_base = (void *)head, .iov_len = sizeof(head) - 1};
  struct msghdr message = {.msg_iov = &text,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof(control.bytes)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  ssize_t sent = 0;

  if (request->conn == NULL || request->conn->ssl != NULL || request->peer_uid < 0) {
    return STATUS_REFUSED;
  }
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  // Nothing of an earlier reply is left: the next request is read when it is through.
  sent = sendmsg(request->conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent == (ssize_t)(sizeof(head) - 1) ? STATUS_OK : STATUS_SYSTEM;
}

// --- replies ---------------------------------------------------------------------------

static void send_reply(struct http_request *request, int code, const char *content_type,
                       struct bytes body, bool is_last) {
  struct evkeyvalq *headers = evhttp_request_get_output_headers(request->evreq);
  struct evbuffer *buffer = evbuffer_new();
  // Only memory can be missing in the following, and a reply that lacks a part
  // must not leave.
  CHECK(buffer != NULL && evbuffer_add(buffer, body.data, body.len) == 0);
  CHECK(evhttp_add_header(headers, "Content-Type", content_type) == 0);
  CHECK(evhttp_add_header(headers, "Cache-Control", "no-store") == 0);
  if (is_last) {
    CHECK(evhttp_add_header(headers, "Connection", "close") == 0);
  }
  evhttp_send_reply(request->evreq, code, phrase_of(code), buffer);
  evbuffer_free(buffer);
}

void http_reply(struct http_request *request, int code, const char *content_type,
                struct bytes body) {
  struct http_conn *conn = request->conn;
  bool is_last = false;
  if (conn == NULL) {
    request_free(request);
    return;
  }
  is_last = conn->is_outdated || conn->server->is_draining;
  send_reply(request, code, content_type, body, is_last);
  request_free(request);
  http_conn_answered(conn, is_last);
}

void http_reply_json(struct http_request *request, int code, json_t *body) {
  char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
  json_decref(body);
  if (text == NULL) {
    http_reply_error(request, 500, "internal", "no memory for the reply");
    return;
  }
  http_reply(request, code, "application/json", bytes_text(text));
  free(text);
}

char *http_error_body(const char *error_code, const char *message) {
  json_t *body = json_pack("{s:{s:s,s:s}}", "error", "code", error_code, "message", message);
  char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
  json_decref(body);
  return text;
}

void http_reply_error(struct http_request *request, int code, const char *error_code,
                      const char *message) {
  char *text = http_error_body(error_code, message);
  http_reply(request, code, "application/json", bytes_text(text == NULL ? "{}" : text));
  free(text);
}

void http_reply_metrics(struct http_request *request, struct metrics_text *text) {
  if (text->is_failed) {
    http_reply_error(request, 500, "internal", "no memory for the figures");
  } else {
    http_reply(request, 200, "text/plain; version=0.0.4; charset=utf-8",
               bytes_of(text->data, text->len));
  }
  metrics_text_cleanup(text);
}
