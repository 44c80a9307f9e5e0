// SPDX-License-Identifier: Apache-2.0
#include "keyserver/snapshot.h"

#include <openssl/ssl.h>
#include <stdlib.h>

#include "common/base/clock.h"

enum status snapshot_read(struct snapshot **out, const char *path, uint64_t generation,
                          struct errmsg *err) {
  struct snapshot *snapshot = calloc(1, sizeof *snapshot);

  *out = snapshot;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  atomic_init(&snapshot->num_refs, 1);
  atomic_init(&snapshot->num_borrowers, 1);
  snapshot->generation = generation;
  return options_load(&snapshot->options, path, err);
}

enum status snapshot_load_files(struct snapshot *snapshot, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &snapshot->options;

  snapshot->loaded_us = clock_file_us();
  TRY(tls_context_server(&snapshot->tls, &options->tls, options->allow_tls12, err));
  TRY(keystore_load(&snapshot->keys, options, err));

out:
  return st;
}

enum status snapshot_load_public(struct snapshot *snapshot, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &snapshot->options;

  TRY(tls_context_trust(&snapshot->tls, &options->tls, err));
  TRY(keystore_load_public(&snapshot->keys, options, err));
  TRY(rights_new(&snapshot->rights, options, snapshot->keys, err));

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

// derive makes one without keys that borrows all else from `from`, or from whom
// that one borrows.
static struct snapshot *derive(struct snapshot *from) {
  struct snapshot *base = from->base != NULL ? from->base : from;
  struct snapshot *snapshot = calloc(1, sizeof *snapshot);

  if (snapshot == NULL) {
    return NULL;
  }
  atomic_init(&snapshot->num_refs, 1);
  atomic_init(&snapshot->num_borrowers, 1);
  snapshot->generation = from->generation + 1;
  snapshot->loaded_us = from->loaded_us;
  snapshot->options = base->options;
  snapshot->rights = base->rights;
  snapshot->tls = base->tls;
  snapshot->base = base;
  atomic_fetch_add_explicit(&base->num_borrowers, 1, memory_order_relaxed);
  return snapshot;
}

enum status snapshot_with_key(struct snapshot **out, struct snapshot *from, struct key **key,
                              struct errmsg *err) {
  struct snapshot *snapshot = derive(from);
  enum status st = STATUS_OK;

  *out = NULL;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(keystore_with(&snapshot->keys, from->keys, key, &snapshot->options, err));
  *out = snapshot;
  snapshot = NULL;

out:
  snapshot_unref(snapshot);
  return st;
}

enum status snapshot_with_keys(struct snapshot **out, struct snapshot *from,
                               struct token_registry *tokens, struct errmsg *err) {
  struct snapshot *snapshot = derive(from);
  enum status st = STATUS_OK;

  *out = NULL;
  if (snapshot == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  snapshot->loaded_us = clock_file_us();
  TRY(keystore_load(&snapshot->keys, &snapshot->options, err));
  TRY(keystore_load_tokens(snapshot->keys, &snapshot->options, tokens, err));
  *out = snapshot;
  snapshot = NULL;

out:
  snapshot_unref(snapshot);
  return st;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot) {
  atomic_fetch_add_explicit(&snapshot->num_refs, 1, memory_order_relaxed);
  return snapshot;
}

// end_borrowing frees what others may borrow once nobody does.
static void end_borrowing(struct snapshot *snapshot) {
  if (atomic_fetch_sub_explicit(&snapshot->num_borrowers, 1, memory_order_acq_rel) != 1) {
    return;
  }
  if (snapshot->base == NULL) {  // else it is the base's
    rights_free(snapshot->rights);
    SSL_CTX_free(snapshot->tls);
    options_cleanup(&snapshot->options);
  }
  free(snapshot);
}

void snapshot_unref(struct snapshot *snapshot) {
  struct snapshot *base = NULL;

  if (snapshot == NULL ||
      atomic_fetch_sub_explicit(&snapshot->num_refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  keystore_free(snapshot->keys);  // a key that was removed does not stay in memory
  snapshot->keys = NULL;
  base = snapshot->base;
  end_borrowing(snapshot);
  if (base != NULL) {
    end_borrowing(base);
  }
}
