// SPDX-License-Identifier: Apache-2.0
// tls13_puppet: the server's end of a TLS 1.3 handshake that says whatever a test
// wants, rightly encrypted: for what no honest server would send. Its peer is a
// client of bench/tls13_client.h with TLS13_SHARE_BASE, whose shared secret is the
// server's key share. What cannot be done aborts.
#ifndef DEPUTY_TESTS_SUPPORT_TLS13_PUPPET_H_
#define DEPUTY_TESTS_SUPPORT_TLS13_PUPPET_H_

#include <stdint.h>

#include "bench/buffer.h"
#include "bench/tls13_keys.h"
#include "common/base/bytes.h"

// All-zero may be cleaned.
struct puppet {
  const struct tls13_suite *suite;
  struct tls13_transcript transcript;
  struct tls13_secret handshake;
  struct tls13_secret server;  // handshake traffic secret
  struct tls13_traffic write;
};

// puppet_server_hello makes the body of a good ServerHello for the client's first
// record. Returns its length.
#define PUPPET_HELLO_LEN 128
size_t puppet_server_hello(uint8_t out[PUPPET_HELLO_LEN], struct bytes client_hello,
                           uint16_t suite);

// puppet_plain adds an unprotected record.
void puppet_plain(struct buffer *out, uint8_t type, struct bytes content);

// puppet_start answers the client's first record with that ServerHello and has the
// keys of the handshake afterwards.
void puppet_start(struct puppet *p, struct bytes client_hello, uint16_t suite, struct buffer *out);

// puppet_seal adds one protected record; puppet_message one with a whole handshake
// message, which also enters the transcript.
void puppet_seal(struct puppet *p, uint8_t type, struct bytes content, struct buffer *out);
void puppet_message(struct puppet *p, uint8_t type, struct bytes body, struct buffer *out);

// puppet_finished adds a right Finished, and has the keys of application data
// afterwards.
void puppet_finished(struct puppet *p, struct buffer *out);

void puppet_cleanup(struct puppet *p);

#endif  // DEPUTY_TESTS_SUPPORT_TLS13_PUPPET_H_
