// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/ocsp.h"

#include <gnutls/gnutls.h>
#include <gnutls/ocsp.h>
#include <gnutls/x509.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_SINGLE_RESPONSES 64u  // in one response; ours is usually the only one
#define MAX_EXTENSIONS 16u
#define MAX_CERTS 8u  // in one response; there is one, or none
#define REASON_HOLD 6
#define OID_NOCHECK "1.3.6.1.5.5.7.48.1.5"

// What is parsed of the three inputs. All-zero may be cleaned.
struct parsed {
  gnutls_ocsp_resp_t response;
  gnutls_x509_crt_t leaf;
  gnutls_x509_crt_t issuer;
};

// One answer of a response.
struct single {
  gnutls_digest_algorithm_t digest;
  gnutls_datum_t issuer_name_hash;
  gnutls_datum_t issuer_key_hash;
  gnutls_datum_t serial;
  unsigned status;
  time_t this_update;
  time_t next_update;
  time_t revocation_time;
  unsigned revocation_reason;
};

static const struct {
  const char *name;
  const char *sentence;
} faults[OCSP_NUM_FAULTS] = {
    [OCSP_NO_FAULT] = {"none", ""},
    [OCSP_TOO_LONG] = {"too_long", "it is too long for an OCSP response"},
    [OCSP_MALFORMED] = {"malformed", "it is not an OCSP response in DER"},
    [OCSP_TRY_LATER] = {"try_later", "the responder answered with error 3: try later"},
    [OCSP_UNAUTHORIZED] = {"unauthorized",
                           "the responder answered with error 6: it may not answer for this leaf"},
    [OCSP_RESPONDER_ERROR] = {"responder_error", "the responder answered with an error"},
    [OCSP_OTHER_LEAF] = {"other_leaf", "it is about another certificate than this leaf"},
    [OCSP_BAD_SIGNATURE] = {"bad_signature", "its signature does not verify"},
    [OCSP_WEAK_ALGORITHM] = {"weak_algorithm", "it is signed with an insecure algorithm"},
    [OCSP_SIGNER_FOREIGN] = {"signer_foreign",
                             "its signer is not the leaf's issuer, nor certified by it"},
    [OCSP_SIGNER_UNFIT] = {"signer_unfit", "its signer may not sign OCSP responses"},
    [OCSP_SIGNER_EXPIRED] = {"signer_expired",
                             "its signer's certificate has expired, or is not yet valid"},
    [OCSP_SIGNER_IS_LEAF] = {"signer_is_leaf", "the leaf itself signed it"},
    [OCSP_UNKNOWN_CRITICAL] = {"unknown_critical", "it has a critical extension that is unknown"},
    [OCSP_NO_NONCE] = {"no_nonce", "it does not have the nonce that was asked for"},
    [OCSP_WRONG_NONCE] = {"wrong_nonce", "its nonce is not ours: it answers another question"},
    [OCSP_NOT_YET_VALID] = {"not_yet_valid", "its time has not begun: is the clock right?"},
    [OCSP_EXPIRED] = {"expired", "its time has ended: fetch a new one"},
    [OCSP_REPLAYED] = {"replayed", "it is older than one that was seen before"},
    [OCSP_NO_MEMORY] = {"no_memory", "no memory"},
    [OCSP_BAD_CERTIFICATE] = {"bad_certificate", "the leaf or its issuer cannot be read"},
};

const char *ocsp_fault_name(enum ocsp_fault fault) {
  return fault < OCSP_NUM_FAULTS ? faults[fault].name : "?";
}

const char *ocsp_status_name(enum ocsp_status status) {
  static const char *const names[] = {
      [OCSP_GOOD] = "good", [OCSP_REVOKED] = "revoked", [OCSP_UNKNOWN] = "unknown"};
  return status <= OCSP_UNKNOWN ? names[status] : "?";
}

#define FAULT_TRY(step)           \
  do {                            \
    fault = (step);               \
    if (fault != OCSP_NO_FAULT) { \
      goto out;                   \
    }                             \
  } while (0)

// --- parsing -------------------------------------------------------------------------

static gnutls_datum_t datum_of(struct bytes in) {
  return (gnutls_datum_t){(unsigned char *)in.data, (unsigned)in.len};  // only read
}

static enum ocsp_fault read_certificate(gnutls_x509_crt_t *out, struct bytes der) {
  gnutls_datum_t datum = datum_of(der);

  if (gnutls_x509_crt_init(out) < 0) {
    *out = NULL;
    return OCSP_NO_MEMORY;
  }
  return gnutls_x509_crt_import(*out, &datum, GNUTLS_X509_FMT_DER) < 0 ? OCSP_BAD_CERTIFICATE
                                                                       : OCSP_NO_FAULT;
}

static enum ocsp_fault read_response(gnutls_ocsp_resp_t *out, struct bytes der) {
  gnutls_datum_t datum = datum_of(der);

  if (der.len == 0) {
    return OCSP_MALFORMED;
  }
  if (der.len > OCSP_MAX_LEN) {
    return OCSP_TOO_LONG;
  }
  if (gnutls_ocsp_resp_init(out) < 0) {
    *out = NULL;
    return OCSP_NO_MEMORY;
  }
  if (gnutls_ocsp_resp_import2(*out, &datum, GNUTLS_X509_FMT_DER) < 0) {
    return OCSP_MALFORMED;
  }
  switch (gnutls_ocsp_resp_get_status(*out)) {
    case GNUTLS_OCSP_RESP_SUCCESSFUL:
      break;
    case GNUTLS_OCSP_RESP_TRYLATER:
      return OCSP_TRY_LATER;
    case GNUTLS_OCSP_RESP_UNAUTHORIZED:
      return OCSP_UNAUTHORIZED;
    default:
      return OCSP_RESPONDER_ERROR;
  }
  // Anything but id-pkix-ocsp-basic has no version for GnuTLS.
  return gnutls_ocsp_resp_get_version(*out) == 1 ? OCSP_NO_FAULT : OCSP_MALFORMED;
}

static void parsed_cleanup(struct parsed *parsed) {
  gnutls_x509_crt_deinit(parsed->issuer);
  gnutls_x509_crt_deinit(parsed->leaf);
  if (parsed->response != NULL) {
    gnutls_ocsp_resp_deinit(parsed->response);
  }
}

// --- which answer ----------------------------------------------------------------------

static void single_cleanup(struct single *single) {
  gnutls_free(single->issuer_name_hash.data);
  gnutls_free(single->issuer_key_hash.data);
  gnutls_free(single->serial.data);
  *single = (struct single){0};
}

static const EVP_MD *md_of(gnutls_digest_algorithm_t digest) {
  switch ((int)digest) {
    case GNUTLS_DIG_SHA1:
      return EVP_sha1();
    case GNUTLS_DIG_SHA256:
      return EVP_sha256();
    case GNUTLS_DIG_SHA384:
      return EVP_sha384();
    case GNUTLS_DIG_SHA512:
      return EVP_sha512();
    default:
      return NULL;
  }
}

// The key hash of a CertID is over the bits of the issuer's public key alone.
static bool has_key_hash(struct bytes issuer, const struct single *single) {
  const EVP_MD *md = md_of(single->digest);
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned digest_len = 0;
  const uint8_t *p = issuer.data;
  bool is_same = false;
  X509 *cert = md == NULL ? NULL : d2i_X509(NULL, &p, (long)issuer.len);

  if (cert != NULL && X509_pubkey_digest(cert, md, digest, &digest_len)) {
    is_same = single->issuer_key_hash.size == digest_len &&
              memcmp(single->issuer_key_hash.data, digest, digest_len) == 0;
  }
  ERR_clear_error();
  X509_free(cert);
  return is_same;
}

// is_newer: the later answer counts; of two of the same second the worse.
static bool is_newer(const struct single *a, const struct single *b) {
  return a->this_update != b->this_update
             ? a->this_update > b->this_update
             : a->status == GNUTLS_OCSP_CERT_REVOKED && b->status != GNUTLS_OCSP_CERT_REVOKED;
}

// find_single finds the newest answer about this leaf among those in the response.
static enum ocsp_fault find_single(struct single *out, const struct parsed *parsed,
                                   struct bytes issuer) {
  bool is_found = false;

  for (unsigned i = 0; i < MAX_SINGLE_RESPONSES; i++) {
    struct single one = {0};
    if (gnutls_ocsp_resp_get_single(parsed->response, i, &one.digest, &one.issuer_name_hash,
                                    &one.issuer_key_hash, &one.serial, &one.status,
                                    &one.this_update, &one.next_update, &one.revocation_time,
                                    &one.revocation_reason) < 0) {
      break;  // what it gave out is undefined now
    }
    // The first compares the serial number and the hash of the issuer's name.
    if (gnutls_ocsp_resp_check_crt(parsed->response, i, parsed->leaf) == 0 &&
        (issuer.len == 0 || has_key_hash(issuer, &one)) && (!is_found || is_newer(&one, out))) {
      single_cleanup(out);
      *out = one;
      is_found = true;
    } else {
      single_cleanup(&one);
    }
  }
  return is_found ? OCSP_NO_FAULT : OCSP_OTHER_LEAF;
}

// --- who signed it -------------------------------------------------------------------

static bool is_equal(const gnutls_datum_t *a, const void *b, size_t b_len) {
  return a->size == b_len && memcmp(a->data, b, b_len) == 0;
}

// has_key_id: by the hash of its key's bits, or the identifier it was given.
static bool has_key_id(gnutls_x509_crt_t cert, const gnutls_datum_t *id) {
  unsigned char ski[64];
  size_t ski_len = sizeof ski;
  unsigned is_critical = 0;
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned digest_len = 0;
  gnutls_datum_t der = {0};
  X509 *x509 = NULL;
  bool is_same = gnutls_x509_crt_get_subject_key_id(cert, ski, &ski_len, &is_critical) >= 0 &&
                 is_equal(id, ski, ski_len);

  if (!is_same && gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_DER, &der) >= 0) {
    const uint8_t *p = der.data;
    x509 = d2i_X509(NULL, &p, (long)der.size);
    // What BoringSSL cannot read counts as the one that is meant: it has to be fit.
    is_same = x509 == NULL || !X509_pubkey_digest(x509, EVP_sha1(), digest, &digest_len) ||
              is_equal(id, digest, digest_len);
    ERR_clear_error();
  }
  X509_free(x509);
  gnutls_free(der.data);
  return is_same;
}

// may_be_signer: does the responderID mean this certificate? GnuTLS chooses the signer by
// the same rules.
static bool may_be_signer(gnutls_x509_crt_t cert, const struct parsed *parsed) {
  gnutls_datum_t id = {0};
  gnutls_datum_t name = {0};
  bool is_same = true;

  if (gnutls_ocsp_resp_get_responder_raw_id(parsed->response, GNUTLS_OCSP_RESP_ID_DN, &id) >= 0 &&
      id.data != NULL) {
    is_same = gnutls_x509_crt_get_raw_dn(cert, &name) < 0 || is_equal(&id, name.data, name.size);
  } else if (gnutls_ocsp_resp_get_responder_raw_id(parsed->response, GNUTLS_OCSP_RESP_ID_KEY,
                                                   &id) >= 0) {
    is_same = has_key_id(cert, &id);
  }
  gnutls_free(name.data);
  gnutls_free(id.data);
  return is_same;
}

static bool has_extension(gnutls_x509_crt_t cert, const char *wanted) {
  for (unsigned i = 0; i < MAX_EXTENSIONS; i++) {
    char oid[128];
    size_t oid_len = sizeof oid;
    unsigned is_critical = 0;
    if (gnutls_x509_crt_get_extension_info(cert, i, oid, &oid_len, &is_critical) < 0) {
      return false;
    }
    if (strcmp(oid, wanted) == 0) {
      return true;
    }
  }
  return false;
}

static enum ocsp_fault check_signer(struct ocsp_answer *out, const struct parsed *parsed,
                                    gnutls_x509_crt_t signer, const struct ocsp_query *query) {
  const int64_t begins_s = (int64_t)gnutls_x509_crt_get_activation_time(signer);
  const int64_t ends_s = (int64_t)gnutls_x509_crt_get_expiration_time(signer);

  if (gnutls_x509_crt_equals(signer, parsed->issuer) || !may_be_signer(signer, parsed)) {
    return OCSP_NO_FAULT;
  }
  if (gnutls_x509_crt_equals(signer, parsed->leaf)) {
    return OCSP_SIGNER_IS_LEAF;
  }
  if (query->now_s + query->skew_s < begins_s || query->now_s - query->skew_s > ends_s) {
    return OCSP_SIGNER_EXPIRED;
  }
  out->is_delegated = true;
  out->is_nocheck = has_extension(signer, OID_NOCHECK);
  return OCSP_NO_FAULT;
}

// check_signers looks at the certificates that came along: GnuTLS checks with the
// machine's clock, and would take a leaf that has the right key usage.
static enum ocsp_fault check_signers(struct ocsp_answer *out, const struct parsed *parsed,
                                     const struct ocsp_query *query) {
  enum ocsp_fault fault = OCSP_NO_FAULT;
  gnutls_x509_crt_t *certs = NULL;
  size_t num = 0;
  const int rc = gnutls_ocsp_resp_get_certs(parsed->response, &certs, &num);

  if (rc < 0 && rc != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
    return rc == GNUTLS_E_MEMORY_ERROR ? OCSP_NO_MEMORY : OCSP_MALFORMED;
  }
  if (rc < 0) {
    return OCSP_NO_FAULT;
  }
  if (num > MAX_CERTS) {
    fault = OCSP_MALFORMED;
  }
  for (size_t i = 0; i < num; i++) {
    if (fault == OCSP_NO_FAULT) {
      fault = check_signer(out, parsed, certs[i], query);
    }
    gnutls_x509_crt_deinit(certs[i]);
  }
  gnutls_free(certs);
  return fault;
}

static enum ocsp_fault check_signature(struct ocsp_answer *out, const struct parsed *parsed,
                                       const struct ocsp_query *query) {
  static const struct {
    unsigned bit;
    enum ocsp_fault fault;
  } reasons[] = {
      {GNUTLS_OCSP_VERIFY_SIGNER_NOT_FOUND, OCSP_SIGNER_FOREIGN},
      {GNUTLS_OCSP_VERIFY_SIGNER_KEYUSAGE_ERROR, OCSP_SIGNER_UNFIT},
      {GNUTLS_OCSP_VERIFY_INSECURE_ALGORITHM, OCSP_WEAK_ALGORITHM},
      {GNUTLS_OCSP_VERIFY_UNTRUSTED_SIGNER, OCSP_SIGNER_FOREIGN},
  };
  unsigned verify = 0;
  enum ocsp_fault fault = OCSP_NO_FAULT;
  const int algorithm = gnutls_ocsp_resp_get_signature_algorithm(parsed->response);

  FAULT_TRY(check_signers(out, parsed, query));
  if (algorithm < 0 || algorithm == GNUTLS_SIGN_UNKNOWN ||
      !gnutls_sign_is_secure2((gnutls_sign_algorithm_t)algorithm,
                              GNUTLS_SIGN_FLAG_SECURE_FOR_CERTS)) {
    return OCSP_WEAK_ALGORITHM;
  }
  if (gnutls_ocsp_resp_verify_direct(parsed->response, parsed->issuer, &verify,
                                     GNUTLS_VERIFY_DISABLE_TIME_CHECKS) < 0) {
    return OCSP_BAD_SIGNATURE;
  }
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
    if ((verify & reasons[i].bit) != 0) {
      return reasons[i].fault;
    }
  }
  fault = verify == 0 ? OCSP_NO_FAULT : OCSP_BAD_SIGNATURE;

out:
  return fault;
}

// --- the rest ----------------------------------------------------------------------------

static enum ocsp_fault check_extensions(const struct parsed *parsed) {
  for (unsigned i = 0; i < MAX_EXTENSIONS; i++) {
    gnutls_datum_t oid = {0};
    unsigned is_critical = 0;
    bool is_nonce = false;
    const int rc = gnutls_ocsp_resp_get_extension(parsed->response, i, &oid, &is_critical, NULL);
    if (rc < 0) {
      return OCSP_NO_FAULT;
    }
    is_nonce = oid.data != NULL && oid.size >= strlen(GNUTLS_OCSP_NONCE) &&
               memcmp(oid.data, GNUTLS_OCSP_NONCE, strlen(GNUTLS_OCSP_NONCE)) == 0;
    gnutls_free(oid.data);
    if (is_critical != 0 && !is_nonce) {
      return OCSP_UNKNOWN_CRITICAL;
    }
  }
  return OCSP_UNKNOWN_CRITICAL;  // more than anybody has, and not all seen
}

static enum ocsp_fault check_nonce(struct ocsp_answer *out, const struct parsed *parsed,
                                   const struct ocsp_query *query) {
  gnutls_datum_t nonce = {0};
  unsigned is_critical = 0;
  enum ocsp_fault fault = OCSP_NO_FAULT;

  if (query->nonce.len == 0) {
    return OCSP_NO_FAULT;
  }
  if (gnutls_ocsp_resp_get_nonce(parsed->response, &is_critical, &nonce) < 0) {
    return query->must_have_nonce ? OCSP_NO_NONCE : OCSP_NO_FAULT;
  }
  out->is_nonce_equal = bytes_equal(query->nonce, bytes_of(nonce.data, nonce.size));
  fault = out->is_nonce_equal ? OCSP_NO_FAULT : OCSP_WRONG_NONCE;
  gnutls_free(nonce.data);
  return fault;
}

static int64_t seconds_of(time_t time) { return time == (time_t)-1 ? 0 : (int64_t)time; }

static void take_single(struct ocsp_answer *out, const struct single *single) {
  out->this_update_s = seconds_of(single->this_update);
  out->next_update_s = seconds_of(single->next_update);
  out->status = OCSP_UNKNOWN;
  if (single->status == GNUTLS_OCSP_CERT_GOOD) {
    out->status = OCSP_GOOD;
  } else if (single->status == GNUTLS_OCSP_CERT_REVOKED) {
    out->status = OCSP_REVOKED;
    out->revoked_s = seconds_of(single->revocation_time);
    out->reason = single->revocation_reason <= 10 ? (int)single->revocation_reason : 0;
  }
}

static enum ocsp_fault check_times(const struct ocsp_answer *answer,
                                   const struct ocsp_query *query) {
  if (answer->this_update_s > query->now_s + query->skew_s ||
      answer->produced_s > query->now_s + query->skew_s) {
    return OCSP_NOT_YET_VALID;
  }
  if (answer->next_update_s != 0 && query->now_s >= answer->next_update_s + query->skew_s) {
    return OCSP_EXPIRED;
  }
  return answer->this_update_s < query->min_this_update ? OCSP_REPLAYED : OCSP_NO_FAULT;
}

enum ocsp_fault ocsp_check(struct ocsp_answer *out, const struct ocsp_query *query,
                           struct bytes response, struct errmsg *err) {
  enum ocsp_fault fault = OCSP_NO_FAULT;
  struct parsed parsed = {0};
  struct single single = {0};

  *out = (struct ocsp_answer){.status = OCSP_UNKNOWN};
  FAULT_TRY(read_response(&parsed.response, response));
  FAULT_TRY(read_certificate(&parsed.leaf, query->leaf));
  if (query->issuer.len > 0) {
    FAULT_TRY(read_certificate(&parsed.issuer, query->issuer));
  }
  FAULT_TRY(find_single(&single, &parsed, query->issuer));
  if (query->issuer.len > 0) {
    FAULT_TRY(check_signature(out, &parsed, query));
    out->is_signature_checked = true;
  }
  take_single(out, &single);
  out->produced_s = seconds_of(gnutls_ocsp_resp_get_produced(parsed.response));
  FAULT_TRY(check_extensions(&parsed));
  FAULT_TRY(check_nonce(out, &parsed, query));
  FAULT_TRY(check_times(out, query));

out:
  single_cleanup(&single);
  parsed_cleanup(&parsed);
  if (fault != OCSP_NO_FAULT) {
    (void)errmsg_set(err, STATUS_OK, "%s", faults[fault].sentence);
  }
  return fault;
}

bool ocsp_says_revoked(const struct ocsp_answer *answer, enum ocsp_fault fault) {
  return answer->status == OCSP_REVOKED &&
         (fault == OCSP_NO_FAULT || (fault == OCSP_EXPIRED && answer->reason != REASON_HOLD));
}

bool ocsp_may_staple(const struct ocsp_answer *answer, enum ocsp_fault fault, int64_t now_s) {
  return fault == OCSP_NO_FAULT && answer->status == OCSP_GOOD && answer->is_signature_checked &&
         answer->this_update_s <= now_s && now_s < answer->next_update_s;
}

// --- asking ------------------------------------------------------------------------------

enum status ocsp_request_new(uint8_t **out, size_t *out_len, struct bytes leaf, struct bytes issuer,
                             struct bytes nonce, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct parsed parsed = {0};
  gnutls_ocsp_req_t request = NULL;
  gnutls_datum_t der = {0};
  gnutls_datum_t nonce_datum = datum_of(nonce);

  *out = NULL;
  *out_len = 0;
  if (read_certificate(&parsed.leaf, leaf) != OCSP_NO_FAULT ||
      read_certificate(&parsed.issuer, issuer) != OCSP_NO_FAULT) {
    st = errmsg_set(err, STATUS_FORMAT, "%s", faults[OCSP_BAD_CERTIFICATE].sentence);
    goto out;
  }
  if (gnutls_ocsp_req_init(&request) < 0) {
    request = NULL;
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  if (gnutls_ocsp_req_add_cert(request, GNUTLS_DIG_SHA1, parsed.issuer, parsed.leaf) < 0 ||
      (nonce.len > 0 && gnutls_ocsp_req_set_nonce(request, 0, &nonce_datum) < 0) ||
      gnutls_ocsp_req_export(request, &der) < 0) {
    st = errmsg_set(err, STATUS_FORMAT, "no OCSP request can be made for this leaf");
    goto out;
  }
  *out = bytes_copy(bytes_of(der.data, der.size));
  *out_len = der.size;
  st = *out == NULL ? errmsg_set(err, STATUS_MEMORY, "no memory") : STATUS_OK;

out:
  gnutls_free(der.data);
  if (request != NULL) {
    gnutls_ocsp_req_deinit(request);
  }
  parsed_cleanup(&parsed);
  return st;
}

char *ocsp_get_url(const char *responder, struct bytes request) {
  char url[OCSP_MAX_GET_LEN + 1];
  char *base64 = bytes_to_base64(request);
  size_t len = strlen(responder);
  size_t at = 0;

  if (base64 == NULL || len == 0 || len >= OCSP_MAX_GET_LEN || strchr(responder, '?') != NULL) {
    free(base64);
    return NULL;
  }
  memcpy(url, responder, len);
  if (url[len - 1] != '/') {
    url[len++] = '/';
  }
  for (at = 0; base64[at] != '\0'; at++) {
    const char c = base64[at];
    const bool is_escaped = c == '+' || c == '/' || c == '=';
    if (len + (is_escaped ? 3 : 1) > OCSP_MAX_GET_LEN) {
      break;
    }
    if (is_escaped) {
      len += (size_t)snprintf(url + len, sizeof(url) - len, "%%%02X", (unsigned)c);
    } else {
      url[len++] = c;
    }
  }
  url[len] = '\0';
  const bool is_whole = base64[at] == '\0';
  free(base64);
  return is_whole ? strdup(url) : NULL;
}
