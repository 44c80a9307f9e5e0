// SPDX-License-Identifier: Apache-2.0
// dc: delegated credentials, RFC 9345 section 4, as bytes: the structure, the
// input of its signature, its times. No policy and no I/O. Used by the issuer
// (build), the key server (parse what it is asked to sign) and the proxy
// (check what it was given).
#ifndef DEPUTY_COMMON_WIRE_DC_H_
#define DEPUTY_COMMON_WIRE_DC_H_

#include <openssl/bytestring.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define DC_MAX_LEN 4096u       // a whole delegated credential
#define DC_MAX_SPKI_LEN 1024u  // its public key
#define DC_MAX_SIGNATURE_LEN 1024u
#define DC_MAX_CERTIFICATE_LEN 30720u  // the leaf that it belongs to
#define DC_CREDENTIAL_HEADER_LEN 9u    // valid_time, scheme, length of the SPKI
#define DC_MAX_LIFETIME_S 604800       // 7 days; RFC 9345, section 4.1.3
#define DC_CONTEXT_SERVER "TLS, server delegated credentials"
#define DC_CONTEXT_CLIENT "TLS, client delegated credentials"

// struct Credential, and the DelegatedCredential around it. Runs are borrowed
// from the parsed bytes.
struct dc {
  uint32_t valid_time_s;    // after the certificate's notBefore
  uint16_t verify_scheme;   // dc_cert_verify_algorithm
  struct bytes spki;        // DER
  struct bytes credential;  // valid_time .. spki: what the signature covers
  uint16_t algorithm;       // of the delegation signature
  struct bytes signature;
};

// dc_decode reads a whole DelegatedCredential; nothing may be left over, no
// field may be empty. STATUS_FORMAT, STATUS_LIMIT; *out is then all zero.
enum status dc_decode(struct dc *out, struct bytes in);

// dc_credential_decode reads only the Credential and leaves `cbs` behind it;
// for those who meet one inside a longer message. STATUS_FORMAT, STATUS_LIMIT.
enum status dc_credential_decode(struct dc *out, CBS *cbs);

// dc_encode writes one from valid_time_s, verify_scheme, spki, algorithm and
// signature (not from `credential`). STATUS_LIMIT: a run is empty or too long, or `max` too small.
enum status dc_encode(uint8_t *out, size_t max, size_t *out_len, const struct dc *dc);

// dc_signing_input writes what the certificate's key signs (section 4): 64
// spaces, the server's context, 0, the certificate's DER, the Credential, the
// algorithm. Returns new memory in *out (free). STATUS_LIMIT, STATUS_MEMORY.
enum status dc_signing_input(uint8_t **out, size_t *out_len, struct bytes certificate,
                             const struct dc *dc);

// dc_valid_time computes valid_time_s for a credential that ends `lifetime_s`
// after `now_s`: in 64 bits, refused when it does not fit or is negative.
// STATUS_LIMIT.
enum status dc_valid_time(uint32_t *out, int64_t not_before_s, int64_t now_s, int64_t lifetime_s);

// dc_expiry_s is notBefore + valid_time; INT64_MAX where that would overflow.
int64_t dc_expiry_s(const struct dc *dc, int64_t not_before_s);

// The proof of possession that a DC request carries: made by the DC's key, over
// 64 spaces, "Deputy, delegated credential key possession", 0, the SHA-256 of
// the certificate, lifetime_seconds (8 bytes), the scheme (2) and the SPKI. It
// can be mistaken for no TLS signature, as its context string differs.
// STATUS_LIMIT: the SPKI is empty or too long, or the lifetime negative.
#define DC_PROOF_CONTEXT "Deputy, delegated credential key possession"
#define DC_PROOF_MAX_LEN (64 + sizeof(DC_PROOF_CONTEXT) + 32 + 8 + 2 + DC_MAX_SPKI_LEN)
enum status dc_proof_input(uint8_t out[DC_PROOF_MAX_LEN], size_t *out_len,
                           const uint8_t certificate_sha256[32], int64_t lifetime_s,
                           uint16_t scheme, struct bytes spki);

#endif  // DEPUTY_COMMON_WIRE_DC_H_
