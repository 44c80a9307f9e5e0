// SPDX-License-Identifier: Apache-2.0
// certs: keys, certificates and delegated credentials made at run time for unit
// tests, so that none is stored and none expires. What cannot be made aborts.
#ifndef DEPUTY_TESTS_SUPPORT_CERTS_H_
#define DEPUTY_TESTS_SUPPORT_CERTS_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/wire/scheme.h"

// All-zero but for `cn` is a leaf without names, good from an hour ago for 90 days.
struct test_cert {
  const char *cn;
  const char *names;      // subjectAltName as "DNS:a.test,URI:spiffe://b,IP:127.0.0.1"
  const char *eku;        // "serverAuth", "clientAuth", "serverAuth,clientAuth"
  const char *key_usage;  // NULL: "digitalSignature" ("keyCertSign" for a CA); "": none
  bool is_ca;
  bool has_delegation_usage;
  bool is_delegation_usage_critical;
  bool is_must_staple;
  const char *ocsp_url;        // in its AuthorityInfoAccess
  const char *crl_url;         // of its one distribution point
  const char *crl_url_before;  // another place of the same list, named first
  int64_t not_before_s;        // 0: an hour ago
  int64_t not_after_s;         // 0: 90 days from now
  long serial;                 // 0: a new one
};

EVP_PKEY *test_key_new(enum key_kind kind);
EVP_PKEY *test_rsa_key_new(unsigned bits);

// test_cert_new makes a certificate of `key`, issued by `issuer` (NULL: itself).
X509 *test_cert_new(const struct test_cert *spec, EVP_PKEY *key, X509 *issuer,
                    EVP_PKEY *issuer_key);

// test_cert_der returns new DER (OPENSSL_free); test_cert_buffer the same in a buffer.
struct bytes test_cert_der(X509 *x509);
CRYPTO_BUFFER *test_cert_buffer(X509 *x509);

// test_dc_new signs a delegated credential for `dc_key` under the leaf; the bytes are
// new (free). `algorithm` 0: what fits the leaf's key.
struct bytes test_dc_new(X509 *leaf, EVP_PKEY *leaf_key, EVP_PKEY *dc_key, int64_t expiry_s,
                         uint16_t algorithm);

// Files below a folder of this process; test_path borrows a static buffer (of the
// last 64 calls).
const char *test_path(const char *name);
void test_write_file(const char *name, const void *data, size_t len, unsigned mode);
void test_write_certs(const char *name, X509 *const *certs, size_t num);
void test_write_key(const char *name, EVP_PKEY *key, unsigned mode);
void test_remove_files(void);

#endif  // DEPUTY_TESTS_SUPPORT_CERTS_H_
