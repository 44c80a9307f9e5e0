// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_keys.h"

#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>

static _Atomic uint64_t num_made;

EVP_PKEY *dc_key_new(void) {
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  EVP_PKEY *key = EVP_PKEY_new();
  if (ec == NULL || key == NULL || !EC_KEY_generate_key(ec) || !EVP_PKEY_set1_EC_KEY(key, ec)) {
    EVP_PKEY_free(key);
    key = NULL;
  } else {
    atomic_fetch_add_explicit(&num_made, 1, memory_order_relaxed);
  }
  EC_KEY_free(ec);
  return key;
}

uint64_t dc_key_num_made(void) { return atomic_load_explicit(&num_made, memory_order_relaxed); }

void dc_keys_set_policy(struct dc_keys *keys, int policy, int64_t rotation_ms) {
  if (keys->policy != policy || keys->rotation_ms != rotation_ms) {
    dc_keys_cleanup(keys);
  }
  keys->policy = policy;
  keys->rotation_ms = rotation_ms;
}

EVP_PKEY *dc_keys_get(struct dc_keys *keys, int64_t now_ms) {
  if (keys->policy == DC_KEYS_PER_NAME) {
    return NULL;
  }
  dc_keys_expire(keys, now_ms);
  if (keys->shared == NULL) {
    keys->shared = dc_key_new();
    keys->ends_ms = now_ms + keys->rotation_ms;
  }
  if (keys->shared != NULL) {
    EVP_PKEY_up_ref(keys->shared);
  }
  return keys->shared;
}

void dc_keys_expire(struct dc_keys *keys, int64_t now_ms) {
  if (keys->shared != NULL && now_ms >= keys->ends_ms) {
    dc_keys_cleanup(keys);
  }
}

void dc_keys_cleanup(struct dc_keys *keys) {
  EVP_PKEY_free(keys->shared);
  keys->shared = NULL;
}
