// SPDX-License-Identifier: Apache-2.0
// snapshot: all that a reload replaces, prepared whole and then swapped: options,
// rights, certificates, TLS. A request keeps the snapshot it began with.
//
// Threads: loading may run on any (it reads files); after that a snapshot stays
// on the loop, where it is counted.
#ifndef DEPUTY_DCISSUER_SNAPSHOT_H_
#define DEPUTY_DCISSUER_SNAPSHOT_H_

#include <openssl/base.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "dcissuer/cert_store.h"
#include "dcissuer/options.h"
#include "dcissuer/policy.h"

struct snapshot {
  size_t num_refs;
  struct options options;
  struct policy *policy;
  struct cert_set *certificates;
  SSL_CTX *tls;  // of our own listeners
  // Of everything that the connections to the key servers are made of, the PEM
  // files' content included: they are made anew only when it changes.
  uint8_t key_servers_sha256[32];
};

// snapshot_load reads the configuration and all it names. Err has the sentence.
enum status snapshot_load(struct snapshot **out, const char *config_path, struct errmsg *err);
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot);  // NULL allowed

#endif  // DEPUTY_DCISSUER_SNAPSHOT_H_
