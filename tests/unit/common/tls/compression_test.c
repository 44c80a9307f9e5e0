// SPDX-License-Identifier: Apache-2.0
// The client is BoringSSL's, as Chrome's is. With a delegated credential:
// tests/e2e/test_firefox.py.
#include "common/tls/compression.h"

#include <brotli/decode.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <cmocka.h>

#include "common/tls/credential.h"
#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

#define BROTLI (1u << TLS_COMPRESSION_BROTLI)
#define ZLIB (1u << TLS_COMPRESSION_ZLIB)

static EVP_PKEY *ca_key, *key;
static X509 *ca, *leaf;
static CRYPTO_BUFFER *certs[2];

static int make_certs(void **state) {
  (void)state;
  ca_key = test_key_new(KEY_KIND_RSA);
  key = test_key_new(KEY_KIND_RSA);
  ca = test_cert_new(&(struct test_cert){.cn = "ca", .is_ca = true}, ca_key, NULL, NULL);
  leaf = test_cert_new(&(struct test_cert){.cn = "x", .names = "DNS:x.test"}, key, ca, ca_key);
  certs[0] = test_cert_buffer(leaf);
  certs[1] = test_cert_buffer(ca);
  return 0;
}

static int free_certs(void **state) {
  (void)state;
  CRYPTO_BUFFER_free(certs[0]);
  CRYPTO_BUFFER_free(certs[1]);
  X509_free(leaf);
  X509_free(ca);
  EVP_PKEY_free(key);
  EVP_PKEY_free(ca_key);
  return 0;
}

// --- the server --------------------------------------------------------------------------

static struct {
  struct tls_chain *chain;  // what is installed
  struct tls_chain *other;  // what find says instead; NULL: the same
  unsigned num_used[TLS_COMPRESSION_NUM];
  unsigned num_prepared;
  size_t saved_len;
} server;

static void find(SSL *ssl, struct tls_forms *out_forms[2], struct tls_message out_messages[2]) {
  (void)ssl;
  tls_credential_forms(out_forms, out_messages, server.other ? server.other : server.chain, NULL);
}

static void on_used(SSL *ssl, enum tls_compression compression, bool is_prepared,
                    size_t saved_len) {
  (void)ssl;
  server.num_used[compression]++;
  server.num_prepared += is_prepared ? 1 : 0;
  server.saved_len += saved_len;
}

static const struct tls_compression_hooks hooks = {find, on_used};

static int on_certificate(SSL *ssl, void *arg) {
  (void)arg;
  return tls_install(ssl, server.chain, NULL, NULL) == STATUS_OK;
}

static SSL_CTX *server_ctx_new(unsigned algorithms) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());

  assert_int_equal(tls_credential_prepare(ctx), STATUS_OK);
  assert_int_equal(tls_compression_enable(ctx, algorithms, &hooks), STATUS_OK);
  SSL_CTX_set_cert_cb(ctx, on_certificate, NULL);
  return ctx;
}

// make_chain makes what is installed, prepared for these algorithms.
static struct tls_chain *make_chain(const char *staple, size_t num_certs, unsigned algorithms) {
  struct tls_chain *chain = NULL;

  assert_int_equal(tls_chain_new(&chain, certs, num_certs, bytes_text(staple), NULL, key),
                   STATUS_OK);
  tls_compression_prepare(algorithms);
  tls_chain_compress(chain);
  tls_compression_prepare(0);
  return chain;
}

static void serve(struct tls_chain *chain) {
  memset(&server, 0, sizeof server);
  server.chain = chain;
}

// --- the client --------------------------------------------------------------------------

static int by_zlib(SSL *ssl, CRYPTO_BUFFER **out, size_t plain_len, const uint8_t *in, size_t len) {
  uint8_t *data = NULL;
  uLongf got = plain_len;
  (void)ssl;

  *out = CRYPTO_BUFFER_alloc(&data, plain_len);
  return *out != NULL && uncompress(data, &got, in, len) == Z_OK && got == plain_len;
}

static int by_brotli(SSL *ssl, CRYPTO_BUFFER **out, size_t plain_len, const uint8_t *in,
                     size_t len) {
  uint8_t *data = NULL;
  size_t got = plain_len;
  (void)ssl;

  *out = CRYPTO_BUFFER_alloc(&data, plain_len);
  return *out != NULL &&
         BrotliDecoderDecompress(len, in, &got, data) == BROTLI_DECODER_RESULT_SUCCESS &&
         got == plain_len;
}

// visit shakes hands once; the client must see leaf, intermediate and staple as they are.
static void visit(unsigned offers, unsigned accepts, bool wants_staple, const char *staple,
                  uint16_t version) {
  SSL_CTX *server_ctx = server_ctx_new(accepts);
  SSL_CTX *client_ctx = SSL_CTX_new(TLS_method());
  struct tls_pair pair;
  const STACK_OF(CRYPTO_BUFFER) *seen = NULL;
  const uint8_t *response = NULL;
  size_t len = 0;

  assert_true(SSL_CTX_set_max_proto_version(client_ctx, version));
  assert_true((offers & ZLIB) == 0 ||
              SSL_CTX_add_cert_compression_alg(client_ctx, 1, NULL, by_zlib));
  assert_true((offers & BROTLI) == 0 ||
              SSL_CTX_add_cert_compression_alg(client_ctx, 2, NULL, by_brotli));
  tls_pair_init(&pair, client_ctx, server_ctx);
  if (wants_staple) {
    SSL_enable_ocsp_stapling(pair.client);
  }
  if (!tls_pair_run(&pair)) {
    fail_msg("client: %s, server: %s", pair.client_error, pair.server_error);
  }
  seen = SSL_get0_peer_certificates(pair.client);
  assert_true(sk_CRYPTO_BUFFER_num(seen) >= 1);
  assert_int_equal(CRYPTO_BUFFER_len(sk_CRYPTO_BUFFER_value(seen, 0)), CRYPTO_BUFFER_len(certs[0]));
  SSL_get0_ocsp_response(pair.client, &response, &len);
  assert_int_equal(len, wants_staple ? strlen(staple) : 0);
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client_ctx);
  SSL_CTX_free(server_ctx);
}

// --- tests -------------------------------------------------------------------------------

static void prepared_forms_are_handed_out(void **state) {
  (void)state;
  for (unsigned i = 0; i < TLS_COMPRESSION_NUM; i++) {
    for (int has_staple = 0; has_staple < 2; has_staple++) {
      const char *staple = has_staple ? "a staple, a staple, a staple" : "";
      struct tls_chain *chain = make_chain(staple, 2, BROTLI | ZLIB);
      serve(chain);
      visit(1u << i, BROTLI | ZLIB, has_staple, staple, TLS1_3_VERSION);
      assert_int_equal(server.num_used[i], 1);
      assert_int_equal(server.num_prepared, 1);
      assert_true(server.saved_len > 100);
      tls_chain_unref(chain);
    }
  }
}

static void brotli_goes_first_if_both_will_do(void **state) {
  (void)state;
  struct tls_chain *chain = make_chain("", 2, BROTLI | ZLIB);
  serve(chain);
  visit(BROTLI | ZLIB, BROTLI | ZLIB, false, "", TLS1_3_VERSION);
  assert_int_equal(server.num_used[TLS_COMPRESSION_BROTLI], 1);
  visit(BROTLI | ZLIB, ZLIB, false, "", TLS1_3_VERSION);
  assert_int_equal(server.num_used[TLS_COMPRESSION_ZLIB], 1);
  tls_chain_unref(chain);
}

static void whoever_does_not_offer_it_gets_none(void **state) {
  (void)state;
  struct tls_chain *chain = make_chain("s", 2, BROTLI | ZLIB);
  serve(chain);
  visit(0, BROTLI | ZLIB, true, "s", TLS1_3_VERSION);
  visit(BROTLI, ZLIB, true, "s", TLS1_3_VERSION);
  visit(BROTLI | ZLIB, BROTLI | ZLIB, true, "s", TLS1_2_VERSION);  // TLS 1.3 only
  visit(BROTLI | ZLIB, 0, true, "s", TLS1_3_VERSION);              // off
  assert_int_equal(server.num_used[0] + server.num_used[1], 0);
  tls_chain_unref(chain);
}

static void what_was_not_prepared_is_made_once(void **state) {
  (void)state;
  struct tls_chain *chain = make_chain("staple", 2, 0);
  serve(chain);
  for (unsigned i = 0; i < 3; i++) {
    visit(ZLIB, ZLIB, true, "staple", TLS1_3_VERSION);
    visit(ZLIB, ZLIB, false, "staple", TLS1_3_VERSION);  // a form of its own
    assert_int_equal(server.num_prepared, 2 * i);
  }
  tls_chain_unref(chain);
}

static void another_chains_form_is_never_shown(void **state) {
  (void)state;
  // The same leaf under other circumstances: fewer certificates, another staple.
  struct tls_chain *chain = make_chain("staple", 2, ZLIB);
  struct tls_chain *shorter = make_chain("staple", 1, ZLIB);
  struct tls_chain *newer = make_chain("newer!", 2, ZLIB);

  serve(chain);
  server.other = shorter;
  visit(ZLIB, ZLIB, true, "staple", TLS1_3_VERSION);
  server.other = newer;
  visit(ZLIB, ZLIB, true, "staple", TLS1_3_VERSION);
  visit(ZLIB, ZLIB, true, "staple", TLS1_3_VERSION);
  assert_int_equal(server.num_used[TLS_COMPRESSION_ZLIB], 3);
  assert_int_equal(server.num_prepared, 0);
  server.other = NULL;
  visit(ZLIB, ZLIB, true, "staple", TLS1_3_VERSION);
  assert_int_equal(server.num_prepared, 1);
  tls_chain_unref(chain);
  tls_chain_unref(shorter);
  tls_chain_unref(newer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(prepared_forms_are_handed_out),
      cmocka_unit_test(brotli_goes_first_if_both_will_do),
      cmocka_unit_test(whoever_does_not_offer_it_gets_none),
      cmocka_unit_test(what_was_not_prepared_is_made_once),
      cmocka_unit_test(another_chains_form_is_never_shown),
  };
  return cmocka_run_group_tests(tests, make_certs, free_certs);
}
