// SPDX-License-Identifier: Apache-2.0
// keyserver: signatures from one key server, over its own protocol (key_load.h).
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/key_load.h"
#include "bench/run_options.h"
#include "common/base/program.h"
#include "common/tls/cert.h"
#include "common/tls/context.h"

#define DEFAULT_COUNT 1000
#define MAX_KEYS 64U

struct keyserver_options {
  struct run_options run;
  const char *host;
  const char *ca;
  const char *certificate;
  const char *key;
  const char *sign_certificates;
  const char *ski;
  const char *scheme;
  int64_t connections;
  int64_t window;
  int64_t verify_every;
  bool pings;
  bool is_blind;
  bool is_unpadded;
  bool allows_tls12;
  bool is_holding;
  int64_t burst_ms;
  bool is_polling;
};

#define FIELD(name) offsetof(struct keyserver_options, name)
// clang-format off
static const struct option_row table[] = {
  {"target", OPTION_TEXT, FIELD(run.target), .is_required = true,
   .help = "HOST:PORT of the key server"},
  {"host", OPTION_TEXT, FIELD(host), .fallback = "localhost",
   .help = "the name that its certificate must have"},
  {"ca", OPTION_TEXT, FIELD(ca), .is_required = true,
   .help = "PEM file: the CA of the key server's certificate"},
  {"certificate", OPTION_TEXT, FIELD(certificate), .is_required = true,
   .help = "PEM file: our own chain, as a client"},
  {"key", OPTION_TEXT, FIELD(key), .is_required = true, .help = "PEM file: our own key"},
  {"sign-certificate", OPTION_TEXT, FIELD(sign_certificates),
   .help = "PEM files, with commas between them, of the certificates whose keys are to sign, in "
           "turns"},
  {"ski", OPTION_TEXT, FIELD(ski),
   .help = "the signing key's identifier, 40 hex digits, instead of a certificate; needs "
           "--scheme, and nothing is checked"},
  {"scheme", OPTION_TEXT, FIELD(scheme),
   .help = "signature scheme, as rsa_pss_rsae_sha256 (default: what TLS 1.3 wants of the key)"},
  {"ping", OPTION_FLAG, FIELD(pings),
   .help = "pings instead of signatures: the round trip with the framing"},
  {"blind", OPTION_FLAG, FIELD(is_blind),
   .help = "send the bare digest, as a foreign client would, not the message with it"},
  {"unpadded", OPTION_FLAG, FIELD(is_unpadded), .help = "leave the padding of requests out"},
  {"connections", OPTION_COUNT, FIELD(connections), .fallback = "1", .min = 1,
   .max = KEY_LOAD_MAX_CONNECTIONS, .help = "connections"},
  {"window", OPTION_COUNT, FIELD(window), .min = 1, .max = KEY_LOAD_MAX_WINDOW,
   .help = "requests in flight on each connection (default 1); with --rate, at most so many "
           "(default 1024)"},
  {"rate", OPTION_NUMBER, FIELD(run.rate_per_s), .min = 0.001, .max = 1e6,
   .help = "open loop: requests per second, over all connections; latency counts from when each "
           "was due"},
  RUN_PACE_OPTION_ROWS(struct keyserver_options),
  {"count", OPTION_COUNT, FIELD(run.count), .min = 1, .max = 1e12,
   .help = "requests to measure (default 1000, unless there is a duration)"},
  {"duration", OPTION_DURATION, FIELD(run.duration_ms), .min = 1, .max = 86400000,
   .help = "stop sending requests after this time"},
  RUN_WARMUP_OPTION_ROW(struct keyserver_options, "request"),
  {"timeout", OPTION_DURATION, FIELD(run.timeout_ms), .fallback = "5s", .min = 1, .max = 3600000,
   .help = "for a connection to open, and for each answer"},
  {"verify", OPTION_COUNT, FIELD(verify_every), .fallback = "100", .min = 0, .max = 1e9,
   .help = "check one of N signatures; 0: never"},
  {"tls12", OPTION_FLAG, FIELD(allows_tls12), .help = "allow TLS 1.2, for foreign key servers"},
  {"hold", OPTION_FLAG, FIELD(is_holding),
   .help = "ask nothing: keep the connections open and idle, for --duration or until a signal; "
           "'holding N' on standard error when all are open"},
  {"burst", OPTION_DURATION, FIELD(burst_ms), .min = 1, .max = 60000,
   .help = "stop the processes of --server-pid (SIGSTOP), send a window of requests on each "
           "connection, let them go on and look away for so long: the server then works alone"},
  {"poll", OPTION_FLAG, FIELD(is_polling),
   .help = "never sleep, so that a server on the same machine is not charged for waking us"},
  RUN_REPORT_OPTION_ROWS(struct keyserver_options, "request"),
  {0},
};
// clang-format on

// The run as key_load.h wants it, and the memory behind it.
struct plan {
  struct key_load_options load;
  char paths[8192];
  struct key_target keys[MAX_KEYS];
  size_t num_keys;
};

static enum status read_public_key(EVP_PKEY **out, const char *path, struct errmsg *err) {
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  enum status st = cert_chain_read(chain, &num, path, NULL, err);
  if (st == STATUS_OK) {
    const uint8_t *der = CRYPTO_BUFFER_data(chain[0]);
    X509 *x509 = d2i_X509(NULL, &der, (long)CRYPTO_BUFFER_len(chain[0]));
    *out = x509 == NULL ? NULL : X509_get_pubkey(x509);
    X509_free(x509);
    if (*out == NULL) {
      st = errmsg_set(err, STATUS_FORMAT, "%s: its public key cannot be read", path);
    }
  }
  cert_chain_free(chain, num);
  return st;
}

static enum status add_key(struct plan *plan, const struct keyserver_options *o, const char *path,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct key_target *key = &plan->keys[plan->num_keys];
  uint8_t key_id[32];

  if (plan->num_keys == MAX_KEYS) {
    return errmsg_set(err, STATUS_CONFIG, "--sign-certificate: at most %u", MAX_KEYS);
  }
  TRY(read_public_key(&key->public_key, path, err));
  plan->num_keys += 1;
  TRY(key_identify(key_id, key->ski, key->public_key));
  const enum key_kind kind = key_kind_of(key->public_key);
  key->name = path;
  key->scheme = o->scheme == NULL ? scheme_default(kind) : scheme_by_name(o->scheme);
  if (key->scheme == NULL || !scheme_fits_key(key->scheme, kind)) {
    st = errmsg_set(err, STATUS_CONFIG, "--scheme %s does not fit the key of %s, which is %s",
                    o->scheme == NULL ? "(none)" : o->scheme, path, key_kind_name(kind));
  }

out:
  return st;
}

static enum status add_ski(struct plan *plan, const struct keyserver_options *o,
                           struct errmsg *err) {
  struct key_target *key = &plan->keys[0];
  key->scheme = o->scheme == NULL ? NULL : scheme_by_name(o->scheme);
  key->name = o->ski;
  if (key->scheme == NULL || bytes_from_hex(key->ski, sizeof(key->ski), o->ski) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG, "--ski wants 40 hex digits, and a --scheme with it");
  }
  plan->num_keys = 1;
  return STATUS_OK;
}

static enum status read_keys(struct plan *plan, const struct keyserver_options *o,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  if (o->is_holding) {
    return STATUS_OK;
  }
  if (o->pings + (o->sign_certificates != NULL) + (o->ski != NULL) != 1) {
    return errmsg_set(err, STATUS_CONFIG,
                      "one of --ping, --sign-certificate and --ski is needed, and no more");
  }
  if (o->pings) {
    return STATUS_OK;
  }
  if (o->ski != NULL) {
    return add_ski(plan, o, err);
  }
  if (strlen(o->sign_certificates) >= sizeof(plan->paths)) {
    return errmsg_set(err, STATUS_CONFIG, "--sign-certificate is too long");
  }
  memcpy(plan->paths, o->sign_certificates, strlen(o->sign_certificates) + 1);
  for (char *path = plan->paths; path != NULL;) {
    char *comma = strchr(path, ',');
    if (comma != NULL) {
      *comma = '\0';
    }
    TRY(add_key(plan, o, path, err));
    path = comma == NULL ? NULL : comma + 1;
  }

out:
  return st;
}

static enum status check_modes(const struct keyserver_options *o, struct errmsg *err) {
  if (o->is_holding && (o->run.count > 0 || o->run.rate_per_s > 0 || o->burst_ms > 0)) {
    return errmsg_set(err, STATUS_CONFIG,
                      "--hold asks nothing: no --count, --rate or --burst with it");
  }
  if (o->burst_ms > 0 && (o->run.server_pid == NULL || o->run.rate_per_s > 0)) {
    return errmsg_set(err, STATUS_CONFIG,
                      "--burst needs --server-pid, whom to stop, and takes no --rate");
  }
  return STATUS_OK;
}

static enum status fill_plan(struct plan *plan, const struct keyserver_options *o,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  struct tls_identity identity = {.ca = (char *)(uintptr_t)o->ca,
                                  .certificate = (char *)(uintptr_t)o->certificate,
                                  .key = (char *)(uintptr_t)o->key};
  const int64_t window = o->run.rate_per_s > 0 ? 1024 : 1;

  plan->load = (struct key_load_options){
      .host = o->host,
      .keys = plan->keys,
      .is_blind = o->is_blind,
      .is_unpadded = o->is_unpadded,
      .connections = o->connections,
      .window = o->window > 0 ? o->window : window,
      .rate_per_s = o->run.rate_per_s,
      .pacer = run_pacer(&o->run),
      .seed = (uint64_t)o->run.seed,
      .count = run_count(&o->run, DEFAULT_COUNT),
      .duration_ms = o->run.duration_ms,
      .warmup = o->run.warmup,
      .timeout_ms = o->run.timeout_ms,
      .verify_every = o->verify_every,
      .is_holding = o->is_holding,
      .burst_ms = o->burst_ms,
      .is_polling = o->is_polling,
      .shows_progress = o->run.shows_progress,
  };
  if (plan->load.connections * plan->load.window > KEY_LOAD_MAX_FLIGHTS) {
    st = errmsg_set(err, STATUS_CONFIG, "--connections times --window is over %d",
                    KEY_LOAD_MAX_FLIGHTS);
    goto out;
  }
  TRY(check_modes(o, err));
  TRY(bench_resolve(&plan->load.target, o->run.target, err));
  TRY(read_keys(plan, o, err));
  plan->load.num_keys = plan->num_keys;
  TRY(tls_context_client(&plan->load.ctx, &identity, o->allows_tls12, err));

out:
  return st;
}

static void plan_cleanup(struct plan *plan) {
  for (size_t i = 0; i < plan->num_keys; i++) {
    EVP_PKEY_free(plan->keys[i].public_key);
  }
  SSL_CTX_free(plan->load.ctx);
}

static void describe(json_t *about, const struct keyserver_options *o, const struct plan *plan) {
  run_describe(about, &o->run, &plan->load.target);
  (void)json_object_set_new(about, "connections", json_integer(plan->load.connections));
  (void)json_object_set_new(about, "window", json_integer(plan->load.window));
  (void)json_object_set_new(about, "verify_every", json_integer(o->verify_every));
}

static void add_result(json_t *summary, const struct key_load_result *result) {
  (void)json_object_set_new(summary, "interrupted", json_boolean(result->is_interrupted));
  (void)json_object_set_new(summary, "late_starts", json_integer(result->num_late));
  (void)json_object_set_new(summary, "connections_opened", json_integer(result->num_opened));
  (void)json_object_set_new(summary, "connection_ends", recorder_words_json(&result->ends));
  (void)json_object_set_new(summary, "schemes", recorder_words_json(&result->schemes));
  json_t *latencies = json_object_get(summary, "latency_us");
  (void)json_object_set_new(latencies, "connection", recorder_latency_json(&result->connect));
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct keyserver_options *o = arg;
  struct plan plan = {0};
  struct key_load_result *result = calloc(1, sizeof(*result));
  struct recorder *recorder = NULL;

  if (result == NULL) {
    return STATUS_MEMORY;
  }
  TRY(fill_plan(&plan, o, err));
  TRY(run_open(&recorder, &o->run, err));
  describe(summary, o, &plan);
  recorder_write_run(recorder, summary);
  (void)program_raise_nofile();
  TRY(key_load_run(result, &plan.load, recorder, err));
  TRY(recorder_close(recorder, err));
  recorder_summary(recorder, "request", summary);
  add_result(summary, result);

out:
  recorder_free(recorder);
  plan_cleanup(&plan);
  free(result);
  return st;
}

const struct subcommand keyserver_subcommand = {
    .name = "keyserver",
    .summary = "signatures and pings of a key server, over its own protocol",
    .help = "Measures signatures (or pings) of one key server, over mutual TLS.",
    .options = table,
    .options_len = sizeof(struct keyserver_options),
    .run = run,
};
