// SPDX-License-Identifier: Apache-2.0
// nss: TLS 1.3 handshakes against one server by NSS, as a visitor with Firefox would
// make them, each on a blocking thread (nss_client.h). Output as of handshakes.c.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/nss_client.h"
#include "bench/pacer.h"
#include "bench/recorder.h"
#include "bench/run_options.h"
#include "common/base/program.h"

#define DEFAULT_COUNT 100
#define THREADS_MAX 2000
#define LATE_NS 1000000

struct nss_options {
  struct run_options run;
  const char *server_name;
  const char *ca;
  const char *path;
  int dc;
  int64_t concurrency;
  int64_t num_tickets;
  int64_t num_requests;
  bool resumes;
  bool primes_with_request;
};

static const char *const dc_words[] = {"on", "off", NULL};

#define FIELD(name) offsetof(struct nss_options, name)
// clang-format off
static const struct option_row table[] = {
  {"target", OPTION_TEXT, FIELD(run.target), .is_required = true, .help = "HOST:PORT of the server"},
  {"server-name", OPTION_TEXT, FIELD(server_name), .fallback = "localhost",
   .help = "SNI, and the name that is verified"},
  {"ca", OPTION_TEXT, FIELD(ca),
   .help = "PEM file of trusted CAs; without it the chain is not verified (all else is)"},
  {"dc", OPTION_WORD, FIELD(dc), .fallback = "on", .words = dc_words,
   .help = "offer delegated credentials (extension 34)"},
  {"count", OPTION_COUNT, FIELD(run.count), .min = 1, .max = 1e9,
   .help = "handshakes to measure (default 100, unless there is a duration)"},
  {"duration", OPTION_DURATION, FIELD(run.duration_ms), .min = 1, .max = 86400000,
   .help = "stop starting handshakes after this time"},
  RUN_WARMUP_OPTION_ROW(struct nss_options, "handshake"),
  {"concurrency", OPTION_COUNT, FIELD(concurrency), .min = 1, .max = THREADS_MAX,
   .help = "threads, each with one connection at a time (default 1; with --rate 64)"},
  {"rate", OPTION_NUMBER, FIELD(run.rate_per_s), .min = 0.001, .max = 1e5,
   .help = "open loop: handshakes started per second, as far as there are threads; latency "
           "counts from when each was due"},
  RUN_PACE_OPTION_ROWS(struct nss_options),
  {"timeout", OPTION_DURATION, FIELD(run.timeout_ms), .fallback = "10s", .min = 1, .max = 3600000,
   .help = "for a handshake from its start, and for each wait for a response"},
  {"resume", OPTION_FLAG, FIELD(resumes), .help = "resume sessions: got by full handshakes before"},
  {"tickets", OPTION_COUNT, FIELD(num_tickets), .fallback = "4", .min = 1, .max = 1000,
   .help = "with --resume: sessions that take turns"},
  {"prime-request", OPTION_FLAG, FIELD(primes_with_request),
   .help = "with --resume: ask for --path once to get a ticket"},
  {"requests", OPTION_COUNT, FIELD(num_requests), .fallback = "0", .min = 0, .max = 1e9,
   .help = "HTTP/1.1 GETs on each connection, each read to its end"},
  {"path", OPTION_TEXT, FIELD(path), .fallback = "/", .help = "what the GETs ask for"},
  RUN_REPORT_OPTION_ROWS(struct nss_options, "handshake"),
  {0},
};
// clang-format on

// What the threads share; all but `stop` is under the lock.
struct team {
  const struct nss_options *options;
  struct nss_client_options client;
  char request[BENCH_REQUEST_LEN];
  struct nss_token *tokens;
  size_t num_tokens;
  int64_t concurrency;
  atomic_bool stop;
  pthread_mutex_t lock;
  struct recorder *recorder;
  struct pacer pacer;
  bool has_pacer;
  int64_t num_begun;
  int64_t num_late;
  int64_t deadline_ns;
  int64_t num_running;  // threads
};

// An arrival that a thread took.
struct turn {
  int64_t number;
  int64_t scheduled_ns;  // 0: now
  bool is_warmup;
};

static bool has_left(const struct team *team, int64_t due_ns) {
  const struct nss_options *o = team->options;
  const int64_t count = run_count(&o->run, DEFAULT_COUNT);
  if (count > 0 && team->num_begun >= count + o->run.warmup) {
    return false;
  }
  return team->deadline_ns == 0 || due_ns < team->deadline_ns;
}

// The first measured handshake starts the clocks; `due_ns` is when it is to begin.
static void start_measuring(struct team *team, int64_t due_ns) {
  const struct nss_options *o = team->options;
  if (team->num_begun >= o->run.warmup && team->recorder->measure_start_ns == 0) {
    recorder_start_measuring(team->recorder);
    if (o->run.duration_ms > 0) {
      team->deadline_ns = due_ns + o->run.duration_ms * 1000000;
    }
  }
}

static bool take_turn(struct team *team, struct turn *out) {
  const struct nss_options *o = team->options;
  const bool is_open = o->run.rate_per_s > 0;
  (void)pthread_mutex_lock(&team->lock);
  if (is_open && !team->has_pacer) {
    pacer_init(&team->pacer, run_pacer(&o->run), o->run.rate_per_s, recorder_now_ns(),
               (uint64_t)o->run.seed);
    team->has_pacer = true;
  }
  const int64_t due_ns = is_open ? pacer_due_ns(&team->pacer) : recorder_now_ns();
  start_measuring(team, due_ns);
  const bool has_turn = has_left(team, due_ns);
  if (has_turn) {
    *out = (struct turn){.number = team->num_begun,
                         .scheduled_ns = is_open ? due_ns : 0,
                         .is_warmup = team->num_begun < o->run.warmup};
    team->num_begun += 1;
    if (is_open) {
      pacer_take(&team->pacer);
    }
  }
  (void)pthread_mutex_unlock(&team->lock);
  return has_turn;
}

// Sleeps until then, in steps, so that a signal ends it.
static void sleep_until(struct team *team, int64_t due_ns) {
  while (!atomic_load(&team->stop)) {
    int64_t until_ns = recorder_now_ns() + 200000000;
    if (due_ns <= until_ns - 200000000) {
      return;
    }
    until_ns = due_ns < until_ns ? due_ns : until_ns;
    const struct timespec t = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
  }
}

static void make_handshake(struct team *team, const struct turn *turn, struct hdr *requests) {
  char reason[NSS_REASON_LEN];
  char issuer[128];
  struct sample s = {.number = (uint64_t)turn->number,
                     .scheduled_ns = turn->scheduled_ns,
                     .is_warmup = turn->is_warmup};
  const struct nss_token *token =
      team->num_tokens == 0 ? NULL : &team->tokens[(size_t)turn->number % team->num_tokens];
  nss_client_run(&s, reason, issuer, &team->client, token, NULL, turn->is_warmup ? NULL : requests);
  (void)pthread_mutex_lock(&team->lock);
  recorder_add(team->recorder, &s);
  team->num_late += !s.is_warmup && s.start_ns - s.scheduled_ns > LATE_NS;
  (void)pthread_mutex_unlock(&team->lock);
}

static void *work(void *arg) {
  struct team *team = arg;
  struct turn turn;
  struct hdr *requests = calloc(1, sizeof(*requests));
  while (requests != NULL && !atomic_load(&team->stop) && take_turn(team, &turn)) {
    sleep_until(team, turn.scheduled_ns);
    if (!atomic_load(&team->stop)) {
      make_handshake(team, &turn, requests);
    }
  }
  (void)pthread_mutex_lock(&team->lock);
  if (requests != NULL) {
    hdr_merge(&team->recorder->latencies[LATENCY_REQUEST], requests);
  }
  team->num_running -= 1;
  (void)pthread_mutex_unlock(&team->lock);
  free(requests);
  return NULL;
}

// Full handshakes, one after the other, for the sessions that are resumed later.
static enum status prime(struct team *team, struct errmsg *err) {
  const struct nss_options *o = team->options;
  char reason[NSS_REASON_LEN] = "";
  char issuer[128];
  team->tokens = calloc((size_t)o->num_tickets, sizeof(*team->tokens));
  if (team->tokens == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  struct nss_client_options client = team->client;
  client.num_requests = o->primes_with_request ? 1 : 0;
  for (int64_t i = 0; i < o->num_tickets; i++) {
    struct sample s = {0};
    struct nss_token *token = &team->tokens[team->num_tokens];
    nss_client_run(&s, reason, issuer, &client, NULL, token, NULL);
    team->num_tokens += s.failure == NULL && token->len > 0;
    token->len = s.failure == NULL ? token->len : 0;
  }
  if (team->num_tokens == 0) {
    return errmsg_set(
        err, STATUS_UNAVAILABLE, "no ticket came from the server in %lld full handshakes%s%s",
        (long long)o->num_tickets, reason[0] == '\0' ? "" : "; the last failure: ", reason);
  }
  return STATUS_OK;
}

static int64_t num_running(struct team *team) {
  (void)pthread_mutex_lock(&team->lock);
  const int64_t num = team->num_running;
  (void)pthread_mutex_unlock(&team->lock);
  return num;
}

static void show_progress(struct team *team) {
  (void)pthread_mutex_lock(&team->lock);
  const struct recorder *r = team->recorder;
  (void)fprintf(stderr, "deputy-bench: %.1f s: %llu ok, %llu failed\n",
                (double)(recorder_now_ns() - r->zero_ns) / 1e9, (unsigned long long)r->num_ok,
                (unsigned long long)r->num_failed);
  (void)pthread_mutex_unlock(&team->lock);
}

// Waits for the threads and for signals; true when a signal came.
static bool wait_for_team(struct team *team, const sigset_t *signals) {
  static const struct timespec step = {.tv_nsec = 20000000};
  bool is_interrupted = false;
  int64_t shown_ns = recorder_now_ns();
  while (num_running(team) > 0) {
    if (sigtimedwait(signals, NULL, &step) > 0) {
      is_interrupted = true;
      atomic_store(&team->stop, true);
    }
    if (team->options->run.shows_progress && recorder_now_ns() - shown_ns >= 1000000000) {
      show_progress(team);
      shown_ns += 1000000000;
    }
  }
  return is_interrupted;
}

static enum status start_threads(struct team *team, pthread_t *threads, int64_t *out_num,
                                 struct errmsg *err) {
  for (*out_num = 0; *out_num < team->concurrency; *out_num += 1) {
    (void)pthread_mutex_lock(&team->lock);
    const bool is_started = pthread_create(&threads[*out_num], NULL, work, team) == 0;
    team->num_running += is_started;
    (void)pthread_mutex_unlock(&team->lock);
    if (!is_started) {
      atomic_store(&team->stop, true);
      return errmsg_set(err, STATUS_SYSTEM, "only %lld threads can be started",
                        (long long)*out_num);
    }
  }
  return STATUS_OK;
}

static enum status run_threads(struct team *team, bool *out_is_interrupted, struct errmsg *err) {
  sigset_t signals;
  int64_t num = 0;
  pthread_t *threads = calloc((size_t)team->concurrency, sizeof(*threads));
  if (threads == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)sigaddset(&signals, SIGTERM);
  (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);  // threads inherit it
  const enum status st = start_threads(team, threads, &num, err);
  *out_is_interrupted = wait_for_team(team, &signals);
  for (int64_t i = 0; i < num; i++) {
    (void)pthread_join(threads[i], NULL);
  }
  free(threads);
  return st;
}

static void describe(json_t *about, const struct team *team) {
  const struct nss_options *o = team->options;
  (void)json_object_set_new(about, "client", json_string("nss"));
  (void)json_object_set_new(about, "nss_version", json_string(nss_client_version()));
  run_describe(about, &o->run, &team->client.target);
  (void)json_object_set_new(about, "concurrency", json_integer(team->concurrency));
  (void)json_object_set_new(about, "offers_dc", json_boolean(o->dc == 0));
  (void)json_object_set_new(about, "verifies_chain", json_boolean(o->ca != NULL));
}

static enum status prepare(struct team *team, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct nss_options *o = team->options;
  team->concurrency = o->concurrency > 0 ? o->concurrency : o->run.rate_per_s > 0 ? 64 : 1;
  team->client = (struct nss_client_options){.server_name = o->server_name,
                                             .ca_path = o->ca,
                                             .offers_dc = o->dc == 0,
                                             .timeout_ms = o->run.timeout_ms,
                                             .request = team->request,
                                             .num_requests = o->num_requests};
  TRY(bench_request(team->request, o->path, o->server_name, err));
  TRY(bench_resolve(&team->client.target, o->run.target, err));
  TRY(nss_client_init(o->ca, err));

out:
  return st;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct nss_options *o = arg;
  struct team team = {.options = o, .lock = PTHREAD_MUTEX_INITIALIZER};
  bool is_interrupted = false;

  TRY(prepare(&team, err));
  TRY(run_open(&team.recorder, &o->run, err));
  describe(summary, &team);
  recorder_write_run(team.recorder, summary);
  (void)program_raise_nofile();
  if (o->resumes) {
    TRY(prime(&team, err));
  }
  TRY(run_threads(&team, &is_interrupted, err));
  recorder_stop_measuring(team.recorder);
  TRY(recorder_close(team.recorder, err));
  recorder_summary(team.recorder, "handshake", summary);
  (void)json_object_set_new(summary, "interrupted", json_boolean(is_interrupted));
  (void)json_object_set_new(summary, "late_starts", json_integer(team.num_late));
  nss_client_shutdown();

out:
  recorder_free(team.recorder);
  free(team.tokens);
  return st;
}

const struct subcommand nss_subcommand = {
    .name = "nss",
    .summary = "TLS 1.3 handshakes by NSS, which checks all that Firefox would",
    .help =
        "Measures TLS 1.3 handshakes with one server by NSS, the library of\n"
        "Firefox, which checks everything. Heavy: for latency, not for load.",
    .options = table,
    .options_len = sizeof(struct nss_options),
    .run = run,
};
