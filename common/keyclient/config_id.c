// SPDX-License-Identifier: Apache-2.0
#include <openssl/sha.h>

#include "common/base/clock.h"
#include "common/base/secret.h"
#include "common/keyclient/keyclient.h"

#define IDENTITY_FILE_MAX_LEN (1u << 20)  // bytes

// Length first, so that no two lists of texts hash alike.
static void hash_bytes(SHA256_CTX *hash, struct bytes in) {
  const uint64_t len = in.len;
  SHA256_Update(hash, &len, sizeof(len));
  SHA256_Update(hash, in.data, in.len);
}

static void hash_text(SHA256_CTX *hash, const char *text) {
  hash_bytes(hash, text == NULL ? bytes_text("") : bytes_text(text));
}

static enum status hash_file(SHA256_CTX *hash, const char *path, struct errmsg *err) {
  struct secret content = {0};
  const enum status st = secret_read_file(&content, path, IDENTITY_FILE_MAX_LEN, false, err);
  if (st == STATUS_OK) {
    hash_bytes(hash, bytes_of(content.data, content.len));
  }
  secret_wipe(&content);
  return st;
}

enum status keyclient_config_id(uint8_t out[32], const struct keyclient_config *config,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  const int64_t numbers[] = {
      config->deadline_ms,         config->attempt_ms, config->connect_ms, config->num_connections,
      config->allow_tls12 ? 1 : 0, config->ping_ms,    config->resolve_ms, config->hedge_percent};
  SHA256_CTX hash;

  SHA256_Init(&hash);
  for (size_t i = 0; i < config->num_servers; i++) {
    hash_text(&hash, config->servers[i].address);
    hash_text(&hash, config->servers[i].name);
  }
  hash_bytes(&hash, bytes_of(numbers, sizeof(numbers)));
  TRY(hash_file(&hash, config->tls.ca, err));
  TRY(hash_file(&hash, config->tls.certificate, err));
  TRY(hash_file(&hash, config->tls.key, err));
  if (config->tls.num_crl > 0) {
    // Revocation lists, and folders of them, count from the reload on: no sharing.
    const int64_t now_us = clock_monotonic_us();
    hash_bytes(&hash, bytes_of(&now_us, sizeof(now_us)));
  }
  SHA256_Final(out, &hash);

out:
  if (st != STATUS_OK) {
    errmsg_prefix(err, "key_servers.tls");
  }
  return st;
}
