// SPDX-License-Identifier: Apache-2.0
// memory_server: a TLS 1.3 server on BoringSSL without a socket, with a certificate
// and a delegated credential made on the spot, installed through
// common/tls/credential.h as the proxy does. The floor under every figure of a real
// server (floor.c), and the peer of the client's unit tests.
#ifndef DEPUTY_BENCH_MEMORY_SERVER_H_
#define DEPUTY_BENCH_MEMORY_SERVER_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/buffer.h"
#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"

struct memory_server_options {
  enum key_kind kind;  // of the certificate's key
  bool has_dc;         // P-256, under that certificate
  int64_t dc_life_s;   // from now; negative: expired already
  bool has_bad_dc;     // its delegation signature is wrong
  const char *issuer;  // CN of the (self-signed) issuer
  bool gives_tickets;
};

// All-zero may be cleaned.
struct memory_server {
  SSL_CTX *ctx;
  struct tls_chain *chain;
  struct tls_dc *dc;
};
// memory_server_init makes keys, certificate and credential. STATUS_CRYPTO,
// STATUS_MEMORY.
enum status memory_server_init(struct memory_server *server,
                               const struct memory_server_options *options);
void memory_server_cleanup(struct memory_server *server);

// memory_key_new makes a key. NULL: it cannot be made.
EVP_PKEY *memory_key_new(enum key_kind kind);

// One connection. All-zero may be cleaned.
struct memory_peer {
  SSL *ssl;
  bool is_done;    // the handshake, on this side
  bool is_failed;  // an alert is in what memory_peer_run returned
};
enum status memory_peer_start(struct memory_peer *peer, struct memory_server *server);

// memory_peer_run takes bytes from the client, goes on with the handshake and
// adds what the server sends to `out`. STATUS_MEMORY.
enum status memory_peer_run(struct memory_peer *peer, struct bytes in, struct buffer *out);

// memory_peer_write adds application data, and with it tickets that wait for some.
// STATUS_CRYPTO before the handshake is done.
enum status memory_peer_write(struct memory_peer *peer, struct bytes data, struct buffer *out);
void memory_peer_cleanup(struct memory_peer *peer);

#endif  // DEPUTY_BENCH_MEMORY_SERVER_H_
