// SPDX-License-Identifier: Apache-2.0
// options: the key server's configuration file. Read by main and again on each
// reload; the table in options.c is also the reference manual
// (--config-reference). What a reload can change is said in each row's help.
#ifndef DEPUTY_KEYSERVER_OPTIONS_H_
#define DEPUTY_KEYSERVER_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/audit_log.h"
#include "common/base/client_set.h"
#include "common/base/config.h"
#include "common/base/sandbox.h"
#include "common/tls/context.h"

#define OPTIONS_MAX_LISTEN 16
#define OPTIONS_MAX_WORKERS 256
#define OPTIONS_MAX_GRANTS 10000
#define OPTIONS_MAX_PKCS11 4096
#define OPTIONS_MAX_KEY_FOLDERS 64

// What happens to a signature whose audit line cannot be kept.
enum audit_policy { AUDIT_REFUSE, AUDIT_SIGN };

struct audit_options {
  struct audit_log_options log;
  int when_unavailable;  // enum audit_policy
};

struct metrics_options {
  char *listen;  // NULL: none
};

struct limit_options {
  int64_t max_connections;
  int64_t max_connections_per_client;
  int64_t max_unread_len;
  int64_t handshake_ms;
  int64_t idle_ms;
  int64_t packet_ms;
  int64_t write_ms;
  int64_t drain_ms;
  int64_t sign_ms;
  int64_t max_queued;  // for each lane of the signer threads
};

// One grant: these clients may use these keys for these purposes. All grants
// that fit a client count; the first that allows a request also gives its rate
// and its longest credential.
struct grant_options {
  char *label;
  struct client_set_options who;
  char **keys;
  size_t num_keys;
  char **purposes;
  size_t num_purposes;
  int64_t rate_per_s;  // 0: unlimited
  int64_t burst;
  int64_t dc_max_lifetime_ms;
};

// What a key may be used for, whoever asks. The first policy that fits counts.
struct key_policy_options {
  char **keys;
  size_t num_keys;
  int64_t dc_max_lifetime_ms;
  char **schemes;  // none: all that fit the key
  size_t num_schemes;
};

// A key on a PKCS #11 token.
struct pkcs11_options {
  char *module;
  char *uri;
  char *pin_file;  // NULL: no login
  char *label;
  char *certificate;  // NULL: names and public key unknown but from the token
  int64_t num_sessions;
};

// Who this server is to sealed keys.
struct sealing_options {
  char *identity;     // NULL: it opens none
  char **attributes;  // "region: EU"
  size_t num_attributes;
};

// Making keys on request.
struct generation_options {
  char *folder;  // NULL: none are made
  int64_t max_keys;
  int64_t per_minute;
};

struct options {
  char **listen;
  size_t num_listen;
  struct tls_identity tls;
  bool allow_tls12;
  char **key_folders;
  size_t num_key_folders;
  struct sealing_options sealing;
  bool key_folders_watch;
  int64_t key_folders_settle_ms;
  struct pkcs11_options *pkcs11;
  size_t num_pkcs11;
  struct generation_options generation;
  int64_t num_workers;
  int64_t num_signers;
  char *user;
  struct sandbox_options sandbox;
  char *log;
  struct audit_options audit;
  struct metrics_options metrics;
  struct limit_options limits;
  struct grant_options *clients;
  size_t num_clients;
  struct key_policy_options *key_policies;
  size_t num_key_policies;
};

extern const struct config_option keyserver_options[];

// options_load reads and checks the file. On failure `out` is cleaned.
// STATUS_CONFIG, STATUS_SYSTEM, STATUS_LIMIT; err always has the sentence.
enum status options_load(struct options *out, const char *path, struct errmsg *err);
void options_cleanup(struct options *options);

#endif  // DEPUTY_KEYSERVER_OPTIONS_H_
