// SPDX-License-Identifier: Apache-2.0
// rights: which client may have what signed with which key, as the
// configuration's "clients" say. Default deny: what no grant allows is refused.
// Part of a snapshot (snapshot.h); filled at start and on each reload, asked by
// peer.c (once for a connection) and request.c (once for a key, then from the
// connection's memory).
//
// A grant is {clients} x {keys} x {purposes}. A client may fit several; the first
// that allows a request is the one whose rate is charged.
//
// Threads: build on one; afterwards any may read, and may
// charge rates.
#ifndef DEPUTY_KEYSERVER_RIGHTS_H_
#define DEPUTY_KEYSERVER_RIGHTS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/rate_limit.h"
#include "common/base/status.h"
#include "common/wire/signing_input.h"
#include "keyserver/key_pattern.h"
#include "keyserver/keystore.h"
#include "keyserver/options.h"

#define RIGHTS_MAX_GRANTS_PER_CLIENT 32u

struct grant {
  const char *label;  // borrowed from the options
  struct key_pattern *keys;
  size_t num_keys;
  unsigned purposes;  // bit n: enum purpose n
  int64_t dc_max_lifetime_s;
  struct rate_limit rate;
};

// The grants that fit one client, in the configuration's order.
struct client_rights {
  struct grant *grants[RIGHTS_MAX_GRANTS_PER_CLIENT];
  size_t num_grants;
};

// What one client may do with one key: the grant for each purpose, or NULL.
struct key_rights {
  struct grant *by_purpose[PURPOSE_NUM];
};

struct rights;

// Why a grant does, or does not, allow a request.
struct rights_trace {
  const struct grant *grant;
  bool fits_client;
  bool fits_key;
  bool has_purpose;
};

// rights_new reads the grants of `options`, which must outlive them. Patterns
// that fit no key of `ks` are logged, as that is how a typing error shows.
// STATUS_CONFIG, STATUS_MEMORY.
enum status rights_new(struct rights **out, const struct options *options,
                       const struct keystore *ks, struct errmsg *err);
void rights_free(struct rights *rights);
size_t rights_num_grants(const struct rights *rights);

// rights_of_client collects the grants for a client that has the key
// `spki_sha256` and the names for which has_name(arg, name) is true. None is an
// answer too: this client may do nothing. Grants beyond the limit are ignored.
void rights_of_client(struct client_rights *out, const struct rights *rights,
                      const uint8_t spki_sha256[32],
                      bool (*has_name)(const void *arg, const char *name), const void *arg);

// rights_of_key fills in what these grants say about a key.
void rights_of_key(struct key_rights *out, const struct client_rights *client,
                   const struct key *key);

// rights_to_generate borrows the grant by which a key of this label may be made,
// or returns NULL.
struct grant *rights_to_generate(const struct client_rights *client, const char *label);

// rights_trace asks one grant (index < rights_num_grants) the questions of the calls
// above, one by one. `key` NULL: a key that is to be made, of this `label`.
void rights_trace(struct rights_trace *out, const struct rights *rights, size_t index,
                  const uint8_t spki_sha256[32],
                  bool (*has_name)(const void *arg, const char *name), const void *arg,
                  const struct key *key, const char *label, enum purpose purpose);

#endif  // DEPUTY_KEYSERVER_RIGHTS_H_
