// SPDX-License-Identifier: Apache-2.0
#include "keyserver/sign.h"

#include <stdint.h>

#include "keyserver/token.h"

#define RSA_2048_COST 33
#define RSA_MAX_FAST_BITS 2048

enum status sign_run(const struct sign_job *job, uint8_t out[SIGN_MAX_LEN], size_t *out_len) {
  if (job->key->token != NULL) {
    return token_sign(job->key->token, job->scheme, out, out_len, job->digest);
  }
  return scheme_sign_digest(job->scheme, job->key->pkey, out, SIGN_MAX_LEN, out_len, job->digest);
}

unsigned sign_cost(enum key_kind kind, int bits) {
  switch (kind) {
    case KEY_KIND_P384:
      return 30;
    case KEY_KIND_P521:
      return 60;
    case KEY_KIND_RSA:
      // The private operation grows with the cube of the modulus; 2048 bits: 570 us.
      return (unsigned)(RSA_2048_COST * (int64_t)bits * bits * bits / (2048LL * 2048 * 2048));
    case KEY_KIND_P256:
    case KEY_KIND_ED25519:
    case KEY_KIND_NONE:
    default:
      return 1;
  }
}

bool sign_is_slow(enum key_kind kind, int bits) {
  return kind == KEY_KIND_RSA && bits > RSA_MAX_FAST_BITS;
}

enum status sign_self_test(const struct key *key) {
  static const uint8_t text[] = "Deputy key server self-test";
  const struct scheme *scheme = NULL;
  struct sign_job job = {.key = key};
  uint8_t signature[SIGN_MAX_LEN];
  uint8_t digest[64];
  size_t len = 0;
  enum status st = STATUS_OK;

  for (uint8_t opcode = 0; scheme == NULL && opcode < 64; opcode++) {
    scheme = scheme_by_opcode(opcode, key->kind);
  }
  if (scheme == NULL) {
    return STATUS_CRYPTO;
  }
  st = scheme_digest(scheme, digest, &len, bytes_of(text, sizeof text));
  job.scheme = scheme;
  job.digest = len == 0 ? bytes_of(text, sizeof text) : bytes_of(digest, len);
  if (st == STATUS_OK) {
    st = sign_run(&job, signature, &len);
  }
  if (st == STATUS_OK) {
    st = scheme_verify(scheme, key->pkey, bytes_of(text, sizeof text), bytes_of(signature, len));
  }
  return st;
}
