// SPDX-License-Identifier: Apache-2.0
#include "common/tls/groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/tls/features.h"
#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

#define X25519MLKEM768 0x11ec

static void reads_a_list_in_order(void **state) {
  (void)state;
  struct tls_groups groups = {0};
  struct errmsg err = {0};

  assert_int_equal(tls_groups_parse(&groups, "P-384:X25519:prime256v1", &err), STATUS_OK);
  assert_int_equal(groups.num, 3);
  assert_int_equal(groups.ids[0], 24);
  assert_int_equal(groups.ids[1], 29);
  assert_int_equal(groups.ids[2], 23);
}

static void refuses_what_is_no_list(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",  ":",       "P-999",         "X25519:", ":P-256", "P-256 ", "x25519:X25519",
      "?", "??P-256", "P-256:?nothing"};
  struct tls_groups groups = {.num = 77};

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct errmsg err = {0};
    if (tls_groups_parse(&groups, bad[i], &err) != STATUS_CONFIG || err.text[0] == '\0') {
      fail_msg("\"%s\"", bad[i]);
    }
    assert_int_equal(groups.num, 77);
  }
}

static void takes_what_there_may_be_if_there_is(void **state) {
  (void)state;
  struct tls_groups groups = {0};
  struct errmsg err = {0};
  const bool has_it = tls_groups_known("X25519MLKEM768");

  assert_int_equal(tls_groups_parse(&groups, "?X25519MLKEM768:X25519", &err), STATUS_OK);
  assert_int_equal(groups.num, has_it ? 2 : 1);
  assert_int_equal(groups.ids[0], has_it ? X25519MLKEM768 : 29);
  assert_int_equal(tls_groups_parse(&groups, "X25519MLKEM768", &err),
                   has_it ? STATUS_OK : STATUS_CONFIG);
  assert_int_equal(tls_groups_parse(&groups, "?X25519MLKEM768", &err),
                   has_it ? STATUS_OK : STATUS_CONFIG);
  // The line at the start says the same.
  assert_int_equal(strstr(tls_features(), "x25519mlkem768=yes") != NULL, has_it);
}

// The group that a client of all groups and this server come to.
static uint16_t negotiate(const char *for_ctx, const char *for_ssl) {
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  X509 *leaf =
      test_cert_new(&(struct test_cert){.cn = "x", .names = "DNS:x.test"}, key, NULL, NULL);
  SSL_CTX *server = SSL_CTX_new(TLS_method());
  SSL_CTX *client = SSL_CTX_new(TLS_method());
  struct tls_pair pair;
  struct tls_groups groups = {0};
  struct errmsg err = {0};
  uint16_t got = 0;

  assert_true(SSL_CTX_use_certificate(server, leaf) && SSL_CTX_use_PrivateKey(server, key));
  SSL_CTX_set_options(server, SSL_OP_CIPHER_SERVER_PREFERENCE);
  assert_int_equal(tls_groups_parse(&groups, "?X25519MLKEM768:X25519:P-256:P-384:P-521", &err),
                   STATUS_OK);
  assert_int_equal(tls_groups_set_default(client, &groups), STATUS_OK);
  assert_int_equal(tls_groups_parse(&groups, for_ctx, &err), STATUS_OK);
  assert_int_equal(tls_groups_set_default(server, &groups), STATUS_OK);
  tls_pair_init(&pair, client, server);
  if (for_ssl != NULL) {
    assert_int_equal(tls_groups_parse(&groups, for_ssl, &err), STATUS_OK);
    assert_int_equal(tls_groups_set(pair.server, &groups), STATUS_OK);
  }
  assert_true(tls_pair_run(&pair));
  got = SSL_get_curve_id(pair.server);
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
  X509_free(leaf);
  EVP_PKEY_free(key);
  return got;
}

static void the_servers_order_counts(void **state) {
  (void)state;
  assert_int_equal(negotiate("P-384:X25519", NULL), 24);
  assert_int_equal(negotiate("X25519:P-384", NULL), 29);
  assert_int_equal(negotiate("X25519:P-384", "P-521:X25519"), 25);
  assert_int_equal(negotiate("?X25519MLKEM768:X25519", NULL),
                   tls_groups_known("X25519MLKEM768") ? X25519MLKEM768 : 29);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_a_list_in_order),
      cmocka_unit_test(refuses_what_is_no_list),
      cmocka_unit_test(takes_what_there_may_be_if_there_is),
      cmocka_unit_test(the_servers_order_counts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
