// SPDX-License-Identifier: Apache-2.0
#include "common/tls/context.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

#define DAY_S (24 * 3600)

// Two CAs; the second one is a stranger to all that trust "ca.pem".
static EVP_PKEY *ca_key, *other_ca_key, *key;
static X509 *ca, *other_ca;

static const struct test_cert server_cert = {
    .cn = "server",
    .names = "DNS:Server.Test,DNS:*.wild.test,IP:127.0.0.1,IP:::1",
    .eku = "serverAuth"};
static const struct test_cert client_cert = {
    .cn = "client", .names = "DNS:Client.Test,URI:spiffe://Fleet/proxy", .eku = "clientAuth"};

static int make_files(void **state) {
  (void)state;
  ca_key = test_key_new(KEY_KIND_P256);
  other_ca_key = test_key_new(KEY_KIND_P256);
  key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  other_ca =
      test_cert_new(&(struct test_cert){.cn = "Other CA", .is_ca = true}, other_ca_key, NULL, NULL);
  test_write_certs("ca.pem", &ca, 1);
  test_write_certs("other_ca.pem", &other_ca, 1);
  test_write_key("key.pem", key, 0600);
  return 0;
}

static int remove_files(void **state) {
  (void)state;
  X509_free(ca);
  X509_free(other_ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(other_ca_key);
  EVP_PKEY_free(key);
  test_remove_files();
  return 0;
}

// identity_of writes a certificate and says where it is.
static struct tls_identity identity_of(const char *name, const struct test_cert *spec, X509 *issuer,
                                       EVP_PKEY *issuer_key) {
  X509 *leaf = test_cert_new(spec, key, issuer, issuer_key);

  test_write_certs(name, &leaf, 1);
  X509_free(leaf);
  return (struct tls_identity){.ca = (char *)(uintptr_t)test_path("ca.pem"),
                               .certificate = (char *)(uintptr_t)test_path(name),
                               .key = (char *)(uintptr_t)test_path("key.pem")};
}

static SSL_CTX *server_of(const struct test_cert *spec, X509 *issuer, EVP_PKEY *issuer_key,
                          bool allow_tls12) {
  struct tls_identity identity = identity_of("server.pem", spec, issuer, issuer_key);
  struct errmsg err = {{0}};
  SSL_CTX *ctx = NULL;

  if (tls_context_server(&ctx, &identity, allow_tls12, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return ctx;
}

static SSL_CTX *client_of(const struct test_cert *spec, X509 *issuer, EVP_PKEY *issuer_key,
                          bool allow_tls12) {
  struct tls_identity identity = identity_of("client.pem", spec, issuer, issuer_key);
  struct errmsg err = {{0}};
  SSL_CTX *ctx = NULL;

  if (tls_context_client(&ctx, &identity, allow_tls12, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return ctx;
}

// pair_of shakes hands; the contexts are used up.
static bool pair_of(struct tls_pair *pair, SSL_CTX *client, SSL_CTX *server, const char *host) {
  bool ok;

  tls_pair_init(pair, client, server);
  assert_int_equal(tls_expect_host(pair->client, host), STATUS_OK);
  ok = tls_pair_run(pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
  return ok;
}

static bool shake(const struct test_cert *client, const struct test_cert *server,
                  const char *host) {
  struct tls_pair pair;
  bool ok = pair_of(&pair, client_of(client, ca, ca_key, false),
                    server_of(server, ca, ca_key, false), host);

  tls_pair_cleanup(&pair);
  return ok;
}

// --- good ones ------------------------------------------------------------------

static void tells_each_end_who_the_other_is(void **state) {
  struct tls_pair pair;
  struct tls_peer peer;
  uint8_t ski[20];
  uint8_t key_id[32];
  (void)state;

  assert_true(pair_of(&pair, client_of(&client_cert, ca, ca_key, false),
                      server_of(&server_cert, ca, ca_key, false), "server.test"));
  assert_int_equal(SSL_version(pair.server), TLS1_3_VERSION);
  assert_int_equal(tls_peer_read(&peer, pair.server), STATUS_OK);
  assert_string_equal(peer.name, "client.test");
  assert_int_equal(key_identify(key_id, ski, key), STATUS_OK);
  assert_memory_equal(peer.spki_sha256, key_id, 32);
  assert_true(tls_peer_has_name(pair.server, "CLIENT.test"));
  assert_true(tls_peer_has_name(pair.server, "spiffe://fleet/proxy"));
  assert_false(tls_peer_has_name(pair.server, "client.tes"));
  assert_false(tls_peer_has_name(pair.server, "client"));  // that is its CN
  assert_int_equal(tls_peer_read(&peer, pair.client), STATUS_OK);
  assert_string_equal(peer.name, "server.test");
  assert_true(tls_peer_has_name(pair.client, "*.wild.test"));
  tls_pair_cleanup(&pair);
}

static void names_peers_by_uri_and_then_by_cn(void **state) {
  static const struct {
    struct test_cert spec;
    const char *name;
  } cases[] = {
      {{.cn = "x", .names = "URI:spiffe://a/b", .eku = "clientAuth"}, "spiffe://a/b"},
      {{.cn = "just \"me\"", .eku = "clientAuth"}, "just\\x20\\x22me\\x22"},
      {{.cn = "x", .names = "IP:127.0.0.1", .eku = "clientAuth"}, "x"},
  };
  (void)state;

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct tls_pair pair;
    struct tls_peer peer;

    assert_true(pair_of(&pair, client_of(&cases[i].spec, ca, ca_key, false),
                        server_of(&server_cert, ca, ca_key, false), "server.test"));
    assert_int_equal(tls_peer_read(&peer, pair.server), STATUS_OK);
    assert_string_equal(peer.name, cases[i].name);
    tls_pair_cleanup(&pair);
  }
}

static void refuses_to_cut_a_long_name(void **state) {
  char name[300] = "URI:spiffe://";
  struct test_cert spec = {.cn = "x", .names = name, .eku = "clientAuth"};
  struct tls_pair pair;
  struct tls_peer peer;
  (void)state;

  memset(name + strlen(name), 'a', 260);
  assert_true(pair_of(&pair, client_of(&spec, ca, ca_key, false),
                      server_of(&server_cert, ca, ca_key, false), "server.test"));
  assert_int_equal(tls_peer_read(&peer, pair.server), STATUS_LIMIT);
  tls_pair_cleanup(&pair);
}

static void verifies_the_host(void **state) {
  static const struct {
    const char *host;
    bool is_good;
  } cases[] = {
      {"server.test", true},    {"SERVER.TEST", true},
      {"server.test.", true},   {"a.wild.test", true},
      {"a.b.wild.test", false}, {"wild.test", false},
      {"127.0.0.1", true},      {"::1", true},
      {"127.0.0.2", false},     {"other.test", false},
      {"server", false},  // the CN counts for nothing
  };
  (void)state;

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    if (shake(&client_cert, &server_cert, cases[i].host) != cases[i].is_good) {
      fail_msg("%s: expected %d", cases[i].host, cases[i].is_good);
    }
  }
}

// RFC 9525: names are in subjectAltName, or nowhere.
static void takes_no_name_from_the_subject(void **state) {
  const struct test_cert nameless = {.cn = "server.test", .eku = "serverAuth"};
  (void)state;

  assert_false(shake(&client_cert, &nameless, "server.test"));
}

static void sends_names_but_no_addresses_as_sni(void **state) {
  SSL_CTX *ctx = client_of(&client_cert, ca, ca_key, false);
  SSL *ssl = SSL_new(ctx);
  char too_long[TLS_PEER_NAME_LEN + 1];
  (void)state;

  assert_int_equal(tls_expect_host(ssl, "127.0.0.1"), STATUS_OK);
  assert_null(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
  assert_int_equal(tls_expect_host(ssl, "a.test."), STATUS_OK);
  assert_string_equal(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name), "a.test");
  memset(too_long, 'a', sizeof too_long - 1);
  too_long[sizeof too_long - 1] = '\0';
  assert_int_equal(tls_expect_host(ssl, too_long), STATUS_FORMAT);
  assert_int_equal(tls_expect_host(ssl, ""), STATUS_FORMAT);
  assert_int_equal(tls_expect_host(ssl, "."), STATUS_FORMAT);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
}

static void trusts_an_intermediate_that_is_listed(void **state) {
  EVP_PKEY *middle_key = test_key_new(KEY_KIND_P256);
  X509 *middle = test_cert_new(&(struct test_cert){.cn = "Middle", .is_ca = true}, middle_key,
                               other_ca, other_ca_key);
  struct tls_identity identity;
  struct tls_pair pair;
  SSL_CTX *server = NULL;
  (void)state;

  test_write_certs("middle.pem", (X509 *[]){ca, middle}, 2);
  identity = identity_of("server.pem", &server_cert, ca, ca_key);
  identity.ca = (char *)(uintptr_t)test_path("middle.pem");
  assert_int_equal(tls_context_server(&server, &identity, false, NULL), STATUS_OK);
  assert_true(
      pair_of(&pair, client_of(&client_cert, middle, middle_key, false), server, "server.test"));
  tls_pair_cleanup(&pair);
  X509_free(middle);
  EVP_PKEY_free(middle_key);
}

static void accepts_a_chain_to_a_listed_root(void **state) {
  EVP_PKEY *middle_key = test_key_new(KEY_KIND_P256);
  X509 *middle =
      test_cert_new(&(struct test_cert){.cn = "Middle", .is_ca = true}, middle_key, ca, ca_key);
  X509 *leaf = test_cert_new(&client_cert, key, middle, middle_key);
  struct tls_identity identity = identity_of("unused.pem", &client_cert, ca, ca_key);
  struct tls_pair pair;
  SSL_CTX *client = NULL;
  (void)state;

  test_write_certs("chain.pem", (X509 *[]){leaf, middle}, 2);
  identity.certificate = (char *)(uintptr_t)test_path("chain.pem");
  assert_int_equal(tls_context_client(&client, &identity, false, NULL), STATUS_OK);
  assert_true(pair_of(&pair, client, server_of(&server_cert, ca, ca_key, false), "server.test"));
  tls_pair_cleanup(&pair);
  X509_free(leaf);
  X509_free(middle);
  EVP_PKEY_free(middle_key);
}

// --- refusals -------------------------------------------------------------------

static void refuses_a_client_of_another_ca(void **state) {
  struct tls_pair pair;
  (void)state;

  assert_false(pair_of(&pair, client_of(&client_cert, other_ca, other_ca_key, false),
                       server_of(&server_cert, ca, ca_key, false), "server.test"));
  assert_string_equal(pair.server_error, "CERTIFICATE_VERIFY_FAILED");
  assert_string_equal(pair.client_error, "TLSV1_ALERT_UNKNOWN_CA");
  tls_pair_cleanup(&pair);
}

static void refuses_a_server_of_another_ca(void **state) {
  struct tls_pair pair;
  (void)state;

  assert_false(pair_of(&pair, client_of(&client_cert, ca, ca_key, false),
                       server_of(&server_cert, other_ca, other_ca_key, false), "server.test"));
  assert_string_equal(pair.client_error, "CERTIFICATE_VERIFY_FAILED");
  assert_false(pair.is_client_done);
  tls_pair_cleanup(&pair);
}

static void refuses_a_client_without_certificate(void **state) {
  SSL_CTX *client = SSL_CTX_new(TLS_method());
  struct tls_pair pair;
  (void)state;

  assert_false(pair_of(&pair, client, server_of(&server_cert, ca, ca_key, false), "server.test"));
  assert_string_equal(pair.server_error, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
  tls_pair_cleanup(&pair);
}

static void refuses_certificates_for_another_purpose(void **state) {
  static const char *const client_ekus[] = {"serverAuth", "codeSigning", "anyExtendedKeyUsage",
                                            NULL};
  static const char *const server_ekus[] = {"clientAuth", "codeSigning", "anyExtendedKeyUsage",
                                            NULL};
  (void)state;

  for (size_t i = 0; i < 4; i++) {
    struct test_cert client = client_cert;
    struct test_cert server = server_cert;

    client.eku = client_ekus[i];
    server.eku = server_ekus[i];
    assert_false(shake(&client, &server_cert, "server.test"));
    assert_false(shake(&client_cert, &server, "server.test"));
  }
  {
    struct test_cert both = client_cert;

    both.eku = "serverAuth,clientAuth";
    assert_true(shake(&both, &server_cert, "server.test"));
  }
}

static void refuses_certificates_out_of_their_time(void **state) {
  struct test_cert expired = client_cert;
  struct test_cert early = client_cert;
  struct test_cert expired_server = server_cert;
  (void)state;

  expired.not_after_s = (int64_t)time(NULL) - 60;
  early.not_before_s = (int64_t)time(NULL) + 3600;
  expired_server.not_after_s = (int64_t)time(NULL) - 60;
  assert_false(shake(&expired, &server_cert, "server.test"));
  assert_false(shake(&early, &server_cert, "server.test"));
  assert_false(shake(&client_cert, &expired_server, "server.test"));
}

static void asks_our_own_clock(void **state) {
  (void)state;
  assert_true(shake(&client_cert, &server_cert, "server.test"));
  clock_override_wall_s((int64_t)time(NULL) + 100 * DAY_S);
  assert_false(shake(&client_cert, &server_cert, "server.test"));
  clock_override_wall_s(0);
}

// --- protocols --------------------------------------------------------------------

static bool shake_tls12(bool is_allowed, const char *ciphers, uint16_t *out_cipher) {
  SSL_CTX *client = client_of(&client_cert, ca, ca_key, true);
  struct tls_pair pair;
  bool ok;

  assert_true(SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION));
  if (ciphers != NULL) {
    assert_true(SSL_CTX_set_strict_cipher_list(client, ciphers));
  }
  ok = pair_of(&pair, client, server_of(&server_cert, ca, ca_key, is_allowed), "server.test");
  if (ok) {
    assert_int_equal(SSL_version(pair.server), TLS1_2_VERSION);
    *out_cipher = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(pair.server));
  }
  tls_pair_cleanup(&pair);
  return ok;
}

static void speaks_tls12_only_when_allowed_and_with_two_suites(void **state) {
  uint16_t cipher = 0;
  (void)state;

  assert_false(shake_tls12(false, NULL, &cipher));
  assert_true(shake_tls12(true, NULL, &cipher));
  assert_int_equal(cipher, 0xc02c);  // ECDHE-ECDSA-AES256-GCM-SHA384
  assert_false(shake_tls12(true, "ECDHE-ECDSA-AES128-GCM-SHA256", &cipher));
  assert_false(shake_tls12(true, "ECDHE-ECDSA-CHACHA20-POLY1305", &cipher));
  // Allowed is not preferred.
  {
    struct tls_pair pair;

    assert_true(pair_of(&pair, client_of(&client_cert, ca, ca_key, true),
                        server_of(&server_cert, ca, ca_key, true), "server.test"));
    assert_int_equal(SSL_version(pair.server), TLS1_3_VERSION);
    tls_pair_cleanup(&pair);
  }
}

static int num_sessions;

static int on_session(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  (void)session;
  num_sessions++;
  return 0;
}

static void gives_no_tickets(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    SSL_CTX *client = client_of(&client_cert, ca, ca_key, true);
    struct tls_pair pair;

    SSL_CTX_set_session_cache_mode(client, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_clear_options(client, SSL_OP_NO_TICKET);
    SSL_CTX_sess_set_new_cb(client, on_session);
    assert_true(SSL_CTX_set_max_proto_version(client, i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION));
    num_sessions = 0;
    assert_true(pair_of(&pair, client, server_of(&server_cert, ca, ca_key, true), "server.test"));
    if (i == 1) {
      assert_int_equal(num_sessions, 0);
    } else {
      unsigned id_len = 0;

      // TLS 1.2 always makes a session object; it has neither id nor ticket.
      (void)SSL_SESSION_get_id(SSL_get_session(pair.client), &id_len);
      assert_false(SSL_SESSION_has_ticket(SSL_get_session(pair.client)));
    }
    tls_pair_cleanup(&pair);
  }
}

// --- files --------------------------------------------------------------------------

static void assert_refuses(struct tls_identity identity, enum status expected, const char *word) {
  struct errmsg err = {{0}};
  SSL_CTX *ctx = NULL;

  assert_int_equal(tls_context_server(&ctx, &identity, false, &err), expected);
  assert_null(ctx);
  if (strstr(err.text, word) == NULL) {
    fail_msg("no \"%s\" in: %s", word, err.text);
  }
  assert_int_equal(tls_context_client(&ctx, &identity, false, &err), expected);
  assert_int_equal(ERR_peek_error(), 0);
}

static void refuses_files_that_do_not_fit(void **state) {
  struct tls_identity good = identity_of("server.pem", &server_cert, ca, ca_key);
  struct tls_identity bad = good;
  (void)state;

  test_write_key("other.key", ca_key, 0600);
  bad.key = (char *)(uintptr_t)test_path("other.key");
  assert_refuses(bad, STATUS_CONFIG, "does not belong to the certificate");
  test_write_key("open.key", key, 0644);
  bad.key = (char *)(uintptr_t)test_path("open.key");
  assert_refuses(bad, STATUS_REFUSED, "open.key");
  bad = good;
  bad.ca = good.certificate;
  assert_refuses(bad, STATUS_REFUSED, "not a CA");
  bad = good;
  bad.ca = (char *)(uintptr_t)test_path("missing.pem");
  assert_refuses(bad, STATUS_SYSTEM, "missing.pem");
  bad = good;
  bad.certificate = (char *)(uintptr_t)test_path("missing.pem");
  assert_refuses(bad, STATUS_SYSTEM, "missing.pem");
  bad = good;
  bad.certificate = good.key;
  assert_refuses(bad, STATUS_REFUSED, "private key");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tells_each_end_who_the_other_is),
      cmocka_unit_test(names_peers_by_uri_and_then_by_cn),
      cmocka_unit_test(refuses_to_cut_a_long_name),
      cmocka_unit_test(verifies_the_host),
      cmocka_unit_test(takes_no_name_from_the_subject),
      cmocka_unit_test(sends_names_but_no_addresses_as_sni),
      cmocka_unit_test(trusts_an_intermediate_that_is_listed),
      cmocka_unit_test(accepts_a_chain_to_a_listed_root),
      cmocka_unit_test(refuses_a_client_of_another_ca),
      cmocka_unit_test(refuses_a_server_of_another_ca),
      cmocka_unit_test(refuses_a_client_without_certificate),
      cmocka_unit_test(refuses_certificates_for_another_purpose),
      cmocka_unit_test(refuses_certificates_out_of_their_time),
      cmocka_unit_test(asks_our_own_clock),
      cmocka_unit_test(speaks_tls12_only_when_allowed_and_with_two_suites),
      cmocka_unit_test(gives_no_tickets),
      cmocka_unit_test(refuses_files_that_do_not_fit),
  };
  return cmocka_run_group_tests(tests, make_files, remove_files);
}
