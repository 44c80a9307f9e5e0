// SPDX-License-Identifier: Apache-2.0
#include "certmanager/options.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include "certstore/store.h"
#include "common/net/address.h"

#define SECOND_MS ((int64_t)1000)
#define MINUTE_MS (INT64_C(60) * SECOND_MS)
#define DAY_MS (INT64_C(24) * 60 * MINUTE_MS)

static const char *const policy_words[] = {
    [REVOCATION_OFF] = "off", [REVOCATION_REPORT] = "report", [REVOCATION_SWITCH] = "switch", NULL};

static const struct config_option staple_table[] = {
    {.name = "on",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct staple_options, is_on),
     .fallback = "true",
     .help = "Fetch OCSP responses ahead of need and keep them in the store; a change needs a "
             "restart"},
    {.name = "concurrency",
     .type = CONFIG_INT,
     .offset = offsetof(struct staple_options, max_open),
     .fallback = "32",
     .min = 1,
     .max = 1000,
     .help = "Questions to responders at a time; a change needs a restart"},
    {.name = "per_responder",
     .type = CONFIG_INT,
     .offset = offsetof(struct staple_options, max_open_per_responder),
     .fallback = "4",
     .min = 1,
     .max = 1000,
     .help = "Questions to one responder at a time; a change needs a restart"},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct staple_options, limit_ms),
     .fallback = "15s",
     .min = 100,
     .max = 5 * MINUTE_MS,
     .help = "Time for one question, the second attempt by POST included; a change needs a "
             "restart"},
    {.type = CONFIG_END},
};

static const struct config_option revocation_table[] = {
    {.name = "policy",
     .type = CONFIG_WORD,
     .offset = offsetof(struct revocation_options, policy),
     .fallback = "report",
     .words = policy_words,
     .help = "What follows when a CA has revoked a leaf: off looks at no lists, and notes nothing; "
             "report writes an audit line; switch also takes the leaf's key out of service in the "
             "store, by a switch that an operator can restore. From off, or to it, needs a "
             "restart"},
    {.name = "poll",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct revocation_options, poll_ms),
     .fallback = "1h",
     .min = SECOND_MS,
     .max = 7 * DAY_MS,
     .help = "How often each revocation list is asked for; one that has not changed costs a few "
             "hundred bytes; a change needs a restart"},
    {.name = "ocsp_poll",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct revocation_options, ocsp_poll_ms),
     .fallback = "4h",
     .max = 7 * DAY_MS,
     .help = "How often a leaf's responder is asked at least, in whole seconds; 0s: only as its "
             "staple needs it; a change needs a restart"},
    {.name = "ceiling",
     .type = CONFIG_INT,
     .offset = offsetof(struct revocation_options, ceiling),
     .fallback = "100",
     .max = 1000000000,
     .help =
         "Names that `switch` may move in any 60 seconds without a person; what is above waits, "
         "and a key with more names than that is left to a person"},
    {.name = "until",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct revocation_options, until_ms),
     .fallback = "0s",
     .max = 400 * DAY_MS,
     .help = "How long an automatic switch stands; if the leaf is still revoked then, it is made "
             "again; 0s: until it is restored"},
    {.name = "max_list",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct revocation_options, max_list_len),
     .fallback = "64MiB",
     .min = 1024,
     .max = (int64_t)1 << 30,
     .help = "Longest revocation list; a change needs a restart"},
    {.name = "lists",
     .type = CONFIG_INT,
     .offset = offsetof(struct revocation_options, max_open_lists),
     .fallback = "1",
     .min = 1,
     .max = 64,
     .help = "Lists in memory at a time; a change needs a restart"},
    {.type = CONFIG_END},
};

static const struct config_option audit_table[] = {
    {.name = "path",
     .type = CONFIG_PATH,
     .offset = offsetof(struct audit_options, log.path),
     .is_written = true,
     .is_required = true,
     .help = "File that gets one line of JSON for each staple replaced, each revocation seen and "
             "each switch made or withheld, or stderr; opened again on SIGUSR1; a change needs a "
             "restart"},
    AUDIT_LOG_OPTION_ROWS(struct audit_options),
    {.type = CONFIG_END},
};

static const struct config_option metrics_table[] = {
    {.name = "listen",
     .type = CONFIG_TEXT,
     .offset = 0,
     .help = "Address for GET /metrics, /healthz and /readyz in plain HTTP: loopback or "
             "\"unix:/path\"; a change needs a restart"},
    {.type = CONFIG_END},
};

const struct config_option certmanager_options[] = {
    {.name = "store",
     .type = CONFIG_PATH,
     .offset = offsetof(struct options, store),
     .fallback = STORE_DEFAULT_FOLDER,
     .is_written = true,
     .help = "Folder of the certificate store, which must be there (`deputyctl store import` makes "
             "it); a change needs a restart"},
    {.name = "staples",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, staples),
     .children = staple_table,
     .help = "OCSP responses for every chain that has a name, and a responder"},
    {.name = "revocation",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, revocation),
     .children = revocation_table,
     .help = "The watch over what CAs revoke"},
    {.name = "ca",
     .type = CONFIG_PATH,
     .offset = offsetof(struct options, ca),
     .help = "PEM file with the CAs that https:// responders and lists are trusted by, instead of "
             "the system's; a change needs a restart"},
    {.name = "user",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct options, user),
     .help =
         "User to become once the socket is open, who must be able to write the store; a change "
         "needs a restart"},
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
     .help = "The record of what was changed, and why"},
    {.name = "metrics",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct options, metrics),
     .children = metrics_table,
     .help = "Figures for Prometheus, and health"},
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
  struct address address = {0};

  if (options->metrics.listen != NULL) {
    if (address_parse(&address, options->metrics.listen, err) != STATUS_OK) {
      errmsg_prefix(err, "metrics.listen");
      return STATUS_CONFIG;
    }
    if (!is_local(&address)) {
      return errmsg_set(err, STATUS_CONFIG,
                        "metrics.listen: %s can be reached from outside, and it speaks plain HTTP; "
                        "use 127.0.0.1, [::1] or unix:/path",
                        options->metrics.listen);
    }
  }
  if (!options->staples.is_on && options->revocation.policy == REVOCATION_OFF) {
    return errmsg_set(err, STATUS_CONFIG,
                      "staples.on is false and revocation.policy \"off\": nothing is left to do");
  }
  return STATUS_OK;
}

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;

  *out = (struct options){0};
  TRY(config_load(out, certmanager_options, path, err));
  st = check(out, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    options_cleanup(out);
  }

out:
  return st;
}

void options_cleanup(struct options *options) { config_cleanup(options, certmanager_options); }
