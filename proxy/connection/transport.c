// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/transport.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/net/direct_io.h"
#include "proxy/worker.h"

// --- from the socket ---------------------------------------------------------------

static void note_plain_alert(struct conn *conn, const uint8_t *data, size_t len) {
  static const uint8_t fatal[] = {SSL3_RT_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL};
  if (len > sizeof(fatal) && memcmp(data + len - 1 - sizeof(fatal), fatal, sizeof(fatal)) == 0) {
    conn->hs->plain_alert = data[len - 1];
  }
}

enum status transport_receive(struct conn *conn) {
  struct end *client = &conn->client;
  ssize_t n = 0;

  if (client->has_ended || client->is_broken) {
    return STATUS_CLOSED;
  }
  if ((client->ready & IO_READABLE) == 0) {
    return STATUS_AGAIN;
  }
  if (!block_borrow(&conn->in, &conn->worker->blocks)) {
    client->is_broken = true;
    return STATUS_CLOSED;
  }
  do {
    n = direct_recv(client->fd, block_free(conn->in), block_room(conn->in));
  } while (n < 0 && errno == EINTR);
  if (n > 0) {
    if (conn->hs != NULL) {
      note_plain_alert(conn, block_free(conn->in), (size_t)n);
    }
    end_note_read(client, (size_t)n, block_room(conn->in));
    block_add(conn->in, (size_t)n);
    conn->bytes_in += (size_t)n;
    return STATUS_OK;
  }
  if (n == 0) {
    client->has_ended = true;
    return STATUS_CLOSED;
  }
  if (errno == EAGAIN) {
    client->ready &= (uint8_t)~IO_READABLE;
    return STATUS_AGAIN;
  }
  client->is_broken = true;
  return STATUS_CLOSED;
}

static int on_read(BIO *bio, char *out, int max) {
  struct worker *worker = BIO_get_data(bio);
  struct conn *conn = worker->active;
  size_t len = 0;

  BIO_clear_retry_flags(bio);
  if (max <= 0) {
    return 0;
  }
  if (block_len(conn->in) == 0) {
    enum status st = transport_receive(conn);
    if (st == STATUS_AGAIN) {
      BIO_set_retry_read(bio);
      return -1;
    }
    if (st != STATUS_OK) {
      return conn->client.is_broken ? -1 : 0;
    }
  }
  len = block_len(conn->in) < (size_t)max ? block_len(conn->in) : (size_t)max;
  memcpy(out, block_bytes(conn->in), len);
  block_use(conn->in, len);
  return (int)len;
}

// --- to the socket -----------------------------------------------------------------

static int on_write(BIO *bio, const char *in, int len) {
  struct worker *worker = BIO_get_data(bio);
  struct conn *conn = worker->active;
  size_t taken = 0;

  BIO_clear_retry_flags(bio);
  if (len <= 0) {
    return 0;
  }
  if (conn->client.is_broken || !block_borrow(&conn->out, &worker->blocks)) {
    conn->client.is_broken = true;
    return -1;
  }
  taken = block_room(conn->out) < (size_t)len ? block_room(conn->out) : (size_t)len;
  if (taken == 0) {
    BIO_set_retry_write(bio);
    return -1;
  }
  memcpy(block_free(conn->out), in, taken);
  block_add(conn->out, taken);
  return (int)taken;
}

enum status transport_flush(struct conn *conn) {
  struct end *client = &conn->client;
  if (client->is_broken && conn->out != NULL) {
    block_use(conn->out, block_len(conn->out));
  }
  while (block_len(conn->out) > 0) {
    ssize_t n = 0;
    if ((client->ready & IO_WRITABLE) == 0) {
      return STATUS_AGAIN;
    }
    n = direct_send(client->fd, block_bytes(conn->out), block_len(conn->out));
    if (n >= 0) {
      // Less than asked for means that the socket is full: an event will come.
      if ((size_t)n < block_len(conn->out)) {
        client->ready &= (uint8_t)~IO_WRITABLE;
      }
      block_use(conn->out, (size_t)n);
      conn->bytes_out += (size_t)n;
    } else if (errno == EAGAIN) {
      client->ready &= (uint8_t)~IO_WRITABLE;
    } else if (errno != EINTR) {
      client->is_broken = true;
      block_use(conn->out, block_len(conn->out));
    }
  }
  block_return(&conn->out, &conn->worker->blocks);
  return client->is_broken ? STATUS_CLOSED : STATUS_OK;
}

// The flight leaves when the library has returned (transport_flush), not before:
// what it writes next may still go into the same packet.
static long on_control(BIO *bio, int command, long number, void *pointer) {
  (void)bio;
  (void)number;
  (void)pointer;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

void transport_end(struct conn *conn) {
  if (!conn->client.is_shut) {
    conn->client.is_shut = true;
    ERR_clear_error();
    (void)SSL_shutdown(transport_use(conn));
    ERR_clear_error();
  }
}

enum status transport_new(BIO **out, struct worker *worker) {
  // One method for all workers, for the life of the process.
  static BIO_METHOD *method;
  if (method == NULL) {
    method = BIO_meth_new(0, "connection");
    if (method == NULL || BIO_meth_set_read(method, on_read) != 1 ||
        BIO_meth_set_write(method, on_write) != 1 || BIO_meth_set_ctrl(method, on_control) != 1) {
      return STATUS_MEMORY;
    }
  }
  *out = BIO_new(method);
  if (*out == NULL) {
    return STATUS_MEMORY;
  }
  BIO_set_data(*out, worker);
  BIO_set_init(*out, 1);
  return STATUS_OK;
}
