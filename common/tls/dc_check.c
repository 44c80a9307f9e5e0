// SPDX-License-Identifier: Apache-2.0
#include "common/tls/dc_check.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/scheme.h"

const char *dc_fault_name(enum dc_fault fault) {
  static const char *const names[DC_FAULT_NUM] = {
      [DC_FAULT_NONE] = "none",
      [DC_FAULT_FORMAT] = "format",
      [DC_FAULT_CERTIFICATE] = "certificate",
      [DC_FAULT_EXPIRED] = "expired",
      [DC_FAULT_TOO_LONG] = "too_long",
      [DC_FAULT_PAST_CERTIFICATE] = "past_certificate",
      [DC_FAULT_SCHEME] = "scheme",
      [DC_FAULT_ALGORITHM] = "algorithm",
      [DC_FAULT_SIGNATURE] = "signature",
      [DC_FAULT_KEY] = "key",
      [DC_FAULT_OWN_KEY_IN_LEAF] = "own_key_in_leaf",
  };
  return (unsigned)fault < DC_FAULT_NUM ? names[fault] : "unknown";
}

static enum status status_of(enum dc_fault fault) {
  switch (fault) {
    case DC_FAULT_NONE:
      return STATUS_OK;
    case DC_FAULT_EXPIRED:
      return STATUS_EXPIRED;
    case DC_FAULT_SIGNATURE:
    case DC_FAULT_KEY:
      return STATUS_CRYPTO;
    default:
      return STATUS_FORMAT;
  }
}

// RFC 9345, section 4.1.3, steps 1 and 2, counted from notBefore; a client takes
// the last second too. A DC must not outlive its certificate; some clients want it to
// end strictly before.
static enum dc_fault check_times(const struct dc *dc, const struct cert_info *leaf, int64_t now_s,
                                 int64_t margin_s) {
  int64_t expiry_s = dc_expiry_s(dc, leaf->not_before_s);

  if (now_s > expiry_s - margin_s) {
    return DC_FAULT_EXPIRED;
  }
  if (expiry_s - now_s > (int64_t)DC_MAX_LIFETIME_S) {
    return DC_FAULT_TOO_LONG;
  }
  if (expiry_s >= leaf->not_after_s) {
    return DC_FAULT_PAST_CERTIFICATE;
  }
  return DC_FAULT_NONE;
}

static EVP_PKEY *parse_spki(struct bytes spki) {
  CBS cbs;
  EVP_PKEY *key;

  CBS_init(&cbs, spki.data, spki.len);
  key = EVP_parse_public_key(&cbs);
  if (key != NULL && CBS_len(&cbs) != 0) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  ERR_clear_error();
  return key;
}

// check_scheme: RFC 9345, section 4: a DC's key must not be of the rsaEncryption
// OID, which rules out the rsa_pss_rsae schemes; the others fit their kind of key.
static enum dc_fault check_scheme(const struct dc *dc, const EVP_PKEY *dc_key) {
  const struct scheme *scheme = scheme_find(dc->verify_scheme);

  if (scheme == NULL || !scheme->may_sign_tls13 || scheme->kind == KEY_KIND_RSA || dc_key == NULL ||
      key_kind_of(dc_key) != scheme->kind) {
    return DC_FAULT_SCHEME;
  }
  return DC_FAULT_NONE;
}

static enum dc_fault check_algorithm(const struct dc *dc, const struct cert_info *leaf) {
  const struct scheme *scheme = scheme_find(dc->algorithm);

  if (scheme == NULL || !scheme->may_sign_tls13 || scheme->kind != leaf->kind) {
    return DC_FAULT_ALGORITHM;
  }
  return DC_FAULT_NONE;
}

static EVP_PKEY *parse_leaf_key(struct bytes der) {
  const uint8_t *at = der.data;
  X509 *x509 = d2i_X509(NULL, &at, (long)der.len);
  EVP_PKEY *key = x509 == NULL ? NULL : X509_get_pubkey(x509);

  X509_free(x509);
  ERR_clear_error();
  return key;
}

static enum dc_fault check_signature(const struct dc *dc, struct bytes leaf_der,
                                     EVP_PKEY *leaf_key) {
  const struct scheme *scheme = scheme_find(dc->algorithm);
  enum dc_fault fault = DC_FAULT_SIGNATURE;
  uint8_t *input = NULL;
  size_t len = 0;

  if (dc_signing_input(&input, &len, leaf_der, dc) == STATUS_OK &&
      scheme_verify(scheme, leaf_key, bytes_of(input, len), dc->signature) == STATUS_OK) {
    fault = DC_FAULT_NONE;
  }
  free(input);
  ERR_clear_error();
  return fault;
}

// check_private_key signs and verifies: a key that merely looks right (same public
// half, other scalar) would fail each handshake it is used in.
static enum dc_fault check_private_key(const struct dc *dc, EVP_PKEY *dc_key, EVP_PKEY *key) {
  static const char text[] = "does this private key belong to the delegated credential?";
  const struct scheme *scheme = scheme_find(dc->verify_scheme);
  uint8_t signature[DC_MAX_SIGNATURE_LEN];
  size_t len = 0;
  enum dc_fault fault = DC_FAULT_KEY;

  if (key_kind_of(key) == scheme->kind &&
      scheme_sign(scheme, key, signature, sizeof signature, &len, bytes_text(text)) == STATUS_OK &&
      scheme_verify(scheme, dc_key, bytes_text(text), bytes_of(signature, len)) == STATUS_OK) {
    fault = DC_FAULT_NONE;
  }
  ERR_clear_error();
  return fault;
}

// check_keys does what needs the keys themselves; the cheap checks come before.
static enum dc_fault check_keys(const struct dc *dc, struct bytes leaf_der,
                                const struct cert_info *leaf, EVP_PKEY *key) {
  enum dc_fault fault = DC_FAULT_NONE;
  EVP_PKEY *dc_key = parse_spki(dc->spki);
  EVP_PKEY *leaf_key = parse_leaf_key(leaf_der);

  if (leaf_key == NULL) {
    fault = DC_FAULT_CERTIFICATE;
  }
  if (fault == DC_FAULT_NONE) {
    fault = check_scheme(dc, dc_key);
  }
  if (fault == DC_FAULT_NONE) {
    fault = check_algorithm(dc, leaf);
  }
  if (fault == DC_FAULT_NONE && EVP_PKEY_cmp(dc_key, leaf_key) == 1) {
    fault = DC_FAULT_OWN_KEY_IN_LEAF;
  }
  if (fault == DC_FAULT_NONE) {
    fault = check_signature(dc, leaf_der, leaf_key);
  }
  if (fault == DC_FAULT_NONE && key != NULL) {
    fault = check_private_key(dc, dc_key, key);
  }
  EVP_PKEY_free(dc_key);
  EVP_PKEY_free(leaf_key);
  ERR_clear_error();
  return fault;
}

enum status dc_check(struct dc *out, enum dc_fault *fault, struct bytes in, struct bytes leaf_der,
                     const struct cert_info *leaf, EVP_PKEY *key, int64_t now_s, int64_t margin_s) {
  memset(out, 0, sizeof *out);
  if (dc_decode(out, in) != STATUS_OK) {
    *fault = DC_FAULT_FORMAT;
  } else if (!leaf->has_delegation_usage || !leaf->has_digital_signature) {
    *fault = DC_FAULT_CERTIFICATE;  // RFC 9345, section 4.2
  } else {
    *fault = check_times(out, leaf, now_s, margin_s);
  }
  if (*fault == DC_FAULT_NONE) {
    *fault = check_keys(out, leaf_der, leaf, key);
  }
  return status_of(*fault);
}
