// SPDX-License-Identifier: Apache-2.0
#include "proxy/site.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/tls/compression.h"
#include "common/tls/ech.h"
#include "proxy/handshake/signer.h"
#include "proxy/handshake/ticket_schedule.h"

#ifdef DEPUTY_BENCH_LOCAL_KEY
#include "bench/local_key.h"
#endif

#define SHORT_RESOLVE_MS 30000  // of the one origin's name

// --- application protocols -------------------------------------------------------

// RFC 7301, section 3.1: each name behind its length.
static enum status encode_alpn(struct policy *out, char *const *names, size_t num) {
  size_t len = 0;
  for (size_t i = 0; i < num; i++) {
    len += 1 + strlen(names[i]);
  }
  if (len == 0) {
    return STATUS_OK;
  }
  out->alpn = malloc(len);
  if (out->alpn == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num; i++) {
    size_t name_len = strlen(names[i]);
    out->alpn[out->alpn_len] = (uint8_t)name_len;
    memcpy(out->alpn + out->alpn_len + 1, names[i], name_len);
    out->alpn_len += 1 + name_len;
  }
  return STATUS_OK;
}

// --- origins -----------------------------------------------------------------------

static enum status make_pools(struct site *site, struct origins *origins, struct errmsg *err) {
  const struct options *options = &site->options;
  const struct origin_options *origin = &options->origin;
  const size_t num = origin_options_num_pools(options);

  // The short form: one place, always tried.
  site->short_server = (struct server_options){.address = origin->address, .weight = 1};
  site->short_pool = (struct pool_options){
      .name = (char *)(uintptr_t)ORIGIN_SHORT_NAME,
      .servers = &site->short_server,
      .num_servers = 1,
      .proxy_protocol = origin->proxy_protocol,
      .connect_ms = origin->connect_ms,
      .attempt_ms = origin->connect_ms,
      .resolve_ms = SHORT_RESOLVE_MS,
  };
  site->pools = calloc(num, sizeof(*site->pools));
  if (site->pools == NULL) {
    return STATUS_MEMORY;
  }
  for (; site->num_pools < num; site->num_pools++) {
    const size_t i = site->num_pools;
    const struct pool_options *pool =
        i < options->num_origins ? &options->origins[i] : &site->short_pool;
    enum status st = origins_pool_init(origins, &site->pools[i], pool, (unsigned)i, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "origins[%zu]", i);
      return st;
    }
  }
  return STATUS_OK;
}

static struct origin_pool *pool_named(const struct site *site, const char *name) {
  size_t at = origin_options_default(&site->options);
  CHECK(name == NULL || origin_options_find(&at, &site->options, name));  // origin_options_check
  return &site->pools[at];
}

static void put_routes(struct site *site, const struct route_options *options, size_t num) {
  for (size_t i = 0; i < num; i++) {
    site->routes[site->num_routes] =
        (struct route){bytes_text(options[i].protocol), pool_named(site, options[i].origin)};
    site->num_routes += 1;
  }
}

static enum status make_routes(struct site *site) {
  const struct options *options = &site->options;
  size_t num = options->num_alpn_origins;
  for (size_t i = 0; i < options->num_names; i++) {
    num += options->names[i].num_alpn_origins;
  }
  site->routes = calloc(num + 1, sizeof(*site->routes));
  if (site->routes == NULL) {
    return STATUS_MEMORY;
  }
  put_routes(site, options->alpn_origins, options->num_alpn_origins);
  return STATUS_OK;
}

// The narrowest that says something of origins counts.
static void set_origins(struct policy *out, struct site *site, const char *origin,
                        const struct route_options *routes, size_t num_routes) {
  out->pool = pool_named(site, origin);
  if (origin == NULL && num_routes == 0) {
    out->routes = site->routes;
    out->num_routes = site->options.num_alpn_origins;
  } else {
    out->routes = site->routes + site->num_routes;
    out->num_routes = num_routes;
    put_routes(site, routes, num_routes);
  }
}

// --- policies ----------------------------------------------------------------------

static enum status make_policy(struct policy *out, struct site *site, bool may_use_dc,
                               char *const *alpn, size_t num_alpn,
                               const struct name_tls_options *name_tls, struct errmsg *err) {
  const struct tls_options *tls = &site->options.tls;
  enum status st = tls_policies_add(&out->tls, &site->tls, name_tls, err);
  if (st != STATUS_OK) {
    return st;
  }
  out->may_use_dc = may_use_dc;
  return num_alpn > 0 ? encode_alpn(out, alpn, num_alpn)
                      : encode_alpn(out, tls->alpn, tls->num_alpn);
}

// --- chains ------------------------------------------------------------------------

// What an operator should know of a chain that is new to this process.
static void warn_of_chain(const struct site *site, const struct chain *chain,
                          const struct site *previous) {
  const struct cert_info *info = &chain->info;
  if (previous != NULL && certstore_find_leaf(previous->store, info->sha256) != NULL) {
    return;
  }
  if (options_has_issuers(&site->options) && !info->may_delegate) {
    const char *why = info->kind == KEY_KIND_RSA    ? "rsa_key"
                      : !info->has_delegation_usage ? "no_delegation_usage"
                                                    : "no_digital_signature";
    log_warn(0, "chain_keyless_only", "path=%s reason=%s", chain->path, why);
  }
  if (info->not_after_s <= clock_wall_s()) {
    char when[CLOCK_RFC3339_LEN];
    log_error(0, "chain_expired", "path=%s not_after=%s", chain->path,
              clock_format_rfc3339(when, info->not_after_s));
  }
}

static enum status add_chain(struct site *site, struct cert_name *name,
                             const struct chain_options *options, const struct site *previous,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  struct errmsg warning = {0};
  struct chain *chain = NULL;
  size_t num_before = 0;
  size_t num_after = 0;

#ifdef DEPUTY_BENCH_LOCAL_KEY
  TRY(local_key_load(options->benchmark_key, err));
#endif
  (void)certstore_chains(site->store, &num_before);
  TRY(certstore_add_chain(&chain, site->store, options->label, options->certificate, &signer_method,
                          err));
  (void)certstore_chains(site->store, &num_after);
  if (num_after > num_before) {
    warn_of_chain(site, chain, previous);
  }
  TRY(certstore_add_level(site->store, name, chain, &warning, err));
  if (warning.text[0] != '\0') {
    log_warn(0, "chain_unwise", "name=%s %s", name->name, warning.text);
  }

out:
  return st;
}

static enum status add_name(struct site *site, size_t i, const struct site *previous,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct name_options *options = &site->options.names[i];
  struct cert_name *name = NULL;

  st = make_policy(&site->policies[i], site, options->may_use_dc, options->alpn, options->num_alpn,
                   &options->tls, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "names[%zu] \"%s\"", i, options->name);
    goto out;
  }
  set_origins(&site->policies[i], site, options->origin, options->alpn_origins,
              options->num_alpn_origins);
  TRY(certstore_add_name(&name, site->store, options->name, &site->policies[i], err));
  for (size_t j = 0; j < options->num_chains; j++) {
    st = add_chain(site, name, &options->chains[j], previous, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "names[%zu] \"%s\", chains[%zu]", i, options->name, j);
      goto out;
    }
  }

out:
  return st;
}

// --- key servers ---------------------------------------------------------------------

// A wrong identity must stop a start or a reload, not show up in a worker later.
static enum status try_identity(const struct tls_identity *identity, const char *where,
                                struct errmsg *err) {
  SSL_CTX *ctx = NULL;
  enum status st = tls_context_client(&ctx, identity, false, err);
  SSL_CTX_free(ctx);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", where);
  }
  return st;
}

// --- the whole -------------------------------------------------------------------------

static enum status fill_store(struct site *site, struct states *states, const struct site *previous,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  TRY(certstore_new(&site->store, states));
  const struct store_place_options *place = &site->options.store;
  TRY(tls_policies_init(&site->tls, &site->options.tls, err));
  TRY(make_policy(&site->of_store, site, place->may_use_dc, place->alpn, place->num_alpn,
                  &place->tls, err));
  set_origins(&site->of_store, site, place->origin, NULL, 0);
  site->policies = calloc(site->options.num_names + 1, sizeof(*site->policies));
  if (site->policies == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < site->options.num_names; i++) {
    TRY(add_name(site, i, previous, err));
  }
  if (site->options.default_name != NULL) {
    TRY(certstore_set_default(site->store, site->options.default_name, err));
  }
out:
  return st;
}

enum status site_new(struct site **out, struct options *options, struct states *states,
                     struct origins *origins, const struct site *previous, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct site *site = calloc(1, sizeof(*site));

  *out = NULL;
  if (site == NULL) {
    options_cleanup(options);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  site->options = *options;
  *options = (struct options){0};
  TRY(make_pools(site, origins, err));
  TRY(make_routes(site));
  for (size_t i = 0; i < site->options.num_listeners; i++) {
    TRY(trust_init(&site->trusts[i], &site->options.listeners[i], err));
  }
  TRY(try_identity(&site->options.key_servers.tls, "key_servers.tls", err));
  TRY(keyclient_config_id(site->key_servers_id, &site->options.key_servers, err));
  if (options_has_issuers(&site->options)) {
    TRY(try_identity(&site->options.issuers.tls, "issuers.tls", err));
  }
  if (site->options.tickets.key_file != NULL) {
    st = ticket_schedule_read(&site->ticket_keys, site->options.tickets.key_file, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "tickets.key_file");
      goto out;
    }
  }
  if (site->options.tls.num_ech > 0) {
    st = ech_keys_load(&site->ech_keys, site->options.tls.ech, site->options.tls.num_ech, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "tls.ech_keys");
      goto out;
    }
  }
  tls_compression_prepare((unsigned)site->options.tls.compression);
  TRY(fill_store(site, states, previous, err));
  *out = site;
  site = NULL;

out:
  if (st == STATUS_MEMORY) {
    (void)errmsg_set(err, st, "no memory for the configuration");
  }
  site_free(site);
  return st;
}

void site_free(struct site *site) {
  if (site == NULL) {
    return;
  }
  certstore_free(site->store);
  if (site->policies != NULL) {
    for (size_t i = 0; i < site->options.num_names; i++) {
      free(site->policies[i].alpn);
    }
  }
  free(site->policies);
  for (size_t i = 0; i < site->num_pools; i++) {
    origins_pool_cleanup(&site->pools[i]);
  }
  free(site->pools);
  free(site->routes);
  for (size_t i = 0; i < OPTIONS_MAX_LISTENERS; i++) {
    trust_cleanup(&site->trusts[i]);
  }
  free(site->of_store.alpn);
  tls_policies_cleanup(&site->tls);
  SSL_ECH_KEYS_free(site->ech_keys);
  secret_wipe(&site->ticket_keys);
  options_cleanup(&site->options);
  free(site);
}
