// SPDX-License-Identifier: Apache-2.0
// Every test runs over plain TCP and over TLS (some over a UNIX socket too), with
// clients that behave and clients that do not.
#include "common/http/http_server.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/unit/common/http/http_fixture.h"

#define HOST "Host: localhost\r\n"
#define GET "GET /get HTTP/1.1\r\n" HOST "\r\n"

static enum fixture_kind kind_of(void **state) { return *(const enum fixture_kind *)*state; }

static const struct http_server_stats *stats(const struct fixture *f) {
  return http_server_stats(f->server);
}

// A good client is served, whatever others do.
static void expect_good(const struct fixture *f) {
  struct peer p = peer_connect(f);
  peer_send_text(&p, GET);
  expect_code(&p, 200);
  peer_close(&p);
}

static void send_post(struct peer *p, const char *path, const void *body, size_t len) {
  char head[256];
  (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
                 path, len);
  peer_send_text(p, head);
  peer_send(p, body, len);
}

static uint8_t *random_bytes(size_t len) {
  uint8_t *data = malloc(len + 1);
  uint32_t x = 12345;
  assert_non_null(data);
  for (size_t i = 0; i < len; i++) {
    x = x * 1664525 + 1013904223;
    data[i] = (uint8_t)(x >> 24);
  }
  return data;
}

// --- what works ----------------------------------------------------------------------

static void hands_a_request_to_its_route(void **state) {
  struct fixture f;
  struct peer p;
  struct reply reply;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /get?a=1&q=a%20b+c HTTP/1.1\r\n" HOST "x-test:  v w \r\n\r\n");
  assert_true(peer_reply(&p, &reply));
  assert_int_equal(reply.code, 200);
  assert_non_null(strstr((const char *)reply.body, "\"q\":\"a b c\""));
  assert_non_null(strstr((const char *)reply.body, "\"header\":\"v w\""));
  assert_non_null(
      strstr((const char *)reply.body, f.kind == FIXTURE_TLS ? "\"tls\":true" : "\"tls\":false"));
  assert_non_null(strstr((const char *)reply.body,
                         f.kind == FIXTURE_UNIX ? "\"peer\":\"" : "\"peer\":\"127.0.0.1:"));
  assert_non_null(strstr(reply.head, "Content-Type: application/json"));
  reply_cleanup(&reply);
  peer_close(&p);
  fixture_stop(&f);
}

static void keeps_a_connection(void **state) {
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  for (int i = 0; i < 50; i++) {
    send_post(&p, "/echo", "hello", 5);
    expect_reply(&p, 200, "hello");
  }
  assert_int_equal(stats(&f)->num_connections, 1);
  assert_int_equal(stats(&f)->num_requests, 50);
  peer_close(&p);
  fixture_stop(&f);
}

static void carries_large_bodies_both_ways(void **state) {
  const struct fixture_limits limits = {.max_body_len = 5000000};
  static const size_t lens[] = {0, 1, 16383, 16384, 16385, 1000000, 5000000};
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), &limits);
  p = peer_connect(&f);
  for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
    uint8_t *body = random_bytes(lens[i]);
    struct reply reply;
    send_post(&p, "/echo", body, lens[i]);
    assert_true(peer_reply(&p, &reply));
    assert_int_equal(reply.body_len, lens[i]);
    assert_memory_equal(reply.body, body, lens[i]);
    reply_cleanup(&reply);
    free(body);
  }
  peer_close(&p);
  fixture_stop(&f);
}

static void answers_pipelined_requests_in_order(void **state) {
  struct fixture f;
  struct peer p;
  char text[8192] = "";
  size_t len = 0;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  for (int i = 0; i < 40; i++) {
    len += (size_t)snprintf(text + len, sizeof(text) - len,
                            "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n%02d", i);
  }
  peer_send_text(&p, text);
  for (int i = 0; i < 40; i++) {
    char body[16];
    (void)snprintf(body, sizeof(body), "%02d", i);
    expect_reply(&p, 200, body);
  }
  // One that takes long holds up those behind it, and nothing gets lost.
  peer_send_text(&p, "GET /hold HTTP/1.1\r\n" HOST "\r\n" GET);
  fixture_wait_held(&f, 1);
  fixture_release(&f);
  expect_reply(&p, 200, "released");
  expect_code(&p, 200);
  peer_close(&p);
  fixture_stop(&f);
}

static void reads_chunks(void **state) {
  static const char text[] =
      "POST /echo HTTP/1.1\r\n" HOST
      "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n";
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  peer_send_text(&p, text);
  expect_reply(&p, 200, "hello world");
  for (size_t i = 0; i < strlen(text); i++) {
    peer_send(&p, text + i, 1);
  }
  expect_reply(&p, 200, "hello world");
  peer_send_text(&p, GET);
  expect_code(&p, 200);
  peer_close(&p);
  fixture_stop(&f);
}

static void sends_continue_when_asked(void **state) {
  struct fixture f;
  struct peer p;
  struct reply reply;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  peer_send_text(
      &p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  assert_true(peer_reply(&p, &reply));
  assert_string_equal(reply.head, "HTTP/1.1 100 Continue\r\n\r\n");
  reply_cleanup(&reply);
  peer_send_text(&p, "hello");
  expect_reply(&p, 200, "hello");
  // Not when the body is there already, nor for one that is too long.
  peer_send_text(
      &p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
  expect_reply(&p, 200, "hello");
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST
                     "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n");
  expect_code(&p, 413);
  expect_end(&p);
  peer_close(&p);
  fixture_stop(&f);
}

static void ends_when_the_client_says_so(void **state) {
  static const char *const requests[] = {
      "GET /get HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n",
      "GET /get HTTP/1.0\r\n\r\n",
      "GET /big?n=300000 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n",
      "GET /nothing HTTP/1.0\r\n\r\n",
  };
  struct fixture f;
  fixture_start(&f, kind_of(state), NULL);
  for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
    struct peer p = peer_connect(&f);
    struct reply reply;
    peer_send_text(&p, requests[i]);
    assert_true(peer_reply(&p, &reply));
    assert_non_null(strstr(reply.head, "Connection: close"));
    reply_cleanup(&reply);
    expect_end(&p);  // with a close_notify
    peer_close(&p);
  }
  fixture_wait(&stats(&f)->num_open, 0);
  fixture_stop(&f);
}

static void knows_its_routes(void **state) {
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /nothing HTTP/1.1\r\n" HOST "\r\n");
  expect_reply(&p, 404, "{\"error\":{\"code\":\"not_found\",\"message\":\"no such path\"}}");
  peer_send_text(&p, "GET /echo HTTP/1.1\r\n" HOST "\r\n");
  expect_code(&p, 405);
  peer_send_text(&p, "DELETE /echo HTTP/1.1\r\n" HOST "\r\n");
  expect_code(&p, 405);
  peer_send_text(&p, "BREW /echo HTTP/1.1\r\n" HOST "\r\n");
  expect_code(&p, 405);
  peer_close(&p);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /%67et HTTP/1.1\r\n" HOST "\r\n");  // exact: no second spelling
  expect_code(&p, 404);
  peer_send_text(&p, "GET /get/../get HTTP/1.1\r\n" HOST "\r\n");
  expect_code(&p, 404);
  peer_send_text(&p, "GET /get?%zz&&=&a HTTP/1.1\r\n" HOST "\r\n");
  expect_code(&p, 200);
  peer_close(&p);
  fixture_stop(&f);
}

// TCP: FIN. TLS: close_notify. Either says only that no more will be sent.
static void answers_a_half_closed_client(void **state) {
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), NULL);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
  if (p.ssl != NULL) {
    assert_true(SSL_shutdown(p.ssl) >= 0);
  }
  assert_int_equal(shutdown(p.fd, SHUT_WR), 0);
  fixture_wait_held(&f, 1);
  fixture_release(&f);
  if (p.ssl == NULL) {  // BoringSSL reads nothing after its own SSL_shutdown
    expect_reply(&p, 200, "released");
    expect_end(&p);
  }
  peer_close(&p);
  fixture_wait(&stats(&f)->num_open, 0);
  fixture_stop(&f);
}

// --- what is refused ---------------------------------------------------------------------

static void refuses_what_is_not_http(void **state) {
  static const struct {
    int code;
    const char *text;
  } cases[] = {
      {400,
       "\x16\x03\x01\x02\x01\x01"
       "garbage\n"},
      {400, "GET / HTTP/1.1\n\n"},
      {400, "GET /\r\n\r\n"},
      {505, "GET / HTTP/3.0\r\n" HOST "\r\n"},
      {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: x\r\n\r\n"},
      {400,
       "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {501, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n"},
      {400, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"},
      {417, "POST /echo HTTP/1.1\r\n" HOST "Expect: something\r\nContent-Length: 5\r\n\r\nhello"},
      {400, "HEAD /get HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"},
      {400, "CONNECT localhost:1 HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET http://localhost/get HTTP/1.1\r\n" HOST "\r\n"},
  };
  struct fixture f;
  const size_t num = sizeof(cases) / sizeof(cases[0]);
  fixture_start(&f, kind_of(state), NULL);
  for (size_t i = 0; i < num; i++) {
    struct peer p = peer_connect(&f);
    struct reply reply;
    peer_send_text(&p, cases[i].text);
    assert_true(peer_reply(&p, &reply));
    if (reply.code != cases[i].code) {
      fail_msg("case %zu: %s", i, reply.head);
    }
    assert_non_null(strstr(reply.head, "Connection: close"));
    assert_non_null(strstr((const char *)reply.body, "{\"error\":{\"code\":\""));
    reply_cleanup(&reply);
    expect_end(&p);
    peer_close(&p);
    expect_good(&f);
  }
  assert_int_equal(stats(&f)->num_malformed, num);
  fixture_wait(&stats(&f)->num_open, 0);
  fixture_stop(&f);
}

static void bounds_the_head(void **state) {
  struct fixture f;
  struct peer p;
  static char text[HTTP_MAX_HEADERS_LEN + 2048];
  size_t at = 0;
  fixture_start(&f, kind_of(state), NULL);
  // Just fits.
  p = peer_connect(&f);
  at = (size_t)snprintf(text, sizeof(text), "GET /get HTTP/1.1\r\n" HOST "A: ");
  memset(text + at, 'a', sizeof(text) - at);
  (void)snprintf(text + HTTP_MAX_HEADERS_LEN - 4, 8, "\r\n\r\n");
  peer_send_text(&p, text);
  expect_code(&p, 200);
  // One more does not, and neither does a line without end.
  (void)snprintf(text + HTTP_MAX_HEADERS_LEN - 4, 8, "a\r\n\r\n");
  peer_send_text(&p, text);
  expect_code(&p, 431);
  expect_end(&p);
  peer_close(&p);
  p = peer_connect(&f);
  memset(text, 'a', sizeof(text));
  peer_send(&p, text, sizeof(text));
  expect_code(&p, 431);
  expect_end(&p);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_too_large, 2);
  fixture_stop(&f);
}

static void bounds_the_body(void **state) {
  const struct fixture_limits limits = {.max_body_len = 100000};
  struct fixture f;
  struct peer p;
  uint8_t *body = random_bytes(8 << 20);
  struct reply reply;
  fixture_start(&f, kind_of(state), &limits);
  p = peer_connect(&f);
  send_post(&p, "/echo", body, 100000);
  expect_code(&p, 200);
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100001\r\n\r\n");
  expect_reply(
      &p, 413,
      "{\"error\":{\"code\":\"too_large\",\"message\":\"the body is larger than this server "
      "accepts\"}}");
  expect_end(&p);
  peer_close(&p);
  // The refusal is read even by those who first send it all.
  p = peer_connect(&f);
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 8388608\r\n\r\n");
  peer_send(&p, body, 8 << 20);
  expect_code(&p, 413);
  peer_close(&p);
  // In chunks nobody knows the length before.
  p = peer_connect(&f);
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 101; i++) {
    peer_send_text(&p, "3e8\r\n");
    peer_send(&p, body, 1000);
    peer_send_text(&p, "\r\n");
  }
  expect_code(&p, 413);
  peer_close(&p);
  // And a chunk that promises more than there is memory in the world.
  p = peer_connect(&f);
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST
                     "Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nabc");
  peer_send(&p, body, 100000);
  assert_true(peer_reply(&p, &reply));
  assert_int_equal(reply.code, 413);
  reply_cleanup(&reply);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_too_large, 4);
  free(body);
  fixture_stop(&f);
}

// --- clients that go away --------------------------------------------------------------------

static void survives_clients_that_leave_midway(void **state) {
  static const char *const beginnings[] = {
      "",
      "G",
      "GET /get HTTP/1.1\r\nHost",
      "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n12345",
      "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
  };
  struct fixture f;
  fixture_start(&f, kind_of(state), NULL);
  for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
    struct peer p = peer_connect(&f);
    peer_send_text(&p, beginnings[i]);
    peer_close(&p);
    p = peer_connect(&f);
    peer_send_text(&p, beginnings[i]);
    peer_reset(&p);
  }
  fixture_wait(&stats(&f)->num_open, 0);
  assert_int_equal(stats(&f)->num_requests, 0);
  expect_good(&f);
  fixture_stop(&f);
}

static void survives_clients_that_leave_within_the_reply(void **state) {
  struct fixture f;
  fixture_start(&f, kind_of(state), NULL);
  for (int i = 0; i < 6; i++) {
    struct peer p = peer_connect(&f);
    char byte = 0;
    peer_send_text(&p, "GET /big?n=30000000 HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(peer_recv(&p, &byte, 1), 1);
    if (i % 2 == 0) {
      peer_close(&p);
    } else {
      peer_reset(&p);
    }
  }
  fixture_wait(&stats(&f)->num_open, 0);
  assert_int_equal(stats(&f)->num_cut, 6);
  expect_good(&f);
  fixture_stop(&f);
}

static void answers_nobody_quietly(void **state) {
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), NULL);
  for (size_t i = 0; i < 5; i++) {
    p = peer_connect(&f);
    send_post(&p, "/hold?q=1", "body", 4);
    fixture_wait_held(&f, i + 1);
    if (i % 2 == 0) {
      peer_close(&p);
    } else {
      peer_reset(&p);
    }
  }
  fixture_release(&f);
  fixture_wait(&stats(&f)->num_open, 0);
  expect_good(&f);
  fixture_stop(&f);
}

static void can_be_freed_before_the_answers(void **state) {
  struct fixture f;
  struct peer peers[4];
  fixture_start(&f, kind_of(state), NULL);
  for (size_t i = 0; i < 4; i++) {
    peers[i] = peer_connect(&f);
    peer_send_text(&peers[i], i == 3 ? "GET /big?n=30000000 HTTP/1.1\r\n" HOST "\r\n"
                                     : "GET /hold HTTP/1.1\r\n" HOST "\r\n" GET);
  }
  fixture_wait_held(&f, 3);
  fixture_stop(&f);  // frees the server, then answers
  for (size_t i = 0; i < 4; i++) {
    peer_close(&peers[i]);
  }
}

// --- clients that are slow ---------------------------------------------------------------------

static void bounds_the_time_of_a_request(void **state) {
  const struct fixture_limits limits = {.limit_ms = 300};
  struct fixture f;
  struct peer p;
  int64_t began_ms = clock_monotonic_ms();
  fixture_start(&f, kind_of(state), &limits);
  p = peer_connect(&f);
  peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n12345");
  expect_code(&p, 408);
  expect_end(&p);
  peer_close(&p);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /ge");
  expect_code(&p, 408);
  expect_end(&p);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_timeouts, 2);
  // One that drips is no better: the time is for the whole.
  p = peer_connect(&f);
  for (int i = 0; i < 1000 && peer_try_send(&p, "G", 1); i++) {
    (void)usleep(10000);
    if (stats(&f)->num_timeouts == 3) {
      break;
    }
  }
  assert_int_equal(stats(&f)->num_timeouts, 3);
  peer_close(&p);
  // Between requests there is nothing to say.
  p = peer_connect(&f);
  peer_send_text(&p, GET);
  expect_code(&p, 200);
  expect_end(&p);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_timeouts, 3);
  assert_true(clock_monotonic_ms() - began_ms < 8000);
  fixture_stop(&f);
}

static void bounds_the_time_of_a_reply(void **state) {
  const struct fixture_limits limits = {.limit_ms = 300};
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), &limits);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /big?n=30000000 HTTP/1.1\r\n" HOST "\r\n");
  fixture_wait(&stats(&f)->num_timeouts, 1);
  fixture_wait(&stats(&f)->num_open, 0);
  peer_close(&p);
  fixture_stop(&f);
}

// A handler may take longer than a request.
static void leaves_time_to_the_handler(void **state) {
  const struct fixture_limits limits = {.limit_ms = 200};
  struct fixture f;
  struct peer p;
  fixture_start(&f, kind_of(state), &limits);
  p = peer_connect(&f);
  peer_send_text(&p, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
  fixture_wait_held(&f, 1);
  (void)usleep(500000);
  fixture_release(&f);
  expect_reply(&p, 200, "released");
  peer_close(&p);
  fixture_stop(&f);
}

// --- many clients ------------------------------------------------------------------------------

static void bounds_the_number_of_connections(void **state) {
  const struct fixture_limits limits = {.max_connections = 3};
  struct fixture f;
  struct peer peers[3];
  struct peer p;
  char byte = 0;
  fixture_start(&f, kind_of(state), &limits);
  for (int i = 0; i < 3; i++) {
    peers[i] = peer_connect(&f);
    peer_send_text(&peers[i], GET);
    expect_code(&peers[i], 200);
  }
  p = peer_connect_raw(&f);
  assert_true(recv(p.fd, &byte, 1, 0) <= 0);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_refused, 1);
  peer_send_text(&peers[0], GET);  // those inside notice nothing
  expect_code(&peers[0], 200);
  peer_close(&peers[1]);
  fixture_wait(&stats(&f)->num_open, 2);
  expect_good(&f);
  peer_close(&peers[0]);
  peer_close(&peers[2]);
  fixture_stop(&f);
}

static void serves_the_good_among_the_bad(void **state) {
  struct fixture f;
  struct peer bad[40];
  fixture_start(&f, kind_of(state), NULL);
  for (int i = 0; i < 40; i++) {
    bad[i] = i % 4 == 0 ? peer_connect_raw(&f) : peer_connect(&f);
    switch (i % 4) {
      case 0:  // silent from the start
        break;
      case 1:
        peer_send_text(&bad[i], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nabc");
        break;
      case 2:  // reads nothing
        peer_send_text(&bad[i], "GET /big?n=5000000 HTTP/1.1\r\n" HOST "\r\n");
        break;
      default:
        (void)peer_try_send(&bad[i], "\0\0\0\0\n", 5);
        break;
    }
    expect_good(&f);
  }
  for (int i = 0; i < 40; i++) {
    if (i % 3 == 0) {
      peer_reset(&bad[i]);
    } else {
      peer_close(&bad[i]);
    }
  }
  fixture_wait(&stats(&f)->num_open, 0);
  expect_good(&f);
  fixture_stop(&f);
}

// --- the end -----------------------------------------------------------------------------------

static void on_drained(void *arg) {
  struct fixture *f = arg;
  f->is_drained = true;
}

static void drain(struct fixture *f) { http_server_drain(f->server, on_drained, f); }

static void drains(void **state) {
  struct fixture f;
  struct peer idle;
  struct peer busy;
  struct peer half;
  struct reply reply;
  int fd = -1;
  fixture_start(&f, kind_of(state), NULL);
  idle = peer_connect(&f);
  peer_send_text(&idle, GET);
  expect_code(&idle, 200);
  busy = peer_connect(&f);
  peer_send_text(&busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
  fixture_wait_held(&f, 1);
  half = peer_connect(&f);
  peer_send_text(&half, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nab");
  // What is half there counts as begun; wait until the server has seen it.
  peer_send_text(&idle, GET);
  expect_code(&idle, 200);
  fixture_run(&f, drain);
  assert_true(peer_recv(&idle, reply.head, 1) <= 0);
  assert_false(f.is_drained);
  fd = socket(f.address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_not_equal(connect(fd, (const struct sockaddr *)&f.address.storage, f.address.len), 0);
  (void)close(fd);
  peer_send_text(&half, "cd");
  assert_true(peer_reply(&half, &reply));
  assert_string_equal((const char *)reply.body, "abcd");
  assert_non_null(strstr(reply.head, "Connection: close"));
  reply_cleanup(&reply);
  expect_end(&half);
  fixture_release(&f);
  assert_true(peer_reply(&busy, &reply));
  assert_string_equal((const char *)reply.body, "released");
  reply_cleanup(&reply);
  expect_end(&busy);
  fixture_wait(&stats(&f)->num_open, 0);
  for (int i = 0; i < 5000 && !f.is_drained; i++) {
    (void)usleep(1000);
  }
  assert_true(f.is_drained);
  peer_close(&idle);
  peer_close(&busy);
  peer_close(&half);
  fixture_stop(&f);
}

static void drains_at_once_when_idle(void **state) {
  struct fixture f;
  fixture_start(&f, kind_of(state), NULL);
  fixture_run(&f, drain);
  for (int i = 0; i < 5000 && !f.is_drained; i++) {
    (void)usleep(1000);
  }
  assert_true(f.is_drained);
  fixture_stop(&f);
}

// --- TLS alone ---------------------------------------------------------------------------------

static void bounds_the_time_of_a_handshake(void **state) {
  const struct fixture_limits limits = {.limit_ms = 300};
  struct fixture f;
  struct peer p;
  char byte = 0;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, &limits);
  p = peer_connect_raw(&f);
  assert_int_equal(recv(p.fd, &byte, 1, 0), 0);
  peer_close(&p);
  p = peer_connect_raw(&f);
  assert_int_equal(send(p.fd, "\x16\x03\x01\x02\x00", 5, 0), 5);  // a record that never ends
  assert_int_equal(recv(p.fd, &byte, 1, 0), 0);
  peer_close(&p);
  assert_int_equal(stats(&f)->num_handshake_failed, 2);
  fixture_stop(&f);
}

static void survives_garbage_instead_of_tls(void **state) {
  static const struct bytes cases[] = {
      {(const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18},
      {(const uint8_t *)"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff", 10},
      {(const uint8_t *)"\x15\x03\x01\x00\x02\x02\x28", 7},
      {(const uint8_t *)"\x16\x03\x03\xff\xff", 5},
      {(const uint8_t *)"\0\0\0\0\0\0\0\0", 8},
  };
  struct fixture f;
  const size_t num = sizeof(cases) / sizeof(cases[0]);
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  for (size_t i = 0; i < num; i++) {
    struct peer p = peer_connect_raw(&f);
    char bytes[64];
    peer_send(&p, cases[i].data, cases[i].len);
    while (recv(p.fd, bytes, sizeof(bytes), 0) > 0) {
    }
    peer_close(&p);
    expect_good(&f);
  }
  assert_int_equal(stats(&f)->num_handshake_failed, num);
  fixture_stop(&f);
}

static void refuses_a_client_without_certificate(void **state) {
  struct fixture f;
  struct peer p;
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  char byte = 0;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  p = peer_connect_raw(&f);
  p.ssl = SSL_new(ctx);
  assert_int_equal(SSL_set_fd(p.ssl, p.fd), 1);
  (void)SSL_connect(p.ssl);  // TLS 1.3: the client learns of it with the first read
  (void)SSL_write(p.ssl, GET, strlen(GET));
  assert_true(SSL_read(p.ssl, &byte, 1) <= 0);
  ERR_clear_error();
  peer_close(&p);
  SSL_CTX_free(ctx);
  fixture_wait(&stats(&f)->num_handshake_failed, 1);
  assert_int_equal(stats(&f)->num_requests, 0);
  expect_good(&f);
  fixture_stop(&f);
}

static void survives_damaged_records(void **state) {
  struct fixture f;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  for (int i = 0; i < 4; i++) {
    static const char record[] = "\x17\x03\x03\x00\x20................................";
    struct peer p = peer_connect(&f);
    if (i % 2 == 1) {
      peer_send_text(&p, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n12345");
    }
    assert_true(send(p.fd, record, sizeof(record) - 1, 0) > 0);
    assert_true(peer_recv(&p, (char[1]){0}, 1) <= 0);
    peer_close(&p);
  }
  fixture_wait(&stats(&f)->num_open, 0);
  expect_good(&f);
  fixture_stop(&f);
}

static void use_new_context(struct fixture *f) {
  http_server_set_tls(f->server, fixture_server_ctx());
}

// Those who are inside get one more reply, and then have to knock again.
static void replaces_its_context(void **state) {
  struct fixture f;
  struct peer p;
  struct reply reply;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  p = peer_connect(&f);
  peer_send_text(&p, GET);
  expect_code(&p, 200);
  fixture_run(&f, use_new_context);
  peer_send_text(&p, GET);
  assert_true(peer_reply(&p, &reply));
  assert_int_equal(reply.code, 200);
  assert_non_null(strstr(reply.head, "Connection: close"));
  reply_cleanup(&reply);
  expect_end(&p);
  peer_close(&p);
  expect_good(&f);
  fixture_stop(&f);
}

// Without a descriptor for it a connection waits, and is served when there is one.
static void survives_a_lack_of_descriptors(void **state) {
  struct fixture f;
  struct rlimit old;
  struct rlimit none;
  struct peer p;
  int next = -1;
  (void)state;
  fixture_start(&f, FIXTURE_PLAIN, NULL);
  p = peer_socket(&f);
  next = dup(p.fd);  // the lowest free number: all from here on are out of bounds
  assert_true(next >= 0);
  (void)close(next);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
  none = old;
  none.rlim_cur = (rlim_t)next;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  peer_finish_connect(&p, &f);
  peer_send_text(&p, GET);
  (void)usleep(300000);
  assert_int_equal(stats(&f)->num_connections, 0);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
  expect_code(&p, 200);
  peer_close(&p);
  expect_good(&f);
  fixture_stop(&f);
}

static int setup(void **state) {
  (void)state;
  (void)signal(SIGPIPE, SIG_IGN);
  fixture_make_identities();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fixture_free_identities();
  return 0;
}

int main(void) {
  static enum fixture_kind plain = FIXTURE_PLAIN;
  static enum fixture_kind tls = FIXTURE_TLS;
  static enum fixture_kind unix_socket = FIXTURE_UNIX;
#define BOTH(fn) \
  {#fn " (plain)", fn, NULL, NULL, &plain}, { #fn " (tls)", fn, NULL, NULL, &tls }
#define UNIX(fn) \
  { #fn " (unix)", fn, NULL, NULL, &unix_socket }
  const struct CMUnitTest tests[] = {
      BOTH(hands_a_request_to_its_route),
      UNIX(hands_a_request_to_its_route),
      BOTH(keeps_a_connection),
      UNIX(keeps_a_connection),
      BOTH(carries_large_bodies_both_ways),
      UNIX(carries_large_bodies_both_ways),
      BOTH(answers_pipelined_requests_in_order),
      BOTH(reads_chunks),
      BOTH(sends_continue_when_asked),
      BOTH(ends_when_the_client_says_so),
      UNIX(ends_when_the_client_says_so),
      BOTH(knows_its_routes),
      BOTH(answers_a_half_closed_client),
      BOTH(refuses_what_is_not_http),
      BOTH(bounds_the_head),
      BOTH(bounds_the_body),
      BOTH(survives_clients_that_leave_midway),
      BOTH(survives_clients_that_leave_within_the_reply),
      UNIX(survives_clients_that_leave_within_the_reply),
      BOTH(answers_nobody_quietly),
      BOTH(can_be_freed_before_the_answers),
      UNIX(can_be_freed_before_the_answers),
      BOTH(bounds_the_time_of_a_request),
      BOTH(bounds_the_time_of_a_reply),
      BOTH(leaves_time_to_the_handler),
      BOTH(bounds_the_number_of_connections),
      BOTH(serves_the_good_among_the_bad),
      BOTH(drains),
      UNIX(drains),
      BOTH(drains_at_once_when_idle),
      cmocka_unit_test(bounds_the_time_of_a_handshake),
      cmocka_unit_test(survives_garbage_instead_of_tls),
      cmocka_unit_test(refuses_a_client_without_certificate),
      cmocka_unit_test(survives_damaged_records),
      cmocka_unit_test(replaces_its_context),
      cmocka_unit_test(survives_a_lack_of_descriptors),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
