// SPDX-License-Identifier: Apache-2.0
// Targets: the key server's own configuration: its table of options, grants
// (rights.c), key policies (keystore.c), key patterns, token URIs, addresses. The
// input is the file. What is read without complaint is asked who may do what with
// three keys, and the answer is held against a second reading of the grants.
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/net/address.h"
#include "common/wire/pkcs11_uri.h"
#include "keyserver/keystore.h"
#include "keyserver/options.h"
#include "keyserver/rights.h"

#define NUM_CLIENTS 4
#define MAX_ENTRIES 16  // more are not compared

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct keystore *keys;  // www and mail
static struct key *newcomer;   // what policies are tried on

// --- keys ---------------------------------------------------------------------------

static struct key *make_key(const char *label, const char *name) {
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  EVP_PKEY *pkey = EVP_PKEY_new();
  struct key *key = NULL;

  CHECK(ec != NULL && pkey != NULL && EC_KEY_generate_key(ec) && EVP_PKEY_set1_EC_KEY(pkey, ec));
  EC_KEY_free(ec);
  CHECK(key_new(&key, &pkey, label, NULL) == STATUS_OK);
  key->names = calloc(1, sizeof(char *));
  CHECK(key->names != NULL);
  key->names[0] = strdup(name);
  key->num_names = 1;
  return key;
}

static void add(struct key *key, const struct options *options) {
  struct keystore *more = NULL;
  CHECK(keystore_with(&more, keys, &key, options, NULL) == STATUS_OK);
  keystore_free(keys);
  keys = more;
}

static void load(void) {
  char folder[] = "/tmp/keyserver_config_fuzz.XXXXXX";
  char *folders[] = {folder};
  const struct options none = {.key_folders = folders, .num_key_folders = 1};

  CHECK(mkdtemp(folder) != NULL);
  CHECK(keystore_load(&keys, &none, NULL) == STATUS_OK);
  (void)rmdir(folder);
  add(make_key("www", "www.a.test"), &none);
  add(make_key("mail", "*.b.test"), &none);
  newcomer = make_key("new", "new.a.test");
}

// --- a second reading -------------------------------------------------------------------

static bool ends_with(const char *text, const char *end) {
  return strlen(text) >= strlen(end) && strcasecmp(text + strlen(text) - strlen(end), end) == 0;
}

static bool fits_key(const char *text, const struct key *key) {
  char ski[2 * FRAME_SKI_LEN + 1];
  const char *rest = strchr(text, ':');

  if (rest == NULL) {
    return true;  // the star
  }
  rest++;
  for (size_t i = 0; i < FRAME_SKI_LEN; i++) {
    (void)snprintf(ski + 2 * i, 3, "%02x", key->ski[i]);
  }
  if (text[0] == 's') {
    return strcasecmp(rest, ski) == 0;
  }
  if (text[0] == 'l') {
    const size_t len = strlen(rest);
    return rest[len - 1] == '*' ? strncmp(rest, key->label, len - 1) == 0
                                : strcmp(rest, key->label) == 0;
  }
  if (rest[0] == '*' && rest[1] == '.') {
    return strlen(key->names[0]) > strlen(rest + 1) && ends_with(key->names[0], rest + 1);
  }
  return strcasecmp(rest, key->names[0]) == 0;
}

static bool lists(char *const *texts, size_t num, const char *text) {
  for (size_t i = 0; i < num; i++) {
    if (strcmp(texts[i], text) == 0) {
      return true;
    }
  }
  return false;
}

// first_grant is the label of the first entry that allows this, or NULL.
static const char *first_grant(const struct options *options, const char *client,
                               const struct key *key, enum purpose purpose) {
  for (size_t i = 0; i < options->num_clients; i++) {
    const struct grant_options *entry = &options->clients[i];
    bool is_of_key = false;
    for (size_t k = 0; k < entry->num_keys; k++) {
      is_of_key = is_of_key || fits_key(entry->keys[k], key);
    }
    if (is_of_key && lists(entry->who.names, entry->who.num_names, client) &&
        lists(entry->purposes, entry->num_purposes, purpose_name(purpose))) {
      return entry->label;
    }
  }
  return NULL;
}

static bool is_same_name(const void *arg, const char *name) { return strcmp(arg, name) == 0; }

static void check_client(const struct options *options, const struct rights *rights,
                         const char *client) {
  static const uint8_t no_key[32];
  struct client_rights of_client;

  rights_of_client(&of_client, rights, no_key, is_same_name, client);
  for (size_t k = 0; k < keystore_num_keys(keys); k++) {
    struct key_rights of_key;
    rights_of_key(&of_key, &of_client, keystore_key(keys, k));
    for (enum purpose p = PURPOSE_TLS13; p < PURPOSE_NUM; p++) {
      const char *label = first_grant(options, client, keystore_key(keys, k), p);
      CHECK((label == NULL) == (of_key.by_purpose[p] == NULL));
      CHECK(label == NULL || of_key.by_purpose[p]->label == label);
    }
  }
}

static void check_grants(const struct options *options, const struct rights *rights) {
  CHECK(rights_num_grants(rights) == options->num_clients);
  check_client(options, rights, "nobody");
  for (size_t i = 0; i < options->num_clients && i < NUM_CLIENTS; i++) {
    for (size_t n = 0; n < options->clients[i].who.num_names && n < NUM_CLIENTS; n++) {
      check_client(options, rights, options->clients[i].who.names[n]);
    }
  }
}

// check_policies: a policy only ever takes away.
static void check_policies(const struct options *options) {
  const uint64_t opcodes = newcomer->opcodes;
  const int64_t lifetime_s = newcomer->dc_max_lifetime_s;
  struct key *key = newcomer;
  struct keystore *more = NULL;
  struct errmsg err = {0};

  atomic_fetch_add(&newcomer->num_refs, 1);
  const enum status st = keystore_with(&more, keys, &key, options, &err);
  CHECK((st == STATUS_OK) == (err.text[0] == '\0'));
  CHECK((newcomer->opcodes & ~opcodes) == 0);
  CHECK(newcomer->dc_max_lifetime_s >= 0 && newcomer->dc_max_lifetime_s <= lifetime_s);
  keystore_free(more);
  key_unref(key);  // NULL when the store took it
  newcomer->opcodes = opcodes;
  newcomer->dc_max_lifetime_s = lifetime_s;
}

static void check_texts(const struct options *options) {
  struct address address;
  struct pkcs11_uri uri;

  for (size_t i = 0; i < options->num_listen; i++) {
    (void)address_parse(&address, options->listen[i], NULL);
  }
  if (options->metrics.listen != NULL) {
    (void)address_parse(&address, options->metrics.listen, NULL);
  }
  for (size_t i = 0; i < options->num_pkcs11; i++) {
    (void)pkcs11_uri_parse(&uri, bytes_text(options->pkcs11[i].uri), NULL);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct options options = {0};
  struct rights *rights = NULL;
  struct errmsg err = {0};

  if (keys == NULL) {
    log_set_level(LOG_LEVEL_ERROR);
    load();
  }
  if (config_parse(&options, keyserver_options, (const char *)data, len, "f.json", "/etc/deputy",
                   &err) != STATUS_OK) {
    CHECK(strncmp(err.text, "f.json:", 7) == 0);
    return 0;
  }
  CHECK(options.num_listen > 0 && options.num_key_folders > 0 && options.audit.log.path != NULL);
  check_texts(&options);
  check_policies(&options);
  if (rights_new(&rights, &options, keys, &err) == STATUS_OK) {
    if (options.num_clients <= MAX_ENTRIES) {
      check_grants(&options, rights);
    }
    rights_free(rights);
  } else {
    CHECK(strncmp(err.text, "clients[", 8) == 0);
  }
  options_cleanup(&options);
  return 0;
}
