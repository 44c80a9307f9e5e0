// SPDX-License-Identifier: Apache-2.0
// certstore_private: the store as its own files see it.
#ifndef DEPUTY_CERTSTORE_CERTSTORE_PRIVATE_H_
#define DEPUTY_CERTSTORE_CERTSTORE_PRIVATE_H_

#include "certstore/certstore.h"
#include "certstore/table.h"

struct certstore {
  struct states *states;  // borrowed
  const struct state *fleet;
  struct cert_pool *pool;  // intermediates are kept once
  struct table names_by_name;
  struct table chains_by_path;  // key: label, 0, path
  struct table chains_by_leaf;  // key: SHA-256
  struct cert_name **names;
  size_t num_names;
  size_t names_room;
  struct chain **chains;
  char **chain_keys;  // of chains_by_path
  size_t num_chains;
  size_t chains_room;
  const struct cert_name *fallback;  // the default
};

// A host name made ready for the table.
struct host {
  char text[CERTSTORE_NAME_MAX_LEN + 1];
  size_t len;
  size_t first_dot;  // index; len if there is none
};

// host_read lowers the case, drops one dot at the end and checks the form: labels
// of 1 to 63 letters, digits, - and _; the first may be "*" if `may_be_wildcard`.
bool host_read(struct host *out, struct bytes in, bool may_be_wildcard);

// What a drill supposes.
struct supposition {
  const struct state *out_of_service;  // a key's or CA's; NULL: none
  bool is_level_gone;
  unsigned level;  // taken away
};

// choose_if is certstore_choose under a supposition (NULL: as it is).
enum status choose_if(struct choice *out, const struct certstore *store,
                      const struct cert_name *name, int64_t now_s,
                      bool (*takes)(void *arg, enum key_kind kind), void *arg,
                      const struct supposition *supposed);

#endif  // DEPUTY_CERTSTORE_CERTSTORE_PRIVATE_H_
