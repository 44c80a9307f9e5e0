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
#include "common/base/program.h"
#include "common/tls/cert.h"
#include "common/tls/context.h"

#define DEFAULT_COUNT 1000
#define MAX_KEYS 64U

struct keyserver_options {
  const char *target;
  const char *host;
  const char *ca;
  const char *certificate;
  const char *key;
  const char *sign_certificates;
  const char *ski;
  const char *scheme;
  const char *server_pid;
  const char *label;
  const char *raw;
  int arrivals;
  int64_t connections;
  int64_t window;
  double rate_per_s;
  int64_t seed;
  int64_t count;
  int64_t duration_ms;
  int64_t warmup;
  int64_t timeout_ms;
  int64_t verify_every;
  bool pings;
  bool is_blind;
  bool is_unpadded;
  bool allows_tls12;
  bool is_holding;
  int64_t burst_ms;
  bool is_polling;
  bool shows_progress;
};

static const char *const arrival_words[] = {"constant", "poisson", NULL};

#define FIELD(name) offsetof(struct keyserver_options, name)
// clang-format off
static const struct option_row table[] = {
    {"target", OPTION_TEXT, FIELD(target), NULL, 0, 0, NULL,
     "HOST:PORT of the key server", true},
    {"host", OPTION_TEXT, FIELD(host), "localhost", 0, 0, NULL,
     "the name that its certificate must have", false},
    {"ca", OPTION_TEXT, FIELD(ca), NULL, 0, 0, NULL,
     "PEM file: the CA of the key server's certificate", true},
    {"certificate", OPTION_TEXT, FIELD(certificate), NULL, 0, 0, NULL,
     "PEM file: our own chain, as a client", true},
    {"key", OPTION_TEXT, FIELD(key), NULL, 0, 0, NULL,
     "PEM file: our own key", true},
    {"sign-certificate", OPTION_TEXT, FIELD(sign_certificates), NULL, 0, 0, NULL,
     "PEM files, with commas between them, of the certificates whose keys are to sign, in"
     " turns", false},
    {"ski", OPTION_TEXT, FIELD(ski), NULL, 0, 0, NULL,
     "the signing key's identifier, 40 hex digits, instead of a certificate; needs --scheme, and"
     " nothing is checked", false},
    {"scheme", OPTION_TEXT, FIELD(scheme), NULL, 0, 0, NULL,
     "signature scheme, as rsa_pss_rsae_sha256 (default: what TLS 1.3 wants of the key)", false},
    {"ping", OPTION_FLAG, FIELD(pings), NULL, 0, 0, NULL,
     "pings instead of signatures: the round trip with the framing", false},
    {"blind", OPTION_FLAG, FIELD(is_blind), NULL, 0, 0, NULL,
     "send the bare digest, as a foreign client would, not the message with it", false},
    {"unpadded", OPTION_FLAG, FIELD(is_unpadded), NULL, 0, 0, NULL,
     "leave the padding of requests out", false},
    {"connections", OPTION_COUNT, FIELD(connections), "1", 1, KEY_LOAD_MAX_CONNECTIONS, NULL,
     "connections", false},
    {"window", OPTION_COUNT, FIELD(window), NULL, 1, KEY_LOAD_MAX_WINDOW, NULL,
     "requests in flight on each connection (default 1); with --rate, at most so many (default"
     " 1024)", false},
    {"rate", OPTION_NUMBER, FIELD(rate_per_s), NULL, 0.001, 1e6, NULL,
     "open loop: requests per second, over all connections; latency counts from when each was"
     " due", false},
    {"arrivals", OPTION_WORD, FIELD(arrivals), "constant", 0, 0, arrival_words,
     "with --rate, how they are spaced", false},
    {"seed", OPTION_COUNT, FIELD(seed), "1", 0, 1e15, NULL,
     "of Poisson arrivals: the same seed, the same times", false},
    {"count", OPTION_COUNT, FIELD(count), NULL, 1, 1e12, NULL,
     "requests to measure (default 1000, unless there is a duration)", false},
    {"duration", OPTION_DURATION, FIELD(duration_ms), NULL, 1, 86400000, NULL,
     "stop sending requests after this time", false},
    {"warmup", OPTION_COUNT, FIELD(warmup), "0", 0, 1e9, NULL,
     "requests first that are not counted", false},
    {"timeout", OPTION_DURATION, FIELD(timeout_ms), "5s", 1, 3600000, NULL,
     "for a connection to open, and for each answer", false},
    {"verify", OPTION_COUNT, FIELD(verify_every), "100", 0, 1e9, NULL,
     "check one of N signatures; 0: never", false},
    {"tls12", OPTION_FLAG, FIELD(allows_tls12), NULL, 0, 0, NULL,
     "allow TLS 1.2, for foreign key servers", false},
    {"server-pid", OPTION_TEXT, FIELD(server_pid), NULL, 0, 0, NULL,
     "process ids of the server, with commas between them: their CPU time in the measured part"
     " goes into the summary", false},
    {"hold", OPTION_FLAG, FIELD(is_holding), NULL, 0, 0, NULL,
     "ask nothing: keep the connections open and idle, for --duration or until a signal;"
     " 'holding N' on standard error when all are open", false},
    {"burst", OPTION_DURATION, FIELD(burst_ms), NULL, 1, 60000, NULL,
     "stop the processes of --server-pid (SIGSTOP), send a window of requests on each connection,"
     " let them go on and look away for so long: the server then works alone", false},
    {"poll", OPTION_FLAG, FIELD(is_polling), NULL, 0, 0, NULL,
     "never sleep, so that a server on the same machine is not charged for waking us", false},
    {"raw", OPTION_TEXT, FIELD(raw), NULL, 0, 0, NULL,
     "file for one JSON line per request", false},
    {"label", OPTION_TEXT, FIELD(label), NULL, 0, 0, NULL,
     "text to keep in the summary", false},
    {"progress", OPTION_FLAG, FIELD(shows_progress), NULL, 0, 0, NULL,
     "a line each second on standard error", false},
    {NULL, OPTION_END, 0, NULL, 0, 0, NULL, NULL, false},
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
  if (o->is_holding && (o->count > 0 || o->rate_per_s > 0 || o->burst_ms > 0)) {
    return errmsg_set(err, STATUS_CONFIG,
                      "--hold asks nothing: no --count, --rate or --burst with it");
  }
  if (o->burst_ms > 0 && (o->server_pid == NULL || o->rate_per_s > 0)) {
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
  const int64_t window = o->rate_per_s > 0 ? 1024 : 1;

  plan->load = (struct key_load_options){
      .host = o->host,
      .keys = plan->keys,
      .is_blind = o->is_blind,
      .is_unpadded = o->is_unpadded,
      .connections = o->connections,
      .window = o->window > 0 ? o->window : window,
      .rate_per_s = o->rate_per_s,
      .pacer = o->arrivals == 0 ? PACER_CONSTANT : PACER_POISSON,
      .seed = (uint64_t)o->seed,
      .count = o->count == 0 && o->duration_ms == 0 ? DEFAULT_COUNT : o->count,
      .duration_ms = o->duration_ms,
      .warmup = o->warmup,
      .timeout_ms = o->timeout_ms,
      .verify_every = o->verify_every,
      .is_holding = o->is_holding,
      .burst_ms = o->burst_ms,
      .is_polling = o->is_polling,
      .shows_progress = o->shows_progress,
  };
  if (plan->load.connections * plan->load.window > KEY_LOAD_MAX_FLIGHTS) {
    st = errmsg_set(err, STATUS_CONFIG, "--connections times --window is over %d",
                    KEY_LOAD_MAX_FLIGHTS);
    goto out;
  }
  TRY(check_modes(o, err));
  TRY(bench_resolve(&plan->load.target, o->target, err));
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

static json_t *describe(const struct keyserver_options *o, const struct plan *plan, int argc,
                        char **argv) {
  char target[ADDRESS_TEXT_LEN];
  json_t *about = bench_about(argc, argv);
  if (o->label != NULL) {
    (void)json_object_set_new(about, "label", json_string(o->label));
  }
  (void)json_object_set_new(about, "target",
                            json_string(address_format(target, &plan->load.target)));
  (void)json_object_set_new(about, "loop", json_string(o->rate_per_s > 0 ? "open" : "closed"));
  if (o->rate_per_s > 0) {
    (void)json_object_set_new(about, "rate_per_s", json_real(o->rate_per_s));
  }
  (void)json_object_set_new(about, "connections", json_integer(plan->load.connections));
  (void)json_object_set_new(about, "window", json_integer(plan->load.window));
  (void)json_object_set_new(about, "verify_every", json_integer(o->verify_every));
  return about;
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

static enum status run(const struct keyserver_options *o, int argc, char **argv,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct plan plan = {0};
  struct key_load_result *result = calloc(1, sizeof(*result));
  struct recorder *recorder = NULL;
  json_t *about = NULL;

  if (result == NULL) {
    return STATUS_MEMORY;
  }
  TRY(fill_plan(&plan, o, err));
  TRY(recorder_new(&recorder, o->raw, err));
  if (o->server_pid != NULL) {
    TRY(proc_cpu_parse(&recorder->server, o->server_pid, err));
  }
  about = describe(o, &plan, argc, argv);
  recorder_write_run(recorder, about);
  (void)program_raise_nofile();
  TRY(key_load_run(result, &plan.load, recorder, err));
  TRY(recorder_close(recorder, err));
  recorder_summary(recorder, "request", about);
  add_result(about, result);
  bench_print(about);
  about = NULL;

out:
  json_decref(about);
  recorder_free(recorder);
  plan_cleanup(&plan);
  free(result);
  return st;
}

int keyserver_main(int argc, char **argv) {
  struct keyserver_options options = {0};
  struct errmsg err = {0};
  bool is_done = false;
  enum status st = options_parse(&options, &is_done, table, argc, argv, &err);
  if (st == STATUS_OK && is_done) {
    return bench_usage(
        argv[0], "Measures signatures (or pings) of one key server, over mutual TLS.\n", table);
  }
  if (st == STATUS_OK) {
    st = run(&options, argc, argv, &err);
  }
  return st == STATUS_OK ? 0 : bench_fail(argv[0], st, &err);
}
