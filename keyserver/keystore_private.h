// SPDX-License-Identifier: Apache-2.0
// keystore_private: what keystore.c (keys, and how they are found) and keystore_load.c (where
// they come from) know of each other.
#ifndef DEPUTY_KEYSERVER_KEYSTORE_PRIVATE_H_
#define DEPUTY_KEYSERVER_KEYSTORE_PRIVATE_H_

#include "common/tls/cert.h"
#include "keyserver/keystore.h"

struct keystore {
  struct key **keys;
  size_t num_keys;
  size_t cap;
  struct key **slots;  // by SKI, open addressing
  size_t num_slots;    // a power of two, twice cap
  size_t num_sealed[SEALED_NUM_OUTCOMES];
  struct sealed_opener *opener;  // while folders are read
};

// keystore_new makes one without keys. keystore_key_alloc: one reference; NULL: no memory.
enum status keystore_new(struct keystore **out, struct errmsg *err);
struct key *keystore_key_alloc(void);

// keystore_describe fills in what follows from key->pkey, and copies the label.
enum status keystore_describe(struct key *key, const char *label, struct errmsg *err);

// keystore_test: what signs wrongly would be found out by the visitors of a site.
// STATUS_UNAVAILABLE: its token is away.
enum status keystore_test(const struct key *key, struct errmsg *err);

// keystore_append takes the key. STATUS_LIMIT, STATUS_MEMORY.
enum status keystore_append(struct keystore *ks, struct key **key, struct errmsg *err);

// keystore_add_names gives the certificate's names to its key, if that is here.
enum status keystore_add_names(struct keystore *ks, const struct cert_info *info,
                               struct errmsg *err);

// keystore_apply_policies limits the keys from `first` on.
enum status keystore_apply_policies(struct keystore *ks, size_t first,
                                    const struct options *options, struct errmsg *err);

#endif  // DEPUTY_KEYSERVER_KEYSTORE_PRIVATE_H_
