// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/select.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "certstore/certstore.h"
#include "common/tls/credential.h"
#include "proxy/connection/conn.h"
#include "proxy/handshake/signer.h"
#include "proxy/worker.h"

// BoringSSL answers a refusal with internal_error. What was sent first wins.
static int refuse(SSL *ssl, struct handshake *hs, enum failure failure, uint8_t alert) {
  hs->failure = failure;
  (void)SSL_send_fatal_alert(ssl, alert);
  return 0;
}

// --- the ClientHello -----------------------------------------------------------------------

// Whose policy it will be, as far as that can be told now.
static const struct policy *guess_policy(const struct conn *conn, struct bytes sni) {
  const struct site *site = conn->hs->view->site;
  const struct cert_name *name = certstore_find_named(site->store, sni);

  if (name == NULL && conn->worker->host->lookup != NULL && sni.len > 0) {
    return &site->of_store;
  }
  if (name == NULL) {
    name = certstore_default(site->store);
  }
  return name == NULL ? NULL : policy_of(name);
}

enum ssl_select_cert_result_t select_on_client_hello(const SSL_CLIENT_HELLO *hello) {
  struct conn *conn = conn_of(hello->ssl);
  const struct policy *policy = NULL;

  tls_client_hello_note(hello);
  if (!tls_policies_differ(&conn->hs->view->site->tls)) {
    return ssl_select_cert_success;
  }
  policy =
      guess_policy(conn, bytes_text(SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name)));
  if (policy != NULL && tls_policy_begin(hello->ssl, policy->tls) != STATUS_OK) {
    conn->hs->failure = FAILURE_INTERNAL;
    return ssl_select_cert_error;
  }
  return ssl_select_cert_success;
}

// --- certificates of clients ---------------------------------------------------------------

static enum ssl_verify_result_t on_client_certificate(SSL *ssl, uint8_t *out_alert) {
  struct conn *conn = conn_of(ssl);
  struct client_identity *client = calloc(1, sizeof(*client));
  enum tls_refusal refusal = TLS_REFUSAL_OTHER;

  if (client == NULL) {
    conn->hs->failure = FAILURE_INTERNAL;
    *out_alert = SSL_AD_INTERNAL_ERROR;
    return ssl_verify_invalid;
  }
  refusal = client_auth_check(client, conn->hs->policy->tls->clients, ssl);
  if (refusal != TLS_REFUSAL_NONE) {
    free(client);
    count(&conn->worker->counters.clients_refused[refusal]);
    conn->hs->failure = FAILURE_CLIENT_CERT;
    *out_alert = client_auth_alert(refusal);
    return ssl_verify_invalid;
  }
  free(conn->client_identity);
  conn->client_identity = client;
  return ssl_verify_ok;
}

// --- the certificate -----------------------------------------------------------------------

static bool takes_kind(void *arg, enum key_kind kind) {
  return tls_client_takes_kind((const SSL *)arg, kind);
}

static bool takes_any_kind(void *arg, enum key_kind kind) {
  (void)arg;
  (void)kind;
  return true;
}

static int refuse_without_chain(SSL *ssl, struct conn *conn, int64_t now_s) {
  // Is it the client that takes none of the chains, or are there none to take?
  struct handshake *hs = conn->hs;
  struct choice any = {0};
  enum status st = lookup_choose(&any, conn, now_s, takes_any_kind, NULL);
  if (st == STATUS_OK) {
    return refuse(ssl, hs, FAILURE_SCHEME, SSL_AD_HANDSHAKE_FAILURE);
  }
  return refuse(ssl, hs, FAILURE_NO_CHAIN, SSL_AD_INTERNAL_ERROR);
}

// note_heat tells who keeps names supplied that a client would take a DC.
static void note_heat(const SSL *ssl, const struct handshake *hs, struct worker *worker,
                      enum tls_guard guard) {
  const uint32_t number = atomic_load_explicit(&hs->name->heat_number, memory_order_relaxed);
  if (guard == TLS_GUARD_PASS ||
      ((guard == TLS_GUARD_NO_DC || guard == TLS_GUARD_EXPIRED) && tls_client_takes_dc(ssl))) {
    heat_note(&worker->heat, number, hs->choice.level);
  }
}

// The DC of the moment, if this client may have it.
static struct tls_dc *pick_dc(const SSL *ssl, struct handshake *hs, struct worker *worker,
                              int64_t now_s) {
  const struct options *options = &hs->view->site->options;
  struct tls_dc *dc = NULL;
  enum tls_guard guard = TLS_GUARD_NO_DC;

  if (!hs->choice.may_use_dc || !hs->policy->may_use_dc) {
    return NULL;
  }
  // Lent until this callback ends (chain.h); who installs it takes a reference.
  dc = atomic_load_explicit(&hs->choice.chain->dc, memory_order_acquire);
  guard = tls_dc_guard(ssl, dc, now_s, options->dc.margin_ms / 1000);
  count(&worker->counters.guards[guard]);
  note_heat(ssl, hs, worker, guard);
  return guard == TLS_GUARD_PASS ? dc : NULL;
}

// find_name leaves hs->name and its policy: a configured name, one of the store, or the
// default. BoringSSL's words: 1 go on, 0 refused, -1 come again.
static int find_name(SSL *ssl, struct conn *conn, struct bytes sni) {
  struct handshake *hs = conn->hs;
  const struct site *site = hs->view->site;
  enum lookup_answer answer = LOOKUP_ABSENT;

  hs->name = certstore_find_named(site->store, sni);
  if (hs->name == NULL && conn->worker->host->lookup != NULL) {
    answer = lookup_find(conn, sni);
  }
  if (answer == LOOKUP_WAIT) {
    return -1;
  }
  if (answer == LOOKUP_FAILED) {
    return refuse(ssl, hs, FAILURE_LOOKUP, SSL_AD_INTERNAL_ERROR);
  }
  if (answer == LOOKUP_FOUND) {
    hs->policy = &site->of_store;
    return 1;
  }
  if (hs->name == NULL) {
    hs->name = certstore_default(site->store);
  }
  if (hs->name == NULL) {
    return refuse(ssl, hs, FAILURE_UNKNOWN_NAME, SSL_AD_UNRECOGNIZED_NAME);
  }
  hs->policy = policy_of(hs->name);
  return 1;
}

// The rest of the name's policy, now that it is certain which name it is.
static int apply_policy(SSL *ssl, struct handshake *hs) {
  switch (tls_policy_finish(ssl, hs->policy->tls, on_client_certificate)) {
    case STATUS_OK:
      return 1;
    case STATUS_REFUSED:
      return refuse(ssl, hs, FAILURE_VERSION, SSL_AD_PROTOCOL_VERSION);
    default:
      return refuse(ssl, hs, FAILURE_INTERNAL, SSL_AD_INTERNAL_ERROR);
  }
}

int select_decide(SSL *ssl, struct conn *conn, struct bytes sni, struct tls_dc **out_dc) {
  struct handshake *hs = conn->hs;
  int64_t now_s = worker_now_s(conn->worker);
  int found = find_name(ssl, conn, sni);

  *out_dc = NULL;
  if (found != 1) {
    return found;
  }
  if (lookup_choose(&hs->choice, conn, now_s, takes_kind, ssl) != STATUS_OK) {
    return refuse_without_chain(ssl, conn, now_s);
  }
  if (hs->choice.is_last_resort) {
    count(&conn->worker->counters.last_resort);
  }
  *out_dc = pick_dc(ssl, hs, conn->worker, now_s);
  return 1;
}

int select_on_certificate(SSL *ssl, void *arg) {
  struct conn *conn = conn_of(ssl);
  struct handshake *hs = conn->hs;
  const struct bytes sni = bytes_text(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
  struct tls_dc *dc = NULL;
  int decided = select_decide(ssl, conn, sni, &dc);
  (void)arg;

  if (decided != 1) {
    return decided;
  }
  if (apply_policy(ssl, hs) != 1) {
    return 0;
  }
  struct tls_chain *chain = chain_tls(hs->choice.chain, worker_now_s(conn->worker));
  if (tls_install(ssl, chain, dc, &signer_dc_method) != STATUS_OK) {
    return refuse(ssl, hs, FAILURE_INTERNAL, SSL_AD_INTERNAL_ERROR);
  }
  if (dc != NULL) {
    tls_dc_ref(dc);
    hs->dc = dc;
    hs->dc_ends_s = tls_dc_expiry_s(dc);
  }
  return 1;
}

int select_on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                   unsigned in_len, void *arg) {
  const struct view *view = arg;
  const struct handshake *hs = conn_of(ssl)->hs;
  const struct policy *policy = NULL;
  uint8_t *selected = NULL;
  uint8_t selected_len = 0;

  if (hs == NULL || hs->name == NULL) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;  // out of order: no library does it today
  }
  policy = hs->policy;
  if (policy->alpn_len == 0) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  // Ours first: RFC 7301, section 3.2, leaves the preference to the server.
  if (SSL_select_next_proto(&selected, &selected_len, policy->alpn, (unsigned)policy->alpn_len, in,
                            in_len) == OPENSSL_NPN_NEGOTIATED) {
    *out = selected;
    *out_len = selected_len;
    return SSL_TLSEXT_ERR_OK;
  }
  return view->site->options.tls.alpn_mismatch == ALPN_IGNORE ? SSL_TLSEXT_ERR_NOACK
                                                              : SSL_TLSEXT_ERR_ALERT_FATAL;
}
