// SPDX-License-Identifier: Apache-2.0
// Whole runs of the load generator against a server of this process, which behaves
// as each test wants: what is counted, and from when.
#include "bench/load.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "bench/memory_server.h"

// --- a server: one connection after the other --------------------------------------

enum manner {
  SERVES,
  RESETS,      // RST after the ClientHello
  CLOSES,      // FIN after the ClientHello
  IS_SILENT,   // reads, and says nothing
  ENDS_SHORT,  // FIN in the middle of a response
};

static struct memory_server tls;
static struct {
  int listener;
  enum manner manner;
  int64_t delay_ms;  // before each ServerHello
  const char *response;
  atomic_bool stop;
  atomic_int num_served;
  pthread_t thread;
} server;

static void send_all(int fd, const struct buffer *b) {
  size_t at = 0;
  while (at < b->len) {
    const ssize_t num = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);
    if (num <= 0) {
      return;
    }
    at += (size_t)num;
  }
}

static void delay(int64_t ms) {
  const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)nanosleep(&t, NULL);
}

// Answers requests until close_notify, or for as long as the manner allows.
static bool answer(struct memory_peer *peer, int fd) {
  char text[4096];
  struct buffer out = {0};
  const int num = SSL_read(peer->ssl, text, sizeof(text));
  if (num > 0) {
    (void)memory_peer_write(peer, bytes_text(server.response), &out);
  } else if (SSL_get_error(peer->ssl, num) == SSL_ERROR_ZERO_RETURN) {
    (void)SSL_shutdown(peer->ssl);
    const struct bytes nothing = {0};
    (void)memory_peer_run(peer, nothing, &out);
  }
  send_all(fd, &out);
  buffer_cleanup(&out);
  return num > 0 ? server.manner != ENDS_SHORT
                 : SSL_get_error(peer->ssl, num) == SSL_ERROR_WANT_READ;
}

static void serve_tls(int fd) {
  struct memory_peer peer = {0};
  struct buffer out = {0};
  uint8_t in[8192];
  bool is_going = memory_peer_start(&peer, &tls) == STATUS_OK;
  delay(server.delay_ms);
  while (is_going && !peer.is_failed) {
    const ssize_t num = recv(fd, in, sizeof(in), 0);
    if (num <= 0) {
      break;
    }
    out.len = 0;
    is_going = memory_peer_run(&peer, bytes_of(in, (size_t)num), &out) == STATUS_OK;
    send_all(fd, &out);
    if (peer.is_done) {
      is_going = is_going && answer(&peer, fd);
    }
  }
  server.num_served += peer.is_done;
  buffer_cleanup(&out);
  memory_peer_cleanup(&peer);
}

static void serve(int fd) {
  static const struct linger reset = {.l_onoff = 1};
  uint8_t in[8192];
  switch (server.manner) {
    case SERVES:
    case ENDS_SHORT:
      serve_tls(fd);
      break;
    case RESETS:
      (void)recv(fd, in, sizeof(in), 0);
      (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      break;
    case CLOSES:
      (void)recv(fd, in, sizeof(in), 0);
      break;
    case IS_SILENT:
      while (recv(fd, in, sizeof(in), 0) > 0) {
      }
      break;
  }
}

static void *run_server(void *arg) {
  (void)arg;
  while (!server.stop) {
    struct pollfd p = {.fd = server.listener, .events = POLLIN};
    if (poll(&p, 1, 20) == 1) {
      const int fd = accept(server.listener, NULL, NULL);
      if (fd >= 0) {
        serve(fd);
        (void)close(fd);
      }
    }
  }
  return NULL;
}

// --- a run -------------------------------------------------------------------------------

static const char *const names[] = {"localhost"};
static struct load_options options;
static struct tls13_options client;
static struct load_result result;
static struct recorder *recorder;

static void listen_somewhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof(address);
  server.listener = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(server.listener >= 0);
  assert_int_equal(bind(server.listener, (struct sockaddr *)&address, len), 0);
  assert_int_equal(listen(server.listener, 100), 0);
  assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &len), 0);
  memcpy(&options.target.storage, &address, sizeof(address));
  options.target.len = len;
}

static void start_server(enum manner manner) {
  server.manner = manner;
  server.stop = false;
  server.num_served = 0;
  assert_int_equal(pthread_create(&server.thread, NULL, run_server, NULL), 0);
}

static int make(void **state) {
  (void)state;
  server.delay_ms = 0;
  server.thread = 0;
  server.response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
  options = (struct load_options){.names = names,
                                  .num_names = 1,
                                  .concurrency = 1,
                                  .timeout_ms = 5000,
                                  .request = "GET / HTTP/1.1\r\n\r\n"};
  client = (struct tls13_options){.names = names,
                                  .num_names = 1,
                                  .offers_dc = true,
                                  .suites = {tls13_suite_find(0x1301)},
                                  .num_suites = 1,
                                  .verify_every = 1};
  listen_somewhere();
  return recorder_new(&recorder, NULL, NULL) == STATUS_OK ? 0 : -1;
}

static void stop_server(void) {
  server.stop = true;
  if (server.thread != 0) {
    assert_int_equal(pthread_join(server.thread, NULL), 0);
    server.thread = 0;
  }
}

static int drop(void **state) {
  (void)state;
  stop_server();
  (void)close(server.listener);
  recorder_free(recorder);
  recorder = NULL;
  return 0;
}

static enum status run(void) { return load_run(&result, &options, &client, recorder, NULL); }

static uint64_t num_failed(const char *reason) {
  for (size_t i = 0; i < recorder->failures.num; i++) {
    if (strcmp(recorder->failures.words[i].word, reason) == 0) {
      return recorder->failures.words[i].num;
    }
  }
  return 0;
}

static int64_t max_ms(enum recorder_latency which) {
  return recorder->latencies[which].max / 1000000;
}

// --- what is counted ---------------------------------------------------------------------

static void counts_handshakes_and_leaves_warm_up_out(void **state) {
  (void)state;
  options.count = 20;
  options.warmup = 5;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  stop_server();
  assert_int_equal(recorder->num_ok, 20);
  assert_int_equal(recorder->num_warmup, 5);
  assert_int_equal(recorder->num_failed, 0);
  assert_int_equal(recorder->num_dc, 20);
  assert_int_equal(recorder->num_verified, 20);
  assert_int_equal(server.num_served, 25);
  assert_int_equal(recorder->latencies[LATENCY_HANDSHAKE].num, 20);
}

static void resumes_with_tickets_of_earlier_handshakes(void **state) {
  (void)state;
  options.count = 10;
  options.num_tickets = 2;
  options.primes_with_request = true;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  stop_server();
  assert_int_equal(recorder->num_ok, 10);
  assert_int_equal(recorder->num_resumed, 10);
  assert_int_equal(server.num_served, 12);
}

static void asks_on_a_connection_that_is_kept(void **state) {
  (void)state;
  options.count = 3;
  options.num_requests = 4;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_ok, 3);
  assert_int_equal(recorder->num_requests, 12);
  assert_int_equal(recorder->latencies[LATENCY_REQUEST].num, 12);
  assert_int_equal(recorder->latencies[LATENCY_FIRST_BYTE].num, 3);
  assert_int_equal(recorder->bytes, 12 * strlen(server.response));
}

static void stops_a_download_at_its_length(void **state) {
  (void)state;
  options.count = 2;
  options.download_len = 30;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_ok, 2);
  assert_true(recorder->bytes >= 60);
}

static void tells_the_reasons_of_failures_apart(void **state) {
  (void)state;
  static const struct {
    enum manner manner;
    const char *reason;
  } rows[] = {{RESETS, "reset"},
              {CLOSES, "closed"},
              {IS_SILENT, "timeout_handshake"},
              {ENDS_SHORT, "short_response"}};
  options.count = 3;
  options.timeout_ms = 200;
  options.num_requests = 1;
  for (size_t i = 0; i < 4; i++) {
    server.response = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello";
    start_server(rows[i].manner);
    assert_int_equal(run(), STATUS_OK);
    stop_server();
    assert_int_equal(recorder->num_failed, 3 * (i + 1));
    assert_int_equal(num_failed(rows[i].reason), 3);
  }
  assert_int_equal(recorder->num_ok, 0);
}

static void a_response_that_does_not_come_is_a_timeout(void **state) {
  (void)state;
  options.count = 2;
  options.timeout_ms = 200;
  options.num_requests = 1;
  server.response = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello";
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(num_failed("timeout_response"), 2);
}

static void an_answer_that_is_no_http_is_unreadable(void **state) {
  (void)state;
  options.count = 2;
  options.num_requests = 1;
  server.response = "SSH-2.0-nonsense\r\n\r\n";
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(num_failed("response_unreadable"), 2);
}

static void only_2xx_is_success(void **state) {
  (void)state;
  static const struct {
    const char *response;
    const char *reason;
  } rows[] = {{"HTTP/1.1 403 no\r\nContent-Length: 5\r\n\r\nhello", "http_403"},
              {"HTTP/1.1 302 no\r\nContent-Length: 5\r\n\r\nhello", "http_302"},
              {"HTTP/1.1 101 no\r\nContent-Length: 5\r\n\r\nhello", "http_101"}};
  options.count = 2;
  options.num_requests = 1;
  for (size_t i = 0; i < 3; i++) {
    server.response = rows[i].response;
    start_server(SERVES);
    assert_int_equal(run(), STATUS_OK);
    stop_server();
    assert_int_equal(num_failed(rows[i].reason), 2);
  }
}

static void a_download_that_is_too_short_fails(void **state) {
  (void)state;
  options.count = 2;
  options.download_len = 3000;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(num_failed("short_response"), 2);
}

static void nobody_listening_is_refused_at_a_bearable_pace(void **state) {
  (void)state;
  (void)close(server.listener);
  server.listener = -1;
  options.duration_ms = 200;
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_ok, 0);
  assert_int_equal(num_failed("refused"), recorder->num_failed);
  assert_in_range(recorder->num_failed, 1, 30);
}

static void an_alert_is_told_by_its_number(void **state) {
  (void)state;
  struct memory_server other = {0};
  const struct memory_server good = tls;
  const struct memory_server_options o = {.kind = KEY_KIND_P256, .issuer = "x"};
  assert_int_equal(memory_server_init(&other, &o), STATUS_OK);
  assert_int_equal(SSL_CTX_set1_curves_list(other.ctx, "P-384"), 1);  // not offered
  options.count = 4;
  tls = other;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  stop_server();
  tls = good;
  memory_server_cleanup(&other);
  assert_int_equal(recorder->num_failed, 4);
  assert_int_equal(num_failed("alert_40"), 4);
}

static void without_any_ticket_there_is_no_resumption_to_measure(void **state) {
  (void)state;
  struct errmsg err = {0};
  options.count = 10;
  options.num_tickets = 2;
  start_server(CLOSES);
  assert_int_equal(load_run(&result, &options, &client, recorder, &err), STATUS_UNAVAILABLE);
  assert_non_null(strstr(err.text, "closed"));
}

// --- open loop -----------------------------------------------------------------------------

// Two handshakes can be served in the time of three arrivals, one at a time: the later
// a handshake is due, the longer it waits, and that wait is counted.
static void latency_counts_from_when_a_handshake_was_due(void **state) {
  (void)state;
  options.count = 20;
  options.rate_per_s = 100;
  server.delay_ms = 20;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_ok, 20);
  // The last is due at 190 ms and cannot begin before 19 x 20 ms.
  assert_true(max_ms(LATENCY_HANDSHAKE) >= 200);
  assert_true(max_ms(LATENCY_HANDSHAKE) - max_ms(LATENCY_SERVICE) >= 100);
  assert_true(result.num_late >= 10);
}

static void arrivals_that_found_no_place_are_failures(void **state) {
  (void)state;
  options.rate_per_s = 100;
  options.duration_ms = 200;
  options.timeout_ms = 300;
  start_server(IS_SILENT);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_failed, 20);
  assert_true(num_failed("not_started") >= 17);
  assert_true(num_failed("timeout_handshake") >= 1);
}

static void an_open_loop_keeps_its_rate_and_ends_in_time(void **state) {
  (void)state;
  options.rate_per_s = 200;
  options.duration_ms = 500;
  options.concurrency = 100;
  start_server(SERVES);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(recorder->num_ok + recorder->num_failed, 100);
}

// --- the end of a run ----------------------------------------------------------------------

static void *interrupt_soon(void *arg) {
  (void)arg;
  while (server.num_served < 3) {
    delay(5);
  }
  (void)kill(getpid(), SIGINT);
  return NULL;
}

static void a_signal_ends_the_run_with_what_there_is(void **state) {
  (void)state;
  pthread_t thread;
  sigset_t signals;
  options.duration_ms = 60000;
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);  // for the threads below
  start_server(SERVES);
  assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, NULL), 0);
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(result.is_interrupted);
  assert_true(recorder->num_ok >= 3);
  assert_int_equal(recorder->num_failed, 0);
}

static void a_held_connection_that_is_closed_is_lost(void **state) {
  (void)state;
  options.num_held = 1;
  options.count = 1;
  options.num_requests = 1;
  options.duration_ms = 2000;
  server.response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
  start_server(ENDS_SHORT);  // which closes after its (here whole) response
  assert_int_equal(run(), STATUS_OK);
  assert_int_equal(num_failed("lost"), 1);
  assert_int_equal(result.num_lost, 1);
}

static int make_tls(void **state) {
  (void)state;
  const struct memory_server_options o = {.kind = KEY_KIND_P256,
                                          .has_dc = true,
                                          .dc_life_s = 3600,
                                          .issuer = "x",
                                          .gives_tickets = true};
  return memory_server_init(&tls, &o) == STATUS_OK ? 0 : -1;
}

static int free_tls(void **state) {
  (void)state;
  memory_server_cleanup(&tls);
  return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(counts_handshakes_and_leaves_warm_up_out),
      TEST(resumes_with_tickets_of_earlier_handshakes),
      TEST(asks_on_a_connection_that_is_kept),
      TEST(stops_a_download_at_its_length),
      TEST(tells_the_reasons_of_failures_apart),
      TEST(a_response_that_does_not_come_is_a_timeout),
      TEST(an_answer_that_is_no_http_is_unreadable),
      TEST(only_2xx_is_success),
      TEST(a_download_that_is_too_short_fails),
      TEST(nobody_listening_is_refused_at_a_bearable_pace),
      TEST(an_alert_is_told_by_its_number),
      TEST(without_any_ticket_there_is_no_resumption_to_measure),
      TEST(latency_counts_from_when_a_handshake_was_due),
      TEST(arrivals_that_found_no_place_are_failures),
      TEST(an_open_loop_keeps_its_rate_and_ends_in_time),
      TEST(a_signal_ends_the_run_with_what_there_is),
      TEST(a_held_connection_that_is_closed_is_lost),
  };
  return cmocka_run_group_tests(tests, make_tls, free_tls);
}
