// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load_private.h"

#define LINGER_MS 1000
#define LATE_NS 1000000
#define REFUSED_PAUSE_MS 10

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

void load_conn_release(struct conn *conn) {
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
      (void)snprintf(conn->load->prime_failure, LOAD_REASON_LEN, "%s", failure);
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

void load_conn_fail(struct conn *conn, const char *failure) {
  record(conn, failure);
  load_conn_release(conn);
}

static void fail_tls(struct conn *conn) {
  load_conn_fail(conn, tls13_client_reason(&conn->client, conn->reason));
}

static const char *reason_of_errno(int number, char out[LOAD_REASON_LEN]) {
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
      (void)snprintf(out, LOAD_REASON_LEN, "errno_%d", number);
      return out;
  }
}

static void fail_errno(struct conn *conn, int number) {
  if (conn->state == CONN_CONNECT) {
    conn->load->pause_end_ns = conn->load->now_ns + REFUSED_PAUSE_MS * NS_PER_MS;
  }
  load_conn_fail(conn, reason_of_errno(number, conn->reason));
}

void load_conn_time_out(struct conn *conn) {
  static const char *const reasons[] = {[CONN_CONNECT] = "timeout_connect",
                                        [CONN_HANDSHAKE] = "timeout_handshake",
                                        [CONN_RESPONSE] = "timeout_response",
                                        [CONN_HELD] = "timeout",
                                        [CONN_CLOSING] = "timeout"};
  if (conn->state == CONN_CLOSING) {
    conn->load->result->num_unclean += 1;
  }
  load_conn_fail(conn, reasons[conn->state]);
}

// --- sending -------------------------------------------------------------------------

// The server has gone. It may have said why: an alert (or nonsense) that has come,
// unread, is a better reason than the reset behind it.
static void fail_send(struct conn *conn, int number) {
  struct buffer ignored = {0};
  uint8_t *data = conn->load->read_buffer;
  const ssize_t num = recv(conn->fd, data, LOAD_READ_BUFFER_LEN, 0);
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

// Says goodbye.
void load_conn_close(struct conn *conn) {
  if (conn->has_eof || (conn->load->options->resets && !conn->is_prime)) {
    if (flush(conn)) {
      record(conn, NULL);
      load_conn_release(conn);
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
  load_conn_close(conn);
}

// --- receiving -----------------------------------------------------------------------

void load_conn_on_data(struct tls13_client *client, struct bytes data) {
  struct conn *conn = client->arg;
  conn->sample.bytes += data.len;
  if (conn->sample.first_byte_ns == 0) {
    conn->sample.first_byte_ns = recorder_now_ns();
  }
  if (conn->state == CONN_RESPONSE && !conn->is_prime) {
    conn->is_body_broken = conn->is_body_broken || http_body_take(&conn->body, data) != STATUS_OK;
  }
}

void load_conn_on_ticket(struct tls13_client *client, const struct tls13_ticket *ticket) {
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
    (void)snprintf(conn->reason, LOAD_REASON_LEN, "http_%d", body->status_code);
    return conn->reason;
  }
  return body->is_done && !is_response_whole(conn) ? "short_response" : NULL;
}

static void after_feed_response(struct conn *conn) {
  struct load *load = conn->load;
  const char *failure = judge_response(conn);
  if (failure != NULL) {
    load_conn_fail(conn, failure);
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
      load_conn_release(conn);
      break;
    case CONN_HELD:
      conn->load->result->num_lost += 1;
      load_conn_fail(conn, "lost");
      break;
    case CONN_RESPONSE:
      if (conn->is_prime) {
        load_conn_release(conn);
        break;
      }
      load_conn_fail(conn, "short_response");
      break;
    default:
      load_conn_fail(conn, "closed");
      break;
  }
}

static void on_read_error(struct conn *conn, int number) {
  if (conn->state == CONN_CLOSING) {
    load_conn_release(conn);
  } else if (conn->state == CONN_HELD) {
    conn->load->result->num_lost += 1;
    load_conn_fail(conn, "lost");
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
    const ssize_t num = recv(fd, conn->load->read_buffer, LOAD_READ_BUFFER_LEN, 0);
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
    if ((size_t)num < LOAD_READ_BUFFER_LEN && !may_have_eof) {
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

void load_conn_on_event(struct conn *conn, uint32_t events) {
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

void load_conn_begin(struct load *load, int64_t scheduled_ns, bool is_prime) {
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
