// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/certstore/store_fixture.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>

static X509 *cas[2];
static EVP_PKEY *ca_keys[2];
static struct bytes ca_ders[2];
static struct fixture_chain chains[FIXTURE_MAX_CHAINS];
static size_t num_chains;

void fixture_init(void) {
  static const char *const names[2] = {"CA One", "CA Two"};
  for (size_t i = 0; i < 2; i++) {
    ca_keys[i] = test_key_new(KEY_KIND_P256);
    cas[i] =
        test_cert_new(&(struct test_cert){.cn = names[i], .is_ca = true}, ca_keys[i], NULL, NULL);
    ca_ders[i] = test_cert_der(cas[i]);
  }
}

void fixture_cleanup(void) {
  for (size_t i = 0; i < num_chains; i++) {
    OPENSSL_free((void *)(uintptr_t)chains[i].certs[0].data);
    EVP_PKEY_free(chains[i].key);
  }
  num_chains = 0;
  for (size_t i = 0; i < 2; i++) {
    X509_free(cas[i]);
    EVP_PKEY_free(ca_keys[i]);
    OPENSSL_free((void *)(uintptr_t)ca_ders[i].data);
  }
  test_remove_files();
}

int fixture_begin(void **state) {
  (void)state;
  fixture_init();
  return 0;
}

int fixture_end(void **state) {
  (void)state;
  fixture_cleanup();
  return 0;
}

struct fixture_chain *fixture_chain(unsigned ca, const struct test_cert *spec, EVP_PKEY *key) {
  CHECK(num_chains < FIXTURE_MAX_CHAINS && ca < 2);
  struct fixture_chain *chain = &chains[num_chains++];
  if (key == NULL) {
    chain->key = test_key_new(KEY_KIND_P256);
  } else {
    EVP_PKEY_up_ref(key);
    chain->key = key;
  }
  X509 *x509 = test_cert_new(spec, chain->key, cas[ca], ca_keys[ca]);
  chain->certs[0] = test_cert_der(x509);
  chain->certs[1] = ca_ders[ca];
  X509_free(x509);
  return chain;
}

const char *fixture_folder(void) {
  static unsigned number;
  char name[32];
  (void)snprintf(name, sizeof(name), "store%u", number++);
  return test_path(name);
}

struct store *fixture_open(const char *folder, enum store_mode mode) {
  struct store *store = NULL;
  struct errmsg err = {0};
  if (store_open(&store, folder, &(struct store_options){.mode = mode}, &err) != STATUS_OK) {
    (void)fprintf(stderr, "%s\n", err.text);
    abort();
  }
  return store;
}

struct adding {
  const struct fixture_chain *chain;
  unsigned level;
  bool is_replacing;
};

static enum status add(struct store_txn *txn, void *arg, struct errmsg *err) {
  const struct adding *adding = arg;
  const struct store_addition addition = {.certs = adding->chain->certs,
                                          .num_certs = 2,
                                          .level = adding->level,
                                          .is_replacing = adding->is_replacing};
  return store_add(txn, &addition, err);
}

enum status fixture_add(struct store *store, const struct fixture_chain *chain, unsigned level,
                        bool is_replacing, struct errmsg *err) {
  struct adding adding = {chain, level, is_replacing};
  return store_write(store, add, &adding, err);
}

static void on_fault(void *arg, const char *sentence) {
  (void)arg;
  (void)fprintf(stderr, "verify: %s\n", sentence);
}

bool fixture_verify(struct store *store) {
  struct store_reader *reader = NULL;
  const struct store_verify_options options = {.is_deep = true, .on_fault = on_fault};
  struct errmsg err = {0};
  CHECK(store_reader_new(&reader, store, &err) == STATUS_OK);
  enum status st = store_verify(reader, &options, &err);
  store_reader_free(reader);
  return st == STATUS_OK;
}
