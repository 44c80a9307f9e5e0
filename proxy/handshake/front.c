// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/front.h"

#include "common/tls/compression.h"
#include "common/tls/credential.h"
#include "common/tls/tls_error.h"
#include "proxy/handshake/compressing.h"
#include "proxy/handshake/select.h"

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

static enum status set_tickets(SSL_CTX *ctx, const struct ticket_options *options,
                               struct tickets *tickets) {
  // The cache of sessions in memory would be a lock shared by connections.
  (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  if (!options->is_on) {
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return STATUS_OK;
  }
  if (SSL_CTX_set_num_tickets(ctx, NUM_TICKETS) != 1) {
    return STATUS_MEMORY;
  }
  return tickets_attach(ctx, tickets, (uint32_t)(options->lifetime_ms / 1000));
}

enum status front_context_new(SSL_CTX **out, struct view *view, struct tickets *tickets,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &view->site->options;
  // Certificates are shown as they are, not as parsed X509s.
  SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());

  *out = NULL;
  if (ctx == NULL || SSL_CTX_set_strict_cipher_list(ctx, CIPHERS) != 1) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(tls_policy_set_default(ctx, &view->site->tls.base));
  (void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
  // A write may be tried again from where a block has moved to.
  (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_early_data_enabled(ctx, 0);
  TRY(tls_credential_prepare(ctx));
  SSL_CTX_set_select_certificate_cb(ctx, select_on_client_hello);
  SSL_CTX_set_cert_cb(ctx, select_on_certificate, view);
  SSL_CTX_set_alpn_select_cb(ctx, select_on_alpn, view);
  TRY(tls_compression_enable(ctx, (unsigned)options->tls.compression, &compressing_hooks));
  if (view->site->ech_keys != NULL && SSL_CTX_set1_ech_keys(ctx, view->site->ech_keys) != 1) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(set_tickets(ctx, &options->tickets, tickets));
  *out = ctx;
  ctx = NULL;

out:
  if (st != STATUS_OK) {
    char reason[TLS_ERROR_TEXT_LEN];
    (void)errmsg_set(err, st, "the TLS context for clients cannot be made (%s)",
                     tls_error_drain(reason, sizeof(reason)));
  }
  SSL_CTX_free(ctx);
  return st;
}
