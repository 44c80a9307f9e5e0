// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/issue.h"

#include <limits.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/cert.h"
#include "common/tls/dc_check.h"

#define MAX_WORD_LEN 64u  // of a scheme's name

const char *issue_error_word(enum issue_error error) {
  static const char *const words[ISSUE_NUM_ERRORS] = {
      [ISSUE_OK] = "ok",
      [ISSUE_BAD_REQUEST] = "bad_request",
      [ISSUE_BAD_CERTIFICATE] = "bad_certificate",
      [ISSUE_UNKNOWN_CERTIFICATE] = "unknown_certificate",
      [ISSUE_NOT_ALLOWED] = "not_allowed",
      [ISSUE_CERTIFICATE_NOT_DELEGABLE] = "certificate_not_delegable",
      [ISSUE_CERTIFICATE_NOT_VALID] = "certificate_not_valid",
      [ISSUE_SCHEME_NOT_ALLOWED] = "scheme_not_allowed",
      [ISSUE_LIFETIME_TOO_LONG] = "lifetime_too_long",
      [ISSUE_BAD_PUBLIC_KEY] = "bad_public_key",
      [ISSUE_OWN_KEY] = "own_key",
      [ISSUE_RATE_EXCEEDED] = "rate_exceeded",
      [ISSUE_BAD_PROOF] = "bad_proof",
      [ISSUE_AUDIT_UNAVAILABLE] = "audit_unavailable",
      [ISSUE_KEY_SERVER_UNAVAILABLE] = "key_server_unavailable",
      [ISSUE_KEY_SERVER_REFUSED] = "key_server_refused",
      [ISSUE_KEY_NOT_FOUND] = "key_not_found",
      [ISSUE_BAD_SIGNATURE] = "bad_signature",
      [ISSUE_DEADLINE_EXCEEDED] = "deadline_exceeded",
      [ISSUE_INTERNAL] = "internal",
  };
  return (unsigned)error < ISSUE_NUM_ERRORS ? words[error] : "internal";
}

bool issue_fail(struct issue *issue, enum issue_error error, const char *why) {
  issue->error = error;
  issue->why = why;
  return false;
}

void issue_cleanup(struct issue *issue) {
  certificate_unref(issue->certificate);
  free(issue->der);
  free(issue->spki);
  free(issue->proof);
  free(issue->credential);
  *issue = (struct issue){0};
}

// --- reading -----------------------------------------------------------------------

// A member that must be text. False: it is missing or something else.
static bool get_text(const json_t *entry, const char *name, struct bytes *out) {
  const json_t *value = json_object_get(entry, name);
  if (!json_is_string(value)) {
    return false;
  }
  *out = bytes_of(json_string_value(value), json_string_length(value));
  return true;
}

// Unknown members are refused: a mistyped "lifetime" must not get the default.
static bool has_known_members_only(const json_t *entry) {
  static const char *const known[] = {"certificate", "certificate_sha256", "scheme", "public_key",
                                      "proof",       "lifetime_seconds"};
  const char *name = NULL;
  json_t *value = NULL;
  json_object_foreach ((json_t *)(uintptr_t)entry, name, value) {
    bool is_known = false;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && !is_known; i++) {
      is_known = strcmp(name, known[i]) == 0;
    }
    if (!is_known) {
      return false;
    }
  }
  return true;
}

static bool read_sha256(struct issue *issue, struct bytes text) {
  char digits[65];
  if (text.len != 64) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, "certificate_sha256 is not 64 hexadecimal digits");
  }
  memcpy(digits, text.data, 64);
  digits[64] = '\0';
  if (bytes_from_hex(issue->certificate_sha256, 32, digits) != STATUS_OK) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, "certificate_sha256 is not 64 hexadecimal digits");
  }
  issue->has_certificate_sha256 = true;
  return true;
}

static bool read_certificate(struct issue *issue, const json_t *entry) {
  struct bytes text = {0};
  bool has_der = json_object_get(entry, "certificate") != NULL;
  bool has_hash = json_object_get(entry, "certificate_sha256") != NULL;
  if (has_der == has_hash) {
    return issue_fail(issue, ISSUE_BAD_REQUEST,
                      "give certificate or certificate_sha256, one of them");
  }
  if (!get_text(entry, has_der ? "certificate" : "certificate_sha256", &text)) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, "certificate or certificate_sha256 is not text");
  }
  if (has_hash) {
    return read_sha256(issue, text);
  }
  switch (bytes_from_base64(&issue->der, &issue->der_len, text, CERT_MAX_LEN)) {
    case STATUS_OK:
      return issue->der_len > 0 || issue_fail(issue, ISSUE_BAD_REQUEST, "certificate is empty");
    case STATUS_MEMORY:
      return issue_fail(issue, ISSUE_INTERNAL, "no memory");
    default:
      return issue_fail(issue, ISSUE_BAD_REQUEST,
                        "certificate is not base64 of a certificate's length");
  }
}

static bool read_binary(struct issue *issue, const json_t *entry, const char *name, uint8_t **out,
                        size_t *out_len, size_t max, const char *why) {
  struct bytes text = {0};
  if (!get_text(entry, name, &text)) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, why);
  }
  switch (bytes_from_base64(out, out_len, text, max)) {
    case STATUS_OK:
      return *out_len > 0 || issue_fail(issue, ISSUE_BAD_REQUEST, why);
    case STATUS_MEMORY:
      return issue_fail(issue, ISSUE_INTERNAL, "no memory");
    default:
      return issue_fail(issue, ISSUE_BAD_REQUEST, why);
  }
}

static bool read_scheme(struct issue *issue, const json_t *entry) {
  struct bytes text = {0};
  char name[MAX_WORD_LEN];
  if (!get_text(entry, "scheme", &text) || text.len >= sizeof(name)) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, "scheme is not the name of a signature scheme");
  }
  memcpy(name, text.data, text.len);
  name[text.len] = '\0';
  issue->scheme = scheme_by_name(name);
  return issue->scheme != NULL ||
         issue_fail(issue, ISSUE_SCHEME_NOT_ALLOWED, "this signature scheme is not known here");
}

static bool read_lifetime(struct issue *issue, const json_t *entry) {
  const json_t *value = json_object_get(entry, "lifetime_seconds");
  if (value == NULL) {
    return true;
  }
  if (!json_is_integer(value) || json_integer_value(value) <= 0) {
    return issue_fail(issue, ISSUE_BAD_REQUEST, "lifetime_seconds is not a positive whole number");
  }
  issue->wanted_lifetime_s = json_integer_value(value);
  return true;
}

bool issue_read(struct issue *out, const json_t *entry) {
  if (!json_is_object(entry)) {
    return issue_fail(out, ISSUE_BAD_REQUEST, "the entry is not an object");
  }
  if (!has_known_members_only(entry)) {
    return issue_fail(out, ISSUE_BAD_REQUEST, "the entry has a member that is not known");
  }
  if (!read_certificate(out, entry) || !read_scheme(out, entry) || !read_lifetime(out, entry) ||
      !read_binary(out, entry, "public_key", &out->spki, &out->spki_len, DC_MAX_SPKI_LEN,
                   "public_key is not base64 of a SubjectPublicKeyInfo's length") ||
      !read_binary(out, entry, "proof", &out->proof, &out->proof_len, DC_MAX_SIGNATURE_LEN,
                   "proof is not base64 of a signature's length")) {
    return false;
  }
  SHA256(out->spki, out->spki_len, out->spki_sha256);
  return true;
}

// --- judging -------------------------------------------------------------------------

static bool find_certificate(struct issue *issue, const struct issue_rules *rules) {
  struct certificate *found = NULL;
  if (issue->der == NULL) {
    found = cert_set_find(rules->certificates, issue->certificate_sha256);
  } else {
    enum status st = STATUS_OK;
    SHA256(issue->der, issue->der_len, issue->certificate_sha256);
    issue->has_certificate_sha256 = true;
    found = cert_set_find(rules->certificates, issue->certificate_sha256);
    if (found == NULL && rules->accept_presented) {
      st = cert_cache_get(&found, rules->cache, bytes_of(issue->der, issue->der_len));
    }
    free(issue->der);
    issue->der = NULL;
    if (st != STATUS_OK) {
      return issue_fail(issue, st == STATUS_MEMORY ? ISSUE_INTERNAL : ISSUE_BAD_CERTIFICATE,
                        "the certificate cannot be read");
    }
  }
  if (found == NULL) {
    return issue_fail(issue, ISSUE_UNKNOWN_CERTIFICATE, "this certificate is not configured here");
  }
  issue->certificate = certificate_ref(found);
  return true;
}

static bool covers_all(const struct grant *grant, const struct certificate *cert) {
  for (size_t i = 0; i < cert->num_hosts; i++) {
    if (!grant_covers(grant, cert->hosts[i])) {
      return false;
    }
  }
  // Names of other kinds, or none at all, are only for those who may have all.
  return (cert->num_hosts > 0 && !cert->has_other_names) || grant_covers(grant, "");
}

static int64_t shorter(int64_t a, int64_t b) { return a < b ? a : b; }

// RFC 9345, section 4.1.1: at most 7 days, and within the certificate's validity;
// some clients want the end to be strictly before the certificate's. A lifetime
// that was asked for is kept or refused; one that was not is made to fit.
static bool choose_lifetime(struct issue *issue, const struct issue_rules *rules,
                            const struct grant *grant, int64_t now_s) {
  int64_t max_s = shorter(shorter(grant->max_lifetime_s, rules->max_lifetime_s), DC_MAX_LIFETIME_S);
  int64_t left_s = issue->certificate->info.not_after_s - 1 - now_s;
  int64_t lifetime_s = issue->wanted_lifetime_s;
  if (lifetime_s == 0) {
    lifetime_s = shorter(shorter(rules->default_lifetime_s, max_s), left_s);
  } else if (lifetime_s > max_s) {
    return issue_fail(issue, ISSUE_LIFETIME_TOO_LONG, "this lifetime is longer than is granted");
  } else if (lifetime_s > left_s) {
    return issue_fail(issue, ISSUE_LIFETIME_TOO_LONG,
                      "the credential would end later than its certificate");
  }
  if (dc_valid_time(&issue->dc.valid_time_s, issue->certificate->info.not_before_s, now_s,
                    lifetime_s) != STATUS_OK) {
    return issue_fail(issue, ISSUE_LIFETIME_TOO_LONG, "the end cannot be written");
  }
  issue->expiry_s = now_s + lifetime_s;
  return true;
}

static bool is_allowed_by(struct issue *issue, const struct issue_rules *rules,
                          const struct grant *grant, int64_t now_s) {
  if (!grant_has_scheme(grant, issue->scheme)) {
    return issue_fail(issue, ISSUE_SCHEME_NOT_ALLOWED, "this signature scheme is not granted");
  }
  return choose_lifetime(issue, rules, grant, now_s);
}

// The first grant that allows it all; else the complaint of the last that covers
// the names, as that is the one that was meant.
static bool find_grant(struct issue *issue, const struct issue_rules *rules, int64_t now_s) {
  (void)issue_fail(issue, ISSUE_NOT_ALLOWED,
                   "this client may not have credentials for all names of the certificate");
  for (size_t i = 0; i < rules->rights->num_grants; i++) {
    struct grant *grant = rules->rights->grants[i];
    if (!covers_all(grant, issue->certificate)) {
      continue;
    }
    if (is_allowed_by(issue, rules, grant, now_s)) {
      issue->grant = grant;
      return !issue_fail(issue, ISSUE_OK, NULL);
    }
  }
  return false;
}

static bool is_covered_by_any(const struct issue *issue, const struct issue_rules *rules) {
  for (size_t i = 0; i < rules->rights->num_grants; i++) {
    if (covers_all(rules->rights->grants[i], issue->certificate)) {
      return true;
    }
  }
  return false;
}

// RFC 9345, section 4.2. It would allow RSA, but NSS and Firefox end the handshake
// on a credential that an RSA key has signed.
static bool check_certificate(struct issue *issue, int64_t now_s) {
  const struct cert_info *info = &issue->certificate->info;
  if (!info->has_delegation_usage) {
    return issue_fail(issue, ISSUE_CERTIFICATE_NOT_DELEGABLE,
                      "the certificate lacks the DelegationUsage extension");
  }
  if (!info->has_digital_signature) {
    return issue_fail(issue, ISSUE_CERTIFICATE_NOT_DELEGABLE,
                      "the certificate's key usage lacks digitalSignature");
  }
  if (!info->may_delegate || issue->certificate->algorithm == NULL) {
    return issue_fail(issue, ISSUE_CERTIFICATE_NOT_DELEGABLE,
                      "clients refuse credentials of certificates with such a key");
  }
  if (now_s < info->not_before_s) {
    return issue_fail(issue, ISSUE_CERTIFICATE_NOT_VALID, "the certificate is not valid yet");
  }
  if (now_s >= info->not_after_s - 1) {
    return issue_fail(issue, ISSUE_CERTIFICATE_NOT_VALID, "the certificate has expired");
  }
  return true;
}

// The key as it must be: of the scheme's kind, in the one encoding that BoringSSL
// writes itself (two spellings of a key would pass for two keys), and not the
// certificate's own, which would make the credential as strong as that.
static bool check_key(struct issue *issue, EVP_PKEY **out) {
  CBS cbs;
  CBB cbb;
  uint8_t *again = NULL;
  size_t again_len = 0;
  bool is_same = false;

  CBS_init(&cbs, issue->spki, issue->spki_len);
  *out = EVP_parse_public_key(&cbs);
  CBB_zero(&cbb);
  is_same = *out != NULL && CBS_len(&cbs) == 0 && CBB_init(&cbb, issue->spki_len) &&
            EVP_marshal_public_key(&cbb, *out) && CBB_finish(&cbb, &again, &again_len) &&
            bytes_equal(bytes_of(again, again_len), bytes_of(issue->spki, issue->spki_len));
  CBB_cleanup(&cbb);
  OPENSSL_free(again);
  ERR_clear_error();
  if (!is_same || key_kind_of(*out) != issue->scheme->kind) {
    return issue_fail(issue, ISSUE_BAD_PUBLIC_KEY,
                      "public_key is no SubjectPublicKeyInfo that fits the scheme");
  }
  if (memcmp(issue->spki_sha256, issue->certificate->info.key_id, sizeof(issue->spki_sha256)) ==
      0) {
    return issue_fail(issue, ISSUE_OWN_KEY, "public_key is the certificate's own");
  }
  return true;
}

static bool check_proof(struct issue *issue, EVP_PKEY *key) {
  uint8_t input[DC_PROOF_MAX_LEN];
  size_t len = 0;
  if (dc_proof_input(input, &len, issue->certificate_sha256, issue->wanted_lifetime_s,
                     issue->scheme->code, bytes_of(issue->spki, issue->spki_len)) != STATUS_OK ||
      scheme_verify(issue->scheme, key, bytes_of(input, len),
                    bytes_of(issue->proof, issue->proof_len)) != STATUS_OK) {
    ERR_clear_error();
    return issue_fail(issue, ISSUE_BAD_PROOF,
                      "proof is no signature of public_key over this request");
  }
  return true;
}

bool issue_judge(struct issue *issue, const struct issue_rules *rules, int64_t now_s,
                 int64_t now_us) {
  EVP_PKEY *key = NULL;
  bool is_ok = false;

  if (!find_certificate(issue, rules)) {
    return false;
  }
  if (!is_covered_by_any(issue, rules)) {
    return find_grant(issue, rules, now_s);  // says no
  }
  if (!check_certificate(issue, now_s) || !find_grant(issue, rules, now_s)) {
    return false;
  }
  is_ok = check_key(issue, &key);
  if (is_ok && !rate_limit_take(&issue->grant->rate, now_us * 1000)) {
    is_ok = issue_fail(issue, ISSUE_RATE_EXCEEDED, "over this client's rate; try again later");
  }
  is_ok = is_ok && check_proof(issue, key);
  EVP_PKEY_free(key);
  return is_ok;
}

// --- the signature ---------------------------------------------------------------------

bool issue_input(struct issue *issue, struct sign_request *out, uint8_t **out_message) {
  const struct certificate *cert = issue->certificate;
  size_t len = 0;

  issue->dc.verify_scheme = issue->scheme->code;
  issue->dc.spki = bytes_of(issue->spki, issue->spki_len);
  issue->dc.algorithm = cert->algorithm->code;
  *out = (struct sign_request){0};
  switch (dc_signing_input(out_message, &len, bytes_of(cert->der, cert->der_len), &issue->dc)) {
    case STATUS_OK:
      break;
    case STATUS_LIMIT:
      return issue_fail(issue, ISSUE_BAD_CERTIFICATE,
                        "the certificate is too long to be signed over");
    default:
      return issue_fail(issue, ISSUE_INTERNAL, "no memory");
  }
  out->ski = cert->info.ski;
  out->scheme = cert->algorithm;
  out->opcode = cert->algorithm->opcode;
  out->message = bytes_of(*out_message, len);
  out->sni = cert->num_hosts > 0 ? bytes_text(cert->hosts[0]) : (struct bytes){0};
  return true;
}

static bool refuse_answer(struct issue *issue, const struct sign_answer *answer) {
  if (answer->code == FRAME_ERROR_RATE) {
    return issue_fail(issue, ISSUE_KEY_SERVER_UNAVAILABLE, "the key server is over its rate");
  }
  switch (answer->st) {
    case STATUS_REFUSED:
      return issue_fail(issue, ISSUE_KEY_SERVER_REFUSED, "the key server does not allow it");
    case STATUS_NOT_FOUND:
      return issue_fail(issue, ISSUE_KEY_NOT_FOUND, "no key server has the certificate's key");
    case STATUS_CRYPTO:
      return issue_fail(issue, ISSUE_BAD_SIGNATURE, "the key server could not sign");
    case STATUS_TIMEOUT:
      return issue_fail(issue, ISSUE_KEY_SERVER_UNAVAILABLE, "no key server answered in time");
    default:
      return issue_fail(issue, ISSUE_KEY_SERVER_UNAVAILABLE, "no key server can be reached");
  }
}

bool issue_finish(struct issue *issue, const struct sign_answer *answer, int64_t now_s) {
  const struct certificate *cert = issue->certificate;
  struct dc checked = {0};
  enum dc_fault fault = DC_FAULT_NONE;

  if (answer->st != STATUS_OK) {
    return refuse_answer(issue, answer);
  }
  issue->dc.signature = answer->signature;
  issue->credential = malloc(DC_MAX_LEN);
  if (issue->credential == NULL) {
    return issue_fail(issue, ISSUE_INTERNAL, "no memory");
  }
  if (dc_encode(issue->credential, DC_MAX_LEN, &issue->credential_len, &issue->dc) != STATUS_OK) {
    return issue_fail(issue, ISSUE_BAD_SIGNATURE,
                      "the key server's signature has no possible length");
  }
  // All that a client would check: a bad credential takes down exactly the best
  // clients, and no monitoring by curl would see it.
  if (dc_check(&checked, &fault, bytes_of(issue->credential, issue->credential_len),
               bytes_of(cert->der, cert->der_len), &cert->info, NULL, now_s, 0) != STATUS_OK) {
    ERR_clear_error();
    return issue_fail(issue,
                      fault == DC_FAULT_EXPIRED ? ISSUE_DEADLINE_EXCEEDED : ISSUE_BAD_SIGNATURE,
                      dc_fault_name(fault));
  }
  return true;
}
