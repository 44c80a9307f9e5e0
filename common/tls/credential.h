// SPDX-License-Identifier: Apache-2.0
// credential: what a server shows in a handshake: a chain whose key is remote,
// and, when there is one that suits the client, a delegated credential whose key
// is here. Everything that differs between the two generations of BoringSSL
// (BORINGSSL_API_VERSION below 32: SSL_set1_delegated_credential; from 32 on:
// SSL_CREDENTIAL) is behind this header.
//
// Prepared once, immutable, counted, shared by all threads; installed in the
// certificate callback of a connection (SSL_CTX_set_cert_cb), where the client's
// lists are known.
#ifndef DEPUTY_COMMON_TLS_CREDENTIAL_H_
#define DEPUTY_COMMON_TLS_CREDENTIAL_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/tls/compression.h"
#include "common/wire/scheme.h"

#define TLS_STAPLE_MAX_LEN (32u << 10)  // bytes of one OCSP response

// A chain with its staple (and later its compressed form).
struct tls_chain;

// tls_chain_new keeps references to `certs` (leaf first) and a copy of the
// staple (may be empty). `method` signs with the certificate's key (static).
// A local key in `key` instead of a method is for benchmarks and tests.
//   STATUS_CRYPTO  the library cannot serve this leaf (the error queue says why;
//                  drain it)
//   STATUS_LIMIT, STATUS_MEMORY
enum status tls_chain_new(struct tls_chain **out, CRYPTO_BUFFER *const *certs, size_t num_certs,
                          struct bytes staple, const SSL_PRIVATE_KEY_METHOD *method, EVP_PKEY *key);
struct tls_chain *tls_chain_ref(struct tls_chain *chain);
void tls_chain_unref(struct tls_chain *chain);  // NULL allowed

// A delegated credential for one chain, with its private key.
struct tls_dc;

// tls_dc_new prepares a DC that dc_check has passed. `expiry_s` is its end.
// Keeps references to the chain and the key. STATUS_FORMAT, STATUS_MEMORY.
enum status tls_dc_new(struct tls_dc **out, struct tls_chain *chain, struct bytes dc, EVP_PKEY *key,
                       int64_t expiry_s);
void tls_dc_ref(struct tls_dc *dc);
void tls_dc_unref(struct tls_dc *dc);  // NULL allowed; the key is wiped with the last
int64_t tls_dc_expiry_s(const struct tls_dc *dc);
// tls_dc_memory is about what a DC with a key of its own takes, in bytes (measured with
// P-256, tests/unit/proxy/dc_scale_measure.c).
size_t tls_dc_memory(void);

// tls_chain_compress prepares its compressed forms (compression.h); tls_dc_new does so for
// a DC. Without, the first handshake that needs one makes it. Any thread.
void tls_chain_compress(struct tls_chain *chain);
// tls_credential_forms answers tls_compression_hooks.find for what was installed.
void tls_credential_forms(struct tls_forms *out_forms[2], struct tls_message out_messages[2],
                          struct tls_chain *chain, struct tls_dc *dc);

// Why a DC was not offered to a client (delegated-credentials, guard).
enum tls_guard {
  TLS_GUARD_PASS,
  TLS_GUARD_NO_DC,        // none in memory for this leaf
  TLS_GUARD_OLD_VERSION,  // below TLS 1.3
  TLS_GUARD_NOT_OFFERED,  // no extension 34
  TLS_GUARD_EXPIRED,      // within the margin of its end
  TLS_GUARD_SCHEME,       // its scheme is not in the client's DC list or signature_algorithms
  TLS_GUARD_ALGORITHM,    // delegation algorithm not in signature_algorithms
  TLS_GUARD_NSS_RULE,     // algorithm neither equals the scheme nor is in the DC list
  TLS_GUARD_NUM,
};
const char *tls_guard_name(enum tls_guard guard);

// tls_dc_guard decides whether this client may be given this DC (NULL: NO_DC).
// In the certificate callback only. No allocation.
enum tls_guard tls_dc_guard(const SSL *ssl, const struct tls_dc *dc, int64_t now_s,
                            int64_t margin_s);

// tls_client_takes_dc: would this client take a DC with an ECDSA P-256 key, if there were
// one? In the certificate callback only. No allocation.
bool tls_client_takes_dc(const SSL *ssl);

// tls_client_takes_kind: can this client verify a handshake signature by a key of
// this kind (signature_algorithms; for TLS 1.2 also the cipher suites it offers,
// if tls_client_hello_note saw them)? In the certificate callback. SHA-1 does not
// count.
bool tls_client_takes_kind(const SSL *ssl, enum key_kind kind);

// tls_client_hello_note remembers which kinds of suites of TLS 1.2 the client
// offers. For SSL_CTX_set_select_certificate_cb: later nobody can see the list.
void tls_client_hello_note(const SSL_CLIENT_HELLO *hello);

// tls_credential_prepare makes `ctx` fit for connections that get credentials:
// schemes a key server knows (never SHA-1), no search for intermediates. Make it of
// TLS_with_buffers_method, so that no X509 object is made for our own leaf, and set
// suites without static RSA, which would need the certificate's key to decrypt.
// STATUS_CRYPTO.
enum status tls_credential_prepare(SSL_CTX *ctx);

// tls_dc_sign signs the message of a handshake with the DC's key: what the `sign` of a
// tls_install's dc_method is for. STATUS_CRYPTO (also another scheme than the DC's),
// STATUS_LIMIT.
enum status tls_dc_sign(const struct tls_dc *dc, uint16_t scheme, uint8_t *out, size_t max,
                        size_t *out_len, struct bytes message);

// tls_install puts the chain, and the DC if not NULL, on the connection. In the
// certificate callback; what was there is replaced (below API version 32 all but
// the staple of a chain that had one). A DC is of this very chain and has passed
// tls_dc_guard for this client. STATUS_CRYPTO.
//
// `dc_method` (static; NULL: none) signs with the DC's key instead of the library, by
// tls_dc_sign: below API version 32 the library would hold the key against the DC once
// more in each handshake. The caller keeps a reference to the DC until it has signed.
enum status tls_install(SSL *ssl, struct tls_chain *chain, struct tls_dc *dc,
                        const SSL_PRIVATE_KEY_METHOD *dc_method);

// tls_dc_was_used: after the handshake, was it authenticated by the DC that was
// installed? False for resumed ones. `dc_installed` is what the caller knows.
bool tls_dc_was_used(const SSL *ssl, bool dc_installed);

#endif  // DEPUTY_COMMON_TLS_CREDENTIAL_H_
