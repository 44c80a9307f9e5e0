// SPDX-License-Identifier: Apache-2.0
#include "keyserver/options.h"

#include "common/base/config_rows.h"
#include "common/wire/region_policy.h"

#define KEYS_HELP                                                                                  \
  "keys it applies to: \"*\" for all, \"ski:HEX\", \"label:NAME\" (NAME.key in the folder; NAME* " \
  "fits what begins so), "                                                                         \
  "\"name:HOST\" or \"name:*.DOMAIN\" (a name in the certificate beside the key)"

static const char *const audit_words[] = {[AUDIT_REFUSE] = "refuse", [AUDIT_SIGN] = "sign", NULL};

// clang-format off
static const struct config_option audit_table[] = {
  {"path", CONFIG_PATH, PLACE(audit_options, log.path), .is_written = true, .is_required = true,
   .help = "File that gets one line of JSON for each signature and each refusal, or stderr; "
           "opened again on SIGUSR1; a change needs a restart"},
  {"when_unavailable", CONFIG_WORD, PLACE(audit_options, when_unavailable), .fallback = "refuse",
   .words = audit_words,
   .help = "What happens to signatures while the file cannot be written: refuse answers busy, so "
           "that clients try another server"},
  AUDIT_LOG_OPTION_ROWS(struct audit_options),
  {0},
};

static const struct config_option metrics_table[] = {
  METRICS_LISTEN_OPTION_ROW(struct metrics_options, "without it there is none; "),
  {0},
};

static const struct config_option limits_table[] = {
  {"max_connections", CONFIG_INT, PLACE(limit_options, max_connections), .fallback = "20000",
   .min = 1, .max = 10000000, .help = "Connections at a time; more are closed at once and counted"},
  {"max_connections_per_client", CONFIG_INT, PLACE(limit_options, max_connections_per_client),
   .fallback = "2000", .min = 1, .max = 10000000,
   .help = "Connections at a time that show the same client key"},
  {"max_unread", CONFIG_SIZE, PLACE(limit_options, max_unread_len), .fallback = "256KiB",
   .min = 192 << 10, .max = 64 << 20,
   .help = "Replies that wait for a client to read them; beyond this its requests wait too"},
  {"handshake_timeout", CONFIG_DURATION, PLACE(limit_options, handshake_ms), .fallback = "5s",
   .min = 10, .max = 10 * MINUTE, .help = "Time a client has for the TLS handshake"},
  {"idle_timeout", CONFIG_DURATION, PLACE(limit_options, idle_ms), .fallback = "5m", .min = 10,
   .max = DAY, .help = "A connection on which nothing moves for so long is closed"},
  {"packet_timeout", CONFIG_DURATION, PLACE(limit_options, packet_ms), .fallback = "10s", .min = 10,
   .max = 10 * MINUTE, .help = "Time from a packet's first byte to its last"},
  {"write_timeout", CONFIG_DURATION, PLACE(limit_options, write_ms), .fallback = "10s", .min = 10,
   .max = 10 * MINUTE,
   .help = "A client that reads none of its waiting replies for so long is closed"},
  {"drain_timeout", CONFIG_DURATION, PLACE(limit_options, drain_ms), .fallback = "10s", .min = 0,
   .max = 10 * MINUTE, .help = "Time that SIGTERM leaves for finishing what is in hand"},
  {"sign_timeout", CONFIG_DURATION, PLACE(limit_options, sign_ms), .fallback = "5s", .min = 100,
   .max = 10 * MINUTE,
   .help = "A slow signature (RSA above 2048 bits, a token's) that is not there by then is "
           "answered busy, so that clients try another server"},
  {"max_queued", CONFIG_INT, PLACE(limit_options, max_queued), .fallback = "1024", .min = 2,
   .max = 1000000,
   .help = "Slow signatures that may wait, for each token and for local keys, of which one "
           "client may take half; more are answered busy; a change needs a restart"},
  {0},
};

static const struct config_option grant_table[] = {
  {"label", CONFIG_TEXT, PLACE(grant_options, label), .is_required = true, .min = 1, .max = 64,
   .help = "Name of this grant in messages and metrics"},
  CLIENT_SET_OPTION_ROWS(struct grant_options),
  {"keys", CONFIG_TEXTS, LIST(grant_options, keys, num_keys), .is_required = true, .min = 1,
   .max = 0,
   .help = "The " KEYS_HELP},
  {"purposes", CONFIG_TEXTS, LIST(grant_options, purposes, num_purposes), .is_required = true,
   .min = 1, .max = 6,
   .help = "What may be signed: tls13, tls12 (handshakes), dc (delegated credentials), csr "
           "(certificate requests), blind (any digest: foreign clients only); and generate: new "
           "keys may be made whose labels fit keys"},
  {"rate_per_s", CONFIG_INT, PLACE(grant_options, rate_per_s), .fallback = "0", .min = 0,
   .max = 10000000,
   .help = "Signatures a second under this grant, all its clients together; 0: unlimited"},
  {"burst", CONFIG_INT, PLACE(grant_options, burst), .fallback = "0", .min = 0, .max = 10000000,
   .help = "Signatures that may come at once after a quiet time; 0: as many as in one second"},
  {"dc_max_lifetime", CONFIG_DURATION, PLACE(grant_options, dc_max_lifetime_ms), .fallback = "7d",
   .min = SECOND, .max = 7 * DAY,
   .help = "Longest remaining life of a delegated credential signed under this grant"},
  {0},
};

static const struct config_option key_policy_table[] = {
  {"keys", CONFIG_TEXTS, LIST(key_policy_options, keys, num_keys), .is_required = true, .min = 1,
   .max = 0,
   .help = "The " KEYS_HELP},
  {"dc_max_lifetime", CONFIG_DURATION, PLACE(key_policy_options, dc_max_lifetime_ms),
   .fallback = "7d", .min = 0, .max = 7 * DAY,
   .help = "Longest remaining life of a delegated credential of such a key; 0s: none at all"},
  {"schemes", CONFIG_TEXTS, LIST(key_policy_options, schemes, num_schemes),
   .help = "TLS signature schemes such a key may sign with, as ecdsa_secp256r1_sha256; without "
           "it all that fit the key"},
  {0},
};

static const struct config_option generation_table[] = {
  {"folder", CONFIG_PATH, PLACE(generation_options, folder), .is_written = true,
   .help = "Folder where new keys are stored, one file each, and loaded from like from the "
           "key_folders; the server's user must be able to write to it; without it no key is made"},
  {"max_keys", CONFIG_INT, PLACE(generation_options, max_keys), .fallback = "10000", .min = 1,
   .max = 1000000,
   .help = "Keys that this server holds at most, of all kinds, for a new one to be made"},
  {"per_minute", CONFIG_INT, PLACE(generation_options, per_minute), .fallback = "60", .min = 1,
   .max = 6000, .help = "Keys made in a minute at most, for all clients together"},
  {0},
};

static const struct config_option sealing_table[] = {
  {"identity", CONFIG_PATH, PLACE(sealing_options, identity), .is_required = true,
   .help = "This server's X25519 private key in PEM, readable by the owner only, as made by "
           "deputyctl key identity new"},
  {"attributes", CONFIG_TEXTS, LIST(sealing_options, attributes, num_attributes),
   .is_required = true, .min = 1, .max = REGION_MAX_ATTRIBUTES,
   .help = "What this server is to the policies of sealed keys, as \"region: EU\""},
  {0},
};

static const struct config_option pkcs11_table[] = {
  {"module", CONFIG_PATH, PLACE(pkcs11_options, module), .is_required = true,
   .help = "Shared library of the token's maker; it is loaded into this process"},
  {"uri", CONFIG_TEXT, PLACE(pkcs11_options, uri), .is_required = true, .min = 8, .max = 4096,
   .help = "The one key, as \"pkcs11:token=web;object=www;type=private\" (RFC 7512); what it "
           "leaves open must not matter"},
  {"pin_file", CONFIG_PATH, PLACE(pkcs11_options, pin_file),
   .help = "File with the user PIN, readable by the owner only; without it there is no login. A "
           "PIN that the token refuses is tried once, and again when the file has changed"},
  {"label", CONFIG_TEXT, PLACE(pkcs11_options, label), .is_required = true, .min = 1, .max = 64,
   .help = "Name of the key here, in grants and audit lines"},
  {"certificate", CONFIG_PATH, PLACE(pkcs11_options, certificate),
   .help = "PEM file with the key's certificate: gives the key its names, and lets the server "
           "start while the token is away"},
  {"sessions", CONFIG_INT, PLACE(pkcs11_options, num_sessions), .fallback = "4", .min = 1,
   .max = 32,
   .help = "Signatures that the token makes at a time, each in a thread and session of its own; "
           "the first entry of a token counts; a change needs a restart"},
  {0},
};

const struct config_option keyserver_options[] = {
  {"listen", CONFIG_TEXTS, LIST(options, listen, num_listen), .is_required = true, .min = 1,
   .max = OPTIONS_MAX_LISTEN,
   .help = "Addresses for clients, as 127.0.0.1:2407, [::1]:2407 or *:2407; port 0 lets the "
           "kernel choose; a change needs a restart"},
  {"tls", CONFIG_OBJECT, PLACE(options, tls), .is_required = true, .children = tls_identity_options,
   .help = "This server's own certificate, and the CA whose clients may connect"},
  {"allow_tls12", CONFIG_BOOL, PLACE(options, allow_tls12), .fallback = "false",
   .help = "Let foreign keyless clients in that do not know TLS 1.3"},
  {"key_folders", CONFIG_PATHS, LIST(options, key_folders, num_key_folders), .is_required = true,
   .min = 1, .max = OPTIONS_MAX_KEY_FOLDERS,
   .help = "Folders with private keys (*.key, PEM or DER, readable by the owner only; *.sealed) "
           "and, to name them, their certificates (*.pem, *.crt)"},
  {"sealing", CONFIG_OBJECT, PLACE(options, sealing), .children = sealing_table,
   .help = "Who this server is to sealed keys (*.sealed); without it, it opens none"},
  {"key_folders_watch", CONFIG_BOOL, PLACE(options, key_folders_watch), .fallback = "false",
   .help = "Load the keys again by itself when files in their folders have changed; without it a "
           "change waits for SIGHUP"},
  {"key_folders_settle", CONFIG_DURATION, PLACE(options, key_folders_settle_ms), .fallback = "1s",
   .min = 10, .max = 10 * MINUTE,
   .help = "How long nothing must change in the watched folders before they are read (after ten "
           "times that they are read anyway)"},
  {"pkcs11", CONFIG_OBJECTS, LIST(options, pkcs11, num_pkcs11), .max = OPTIONS_MAX_PKCS11,
   .children = pkcs11_table, .child_size = sizeof(struct pkcs11_options),
   .help = "Keys in PKCS #11 tokens"},
  {"generation", CONFIG_OBJECT, PLACE(options, generation), .children = generation_table,
   .help = "Keys made on request of clients that have the purpose generate"},
  {"workers", CONFIG_INT, PLACE(options, num_workers), .fallback = "0", .min = 0,
   .max = OPTIONS_MAX_WORKERS,
   .help = "Threads that sign; 0: one for each core; a change needs a restart"},
  {"signers", CONFIG_INT, PLACE(options, num_signers), .fallback = "0", .min = 0, .max = 64,
   .help = "Threads for local keys that are slow: RSA above 2048 bits; they give way, at nice 19, to "
           "the workers; 0: one for each core; a change needs a restart"},
  {"user", CONFIG_TEXT, PLACE(options, user),
   .help = "User to become once the sockets are open and the keys read; to reload, that user "
           "must own the key files; a change needs a restart"},
  SANDBOX_OPTION_ROWS(struct options),
  LOG_OPTION_ROW(struct options),
  {"audit", CONFIG_OBJECT, PLACE(options, audit), .is_required = true, .children = audit_table,
   .help = "The record of every signature and refusal"},
  {"metrics", CONFIG_OBJECT, PLACE(options, metrics), .children = metrics_table,
   .help = "Figures for Prometheus"},
  {"limits", CONFIG_OBJECT, PLACE(options, limits), .children = limits_table,
   .help = "What one client, and all of them together, may take"},
  {"clients", CONFIG_OBJECTS, LIST(options, clients, num_clients), .max = OPTIONS_MAX_GRANTS,
   .children = grant_table, .child_size = sizeof(struct grant_options),
   .help = "Who may have what signed; nobody may anything that is not written here"},
  {"key_policies", CONFIG_OBJECTS, LIST(options, key_policies, num_key_policies),
   .max = OPTIONS_MAX_GRANTS, .children = key_policy_table,
   .child_size = sizeof(struct key_policy_options),
   .help = "Limits of keys, whoever asks; the first entry that fits a key counts"},
  {0},
};
// clang-format on

enum status options_load(struct options *out, const char *path, struct errmsg *err) {
  *out = (struct options){0};
  return config_load(out, keyserver_options, path, err);
}

void options_cleanup(struct options *options) { config_cleanup(options, keyserver_options); }
