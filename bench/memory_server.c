// SPDX-License-Identifier: Apache-2.0
#include "bench/memory_server.h"

#include <openssl/bio.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pool.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "common/tls/credential.h"
#include "common/wire/dc.h"

#define LEAF_AGE_S 3600
#define LEAF_LIFE_S (30L * 24 * 3600)
#define RSA_BITS 2048

// --- keys ----------------------------------------------------------------------------

static EVP_PKEY *new_ec_key(int curve) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(curve);
  if (key == NULL || ec == NULL || !EC_KEY_generate_key(ec) || !EVP_PKEY_set1_EC_KEY(key, ec)) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  EC_KEY_free(ec);
  return key;
}

static EVP_PKEY *new_rsa_key(void) {
  EVP_PKEY *key = EVP_PKEY_new();
  RSA *rsa = RSA_new();
  BIGNUM *e = BN_new();
  if (key == NULL || rsa == NULL || e == NULL || !BN_set_word(e, RSA_F4) ||
      !RSA_generate_key_ex(rsa, RSA_BITS, e, NULL) || !EVP_PKEY_set1_RSA(key, rsa)) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  BN_free(e);
  RSA_free(rsa);
  return key;
}

static EVP_PKEY *new_ed25519_key(void) {
  EVP_PKEY *key = NULL;
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
  if (ctx == NULL || !EVP_PKEY_keygen_init(ctx) || !EVP_PKEY_keygen(ctx, &key)) {
    key = NULL;
  }
  EVP_PKEY_CTX_free(ctx);
  return key;
}

EVP_PKEY *memory_key_new(enum key_kind kind) {
  switch (kind) {
    case KEY_KIND_P256:
      return new_ec_key(NID_X9_62_prime256v1);
    case KEY_KIND_P384:
      return new_ec_key(NID_secp384r1);
    case KEY_KIND_P521:
      return new_ec_key(NID_secp521r1);
    case KEY_KIND_RSA:
      return new_rsa_key();
    case KEY_KIND_ED25519:
      return new_ed25519_key();
    case KEY_KIND_NONE:
      break;
  }
  return NULL;
}

// --- the certificate -------------------------------------------------------------------

static bool add_extension(X509 *x509, int nid, const char *value) {
  X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, NULL, nid, value);
  const bool is_added = extension != NULL && X509_add_ext(x509, extension, -1);
  X509_EXTENSION_free(extension);
  return is_added;
}

// DelegationUsage, RFC 9345 section 4.2: an ASN.1 NULL, not critical.
static bool add_delegation_usage(X509 *x509) {
  static const uint8_t null[] = {5, 0};
  ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.4.1.44363.44", 1);
  ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
  X509_EXTENSION *extension = NULL;
  bool is_added = false;
  if (oid != NULL && value != NULL && ASN1_OCTET_STRING_set(value, null, sizeof(null))) {
    extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
    is_added = extension != NULL && X509_add_ext(x509, extension, -1);
  }
  X509_EXTENSION_free(extension);
  ASN1_OCTET_STRING_free(value);
  ASN1_OBJECT_free(oid);
  return is_added;
}

static X509_NAME *new_name(const char *cn) {
  X509_NAME *name = X509_NAME_new();
  if (name != NULL &&
      !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)cn, -1, -1, 0)) {
    X509_NAME_free(name);
    name = NULL;
  }
  return name;
}

static bool set_names(X509 *x509, const char *subject, const char *issuer) {
  X509_NAME *of_subject = new_name(subject);
  X509_NAME *of_issuer = new_name(issuer);
  const bool is_set = of_subject != NULL && of_issuer != NULL &&
                      X509_set_subject_name(x509, of_subject) &&
                      X509_set_issuer_name(x509, of_issuer);
  X509_NAME_free(of_subject);
  X509_NAME_free(of_issuer);
  return is_set;
}

// Signed by its own key under the issuer's name: nobody here checks a chain.
static CRYPTO_BUFFER *new_leaf(EVP_PKEY *key, enum key_kind kind, const char *issuer,
                               int64_t now_s) {
  uint8_t *der = NULL;
  int len = -1;
  X509 *x509 = X509_new();
  CRYPTO_BUFFER *leaf = NULL;
  if (x509 != NULL && X509_set_version(x509, 2) &&
      ASN1_INTEGER_set(X509_get_serialNumber(x509), 1) && set_names(x509, "localhost", issuer) &&
      X509_set_pubkey(x509, key) &&
      ASN1_TIME_set(X509_getm_notBefore(x509), (time_t)(now_s - LEAF_AGE_S)) != NULL &&
      ASN1_TIME_set(X509_getm_notAfter(x509), (time_t)(now_s + LEAF_LIFE_S)) != NULL &&
      add_extension(x509, NID_key_usage, "critical,digitalSignature") &&
      add_extension(x509, NID_ext_key_usage, "serverAuth") &&
      add_extension(x509, NID_subject_alt_name, "DNS:localhost") && add_delegation_usage(x509) &&
      X509_sign(x509, key, kind == KEY_KIND_ED25519 ? NULL : EVP_sha256()) > 0) {
    len = i2d_X509(x509, &der);
  }
  if (len > 0) {
    leaf = CRYPTO_BUFFER_new(der, (size_t)len, NULL);
  }
  OPENSSL_free(der);
  X509_free(x509);
  return leaf;
}

// --- the delegated credential ------------------------------------------------------------

static enum status encode_dc(uint8_t out[DC_MAX_LEN], size_t *out_len, struct dc *dc,
                             struct bytes leaf, EVP_PKEY *leaf_key, bool is_bad) {
  enum status st = STATUS_OK;
  const struct scheme *scheme = scheme_find(dc->algorithm);
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  size_t len = 0;
  uint8_t *input = NULL;
  size_t input_len = 0;

  // The signing input covers the Credential's bytes, so they are encoded first, with
  // a signature that only fills its place.
  dc->signature = bytes_of("x", 1);
  TRY(dc_encode(out, DC_MAX_LEN, out_len, dc));
  struct dc parsed;
  TRY(dc_decode(&parsed, bytes_of(out, *out_len)));
  TRY(dc_signing_input(&input, &input_len, leaf, &parsed));
  if (is_bad) {
    input[0] ^= 1;
  }
  TRY(scheme_sign(scheme, leaf_key, signature, sizeof(signature), &len,
                  bytes_of(input, input_len)));
  dc->signature = bytes_of(signature, len);
  TRY(dc_encode(out, DC_MAX_LEN, out_len, dc));

out:
  dc->signature = (struct bytes){0};  // it lies in here
  free(input);
  return st;
}

static enum status make_dc(struct memory_server *server, CRYPTO_BUFFER *leaf, EVP_PKEY *leaf_key,
                           const struct memory_server_options *options, int64_t now_s) {
  enum status st = STATUS_OK;
  uint8_t bytes[DC_MAX_LEN];
  size_t len = 0;
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  EVP_PKEY *key = memory_key_new(KEY_KIND_P256);
  struct dc dc = {.verify_scheme = SSL_SIGN_ECDSA_SECP256R1_SHA256,
                  .algorithm = scheme_default(options->kind)->code};

  if (key == NULL) {
    return STATUS_MEMORY;
  }
  TRY(key_spki(&spki, &spki_len, key));
  dc.spki = bytes_of(spki, spki_len);
  TRY(dc_valid_time(&dc.valid_time_s, now_s - LEAF_AGE_S, now_s, options->dc_life_s));
  TRY(encode_dc(bytes, &len, &dc, bytes_of(CRYPTO_BUFFER_data(leaf), CRYPTO_BUFFER_len(leaf)),
                leaf_key, options->has_bad_dc));
  TRY(tls_dc_new(&server->dc, server->chain, bytes_of(bytes, len), key,
                 now_s + options->dc_life_s));

out:
  OPENSSL_free(spki);
  EVP_PKEY_free(key);
  return st;
}

// --- the server ----------------------------------------------------------------------------

// The part of the guard that this client can fail.
static int on_certificate(SSL *ssl, void *arg) {
  struct memory_server *server = arg;
  const uint16_t *list = NULL;
  const bool is_offered = SSL_get0_peer_delegation_algorithms(ssl, &list) > 0;
  return tls_install(ssl, server->chain, is_offered ? server->dc : NULL, NULL) == STATUS_OK;
}

static enum status make_context(struct memory_server *server, bool gives_tickets) {
  server->ctx = SSL_CTX_new(TLS_with_buffers_method());
  if (server->ctx == NULL || tls_credential_prepare(server->ctx) != STATUS_OK ||
      !SSL_CTX_set_min_proto_version(server->ctx, TLS1_3_VERSION)) {
    return STATUS_MEMORY;
  }
  if (!gives_tickets) {
    (void)SSL_CTX_set_options(server->ctx, SSL_OP_NO_TICKET);
  }
  SSL_CTX_set_session_cache_mode(server->ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_cert_cb(server->ctx, on_certificate, server);
  return STATUS_OK;
}

enum status memory_server_init(struct memory_server *server,
                               const struct memory_server_options *options) {
  enum status st = STATUS_OK;
  const int64_t now_s = clock_wall_s();
  EVP_PKEY *key = memory_key_new(options->kind);
  CRYPTO_BUFFER *leaf = key == NULL ? NULL : new_leaf(key, options->kind, options->issuer, now_s);

  *server = (struct memory_server){0};
  if (leaf == NULL) {
    st = STATUS_CRYPTO;
    goto out;
  }
  TRY(tls_chain_new(&server->chain, &leaf, 1, (struct bytes){0}, NULL, key));
  if (options->has_dc) {
    TRY(make_dc(server, leaf, key, options, now_s));
  }
  TRY(make_context(server, options->gives_tickets));

out:
  CRYPTO_BUFFER_free(leaf);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return st;
}

void memory_server_cleanup(struct memory_server *server) {
  SSL_CTX_free(server->ctx);
  tls_dc_unref(server->dc);
  tls_chain_unref(server->chain);
  *server = (struct memory_server){0};
}

// --- a connection ----------------------------------------------------------------------------

enum status memory_peer_start(struct memory_peer *peer, struct memory_server *server) {
  *peer = (struct memory_peer){.ssl = SSL_new(server->ctx)};
  BIO *in = BIO_new(BIO_s_mem());
  BIO *out = BIO_new(BIO_s_mem());
  if (peer->ssl == NULL || in == NULL || out == NULL) {
    BIO_free(in);
    BIO_free(out);
    return STATUS_MEMORY;
  }
  (void)BIO_set_mem_eof_return(in, -1);
  SSL_set_bio(peer->ssl, in, out);  // takes both
  SSL_set_accept_state(peer->ssl);
  return STATUS_OK;
}

static enum status take_output(struct memory_peer *peer, struct buffer *out) {
  const uint8_t *data = NULL;
  size_t len = 0;
  BIO *bio = SSL_get_wbio(peer->ssl);
  if (!BIO_mem_contents(bio, &data, &len)) {
    return STATUS_MEMORY;
  }
  const enum status st = buffer_add(out, bytes_of(data, len));
  (void)BIO_reset(bio);
  return st;
}

enum status memory_peer_run(struct memory_peer *peer, struct bytes in, struct buffer *out) {
  if (BIO_write(SSL_get_rbio(peer->ssl), in.data, (int)in.len) != (int)in.len) {
    return STATUS_MEMORY;
  }
  if (!peer->is_done && !peer->is_failed) {
    const int result = SSL_do_handshake(peer->ssl);
    peer->is_done = result == 1;
    peer->is_failed = result != 1 && SSL_get_error(peer->ssl, result) != SSL_ERROR_WANT_READ;
    ERR_clear_error();
  }
  return take_output(peer, out);
}

enum status memory_peer_write(struct memory_peer *peer, struct bytes data, struct buffer *out) {
  if (SSL_write(peer->ssl, data.data, (int)data.len) != (int)data.len) {
    ERR_clear_error();
    return STATUS_CRYPTO;
  }
  return take_output(peer, out);
}

void memory_peer_cleanup(struct memory_peer *peer) {
  SSL_free(peer->ssl);
  *peer = (struct memory_peer){0};
}
