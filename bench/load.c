// SPDX-License-Identifier: Apache-2.0
#include "bench/load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench/http_body.h"

#define READ_BUFFER_LEN (256U << 10)
#define MAX_EVENTS 256
#define LINGER_MS 1000
#define LATE_NS 1000000
#define REFUSED_PAUSE_MS 10
#define NS_PER_MS 1000000LL
#define PROGRESS_NS 1000000000LL
#define REASON_LEN 48

enum conn_state { CONN_CONNECT, CONN_HANDSHAKE, CONN_RESPONSE, CONN_HELD, CONN_CLOSING };

struct conn {
  TAILQ_ENTRY(conn) link;  // of the free list, or of a list of deadlines
  struct load *load;
  enum conn_state state;
  int fd;
  bool has_deadline;
  int64_t deadline_ns;
  struct tls13_client client;
  uint64_t name;                      // of the run's names
  const struct tls13_ticket *ticket;  // to resume, or NULL
  struct buffer out;
  struct sample sample;
  bool is_prime;
  bool is_recorded;
  bool has_eof;
  size_t slot;  // which slot this connection primes
  int64_t request_ns;
  struct http_body body;
  bool is_body_broken;
  char reason[REASON_LEN];
};
TAILQ_HEAD(conn_list, conn);

// A session to resume, and whose it is: servers want the same name again.
struct ticket_slot {
  bool is_there;
  uint64_t name;
  struct tls13_ticket ticket;
};

enum phase { PHASE_PRIME, PHASE_RUN, PHASE_HOLD, PHASE_DRAIN };

struct load {
  const struct load_options *options;
  struct load_result *result;
  struct recorder *recorder;
  struct tls13_shared *shared;
  struct ticket_slot *slots;
  size_t num_tickets;  // that are there
  char prime_failure[REASON_LEN];
  int epoll;
  int timer;
  int signals;
  enum phase phase;
  struct conn *conns;
  size_t num_conns;
  struct conn_list free;
  struct conn_list waiting;    // deadlines of timeout_ms, soonest first
  struct conn_list lingering;  // deadlines of LINGER_MS
  int64_t num_begun;           // in this phase
  int64_t num_open;            // not free
  int64_t num_held;
  uint64_t num_names;  // used so far
  struct pacer pacer;
  int64_t deadline_ns;  // no arrival after this; 0: none
  int64_t hold_end_ns;
  int64_t pause_end_ns;  // closed loop: nobody listens, no use in hammering
  int64_t now_ns;
  int64_t progress_ns;
  uint64_t progress_num;
  uint8_t *read_buffer;
};

// --- deadlines ---------------------------------------------------------------------

static struct conn_list *list_of(struct conn *conn) {
  return conn->state == CONN_CLOSING ? &conn->load->lingering : &conn->load->waiting;
}

static void disarm(struct conn *conn) {
  if (conn->has_deadline) {
    TAILQ_REMOVE(list_of(conn), conn, link);
    conn->has_deadline = false;
  }
}

// Each list has one length of wait, so the newest deadline is the latest one.
static void arm(struct conn *conn, int64_t ms) {
  disarm(conn);
  conn->deadline_ns = conn->load->now_ns + ms * NS_PER_MS;
  TAILQ_INSERT_TAIL(list_of(conn), conn, link);
  conn->has_deadline = true;
}

// --- the end of a connection ---------------------------------------------------------

static void release(struct conn *conn) {
  static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
  struct load *load = conn->load;
  disarm(conn);
  if (conn->fd >= 0) {
    // RST, or nothing when both have closed: no TIME_WAIT, which would use up the
    // ports of one address in seconds.
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(conn->fd);
    conn->fd = -1;
  }
  if (conn->state == CONN_HELD) {
    load->num_held -= 1;
  }
  load->num_open -= 1;
  TAILQ_INSERT_HEAD(&load->free, conn, link);
}

static void record(struct conn *conn, const char *failure) {
  struct sample *s = &conn->sample;
  const struct tls13_client *client = &conn->client;
  if (conn->is_recorded) {
    return;
  }
  conn->is_recorded = true;
  if (conn->is_prime) {
    if (failure != NULL) {
      (void)snprintf(conn->load->prime_failure, REASON_LEN, "%s", failure);
    }
    return;
  }
  s->failure = failure;
  s->end_ns = conn->load->now_ns;
  s->is_resumed = client->is_resumed;
  s->has_dc = client->has_dc;
  s->is_verified = client->is_verified;
  s->has_staple = client->has_staple;
  s->issuer = client->peer == NULL ? NULL : client->peer->issuer;
  s->suite = client->suite == NULL ? NULL : client->suite->name;
  recorder_add(conn->load->recorder, s);
}

static void fail_conn(struct conn *conn, const char *failure) {
  record(conn, failure);
  release(conn);
}

static void fail_tls(struct conn *conn) {
  fail_conn(conn, tls13_client_reason(&conn->client, conn->reason));
}

static const char *reason_of_errno(int number, char out[REASON_LEN]) {
  switch (number) {
    case ECONNREFUSED:
      return "refused";
    case ECONNRESET:
    case EPIPE:
      return "reset";
    case ETIMEDOUT:
      return "timeout_connect";
    case ENETUNREACH:
    case EHOSTUNREACH:
      return "unreachable";
    case EADDRNOTAVAIL:
      return "no_port";
    case EMFILE:
    case ENFILE:
      return "no_descriptor";
    default:
      (void)snprintf(out, REASON_LEN, "errno_%d", number);
      return out;
  }
}

static void fail_errno(struct conn *conn, int number) {
  if (conn->state == CONN_CONNECT) {
    conn->load->pause_end_ns = conn->load->now_ns + REFUSED_PAUSE_MS * NS_PER_MS;
  }
  fail_conn(conn, reason_of_errno(number, conn->reason));
}

static void fail_timeout(struct conn *conn) {
  static const char *const reasons[] = {[CONN_CONNECT] = "timeout_connect",
                                        [CONN_HANDSHAKE] = "timeout_handshake",
                                        [CONN_RESPONSE] = "timeout_response",
                                        [CONN_HELD] = "timeout",
                                        [CONN_CLOSING] = "timeout"};
  if (conn->state == CONN_CLOSING) {
    conn->load->result->num_unclean += 1;
  }
  fail_conn(conn, reasons[conn->state]);
}

// --- sending -------------------------------------------------------------------------

// The server has gone. It may have said why: an alert (or nonsense) that has come,
// unread, is a better reason than the reset behind it.
static void fail_send(struct conn *conn, int number) {
  struct buffer ignored = {0};
  uint8_t *data = conn->load->read_buffer;
  const ssize_t num = recv(conn->fd, data, READ_BUFFER_LEN, 0);
  if (num > 0 && conn->state == CONN_HANDSHAKE &&
      tls13_client_feed(&conn->client, data, (size_t)num, &ignored) != TLS13_OK) {
    fail_tls(conn);
  } else {
    fail_errno(conn, number);
  }
  buffer_cleanup(&ignored);
}

// Sends what there is. False: the connection is gone.
static bool flush(struct conn *conn) {
  while (conn->out.len > 0) {
    const ssize_t num = send(conn->fd, conn->out.data, conn->out.len, MSG_NOSIGNAL);
    if (num < 0 && errno == EINTR) {
      continue;
    }
    if (num < 0 && errno == EAGAIN) {
      return true;  // the next EPOLLOUT
    }
    if (num < 0) {
      fail_send(conn, errno);
      return false;
    }
    buffer_drop(&conn->out, (size_t)num);
  }
  return true;
}

// All that was to be measured is done: say goodbye.
static void begin_closing(struct conn *conn) {
  if (conn->has_eof || (conn->load->options->resets && !conn->is_prime)) {
    if (flush(conn)) {
      record(conn, NULL);
      release(conn);
    }
    return;
  }
  if (tls13_client_close(&conn->client, &conn->out) != TLS13_OK) {
    fail_tls(conn);
    return;
  }
  if (!flush(conn)) {
    return;
  }
  record(conn, NULL);
  disarm(conn);
  conn->state = CONN_CLOSING;
  arm(conn, LINGER_MS);
}

static bool wants_response(const struct conn *conn) {
  const struct load_options *o = conn->load->options;
  if (conn->is_prime) {
    return o->primes_with_request && conn->sample.num_requests == 0;
  }
  if (o->download_len > 0) {
    return conn->sample.num_requests == 0;
  }
  const bool is_over =
      conn->load->deadline_ns != 0 && conn->load->now_ns >= conn->load->deadline_ns;
  return (int64_t)conn->sample.num_requests < o->num_requests &&
         (!is_over || conn->sample.num_requests == 0);
}

static void begin_holding(struct conn *conn) {
  disarm(conn);
  conn->state = CONN_HELD;
  conn->load->num_held += 1;
}

// What comes after the handshake, and after each response.
static void next_step(struct conn *conn) {
  const struct load_options *o = conn->load->options;
  if (wants_response(conn)) {
    if (tls13_client_send(&conn->client, bytes_text(o->request), &conn->out) != TLS13_OK) {
      fail_tls(conn);
      return;
    }
    http_body_reset(&conn->body);
    disarm(conn);
    conn->state = CONN_RESPONSE;
    arm(conn, o->timeout_ms);
    conn->request_ns = recorder_now_ns();
    (void)flush(conn);
    return;
  }
  if (o->num_held > 0 && !conn->is_prime && conn->load->phase != PHASE_DRAIN) {
    if (flush(conn)) {
      begin_holding(conn);
    }
    return;
  }
  begin_closing(conn);
}

// --- receiving -----------------------------------------------------------------------

static void on_data(struct tls13_client *client, struct bytes data) {
  struct conn *conn = client->arg;
  conn->sample.bytes += data.len;
  if (conn->sample.first_byte_ns == 0) {
    conn->sample.first_byte_ns = recorder_now_ns();
  }
  if (conn->state == CONN_RESPONSE && !conn->is_prime) {
    conn->is_body_broken = conn->is_body_broken || http_body_take(&conn->body, data) != STATUS_OK;
  }
}

static void on_ticket(struct tls13_client *client, const struct tls13_ticket *ticket) {
  struct conn *conn = client->arg;
  struct load *load = conn->load;
  struct ticket_slot *slot = &load->slots[conn->slot];
  if (conn->is_prime && !slot->is_there) {
    *slot = (struct ticket_slot){.is_there = true, .name = conn->name, .ticket = *ticket};
    load->num_tickets += 1;
  }
}

static bool is_response_whole(const struct conn *conn) {
  const struct load_options *o = conn->load->options;
  if (conn->is_prime) {
    return conn->sample.bytes > 0;
  }
  if (o->download_len > 0) {
    return conn->sample.bytes >= (uint64_t)o->download_len;
  }
  return conn->body.is_done;
}

// What is wrong with the response so far, or NULL.
static const char *judge_response(struct conn *conn) {
  const struct http_body *body = &conn->body;
  if (conn->is_prime) {
    return NULL;
  }
  if (conn->is_body_broken) {
    return "response_unreadable";
  }
  if (body->has_head && (body->status_code < 200 || body->status_code > 299)) {
    (void)snprintf(conn->reason, REASON_LEN, "http_%d", body->status_code);
    return conn->reason;
  }
  return body->is_done && !is_response_whole(conn) ? "short_response" : NULL;
}

static void after_feed_response(struct conn *conn) {
  struct load *load = conn->load;
  const char *failure = judge_response(conn);
  if (failure != NULL) {
    fail_conn(conn, failure);
    return;
  }
  if (!is_response_whole(conn)) {
    arm(conn, load->options->timeout_ms);  // as long as it goes on
    return;
  }
  conn->sample.num_requests += 1;
  load->now_ns = recorder_now_ns();
  if (!conn->is_prime && !conn->sample.is_warmup) {
    hdr_record(&load->recorder->latencies[LATENCY_REQUEST], load->now_ns - conn->request_ns);
  }
  next_step(conn);
}

static void after_feed_handshake(struct conn *conn) {
  if (conn->client.state != TLS13_CLIENT_DONE) {
    return;
  }
  // With our Finished on its way the handshake is done; close_notify, when nothing is
  // to be asked, goes out in the same packet.
  conn->sample.handshake_ns = recorder_now_ns();
  conn->load->now_ns = conn->sample.handshake_ns;
  next_step(conn);
}

static void on_bytes(struct conn *conn, uint8_t *data, size_t len) {
  if (conn->state == CONN_CLOSING && !conn->is_prime) {
    return;  // the server's farewell, unread
  }
  if (tls13_client_feed(&conn->client, data, len, &conn->out) != TLS13_OK) {
    fail_tls(conn);
    return;
  }
  if (conn->state == CONN_HANDSHAKE) {
    after_feed_handshake(conn);
  } else if (conn->state == CONN_RESPONSE) {
    after_feed_response(conn);
  }
}

static void on_eof(struct conn *conn) {
  conn->has_eof = true;
  switch (conn->state) {
    case CONN_CLOSING:
      release(conn);
      break;
    case CONN_HELD:
      conn->load->result->num_lost += 1;
      fail_conn(conn, "lost");
      break;
    case CONN_RESPONSE:
      if (conn->is_prime) {
        release(conn);
        break;
      }
      fail_conn(conn, "short_response");
      break;
    default:
      fail_conn(conn, "closed");
      break;
  }
}

static void on_read_error(struct conn *conn, int number) {
  if (conn->state == CONN_CLOSING) {
    release(conn);
  } else if (conn->state == CONN_HELD) {
    conn->load->result->num_lost += 1;
    fail_conn(conn, "lost");
  } else {
    fail_errno(conn, number);
  }
}

// Whether this is still the connection that was there before some call: a freed one
// has no descriptor, and none is given out again within one round of events.
static bool is_alive(const struct conn *conn, int fd) { return conn->fd == fd; }

static void read_all(struct conn *conn, bool may_have_eof) {
  const int fd = conn->fd;
  while (is_alive(conn, fd)) {
    const ssize_t num = recv(fd, conn->load->read_buffer, READ_BUFFER_LEN, 0);
    if (num == 0) {
      on_eof(conn);
      return;
    }
    if (num < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno != EAGAIN) {
        on_read_error(conn, errno);
      }
      return;
    }
    on_bytes(conn, conn->load->read_buffer, (size_t)num);
    // A short read emptied the socket; what comes later makes a new edge.
    if ((size_t)num < READ_BUFFER_LEN && !may_have_eof) {
      return;
    }
  }
}

// --- starting ------------------------------------------------------------------------

static void begin_handshake(struct conn *conn) {
  struct load *load = conn->load;
  conn->sample.connected_ns = load->now_ns;
  conn->state = CONN_HANDSHAKE;
  if (tls13_client_start(&conn->client, load->shared, conn->name, conn->ticket,
                         load->now_ns / NS_PER_MS, &conn->out) != TLS13_OK) {
    fail_tls(conn);
    return;
  }
  (void)flush(conn);
}

static void on_event(struct conn *conn, uint32_t events) {
  const int fd = conn->fd;
  if (fd < 0) {
    return;  // ended earlier in this round
  }
  if (conn->state == CONN_CONNECT) {
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
      int number = 0;
      socklen_t len = sizeof(number);
      (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &len);
      fail_errno(conn, number == 0 ? ECONNRESET : number);
      return;
    }
    if ((events & EPOLLOUT) == 0) {
      return;
    }
    begin_handshake(conn);
  } else if ((events & EPOLLOUT) != 0 && !flush(conn)) {
    return;
  }
  if (is_alive(conn, fd) && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    read_all(conn, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
  }
}

static bool open_socket(struct conn *conn) {
  static const int one = 1;
  const struct load_options *o = conn->load->options;
  const int fd = socket(o->target.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  conn->fd = fd;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (o->bind.len != 0) {
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&o->bind.storage, o->bind.len) != 0) {
      return false;
    }
  }
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                              .data.ptr = conn};
  if (connect(fd, (const struct sockaddr *)&o->target.storage, o->target.len) != 0 &&
      errno != EINPROGRESS) {
    return false;
  }
  return epoll_ctl(conn->load->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

// Forgets the connection that the struct was before; its buffers stay.
static void clear_conn(struct conn *conn) {
  conn->state = CONN_CONNECT;
  conn->fd = -1;
  conn->out.len = 0;
  conn->client.arg = conn;
  conn->client.peer = NULL;
  conn->client.suite = NULL;
  conn->client.is_resumed = false;
  conn->client.has_dc = false;
  conn->client.is_verified = false;
  conn->client.has_staple = false;
  conn->is_recorded = false;
  conn->has_eof = false;
  conn->is_body_broken = false;
  conn->ticket = NULL;
}

// Which name, and which session, the connection is for.
static void choose_session(struct conn *conn) {
  struct load *load = conn->load;
  const uint64_t number = (uint64_t)load->num_begun;
  conn->slot = (size_t)number;
  conn->name = number % load->options->num_names;
  if (!conn->is_prime && load->num_tickets > 0) {
    const struct ticket_slot *slot = &load->slots[number % load->num_tickets];
    conn->ticket = &slot->ticket;
    conn->name = slot->name;
  }
}

static void begin_conn(struct load *load, int64_t scheduled_ns, bool is_prime) {
  struct conn *conn = TAILQ_FIRST(&load->free);
  CHECK(conn != NULL);
  TAILQ_REMOVE(&load->free, conn, link);
  clear_conn(conn);
  conn->load = load;
  conn->is_prime = is_prime;
  choose_session(conn);
  load->now_ns = recorder_now_ns();
  const bool is_warmup = load->num_begun < load->options->warmup;
  conn->sample = (struct sample){
      .number = (uint64_t)load->num_begun,
      .scheduled_ns = scheduled_ns == 0 ? load->now_ns : scheduled_ns,
      .start_ns = load->now_ns,
      .is_warmup = is_warmup,
      .name = load->options->num_names > 1 ? load->options->names[conn->name] : NULL,
  };
  load->num_begun += 1;
  load->num_open += 1;
  if (!is_prime && load->now_ns - conn->sample.scheduled_ns > LATE_NS && !is_warmup) {
    load->result->num_late += 1;
  }
  arm(conn, load->options->timeout_ms);
  if (!open_socket(conn)) {
    fail_errno(conn, errno);
  }
}

// The first measured handshake starts the clocks; `due_ns` is when it was to begin.
static void start_measuring(struct load *load, int64_t due_ns) {
  if (load->recorder->measure_start_ns != 0 || load->num_begun < load->options->warmup) {
    return;
  }
  recorder_start_measuring(load->recorder);
  load->now_ns = recorder_now_ns();
  if (load->options->duration_ms > 0 && load->options->num_held == 0) {
    load->deadline_ns = due_ns + load->options->duration_ms * NS_PER_MS;
  }
}

static bool has_count_left(const struct load *load) {
  const struct load_options *o = load->options;
  return o->count == 0 || load->num_begun < o->count + o->warmup;
}

static int64_t num_busy(const struct load *load) { return load->num_open - load->num_held; }

// At most so many in one round: when each fails at once, events (a signal) must
// still be seen.
static void fill_closed(struct load *load) {
  for (int i = 0;
       i < MAX_EVENTS && num_busy(load) < load->options->concurrency && has_count_left(load) &&
       !TAILQ_EMPTY(&load->free) && load->now_ns >= load->pause_end_ns;
       i++) {
    start_measuring(load, recorder_now_ns());
    if (load->deadline_ns != 0 && recorder_now_ns() >= load->deadline_ns) {
      return;
    }
    begin_conn(load, 0, false);
  }
}

// Starts every arrival that is due and for which there is a place. One that finds
// none stays due, and is charged for its wait.
static void fill_open(struct load *load) {
  for (int i = 0;
       i < MAX_EVENTS && has_count_left(load) && num_busy(load) < load->options->concurrency; i++) {
    const int64_t due_ns = pacer_due_ns(&load->pacer);
    start_measuring(load, due_ns);
    if (due_ns > recorder_now_ns() || (load->deadline_ns != 0 && due_ns >= load->deadline_ns)) {
      return;
    }
    pacer_take(&load->pacer);
    begin_conn(load, due_ns, false);
  }
}

static void fill_prime(struct load *load) {
  while (load->num_open < load->options->concurrency &&
         load->num_begun < load->options->num_tickets) {
    begin_conn(load, 0, true);
  }
}

// --- phases --------------------------------------------------------------------------

static void compact_tickets(struct load *load) {
  size_t num = 0;
  for (size_t i = 0; i < (size_t)load->options->num_tickets; i++) {
    if (load->slots[i].is_there) {
      load->slots[num++] = load->slots[i];
    }
  }
  load->num_tickets = num;
}

static void enter_run(struct load *load) {
  load->phase = PHASE_RUN;
  load->num_begun = 0;
  if (load->options->rate_per_s > 0) {
    pacer_init(&load->pacer, load->options->pacer, load->options->rate_per_s, recorder_now_ns(),
               load->options->seed);
  }
}

static bool has_arrivals_left(const struct load *load) {
  if (!has_count_left(load)) {
    return false;
  }
  if (load->deadline_ns == 0) {
    return true;
  }
  return load->options->rate_per_s > 0 ? pacer_due_ns(&load->pacer) < load->deadline_ns
                                       : load->now_ns < load->deadline_ns;
}

// What was due and could not even be started is a failure of the server's: every
// place was taken by connections that it did not answer.
static void fail_unstarted(struct load *load) {
  while (load->options->rate_per_s > 0 && has_arrivals_left(load)) {
    const struct sample s = {.number = (uint64_t)load->num_begun,
                             .scheduled_ns = pacer_due_ns(&load->pacer),
                             .failure = "not_started"};
    recorder_add(load->recorder, &s);
    pacer_take(&load->pacer);
    load->num_begun += 1;
  }
}

static void enter_drain(struct load *load, bool is_interrupted) {
  load->phase = PHASE_DRAIN;
  recorder_stop_measuring(load->recorder);
  for (size_t i = 0; i < load->num_conns; i++) {
    struct conn *conn = &load->conns[i];
    if (conn->load == NULL || conn->fd < 0) {
      continue;
    }
    if (conn->state == CONN_HELD) {
      load->num_held -= 1;
      conn->state = CONN_RESPONSE;
      begin_closing(conn);
    } else if (is_interrupted && conn->state != CONN_CLOSING) {
      fail_conn(conn, FAILURE_ABANDONED);
    }
  }
}

static void advance_run(struct load *load) {
  if (load->options->rate_per_s > 0) {
    fill_open(load);
  } else {
    fill_closed(load);
  }
  if (load->deadline_ns != 0 &&
      load->now_ns >= load->deadline_ns + load->options->timeout_ms * NS_PER_MS) {
    fail_unstarted(load);
  }
  // Connections that only wait for the server's goodbye are not waited for.
  if (has_arrivals_left(load) || !TAILQ_EMPTY(&load->waiting)) {
    return;
  }
  if (load->num_held > 0) {
    load->phase = PHASE_HOLD;
    recorder_stop_measuring(load->recorder);
    load->hold_end_ns =
        load->options->duration_ms == 0 ? 0 : load->now_ns + load->options->duration_ms * NS_PER_MS;
    (void)fprintf(stderr, "deputy-bench: holding %lld connections\n", (long long)load->num_held);
    return;
  }
  enter_drain(load, false);
}

static enum status advance(struct load *load, struct errmsg *err) {
  switch (load->phase) {
    case PHASE_PRIME:
      fill_prime(load);
      if (load->num_open > 0 || load->num_begun < load->options->num_tickets) {
        break;
      }
      if (load->num_tickets == 0) {
        return errmsg_set(
            err, STATUS_UNAVAILABLE, "no ticket came from the server in %lld full handshakes%s%s%s",
            (long long)load->options->num_tickets,
            load->prime_failure[0] == '\0' ? "" : "; the last failure: ", load->prime_failure,
            load->options->primes_with_request
                ? ""
                : "; some send them only with a response: try --prime-request");
      }
      compact_tickets(load);
      enter_run(load);
      advance_run(load);
      break;
    case PHASE_RUN:
      advance_run(load);
      break;
    case PHASE_HOLD:
      if (load->hold_end_ns != 0 && load->now_ns >= load->hold_end_ns) {
        enter_drain(load, false);
      }
      break;
    case PHASE_DRAIN:
      break;
  }
  return STATUS_OK;
}

// --- the loop ------------------------------------------------------------------------

static void expire(struct load *load, struct conn_list *list) {
  struct conn *conn = NULL;
  while ((conn = TAILQ_FIRST(list)) != NULL && conn->deadline_ns <= load->now_ns) {
    fail_timeout(conn);
  }
}

static void sooner(int64_t *due_ns, int64_t other_ns) {
  if (other_ns != 0 && (*due_ns == 0 || other_ns < *due_ns)) {
    *due_ns = other_ns;
  }
}

// When something is to be done even if no event comes.
static int64_t next_due_ns(const struct load *load) {
  int64_t due_ns = 0;
  const struct conn *conn = TAILQ_FIRST(&load->waiting);
  sooner(&due_ns, conn == NULL ? 0 : conn->deadline_ns);
  conn = TAILQ_FIRST(&load->lingering);
  sooner(&due_ns, conn == NULL ? 0 : conn->deadline_ns);
  if (load->phase == PHASE_RUN) {
    const bool has_place = num_busy(load) < load->options->concurrency;
    if (load->options->rate_per_s > 0 && has_place && has_arrivals_left(load)) {
      sooner(&due_ns, pacer_due_ns(&load->pacer));
    }
    if (load->pause_end_ns > load->now_ns) {
      sooner(&due_ns, load->pause_end_ns);
    }
    if (load->deadline_ns != 0) {
      sooner(&due_ns, load->now_ns < load->deadline_ns
                          ? load->deadline_ns
                          : load->deadline_ns + load->options->timeout_ms * NS_PER_MS);
    }
  }
  if (load->phase == PHASE_HOLD) {
    sooner(&due_ns, load->hold_end_ns);
  }
  if (load->options->shows_progress) {
    sooner(&due_ns, load->progress_ns + PROGRESS_NS);
  }
  return due_ns;
}

// Sets the timer only when its time changed: deadlines seldom do, and each setting
// is a system call.
static void set_timer(struct load *load, int64_t *set_ns) {
  const int64_t due_ns = next_due_ns(load);
  // A later time may wait until the timer fires early, once; an earlier one may not.
  if (due_ns == 0 || due_ns == *set_ns ||
      (*set_ns != 0 && *set_ns > load->now_ns && due_ns > *set_ns)) {
    return;
  }
  const struct itimerspec spec = {
      .it_value = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000}};
  (void)timerfd_settime(load->timer, TFD_TIMER_ABSTIME, &spec, NULL);
  *set_ns = due_ns;
}

static void show_progress(struct load *load) {
  const struct recorder *r = load->recorder;
  if (!load->options->shows_progress || load->now_ns < load->progress_ns + PROGRESS_NS) {
    return;
  }
  const double seconds = (double)(load->now_ns - load->progress_ns) / 1e9;
  const uint64_t num = r->num_ok + r->num_warmup;
  (void)fprintf(stderr, "deputy-bench: %.1f s: %llu ok, %llu failed, %lld open, %.0f/s\n",
                (double)(load->now_ns - r->zero_ns) / 1e9, (unsigned long long)r->num_ok,
                (unsigned long long)r->num_failed, (long long)load->num_open,
                (double)(num - load->progress_num) / seconds);
  load->progress_ns = load->now_ns;
  load->progress_num = num;
}

static void take_signal(struct load *load) {
  struct signalfd_siginfo info;
  if (read(load->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
    load->result->is_interrupted = true;
    enter_drain(load, true);
    // A second one, or a server that does not close: no more waiting.
    struct conn *conn = NULL;
    while ((conn = TAILQ_FIRST(&load->lingering)) != NULL) {
      release(conn);
    }
  }
}

static void take_events(struct load *load, const struct epoll_event *events, int num,
                        int64_t *timer_ns) {
  for (int i = 0; i < num; i++) {
    uint64_t expirations = 0;
    if (events[i].data.ptr == &load->timer) {
      (void)!read(load->timer, &expirations, sizeof(expirations));
      *timer_ns = 0;
    } else if (events[i].data.ptr == &load->signals) {
      take_signal(load);
    } else {
      load->now_ns = recorder_now_ns();
      on_event(events[i].data.ptr, events[i].events);
    }
  }
}

// A closed loop that stopped only to look at events.
static bool has_more_to_begin(const struct load *load) {
  return load->phase == PHASE_RUN && load->options->rate_per_s <= 0 && has_arrivals_left(load) &&
         num_busy(load) < load->options->concurrency && !TAILQ_EMPTY(&load->free) &&
         load->now_ns >= load->pause_end_ns;
}

static enum status serve(struct load *load, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct epoll_event events[MAX_EVENTS];
  int64_t timer_ns = 0;

  while (true) {
    load->now_ns = recorder_now_ns();
    expire(load, &load->waiting);
    expire(load, &load->lingering);
    TRY(advance(load, err));
    if (load->phase == PHASE_DRAIN && load->num_open == 0) {
      break;
    }
    set_timer(load, &timer_ns);
    const int num = epoll_wait(load->epoll, events, MAX_EVENTS, has_more_to_begin(load) ? 0 : -1);
    if (num < 0 && errno != EINTR) {
      st = errmsg_set(err, STATUS_SYSTEM, "epoll_wait: %s", strerror(errno));
      goto out;
    }
    take_events(load, events, num, &timer_ns);
    show_progress(load);
  }

out:
  return st;
}

// --- set-up ----------------------------------------------------------------------------

static enum status watch(struct load *load, int fd, void *tag, struct errmsg *err) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
  if (fd < 0 || epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "no event loop: %s", strerror(errno));
  }
  return STATUS_OK;
}

static enum status open_loop(struct load *load, const sigset_t *signals, struct errmsg *err) {
  enum status st = STATUS_OK;
  (void)prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
  load->epoll = epoll_create1(EPOLL_CLOEXEC);
  load->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  load->signals = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
  TRY(watch(load, load->timer, &load->timer, err));
  TRY(watch(load, load->signals, &load->signals, err));

out:
  return st;
}

static enum status make_conns(struct load *load, struct errmsg *err) {
  const struct load_options *o = load->options;
  load->num_conns = (size_t)(o->concurrency + o->num_held);
  load->conns = calloc(load->num_conns, sizeof(*load->conns));
  load->read_buffer = malloc(READ_BUFFER_LEN);
  if (o->num_tickets > 0) {
    load->slots = calloc((size_t)o->num_tickets, sizeof(*load->slots));
  }
  if (load->conns == NULL || load->read_buffer == NULL ||
      (o->num_tickets > 0 && load->slots == NULL)) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for %zu connections", load->num_conns);
  }
  TAILQ_INIT(&load->free);
  TAILQ_INIT(&load->waiting);
  TAILQ_INIT(&load->lingering);
  for (size_t i = 0; i < load->num_conns; i++) {
    load->conns[i].fd = -1;
    TAILQ_INSERT_TAIL(&load->free, &load->conns[i], link);
  }
  return STATUS_OK;
}

static void close_fd(int fd) {
  if (fd >= 0) {
    (void)close(fd);
  }
}

static void load_cleanup(struct load *load) {
  for (size_t i = 0; load->conns != NULL && i < load->num_conns; i++) {
    close_fd(load->conns[i].fd);
    tls13_client_cleanup(&load->conns[i].client);
    buffer_cleanup(&load->conns[i].out);
  }
  free(load->conns);
  free(load->slots);
  free(load->read_buffer);
  tls13_shared_free(load->shared);
  close_fd(load->epoll);
  close_fd(load->timer);
  close_fd(load->signals);
}

enum status load_run(struct load_result *out, const struct load_options *options,
                     const struct tls13_options *tls, struct recorder *recorder,
                     struct errmsg *err) {
  enum status st = STATUS_OK;
  struct tls13_options tls_options = *tls;
  struct load load = {.options = options,
                      .result = out,
                      .recorder = recorder,
                      .epoll = -1,
                      .timer = -1,
                      .signals = -1};
  sigset_t signals;
  sigset_t before;

  *out = (struct load_result){0};
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)sigaddset(&signals, SIGTERM);
  (void)sigprocmask(SIG_BLOCK, &signals, &before);
  tls_options.on_data = on_data;
  tls_options.on_ticket = options->num_tickets > 0 ? on_ticket : NULL;
  TRY(tls13_shared_new(&load.shared, &tls_options, err));
  TRY(make_conns(&load, err));
  TRY(open_loop(&load, &signals, err));
  load.progress_ns = recorder_now_ns();
  if (options->num_tickets > 0) {
    load.phase = PHASE_PRIME;
  } else {
    enter_run(&load);
  }
  TRY(serve(&load, err));

out:
  recorder_stop_measuring(recorder);
  load_cleanup(&load);
  (void)sigprocmask(SIG_SETMASK, &before, NULL);
  return st;
}
