// SPDX-License-Identifier: Apache-2.0
// context: the SSL_CTXs of mutual TLS between our own parts, and who the peer is.
#ifndef DEPUTY_COMMON_TLS_CONTEXT_H_
#define DEPUTY_COMMON_TLS_CONTEXT_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

// The "tls" object of a configuration file: this part's own identity and whom it
// trusts. Rows for it: tls_identity_options (a config table).
struct tls_identity {
  char *ca;           // PEM file: CAs whose peers are let in
  char *certificate;  // PEM file: own chain
  char *key;          // PEM file, private to us
  char **crl;         // files and folders of revocation lists; none: nothing is revoked
  size_t num_crl;
  int crl_when_stale;  // enum tls_crl_policy
};
// What becomes of peers whose CA's revocation list is past its nextUpdate.
enum tls_crl_policy { TLS_CRL_REFUSE, TLS_CRL_ACCEPT };
extern const struct config_option tls_identity_options[];

// tls_context_server: mutual TLS 1.3; with `allow_tls12` also TLS 1.2 with
// ECDHE-ECDSA/RSA-AES256-GCM-SHA384 only (foreign key-server clients). A client
// certificate with EKU clientAuth from the CA is required. New; SSL_CTX_free.
enum status tls_context_server(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err);

// tls_context_client: the other end; verifies the server's chain, EKU serverAuth,
// and, by tls_context_expect, its name.
enum status tls_context_client(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err);
// tls_context_outward is for peers that are not ours: TLS 1.2 too, with the library's
// suites; the same checks of the server's certificate; a certificate of our own only if
// `identity` names one.
enum status tls_context_outward(SSL_CTX **out, const struct tls_identity *identity,
                                struct errmsg *err);
// tls_context_trust makes a server's context without an identity of its own: for
// trust_check (trust.h) alone.
enum status tls_context_trust(SSL_CTX **out, const struct tls_identity *identity,
                              struct errmsg *err);
// tls_expect_host sets SNI (if a name) and the name or IP the peer must have.
enum status tls_expect_host(SSL *ssl, const char *host);

#define TLS_PEER_NAME_LEN 256

// Who the other end is, after the handshake.
struct tls_peer {
  char name[TLS_PEER_NAME_LEN];  // first dNSName, else first URI, else CN; escaped
  uint8_t spki_sha256[32];
};
enum status tls_peer_read(struct tls_peer *out, const SSL *ssl);
// tls_peer_has_name: is `name` one of its dNSNames or URIs (case folded)?
bool tls_peer_has_name(const SSL *ssl, const char *name);
// The same of a certificate that is not, or not yet, a peer's.
enum status tls_peer_of_certificate(struct tls_peer *out, const X509 *x509);
bool tls_certificate_has_name(const X509 *x509, const char *name);

#endif  // DEPUTY_COMMON_TLS_CONTEXT_H_
