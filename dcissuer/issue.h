// SPDX-License-Identifier: Apache-2.0
// issue: one delegated credential, from what was asked to what is answered, in
// steps that do no I/O: read the entry, judge it, build what the key server
// signs, and check what came back (docs/PROTOCOL.dcissuer.md; RFC 9345, section
// 4). batch.c drives it. The client chooses a key, a certificate and a lifetime,
// never a byte of what is signed otherwise.
#ifndef DEPUTY_DCISSUER_ISSUE_H_
#define DEPUTY_DCISSUER_ISSUE_H_

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/keyclient/keyclient.h"
#include "common/wire/dc.h"
#include "dcissuer/cert_store.h"
#include "dcissuer/policy.h"

// What an entry may be refused with; the words are the API's.
enum issue_error {
  ISSUE_OK,
  ISSUE_BAD_REQUEST,
  ISSUE_BAD_CERTIFICATE,
  ISSUE_UNKNOWN_CERTIFICATE,
  ISSUE_NOT_ALLOWED,
  ISSUE_CERTIFICATE_NOT_DELEGABLE,
  ISSUE_CERTIFICATE_NOT_VALID,
  ISSUE_SCHEME_NOT_ALLOWED,
  ISSUE_LIFETIME_TOO_LONG,
  ISSUE_BAD_PUBLIC_KEY,
  ISSUE_OWN_KEY,
  ISSUE_RATE_EXCEEDED,
  ISSUE_BAD_PROOF,
  ISSUE_AUDIT_UNAVAILABLE,
  ISSUE_KEY_SERVER_UNAVAILABLE,
  ISSUE_KEY_SERVER_REFUSED,
  ISSUE_KEY_NOT_FOUND,
  ISSUE_BAD_SIGNATURE,
  ISSUE_DEADLINE_EXCEEDED,
  ISSUE_INTERNAL,
  ISSUE_NUM_ERRORS,
};
const char *issue_error_word(enum issue_error error);

// What all entries of a request are judged by.
struct issue_rules {
  const struct cert_set *certificates;
  struct cert_cache *cache;
  const struct client_rights *rights;
  int64_t default_lifetime_s;
  int64_t max_lifetime_s;
  bool accept_presented;
};

// One entry. All-zero is valid; clean with issue_cleanup.
struct issue {
  enum issue_error error;
  const char *why;  // a static sentence for the answer

  uint8_t *der;  // as the entry brought it, until it is judged; NULL: it names a hash
  size_t der_len;
  bool has_certificate_sha256;
  uint8_t certificate_sha256[32];
  struct certificate *certificate;  // a reference; NULL: not known (yet)
  const struct scheme *scheme;
  uint8_t *spki;
  size_t spki_len;
  uint8_t spki_sha256[32];
  uint8_t *proof;
  size_t proof_len;
  int64_t wanted_lifetime_s;  // 0: the request names none
  struct grant *grant;        // that allows it
  int64_t expiry_s;
  struct dc dc;  // borrows `spki`

  uint8_t *credential;  // the result
  size_t credential_len;
};

// issue_read takes an entry of the request apart. False: error and why are set.
bool issue_read(struct issue *out, const json_t *entry);

// issue_judge finds the certificate, the grant, the lifetime, and verifies the
// proof of possession. Cheap checks come first, the rate is charged before the
// first costly one. False: error and why are set.
bool issue_judge(struct issue *issue, const struct issue_rules *rules, int64_t now_s,
                 int64_t now_us);

// issue_input makes what is to be signed: new memory (free) and, borrowed from
// `issue`, the rest of the key server's request.
bool issue_input(struct issue *issue, struct sign_request *out, uint8_t **out_message);

// issue_finish takes the key server's answer, and checks the credential as a
// client would.
bool issue_finish(struct issue *issue, const struct sign_answer *answer, int64_t now_s);

// issue_fail refuses it.
bool issue_fail(struct issue *issue, enum issue_error error, const char *why);

void issue_cleanup(struct issue *issue);

#endif  // DEPUTY_DCISSUER_ISSUE_H_
