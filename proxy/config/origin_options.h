// SPDX-License-Identifier: Apache-2.0
// origin_options: the part of the proxy's configuration that says where decrypted
// bytes go: pools of origins, and which name and which application protocol has
// which pool. The tables are rows of options.c; what a row cannot say is checked here.
#ifndef DEPUTY_PROXY_CONFIG_ORIGIN_OPTIONS_H_
#define DEPUTY_PROXY_CONFIG_ORIGIN_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define OPTIONS_MAX_POOLS 32
#define OPTIONS_MAX_SERVERS 64  // of one pool
#define OPTIONS_MAX_WEIGHT 100

enum proxy_protocol { PROXY_PROTOCOL_OFF, PROXY_PROTOCOL_V1, PROXY_PROTOCOL_V2 };

enum balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS, BALANCE_HASH_CLIENT };

// The short form: one origin, which all names have.
struct origin_options {
  char *address;       // NULL: not used
  int proxy_protocol;  // enum proxy_protocol
  int64_t connect_ms;
};

struct server_options {
  char *address;  // with a port; a host name is looked up
  int64_t weight;
  int64_t max_connections;  // of each of its addresses; 0: no limit
  bool is_backup;           // used when none of the others is to be had
};

struct check_options {
  int64_t interval_ms;  // 0: no checks
  int64_t timeout_ms;
  int64_t rise;  // good ones in a row
  int64_t fall;  // bad ones in a row
};

// TLS to the origins of a pool.
struct origin_tls_options {
  char *ca;    // NULL: bytes are plain
  char *name;  // that certificates must have; NULL: the host of the address
  char *certificate;
  char *key;
  char **crl;
  size_t num_crl;
  int crl_when_stale;  // enum tls_crl_policy
};

struct pool_options {
  char *name;
  struct server_options *servers;
  size_t num_servers;
  int balance;         // enum balance
  int proxy_protocol;  // enum proxy_protocol
  int64_t connect_ms;  // in all
  int64_t attempt_ms;  // for one origin, while there is another
  int64_t resolve_ms;
  int64_t max_failures;  // connects that fail in a row; 0: they do not count
  int64_t retry_min_ms;
  int64_t retry_max_ms;
  struct check_options check;
  struct origin_tls_options tls;
};

static inline bool pool_has_tls(const struct pool_options *pool) { return pool->tls.ca != NULL; }

// Which pool an application protocol has.
struct route_options {
  char *protocol;
  char *origin;
};

extern const struct config_option origin_option_rows[];  // struct origin_options
extern const struct config_option pool_option_rows[];    // struct pool_options
extern const struct config_option route_option_rows[];   // struct route_options

// What the short form's pool is called.
#define ORIGIN_SHORT_NAME "origin"

struct options;

// origin_options_check: do pools, names and protocols fit together? STATUS_CONFIG.
enum status origin_options_check(const struct options *options, struct errmsg *err);

// origin_options_find gives the index of a pool among all (options_num_pools), the
// short form last. False: there is none of this name.
bool origin_options_find(size_t *out, const struct options *options, const char *name);
size_t origin_options_num_pools(const struct options *options);
// origin_options_default is the pool of those who name none.
size_t origin_options_default(const struct options *options);

#endif  // DEPUTY_PROXY_CONFIG_ORIGIN_OPTIONS_H_
