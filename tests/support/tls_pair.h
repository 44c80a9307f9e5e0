// SPDX-License-Identifier: Apache-2.0
// tls_pair: a client and a server that shake hands in memory, for unit tests.
#ifndef DEPUTY_TESTS_SUPPORT_TLS_PAIR_H_
#define DEPUTY_TESTS_SUPPORT_TLS_PAIR_H_

#include <openssl/ssl.h>
#include <stdbool.h>

#define TLS_PAIR_TEXT_LEN 160

struct tls_pair {
  SSL *client;
  SSL *server;
  bool is_client_done;  // handshake complete
  bool is_server_done;
  char client_error[TLS_PAIR_TEXT_LEN];  // first reason; "" if none
  char server_error[TLS_PAIR_TEXT_LEN];
};

void tls_pair_init(struct tls_pair *pair, SSL_CTX *client_ctx, SSL_CTX *server_ctx);
void tls_pair_cleanup(struct tls_pair *pair);

// tls_pair_run shakes hands and then carries one byte each way, so that tickets and
// late alerts arrive. Returns whether all of it worked on both sides.
bool tls_pair_run(struct tls_pair *pair);

#endif  // DEPUTY_TESTS_SUPPORT_TLS_PAIR_H_
