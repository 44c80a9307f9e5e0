// SPDX-License-Identifier: Apache-2.0
#include "common/tls/cert.h"

#include <openssl/bio.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/certs.h"

static EVP_PKEY *ca_key;
static X509 *ca;
static EVP_PKEY *leaf_key;

static int make_ca(void **state) {
  (void)state;
  ca_key = test_key_new(KEY_KIND_P256);
  leaf_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "Test CA", .is_ca = true}, ca_key, NULL, NULL);
  return 0;
}

static int free_ca(void **state) {
  (void)state;
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(leaf_key);
  test_remove_files();
  assert_int_equal(ERR_peek_error(), 0);  // nobody leaves errors behind
  return 0;
}

static enum status read_leaf_of(struct cert_info *out, const struct test_cert *spec,
                                EVP_PKEY *key) {
  X509 *x509 = test_cert_new(spec, key, ca, ca_key);
  struct bytes der = test_cert_der(x509);
  struct errmsg err;
  enum status st = cert_info_read(out, der, &err);

  OPENSSL_free((void *)(uintptr_t)der.data);
  X509_free(x509);
  return st;
}

static void assert_reads(struct cert_info *out, const struct test_cert *spec) {
  assert_int_equal(read_leaf_of(out, spec, leaf_key), STATUS_OK);
}

// --- one certificate -----------------------------------------------------------

static void reads_what_a_leaf_says(void **state) {
  struct cert_info info;
  uint8_t ca_id[32];
  uint8_t ca_ski[20];
  uint8_t key_id[32];
  uint8_t ski[20];
  uint8_t hash[32];
  (void)state;

  assert_reads(&info, &(struct test_cert){.cn = "Leaf, \"one\"",
                                          .names = "DNS:A.Test,DNS:*.b.test,IP:127.0.0.1",
                                          .has_delegation_usage = true,
                                          .is_must_staple = true,
                                          .not_before_s = 1793491200,
                                          .not_after_s = 1801267200,
                                          .serial = 0x1234});
  assert_int_equal(info.not_before_s, 1793491200);
  assert_int_equal(info.not_after_s, 1801267200);
  assert_int_equal(key_identify(key_id, ski, leaf_key), STATUS_OK);
  assert_memory_equal(info.key_id, key_id, 32);
  assert_memory_equal(info.ski, ski, 20);
  assert_int_equal(key_identify(ca_id, ca_ski, ca_key), STATUS_OK);
  SHA256(ca_ski, sizeof ca_ski, hash);
  assert_memory_equal(info.ca_id, hash, 32);
  assert_int_equal(info.kind, KEY_KIND_P256);
  assert_true(info.has_delegation_usage);
  assert_true(info.has_digital_signature);
  assert_true(info.is_must_staple);
  assert_true(info.may_delegate);
  assert_string_equal(info.subject, "CN=\"Leaf, \\\"one\\\"\"");
  assert_string_equal(info.issuer, "Test CA");
  assert_string_equal(info.serial, "1234");
  assert_int_equal(info.num_names, 2);
  assert_string_equal(info.names[0], "a.test");
  assert_string_equal(info.names[1], "*.b.test");
  cert_info_cleanup(&info);
  assert_null(info.names);
}

static void reads_times_before_1970_and_after_2050(void **state) {
  struct cert_info info;
  (void)state;

  assert_reads(&info,
               &(struct test_cert){.cn = "x", .not_before_s = -86399, .not_after_s = 253402300799});
  assert_int_equal(info.not_before_s, -86399);
  assert_int_equal(info.not_after_s, 253402300799);
  cert_info_cleanup(&info);
}

static void delegates_only_with_all_three(void **state) {
  static const struct {
    struct test_cert spec;
    bool has_usage;
    bool has_signature;
  } cases[] = {
      {{.cn = "x", .has_delegation_usage = true}, true, true},
      {{.cn = "x"}, false, true},
      {{.cn = "x", .has_delegation_usage = true, .key_usage = ""}, true, false},
      {{.cn = "x", .has_delegation_usage = true, .key_usage = "keyAgreement"}, true, false},
      // RFC 9345, section 4.2: never critical.
      {{.cn = "x", .has_delegation_usage = true, .is_delegation_usage_critical = true},
       false,
       true},
  };
  (void)state;

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct cert_info info;

    assert_reads(&info, &cases[i].spec);
    assert_int_equal(info.has_delegation_usage, cases[i].has_usage);
    assert_int_equal(info.has_digital_signature, cases[i].has_signature);
    assert_int_equal(info.may_delegate, i == 0);
    assert_false(info.is_must_staple);
    cert_info_cleanup(&info);
  }
}

static void tells_kinds_of_keys(void **state) {
  static const enum key_kind kinds[] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521, KEY_KIND_RSA,
                                        KEY_KIND_ED25519};
  (void)state;

  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    struct cert_info info;
    EVP_PKEY *key = test_key_new(kinds[i]);

    assert_int_equal(
        read_leaf_of(&info, &(struct test_cert){.cn = "x", .has_delegation_usage = true}, key),
        STATUS_OK);
    assert_int_equal(info.kind, kinds[i]);
    assert_int_equal(info.may_delegate, kinds[i] != KEY_KIND_RSA);
    cert_info_cleanup(&info);
    EVP_PKEY_free(key);
  }
}

static void refuses_what_is_not_one_certificate(void **state) {
  struct bytes der = test_cert_der(ca);
  uint8_t *longer = malloc(CERT_MAX_LEN + 1);
  struct cert_info info;
  struct errmsg err;
  (void)state;

  assert_non_null(longer);
  memset(longer, 0, CERT_MAX_LEN + 1);
  memcpy(longer, der.data, der.len);
  assert_int_equal(cert_info_read(&info, bytes_of(longer, der.len), &err), STATUS_OK);
  cert_info_cleanup(&info);
  assert_int_equal(cert_info_read(&info, bytes_of(longer, der.len + 1), &err), STATUS_FORMAT);
  assert_int_equal(cert_info_read(&info, bytes_of(longer, der.len - 1), &err), STATUS_FORMAT);
  assert_int_equal(cert_info_read(&info, bytes_of(longer, 0), NULL), STATUS_FORMAT);
  assert_int_equal(cert_info_read(&info, bytes_of(longer, CERT_MAX_LEN + 1), &err), STATUS_LIMIT);
  assert_non_null(strstr(err.text, "too long"));
  assert_int_equal(info.num_names, 0);
  free(longer);
  OPENSSL_free((void *)(uintptr_t)der.data);
}

static void refuses_too_many_names(void **state) {
  char *names = malloc((CERT_MAX_NAMES + 1) * 16);
  size_t len = 0;
  struct cert_info info;
  (void)state;

  assert_non_null(names);
  for (unsigned i = 0; i < CERT_MAX_NAMES; i++) {
    len += (size_t)snprintf(names + len, 16, "%sDNS:n%u.test", i == 0 ? "" : ",", i);
  }
  assert_reads(&info, &(struct test_cert){.cn = "x", .names = names});
  assert_int_equal(info.num_names, CERT_MAX_NAMES);
  cert_info_cleanup(&info);
  snprintf(names + len, 16, ",DNS:more.test");
  assert_int_equal(read_leaf_of(&info, &(struct test_cert){.cn = "x", .names = names}, leaf_key),
                   STATUS_LIMIT);
  free(names);
}

static void refuses_names_with_odd_bytes(void **state) {
  struct cert_info info;
  (void)state;

  assert_int_equal(
      read_leaf_of(&info, &(struct test_cert){.cn = "x", .names = "DNS:a b.test"}, leaf_key),
      STATUS_FORMAT);
}

static void covers_names_and_one_label_wildcards(void **state) {
  struct cert_info info;
  (void)state;

  assert_reads(&info, &(struct test_cert){.cn = "cn.test", .names = "DNS:a.test,DNS:*.b.test"});
  assert_true(cert_info_covers(&info, "a.test"));
  assert_true(cert_info_covers(&info, "A.TEST"));
  assert_true(cert_info_covers(&info, "x.b.test"));
  assert_true(cert_info_covers(&info, "x.B.test"));
  assert_false(cert_info_covers(&info, "b.test"));
  assert_false(cert_info_covers(&info, ".b.test"));
  assert_false(cert_info_covers(&info, "x.y.b.test"));
  assert_false(cert_info_covers(&info, "x.a.test"));
  assert_false(cert_info_covers(&info, "cn.test"));
  assert_false(cert_info_covers(&info, ""));
  cert_info_cleanup(&info);
}

// --- chains --------------------------------------------------------------------

struct chain {
  EVP_PKEY *middle_key;
  X509 *middle;
  X509 *leaf;
};

static void chain_init(struct chain *chain) {
  chain->middle_key = test_key_new(KEY_KIND_P256);
  chain->middle = test_cert_new(&(struct test_cert){.cn = "Middle", .is_ca = true},
                                chain->middle_key, ca, ca_key);
  chain->leaf =
      test_cert_new(&(struct test_cert){.cn = "leaf"}, leaf_key, chain->middle, chain->middle_key);
}

static void chain_cleanup(struct chain *chain) {
  X509_free(chain->middle);
  X509_free(chain->leaf);
  EVP_PKEY_free(chain->middle_key);
}

static enum status read_chain(const char *name, size_t *out_num, struct errmsg *err) {
  CRYPTO_BUFFER *certs[CERT_MAX_IN_CHAIN];
  enum status st = cert_chain_read(certs, out_num, test_path(name), NULL, err);

  cert_chain_free(certs, *out_num);
  return st;
}

static void reads_a_chain_leaf_first(void **state) {
  struct chain chain;
  CRYPTO_BUFFER *certs[CERT_MAX_IN_CHAIN];
  struct bytes der;
  size_t num = 0;
  struct errmsg err;
  (void)state;

  chain_init(&chain);
  test_write_certs("chain.pem", (X509 *[]){chain.leaf, chain.middle, ca}, 3);
  assert_int_equal(cert_chain_read(certs, &num, test_path("chain.pem"), NULL, &err), STATUS_OK);
  assert_int_equal(num, 3);
  der = test_cert_der(chain.leaf);
  assert_true(
      bytes_equal(der, bytes_of(CRYPTO_BUFFER_data(certs[0]), CRYPTO_BUFFER_len(certs[0]))));
  OPENSSL_free((void *)(uintptr_t)der.data);
  cert_chain_free(certs, num);
  chain_cleanup(&chain);
}

static void shares_chains_in_a_pool(void **state) {
  struct chain chain;
  struct cert_pool *pool = cert_pool_new();
  CRYPTO_BUFFER *a[CERT_MAX_IN_CHAIN];
  CRYPTO_BUFFER *b[CERT_MAX_IN_CHAIN];
  CRYPTO_BUFFER *shown;
  size_t num = 0;
  (void)state;

  chain_init(&chain);
  test_write_certs("chain.pem", (X509 *[]){chain.leaf, chain.middle, ca}, 3);
  assert_int_equal(cert_chain_read(a, &num, test_path("chain.pem"), pool, NULL), STATUS_OK);
  assert_int_equal(cert_chain_read(b, &num, test_path("chain.pem"), pool, NULL), STATUS_OK);
  assert_ptr_not_equal(a[0], b[0]);
  assert_ptr_equal(a[1], b[1]);
  assert_ptr_equal(a[2], b[2]);
  // What a handshake still shows outlives the chains, and the pool.
  shown = a[1];
  CRYPTO_BUFFER_up_ref(shown);
  cert_chain_give(a, num, pool);
  assert_int_equal(cert_chain_read(a, &num, test_path("chain.pem"), pool, NULL), STATUS_OK);
  assert_ptr_equal(a[1], b[1]);
  cert_chain_give(a, num, pool);
  cert_chain_give(b, num, pool);
  cert_pool_free(pool);  // aborts unless all of it has been given back
  assert_true(CRYPTO_BUFFER_len(shown) > 0);
  CRYPTO_BUFFER_free(shown);
  chain_cleanup(&chain);
}

static void refuses_a_chain_out_of_order(void **state) {
  struct chain chain;
  struct errmsg err;
  size_t num = 9;
  (void)state;

  chain_init(&chain);
  test_write_certs("chain.pem", (X509 *[]){chain.middle, chain.leaf, ca}, 3);
  assert_int_equal(read_chain("chain.pem", &num, &err), STATUS_FORMAT);
  assert_int_equal(num, 0);
  assert_non_null(strstr(err.text, "certificate 2 did not issue certificate 1"));
  test_write_certs("chain.pem", (X509 *[]){chain.leaf, ca}, 2);
  assert_int_equal(read_chain("chain.pem", &num, &err), STATUS_FORMAT);
  chain_cleanup(&chain);
}

static void refuses_a_chain_file_with_a_key(void **state) {
  struct errmsg err;
  size_t num;
  BIO *bio = BIO_new(BIO_s_mem());
  const uint8_t *data;
  size_t len;
  (void)state;

  assert_true(PEM_write_bio_X509(bio, ca));
  assert_true(PEM_write_bio_PKCS8PrivateKey(bio, leaf_key, NULL, NULL, 0, NULL, NULL));
  assert_true(BIO_mem_contents(bio, &data, &len));
  test_write_file("both.pem", data, len, 0600);
  BIO_free(bio);
  assert_int_equal(read_chain("both.pem", &num, &err), STATUS_REFUSED);
  assert_non_null(strstr(err.text, "private key"));
}

static void refuses_files_that_are_no_chain(void **state) {
  X509 *many[CERT_MAX_IN_CHAIN + 1];
  struct errmsg err;
  size_t num;
  static const char damaged[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  static const char open[] = "-----BEGIN CERTIFICATE-----\nAAAA\n";
  (void)state;

  test_write_file("empty.pem", "", 0, 0644);
  assert_int_equal(read_chain("empty.pem", &num, &err), STATUS_FORMAT);
  test_write_file("damaged.pem", damaged, sizeof damaged - 1, 0644);
  assert_int_equal(read_chain("damaged.pem", &num, &err), STATUS_FORMAT);
  test_write_file("open.pem", open, sizeof open - 1, 0644);
  assert_int_equal(read_chain("open.pem", &num, &err), STATUS_FORMAT);
  assert_int_equal(read_chain("missing.pem", &num, &err), STATUS_SYSTEM);
  for (size_t i = 0; i <= CERT_MAX_IN_CHAIN; i++) {
    many[i] = ca;  // issues itself
  }
  test_write_certs("many.pem", many, CERT_MAX_IN_CHAIN);
  assert_int_equal(read_chain("many.pem", &num, &err), STATUS_OK);
  test_write_certs("many.pem", many, CERT_MAX_IN_CHAIN + 1);
  assert_int_equal(read_chain("many.pem", &num, &err), STATUS_LIMIT);
}

// --- keys ----------------------------------------------------------------------

static void assert_reads_key(const char *name, const EVP_PKEY *expected) {
  EVP_PKEY *key = NULL;
  struct errmsg err = {{0}};
  enum status st = key_read(&key, test_path(name), &err);

  assert_string_equal(err.text, "");
  assert_int_equal(st, STATUS_OK);
  assert_int_equal(EVP_PKEY_cmp(key, expected), 1);
  EVP_PKEY_free(key);
}

static void write_bio(const char *name, BIO *bio) {
  const uint8_t *data;
  size_t len;

  assert_true(BIO_mem_contents(bio, &data, &len));
  test_write_file(name, data, len, 0600);
  BIO_free(bio);
}

static void reads_keys_of_all_syntaxes(void **state) {
  // As "openssl ecparam -genkey" writes it: with the parameters before the key.
  static const char parameters[] =
      "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
  static const enum key_kind kinds[] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521, KEY_KIND_RSA,
                                        KEY_KIND_ED25519};
  EVP_PKEY *rsa = test_key_new(KEY_KIND_RSA);
  BIO *bio = BIO_new(BIO_s_mem());
  (void)state;

  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    EVP_PKEY *key = test_key_new(kinds[i]);

    test_write_key("key.pem", key, 0600);
    assert_reads_key("key.pem", key);
    EVP_PKEY_free(key);
  }
  assert_int_equal(BIO_write(bio, parameters, sizeof parameters - 1), sizeof parameters - 1);
  assert_true(
      PEM_write_bio_ECPrivateKey(bio, EVP_PKEY_get0_EC_KEY(leaf_key), NULL, NULL, 0, NULL, NULL));
  write_bio("sec1.pem", bio);
  assert_reads_key("sec1.pem", leaf_key);
  bio = BIO_new(BIO_s_mem());
  assert_true(PEM_write_bio_RSAPrivateKey(bio, EVP_PKEY_get0_RSA(rsa), NULL, NULL, 0, NULL, NULL));
  write_bio("pkcs1.pem", bio);
  assert_reads_key("pkcs1.pem", rsa);
  bio = BIO_new(BIO_s_mem());
  assert_true(i2d_PrivateKey_bio(bio, leaf_key));
  write_bio("key.der", bio);
  assert_reads_key("key.der", leaf_key);
  EVP_PKEY_free(rsa);
}

static void assert_refuses_key(const char *name, enum status expected, const char *word) {
  EVP_PKEY *key = leaf_key;
  struct errmsg err = {{0}};

  assert_int_equal(key_read(&key, test_path(name), &err), expected);
  assert_null(key);
  if (strstr(err.text, word) == NULL || strstr(err.text, name) == NULL) {
    fail_msg("no \"%s\" and \"%s\" in: %s", word, name, err.text);
  }
}

static void refuses_keys_that_others_may_read(void **state) {
  (void)state;
  test_write_key("open.key", leaf_key, 0640);
  assert_refuses_key("open.key", STATUS_REFUSED, "");
  test_write_key("open.key", leaf_key, 0604);
  assert_refuses_key("open.key", STATUS_REFUSED, "");
  test_write_key("open.key", leaf_key, 0400);
  assert_reads_key("open.key", leaf_key);
}

static void refuses_encrypted_keys(void **state) {
  static const char legacy[] =
      "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
      "DEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAA\n"
      "-----END EC PRIVATE KEY-----\n";
  BIO *bio = BIO_new(BIO_s_mem());
  (void)state;

  assert_true(
      PEM_write_bio_PKCS8PrivateKey(bio, leaf_key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL));
  write_bio("encrypted.key", bio);
  assert_refuses_key("encrypted.key", STATUS_REFUSED, "openssl pkey -in");
  test_write_file("legacy.key", legacy, sizeof legacy - 1, 0600);
  assert_refuses_key("legacy.key", STATUS_REFUSED, "encrypted");
}

static void refuses_files_that_are_no_key(void **state) {
  static const char damaged[] = "-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n";
  static const char short_der[] =
      "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
  static const char open[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n";
  EVP_PKEY *small = test_rsa_key_new(1024);
  EVP_PKEY *p224 = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_secp224r1);
  BIO *bio = BIO_new(BIO_s_mem());
  (void)state;

  assert_refuses_key("missing.key", STATUS_SYSTEM, "");
  test_write_file("empty.key", "", 0, 0600);
  assert_refuses_key("empty.key", STATUS_FORMAT, "no private key");
  test_write_file("damaged.key", damaged, sizeof damaged - 1, 0600);
  assert_refuses_key("damaged.key", STATUS_FORMAT, "base64");
  test_write_file("short.key", short_der, sizeof short_der - 1, 0600);
  assert_refuses_key("short.key", STATUS_FORMAT, "no private key");
  test_write_file("cut.key", open, sizeof open - 1, 0600);
  assert_refuses_key("cut.key", STATUS_FORMAT, "no end");
  assert_true(PEM_write_bio_X509(bio, ca));
  write_bio("cert.key", bio);
  assert_refuses_key("cert.key", STATUS_FORMAT, "no private key in this file");
  bio = BIO_new(BIO_s_mem());
  assert_true(PEM_write_bio_PKCS8PrivateKey(bio, leaf_key, NULL, NULL, 0, NULL, NULL));
  assert_true(PEM_write_bio_PKCS8PrivateKey(bio, ca_key, NULL, NULL, 0, NULL, NULL));
  write_bio("two.key", bio);
  assert_refuses_key("two.key", STATUS_FORMAT, "more than one");
  test_write_key("small.key", small, 0600);
  assert_refuses_key("small.key", STATUS_FORMAT, "2048");
  assert_true(EC_KEY_generate_key(ec) && EVP_PKEY_set1_EC_KEY(p224, ec));
  test_write_key("p224.key", p224, 0600);
  assert_refuses_key("p224.key", STATUS_FORMAT, "P-256");
  EC_KEY_free(ec);
  EVP_PKEY_free(p224);
  EVP_PKEY_free(small);
}

static void identifies_private_and_public_half_alike(void **state) {
  EVP_PKEY *public_key = X509_get_pubkey(ca);
  uint8_t a_id[32], b_id[32], a_ski[20], b_ski[20];
  uint8_t *spki = NULL;
  size_t len = 0;
  (void)state;

  assert_int_equal(key_identify(a_id, a_ski, ca_key), STATUS_OK);
  assert_int_equal(key_identify(b_id, b_ski, public_key), STATUS_OK);
  assert_memory_equal(a_id, b_id, 32);
  assert_memory_equal(a_ski, b_ski, 20);
  assert_int_equal(key_spki(&spki, &len, ca_key), STATUS_OK);
  SHA256(spki, len, b_id);
  assert_memory_equal(a_id, b_id, 32);
  OPENSSL_free(spki);
  EVP_PKEY_free(public_key);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_what_a_leaf_says),
      cmocka_unit_test(reads_times_before_1970_and_after_2050),
      cmocka_unit_test(delegates_only_with_all_three),
      cmocka_unit_test(tells_kinds_of_keys),
      cmocka_unit_test(refuses_what_is_not_one_certificate),
      cmocka_unit_test(refuses_too_many_names),
      cmocka_unit_test(refuses_names_with_odd_bytes),
      cmocka_unit_test(covers_names_and_one_label_wildcards),
      cmocka_unit_test(reads_a_chain_leaf_first),
      cmocka_unit_test(shares_chains_in_a_pool),
      cmocka_unit_test(refuses_a_chain_out_of_order),
      cmocka_unit_test(refuses_a_chain_file_with_a_key),
      cmocka_unit_test(refuses_files_that_are_no_chain),
      cmocka_unit_test(reads_keys_of_all_syntaxes),
      cmocka_unit_test(refuses_keys_that_others_may_read),
      cmocka_unit_test(refuses_encrypted_keys),
      cmocka_unit_test(refuses_files_that_are_no_key),
      cmocka_unit_test(identifies_private_and_public_half_alike),
  };
  return cmocka_run_group_tests(tests, make_ca, free_ca);
}
