// SPDX-License-Identifier: Apache-2.0
// ocsp: the question to an OCSP responder, and whether an answer may be believed. RFC
// 6960; the lightweight profile, RFC 5019, for requests that caches can serve. The one
// place that includes GnuTLS: BoringSSL has no OCSP parser, and GnuTLS is in the
// process already, under libcurl. No I/O. Threads: any.
#ifndef DEPUTY_COMMON_REVOCATION_OCSP_H_
#define DEPUTY_COMMON_REVOCATION_OCSP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

// Bytes of one response. Those in use have 300 bytes to 4 KB; one with a delegated
// responder's RSA certificate and a few more about 8.
#define OCSP_MAX_LEN (32u << 10)
#define OCSP_NONCE_LEN 16u
#define OCSP_MAX_GET_LEN 255u  // bytes of the whole URL, RFC 5019, section 5
#define OCSP_CONTENT_TYPE "application/ocsp-request"
#define OCSP_ANSWER_TYPE "application/ocsp-response"

enum ocsp_status { OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };
const char *ocsp_status_name(enum ocsp_status status);

// Why an answer cannot be believed. OCSP_NO_FAULT says nothing about the leaf: look at
// the status.
enum ocsp_fault {
  OCSP_NO_FAULT,
  OCSP_TOO_LONG,          // more than OCSP_MAX_LEN bytes
  OCSP_MALFORMED,         // not an OCSPResponse in DER, or of a kind unknown
  OCSP_TRY_LATER,         // the responder's errors, section 4.2.1
  OCSP_UNAUTHORIZED,      //   (it does not know this issuer)
  OCSP_RESPONDER_ERROR,   //   (any other)
  OCSP_OTHER_LEAF,        // nothing in it is about this leaf
  OCSP_BAD_SIGNATURE,     // it does not verify
  OCSP_WEAK_ALGORITHM,    // it verifies, with SHA-1 or less
  OCSP_SIGNER_FOREIGN,    // not signed by the leaf's issuer nor by one that it certified
  OCSP_SIGNER_UNFIT,      // certified by the issuer, but not for OCSP (section 4.2.2.2)
  OCSP_SIGNER_EXPIRED,    // the delegated responder's certificate is out of its time
  OCSP_SIGNER_IS_LEAF,    // a leaf does not answer for itself
  OCSP_UNKNOWN_CRITICAL,  // a critical extension that we do not know
  OCSP_NO_NONCE,          // asked for and not there
  OCSP_WRONG_NONCE,       // the answer to another question
  OCSP_NOT_YET_VALID,     // thisUpdate or producedAt is in the future
  OCSP_EXPIRED,           // nextUpdate has passed
  OCSP_REPLAYED,          // older than what is known already
  OCSP_NO_MEMORY,
  OCSP_BAD_CERTIFICATE,  // the leaf or issuer we were given cannot be read
  OCSP_NUM_FAULTS,
};
// ocsp_fault_name: a short word for logs and metrics, as "other_leaf". Static.
const char *ocsp_fault_name(enum ocsp_fault fault);

struct ocsp_query {
  struct bytes leaf;    // DER
  struct bytes issuer;  // DER; empty: signature and issuer's key are not checked
  struct bytes nonce;   // that was sent; empty: none
  bool must_have_nonce;
  int64_t now_s;
  int64_t skew_s;           // by which clocks may differ, at both ends of every time
  int64_t min_this_update;  // an answer older than this is a replay; 0: none known
};

struct ocsp_answer {
  enum ocsp_status status;
  int64_t this_update_s;
  int64_t next_update_s;  // 0: not said
  int64_t produced_s;
  int64_t revoked_s;  // with OCSP_REVOKED
  int reason;         // RFC 5280, section 5.3.1, with OCSP_REVOKED; 0: not said
  bool is_signature_checked;
  bool is_delegated;    // signed by a responder's certificate, not by the issuer itself
  bool is_nocheck;      // ... which says that nobody need ask for its status
  bool is_nonce_equal;  // there was one, and it was ours
};

// ocsp_check reads a response and decides whether it is an authentic, timely answer
// about the leaf. Of several about it the newest counts, and of equally new ones the
// worst. On a fault `out` has what was learned till then, and err the sentence.
//
// A delegated responder without id-pkix-ocsp-nocheck is believed as well: to ask for
// its status would be asking the very issuer that signed its certificate, and
// responders' certificates are short-lived.
enum ocsp_fault ocsp_check(struct ocsp_answer *out, const struct ocsp_query *query,
                           struct bytes response, struct errmsg *err);

// ocsp_says_revoked: also when the answer's time has ended, as what is revoked stays so;
// but for certificateHold (reason 6), which may be lifted.
bool ocsp_says_revoked(const struct ocsp_answer *answer, enum ocsp_fault fault);

// ocsp_may_staple: an answer without a fault that clients are to be shown: good, and
// with an end. `now_s` without skew.
bool ocsp_may_staple(const struct ocsp_answer *answer, enum ocsp_fault fault, int64_t now_s);

// ocsp_request_new returns the DER of a request for one leaf, with SHA-1 in its CertID
// (RFC 5019, section 2.1.1: the one that every responder knows; as an identifier, it
// has to be well distributed, not to resist collisions). STATUS_FORMAT, STATUS_MEMORY.
enum status ocsp_request_new(uint8_t **out, size_t *out_len, struct bytes leaf, struct bytes issuer,
                             struct bytes nonce, struct errmsg *err);

// ocsp_get_url returns the new URL that asks `request` by GET (RFC 6960, appendix A.1),
// or NULL if it would be longer than OCSP_MAX_GET_LEN or there is no memory: then POST.
char *ocsp_get_url(const char *responder, struct bytes request);

#endif  // DEPUTY_COMMON_REVOCATION_OCSP_H_
