// SPDX-License-Identifier: Apache-2.0
#include "proxy/front.h"

#include "common/tls/credential.h"
#include "common/tls/tls_error.h"
#include "proxy/select.h"

// TLS 1.2: ECDHE for forward secrecy, AEADs only (CBC suites have a history, and
// every client that speaks ECDHE-GCM or ChaCha20 has been out for ten years). No
// static RSA key exchange: the key server refuses to decrypt. In a bracket the
// client's order counts, so that one without AES instructions gets ChaCha20.
// TLS 1.3 suites are BoringSSL's own three.
#define CIPHERS                                                   \
  "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305|" \
  "ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:"     \
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"

// Two would be spent on clients that open two connections at once; the second
// costs each handshake a serialised session and a sealing.
#define NUM_TICKETS 1

// A session is resumed only where it was made: by this program, in this role.
static const uint8_t session_context[] = "deputy-proxy";

// What only the ClientHello itself tells, for select_on_certificate.
static enum ssl_select_cert_result_t on_client_hello(const SSL_CLIENT_HELLO *hello) {
  tls_client_hello_note(hello);
  return ssl_select_cert_success;
}

static uint16_t version_code(int option) {
  return option == TLS_OPTION_13 ? TLS1_3_VERSION : TLS1_2_VERSION;
}

static enum status set_tickets(SSL_CTX *ctx, const struct ticket_options *options,
                               struct tickets *tickets) {
  // The cache of sessions in memory would be a lock shared by connections.
  (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  if (!options->is_on) {
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return STATUS_OK;
  }
  if (SSL_CTX_set_num_tickets(ctx, NUM_TICKETS) != 1 ||
      SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1) != 1) {
    return STATUS_MEMORY;
  }
  return tickets_attach(ctx, tickets, (uint32_t)(options->lifetime_ms / 1000));
}

enum status front_context_new(SSL_CTX **out, struct view *view, struct tickets *tickets,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &view->site->options;
  const struct tls_options *tls = &options->tls;
  // Certificates are shown as they are, never parsed by the handshake.
  SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());

  *out = NULL;
  if (ctx == NULL || SSL_CTX_set_strict_cipher_list(ctx, CIPHERS) != 1 ||
      SSL_CTX_set_min_proto_version(ctx, version_code(tls->min_version)) != 1 ||
      SSL_CTX_set_max_proto_version(ctx, version_code(tls->max_version)) != 1) {
    st = STATUS_MEMORY;
    goto out;
  }
  if (tls->groups != NULL && SSL_CTX_set1_curves_list(ctx, tls->groups) != 1) {
    st = errmsg_set(err, STATUS_CONFIG,
                    "tls.groups is \"%s\"; this BoringSSL (%s) does not know all of it",
                    tls->groups, tls_generation());
    goto out;
  }
  (void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
  // A write may be tried again from where a block has moved to.
  (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_early_data_enabled(ctx, 0);
  TRY(tls_credential_prepare(ctx));
  SSL_CTX_set_select_certificate_cb(ctx, on_client_hello);
  SSL_CTX_set_cert_cb(ctx, select_on_certificate, view);
  SSL_CTX_set_alpn_select_cb(ctx, select_on_alpn, view);
  TRY(set_tickets(ctx, &options->tickets, tickets));
  *out = ctx;
  ctx = NULL;

out:
  if (st != STATUS_OK) {
    char reason[TLS_ERROR_TEXT_LEN];
    (void)tls_error_drain(reason, sizeof(reason));
  }
  SSL_CTX_free(ctx);
  return st;
}
