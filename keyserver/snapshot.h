// SPDX-License-Identifier: Apache-2.0
// snapshot: everything that a reload replaces, as one immutable, counted whole:
// configuration, keys, rights, TLS context. Prepared by the control thread,
// handed to the workers (worker.c), freed with its last user. A reload that
// fails leaves no trace but its error message.
#ifndef DEPUTY_KEYSERVER_SNAPSHOT_H_
#define DEPUTY_KEYSERVER_SNAPSHOT_H_

#include <openssl/base.h>
#include <stdatomic.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "keyserver/keystore.h"
#include "keyserver/options.h"
#include "keyserver/rights.h"

struct snapshot {
  atomic_uint num_refs;
  atomic_uint num_borrowers;  // snapshots that borrow from it, and one more while it has users
  uint64_t generation;        // 1, 2, 3 ...
  struct options options;
  struct keystore *keys;
  struct rights *rights;
  SSL_CTX *tls;
  int64_t loaded_us;  // clock_file_us before the first key file was read
  // Of one that has only other keys: all the rest is borrowed from this one, whose
  // keys go with its last user all the same.
  struct snapshot *base;
};

// snapshot_read makes one that holds only the options of the file, for what must
// be done before keys are read; snapshot_load_files reads key files and the own
// certificate, which may take root; snapshot_fill finds the keys in tokens, which
// should not be root's business, and the rights. On failure of any *snapshot is
// still to be unref'd. STATUS_CONFIG, and what keystore_load, keystore_load_tokens,
// rights_new and tls_context_server return.
enum status snapshot_read(struct snapshot **out, const char *path, uint64_t generation,
                          struct errmsg *err);
enum status snapshot_load_files(struct snapshot *snapshot, struct errmsg *err);
enum status snapshot_fill(struct snapshot *snapshot, struct token_registry *tokens,
                          struct errmsg *err);

// snapshot_load_public is load_files and fill for whoever signs nothing: without
// private keys and tokens, and without the server's own certificate.
enum status snapshot_load_public(struct snapshot *snapshot, struct errmsg *err);

// snapshot_with_key makes one like `from` with one more key (taken). What
// keystore_with returns.
enum status snapshot_with_key(struct snapshot **out, struct snapshot *from, struct key **key,
                              struct errmsg *err);

// snapshot_with_keys makes one like `from` with the keys that are in the folders and
// tokens now. What keystore_load and keystore_load_tokens return.
enum status snapshot_with_keys(struct snapshot **out, struct snapshot *from,
                               struct token_registry *tokens, struct errmsg *err);

struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot);  // NULL is allowed

#endif  // DEPUTY_KEYSERVER_SNAPSHOT_H_
