// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/snapshot.h"

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/secret.h"
#include "common/tls/context.h"

// Length first, so that no two lists of texts hash alike.
static void hash_bytes(SHA256_CTX *hash, struct bytes in) {
  uint64_t len = in.len;
  SHA256_Update(hash, &len, sizeof(len));
  SHA256_Update(hash, in.data, in.len);
}

static void hash_text(SHA256_CTX *hash, const char *text) {
  hash_bytes(hash, text == NULL ? bytes_text("") : bytes_text(text));
}

static enum status hash_file(SHA256_CTX *hash, const char *path, struct errmsg *err) {
  struct secret content = {0};
  enum status st = secret_read_file(&content, path, CERT_FILE_MAX_LEN, false, err);
  if (st == STATUS_OK) {
    hash_bytes(hash, bytes_of(content.data, content.len));
  }
  secret_wipe(&content);
  return st;
}

static enum status hash_key_servers(uint8_t out[32], const struct keyclient_config *config,
                                    struct errmsg *err) {
  enum status st = STATUS_OK;
  SHA256_CTX hash;
  const int64_t numbers[] = {
      config->deadline_ms,         config->attempt_ms, config->connect_ms, config->num_connections,
      config->allow_tls12 ? 1 : 0, config->ping_ms,    config->resolve_ms, config->hedge_percent};

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
  return st;
}

// The context is not kept: keyclient makes its own. It is tried here so that
// --check-config and a reload see a bad file.
static enum status try_client_tls(const struct keyclient_config *config, struct errmsg *err) {
  SSL_CTX *ctx = NULL;
  enum status st = tls_context_client(&ctx, &config->tls, config->allow_tls12, err);
  SSL_CTX_free(ctx);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "key_servers.tls");
  }
  return st;
}

enum status snapshot_load(struct snapshot **out, const char *config_path, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct snapshot *snapshot = calloc(1, sizeof(*snapshot));

  *out = NULL;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  snapshot->num_refs = 1;
  TRY(options_load(&snapshot->options, config_path, err));
  TRY(policy_new(&snapshot->policy, &snapshot->options, err));
  TRY(cert_set_load(&snapshot->certificates, snapshot->options.certificates,
                    snapshot->options.num_certificates, err));
  TRY(tls_context_server(&snapshot->tls, &snapshot->options.tls, false, err));
  TRY(try_client_tls(&snapshot->options.key_servers, err));
  TRY(hash_key_servers(snapshot->key_servers_sha256, &snapshot->options.key_servers, err));
  *out = snapshot;
  snapshot = NULL;

out:
  snapshot_unref(snapshot);
  return st;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot) {
  snapshot->num_refs++;
  return snapshot;
}

void snapshot_unref(struct snapshot *snapshot) {
  if (snapshot == NULL || --snapshot->num_refs > 0) {
    return;
  }
  policy_free(snapshot->policy);
  cert_set_free(snapshot->certificates);
  SSL_CTX_free(snapshot->tls);
  options_cleanup(&snapshot->options);
  free(snapshot);
}
