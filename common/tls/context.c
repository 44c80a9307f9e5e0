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

#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "common/tls/pem.h"
#include "common/tls/tls_error.h"

// Of TLS 1.2 only what foreign key-server clients need; the suites of TLS 1.3 are
// not configurable in BoringSSL.
#define TLS12_SUITES "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"

const struct config_option tls_identity_options[] = {
    {.name = "ca",
     .type = CONFIG_PATH,
     .offset = offsetof(struct tls_identity, ca),
     .is_required = true,
     .help = "PEM file with the CAs whose peers are let in."},
    {.name = "certificate",
     .type = CONFIG_PATH,
     .offset = offsetof(struct tls_identity, certificate),
     .is_required = true,
     .help = "PEM file with this part's own certificate and its intermediates, leaf first."},
    {.name = "key",
     .type = CONFIG_PATH,
     .offset = offsetof(struct tls_identity, key),
     .is_required = true,
     .help = "PEM file with the private key of that certificate; readable by its owner only."},
    {.type = CONFIG_END},
};

// --- whom we trust ---------------------------------------------------------------

struct ca_reader {
  SSL_CTX *ctx;
  const char *path;
  size_t num;
};

static enum status add_ca(void *arg, struct bytes der, struct errmsg *err) {
  struct ca_reader *reader = arg;
  const uint8_t *at = der.data;
  X509 *x509 = d2i_X509(NULL, &at, (long)der.len);
  enum status st = STATUS_OK;

  reader->num++;
  if (x509 == NULL || at != der.data + der.len) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: certificate %zu cannot be parsed", reader->path,
                    reader->num);
  } else if (X509_check_ca(x509) != 1) {
    // With partial chains a leaf in this file would be trusted as itself.
    st = errmsg_set(err, STATUS_REFUSED,
                    "%s: certificate %zu is not a CA (basicConstraints); list only CAs here",
                    reader->path, reader->num);
  } else if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(reader->ctx), x509) ||
             !SSL_CTX_add_client_CA(reader->ctx, x509)) {
    st = errmsg_set(err, STATUS_MEMORY, "%s: no memory", reader->path);
  }
  X509_free(x509);
  ERR_clear_error();
  return st;
}

static enum status load_trust(SSL_CTX *ctx, const char *path, struct errmsg *err) {
  struct ca_reader reader = {.ctx = ctx, .path = path};

  return pem_read_certificates(path, CERT_FILE_MAX_LEN, add_ca, &reader, err);
}

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

// --- verification ----------------------------------------------------------------

// verify_peer is the library's own verification at our clock, and one thing more:
// a leaf without any EKU passes for every purpose there, and for none here.
static int verify_peer(X509_STORE_CTX *store, uint32_t purpose) {
  X509 *leaf = X509_STORE_CTX_get0_cert(store);

  X509_STORE_CTX_set_time(store, 0, (time_t)clock_wall_s());
  if (X509_verify_cert(store) != 1) {
    return 0;
  }
  if (leaf == NULL || !(X509_get_extension_flags(leaf) & EXFLAG_XKUSAGE) ||
      !(X509_get_extended_key_usage(leaf) & purpose)) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_INVALID_PURPOSE);
    return 0;
  }
  return 1;
}

static int verify_client(X509_STORE_CTX *store, void *arg) {
  (void)arg;
  return verify_peer(store, XKU_SSL_CLIENT);
}

static int verify_server(X509_STORE_CTX *store, void *arg) {
  (void)arg;
  return verify_peer(store, XKU_SSL_SERVER);
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

static enum status context_new(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               int (*verify)(X509_STORE_CTX *store, void *arg),
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  *out = NULL;
  if (ctx == NULL || set_protocols(ctx, allow_tls12) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for a TLS context"));
  }
  switch_resumption_off(ctx);
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);  // send what the file holds, search no more
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
  // Each CA of the file is an anchor, also when it is an intermediate.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
  TRY(load_trust(ctx, identity->ca, err));
  TRY(load_identity(ctx, identity, err));
  *out = ctx;
  ctx = NULL;

out:
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return st;
}

enum status tls_context_server(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err) {
  return context_new(out, identity, allow_tls12, verify_client, err);
}

enum status tls_context_client(SSL_CTX **out, const struct tls_identity *identity, bool allow_tls12,
                               struct errmsg *err) {
  return context_new(out, identity, allow_tls12, verify_server, err);
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

enum status tls_peer_read(struct tls_peer *out, const SSL *ssl) {
  enum status st = STATUS_OK;
  X509 *x509 = SSL_get_peer_certificate(ssl);
  GENERAL_NAMES *names = NULL;
  const ASN1_STRING *name;
  uint8_t *spki = NULL;
  int spki_len;

  memset(out, 0, sizeof *out);
  if (x509 == NULL) {
    TRY(STATUS_NOT_FOUND);
  }
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
  X509_free(x509);
  ERR_clear_error();
  return st;
}

static bool equals_folded(struct bytes in, const char *name) {
  return in.len == strlen(name) && strncasecmp((const char *)in.data, name, in.len) == 0;
}

bool tls_peer_has_name(const SSL *ssl, const char *name) {
  X509 *x509 = SSL_get_peer_certificate(ssl);
  GENERAL_NAMES *names =
      x509 == NULL ? NULL : X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
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
  X509_free(x509);
  ERR_clear_error();
  return is_found;
}
