// SPDX-License-Identifier: Apache-2.0
#include "common/tls/ech.h"

#include <fcntl.h>
#include <openssl/bytestring.h>
#include <openssl/curve25519.h>
#include <openssl/err.h>
#include <openssl/hpke.h>
#include <openssl/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/bytes.h"
#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

static char folder[] = "/tmp/deputy-ech-XXXXXX";

static int make_folder(void **state) {
  (void)state;
  assert_non_null(mkdtemp(folder));
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  return rmdir(folder);
}

// --- files -------------------------------------------------------------------------------

struct ech_file {
  char path[64];
  uint8_t list[256];  // ECHConfigList
  size_t len;
};

static void put_pem(FILE *out, const char *what, struct bytes body) {
  char *text = bytes_to_base64(body);
  (void)fprintf(out, "-----BEGIN %s-----\n%s\n-----END %s-----\n", what, text, what);
  free(text);
}

// Makes a file of RFC 9934; `key_byte` chooses the key, `config_key_byte` that of the
// configuration.
static void make_file(struct ech_file *out, uint8_t id, uint8_t key_byte, uint8_t config_key_byte) {
  uint8_t der[48] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                     0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20};
  uint8_t secret[32];
  uint8_t *config = NULL;
  size_t config_len = 0;
  EVP_HPKE_KEY key;
  FILE *file = NULL;

  memset(secret, config_key_byte, sizeof secret);
  memset(der + 16, key_byte, 32);
  EVP_HPKE_KEY_zero(&key);
  assert_true(EVP_HPKE_KEY_init(&key, EVP_hpke_x25519_hkdf_sha256(), secret, sizeof secret));
  assert_true(SSL_marshal_ech_config(&config, &config_len, id, &key, "public.test", 64));
  EVP_HPKE_KEY_cleanup(&key);
  out->list[0] = (uint8_t)(config_len >> 8);
  out->list[1] = (uint8_t)config_len;
  assert_true(config_len + 2 <= sizeof out->list);
  memcpy(out->list + 2, config, config_len);
  out->len = config_len + 2;
  OPENSSL_free(config);
  (void)snprintf(out->path, sizeof out->path, "%s/%u", folder, id);
  file = fopen(out->path, "w");
  assert_non_null(file);
  assert_int_equal(fchmod(fileno(file), 0600), 0);
  put_pem(file, "PRIVATE KEY", bytes_of(der, sizeof der));
  put_pem(file, "ECHCONFIG", bytes_of(out->list, out->len));
  assert_int_equal(fclose(file), 0);
}

static enum status load(SSL_ECH_KEYS **out, struct ech_file *first, struct ech_file *second) {
  char *paths[] = {first->path, second != NULL ? second->path : NULL};
  struct errmsg err = {0};
  const enum status st = ech_keys_load(out, paths, second != NULL ? 2 : 1, &err);

  assert_int_equal(st != STATUS_OK, err.text[0] != '\0');
  return st;
}

// --- handshakes --------------------------------------------------------------------------

static struct {
  bool was_accepted;   // as the server sees it
  char name[64];       // that the server was asked for
  uint8_t retry[256];  // what the client was told to use
  size_t retry_len;
  bool is_done;
} seen;

static enum ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello) {
  (void)snprintf(seen.name, sizeof seen.name, "%s",
                 SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name));
  return ssl_select_cert_success;
}

static enum ssl_verify_result_t accept_all(SSL *ssl, uint8_t *out_alert) {
  (void)ssl;
  (void)out_alert;
  return ssl_verify_ok;
}

static void visit(SSL_ECH_KEYS *keys, const struct ech_file *of_client) {
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  X509 *leaf =
      test_cert_new(&(struct test_cert){.cn = "x", .names = "DNS:secret.test"}, key, NULL, NULL);
  SSL_CTX *server = SSL_CTX_new(TLS_method());
  SSL_CTX *client = SSL_CTX_new(TLS_method());
  const uint8_t *retry = NULL;
  struct tls_pair pair;

  memset(&seen, 0, sizeof seen);
  assert_true(SSL_CTX_use_certificate(server, leaf) && SSL_CTX_use_PrivateKey(server, key));
  assert_true(SSL_CTX_set1_ech_keys(server, keys));
  SSL_CTX_set_select_certificate_cb(server, on_hello);
  SSL_CTX_set_custom_verify(client, SSL_VERIFY_PEER, accept_all);
  tls_pair_init(&pair, client, server);
  assert_true(SSL_set_tlsext_host_name(pair.client, "secret.test"));
  assert_true(SSL_set1_ech_config_list(pair.client, of_client->list, of_client->len));
  seen.is_done = tls_pair_run(&pair);
  seen.was_accepted = SSL_ech_accepted(pair.server);
  if (!seen.is_done) {
    SSL_get0_ech_retry_configs(pair.client, &retry, &seen.retry_len);
    assert_in_range(seen.retry_len, 1, sizeof seen.retry);
    memcpy(seen.retry, retry, seen.retry_len);
  }
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
  X509_free(leaf);
  EVP_PKEY_free(key);
}

// --- tests -------------------------------------------------------------------------------

static void decrypts_by_each_key(void **state) {
  (void)state;
  struct ech_file current, earlier;
  SSL_ECH_KEYS *keys = NULL;

  make_file(&current, 1, 7, 7);
  make_file(&earlier, 2, 8, 8);
  assert_int_equal(load(&keys, &current, &earlier), STATUS_OK);
  visit(keys, &current);
  assert_true(seen.is_done && seen.was_accepted);
  assert_string_equal(seen.name, "secret.test");
  visit(keys, &earlier);
  assert_true(seen.is_done && seen.was_accepted);
  SSL_ECH_KEYS_free(keys);
  (void)unlink(current.path);
  (void)unlink(earlier.path);
}

static void tells_others_the_first_files_configuration(void **state) {
  (void)state;
  struct ech_file current, earlier, unknown;
  SSL_ECH_KEYS *keys = NULL;

  make_file(&current, 1, 7, 7);
  make_file(&earlier, 2, 8, 8);
  make_file(&unknown, 3, 9, 9);
  assert_int_equal(load(&keys, &current, &earlier), STATUS_OK);
  visit(keys, &unknown);
  assert_false(seen.is_done || seen.was_accepted);
  assert_string_equal(seen.name, "public.test");
  assert_int_equal(seen.retry_len, current.len);
  assert_memory_equal(seen.retry, current.list, current.len);
  SSL_ECH_KEYS_free(keys);
  (void)unlink(current.path);
  (void)unlink(earlier.path);
  (void)unlink(unknown.path);
}

static void refuses_what_does_not_fit(void **state) {
  (void)state;
  struct ech_file file, same_id;
  SSL_ECH_KEYS *keys = NULL;

  make_file(&file, 1, 7, 8);  // another key's configuration
  assert_int_equal(load(&keys, &file, NULL), STATUS_FORMAT);
  assert_null(keys);
  make_file(&file, 1, 7, 7);
  same_id = file;
  assert_int_equal(load(&keys, &file, &same_id), STATUS_FORMAT);
  assert_int_equal(chmod(file.path, 0640), 0);
  assert_int_equal(load(&keys, &file, NULL), STATUS_REFUSED);
  assert_int_equal(unlink(file.path), 0);
  assert_int_equal(load(&keys, &file, NULL), STATUS_SYSTEM);
}

static void refuses_damaged_files(void **state) {
  (void)state;
  struct ech_file file;
  SSL_ECH_KEYS *keys = NULL;
  char text[2048];
  size_t len = 0;
  int fd = -1;

  make_file(&file, 1, 7, 7);
  fd = open(file.path, O_RDONLY);
  len = (size_t)read(fd, text, sizeof text);
  (void)close(fd);
  assert_in_range(len, 100, sizeof text - 1);
  for (size_t i = 0; i + 1 < len; i += 5) {
    assert_int_equal(truncate(file.path, (off_t)i), 0);
    if (load(&keys, &file, NULL) != STATUS_FORMAT) {
      fail_msg("cut after %zu bytes", i);
    }
  }
  (void)unlink(file.path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decrypts_by_each_key),
      cmocka_unit_test(tells_others_the_first_files_configuration),
      cmocka_unit_test(refuses_what_does_not_fit),
      cmocka_unit_test(refuses_damaged_files),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
