// SPDX-License-Identifier: Apache-2.0
#include "common/tls/credential.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/cert.h"
#include "common/tls/compression.h"
#include "common/wire/dc.h"
#include "common/wire/scheme.h"

#if defined(BORINGSSL_API_VERSION) && BORINGSSL_API_VERSION >= 32
#define HAS_SSL_CREDENTIAL 1
#else
#define HAS_SSL_CREDENTIAL 0
#endif

struct tls_chain {
  _Atomic uint32_t num_refs;
  CRYPTO_BUFFER *certs[CERT_MAX_IN_CHAIN];
  size_t num_certs;
  CRYPTO_BUFFER *staple;  // NULL: none
  struct tls_forms forms;
  const SSL_PRIVATE_KEY_METHOD *method;
  EVP_PKEY *key;
#if HAS_SSL_CREDENTIAL
  SSL_CREDENTIAL *credential;
#endif
};

struct tls_dc {
  _Atomic uint32_t num_refs;
  struct tls_chain *chain;
  CRYPTO_BUFFER *bytes;
  EVP_PKEY *key;
  uint16_t verify_scheme;
  uint16_t algorithm;
  int64_t expiry_s;
  struct tls_forms forms;
#if HAS_SSL_CREDENTIAL
  SSL_CREDENTIAL *credential;
#endif
};

// What a certificate's key may be asked to sign with, best first. The library's
// own list ends in SHA-1, which no key server of ours knows.
static const uint16_t signing_schemes[] = {
    SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_ED25519,
    SSL_SIGN_RSA_PSS_RSAE_SHA256,    SSL_SIGN_RSA_PKCS1_SHA256,
    SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA384,
    SSL_SIGN_RSA_PKCS1_SHA384,       SSL_SIGN_ECDSA_SECP521R1_SHA512,
    SSL_SIGN_RSA_PSS_RSAE_SHA512,    SSL_SIGN_RSA_PKCS1_SHA512,
};
#define NUM_SIGNING_SCHEMES (sizeof(signing_schemes) / sizeof(signing_schemes[0]))

static void ref(_Atomic uint32_t *num_refs) {
  CHECK(atomic_fetch_add_explicit(num_refs, 1, memory_order_relaxed) > 0);
}

// unref returns whether that was the last reference.
static bool unref(_Atomic uint32_t *num_refs) {
  uint32_t before = atomic_fetch_sub_explicit(num_refs, 1, memory_order_acq_rel);

  CHECK(before > 0);
  return before == 1;
}

// --- chains ------------------------------------------------------------------------

#if HAS_SSL_CREDENTIAL

static bool set_chain(SSL_CREDENTIAL *credential, const struct tls_chain *chain) {
  return SSL_CREDENTIAL_set1_cert_chain(credential, chain->certs, chain->num_certs) &&
         (chain->staple == NULL || SSL_CREDENTIAL_set1_ocsp_response(credential, chain->staple));
}

static bool prepare_chain(struct tls_chain *chain) {
  chain->credential = SSL_CREDENTIAL_new_x509();
  return chain->credential != NULL && set_chain(chain->credential, chain) &&
         SSL_CREDENTIAL_set1_signing_algorithm_prefs(chain->credential, signing_schemes,
                                                     NUM_SIGNING_SCHEMES) &&
         (chain->method != NULL
              ? SSL_CREDENTIAL_set_private_key_method(chain->credential, chain->method)
              : SSL_CREDENTIAL_set1_private_key(chain->credential, chain->key));
}

#else

// prepare_chain lets the library look at the chain now, so that what it does not
// like is seen here and not in each handshake.
static bool prepare_chain(struct tls_chain *chain) {
  SSL_CTX *probe = SSL_CTX_new(TLS_with_buffers_method());
  bool is_good = probe != NULL && SSL_CTX_set_chain_and_key(probe, chain->certs, chain->num_certs,
                                                            chain->key, chain->method);

  SSL_CTX_free(probe);
  return is_good;
}

#endif

static void chain_free(struct tls_chain *chain) {
#if HAS_SSL_CREDENTIAL
  SSL_CREDENTIAL_free(chain->credential);
#endif
  for (size_t i = 0; i < chain->num_certs; i++) {
    CRYPTO_BUFFER_free(chain->certs[i]);
  }
  CRYPTO_BUFFER_free(chain->staple);
  tls_forms_cleanup(&chain->forms);
  EVP_PKEY_free(chain->key);
  free(chain);
}

static void chain_set_key(struct tls_chain *chain, const SSL_PRIVATE_KEY_METHOD *method,
                          EVP_PKEY *key) {
  chain->method = method;
  if (key != NULL) {
    EVP_PKEY_up_ref(key);
    chain->key = key;
  }
}

enum status tls_chain_new(struct tls_chain **out, CRYPTO_BUFFER *const *certs, size_t num_certs,
                          struct bytes staple, const SSL_PRIVATE_KEY_METHOD *method,
                          EVP_PKEY *key) {
  enum status st = STATUS_OK;
  struct tls_chain *chain = NULL;

  *out = NULL;
  CHECK((method == NULL) != (key == NULL));
  if (num_certs == 0 || num_certs > CERT_MAX_IN_CHAIN || staple.len > TLS_STAPLE_MAX_LEN) {
    return STATUS_LIMIT;
  }
  chain = calloc(1, sizeof *chain);
  if (chain == NULL) {
    return STATUS_MEMORY;
  }
  atomic_init(&chain->num_refs, 1);
  for (size_t i = 0; i < num_certs; i++) {
    CRYPTO_BUFFER_up_ref(certs[i]);
    chain->certs[i] = certs[i];
  }
  chain->num_certs = num_certs;
  chain_set_key(chain, method, key);
  if (staple.len > 0) {
    chain->staple = CRYPTO_BUFFER_new(staple.data, staple.len, NULL);
    if (chain->staple == NULL) {
      TRY(STATUS_MEMORY);
    }
  }
  if (!prepare_chain(chain)) {
    TRY(STATUS_CRYPTO);
  }
  *out = chain;
  chain = NULL;

out:
  tls_chain_unref(chain);
  return st;
}

struct tls_chain *tls_chain_ref(struct tls_chain *chain) {
  ref(&chain->num_refs);
  return chain;
}

void tls_chain_unref(struct tls_chain *chain) {
  if (chain != NULL && unref(&chain->num_refs)) {
    chain_free(chain);
  }
}

// --- compressed forms ------------------------------------------------------------------

static struct tls_message message_of(const struct tls_chain *chain, const CRYPTO_BUFFER *dc) {
  return (struct tls_message){
      .certs = chain->certs, .num_certs = chain->num_certs, .staple = chain->staple, .dc = dc};
}

void tls_chain_compress(struct tls_chain *chain) {
  const struct tls_message message = message_of(chain, NULL);
  tls_forms_prepare(&chain->forms, &message);
}

static void dc_compress(struct tls_dc *dc) {
  const struct tls_message message = message_of(dc->chain, dc->bytes);
  tls_forms_prepare(&dc->forms, &message);
}

void tls_credential_forms(struct tls_forms *out_forms[2], struct tls_message out_messages[2],
                          struct tls_chain *chain, struct tls_dc *dc) {
  if (dc != NULL) {
    out_forms[0] = &dc->forms;
    out_messages[0] = message_of(dc->chain, dc->bytes);
  }
  out_forms[1] = &chain->forms;
  out_messages[1] = message_of(chain, NULL);
}

// --- delegated credentials -----------------------------------------------------------

#if HAS_SSL_CREDENTIAL

static bool prepare_dc(struct tls_dc *dc) {
  dc->credential = SSL_CREDENTIAL_new_delegated();
  return dc->credential != NULL && set_chain(dc->credential, dc->chain) &&
         SSL_CREDENTIAL_set1_delegated_credential(dc->credential, dc->bytes) &&
         SSL_CREDENTIAL_set1_private_key(dc->credential, dc->key);
}

#else

static bool prepare_dc(struct tls_dc *dc) {
  (void)dc;
  return true;
}

#endif

// check_key: the library of before API version 32 finds out in the handshake.
static enum status check_key(const struct dc *fields, EVP_PKEY *key) {
  CBS cbs;
  EVP_PKEY *public_key;
  bool is_same;

  CBS_init(&cbs, fields->spki.data, fields->spki.len);
  public_key = EVP_parse_public_key(&cbs);
  is_same = public_key != NULL && CBS_len(&cbs) == 0 && EVP_PKEY_cmp(public_key, key) == 1;
  EVP_PKEY_free(public_key);
  ERR_clear_error();
  return is_same ? STATUS_OK : STATUS_FORMAT;
}

static void dc_free(struct tls_dc *dc) {
#if HAS_SSL_CREDENTIAL
  SSL_CREDENTIAL_free(dc->credential);
#endif
  CRYPTO_BUFFER_free(dc->bytes);
  EVP_PKEY_free(dc->key);
  tls_forms_cleanup(&dc->forms);
  tls_chain_unref(dc->chain);
  free(dc);
}

enum status tls_dc_new(struct tls_dc **out, struct tls_chain *chain, struct bytes dc, EVP_PKEY *key,
                       int64_t expiry_s) {
  enum status st = STATUS_OK;
  struct tls_dc *made = NULL;
  struct dc fields;

  *out = NULL;
  TRY(dc_decode(&fields, dc));
  TRY(check_key(&fields, key));
  made = calloc(1, sizeof *made);
  if (made == NULL) {
    TRY(STATUS_MEMORY);
  }
  atomic_init(&made->num_refs, 1);
  made->chain = tls_chain_ref(chain);
  EVP_PKEY_up_ref(key);
  made->key = key;
  made->verify_scheme = fields.verify_scheme;
  made->algorithm = fields.algorithm;
  made->expiry_s = expiry_s;
  made->bytes = CRYPTO_BUFFER_new(dc.data, dc.len, NULL);
  if (made->bytes == NULL) {
    TRY(STATUS_MEMORY);
  }
  if (!prepare_dc(made)) {
    ERR_clear_error();
    TRY(STATUS_FORMAT);
  }
  dc_compress(made);
  *out = made;
  made = NULL;

out:
  tls_dc_unref(made);
  return st;
}

void tls_dc_ref(struct tls_dc *dc) { ref(&dc->num_refs); }

void tls_dc_unref(struct tls_dc *dc) {
  if (dc != NULL && unref(&dc->num_refs)) {
    dc_free(dc);
  }
}

enum status tls_dc_sign(const struct tls_dc *dc, uint16_t scheme, uint8_t *out, size_t max,
                        size_t *out_len, struct bytes message) {
  const struct scheme *found = scheme_find(scheme);

  if (found == NULL || scheme != dc->verify_scheme) {
    return STATUS_CRYPTO;
  }
  return scheme_sign(found, dc->key, out, max, out_len, message);
}

int64_t tls_dc_expiry_s(const struct tls_dc *dc) { return dc->expiry_s; }

size_t tls_dc_memory(void) { return HAS_SSL_CREDENTIAL ? 1850 : 1000; }

// --- what the client can do ----------------------------------------------------------

const char *tls_guard_name(enum tls_guard guard) {
  static const char *const names[TLS_GUARD_NUM] = {
      [TLS_GUARD_PASS] = "pass",
      [TLS_GUARD_NO_DC] = "no_dc",
      [TLS_GUARD_OLD_VERSION] = "old_version",
      [TLS_GUARD_NOT_OFFERED] = "not_offered",
      [TLS_GUARD_EXPIRED] = "expired",
      [TLS_GUARD_SCHEME] = "scheme",
      [TLS_GUARD_ALGORITHM] = "algorithm",
      [TLS_GUARD_NSS_RULE] = "nss_rule",
  };
  return (unsigned)guard < TLS_GUARD_NUM ? names[guard] : "unknown";
}

static bool has_scheme(const uint16_t *list, size_t num, uint16_t scheme) {
  for (size_t i = 0; i < num; i++) {
    if (list[i] == scheme) {
      return true;
    }
  }
  return false;
}

enum tls_guard tls_dc_guard(const SSL *ssl, const struct tls_dc *dc, int64_t now_s,
                            int64_t margin_s) {
  const uint16_t *sigalgs = NULL;
  const uint16_t *dc_list = NULL;
  size_t num_sigalgs;
  size_t num_dc_list;

  if (dc == NULL) {
    return TLS_GUARD_NO_DC;
  }
  if (SSL_version(ssl) < TLS1_3_VERSION) {
    return TLS_GUARD_OLD_VERSION;  // RFC 9345, section 4.1.1: the extension is ignored
  }
  num_dc_list = SSL_get0_peer_delegation_algorithms(ssl, &dc_list);
  if (num_dc_list == 0) {
    return TLS_GUARD_NOT_OFFERED;
  }
  if (now_s > dc->expiry_s - margin_s) {
    return TLS_GUARD_EXPIRED;
  }
  // Both lists: before API version 32 the library commits itself on the first and
  // then fails on the second.
  num_sigalgs = SSL_get0_peer_verify_algorithms(ssl, &sigalgs);
  if (!has_scheme(dc_list, num_dc_list, dc->verify_scheme) ||
      !has_scheme(sigalgs, num_sigalgs, dc->verify_scheme)) {
    return TLS_GUARD_SCHEME;
  }
  // RFC 9345, section 4.1.1: the delegation's algorithm must be one of
  // signature_algorithms.
  if (!has_scheme(sigalgs, num_sigalgs, dc->algorithm)) {
    return TLS_GUARD_ALGORITHM;
  }
  // NSS looks for it in the other list, and aborts.
  if (dc->algorithm != dc->verify_scheme && !has_scheme(dc_list, num_dc_list, dc->algorithm)) {
    return TLS_GUARD_NSS_RULE;
  }
  return TLS_GUARD_PASS;
}

bool tls_client_takes_dc(const SSL *ssl) {
  const uint16_t scheme = SSL_SIGN_ECDSA_SECP256R1_SHA256;
  const uint16_t *sigalgs = NULL;
  const uint16_t *dc_list = NULL;
  size_t num_sigalgs;
  size_t num_dc_list;

  if (SSL_version(ssl) < TLS1_3_VERSION) {
    return false;
  }
  num_dc_list = SSL_get0_peer_delegation_algorithms(ssl, &dc_list);
  num_sigalgs = SSL_get0_peer_verify_algorithms(ssl, &sigalgs);
  return has_scheme(dc_list, num_dc_list, scheme) && has_scheme(sigalgs, num_sigalgs, scheme);
}

// What tls_client_hello_note left on the connection: which suites of TLS 1.2 are
// missing. Most clients offer both kinds, and nothing is stored for them.
#define LACKS_ECDSA_SUITES 1u
#define LACKS_RSA_SUITES 2u

static pthread_once_t suites_once = PTHREAD_ONCE_INIT;
static int suites_index = -1;

static void make_suites_index(void) {
  suites_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
  CHECK(suites_index >= 0);
}

static uintptr_t suites_lacking(const SSL_CLIENT_HELLO *hello) {
  uintptr_t lacking = LACKS_ECDSA_SUITES | LACKS_RSA_SUITES;

  for (size_t i = 0; i + 1 < hello->cipher_suites_len && lacking != 0; i += 2) {
    uint16_t code = (uint16_t)(hello->cipher_suites[i] << 8 | hello->cipher_suites[i + 1]);
    const SSL_CIPHER *cipher = SSL_get_cipher_by_value(code);

    if (cipher == NULL || SSL_CIPHER_get_kx_nid(cipher) != NID_kx_ecdhe) {
      continue;
    }
    if (SSL_CIPHER_get_auth_nid(cipher) == NID_auth_ecdsa) {
      lacking &= ~(uintptr_t)LACKS_ECDSA_SUITES;
    } else if (SSL_CIPHER_get_auth_nid(cipher) == NID_auth_rsa) {
      lacking &= ~(uintptr_t)LACKS_RSA_SUITES;
    }
  }
  return lacking;
}

void tls_client_hello_note(const SSL_CLIENT_HELLO *hello) {
  uintptr_t lacking = suites_lacking(hello);

  (void)pthread_once(&suites_once, make_suites_index);
  if (lacking != 0) {
    // Without memory the suites count as offered, and the handshake fails later.
    (void)SSL_set_ex_data(hello->ssl, suites_index, (void *)lacking);
  }
}

static bool offers_suites_for(const SSL *ssl, enum key_kind kind) {
  uintptr_t lacking;

  (void)pthread_once(&suites_once, make_suites_index);
  lacking = (uintptr_t)SSL_get_ex_data(ssl, suites_index);
  return (lacking & (kind == KEY_KIND_RSA ? LACKS_RSA_SUITES : LACKS_ECDSA_SUITES)) == 0;
}

static bool is_ecdsa(enum key_kind kind) {
  return kind == KEY_KIND_P256 || kind == KEY_KIND_P384 || kind == KEY_KIND_P521;
}

// scheme_fits: RFC 8446, section 4.2.3 ties an ECDSA scheme to one curve and ends
// PKCS#1 v1.5; TLS 1.2 does neither.
static bool scheme_fits(const struct scheme *scheme, enum key_kind kind, bool is_tls13) {
  if (is_tls13) {
    return scheme->kind == kind && scheme->may_sign_tls13;
  }
  return scheme->kind == kind || (is_ecdsa(scheme->kind) && is_ecdsa(kind));
}

bool tls_client_takes_kind(const SSL *ssl, enum key_kind kind) {
  bool is_tls13 = SSL_version(ssl) >= TLS1_3_VERSION;
  const uint16_t *sigalgs = NULL;
  size_t num = SSL_get0_peer_verify_algorithms(ssl, &sigalgs);

  if (!is_tls13 && !offers_suites_for(ssl, kind)) {
    return false;
  }
  for (size_t i = 0; i < num; i++) {
    const struct scheme *scheme = scheme_find(sigalgs[i]);

    if (scheme != NULL && scheme_fits(scheme, kind, is_tls13)) {
      return true;
    }
  }
  return false;
}

// --- handshakes ------------------------------------------------------------------------

enum status tls_credential_prepare(SSL_CTX *ctx) {
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
  return SSL_CTX_set_signing_algorithm_prefs(ctx, signing_schemes, NUM_SIGNING_SCHEMES)
             ? STATUS_OK
             : STATUS_CRYPTO;
}

#if HAS_SSL_CREDENTIAL

enum status tls_install(SSL *ssl, struct tls_chain *chain, struct tls_dc *dc,
                        const SSL_PRIVATE_KEY_METHOD *dc_method) {
  (void)dc_method;  // the prepared object has the key
  SSL_certs_clear(ssl);
  // The library takes the first that suits: the delegated one leads.
  if ((dc != NULL && !SSL_add1_credential(ssl, dc->credential)) ||
      !SSL_add1_credential(ssl, chain->credential)) {
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

bool tls_dc_was_used(const SSL *ssl, bool dc_installed) {
  // What the guard passes, the library selects: its own conditions are a part of
  // the guard's, and the DC comes first. Resumption selects without sending.
  return dc_installed && !SSL_session_reused(ssl);
}

#else

enum status tls_install(SSL *ssl, struct tls_chain *chain, struct tls_dc *dc,
                        const SSL_PRIVATE_KEY_METHOD *dc_method) {
  // The DC goes last: SSL_certs_clear drops it, and SSL_set_chain_and_key would
  // keep one of another chain.
  SSL_certs_clear(ssl);
  if (!SSL_set_chain_and_key(ssl, chain->certs, chain->num_certs, chain->key, chain->method)) {
    return STATUS_CRYPTO;
  }
  if (chain->staple != NULL && !SSL_set_ocsp_response(ssl, CRYPTO_BUFFER_data(chain->staple),
                                                      CRYPTO_BUFFER_len(chain->staple))) {
    return STATUS_CRYPTO;
  }
  if (dc != NULL && !SSL_set1_delegated_credential(ssl, dc->bytes,
                                                   dc_method == NULL ? dc->key : NULL, dc_method)) {
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

bool tls_dc_was_used(const SSL *ssl, bool dc_installed) {
  return dc_installed && SSL_delegated_credential_used(ssl) && !SSL_session_reused(ssl);
}

#endif
