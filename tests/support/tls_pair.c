// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tls_pair.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "common/tls/tls_error.h"

#define MAX_ROUNDS 100

void tls_pair_init(struct tls_pair *pair, SSL_CTX *client_ctx, SSL_CTX *server_ctx) {
  BIO *a = NULL;
  BIO *b = NULL;

  memset(pair, 0, sizeof *pair);
  pair->client = SSL_new(client_ctx);
  pair->server = SSL_new(server_ctx);
  CHECK(pair->client != NULL && pair->server != NULL);
  CHECK(BIO_new_bio_pair(&a, 0, &b, 0));
  SSL_set_bio(pair->client, a, a);
  SSL_set_bio(pair->server, b, b);
  SSL_set_connect_state(pair->client);
  SSL_set_accept_state(pair->server);
}

void tls_pair_cleanup(struct tls_pair *pair) {
  SSL_free(pair->client);
  SSL_free(pair->server);
  ERR_clear_error();
}

static bool is_waiting(SSL *ssl, int result) {
  switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_WANT_PRIVATE_KEY_OPERATION:
    case SSL_ERROR_WANT_X509_LOOKUP:
      return true;
    default:
      return false;
  }
}

// advance drives one side; false once it has failed.
static bool advance(SSL *ssl, bool *is_done, char *error) {
  int result;

  if (*is_done || error[0] != '\0') {
    return error[0] == '\0';
  }
  ERR_clear_error();
  result = SSL_do_handshake(ssl);
  if (result == 1) {
    *is_done = true;
    return true;
  }
  if (is_waiting(ssl, result)) {
    return true;
  }
  tls_error_drain(error, TLS_PAIR_TEXT_LEN);
  if (error[0] == '\0') {
    snprintf(error, TLS_PAIR_TEXT_LEN, "closed");
  }
  return false;
}

// carry moves one byte from one side to the other.
static bool carry(SSL *from, SSL *to, char *to_error) {
  char byte = 'x';
  int result = 0;

  ERR_clear_error();
  if (SSL_write(from, &byte, 1) != 1) {
    ERR_clear_error();
    return false;
  }
  for (int i = 0; i < MAX_ROUNDS; i++) {
    result = SSL_read(to, &byte, 1);
    if (result == 1 || !is_waiting(to, result)) {
      break;
    }
  }
  if (result != 1 && to_error[0] == '\0') {
    tls_error_drain(to_error, TLS_PAIR_TEXT_LEN);
  }
  return result == 1;
}

// In TLS 1.3 the alert about a client's certificate arrives when the client is done.
static void read_late_alert(struct tls_pair *pair) {
  char byte;

  ERR_clear_error();
  if (SSL_read(pair->client, &byte, 1) <= 0) {
    tls_error_drain(pair->client_error, TLS_PAIR_TEXT_LEN);
  }
}

bool tls_pair_run(struct tls_pair *pair) {
  bool client_ok = true;
  bool server_ok = true;

  for (int i = 0; i < MAX_ROUNDS && (!pair->is_client_done || !pair->is_server_done); i++) {
    client_ok = advance(pair->client, &pair->is_client_done, pair->client_error);
    server_ok = advance(pair->server, &pair->is_server_done, pair->server_error);
    if (!client_ok && !server_ok) {
      return false;
    }
  }
  if (pair->is_client_done && !pair->is_server_done) {
    read_late_alert(pair);
  }
  return pair->is_client_done && pair->is_server_done &&
         carry(pair->client, pair->server, pair->server_error) &&
         carry(pair->server, pair->client, pair->client_error);
}
