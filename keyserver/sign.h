// SPDX-License-Identifier: Apache-2.0
// sign: makes one signature, after request.c has decided that it may be made.
// Every signature of the server goes through sign_run: what takes long (RSA-4096,
// hardware tokens) can be moved to threads of its own behind this one door.
#ifndef DEPUTY_KEYSERVER_SIGN_H_
#define DEPUTY_KEYSERVER_SIGN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"
#include "keyserver/keystore.h"

#define SIGN_MAX_LEN SCHEME_MAX_SIGNATURE_LEN

// All it needs; borrowed until sign_run returns.
struct sign_job {
  const struct key *key;
  const struct scheme *scheme;
  struct bytes digest;  // of exactly the scheme's length; Ed25519: the whole message
};

// sign_run writes the signature to `out`. STATUS_CRYPTO; the reason is in
// BoringSSL's error queue. STATUS_UNAVAILABLE: the key's token is away.
enum status sign_run(const struct sign_job *job, uint8_t out[SIGN_MAX_LEN], size_t *out_len);

// sign_cost is the time one signature takes, in units of a P-256 signature
// (some 17 us): what a worker uses to share its time among connections.
unsigned sign_cost(enum key_kind kind, int bits);

// sign_is_slow: is this better signed by a thread of its own?
bool sign_is_slow(enum key_kind kind, int bits);

// sign_self_test signs and verifies, so that a key with a wrong public half is
// found at load time, and what BoringSSL prepares on first use is prepared.
enum status sign_self_test(const struct key *key);

#endif  // DEPUTY_KEYSERVER_SIGN_H_
