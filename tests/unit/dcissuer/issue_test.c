// SPDX-License-Identifier: Apache-2.0
// One entry from JSON to the credential, the key server being a function here.
// The clock is an argument, so its edges can be tried to the second.
#include "dcissuer/issue.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/tls/cert.h"
#include "common/tls/dc_check.h"
#include "tests/support/certs.h"

#define HOUR INT64_C(3600)
#define DAY (24 * HOUR)
#define NOT_BEFORE INT64_C(1800000000)
#define NOT_AFTER (NOT_BEFORE + 90 * DAY)
#define NOW (NOT_BEFORE + 10 * DAY)

static char *text(const char *t) { return (char *)(uintptr_t)t; }

// What all tests begin with, and may change before they go.
struct world {
  EVP_PKEY *leaf_key;
  EVP_PKEY *dc_key;
  X509 *leaf;
  struct bytes der;
  struct policy *policy;
  struct client_rights rights;
  struct cert_set *set;
  struct cert_cache *cache;
  struct issue_rules rules;
  const char *scheme;
  struct issue issue;
};

static bool any_name(const void *arg, const char *name) {
  (void)arg;
  (void)name;
  return true;
}

static const struct test_cert usual_leaf = {.cn = "demo",
                                            .names = "DNS:demo.test",
                                            .eku = "serverAuth",
                                            .has_delegation_usage = true,
                                            .not_before_s = NOT_BEFORE,
                                            .not_after_s = NOT_AFTER};

static void give_rights(struct world *w, struct client_options *clients, size_t num) {
  struct options options = {.clients = clients, .num_clients = num};
  struct errmsg err = {0};
  static const uint8_t spki[32] = {0};
  policy_free(w->policy);
  assert_int_equal(policy_new(&w->policy, &options, &err), STATUS_OK);
  policy_of_client(&w->rights, w->policy, spki, any_name, NULL);
}

static struct client_options grant_for(const char *label, char **host) {
  static char *names[] = {NULL};
  names[0] = text("client");
  return (struct client_options){.label = text(label),
                                 .who.names = names,
                                 .who.num_names = 1,
                                 .hosts = host,
                                 .num_hosts = 1,
                                 .max_lifetime_ms = 7 * DAY * 1000};
}

static void set_leaf(struct world *w, const struct test_cert *spec, enum key_kind kind) {
  EVP_PKEY_free(w->leaf_key);
  X509_free(w->leaf);
  OPENSSL_free((void *)(uintptr_t)w->der.data);
  w->leaf_key = kind == KEY_KIND_RSA ? test_rsa_key_new(2048) : test_key_new(kind);
  w->leaf = test_cert_new(spec, w->leaf_key, NULL, NULL);
  w->der = test_cert_der(w->leaf);
}

static void world_init(struct world *w) {
  static char *hosts[] = {NULL};
  struct client_options grant;
  hosts[0] = text("*.test");
  *w = (struct world){.scheme = "ecdsa_secp256r1_sha256"};
  w->dc_key = test_key_new(KEY_KIND_P256);
  set_leaf(w, &usual_leaf, KEY_KIND_P256);
  grant = grant_for("a", hosts);
  give_rights(w, &grant, 1);
  assert_int_equal(cert_set_load(&w->set, NULL, 0, NULL), STATUS_OK);
  assert_int_equal(cert_cache_new(&w->cache, 10), STATUS_OK);
  w->rules = (struct issue_rules){.certificates = w->set,
                                  .cache = w->cache,
                                  .rights = &w->rights,
                                  .default_lifetime_s = 48 * HOUR,
                                  .max_lifetime_s = 6 * DAY,
                                  .accept_presented = true};
}

static void world_cleanup(struct world *w) {
  issue_cleanup(&w->issue);
  cert_cache_free(w->cache);
  cert_set_free(w->set);
  policy_free(w->policy);
  X509_free(w->leaf);
  EVP_PKEY_free(w->leaf_key);
  EVP_PKEY_free(w->dc_key);
  OPENSSL_free((void *)(uintptr_t)w->der.data);
}

// The client's side: a JSON entry with its proof.
static json_t *entry_of(const struct world *w, int64_t lifetime_s, const EVP_PKEY *public_key) {
  const struct scheme *scheme = scheme_by_name(w->scheme);
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  uint8_t input[DC_PROOF_MAX_LEN];
  size_t input_len = 0;
  uint8_t proof[SCHEME_MAX_SIGNATURE_LEN];
  size_t proof_len = 0;
  struct cert_info info = {0};
  char *texts[3];
  json_t *entry = NULL;
  assert_int_equal(key_spki(&spki, &spki_len, public_key), STATUS_OK);
  assert_int_equal(cert_info_read(&info, w->der, NULL), STATUS_OK);
  assert_int_equal(dc_proof_input(input, &input_len, info.sha256, lifetime_s, scheme->code,
                                  bytes_of(spki, spki_len)),
                   STATUS_OK);
  assert_int_equal(
      scheme_sign(scheme, w->dc_key, proof, sizeof(proof), &proof_len, bytes_of(input, input_len)),
      STATUS_OK);
  texts[0] = bytes_to_base64(w->der);
  texts[1] = bytes_to_base64(bytes_of(spki, spki_len));
  texts[2] = bytes_to_base64(bytes_of(proof, proof_len));
  entry = json_pack("{s:s,s:s,s:s,s:s}", "certificate", texts[0], "public_key", texts[1], "proof",
                    texts[2], "scheme", w->scheme);
  if (lifetime_s > 0) {
    (void)json_object_set_new(entry, "lifetime_seconds", json_integer(lifetime_s));
  }
  for (int i = 0; i < 3; i++) {
    free(texts[i]);
  }
  OPENSSL_free(spki);
  cert_info_cleanup(&info);
  return entry;
}

static enum issue_error judge(struct world *w, int64_t lifetime_s, int64_t now_s) {
  json_t *entry = entry_of(w, lifetime_s, w->dc_key);
  issue_cleanup(&w->issue);
  if (issue_read(&w->issue, entry)) {
    (void)issue_judge(&w->issue, &w->rules, now_s, now_s * 1000000);
  }
  json_decref(entry);
  return w->issue.error;
}

// The key server's side.
static enum issue_error finish(struct world *w, int64_t now_s) {
  struct sign_request request;
  struct sign_answer answer = {.st = STATUS_OK};
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  uint8_t *message = NULL;
  size_t len = 0;
  assert_true(issue_input(&w->issue, &request, &message));
  assert_int_equal(request.opcode, request.scheme->opcode);
  assert_int_equal(
      scheme_sign(request.scheme, w->leaf_key, signature, sizeof(signature), &len, request.message),
      STATUS_OK);
  free(message);
  answer.signature = bytes_of(signature, len);
  (void)issue_finish(&w->issue, &answer, now_s);
  return w->issue.error;
}

static int64_t expiry_of(const struct world *w) {
  struct dc dc;
  assert_int_equal(dc_decode(&dc, bytes_of(w->issue.credential, w->issue.credential_len)),
                   STATUS_OK);
  return dc_expiry_s(&dc, NOT_BEFORE);
}

// --- good ones --------------------------------------------------------------------------

static void makes_a_credential(void **state) {
  static const struct {
    enum key_kind leaf;
    enum key_kind dc;
    const char *scheme;
  } cases[] = {
      {KEY_KIND_P256, KEY_KIND_P256, "ecdsa_secp256r1_sha256"},
      {KEY_KIND_P384, KEY_KIND_P256, "ecdsa_secp256r1_sha256"},
      {KEY_KIND_P521, KEY_KIND_P384, "ecdsa_secp384r1_sha384"},
      {KEY_KIND_P256, KEY_KIND_P521, "ecdsa_secp521r1_sha512"},
      {KEY_KIND_ED25519, KEY_KIND_ED25519, "ed25519"},
  };
  char *hosts[] = {text("demo.test")};
  char *schemes[4];
  struct client_options grant = grant_for("all", hosts);
  (void)state;
  for (size_t i = 1; i < 5; i++) {
    schemes[i - 1] = text(cases[i].scheme);
  }
  grant.schemes = schemes;
  grant.num_schemes = 4;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct world w;
    world_init(&w);
    give_rights(&w, &grant, 1);
    set_leaf(&w, &usual_leaf, cases[i].leaf);
    EVP_PKEY_free(w.dc_key);
    w.dc_key = test_key_new(cases[i].dc);
    w.scheme = cases[i].scheme;
    assert_int_equal(judge(&w, 0, NOW), ISSUE_OK);
    assert_int_equal(finish(&w, NOW), ISSUE_OK);
    assert_int_equal(expiry_of(&w), NOW + 48 * HOUR);
    assert_int_equal(w.issue.expiry_s, NOW + 48 * HOUR);
    world_cleanup(&w);
  }
}

// --- the clock ----------------------------------------------------------------------------

static void lifetimes_at_their_edges(void **state) {
  static const struct {
    int64_t now_s;
    int64_t lifetime_s;
    enum issue_error error;
    int64_t expiry_s;
  } cases[] = {
      // Named: kept to the second, or refused.
      {NOW, 1, ISSUE_OK, NOW + 1},
      {NOW, 6 * DAY, ISSUE_OK, NOW + 6 * DAY},
      {NOW, 6 * DAY + 1, ISSUE_LIFETIME_TOO_LONG, 0},
      {NOW, 7 * DAY, ISSUE_LIFETIME_TOO_LONG, 0},
      {NOW, INT64_MAX, ISSUE_LIFETIME_TOO_LONG, 0},
      // Strictly before the certificate's end.
      {NOT_AFTER - HOUR, HOUR - 1, ISSUE_OK, NOT_AFTER - 1},
      {NOT_AFTER - HOUR, HOUR, ISSUE_LIFETIME_TOO_LONG, 0},
      {NOT_AFTER - 2, 1, ISSUE_OK, NOT_AFTER - 1},
      {NOT_AFTER - 2, 2, ISSUE_LIFETIME_TOO_LONG, 0},
      // Left out: made to fit.
      {NOW, 0, ISSUE_OK, NOW + 48 * HOUR},
      {NOT_AFTER - 48 * HOUR - 1, 0, ISSUE_OK, NOT_AFTER - 1},
      {NOT_AFTER - 48 * HOUR, 0, ISSUE_OK, NOT_AFTER - 1},
      {NOT_AFTER - HOUR, 0, ISSUE_OK, NOT_AFTER - 1},
      {NOT_AFTER - 2, 0, ISSUE_OK, NOT_AFTER - 1},
      // The certificate's own ends.
      {NOT_AFTER - 1, 0, ISSUE_CERTIFICATE_NOT_VALID, 0},
      {NOT_AFTER, 0, ISSUE_CERTIFICATE_NOT_VALID, 0},
      {NOT_AFTER + DAY, 1, ISSUE_CERTIFICATE_NOT_VALID, 0},
      {NOT_BEFORE, 1, ISSUE_OK, NOT_BEFORE + 1},
      {NOT_BEFORE - 1, 1, ISSUE_CERTIFICATE_NOT_VALID, 0},
      {0, 1, ISSUE_CERTIFICATE_NOT_VALID, 0},
      {-1, 1, ISSUE_CERTIFICATE_NOT_VALID, 0},
  };
  struct world w;
  (void)state;
  world_init(&w);
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    enum issue_error error = judge(&w, cases[i].lifetime_s, cases[i].now_s);
    if (error != cases[i].error) {
      fail_msg("case %zu: %s", i, issue_error_word(error));
    }
    if (error == ISSUE_OK) {
      assert_int_equal(finish(&w, cases[i].now_s), ISSUE_OK);
      assert_int_equal(expiry_of(&w), cases[i].expiry_s);
    }
  }
  world_cleanup(&w);
}

static void seven_days_are_never_passed(void **state) {
  char *hosts[] = {text("*")};
  struct client_options grant = grant_for("a", hosts);
  struct world w;
  (void)state;
  world_init(&w);
  grant.max_lifetime_ms = 100 * DAY * 1000;
  give_rights(&w, &grant, 1);
  w.rules.max_lifetime_s = 100 * DAY;  // options.c does not allow it
  w.rules.default_lifetime_s = 100 * DAY;
  assert_int_equal(judge(&w, 7 * DAY, NOW), ISSUE_OK);
  assert_int_equal(finish(&w, NOW), ISSUE_OK);
  assert_int_equal(judge(&w, 7 * DAY + 1, NOW), ISSUE_LIFETIME_TOO_LONG);
  assert_int_equal(judge(&w, 0, NOW), ISSUE_OK);
  assert_int_equal(w.issue.expiry_s, NOW + 7 * DAY);
  world_cleanup(&w);
}

// valid_time has 32 bits: 136 years.
static void a_certificate_of_another_age(void **state) {
  struct test_cert spec = usual_leaf;
  struct world w;
  (void)state;
  world_init(&w);
  spec.not_before_s = 1;
  spec.not_after_s = INT64_C(0x100000000) + 100 * DAY;
  set_leaf(&w, &spec, KEY_KIND_P256);
  assert_int_equal(judge(&w, HOUR, INT64_C(0x100000000) - HOUR), ISSUE_OK);
  assert_int_equal(judge(&w, HOUR, INT64_C(0x100000000) - HOUR + 1), ISSUE_LIFETIME_TOO_LONG);
  assert_int_equal(judge(&w, HOUR, INT64_C(0x100000000) + DAY), ISSUE_LIFETIME_TOO_LONG);
  world_cleanup(&w);
}

static void a_clock_that_jumps_while_the_key_server_signs(void **state) {
  struct world w;
  (void)state;
  world_init(&w);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(finish(&w, NOW + HOUR), ISSUE_OK);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(finish(&w, NOW + HOUR + 1), ISSUE_DEADLINE_EXCEEDED);
  assert_int_equal(judge(&w, 6 * DAY, NOW), ISSUE_OK);
  assert_int_equal(finish(&w, NOW - 2 * DAY), ISSUE_BAD_SIGNATURE);  // over 7 days from there
  world_cleanup(&w);
}

// --- grants ---------------------------------------------------------------------------------

static void the_grant_that_fits_counts(void **state) {
  char *host_a[] = {text("demo.test")};
  char *host_b[] = {text("*.test")};
  char *host_c[] = {text("other.test")};
  char *p384[] = {text("ecdsa_secp384r1_sha384")};
  struct client_options grants[] = {grant_for("other", host_c), grant_for("p384", host_a),
                                    grant_for("short", host_b), grant_for("long", host_b)};
  struct world w;
  (void)state;
  world_init(&w);
  grants[1].schemes = p384;
  grants[1].num_schemes = 1;
  grants[2].max_lifetime_ms = HOUR * 1000;
  give_rights(&w, grants, 4);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_string_equal(w.issue.grant->label, "short");
  assert_int_equal(judge(&w, 2 * HOUR, NOW), ISSUE_OK);
  assert_string_equal(w.issue.grant->label, "long");
  assert_int_equal(judge(&w, 0, NOW), ISSUE_OK);
  assert_int_equal(w.issue.expiry_s, NOW + HOUR);
  give_rights(&w, grants, 3);
  assert_int_equal(judge(&w, 2 * HOUR, NOW), ISSUE_LIFETIME_TOO_LONG);
  give_rights(&w, grants, 2);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_SCHEME_NOT_ALLOWED);
  give_rights(&w, grants, 1);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_NOT_ALLOWED);
  give_rights(&w, grants, 0);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_NOT_ALLOWED);
  world_cleanup(&w);
}

// Two grants, each for one of two names: neither gives the certificate.
static void grants_do_not_add_up(void **state) {
  char *host_a[] = {text("demo.test")};
  char *host_b[] = {text("demo.example")};
  struct client_options grants[] = {grant_for("a", host_a), grant_for("b", host_b)};
  struct test_cert spec = usual_leaf;
  struct world w;
  (void)state;
  world_init(&w);
  spec.names = "DNS:demo.test,DNS:demo.example";
  set_leaf(&w, &spec, KEY_KIND_P256);
  give_rights(&w, grants, 2);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_NOT_ALLOWED);
  world_cleanup(&w);
}

static void the_rate_is_charged_before_the_proof(void **state) {
  char *hosts[] = {text("*")};
  struct client_options grant = grant_for("a", hosts);
  struct world w;
  (void)state;
  world_init(&w);
  grant.rate_per_minute = 1;
  grant.burst = 2;
  give_rights(&w, &grant, 1);
  assert_int_equal(judge(&w, 30 * DAY, NOW), ISSUE_LIFETIME_TOO_LONG);  // costs nothing
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_RATE_EXCEEDED);
  assert_int_equal(judge(&w, HOUR, NOW + 60), ISSUE_OK);
  world_cleanup(&w);
}

// --- certificates -------------------------------------------------------------------------------

static void certificates_that_must_not_delegate(void **state) {
  struct test_cert spec = usual_leaf;
  struct world w;
  (void)state;
  world_init(&w);
  spec.has_delegation_usage = false;
  set_leaf(&w, &spec, KEY_KIND_P256);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_CERTIFICATE_NOT_DELEGABLE);
  spec = usual_leaf;
  spec.key_usage = "";
  set_leaf(&w, &spec, KEY_KIND_P256);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_CERTIFICATE_NOT_DELEGABLE);
  spec.key_usage = "keyAgreement";
  set_leaf(&w, &spec, KEY_KIND_P256);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_CERTIFICATE_NOT_DELEGABLE);
  set_leaf(&w, &usual_leaf, KEY_KIND_RSA);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_CERTIFICATE_NOT_DELEGABLE);
  w.rules.accept_presented = false;
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_UNKNOWN_CERTIFICATE);
  world_cleanup(&w);
}

// As long as a certificate may be, but with the rest longer than the key server
// takes.
static void a_certificate_that_is_too_long_to_sign(void **state) {
  static char names[40000];
  struct test_cert spec = usual_leaf;
  struct sign_request request;
  uint8_t *message = NULL;
  struct world w;
  size_t len = 0;
  (void)state;
  world_init(&w);
  for (int i = 0; i < 220; i++) {
    len += (size_t)snprintf(names + len, sizeof(names) - len, "%sDNS:%0126d.test",
                            i == 0 ? "" : ",", i);
  }
  spec.names = names;
  set_leaf(&w, &spec, KEY_KIND_P256);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(finish(&w, NOW), ISSUE_OK);
  // Names until it just fits.
  while (w.der.len + 130 < CERT_MAX_LEN) {
    len += (size_t)snprintf(names + len, sizeof(names) - len, ",DNS:%092d.test", 1);
    set_leaf(&w, &spec, KEY_KIND_P256);
  }
  assert_true(w.der.len <= CERT_MAX_LEN);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_false(issue_input(&w.issue, &request, &message));
  assert_null(message);
  assert_int_equal(w.issue.error, ISSUE_BAD_CERTIFICATE);
  world_cleanup(&w);
}

// --- keys and proofs -----------------------------------------------------------------------------

static void the_certificates_own_key(void **state) {
  struct world w;
  (void)state;
  world_init(&w);
  EVP_PKEY_free(w.dc_key);
  w.dc_key = w.leaf_key;
  EVP_PKEY_up_ref(w.dc_key);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OWN_KEY);
  world_cleanup(&w);
}

// Somebody else's public key with a proof by one's own.
static void a_key_that_is_not_theirs(void **state) {
  struct world w;
  EVP_PKEY *other = test_key_new(KEY_KIND_P256);
  json_t *entry = NULL;
  (void)state;
  world_init(&w);
  entry = entry_of(&w, HOUR, other);
  assert_true(issue_read(&w.issue, entry));
  assert_false(issue_judge(&w.issue, &w.rules, NOW, NOW * 1000000));
  assert_int_equal(w.issue.error, ISSUE_BAD_PROOF);
  json_decref(entry);
  EVP_PKEY_free(other);
  world_cleanup(&w);
}

static void every_bit_of_the_proof_counts(void **state) {
  struct world w;
  json_t *entry = NULL;
  (void)state;
  world_init(&w);
  entry = entry_of(&w, HOUR, w.dc_key);
  assert_true(issue_read(&w.issue, entry));
  for (size_t i = 0; i < w.issue.proof_len; i++) {
    struct issue issue = {0};
    assert_true(issue_read(&issue, entry));
    issue.proof[i] ^= 1;
    assert_false(issue_judge(&issue, &w.rules, NOW, NOW * 1000000));
    assert_int_equal(issue.error, ISSUE_BAD_PROOF);
    issue_cleanup(&issue);
  }
  json_decref(entry);
  world_cleanup(&w);
}

// --- what the key server may answer --------------------------------------------------------------

static void answers_that_are_no_signature(void **state) {
  static const struct {
    enum status st;
    enum frame_error code;
    enum issue_error error;
  } cases[] = {
      {STATUS_REFUSED, FRAME_ERROR_NOT_AUTHORISED, ISSUE_KEY_SERVER_REFUSED},
      {STATUS_REFUSED, FRAME_ERROR_BAD_MESSAGE, ISSUE_KEY_SERVER_REFUSED},
      {STATUS_NOT_FOUND, FRAME_ERROR_KEY_NOT_FOUND, ISSUE_KEY_NOT_FOUND},
      {STATUS_TIMEOUT, FRAME_ERROR_NONE, ISSUE_KEY_SERVER_UNAVAILABLE},
      {STATUS_UNAVAILABLE, FRAME_ERROR_BUSY, ISSUE_KEY_SERVER_UNAVAILABLE},
      {STATUS_LIMIT, FRAME_ERROR_RATE, ISSUE_KEY_SERVER_UNAVAILABLE},
      {STATUS_REFUSED, FRAME_ERROR_RATE, ISSUE_KEY_SERVER_UNAVAILABLE},
      {STATUS_CRYPTO, FRAME_ERROR_CRYPTOGRAPHY, ISSUE_BAD_SIGNATURE},
      {STATUS_OK, FRAME_ERROR_NONE, ISSUE_BAD_SIGNATURE},  // an empty one
  };
  struct world w;
  (void)state;
  world_init(&w);
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct sign_request request;
    const struct sign_answer answer = {.st = cases[i].st, .code = cases[i].code};
    uint8_t *message = NULL;
    assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
    assert_true(issue_input(&w.issue, &request, &message));
    free(message);
    assert_false(issue_finish(&w.issue, &answer, NOW));
    if (w.issue.error != cases[i].error) {
      fail_msg("case %zu: %s", i, issue_error_word(w.issue.error));
    }
    assert_non_null(w.issue.why);
  }
  world_cleanup(&w);
}

static void signatures_that_do_not_verify(void **state) {
  static uint8_t long_one[DC_MAX_SIGNATURE_LEN + 1];
  struct world w;
  struct sign_request request;
  struct sign_answer answer = {.st = STATUS_OK};
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  uint8_t *message = NULL;
  size_t len = 0;
  (void)state;
  world_init(&w);
  // By another key; over another message; damaged; too long.
  for (int i = 0; i < 4; i++) {
    assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
    assert_true(issue_input(&w.issue, &request, &message));
    if (i == 1) {
      message[request.message.len - 1] ^= 1;
    }
    assert_int_equal(scheme_sign(request.scheme, i == 0 ? w.dc_key : w.leaf_key, signature,
                                 sizeof(signature), &len, request.message),
                     STATUS_OK);
    free(message);
    signature[len - 1] ^= i == 2 ? 1 : 0;
    answer.signature = i == 3 ? bytes_of(long_one, sizeof(long_one)) : bytes_of(signature, len);
    assert_false(issue_finish(&w.issue, &answer, NOW));
    assert_int_equal(w.issue.error, ISSUE_BAD_SIGNATURE);
  }
  world_cleanup(&w);
}

// --- reading -------------------------------------------------------------------------------------

static void words_are_all_there(void **state) {
  (void)state;
  for (int i = 0; i < ISSUE_NUM_ERRORS; i++) {
    assert_non_null(issue_error_word((enum issue_error)i));
    for (int j = 0; j < i; j++) {
      assert_string_not_equal(issue_error_word((enum issue_error)i),
                              issue_error_word((enum issue_error)j));
    }
  }
}

static void no_error_is_left_in_the_queue(void **state) {
  struct world w;
  (void)state;
  world_init(&w);
  assert_int_equal(judge(&w, HOUR, NOW), ISSUE_OK);
  assert_int_equal(ERR_peek_error(), 0);
  w.der.len -= 1;
  {
    json_t *entry = json_pack("{s:s,s:s,s:s,s:s}", "certificate", "MAAA", "public_key", "MAAA",
                              "proof", "MAAA", "scheme", w.scheme);
    issue_cleanup(&w.issue);
    assert_true(issue_read(&w.issue, entry));
    assert_false(issue_judge(&w.issue, &w.rules, NOW, 0));
    assert_int_equal(w.issue.error, ISSUE_BAD_CERTIFICATE);
    json_decref(entry);
  }
  assert_int_equal(ERR_peek_error(), 0);
  world_cleanup(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(makes_a_credential),
      cmocka_unit_test(lifetimes_at_their_edges),
      cmocka_unit_test(seven_days_are_never_passed),
      cmocka_unit_test(a_certificate_of_another_age),
      cmocka_unit_test(a_clock_that_jumps_while_the_key_server_signs),
      cmocka_unit_test(the_grant_that_fits_counts),
      cmocka_unit_test(grants_do_not_add_up),
      cmocka_unit_test(the_rate_is_charged_before_the_proof),
      cmocka_unit_test(certificates_that_must_not_delegate),
      cmocka_unit_test(a_certificate_that_is_too_long_to_sign),
      cmocka_unit_test(the_certificates_own_key),
      cmocka_unit_test(a_key_that_is_not_theirs),
      cmocka_unit_test(every_bit_of_the_proof_counts),
      cmocka_unit_test(answers_that_are_no_signature),
      cmocka_unit_test(signatures_that_do_not_verify),
      cmocka_unit_test(words_are_all_there),
      cmocka_unit_test(no_error_is_left_in_the_queue),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
