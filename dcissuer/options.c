// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/options.h"

#include "common/net/address.h"
#include "common/wire/dc.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define MS_PER_S 1000
#define HOUR_MS (3600 * (int64_t)MS_PER_S)
#define DAY_MS (24 * HOUR_MS)
#define MINUTE_MS (60 * (int64_t)MS_PER_S)

static const char *const audit_words[] = {[AUDIT_REFUSE] = "refuse", [AUDIT_ISSUE] = "issue", NULL};

static const struct config_option audit_table[] = {
    {.name = "path",
     .type = CONFIG_PATH,
     .offset = offsetof(struct audit_options, log.path),
     .is_written = true,
     .is_required = true,
     .help = "File that gets one line of JSON for each credential and each refusal, or stderr; "
             "opened again on SIGUSR1; a change needs a restart"},
    {.name = "when_unavailable",
     .type = CONFIG_WORD,
     .offset = offsetof(struct audit_options, when_unavailable),
     .fallback = "refuse",
     .words = audit_words,
     .help = "What happens to credentials while the file cannot be written: refuse answers "
             "audit_unavailable"},
    AUDIT_LOG_OPTION_ROWS(struct audit_options),
    {.type = CONFIG_END},
};

static const struct config_option metrics_table[] = {
    {.name = "listen",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct metrics_options, listen),
     .help = "Address for GET /metrics, /healthz and /readyz in plain HTTP: loopback or "
             "\"unix:/path\"; without it they are only at `listen`, for clients with a "
             "certificate; a change needs a restart"},
    {.type = CONFIG_END},
};

static const struct config_option lifetime_table[] = {
    {.name = "default",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct lifetime_options, default_ms),
     .fallback = "48h",
     .min = MINUTE_MS,
     .max = 7 * DAY_MS,
     .help = "Lifetime of a credential whose request names none; shortened to what the client's "
             "grant and the certificate's end allow"},
    {.name = "max",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct lifetime_options, max_ms),
     .fallback = "6d",
     .min = MINUTE_MS,
     .max = 7 * DAY_MS,
     .help = "Longest lifetime for anybody. Clients refuse a credential that ends later than 7 "
             "days from their own now, so what is left to 7 days is for slow clocks"},
    {.type = CONFIG_END},
};

static const struct config_option limits_table[] = {
    {.name = "max_connections",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, max_connections),
     .fallback = "1000",
     .min = 1,
     .max = 1000000,
     .help =
         "Connections at a time; more are closed at once and counted; a change needs a restart"},
    {.name = "max_body",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct limit_options, max_body_len),
     .fallback = "4MiB",
     .min = 4 << 10,
     .max = 64 << 20,
     .help = "Longest request body; a change needs a restart"},
    {.name = "max_entries",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, max_entries),
     .fallback = "1000",
     .min = 1,
     .max = OPTIONS_MAX_ENTRIES,
     .help = "Credentials that one request may ask for"},
    {.name = "max_batches",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, max_batches),
     .fallback = "200",
     .min = 1,
     .max = 100000,
     .help = "Requests in work at a time; more get 503"},
    {.name = "signatures_per_request",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, signatures_per_batch),
     .fallback = "64",
     .min = 1,
     .max = OPTIONS_MAX_ENTRIES,
     .help = "Signatures of one request that may be at the key servers at a time"},
    {.name = "signatures",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, signatures),
     .fallback = "512",
     .min = 1,
     .max = 100000,
     .help = "The same for all requests together"},
    {.name = "request_timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct limit_options, request_ms),
     .fallback = "30s",
     .min = 100,
     .max = 10 * MINUTE_MS,
     .help = "Time for a whole request to come (TLS handshake included) and for a whole reply to "
             "go; a change needs a restart"},
    {.name = "work_timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct limit_options, batch_ms),
     .fallback = "20s",
     .min = 100,
     .max = 10 * MINUTE_MS,
     .help = "Time from a whole request to its reply; entries that are not signed by then get "
             "deadline_exceeded"},
    {.name = "drain_timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct limit_options, drain_ms),
     .fallback = "30s",
     .min = 0,
     .max = 10 * MINUTE_MS,
     .help = "Time that SIGTERM leaves for finishing what is in hand"},
    {.name = "certificate_cache",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_options, certificate_cache),
     .fallback = "4096",
     .min = 1,
     .max = 1000000,
     .help = "Certificates from requests that are kept parsed; a change needs a restart"},
    {.type = CONFIG_END},
};

static const struct config_option client_table[] = {
    {.name = "label",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct client_options, label),
     .is_required = true,
     .min = 1,
     .max = 64,
     .help = "Name of this grant in messages, metrics and audit lines"},
    {.name = "names",
     .type = CONFIG_TEXTS,
     .offset = offsetof(struct client_options, names),
     .count_offset = offsetof(struct client_options, num_names),
     .help = "Clients by a DNS name or URI of their certificate (subjectAltName), whole"},
    {.name = "spki_sha256",
     .type = CONFIG_TEXTS,
     .offset = offsetof(struct client_options, spki_sha256),
     .count_offset = offsetof(struct client_options, num_spki_sha256),
     .help = "Clients by the SHA-256 of their SubjectPublicKeyInfo, in hex"},
    {.name = "hosts",
     .type = CONFIG_TEXTS,
     .offset = offsetof(struct client_options, hosts),
     .count_offset = offsetof(struct client_options, num_hosts),
     .is_required = true,
     .min = 1,
     .max = 100000,
     .help = "Names they may have credentials for: \"demo.test\", \"*.example\" (all below it, at "
             "any depth) or \"*\"; every name and address in a certificate must be covered by one "
             "grant, as a credential is good for all of them"},
    {.name = "schemes",
     .type = CONFIG_TEXTS,
     .offset = offsetof(struct client_options, schemes),
     .count_offset = offsetof(struct client_options, num_schemes),
     .help = "Signature schemes of the credentials' keys; without it ecdsa_secp256r1_sha256 alone, "
             "which every client with delegated credentials knows"},
    {.name = "max_lifetime",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct client_options, max_lifetime_ms),
     .fallback = "7d",
     .min = MS_PER_S,
     .max = 7 * DAY_MS,
     .help = "Longest lifetime of a credential under this grant; lifetime.max holds as well"},
    {.name = "rate_per_minute",
     .type = CONFIG_INT,
     .offset = offsetof(struct client_options, rate_per_minute),
     .fallback = "0",
     .min = 0,
     .max = 100000000,
     .help = "Credentials a minute under this grant, all its clients together; an entry counts "
             "once its proof of possession is looked at; 0: unlimited"},
    {.name = "burst",
     .type = CONFIG_INT,
     .offset = offsetof(struct client_options, burst),
     .fallback = "0",
     .min = 0,
     .max = 100000000,
     .help = "Credentials that may come at once after a quiet time; 0: as many as in one minute"},
    {.type = CONFIG_END},
};

const struct config_option dcissuer_options[] = {
    {.name = "listen",
     .type = CONFIG_TEXTS,
     .offset = offsetof(struct options, listen),
     .count_offset = offsetof(struct options, num_listen),
     .is_required = true,
     .min = 1,
     .max = OPTIONS_MAX_LISTEN,
     .help = "Addresses for clients (HTTPS with client certificates), as 127.0.0.1:2408 or "
             "*:2408; port 0 lets the kernel choose; a change needs a restart"},
    {.name = "tls",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, tls),
     .is_required = true,
     .children = tls_identity_options,
     .help = "This server's own certificate, and the CA whose clients may connect"},
    {.name = "certificates",
     .type = CONFIG_PATHS,
     .offset = offsetof(struct options, certificates),
     .count_offset = offsetof(struct options, num_certificates),
     .max = 100000,
     .help = "PEM files, and folders with *.pem and *.crt, of the certificates that requests may "
             "name by their SHA-256; of each file the first certificate counts"},
    {.name = "accept_presented",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct options, accept_presented),
     .fallback = "true",
     .help = "Let requests bring a certificate along that is not in `certificates`; the grants "
             "and the key server still have to allow it"},
    {.name = "key_servers",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, key_servers),
     .is_required = true,
     .children = keyclient_options,
     .help = "Who holds the certificates' keys, and how they are asked"},
    {.name = "lifetime",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, lifetime),
     .children = lifetime_table,
     .help = "How long credentials live"},
    {.name = "clients",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct options, clients),
     .count_offset = offsetof(struct options, num_clients),
     .max = OPTIONS_MAX_CLIENTS,
     .children = client_table,
     .child_size = sizeof(struct client_options),
     .help = "Who may have which credentials; nobody may have any that is not written here"},
    {.name = "user",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct options, user),
     .help = "User to become once the sockets are open; to reload, that user must be able to read "
             "the files named here; a change needs a restart"},
    SANDBOX_OPTION_ROWS(struct options),
    {.name = "log",
     .type = CONFIG_PATH,
     .offset = offsetof(struct options, log),
     .is_written = true,
     .fallback = "stderr",
     .help = "Log file, or stderr; opened again on SIGUSR1; a change needs a restart"},
    {.name = "audit",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, audit),
     .is_required = true,
     .children = audit_table,
     .help = "The record of every credential and refusal"},
    {.name = "metrics",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, metrics),
     .children = metrics_table,
     .help = "Figures for Prometheus without TLS"},
    {.name = "limits",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, limits),
     .children = limits_table,
     .help = "What one client, and all of them together, may take"},
    {.type = CONFIG_END},
};

static bool is_local(const struct address *address) {
  const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
  switch (address->storage.ss_family) {
    case AF_UNIX:
      return true;
    case AF_INET:
      return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
      return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) != 0;
    default:
      return false;
  }
}

static enum status check(const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct address address = {0};

  for (size_t i = 0; i < options->num_listen; i++) {
    if (address_parse(&address, options->listen[i], err) != STATUS_OK) {
      errmsg_prefix(err, "listen[%zu]", i);
      return STATUS_CONFIG;
    }
  }
  if (options->metrics.listen != NULL) {
    if (address_parse(&address, options->metrics.listen, err) != STATUS_OK) {
      errmsg_prefix(err, "metrics.listen");
      return STATUS_CONFIG;
    }
    if (!is_local(&address)) {
      TRY(errmsg_set(
          err, STATUS_CONFIG,
          "metrics.listen: %s can be reached from outside, and it speaks plain HTTP; use "
          "127.0.0.1, [::1] or unix:/path",
          options->metrics.listen));
    }
  }
  if (options->lifetime.default_ms > options->lifetime.max_ms) {
    TRY(errmsg_set(err, STATUS_CONFIG, "lifetime.default is longer than lifetime.max"));
  }

out:
  return st;
}

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;

  *out = (struct options){0};
  TRY(config_load(out, dcissuer_options, path, err));
  st = check(out, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    options_cleanup(out);
  }

out:
  return st;
}

void options_cleanup(struct options *options) { config_cleanup(options, dcissuer_options); }
