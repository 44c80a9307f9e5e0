// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/relay.h"

#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include "common/net/direct_io.h"
#include "proxy/connection/transport.h"
#include "proxy/worker.h"

// Under this much room in `out` nothing is sealed: it is flushed first. It holds
// what the library may add to a record of its own accord: new tickets, a
// KeyUpdate.
#define OUT_MIN_ROOM 2048u
// So many blocks each way before other connections of the worker get their turn.
#define MAX_TURNS 4

// What one direction did.
enum flow {
  FLOW_WAITS,  // nothing moved
  FLOW_MOVED,
  FLOW_ENDED,
  FLOW_BROKEN,  // the other words are in enum protocol_result
};

// --- up: client to origin -------------------------------------------------------------

// Sends what is in `up`. False: some of it stays.
static bool send_up(struct conn *conn) {
  struct end *origin = &conn->origin;
  while (block_len(conn->up) > 0 && (origin->ready & IO_WRITABLE) != 0) {
    const bool is_plain = conn->origin_tls == NULL;
    ssize_t n = is_plain ? direct_send(origin->fd, block_bytes(conn->up), block_len(conn->up))
                         : origin_tls_send(conn, block_bytes(conn->up), block_len(conn->up));
    if (n >= 0) {
      // (TLS takes a record at a time, and says itself when it has to wait.)
      if (is_plain && (size_t)n < block_len(conn->up)) {
        origin->ready &= (uint8_t)~IO_WRITABLE;
      }
      block_use(conn->up, (size_t)n);
      conn->bytes_up += (size_t)n;
      counter_add_own(&conn->worker->counters.bytes_up, (size_t)n);
    } else if (errno == EAGAIN) {
      origin->ready &= (uint8_t)~IO_WRITABLE;
    } else if (errno != EINTR) {
      // The origin reads no more. It may have answered before it left (as HTTP
      // servers do with a request they do not like): the answer is still read.
      conn->is_up_dead = true;
      block_use(conn->up, block_len(conn->up));
    }
  }
  if (block_len(conn->up) > 0) {
    return false;
  }
  block_return(&conn->up, &conn->worker->blocks);
  return true;
}

static void end_up(struct conn *conn) {
  struct end *origin = &conn->origin;
  if (!origin->is_shut) {
    origin->is_shut = true;
    // If the origin's direction has ended too, close says the same.
    if (conn->origin_tls != NULL) {
      origin_tls_end(conn);
    }
    if (!origin->has_ended) {
      (void)shutdown(origin->fd, SHUT_WR);
    }
  }
}

// May SSL_read give anything? The library takes no byte of a record before it has asked for
// it, so what it holds is either plain text or a piece of a record that waits for the socket.
static bool may_open(const struct conn *conn, const SSL *ssl) {
  const struct end *client = &conn->client;
  return block_len(conn->in) > 0 || (client->ready & IO_READABLE) != 0 || client->has_ended ||
         client->is_broken || SSL_pending(ssl) > 0;
}

// Opens records into `up`. Returns false when the client broke TLS or the
// connection; else client.has_ended says whether more may come.
static bool open_records(struct conn *conn, size_t *out_len) {
  SSL *ssl = transport_use(conn);
  *out_len = 0;
  while (block_room(conn->up) > 0 && may_open(conn, ssl)) {
    int error = 0;
    // It clears the error queue first, as SSL_write does.
    int n = SSL_read(ssl, block_free(conn->up), (int)block_room(conn->up));
    if (n > 0) {
      block_add(conn->up, (size_t)n);
      *out_len += (size_t)n;
      continue;
    }
    error = SSL_get_error(ssl, n);
    if (error == SSL_ERROR_ZERO_RETURN) {
      conn->has_close_notify = true;
      return true;
    }
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      return true;
    }
    // A FIN where a record could begin. RFC 8446, section 6.1, wants a
    // close_notify before; too many clients know nothing of it.
    return conn->client.has_ended && ERR_peek_error() == 0;
  }
  return true;
}

static bool client_has_ended(const struct conn *conn) {
  return conn->has_close_notify || conn->client.has_ended;
}

static enum flow run_up(struct conn *conn, enum protocol_result *why) {
  size_t len = 0;
  if (conn->origin.is_shut || conn->is_up_dead) {
    return FLOW_ENDED;
  }
  if (!send_up(conn)) {
    return FLOW_WAITS;  // high mark
  }
  if (conn->is_up_dead) {
    return FLOW_ENDED;
  }
  if (!block_borrow(&conn->up, &conn->worker->blocks)) {
    *why = PROTOCOL_NO_MEMORY;
    return FLOW_BROKEN;
  }
  if (!open_records(conn, &len)) {
    *why = conn->client.is_broken ? PROTOCOL_CLIENT_BROKEN : PROTOCOL_CLIENT_WRONG;
    return FLOW_BROKEN;
  }
  if (send_up(conn) && client_has_ended(conn)) {
    conn->is_truncated = !conn->has_close_notify;
    end_up(conn);
    return len > 0 ? FLOW_MOVED : FLOW_ENDED;
  }
  return len > 0 ? FLOW_MOVED : FLOW_WAITS;
}

// --- down: origin to client -------------------------------------------------------------

// How much plaintext surely fits into `out` as records.
static size_t sealable_len(const struct conn *conn) {
  size_t room = conn->out == NULL ? BLOCK_LEN : block_room(conn->out);
  size_t overhead = record_size_overhead(&conn->record_size, room);
  if (room < OUT_MIN_ROOM + overhead) {
    return 0;
  }
  room -= overhead;
  return room < BLOCK_LEN ? room : BLOCK_LEN;
}

// Seals what is in `down` into `out`. False: some of it stays.
static bool seal_records(struct conn *conn, bool *out_has_moved) {
  while (block_len(conn->down) > 0) {
    SSL *ssl = transport_use(conn);
    size_t len = record_size_next(&conn->record_size, block_len(conn->down));
    int n = SSL_write(ssl, block_bytes(conn->down), (int)len);
    if (n <= 0) {
      if (SSL_get_error(ssl, n) != SSL_ERROR_WANT_WRITE) {
        conn->client.is_broken = true;
      }
      return false;
    }
    block_use(conn->down, (size_t)n);
    record_size_sealed(&conn->record_size);
    *out_has_moved = true;
  }
  block_return(&conn->down, &conn->worker->blocks);
  return true;
}

// Fetches what the origin has, at most what can be sealed. STATUS_CLOSED: no more
// will come.
static enum status fetch(struct conn *conn, size_t max) {
  struct end *origin = &conn->origin;
  ssize_t n = 0;
  if ((origin->ready & IO_READABLE) == 0) {
    return STATUS_AGAIN;
  }
  if (!block_borrow(&conn->down, &conn->worker->blocks)) {
    return STATUS_MEMORY;
  }
  do {
    n = conn->origin_tls == NULL ? direct_recv(origin->fd, block_free(conn->down), max)
                                 : origin_tls_recv(conn, block_free(conn->down), max);
  } while (n < 0 && errno == EINTR);
  if (n > 0) {
    if (conn->origin_tls == NULL) {
      end_note_read(origin, (size_t)n, max);
    }
    block_add(conn->down, (size_t)n);
    record_size_came(&conn->record_size, loop_now_ms(conn->worker->loop));
    conn->bytes_down += (size_t)n;
    counter_add_own(&conn->worker->counters.bytes_down, (size_t)n);
    return STATUS_OK;
  }
  block_return(&conn->down, &conn->worker->blocks);
  if (n < 0 && errno == EAGAIN) {
    origin->ready &= (uint8_t)~IO_READABLE;
    return STATUS_AGAIN;
  }
  origin->has_ended = n == 0;
  origin->is_broken = n < 0;
  return STATUS_CLOSED;
}

// Some clients wait for the FIN that follows a close_notify. If their direction
// has ended too, close says it.
static void send_fin(struct conn *conn) {
  if (!conn->is_fin_sent && !conn->origin.is_shut) {
    conn->is_fin_sent = true;
    (void)shutdown(conn->client.fd, SHUT_WR);
  }
}

// Fills `out` as far as the origin has bytes.
static enum status fill_out(struct conn *conn, bool *out_has_moved) {
  enum status st = STATUS_OK;
  while (st == STATUS_OK && seal_records(conn, out_has_moved)) {
    size_t max = 0;
    record_size_look(&conn->record_size, loop_now_ms(conn->worker->loop));
    max = sealable_len(conn);
    if (max == 0) {
      return STATUS_OK;  // high mark
    }
    if (conn->origin.has_ended) {
      transport_end(conn);  // in the same packet as the last bytes
      return STATUS_OK;
    }
    st = conn->origin.is_broken ? STATUS_CLOSED : fetch(conn, max);
    if (st == STATUS_CLOSED && conn->origin.has_ended) {
      st = STATUS_OK;  // the next turn seals the end
    }
  }
  return st;
}

static enum flow run_down(struct conn *conn, enum protocol_result *why) {
  bool has_moved = false;
  enum status st = STATUS_OK;
  enum status sent = STATUS_OK;

  // What was sealed must leave before more is fetched.
  if (transport_flush(conn) == STATUS_AGAIN) {
    return FLOW_WAITS;
  }
  if (!conn->client.is_shut && !conn->client.is_broken) {
    st = fill_out(conn, &has_moved);
    sent = transport_flush(conn);
  }
  if (conn->client.is_broken) {
    *why = PROTOCOL_CLIENT_BROKEN;
    return FLOW_BROKEN;
  }
  if (st == STATUS_MEMORY) {
    *why = PROTOCOL_NO_MEMORY;
    return FLOW_BROKEN;
  }
  if (st == STATUS_CLOSED) {
    *why = PROTOCOL_ORIGIN_BROKEN;
    return FLOW_BROKEN;
  }
  if (conn->client.is_shut && sent == STATUS_OK) {
    send_fin(conn);
    return FLOW_ENDED;
  }
  return has_moved && sent == STATUS_OK ? FLOW_MOVED : FLOW_WAITS;
}

// --- both ---------------------------------------------------------------------------------

static enum protocol_result run(struct conn *conn) {
  enum protocol_result why = PROTOCOL_WAIT;
  for (unsigned turn = 0; turn < MAX_TURNS; turn++) {
    enum flow up = run_up(conn, &why);
    enum flow down = FLOW_WAITS;
    if (up == FLOW_BROKEN) {
      return why;
    }
    down = run_down(conn, &why);
    if (down == FLOW_BROKEN) {
      return why;
    }
    if (up == FLOW_ENDED && down == FLOW_ENDED) {
      return PROTOCOL_DONE;
    }
    if (up != FLOW_MOVED && down != FLOW_MOVED) {
      return up == FLOW_ENDED || down == FLOW_ENDED ? PROTOCOL_HALF : PROTOCOL_WAIT;
    }
  }
  return PROTOCOL_AGAIN;
}

const struct protocol relay_protocol = {.run = run};
