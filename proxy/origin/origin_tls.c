// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin/origin_tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/log.h"
#include "common/tls/context.h"
#include "common/tls/shake.h"
#include "common/tls/socket_bio.h"
#include "common/tls/tls_error.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

struct origin_tls {
  SSL *ssl;
  struct socket_bio bio;
};

// --- sessions ----------------------------------------------------------------------------

static struct origin_session *slot_of(struct worker *worker, uint32_t endpoint_id) {
  return &worker->origin_sessions.slots[endpoint_id % ORIGIN_TLS_NUM_SESSIONS];
}

static void empty_slot(struct origin_session *slot) {
  SSL_SESSION_free(slot->session);
  SSL_CTX_free(slot->ctx);
  *slot = (struct origin_session){0};
}

void origin_sessions_cleanup(struct origin_sessions *sessions) {
  for (size_t i = 0; i < ORIGIN_TLS_NUM_SESSIONS; i++) {
    empty_slot(&sessions->slots[i]);
  }
}

// Called with a session that is ours from then on (1), or stays the library's (0).
static int on_session(SSL *ssl, SSL_SESSION *session) {
  struct conn *conn = SSL_get_app_data(ssl);
  struct origin_session *slot = NULL;
  if (conn->endpoint == NULL) {
    return 0;
  }
  slot = slot_of(conn->worker, conn->endpoint->id);
  empty_slot(slot);
  *slot = (struct origin_session){conn->endpoint->id, SSL_get_SSL_CTX(ssl), session};
  SSL_CTX_up_ref(slot->ctx);
  return 1;
}

// A session stands for a verified certificate: only for the context that has verified it.
static void offer_session(struct conn *conn, SSL *ssl) {
  struct origin_session *slot = slot_of(conn->worker, conn->endpoint->id);
  if (slot->session == NULL || slot->endpoint_id != conn->endpoint->id ||
      slot->ctx != SSL_get_SSL_CTX(ssl)) {
    return;
  }
  (void)SSL_set_session(ssl, slot->session);
  if (SSL_SESSION_should_be_single_use(slot->session)) {
    empty_slot(slot);  // RFC 8446, appendix C.4: who is seen twice can be followed
  }
}

// --- contexts ----------------------------------------------------------------------------

enum status origin_tls_context_new(SSL_CTX **out, const struct origin_tls_options *options,
                                   struct errmsg *err) {
  const struct tls_identity identity = {.ca = options->ca,
                                        .certificate = options->certificate,
                                        .key = options->key,
                                        .crl = options->crl,
                                        .num_crl = options->num_crl,
                                        .crl_when_stale = options->crl_when_stale};
  enum status st = tls_context_outward(out, &identity, err);
  if (st != STATUS_OK) {
    return st;
  }
  SSL_CTX_set_session_cache_mode(*out, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(*out, on_session);
  // The same bytes are offered again, from wherever they are then.
  SSL_CTX_set_mode(*out, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return STATUS_OK;
}

// --- the handshake -----------------------------------------------------------------------

// The name that the certificate must have: the pool's, or the host of the address.
static enum status expect_name(SSL *ssl, const struct conn *conn) {
  const char *name = conn->hs->reach.pool->options->tls.name;
  char host[256];
  uint16_t port = 0;
  struct errmsg ignored = {0};
  if (name == NULL) {
    if (address_split_host(host, &port, conn->endpoint->origin->address, &ignored) != STATUS_OK) {
      return STATUS_CONFIG;  // origin_options_check sees to it
    }
    name = host;
  }
  return tls_expect_host(ssl, name);
}

static enum status offer_alpn(SSL *ssl, const struct conn *conn) {
  const uint8_t *alpn = NULL;
  unsigned len = 0;
  uint8_t list[256];
  SSL_get0_alpn_selected(conn->ssl, &alpn, &len);
  if (len == 0 || len >= sizeof(list)) {
    return STATUS_OK;
  }
  list[0] = (uint8_t)len;
  memcpy(list + 1, alpn, len);
  return SSL_set_alpn_protos(ssl, list, len + 1) == 0 ? STATUS_OK : STATUS_MEMORY;
}

enum status origin_tls_begin(struct conn *conn) {
  enum status st = STATUS_OK;
  struct origin_tls *tls = calloc(1, sizeof(*tls));
  if (tls == NULL) {
    return STATUS_MEMORY;
  }
  conn->origin_tls = tls;
  tls->ssl = SSL_new(conn->hs->reach.pool->tls);
  if (tls->ssl == NULL) {
    return STATUS_MEMORY;
  }
  TRY(socket_bio_attach(&tls->bio, tls->ssl, conn->origin.fd));
  SSL_set_app_data(tls->ssl, conn);
  SSL_set_connect_state(tls->ssl);
  TRY(expect_name(tls->ssl, conn));
  TRY(offer_alpn(tls->ssl, conn));
  offer_session(conn, tls->ssl);
  origin_tls_note(conn, conn->origin.ready);
out:
  return st;
}

void origin_tls_note(struct conn *conn, unsigned ready) {
  struct socket_bio *bio = &conn->origin_tls->bio;
  bio->may_read = bio->may_read || (ready & IO_READABLE) != 0;
  bio->may_write = bio->may_write || (ready & IO_WRITABLE) != 0;
  bio->is_ended = bio->is_ended || (ready & IO_ENDED) != 0;
}

// The library's words for what a call waits for, as those of the machine.
static enum status wait_of(struct conn *conn, int error) {
  if (error == SSL_ERROR_WANT_READ) {
    conn->origin.ready &= (uint8_t)~IO_READABLE;
    return STATUS_AGAIN;
  }
  if (error == SSL_ERROR_WANT_WRITE) {
    conn->origin.ready &= (uint8_t)~IO_WRITABLE;
    return STATUS_AGAIN;
  }
  return STATUS_CRYPTO;
}

static void log_failed(const struct conn *conn) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  char reason[TLS_ERROR_TEXT_LEN];
  const long verdict = SSL_get_verify_result(conn->origin_tls->ssl);
  (void)tls_error_drain(reason, sizeof(reason));
  if (log_gate_pass(&gate, 1, &num_held)) {
    log_warn(conn->id, "origin_tls_failed",
             "pool=%s origin=%s reason=%s certificate=\"%s\" held=%llu",
             conn->endpoint->origin->pool, conn->endpoint->origin->address, reason,
             X509_verify_cert_error_string(verdict), (unsigned long long)num_held);
  }
}

enum status origin_tls_handshake(struct conn *conn) {
  struct origin_tls *tls = conn->origin_tls;
  enum status st = STATUS_OK;
  int result = 0;
  tls->bio.budget = SIZE_MAX;
  ERR_clear_error();
  result = tls_shake_hands(tls->ssl);
  if (result == 1) {
    conn->origin.ready |= IO_READABLE;  // its first bytes may have come with its last message
    return STATUS_OK;
  }
  st = wait_of(conn, SSL_get_error(tls->ssl, result));
  if (st != STATUS_AGAIN) {
    log_failed(conn);
  }
  return st;
}

// --- bytes -------------------------------------------------------------------------------

ssize_t origin_tls_send(struct conn *conn, const uint8_t *data, size_t len) {
  struct origin_tls *tls = conn->origin_tls;
  int n = 0;
  ERR_clear_error();
  n = SSL_write(tls->ssl, data, (int)len);
  if (n > 0) {
    return n;
  }
  errno = wait_of(conn, SSL_get_error(tls->ssl, n)) == STATUS_AGAIN ? EAGAIN : ECONNRESET;
  ERR_clear_error();
  return -1;
}

// What has come was no plain text: tickets, as a rule, before the origin's first bytes. If it
// uses Nagle's algorithm, those wait until the tickets are confirmed, which our kernel puts off
// for 40 ms, having nothing to send.
static void confirm_tickets(const struct conn *conn) {
  const int on = 1;
  if (conn->bytes_down == 0 && conn->origin_tls->bio.budget < SIZE_MAX) {
    (void)setsockopt(conn->origin.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
  }
}

ssize_t origin_tls_recv(struct conn *conn, uint8_t *out, size_t max) {
  struct origin_tls *tls = conn->origin_tls;
  int n = 0;
  int error = 0;
  tls->bio.budget = SIZE_MAX;
  ERR_clear_error();
  n = SSL_read(tls->ssl, out, (int)max);
  if (n > 0) {
    return n;
  }
  error = SSL_get_error(tls->ssl, n);
  if (error == SSL_ERROR_ZERO_RETURN) {
    return 0;
  }
  if (error == SSL_ERROR_SSL) {
    // In TLS 1.3 an origin that does not like our certificate says so after the handshake.
    log_failed(conn);
  }
  // RFC 8446, section 6.1: an end without close_notify may be an attacker's.
  errno = wait_of(conn, error) == STATUS_AGAIN ? EAGAIN : ECONNRESET;
  ERR_clear_error();
  if (errno == EAGAIN) {
    confirm_tickets(conn);
    errno = EAGAIN;
  }
  return -1;
}

void origin_tls_end(struct conn *conn) {
  ERR_clear_error();
  (void)SSL_shutdown(conn->origin_tls->ssl);
  ERR_clear_error();
}

void origin_tls_park(struct conn *conn) {
  // Without memory what was received is gone: the next record is taken for forged.
  (void)socket_bio_park(&conn->origin_tls->bio);
}

void origin_tls_free(struct conn *conn) {
  struct origin_tls *tls = conn->origin_tls;
  if (tls != NULL) {
    conn->origin_tls = NULL;
    SSL_free(tls->ssl);
    socket_bio_cleanup(&tls->bio);
    free(tls);
  }
}
