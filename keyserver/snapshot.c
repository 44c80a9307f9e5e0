// SPDX-License-Identifier: Apache-2.0
#include "keyserver/snapshot.h"

#include <openssl/ssl.h>
#include <stdlib.h>

enum status snapshot_read(struct snapshot **out, const char *path, uint64_t generation,
                          struct errmsg *err) {
  struct snapshot *snapshot = calloc(1, sizeof *snapshot);

  *out = snapshot;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  atomic_init(&snapshot->num_refs, 1);
  snapshot->generation = generation;
  return options_load(&snapshot->options, path, err);
}

enum status snapshot_load_files(struct snapshot *snapshot, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &snapshot->options;

  TRY(tls_context_server(&snapshot->tls, &options->tls, options->allow_tls12, err));
  TRY(keystore_load(&snapshot->keys, options, err));

out:
  return st;
}

enum status snapshot_fill(struct snapshot *snapshot, struct token_registry *tokens,
                          struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &snapshot->options;

  TRY(keystore_load_tokens(snapshot->keys, options, tokens, err));
  TRY(rights_new(&snapshot->rights, options, snapshot->keys, err));

out:
  return st;
}

enum status snapshot_with_key(struct snapshot **out, struct snapshot *from, struct key **key,
                              struct errmsg *err) {
  struct snapshot *base = from->base != NULL ? from->base : from;
  struct snapshot *snapshot = calloc(1, sizeof *snapshot);
  enum status st = STATUS_OK;

  *out = NULL;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  st = keystore_with(&snapshot->keys, from->keys, key, &base->options, err);
  if (st != STATUS_OK) {
    free(snapshot);
    return st;
  }
  atomic_init(&snapshot->num_refs, 1);
  snapshot->generation = from->generation + 1;
  snapshot->options = base->options;
  snapshot->rights = base->rights;
  snapshot->tls = base->tls;
  snapshot->base = snapshot_ref(base);
  *out = snapshot;
  return STATUS_OK;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot) {
  atomic_fetch_add_explicit(&snapshot->num_refs, 1, memory_order_relaxed);
  return snapshot;
}

static void snapshot_free(struct snapshot *snapshot) {
  keystore_free(snapshot->keys);
  if (snapshot->base == NULL) {  // else the rest is the base's
    rights_free(snapshot->rights);
    SSL_CTX_free(snapshot->tls);
    options_cleanup(&snapshot->options);
  }
  free(snapshot);
}

void snapshot_unref(struct snapshot *snapshot) {
  while (snapshot != NULL &&
         atomic_fetch_sub_explicit(&snapshot->num_refs, 1, memory_order_acq_rel) == 1) {
    struct snapshot *base = snapshot->base;
    snapshot_free(snapshot);
    snapshot = base;  // which lost a user
  }
}
