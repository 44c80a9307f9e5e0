// SPDX-License-Identifier: Apache-2.0
// signing_input: tells what a message to be signed *is*, so that a key server
// signs nothing blindly. Each byte string has at most one purpose: all four
// forms are tried, what fits none is refused, and so is what fits two.
//
//   tls13   64 x 0x20, "TLS 1.3, server CertificateVerify", 0, 32 or 48 bytes
//           (RFC 8446, section 4.4.3)
//   dc      64 x 0x20, "TLS, server delegated credentials", 0, certificate,
//           Credential, algorithm (RFC 9345, section 4)
//   tls12   client random (32), server random (32), ECDHE parameters of a
//           named curve with exactly that curve's length (RFC 8422, 5.4),
//           an uncompressed point that is on the curve
//   csr     one DER CertificationRequestInfo from the first byte to the last
//           (RFC 2986)
//
// Why no two can be confused: tls13 and dc part at byte 68 (" 1.3" against ","),
// and a tls12 input has 3 at byte 64 where those have 'T'. csr begins with 0x30
// where tls13 and dc have 0x20. Only csr and tls12 can meet, when somebody
// chooses the randoms and the request's free bytes for it; no honest party ever
// makes such a message, so it is refused rather than given to either.
#ifndef DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_
#define DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/dc.h"

#define SIGNING_INPUT_MAX_LEN 32768u
#define SIGNING_INPUT_MAX_CSR_LEN 16384u

enum purpose {
  PURPOSE_NONE,  // not a message we sign
  PURPOSE_TLS13,
  PURPOSE_TLS12,
  PURPOSE_DC,
  PURPOSE_CSR,
  PURPOSE_BLIND,     // a bare digest; never the result of parsing
  PURPOSE_GENERATE,  // no signature but a new key (keygen.h); never the result of parsing
  PURPOSE_NUM,
};

const char *purpose_name(enum purpose purpose);                      // "tls13"
enum status purpose_from_name(enum purpose *out, const char *name);  // STATUS_NOT_FOUND

struct signing_input {
  enum purpose purpose;
  struct bytes transcript_hash;  // tls13
  uint16_t group;                // tls12: NamedGroup
  struct bytes certificate;      // dc: DER of the certificate, one SEQUENCE; not looked into
  struct dc dc;                  // dc: no signature; scheme, algorithm and SPKI are of ours
                                 // and the scheme fits the SPKI
  struct bytes csr_spki;         // csr: DER of a key of ours
  const char *why;               // PURPOSE_NONE: a static sentence
};

// signing_input_parse fills *out. STATUS_FORMAT when the message has no purpose
// (out->purpose is PURPOSE_NONE, out->why says why, and all else is empty).
// Runs are borrowed. No allocation for tls13; tls12 makes a point, dc and csr
// parse a key.
enum status signing_input_parse(struct signing_input *out, struct bytes message);

#endif  // DEPUTY_COMMON_WIRE_SIGNING_INPUT_H_
