// SPDX-License-Identifier: Apache-2.0
#include "common/tls/client_auth.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/cert.h"

#define S_PER_DAY INT64_C(86400)

struct client_auth {
  SSL_CTX *trust;                      // holds CAs and revocation lists; no connection uses it
  STACK_OF(CRYPTO_BUFFER) * ca_names;  // DER Names, for the CertificateRequest
  uint8_t id[TRUST_ID_LEN];
};

// --- making ------------------------------------------------------------------------------

static enum status add_name(STACK_OF(CRYPTO_BUFFER) * names, X509_NAME *name) {
  uint8_t *der = NULL;
  const int len = i2d_X509_NAME(name, &der);
  CRYPTO_BUFFER *buffer = len <= 0 ? NULL : CRYPTO_BUFFER_new(der, (size_t)len, NULL);

  OPENSSL_free(der);
  if (buffer == NULL || !sk_CRYPTO_BUFFER_push(names, buffer)) {
    CRYPTO_BUFFER_free(buffer);
    return STATUS_MEMORY;
  }
  return STATUS_OK;
}

static enum status list_names(struct client_auth *auth) {
  enum status st = STATUS_OK;
  STACK_OF(X509_NAME) *names = SSL_CTX_get_client_CA_list(auth->trust);

  auth->ca_names = sk_CRYPTO_BUFFER_new_null();
  if (auth->ca_names == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < sk_X509_NAME_num(names); i++) {
    TRY(add_name(auth->ca_names, sk_X509_NAME_value(names, i)));
  }

out:
  return st;
}

enum status client_auth_new(struct client_auth **out, const struct tls_identity *identity,
                            unsigned depth, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct client_auth *auth = calloc(1, sizeof *auth);
  SHA256_CTX hash;

  *out = NULL;
  if (auth == NULL) {
    return STATUS_MEMORY;
  }
  TRY(tls_context_trust(&auth->trust, identity, err));
  SSL_CTX_set_verify_depth(auth->trust, (int)depth);
  TRY(list_names(auth));
  SHA256_Init(&hash);
  SHA256_Update(&hash, trust_id(auth->trust), TRUST_ID_LEN);
  SHA256_Update(&hash, &depth, sizeof depth);
  SHA256_Final(auth->id, &hash);
  *out = auth;
  auth = NULL;

out:
  client_auth_free(auth);
  ERR_clear_error();
  return st;
}

void client_auth_free(struct client_auth *auth) {
  if (auth != NULL) {
    sk_CRYPTO_BUFFER_pop_free(auth->ca_names, CRYPTO_BUFFER_free);
    SSL_CTX_free(auth->trust);
    free(auth);
  }
}

const uint8_t *client_auth_id(const struct client_auth *auth) { return auth->id; }

// --- asking ------------------------------------------------------------------------------

enum status client_auth_ask(SSL *ssl, const struct client_auth *auth, bool is_required,
                            enum ssl_verify_result_t (*verify)(SSL *ssl, uint8_t *out_alert)) {
  STACK_OF(CRYPTO_BUFFER) *names = sk_CRYPTO_BUFFER_new_null();

  for (size_t i = 0; names != NULL && i < sk_CRYPTO_BUFFER_num(auth->ca_names); i++) {
    CRYPTO_BUFFER *name = sk_CRYPTO_BUFFER_value(auth->ca_names, i);
    if (!sk_CRYPTO_BUFFER_push(names, name)) {
      sk_CRYPTO_BUFFER_pop_free(names, CRYPTO_BUFFER_free);
      names = NULL;
    } else {
      CRYPTO_BUFFER_up_ref(name);
    }
  }
  if (names == NULL) {
    ERR_clear_error();
    return STATUS_MEMORY;
  }
  SSL_set0_client_CAs(ssl, names);
  SSL_set_custom_verify(
      ssl, is_required ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER,
      verify);
  return STATUS_OK;
}

// --- checking ----------------------------------------------------------------------------

static X509 *parse(const CRYPTO_BUFFER *der) {
  const uint8_t *at = CRYPTO_BUFFER_data(der);
  const size_t len = CRYPTO_BUFFER_len(der);
  X509 *x509 = len > CERT_MAX_LEN ? NULL : d2i_X509(NULL, &at, (long)len);

  if (x509 != NULL && at != CRYPTO_BUFFER_data(der) + len) {
    X509_free(x509);
    x509 = NULL;
  }
  return x509;
}

static int64_t to_posix(const ASN1_TIME *time) {
  ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
  int days = 0;
  int seconds = 0;
  const bool is_good = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, time);

  ASN1_TIME_free(epoch);
  return is_good ? days * S_PER_DAY + seconds : 0;
}

static void read_name(char out[CLIENT_AUTH_NAME_LEN], const X509 *leaf) {
  const X509_NAME *subject = X509_get_subject_name(leaf);
  const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  uint8_t *utf8 = NULL;
  int len = -1;

  out[0] = '\0';
  if (index >= 0) {
    len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
  }
  // Half a name, or one that ends early, could be somebody else's.
  if (len > 0 && len < CLIENT_AUTH_NAME_LEN && memchr(utf8, '\0', (size_t)len) == NULL) {
    memcpy(out, utf8, (size_t)len);
    out[len] = '\0';
  }
  OPENSSL_free(utf8);
}

static void identify(struct client_identity *out, const X509 *leaf) {
  read_name(out->common_name, leaf);
  out->not_after_s = to_posix(X509_get0_notAfter(leaf));
}

// parse_chain makes X509s of what was shown; *out_rest are the intermediates.
static enum status parse_chain(X509 **out_leaf, STACK_OF(X509) * rest,
                               const STACK_OF(CRYPTO_BUFFER) * shown) {
  const size_t num = shown == NULL ? 0 : sk_CRYPTO_BUFFER_num(shown);

  if (num == 0) {
    return STATUS_NOT_FOUND;
  }
  if (num > CERT_MAX_IN_CHAIN) {
    return STATUS_LIMIT;
  }
  for (size_t i = 0; i < num; i++) {
    X509 *x509 = parse(sk_CRYPTO_BUFFER_value(shown, i));
    if (x509 == NULL) {
      return STATUS_FORMAT;
    }
    if (i == 0) {
      *out_leaf = x509;
    } else if (!sk_X509_push(rest, x509)) {
      X509_free(x509);
      return STATUS_MEMORY;
    }
  }
  return STATUS_OK;
}

enum tls_refusal client_auth_check(struct client_identity *out, const struct client_auth *auth,
                                   const SSL *ssl) {
  enum tls_refusal refusal = TLS_REFUSAL_OTHER;
  X509 *leaf = NULL;
  STACK_OF(X509) *rest = sk_X509_new_null();
  enum status st =
      rest == NULL ? STATUS_MEMORY : parse_chain(&leaf, rest, SSL_get0_peer_certificates(ssl));

  if (st == STATUS_OK) {
    refusal = trust_check(auth->trust, leaf, rest);
    identify(out, leaf);
  } else if (st == STATUS_NOT_FOUND) {
    refusal = TLS_REFUSAL_MISSING;
  }
  X509_free(leaf);
  sk_X509_pop_free(rest, X509_free);
  ERR_clear_error();
  return refusal;
}

enum status client_auth_identify(struct client_identity *out, const SSL *ssl) {
  const STACK_OF(CRYPTO_BUFFER) *shown = SSL_get0_peer_certificates(ssl);
  X509 *leaf = NULL;

  if (shown == NULL || sk_CRYPTO_BUFFER_num(shown) == 0) {
    return STATUS_NOT_FOUND;
  }
  leaf = parse(sk_CRYPTO_BUFFER_value(shown, 0));
  if (leaf == NULL) {
    ERR_clear_error();
    return STATUS_FORMAT;
  }
  identify(out, leaf);
  X509_free(leaf);
  return STATUS_OK;
}

uint8_t client_auth_alert(enum tls_refusal refusal) {
  switch (refusal) {
    case TLS_REFUSAL_MISSING:
      return SSL_AD_CERTIFICATE_REQUIRED;
    case TLS_REFUSAL_EXPIRED:
    case TLS_REFUSAL_NOT_YET_VALID:  // "expired or is not currently valid"
      return SSL_AD_CERTIFICATE_EXPIRED;
    case TLS_REFUSAL_REVOKED:
      return SSL_AD_CERTIFICATE_REVOKED;
    case TLS_REFUSAL_UNKNOWN_CA:
      return SSL_AD_UNKNOWN_CA;
    case TLS_REFUSAL_PURPOSE:
      return SSL_AD_UNSUPPORTED_CERTIFICATE;
    case TLS_REFUSAL_CRL_MISSING:
    case TLS_REFUSAL_CRL_STALE:
      return SSL_AD_CERTIFICATE_UNKNOWN;  // ours to mend, not the client's
    case TLS_REFUSAL_NONE:
    case TLS_REFUSAL_OTHER:
    case TLS_REFUSAL_NUM:
      break;
  }
  return SSL_AD_BAD_CERTIFICATE;
}
