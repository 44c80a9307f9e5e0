// SPDX-License-Identifier: Apache-2.0
// client_auth: certificates of the clients of a server that shows its own without
// parsing it (SSL_CTXs of TLS_with_buffers_method, which have no X509 in them): whom to
// ask, whom to let in, and who it was. Trust and revocation are trust.h's.
//
// Made by the control thread, immutable, read by all workers (the library's store of CAs
// has a lock that is taken for a moment; only handshakes that show a certificate meet it).
#ifndef DEPUTY_COMMON_TLS_CLIENT_AUTH_H_
#define DEPUTY_COMMON_TLS_CLIENT_AUTH_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/context.h"
#include "common/tls/trust.h"

#define CLIENT_AUTH_NAME_LEN 128

struct client_auth;

// client_auth_new reads CAs and revocation lists (`ca`, `crl`, `crl_when_stale` of the
// identity). `depth` is how many intermediates may stand between a leaf and a CA of the
// file. As trust_load.
enum status client_auth_new(struct client_auth **out, const struct tls_identity *identity,
                            unsigned depth, struct errmsg *err);
void client_auth_free(struct client_auth *auth);  // NULL allowed

// client_auth_id borrows a hash over all that decides who is let in (TRUST_ID_LEN bytes):
// the same on all machines that have the same files.
const uint8_t *client_auth_id(const struct client_auth *auth);

// client_auth_ask has the client asked for a certificate, in the certificate callback.
// `verify` is called with what it shows: client_auth_check is to answer. Without
// `is_required` it may show none. STATUS_MEMORY.
enum status client_auth_ask(SSL *ssl, const struct client_auth *auth, bool is_required,
                            enum ssl_verify_result_t (*verify)(SSL *ssl, uint8_t *out_alert));

// Who the client is, by its certificate.
struct client_identity {
  char common_name[CLIENT_AUTH_NAME_LEN];  // as it is (UTF-8); "" if it has none that fits
  int64_t not_after_s;
};

// client_auth_check verifies what the client showed; TLS_REFUSAL_NONE: it is `out`.
enum tls_refusal client_auth_check(struct client_identity *out, const struct client_auth *auth,
                                   const SSL *ssl);
// client_auth_identify reads who it was, without verifying again: a resumed session.
// STATUS_NOT_FOUND: it showed none.
enum status client_auth_identify(struct client_identity *out, const SSL *ssl);

// client_auth_alert is what a client is to hear of a refusal (RFC 8446, section 6.2).
uint8_t client_auth_alert(enum tls_refusal refusal);

#endif  // DEPUTY_COMMON_TLS_CLIENT_AUTH_H_
