// SPDX-License-Identifier: Apache-2.0
// http_fixture: an http_server on a loop in a thread of its own, and blocking
// clients that can misbehave, over plain TCP, TLS or a UNIX socket.
#ifndef DEPUTY_TESTS_UNIT_COMMON_HTTP_HTTP_FIXTURE_H_
#define DEPUTY_TESTS_UNIT_COMMON_HTTP_HTTP_FIXTURE_H_

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/http/http_server.h"

#define FIXTURE_GUARD_S 10  // a blocking call that takes longer has failed

enum fixture_kind { FIXTURE_PLAIN, FIXTURE_TLS, FIXTURE_UNIX };

struct fixture {
  enum fixture_kind kind;
  struct loop *loop;
  struct http_server *server;
  struct address address;
  pthread_t thread;
  bool is_running;
  // Requests for /hold, until fixture_release.
  struct http_request *held[64];
  _Atomic size_t num_held;
  _Atomic bool is_drained;
};

// The certificates of all tests of this process, below test_path().
void fixture_make_identities(void);
void fixture_free_identities(void);
SSL_CTX *fixture_server_ctx(void);
const char *fixture_ca_path(void);

struct fixture_limits {
  size_t max_body_len;     // 0: 1 MiB
  size_t max_connections;  // 0: 100
  int64_t limit_ms;        // 0: the server's default
};

// Routes: POST /echo, GET /get?q=, GET /big?n= (n bytes of 'x'), GET /hold.
void fixture_start(struct fixture *f, enum fixture_kind kind, const struct fixture_limits *limits);
void fixture_stop(struct fixture *f);

// fixture_run runs fn(f) on the loop and waits for it.
void fixture_run(struct fixture *f, void (*fn)(struct fixture *f));
void fixture_release(struct fixture *f);  // answers the held requests: "released"
void fixture_wait_held(struct fixture *f, size_t num);
// fixture_wait polls until a counter has a value.
void fixture_wait(const _Atomic uint64_t *counter, uint64_t value);

// A client. All calls fail the test when nothing happens for FIXTURE_GUARD_S.
struct peer {
  int fd;
  SSL *ssl;
};

struct peer peer_socket(const struct fixture *f);  // not connected yet
void peer_finish_connect(struct peer *p, const struct fixture *f);
struct peer peer_connect_raw(const struct fixture *f);  // no TLS yet
struct peer peer_connect(const struct fixture *f);
void peer_close(struct peer *p);
void peer_reset(struct peer *p);  // RST

void peer_send(struct peer *p, const void *data, size_t len);
void peer_send_text(struct peer *p, const char *text);
// peer_try_send is false when the other side has closed.
bool peer_try_send(struct peer *p, const void *data, size_t len);

// peer_recv returns what came, 0 at a clean end, -1 at an error.
int peer_recv(struct peer *p, void *out, size_t max);

struct reply {
  int code;
  char head[4096];
  uint8_t *body;  // with a terminator behind it
  size_t body_len;
};
// peer_reply reads one reply by its Content-Length. False: the connection ended.
bool peer_reply(struct peer *p, struct reply *out);
void reply_cleanup(struct reply *reply);

void expect_reply(struct peer *p, int code, const char *body);
void expect_code(struct peer *p, int code);
void expect_end(struct peer *p);  // no more bytes, a clean end

#endif  // DEPUTY_TESTS_UNIT_COMMON_HTTP_HTTP_FIXTURE_H_
