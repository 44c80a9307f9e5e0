// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_request.h"

#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/tls/cert.h"
#include "common/wire/dc.h"
#include "common/wire/scheme.h"

static EVP_PKEY *new_key(void) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  assert_int_equal(EC_KEY_generate_key(ec), 1);
  assert_int_equal(EVP_PKEY_set1_EC_KEY(key, ec), 1);
  EC_KEY_free(ec);
  return key;
}

static struct bytes decoded(uint8_t **out, const json_t *entry, const char *name) {
  size_t len = 0;
  const char *text = json_string_value(json_object_get(entry, name));
  assert_non_null(text);
  assert_int_equal(bytes_from_base64(out, &len, bytes_text(text), 4096), STATUS_OK);
  return bytes_of(*out, len);
}

static void entry_proves_possession_of_its_key(void **state) {
  (void)state;
  const struct bytes leaf = bytes_text("not looked into here");
  uint8_t sha256[32];
  EVP_PKEY *key = new_key();
  json_t *entry = NULL;
  uint8_t *spki = NULL;
  uint8_t *proof = NULL;
  uint8_t *certificate = NULL;
  uint8_t input[DC_PROOF_MAX_LEN];
  size_t input_len = 0;
  struct bytes spki_bytes;
  struct bytes proof_bytes;
  const struct scheme *scheme = scheme_find(SSL_SIGN_ECDSA_SECP256R1_SHA256);

  memset(sha256, 7, sizeof(sha256));
  entry = dc_request_entry(leaf, sha256, key, 172800);
  assert_non_null(entry);
  assert_string_equal(json_string_value(json_object_get(entry, "scheme")),
                      "ecdsa_secp256r1_sha256");
  assert_int_equal(json_integer_value(json_object_get(entry, "lifetime_seconds")), 172800);
  assert_true(bytes_equal(decoded(&certificate, entry, "certificate"), leaf));
  spki_bytes = decoded(&spki, entry, "public_key");
  proof_bytes = decoded(&proof, entry, "proof");
  assert_int_equal(dc_proof_input(input, &input_len, sha256, 172800, scheme->code, spki_bytes),
                   STATUS_OK);
  assert_int_equal(scheme_verify(scheme, key, bytes_of(input, input_len), proof_bytes), STATUS_OK);
  input[input_len - 1] ^= 1;
  assert_int_equal(scheme_verify(scheme, key, bytes_of(input, input_len), proof_bytes),
                   STATUS_CRYPTO);
  free(certificate);
  free(spki);
  free(proof);
  json_decref(entry);
  EVP_PKEY_free(key);
}

static void body_is_what_the_api_wants(void **state) {
  (void)state;
  json_t *entries = json_array();
  char *text = NULL;
  assert_int_equal(json_array_append_new(entries, json_integer(1)), 0);
  text = dc_request_body(entries);
  assert_string_equal(text, "{\"requests\":[1]}");
  free(text);
}

static json_t *parse(const char *text, size_t num, struct errmsg *err) {
  return dc_answer_parse(bytes_text(text), num, err);
}

static void answers_that_are_none_are_refused(void **state) {
  (void)state;
  static const char *const wrong[] = {
      "",
      "{",
      "[]",
      "{}",
      "{\"results\":{}}",
      "{\"results\":[]}",
      "{\"results\":[1]}",
      "{\"results\":[1,2,3]}",
      "{\"results\":[1,2],\"results\":[1,2]}",
      "{\"results\":[1,2]} x",
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    struct errmsg err = {0};
    assert_null(parse(wrong[i], 2, &err));
    assert_int_not_equal(err.text[0], '\0');
  }
}

static enum status entry_of(const char *text, struct errmsg *err, size_t *out_len) {
  json_t *results = parse(text, 1, err);
  uint8_t *dc = NULL;
  enum status st = STATUS_OK;
  assert_non_null(results);
  st = dc_answer_entry(&dc, out_len, json_array_get(results, 0), err);
  assert_true(st == STATUS_OK || dc == NULL);
  free(dc);
  json_decref(results);
  return st;
}

static void entries_are_told_apart(void **state) {
  (void)state;
  struct errmsg err = {0};
  size_t len = 0;
  assert_int_equal(entry_of("{\"results\":[{\"credential\":\"AAECAw==\"}]}", &err, &len),
                   STATUS_OK);
  assert_int_equal(len, 4);
  assert_int_equal(
      entry_of("{\"results\":[{\"error\":{\"code\":\"not_allowed\",\"message\":\"a\\nb\"}}]}", &err,
               &len),
      STATUS_REFUSED);
  assert_non_null(strstr(err.text, "not_allowed"));
  assert_null(strchr(err.text, '\n'));  // the issuer's text is escaped
  assert_int_equal(entry_of("{\"results\":[{}]}", &err, &len), STATUS_FORMAT);
  assert_int_equal(entry_of("{\"results\":[7]}", &err, &len), STATUS_FORMAT);
  assert_int_equal(entry_of("{\"results\":[{\"credential\":7}]}", &err, &len), STATUS_FORMAT);
  assert_int_equal(entry_of("{\"results\":[{\"credential\":\"!\"}]}", &err, &len), STATUS_FORMAT);
  assert_int_equal(entry_of("{\"results\":[{\"error\":{}}]}", &err, &len), STATUS_REFUSED);
}

static void oversized_credential_is_refused(void **state) {
  (void)state;
  struct errmsg err = {0};
  size_t len = 0;
  char text[8192];
  char base64[6001];
  memset(base64, 'A', sizeof(base64) - 1);
  base64[sizeof(base64) - 1] = '\0';
  (void)snprintf(text, sizeof(text), "{\"results\":[{\"credential\":\"%s\"}]}", base64);
  assert_int_equal(entry_of(text, &err, &len), STATUS_LIMIT);
}

static void tells_firm_refusals_from_passing_ones(void **state) {
  const struct {
    const char *text;
    bool is_firm;
  } rows[] = {
      {"{\"error\":{\"code\":\"not_allowed\"}}", true},
      {"{\"error\":{\"code\":\"key_server_refused\"}}", true},
      {"{\"error\":{\"code\":\"rate_exceeded\"}}", false},
      {"{\"error\":{\"code\":\"key_server_unavailable\"}}", false},
      {"{\"error\":{\"code\":\"one that is not known yet\"}}", false},
      {"{\"error\":{\"code\":7}}", false},
      {"{\"error\":\"not_allowed\"}", false},
      {"{\"credential\":\"AA==\"}", false},
      {"[]", false},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    json_t *entry = json_loads(rows[i].text, 0, NULL);
    assert_non_null(entry);
    assert_int_equal(dc_answer_is_firm(entry), rows[i].is_firm);
    json_decref(entry);
  }
  assert_false(dc_answer_is_firm(NULL));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(entry_proves_possession_of_its_key),
      cmocka_unit_test(body_is_what_the_api_wants),
      cmocka_unit_test(answers_that_are_none_are_refused),
      cmocka_unit_test(entries_are_told_apart),
      cmocka_unit_test(oversized_credential_is_refused),
      cmocka_unit_test(tells_firm_refusals_from_passing_ones),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
