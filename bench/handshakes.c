// SPDX-License-Identifier: Apache-2.0
// handshakes: TLS 1.3 handshakes against one server, by the light client
// (tls13_client.h, driven by load.h).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/recorder.h"
#include "bench/run_options.h"
#include "bench/tls13_client.h"
#include "common/base/program.h"

#define DEFAULT_COUNT 1000
#define CONCURRENCY_MAX 100000

struct handshakes_options {
  struct run_options run;
  const char *bind;
  const char *server_name;
  int64_t num_names;
  int64_t first_name;
  int64_t name_every;
  const char *path;
  const char *alpn;
  const char *ciphers;
  int dc;
  int key_share;
  int close_how;
  int64_t concurrency;
  int64_t verify_every;
  int64_t num_tickets;
  int64_t num_requests;
  int64_t download_len;
  int64_t num_held;
  bool resumes;
  bool primes_with_request;
  bool offers_staple;
};

static const char *const dc_words[] = {"on", "off", NULL};
static const char *const share_words[] = {"fresh", "reused", "base", NULL};
static const char *const close_words[] = {"notify", "reset", NULL};

#define FIELD(name) offsetof(struct handshakes_options, name)
// clang-format off
static const struct option_row table[] = {
  {"target", OPTION_TEXT, FIELD(run.target), .is_required = true, .help = "HOST:PORT of the server"},
  {"server-name", OPTION_TEXT, FIELD(server_name), .fallback = "localhost",
   .help = "SNI; several with commas between them take turns; - for none"},
  {"names", OPTION_COUNT, FIELD(num_names), .fallback = "0", .min = 0, .max = TLS13_MAX_NAMES,
   .help = "so many names of make-certificates take turns instead: n0.D, n1.D, ... where "
           "--server-name is D"},
  {"first-name", OPTION_COUNT, FIELD(first_name), .fallback = "0", .min = 0, .max = 1e12,
   .help = "with --names: begin with this one"},
  {"name-every", OPTION_COUNT, FIELD(name_every), .fallback = "1", .min = 1, .max = 1e12,
   .help = "with --names: only each such"},
  {"dc", OPTION_WORD, FIELD(dc), .fallback = "on", .words = dc_words,
   .help = "offer delegated credentials (extension 34)"},
  {"count", OPTION_COUNT, FIELD(run.count), .min = 1, .max = 1e12,
   .help = "handshakes to measure (default 1000, unless there is a duration)"},
  {"duration", OPTION_DURATION, FIELD(run.duration_ms), .min = 1, .max = 86400000,
   .help = "stop starting handshakes after this time; with --hold, how long to hold"},
  RUN_WARMUP_OPTION_ROW(struct handshakes_options, "handshake"),
  {"concurrency", OPTION_COUNT, FIELD(concurrency), .min = 1, .max = CONCURRENCY_MAX,
   .help = "connections at a time (default 1); with --rate, at most so many (default 10000)"},
  {"rate", OPTION_NUMBER, FIELD(run.rate_per_s), .min = 0.001, .max = 1e6,
   .help = "open loop: handshakes started per second, whatever the server does; latency counts "
           "from when each was due"},
  RUN_PACE_OPTION_ROWS(struct handshakes_options),
  {"timeout", OPTION_DURATION, FIELD(run.timeout_ms), .fallback = "10s", .min = 1, .max = 3600000,
   .help = "for a handshake from its start, and for each wait for a response"},
  {"resume", OPTION_FLAG, FIELD(resumes),
   .help = "resume sessions: tickets are got by full handshakes before"},
  {"tickets", OPTION_COUNT, FIELD(num_tickets), .fallback = "16", .min = 1, .max = 100000,
   .help = "with --resume: sessions that take turns"},
  {"prime-request", OPTION_FLAG, FIELD(primes_with_request),
   .help = "with --resume: ask for --path once to get a ticket, for servers that send tickets "
           "only with a response"},
  {"requests", OPTION_COUNT, FIELD(num_requests), .fallback = "0", .min = 0, .max = 1e12,
   .help = "HTTP/1.1 GETs on each connection, one after the other, each read to its end"},
  {"download", OPTION_SIZE, FIELD(download_len), .min = 1, .max = 1e15,
   .help = "one GET on each connection, of which this much is read"},
  {"path", OPTION_TEXT, FIELD(path), .fallback = "/", .help = "what the GETs ask for"},
  {"hold", OPTION_COUNT, FIELD(num_held), .min = 1, .max = CONCURRENCY_MAX,
   .help = "open so many connections and keep them, idle, for --duration or until SIGINT; says "
           "'holding N' on standard error when all are open"},
  {"verify", OPTION_COUNT, FIELD(verify_every), .fallback = "10", .min = 0, .max = 1e9,
   .help = "check CertificateVerify in one of N full handshakes; 0: never"},
  {"key-share", OPTION_WORD, FIELD(key_share), .fallback = "reused", .words = share_words,
   .help = "X25519 key: a new one each time, one for the run, or the base point itself (no cost "
           "to the client, the same to the server)"},
  {"ciphers", OPTION_TEXT, FIELD(ciphers), .fallback = "aes128,chacha20,aes256",
   .help = "suites to offer, in order of preference"},
  {"alpn", OPTION_TEXT, FIELD(alpn), .help = "one protocol to offer (default none)"},
  {"staple", OPTION_FLAG, FIELD(offers_staple), .help = "ask for an OCSP staple"},
  {"close", OPTION_WORD, FIELD(close_how), .fallback = "notify", .words = close_words,
   .help = "end with close_notify and wait up to 1 s for the server's end, or with RST at once"},
  {"bind", OPTION_TEXT, FIELD(bind), .help = "local address of the connections"},
  RUN_REPORT_OPTION_ROWS(struct handshakes_options, "handshake"),
  {0},
};
// clang-format on

// The run as load.h wants it, and the memory behind it.
struct plan {
  struct load_options load;
  struct tls13_options tls;
  char *names_text;
  const char **names;
  char request[BENCH_REQUEST_LEN];
};

static enum status split_names(struct plan *plan, const char *text) {
  size_t num = 1;
  for (const char *p = text; *p != '\0'; p++) {
    num += *p == ',';
  }
  plan->names_text = strdup(strcmp(text, "-") == 0 ? "" : text);
  plan->names = calloc(num, sizeof(*plan->names));
  if (plan->names_text == NULL || plan->names == NULL) {
    return STATUS_MEMORY;
  }
  char *rest = plan->names_text;
  for (size_t i = 0; i < num; i++) {
    plan->names[i] = strsep(&rest, ",");
  }
  plan->load.names = plan->names;
  plan->load.num_names = num;
  plan->tls.names = plan->names;
  plan->tls.num_names = num;
  return STATUS_OK;
}

#define MADE_NAME_LEN 96

// make_names writes the SNIs of --names one after the other.
static enum status make_names(struct plan *plan, const struct handshakes_options *o) {
  const size_t num = (size_t)o->num_names;
  plan->names_text = calloc(num, MADE_NAME_LEN);
  plan->names = calloc(num, sizeof(*plan->names));
  if (plan->names_text == NULL || plan->names == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num; i++) {
    char *name = plan->names_text + i * MADE_NAME_LEN;
    (void)snprintf(name, MADE_NAME_LEN, "n%llu.%.60s",
                   (unsigned long long)o->first_name + i * (unsigned long long)o->name_every,
                   o->server_name);
    plan->names[i] = name;
  }
  plan->load.names = plan->names;
  plan->load.num_names = num;
  plan->tls.names = plan->names;
  plan->tls.num_names = num;
  return STATUS_OK;
}

static enum status read_ciphers(struct plan *plan, const char *text, struct errmsg *err) {
  char copy[64];
  char *rest = copy;
  const char *name = NULL;
  (void)snprintf(copy, sizeof(copy), "%s", text);
  while ((name = strsep(&rest, ",")) != NULL) {
    const struct tls13_suite *suite = tls13_suite_by_name(name);
    if (suite == NULL || plan->tls.num_suites == TLS13_MAX_SUITES) {
      return errmsg_set(err, STATUS_CONFIG,
                        "--ciphers is \"%s\"; it may hold aes128, chacha20, aes256, each once",
                        text);
    }
    plan->tls.suites[plan->tls.num_suites++] = suite;
  }
  return STATUS_OK;
}

static enum status check_together(const struct handshakes_options *o, struct errmsg *err) {
  if (o->num_requests > 0 && o->download_len > 0) {
    return errmsg_set(err, STATUS_CONFIG, "--requests and --download exclude each other");
  }
  if (o->num_held > 0 && (o->run.rate_per_s > 0 || o->run.count > 0)) {
    return errmsg_set(err, STATUS_CONFIG, "--hold says how many: no --count, no --rate with it");
  }
  return STATUS_OK;
}

static enum status fill_plan(struct plan *plan, const struct handshakes_options *o,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  const int64_t concurrency = o->run.rate_per_s > 0 ? 10000 : 1;

  TRY(check_together(o, err));
  plan->load = (struct load_options){
      .concurrency = o->concurrency > 0 ? o->concurrency : concurrency,
      .rate_per_s = o->run.rate_per_s,
      .pacer = run_pacer(&o->run),
      .seed = (uint64_t)o->run.seed,
      .count = o->num_held > 0 ? o->num_held : run_count(&o->run, DEFAULT_COUNT),
      .duration_ms = o->run.duration_ms,
      .warmup = o->num_held > 0 ? 0 : o->run.warmup,
      .timeout_ms = o->run.timeout_ms,
      .num_tickets = o->resumes ? o->num_tickets : 0,
      .primes_with_request = o->primes_with_request,
      .num_requests = o->num_requests,
      .download_len = o->download_len,
      .request = plan->request,
      .num_held = o->num_held,
      .resets = o->close_how == 1,
      .shows_progress = o->run.shows_progress,
  };
  plan->tls = (struct tls13_options){
      .alpn = o->alpn,
      .offers_dc = o->dc == 0,
      .offers_staple = o->offers_staple,
      .share = (enum tls13_share)o->key_share,
      .verify_every = (uint32_t)o->verify_every,
  };
  TRY(bench_resolve(&plan->load.target, o->run.target, err));
  if (o->bind != NULL && address_from_host(&plan->load.bind, o->bind, 0) != STATUS_OK) {
    st = errmsg_set(err, STATUS_CONFIG, "--bind is \"%s\"; it must be an IP address", o->bind);
    goto out;
  }
  TRY(o->num_names > 0 ? make_names(plan, o) : split_names(plan, o->server_name));
  TRY(read_ciphers(plan, o->ciphers, err));
  TRY(bench_request(plan->request, o->path, plan->names[0], err));

out:
  return st;
}

static void plan_cleanup(struct plan *plan) {
  free(plan->names_text);
  free(plan->names);
}

static void describe(json_t *about, const struct handshakes_options *o, const struct plan *plan) {
  (void)json_object_set_new(about, "client", json_string("light"));
  run_describe(about, &o->run, &plan->load.target);
  (void)json_object_set_new(about, "concurrency", json_integer(plan->load.concurrency));
  (void)json_object_set_new(about, "offers_dc", json_boolean(plan->tls.offers_dc));
  (void)json_object_set_new(about, "verify_every", json_integer(o->verify_every));
  (void)json_object_set_new(about, "key_share", json_string(share_words[o->key_share]));
}

static void add_result(json_t *summary, const struct load_result *result) {
  (void)json_object_set_new(summary, "interrupted", json_boolean(result->is_interrupted));
  (void)json_object_set_new(summary, "late_starts", json_integer(result->num_late));
  (void)json_object_set_new(summary, "unclean_closes", json_integer(result->num_unclean));
  (void)json_object_set_new(summary, "held_lost", json_integer(result->num_lost));
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct handshakes_options *o = arg;
  struct plan plan = {0};
  struct load_result result = {0};
  struct recorder *recorder = NULL;

  TRY(fill_plan(&plan, o, err));
  TRY(run_open(&recorder, &o->run, err));
  describe(summary, o, &plan);
  recorder_write_run(recorder, summary);
  (void)program_raise_nofile();
  TRY(load_run(&result, &plan.load, &plan.tls, recorder, err));
  TRY(recorder_close(recorder, err));
  recorder_summary(recorder, "handshake", summary);
  add_result(summary, &result);

out:
  recorder_free(recorder);
  plan_cleanup(&plan);
  return st;
}

const struct subcommand handshakes_subcommand = {
    .name = "handshakes",
    .summary = "TLS 1.3 handshakes by a light client that knows delegated credentials",
    .help =
        "Measures TLS 1.3 handshakes with one server, as many as can be, with a\n"
        "client so light that the server is what is measured.",
    .options = table,
    .options_len = sizeof(struct handshakes_options),
    .run = run,
};
