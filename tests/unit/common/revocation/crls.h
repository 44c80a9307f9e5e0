// SPDX-License-Identifier: Apache-2.0
// crls: revocation lists made at run time for unit tests (RFC 5280, section 5).
#ifndef DEPUTY_TESTS_UNIT_COMMON_REVOCATION_CRLS_H_
#define DEPUTY_TESTS_UNIT_COMMON_REVOCATION_CRLS_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"

#define TEST_CRL_MAX_SERIALS 8u

// All-zero is an empty list, from an hour ago for a day.
struct test_crl {
  int64_t this_update_s;
  int64_t next_update_s;
  bool has_no_next_update;
  bool is_sha1;
  bool is_signature_wrong;
  long serials[TEST_CRL_MAX_SERIALS];  // 0 ends
  int reason;                          // of each; 0: none
  const char *entry_oid;               // a further, critical extension of each entry
  size_t num_others;                   // serial numbers from 10,000,000 on, before the others
};

// test_crl_new returns new DER (OPENSSL_free).
struct bytes test_crl_new(const struct test_crl *spec, X509 *issuer, EVP_PKEY *issuer_key);

#endif  // DEPUTY_TESTS_UNIT_COMMON_REVOCATION_CRLS_H_
