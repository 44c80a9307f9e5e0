// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/http/http_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/tls/context.h"
#include "tests/support/certs.h"

static SSL_CTX *server_ctx, *client_ctx;

// --- identities --------------------------------------------------------------------

void fixture_make_identities(void) {
  const struct test_cert ca_spec = {.cn = "CA", .is_ca = true};
  const struct test_cert specs[] = {
      {.cn = "server", .names = "DNS:localhost,IP:127.0.0.1", .eku = "serverAuth"},
      {.cn = "client", .names = "DNS:client.test", .eku = "clientAuth"},
  };
  EVP_PKEY *ca_key = test_key_new(KEY_KIND_P256);
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  X509 *ca = test_cert_new(&ca_spec, ca_key, NULL, NULL);
  struct errmsg err = {0};

  test_write_certs("ca.pem", &ca, 1);
  test_write_key("key.pem", key, 0600);
  for (int i = 0; i < 2; i++) {
    X509 *leaf = test_cert_new(&specs[i], key, ca, ca_key);
    struct tls_identity identity = {.ca = strdup(test_path("ca.pem")),
                                    .certificate = strdup(test_path(specs[i].cn)),
                                    .key = strdup(test_path("key.pem"))};
    test_write_certs(specs[i].cn, &leaf, 1);
    X509_free(leaf);
    if (i == 0) {
      assert_int_equal(tls_context_server(&server_ctx, &identity, false, &err), STATUS_OK);
    } else {
      assert_int_equal(tls_context_client(&client_ctx, &identity, false, &err), STATUS_OK);
    }
    free(identity.ca);
    free(identity.certificate);
    free(identity.key);
  }
  X509_free(ca);
  EVP_PKEY_free(key);
  EVP_PKEY_free(ca_key);
}

void fixture_free_identities(void) {
  SSL_CTX_free(server_ctx);
  SSL_CTX_free(client_ctx);
  test_remove_files();
}

SSL_CTX *fixture_server_ctx(void) { return server_ctx; }
const char *fixture_ca_path(void) { return test_path("ca.pem"); }

// --- routes --------------------------------------------------------------------------

static void on_echo(void *arg, struct http_request *request) {
  (void)arg;
  http_reply(request, 200, "application/octet-stream", http_request_body(request));
}

static void on_get(void *arg, struct http_request *request) {
  const char *q = http_request_query(request, "q");
  const char *header = http_request_header(request, "X-Test");
  (void)arg;
  http_reply_json(request, 200,
                  json_pack("{s:s*,s:s*,s:b,s:s}", "q", q, "header", header, "tls",
                            http_request_ssl(request) != NULL, "peer", http_request_peer(request)));
}

static void on_big(void *arg, struct http_request *request) {
  const char *n = http_request_query(request, "n");
  size_t len = n == NULL ? 0 : (size_t)strtoull(n, NULL, 10);
  uint8_t *body = malloc(len + 1);
  (void)arg;
  assert_non_null(body);
  memset(body, 'x', len);
  http_reply(request, 200, "text/plain", bytes_of(body, len));
  free(body);
}

static void on_hold(void *arg, struct http_request *request) {
  struct fixture *f = arg;
  f->held[f->num_held] = request;
  f->num_held++;
}

static const struct http_route routes[] = {
    {"POST", "/echo", on_echo}, {"GET", "/get", on_get},    {"GET", "/big", on_big},
    {"GET", "/hold", on_hold},  {"POST", "/hold", on_hold}, {0},
};

// --- life ------------------------------------------------------------------------------

static void *run(void *arg) {
  const struct fixture *f = arg;
  loop_run(f->loop);
  return NULL;
}

void fixture_start(struct fixture *f, enum fixture_kind kind, const struct fixture_limits *limits) {
  struct http_server_config config = {.routes = routes,
                                      .arg = f,
                                      .max_body_len = 1 << 20,
                                      .max_connections = 100,
                                      .tls = kind == FIXTURE_TLS ? server_ctx : NULL};
  struct errmsg err = {0};
  char text[ADDRESS_TEXT_LEN] = "127.0.0.1:0";
  int fd = -1;

  *f = (struct fixture){.kind = kind};
  if (limits != NULL) {
    config.max_body_len = limits->max_body_len > 0 ? limits->max_body_len : config.max_body_len;
    config.max_connections =
        limits->max_connections > 0 ? limits->max_connections : config.max_connections;
    config.limit_ms = limits->limit_ms;
  }
  if (kind == FIXTURE_UNIX) {
    (void)snprintf(text, sizeof(text), "unix:%s", test_path("http.sock"));
  }
  assert_int_equal(loop_new(&f->loop), STATUS_OK);
  assert_int_equal(http_server_new(&f->server, f->loop, &config), STATUS_OK);
  assert_int_equal(address_parse(&f->address, text, &err), STATUS_OK);
  assert_int_equal(address_listen(&fd, &f->address, false, 0600, &err), STATUS_OK);
  assert_int_equal(address_of_local(&f->address, fd), STATUS_OK);
  assert_int_equal(http_server_listen(f->server, &fd, &err), STATUS_OK);
  assert_int_equal(fd, -1);
  assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
  f->is_running = true;
}

void fixture_stop(struct fixture *f) {
  if (f->is_running) {
    loop_stop(f->loop);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    f->is_running = false;
  }
  http_server_free(f->server);
  f->server = NULL;
  fixture_release(f);  // a handler may come too late for everything
  loop_free(f->loop);
}

struct task {
  struct fixture *f;
  void (*fn)(struct fixture *f);
  _Atomic bool is_done;
};

static void run_task(void *arg) {
  struct task *task = arg;
  task->fn(task->f);
  task->is_done = true;
}

static void nap(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

void fixture_run(struct fixture *f, void (*fn)(struct fixture *f)) {
  struct task task = {.f = f, .fn = fn};
  int64_t began_ms = clock_monotonic_ms();
  loop_post(f->loop, run_task, &task);
  while (!task.is_done) {
    assert_true(clock_monotonic_ms() - began_ms < FIXTURE_GUARD_S * 1000);
    nap();
  }
}

static void release(struct fixture *f) {
  for (size_t i = 0; i < f->num_held; i++) {
    // Its parts must be there to the end, whatever has become of the client.
    (void)http_request_body(f->held[i]);
    (void)http_request_header(f->held[i], "Host");
    (void)http_request_query(f->held[i], "q");
    if (http_request_ssl(f->held[i]) != NULL) {
      assert_string_equal(SSL_get_version(http_request_ssl(f->held[i])), "TLSv1.3");
    }
    http_reply(f->held[i], 200, "text/plain", bytes_text("released"));
  }
  f->num_held = 0;
}

void fixture_release(struct fixture *f) {
  if (f->is_running) {
    fixture_run(f, release);
  } else {
    release(f);
  }
}

void fixture_wait_held(struct fixture *f, size_t num) {
  int64_t began_ms = clock_monotonic_ms();
  while (f->num_held < num) {
    assert_true(clock_monotonic_ms() - began_ms < FIXTURE_GUARD_S * 1000);
    nap();
  }
}

void fixture_wait(const _Atomic uint64_t *counter, uint64_t value) {
  int64_t began_ms = clock_monotonic_ms();
  while (*counter != value) {
    if (clock_monotonic_ms() - began_ms > FIXTURE_GUARD_S * 1000) {
      fail_msg("counter is %llu, not %llu", (unsigned long long)*counter,
               (unsigned long long)value);
    }
    nap();
  }
}

// --- clients -----------------------------------------------------------------------------

struct peer peer_socket(const struct fixture *f) {
  struct peer p = {.fd = socket(f->address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const struct timeval guard = {.tv_sec = FIXTURE_GUARD_S};
  const int on = 1;
  assert_true(p.fd >= 0);
  // What a test has sent is there, without Nagle's delay; not for AF_UNIX.
  (void)setsockopt(p.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)setsockopt(p.fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
  (void)setsockopt(p.fd, SOL_SOCKET, SO_SNDTIMEO, &guard, sizeof(guard));
  return p;
}

void peer_finish_connect(struct peer *p, const struct fixture *f) {
  assert_int_equal(connect(p->fd, (const struct sockaddr *)&f->address.storage, f->address.len), 0);
}

struct peer peer_connect_raw(const struct fixture *f) {
  struct peer p = peer_socket(f);
  peer_finish_connect(&p, f);
  return p;
}

struct peer peer_connect(const struct fixture *f) {
  struct peer p = peer_connect_raw(f);
  if (f->kind == FIXTURE_TLS) {
    p.ssl = SSL_new(client_ctx);
    assert_non_null(p.ssl);
    assert_int_equal(tls_expect_host(p.ssl, "localhost"), STATUS_OK);
    assert_int_equal(SSL_set_fd(p.ssl, p.fd), 1);
    assert_int_equal(SSL_connect(p.ssl), 1);
  }
  return p;
}

void peer_close(struct peer *p) {
  SSL_free(p->ssl);
  (void)close(p->fd);
  *p = (struct peer){.fd = -1};
  ERR_clear_error();
}

void peer_reset(struct peer *p) {
  const struct linger linger = {.l_onoff = 1};
  (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
  peer_close(p);
}

bool peer_try_send(struct peer *p, const void *data, size_t len) {
  const uint8_t *at = data;
  while (len > 0) {
    int n = 0;
    if (p->ssl != NULL) {
      n = SSL_write(p->ssl, at, len > 16384 ? 16384 : (int)len);
    } else {
      n = (int)send(p->fd, at, len, MSG_NOSIGNAL);
    }
    if (n <= 0) {
      ERR_clear_error();
      return false;
    }
    at += n;
    len -= (size_t)n;
  }
  return true;
}

void peer_send(struct peer *p, const void *data, size_t len) {
  assert_true(peer_try_send(p, data, len));
}

void peer_send_text(struct peer *p, const char *text) { peer_send(p, text, strlen(text)); }

int peer_recv(struct peer *p, void *out, size_t max) {
  int n = 0;
  if (p->ssl == NULL) {
    n = (int)recv(p->fd, out, max, 0);
    assert_true(n >= 0 || errno != EAGAIN);
    return n;
  }
  n = SSL_read(p->ssl, out, (int)max);
  if (n <= 0) {
    int error = SSL_get_error(p->ssl, n);
    ERR_clear_error();
    assert_int_not_equal(error, SSL_ERROR_WANT_READ);  // the guard
    n = error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
  }
  return n;
}

// The head, byte by byte: what follows stays for the body.
static bool recv_head(struct peer *p, char *out, size_t max) {
  size_t len = 0;
  for (;;) {
    assert_true(len + 1 < max);
    if (peer_recv(p, out + len, 1) <= 0) {
      assert_int_equal(len, 0);  // a reply comes whole or not at all
      return false;
    }
    out[++len] = '\0';
    if (len >= 4 && memcmp(out + len - 4, "\r\n\r\n", 4) == 0) {
      return true;
    }
  }
}

bool peer_reply(struct peer *p, struct reply *out) {
  const char *length = NULL;
  *out = (struct reply){0};
  if (!recv_head(p, out->head, sizeof(out->head))) {
    return false;
  }
  assert_memory_equal(out->head, "HTTP/1.1 ", 9);
  out->code = (int)strtol(out->head + 9, NULL, 10);
  length = strcasestr(out->head, "\r\nContent-Length: ");
  if (length != NULL) {
    size_t want = (size_t)strtoull(length + 18, NULL, 10);
    out->body = malloc(want + 1);
    assert_non_null(out->body);
    while (out->body_len < want) {
      int n = peer_recv(p, out->body + out->body_len, want - out->body_len);
      assert_true(n > 0);
      out->body_len += (size_t)n;
    }
    out->body[want] = '\0';
  }
  return true;
}

void reply_cleanup(struct reply *reply) {
  free(reply->body);
  *reply = (struct reply){0};
}

void expect_reply(struct peer *p, int code, const char *body) {
  struct reply reply;
  assert_true(peer_reply(p, &reply));
  assert_int_equal(reply.code, code);
  if (body != NULL) {
    assert_non_null(reply.body);
    assert_string_equal((const char *)reply.body, body);
  }
  reply_cleanup(&reply);
}

void expect_code(struct peer *p, int code) { expect_reply(p, code, NULL); }

void expect_end(struct peer *p) {
  char byte = 0;
  assert_int_equal(peer_recv(p, &byte, 1), 0);
}
