// SPDX-License-Identifier: Apache-2.0
// No client in reach of a unit test offers delegated credentials, so the guard is
// tested with ClientHellos that are altered after they were made: the server answers
// them up to its Finished, and who signed tells which way it went. Whole handshakes
// with a DC are in credential_nss_test.c.
#include "common/tls/credential.h"

#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

#define HELLO_MAX_LEN 4096
#define MAX_LIST 16
#define EXT_SIGNATURE_ALGORITHMS 13
#define EXT_DELEGATED_CREDENTIAL 34

// --- a chain whose key is elsewhere --------------------------------------------------

struct identity {
  EVP_PKEY *key;
  EVP_PKEY *dc_key;
  X509 *leaf;
  CRYPTO_BUFFER *certs[2];
  struct tls_chain *chain;  // remote key
  struct tls_dc *dc;
};

static EVP_PKEY *ca_key;
static X509 *ca;
static struct identity p256, p384, rsa, ed25519;
static int64_t now_s;

// What the key server would do, one wait later.
static struct {
  EVP_PKEY *key;
  size_t num_signed;
  uint16_t scheme;
  uint8_t signature[1024];
  size_t len;
} remote;

static enum ssl_private_key_result_t remote_sign(SSL *ssl, uint8_t *out, size_t *out_len,
                                                 size_t max, uint16_t code, const uint8_t *in,
                                                 size_t len) {
  const struct scheme *scheme = scheme_find(code);
  (void)ssl;
  (void)out;
  (void)out_len;
  (void)max;

  remote.scheme = code;
  if (scheme == NULL || scheme_sign(scheme, remote.key, remote.signature, sizeof remote.signature,
                                    &remote.len, bytes_of(in, len)) != STATUS_OK) {
    return ssl_private_key_failure;
  }
  return ssl_private_key_retry;
}

static enum ssl_private_key_result_t remote_complete(SSL *ssl, uint8_t *out, size_t *out_len,
                                                     size_t max) {
  (void)ssl;
  if (remote.len > max) {
    return ssl_private_key_failure;
  }
  memcpy(out, remote.signature, remote.len);
  *out_len = remote.len;
  remote.num_signed++;
  return ssl_private_key_success;
}

static enum ssl_private_key_result_t remote_decrypt(SSL *ssl, uint8_t *out, size_t *out_len,
                                                    size_t max, const uint8_t *in, size_t len) {
  (void)ssl;
  (void)out;
  (void)out_len;
  (void)max;
  (void)in;
  (void)len;
  return ssl_private_key_failure;
}

static const SSL_PRIVATE_KEY_METHOD remote_method = {remote_sign, remote_decrypt, remote_complete};

static void identity_init(struct identity *id, enum key_kind kind, const char *staple) {
  struct bytes dc;

  id->key = test_key_new(kind);
  id->dc_key = test_key_new(KEY_KIND_P256);
  id->leaf = test_cert_new(
      &(struct test_cert){.cn = "x", .names = "DNS:x.test", .has_delegation_usage = true}, id->key,
      ca, ca_key);
  id->certs[0] = test_cert_buffer(id->leaf);
  id->certs[1] = test_cert_buffer(ca);
  assert_int_equal(
      tls_chain_new(&id->chain, id->certs, 2, bytes_text(staple), &remote_method, NULL), STATUS_OK);
  dc = test_dc_new(id->leaf, id->key, id->dc_key, now_s + 3600, 0);
  assert_int_equal(tls_dc_new(&id->dc, id->chain, dc, id->dc_key, now_s + 3600), STATUS_OK);
  free((void *)(uintptr_t)dc.data);
}

static void identity_cleanup(struct identity *id) {
  tls_dc_unref(id->dc);
  tls_chain_unref(id->chain);
  CRYPTO_BUFFER_free(id->certs[0]);
  CRYPTO_BUFFER_free(id->certs[1]);
  X509_free(id->leaf);
  EVP_PKEY_free(id->key);
  EVP_PKEY_free(id->dc_key);
}

static int make_identities(void **state) {
  (void)state;
  now_s = (int64_t)time(NULL);
  ca_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  identity_init(&p256, KEY_KIND_P256, "staple of p256");
  identity_init(&p384, KEY_KIND_P384, "");
  identity_init(&rsa, KEY_KIND_RSA, "staple of rsa");
  identity_init(&ed25519, KEY_KIND_ED25519, "");
  return 0;
}

static int free_identities(void **state) {
  (void)state;
  identity_cleanup(&p256);
  identity_cleanup(&p384);
  identity_cleanup(&rsa);
  identity_cleanup(&ed25519);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  return 0;
}

// --- the server ----------------------------------------------------------------------

static struct {
  struct identity *first;  // installed before, and to be replaced
  struct identity *id;
  bool has_dc;
  int64_t now_s;
  int64_t margin_s;
  enum tls_guard guard;  // seen
  bool takes[KEY_KIND_ED25519 + 1];
  bool was_called;
} plan;

static int on_cert(SSL *ssl, void *arg) {
  struct tls_dc *dc = plan.has_dc ? plan.id->dc : NULL;
  (void)arg;

  plan.was_called = true;
  plan.guard = tls_dc_guard(ssl, dc, plan.now_s, plan.margin_s);
  for (int kind = KEY_KIND_P256; kind <= KEY_KIND_ED25519; kind++) {
    plan.takes[kind] = tls_client_takes_kind(ssl, (enum key_kind)kind);
  }
  if (plan.first != NULL &&
      tls_install(ssl, plan.first->chain, plan.first->dc, NULL) != STATUS_OK) {
    return 0;
  }
  remote.key = plan.id->key;
  remote.num_signed = 0;
  remote.scheme = 0;
  return tls_install(ssl, plan.id->chain, plan.guard == TLS_GUARD_PASS ? dc : NULL, NULL) ==
         STATUS_OK;
}

static enum ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello) {
  tls_client_hello_note(hello);
  return ssl_select_cert_success;
}

static SSL_CTX *server_ctx_new(void) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());

  assert_int_equal(tls_credential_prepare(ctx), STATUS_OK);
  assert_true(SSL_CTX_set_strict_cipher_list(ctx, "ECDHE+aECDSA:ECDHE+aRSA"));
  SSL_CTX_set_cert_cb(ctx, on_cert, NULL);
  SSL_CTX_set_select_certificate_cb(ctx, on_hello);
  return ctx;
}

static void plan_for(struct identity *id, bool has_dc) {
  memset(&plan, 0, sizeof plan);
  plan.id = id;
  plan.has_dc = has_dc;
  plan.now_s = now_s;
  plan.margin_s = 60;
  plan.guard = TLS_GUARD_NUM;
}

// --- ClientHellos ----------------------------------------------------------------------

struct hello {
  uint16_t max_version;
  const char *ciphers;         // of TLS 1.2; NULL: the library's
  uint16_t sigalgs[MAX_LIST];  // none: the library's
  uint16_t dc_list[MAX_LIST];  // none: no extension 34
};

static size_t list_len(const uint16_t list[MAX_LIST]) {
  size_t len = 0;

  while (len < MAX_LIST && list[len] != 0) {
    len++;
  }
  return len;
}

static void add_list_extension(CBB *extensions, uint16_t type, const uint16_t list[MAX_LIST]) {
  CBB body, items;

  assert_true(CBB_add_u16(extensions, type) && CBB_add_u16_length_prefixed(extensions, &body) &&
              CBB_add_u16_length_prefixed(&body, &items));
  for (size_t i = 0; i < list_len(list); i++) {
    assert_true(CBB_add_u16(&items, list[i]));
  }
  assert_true(CBB_flush(extensions));
}

static void copy_extensions(CBB *out, CBS *in, const struct hello *hello) {
  CBS extensions, body;
  CBB child;
  uint16_t type;

  assert_true(CBS_get_u16_length_prefixed(in, &extensions));
  assert_true(CBB_add_u16_length_prefixed(out, &child));
  if (list_len(hello->dc_list) > 0) {
    add_list_extension(&child, EXT_DELEGATED_CREDENTIAL, hello->dc_list);
  }
  while (CBS_len(&extensions) > 0) {
    CBB copy;

    assert_true(CBS_get_u16(&extensions, &type) && CBS_get_u16_length_prefixed(&extensions, &body));
    if (type == EXT_SIGNATURE_ALGORITHMS && list_len(hello->sigalgs) > 0) {
      add_list_extension(&child, type, hello->sigalgs);
      continue;
    }
    assert_true(CBB_add_u16(&child, type) && CBB_add_u16_length_prefixed(&child, &copy) &&
                CBB_add_bytes(&copy, CBS_data(&body), CBS_len(&body)) && CBB_flush(&child));
  }
  assert_true(CBB_flush(out));
}

// alter rebuilds one record with one ClientHello.
static size_t alter(uint8_t out[HELLO_MAX_LEN], struct bytes in, const struct hello *hello) {
  CBS cbs, record, body, session, ciphers, compression;
  CBB cbb, out_record, out_body, out_list;
  uint8_t type = 0;
  uint16_t version = 0;
  const size_t fixed_len = 2 + 32;
  const uint8_t *fixed;
  size_t len;

  CBS_init(&cbs, in.data, in.len);
  assert_true(CBS_get_u8(&cbs, &type) && CBS_get_u16(&cbs, &version) &&
              CBS_get_u16_length_prefixed(&cbs, &record) && CBS_len(&cbs) == 0);
  assert_true(CBS_get_u8(&record, &type) && CBS_get_u24_length_prefixed(&record, &body));
  fixed = CBS_data(&body);
  assert_true(CBS_skip(&body, fixed_len) && CBS_get_u8_length_prefixed(&body, &session) &&
              CBS_get_u16_length_prefixed(&body, &ciphers) &&
              CBS_get_u8_length_prefixed(&body, &compression));
  assert_true(CBB_init_fixed(&cbb, out, HELLO_MAX_LEN));
  assert_true(CBB_add_u8(&cbb, 22) && CBB_add_u16(&cbb, version) &&
              CBB_add_u16_length_prefixed(&cbb, &out_record) && CBB_add_u8(&out_record, type) &&
              CBB_add_u24_length_prefixed(&out_record, &out_body) &&
              CBB_add_bytes(&out_body, fixed, fixed_len));
  assert_true(CBB_add_u8_length_prefixed(&out_body, &out_list) &&
              CBB_add_bytes(&out_list, CBS_data(&session), CBS_len(&session)));
  assert_true(CBB_add_u16_length_prefixed(&out_body, &out_list) &&
              CBB_add_bytes(&out_list, CBS_data(&ciphers), CBS_len(&ciphers)));
  assert_true(CBB_add_u8_length_prefixed(&out_body, &out_list) &&
              CBB_add_bytes(&out_list, CBS_data(&compression), CBS_len(&compression)));
  copy_extensions(&out_body, &body, hello);
  assert_true(CBB_finish(&cbb, NULL, &len));
  return len;
}

static size_t make_hello(uint8_t out[HELLO_MAX_LEN], const struct hello *hello) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  SSL *ssl;
  BIO *wbio = BIO_new(BIO_s_mem());
  const uint8_t *data = NULL;
  size_t len = 0;

  assert_true(SSL_CTX_set_max_proto_version(
      ctx, hello->max_version == 0 ? TLS1_3_VERSION : hello->max_version));
  if (hello->ciphers != NULL) {
    assert_true(SSL_CTX_set_strict_cipher_list(ctx, hello->ciphers));
  }
  ssl = SSL_new(ctx);
  SSL_set_bio(ssl, BIO_new(BIO_s_mem()), wbio);
  SSL_set_connect_state(ssl);
  assert_int_equal(SSL_do_handshake(ssl), -1);
  assert_true(BIO_mem_contents(wbio, &data, &len));
  len = alter(out, bytes_of(data, len), hello);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return len;
}

enum answer { ANSWER_REFUSED, ANSWER_BY_CERTIFICATE, ANSWER_BY_DC };

// answer_to lets the server answer as far as it can without the client's Finished.
static enum answer answer_to(const struct hello *hello) {
  uint8_t bytes[HELLO_MAX_LEN];
  size_t len = make_hello(bytes, hello);
  SSL_CTX *ctx = server_ctx_new();
  SSL *ssl = SSL_new(ctx);
  BIO *rbio = BIO_new_mem_buf(bytes, (int)len);
  enum answer answer = ANSWER_REFUSED;
  int error;

  BIO_set_mem_eof_return(rbio, -1);
  SSL_set_bio(ssl, rbio, BIO_new(BIO_s_mem()));
  SSL_set_accept_state(ssl);
  do {
    error = SSL_get_error(ssl, SSL_do_handshake(ssl));
  } while (error == SSL_ERROR_WANT_PRIVATE_KEY_OPERATION);
  if (error == SSL_ERROR_WANT_READ) {
    answer = remote.num_signed == 0 ? ANSWER_BY_DC : ANSWER_BY_CERTIFICATE;
  }
#if !defined(BORINGSSL_API_VERSION) || BORINGSSL_API_VERSION < 32
  if (answer != ANSWER_REFUSED) {
    assert_int_equal(SSL_delegated_credential_used(ssl), answer == ANSWER_BY_DC);
  }
#endif
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  ERR_clear_error();
  assert_true(plan.was_called);
  return answer;
}

// --- the guard ---------------------------------------------------------------------------

static void assert_guard(struct identity *id, const struct hello *hello, enum tls_guard guard,
                         enum answer answer) {
  plan_for(id, true);
  assert_int_equal(answer_to(hello), answer);
  assert_string_equal(tls_guard_name(plan.guard), tls_guard_name(guard));
}

#define NSS_DC_LIST \
  { 0x0403, 0x0503, 0x0603, 0x0203 }

static void passes_what_fits(void **state) {
  const struct hello nss = {.dc_list = NSS_DC_LIST};
  const struct hello narrow = {.dc_list = {0x0403}, .sigalgs = {0x0403}};
  (void)state;

  assert_guard(&p256, &nss, TLS_GUARD_PASS, ANSWER_BY_DC);
  assert_guard(&p384, &nss, TLS_GUARD_PASS, ANSWER_BY_DC);
  assert_guard(&p256, &narrow, TLS_GUARD_PASS, ANSWER_BY_DC);
}

static void offers_none_unasked(void **state) {
  (void)state;
  assert_guard(&p256, &(struct hello){0}, TLS_GUARD_NOT_OFFERED, ANSWER_BY_CERTIFICATE);
}

static void offers_none_below_tls13(void **state) {
  const struct hello hello = {.max_version = TLS1_2_VERSION, .dc_list = NSS_DC_LIST};
  (void)state;

  assert_guard(&p256, &hello, TLS_GUARD_OLD_VERSION, ANSWER_BY_CERTIFICATE);
}

static void offers_none_it_has_not(void **state) {
  const struct hello hello = {.dc_list = NSS_DC_LIST};
  (void)state;

  plan_for(&p256, false);
  assert_int_equal(answer_to(&hello), ANSWER_BY_CERTIFICATE);
  assert_int_equal(plan.guard, TLS_GUARD_NO_DC);
}

static void keeps_the_margin_at_the_end(void **state) {
  const struct hello hello = {.dc_list = NSS_DC_LIST};
  (void)state;

  plan_for(&p256, true);
  plan.now_s = tls_dc_expiry_s(p256.dc) - 60;
  assert_int_equal(answer_to(&hello), ANSWER_BY_DC);
  plan_for(&p256, true);
  plan.now_s = tls_dc_expiry_s(p256.dc) - 59;
  assert_int_equal(answer_to(&hello), ANSWER_BY_CERTIFICATE);
  assert_int_equal(plan.guard, TLS_GUARD_EXPIRED);
}

static void wants_the_scheme_in_both_lists(void **state) {
  const struct hello not_in_dc_list = {.dc_list = {0x0503, 0x0603}};
  const struct hello not_in_sigalgs = {.dc_list = NSS_DC_LIST, .sigalgs = {0x0503, 0x0804}};
  (void)state;

  assert_guard(&p256, &not_in_dc_list, TLS_GUARD_SCHEME, ANSWER_BY_CERTIFICATE);
  assert_guard(&p384, &not_in_sigalgs, TLS_GUARD_SCHEME, ANSWER_BY_CERTIFICATE);
  assert_guard(&p256, &not_in_sigalgs, TLS_GUARD_SCHEME, ANSWER_REFUSED);  // on its own merit
}

static void wants_the_algorithm_in_signature_algorithms(void **state) {
  const struct hello no_p384 = {.dc_list = NSS_DC_LIST, .sigalgs = {0x0403, 0x0804}};
  const struct hello no_rsa = {.dc_list = {0x0403, 0x0804}, .sigalgs = {0x0403, 0x0503}};
  (void)state;

  assert_guard(&p384, &no_p384, TLS_GUARD_ALGORITHM, ANSWER_REFUSED);
  assert_guard(&rsa, &no_rsa, TLS_GUARD_ALGORITHM, ANSWER_REFUSED);
}

static void heeds_what_nss_does_not_take(void **state) {
  const struct hello narrow = {.dc_list = {0x0403}};
  const struct hello nss = {.dc_list = NSS_DC_LIST};
  const struct hello by_the_rfc = {.dc_list = {0x0403, 0x0804}};
  (void)state;

  assert_guard(&p384, &narrow, TLS_GUARD_NSS_RULE, ANSWER_BY_CERTIFICATE);
  assert_guard(&rsa, &nss, TLS_GUARD_NSS_RULE, ANSWER_BY_CERTIFICATE);
  assert_guard(&ed25519, &(struct hello){.dc_list = NSS_DC_LIST, .sigalgs = {0x0807, 0x0403}},
               TLS_GUARD_NSS_RULE, ANSWER_BY_CERTIFICATE);
  assert_guard(&rsa, &by_the_rfc, TLS_GUARD_PASS, ANSWER_BY_DC);
}

static void names_every_guard(void **state) {
  (void)state;
  for (int i = 0; i < TLS_GUARD_NUM; i++) {
    assert_string_not_equal(tls_guard_name((enum tls_guard)i), "unknown");
  }
}

// --- kinds of keys -------------------------------------------------------------------------

static void assert_takes(const struct hello *hello, const char *expected) {
  static const char letters[] = "?235RE";  // P-256, P-384, P-521, RSA, Ed25519
  char seen[8] = {0};
  size_t len = 0;

  plan_for(&p256, false);
  (void)answer_to(hello);
  for (int kind = KEY_KIND_P256; kind <= KEY_KIND_ED25519; kind++) {
    if (plan.takes[kind]) {
      seen[len++] = letters[kind];
    }
  }
  assert_string_equal(seen, expected);
}

static void tells_which_kinds_a_client_takes(void **state) {
  static const char ecdsa[] = "ECDHE-ECDSA-AES128-GCM-SHA256";
  static const char only_rsa[] = "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA";
  static const char static_rsa[] = "AES128-SHA";
  (void)state;

  assert_takes(&(struct hello){.sigalgs = {0x0403}}, "2");
  assert_takes(&(struct hello){.sigalgs = {0x0503, 0x0807}}, "3E");
  assert_takes(&(struct hello){.sigalgs = {0x0603, 0x0806}}, "5R");
  assert_takes(&(struct hello){.sigalgs = {0x0401, 0x0501}}, "");          // PKCS#1 is not for 1.3
  assert_takes(&(struct hello){.sigalgs = {0x0203, 0x0201}}, "");          // SHA-1
  assert_takes(&(struct hello){.sigalgs = {0x0809, 0x0a0a, 0x0903}}, "");  // unknown to us
  assert_takes(&(struct hello){.max_version = TLS1_2_VERSION, .sigalgs = {0x0403}}, "235");
  assert_takes(&(struct hello){.max_version = TLS1_2_VERSION, .sigalgs = {0x0401}}, "R");
  assert_takes(&(struct hello){TLS1_2_VERSION, ecdsa, {0x0403, 0x0804, 0x0807}, {0}}, "235E");
  assert_takes(&(struct hello){TLS1_2_VERSION, only_rsa, {0x0403, 0x0804, 0x0807}, {0}}, "R");
  assert_takes(&(struct hello){TLS1_2_VERSION, static_rsa, {0x0403, 0x0804}, {0}}, "");
  // Of TLS 1.3 the suites say nothing.
  assert_takes(&(struct hello){TLS1_3_VERSION, ecdsa, {0x0804}, {0}}, "R");
}

// --- whole handshakes -------------------------------------------------------------------------

static SSL_CTX *client_ctx_new(uint16_t version) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  assert_true(SSL_CTX_set_max_proto_version(ctx, version));
  assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca));
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_enable_ocsp_stapling(ctx);
  return ctx;
}

static void assert_served(uint16_t version, const struct identity *id, const char *staple) {
  SSL_CTX *client = client_ctx_new(version);
  SSL_CTX *server = server_ctx_new();
  struct tls_pair pair;
  const uint8_t *ocsp = NULL;
  size_t ocsp_len = 0;
  X509 *seen;

  tls_pair_init(&pair, client, server);
  if (!tls_pair_run(&pair)) {
    fail_msg("client: %s, server: %s", pair.client_error, pair.server_error);
  }
  assert_int_equal(SSL_version(pair.client), version);
  seen = SSL_get_peer_certificate(pair.client);
  assert_int_equal(X509_cmp(seen, id->leaf), 0);
  X509_free(seen);
  assert_int_equal(sk_CRYPTO_BUFFER_num(SSL_get0_peer_certificates(pair.client)), 2);
  SSL_get0_ocsp_response(pair.client, &ocsp, &ocsp_len);
  assert_true(bytes_equal(bytes_of(ocsp, ocsp_len), bytes_text(staple)));
  assert_int_equal(remote.num_signed, 1);
  assert_false(tls_dc_was_used(pair.server, plan.guard == TLS_GUARD_PASS));
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
}

static void serves_each_kind_by_its_remote_key(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    plan_for(&p256, true);
    assert_served(version, &p256, "staple of p256");
    assert_int_equal(remote.scheme, SSL_SIGN_ECDSA_SECP256R1_SHA256);
    plan_for(&p384, true);
    assert_served(version, &p384, "");
    plan_for(&rsa, true);
    assert_served(version, &rsa, "staple of rsa");
    assert_int_equal(remote.scheme, SSL_SIGN_RSA_PSS_RSAE_SHA256);
  }
}

static void replaces_what_was_installed(void **state) {
  (void)state;
  plan_for(&p256, true);
  plan.first = &rsa;  // with its DC
  assert_served(TLS1_3_VERSION, &p256, "staple of p256");
}

// A DC that stays behind from an earlier call would be of another leaf.
static void drops_an_earlier_dc(void **state) {
  const struct hello nss = {.dc_list = NSS_DC_LIST};
  (void)state;

  plan_for(&p384, false);
  plan.first = &p256;
  assert_int_equal(answer_to(&nss), ANSWER_BY_CERTIFICATE);
}

static void never_signs_sha1(void **state) {
  const struct hello ecdsa = {.max_version = TLS1_2_VERSION, .sigalgs = {0x0203}};
  const struct hello pkcs1 = {.max_version = TLS1_2_VERSION, .sigalgs = {0x0201}};
  (void)state;

  plan_for(&p256, false);
  assert_int_equal(answer_to(&ecdsa), ANSWER_REFUSED);
  assert_int_equal(remote.scheme, 0);  // the key server was not even asked
  plan_for(&rsa, false);
  assert_int_equal(answer_to(&pkcs1), ANSWER_REFUSED);
  assert_int_equal(remote.scheme, 0);
}

// --- making ------------------------------------------------------------------------------------

static void outlives_its_owner_in_a_connection(void **state) {
  struct identity id;
  SSL_CTX *client = client_ctx_new(TLS1_3_VERSION);
  SSL_CTX *server = server_ctx_new();
  struct tls_pair pair;
  (void)state;

  identity_init(&id, KEY_KIND_P256, "");
  plan_for(&id, true);
  tls_pair_init(&pair, client, server);
  (void)SSL_do_handshake(pair.client);
  (void)SSL_do_handshake(pair.server);  // installed; waits for the remote signature
  assert_true(plan.was_called);
  tls_dc_ref(id.dc);
  tls_dc_unref(id.dc);
  assert_ptr_equal(tls_chain_ref(id.chain), id.chain);
  tls_chain_unref(id.chain);
  identity_cleanup(&id);
  assert_true(tls_pair_run(&pair));
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
}

static void takes_a_local_key_too(void **state) {
  struct tls_chain *chain = NULL;
  struct identity local = p256;
  SSL_CTX *client = client_ctx_new(TLS1_3_VERSION);
  SSL_CTX *server = server_ctx_new();
  struct tls_pair pair;
  (void)state;

  assert_int_equal(tls_chain_new(&chain, p256.certs, 2, (struct bytes){0}, NULL, p256.key),
                   STATUS_OK);
  local.chain = chain;
  plan_for(&local, false);
  tls_pair_init(&pair, client, server);
  assert_true(tls_pair_run(&pair));
  assert_int_equal(remote.num_signed, 0);
  tls_pair_cleanup(&pair);
  SSL_CTX_free(client);
  SSL_CTX_free(server);
  tls_chain_unref(chain);
}

static void refuses_chains_that_cannot_be_served(void **state) {
  static uint8_t staple[TLS_STAPLE_MAX_LEN + 1];
  CRYPTO_BUFFER *garbage = CRYPTO_BUFFER_new((const uint8_t *)"garbage", 7, NULL);
  struct tls_chain *chain = p256.chain;
  (void)state;

  assert_int_equal(tls_chain_new(&chain, &garbage, 1, (struct bytes){0}, &remote_method, NULL),
                   STATUS_CRYPTO);
  assert_null(chain);
  ERR_clear_error();
  assert_int_equal(tls_chain_new(&chain, p256.certs, 0, (struct bytes){0}, &remote_method, NULL),
                   STATUS_LIMIT);
  assert_int_equal(tls_chain_new(&chain, p256.certs, 11, (struct bytes){0}, &remote_method, NULL),
                   STATUS_LIMIT);
  assert_int_equal(
      tls_chain_new(&chain, p256.certs, 1, bytes_of(staple, sizeof staple), &remote_method, NULL),
      STATUS_LIMIT);
  assert_int_equal(tls_chain_new(&chain, p256.certs, 1, (struct bytes){0}, NULL, rsa.key),
                   STATUS_CRYPTO);
  ERR_clear_error();
  CRYPTO_BUFFER_free(garbage);
}

static void refuses_dcs_that_cannot_be_served(void **state) {
  struct bytes dc = test_dc_new(p256.leaf, p256.key, p256.dc_key, now_s + 3600, 0);
  struct tls_dc *made = p256.dc;
  (void)state;

  assert_int_equal(tls_dc_new(&made, p256.chain, bytes_text("garbage"), p256.dc_key, 0),
                   STATUS_FORMAT);
  assert_null(made);
  assert_int_equal(tls_dc_new(&made, p256.chain, bytes_of(dc.data, dc.len - 1), p256.dc_key, 0),
                   STATUS_FORMAT);
  assert_int_equal(tls_dc_new(&made, p256.chain, dc, p384.dc_key, 0), STATUS_FORMAT);
  assert_int_equal(tls_dc_new(&made, p256.chain, dc, rsa.key, 0), STATUS_FORMAT);
  assert_int_equal(ERR_peek_error(), 0);
  tls_chain_unref(NULL);
  tls_dc_unref(NULL);
  free((void *)(uintptr_t)dc.data);
}

static void signs_in_the_scheme_of_the_dc_alone(void **state) {
  const struct scheme *scheme = scheme_find(SSL_SIGN_ECDSA_SECP256R1_SHA256);
  const struct bytes message = bytes_text("a message");
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  size_t len = 0;
  (void)state;

  assert_int_equal(tls_dc_sign(p384.dc, scheme->code, signature, sizeof signature, &len, message),
                   STATUS_OK);
  assert_int_equal(scheme_verify(scheme, p384.dc_key, message, bytes_of(signature, len)),
                   STATUS_OK);
  assert_int_equal(tls_dc_sign(p384.dc, SSL_SIGN_ECDSA_SECP384R1_SHA384, signature,
                               sizeof signature, &len, message),
                   STATUS_CRYPTO);
  assert_int_equal(tls_dc_sign(p384.dc, 0, signature, sizeof signature, &len, message),
                   STATUS_CRYPTO);
  assert_int_equal(tls_dc_sign(p384.dc, scheme->code, signature, 8, &len, message), STATUS_LIMIT);
  ERR_clear_error();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(passes_what_fits),
      cmocka_unit_test(offers_none_unasked),
      cmocka_unit_test(offers_none_below_tls13),
      cmocka_unit_test(offers_none_it_has_not),
      cmocka_unit_test(keeps_the_margin_at_the_end),
      cmocka_unit_test(wants_the_scheme_in_both_lists),
      cmocka_unit_test(wants_the_algorithm_in_signature_algorithms),
      cmocka_unit_test(heeds_what_nss_does_not_take),
      cmocka_unit_test(names_every_guard),
      cmocka_unit_test(tells_which_kinds_a_client_takes),
      cmocka_unit_test(serves_each_kind_by_its_remote_key),
      cmocka_unit_test(replaces_what_was_installed),
      cmocka_unit_test(drops_an_earlier_dc),
      cmocka_unit_test(never_signs_sha1),
      cmocka_unit_test(outlives_its_owner_in_a_connection),
      cmocka_unit_test(takes_a_local_key_too),
      cmocka_unit_test(refuses_chains_that_cannot_be_served),
      cmocka_unit_test(refuses_dcs_that_cannot_be_served),
      cmocka_unit_test(signs_in_the_scheme_of_the_dc_alone),
  };
  return cmocka_run_group_tests(tests, make_identities, free_identities);
}
