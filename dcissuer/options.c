// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/options.h"

#include "common/base/config_rows.h"
#include "common/net/address.h"
#include "common/wire/dc.h"

static const char *const audit_words[] = {[AUDIT_REFUSE] = "refuse", [AUDIT_ISSUE] = "issue", NULL};

// clang-format off
static const struct config_option audit_table[] = {
  {"path", CONFIG_PATH, PLACE(audit_options, log.path), .is_written = true, .is_required = true,
   .help = "File that gets one line of JSON for each credential and each refusal, or stderr; "
           "opened again on SIGUSR1; a change needs a restart"},
  {"when_unavailable", CONFIG_WORD, PLACE(audit_options, when_unavailable), .fallback = "refuse",
   .words = audit_words,
   .help = "What happens to credentials while the file cannot be written: refuse answers "
           "audit_unavailable"},
  AUDIT_LOG_OPTION_ROWS(struct audit_options),
  {0},
};

static const struct config_option metrics_table[] = {
  METRICS_LISTEN_OPTION_ROW(struct metrics_options,
                            "without it they are only at `listen`, for clients with a "
                            "certificate; "),
  {0},
};

static const struct config_option lifetime_table[] = {
  {"default", CONFIG_DURATION, PLACE(lifetime_options, default_ms), .fallback = "48h",
   .min = MINUTE, .max = 7 * DAY,
   .help = "Lifetime of a credential whose request names none; shortened to what the client's "
           "grant and the certificate's end allow"},
  {"max", CONFIG_DURATION, PLACE(lifetime_options, max_ms), .fallback = "6d", .min = MINUTE,
   .max = 7 * DAY,
   .help = "Longest lifetime for anybody. Clients refuse a credential that ends later than 7 "
           "days from their own now, so what is left to 7 days is for slow clocks"},
  {0},
};

static const struct config_option limits_table[] = {
  {"max_connections", CONFIG_INT, PLACE(limit_options, max_connections), .fallback = "1000",
   .min = 1, .max = 1000000,
   .help = "Connections at a time; more are closed at once and counted; a change needs a restart"},
  {"max_body", CONFIG_SIZE, PLACE(limit_options, max_body_len), .fallback = "4MiB", .min = 4 << 10,
   .max = 64 << 20, .help = "Longest request body; a change needs a restart"},
  {"max_entries", CONFIG_INT, PLACE(limit_options, max_entries), .fallback = "1000", .min = 1,
   .max = OPTIONS_MAX_ENTRIES, .help = "Credentials that one request may ask for"},
  {"max_batches", CONFIG_INT, PLACE(limit_options, max_batches), .fallback = "200", .min = 1,
   .max = 100000, .help = "Requests in work at a time; more get 503"},
  {"signatures_per_request", CONFIG_INT, PLACE(limit_options, signatures_per_batch),
   .fallback = "64", .min = 1, .max = OPTIONS_MAX_ENTRIES,
   .help = "Signatures of one request that may be at the key servers at a time"},
  {"signatures", CONFIG_INT, PLACE(limit_options, signatures), .fallback = "512", .min = 1,
   .max = 100000, .help = "The same for all requests together"},
  {"request_timeout", CONFIG_DURATION, PLACE(limit_options, request_ms), .fallback = "30s",
   .min = 100, .max = 10 * MINUTE,
   .help = "Time for a whole request to come (TLS handshake included) and for a whole reply to "
           "go; a change needs a restart"},
  {"work_timeout", CONFIG_DURATION, PLACE(limit_options, batch_ms), .fallback = "20s", .min = 100,
   .max = 10 * MINUTE,
   .help = "Time from a whole request to its reply; entries that are not signed by then get "
           "deadline_exceeded"},
  {"drain_timeout", CONFIG_DURATION, PLACE(limit_options, drain_ms), .fallback = "30s", .min = 0,
   .max = 10 * MINUTE, .help = "Time that SIGTERM leaves for finishing what is in hand"},
  {"certificate_cache", CONFIG_INT, PLACE(limit_options, certificate_cache), .fallback = "4096",
   .min = 1, .max = 1000000,
   .help = "Certificates from requests that are kept parsed; a change needs a restart"},
  {0},
};

static const struct config_option client_table[] = {
  {"label", CONFIG_TEXT, PLACE(client_options, label), .is_required = true, .min = 1, .max = 64,
   .help = "Name of this grant in messages, metrics and audit lines"},
  CLIENT_SET_OPTION_ROWS(struct client_options),
  {"hosts", CONFIG_TEXTS, LIST(client_options, hosts, num_hosts), .is_required = true, .min = 1,
   .max = 100000,
   .help = "Names they may have credentials for: \"demo.test\", \"*.example\" (all below it, at "
           "any depth) or \"*\"; every name and address in a certificate must be covered by one "
           "grant, as a credential is good for all of them"},
  {"schemes", CONFIG_TEXTS, LIST(client_options, schemes, num_schemes),
   .help = "Signature schemes of the credentials' keys; without it ecdsa_secp256r1_sha256 alone, "
           "which every client with delegated credentials knows"},
  {"max_lifetime", CONFIG_DURATION, PLACE(client_options, max_lifetime_ms), .fallback = "7d",
   .min = SECOND, .max = 7 * DAY,
   .help = "Longest lifetime of a credential under this grant; lifetime.max holds as well"},
  {"rate_per_minute", CONFIG_INT, PLACE(client_options, rate_per_minute), .fallback = "0", .min = 0,
   .max = 100000000,
   .help = "Credentials a minute under this grant, all its clients together; an entry counts "
           "once its proof of possession is looked at; 0: unlimited"},
  {"burst", CONFIG_INT, PLACE(client_options, burst), .fallback = "0", .min = 0, .max = 100000000,
   .help = "Credentials that may come at once after a quiet time; 0: as many as in one minute"},
  {0},
};

const struct config_option dcissuer_options[] = {
  {"listen", CONFIG_TEXTS, LIST(options, listen, num_listen), .is_required = true, .min = 1,
   .max = OPTIONS_MAX_LISTEN,
   .help = "Addresses for clients (HTTPS with client certificates), as 127.0.0.1:2408 or *:2408; "
           "port 0 lets the kernel choose; a change needs a restart"},
  {"tls", CONFIG_OBJECT, PLACE(options, tls), .is_required = true, .children = tls_identity_options,
   .help = "This server's own certificate, and the CA whose clients may connect"},
  {"certificates", CONFIG_PATHS, LIST(options, certificates, num_certificates), .max = 100000,
   .help = "PEM files, and folders with *.pem and *.crt, of the certificates that requests may "
           "name by their SHA-256; of each file the first certificate counts"},
  {"accept_presented", CONFIG_BOOL, PLACE(options, accept_presented), .fallback = "true",
   .help = "Let requests bring a certificate along that is not in `certificates`; the grants and "
           "the key server still have to allow it"},
  {"key_servers", CONFIG_OBJECT, PLACE(options, key_servers), .is_required = true,
   .children = keyclient_options,
   .help = "Who holds the certificates' keys, and how they are asked"},
  {"lifetime", CONFIG_OBJECT, PLACE(options, lifetime), .children = lifetime_table,
   .help = "How long credentials live"},
  {"clients", CONFIG_OBJECTS, LIST(options, clients, num_clients), .max = OPTIONS_MAX_CLIENTS,
   .children = client_table, .child_size = sizeof(struct client_options),
   .help = "Who may have which credentials; nobody may have any that is not written here"},
  {"user", CONFIG_TEXT, PLACE(options, user),
   .help = "User to become once the sockets are open; to reload, that user must be able to read "
           "the files named here; a change needs a restart"},
  SANDBOX_OPTION_ROWS(struct options),
  LOG_OPTION_ROW(struct options),
  {"audit", CONFIG_OBJECT, PLACE(options, audit), .is_required = true, .children = audit_table,
   .help = "The record of every credential and refusal"},
  {"metrics", CONFIG_OBJECT, PLACE(options, metrics), .children = metrics_table,
   .help = "Figures for Prometheus without TLS"},
  {"limits", CONFIG_OBJECT, PLACE(options, limits), .children = limits_table,
   .help = "What one client, and all of them together, may take"},
  {0},
};
// clang-format on

static enum status check(const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = arg;
  struct address address = {0};

  for (size_t i = 0; i < options->num_listen; i++) {
    if (address_parse(&address, options->listen[i], err) != STATUS_OK) {
      errmsg_prefix(err, "listen[%zu]", i);
      return STATUS_CONFIG;
    }
  }
  if (options->metrics.listen != NULL) {
    TRY(address_parse_local(&address, options->metrics.listen, "metrics.listen", err));
  }
  if (options->lifetime.default_ms > options->lifetime.max_ms) {
    TRY(errmsg_set(err, STATUS_CONFIG, "lifetime.default is longer than lifetime.max"));
  }

out:
  return st;
}

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  *out = (struct options){0};
  return config_load_checked(out, dcissuer_options, path, check, err);
}

void options_cleanup(struct options *options) { config_cleanup(options, dcissuer_options); }
