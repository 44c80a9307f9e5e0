// SPDX-License-Identifier: Apache-2.0
// The client against our own server and against peers that misbehave, each of
// them a thread.
#include "common/http/http_client.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/unit/common/http/http_fixture.h"

#define MAX_RESULTS 64

// What came of a call.
struct result {
  bool is_there;
  enum status st;
  int code;
  size_t len;
  char text[256];  // of the body's beginning
  char message[256];
};

struct client {
  struct loop *loop;
  struct http_client *http;
  struct result results[MAX_RESULTS];
  size_t num_wanted;
  size_t num_there;
  struct timer guard;
};

static void on_guard(void *arg) {
  (void)arg;
  fail_msg("no answer");
}

static struct http_identity identity(void) {
  return (struct http_identity){.ca_path = test_path("ca.pem"),
                                .cert_path = test_path("client"),
                                .key_path = test_path("key.pem")};
}

static void client_init(struct client *c) {
  *c = (struct client){0};
  assert_int_equal(loop_new(&c->loop), STATUS_OK);
  assert_int_equal(http_client_new(&c->http, c->loop), STATUS_OK);
  assert_int_equal(timer_init(&c->guard, c->loop, on_guard, c), STATUS_OK);
}

static void client_cleanup(struct client *c) {
  http_client_free(c->http);
  timer_cleanup(&c->guard);
  loop_free(c->loop);
}

struct slot {
  struct client *client;
  size_t index;
};

static struct slot slots[MAX_RESULTS];

static void on_answer(void *arg, const struct http_answer *answer) {
  const struct slot *slot = arg;
  struct client *c = slot->client;
  struct result *r = &c->results[slot->index];
  assert_false(r->is_there);  // once
  r->is_there = true;
  r->st = answer->st;
  r->code = answer->code;
  r->len = answer->body.len;
  (void)snprintf(r->text, sizeof(r->text), "%.*s", (int)(r->len < 200 ? r->len : 200),
                 r->len > 0 ? (const char *)answer->body.data : "");
  (void)snprintf(r->message, sizeof(r->message), "%s", answer->message);
  assert_true((answer->st == STATUS_OK) == (answer->message[0] == '\0'));
  if (++c->num_there == c->num_wanted) {
    loop_stop(c->loop);
  }
}

static uint64_t start(struct client *c, const struct http_call *call) {
  uint64_t id = 0;
  size_t index = c->num_wanted++;
  slots[index] = (struct slot){c, index};
  assert_int_equal(http_client_start(&id, c->http, call, on_answer, &slots[index]), STATUS_OK);
  assert_true(id != 0);
  return id;
}

static void wait_all(struct client *c) {
  timer_arm_ms(&c->guard, FIXTURE_GUARD_S * 1000);
  loop_run(c->loop);
  timer_cancel(&c->guard);
}

static void url_of(char out[128], const struct fixture *f, const char *path) {
  (void)snprintf(out, 128, "%s://localhost:%u%s", f->kind == FIXTURE_TLS ? "https" : "http",
                 address_port(&f->address), path);
}

// One call with the usual settings.
static struct result ask(const char *url, const char *method, const char *body) {
  struct http_identity id = identity();
  struct http_call call = {.url = url,
                           .method = method,
                           .body = bytes_text(body),
                           .limit_ms = 5000,
                           .max_answer_len = 1000,
                           .identity = &id};
  struct client c;
  struct result result;
  client_init(&c);
  (void)start(&c, &call);
  wait_all(&c);
  result = c.results[0];
  client_cleanup(&c);
  return result;
}

// --- against the server -----------------------------------------------------------------

static void library_is_the_right_one(void **state) {
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(http_client_check_library(&err), STATUS_OK);
}

static void asks_with_mutual_tls(void **state) {
  struct fixture f;
  char url[128];
  struct result r;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/get?q=x");
  r = ask(url, "GET", "");
  assert_int_equal(r.st, STATUS_OK);
  assert_int_equal(r.code, 200);
  assert_non_null(strstr(r.text, "\"q\":\"x\""));
  url_of(url, &f, "/echo");
  r = ask(url, "POST", "hello");
  assert_int_equal(r.code, 200);
  assert_string_equal(r.text, "hello");
  r = ask(url, "POST", "");
  assert_int_equal(r.code, 200);
  assert_int_equal(r.len, 0);
  r = ask(url, "DELETE", "");
  assert_int_equal(r.st, STATUS_OK);
  assert_int_equal(r.code, 405);
  fixture_stop(&f);
}

static void uses_connections_again(void **state) {
  struct fixture f;
  struct client c;
  char url[128];
  struct http_identity id = identity();
  struct http_call call = {
      .url = url, .method = "GET", .limit_ms = 5000, .max_answer_len = 1000, .identity = &id};
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/get");
  client_init(&c);
  for (int i = 0; i < 20; i++) {
    (void)start(&c, &call);
    wait_all(&c);
    assert_int_equal(c.results[i].code, 200);
  }
  assert_int_equal(http_server_stats(f.server)->num_connections, 1);
  // Many at once.
  for (int i = 0; i < 20; i++) {
    (void)start(&c, &call);
  }
  wait_all(&c);
  for (int i = 20; i < 40; i++) {
    assert_int_equal(c.results[i].code, 200);
  }
  // A server that has gone away in between is connected to again.
  client_cleanup(&c);
  fixture_stop(&f);
}

static void bounds_the_answer(void **state) {
  struct fixture f;
  char url[128];
  struct result r;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/big?n=1000");
  r = ask(url, "GET", "");
  assert_int_equal(r.st, STATUS_OK);
  assert_int_equal(r.len, 1000);
  url_of(url, &f, "/big?n=1001");
  r = ask(url, "GET", "");
  assert_int_equal(r.st, STATUS_LIMIT);
  url_of(url, &f, "/big?n=30000000");
  r = ask(url, "GET", "");
  assert_int_equal(r.st, STATUS_LIMIT);
  fixture_stop(&f);
}

static void bounds_the_time(void **state) {
  struct fixture f;
  struct client c;
  char url[128];
  struct http_identity id = identity();
  struct http_call call = {
      .url = url, .method = "GET", .limit_ms = 200, .max_answer_len = 1000, .identity = &id};
  int64_t began_ms = clock_monotonic_ms();
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/hold");
  client_init(&c);
  (void)start(&c, &call);
  wait_all(&c);
  assert_int_equal(c.results[0].st, STATUS_TIMEOUT);
  assert_true(clock_monotonic_ms() - began_ms < 3000);
  client_cleanup(&c);
  fixture_stop(&f);
}

static void cancels(void **state) {
  struct fixture f;
  struct client c;
  char url[128];
  char hold[128];
  struct http_identity id = identity();
  struct http_call call = {
      .url = hold, .method = "GET", .limit_ms = 5000, .max_answer_len = 1000, .identity = &id};
  uint64_t ids[3];
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/get");
  url_of(hold, &f, "/hold");
  client_init(&c);
  for (int i = 0; i < 3; i++) {
    ids[i] = start(&c, &call);
  }
  http_client_cancel(c.http, ids[0]);  // not begun
  http_client_cancel(c.http, ids[0]);  // twice is fine
  http_client_cancel(c.http, 0);
  http_client_cancel(c.http, 999);
  c.num_wanted = 3;
  call.url = url;
  (void)start(&c, &call);
  c.num_there = 3;  // only the last one will come
  wait_all(&c);
  assert_int_equal(c.results[3].code, 200);
  http_client_cancel(c.http, ids[1]);  // under way
  client_cleanup(&c);                  // the third is open still
  assert_false(c.results[0].is_there || c.results[1].is_there || c.results[2].is_there);
  fixture_stop(&f);
}

// --- what must not work --------------------------------------------------------------------

static void trusts_no_other_ca(void **state) {
  struct fixture f;
  struct client c;
  char url[128];
  struct http_identity id = identity();
  struct http_call call = {.url = url, .method = "GET", .limit_ms = 5000, .max_answer_len = 1000};
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  const struct test_cert spec = {.cn = "other CA", .is_ca = true};
  X509 *ca = test_cert_new(&spec, key, NULL, NULL);
  (void)state;
  test_write_certs("other.pem", &ca, 1);
  X509_free(ca);
  EVP_PKEY_free(key);
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/get");
  client_init(&c);
  (void)start(&c, &call);  // the system's trust
  id.ca_path = test_path("other.pem");
  call.identity = &id;
  (void)start(&c, &call);
  id = identity();
  id.cert_path = NULL;
  id.key_path = NULL;
  (void)start(&c, &call);  // no certificate: the server refuses
  id = identity();
  id.key_path = test_path("no such file");
  (void)start(&c, &call);
  id.key_path = test_path("key.pem");
  id.ca_path = test_path("no such file");
  (void)start(&c, &call);
  wait_all(&c);
  for (int i = 0; i < 5; i++) {
    if (c.results[i].st != STATUS_CRYPTO && !(i == 2 && c.results[i].st == STATUS_CLOSED)) {
      fail_msg("case %d: %d %s", i, c.results[i].st, c.results[i].message);
    }
  }
  assert_int_equal(http_server_stats(f.server)->num_requests, 0);
  client_cleanup(&c);
  fixture_stop(&f);
}

static void checks_the_name(void **state) {
  struct fixture f;
  char url[128];
  struct result r;
  (void)state;
  fixture_start(&f, FIXTURE_TLS, NULL);
  (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/get", address_port(&f.address));
  assert_int_equal(ask(url, "GET", "").st, STATUS_OK);  // the certificate has the address
  (void)snprintf(url, sizeof(url), "https://127.0.0.2:%u/get", address_port(&f.address));
  r = ask(url, "GET", "");
  assert_int_equal(r.st, STATUS_UNAVAILABLE);  // nobody listens there
  (void)snprintf(url, sizeof(url), "https://ip6-localhost:%u/get", address_port(&f.address));
  r = ask(url, "GET", "");
  assert_int_not_equal(r.st, STATUS_OK);
  fixture_stop(&f);
}

static void speaks_https_only_unless_allowed(void **state) {
  struct fixture f;
  struct client c;
  char url[128];
  struct http_call call = {.url = url, .method = "GET", .limit_ms = 5000, .max_answer_len = 1000};
  (void)state;
  fixture_start(&f, FIXTURE_PLAIN, NULL);
  url_of(url, &f, "/get");
  client_init(&c);
  (void)start(&c, &call);
  call.allow_http = true;
  (void)start(&c, &call);
  call.url = "file:///etc/passwd";
  (void)start(&c, &call);
  call.url = "ftp://localhost/";
  (void)start(&c, &call);
  call.url = "not a url";
  (void)start(&c, &call);
  call.url = "http://user:pass@localhost/";
  (void)start(&c, &call);
  wait_all(&c);
  assert_int_equal(c.results[0].st, STATUS_REFUSED);
  assert_int_equal(c.results[1].st, STATUS_OK);
  assert_int_equal(c.results[2].st, STATUS_REFUSED);
  assert_int_equal(c.results[3].st, STATUS_REFUSED);
  assert_int_equal(c.results[4].st, STATUS_FORMAT);
  assert_int_equal(c.results[5].st, STATUS_REFUSED);
  client_cleanup(&c);
  fixture_stop(&f);
}

// The environment's proxy would get to see, and to answer, what is for the issuer.
static void ignores_the_environments_proxy(void **state) {
  struct fixture f;
  char url[128];
  (void)state;
  assert_int_equal(setenv("https_proxy", "http://127.0.0.1:1", 1), 0);
  assert_int_equal(setenv("HTTPS_PROXY", "http://127.0.0.1:1", 1), 0);
  assert_int_equal(setenv("ALL_PROXY", "http://127.0.0.1:1", 1), 0);
  fixture_start(&f, FIXTURE_TLS, NULL);
  url_of(url, &f, "/get");
  assert_int_equal(ask(url, "GET", "").st, STATUS_OK);
  fixture_stop(&f);
  (void)unsetenv("https_proxy");
  (void)unsetenv("HTTPS_PROXY");
  (void)unsetenv("ALL_PROXY");
}

static void nobody_is_there(void **state) {
  (void)state;
  assert_int_equal(ask("https://127.0.0.1:1/", "GET", "").st, STATUS_UNAVAILABLE);
  assert_int_equal(ask("https://no-such-host.invalid/", "GET", "").st, STATUS_UNAVAILABLE);
}

// --- peers that misbehave, in plain HTTP ---------------------------------------------------

struct bad_peer {
  int fd;
  const char *reply;  // NULL: says nothing
};

static void *run_bad_peer(void *arg) {
  const struct bad_peer *peer = arg;
  int fd = accept(peer->fd, NULL, NULL);
  char bytes[4096];
  if (fd >= 0) {
    (void)recv(fd, bytes, sizeof(bytes), 0);
    if (peer->reply != NULL) {
      (void)send(fd, peer->reply, strlen(peer->reply), MSG_NOSIGNAL);
    } else {
      (void)recv(fd, bytes, sizeof(bytes), 0);  // until the client gives up
    }
    (void)close(fd);
  }
  return NULL;
}

static struct result ask_bad_peer(const char *reply) {
  struct address address;
  struct bad_peer peer = {.fd = -1, .reply = reply};
  struct client c;
  struct result result;
  char url[128];
  pthread_t thread;
  struct http_call call = {
      .url = url, .allow_http = true, .method = "GET", .limit_ms = 500, .max_answer_len = 1000};
  assert_int_equal(address_parse(&address, "127.0.0.1:0", NULL), STATUS_OK);
  assert_int_equal(address_listen(&peer.fd, &address, false, 0, NULL), STATUS_OK);
  assert_int_equal(address_of_local(&address, peer.fd), STATUS_OK);
  (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", address_port(&address));
  client_init(&c);
  (void)start(&c, &call);
  // accept() of a non-blocking socket: make it wait.
  assert_int_equal(fcntl(peer.fd, F_SETFL, 0), 0);
  assert_int_equal(pthread_create(&thread, NULL, run_bad_peer, &peer), 0);
  wait_all(&c);
  result = c.results[0];
  client_cleanup(&c);
  assert_int_equal(pthread_join(thread, NULL), 0);
  (void)close(peer.fd);
  return result;
}

static void survives_bad_peers(void **state) {
  static char endless[4000] = "HTTP/1.1 200 OK\r\n\r\n";
  (void)state;
  assert_int_equal(ask_bad_peer(NULL).st, STATUS_TIMEOUT);
  assert_int_equal(ask_bad_peer("").st, STATUS_CLOSED);
  assert_int_not_equal(ask_bad_peer("garbage\r\n\r\n").st, STATUS_OK);
  assert_int_equal(ask_bad_peer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").st,
                   STATUS_CLOSED);
  assert_int_equal(ask_bad_peer("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").st,
                   STATUS_LIMIT);
  // Without a length nobody knows before it is too much.
  memset(endless + strlen(endless), 'x', sizeof(endless) - 1 - strlen(endless));
  assert_int_equal(ask_bad_peer(endless).st, STATUS_LIMIT);
  assert_int_not_equal(
      ask_bad_peer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").st, STATUS_OK);
}

static void follows_no_redirect(void **state) {
  struct result r = ask_bad_peer(
      "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno");
  (void)state;
  assert_int_equal(r.st, STATUS_OK);
  assert_int_equal(r.code, 302);
  assert_string_equal(r.text, "no");
}

static struct result ask_public_only(const char *url) {
  struct http_call call = {.url = url,
                           .allow_http = true,
                           .only_public = true,
                           .method = "GET",
                           .limit_ms = 5000,
                           .max_answer_len = 1000};
  struct client c;
  struct result result;
  client_init(&c);
  (void)start(&c, &call);
  wait_all(&c);
  result = c.results[0];
  client_cleanup(&c);
  return result;
}

static void stays_outside_if_told(void **state) {
  (void)state;
  static const char *const urls[] = {"http://127.0.0.1:%u/",
                                     "http://127.1.2.3:%u/",
                                     "http://localhost:%u/",
                                     "http://[::1]:%u/",
                                     "http://0.0.0.0:%u/",
                                     "http://2130706433:%u/",
                                     "http://0x7f.1:%u/",
                                     "http://10.1.2.3:%u/",
                                     "http://172.31.0.1:%u/",
                                     "http://192.168.1.1:%u/",
                                     "http://169.254.1.1:%u/",
                                     "http://100.64.0.1:%u/",
                                     "http://[::ffff:127.0.0.1]:%u/",
                                     "http://[fe80::1]:%u/",
                                     "http://[fd00::1]:%u/",
                                     "http://[2002:7f00:1::]:%u/",
                                     "http://224.0.0.1:%u/",
                                     "http://[::127.0.0.1]:%u/"};
  struct fixture f;
  char url[128];
  fixture_start(&f, FIXTURE_PLAIN, &(struct fixture_limits){0});
  for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(url, sizeof(url), urls[i], address_port(&f.address));
#pragma GCC diagnostic pop
    struct result r = ask_public_only(url);
    if (r.st != STATUS_REFUSED || strstr(r.message, "public") == NULL) {
      fail_msg("%s: %s, \"%s\"", url, status_name(r.st), r.message);
    }
  }
  fixture_stop(&f);
}

// What OCSP and CRLs need: lines of our own out, headers of the answer back.
static const char *const headers_out[] = {"X-Test: mine", "If-None-Match: \"a\"", NULL};

static void on_headers(void *arg, const struct http_answer *answer) {
  struct client *c = arg;
  uint8_t *body = http_answer_take_body(answer);
  assert_int_equal(answer->code, 302);
  assert_string_equal(http_answer_header(answer, "etag"), "\"b\"");
  assert_string_equal(answer->redirect_url, "http://127.0.0.1:1/x");
  assert_null(http_answer_header(answer, "Expires"));
  assert_memory_equal(body, "no", 2);
  assert_ptr_equal(body, answer->body.data);
  free(body);
  loop_stop(c->loop);
}

static void hands_over_headers_and_body(void **state) {
  (void)state;
  struct address address;
  struct bad_peer peer = {.fd = -1,
                          .reply =
                              "HTTP/1.1 302 Found\r\nLocation: //127.0.0.1:1/x\r\n"
                              "ETag: \"b\"\r\nContent-Length: 2\r\n\r\nno"};
  struct client c;
  char url[128];
  pthread_t thread;
  uint64_t id = 0;
  struct http_call call = {.url = url,
                           .allow_http = true,
                           .method = "GET",
                           .headers = headers_out,
                           .limit_ms = 5000,
                           .max_answer_len = 1000};
  assert_int_equal(address_parse(&address, "127.0.0.1:0", NULL), STATUS_OK);
  assert_int_equal(address_listen(&peer.fd, &address, false, 0, NULL), STATUS_OK);
  assert_int_equal(address_of_local(&address, peer.fd), STATUS_OK);
  (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", address_port(&address));
  client_init(&c);
  assert_int_equal(http_client_start(&id, c.http, &call, on_headers, &c), STATUS_OK);
  assert_int_equal(fcntl(peer.fd, F_SETFL, 0), 0);
  assert_int_equal(pthread_create(&thread, NULL, run_bad_peer, &peer), 0);
  wait_all(&c);
  client_cleanup(&c);
  assert_int_equal(pthread_join(thread, NULL), 0);
  (void)close(peer.fd);
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
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(library_is_the_right_one),
      cmocka_unit_test(asks_with_mutual_tls),
      cmocka_unit_test(uses_connections_again),
      cmocka_unit_test(bounds_the_answer),
      cmocka_unit_test(bounds_the_time),
      cmocka_unit_test(cancels),
      cmocka_unit_test(trusts_no_other_ca),
      cmocka_unit_test(checks_the_name),
      cmocka_unit_test(speaks_https_only_unless_allowed),
      cmocka_unit_test(ignores_the_environments_proxy),
      cmocka_unit_test(nobody_is_there),
      cmocka_unit_test(survives_bad_peers),
      cmocka_unit_test(follows_no_redirect),
      cmocka_unit_test(stays_outside_if_told),
      cmocka_unit_test(hands_over_headers_and_body),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
