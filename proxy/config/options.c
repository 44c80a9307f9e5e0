// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/options.h"

#include <string.h>

#include "common/base/config_rows.h"
#include "proxy/config/address_check.h"
#include "proxy/dc/dc_keys.h"

static const char *const key_words[] = {"per_name", "shared", NULL};  // enum dc_key_policy
static const char *const access_log_words[] = {"text", "json", NULL};

// clang-format off
static const struct config_option greeting_rows[] = {
  {"from", CONFIG_TEXTS, LIST(greeting_options, from, num_from), .min = 0,
   .max = OPTIONS_MAX_TRUSTED,
   .help = "Networks of the balancers, as 10.0.0.0/8, 2001:db8::1 or unix. Who comes from there "
           "must begin with a PROXY header; everybody else is a client himself."},
  {0},
};

static const struct config_option listener_rows[] = {
  {"name", CONFIG_TEXT, PLACE(listener_options, name), .is_required = true, .min = 1, .max = 64,
   .help = "What logs, metrics and the readiness line call it; a reload knows it again by this."},
  {"address", CONFIG_TEXT, PLACE(listener_options, address), .is_required = true, .min = 1,
   .max = 128, .help = "Where TLS is accepted: 0.0.0.0:443, [::]:443, *:443, unix:/run/x.sock."},
  {"deferred", CONFIG_BOOL, PLACE(listener_options, is_deferred), .fallback = "true",
   .help = "The kernel hands a connection over when its first byte has come, so that those who "
           "connect and say nothing cost nothing (TCP_DEFER_ACCEPT)."},
  {"proxy_protocol", CONFIG_OBJECT, PLACE(listener_options, proxy_protocol),
   .children = greeting_rows,
   .help = "Balancers before this listener, which say by the PROXY protocol (version 2) who the "
           "client is."},
  {0},
};

static const struct config_option chain_rows[] = {
  {"label", CONFIG_TEXT, PLACE(chain_options, label), .is_required = true, .min = 1, .max = 32,
   .help = "The level it belongs to: primary, backup, ... An ECDSA and an RSA chain may share "
           "one."},
  {"certificate", CONFIG_PATH, PLACE(chain_options, certificate), .is_required = true,
   .help = "PEM file: the leaf, then its intermediates, no key. FILE.ocsp beside it, if there "
           "is one, is stapled."},
#ifdef DEPUTY_BENCH_LOCAL_KEY
  {"benchmark_key", CONFIG_PATH, PLACE(chain_options, benchmark_key),
   .help = "The certificate's own key. For measurements only."},
#endif
  {0},
};

static const struct config_option name_rows[] = {
  {"name", CONFIG_TEXT, PLACE(name_options, name), .is_required = true, .min = 1, .max = 253,
   .help = "Host name, or *.host for one label below it."},
  {"chains", CONFIG_OBJECTS, LIST(name_options, chains, num_chains), .is_required = true,
   .min = 1, .max = 16, .children = chain_rows, .child_size = sizeof(struct chain_options),
   .help = "Certificate chains in the order of preference: the first usable level answers."},
  {"alpn", CONFIG_TEXTS, LIST(name_options, alpn, num_alpn), .min = 0, .max = OPTIONS_MAX_ALPN,
   .help = "Protocols the origin speaks for this name, preferred first; none: those of tls.alpn."},
  {"delegated_credentials", CONFIG_BOOL, PLACE(name_options, may_use_dc), .fallback = "true",
   .help = "Whether clients that can may be given a delegated credential for this name."},
  {"tls", CONFIG_OBJECT, PLACE(name_options, tls), .children = name_tls_option_rows,
   .help = "What is otherwise than in tls for this name."},
  {"origin", CONFIG_TEXT, PLACE(name_options, origin), .min = 1, .max = 64,
   .help = "The pool of origins that this name has; none: that of all."},
  {"alpn_origins", CONFIG_OBJECTS, LIST(name_options, alpn_origins, num_alpn_origins), .min = 0,
   .max = OPTIONS_MAX_ALPN, .children = route_option_rows,
   .child_size = sizeof(struct route_options),
   .help = "Pools of this name by the application protocol that was agreed on, before origin."},
  {0},
};

static const struct config_option store_rows[] = {
  {"path", CONFIG_PATH, PLACE(store_place_options, path), .is_required = true,
   .help = "Folder of the store, which deputyctl store import fills. Its lock files are written. "
           "Not changed by a reload."},
  {"cache", CONFIG_INT, PLACE(store_place_options, max_cached), .fallback = "8192", .min = 8,
   .max = 1000000,
   .help = "Names that are kept ready in memory (about 10 KB each, with two chains); the others "
           "are read when they are asked for. Not changed by a reload."},
  {"deadline", CONFIG_DURATION, PLACE(store_place_options, deadline_ms), .fallback = "3s",
   .min = 10, .max = MINUTE, .help = "Longest wait of a handshake for a name to be read."},
  {"log", CONFIG_INT, PLACE(store_place_options, max_log), .fallback = "10000", .min = 0,
   .max = 100000000,
   .help = "How many changes the store's log of switches may have; beyond, the oldest that stand no "
           "longer are forgotten with the next switch. 0: any number."},
  {"log_age", CONFIG_DURATION, PLACE(store_place_options, max_log_age_ms), .fallback = "0s",
   .min = 0, .max = 36500 * DAY,
   .help = "Changes that stand no longer are forgotten after this time, too. 0s: never."},
  {"alpn", CONFIG_TEXTS, LIST(store_place_options, alpn, num_alpn), .min = 0,
   .max = OPTIONS_MAX_ALPN,
   .help = "Protocols the origin speaks for these names; none: those of tls.alpn."},
  {"delegated_credentials", CONFIG_BOOL, PLACE(store_place_options, may_use_dc),
   .fallback = "true",
   .help = "Whether the chains of names that clients want them for, backups included, are supplied "
           "with delegated credentials."},
  {"tls", CONFIG_OBJECT, PLACE(store_place_options, tls), .children = name_tls_option_rows,
   .help = "What is otherwise than in tls for these names."},
  {"origin", CONFIG_TEXT, PLACE(store_place_options, origin), .min = 1, .max = 64,
   .help = "The pool of origins that these names have; none: that of all."},
  {0},
};

static const struct config_option issuer_rows[] = {
  {"urls", CONFIG_TEXTS, LIST(issuer_options, urls, num_urls), .is_required = true, .min = 1,
   .max = OPTIONS_MAX_ISSUERS,
   .help = "Issuers of delegated credentials, https://host:port; asked in turn."},
  {"tls", CONFIG_OBJECT, PLACE(issuer_options, tls), .is_required = true,
   .children = tls_identity_options, .help = "Own identity towards issuers, and their CA."},
  {"timeout", CONFIG_DURATION, PLACE(issuer_options, timeout_ms), .fallback = "10s",
   .min = 100, .max = 5 * MINUTE, .help = "Longest wait for one answer."},
  {0},
};

static const struct config_option dc_rows[] = {
  {"lifetime", CONFIG_DURATION, PLACE(dc_options, lifetime_ms), .fallback = "48h",
   .min = SECOND, .max = 6 * DAY,
   .help = "Lifetime asked for. Over 6 days a client whose clock is a little behind would "
           "refuse it (RFC 9345: 7 days at most)."},
  {"margin", CONFIG_DURATION, PLACE(dc_options, margin_ms), .fallback = "6h", .min = 0,
   .max = 3 * DAY,
   .help = "A credential is not served within this time of its end: some clients' clocks are "
           "ahead."},
  {"retry_min", CONFIG_DURATION, PLACE(dc_options, retry_min_ms), .fallback = "1s", .min = 10,
   .max = HOUR, .help = "First wait after a failure; doubled each time, with jitter."},
  {"retry_max", CONFIG_DURATION, PLACE(dc_options, retry_max_ms), .fallback = "10m", .min = 10,
   .max = DAY, .help = "Longest wait between two tries."},
  {"batch", CONFIG_INT, PLACE(dc_options, batch), .fallback = "100", .min = 1, .max = 1000,
   .help = "Most credentials asked for in one request."},
  {"batches", CONFIG_INT, PLACE(dc_options, max_batches), .fallback = "4", .min = 1, .max = 64,
   .help = "Most requests to issuers at a time. One that has just failed gets one small batch at a "
           "time until it succeeds again."},
  {"per_second", CONFIG_INT, PLACE(dc_options, per_s), .fallback = "500", .min = 1,
   .max = 100000, .help = "Most credentials asked for in a second, renewals included."},
  {"max_credentials", CONFIG_INT, PLACE(dc_options, max_held), .fallback = "100000", .min = 1,
   .max = 4000000,
   .help = "Most credentials in memory (1.2 to 2.1 KB each). When there are more, the coldest goes: "
           "of names that left the cache first, then of names in it, then of configured names."},
  {"keys", CONFIG_WORD, PLACE(dc_options, keys), .fallback = "per_name", .words = key_words,
   .help = "per_name: each credential has a key of its own. shared: all that are asked for within "
           "key_rotation have one; who gets hold of it has all their names."},
  {"key_rotation", CONFIG_DURATION, PLACE(dc_options, key_rotation_ms), .fallback = "1h",
   .min = SECOND, .max = 2 * DAY,
   .help = "How long a shared key is given to new credentials; it ends with the last of them. At "
           "most a third of lifetime, so that a renewal never meets the same key."},
  {0},
};

static const struct config_option limit_rows[] = {
  {"connections", CONFIG_INT, PLACE(limit_options, connections), .fallback = "0", .min = 0,
   .max = 100000000,
   .help = "Most client connections at a time, over all workers; 0: what the limit on open "
           "files allows."},
  {"handshake", CONFIG_DURATION, PLACE(limit_options, handshake_ms), .fallback = "10s",
   .min = 10, .max = 5 * MINUTE,
   .help = "Longest TLS handshake; also the longest wait for a client's first byte."},
  {"idle", CONFIG_DURATION, PLACE(limit_options, idle_ms), .fallback = "10m", .min = 100,
   .max = 30 * DAY, .help = "Longest time in which no byte gets through in either direction."},
  {"half_closed", CONFIG_DURATION, PLACE(limit_options, half_ms), .fallback = "1m", .min = 100,
   .max = 30 * DAY, .help = "The same once one direction has ended."},
  {"keepalive", CONFIG_DURATION, PLACE(limit_options, keepalive_ms), .fallback = "0s", .min = 0,
   .max = 540 * MINUTE,
   .help = "After so long without a byte the kernel asks the other end, the client's as the "
           "origin's, whether it is still there (TCP keepalive), and breaks the connection when there "
           "is no answer by twice that time; for an idle that is long. 0s: never."},
  {"linger", CONFIG_DURATION, PLACE(limit_options, linger_ms), .fallback = "5s", .min = 10,
   .max = 5 * MINUTE,
   .help = "Longest time for a client to take the last bytes when all else is over."},
  {"drain", CONFIG_DURATION, PLACE(limit_options, drain_ms), .fallback = "30s", .min = 0,
   .max = DAY,
   .help = "Longest time for connections to end by themselves after SIGTERM."},
  {"handshakes", CONFIG_INT, PLACE(limit_options, handshakes), .fallback = "8192", .min = 0,
   .max = 100000000,
   .help = "Most TLS handshakes under way at a time, over all workers. One more ends the oldest "
           "that has waited for its client for a second, or, if there is none, is refused; 0: as "
           "many as connections."},
  {"handshake_lag", CONFIG_DURATION, PLACE(limit_options, handshake_lag_ms), .fallback = "250ms",
   .min = 0, .max = MINUTE,
   .help = "When connections that are there would wait for longer than this much work (CPU time "
           "of a worker), because of handshakes, or these for their turn, new connections are "
           "refused until it is half of that; 0: never."},
  {"handshake_share", CONFIG_INT, PLACE(limit_options, handshake_share), .fallback = "50",
   .min = 1, .max = 100,
   .help = "Least percentage of that wait that went into handshakes, for them to be the cause."},
  {"memory", CONFIG_SIZE, PLACE(limit_options, memory), .fallback = "0", .min = 0,
   .max = INT64_C(1) << 50,
   .help = "While the process has more memory of its own than this (resident, without the pages "
           "of files; the kernel's buffers of sockets are not in it), new connections are "
           "refused; 0: no ceiling."},
  {"address_connections", CONFIG_INT, PLACE(limit_options, address_connections),
   .fallback = "0", .min = 0, .max = 100000000,
   .help = "Most connections at a time of one client address (IPv6: of one /64), over all "
           "workers; 0: no limit. Connections from before a reload that sets it do not count."},
  {"address_rate", CONFIG_INT, PLACE(limit_options, address_rate), .fallback = "0", .min = 0,
   .max = 1000000,
   .help = "Most new connections a second of one client address (IPv6: of one /64), over all "
           "workers; a quiet address may open so many at once; 0: no limit."},
  {0},
};

static const struct config_option admin_rows[] = {
  {"socket", CONFIG_PATH, PLACE(admin_options, socket),
   .help = "UNIX socket of the admin API (deputyctl); none: no admin API. Not changed by a "
           "reload."},
  {"mode", CONFIG_TEXT, PLACE(admin_options, mode), .fallback = "0600", .min = 3, .max = 4,
   .help = "Permissions of the socket, octal. Who may connect may switch."},
  {0},
};

static const struct config_option metrics_rows[] = {
  {"listen", CONFIG_TEXT, PLACE(metrics_options, listen), .min = 1, .max = 128,
   .help = "Address of GET /metrics in plain HTTP, as 127.0.0.1:9404; none: only on the admin "
           "socket. Not changed by a reload."},
  {0},
};

static const struct config_option audit_rows[] = {
  {"path", CONFIG_PATH, PLACE(audit_options, log.path), .is_written = true, .fallback = "stderr",
   .help = "File of the audit lines (switches), or stderr. Not changed by a reload."},
  AUDIT_LOG_OPTION_ROWS(struct audit_options),
  {0},
};

const struct config_option proxy_options[] = {
  {"listeners", CONFIG_OBJECTS, LIST(options, listeners, num_listeners), .is_required = true,
   .min = 1, .max = OPTIONS_MAX_LISTENERS, .children = listener_rows,
   .child_size = sizeof(struct listener_options), .help = "Where TLS is accepted."},
  {"names", CONFIG_OBJECTS, LIST(options, names, num_names), .min = 0,
   .max = OPTIONS_MAX_NAMES, .children = name_rows, .child_size = sizeof(struct name_options),
   .help = "The names served, each with its chains; before those of a store."},
  {"store", CONFIG_OBJECT, PLACE(options, store), .children = store_rows,
   .help = "A store of names on disk, for very many; needs no names here. What deputyctl "
           "switches in it counts for the names above, too."},
  {"default_name", CONFIG_TEXT, PLACE(options, default_name), .min = 1, .max = 253,
   .help = "The name that answers when no server name, or an unknown one, is asked for; none: "
           "the alert unrecognized_name."},
  {"key_servers", CONFIG_OBJECT, PLACE(options, key_servers), .is_required = true,
   .children = keyclient_options, .help = "Who holds the certificates' keys."},
  {"issuers", CONFIG_OBJECT, PLACE(options, issuers), .children = issuer_rows,
   .help = "Who issues delegated credentials; none: keyless only."},
  {"delegated_credentials", CONFIG_OBJECT, PLACE(options, dc), .children = dc_rows,
   .help = "Delegated credentials (RFC 9345) as fetched and served."},
  {"origin", CONFIG_OBJECT, PLACE(options, origin), .children = origin_option_rows,
   .help = "Where decrypted bytes go, if it is one place: a pool called \"origin\"."},
  {"origins", CONFIG_OBJECTS, LIST(options, origins, num_origins), .min = 0,
   .max = OPTIONS_MAX_POOLS, .children = pool_option_rows,
   .child_size = sizeof(struct pool_options),
   .help = "Pools of origins. What names and alpn_origins do not send elsewhere goes to origin, "
           "or else to the first of these."},
  {"alpn_origins", CONFIG_OBJECTS, LIST(options, alpn_origins, num_alpn_origins), .min = 0,
   .max = OPTIONS_MAX_ALPN, .children = route_option_rows,
   .child_size = sizeof(struct route_options),
   .help = "Pools by the application protocol that was agreed on, for names that say nothing of "
           "origins."},
  {"tls", CONFIG_OBJECT, PLACE(options, tls), .children = tls_option_rows,
   .help = "TLS towards clients."},
  {"tickets", CONFIG_OBJECT, PLACE(options, tickets), .children = ticket_option_rows,
   .help = "Session resumption."},
  {"limits", CONFIG_OBJECT, PLACE(options, limits), .children = limit_rows,
   .help = "How much and how long."},
  {"workers", CONFIG_INT, PLACE(options, num_workers), .fallback = "0", .min = 0,
   .max = OPTIONS_MAX_WORKERS,
   .help = "Worker threads; 0: one for each processor. Not changed by a reload."},
  {"admin", CONFIG_OBJECT, PLACE(options, admin), .children = admin_rows,
   .help = "The operator's API."},
  {"metrics", CONFIG_OBJECT, PLACE(options, metrics), .children = metrics_rows,
   .help = "Metrics for Prometheus."},
  {"audit", CONFIG_OBJECT, PLACE(options, audit), .children = audit_rows,
   .help = "The record of who switched what."},
  {"states", CONFIG_PATH, PLACE(options, states), .is_written = true,
   .help = "File that keeps switches over a restart; none: they are forgotten. Not changed by a "
           "reload."},
  {"user", CONFIG_TEXT, PLACE(options, user), .min = 1, .max = 64,
   .help = "User to become when started as root. It must be able to read the certificates and "
           "the own key. Not changed by a reload."},
  SANDBOX_OPTION_ROWS(struct options),
  {"log", CONFIG_PATH, PLACE(options, log), .is_written = true, .fallback = "stderr",
   .help = "File of the log, or stderr. SIGUSR1 opens it again. Not changed by a reload."},
  {"access_log", CONFIG_BOOL, PLACE(options, has_access_log), .fallback = "true",
   .help = "Whether each connection is logged when it ends."},
  {"access_log_silent", CONFIG_BOOL, PLACE(options, has_silent_in_log), .fallback = "true",
   .help = "Whether that counts for clients that left without having sent a byte (health checks of "
           "balancers, scans). Metrics count them all the same, as reason scan."},
  {"access_log_format", CONFIG_WORD, PLACE(options, access_log_format), .fallback = "text",
   .words = access_log_words, .help = "Those lines as key=value, or as JSON objects."},
  {"access_log_file", CONFIG_PATH, PLACE(options, access_log_file), .is_written = true,
   .help = "File of those lines alone; none: they go to the log, at its level info. SIGUSR1 opens "
           "it again. Not changed by a reload."},
  {0},
};
// clang-format on

static enum status check_urls(const struct issuer_options *issuers, struct errmsg *err) {
  for (size_t i = 0; i < issuers->num_urls; i++) {
    if (strncmp(issuers->urls[i], "https://", 8) != 0) {
      return errmsg_set(err, STATUS_CONFIG,
                        "issuers.urls[%zu] is \"%.200s\"; it must begin with https://", i,
                        issuers->urls[i]);
    }
  }
  return STATUS_OK;
}

static enum status check_alpn(char **alpn, size_t num, const char *where, struct errmsg *err) {
  for (size_t i = 0; i < num; i++) {
    size_t len = strlen(alpn[i]);
    // RFC 7301, section 3.1: 1 to 255 bytes.
    if (len == 0 || len > 255) {
      return errmsg_set(err, STATUS_CONFIG, "%s: a protocol name has 1 to 255 bytes, not %zu",
                        where, len);
    }
  }
  return STATUS_OK;
}

static enum status check_listeners(const struct options *options, struct errmsg *err) {
  for (size_t i = 0; i < options->num_listeners; i++) {
    for (size_t j = 0; j < i; j++) {
      if (strcmp(options->listeners[i].name, options->listeners[j].name) == 0) {
        return errmsg_set(err, STATUS_CONFIG, "listeners[%zu] and [%zu] are both called \"%s\"", j,
                          i, options->listeners[i].name);
      }
    }
  }
  return STATUS_OK;
}

static enum status check_tls(const struct options *options, struct errmsg *err) {
  enum status st = tls_options_check(&options->tls, err);
  if (st != STATUS_OK) {
    return st;
  }
  st = name_tls_options_check(&options->store.tls, &options->tls, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "store");
    return st;
  }
  for (size_t i = 0; i < options->num_names; i++) {
    st = name_tls_options_check(&options->names[i].tls, &options->tls, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "names[%zu] \"%s\"", i, options->names[i].name);
      return st;
    }
  }
  return st;
}

// What a row cannot say: how options fit together.
static enum status check(const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = arg;
  const struct dc_options *dc = &options->dc;
  TRY(check_listeners(options, err));
  if (options->num_names == 0 && options->store.path == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "there must be names, or a store of them");
  }
  if (options->store.path != NULL && options->states != NULL) {
    return errmsg_set(err, STATUS_CONFIG,
                      "there are both states and store: with a store, switches are kept in it");
  }
  TRY(address_check(options, err));
  TRY(origin_options_check(options, err));
  TRY(check_alpn(options->store.alpn, options->store.num_alpn, "store.alpn", err));
  TRY(check_urls(&options->issuers, err));
  TRY(check_alpn(options->tls.alpn, options->tls.num_alpn, "tls.alpn", err));
  for (size_t i = 0; i < options->num_names; i++) {
    TRY(check_alpn(options->names[i].alpn, options->names[i].num_alpn, options->names[i].name,
                   err));
  }
  TRY(check_tls(options, err));
  // Renewal at half life must come before the margin, or there would be a gap.
  if (dc->margin_ms > dc->lifetime_ms / 3) {
    return errmsg_set(err, STATUS_CONFIG,
                      "delegated_credentials.margin must be at most a third of lifetime, or a "
                      "credential would not be served until the next one is there");
  }
  if (dc->keys == DC_KEYS_SHARED && dc->key_rotation_ms > dc->lifetime_ms / 3) {
    return errmsg_set(
        err, STATUS_CONFIG,
        "delegated_credentials.key_rotation must be at most a third of lifetime, or a "
        "credential could be renewed with the key it had");
  }
  if (dc->retry_min_ms > dc->retry_max_ms) {
    return errmsg_set(err, STATUS_CONFIG,
                      "delegated_credentials.retry_min is above delegated_credentials.retry_max");
  }
out:
  return st;
}

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  *out = (struct options){0};
  return config_load_checked(out, proxy_options, path, check, err);
}

void options_cleanup(struct options *options) { config_cleanup(options, proxy_options); }
