// SPDX-License-Identifier: Apache-2.0
// signer: the certificate's key, as BoringSSL sees it: a method that asks a key
// server and lets the handshake wait. The connection goes to SIGNING; the answer
// is kept here until the handshake, in its next round, comes to fetch it.
//
//   HANDSHAKE: SSL_do_handshake -> sign -> keyclient_sign       (retry)
//   SIGNING:   keyclient answers -> kept, connection queued
//   HANDSHAKE: SSL_do_handshake -> complete                     (signature, or failure)
//
// A connection that goes away cancels its request by id; the slot that answers
// come to belongs to the worker, so that none ever meets freed memory.
#ifndef DEPUTY_PROXY_HANDSHAKE_SIGNER_H_
#define DEPUTY_PROXY_HANDSHAKE_SIGNER_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/wire/scheme.h"

extern const SSL_PRIVATE_KEY_METHOD signer_method;
// signer_dc_method signs with the key of hs->dc, which is here (tls_install).
extern const SSL_PRIVATE_KEY_METHOD signer_dc_method;

struct conn;

// One request. In a slot of the worker's.
struct signing {
  struct conn *conn;
  uint64_t id;  // keyclient's; 0: answered
  enum status st;
  size_t signature_len;
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
};

// signer_has_answer: may the handshake go on?
bool signer_has_answer(const struct conn *conn);

// signer_release gives the slot back, and cancels what is still under way.
void signer_release(struct conn *conn);

#endif  // DEPUTY_PROXY_HANDSHAKE_SIGNER_H_
