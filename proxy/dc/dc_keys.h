// SPDX-License-Identifier: Apache-2.0
// dc_keys: the private keys of delegated credentials. By policy each credential has one
// of its own, or all that are asked for within a rotation period have the same
// (docs/deputy-proxy.md has the trade). Made here, never written anywhere; BoringSSL
// wipes a key when its last user lets go of it.
#ifndef DEPUTY_PROXY_DC_DC_KEYS_H_
#define DEPUTY_PROXY_DC_DC_KEYS_H_

#include <openssl/base.h>
#include <stdatomic.h>
#include <stdint.h>

enum dc_key_policy { DC_KEYS_PER_NAME, DC_KEYS_SHARED };

struct dc_keys {
  int policy;  // enum dc_key_policy
  int64_t rotation_ms;
  EVP_PKEY *shared;  // of this period
  int64_t ends_ms;
};

// dc_key_new returns a new P-256 key, or NULL without memory. Any thread.
EVP_PKEY *dc_key_new(void);
// dc_key_num_made counts them, of this process.
uint64_t dc_key_num_made(void);

// dc_keys_set_policy: with another policy or period the next key is a new one.
void dc_keys_set_policy(struct dc_keys *keys, int policy, int64_t rotation_ms);
// dc_keys_get returns a new reference to the shared key of now, or NULL: the credential
// gets one of its own, or there is no memory.
EVP_PKEY *dc_keys_get(struct dc_keys *keys, int64_t now_ms);
// dc_keys_expire lets go of a key whose period is over, whether or not the next is needed.
void dc_keys_expire(struct dc_keys *keys, int64_t now_ms);
void dc_keys_cleanup(struct dc_keys *keys);

#endif  // DEPUTY_PROXY_DC_DC_KEYS_H_
