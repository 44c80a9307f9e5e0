// SPDX-License-Identifier: Apache-2.0
// policy: which client may have which credentials, as the configuration's
// "clients" say. Default deny. Part of a snapshot (snapshot.h): built at start
// and on each reload, asked by issue.c for every entry of a request.
//
// A credential is good for every name in its certificate, so a grant fits only
// if it covers all of them; covering the one name that the client cares about
// would give it the others as well.
//
// Threads: build on one; afterwards any may read and take tokens.
#ifndef DEPUTY_DCISSUER_POLICY_H_
#define DEPUTY_DCISSUER_POLICY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/rate_limit.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"
#include "dcissuer/options.h"

#define POLICY_MAX_GRANTS_PER_CLIENT 32u
#define POLICY_MAX_SCHEMES 8u

struct grant {
  char *label;
  // Lower case, sorted: a grant may list a hundred thousand.
  char **hosts;  // exact names; also "*"
  size_t num_hosts;
  char **suffixes;  // ".example" of "*.example"
  size_t num_suffixes;
  const struct scheme *schemes[POLICY_MAX_SCHEMES];
  size_t num_schemes;
  int64_t max_lifetime_s;
  struct rate_limit rate;  // of credentials
};

// The grants that fit one client, in the configuration's order.
struct client_rights {
  struct grant *grants[POLICY_MAX_GRANTS_PER_CLIENT];
  size_t num_grants;
};

struct policy;

// policy_new borrows from `options`, which must outlive it. STATUS_CONFIG with the label
// and the fault, STATUS_MEMORY.
enum status policy_new(struct policy **out, const struct options *options, struct errmsg *err);
void policy_free(struct policy *policy);

// policy_inherit takes over how much of their rates the grants of the same label
// in `old` have used up, so that a reload is no fresh allowance.
void policy_inherit(struct policy *policy, struct policy *old);

// policy_of_client collects the grants for a client that has the key
// `spki_sha256` and the names for which has_name(arg, name) is true. None is an
// answer too. Grants beyond the limit are ignored.
void policy_of_client(struct client_rights *out, const struct policy *policy,
                      const uint8_t spki_sha256[32],
                      bool (*has_name)(const void *arg, const char *name), const void *arg);

// grant_covers: see options.c, "hosts". `name` is lower case; a wildcard name, as
// "*.a.test", is covered by "*.a.test" and by patterns above it.
bool grant_covers(const struct grant *grant, const char *name);
bool grant_has_scheme(const struct grant *grant, const struct scheme *scheme);

#endif  // DEPUTY_DCISSUER_POLICY_H_
