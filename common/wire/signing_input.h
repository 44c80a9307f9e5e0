// SPDX-License-Identifier: Apache-2.0
// signing_input: tells what a message to be signed *is*, so that a key server
// signs nothing blindly. Each byte string has at most one purpose: the forms are
// told apart as below, and what fits none is refused.
//
//   csr     one DER CertificationRequestInfo from the first byte to the last
//           (RFC 2986): tried first, as a TLS 1.2 input could be made to look
//           like one (see docs/THREAT-MODEL.md)
//   tls13   64 x 0x20, "TLS 1.3, server CertificateVerify", 0, 32 or 48 bytes
//           (RFC 8446, section 4.4.3)
//   dc      64 x 0x20, "TLS, server delegated credentials", 0, certificate,
//           Credential, algorithm (RFC 9345, section 4)
//   tls12   client random (32), server random (32), ECDHE parameters of a
//           named curve with exactly that curve's length (RFC 8422, 5.4),
//           an uncompressed point that is on the curve
#ifndef DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_
#define DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/dc.h"

#define SIGNING_INPUT_MAX_LEN 32768u

enum purpose {
  PURPOSE_NONE,   // not a message we sign
  PURPOSE_TLS13,
  PURPOSE_TLS12,
  PURPOSE_DC,
  PURPOSE_CSR,
  PURPOSE_BLIND,  // a bare digest; never the result of parsing
  PURPOSE_NUM,
};

const char *purpose_name(enum purpose purpose);                      // "tls13"
enum status purpose_from_name(enum purpose *out, const char *name);  // STATUS_NOT_FOUND

struct signing_input {
  enum purpose purpose;
  struct bytes transcript_hash;  // tls13
  uint16_t group;                // tls12: NamedGroup
  struct bytes certificate;      // dc: DER of the certificate
  struct dc dc;                  // dc: no signature
  struct bytes csr_spki;         // csr: DER
  const char *why;               // PURPOSE_NONE: a static sentence
};

// signing_input_parse fills *out. STATUS_FORMAT when the message has no purpose
// (out->purpose is PURPOSE_NONE and out->why says why). Runs are borrowed.
enum status signing_input_parse(struct signing_input *out, struct bytes message);

#endif  // DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_
