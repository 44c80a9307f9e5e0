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
#include "common/base/program.h"

#define DEFAULT_COUNT 100
#define THREADS_MAX 2000
#define LATE_NS 1000000

struct nss_options {
  const char *target;
  const char *server_name;
  const char *ca;
  const char *label;
  const char *server_pid;
  const char *raw;
  const char *path;
  int dc;
  int arrivals;
  int64_t concurrency;
  double rate_per_s;
  int64_t seed;
  int64_t count;
  int64_t duration_ms;
  int64_t warmup;
  int64_t timeout_ms;
  int64_t num_tickets;
  int64_t num_requests;
  bool resumes;
  bool primes_with_request;
  bool shows_progress;
};

static const char *const dc_words[] = {"on", "off", NULL};
static const char *const arrival_words[] = {"constant", "poisson", NULL};

#define FIELD(name) offsetof(struct nss_options, name)
// clang-format off
static const struct option_row table[] = {
    {"target", OPTION_TEXT, FIELD(target), NULL, 0, 0, NULL,
     "HOST:PORT of the server", true},
    {"server-name", OPTION_TEXT, FIELD(server_name), "localhost", 0, 0, NULL,
     "SNI, and the name that is verified", false},
    {"ca", OPTION_TEXT, FIELD(ca), NULL, 0, 0, NULL,
     "PEM file of trusted CAs; without it the chain is not verified (all else is)", false},
    {"dc", OPTION_WORD, FIELD(dc), "on", 0, 0, dc_words,
     "offer delegated credentials (extension 34)", false},
    {"count", OPTION_COUNT, FIELD(count), NULL, 1, 1e9, NULL,
     "handshakes to measure (default 100, unless there is a duration)", false},
    {"duration", OPTION_DURATION, FIELD(duration_ms), NULL, 1, 86400000, NULL,
     "stop starting handshakes after this time", false},
    {"warmup", OPTION_COUNT, FIELD(warmup), "0", 0, 1e9, NULL,
     "handshakes first that are not counted", false},
    {"concurrency", OPTION_COUNT, FIELD(concurrency), NULL, 1, THREADS_MAX, NULL,
     "threads, each with one connection at a time (default 1; with --rate 64)", false},
    {"rate", OPTION_NUMBER, FIELD(rate_per_s), NULL, 0.001, 1e5, NULL,
     "open loop: handshakes started per second, as far as there are threads; latency counts"
     " from when each was due", false},
    {"arrivals", OPTION_WORD, FIELD(arrivals), "constant", 0, 0, arrival_words,
     "with --rate, how they are spaced", false},
    {"seed", OPTION_COUNT, FIELD(seed), "1", 0, 1e15, NULL,
     "of Poisson arrivals: the same seed, the same times", false},
    {"timeout", OPTION_DURATION, FIELD(timeout_ms), "10s", 1, 3600000, NULL,
     "for a handshake from its start, and for each wait for a response", false},
    {"resume", OPTION_FLAG, FIELD(resumes), NULL, 0, 0, NULL,
     "resume sessions: got by full handshakes before", false},
    {"tickets", OPTION_COUNT, FIELD(num_tickets), "4", 1, 1000, NULL,
     "with --resume: sessions that take turns", false},
    {"prime-request", OPTION_FLAG, FIELD(primes_with_request), NULL, 0, 0, NULL,
     "with --resume: ask for --path once to get a ticket", false},
    {"requests", OPTION_COUNT, FIELD(num_requests), "0", 0, 1e9, NULL,
     "HTTP/1.1 GETs on each connection, each read to its end", false},
    {"path", OPTION_TEXT, FIELD(path), "/", 0, 0, NULL,
     "what the GETs ask for", false},
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
  const int64_t count = o->count == 0 && o->duration_ms == 0 ? DEFAULT_COUNT : o->count;
  if (count > 0 && team->num_begun >= count + o->warmup) {
    return false;
  }
  return team->deadline_ns == 0 || due_ns < team->deadline_ns;
}

// The first measured handshake starts the clocks; `due_ns` is when it is to begin.
static void start_measuring(struct team *team, int64_t due_ns) {
  const struct nss_options *o = team->options;
  if (team->num_begun >= o->warmup && team->recorder->measure_start_ns == 0) {
    recorder_start_measuring(team->recorder);
    if (o->duration_ms > 0) {
      team->deadline_ns = due_ns + o->duration_ms * 1000000;
    }
  }
}

static bool take_turn(struct team *team, struct turn *out) {
  const struct nss_options *o = team->options;
  const bool is_open = o->rate_per_s > 0;
  (void)pthread_mutex_lock(&team->lock);
  if (is_open && !team->has_pacer) {
    pacer_init(&team->pacer, o->arrivals == 0 ? PACER_CONSTANT : PACER_POISSON, o->rate_per_s,
               recorder_now_ns(), (uint64_t)o->seed);
    team->has_pacer = true;
  }
  const int64_t due_ns = is_open ? pacer_due_ns(&team->pacer) : recorder_now_ns();
  start_measuring(team, due_ns);
  const bool has_turn = has_left(team, due_ns);
  if (has_turn) {
    *out = (struct turn){.number = team->num_begun,
                         .scheduled_ns = is_open ? due_ns : 0,
                         .is_warmup = team->num_begun < o->warmup};
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
    if (team->options->shows_progress && recorder_now_ns() - shown_ns >= 1000000000) {
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

static json_t *describe(const struct team *team, int argc, char **argv) {
  const struct nss_options *o = team->options;
  char target[ADDRESS_TEXT_LEN];
  json_t *about = bench_about(argc, argv);
  if (o->label != NULL) {
    (void)json_object_set_new(about, "label", json_string(o->label));
  }
  (void)json_object_set_new(about, "client", json_string("nss"));
  (void)json_object_set_new(about, "nss_version", json_string(nss_client_version()));
  (void)json_object_set_new(about, "target",
                            json_string(address_format(target, &team->client.target)));
  (void)json_object_set_new(about, "loop", json_string(o->rate_per_s > 0 ? "open" : "closed"));
  if (o->rate_per_s > 0) {
    (void)json_object_set_new(about, "rate_per_s", json_real(o->rate_per_s));
  }
  (void)json_object_set_new(about, "concurrency", json_integer(team->concurrency));
  (void)json_object_set_new(about, "offers_dc", json_boolean(o->dc == 0));
  (void)json_object_set_new(about, "verifies_chain", json_boolean(o->ca != NULL));
  return about;
}

static enum status prepare(struct team *team, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct nss_options *o = team->options;
  team->concurrency = o->concurrency > 0 ? o->concurrency : o->rate_per_s > 0 ? 64 : 1;
  team->client = (struct nss_client_options){.server_name = o->server_name,
                                             .ca_path = o->ca,
                                             .offers_dc = o->dc == 0,
                                             .timeout_ms = o->timeout_ms,
                                             .request = team->request,
                                             .num_requests = o->num_requests};
  TRY(bench_request(team->request, o->path, o->server_name, err));
  TRY(bench_resolve(&team->client.target, o->target, err));
  TRY(nss_client_init(o->ca, err));

out:
  return st;
}

static enum status run(const struct nss_options *o, int argc, char **argv, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct team team = {.options = o, .lock = PTHREAD_MUTEX_INITIALIZER};
  bool is_interrupted = false;
  json_t *about = NULL;

  TRY(prepare(&team, err));
  TRY(recorder_new(&team.recorder, o->raw, err));
  if (o->server_pid != NULL) {
    TRY(proc_cpu_parse(&team.recorder->server, o->server_pid, err));
  }
  about = describe(&team, argc, argv);
  recorder_write_run(team.recorder, about);
  (void)program_raise_nofile();
  if (o->resumes) {
    TRY(prime(&team, err));
  }
  TRY(run_threads(&team, &is_interrupted, err));
  recorder_stop_measuring(team.recorder);
  TRY(recorder_close(team.recorder, err));
  recorder_summary(team.recorder, "handshake", about);
  (void)json_object_set_new(about, "interrupted", json_boolean(is_interrupted));
  (void)json_object_set_new(about, "late_starts", json_integer(team.num_late));
  bench_print(about);
  about = NULL;
  nss_client_shutdown();

out:
  json_decref(about);
  recorder_free(team.recorder);
  free(team.tokens);
  return st;
}

int nss_main(int argc, char **argv) {
  struct nss_options options = {0};
  struct errmsg err = {0};
  bool is_done = false;
  enum status st = options_parse(&options, &is_done, table, argc, argv, &err);
  if (st == STATUS_OK && is_done) {
    return bench_usage(argv[0],
                       "Measures TLS 1.3 handshakes with one server by NSS, the library of\n"
                       "Firefox, which checks everything. Heavy: for latency, not for load.\n",
                       table);
  }
  if (st == STATUS_OK) {
    st = run(&options, argc, argv, &err);
  }
  return st == STATUS_OK ? 0 : bench_fail(argv[0], st, &err);
}
