// SPDX-License-Identifier: Apache-2.0
// Both ends on one loop, over real sockets; where a peer has to misbehave on the
// wire, it is a thread with blocking calls.
#include "common/tls/tls_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

#define GUARD_MS 10000  // a test that takes longer has failed
#define KB ((size_t)1024)
#define MB (KB * KB)

// --- certificates ------------------------------------------------------------------

static EVP_PKEY *ca_key, *key;
static X509 *ca;
static SSL_CTX *server_ctx, *client_ctx;

static const struct test_cert server_cert = {
    .cn = "server", .names = "DNS:server.test", .eku = "serverAuth"};
static const struct test_cert client_cert = {
    .cn = "client", .names = "DNS:client.test", .eku = "clientAuth"};

static struct tls_identity identity_of(const struct test_cert *spec, X509 *issuer,
                                       EVP_PKEY *issuer_key) {
  X509 *leaf = test_cert_new(spec, key, issuer, issuer_key);

  test_write_certs("leaf.pem", &leaf, 1);
  X509_free(leaf);
  return (struct tls_identity){.ca = (char *)(uintptr_t)test_path("ca.pem"),
                               .certificate = (char *)(uintptr_t)test_path("leaf.pem"),
                               .key = (char *)(uintptr_t)test_path("key.pem")};
}

static SSL_CTX *client_ctx_of(const struct test_cert *spec, X509 *issuer, EVP_PKEY *issuer_key) {
  struct tls_identity identity = identity_of(spec, issuer, issuer_key);
  SSL_CTX *ctx = NULL;

  assert_int_equal(tls_context_client(&ctx, &identity, false, NULL), STATUS_OK);
  return ctx;
}

static int make_contexts(void **state) {
  struct tls_identity identity;
  (void)state;

  ca_key = test_key_new(KEY_KIND_P256);
  key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  test_write_certs("ca.pem", &ca, 1);
  test_write_key("key.pem", key, 0600);
  identity = identity_of(&server_cert, ca, ca_key);
  assert_int_equal(tls_context_server(&server_ctx, &identity, false, NULL), STATUS_OK);
  client_ctx = client_ctx_of(&client_cert, ca, ca_key);
  return 0;
}

static int free_contexts(void **state) {
  (void)state;
  SSL_CTX_free(server_ctx);
  SSL_CTX_free(client_ctx);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  test_remove_files();
  return 0;
}

// --- one end -----------------------------------------------------------------------

enum free_when { FREE_AT_END, FREE_IN_OPEN, FREE_IN_DATA, FREE_IN_EOF };

struct side {
  struct tls_stream *stream;
  bool is_open;
  bool is_eof;
  bool is_ended;
  enum tls_stream_end end;
  char why[160];
  uint8_t *got;  // everything consumed
  size_t got_len;
  size_t largest_input;
  size_t num_data;
  // What it does.
  bool does_echo;
  bool does_not_consume;
  bool does_close_at_eof;
  bool does_pause_at_open;
  size_t reply_at_eof_len;
  enum free_when free_when;
};

static struct loop *loop;
static int num_owner_calls;  // in progress: no callback may come now

static void drop(struct side *side) {
  tls_stream_free(side->stream);
  side->stream = NULL;
}

static void put(struct side *side, const void *data, size_t len) {
  uint8_t *room = NULL;

  num_owner_calls++;
  assert_int_equal(tls_stream_reserve(side->stream, &room, len), STATUS_OK);
  memcpy(room, data, len);
  tls_stream_commit(side->stream, len);
  num_owner_calls--;
}

static void put_zeros(struct side *side, size_t len) {
  uint8_t *zeros = calloc(1, len);

  put(side, zeros, len);
  free(zeros);
}

static void on_open(void *arg) {
  struct side *side = arg;

  assert_int_equal(num_owner_calls, 0);
  assert_false(side->is_open);
  side->is_open = true;
  if (side->does_pause_at_open) {
    tls_stream_pause(side->stream, true);
  }
  if (side->free_when == FREE_IN_OPEN) {
    drop(side);
  }
}

static void on_data(void *arg) {
  struct side *side = arg;
  struct bytes in = tls_stream_input(side->stream);

  assert_int_equal(num_owner_calls, 0);
  assert_true(side->is_open);
  assert_true(in.len > 0);
  side->num_data++;
  side->largest_input = in.len > side->largest_input ? in.len : side->largest_input;
  if (side->does_not_consume) {
    return;
  }
  if (side->does_echo) {
    put(side, in.data, in.len);
  }
  side->got = realloc(side->got, side->got_len + in.len);
  memcpy(side->got + side->got_len, in.data, in.len);
  side->got_len += in.len;
  tls_stream_consume(side->stream, in.len);
  if (side->free_when == FREE_IN_DATA) {
    drop(side);
  }
}

static void on_eof(void *arg) {
  struct side *side = arg;

  assert_int_equal(num_owner_calls, 0);
  assert_false(side->is_eof);
  side->is_eof = true;
  if (side->reply_at_eof_len > 0) {
    put_zeros(side, side->reply_at_eof_len);
  }
  if (side->does_close_at_eof) {
    tls_stream_close_when_sent(side->stream);
  }
  if (side->free_when == FREE_IN_EOF) {
    drop(side);
  }
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  struct side *side = arg;

  assert_int_equal(num_owner_calls, 0);
  assert_false(side->is_ended);
  side->is_ended = true;
  side->end = end;
  strncpy(side->why, why, sizeof side->why - 1);
  drop(side);
}

static const struct tls_stream_events events = {on_open, on_data, on_eof, on_end};

static const struct tls_stream_limits limits = {
    .handshake_ms = 5000,
    .write_ms = 5000,
    .max_input_len = 1 << 20,
    .max_output_len = 8 << 20,
};

static void side_cleanup(struct side *side) {
  tls_stream_free(side->stream);
  free(side->got);
  *side = (struct side){0};
}

// --- the loop ----------------------------------------------------------------------

struct watch {
  struct timer tick;
  bool (*is_done)(void *arg);
  void *arg;
  int64_t until_ms;
  bool is_late;
};

static void on_tick(void *arg) {
  struct watch *watch = arg;

  if (watch->is_done(watch->arg)) {
    loop_stop(loop);
  } else if (clock_monotonic_ms() > watch->until_ms) {
    watch->is_late = true;
    loop_stop(loop);
  } else {
    timer_arm_ms(&watch->tick, 1);
  }
}

static bool run_until_or(bool (*is_done)(void *arg), void *arg, int64_t max_ms) {
  struct watch watch = {.is_done = is_done, .arg = arg, .until_ms = clock_monotonic_ms() + max_ms};

  assert_int_equal(timer_init(&watch.tick, loop, on_tick, &watch), STATUS_OK);
  timer_arm_ms(&watch.tick, 0);
  loop_run(loop);
  timer_cleanup(&watch.tick);
  return !watch.is_late;
}

static void run_until(bool (*is_done)(void *arg), void *arg) {
  if (!run_until_or(is_done, arg, GUARD_MS)) {
    fail_msg("nothing happened for %d ms", GUARD_MS);
  }
}

static bool is_flag_set(void *arg) { return *(bool *)arg; }

static void run_until_set(bool *flag) { run_until(is_flag_set, flag); }

static bool never(void *arg) {
  (void)arg;
  return false;
}

static int make_loop(void **state) {
  (void)state;
  assert_int_equal(loop_new(&loop), STATUS_OK);
  num_owner_calls = 0;
  return 0;
}

static int free_loop(void **state) {
  (void)state;
  loop_free(loop);
  assert_int_equal(ERR_peek_error(), 0);
  return 0;
}

// --- sockets -----------------------------------------------------------------------

static int listen_anywhere(struct address *out) {
  struct address any;
  int fd = -1;

  assert_int_equal(address_parse(&any, "127.0.0.1:0", NULL), STATUS_OK);
  assert_int_equal(address_listen(&fd, &any, false, 0, NULL), STATUS_OK);
  assert_int_equal(address_of_local(out, fd), STATUS_OK);
  return fd;
}

// connected_pair makes two ends of a TCP connection; the first does not block.
static void connected_pair(int out[2]) {
  struct address address;
  int listener = listen_anywhere(&address);
  const int small = 32 * 1024;

  out[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  (void)setsockopt(out[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  assert_int_equal(connect(out[1], (struct sockaddr *)&address.storage, address.len), 0);
  do {
    out[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (out[0] < 0 && errno == EAGAIN);
  assert_true(out[0] >= 0);
  (void)setsockopt(out[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  (void)close(listener);
}

// two_streams connects a client to a server; neither has shaken hands yet.
static void two_streams(struct side *client, struct side *server,
                        const struct tls_stream_limits *client_limits,
                        const struct tls_stream_limits *server_limits) {
  struct address address;
  int listener = listen_anywhere(&address);
  int fd = -1;

  num_owner_calls++;
  assert_int_equal(tls_stream_connect(&client->stream, loop, client_ctx, &address, "server.test",
                                      client_limits, &events, client),
                   STATUS_OK);
  do {
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (fd < 0 && errno == EAGAIN);
  assert_int_equal(
      tls_stream_accept(&server->stream, loop, server_ctx, &fd, server_limits, &events, server),
      STATUS_OK);
  assert_int_equal(fd, -1);
  num_owner_calls--;
  (void)close(listener);
}

static void two_open_streams(struct side *client, struct side *server) {
  two_streams(client, server, &limits, &limits);
  run_until_set(&client->is_open);
  run_until_set(&server->is_open);
}

struct wanted {
  struct side *side;
  size_t len;
};

static bool has_got(void *arg) {
  struct wanted *wanted = arg;

  return wanted->side->got_len >= wanted->len || wanted->side->is_ended;
}

static void run_until_got(struct side *side, size_t len) {
  run_until(has_got, &(struct wanted){side, len});
  assert_int_equal(side->got_len, len);
}

// --- carrying ------------------------------------------------------------------------

static void carries_bytes_both_ways(void **state) {
  struct side client = {0};
  struct side server = {.does_echo = true};
  struct tls_peer peer;
  uint8_t data[1000];
  (void)state;

  two_open_streams(&client, &server);
  assert_int_equal(tls_peer_read(&peer, tls_stream_ssl(server.stream)), STATUS_OK);
  assert_string_equal(peer.name, "client.test");
  for (size_t i = 0; i < 300; i++) {
    memset(data, (int)i, sizeof data);
    put(&client, data, sizeof data);
  }
  run_until_got(&client, 300 * sizeof data);
  for (size_t i = 0; i < 300 * sizeof data; i++) {
    assert_int_equal(client.got[i], (uint8_t)(i / sizeof data));
  }
  assert_int_equal(tls_stream_unsent(client.stream), 0);
  num_owner_calls++;
  tls_stream_close_when_sent(client.stream);
  num_owner_calls--;
  run_until_set(&server.is_eof);
  assert_false(client.is_ended);  // it waits for the server's FIN
  tls_stream_close_when_sent(server.stream);
  run_until_set(&server.is_ended);
  run_until_set(&client.is_ended);
  assert_int_equal(client.end, TLS_STREAM_CLOSED);
  assert_int_equal(server.end, TLS_STREAM_CLOSED);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void sends_what_was_queued_before_the_handshake(void **state) {
  struct side client = {0};
  struct side server = {.does_echo = true};
  (void)state;

  two_streams(&client, &server, &limits, &limits);
  put(&client, "early", 5);
  run_until_got(&client, 5);
  assert_memory_equal(client.got, "early", 5);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void flushes_at_once_when_asked(void **state) {
  struct side client = {0};
  struct side server = {0};
  (void)state;

  two_open_streams(&client, &server);
  put(&client, "now", 3);
  assert_int_equal(tls_stream_unsent(client.stream), 3);
  tls_stream_flush(client.stream);
  assert_int_equal(tls_stream_unsent(client.stream), 0);
  run_until_got(&server, 3);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void gives_a_flooding_peer_only_its_share(void **state) {
  struct side client = {0};
  struct side server = {0};
  (void)state;

  two_open_streams(&client, &server);
  put_zeros(&client, 8 * MB);
  run_until_got(&server, 8 * MB);
  assert_true(server.largest_input <= 64 * KB + 17 * KB);
  assert_true(server.num_data >= 8 * MB / (81 * KB));
  side_cleanup(&client);
  side_cleanup(&server);
}

static void keeps_what_the_owner_does_not_consume(void **state) {
  struct side client = {0};
  struct side server = {.does_not_consume = true};
  (void)state;

  two_open_streams(&client, &server);
  for (int i = 0; i < 3; i++) {
    size_t seen = server.num_data;

    put(&client, "part", 4);
    tls_stream_flush(client.stream);
    while (server.num_data == seen) {
      (void)run_until_or(never, NULL, 2);
    }
  }
  assert_int_equal(server.largest_input, 12);
  assert_memory_equal(tls_stream_input(server.stream).data, "partpartpart", 12);
  tls_stream_consume(server.stream, 4);
  assert_memory_equal(tls_stream_input(server.stream).data, "partpart", 8);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void shows_after_a_pause_what_came_meanwhile(void **state) {
  struct side client = {0};
  struct side server = {0};
  (void)state;

  two_open_streams(&client, &server);
  tls_stream_pause(server.stream, true);
  put(&client, "waits", 5);
  tls_stream_close_when_sent(client.stream);
  (void)run_until_or(never, NULL, 50);
  assert_int_equal(server.got_len, 0);
  assert_false(server.is_eof);
  num_owner_calls++;
  tls_stream_pause(server.stream, false);
  num_owner_calls--;
  run_until_got(&server, 5);
  run_until_set(&server.is_eof);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void shows_again_what_was_left(void **state) {
  struct side client = {0};
  struct side server = {.does_not_consume = true};
  (void)state;

  two_open_streams(&client, &server);
  put(&client, "left", 4);
  tls_stream_close_when_sent(client.stream);
  run_until_set(&server.is_eof);
  assert_int_equal(server.num_data, 1);
  num_owner_calls++;
  tls_stream_again(server.stream);
  num_owner_calls--;
  (void)run_until_or(never, NULL, 20);
  assert_int_equal(server.num_data, 2);
  num_owner_calls++;
  tls_stream_pause(server.stream, true);
  tls_stream_again(server.stream);
  num_owner_calls--;
  (void)run_until_or(never, NULL, 20);
  assert_int_equal(server.num_data, 2);
  server.does_not_consume = false;
  tls_stream_pause(server.stream, false);
  run_until_got(&server, 4);
  assert_int_equal(server.num_data, 3);
  side_cleanup(&client);
  side_cleanup(&server);
}

// --- peers that misbehave --------------------------------------------------------------

static void accept_raw(struct side *server, int fds[2],
                       const struct tls_stream_limits *server_limits) {
  connected_pair(fds);
  assert_int_equal(
      tls_stream_accept(&server->stream, loop, server_ctx, &fds[0], server_limits, &events, server),
      STATUS_OK);
}

static void ends_a_silent_peer(void **state) {
  struct tls_stream_limits quick = limits;
  struct side server = {0};
  int fds[2];
  int64_t start_ms = clock_monotonic_ms();
  (void)state;

  quick.handshake_ms = 100;
  accept_raw(&server, fds, &quick);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_TIMEOUT);
  assert_true(clock_monotonic_ms() - start_ms >= 100);
  assert_string_equal(server.why, "no TLS handshake in 100 ms");
  (void)close(fds[1]);
  side_cleanup(&server);
}

static void ends_peers_that_speak_no_tls(void **state) {
  static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff",
                                      "\0\0\0\0\0\0"};
  (void)state;

  for (size_t i = 0; i < 3; i++) {
    struct side server = {0};
    int fds[2];

    accept_raw(&server, fds, &limits);
    assert_true(write(fds[1], texts[i], 6) == 6);
    run_until_set(&server.is_ended);
    assert_int_equal(server.end, TLS_STREAM_HANDSHAKE_FAILED);
    assert_int_not_equal(server.why[0], '\0');
    (void)close(fds[1]);
    side_cleanup(&server);
  }
}

static void ends_a_peer_that_leaves_in_the_handshake(void **state) {
  struct side server = {0};
  int fds[2];
  (void)state;

  accept_raw(&server, fds, &limits);
  assert_true(write(fds[1], "\x16\x03", 2) == 2);
  (void)close(fds[1]);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_HANDSHAKE_FAILED);
  assert_string_equal(server.why, "the peer closed the connection");
  side_cleanup(&server);
}

// A client that lets each byte go alone.
struct dribbler {
  int fd;
  bool is_good;
};

static bool dribble_out(BIO *wbio, int fd) {
  uint8_t byte;

  while (BIO_read(wbio, &byte, 1) == 1) {
    if (write(fd, &byte, 1) != 1) {
      return false;
    }
  }
  return true;
}

static void *dribble(void *arg) {
  struct dribbler *d = arg;
  SSL *ssl = SSL_new(client_ctx);
  BIO *rbio = BIO_new(BIO_s_mem());
  BIO *wbio = BIO_new(BIO_s_mem());
  const int on = 1;
  char byte;
  char echo[5];
  int got = 0;

  (void)setsockopt(d->fd, 6 /* TCP */, 1 /* NODELAY */, &on, sizeof on);
  BIO_set_mem_eof_return(rbio, -1);
  SSL_set_bio(ssl, rbio, wbio);
  SSL_set_connect_state(ssl);
  while (SSL_do_handshake(ssl) != 1) {
    if (!dribble_out(wbio, d->fd) || read(d->fd, &byte, 1) != 1) {
      break;
    }
    BIO_write(rbio, &byte, 1);
  }
  if (SSL_write(ssl, "hello", 5) == 5 && dribble_out(wbio, d->fd)) {
    while ((got = SSL_read(ssl, echo, 5)) <= 0 && read(d->fd, &byte, 1) == 1) {
      BIO_write(rbio, &byte, 1);
    }
  }
  d->is_good = got == 5 && memcmp(echo, "hello", 5) == 0;
  SSL_free(ssl);
  (void)close(d->fd);
  return NULL;
}

static void serves_a_peer_that_dribbles(void **state) {
  struct side server = {.does_echo = true};
  struct dribbler d = {0};
  pthread_t thread;
  int fds[2];
  (void)state;

  accept_raw(&server, fds, &limits);
  d.fd = fds[1];
  assert_int_equal(pthread_create(&thread, NULL, dribble, &d), 0);
  run_until_set(&server.is_eof);  // a FIN without close_notify
  (void)pthread_join(thread, NULL);
  assert_true(d.is_good);
  assert_int_equal(server.got_len, 5);
  side_cleanup(&server);
}

// A client that asks, says that it will say no more, and then listens.
struct half_closer {
  int fd;
  size_t got_len;
  bool has_close_notify;
  bool has_fin;
};

static void *half_close(void *arg) {
  struct half_closer *h = arg;
  SSL *ssl = SSL_new(client_ctx);
  static uint8_t data[64 * KB];
  int n = 0;

  SSL_set_fd(ssl, h->fd);
  if (SSL_connect(ssl) == 1 && SSL_write(ssl, "last question", 13) == 13) {
    (void)SSL_shutdown(ssl);  // close_notify, no FIN
    while ((n = SSL_read(ssl, data, sizeof data)) > 0) {
      h->got_len += (size_t)n;
    }
    h->has_close_notify = SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN;
    h->has_fin = read(h->fd, data, 1) == 0;
  }
  SSL_free(ssl);
  (void)close(h->fd);
  return NULL;
}

static void answers_a_peer_that_has_finished_sending(void **state) {
  struct side server = {.does_close_at_eof = true, .reply_at_eof_len = 4 * MB};
  struct half_closer h = {0};
  pthread_t thread;
  int fds[2];
  (void)state;

  accept_raw(&server, fds, &limits);
  h.fd = fds[1];
  assert_int_equal(pthread_create(&thread, NULL, half_close, &h), 0);
  run_until_set(&server.is_ended);
  (void)pthread_join(thread, NULL);
  assert_int_equal(server.end, TLS_STREAM_CLOSED);
  assert_int_equal(server.got_len, 13);
  assert_int_equal(h.got_len, 4 * MB);
  assert_true(h.has_close_notify);
  assert_true(h.has_fin);
  assert_string_equal(server.why, "closed");  // not: the peer was given up
  side_cleanup(&server);
}

static void ends_a_peer_that_never_reads(void **state) {
  struct tls_stream_limits tight = limits;
  struct side client = {.does_pause_at_open = true};
  struct side server = {0};
  enum status st = STATUS_OK;
  uint8_t *room = NULL;
  (void)state;

  tight.max_output_len = 256 * KB;
  tight.write_ms = 200;
  two_streams(&client, &server, &limits, &tight);
  run_until_set(&client.is_open);
  run_until_set(&server.is_open);
  // Until the kernel takes no more.
  for (int i = 0; i < 10000 && st == STATUS_OK; i++) {
    st = tls_stream_reserve(server.stream, &room, 16 * KB);
    if (st == STATUS_OK) {
      memset(room, 0, 16 * KB);
      tls_stream_commit(server.stream, 16 * KB);
      tls_stream_flush(server.stream);
    }
  }
  assert_int_equal(st, STATUS_LIMIT);
  assert_int_equal(tls_stream_unsent(server.stream), 256 * KB);
  // Its requests wait from now on.
  put(&client, "more please", 11);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_OVERFLOW);
  assert_int_equal(server.got_len, 0);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void reads_again_when_the_peer_does(void **state) {
  struct tls_stream_limits tight = limits;
  struct side client = {.does_pause_at_open = true};
  struct side server = {0};
  uint8_t *room = NULL;
  size_t sent = 0;
  (void)state;

  tight.max_output_len = 256 * KB;
  two_streams(&client, &server, &limits, &tight);
  run_until_set(&client.is_open);
  run_until_set(&server.is_open);
  while (tls_stream_reserve(server.stream, &room, 16 * KB) == STATUS_OK) {
    memset(room, 0, 16 * KB);
    tls_stream_commit(server.stream, 16 * KB);
    tls_stream_flush(server.stream);
    sent += 16 * KB;
  }
  put(&client, "more please", 11);
  (void)run_until_or(never, NULL, 50);
  assert_int_equal(server.got_len, 0);
  tls_stream_pause(client.stream, false);
  run_until_got(&client, sent);
  run_until_got(&server, 11);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void ends_a_peer_with_too_long_a_packet(void **state) {
  struct tls_stream_limits tight = limits;
  struct side client = {0};
  struct side server = {.does_not_consume = true};
  (void)state;

  tight.max_input_len = 1000;
  two_streams(&client, &server, &limits, &tight);
  put_zeros(&client, 999);
  run_until_set(&server.is_open);
  (void)run_until_or(never, NULL, 50);
  assert_false(server.is_ended);
  put_zeros(&client, 1);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_ERROR);
  assert_string_equal(server.why, "a packet of more than 1000 bytes");
  assert_int_equal(server.largest_input, 1000);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void ends_idle_connections(void **state) {
  struct tls_stream_limits idle = limits;
  struct side client = {0};
  struct side server = {0};
  int64_t start_ms;
  (void)state;

  idle.idle_ms = 600;  // far above the pauses: the machine may be busy
  two_streams(&client, &server, &limits, &idle);
  run_until_set(&server.is_open);
  for (int i = 0; i < 8; i++) {  // bytes push the deadline back
    put(&client, "x", 1);
    (void)run_until_or(never, NULL, 100);
  }
  assert_false(server.is_ended);
  start_ms = clock_monotonic_ms();
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_TIMEOUT);
  assert_true(clock_monotonic_ms() - start_ms < 3000);
  run_until_set(&client.is_eof);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void notices_a_reset(void **state) {
  struct side server = {0};
  const struct linger hard = {.l_onoff = 1, .l_linger = 0};
  int fds[2];
  (void)state;

  accept_raw(&server, fds, &limits);
  (void)setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  (void)close(fds[1]);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_HANDSHAKE_FAILED);
  assert_string_equal(server.why, strerror(ECONNRESET));
  side_cleanup(&server);
}

static void tells_a_broken_connection_only_later(void **state) {
  struct side client = {0};
  struct side server = {0};
  uint8_t *room = NULL;
  (void)state;

  two_open_streams(&client, &server);
  drop(&client);  // gone without reading
  (void)usleep(10000);
  for (int i = 0; i < 5 && server.stream != NULL; i++) {
    num_owner_calls++;
    if (tls_stream_reserve(server.stream, &room, 4) == STATUS_OK) {
      memset(room, 'v', 4);
      tls_stream_commit(server.stream, 4);
    }
    tls_stream_flush(server.stream);  // EPIPE from the second one on
    (void)usleep(1000);
    num_owner_calls--;
  }
  assert_false(server.is_ended);
  assert_int_equal(tls_stream_reserve(server.stream, &room, 4), STATUS_CLOSED);
  tls_stream_close_when_sent(server.stream);
  run_until_set(&server.is_ended);
  assert_int_equal(server.end, TLS_STREAM_ERROR);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void waits_for_the_peers_fin_only_so_long(void **state) {
  struct tls_stream_limits quick = limits;
  struct side client = {0};
  struct side server = {0};  // never closes
  (void)state;

  quick.write_ms = 100;
  two_streams(&client, &server, &quick, &limits);
  run_until_set(&server.is_open);
  tls_stream_close_when_sent(client.stream);
  run_until_set(&client.is_ended);
  assert_int_equal(client.end, TLS_STREAM_CLOSED);
  assert_true(server.is_eof);
  side_cleanup(&client);
  side_cleanup(&server);
}

// --- certificates that do not fit --------------------------------------------------------

static void assert_refused(SSL_CTX *bad_client, const char *server_why, const char *client_why) {
  struct side client = {0};
  struct side server = {0};
  SSL_CTX *good = client_ctx;

  client_ctx = bad_client;
  two_streams(&client, &server, &limits, &limits);
  client_ctx = good;
  SSL_CTX_free(bad_client);
  put_zeros(&client, 100 * KB);  // unread when the server closes: its alert must not be lost
  run_until_set(&server.is_ended);
  run_until_set(&client.is_ended);
  assert_int_equal(server.end, TLS_STREAM_HANDSHAKE_FAILED);
  assert_false(server.is_open);
  assert_string_equal(server.why, server_why);
  assert_int_equal(client.end, TLS_STREAM_ERROR);
  assert_string_equal(client.why, client_why);
  side_cleanup(&client);
  side_cleanup(&server);
}

static void refuses_clients_that_do_not_fit(void **state) {
  EVP_PKEY *other_key = test_key_new(KEY_KIND_P256);
  X509 *other =
      test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, other_key, NULL, NULL);
  struct test_cert bad;
  SSL_CTX *anonymous = SSL_CTX_new(TLS_method());
  (void)state;

  // Same name as our CA, another key: its signature does not verify.
  assert_refused(client_ctx_of(&client_cert, other, other_key),
                 "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate",
                 "TLSV1_ALERT_UNKNOWN_CA");
  bad = client_cert;
  bad.eku = "serverAuth";
  assert_refused(client_ctx_of(&bad, ca, ca_key),
                 "CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose",
                 "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE");
  bad = client_cert;
  bad.not_after_s = (int64_t)time(NULL) - 10;
  assert_refused(client_ctx_of(&bad, ca, ca_key),
                 "CERTIFICATE_VERIFY_FAILED: certificate has expired",
                 "SSLV3_ALERT_CERTIFICATE_EXPIRED");
  assert_refused(anonymous, "PEER_DID_NOT_RETURN_A_CERTIFICATE",
                 "TLSV1_ALERT_CERTIFICATE_REQUIRED");
  X509_free(other);
  EVP_PKEY_free(other_key);
}

static void refuses_a_server_with_another_name(void **state) {
  struct side client = {0};
  struct side server = {0};
  struct address address;
  int listener = listen_anywhere(&address);
  int fd;
  (void)state;

  assert_int_equal(tls_stream_connect(&client.stream, loop, client_ctx, &address, "other.test",
                                      &limits, &events, &client),
                   STATUS_OK);
  do {
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (fd < 0 && errno == EAGAIN);
  assert_int_equal(
      tls_stream_accept(&server.stream, loop, server_ctx, &fd, &limits, &events, &server),
      STATUS_OK);
  run_until_set(&client.is_ended);
  run_until_set(&server.is_ended);
  assert_int_equal(client.end, TLS_STREAM_HANDSHAKE_FAILED);
  assert_non_null(strstr(strcasestr(client.why, "hostname"), "mismatch"));
  assert_int_equal(server.end, TLS_STREAM_HANDSHAKE_FAILED);
  (void)close(listener);
  side_cleanup(&client);
  side_cleanup(&server);
}

// --- connecting ----------------------------------------------------------------------------

static void tells_that_nobody_listens(void **state) {
  struct side client = {0};
  struct address address;
  (void)state;

  (void)close(listen_anywhere(&address));
  num_owner_calls++;
  assert_int_equal(tls_stream_connect(&client.stream, loop, client_ctx, &address, "server.test",
                                      &limits, &events, &client),
                   STATUS_OK);
  num_owner_calls--;
  run_until_set(&client.is_ended);
  assert_int_equal(client.end, TLS_STREAM_CONNECT_FAILED);
  assert_string_equal(client.why, strerror(ECONNREFUSED));
  side_cleanup(&client);
}

// A connect that fails at once is told from the loop too.
static void tells_that_a_socket_is_missing(void **state) {
  struct side client = {0};
  struct address address;
  char text[300];
  (void)state;

  snprintf(text, sizeof text, "unix:%s", test_path("missing.sock"));
  assert_int_equal(address_parse(&address, text, NULL), STATUS_OK);
  num_owner_calls++;
  assert_int_equal(tls_stream_connect(&client.stream, loop, client_ctx, &address, "server.test",
                                      &limits, &events, &client),
                   STATUS_OK);
  num_owner_calls--;
  run_until_set(&client.is_ended);
  assert_int_equal(client.end, TLS_STREAM_CONNECT_FAILED);
  assert_string_equal(client.why, strerror(ENOENT));
  side_cleanup(&client);
}

static void tells_that_a_server_says_nothing(void **state) {
  struct tls_stream_limits quick = limits;
  struct side client = {0};
  struct address address;
  int listener = listen_anywhere(&address);
  (void)state;

  quick.handshake_ms = 100;
  assert_int_equal(tls_stream_connect(&client.stream, loop, client_ctx, &address, "server.test",
                                      &quick, &events, &client),
                   STATUS_OK);
  run_until_set(&client.is_ended);
  assert_int_equal(client.end, TLS_STREAM_TIMEOUT);
  (void)close(listener);
  side_cleanup(&client);
}

// --- owners that leave ------------------------------------------------------------------

static bool is_dropped(void *arg) { return ((struct side *)arg)->stream == NULL; }

static void may_be_freed_in_every_callback(void **state) {
  static const enum free_when whens[] = {FREE_IN_OPEN, FREE_IN_DATA, FREE_IN_EOF};
  (void)state;

  for (size_t i = 0; i < 3; i++) {
    struct side client = {0};
    struct side server = {.free_when = whens[i]};

    two_streams(&client, &server, &limits, &limits);
    put(&client, "data", 4);
    tls_stream_close_when_sent(client.stream);
    run_until(is_dropped, &server);
    assert_false(server.is_ended);
    run_until_set(&client.is_ended);
    side_cleanup(&client);
    side_cleanup(&server);
  }
}

static void may_be_freed_at_any_time(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    struct side client = {0};
    struct side server = {0};

    two_streams(&client, &server, &limits, &limits);
    put(&client, "data", 4);
    if (i == 1) {
      run_until_set(&client.is_open);
      put(&client, "data", 4);
      tls_stream_close_when_sent(client.stream);
    }
    drop(&client);
    drop(&server);
    (void)run_until_or(never, NULL, 5);
    side_cleanup(&client);
    side_cleanup(&server);
  }
  tls_stream_free(NULL);
}

// --- memory -----------------------------------------------------------------------------

#define NUM_IDLE 50

static void costs_little_when_idle(void **state) {
  static struct side clients[NUM_IDLE];
  static struct side servers[NUM_IDLE];
  size_t before;
  size_t per_pair;
  (void)state;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip();  // their malloc does not count
#endif
  before = mallinfo2().uordblks;
  for (size_t i = 0; i < NUM_IDLE; i++) {
    clients[i] = (struct side){0};
    servers[i] = (struct side){.does_echo = true};
    two_open_streams(&clients[i], &servers[i]);
    put_zeros(&clients[i], 100 * KB);
    run_until_got(&clients[i], 100 * KB);
    free(clients[i].got);
    free(servers[i].got);
    clients[i].got = servers[i].got = NULL;
  }
  per_pair = (mallinfo2().uordblks - before) / NUM_IDLE;
  print_message("an idle connection: %zu bytes\n", per_pair / 2);
  assert_true(per_pair / 2 < 20 * KB);
  for (size_t i = 0; i < NUM_IDLE; i++) {
    side_cleanup(&clients[i]);
    side_cleanup(&servers[i]);
  }
}

static void names_every_end(void **state) {
  (void)state;
  for (int i = TLS_STREAM_CLOSED; i <= TLS_STREAM_OVERFLOW; i++) {
    assert_string_not_equal(tls_stream_end_name((enum tls_stream_end)i), "unknown");
  }
}

#define test_on_loop(f) cmocka_unit_test_setup_teardown(f, make_loop, free_loop)

int main(void) {
  const struct CMUnitTest tests[] = {
      test_on_loop(carries_bytes_both_ways),
      test_on_loop(sends_what_was_queued_before_the_handshake),
      test_on_loop(flushes_at_once_when_asked),
      test_on_loop(gives_a_flooding_peer_only_its_share),
      test_on_loop(keeps_what_the_owner_does_not_consume),
      test_on_loop(shows_after_a_pause_what_came_meanwhile),
      test_on_loop(shows_again_what_was_left),
      test_on_loop(ends_a_silent_peer),
      test_on_loop(ends_peers_that_speak_no_tls),
      test_on_loop(ends_a_peer_that_leaves_in_the_handshake),
      test_on_loop(serves_a_peer_that_dribbles),
      test_on_loop(answers_a_peer_that_has_finished_sending),
      test_on_loop(ends_a_peer_that_never_reads),
      test_on_loop(reads_again_when_the_peer_does),
      test_on_loop(ends_a_peer_with_too_long_a_packet),
      test_on_loop(ends_idle_connections),
      test_on_loop(notices_a_reset),
      test_on_loop(tells_a_broken_connection_only_later),
      test_on_loop(waits_for_the_peers_fin_only_so_long),
      test_on_loop(refuses_clients_that_do_not_fit),
      test_on_loop(refuses_a_server_with_another_name),
      test_on_loop(tells_that_nobody_listens),
      test_on_loop(tells_that_a_socket_is_missing),
      test_on_loop(tells_that_a_server_says_nothing),
      test_on_loop(may_be_freed_in_every_callback),
      test_on_loop(may_be_freed_at_any_time),
      test_on_loop(costs_little_when_idle),
      cmocka_unit_test(names_every_end),
  };
  return cmocka_run_group_tests(tests, make_contexts, free_contexts);
}
