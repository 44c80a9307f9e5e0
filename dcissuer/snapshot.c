// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/snapshot.h"

#include <openssl/ssl.h>
#include <stdlib.h>

#include "common/tls/context.h"

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
  TRY(keyclient_config_id(snapshot->key_servers_sha256, &snapshot->options.key_servers, err));
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
