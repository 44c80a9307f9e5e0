// SPDX-License-Identifier: Apache-2.0
#include "certstore/staple.h"

#include <gnutls/gnutls.h>
#include <gnutls/ocsp.h>
#include <gnutls/x509.h>
#include <openssl/digest.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <string.h>
#include <time.h>

#define MAX_SINGLE_RESPONSES 64u  // in one response; ours is usually the only one

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

static void single_cleanup(struct single *single) {
  gnutls_free(single->issuer_name_hash.data);
  gnutls_free(single->issuer_key_hash.data);
  gnutls_free(single->serial.data);
  *single = (struct single){0};
}

static gnutls_datum_t datum_of(struct bytes in) {
  return (gnutls_datum_t){(unsigned char *)in.data, (unsigned)in.len};  // only read
}

static enum status read_certificate(gnutls_x509_crt_t *out, struct bytes der, const char *what,
                                    struct errmsg *err) {
  gnutls_datum_t datum = datum_of(der);
  if (gnutls_x509_crt_init(out) < 0) {
    *out = NULL;
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  int rc = gnutls_x509_crt_import(*out, &datum, GNUTLS_X509_FMT_DER);
  if (rc < 0) {
    return errmsg_set(err, STATUS_FORMAT, "%s cannot be read: %s", what, gnutls_strerror(rc));
  }
  return STATUS_OK;
}

static enum status read_response(gnutls_ocsp_resp_t *out, struct bytes der, struct errmsg *err) {
  gnutls_datum_t datum = datum_of(der);
  if (der.len == 0 || der.len > STAPLE_MAX_LEN) {
    return errmsg_set(err, STATUS_FORMAT, "%zu bytes cannot be an OCSP response", der.len);
  }
  if (gnutls_ocsp_resp_init(out) < 0) {
    *out = NULL;
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  int rc = gnutls_ocsp_resp_import2(*out, &datum, GNUTLS_X509_FMT_DER);
  if (rc < 0) {
    return errmsg_set(err, STATUS_FORMAT, "it is not an OCSP response in DER: %s",
                      gnutls_strerror(rc));
  }
  int answer = gnutls_ocsp_resp_get_status(*out);
  if (answer != GNUTLS_OCSP_RESP_SUCCESSFUL) {
    return errmsg_set(err, STATUS_FORMAT, "the responder answered with error %d (RFC 6960, 4.2.1)",
                      answer);
  }
  return STATUS_OK;
}

// The key hash of a CertID is over the bits of the issuer's public key alone.
static bool has_key_hash(struct bytes issuer, const struct single *single) {
  const EVP_MD *md = NULL;
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned digest_len = 0;
  bool is_same = false;
  switch ((int)single->digest) {
    case GNUTLS_DIG_SHA1:
      md = EVP_sha1();
      break;
    case GNUTLS_DIG_SHA256:
      md = EVP_sha256();
      break;
    case GNUTLS_DIG_SHA384:
      md = EVP_sha384();
      break;
    case GNUTLS_DIG_SHA512:
      md = EVP_sha512();
      break;
    default:
      return false;
  }
  const uint8_t *p = issuer.data;
  X509 *cert = d2i_X509(NULL, &p, (long)issuer.len);
  if (cert != NULL && X509_pubkey_digest(cert, md, digest, &digest_len)) {
    is_same = single->issuer_key_hash.size == digest_len &&
              memcmp(single->issuer_key_hash.data, digest, digest_len) == 0;
  }
  X509_free(cert);
  return is_same;
}

// find_single finds the answer about this leaf among those in the response.
static enum status find_single(struct single *out, const struct parsed *parsed, struct bytes issuer,
                               struct errmsg *err) {
  for (unsigned i = 0; i < MAX_SINGLE_RESPONSES; i++) {
    int rc = gnutls_ocsp_resp_get_single(parsed->response, i, &out->digest, &out->issuer_name_hash,
                                         &out->issuer_key_hash, &out->serial, &out->status,
                                         &out->this_update, &out->next_update,
                                         &out->revocation_time, &out->revocation_reason);
    if (rc < 0) {
      *out = (struct single){0};
      break;
    }
    // Compares the serial number and the hash of the issuer's name.
    if (gnutls_ocsp_resp_check_crt(parsed->response, i, parsed->leaf) == 0 &&
        (issuer.len == 0 || has_key_hash(issuer, out))) {
      return STATUS_OK;
    }
    single_cleanup(out);
  }
  return errmsg_set(err, STATUS_FORMAT, "it is about another certificate than this leaf");
}

static enum status check_signature(const struct parsed *parsed, struct errmsg *err) {
  static const struct {
    unsigned bit;
    const char *why;
  } reasons[] = {
      {GNUTLS_OCSP_VERIFY_SIGNER_NOT_FOUND, "its signer's certificate is not in it"},
      {GNUTLS_OCSP_VERIFY_SIGNER_KEYUSAGE_ERROR, "its signer may not sign OCSP responses"},
      {GNUTLS_OCSP_VERIFY_UNTRUSTED_SIGNER, "its signer is not the leaf's issuer, nor of it"},
      {GNUTLS_OCSP_VERIFY_INSECURE_ALGORITHM, "it is signed with an insecure algorithm"},
      {GNUTLS_OCSP_VERIFY_CERT_NOT_ACTIVATED, "its signer's certificate is not yet valid"},
      {GNUTLS_OCSP_VERIFY_CERT_EXPIRED, "its signer's certificate has expired"},
      {GNUTLS_OCSP_VERIFY_SIGNATURE_FAILURE, "its signature does not verify"},
  };
  unsigned verify = 0;
  int rc = gnutls_ocsp_resp_verify_direct(parsed->response, parsed->issuer, &verify, 0);
  if (rc < 0) {
    return errmsg_set(err, STATUS_CRYPTO, "its signature cannot be checked: %s",
                      gnutls_strerror(rc));
  }
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
    if ((verify & reasons[i].bit) != 0) {
      return errmsg_set(err, STATUS_CRYPTO, "%s", reasons[i].why);
    }
  }
  return verify == 0 ? STATUS_OK : errmsg_set(err, STATUS_CRYPTO, "its signature does not verify");
}

static enum status check_answer(struct staple_facts *out, const struct single *single,
                                int64_t now_s, struct errmsg *err) {
  out->this_update_s = (int64_t)single->this_update;
  out->next_update_s = single->next_update == (time_t)-1 ? 0 : (int64_t)single->next_update;
  if (single->status == GNUTLS_OCSP_CERT_REVOKED) {
    out->is_revoked = out->is_signature_checked && out->this_update_s <= now_s;
    return errmsg_set(err, STATUS_REFUSED, "it says that the leaf is revoked (reason %u)",
                      single->revocation_reason);
  }
  if (single->status != GNUTLS_OCSP_CERT_GOOD) {
    return errmsg_set(err, STATUS_REFUSED, "it says that the CA does not know the leaf");
  }
  if (out->next_update_s == 0) {
    return errmsg_set(err, STATUS_EXPIRED, "it has no nextUpdate, so nobody knows its end");
  }
  if (out->this_update_s > now_s) {
    return errmsg_set(err, STATUS_EXPIRED, "its time has not begun: is the clock right?");
  }
  if (now_s >= out->next_update_s) {
    return errmsg_set(err, STATUS_EXPIRED, "its time has ended: fetch a new one");
  }
  return STATUS_OK;
}

enum status staple_check(struct staple_facts *out, struct bytes response, struct bytes leaf,
                         struct bytes issuer, int64_t now_s, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct parsed parsed = {0};
  struct single single = {0};

  *out = (struct staple_facts){0};
  TRY(read_response(&parsed.response, response, err));
  TRY(read_certificate(&parsed.leaf, leaf, "the leaf", err));
  if (issuer.len > 0) {
    TRY(read_certificate(&parsed.issuer, issuer, "the issuer's certificate", err));
  }
  TRY(find_single(&single, &parsed, issuer, err));
  if (issuer.len > 0) {
    TRY(check_signature(&parsed, err));
    out->is_signature_checked = true;
  }
  TRY(check_answer(out, &single, now_s, err));

out:
  single_cleanup(&single);
  gnutls_x509_crt_deinit(parsed.issuer);
  gnutls_x509_crt_deinit(parsed.leaf);
  if (parsed.response != NULL) {
    gnutls_ocsp_resp_deinit(parsed.response);
  }
  return st;
}
