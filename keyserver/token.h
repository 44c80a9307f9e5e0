// SPDX-License-Identifier: Apache-2.0
// token: keys in PKCS #11 tokens (HSMs, smart cards). A module is loaded into this
// process and asked for signatures; the private key never comes here.
//
// Everything of this file may block for as long as the module likes, so once the
// server serves it is called on signer threads only (signer_pool.h), of which each
// token has its own. What a reload needs (which keys there
// are, their public halves) is remembered, and asks no token that is known.
//
// A token may go and come back. Whatever says so (no token, session or handle
// gone, not logged in, device or general error) ends in: sessions closed, one try
// to open it anew at once, then with growing pauses; requests meanwhile get
// STATUS_UNAVAILABLE, so that clients ask another server. A PIN that the token has
// refused once is not shown to it again before the PIN file has changed and the
// configuration was read again: tokens lock themselves.
//
// Threads: open and lanes: one at a time (the start, then the thread that reloads).
// token_num, token_stats_read and token_sign: any.
#ifndef DEPUTY_KEYSERVER_TOKEN_H_
#define DEPUTY_KEYSERVER_TOKEN_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"
#include "keyserver/signer_pool.h"

#define TOKEN_MAX_MODULES 8u
#define TOKEN_MAX_TOKENS 16u
#define TOKEN_MAX_KEYS 4096u
#define TOKEN_MAX_SESSIONS 32u
#define TOKEN_MAX_PIN_LEN 256u
#define TOKEN_FIRST_PAUSE_MS 250
#define TOKEN_MAX_PAUSE_MS 30000

// Modules, tokens and keys that were ever opened; they last as long as the process.
struct token_registry;

// One private key on a token.
struct token_key;

struct token_key_config {
  const char *module;    // path of the shared library
  const char *uri;       // pkcs11:...
  const char *pin_file;  // NULL: the token needs no login
  EVP_PKEY *public_key;  // of its certificate; NULL: read from the token
  unsigned num_sessions;
};

// What a token has to show.
struct token_stats {
  const char *name;
  bool is_up;
  bool is_pin_refused;
  uint64_t num_signed;
  uint64_t num_failed;  // refused by the token, or not good
  uint64_t num_lost;    // times it went away
  uint64_t num_opened;
};

enum status token_registry_new(struct token_registry **out);  // STATUS_MEMORY
// token_registry_free when no signer thread is left.
void token_registry_free(struct token_registry *registry);

// token_key_open finds a key, and borrows it and its public half out. A key that
// is known already is not looked for again.
//   STATUS_CONFIG       URI, PIN or what it names makes no sense; or two keys fit
//   STATUS_SYSTEM       module or PIN file cannot be read
//   STATUS_REFUSED      the token refuses the PIN, or others may read its file
//   STATUS_NOT_FOUND    no such key on the token
//   STATUS_UNAVAILABLE  the token is away. With a public key in `config` *out is
//                       set all the same, and it is looked for later
//   STATUS_FORMAT       the public key is none that is used here
//   STATUS_LIMIT, STATUS_MEMORY
enum status token_key_open(struct token_key **out, EVP_PKEY **out_public,
                           struct token_registry *registry, const struct token_key_config *config,
                           struct errmsg *err);

// token_needs_test: is this the first time that the key is used? Afterwards no
// test is due, so that a reload waits for no token.
bool token_needs_test(struct token_key *key);

// token_start_lanes gives each token that lacks one a lane of the pool.
enum status token_start_lanes(struct token_registry *registry, struct signer_pool *pool,
                              unsigned max_queued);
unsigned token_key_lane(const struct token_key *key);

// token_sign signs like scheme_sign_digest, and checks the result with the public
// key before it returns it. STATUS_UNAVAILABLE: the token is away; STATUS_CRYPTO.
enum status token_sign(struct token_key *key, const struct scheme *scheme,
                       uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len, struct bytes digest);

size_t token_num(const struct token_registry *registry);
void token_stats_read(struct token_stats *out, struct token_registry *registry, size_t index);

#endif  // DEPUTY_KEYSERVER_TOKEN_H_
