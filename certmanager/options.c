// SPDX-License-Identifier: Apache-2.0
#include "certmanager/options.h"

#include "certstore/store.h"
#include "common/base/config_rows.h"
#include "common/net/address.h"

static const char *const policy_words[] = {
    [REVOCATION_OFF] = "off", [REVOCATION_REPORT] = "report", [REVOCATION_SWITCH] = "switch", NULL};

// clang-format off
static const struct config_option staple_table[] = {
  {"on", CONFIG_BOOL, PLACE(staple_options, is_on), .fallback = "true",
   .help = "Fetch OCSP responses ahead of need and keep them in the store; a change needs a "
           "restart"},
  {"concurrency", CONFIG_INT, PLACE(staple_options, max_open), .fallback = "32", .min = 1,
   .max = 1000, .help = "Questions to responders at a time; a change needs a restart"},
  {"per_responder", CONFIG_INT, PLACE(staple_options, max_open_per_responder), .fallback = "4",
   .min = 1, .max = 1000, .help = "Questions to one responder at a time; a change needs a restart"},
  {"timeout", CONFIG_DURATION, PLACE(staple_options, limit_ms), .fallback = "15s", .min = 100,
   .max = 5 * MINUTE,
   .help = "Time for one question, the second attempt by POST included; a change needs a restart"},
  {0},
};

static const struct config_option revocation_table[] = {
  {"policy", CONFIG_WORD, PLACE(revocation_options, policy), .fallback = "report",
   .words = policy_words,
   .help = "What follows when a CA has revoked a leaf: off looks at no lists, and notes nothing; "
           "report writes an audit line; switch also takes the leaf's key out of service in the "
           "store, by a switch that an operator can restore. From off, or to it, needs a restart"},
  {"poll", CONFIG_DURATION, PLACE(revocation_options, poll_ms), .fallback = "1h", .min = SECOND,
   .max = 7 * DAY,
   .help = "How often each revocation list is asked for; one that has not changed costs a few "
           "hundred bytes; a change needs a restart"},
  {"ocsp_poll", CONFIG_DURATION, PLACE(revocation_options, ocsp_poll_ms), .fallback = "4h",
   .max = 7 * DAY,
   .help = "How often a leaf's responder is asked at least, in whole seconds; 0s: only as its "
           "staple needs it; a change needs a restart"},
  {"ceiling", CONFIG_INT, PLACE(revocation_options, ceiling), .fallback = "100", .max = 1000000000,
   .help = "Names that `switch` may move in any 60 seconds without a person; what is above "
           "waits, and a key with more names than that is left to a person"},
  {"until", CONFIG_DURATION, PLACE(revocation_options, until_ms), .fallback = "0s",
   .max = 400 * DAY,
   .help = "How long an automatic switch stands; if the leaf is still revoked then, it is made "
           "again; 0s: until it is restored"},
  {"max_list", CONFIG_SIZE, PLACE(revocation_options, max_list_len), .fallback = "64MiB",
   .min = 1024, .max = (int64_t)1 << 30,
   .help = "Longest revocation list; a change needs a restart"},
  {"lists", CONFIG_INT, PLACE(revocation_options, max_open_lists), .fallback = "1", .min = 1,
   .max = 64, .help = "Lists in memory at a time; a change needs a restart"},
  {0},
};

static const struct config_option audit_table[] = {
  {"path", CONFIG_PATH, PLACE(audit_options, log.path), .is_written = true, .is_required = true,
   .help = "File that gets one line of JSON for each staple replaced, each revocation seen and "
           "each switch made or withheld, or stderr; opened again on SIGUSR1; a change needs a "
           "restart"},
  AUDIT_LOG_OPTION_ROWS(struct audit_options),
  {0},
};

static const struct config_option metrics_table[] = {
  METRICS_LISTEN_OPTION_ROW(struct metrics_options, ""),
  {0},
};

const struct config_option certmanager_options[] = {
  {"store", CONFIG_PATH, PLACE(options, store), .fallback = STORE_DEFAULT_FOLDER,
   .is_written = true,
   .help = "Folder of the certificate store, which must be there (`deputyctl store import` makes "
           "it); a change needs a restart"},
  {"staples", CONFIG_OBJECT, PLACE(options, staples), .children = staple_table,
   .help = "OCSP responses for every chain that has a name, and a responder"},
  {"revocation", CONFIG_OBJECT, PLACE(options, revocation), .children = revocation_table,
   .help = "The watch over what CAs revoke"},
  {"ca", CONFIG_PATH, PLACE(options, ca),
   .help = "PEM file with the CAs that https:// responders and lists are trusted by, instead of "
           "the system's; a change needs a restart"},
  {"user", CONFIG_TEXT, PLACE(options, user),
   .help = "User to become once the socket is open, who must be able to write the store; a "
           "change needs a restart"},
  SANDBOX_OPTION_ROWS(struct options),
  LOG_OPTION_ROW(struct options),
  {"audit", CONFIG_OBJECT, PLACE(options, audit), .is_required = true, .children = audit_table,
   .help = "The record of what was changed, and why"},
  {"metrics", CONFIG_OBJECT, PLACE(options, metrics), .children = metrics_table,
   .help = "Figures for Prometheus, and health"},
  {0},
};
// clang-format on

static enum status check(const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = arg;
  struct address address = {0};

  if (options->metrics.listen != NULL) {
    TRY(address_parse_local(&address, options->metrics.listen, "metrics.listen", err));
  }
  if (!options->staples.is_on && options->revocation.policy == REVOCATION_OFF) {
    return errmsg_set(err, STATUS_CONFIG,
                      "staples.on is false and revocation.policy \"off\": nothing is left to do");
  }

out:
  return st;
}

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  *out = (struct options){0};
  return config_load_checked(out, certmanager_options, path, check, err);
}

void options_cleanup(struct options *options) { config_cleanup(options, certmanager_options); }
