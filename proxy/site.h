// SPDX-License-Identifier: Apache-2.0
// site: everything that a configuration file makes, immutable once made: the
// certificate store, what each name allows, origins, limits. A reload makes a new
// site beside the old one; nothing is changed until it is whole (control/reload.h).
//
// Made and freed by the control thread; read by workers, each through its view
// (view.h), which keeps the site alive while a handshake needs it.
#ifndef DEPUTY_PROXY_SITE_H_
#define DEPUTY_PROXY_SITE_H_

#include <stdbool.h>
#include <stdint.h>

#include "certstore/certstore.h"
#include "common/base/errmsg.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "proxy/config/options.h"
#include "proxy/connection/greeting.h"
#include "proxy/handshake/tls_policy.h"
#include "proxy/origin/origins.h"

// Which pool an application protocol has.
struct route {
  struct bytes protocol;  // borrowed of the options
  struct origin_pool *pool;
};

// What connections for a name may do; cert_name.policy points at one.
struct policy {
  uint8_t *alpn;  // protocols as ALPN writes them: length, name, length, name, ...
  size_t alpn_len;
  bool may_use_dc;
  const struct tls_policy *tls;
  struct origin_pool *pool;    // for what no route is of
  const struct route *routes;  // by application protocol
  size_t num_routes;
};

struct site {
  struct options options;
  struct certstore *store;
  struct policy *policies;    // one for each of options.names
  struct policy of_store;     // of all names that are in a store
  struct origin_pool *pools;  // options.origins, then the short form
  size_t num_pools;
  struct pool_options short_pool;  // what options.origin means
  struct server_options short_server;
  struct route *routes;  // of all that say nothing else, then of each name
  size_t num_routes;
  struct trust trusts[OPTIONS_MAX_LISTENERS];  // of options.listeners
  struct tls_policies tls;
  SSL_ECH_KEYS *ech_keys;     // of tls.ech_keys; NULL: none
  struct secret ticket_keys;  // struct ticket_keys of tickets.key_file; empty: none
  // Says which key servers and what own identity; equal ones may be shared.
  uint8_t key_servers_id[32];
  size_t num_views;   // control's: those that have not been released
  struct site *next;  // control's list
};

// site_new reads all that the options name; it takes their content in any case
// (*options is empty then). Warnings are logged, but not again for chains that
// `previous` (may be NULL) had already. Names, keys and CAs are tied to `states`, and
// pools to `origins`.
// STATUS_CONFIG, STATUS_SYSTEM, STATUS_FORMAT, STATUS_REFUSED, STATUS_LIMIT,
// STATUS_MEMORY; err has the sentence.
enum status site_new(struct site **out, struct options *options, struct states *states,
                     struct origins *origins, const struct site *previous, struct errmsg *err);
void site_free(struct site *site);

static inline const struct policy *policy_of(const struct cert_name *name) { return name->policy; }

#endif  // DEPUTY_PROXY_SITE_H_
