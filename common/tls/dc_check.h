// SPDX-License-Identifier: Apache-2.0
// dc_check: everything a client would check of a delegated credential, and a
// little more, before a server dares to serve it (RFC 9345, section 4.1.3;
// neither generation of BoringSSL checks any of it).
#ifndef DEPUTY_COMMON_TLS_DC_CHECK_H_
#define DEPUTY_COMMON_TLS_DC_CHECK_H_

#include "common/tls/cert.h"
#include "common/wire/dc.h"

enum dc_fault {
  DC_FAULT_NONE,
  DC_FAULT_FORMAT,            // not a DelegatedCredential
  DC_FAULT_CERTIFICATE,       // leaf without DelegationUsage or digitalSignature
  DC_FAULT_EXPIRED,           // ends before now + the margin
  DC_FAULT_TOO_LONG,          // ends later than now + 7 days
  DC_FAULT_PAST_CERTIFICATE,  // ends at or after the leaf's notAfter
  DC_FAULT_SCHEME,            // a scheme that no DC may have, or not the one asked for
  DC_FAULT_ALGORITHM,         // delegation algorithm does not fit the leaf's key
  DC_FAULT_SIGNATURE,         // the delegation signature does not verify
  DC_FAULT_KEY,               // its public key is not that of our private key
  DC_FAULT_OWN_KEY_IN_LEAF,   // its public key is the certificate's
  DC_FAULT_NUM,
};
const char *dc_fault_name(enum dc_fault fault);

// dc_check decodes and checks `in` against the leaf at `now_s`. `key` is the DC's
// private key (checked by a signature made and verified), or NULL for a check
// from outside. Fills *out (borrowing `in`) as far as it could be decoded.
// STATUS_OK exactly when *fault is DC_FAULT_NONE, else STATUS_FORMAT,
// STATUS_EXPIRED or STATUS_CRYPTO.
enum status dc_check(struct dc *out, enum dc_fault *fault, struct bytes in, struct bytes leaf_der,
                     const struct cert_info *leaf, EVP_PKEY *key, int64_t now_s, int64_t margin_s);

#endif  // DEPUTY_COMMON_TLS_DC_CHECK_H_
