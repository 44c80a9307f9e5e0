// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/signer.h"

#include <string.h>

#include "common/keyclient/keyclient.h"
#include "common/tls/credential.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

#ifdef DEPUTY_BENCH_LOCAL_KEY
#include "bench/local_key.h"
#endif

static enum failure failure_of(enum status st) {
  switch (st) {
    case STATUS_TIMEOUT:
      return FAILURE_KEY_TIMEOUT;
    case STATUS_REFUSED:
      return FAILURE_KEY_REFUSED;
    case STATUS_NOT_FOUND:
      return FAILURE_KEY_NOT_FOUND;
    case STATUS_CRYPTO:
    case STATUS_FORMAT:
    case STATUS_LIMIT:
      return FAILURE_KEY_BAD;
    case STATUS_MEMORY:
      return FAILURE_INTERNAL;
    default:
      return FAILURE_KEY_UNAVAILABLE;
  }
}

static void on_answer(void *arg, const struct sign_answer *answer) {
  struct signing *signing = arg;
  CHECK(signing->id != 0);
  signing->id = 0;
  signing->st = answer->st;
  if (answer->st == STATUS_OK) {
    if (answer->signature.len > sizeof(signing->signature)) {
      signing->st = STATUS_LIMIT;
    } else {
      memcpy(signing->signature, answer->signature.data, answer->signature.len);
      signing->signature_len = answer->signature.len;
    }
  }
  // Not at once: the keyclient is in the middle of its own work.
  worker_run_later(signing->conn->worker, signing->conn);
}

static enum status ask(struct conn *conn, const struct scheme *scheme, struct bytes message) {
  struct signing *signing = conn->hs->signing;
  const char *sni = SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
  const struct sign_request request = {
      .ski = conn->hs->choice.chain->info.ski,
      .scheme = scheme,
      .opcode = scheme->opcode,
      .message = message,
      .sni = bytes_text(sni),
  };
  return keyclient_sign(&signing->id, conn->hs->view->keys->client, &request, on_answer, signing);
}

static enum ssl_private_key_result_t fail(struct conn *conn, enum failure failure) {
  if (conn->hs->failure == FAILURE_NONE) {
    conn->hs->failure = failure;
  }
  return ssl_private_key_failure;
}

static enum ssl_private_key_result_t sign(SSL *ssl, uint8_t *out, size_t *out_len, size_t max_out,
                                          uint16_t algorithm, const uint8_t *in, size_t in_len) {
  struct conn *conn = conn_of(ssl);
  struct worker *worker = conn->worker;
  const struct scheme *scheme = scheme_find(algorithm);
  enum status st = STATUS_OK;
  (void)out;
  (void)out_len;
  (void)max_out;

  if (scheme == NULL) {
    return fail(conn, FAILURE_SCHEME);
  }
#ifdef DEPUTY_BENCH_LOCAL_KEY
  EVP_PKEY *key = local_key_find(conn->hs->choice.chain->info.ski);
  if (key != NULL) {
    return scheme_sign(scheme, key, out, max_out, out_len, bytes_of(in, in_len)) == STATUS_OK
               ? ssl_private_key_success
               : fail(conn, FAILURE_INTERNAL);
  }
#endif
  CHECK(conn->hs->signing == NULL);
  conn->hs->signing = pool_take(&worker->signings);
  if (conn->hs->signing == NULL) {
    return fail(conn, FAILURE_INTERNAL);
  }
  *conn->hs->signing = (struct signing){.conn = conn};
  count(&worker->counters.signs_begun);
  st = ask(conn, scheme, bytes_of(in, in_len));
  if (st != STATUS_OK) {
    conn->hs->signing->id = 0;
    signer_release(conn);
    return fail(conn, failure_of(st));
  }
  return ssl_private_key_retry;
}

// Static RSA key exchange is not offered, and a key that can be made to decrypt
// could be used against its own signatures (delegated-credentials, threat model).
static enum ssl_private_key_result_t decrypt(SSL *ssl, uint8_t *out, size_t *out_len,
                                             size_t max_out, const uint8_t *in, size_t in_len) {
  (void)out;
  (void)out_len;
  (void)max_out;
  (void)in;
  (void)in_len;
  return fail(conn_of(ssl), FAILURE_CIPHER);
}

static enum ssl_private_key_result_t complete(SSL *ssl, uint8_t *out, size_t *out_len,
                                              size_t max_out) {
  struct conn *conn = conn_of(ssl);
  struct signing *signing = conn->hs->signing;
  enum ssl_private_key_result_t result = ssl_private_key_success;

  if (signing == NULL) {
    return fail(conn, FAILURE_INTERNAL);
  }
  if (signing->id != 0) {
    return ssl_private_key_retry;
  }
  if (signing->st != STATUS_OK) {
    result = fail(conn, failure_of(signing->st));
  } else if (signing->signature_len > max_out) {
    result = fail(conn, FAILURE_KEY_BAD);
  } else {
    memcpy(out, signing->signature, signing->signature_len);
    *out_len = signing->signature_len;
  }
  signer_release(conn);
  return result;
}

const SSL_PRIVATE_KEY_METHOD signer_method = {
    .sign = sign,
    .decrypt = decrypt,
    .complete = complete,
};

// --- a delegated credential's key ----------------------------------------------------------

static enum ssl_private_key_result_t sign_with_dc(SSL *ssl, uint8_t *out, size_t *out_len,
                                                  size_t max_out, uint16_t algorithm,
                                                  const uint8_t *in, size_t in_len) {
  struct conn *conn = conn_of(ssl);

  CHECK(conn->hs->dc != NULL);
  return tls_dc_sign(conn->hs->dc, algorithm, out, max_out, out_len, bytes_of(in, in_len)) ==
                 STATUS_OK
             ? ssl_private_key_success
             : fail(conn, FAILURE_INTERNAL);
}

static enum ssl_private_key_result_t complete_nothing(SSL *ssl, uint8_t *out, size_t *out_len,
                                                      size_t max_out) {
  (void)out;
  (void)out_len;
  (void)max_out;
  return fail(conn_of(ssl), FAILURE_INTERNAL);
}

const SSL_PRIVATE_KEY_METHOD signer_dc_method = {
    .sign = sign_with_dc,
    .decrypt = decrypt,
    .complete = complete_nothing,
};

// --- waiting -------------------------------------------------------------------------------

bool signer_has_answer(const struct conn *conn) {
  return conn->hs->signing == NULL || conn->hs->signing->id == 0;
}

void signer_release(struct conn *conn) {
  struct handshake *hs = conn->hs;
  if (hs->signing == NULL) {
    return;
  }
  if (hs->signing->id != 0) {
    keyclient_cancel(hs->view->keys->client, hs->signing->id);
  }
  count(&conn->worker->counters.signs_ended);
  pool_give(&conn->worker->signings, hs->signing);
  hs->signing = NULL;
}
