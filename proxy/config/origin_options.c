// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/origin_options.h"

#include <stdio.h>
#include <string.h>

#include "common/base/config_rows.h"
#include "common/net/address.h"
#include "common/tls/context.h"
#include "proxy/config/options.h"

static const char *const proxy_protocol_words[] = {"off", "v1", "v2", NULL};
static const char *const balance_words[] = {"round_robin", "least_connections", "hash_client",
                                            NULL};

static const char *const crl_words[] = {
    [TLS_CRL_REFUSE] = "refuse", [TLS_CRL_ACCEPT] = "accept", NULL};

#define PROXY_PROTOCOL_HELP                                                                \
  "Whether the origin is told who the client is (PROXY protocol): v1 has its address, v2 " \
  "also the name it asked for, ALPN, and TLS version and cipher."

// clang-format off
const struct config_option origin_option_rows[] = {
  {"address", CONFIG_TEXT, PLACE(origin_options, address), .is_required = true, .min = 1,
   .max = 300,
   .help = "Where the bytes go: 127.0.0.1:80, [::1]:80, app.internal:80, unix:/run/app.sock."},
  {"proxy_protocol", CONFIG_WORD, PLACE(origin_options, proxy_protocol), .fallback = "off",
   .words = proxy_protocol_words, .help = PROXY_PROTOCOL_HELP},
  {"connect_timeout", CONFIG_DURATION, PLACE(origin_options, connect_ms), .fallback = "5s",
   .min = 10, .max = 5 * MINUTE, .help = "Longest wait for a connection to the origin."},
  {0},
};

static const struct config_option server_rows[] = {
  {"address", CONFIG_TEXT, PLACE(server_options, address), .is_required = true, .min = 1,
   .max = 300,
   .help = "127.0.0.1:80, [::1]:80, app.internal:80, unix:/run/app.sock. All addresses of a host "
           "name are used."},
  {"weight", CONFIG_INT, PLACE(server_options, weight), .fallback = "1", .min = 1,
   .max = OPTIONS_MAX_WEIGHT,
   .help = "Its share of the pool's connections (of each of its addresses), against the others'."},
  {"max_connections", CONFIG_INT, PLACE(server_options, max_connections), .fallback = "0",
   .min = 0, .max = 10000000,
   .help = "Most connections to each of its addresses at a time, over all workers; more go to the "
           "other servers, or end. 0: no limit."},
  {"backup", CONFIG_BOOL, PLACE(server_options, is_backup), .fallback = "false",
   .help = "Used only while none of the others is in service, or has room."},
  {0},
};

static const struct config_option check_rows[] = {
  {"interval", CONFIG_DURATION, PLACE(check_options, interval_ms), .fallback = "0s", .min = 0,
   .max = HOUR, .help = "How often a connection to each address is tried; 0s: never."},
  {"timeout", CONFIG_DURATION, PLACE(check_options, timeout_ms), .fallback = "1s", .min = 10,
   .max = MINUTE, .help = "Longest wait for it; of probes, too."},
  {"rise", CONFIG_INT, PLACE(check_options, rise), .fallback = "2", .min = 1, .max = 100,
   .help = "Good checks in a row that bring an address back."},
  {"fall", CONFIG_INT, PLACE(check_options, fall), .fallback = "3", .min = 1, .max = 100,
   .help = "Bad checks in a row that take an address out."},
  {0},
};

static const struct config_option tls_rows[] = {
  {"ca", CONFIG_PATH, PLACE(origin_tls_options, ca), .is_required = true,
   .help = "PEM file with the CAs of the origins; their certificates are always verified."},
  {"name", CONFIG_TEXT, PLACE(origin_tls_options, name), .min = 1, .max = 253,
   .help = "Name (or IP address) that certificates must have, sent as SNI; none: the host of the "
           "server's address."},
  {"certificate", CONFIG_PATH, PLACE(origin_tls_options, certificate),
   .help = "PEM file with a certificate of our own for origins that ask, and its intermediates."},
  {"key", CONFIG_PATH, PLACE(origin_tls_options, key),
   .help = "PEM file with the private key of that certificate; readable by its owner only."},
  {"crl", CONFIG_PATHS, LIST(origin_tls_options, crl, num_crl),
   .help = "Revocation lists (PEM or DER): files, or folders of *.crl and *.pem files. With any, "
           "an origin whose CA has no list here is refused. Read again on a reload."},
  {"crl_when_stale", CONFIG_WORD, PLACE(origin_tls_options, crl_when_stale), .fallback = "refuse",
   .words = crl_words,
   .help = "What happens to origins whose CA's revocation list is past its nextUpdate."},
  {0},
};

const struct config_option pool_option_rows[] = {
  {"name", CONFIG_TEXT, PLACE(pool_options, name), .is_required = true, .min = 1, .max = 64,
   .help = "What names, protocols, logs and metrics call the pool."},
  {"servers", CONFIG_OBJECTS, LIST(pool_options, servers, num_servers), .is_required = true,
   .min = 1, .max = OPTIONS_MAX_SERVERS, .children = server_rows,
   .child_size = sizeof(struct server_options), .help = "The pool's origins."},
  {"balance", CONFIG_WORD, PLACE(pool_options, balance), .fallback = "round_robin",
   .words = balance_words,
   .help = "Who is next: each in turn; who has the fewest connections for its weight; or always "
           "the same for one client address (of IPv6 the /64), as long as it is in service."},
  {"proxy_protocol", CONFIG_WORD, PLACE(pool_options, proxy_protocol), .fallback = "off",
   .words = proxy_protocol_words, .help = PROXY_PROTOCOL_HELP},
  {"connect_timeout", CONFIG_DURATION, PLACE(pool_options, connect_ms), .fallback = "5s",
   .min = 10, .max = 5 * MINUTE,
   .help = "Longest wait of a client for a connection to any origin of the pool."},
  {"attempt_timeout", CONFIG_DURATION, PLACE(pool_options, attempt_ms), .fallback = "2s",
   .min = 10, .max = 5 * MINUTE,
   .help = "Longest wait for one origin before another is tried; with a single address, "
           "connect_timeout counts alone."},
  {"resolve_interval", CONFIG_DURATION, PLACE(pool_options, resolve_ms), .fallback = "30s",
   .min = SECOND, .max = DAY, .help = "How often host names are looked up again."},
  {"max_failures", CONFIG_INT, PLACE(pool_options, max_failures), .fallback = "3", .min = 0,
   .max = 1000,
   .help = "Connections to an address that fail in a row until it is taken out of service; 0: "
           "never. The only address of a pool is tried all the same."},
  {"retry_min", CONFIG_DURATION, PLACE(pool_options, retry_min_ms), .fallback = "500ms",
   .min = 10, .max = HOUR,
   .help = "Wait before an address that was taken out is probed; doubled each time."},
  {"retry_max", CONFIG_DURATION, PLACE(pool_options, retry_max_ms), .fallback = "30s", .min = 10,
   .max = HOUR, .help = "Longest wait between two probes."},
  {"check", CONFIG_OBJECT, PLACE(pool_options, check), .children = check_rows,
   .help = "Checks of the pool's addresses while no client asks for them: a connection is made, "
           "and closed."},
  {"tls", CONFIG_OBJECT, PLACE(pool_options, tls), .children = tls_rows,
   .help = "TLS to the pool's origins; none: bytes are plain."},
  {0},
};

const struct config_option route_option_rows[] = {
  {"protocol", CONFIG_TEXT, PLACE(route_options, protocol), .is_required = true, .min = 1,
   .max = 255, .help = "Application protocol as ALPN names it: h2, http/1.1."},
  {"origin", CONFIG_TEXT, PLACE(route_options, origin), .is_required = true, .min = 1, .max = 64,
   .help = "The pool that it has."},
  {0},
};
// clang-format on

// --- finding -------------------------------------------------------------------------

static bool has_short_form(const struct options *options) {
  return options->origin.address != NULL;
}

size_t origin_options_num_pools(const struct options *options) {
  return options->num_origins + (has_short_form(options) ? 1 : 0);
}

size_t origin_options_default(const struct options *options) {
  return has_short_form(options) ? options->num_origins : 0;
}

bool origin_options_find(size_t *out, const struct options *options, const char *name) {
  for (size_t i = 0; i < options->num_origins; i++) {
    if (strcmp(options->origins[i].name, name) == 0) {
      *out = i;
      return true;
    }
  }
  *out = options->num_origins;
  return has_short_form(options) && strcmp(name, ORIGIN_SHORT_NAME) == 0;
}

// --- checking ------------------------------------------------------------------------

static enum status check_address(const char *text, struct errmsg *err) {
  struct address address;
  char host[256];
  uint16_t port = 0;
  if (address_parse(&address, text, err) == STATUS_OK) {
    if (address.is_dual) {
      return errmsg_set(err, STATUS_CONFIG, "\"%.200s\" is no address to connect to", text);
    }
    if (address.storage.ss_family == AF_UNIX) {
      return STATUS_OK;
    }
    port = address_port(&address);
  } else if (text[0] == '/') {
    return errmsg_set(err, STATUS_CONFIG, "\"%.200s\" is a path; write unix:%.200s", text, text);
  } else if (strncmp(text, "unix:", 5) == 0 ||
             address_split_host(host, &port, text, err) != STATUS_OK) {
    return STATUS_CONFIG;
  }
  *err = (struct errmsg){0};
  if (port == 0) {
    return errmsg_set(err, STATUS_CONFIG, "\"%.200s\" has no port to connect to", text);
  }
  return STATUS_OK;
}

static enum status check_servers(const struct pool_options *pool, struct errmsg *err) {
  size_t num_backups = 0;
  for (size_t i = 0; i < pool->num_servers; i++) {
    const char *address = pool->servers[i].address;
    if (check_address(address, err) != STATUS_OK) {
      errmsg_prefix(err, "servers[%zu].address", i);
      return STATUS_CONFIG;
    }
    num_backups += pool->servers[i].is_backup ? 1 : 0;
    for (size_t j = 0; j < i; j++) {
      if (strcmp(pool->servers[j].address, address) == 0) {
        return errmsg_set(err, STATUS_CONFIG,
                          "servers[%zu] and [%zu] are both \"%.200s\"; give one a weight", j, i,
                          address);
      }
    }
  }
  if (num_backups == pool->num_servers) {
    return errmsg_set(err, STATUS_CONFIG, "all servers are a backup, of nothing");
  }
  return STATUS_OK;
}

static enum status check_tls(const struct pool_options *pool, struct errmsg *err) {
  const struct origin_tls_options *tls = &pool->tls;
  if ((tls->certificate == NULL) != (tls->key == NULL)) {
    return errmsg_set(err, STATUS_CONFIG, "tls.certificate and tls.key go together");
  }
  for (size_t i = 0; i < pool->num_servers && tls->ca != NULL && tls->name == NULL; i++) {
    if (strncmp(pool->servers[i].address, "unix:", 5) == 0) {
      return errmsg_set(err, STATUS_CONFIG,
                        "servers[%zu] is a UNIX socket, which has no name to verify: say tls.name",
                        i);
    }
  }
  return STATUS_OK;
}

static enum status check_pool(const struct options *options, size_t at, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct pool_options *pool = &options->origins[at];
  size_t first = at;
  if (has_short_form(options) && strcmp(pool->name, ORIGIN_SHORT_NAME) == 0) {
    return errmsg_set(err, STATUS_CONFIG,
                      "the name \"" ORIGIN_SHORT_NAME "\" is that of the option origin");
  }
  if (origin_options_find(&first, options, pool->name) && first != at) {
    return errmsg_set(err, STATUS_CONFIG, "\"%s\" is the name of origins[%zu], too", pool->name,
                      first);
  }
  if (pool->retry_min_ms > pool->retry_max_ms) {
    return errmsg_set(err, STATUS_CONFIG, "retry_min is above retry_max");
  }
  if (pool->check.interval_ms != 0 && pool->check.interval_ms < pool->check.timeout_ms) {
    return errmsg_set(err, STATUS_CONFIG, "check.timeout is above check.interval");
  }
  TRY(check_servers(pool, err));
  TRY(check_tls(pool, err));
out:
  return st;
}

static enum status check_name(const struct options *options, const char *name, struct errmsg *err) {
  size_t at = 0;
  if (name == NULL || origin_options_find(&at, options, name)) {
    return STATUS_OK;
  }
  return errmsg_set(err, STATUS_CONFIG, "there is no pool \"%s\" in origins", name);
}

static enum status check_routes(const struct options *options, const struct route_options *routes,
                                size_t num, struct errmsg *err) {
  for (size_t i = 0; i < num; i++) {
    if (check_name(options, routes[i].origin, err) != STATUS_OK) {
      errmsg_prefix(err, "alpn_origins[%zu].origin", i);
      return STATUS_CONFIG;
    }
    for (size_t j = 0; j < i; j++) {
      if (strcmp(routes[i].protocol, routes[j].protocol) == 0) {
        return errmsg_set(err, STATUS_CONFIG, "alpn_origins[%zu] and [%zu] are both for \"%s\"", j,
                          i, routes[i].protocol);
      }
    }
  }
  return STATUS_OK;
}

static bool is_among(char *const *protocols, size_t num, const char *protocol) {
  for (size_t i = 0; i < num; i++) {
    if (strcmp(protocols[i], protocol) == 0) {
      return true;
    }
  }
  return false;
}

// A pool for a protocol that nobody can agree on with us is a mistake.
static enum status check_protocols(const struct route_options *routes, size_t num,
                                   char *const *alpn, size_t num_alpn, struct errmsg *err) {
  for (size_t i = 0; i < num; i++) {
    if (!is_among(alpn, num_alpn, routes[i].protocol)) {
      return errmsg_set(
          err, STATUS_CONFIG,
          "alpn_origins[%zu] is for \"%s\", which is not in alpn: no client gets there", i,
          routes[i].protocol);
    }
  }
  return STATUS_OK;
}

// Those of all are for whichever name has the protocol.
static enum status check_common_protocols(const struct options *options, struct errmsg *err) {
  for (size_t i = 0; i < options->num_alpn_origins; i++) {
    const char *protocol = options->alpn_origins[i].protocol;
    bool is_known = is_among(options->tls.alpn, options->tls.num_alpn, protocol) ||
                    is_among(options->store.alpn, options->store.num_alpn, protocol);
    for (size_t j = 0; j < options->num_names && !is_known; j++) {
      is_known = is_among(options->names[j].alpn, options->names[j].num_alpn, protocol);
    }
    if (!is_known) {
      return errmsg_set(
          err, STATUS_CONFIG,
          "alpn_origins[%zu] is for \"%s\", which is in no alpn: no client gets there", i,
          protocol);
    }
  }
  return STATUS_OK;
}

static enum status check_names(const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < options->num_names; i++) {
    const struct name_options *name = &options->names[i];
    st = check_name(options, name->origin, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "names[%zu].origin", i);
      return st;
    }
    st = check_routes(options, name->alpn_origins, name->num_alpn_origins, err);
    if (st == STATUS_OK) {
      st = name->num_alpn > 0 ? check_protocols(name->alpn_origins, name->num_alpn_origins,
                                                name->alpn, name->num_alpn, err)
                              : check_protocols(name->alpn_origins, name->num_alpn_origins,
                                                options->tls.alpn, options->tls.num_alpn, err);
    }
    if (st != STATUS_OK) {
      errmsg_prefix(err, "names[%zu]", i);
      return st;
    }
  }
  return STATUS_OK;
}

enum status origin_options_check(const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  if (origin_options_num_pools(options) == 0) {
    return errmsg_set(err, STATUS_CONFIG, "there must be an origin, or a list of origins");
  }
  if (has_short_form(options)) {
    st = check_address(options->origin.address, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "origin.address");
      return st;
    }
  }
  for (size_t i = 0; i < options->num_origins; i++) {
    st = check_pool(options, i, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "origins[%zu]", i);
      return st;
    }
  }
  TRY(check_routes(options, options->alpn_origins, options->num_alpn_origins, err));
  TRY(check_common_protocols(options, err));
  st = check_name(options, options->store.origin, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "store.origin");
    return st;
  }
  TRY(check_names(options, err));
out:
  return st;
}
