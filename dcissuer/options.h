// SPDX-License-Identifier: Apache-2.0
// options: the issuer's configuration file. Read by main and again on each
// reload; the table in options.c is also the reference manual
// (--config-reference). What a reload cannot change is said in a row's help.
#ifndef DEPUTY_DCISSUER_OPTIONS_H_
#define DEPUTY_DCISSUER_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/audit_log.h"
#include "common/base/client_set.h"
#include "common/base/config.h"
#include "common/base/sandbox.h"
#include "common/keyclient/keyclient.h"
#include "common/tls/context.h"

#define OPTIONS_MAX_LISTEN 16
#define OPTIONS_MAX_CLIENTS 10000
#define OPTIONS_MAX_ENTRIES 1000  // of a batch: the API's own limit

// What happens to a credential whose audit line cannot be kept.
enum audit_policy { AUDIT_REFUSE, AUDIT_ISSUE };

struct audit_options {
  struct audit_log_options log;
  int when_unavailable;  // enum audit_policy
};

struct metrics_options {
  char *listen;  // NULL: none
};

struct lifetime_options {
  int64_t default_ms;  // when a request names none
  int64_t max_ms;      // whatever a client is granted
};

struct limit_options {
  int64_t max_connections;
  int64_t max_body_len;
  int64_t max_entries;           // of a batch
  int64_t max_batches;           // at a time
  int64_t signatures_per_batch;  // at the key server at a time
  int64_t signatures;            // the same, all batches together
  int64_t request_ms;
  int64_t batch_ms;
  int64_t drain_ms;
  int64_t certificate_cache;  // presented certificates that are kept parsed
};

// One grant: these clients may have credentials for these hosts.
struct client_options {
  char *label;
  struct client_set_options who;
  char **hosts;
  size_t num_hosts;
  char **schemes;
  size_t num_schemes;
  int64_t max_lifetime_ms;
  int64_t rate_per_minute;  // 0: unlimited
  int64_t burst;
};

struct options {
  char **listen;
  size_t num_listen;
  struct tls_identity tls;
  char **certificates;
  size_t num_certificates;
  bool accept_presented;
  struct keyclient_config key_servers;
  struct lifetime_options lifetime;
  struct client_options *clients;
  size_t num_clients;
  char *user;
  struct sandbox_options sandbox;
  char *log;
  struct audit_options audit;
  struct metrics_options metrics;
  struct limit_options limits;
};

extern const struct config_option dcissuer_options[];

// options_load reads and checks the file. On failure `out` is cleaned.
// STATUS_CONFIG, STATUS_SYSTEM, STATUS_LIMIT; err always has the sentence.
enum status options_load(struct options *out, const char *path, struct errmsg *err);
void options_cleanup(struct options *options);

#endif  // DEPUTY_DCISSUER_OPTIONS_H_
