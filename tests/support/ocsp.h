// SPDX-License-Identifier: Apache-2.0
// ocsp: OCSP responses made at run time for unit tests (RFC 6960, section 4.2), right
// or wrong as asked. BoringSSL has none; the bytes are built with CBB.
#ifndef DEPUTY_TESTS_SUPPORT_OCSP_H_
#define DEPUTY_TESTS_SUPPORT_OCSP_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"

enum test_ocsp_status { TEST_OCSP_GOOD, TEST_OCSP_REVOKED, TEST_OCSP_UNKNOWN };

// All-zero is a good answer of the issuer itself, from an hour ago for 4 days.
struct test_ocsp {
  enum test_ocsp_status status;
  int64_t this_update_s;  // 0: an hour ago
  int64_t next_update_s;  // 0: 4 days from now
  bool has_no_next_update;
  bool is_sha256;  // CertID hashed with SHA-256, not SHA-1
  bool is_signature_wrong;
  bool is_key_hash_wrong;
  bool is_preceded_by_other;  // an answer about another serial number comes first
  int error;                  // responseStatus other than successful, and nothing else
};

// test_ocsp_new returns new DER (OPENSSL_free) about `leaf`, issued by `issuer`,
// signed with `signer_key`; `signer` goes into it if not NULL (a delegated responder).
struct bytes test_ocsp_new(const struct test_ocsp *spec, X509 *leaf, X509 *issuer, X509 *signer,
                           EVP_PKEY *signer_key);

#endif  // DEPUTY_TESTS_SUPPORT_OCSP_H_
