// SPDX-License-Identifier: Apache-2.0
// Where keys come from: files of keys and certificates, sealed ones, tokens; and the public
// halves of them alone.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/sandbox.h"
#include "keyserver/keystore_private.h"
#include "keyserver/token.h"

// --- folders -----------------------------------------------------------------------

static bool has_suffix(const char *name, const char *suffix) {
  const size_t len = strlen(name);
  const size_t suffix_len = strlen(suffix);
  return len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

static bool is_key_file(const char *name) { return has_suffix(name, ".key"); }

static bool is_sealed_file(const char *name) { return has_suffix(name, ".sealed"); }

static bool is_certificate_file(const char *name) {
  return has_suffix(name, ".pem") || has_suffix(name, ".crt") || has_suffix(name, ".cer");
}

bool keystore_reads_file(const char *name) {
  return is_key_file(name) || is_sealed_file(name) || is_certificate_file(name);
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

// each_file calls `fn` with the path of every file of `folder` that `is_wanted`,
// in the order of their names, so that messages and ties are the same each time.
static enum status each_file(struct keystore *ks, const char *folder,
                             bool (*is_wanted)(const char *name),
                             enum status (*fn)(struct keystore *ks, const char *path,
                                               const char *name, struct errmsg *err),
                             struct errmsg *err) {
  struct dirent **entries = NULL;
  enum status st = STATUS_OK;
  const int num = scandir(folder, &entries, is_visible, alphasort);

  if (num < 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: this key folder cannot be read: %s%s", folder,
                      strerror(errno), sandbox_hint(errno));
  }
  for (int i = 0; i < num; i++) {
    char path[PATH_MAX];
    const char *name = entries[i]->d_name;
    if (st == STATUS_OK && is_wanted(name)) {
      const int len = snprintf(path, sizeof path, "%s/%s", folder, name);
      st = len > 0 && (size_t)len < sizeof path
               ? fn(ks, path, name, err)
               : errmsg_set(err, STATUS_LIMIT, "%s/%s: the path is too long", folder, name);
    }
    free(entries[i]);
  }
  free(entries);
  return st;
}

// --- files ---------------------------------------------------------------------------

static enum status name_and_test(struct key *key, const char *path, const char *label,
                                 struct errmsg *err) {
  enum status st = keystore_describe(key, label, err);

  if (st == STATUS_OK) {
    st = keystore_test(key, err);
  }
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
  }
  return st;
}

// add_from_file makes a key of a private key (taken) that was in a file.
static enum status add_from_file(struct keystore *ks, EVP_PKEY *pkey, const char *path,
                                 const char *label, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct key *key = keystore_key_alloc();
  const struct key *twin = NULL;

  if (key == NULL) {
    EVP_PKEY_free(pkey);
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
  }
  key->pkey = pkey;
  TRY(name_and_test(key, path, label, err));
  twin = keystore_find(ks, key->ski);
  if (twin != NULL) {
    log_warn(0, "key_twice", "file=%s label=%s: the same key; the first file counts", path,
             twin->label);
    goto out;
  }
  TRY(keystore_append(ks, &key, err));

out:
  key_unref(key);  // still ours unless it was appended
  return st;
}

static enum status load_key(struct keystore *ks, const char *path, const char *name,
                            struct errmsg *err) {
  char label[NAME_MAX + 1];
  EVP_PKEY *pkey = NULL;
  const enum status st = key_read(&pkey, path, err);

  (void)snprintf(label, sizeof label, "%.*s", (int)(strlen(name) - strlen(".key")), name);
  return st == STATUS_OK ? add_from_file(ks, pkey, path, label, err) : st;
}

// load_sealed: one that is not for this server is no mistake, as the same files lie
// on all servers.
static enum status load_sealed(struct keystore *ks, const char *path, const char *name,
                               struct errmsg *err) {
  char label[KEYGEN_MAX_LABEL_LEN + 1];
  enum sealed_outcome outcome = SEALED_NO_IDENTITY;
  EVP_PKEY *pkey = NULL;
  const enum status st = sealed_load(&pkey, label, &outcome, ks->opener, path, err);

  (void)name;
  if (st != STATUS_OK) {
    return st;
  }
  ks->num_sealed[outcome]++;
  return pkey == NULL ? STATUS_OK : add_from_file(ks, pkey, path, label, err);
}

// load_certificate: a certificate only names a key, so one that cannot be read
// costs a warning and the grants by its names, not the start.
static enum status load_certificate(struct keystore *ks, const char *path, const char *name,
                                    struct errmsg *err) {
  enum status st = STATUS_OK;
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  struct cert_info info = {0};
  struct errmsg why = {0};

  (void)name;
  st = cert_chain_read(chain, &num, path, NULL, &why);
  if (st == STATUS_OK) {
    st = cert_info_read(&info, bytes_of(CRYPTO_BUFFER_data(chain[0]), CRYPTO_BUFFER_len(chain[0])),
                        &why);
  }
  if (st == STATUS_REFUSED) {
    st = errmsg_set(err, STATUS_REFUSED,
                    "%s: holds a private key; keys are files of their own here, named *.key", path);
  } else if (st != STATUS_OK) {
    log_warn(0, "certificate_skipped", "%s", why.text);
    st = STATUS_OK;
  } else {
    st = keystore_add_names(ks, &info, err);
  }
  cert_info_cleanup(&info);
  cert_chain_free(chain, num);
  return st;
}

static bool is_listed(const struct options *options, const char *folder) {
  for (size_t i = 0; i < options->num_key_folders; i++) {
    if (strcmp(options->key_folders[i], folder) == 0) {
      return true;
    }
  }
  return false;
}

// load_folders goes through the key folders and the one of generated keys.
static enum status load_folders(struct keystore *ks, const struct options *options,
                                bool (*is_wanted)(const char *name),
                                enum status (*fn)(struct keystore *ks, const char *path,
                                                  const char *name, struct errmsg *err),
                                struct errmsg *err) {
  const char *own = options->generation.folder;
  enum status st = STATUS_OK;

  for (size_t i = 0; i < options->num_key_folders && st == STATUS_OK; i++) {
    st = each_file(ks, options->key_folders[i], is_wanted, fn, err);
  }
  if (st == STATUS_OK && own != NULL && !is_listed(options, own)) {
    st = each_file(ks, own, is_wanted, fn, err);
  }
  return st;
}

// load_all_sealed keeps this server's identity in memory no longer than it takes.
static enum status load_all_sealed(struct keystore *ks, const struct options *options,
                                   struct errmsg *err) {
  struct sealed_opener *opener = NULL;
  enum status st = STATUS_OK;

  TRY(sealed_opener_new(&opener, &options->sealing, err));
  ks->opener = opener;
  TRY(load_folders(ks, options, is_sealed_file, load_sealed, err));

out:
  ks->opener = NULL;
  sealed_opener_free(opener);
  return st;
}

enum status keystore_load(struct keystore **out, const struct options *options,
                          struct errmsg *err) {
  enum status st = STATUS_OK;
  struct keystore *ks = NULL;

  *out = NULL;
  TRY(keystore_new(&ks, err));
  TRY(load_folders(ks, options, is_key_file, load_key, err));
  TRY(load_all_sealed(ks, options, err));
  TRY(load_folders(ks, options, is_certificate_file, load_certificate, err));
  TRY(keystore_apply_policies(ks, 0, options, err));
  *out = ks;
  ks = NULL;

out:
  keystore_free(ks);
  ERR_clear_error();
  return st;
}

// --- keys in tokens ------------------------------------------------------------------------

// read_leaf reads a certificate of a token's key, and its public key.
static enum status read_leaf(struct cert_info *info, EVP_PKEY **out_public, const char *path,
                             struct errmsg *err) {
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  X509 *x509 = NULL;
  enum status st = STATUS_OK;

  TRY(cert_chain_read(chain, &num, path, NULL, err));
  TRY(cert_info_read(info, bytes_of(CRYPTO_BUFFER_data(chain[0]), CRYPTO_BUFFER_len(chain[0])),
                     err));
  x509 = X509_parse_from_buffer(chain[0]);
  *out_public = x509 == NULL ? NULL : X509_get_pubkey(x509);
  if (*out_public == NULL) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: its key cannot be read", path);
  }

out:
  X509_free(x509);
  cert_chain_free(chain, num);
  return st;
}

// open_on_token finds the key; a token that is away is a warning once we know
// which key it has.
static enum status open_on_token(struct key *key, const struct pkcs11_options *from,
                                 EVP_PKEY *public_key, struct token_registry *tokens,
                                 struct errmsg *err) {
  const struct token_key_config config = {
      .module = from->module,
      .uri = from->uri,
      .pin_file = from->pin_file,
      .public_key = public_key,
      .num_sessions = (unsigned)from->num_sessions,
  };
  EVP_PKEY *found = NULL;
  enum status st = token_key_open(&key->token, &found, tokens, &config, err);

  if (st != STATUS_OK && (st != STATUS_UNAVAILABLE || key->token == NULL)) {
    return st;
  }
  EVP_PKEY_up_ref(found);
  key->pkey = found;
  key->is_slow = true;
  if (st == STATUS_UNAVAILABLE) {
    log_warn(0, "token_away", "key=%s why=\"%s\"", from->label, err == NULL ? "" : err->text);
  }
  return STATUS_OK;
}

static enum status load_token_key(struct keystore *ks, const struct pkcs11_options *from,
                                  struct token_registry *tokens, struct errmsg *err) {
  struct key *key = keystore_key_alloc();
  struct cert_info info = {0};
  EVP_PKEY *public_key = NULL;
  enum status st = STATUS_OK;

  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  if (from->certificate != NULL) {
    TRY(read_leaf(&info, &public_key, from->certificate, err));
  }
  TRY(open_on_token(key, from, public_key, tokens, err));
  TRY(keystore_describe(key, from->label, err));
  key->is_slow = true;
  if (token_needs_test(key->token)) {
    st = keystore_test(key, err);
    if (st != STATUS_OK && st != STATUS_UNAVAILABLE) {
      goto out;
    }
  }
  if (keystore_find(ks, key->ski) != NULL) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "the same key is loaded already, from a file or an entry "
                   "above: remove one"));
  }
  TRY(keystore_append(ks, &key, err));
  TRY(keystore_add_names(ks, &info, err));

out:
  cert_info_cleanup(&info);
  EVP_PKEY_free(public_key);
  key_unref(key);
  return st;
}

enum status keystore_load_tokens(struct keystore *ks, const struct options *options,
                                 struct token_registry *tokens, struct errmsg *err) {
  const size_t first = ks->num_keys;

  for (size_t i = 0; i < options->num_pkcs11; i++) {
    const enum status st = load_token_key(ks, &options->pkcs11[i], tokens, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "pkcs11[%zu] (%s)", i, options->pkcs11[i].label);
      return st;
    }
  }
  return keystore_apply_policies(ks, first, options, err);
}

// --- public halves ---------------------------------------------------------------------------

static enum status add_public(struct keystore *ks, EVP_PKEY **pkey, const char *label,
                              struct errmsg *err) {
  struct key *key = keystore_key_alloc();
  enum status st = STATUS_OK;

  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->pkey = *pkey;
  *pkey = NULL;
  TRY(keystore_describe(key, label, err));
  if (keystore_find(ks, key->ski) == NULL) {
    TRY(keystore_append(ks, &key, err));
  }

out:
  key_unref(key);
  return st;
}

static enum status load_public_key(struct keystore *ks, const char *path, const char *name,
                                   struct errmsg *err) {
  static const char *const suffixes[] = {".pem", ".crt", ".cer"};
  const int stem_len = (int)(strlen(path) - strlen(".key"));
  char label[NAME_MAX + 1];
  EVP_PKEY *pkey = NULL;
  enum status st = STATUS_NOT_FOUND;

  (void)snprintf(label, sizeof label, "%.*s", (int)(strlen(name) - strlen(".key")), name);
  if (access(path, R_OK) == 0) {
    st = key_read(&pkey, path, err);
    return st == STATUS_OK ? add_public(ks, &pkey, label, err) : st;
  }
  for (size_t i = 0; st != STATUS_OK && i < sizeof suffixes / sizeof suffixes[0]; i++) {
    char beside[PATH_MAX];
    struct cert_info info = {0};
    (void)snprintf(beside, sizeof beside, "%.*s%s", stem_len, path, suffixes[i]);
    st = read_leaf(&info, &pkey, beside, NULL);
    cert_info_cleanup(&info);
  }
  if (st != STATUS_OK) {
    log_warn(0, "key_unknown", "file=%s: it may not be read, and no certificate lies beside it",
             path);
    return STATUS_OK;
  }
  return add_public(ks, &pkey, label, err);
}

static enum status load_public_tokens(struct keystore *ks, const struct options *options,
                                      struct errmsg *err) {
  for (size_t i = 0; i < options->num_pkcs11; i++) {
    const struct pkcs11_options *from = &options->pkcs11[i];
    struct cert_info info = {0};
    EVP_PKEY *pkey = NULL;
    enum status st = STATUS_OK;
    if (from->certificate == NULL) {
      log_warn(0, "key_unknown", "key=%s: it is in a token, and has no certificate", from->label);
      continue;
    }
    st = read_leaf(&info, &pkey, from->certificate, err);
    if (st == STATUS_OK) {
      st = add_public(ks, &pkey, from->label, err);
    }
    if (st == STATUS_OK) {
      st = keystore_add_names(ks, &info, err);
    }
    cert_info_cleanup(&info);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

enum status keystore_load_public(struct keystore **out, const struct options *options,
                                 struct errmsg *err) {
  enum status st = STATUS_OK;
  struct keystore *ks = NULL;
  const char *identity = options->sealing.identity;

  *out = NULL;
  TRY(keystore_new(&ks, err));
  TRY(load_folders(ks, options, is_key_file, load_public_key, err));
  if (identity != NULL && access(identity, R_OK) == 0) {
    TRY(load_all_sealed(ks, options, err));
  }
  TRY(load_folders(ks, options, is_certificate_file, load_certificate, err));
  TRY(load_public_tokens(ks, options, err));
  TRY(keystore_apply_policies(ks, 0, options, err));
  *out = ks;
  ks = NULL;

out:
  keystore_free(ks);
  ERR_clear_error();
  return st;
}
