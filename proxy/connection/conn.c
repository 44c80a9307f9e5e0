// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/credential.h"
#include "proxy/connection/access_log.h"
#include "proxy/connection/address_table.h"
#include "proxy/connection/opening.h"
#include "proxy/connection/relay.h"
#include "proxy/connection/transport.h"
#include "proxy/connection/turns.h"
#include "proxy/handshake/signer.h"
#include "proxy/origin/origin.h"
#include "proxy/worker.h"

// Sealed bytes of a client that are thrown away after the end, so that close does
// not become a reset that overtakes our last bytes.
#define LINGER_MAX_LEN (1u << 20)
// An idle deadline is moved at most this often in the course of one limit.
#define TOUCHES_PER_LIMIT 16

static enum step step_relay(struct conn *conn);
static enum step step_drain(struct conn *conn);
static enum step expire_relay(struct conn *conn);
static enum step expire_drain(struct conn *conn);

// --- the machine -------------------------------------------------------------------

#define TO(state) (1u << (state))
#define LIMIT(field) offsetof(struct options, field)

// clang-format off
static const struct state_row {
  const char *name;
  enum step (*step)(struct conn *conn);
  enum step (*expire)(struct conn *conn);  // its time is up
  size_t limit;                            // longest stay, in ms: where the options say it
  uint32_t next;                           // where it may go, besides DRAIN and CLOSED
} rows[CONN_NUM_STATES] = {
  [CONN_GREETING] = {"greeting", opening_greeting, opening_expire_handshake,
                     LIMIT(limits.handshake_ms), TO(CONN_HANDSHAKE)},
  [CONN_HANDSHAKE] = {"handshake", opening_handshake, opening_expire_handshake,
                      LIMIT(limits.handshake_ms),
                      TO(CONN_SIGNING) | TO(CONN_LOOKUP) | TO(CONN_CONNECT)},
  [CONN_SIGNING] = {"signing", opening_signing, opening_expire_signing,
                    LIMIT(key_servers.deadline_ms), TO(CONN_HANDSHAKE)},
  [CONN_LOOKUP] = {"lookup", opening_lookup, opening_expire_lookup, LIMIT(store.deadline_ms),
                   TO(CONN_HANDSHAKE)},
  [CONN_CONNECT] = {"connect", opening_connect, opening_expire_connect, 0 /* its pool's */,
                    TO(CONN_RELAY)},
  [CONN_RELAY] = {"relay", step_relay, expire_relay, LIMIT(limits.idle_ms), TO(CONN_HALF)},
  [CONN_HALF] = {"half", step_relay, expire_relay, LIMIT(limits.half_ms), 0},
  [CONN_DRAIN] = {"drain", step_drain, expire_drain, LIMIT(limits.linger_ms), 0},
  [CONN_CLOSED] = {"closed", NULL, NULL, 0, 0},
};
// clang-format on

_Static_assert(CONN_NUM_STATES + OPTIONS_MAX_POOLS + 1 <= DEADLINE_NUM_QUEUES,
               "a state has a queue of deadlines, a pool has its own for CONNECT");

const char *conn_state_name(enum conn_state state) { return rows[state].name; }

static int64_t limit_ms(const struct conn *conn, enum conn_state state) {
  if (state == CONN_CONNECT) {
    return origin_limit_ms(conn);
  }
  const char *options = (const char *)&conn->worker->view->site->options;
  return *(const int64_t *)(const void *)(options + rows[state].limit);
}

static void stop_asking(struct conn *conn);
static void leave_handshake(struct conn *conn);

// Is TLS still being agreed on?
static bool is_in_handshake(enum conn_state state) { return state < CONN_CONNECT; }

// For ends that are lost without a word, as by a firewall that forgets.
static void keep_alive(const struct conn *conn) {
  const int64_t after_ms = conn->worker->view->site->options.limits.keepalive_ms;
  if (after_ms > 0) {
    address_keep_alive(conn->client.fd, after_ms);
    address_keep_alive(conn->origin.fd, after_ms);
  }
}

void conn_set_deadline(struct conn *conn, enum conn_state state) {
  deadline_set(&conn->worker->deadlines, &conn->deadline,
               state == CONN_CONNECT ? origin_queue(conn) : state, limit_ms(conn, state));
}

enum step conn_enter(struct conn *conn, enum conn_state next) {
  const struct state_row *from = &rows[conn->state];
  CHECK(next == CONN_CLOSED || next == CONN_DRAIN || (from->next & TO(next)) != 0);
  log_debug(conn->id, "state", "from=%s to=%s", from->name, rows[next].name);
  if (is_in_handshake(conn->state) && !is_in_handshake(next)) {
    conn->worker->admission.num_handshakes -= 1;
    count(&conn->worker->counters.handshakes_ended);
  }
  conn->state = (uint8_t)next;
  if (next == CONN_RELAY) {
    leave_handshake(conn);
    keep_alive(conn);
  } else if (next > CONN_RELAY) {
    stop_asking(conn);
  }
  if (next == CONN_CLOSED) {
    deadline_clear(&conn->deadline);
  } else {
    conn->touched_ms = loop_now_ms(conn->worker->loop);
    conn_set_deadline(conn, next);
  }
  return STEP_GO;
}

// --- ends ----------------------------------------------------------------------------

static void close_end(struct end *end) {
  if (end->io.loop != NULL) {
    io_close(&end->io);
  } else if (end->fd >= 0) {
    (void)close(end->fd);  // it was never watched
  }
  end->fd = -1;
}

// Closes by a reset; what the kernel has still to send is dropped.
static void abort_end(struct end *end) {
  const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  if (end->fd >= 0) {
    (void)setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close_end(end);
  }
}

// Lets the origin know that the client did not end in order.
static void abort_origin(struct conn *conn) {
  origin_tls_free(conn);  // before its socket goes
  abort_end(&conn->origin);
  origin_leave(conn);
}

// Has the other end said that all of our bytes, and our FIN, have come? Always, where
// the kernel does not tell.
static bool has_taken_all(const struct end *end) {
  struct tcp_info info = {0};
  socklen_t len = sizeof(info);
  return getsockopt(end->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
         info.tcpi_state == TCP_FIN_WAIT2 || info.tcpi_state == TCP_TIME_WAIT ||
         info.tcpi_state == TCP_CLOSE;
}

// Nobody waits for an answer any more.
static void stop_asking(struct conn *conn) {
  if (conn->hs != NULL) {
    signer_release(conn);
    lookup_release(conn);
  }
}

// The library lets go of the chain when the handshake is over; of one that failed, with
// the connection. The view's site, which may end with the view, has to outlive that.
static void leave_handshake(struct conn *conn) {
  stop_asking(conn);
  if (conn->hs != NULL) {
    tls_dc_unref(conn->hs->dc);
    view_drop(conn->hs->view);
    pool_give(&conn->worker->handshakes, conn->hs);
    conn->hs = NULL;
  }
}

// Ends with `outcome`; whoever said something before keeps the last word.
enum step conn_finish(struct conn *conn, enum outcome outcome, enum conn_state next) {
  if (!conn->has_outcome) {
    conn->has_outcome = true;
    conn->outcome = (uint8_t)outcome;
    count(&conn->worker->counters.outcomes[outcome]);
  }
  return conn_enter(conn, next);
}

// --- RELAY, HALF ---------------------------------------------------------------------------

static const struct protocol *protocol_of(const struct conn *conn) {
  static const struct protocol *const protocols[PROTOCOL_NUM] = {
      [PROTOCOL_BYTES] = &relay_protocol,
  };
  return protocols[conn->protocol];
}

static bool is_relayed(const struct conn *conn) {
  return conn->state == CONN_RELAY || conn->state == CONN_HALF;
}

// The idle clock starts again when bytes got through to the other side. Pieces of a
// record that never ends, empty records and the like do not, and hold nothing open.
static void touch(struct conn *conn) {
  uint64_t moved = conn->bytes_up + conn->bytes_down + conn->bytes_out;
  int64_t now_ms = loop_now_ms(conn->worker->loop);
  int64_t limit = limit_ms(conn, conn->state);
  if (moved == conn->moved) {
    return;
  }
  conn->moved = moved;
  if (now_ms - conn->touched_ms > limit / TOUCHES_PER_LIMIT) {
    conn->touched_ms = now_ms;
    deadline_set(&conn->worker->deadlines, &conn->deadline, conn->state, limit);
  }
}

static enum step step_relay(struct conn *conn) {
  switch (protocol_of(conn)->run(conn)) {
    case PROTOCOL_WAIT:
      touch(conn);
      return conn_wait_for(conn, ANY_READY);
    case PROTOCOL_AGAIN:
      touch(conn);
      worker_run_later(conn->worker, conn);
      return conn_wait_for(conn, NEXT_ROUND);
    case PROTOCOL_HALF:
      if (conn->state != CONN_HALF) {
        (void)conn_enter(conn, CONN_HALF);
      } else {
        touch(conn);
      }
      return conn_wait_for(conn, ANY_READY);
    case PROTOCOL_DONE:
      // With bytes of the client's unread, close would reset the connection.
      return conn_finish(conn, conn->is_truncated ? OUTCOME_TRUNCATED : OUTCOME_DONE,
                         conn->is_up_dead ? CONN_DRAIN : CONN_CLOSED);
    case PROTOCOL_CLIENT_BROKEN:
      abort_origin(conn);
      return conn_finish(conn, OUTCOME_CLIENT_RESET, CONN_CLOSED);
    case PROTOCOL_CLIENT_WRONG:
      count(&conn->worker->counters.faults[fault_of_error(ERR_peek_error())]);
      ERR_clear_error();
      abort_origin(conn);
      return conn_finish(conn, OUTCOME_CLIENT_PROTOCOL, CONN_DRAIN);
    case PROTOCOL_ORIGIN_BROKEN:
      origin_note_reset(conn);
      return conn_finish(conn, OUTCOME_ORIGIN_RESET, CONN_DRAIN);
    case PROTOCOL_NO_MEMORY:
      break;
  }
  abort_origin(conn);
  return conn_finish(conn, OUTCOME_MEMORY, CONN_CLOSED);
}

// It ends by our doing.
static void end_relay(struct conn *conn) {
  const struct protocol *protocol = protocol_of(conn);
  if (protocol->end != NULL) {
    protocol->end(conn);
  }
  transport_end(conn);
}

static enum step expire_relay(struct conn *conn) {
  end_relay(conn);
  return conn_finish(conn, OUTCOME_IDLE, CONN_DRAIN);
}

// --- DRAIN -----------------------------------------------------------------------------------

// Sends what is left, then our FIN, then reads until the client's: only so can
// the last bytes not be lost to a reset.
static enum step step_drain(struct conn *conn) {
  origin_leave(conn);
  switch (transport_flush(conn)) {
    case STATUS_OK:
      break;
    case STATUS_AGAIN:
      return conn_wait_for(conn, CLIENT_WRITABLE);
    default:
      return conn_enter(conn, CONN_CLOSED);
  }
  if (!conn->is_fin_sent) {
    conn->is_fin_sent = true;
    (void)shutdown(conn->client.fd, SHUT_WR);
  }
  while (conn->discarded < LINGER_MAX_LEN && !conn->client.has_ended) {
    uint8_t nowhere[4096];
    ssize_t n = recv(conn->client.fd, nowhere, sizeof(nowhere), 0);
    if (n < 0 && errno == EAGAIN) {
      return conn_wait_for(conn, CLIENT_READABLE);
    }
    if (n <= 0 && errno != EINTR) {
      break;
    }
    conn->discarded += n > 0 ? (uint32_t)n : 0;
  }
  return conn_enter(conn, CONN_CLOSED);
}

// Whoever does not read would have the kernel keep our last bytes, a buffer full of
// them, for minutes after the close.
static enum step expire_drain(struct conn *conn) {
  if (!has_taken_all(&conn->client)) {
    abort_end(&conn->client);
  }
  return conn_enter(conn, CONN_CLOSED);
}

// --- life ------------------------------------------------------------------------------------

static void drop_block(struct conn *conn, struct block **block) {
  if (*block != NULL) {
    block_use(*block, block_len(*block));
    block_return(block, &conn->worker->blocks);
  }
}

static void return_blocks(struct conn *conn) {
  block_return(&conn->in, &conn->worker->blocks);
  block_return(&conn->up, &conn->worker->blocks);
  block_return(&conn->down, &conn->worker->blocks);
  block_return(&conn->out, &conn->worker->blocks);
}

static void conn_free(struct conn *conn) {
  struct worker *worker = conn->worker;
  const struct protocol *protocol = protocol_of(conn);

  access_log(conn);
  if (protocol->free != NULL) {
    protocol->free(conn);
  }
  deadline_clear(&conn->deadline);
  close_end(&conn->client);
  origin_leave(conn);
  if (conn->ssl != NULL) {
    SSL_free(transport_use(conn));
  }
  leave_handshake(conn);
  worker->active = NULL;
  drop_block(conn, &conn->in);
  drop_block(conn, &conn->up);
  drop_block(conn, &conn->down);
  drop_block(conn, &conn->out);
  address_table_leave(worker->host->addresses, conn->address_key);
  free(conn->client_identity);
  count(&worker->counters.closed);
  worker_forget(worker, conn);
  pool_give(&worker->conns, conn);
}

static void run(struct conn *conn) {
  while (conn->state != CONN_CLOSED) {
    const struct state_row *row = &rows[conn->state];
    bool is_due = conn->is_due;
    conn->is_due = false;
    if ((is_due ? row->expire(conn) : row->step(conn)) == STEP_WAIT) {
      return_blocks(conn);
      if (conn->origin_tls != NULL) {
        origin_tls_park(conn);
      }
      return;
    }
  }
  conn_free(conn);
}

void conn_take_turn(struct conn *conn) {
  struct worker *worker = conn->worker;
  const int64_t begin_us = clock_monotonic_us();
  int64_t took_us = 0;
  run(conn);
  took_us = clock_monotonic_us() - begin_us;
  admission_note_work(&worker->admission, took_us);
  turns_spend(&worker->turns, took_us);
}

void conn_run(struct conn *conn) {
  if (!is_in_handshake(conn->state)) {
    run(conn);
  } else if (conn->is_due || turns_may_go(conn->worker)) {
    conn_take_turn(conn);
  } else {
    turns_wait(conn->worker, conn);
  }
}

static struct conn *conn_of_deadline(struct deadline *deadline) {
  return (struct conn *)((char *)deadline - offsetof(struct conn, deadline));
}

void conn_expire(struct deadline *deadline) {
  struct conn *conn = conn_of_deadline(deadline);
  conn->is_due = true;
  conn_run(conn);
}

int64_t conn_oldest_handshake_ms(const struct worker *worker) {
  struct deadline *oldest = deadline_first(&worker->deadlines, CONN_HANDSHAKE);
  return oldest == NULL ? 0 : loop_now_ms(worker->loop) - conn_of_deadline(oldest)->touched_ms;
}

void conn_displace_oldest(struct worker *worker) {
  struct conn *conn = conn_of_deadline(deadline_first(&worker->deadlines, CONN_HANDSHAKE));
  (void)opening_fail(conn, FAILURE_DISPLACED, "displaced");
  conn_run(conn);
}

void conn_drain(struct conn *conn) {
  if (is_relayed(conn) && protocol_of(conn)->drain != NULL) {
    protocol_of(conn)->drain(conn);
    conn_run(conn);
  }
}

void conn_end(struct conn *conn) {
  if (is_relayed(conn)) {
    end_relay(conn);
    (void)transport_flush(conn);  // as far as it goes
  }
  (void)conn_finish(conn, OUTCOME_DRAINED, CONN_CLOSED);
  conn_run(conn);
}

struct conn *conn_of(const SSL *ssl) {
  const struct worker *worker = BIO_get_data(SSL_get_rbio(ssl));
  CHECK(worker->active != NULL && worker->active->ssl == ssl);
  return worker->active;
}
