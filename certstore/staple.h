// SPDX-License-Identifier: Apache-2.0
// staple: is this OCSP response one that we show with this leaf, as a client would take
// it? RFC 6066, section 8. The checks are those of common/revocation/ocsp.h, without
// any allowance for clocks, as clients have none for us.
#ifndef DEPUTY_CERTSTORE_STAPLE_H_
#define DEPUTY_CERTSTORE_STAPLE_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/credential.h"

#define STAPLE_MAX_LEN TLS_STAPLE_MAX_LEN  // bytes of one response

struct staple_facts {
  int64_t this_update_s;
  int64_t next_update_s;
  bool is_signature_checked;  // false: there was no issuer to check it with
  bool is_revoked;            // with STATUS_REFUSED only, and only if checked
  int revoked_reason;         // then; RFC 5280, section 5.3.1; 0: not said
};

// staple_check reads a DER OCSPResponse and checks that it is for the leaf `leaf`
// (its serial number, and its issuer's name and key), signed by `issuer` or by a
// responder that it delegated to, says good, and is in time at `now_s`:
// thisUpdate <= now < nextUpdate, and nextUpdate is there. `issuer` is the DER of
// the next certificate in the chain; empty if the chain is the leaf alone: then
// the signature and the issuer's key cannot be checked, and clients will.
//   STATUS_FORMAT   not a successful response, or not for this leaf
//   STATUS_CRYPTO   not signed by whom it should be
//   STATUS_REFUSED  the leaf is revoked or unknown to its CA
//   STATUS_EXPIRED  out of its time, or without an end
//   STATUS_MEMORY
// On failure err has the sentence, and *out what was learned.
enum status staple_check(struct staple_facts *out, struct bytes response, struct bytes leaf,
                         struct bytes issuer, int64_t now_s, struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_STAPLE_H_
