// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_request.h"

#include <openssl/mem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/tls/cert.h"
#include "common/wire/dc.h"
#include "common/wire/scheme.h"

#define SHOWN_LEN 200

static bool put_base64(json_t *object, const char *name, struct bytes bytes) {
  char *text = bytes_to_base64(bytes);
  bool is_put = text != NULL && json_object_set_new(object, name, json_string(text)) == 0;
  free(text);
  return is_put;
}

// The proof that we have the key: nobody can have a credential issued for a key
// of somebody else's.
static bool put_proof(json_t *object, const uint8_t leaf_sha256[32], const struct scheme *scheme,
                      EVP_PKEY *key, struct bytes spki, int64_t lifetime_s) {
  uint8_t input[DC_PROOF_MAX_LEN];
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  size_t input_len = 0;
  size_t signature_len = 0;
  return dc_proof_input(input, &input_len, leaf_sha256, lifetime_s, scheme->code, spki) ==
             STATUS_OK &&
         scheme_sign(scheme, key, signature, sizeof(signature), &signature_len,
                     bytes_of(input, input_len)) == STATUS_OK &&
         put_base64(object, "proof", bytes_of(signature, signature_len));
}

json_t *dc_request_entry(struct bytes leaf_der, const uint8_t leaf_sha256[32], EVP_PKEY *key,
                         int64_t lifetime_s) {
  const struct scheme *scheme = scheme_find(SSL_SIGN_ECDSA_SECP256R1_SHA256);
  json_t *object = json_object();
  uint8_t *spki = NULL;
  size_t spki_len = 0;

  if (object == NULL || key_spki(&spki, &spki_len, key) != STATUS_OK ||
      !put_base64(object, "certificate", leaf_der) ||
      json_object_set_new(object, "scheme", json_string(scheme->name)) != 0 ||
      !put_base64(object, "public_key", bytes_of(spki, spki_len)) ||
      json_object_set_new(object, "lifetime_seconds", json_integer(lifetime_s)) != 0 ||
      !put_proof(object, leaf_sha256, scheme, key, bytes_of(spki, spki_len), lifetime_s)) {
    json_decref(object);
    object = NULL;
  }
  OPENSSL_free(spki);
  return object;
}

char *dc_request_body(json_t *entries) {
  json_t *body = json_pack("{s:o}", "requests", entries);
  char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
  json_decref(body);
  return text;
}

json_t *dc_answer_parse(struct bytes body, size_t num, struct errmsg *err) {
  json_error_t wrong;
  json_t *top = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, &wrong);
  json_t *results = json_object_get(top, "results");
  if (top == NULL) {
    (void)errmsg_set(err, STATUS_FORMAT, "the answer is not JSON: %s", wrong.text);
  } else if (!json_is_array(results) || json_array_size(results) != num) {
    (void)errmsg_set(err, STATUS_FORMAT, "the answer has no list of %zu results", num);
    results = NULL;
  }
  json_incref(results);
  json_decref(top);
  return results;
}

static enum status refused(const json_t *error, struct errmsg *err) {
  const char *code = json_string_value(json_object_get(error, "code"));
  const char *message = json_string_value(json_object_get(error, "message"));
  char shown_code[SHOWN_LEN];
  char shown_message[SHOWN_LEN];
  return errmsg_set(err, STATUS_REFUSED, "issuer_refused %s %s",
                    log_quote(shown_code, sizeof(shown_code), bytes_text(code)),
                    log_quote(shown_message, sizeof(shown_message), bytes_text(message)));
}

enum status dc_answer_entry(uint8_t **out, size_t *out_len, const json_t *entry,
                            struct errmsg *err) {
  const json_t *error = json_object_get(entry, "error");
  const json_t *credential = json_object_get(entry, "credential");
  enum status st = STATUS_OK;

  *out = NULL;
  *out_len = 0;
  if (json_is_object(error)) {
    return refused(error, err);
  }
  if (!json_is_string(credential)) {
    return errmsg_set(err, STATUS_FORMAT, "the answer has neither credential nor error");
  }
  st = bytes_from_base64(out, out_len,
                         bytes_of(json_string_value(credential), json_string_length(credential)),
                         DC_MAX_LEN);
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the credential is not base64 of at most %u bytes", DC_MAX_LEN);
  }
  return STATUS_OK;
}

bool dc_answer_is_firm(const json_t *entry) {
  static const char *const codes[] = {
      "bad_request",
      "bad_certificate",
      "unknown_certificate",
      "not_allowed",
      "bad_public_key",
      "certificate_not_delegable",
      "scheme_not_allowed",
      "lifetime_too_long",
      "certificate_not_valid",
      "own_key",
      "bad_proof",
      "key_server_refused",
  };
  const char *code = json_string_value(json_object_get(json_object_get(entry, "error"), "code"));
  for (size_t i = 0; code != NULL && i < sizeof(codes) / sizeof(codes[0]); i++) {
    if (strcmp(code, codes[i]) == 0) {
      return true;
    }
  }
  return false;
}
