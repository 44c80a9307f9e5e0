// SPDX-License-Identifier: Apache-2.0
// cert_der: the facts of a certificate that decide how it is filed and served, cut
// out of its DER (RFC 5280, section 4.1) without making an object of it: for imports
// of millions. common/tls/cert.h reads the same facts, and texts for people, with
// BoringSSL's parser; where both read a certificate they agree, and a fuzz target
// holds them to it. Signatures are not checked here.
#ifndef DEPUTY_COMMON_WIRE_CERT_DER_H_
#define DEPUTY_COMMON_WIRE_CERT_DER_H_

#include <openssl/bytestring.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"

#define CERT_DER_MAX_LEN (32u << 10)  // bytes of one certificate
#define CERT_DER_MAX_NAME_LEN 253u    // a host name, "*." included

// Runs are borrowed from the certificate.
struct cert_der {
  struct bytes issuer;   // Name, whole
  struct bytes subject;  // Name, whole
  struct bytes spki;     // SubjectPublicKeyInfo, whole
  struct bytes bits;     // of the subjectPublicKey
  struct bytes aki;      // keyIdentifier of the authority; empty: none
  struct bytes ski;      // of the subject
  struct bytes names;    // the GeneralNames of subjectAltName
  int64_t not_before_s;
  int64_t not_after_s;
  enum key_kind kind;
  bool is_ca;                  // BasicConstraints
  bool has_delegation_usage;   // RFC 9345, section 4.2
  bool has_digital_signature;  // KeyUsage is there and says so
  bool is_must_staple;         // RFC 7633
};

// cert_der_parse reads one whole certificate. STATUS_LIMIT: longer than
// CERT_DER_MAX_LEN; STATUS_FORMAT: not one, or a field that decides is damaged. On
// failure *out is all zero.
enum status cert_der_parse(struct cert_der *out, struct bytes der);

// cert_der_is_ca tells quickly whether it is a CA's (false: also if it does not parse).
bool cert_der_is_ca(struct bytes der);

// cert_der_measure gives the length of the certificate that `in` begins with, from
// its first bytes. STATUS_AGAIN: more bytes are needed to tell; STATUS_FORMAT: no
// certificate begins so; STATUS_LIMIT.
enum status cert_der_measure(size_t *out_len, struct bytes in);

// cert_der_next_name takes the next dNSName out of `names` (start with a copy of
// .names), lower case and terminated, and moves on. False at the end. Names that no
// host can have (characters, length) are passed over: they match nothing.
bool cert_der_next_name(char out[CERT_DER_MAX_NAME_LEN + 1], struct bytes *names);

// cert_der_covers: is `host` (lower case; "*.x" for a wildcard) served by the
// certificate? RFC 6125, section 6.4.3: a wildcard stands for one left-most label; a
// wildcard of ours needs that very wildcard.
bool cert_der_covers(const struct cert_der *cert, const char *host);

// cert_der_is_issued_by: do the names fit, and the key identifiers where both have
// them (RFC 5280, sections 4.1.2.4 and 4.2.1.1)?
bool cert_der_is_issued_by(const struct cert_der *cert, const struct cert_der *issuer);

// The three ids (common/tls/cert.h): SHA-256 of the SPKI, SHA-1 of its bits, SHA-256
// of the authority key identifier or, without one, of the issuer's Name.
void cert_der_key_id(uint8_t out[32], const struct cert_der *cert);
void cert_der_ski(uint8_t out[20], const struct cert_der *cert);
void cert_der_ca_id(uint8_t out[32], const struct cert_der *cert);

#endif  // DEPUTY_COMMON_WIRE_CERT_DER_H_
