// SPDX-License-Identifier: Apache-2.0
#include "keyserver/keystore.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/sandbox.h"
#include "common/tls/cert.h"
#include "common/tls/tls_error.h"
#include "common/wire/dc.h"
#include "keyserver/key_pattern.h"
#include "keyserver/sign.h"
#include "keyserver/token.h"

#define QUOTED_LEN 256

struct keystore {
  struct key **keys;
  size_t num_keys;
  size_t cap;
  struct key **slots;  // by SKI, open addressing
  size_t num_slots;    // a power of two, twice cap
  size_t num_sealed[SEALED_NUM_OUTCOMES];
  struct sealed_opener *opener;  // while folders are read
};

void key_unref(struct key *key) {
  if (key == NULL || atomic_fetch_sub_explicit(&key->num_refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  for (size_t i = 0; i < key->num_names; i++) {
    free(key->names[i]);
  }
  free(key->names);
  free(key->label);
  EVP_PKEY_free(key->pkey);
  free(key);
}

static struct key *key_alloc(void) {
  struct key *key = calloc(1, sizeof *key);
  if (key != NULL) {
    atomic_init(&key->num_refs, 1);
  }
  return key;
}

void keystore_free(struct keystore *ks) {
  if (ks == NULL) {
    return;
  }
  for (size_t i = 0; i < ks->num_keys; i++) {
    key_unref(ks->keys[i]);
  }
  free(ks->keys);
  free(ks->slots);
  free(ks);
}

// --- look-up ---------------------------------------------------------------------

// An SKI is a hash already: its first bytes are as good as any.
static size_t slot_of(const struct keystore *ks, const uint8_t ski[FRAME_SKI_LEN]) {
  uint64_t bits;
  memcpy(&bits, ski, sizeof bits);
  return (size_t)bits & (ks->num_slots - 1);
}

static struct key *find_mutable(const struct keystore *ks, const uint8_t ski[FRAME_SKI_LEN]) {
  size_t at = slot_of(ks, ski);
  while (ks->slots[at] != NULL) {
    if (memcmp(ks->slots[at]->ski, ski, FRAME_SKI_LEN) == 0) {
      return ks->slots[at];
    }
    at = (at + 1) & (ks->num_slots - 1);
  }
  return NULL;
}

const struct key *keystore_find(const struct keystore *ks, const uint8_t ski[FRAME_SKI_LEN]) {
  return find_mutable(ks, ski);
}

size_t keystore_num_keys(const struct keystore *ks) { return ks->num_keys; }

size_t keystore_num_sealed(const struct keystore *ks, enum sealed_outcome outcome) {
  return ks->num_sealed[outcome];
}

const struct key *keystore_key(const struct keystore *ks, size_t index) {
  CHECK(index < ks->num_keys);
  return ks->keys[index];
}

static void fill_slot(struct keystore *ks, struct key *key) {
  size_t at = slot_of(ks, key->ski);
  while (ks->slots[at] != NULL) {
    at = (at + 1) & (ks->num_slots - 1);
  }
  ks->slots[at] = key;
}

// grow doubles the room: there is always one place more for keys than keys, and
// at least half of the slots are empty.
static enum status grow(struct keystore *ks) {
  const size_t cap = ks->cap == 0 ? 64 : 2 * ks->cap;
  struct key **keys = realloc(ks->keys, cap * sizeof(struct key *));
  struct key **slots = NULL;

  if (keys == NULL) {
    return STATUS_MEMORY;
  }
  ks->keys = keys;
  slots = calloc(2 * cap, sizeof(struct key *));
  if (slots == NULL) {
    return STATUS_MEMORY;
  }
  free(ks->slots);
  ks->slots = slots;
  ks->num_slots = 2 * cap;
  ks->cap = cap;
  for (size_t i = 0; i < ks->num_keys; i++) {
    fill_slot(ks, ks->keys[i]);
  }
  return STATUS_OK;
}

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

// --- keys ----------------------------------------------------------------------------

// all_opcodes is every opcode that a key of this kind can serve.
static uint64_t all_opcodes(enum key_kind kind) {
  uint64_t opcodes = 0;
  for (uint8_t opcode = 0; opcode < 64; opcode++) {
    if (scheme_by_opcode(opcode, kind) != NULL) {
      opcodes |= UINT64_C(1) << opcode;
    }
  }
  return opcodes;
}

static enum status append_key(struct keystore *ks, struct key **key, struct errmsg *err) {
  if (ks->num_keys == KEYSTORE_MAX_KEYS) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u keys", KEYSTORE_MAX_KEYS);
  }
  if (ks->num_keys == ks->cap && grow(ks) != STATUS_OK) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for %zu keys", 2 * ks->cap);
  }
  ks->keys[ks->num_keys++] = *key;
  fill_slot(ks, *key);
  *key = NULL;
  return STATUS_OK;
}

static enum status describe_key(struct key *key, const char *label, struct errmsg *err) {
  key->label = strdup(label);
  if (key->label == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->kind = key_kind_of(key->pkey);
  key->cost = sign_cost(key->kind, EVP_PKEY_bits(key->pkey));
  key->is_slow = sign_is_slow(key->kind, EVP_PKEY_bits(key->pkey));
  key->opcodes = all_opcodes(key->kind);
  key->dc_max_lifetime_s = DC_MAX_LIFETIME_S;
  return key_identify(key->key_id, key->ski, key->pkey) == STATUS_OK
             ? STATUS_OK
             : errmsg_set(err, STATUS_CRYPTO, "this key has no identifier");
}

// test_key: what signs wrongly would be found out by the visitors of a site.
static enum status test_key(const struct key *key, struct errmsg *err) {
  char why[TLS_ERROR_TEXT_LEN];
  const enum status st = sign_self_test(key);

  if (st == STATUS_OK || st == STATUS_UNAVAILABLE) {
    return st;
  }
  return errmsg_set(
      err, STATUS_CRYPTO,
      "this key does not sign what its public half verifies (%s); the file is damaged",
      tls_error_drain(why, sizeof why));
}

static enum status name_and_test(struct key *key, const char *path, const char *label,
                                 struct errmsg *err) {
  enum status st = describe_key(key, label, err);

  if (st == STATUS_OK) {
    st = test_key(key, err);
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
  struct key *key = key_alloc();
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
  TRY(append_key(ks, &key, err));

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

// --- certificates: only names --------------------------------------------------------

static enum status add_name(struct key *key, const char *name, struct errmsg *err) {
  char **names = NULL;

  for (size_t i = 0; i < key->num_names; i++) {
    if (strcmp(key->names[i], name) == 0) {
      return STATUS_OK;
    }
  }
  if (key->num_names == KEYSTORE_MAX_NAMES_PER_KEY) {
    return errmsg_set(err, STATUS_LIMIT, "key %s: more than %u names in its certificates",
                      key->label, KEYSTORE_MAX_NAMES_PER_KEY);
  }
  names = realloc(key->names, (key->num_names + 1) * sizeof(char *));
  if (names == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->names = names;
  key->names[key->num_names] = strdup(name);
  if (key->names[key->num_names] == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->num_names++;
  return STATUS_OK;
}

static enum status add_names(struct keystore *ks, const struct cert_info *info,
                             struct errmsg *err) {
  struct key *key = find_mutable(ks, info->ski);

  if (key != NULL && info->may_delegate) {
    key->may_delegate = true;
  }
  for (size_t i = 0; key != NULL && i < info->num_names; i++) {
    const enum status st = add_name(key, info->names[i], err);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
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
    st = add_names(ks, &info, err);
  }
  cert_info_cleanup(&info);
  cert_chain_free(chain, num);
  return st;
}

// --- policies --------------------------------------------------------------------------

static enum status read_schemes(uint64_t *out, const struct key_policy_options *policy,
                                struct errmsg *err) {
  *out = policy->num_schemes == 0 ? UINT64_MAX : 0;
  for (size_t i = 0; i < policy->num_schemes; i++) {
    const struct scheme *scheme = scheme_by_name(policy->schemes[i]);
    if (scheme == NULL) {
      return errmsg_set(err, STATUS_CONFIG, "scheme \"%s\" is none that is used here",
                        policy->schemes[i]);
    }
    *out |= UINT64_C(1) << scheme->opcode;
  }
  return STATUS_OK;
}

// apply_policy limits the keys from `first` on that fit and have no policy yet.
static enum status apply_policy(struct keystore *ks, size_t first, bool *has_policy,
                                const struct key_policy_options *policy, size_t number,
                                struct errmsg *err) {
  uint64_t opcodes = 0;
  enum status st = read_schemes(&opcodes, policy, err);

  for (size_t i = 0; st == STATUS_OK && i < policy->num_keys; i++) {
    struct key_pattern pattern;
    st = key_pattern_parse(&pattern, policy->keys[i], err);
    for (size_t k = first; st == STATUS_OK && k < ks->num_keys; k++) {
      if (!has_policy[k] && key_pattern_fits(&pattern, ks->keys[k])) {
        has_policy[k] = true;
        ks->keys[k]->policy = number;
        ks->keys[k]->opcodes &= opcodes;
        ks->keys[k]->dc_max_lifetime_s = policy->dc_max_lifetime_ms / 1000;
      }
    }
  }
  return st;
}

static enum status apply_policies(struct keystore *ks, size_t first, const struct options *options,
                                  struct errmsg *err) {
  enum status st = STATUS_OK;
  bool *has_policy = calloc(ks->num_keys + 1, sizeof(bool));

  if (has_policy == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; st == STATUS_OK && i < options->num_key_policies; i++) {
    st = apply_policy(ks, first, has_policy, &options->key_policies[i], i + 1, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "key_policies[%zu]", i);
    }
  }
  free(has_policy);
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
  struct keystore *ks = calloc(1, sizeof *ks);

  *out = NULL;
  if (ks == NULL || grow(ks) != STATUS_OK) {
    keystore_free(ks);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(load_folders(ks, options, is_key_file, load_key, err));
  TRY(load_all_sealed(ks, options, err));
  TRY(load_folders(ks, options, is_certificate_file, load_certificate, err));
  TRY(apply_policies(ks, 0, options, err));
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
  struct key *key = key_alloc();
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
  TRY(describe_key(key, from->label, err));
  key->is_slow = true;
  if (token_needs_test(key->token)) {
    st = test_key(key, err);
    if (st != STATUS_OK && st != STATUS_UNAVAILABLE) {
      goto out;
    }
  }
  if (keystore_find(ks, key->ski) != NULL) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "the same key is loaded already, from a file or an entry "
                   "above: remove one"));
  }
  TRY(append_key(ks, &key, err));
  TRY(add_names(ks, &info, err));

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
  return apply_policies(ks, first, options, err);
}

// --- public halves ---------------------------------------------------------------------------

static enum status add_public(struct keystore *ks, EVP_PKEY **pkey, const char *label,
                              struct errmsg *err) {
  struct key *key = key_alloc();
  enum status st = STATUS_OK;

  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->pkey = *pkey;
  *pkey = NULL;
  TRY(describe_key(key, label, err));
  if (keystore_find(ks, key->ski) == NULL) {
    TRY(append_key(ks, &key, err));
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
      st = add_names(ks, &info, err);
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
  struct keystore *ks = calloc(1, sizeof *ks);
  const char *identity = options->sealing.identity;

  *out = NULL;
  if (ks == NULL || grow(ks) != STATUS_OK) {
    keystore_free(ks);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(load_folders(ks, options, is_key_file, load_public_key, err));
  if (identity != NULL && access(identity, R_OK) == 0) {
    TRY(load_all_sealed(ks, options, err));
  }
  TRY(load_folders(ks, options, is_certificate_file, load_certificate, err));
  TRY(load_public_tokens(ks, options, err));
  TRY(apply_policies(ks, 0, options, err));
  *out = ks;
  ks = NULL;

out:
  keystore_free(ks);
  ERR_clear_error();
  return st;
}

// --- one more key ----------------------------------------------------------------------------

enum status key_new(struct key **out, EVP_PKEY **pkey, const char *label, struct errmsg *err) {
  struct key *key = key_alloc();
  enum status st = STATUS_OK;

  *out = NULL;
  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->pkey = *pkey;
  *pkey = NULL;
  TRY(describe_key(key, label, err));
  TRY(test_key(key, err));
  *out = key;
  key = NULL;

out:
  key_unref(key);
  return st;
}

bool keystore_has_label(const struct keystore *ks, const char *label) {
  for (size_t i = 0; i < ks->num_keys; i++) {
    if (strcmp(ks->keys[i]->label, label) == 0) {
      return true;
    }
  }
  return false;
}

enum status keystore_with(struct keystore **out, const struct keystore *ks, struct key **key,
                          const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct keystore *more = NULL;

  *out = NULL;
  if (keystore_find(ks, (*key)->ski) != NULL || keystore_has_label(ks, (*key)->label)) {
    return errmsg_set(err, STATUS_EXISTS, "key %s is there already", (*key)->label);
  }
  more = calloc(1, sizeof *more);
  if (more == NULL || grow(more) != STATUS_OK) {
    keystore_free(more);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  memcpy(more->num_sealed, ks->num_sealed, sizeof more->num_sealed);
  for (size_t i = 0; i < ks->num_keys; i++) {
    struct key *shared = ks->keys[i];
    atomic_fetch_add_explicit(&shared->num_refs, 1, memory_order_relaxed);
    st = append_key(more, &shared, err);
    if (st != STATUS_OK) {
      key_unref(shared);
      goto out;
    }
  }
  TRY(append_key(more, key, err));
  TRY(apply_policies(more, more->num_keys - 1, options, err));
  *out = more;
  more = NULL;

out:
  keystore_free(more);
  return st;
}
