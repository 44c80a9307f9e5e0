// SPDX-License-Identifier: Apache-2.0
// options: the certificate manager's configuration file. Read by main and again on each
// reload; the table in options.c is also the reference manual (--config-reference).
// What a reload cannot change is said in a row's help.
#ifndef DEPUTY_CERTMANAGER_OPTIONS_H_
#define DEPUTY_CERTMANAGER_OPTIONS_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/audit_log.h"
#include "common/base/config.h"
#include "common/base/sandbox.h"

// What follows when a CA is seen to have revoked one of our leaves.
enum revocation_policy { REVOCATION_OFF, REVOCATION_REPORT, REVOCATION_SWITCH };

struct staple_options {
  bool is_on;
  int64_t max_open;                // questions at a time
  int64_t max_open_per_responder;  // the same, at one
  int64_t limit_ms;                // of one
};

struct revocation_options {
  int policy;            // enum revocation_policy
  int64_t poll_ms;       // of lists
  int64_t ocsp_poll_ms;  // of responders; 0: as staples need it
  int64_t ceiling;       // names a minute that may move without a person
  int64_t until_ms;      // how long an automatic switch stands; 0: until it is restored
  int64_t max_list_len;
  int64_t max_open_lists;
};

struct audit_options {
  struct audit_log_options log;
};

struct metrics_options {
  char *listen;  // NULL: none
};

struct options {
  char *store;
  struct staple_options staples;
  struct revocation_options revocation;
  char *ca;  // for https:// responders and lists; NULL: the system's
  char *user;
  struct sandbox_options sandbox;
  char *log;
  struct audit_options audit;
  struct metrics_options metrics;
};

extern const struct config_option certmanager_options[];

// options_load reads and checks the file. On failure `out` is cleaned.
// STATUS_CONFIG, STATUS_SYSTEM, STATUS_LIMIT; err always has the sentence.
enum status options_load(struct options *out, const char *path, struct errmsg *err);
void options_cleanup(struct options *options);

#endif  // DEPUTY_CERTMANAGER_OPTIONS_H_
