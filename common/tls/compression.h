// SPDX-License-Identifier: Apache-2.0
// compression: certificates in compressed form (RFC 8879), made once and not in each
// handshake. What is compressed is the whole Certificate message, so a form belongs to one
// chain with one staple and one delegated credential or none; and it comes in two, as the
// client may not have asked for the staple. tls_chain and tls_dc (credential.h) each carry
// the forms of their message.
//
// A form that was not prepared is made by the first handshake that needs it, and kept.
// Before a form is used, the message that it stands for is compared with the one that the
// library is about to send, certificate by certificate: a mistake here costs time, and
// shows nobody a wrong certificate.
//
// Threads: forms are made and used by any; they are freed with what carries them.
#ifndef DEPUTY_COMMON_TLS_COMPRESSION_H_
#define DEPUTY_COMMON_TLS_COMPRESSION_H_

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

// In the order in which a server of ours prefers them.
enum tls_compression { TLS_COMPRESSION_BROTLI, TLS_COMPRESSION_ZLIB, TLS_COMPRESSION_NUM };
const char *tls_compression_name(enum tls_compression compression);  // "brotli"; static

struct tls_form;

// The forms of one message, without the staple and with it. All-zero is none yet.
struct tls_forms {
  _Atomic(struct tls_form *) at[TLS_COMPRESSION_NUM][2];
};
void tls_forms_cleanup(struct tls_forms *forms);

// A Certificate message: what it is made of (all borrowed).
struct tls_message {
  CRYPTO_BUFFER *const *certs;
  size_t num_certs;
  const CRYPTO_BUFFER *staple;  // NULL: none
  const CRYPTO_BUFFER *dc;      // NULL: none
};

// tls_forms_prepare makes the forms that most clients take (all ask for a staple), by the
// algorithms that tls_compression_prepare named; those that are there stay. Without memory
// they are left to the handshakes.
void tls_forms_prepare(struct tls_forms *forms, const struct tls_message *message);

// tls_compression_prepare says by which algorithms (bits, 1u << enum) chains and DCs made
// from now on are prepared. Any thread.
void tls_compression_prepare(unsigned algorithms);

// What a server supplies; on the connection's thread, in the handshake.
struct tls_compression_hooks {
  // find borrows, for the call, the forms of the message that the handshake shows, and
  // what that is made of: the second pair, if there is one, is tried when it is not the
  // first. NULL: unknown.
  void (*find)(SSL *ssl, struct tls_forms *out_forms[2], struct tls_message out_messages[2]);
  // on_used counts; `is_prepared`: nothing was compressed for this handshake.
  void (*on_used)(SSL *ssl, enum tls_compression compression, bool is_prepared, size_t saved_len);
};

// tls_compression_enable makes `ctx` compress for clients that offer one of these
// algorithms. `hooks` are static, and the same for all contexts. STATUS_MEMORY.
enum status tls_compression_enable(SSL_CTX *ctx, unsigned algorithms,
                                   const struct tls_compression_hooks *hooks);

#endif  // DEPUTY_COMMON_TLS_COMPRESSION_H_
