// SPDX-License-Identifier: Apache-2.0
// options: the proxy's configuration file. Read by main, and again on each
// reload (site.h makes of it what workers use); the table in options.c is also
// the reference manual (--config-reference).
#ifndef DEPUTY_PROXY_CONFIG_OPTIONS_H_
#define DEPUTY_PROXY_CONFIG_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/audit_log.h"
#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/sandbox.h"
#include "common/base/status.h"
#include "common/keyclient/keyclient.h"
#include "common/tls/context.h"
#include "proxy/config/origin_options.h"
#include "proxy/config/tls_options.h"

#define OPTIONS_MAX_LISTENERS 16
#define OPTIONS_MAX_TRUSTED 64
#define OPTIONS_MAX_WORKERS 256
#define OPTIONS_MAX_NAMES 1000000
#define OPTIONS_MAX_ISSUERS 8

// Who must say by a PROXY header for whom he comes.
struct greeting_options {
  char **from;  // networks
  size_t num_from;
};

struct listener_options {
  char *name;
  char *address;
  bool is_deferred;  // the kernel keeps a connection until it has said something
  struct greeting_options proxy_protocol;
};

struct chain_options {
  char *label;
  char *certificate;  // PEM file
#ifdef DEPUTY_BENCH_LOCAL_KEY
  char *benchmark_key;  // bench/local_key.h
#endif
};

struct name_options {
  char *name;
  struct chain_options *chains;
  size_t num_chains;
  char **alpn;  // none: tls.alpn counts
  size_t num_alpn;
  bool may_use_dc;
  struct name_tls_options tls;
  char *origin;                        // pool; NULL: that of all
  struct route_options *alpn_origins;  // before `origin`
  size_t num_alpn_origins;
};

// Names that are in a store rather than here (lookup.h).
struct store_place_options {
  char *path;  // NULL: none
  int64_t max_cached;
  int64_t deadline_ms;
  char **alpn;  // none: tls.alpn counts
  size_t num_alpn;
  bool may_use_dc;
  char *origin;            // pool; NULL: that of all
  int64_t max_log;         // changes; 0: any number
  int64_t max_log_age_ms;  // of changes that stand no longer; 0: any
  struct name_tls_options tls;
};

struct issuer_options {
  char **urls;
  size_t num_urls;
  struct tls_identity tls;
  int64_t timeout_ms;
};

struct dc_options {
  int64_t lifetime_ms;
  int64_t margin_ms;
  int64_t retry_min_ms;
  int64_t retry_max_ms;
  int64_t batch;
  int64_t max_batches;  // under way
  int64_t per_s;
  int64_t max_held;
  int keys;  // enum dc_key_policy
  int64_t key_rotation_ms;
};

struct limit_options {
  int64_t connections;
  int64_t handshake_ms;
  int64_t idle_ms;
  int64_t half_ms;
  int64_t keepalive_ms;  // 0: never
  int64_t linger_ms;
  int64_t drain_ms;
  int64_t handshakes;
  int64_t handshake_lag_ms;
  int64_t handshake_share;  // percent
  int64_t memory;           // bytes
  int64_t address_connections;
  int64_t address_rate;
};

struct admin_options {
  char *socket;  // NULL: none
  char *mode;    // octal
};

struct metrics_options {
  char *listen;  // NULL: none
};

struct audit_options {
  struct audit_log_options log;
};

enum access_log_format { ACCESS_LOG_TEXT, ACCESS_LOG_JSON };

struct options {
  struct listener_options *listeners;
  size_t num_listeners;
  struct name_options *names;
  size_t num_names;
  char *default_name;
  struct store_place_options store;
  struct keyclient_config key_servers;
  struct issuer_options issuers;
  struct dc_options dc;
  struct origin_options origin;
  struct pool_options *origins;
  size_t num_origins;
  struct route_options *alpn_origins;  // of names that say nothing of origins
  size_t num_alpn_origins;
  struct tls_options tls;
  struct ticket_options tickets;
  struct limit_options limits;
  int64_t num_workers;  // 0: one for each processor
  struct admin_options admin;
  struct metrics_options metrics;
  struct audit_options audit;
  char *states;
  char *user;
  struct sandbox_options sandbox;
  char *log;
  bool has_access_log;
  bool has_silent_in_log;  // who has said nothing is in it
  int access_log_format;   // enum access_log_format
  char *access_log_file;   // NULL: in the log
};

extern const struct config_option proxy_options[];

// options_load reads and checks the file. On failure `out` is cleaned.
// STATUS_CONFIG, STATUS_SYSTEM, STATUS_LIMIT; err always has the sentence.
enum status options_load(struct options *out, const char *path, struct errmsg *err);
void options_cleanup(struct options *options);

// options_has_issuers: are delegated credentials fetched at all?
static inline bool options_has_issuers(const struct options *options) {
  return options->issuers.num_urls > 0;
}

#endif  // DEPUTY_PROXY_CONFIG_OPTIONS_H_
