// SPDX-License-Identifier: Apache-2.0
// handshakes: TLS 1.3 handshakes against one server, by the light client
// (tls13_client.h, driven by load.h).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/recorder.h"
#include "bench/tls13_client.h"
#include "common/base/program.h"

#define DEFAULT_COUNT 1000
#define CONCURRENCY_MAX 100000

struct handshakes_options {
  const char *target;
  const char *bind;
  const char *server_name;
  int64_t num_names;
  int64_t first_name;
  int64_t name_every;
  const char *label;
  const char *server_pid;
  const char *raw;
  const char *path;
  const char *alpn;
  const char *ciphers;
  int dc;
  int key_share;
  int arrivals;
  int close_how;
  int64_t concurrency;
  double rate_per_s;
  int64_t seed;
  int64_t count;
  int64_t duration_ms;
  int64_t warmup;
  int64_t timeout_ms;
  int64_t verify_every;
  int64_t num_tickets;
  int64_t num_requests;
  int64_t download_len;
  int64_t num_held;
  bool resumes;
  bool primes_with_request;
  bool offers_staple;
  bool shows_progress;
};

static const char *const dc_words[] = {"on", "off", NULL};
static const char *const share_words[] = {"fresh", "reused", "base", NULL};
static const char *const arrival_words[] = {"constant", "poisson", NULL};
static const char *const close_words[] = {"notify", "reset", NULL};

#define FIELD(name) offsetof(struct handshakes_options, name)
// clang-format off
static const struct option_row table[] = {
    {"target", OPTION_TEXT, FIELD(target), NULL, 0, 0, NULL,
     "HOST:PORT of the server", true},
    {"server-name", OPTION_TEXT, FIELD(server_name), "localhost", 0, 0, NULL,
     "SNI; several with commas between them take turns; - for none", false},
    {"names", OPTION_COUNT, FIELD(num_names), "0", 0, TLS13_MAX_NAMES, NULL,
     "so many names of make-certificates take turns instead: n0.D, n1.D, ... where --server-name"
     " is D", false},
    {"first-name", OPTION_COUNT, FIELD(first_name), "0", 0, 1e12, NULL,
     "with --names: begin with this one", false},
    {"name-every", OPTION_COUNT, FIELD(name_every), "1", 1, 1e12, NULL,
     "with --names: only each such", false},
    {"dc", OPTION_WORD, FIELD(dc), "on", 0, 0, dc_words,
     "offer delegated credentials (extension 34)", false},
    {"count", OPTION_COUNT, FIELD(count), NULL, 1, 1e12, NULL,
     "handshakes to measure (default 1000, unless there is a duration)", false},
    {"duration", OPTION_DURATION, FIELD(duration_ms), NULL, 1, 86400000, NULL,
     "stop starting handshakes after this time; with --hold, how long to hold", false},
    {"warmup", OPTION_COUNT, FIELD(warmup), "0", 0, 1e9, NULL,
     "handshakes first that are not counted", false},
    {"concurrency", OPTION_COUNT, FIELD(concurrency), NULL, 1, CONCURRENCY_MAX, NULL,
     "connections at a time (default 1); with --rate, at most so many (default 10000)", false},
    {"rate", OPTION_NUMBER, FIELD(rate_per_s), NULL, 0.001, 1e6, NULL,
     "open loop: handshakes started per second, whatever the server does; latency counts from"
     " when each was due", false},
    {"arrivals", OPTION_WORD, FIELD(arrivals), "constant", 0, 0, arrival_words,
     "with --rate, how they are spaced", false},
    {"seed", OPTION_COUNT, FIELD(seed), "1", 0, 1e15, NULL,
     "of Poisson arrivals: the same seed, the same times", false},
    {"timeout", OPTION_DURATION, FIELD(timeout_ms), "10s", 1, 3600000, NULL,
     "for a handshake from its start, and for each wait for a response", false},
    {"resume", OPTION_FLAG, FIELD(resumes), NULL, 0, 0, NULL,
     "resume sessions: tickets are got by full handshakes before", false},
    {"tickets", OPTION_COUNT, FIELD(num_tickets), "16", 1, 100000, NULL,
     "with --resume: sessions that take turns", false},
    {"prime-request", OPTION_FLAG, FIELD(primes_with_request), NULL, 0, 0, NULL,
     "with --resume: ask for --path once to get a ticket, for servers that send tickets only"
     " with a response", false},
    {"requests", OPTION_COUNT, FIELD(num_requests), "0", 0, 1e12, NULL,
     "HTTP/1.1 GETs on each connection, one after the other, each read to its end", false},
    {"download", OPTION_SIZE, FIELD(download_len), NULL, 1, 1e15, NULL,
     "one GET on each connection, of which this much is read", false},
    {"path", OPTION_TEXT, FIELD(path), "/", 0, 0, NULL,
     "what the GETs ask for", false},
    {"hold", OPTION_COUNT, FIELD(num_held), NULL, 1, CONCURRENCY_MAX, NULL,
     "open so many connections and keep them, idle, for --duration or until SIGINT; says"
     " 'holding N' on standard error when all are open", false},
    {"verify", OPTION_COUNT, FIELD(verify_every), "10", 0, 1e9, NULL,
     "check CertificateVerify in one of N full handshakes; 0: never", false},
    {"key-share", OPTION_WORD, FIELD(key_share), "reused", 0, 0, share_words,
     "X25519 key: a new one each time, one for the run, or the base point itself (no cost to"
     " the client, the same to the server)", false},
    {"ciphers", OPTION_TEXT, FIELD(ciphers), "aes128,chacha20,aes256", 0, 0, NULL,
     "suites to offer, in order of preference", false},
    {"alpn", OPTION_TEXT, FIELD(alpn), NULL, 0, 0, NULL,
     "one protocol to offer (default none)", false},
    {"staple", OPTION_FLAG, FIELD(offers_staple), NULL, 0, 0, NULL,
     "ask for an OCSP staple", false},
    {"close", OPTION_WORD, FIELD(close_how), "notify", 0, 0, close_words,
     "end with close_notify and wait up to 1 s for the server's end, or with RST at once", false},
    {"bind", OPTION_TEXT, FIELD(bind), NULL, 0, 0, NULL,
     "local address of the connections", false},
    {"raw", OPTION_TEXT, FIELD(raw), NULL, 0, 0, NULL,
     "file for one JSON line per handshake", false},
    {"server-pid", OPTION_TEXT, FIELD(server_pid), NULL, 0, 0, NULL,
     "process ids of the server, with commas between them: their CPU time in the measured part"
     " goes into the summary", false},
    {"label", OPTION_TEXT, FIELD(label), NULL, 0, 0, NULL,
     "text to keep in the summary", false},
    {"progress", OPTION_FLAG, FIELD(shows_progress), NULL, 0, 0, NULL,
     "a line each second on standard error", false},
    {NULL, OPTION_END, 0, NULL, 0, 0, NULL, NULL, false},
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
  if (o->num_held > 0 && (o->rate_per_s > 0 || o->count > 0)) {
    return errmsg_set(err, STATUS_CONFIG, "--hold says how many: no --count, no --rate with it");
  }
  return STATUS_OK;
}

static enum status fill_plan(struct plan *plan, const struct handshakes_options *o,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  const int64_t concurrency = o->rate_per_s > 0 ? 10000 : 1;

  TRY(check_together(o, err));
  plan->load = (struct load_options){
      .concurrency = o->concurrency > 0 ? o->concurrency : concurrency,
      .rate_per_s = o->rate_per_s,
      .pacer = o->arrivals == 0 ? PACER_CONSTANT : PACER_POISSON,
      .seed = (uint64_t)o->seed,
      .count = o->num_held > 0 ? o->num_held : o->count,
      .duration_ms = o->duration_ms,
      .warmup = o->num_held > 0 ? 0 : o->warmup,
      .timeout_ms = o->timeout_ms,
      .num_tickets = o->resumes ? o->num_tickets : 0,
      .primes_with_request = o->primes_with_request,
      .num_requests = o->num_requests,
      .download_len = o->download_len,
      .request = plan->request,
      .num_held = o->num_held,
      .resets = o->close_how == 1,
      .shows_progress = o->shows_progress,
  };
  if (plan->load.count == 0 && o->duration_ms == 0) {
    plan->load.count = DEFAULT_COUNT;
  }
  plan->tls = (struct tls13_options){
      .alpn = o->alpn,
      .offers_dc = o->dc == 0,
      .offers_staple = o->offers_staple,
      .share = (enum tls13_share)o->key_share,
      .verify_every = (uint32_t)o->verify_every,
  };
  TRY(bench_resolve(&plan->load.target, o->target, err));
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

static json_t *describe(const struct handshakes_options *o, const struct plan *plan, int argc,
                        char **argv) {
  char target[ADDRESS_TEXT_LEN];
  json_t *about = bench_about(argc, argv);
  if (o->label != NULL) {
    (void)json_object_set_new(about, "label", json_string(o->label));
  }
  (void)json_object_set_new(about, "client", json_string("light"));
  (void)json_object_set_new(about, "target",
                            json_string(address_format(target, &plan->load.target)));
  (void)json_object_set_new(about, "loop", json_string(o->rate_per_s > 0 ? "open" : "closed"));
  if (o->rate_per_s > 0) {
    (void)json_object_set_new(about, "rate_per_s", json_real(o->rate_per_s));
  }
  (void)json_object_set_new(about, "concurrency", json_integer(plan->load.concurrency));
  (void)json_object_set_new(about, "offers_dc", json_boolean(plan->tls.offers_dc));
  (void)json_object_set_new(about, "verify_every", json_integer(o->verify_every));
  (void)json_object_set_new(about, "key_share", json_string(share_words[o->key_share]));
  return about;
}

static void add_result(json_t *summary, const struct load_result *result) {
  (void)json_object_set_new(summary, "interrupted", json_boolean(result->is_interrupted));
  (void)json_object_set_new(summary, "late_starts", json_integer(result->num_late));
  (void)json_object_set_new(summary, "unclean_closes", json_integer(result->num_unclean));
  (void)json_object_set_new(summary, "held_lost", json_integer(result->num_lost));
}

static enum status run(const struct handshakes_options *o, int argc, char **argv,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct plan plan = {0};
  struct load_result result = {0};
  struct recorder *recorder = NULL;
  json_t *about = NULL;

  TRY(fill_plan(&plan, o, err));
  TRY(recorder_new(&recorder, o->raw, err));
  if (o->server_pid != NULL) {
    TRY(proc_cpu_parse(&recorder->server, o->server_pid, err));
  }
  about = describe(o, &plan, argc, argv);
  recorder_write_run(recorder, about);
  (void)program_raise_nofile();
  TRY(load_run(&result, &plan.load, &plan.tls, recorder, err));
  TRY(recorder_close(recorder, err));
  recorder_summary(recorder, "handshake", about);
  add_result(about, &result);
  bench_print(about);
  about = NULL;

out:
  json_decref(about);
  recorder_free(recorder);
  plan_cleanup(&plan);
  return st;
}

int handshakes_main(int argc, char **argv) {
  struct handshakes_options options = {0};
  struct errmsg err = {0};
  bool is_done = false;
  enum status st = options_parse(&options, &is_done, table, argc, argv, &err);
  if (st == STATUS_OK && is_done) {
    return bench_usage(argv[0],
                       "Measures TLS 1.3 handshakes with one server, as many as can be, with a\n"
                       "client so light that the server is what is measured.\n",
                       table);
  }
  if (st == STATUS_OK) {
    st = run(&options, argc, argv, &err);
  }
  return st == STATUS_OK ? 0 : bench_fail(argv[0], st, &err);
}
