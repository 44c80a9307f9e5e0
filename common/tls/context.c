// SPDX-License-Identifier: Apache-2.0
#include "common/tls/context.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/config_rows.h"
#include "common/tls/cert.h"
#include "common/tls/tls_error.h"
#include "common/tls/trust.h"

// Of TLS 1.2 only what foreign key-server clients need; the suites of TLS 1.3 are
// not configurable in BoringSSL.
#define TLS12_SUITES "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"

static const char *const crl_words[] = {
    [TLS_CRL_REFUSE] = "refuse", [TLS_CRL_ACCEPT] = "accept", NULL};

// clang-format off
const struct config_option tls_identity_options[] = {
  {"ca", CONFIG_PATH, PLACE(tls_identity, ca), .is_required = true,
   .help = "PEM file with the CAs whose peers are let in."},
  {"certificate", CONFIG_PATH, PLACE(tls_identity, certificate), .is_required = true,
   .help = "PEM file with this part's own certificate and its intermediates, leaf first."},
  {"key", CONFIG_PATH, PLACE(tls_identity, key), .is_required = true,
   .help = "PEM file with the private key of that certificate; readable by its owner only."},
  {"crl", CONFIG_PATHS, LIST(tls_identity, crl, num_crl),
   .help = "Revocation lists (PEM or DER): files, or folders of *.crl and *.pem files. With any, "
           "a peer whose CA has no list here is refused. Read again on a reload."},
  {"crl_when_stale", CONFIG_WORD, PLACE(tls_identity, crl_when_stale), .fallback = "refuse",
   .words = crl_words,
   .help = "What happens to peers whose CA's revocation list is past its nextUpdate."},
  {0},
};
// clang-format on

// --- who we are ------------------------------------------------------------------

static enum status check_key_fits(const CRYPTO_BUFFER *leaf, const EVP_PKEY *key,
                                  const struct tls_identity *identity, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_info info = {0};
  uint8_t key_id[32];
  uint8_t ski[20];

  TRY(cert_info_read(&info, bytes_of(CRYPTO_BUFFER_data(leaf), CRYPTO_BUFFER_len(leaf)), err));
  TRY(key_identify(key_id, ski, key));
  if (memcmp(key_id, info.key_id, sizeof key_id) != 0) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "%s: this key does not belong to the certificate in %s; one of the two files is "
                   "of another certificate",
                   identity->key, identity->certificate));
  }

out:
  cert_info_cleanup(&info);
  return st;
}

static enum status load_identity(SSL_CTX *ctx, const struct tls_identity *identity,
                                 struct errmsg *err) {
  enum status st = STATUS_OK;
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  EVP_PKEY *key = NULL;
  char why[TLS_ERROR_TEXT_LEN];

  TRY(cert_chain_read(chain, &num, identity->certificate, NULL, err));
  TRY(key_read(&key, identity->key, err));
  TRY(check_key_fits(chain[0], key, identity, err));
  if (!SSL_CTX_set_chain_and_key(ctx, chain, num, key, NULL)) {
    TRY(errmsg_set(err, STATUS_CRYPTO, "%s: cannot be used for TLS (%s)", identity->certificate,
                   tls_error_drain(why, sizeof why)));
  }

out:
  EVP_PKEY_free(key);
  cert_chain_free(chain, num);
  return st;
}

// --- contexts --------------------------------------------------------------------

// Connections between our parts live long: resumption would save little, and a
// ticket would outlive the removal of its peer's CA.
static void switch_resumption_off(SSL_CTX *ctx) {
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(ctx, 0);
}

static enum status set_protocols(SSL_CTX *ctx, bool allow_tls12) {
  if (!SSL_CTX_set_min_proto_version(ctx, allow_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_strict_cipher_list(ctx, TLS12_SUITES)) {
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

// context_new makes one that verifies peers and has no identity yet.
static enum status context_new(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               bool is_server, struct errmsg *err) {
  enum status st = STATUS_OK;
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  *out = NULL;
  if (ctx == NULL || set_protocols(ctx, allow_tls12) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for a TLS context"));
  }
  switch_resumption_off(ctx);
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);  // send what the file holds, search no more
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  TRY(trust_load(ctx, identity, is_server, err));
  *out = ctx;
  ctx = NULL;

out:
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

static enum status context_whole(SSL_CTX **out, const struct tls_identity *identity,
                                 bool allow_tls12, bool is_server, struct errmsg *err) {
  enum status st = context_new(out, identity, allow_tls12, is_server, err);

  if (st == STATUS_OK) {
    st = load_identity(*out, identity, err);
  }
  if (st != STATUS_OK) {
    SSL_CTX_free(*out);
    *out = NULL;
  }
  ERR_clear_error();
  return st;
}

enum status tls_context_server(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err) {
  return context_whole(out, identity, allow_tls12, true, err);
}

enum status tls_context_client(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err) {
  return context_whole(out, identity, allow_tls12, false, err);
}

enum status tls_context_outward(SSL_CTX **out, const struct tls_identity *identity,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  *out = NULL;
  if (ctx == NULL || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for a TLS context"));
  }
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  TRY(trust_load(ctx, identity, false, err));
  if (identity->certificate != NULL) {
    TRY(load_identity(ctx, identity, err));
  }
  *out = ctx;
  ctx = NULL;

out:
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

enum status tls_context_trust(SSL_CTX **out, const struct tls_identity *identity,
                              struct errmsg *err) {
  return context_new(out, identity, false, true, err);
}

static bool is_ip(const char *host) {
  uint8_t binary[sizeof(struct in6_addr)];

  return inet_pton(AF_INET, host, binary) == 1 || inet_pton(AF_INET6, host, binary) == 1;
}

enum status tls_expect_host(SSL *ssl, const char *host) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  size_t len = strlen(host);
  int ok;

  if (is_ip(host)) {
    ok = X509_VERIFY_PARAM_set1_ip_asc(param, host);  // RFC 6066: no SNI for addresses
  } else {
    if (len > 0 && host[len - 1] == '.') {
      len--;
    }
    char name[TLS_PEER_NAME_LEN];
    if (len == 0 || len >= sizeof name) {
      return STATUS_FORMAT;
    }
    memcpy(name, host, len);
    name[len] = '\0';
    X509_VERIFY_PARAM_set_hostflags(
        param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    ok = X509_VERIFY_PARAM_set1_host(param, name, len) && SSL_set_tlsext_host_name(ssl, name);
  }
  if (!ok) {
    ERR_clear_error();
    return STATUS_FORMAT;
  }
  return STATUS_OK;
}

// --- who the peer is -------------------------------------------------------------

static struct bytes string_bytes(const ASN1_STRING *string) {
  return bytes_of(ASN1_STRING_get0_data(string), (size_t)ASN1_STRING_length(string));
}

// escape writes `in` in printable ASCII. STATUS_LIMIT when it does not fit: half a
// name could be somebody else's.
static enum status escape(char out[TLS_PEER_NAME_LEN], struct bytes in) {
  static const char digits[] = "0123456789abcdef";
  size_t len = 0;

  for (size_t i = 0; i < in.len; i++) {
    uint8_t c = in.data[i];

    if (len + 4 >= TLS_PEER_NAME_LEN) {
      return STATUS_LIMIT;
    }
    if (c > ' ' && c <= '~' && c != '"' && c != '\\') {
      out[len++] = (char)c;
      continue;
    }
    out[len++] = '\\';
    out[len++] = 'x';
    out[len++] = digits[c >> 4];
    out[len++] = digits[c & 15];
  }
  out[len] = '\0';
  return STATUS_OK;
}

// find_name borrows the first name of the given kind.
static const ASN1_STRING *find_name(const GENERAL_NAMES *names, int kind) {
  for (size_t i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

    if (name->type == kind) {
      return kind == GEN_DNS ? name->d.dNSName : name->d.uniformResourceIdentifier;
    }
  }
  return NULL;
}

static const ASN1_STRING *find_common_name(const X509 *x509) {
  const X509_NAME *subject = X509_get_subject_name(x509);
  int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

  return index < 0 ? NULL : X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index));
}

static void fold_case(char *text) {
  for (; *text != '\0'; text++) {
    if (*text >= 'A' && *text <= 'Z') {
      *text = (char)(*text - 'A' + 'a');
    }
  }
}

enum status tls_peer_of_certificate(struct tls_peer *out, const X509 *x509) {
  enum status st = STATUS_OK;
  GENERAL_NAMES *names = NULL;
  const ASN1_STRING *name;
  uint8_t *spki = NULL;
  int spki_len;

  memset(out, 0, sizeof *out);
  names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
  name = find_name(names, GEN_DNS);
  if (name != NULL) {
    TRY(escape(out->name, string_bytes(name)));
    fold_case(out->name);
  } else {
    name = find_name(names, GEN_URI);
    name = name != NULL ? name : find_common_name(x509);
    TRY(name == NULL ? STATUS_NOT_FOUND : escape(out->name, string_bytes(name)));
  }
  spki_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &spki);
  if (spki_len <= 0) {
    TRY(STATUS_CRYPTO);
  }
  SHA256(spki, (size_t)spki_len, out->spki_sha256);

out:
  OPENSSL_free(spki);
  GENERAL_NAMES_free(names);
  ERR_clear_error();
  return st;
}

enum status tls_peer_read(struct tls_peer *out, const SSL *ssl) {
  X509 *x509 = SSL_get_peer_certificate(ssl);
  enum status st = STATUS_NOT_FOUND;

  memset(out, 0, sizeof *out);
  if (x509 != NULL) {
    st = tls_peer_of_certificate(out, x509);
  }
  X509_free(x509);
  return st;
}

static bool equals_folded(struct bytes in, const char *name) {
  return in.len == strlen(name) && strncasecmp((const char *)in.data, name, in.len) == 0;
}

bool tls_certificate_has_name(const X509 *x509, const char *name) {
  GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
  bool is_found = false;

  for (size_t i = 0; names != NULL && i < sk_GENERAL_NAME_num(names) && !is_found; i++) {
    const GENERAL_NAME *each = sk_GENERAL_NAME_value(names, i);

    if (each->type == GEN_DNS) {
      is_found = equals_folded(string_bytes(each->d.dNSName), name);
    } else if (each->type == GEN_URI) {
      is_found = equals_folded(string_bytes(each->d.uniformResourceIdentifier), name);
    }
  }
  GENERAL_NAMES_free(names);
  ERR_clear_error();
  return is_found;
}

bool tls_peer_has_name(const SSL *ssl, const char *name) {
  X509 *x509 = SSL_get_peer_certificate(ssl);
  const bool is_found = x509 != NULL && tls_certificate_has_name(x509, name);

  X509_free(x509);
  return is_found;
}
