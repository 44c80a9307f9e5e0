// SPDX-License-Identifier: Apache-2.0
#include "bench/local_key.h"

#include <openssl/evp.h>
#include <string.h>

#include "common/tls/cert.h"

static struct {
  uint8_t ski[20];
  EVP_PKEY *key;
} keys[LOCAL_KEY_MAX];
static size_t num_keys;

EVP_PKEY *local_key_find(const uint8_t ski[20]) {
  for (size_t i = 0; i < num_keys; i++) {
    if (memcmp(keys[i].ski, ski, sizeof(keys[i].ski)) == 0) {
      return keys[i].key;
    }
  }
  return NULL;
}

enum status local_key_load(const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  EVP_PKEY *key = NULL;
  uint8_t key_id[32];
  uint8_t ski[20];

  if (path == NULL) {
    return STATUS_OK;
  }
  TRY(key_read(&key, path, err));
  TRY(key_identify(key_id, ski, key));
  if (local_key_find(ski) != NULL) {
    goto out;
  }
  if (num_keys == LOCAL_KEY_MAX) {
    st = errmsg_set(err, STATUS_LIMIT, "more than %d benchmark keys", LOCAL_KEY_MAX);
    goto out;
  }
  memcpy(keys[num_keys].ski, ski, sizeof(ski));
  keys[num_keys].key = key;
  key = NULL;
  num_keys += 1;

out:
  EVP_PKEY_free(key);
  return st;
}
