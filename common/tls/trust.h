// SPDX-License-Identifier: Apache-2.0
// trust: which peers a context of mutual TLS lets in: the CAs of a file, and what
// these have revoked. Used by context.c; asked again when a reload has changed it.
//
// Revocation (RFC 5280, section 6.3) by the library: a leaf whose CA has no list
// here is refused once any list is given (else one that is forgotten would go
// unseen); for intermediates a list counts where there is one. Lists are read with
// the configuration, and again on a reload.
#ifndef DEPUTY_COMMON_TLS_TRUST_H_
#define DEPUTY_COMMON_TLS_TRUST_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/context.h"

#define TRUST_CRL_MAX_LEN (16u << 20)  // bytes of one file of revocation lists
#define TRUST_MAX_CRLS 1024u

// Why a peer's certificate was refused, for counters.
enum tls_refusal {
  TLS_REFUSAL_NONE,
  TLS_REFUSAL_MISSING,  // it showed none
  TLS_REFUSAL_EXPIRED,
  TLS_REFUSAL_NOT_YET_VALID,
  TLS_REFUSAL_REVOKED,
  TLS_REFUSAL_UNKNOWN_CA,
  TLS_REFUSAL_PURPOSE,      // no EKU that fits
  TLS_REFUSAL_CRL_MISSING,  // its CA has no revocation list here
  TLS_REFUSAL_CRL_STALE,    // that list's nextUpdate has passed
  TLS_REFUSAL_OTHER,
  TLS_REFUSAL_NUM,
};
const char *tls_refusal_name(enum tls_refusal refusal);  // "unknown_ca"; static

// tls_refusal_of says why the handshake that ended with `why` (tls_stream.h, on_end)
// failed, if it was for the peer's certificate.
enum tls_refusal tls_refusal_of(const SSL *ssl, const char *why);

// trust_load gives the context CAs and revocation lists, and the callback that
// verifies with them. Peers are clients, or servers.
//   STATUS_CONFIG  no list is of one of the CAs
//   STATUS_FORMAT  a list cannot be parsed, or its CA has not signed it
//   STATUS_REFUSED a certificate of `ca` is no CA
//   STATUS_SYSTEM, STATUS_LIMIT, STATUS_MEMORY
enum status trust_load(SSL_CTX *ctx, const struct tls_identity *identity, bool is_of_clients,
                       struct errmsg *err);

// trust_id borrows a hash over all that decides who is let in: where it is the same,
// so are the peers.
#define TRUST_ID_LEN 32u
const uint8_t *trust_id(const SSL_CTX *ctx);

// trust_check verifies a certificate, with intermediates (NULL: none), as a
// handshake under this context would. It parses and verifies signatures.
enum tls_refusal trust_check(SSL_CTX *ctx, X509 *leaf, STACK_OF(X509) * intermediates);

// trust_check_again does so for the peer of a connection whose handshake is done.
enum tls_refusal trust_check_again(SSL_CTX *ctx, const SSL *ssl);

// trust_crl_ends_s is the earliest nextUpdate among the revocation lists, in POSIX
// seconds; 0: there are none.
int64_t trust_crl_ends_s(const SSL_CTX *ctx);

#endif  // DEPUTY_COMMON_TLS_TRUST_H_
