// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/keyserver/fixture.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/support/certs.h"

#define FOLDER "keys"

const char fixture_config[] =
    "{\"listen\": [\"127.0.0.1:0\"], \"key_folders\": [\"%s\"],"
    " \"tls\": {\"ca\": \"x\", \"certificate\": \"x\", \"key\": \"x\"},"
    " \"audit\": {\"path\": \"stderr\"},"
    " \"clients\": ["
    "  {\"label\": \"proxy\", \"names\": [\"proxy.test\"], \"keys\": [\"*\"],"
    "   \"purposes\": [\"tls13\", \"tls12\"]},"
    "  {\"label\": \"issuer\", \"names\": [\"issuer.test\"], \"keys\": [\"*\"],"
    "   \"purposes\": [\"dc\"], \"dc_max_lifetime\": \"5d\"},"
    "  {\"label\": \"certmanager\", \"names\": [\"certmanager.test\"], \"keys\": [\"*\"],"
    "   \"purposes\": [\"csr\"]},"
    "  {\"label\": \"foreign\", \"names\": [\"foreign.test\"], \"keys\": [\"label:p256\"],"
    "   \"purposes\": [\"blind\"]},"
    "  {\"label\": \"slow\", \"names\": [\"slow.test\"], \"keys\": [\"*\"],"
    "   \"purposes\": [\"tls13\"], \"rate_per_s\": 10, \"burst\": 3}],"
    " \"key_policies\": ["
    "  {\"keys\": [\"label:short\"], \"dc_max_lifetime\": \"1d\","
    "   \"schemes\": [\"ecdsa_secp256r1_sha256\"]}]}";

const char *fixture_label(enum fixture_key key) {
  static const char *const labels[FIX_NUM] = {"p256", "p384", "rsa", "ed25519", "short"};
  return labels[key];
}

static void write_key(struct fixture *f, enum fixture_key at, enum key_kind kind) {
  char name[64];
  char host[64];
  struct test_cert spec = {
      .cn = "leaf", .names = host, .eku = "serverAuth", .has_delegation_usage = true};

  f->pkeys[at] = test_key_new(kind);
  (void)snprintf(name, sizeof name, FOLDER "/%s.key", fixture_label(at));
  test_write_key(name, f->pkeys[at], 0600);
  (void)snprintf(host, sizeof host, "DNS:%s.test", fixture_label(at));
  f->certs[at] = test_cert_new(&spec, f->pkeys[at], NULL, NULL);
  // Not called like its key, as only what it says counts.
  (void)snprintf(name, sizeof name, FOLDER "/certificate-%d.pem", (int)at);
  test_write_certs(name, &f->certs[at], 1);
}

void fixture_options(struct options *out, const char *config) {
  char text[8192];
  struct errmsg err = {0};
  int len = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  len = snprintf(text, sizeof text, config, test_path(FOLDER));
#pragma GCC diagnostic pop

  assert_in_range(len, 1, sizeof text - 1);
  memset(out, 0, sizeof *out);
  if (config_parse(out, keyserver_options, text, (size_t)len, "test.json", "/", &err) !=
      STATUS_OK) {
    fail_msg("%s", err.text);
  }
}

void fixture_load(struct fixture *f, const char *config) {
  static const enum key_kind kinds[FIX_NUM] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_RSA,
                                               KEY_KIND_ED25519, KEY_KIND_P256};
  struct errmsg err = {0};

  memset(f, 0, sizeof *f);
  (void)mkdir(test_path(FOLDER), 0700);
  for (int i = 0; i < FIX_NUM; i++) {
    write_key(f, (enum fixture_key)i, kinds[i]);
  }
  f->dc_key = test_key_new(KEY_KIND_P256);
  fixture_options(&f->options, config == NULL ? fixture_config : config);
  if (keystore_load(&f->keys, &f->options, &err) != STATUS_OK ||
      rights_new(&f->rights, &f->options, f->keys, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
}

void fixture_cleanup(struct fixture *f) {
  rights_free(f->rights);
  keystore_free(f->keys);
  options_cleanup(&f->options);
  for (int i = 0; i < FIX_NUM; i++) {
    EVP_PKEY_free(f->pkeys[i]);
    X509_free(f->certs[i]);
  }
  EVP_PKEY_free(f->dc_key);
  memset(f, 0, sizeof *f);
  test_remove_files();
}

static bool has_name(const void *arg, const char *name) { return strcasecmp(arg, name) == 0; }

void fixture_asker(struct asker *out, const struct fixture *f, const char *name) {
  static const uint8_t no_key[32];
  asker_init(out, f->keys);
  rights_of_client(&out->rights, f->rights, no_key, has_name, name);
}
