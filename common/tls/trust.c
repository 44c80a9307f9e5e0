// SPDX-License-Identifier: Apache-2.0
#include "common/tls/trust.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/tls/cert.h"
#include "common/tls/pem.h"

#define S_PER_DAY INT64_C(86400)
#define NAME_TEXT_LEN 256

// What a context remembers, in its ex_data.
struct trust {
  uint8_t id[TRUST_ID_LEN];  // over all that decides
  bool is_of_clients;
  bool has_crls;
  bool accepts_stale;
  int64_t crl_ends_s;
};

// --- refusals --------------------------------------------------------------------------

const char *tls_refusal_name(enum tls_refusal refusal) {
  static const char *const names[TLS_REFUSAL_NUM] = {
      [TLS_REFUSAL_NONE] = "none",           [TLS_REFUSAL_MISSING] = "missing",
      [TLS_REFUSAL_EXPIRED] = "expired",     [TLS_REFUSAL_NOT_YET_VALID] = "not_yet_valid",
      [TLS_REFUSAL_REVOKED] = "revoked",     [TLS_REFUSAL_UNKNOWN_CA] = "unknown_ca",
      [TLS_REFUSAL_PURPOSE] = "purpose",     [TLS_REFUSAL_CRL_MISSING] = "crl_missing",
      [TLS_REFUSAL_CRL_STALE] = "crl_stale", [TLS_REFUSAL_OTHER] = "other",
  };
  return (unsigned)refusal < TLS_REFUSAL_NUM ? names[refusal] : "unknown";
}

static enum tls_refusal refusal_of_error(long error) {
  switch (error) {
    case X509_V_OK:
      return TLS_REFUSAL_NONE;
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return TLS_REFUSAL_EXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return TLS_REFUSAL_NOT_YET_VALID;
    case X509_V_ERR_CERT_REVOKED:
      return TLS_REFUSAL_REVOKED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
      return TLS_REFUSAL_UNKNOWN_CA;
    case X509_V_ERR_INVALID_PURPOSE:
      return TLS_REFUSAL_PURPOSE;
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
      return TLS_REFUSAL_CRL_MISSING;
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
      return TLS_REFUSAL_CRL_STALE;
    default:
      return TLS_REFUSAL_OTHER;
  }
}

enum tls_refusal tls_refusal_of(const SSL *ssl, const char *why) {
  if (strstr(why, "PEER_DID_NOT_RETURN_A_CERTIFICATE") != NULL) {
    return TLS_REFUSAL_MISSING;
  }
  if (strstr(why, "CERTIFICATE_VERIFY_FAILED") == NULL) {
    return TLS_REFUSAL_NONE;
  }
  const enum tls_refusal refusal = refusal_of_error(SSL_get_verify_result(ssl));
  return refusal == TLS_REFUSAL_NONE ? TLS_REFUSAL_OTHER : refusal;
}

// --- where a context keeps it ------------------------------------------------------------

static void free_trust(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl,
                       void *argp) {
  (void)parent;
  (void)ad;
  (void)index;
  (void)argl;
  (void)argp;
  free(ptr);
}

// The library's own lock serialises those who ask for an index; ours are asked for
// at the start, and later from one thread at a time.
static int trust_index(void) {
  static _Atomic int index = -1;
  int at = index;

  if (at < 0) {
    at = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_trust);
    index = at;
  }
  return at;
}

static const struct trust *trust_of(const SSL_CTX *ctx) {
  return SSL_CTX_get_ex_data(ctx, trust_index());
}

const uint8_t *trust_id(const SSL_CTX *ctx) { return trust_of(ctx)->id; }

int64_t trust_crl_ends_s(const SSL_CTX *ctx) { return trust_of(ctx)->crl_ends_s; }

// --- loading: CAs --------------------------------------------------------------------------

struct loader {
  SSL_CTX *ctx;
  const struct tls_identity *identity;
  struct trust *trust;
  SHA256_CTX hash;
  STACK_OF(X509) * cas;
  STACK_OF(X509_CRL) * crls;
  const char *path;  // of the file being read
};

static enum status no_memory(struct errmsg *err, const char *path) {
  return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
}

static enum status add_ca(void *arg, struct bytes der, struct errmsg *err) {
  struct loader *loader = arg;
  const uint8_t *at = der.data;
  X509 *x509 = d2i_X509(NULL, &at, (long)der.len);
  const size_t number = sk_X509_num(loader->cas) + 1;
  enum status st = STATUS_OK;

  if (x509 == NULL || at != der.data + der.len) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: certificate %zu cannot be parsed", loader->path,
                    number);
  } else if (X509_check_ca(x509) != 1) {
    // With partial chains a leaf in this file would be trusted as itself.
    st = errmsg_set(err, STATUS_REFUSED,
                    "%s: certificate %zu is not a CA (basicConstraints); list only CAs here",
                    loader->path, number);
  } else if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(loader->ctx), x509) ||
             !SSL_CTX_add_client_CA(loader->ctx, x509) || !sk_X509_push(loader->cas, x509)) {
    st = no_memory(err, loader->path);
  } else {
    x509 = NULL;
    SHA256_Update(&loader->hash, der.data, der.len);
  }
  X509_free(x509);
  ERR_clear_error();
  return st;
}

// --- loading: revocation lists -----------------------------------------------------------

static const char *name_text(char out[NAME_TEXT_LEN], const X509_NAME *name) {
  char raw[NAME_TEXT_LEN / 2];

  X509_NAME_oneline(name, raw, sizeof raw);
  return log_quote(out, NAME_TEXT_LEN, bytes_text(raw));
}

static bool is_newer(const X509_CRL *a, const X509_CRL *b) {
  int days = 0;
  int seconds = 0;
  return ASN1_TIME_diff(&days, &seconds, X509_CRL_get0_lastUpdate(b),
                        X509_CRL_get0_lastUpdate(a)) &&
         (days > 0 || seconds > 0);
}

// keep_crl takes the list, or frees it: of one issuer the newest counts.
static enum status keep_crl(struct loader *loader, X509_CRL *crl, struct errmsg *err) {
  char name[NAME_TEXT_LEN];

  for (size_t i = 0; i < sk_X509_CRL_num(loader->crls); i++) {
    X509_CRL *old = sk_X509_CRL_value(loader->crls, i);
    if (X509_NAME_cmp(X509_CRL_get_issuer(old), X509_CRL_get_issuer(crl)) != 0) {
      continue;
    }
    log_warn(0, "crl_twice", "file=%s issuer=%s: the newest of its lists counts", loader->path,
             name_text(name, X509_CRL_get_issuer(crl)));
    if (is_newer(crl, old)) {
      (void)sk_X509_CRL_set(loader->crls, i, crl);
      crl = old;
    }
    X509_CRL_free(crl);
    return STATUS_OK;
  }
  if (sk_X509_CRL_num(loader->crls) == TRUST_MAX_CRLS) {
    X509_CRL_free(crl);
    return errmsg_set(err, STATUS_LIMIT, "%s: more than %u revocation lists", loader->path,
                      TRUST_MAX_CRLS);
  }
  if (!sk_X509_CRL_push(loader->crls, crl)) {
    X509_CRL_free(crl);
    return no_memory(err, loader->path);
  }
  return STATUS_OK;
}

static enum status read_der(struct loader *loader, struct bytes file, struct errmsg *err) {
  const uint8_t *at = file.data;
  X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)file.len);

  if (crl == NULL || at != file.data + file.len) {
    X509_CRL_free(crl);
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: no revocation list, in PEM (\"X509 CRL\") or DER, that can be parsed",
                      loader->path);
  }
  return keep_crl(loader, crl, err);
}

static enum status read_pem(struct loader *loader, struct bytes file, struct errmsg *err) {
  BIO *bio = BIO_new_mem_buf(file.data, (int)file.len);
  enum status st = STATUS_OK;
  size_t num = 0;

  for (;;) {
    X509_CRL *crl = bio == NULL ? NULL : PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
    if (crl == NULL) {
      break;
    }
    num++;
    TRY(keep_crl(loader, crl, err));
  }
  // The end of the file looks like "no start line"; all else is damage.
  if (num == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: revocation list %zu cannot be parsed", loader->path,
                    num + 1);
  }

out:
  BIO_free(bio);
  return st;
}

static enum status read_crl_file(struct loader *loader, const char *path, struct errmsg *err) {
  uint8_t *data = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  loader->path = path;
  TRY(file_read(&data, &len, path, TRUST_CRL_MAX_LEN, err));
  if (memmem(data, len, "-----BEGIN ", 11) != NULL) {
    TRY(read_pem(loader, bytes_of(data, len), err));
  } else {
    TRY(read_der(loader, bytes_of(data, len), err));
  }

out:
  free(data);
  ERR_clear_error();
  return st;
}

static int is_crl_name(const struct dirent *entry) {
  const size_t len = strlen(entry->d_name);
  const char *end = len > 4 ? entry->d_name + len - 4 : "";
  return entry->d_name[0] != '.' && (strcmp(end, ".crl") == 0 || strcmp(end, ".pem") == 0);
}

static enum status read_crl_folder(struct loader *loader, const char *folder, struct errmsg *err) {
  struct dirent **entries = NULL;
  enum status st = STATUS_OK;
  const int num = scandir(folder, &entries, is_crl_name, alphasort);

  if (num < 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be read: %s", folder, strerror(errno));
  }
  for (int i = 0; i < num; i++) {
    char path[PATH_MAX];
    const int len = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
    if (st == STATUS_OK) {
      st = len > 0 && (size_t)len < sizeof path
               ? read_crl_file(loader, path, err)
               : errmsg_set(err, STATUS_LIMIT, "%s: a path in it is too long", folder);
    }
    loader->path = folder;
    free(entries[i]);
  }
  free(entries);
  return st;
}

static enum status read_crls(struct loader *loader, struct errmsg *err) {
  enum status st = STATUS_OK;

  for (size_t i = 0; i < loader->identity->num_crl; i++) {
    const char *path = loader->identity->crl[i];
    struct stat is;
    if (stat(path, &is) == 0 && S_ISDIR(is.st_mode)) {
      TRY(read_crl_folder(loader, path, err));
    } else {
      TRY(read_crl_file(loader, path, err));
    }
  }

out:
  return st;
}

// --- loading: what the lists are worth -----------------------------------------------------

static int64_t to_posix(const ASN1_TIME *time) {
  ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
  int days = 0;
  int seconds = 0;
  const bool is_good =
      epoch != NULL && time != NULL && ASN1_TIME_diff(&days, &seconds, epoch, time);

  ASN1_TIME_free(epoch);
  return is_good ? days * S_PER_DAY + seconds : 0;
}

static void note_end(struct loader *loader, const X509_CRL *crl) {
  const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
  const int64_t ends_s = to_posix(next);
  char name[NAME_TEXT_LEN];
  char text[CLOCK_RFC3339_LEN];

  if (next == NULL) {
    return;  // it never gets stale
  }
  if (loader->trust->crl_ends_s == 0 || ends_s < loader->trust->crl_ends_s) {
    loader->trust->crl_ends_s = ends_s;
  }
  if (ends_s <= clock_wall_s()) {
    log_error(0, "crl_stale", "issuer=%s ended=%s: %s", name_text(name, X509_CRL_get_issuer(crl)),
              clock_format_rfc3339(text, ends_s),
              loader->trust->accepts_stale
                  ? "it is used all the same"
                  : "peers of this CA are refused until there is a new one");
  }
}

// has_signed: a list that names a CA of ours is from that CA, or a fraud.
static enum status find_signer(bool *out_is_known, const struct loader *loader, X509_CRL *crl,
                               struct errmsg *err) {
  char name[NAME_TEXT_LEN];

  *out_is_known = false;
  for (size_t i = 0; i < sk_X509_num(loader->cas); i++) {
    const X509 *ca = sk_X509_value(loader->cas, i);
    EVP_PKEY *key = NULL;
    bool is_good = false;
    if (X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(crl)) != 0) {
      continue;
    }
    *out_is_known = true;
    key = X509_get_pubkey((X509 *)(uintptr_t)ca);  // the old API lacks const
    is_good = key != NULL && X509_CRL_verify(crl, key) == 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (is_good) {
      return STATUS_OK;
    }
  }
  return *out_is_known ? errmsg_set(err, STATUS_FORMAT,
                                    "tls.crl: the revocation list of %s is not signed by that CA",
                                    name_text(name, X509_CRL_get_issuer(crl)))
                       : STATUS_OK;
}

static bool has_crl(const struct loader *loader, const X509 *ca) {
  for (size_t i = 0; i < sk_X509_CRL_num(loader->crls); i++) {
    if (X509_NAME_cmp(X509_CRL_get_issuer(sk_X509_CRL_value(loader->crls, i)),
                      X509_get_subject_name(ca)) == 0) {
      return true;
    }
  }
  return false;
}

static enum status check_cover(const struct loader *loader, struct errmsg *err) {
  char name[NAME_TEXT_LEN];
  size_t num_covered = 0;

  for (size_t i = 0; i < sk_X509_num(loader->cas); i++) {
    const X509 *ca = sk_X509_value(loader->cas, i);
    if (has_crl(loader, ca)) {
      num_covered++;
    } else {
      log_warn(0, "crl_missing", "ca=%s: its peers are refused, as tls.crl has no list of it",
               name_text(name, X509_get_subject_name(ca)));
    }
  }
  return num_covered > 0 ? STATUS_OK
                         : errmsg_set(err, STATUS_CONFIG,
                                      "tls.crl: no revocation list is of a CA in %s: everybody "
                                      "would be refused",
                                      loader->identity->ca);
}

static enum status add_crl(struct loader *loader, X509_CRL *crl, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *der = NULL;
  int len = 0;
  bool is_known = false;
  char name[NAME_TEXT_LEN];

  TRY(find_signer(&is_known, loader, crl, err));
  if (!is_known) {
    log_warn(0, "crl_of_other_issuer", "issuer=%s: it counts for an intermediate of that name only",
             name_text(name, X509_CRL_get_issuer(crl)));
  }
  note_end(loader, crl);
  len = i2d_X509_CRL(crl, &der);
  if (len <= 0 || !X509_STORE_add_crl(SSL_CTX_get_cert_store(loader->ctx), crl)) {
    TRY(no_memory(err, "tls.crl"));
  }
  SHA256_Update(&loader->hash, der, (size_t)len);

out:
  OPENSSL_free(der);
  return st;
}

static enum status load_crls(struct loader *loader, struct errmsg *err) {
  enum status st = STATUS_OK;

  if (loader->identity->num_crl == 0) {
    return STATUS_OK;
  }
  loader->trust->has_crls = true;
  TRY(read_crls(loader, err));
  TRY(check_cover(loader, err));
  for (size_t i = 0; i < sk_X509_CRL_num(loader->crls); i++) {
    TRY(add_crl(loader, sk_X509_CRL_value(loader->crls, i), err));
  }

out:
  return st;
}

// --- verifying -----------------------------------------------------------------------------

// on_error lets two of the library's complaints pass: an intermediate without a
// list, and, if the operator says so, a list that is out of date.
static int on_error(int ok, X509_STORE_CTX *store, bool accepts_stale) {
  const int error = X509_STORE_CTX_get_error(store);
  const int depth = X509_STORE_CTX_get_error_depth(store);

  if (ok ||
      (depth > 0 &&
       (error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER)) ||
      (accepts_stale && error == X509_V_ERR_CRL_HAS_EXPIRED)) {
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }
  return 0;
}

static int on_error_strict(int ok, X509_STORE_CTX *store) { return on_error(ok, store, false); }
static int on_error_stale(int ok, X509_STORE_CTX *store) { return on_error(ok, store, true); }

// verify is the library's own verification at our clock, and one thing more: a leaf
// without any EKU passes for every purpose there, and for none here.
static int verify(X509_STORE_CTX *store, void *arg) {
  const struct trust *trust = arg;
  const uint32_t purpose = trust->is_of_clients ? XKU_SSL_CLIENT : XKU_SSL_SERVER;
  X509 *leaf = X509_STORE_CTX_get0_cert(store);

  X509_STORE_CTX_set_time(store, 0, (time_t)clock_wall_s());
  if (trust->has_crls) {
    X509_STORE_CTX_set_verify_cb(store, trust->accepts_stale ? on_error_stale : on_error_strict);
  }
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

enum tls_refusal trust_check(SSL_CTX *ctx, X509 *leaf, STACK_OF(X509) * intermediates) {
  struct trust *trust = SSL_CTX_get_ex_data(ctx, trust_index());
  X509_STORE_CTX *store = X509_STORE_CTX_new();
  enum tls_refusal refusal = TLS_REFUSAL_OTHER;

  if (store != NULL &&
      X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), leaf, intermediates) &&
      X509_STORE_CTX_set_default(store, trust->is_of_clients ? "ssl_client" : "ssl_server") &&
      X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(store), SSL_CTX_get0_param(ctx))) {
    const bool is_good = verify(store, trust) == 1;
    refusal = refusal_of_error(X509_STORE_CTX_get_error(store));
    if (is_good != (refusal == TLS_REFUSAL_NONE)) {
      refusal = is_good ? TLS_REFUSAL_NONE : TLS_REFUSAL_OTHER;
    }
  }
  X509_STORE_CTX_free(store);
  ERR_clear_error();
  return refusal;
}

enum tls_refusal trust_check_again(SSL_CTX *ctx, const SSL *ssl) {
  X509 *leaf = SSL_get_peer_certificate(ssl);
  enum tls_refusal refusal = TLS_REFUSAL_MISSING;

  if (leaf != NULL) {
    refusal = trust_check(ctx, leaf, SSL_get_peer_full_cert_chain(ssl));
  }
  X509_free(leaf);
  return refusal;
}

// --- the whole -----------------------------------------------------------------------------

static void set_flags(SSL_CTX *ctx, const struct trust *trust) {
  // Each CA of the file is an anchor, also when it is an intermediate.
  unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;

  if (trust->has_crls) {
    flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
  }
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), flags);
  SSL_CTX_set_cert_verify_callback(ctx, verify, (void *)(uintptr_t)trust);
}

enum status trust_load(SSL_CTX *ctx, const struct tls_identity *identity, bool is_of_clients,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct loader loader = {.ctx = ctx,
                          .identity = identity,
                          .trust = calloc(1, sizeof(struct trust)),
                          .cas = sk_X509_new_null(),
                          .crls = sk_X509_CRL_new_null(),
                          .path = identity->ca};
  struct trust *trust = loader.trust;

  if (trust == NULL || loader.cas == NULL || loader.crls == NULL ||
      !SSL_CTX_set_ex_data(ctx, trust_index(), trust)) {
    free(trust);
    st = no_memory(err, identity->ca);
    goto out;
  }
  trust->is_of_clients = is_of_clients;
  trust->accepts_stale = identity->crl_when_stale == TLS_CRL_ACCEPT;
  SHA256_Init(&loader.hash);
  TRY(pem_read_certificates(identity->ca, CERT_FILE_MAX_LEN, add_ca, &loader, err));
  TRY(load_crls(&loader, err));
  SHA256_Update(&loader.hash, &trust->accepts_stale, sizeof trust->accepts_stale);
  SHA256_Update(&loader.hash, &trust->has_crls, sizeof trust->has_crls);
  SHA256_Final(trust->id, &loader.hash);
  set_flags(ctx, trust);

out:
  sk_X509_pop_free(loader.cas, X509_free);
  sk_X509_CRL_pop_free(loader.crls, X509_CRL_free);
  ERR_clear_error();
  return st;
}
