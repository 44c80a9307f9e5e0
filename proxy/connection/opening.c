// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/opening.h"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/credential.h"
#include "common/tls/shake.h"
#include "common/tls/tls_error.h"
#include "proxy/connection/address_table.h"
#include "proxy/connection/greeting.h"
#include "proxy/connection/transport.h"
#include "proxy/handshake/signer.h"
#include "proxy/origin/balance.h"
#include "proxy/worker.h"

// --- accept ----------------------------------------------------------------------------

static void on_client(void *arg, unsigned ready) {
  struct conn *conn = arg;
  const unsigned known = conn->client.ready;
  conn->client.ready |= (uint8_t)ready;
  // The event of being watched at all comes when the ClientHello has been read.
  if (conn->state != CONN_HANDSHAKE || conn->client.ready != known) {
    conn_run(conn);
  }
}

// The parts that may be missing. On failure conn_free copes with what is there.
static enum status equip(struct conn *conn) {
  struct worker *worker = conn->worker;
  conn->hs = pool_take(&worker->handshakes);
  if (conn->hs == NULL) {
    return STATUS_MEMORY;
  }
  *conn->hs = (struct handshake){.view = view_hold(worker->view)};
  conn->ssl = SSL_new(worker->view->ctx);
  if (conn->ssl == NULL) {
    return STATUS_MEMORY;
  }
  BIO_up_ref(worker->bio);
  SSL_set_bio(conn->ssl, worker->bio, worker->bio);
  SSL_set_accept_state(conn->ssl);
  // What the handshake needed is freed with it.
  SSL_set_shed_handshake_config(conn->ssl, 1);
  return io_init(&conn->client.io, worker->loop, conn->client.fd, on_client, conn);
}

void opening_accept(struct listening *listening, int fd, const struct sockaddr_storage *peer,
                    uint64_t address_key) {
  struct worker *worker = listening->worker;
  struct conn *conn = pool_take(&worker->conns);

  count(&worker->counters.accepted);
  if (conn == NULL) {
    count(&worker->counters.refused[REFUSAL_MEMORY]);
    count(&worker->counters.closed);
    address_table_leave(worker->host->addresses, address_key);
    (void)close(fd);
    return;
  }
  *conn = (struct conn){.worker = worker, .address_key = address_key, .protocol = PROTOCOL_BYTES};
  conn->state = listening_trusts(listening, peer) ? CONN_GREETING : CONN_HANDSHAKE;
  conn->client = (struct end){.fd = fd, .ready = IO_READABLE | IO_WRITABLE};
  conn->origin = (struct end){.fd = -1};
  conn->accepted_us = clock_monotonic_us();
  conn->peer.sa.sa_family = peer->ss_family;
  if (peer->ss_family == AF_INET || peer->ss_family == AF_INET6) {
    memcpy(&conn->peer, peer, sizeof(conn->peer));
  }
  worker_adopt(worker, conn);
  worker->admission.num_handshakes += 1;
  count(&worker->counters.handshakes_begun);
  if (equip(conn) != STATUS_OK) {
    count(&worker->counters.refused[REFUSAL_MEMORY]);
    (void)conn_finish(conn, OUTCOME_MEMORY, CONN_CLOSED);
    conn_run(conn);
    return;
  }
  conn->touched_ms = loop_now_ms(worker->loop);
  conn_set_deadline(conn, (enum conn_state)conn->state);
  conn_run(conn);
}

// --- GREETING, HANDSHAKE, SIGNING, LOOKUP -----------------------------------------------

static void count_alert(struct conn *conn, uint8_t alert) {
  struct worker_counters *counters = &conn->worker->counters;
  count(&counters->alerts[alert < COUNTERS_NUM_ALERTS ? alert : COUNTERS_NUM_ALERTS - 1]);
  // A client that was given a DC and does not like it (skewed clocks, a bad DC).
  if (alert == SSL_AD_ILLEGAL_PARAMETER && conn->hs->dc_ends_s != 0) {
    count(&counters->dc_rejected);
  }
}

static enum failure find_failure(struct conn *conn, uint32_t error) {
  if (conn->hs->failure != FAILURE_NONE) {
    return conn->hs->failure;
  }
  if (error != 0) {
    enum failure failure = failure_of_error(error, &conn->alert);
    // OpenSSL's clients refuse a TLS 1.3 certificate in clear, before they have
    // switched to their keys; the library takes that for a forged record.
    if (failure == FAILURE_PROTOCOL && conn->hs->plain_alert != 0) {
      conn->alert = conn->hs->plain_alert;
      return FAILURE_ALERT;
    }
    return failure;
  }
  if (conn->client.has_ended) {
    return conn->bytes_in == 0 ? FAILURE_SCAN : FAILURE_CLOSED;
  }
  if (conn->client.is_broken) {
    return conn->bytes_in == 0 ? FAILURE_SCAN : FAILURE_RESET;
  }
  // A malformed server name has no reason of its own.
  return conn->hs->name == NULL ? FAILURE_BAD_HELLO : FAILURE_INTERNAL;
}

enum step opening_fail(struct conn *conn, enum failure failure, const char *reason) {
  conn->failure = (uint8_t)failure;
  count(&conn->worker->counters.failures[failure]);
  if (failure == FAILURE_ALERT) {
    count_alert(conn, conn->alert);
  }
  log_debug(conn->id, "handshake_failed", "failure=%s reason=%s", failure_name(failure), reason);
  // An alert, if there is one, must reach the client before the connection ends.
  return conn_finish(conn, OUTCOME_HANDSHAKE, block_len(conn->out) > 0 ? CONN_DRAIN : CONN_CLOSED);
}

static enum step fail_handshake(struct conn *conn) {
  char reason[TLS_ERROR_TEXT_LEN];
  enum failure failure = find_failure(conn, ERR_peek_error());
  (void)tls_error_drain(reason, sizeof(reason));
  // The library says nothing to the client when the key operation failed.
  if (failure >= FAILURE_KEY_TIMEOUT) {
    (void)SSL_send_fatal_alert(transport_use(conn), SSL_AD_INTERNAL_ERROR);
    ERR_clear_error();
  }
  return opening_fail(conn, failure, reason);
}

// A resumed session has the certificate in its ticket.
static void note_client(struct conn *conn) {
  struct client_identity *client = NULL;
  if (conn->hs->policy->tls->clients == NULL || conn->client_identity != NULL) {
    return;
  }
  client = calloc(1, sizeof(*client));
  if (client != NULL && client_auth_identify(client, conn->ssl) == STATUS_OK) {
    conn->client_identity = client;
    return;
  }
  free(client);
}

static void note_handshake(struct conn *conn) {
  const struct handshake *hs = conn->hs;
  struct worker_counters *counters = &conn->worker->counters;
  const struct chain *chain = hs->choice.chain;
  int64_t took_us = clock_monotonic_us() - conn->accepted_us;

  conn->source = SSL_session_reused(conn->ssl)                    ? SOURCE_RESUMED
                 : tls_dc_was_used(conn->ssl, hs->dc_ends_s != 0) ? SOURCE_DC
                                                                  : SOURCE_CERTIFICATE;
  conn->version = SSL_version(conn->ssl) == TLS1_3_VERSION ? VERSION_13 : VERSION_12;
  conn->group = SSL_get_curve_id(conn->ssl);
  conn->handshake_us = took_us > 0 && took_us < UINT32_MAX ? (uint32_t)took_us : 1;
  (void)strncpy(conn->label, chain->label, sizeof(conn->label) - 1);
  memcpy(conn->ca_id, chain->info.ca_id, sizeof(conn->ca_id));
  count(&counters->handshakes[conn->source][conn->version]);
  histogram_add_us(&counters->handshake_time[conn->source], conn->handshake_us);
  note_client(conn);
  if (SSL_ech_accepted(conn->ssl)) {
    count(&counters->ech_accepted);
  }
}

enum step opening_greeting(struct conn *conn) {
  switch (greeting_read(conn)) {
    case GREETING_OVER:
      return conn_enter(conn, CONN_HANDSHAKE);
    case GREETING_WAITS:
      return conn_wait_for(conn, CLIENT_READABLE);
    case GREETING_LEFT:
      return opening_fail(conn, conn->bytes_in == 0 ? FAILURE_SCAN : FAILURE_CLOSED, "left");
    case GREETING_WRONG:
      return opening_fail(conn, FAILURE_PROXY_HEADER, "wrong");
    case GREETING_REFUSED:
      break;
  }
  return opening_fail(conn, FAILURE_ADDRESS, "limits");
}

enum step opening_handshake(struct conn *conn) {
  SSL *ssl = transport_use(conn);
  int result = 0;
  int error = 0;

  ERR_clear_error();
  result = tls_shake_hands(ssl);
  error = SSL_get_error(ssl, result);
  if (error == SSL_ERROR_WANT_PRIVATE_KEY_OPERATION) {
    return conn_enter(conn, CONN_SIGNING);
  }
  if (error == SSL_ERROR_WANT_X509_LOOKUP) {
    return conn_enter(conn, CONN_LOOKUP);
  }
  if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    return fail_handshake(conn);
  }
  switch (transport_flush(conn)) {
    case STATUS_OK:
      break;
    case STATUS_AGAIN:
      if (error == SSL_ERROR_WANT_WRITE) {
        return conn_wait_for(conn, CLIENT_WRITABLE);
      }
      break;
    default:
      return fail_handshake(conn);
  }
  if (error == SSL_ERROR_WANT_READ) {
    return conn_wait_for(conn, CLIENT_READABLE);
  }
  if (error == SSL_ERROR_WANT_WRITE) {
    return STEP_GO;  // there is room again
  }
  note_handshake(conn);
  origin_begin(conn);
  return conn_enter(conn, CONN_CONNECT);
}

enum step opening_signing(struct conn *conn) {
  return signer_has_answer(conn) ? conn_enter(conn, CONN_HANDSHAKE)
                                 : conn_wait_for(conn, KEY_SERVER);
}

enum step opening_lookup(struct conn *conn) {
  return lookup_is_over(conn) ? conn_enter(conn, CONN_HANDSHAKE) : conn_wait_for(conn, STORE);
}

enum step opening_expire_handshake(struct conn *conn) {
  return opening_fail(conn, conn->bytes_in == 0 ? FAILURE_SILENT : FAILURE_TIMEOUT, "deadline");
}

enum step opening_expire_signing(struct conn *conn) {
  conn->hs->failure = FAILURE_KEY_TIMEOUT;
  return fail_handshake(conn);
}

enum step opening_expire_lookup(struct conn *conn) {
  conn->hs->failure = FAILURE_LOOKUP_TIMEOUT;
  return fail_handshake(conn);
}

// --- CONNECT -----------------------------------------------------------------------------

static void on_origin(void *arg, unsigned ready) {
  struct conn *conn = arg;
  conn->origin.ready |= (uint8_t)ready;
  if (conn->origin_tls != NULL) {
    origin_tls_note(conn, ready);
  }
  conn_run(conn);
}

static enum step give_up_origin(struct conn *conn, enum outcome outcome) {
  origin_leave(conn);
  transport_end(conn);  // nothing was sent, so nothing is missing
  return conn_finish(conn, outcome, CONN_DRAIN);
}

// Of several that were tried the last one has the word.
static enum outcome why_nobody(const struct conn *conn) {
  const struct reach *reach = &conn->hs->reach;
  if (reach->num_tried == 0) {
    return balance_is_full(origin_pool_set(reach->pool)) ? OUTCOME_ORIGIN_FULL
                                                         : OUTCOME_ORIGIN_NONE;
  }
  return reach->last == ORIGIN_FAILURE_TIMEOUT ? OUTCOME_ORIGIN_TIMEOUT : OUTCOME_ORIGIN_REFUSED;
}

// A client that uses Nagle's algorithm holds its first bytes back until its Finished has been
// confirmed, which a kernel (ours, or that of a balancer between) puts off for 40 ms, hoping for
// something to send. So who has sent nothing yet is sent the tickets, which the library would
// keep for the first bytes of the origin; if there are none, our kernel is told not to wait.
static void confirm_finished(struct conn *conn) {
  const int on = 1;
  if ((conn->client.ready & IO_READABLE) != 0 || block_len(conn->in) > 0) {
    return;
  }
  (void)SSL_write(transport_use(conn), "", 0);
  ERR_clear_error();
  if (block_len(conn->out) == 0) {
    (void)setsockopt(conn->client.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
  }
  (void)transport_flush(conn);  // the relay sees to what is left
}

enum step opening_connect(struct conn *conn) {
  const bool is_first = conn->hs->reach.num_tried == 0;

  // TLS 1.2: the server's Finished may still be under way.
  if (transport_flush(conn) == STATUS_CLOSED) {
    return conn_finish(conn, OUTCOME_CLIENT_RESET, CONN_CLOSED);
  }
  switch (origin_reach(conn, on_origin)) {
    case REACHED:
      break;
    case REACH_ANOTHER:
      if (!is_first) {
        conn_set_deadline(conn, CONN_CONNECT);
      }
      return conn_wait_for(conn, ORIGIN_READY);
    case REACH_WAITS:
      return conn_wait_for(conn, ORIGIN_READY);
    case REACH_NOBODY:
      return give_up_origin(conn, why_nobody(conn));
    case REACH_NO_MEMORY:
      return give_up_origin(conn, OUTCOME_MEMORY);
  }
  if (origin_greet(conn) != STATUS_OK) {
    return give_up_origin(conn, OUTCOME_MEMORY);
  }
  confirm_finished(conn);
  return conn_enter(conn, CONN_RELAY);
}

enum step opening_expire_connect(struct conn *conn) {
  if (conn->origin.fd < 0) {
    return give_up_origin(conn, OUTCOME_ORIGIN_NONE);  // its name was not looked up in time
  }
  origin_expire(conn);
  return STEP_GO;  // to another, if there is one
}
