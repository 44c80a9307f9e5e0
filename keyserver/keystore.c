// SPDX-License-Identifier: Apache-2.0
#include "keyserver/keystore.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/tls_error.h"
#include "common/wire/dc.h"
#include "keyserver/key_pattern.h"
#include "keyserver/keystore_private.h"
#include "keyserver/sign.h"

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

struct key *keystore_key_alloc(void) {
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

enum status keystore_new(struct keystore **out, struct errmsg *err) {
  struct keystore *ks = calloc(1, sizeof *ks);

  *out = NULL;
  if (ks == NULL || grow(ks) != STATUS_OK) {
    keystore_free(ks);
    (void)errmsg_set(err, STATUS_MEMORY, "no memory");
    return STATUS_MEMORY;
  }
  *out = ks;
  return STATUS_OK;
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

enum status keystore_append(struct keystore *ks, struct key **key, struct errmsg *err) {
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

enum status keystore_describe(struct key *key, const char *label, struct errmsg *err) {
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

enum status keystore_test(const struct key *key, struct errmsg *err) {
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

// --- names of keys --------------------------------------------------------

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

enum status keystore_add_names(struct keystore *ks, const struct cert_info *info,
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

enum status keystore_apply_policies(struct keystore *ks, size_t first,
                                    const struct options *options, struct errmsg *err) {
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

// --- one more key ----------------------------------------------------------------------------

enum status key_new(struct key **out, EVP_PKEY **pkey, const char *label, struct errmsg *err) {
  struct key *key = keystore_key_alloc();
  enum status st = STATUS_OK;

  *out = NULL;
  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  key->pkey = *pkey;
  *pkey = NULL;
  TRY(keystore_describe(key, label, err));
  TRY(keystore_test(key, err));
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
  TRY(keystore_new(&more, err));
  memcpy(more->num_sealed, ks->num_sealed, sizeof more->num_sealed);
  for (size_t i = 0; i < ks->num_keys; i++) {
    struct key *shared = ks->keys[i];
    atomic_fetch_add_explicit(&shared->num_refs, 1, memory_order_relaxed);
    st = keystore_append(more, &shared, err);
    if (st != STATUS_OK) {
      key_unref(shared);
      goto out;
    }
  }
  TRY(keystore_append(more, key, err));
  TRY(keystore_apply_policies(more, more->num_keys - 1, options, err));
  *out = more;
  more = NULL;

out:
  keystore_free(more);
  return st;
}
