// SPDX-License-Identifier: Apache-2.0
// tls13_flight: the messages of a TLS 1.3 server (RFC 8446, section 4), as bytes:
// body in, struct out, no I/O, no allocation, no keys. Used by tls13_client.c.
// Runs are borrowed from the body.
#ifndef DEPUTY_BENCH_TLS13_FLIGHT_H_
#define DEPUTY_BENCH_TLS13_FLIGHT_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"

#define TLS13_MAX_MESSAGE_LEN (256U << 10)  // a handshake message; chains are long
#define TLS13_MAX_TICKET_LEN 2048U

enum tls13_message {
  TLS13_SERVER_HELLO = 2,
  TLS13_NEW_SESSION_TICKET = 4,
  TLS13_ENCRYPTED_EXTENSIONS = 8,
  TLS13_CERTIFICATE = 11,
  TLS13_CERTIFICATE_REQUEST = 13,
  TLS13_CERTIFICATE_VERIFY = 15,
  TLS13_FINISHED = 20,
  TLS13_KEY_UPDATE = 24,
};

enum tls13_extension {
  TLS13_EXT_SERVER_NAME = 0,
  TLS13_EXT_STATUS_REQUEST = 5,
  TLS13_EXT_SUPPORTED_GROUPS = 10,
  TLS13_EXT_SIGNATURE_ALGORITHMS = 13,
  TLS13_EXT_ALPN = 16,
  TLS13_EXT_DELEGATED_CREDENTIAL = 34,
  TLS13_EXT_PRE_SHARED_KEY = 41,
  TLS13_EXT_SUPPORTED_VERSIONS = 43,
  TLS13_EXT_PSK_MODES = 45,
  TLS13_EXT_KEY_SHARE = 51,
};

#define TLS13_GROUP_X25519 0x001d

// Why a connection ended badly; a word for each is in tls13_fault_name.
enum tls13_fault {
  TLS13_OK,
  TLS13_FAULT_DECODE,               // bytes that are not what they claim to be
  TLS13_FAULT_VERSION,              // the server chose an older TLS
  TLS13_FAULT_RETRY,                // HelloRetryRequest: this client has one group
  TLS13_FAULT_SUITE,                // a suite that was not offered
  TLS13_FAULT_GROUP,                // no or another key share, or a useless one
  TLS13_FAULT_PSK,                  // a PSK that was not offered
  TLS13_FAULT_UNEXPECTED,           // a message or record out of its turn
  TLS13_FAULT_RECORD,               // a record that does not open
  TLS13_FAULT_TOO_LONG,             // a message beyond TLS13_MAX_MESSAGE_LEN
  TLS13_FAULT_CERTIFICATE_REQUEST,  // the server wants to know who we are
  TLS13_FAULT_CERTIFICATE,          // a leaf that cannot be read
  TLS13_FAULT_DC,                   // a delegated credential that a client refuses
  TLS13_FAULT_DC_UNASKED,           // a delegated credential that was not asked for
  TLS13_FAULT_SCHEME,               // a signature scheme that does not fit the key
  TLS13_FAULT_SIGNATURE,            // CertificateVerify does not verify
  TLS13_FAULT_FINISHED,             // the server's Finished is wrong
  TLS13_FAULT_ALERT,                // the server sent an alert
  TLS13_FAULT_KEY_UPDATE,           // not supported by this client
  TLS13_FAULT_MEMORY,
  TLS13_FAULT_NUM,
};
const char *tls13_fault_name(enum tls13_fault fault);

struct tls13_server_hello {
  uint16_t version;
  uint16_t suite;
  bool is_retry;
  bool has_psk;
  uint16_t psk;
  uint16_t group;
  struct bytes session_id;
  struct bytes share;
};
enum tls13_fault tls13_server_hello_decode(struct tls13_server_hello *out, struct bytes body);

struct tls13_encrypted_extensions {
  struct bytes alpn;
};
enum tls13_fault tls13_encrypted_extensions_decode(struct tls13_encrypted_extensions *out,
                                                   struct bytes body);

struct tls13_certificate {
  struct bytes leaf;
  struct bytes dc;      // of the leaf's entry; data NULL when absent
  struct bytes staple;  // OCSP response
  size_t num;           // certificates
};
enum tls13_fault tls13_certificate_decode(struct tls13_certificate *out, struct bytes body);

struct tls13_certificate_verify {
  uint16_t scheme;
  struct bytes signature;
};
enum tls13_fault tls13_certificate_verify_decode(struct tls13_certificate_verify *out,
                                                 struct bytes body);

struct tls13_new_session_ticket {
  uint32_t lifetime_s;
  uint32_t age_add;
  struct bytes nonce;
  struct bytes ticket;
};
enum tls13_fault tls13_new_session_ticket_decode(struct tls13_new_session_ticket *out,
                                                 struct bytes body);

#endif  // DEPUTY_BENCH_TLS13_FLIGHT_H_
