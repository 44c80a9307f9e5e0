// SPDX-License-Identifier: Apache-2.0
// vectors: packets recorded from another implementation of the protocol, and
// credentials made and checked with other programs (the openssl program, NSS).
// Throw-away keys.
#ifndef DEPUTY_TESTS_UNIT_COMMON_WIRE_VECTORS_H_
#define DEPUTY_TESTS_UNIT_COMMON_WIRE_VECTORS_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"

extern const char VECTOR_P256_SPKI[];
extern const char VECTOR_P256_SCALAR[];
extern const char VECTOR_P256_SKI[];
extern const char VECTOR_RSA_SPKI[];
extern const char VECTOR_RSA_SKI[];
extern const char VECTOR_RSA_DIGEST[];
extern const char VECTOR_ED25519_SPKI[];
extern const char VECTOR_ED25519_SEED[];
extern const char VECTOR_ED25519_SKI[];

// A packet: these bytes, then zeros (the end of its padding). The SHA-256 is of
// the whole.
struct vector_packet {
  const char *hex;
  size_t num_zeros;
  const char *sha256;
};

#define VECTOR_PACKET_MAX_LEN 2048
enum {
  VECTOR_PING,
  VECTOR_PONG,
  VECTOR_ECDSA_REQUEST,
  VECTOR_ECDSA_RESPONSE,
  VECTOR_PSS_REQUEST,
  VECTOR_PSS_RESPONSE,
  VECTOR_UNKNOWN_KEY_REQUEST,
  VECTOR_UNKNOWN_KEY_RESPONSE,
  VECTOR_ED25519_REQUEST,
  VECTOR_ED25519_RESPONSE,
  VECTOR_NUM_PACKETS
};
extern const struct vector_packet vector_packets[VECTOR_NUM_PACKETS];

// The digest in the packets is of this.
#define VECTOR_SIGNED "hello keyless"

// A leaf and a credential under it, both good.
struct vector_dc {
  const char *certificate;  // base64 of DER
  const char *credential;   // hex
  uint16_t algorithm;
  size_t input_len;  // of the delegation signature
  const char *input_sha256;
};

#define VECTOR_CERT_MAX_LEN 2048
#define VECTOR_NOT_BEFORE_S 1793491200  // 2026-11-01T00:00:00Z
#define VECTOR_EXPIRY_S 1795824000      // 2026-11-28T00:00:00Z
enum { VECTOR_DC_P256, VECTOR_DC_P384, VECTOR_DC_RSA, VECTOR_NUM_DCS };
extern const struct vector_dc vector_dcs[VECTOR_NUM_DCS];

// Well formed, under the leaf of VECTOR_DC_P256, signed with the client context.
extern const char VECTOR_DC_CLIENT[];

size_t vector_unhex(uint8_t *out, size_t max, const char *hex);
size_t vector_packet_bytes(uint8_t out[VECTOR_PACKET_MAX_LEN], const struct vector_packet *packet);
void vector_assert_sha256(struct bytes in, const char *hex);
size_t vector_certificate(uint8_t out[VECTOR_CERT_MAX_LEN], const struct vector_dc *vector);

#endif  // DEPUTY_TESTS_UNIT_COMMON_WIRE_VECTORS_H_
