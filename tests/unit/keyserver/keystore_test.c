// SPDX-License-Identifier: Apache-2.0
// Loading and finding. What stops a start is tried end to end, with the messages
// (tests/e2e/test_keyserver_life.py).
#include "keyserver/keystore.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/tls/cert.h"
#include "common/tls/sealing.h"
#include "tests/support/certs.h"
#include "tests/unit/keyserver/fixture.h"

#define NUM_KEYS 300  // the table grows several times

static int teardown(void **state) {
  (void)state;
  test_remove_files();
  return 0;
}

static void finds_each_of_many_keys(void **state) {
  static uint8_t skis[NUM_KEYS][FRAME_SKI_LEN];
  struct options options;
  struct keystore *ks = NULL;
  struct errmsg err = {0};
  uint8_t unknown[FRAME_SKI_LEN];
  (void)state;

  (void)mkdir(test_path("keys"), 0700);
  for (int i = 0; i < NUM_KEYS; i++) {
    EVP_PKEY *key = test_key_new(KEY_KIND_P256);
    char name[64];
    uint8_t key_id[32];
    (void)snprintf(name, sizeof name, "keys/k%d.key", i);
    test_write_key(name, key, 0600);
    assert_int_equal(key_identify(key_id, skis[i], key), STATUS_OK);
    EVP_PKEY_free(key);
  }
  fixture_options(&options, fixture_config);
  assert_int_equal(keystore_load(&ks, &options, &err), STATUS_OK);
  assert_int_equal(keystore_num_keys(ks), NUM_KEYS);
  for (int i = 0; i < NUM_KEYS; i++) {
    char label[16];
    const struct key *key = keystore_find(ks, skis[i]);
    (void)snprintf(label, sizeof label, "k%d", i);
    assert_non_null(key);
    assert_string_equal(key->label, label);
    memcpy(unknown, skis[i], sizeof unknown);
    unknown[FRAME_SKI_LEN - 1] ^= 1;  // the same place in the table
    assert_null(keystore_find(ks, unknown));
  }
  keystore_free(ks);
  options_cleanup(&options);
}

static const struct key *find(const struct fixture *f, enum fixture_key which) {
  uint8_t id[32];
  uint8_t ski[FRAME_SKI_LEN];
  assert_int_equal(key_identify(id, ski, f->pkeys[which]), STATUS_OK);
  return keystore_find(f->keys, ski);
}

static void names_keys_by_their_certificates(void **state) {
  struct fixture f;
  (void)state;
  fixture_load(&f, NULL);
  for (int i = 0; i < FIX_NUM; i++) {
    char host[64];
    const struct key *key = find(&f, (enum fixture_key)i);
    (void)snprintf(host, sizeof host, "%s.test", fixture_label((enum fixture_key)i));
    assert_non_null(key);
    assert_int_equal(key->num_names, 1);
    assert_string_equal(key->names[0], host);
  }
  fixture_cleanup(&f);
}

static void limits_keys_by_the_first_policy_that_fits(void **state) {
  struct fixture f;
  (void)state;
  fixture_load(&f, NULL);
  assert_int_equal(find(&f, FIX_SHORT)->dc_max_lifetime_s, 24 * 3600);
  assert_int_equal(find(&f, FIX_SHORT)->opcodes, UINT64_C(1) << FRAME_OP_ECDSA_SHA256);
  assert_int_equal(find(&f, FIX_P256)->dc_max_lifetime_s, 7 * 24 * 3600);
  assert_int_equal(find(&f, FIX_P256)->opcodes, UINT64_C(1) << FRAME_OP_ECDSA_SHA256 |
                                                    UINT64_C(1) << FRAME_OP_ECDSA_SHA384 |
                                                    UINT64_C(1) << FRAME_OP_ECDSA_SHA512);
  assert_int_equal(find(&f, FIX_ED25519)->opcodes, UINT64_C(1) << FRAME_OP_ED25519);
  assert_true(find(&f, FIX_RSA)->cost > 20 * find(&f, FIX_P256)->cost);
  fixture_cleanup(&f);
}

#define SEALING_CONFIG                                                            \
  "{\"listen\": [\"127.0.0.1:0\"], \"key_folders\": [\"%s\"],"                    \
  " \"tls\": {\"ca\": \"x\", \"certificate\": \"x\", \"key\": \"x\"},"            \
  " \"sealing\": {\"identity\": \"IDENTITY\", \"attributes\": [\"region: EU\"]}," \
  " \"audit\": {\"path\": \"stderr\"}}"

static void write_sealed(const char *name, const char *label, const char *policy,
                         const struct sealing_recipient *to) {
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  char *text = NULL;
  size_t len = 0;
  assert_int_equal(sealing_seal(&text, &len, key, label, bytes_text(policy), to, 1, NULL),
                   STATUS_OK);
  test_write_file(name, text, len, 0644);
  free(text);
  EVP_PKEY_free(key);
}

// One for this server, one for other regions, one that is sealed to another server.
static void load_sealed(struct keystore **out, struct options *options) {
  struct sealing_identity *own = NULL;
  struct sealing_identity *other = NULL;
  struct sealing_recipient to = {.name = "ks"};
  struct secret pem = {0};
  struct errmsg err = {0};

  (void)mkdir(test_path("keys"), 0700);
  assert_int_equal(sealing_identity_new(&other, &pem, NULL), STATUS_OK);
  secret_wipe(&pem);
  assert_int_equal(sealing_identity_new(&own, &pem, NULL), STATUS_OK);
  test_write_file("identity", pem.data, pem.len, 0600);
  secret_wipe(&pem);
  memcpy(to.public_key, sealing_identity_public(own), sizeof to.public_key);
  write_sealed("keys/file.sealed", "label", "region: EU", &to);
  write_sealed("keys/us.sealed", "us", "region: US", &to);
  memcpy(to.public_key, sealing_identity_public(other), sizeof to.public_key);
  write_sealed("keys/elsewhere.sealed", "elsewhere", "region: EU", &to);
  fixture_options(options, SEALING_CONFIG);
  free(options->sealing.identity);
  options->sealing.identity = strdup(test_path("identity"));
  if (keystore_load(out, options, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  sealing_identity_free(own);
  sealing_identity_free(other);
}

static void assert_sealed(const struct keystore *ks, size_t num_keys) {
  assert_int_equal(keystore_num_keys(ks), num_keys);
  assert_int_equal(keystore_num_sealed(ks, SEALED_LOADED), 1);
  assert_int_equal(keystore_num_sealed(ks, SEALED_NOT_ADMITTED), 1);
  assert_int_equal(keystore_num_sealed(ks, SEALED_NOT_RECIPIENT), 1);
  assert_int_equal(keystore_num_sealed(ks, SEALED_NO_IDENTITY), 0);
  assert_true(keystore_has_label(ks, "label"));
  assert_false(keystore_has_label(ks, "file"));
}

static void opens_sealed_keys_that_are_for_this_server(void **state) {
  struct options options;
  struct keystore *ks = NULL;
  struct keystore *more = NULL;
  EVP_PKEY *pkey = test_key_new(KEY_KIND_P256);
  struct key *key = NULL;
  (void)state;

  load_sealed(&ks, &options);
  assert_sealed(ks, 1);
  assert_true(keystore_reads_file("a.sealed"));
  // What is known of the files stays known when a key is added.
  assert_int_equal(key_new(&key, &pkey, "new", NULL), STATUS_OK);
  assert_int_equal(keystore_with(&more, ks, &key, &options, NULL), STATUS_OK);
  assert_sealed(more, 2);
  keystore_free(more);
  keystore_free(ks);

  free(options.sealing.identity);
  options.sealing.identity = NULL;
  assert_int_equal(keystore_load(&ks, &options, NULL), STATUS_OK);
  assert_int_equal(keystore_num_keys(ks), 0);
  assert_int_equal(keystore_num_sealed(ks, SEALED_NO_IDENTITY), 3);
  keystore_free(ks);
  options_cleanup(&options);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(finds_each_of_many_keys, teardown),
      cmocka_unit_test_teardown(opens_sealed_keys_that_are_for_this_server, teardown),
      cmocka_unit_test(names_keys_by_their_certificates),
      cmocka_unit_test(limits_keys_by_the_first_policy_that_fits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
