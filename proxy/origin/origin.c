// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin/origin.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/proxy_protocol.h"
#include "proxy/connection/conn.h"
#include "proxy/origin/balance.h"
#include "proxy/origin/origins.h"
#include "proxy/worker.h"

#define LINES_PER_S 1
#define CLIENT_INET6_LEN 8  // of an IPv6 address: the network that a client has

// --- failures ----------------------------------------------------------------------------

const char *origin_failure_name(enum origin_failure failure) {
  static const char *const names[ORIGIN_FAILURE_NUM] = {
      [ORIGIN_FAILURE_REFUSED] = "refused",
      [ORIGIN_FAILURE_TIMEOUT] = "timeout",
      [ORIGIN_FAILURE_UNREACHABLE] = "unreachable",
      [ORIGIN_FAILURE_RESET] = "reset",
      [ORIGIN_FAILURE_TLS] = "tls",
      [ORIGIN_FAILURE_LOCAL] = "local",
      [ORIGIN_FAILURE_OTHER] = "other",
  };
  return names[failure];
}

enum origin_failure origin_failure_of(int error) {
  switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOENT:  // a UNIX socket that is not there
    case EAGAIN:  // a UNIX socket whose queue is full
      return ORIGIN_FAILURE_REFUSED;
    case ETIMEDOUT:
      return ORIGIN_FAILURE_TIMEOUT;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
      return ORIGIN_FAILURE_UNREACHABLE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
      return ORIGIN_FAILURE_LOCAL;
    default:
      return ORIGIN_FAILURE_OTHER;
  }
}

// An endpoint that failed so often in a row is left alone until control's probe
// finds it well. What is our own fault says nothing of the origin.
static void judge(struct conn *conn, struct endpoint *endpoint, enum origin_failure failure) {
  static struct log_gate gate;
  const int64_t max = conn->hs->reach.pool->options->max_failures;
  const struct worker_host *host = conn->worker->host;
  uint64_t num_held = 0;
  char text[ADDRESS_TEXT_LEN];

  if (max == 0 || failure == ORIGIN_FAILURE_LOCAL ||
      atomic_fetch_add_explicit(&endpoint->num_failed, 1, memory_order_relaxed) + 1 < max ||
      (atomic_fetch_or_explicit(&endpoint->state, ENDPOINT_OUT, memory_order_relaxed) &
       ENDPOINT_OUT) != 0) {
    return;
  }
  loop_post(host->loop, origins_on_out, host->origins);
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_warn(conn->id, "origin_out", "pool=%s origin=%s address=%s reason=%s held=%llu",
             endpoint->origin->pool, endpoint->origin->address,
             address_format(text, &endpoint->address), origin_failure_name(failure),
             (unsigned long long)num_held);
  }
}

static void note_failed(struct conn *conn, enum origin_failure failure) {
  struct reach *reach = &conn->hs->reach;
  struct endpoint *endpoint = conn->endpoint;
  counter_add(&endpoint->origin->num_failed[failure], 1);
  reach->last = (uint8_t)failure;
  log_debug(conn->id, "origin_failed", "origin=%s reason=%s", endpoint->origin->address,
            origin_failure_name(failure));
  judge(conn, endpoint, failure);
}

static void note_connected(struct conn *conn) {
  struct endpoint *endpoint = conn->endpoint;
  const int64_t now_us = clock_monotonic_us();
  const int64_t took_us = now_us - conn->hs->reach.began_us;
  const int64_t in_all_us = now_us - conn->accepted_us - conn->handshake_us;
  conn->connect_us = in_all_us > 0 && in_all_us < UINT32_MAX ? (uint32_t)in_all_us : 1;
  counter_add(&endpoint->origin->num_connected, 1);
  counter_add(&endpoint->origin->connect_us, (uint64_t)took_us);
  histogram_add_us(&conn->worker->counters.origin_time, (uint64_t)took_us);
  // Written only when there is something to be forgotten: the line stays shared.
  if (atomic_load_explicit(&endpoint->num_failed, memory_order_relaxed) != 0) {
    atomic_store_explicit(&endpoint->num_failed, 0, memory_order_relaxed);
    atomic_fetch_and_explicit(&endpoint->state, ~(unsigned)ENDPOINT_OUT, memory_order_relaxed);
  }
}

void origin_note_reset(struct conn *conn) {
  if (conn->endpoint != NULL) {
    counter_add(&conn->endpoint->origin->num_failed[ORIGIN_FAILURE_RESET], 1);
  }
}

// --- the PROXY header --------------------------------------------------------------------

static void tell_of_client(struct proxy_header *header, const struct conn *conn) {
  const struct client_identity *client = conn_client(conn);
  if (client != NULL) {
    header->has_client_cert = SSL_session_reused(conn->ssl) == 0;
    header->has_client_cert_in_session = true;
    header->is_client_verified = true;
    header->client_cn = bytes_text(client->common_name);
  }
}

// As OpenSSL calls it, and with it the example of section 2.2.5: receivers know no other
// names. For TLS 1.3 these are the IANA's.
static const char *cipher_name(const SSL *ssl) {
  const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
  return SSL_version(ssl) == TLS1_3_VERSION ? SSL_CIPHER_standard_name(cipher)
                                            : SSL_CIPHER_get_name(cipher);
}

static enum status write_greeting(struct conn *conn) {
  enum status st = STATUS_OK;
  const int version = conn->hs->reach.pool->options->proxy_protocol;
  struct address here = {0};
  struct sockaddr_storage client = {0};
  struct proxy_header header = {0};
  const uint8_t *alpn = NULL;
  unsigned alpn_len = 0;
  size_t len = 0;

  if (version == PROXY_PROTOCOL_OFF) {
    return STATUS_OK;
  }
  if (!block_borrow(&conn->up, &conn->worker->blocks)) {
    return STATUS_MEMORY;
  }
  if (conn->hs->has_destination) {
    memcpy(&here.storage, &conn->hs->destination, sizeof(conn->hs->destination));
  } else {
    TRY(address_of_local(&here, conn->client.fd));
  }
  SSL_get0_alpn_selected(conn->ssl, &alpn, &alpn_len);
  memcpy(&client, &conn->peer, sizeof(conn->peer));
  header.source = (const struct sockaddr *)&client;
  header.destination = (const struct sockaddr *)&here.storage;
  header.alpn = bytes_of(alpn, alpn_len);
  header.authority = bytes_text(SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name));
  header.has_tls = true;
  header.tls_version = SSL_get_version(conn->ssl);
  header.tls_cipher = cipher_name(conn->ssl);
  tell_of_client(&header, conn);
  TRY((version == PROXY_PROTOCOL_V1 ? proxy_v1_encode : proxy_v2_encode)(
      block_free(conn->up), block_room(conn->up), &len, &header));
  block_add(conn->up, len);

out:
  return st;
}

// --- connecting --------------------------------------------------------------------------

// By the application protocol if that has a pool of its own.
static struct origin_pool *pool_of(const struct conn *conn) {
  const struct policy *policy = conn->hs->policy;
  const uint8_t *alpn = NULL;
  unsigned alpn_len = 0;
  if (policy->num_routes > 0) {
    SSL_get0_alpn_selected(conn->ssl, &alpn, &alpn_len);
  }
  for (size_t i = 0; i < policy->num_routes; i++) {
    if (bytes_equal(policy->routes[i].protocol, bytes_of(alpn, alpn_len))) {
      return policy->routes[i].pool;
    }
  }
  return policy->pool;
}

void origin_begin(struct conn *conn) {
  struct reach *reach = &conn->hs->reach;
  reach->pool = pool_of(conn);
  reach->give_up_ms = loop_now_ms(conn->worker->loop) + reach->pool->options->connect_ms;
}

int64_t origin_limit_ms(const struct conn *conn) {
  const struct reach *reach = &conn->hs->reach;
  const struct pool_options *options = reach->pool->options;
  const struct origin_set *set = origin_pool_set(reach->pool);
  const int64_t left_ms = reach->give_up_ms - loop_now_ms(conn->worker->loop);
  const size_t num = set->num + (set->reserve == NULL ? 0 : set->reserve->num);
  const int64_t most_ms = num > 1 && options->attempt_ms < left_ms ? options->attempt_ms : left_ms;
  return most_ms > 0 ? most_ms : 1;
}

unsigned origin_queue(const struct conn *conn) {
  return CONN_NUM_STATES + conn->hs->reach.pool->index;
}

static uint64_t hash_client(const struct conn *conn) {
  const union peer *peer = &conn->peer;
  if (peer->sa.sa_family == AF_INET) {
    return balance_hash(&peer->in.sin_addr, sizeof(peer->in.sin_addr));
  }
  if (peer->sa.sa_family == AF_INET6) {
    const uint8_t *bytes = peer->in6.sin6_addr.s6_addr;
    return IN6_IS_ADDR_V4MAPPED(&peer->in6.sin6_addr) ? balance_hash(bytes + 12, 4)
                                                      : balance_hash(bytes, CLIENT_INET6_LEN);
  }
  return 0;
}

static struct endpoint *next_endpoint(struct conn *conn) {
  struct reach *reach = &conn->hs->reach;
  const enum balance balance = (enum balance)reach->pool->options->balance;
  struct origin_set *set = origin_pool_set(reach->pool);
  struct endpoint *endpoint = NULL;
  if (reach->num_tried == ORIGIN_MAX_TRIES ||
      (reach->num_tried > 0 && loop_now_ms(conn->worker->loop) >= reach->give_up_ms)) {
    return NULL;
  }
  do {
    endpoint = balance_choose(set, balance, balance == BALANCE_HASH_CLIENT ? hash_client(conn) : 0,
                              reach->tried, reach->num_tried);
  } while (endpoint != NULL && !endpoint_enter(endpoint));
  if (endpoint != NULL) {
    reach->tried[reach->num_tried] = endpoint->id;
    reach->num_tried += 1;
    conn->endpoint = endpoint;
  }
  return endpoint;
}

static enum reached try_next(struct conn *conn, void (*on_ready)(void *arg, unsigned ready)) {
  struct reach *reach = &conn->hs->reach;
  const struct endpoint *endpoint = NULL;
  while ((endpoint = next_endpoint(conn)) != NULL) {
    reach->began_us = clock_monotonic_us();
    conn->origin = (struct end){.fd = -1};
    if (address_connect(&conn->origin.fd, &endpoint->address) == STATUS_OK) {
      if (io_init(&conn->origin.io, conn->worker->loop, conn->origin.fd, on_ready, conn) !=
          STATUS_OK) {
        return REACH_NO_MEMORY;
      }
      return REACH_ANOTHER;
    }
    conn->origin.fd = -1;
    note_failed(conn, origin_failure_of(errno));
    origin_leave(conn);
  }
  return reach->num_tried == 0 &&
                 atomic_load_explicit(&reach->pool->is_resolving, memory_order_acquire)
             ? REACH_WAITS
             : REACH_NOBODY;
}

// Where TLS is spoken, what the origin is told first goes before it, in clear: so
// origins expect it. A new socket takes it whole.
static enum status greet_in_clear(struct conn *conn) {
  enum status st = write_greeting(conn);
  const size_t len = block_len(conn->up);
  if (st != STATUS_OK || len == 0) {
    return st;
  }
  if (send(conn->origin.fd, block_bytes(conn->up), len, MSG_NOSIGNAL) != (ssize_t)len) {
    st = STATUS_SYSTEM;
  }
  block_use(conn->up, len);
  block_return(&conn->up, &conn->worker->blocks);
  return st;
}

// The second half of connecting. STATUS_AGAIN: it is under way.
static enum status speak_tls(struct conn *conn) {
  enum status st = STATUS_OK;
  if (conn->origin_tls == NULL) {
    st = greet_in_clear(conn);
    if (st == STATUS_OK) {
      st = origin_tls_begin(conn);
    }
  }
  return st == STATUS_OK ? origin_tls_handshake(conn) : st;
}

// What is under way, at its next step. STATUS_AGAIN: it waits; an error is noted.
static enum status go_on(struct conn *conn) {
  enum status st = STATUS_OK;
  if (conn->origin_tls == NULL) {
    if ((conn->origin.ready & IO_WRITABLE) == 0) {
      return STATUS_AGAIN;
    }
    // A failure makes the socket readable too; one that is only writable is connected.
    if ((conn->origin.ready & IO_READABLE) != 0 &&
        address_connect_result(conn->origin.fd) != STATUS_OK) {
      note_failed(conn, origin_failure_of(errno));
      return STATUS_SYSTEM;
    }
    if (conn->hs->reach.pool->tls == NULL) {
      return STATUS_OK;
    }
  }
  st = speak_tls(conn);
  if (st != STATUS_OK && st != STATUS_AGAIN) {
    note_failed(conn, st == STATUS_MEMORY ? ORIGIN_FAILURE_LOCAL : ORIGIN_FAILURE_TLS);
  }
  return st;
}

enum reached origin_reach(struct conn *conn, void (*on_ready)(void *arg, unsigned ready)) {
  if (conn->origin.fd >= 0) {
    switch (go_on(conn)) {
      case STATUS_OK:
        note_connected(conn);
        return REACHED;
      case STATUS_AGAIN:
        return REACH_WAITS;
      default:
        origin_leave(conn);
        break;
    }
  }
  return try_next(conn, on_ready);
}

void origin_expire(struct conn *conn) {
  if (conn->endpoint != NULL) {
    note_failed(conn, ORIGIN_FAILURE_TIMEOUT);
    origin_leave(conn);
  }
}

void origin_leave(struct conn *conn) {
  struct end *origin = &conn->origin;
  struct endpoint *endpoint = conn->endpoint;
  origin_tls_free(conn);
  if (origin->io.loop != NULL) {
    io_close(&origin->io);
  } else if (origin->fd >= 0) {
    (void)close(origin->fd);  // it was never watched
  }
  origin->fd = -1;
  if (endpoint != NULL) {
    conn->endpoint = NULL;
    // Control may free it from here on.
    atomic_fetch_sub_explicit(&endpoint->num_open, 1, memory_order_release);
  }
}

enum status origin_greet(struct conn *conn) {
  return conn->origin_tls == NULL ? write_greeting(conn) : STATUS_OK;
}
