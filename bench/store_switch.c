// SPDX-License-Identifier: Apache-2.0
// switch-store: switches a CA of a store, and back, while a proxy serves names of it, as
// `deputyctl store switch` does; and asks the proxy's workers what they make of it, from
// the moment at which the writing call has answered: connections that were opened before
// send their ClientHello, one each --probe-every us from then on. What answers shows by
// whom its certificate was issued. A probe that was sent after the answer and got the CA
// that is out of service is stale.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/tls13_client.h"
#include "certstore/store.h"
#include "certstore/store_write.h"
#include "common/base/clock.h"

#define MAX_PROBES 256
#define PROBE_TIMEOUT_MS 5000
#define SETTLE_US 20000  // for the server to accept
#define NAME_ROOM 96
#define READ_LEN 16384

struct switch_options {
  const char *store;
  const char *ca;
  const char *instead;
  const char *target;
  const char *domain;
  int64_t names;
  int64_t name_every;
  int64_t rounds;
  int64_t probes;
  int64_t probe_every_us;
  int64_t before_ms;
  int64_t after_ms;
};

// clang-format off
static const struct option_row options[] = {
  {"store", OPTION_TEXT, offsetof(struct switch_options, store), .is_required = true,
   .help = "the store"},
  {"ca", OPTION_TEXT, offsetof(struct switch_options, ca), .fallback = "Bench CA primary",
   .help = "the CA to take out of service"},
  {"instead", OPTION_TEXT, offsetof(struct switch_options, instead), .fallback = "Bench CA backup",
   .help = "the CA that answers then"},
  {"target", OPTION_TEXT, offsetof(struct switch_options, target), .is_required = true,
   .help = "HOST:PORT of the proxy"},
  {"domain", OPTION_TEXT, offsetof(struct switch_options, domain), .fallback = "bench.test",
   .help = "probes ask for n0.DOMAIN, n1.DOMAIN, ..."},
  {"names", OPTION_COUNT, offsetof(struct switch_options, names), .fallback = "1", .min = 1,
   .max = 100000, .help = "so many of them, in turn"},
  {"name-every", OPTION_COUNT, offsetof(struct switch_options, name_every), .fallback = "1",
   .min = 1, .max = 1e12, .help = "n0, nE, n2E, ... for E"},
  {"rounds", OPTION_COUNT, offsetof(struct switch_options, rounds), .fallback = "1", .min = 1,
   .max = 1000, .help = "switches, each followed by one back"},
  {"probes", OPTION_COUNT, offsetof(struct switch_options, probes), .fallback = "0", .min = 0,
   .max = MAX_PROBES, .help = "connections that ask after each change"},
  {"probe-every", OPTION_COUNT, offsetof(struct switch_options, probe_every_us), .fallback = "50",
   .min = 0, .max = 1000000, .help = "us between two of them"},
  {"before", OPTION_DURATION, offsetof(struct switch_options, before_ms), .fallback = "10ms",
   .min = 1, .max = 60000, .help = "wait before each change"},
  {"after", OPTION_DURATION, offsetof(struct switch_options, after_ms), .fallback = "10ms",
   .min = 1, .max = 60000, .help = "wait after each change"},
  {0},
};
// clang-format on

struct probe {
  int fd;
  struct tls13_client client;
  struct buffer out;
  int64_t sent_us;  // after the answer
  bool is_over;
};

struct bench {
  const struct switch_options *options;
  struct store *store;
  struct address target;
  struct tls13_shared *shared;
  struct probe probes[MAX_PROBES];
  uint64_t num_names_used;
  uint64_t num_failed;
  json_t *events;
};

// --- probes ------------------------------------------------------------------------------

static enum status open_probe(struct bench *bench, struct probe *probe, struct errmsg *err) {
  const int on = 1;
  *probe = (struct probe){.fd = -1};
  probe->fd = socket(bench->target.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe->fd < 0 ||
      connect(probe->fd, (const struct sockaddr *)&bench->target.storage, bench->target.len) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "no connection to the proxy: %s", strerror(errno));
  }
  (void)setsockopt(probe->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return tls13_client_start(&probe->client, bench->shared, bench->num_names_used++, NULL,
                            clock_monotonic_us() / 1000, &probe->out) == TLS13_OK
             ? STATUS_OK
             : errmsg_set(err, STATUS_MEMORY, "no ClientHello can be made");
}

static void close_probe(struct probe *probe) {
  static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
  if (probe->fd >= 0) {
    (void)setsockopt(probe->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(probe->fd);
  }
  probe->fd = -1;
  tls13_client_cleanup(&probe->client);
  buffer_cleanup(&probe->out);
}

static bool flush(struct probe *probe) {
  while (probe->out.len > 0) {
    ssize_t num = send(probe->fd, probe->out.data, probe->out.len, MSG_NOSIGNAL);
    if (num < 0) {
      return false;
    }
    buffer_drop(&probe->out, (size_t)num);
  }
  return true;
}

static void read_probe(struct probe *probe) {
  uint8_t data[READ_LEN];
  ssize_t num = recv(probe->fd, data, sizeof(data), MSG_DONTWAIT);
  if (num < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  probe->is_over = num <= 0 ||
                   tls13_client_feed(&probe->client, data, (size_t)num, &probe->out) != TLS13_OK ||
                   probe->client.state == TLS13_CLIENT_DONE;
}

// await reads until every probe is answered, refused or too late.
static void await(struct bench *bench) {
  const size_t num = (size_t)bench->options->probes;
  const int64_t end_us = clock_monotonic_us() + (int64_t)PROBE_TIMEOUT_MS * 1000;
  for (;;) {
    struct pollfd polled[MAX_PROBES];
    size_t num_open = 0;
    size_t whose[MAX_PROBES];
    for (size_t i = 0; i < num; i++) {
      if (!bench->probes[i].is_over) {
        whose[num_open] = i;
        polled[num_open++] = (struct pollfd){.fd = bench->probes[i].fd, .events = POLLIN};
      }
    }
    int64_t left_ms = (end_us - clock_monotonic_us()) / 1000;
    if (num_open == 0 || left_ms <= 0) {
      return;
    }
    (void)poll(polled, num_open, (int)left_ms);
    for (size_t i = 0; i < num_open; i++) {
      if (polled[i].revents != 0) {
        read_probe(&bench->probes[whose[i]]);
      }
    }
  }
}

static void send_probes(struct bench *bench, int64_t answered_us) {
  for (size_t i = 0; i < (size_t)bench->options->probes; i++) {
    struct probe *probe = &bench->probes[i];
    const int64_t due_us = answered_us + (int64_t)i * bench->options->probe_every_us;
    while (clock_monotonic_us() < due_us) {
    }
    probe->sent_us = clock_monotonic_us() - answered_us;
    probe->is_over = !flush(probe);
  }
}

// judge adds what the probes say to the event.
static void judge(struct bench *bench, json_t *event, const char *wanted) {
  const size_t num = (size_t)bench->options->probes;
  int64_t lag_us = 0;
  int64_t num_stale = 0;
  int64_t num_good = 0;
  json_t *sent = json_array();
  for (size_t i = 0; i < num; i++) {
    const struct probe *probe = &bench->probes[i];
    if (probe->client.state != TLS13_CLIENT_DONE || probe->client.peer == NULL) {
      bench->num_failed += 1;
      continue;
    }
    (void)json_array_append_new(sent, json_integer(probe->sent_us));
    if (strcmp(probe->client.peer->issuer, wanted) == 0) {
      num_good += 1;
    } else {
      num_stale += 1;
      lag_us = probe->sent_us > lag_us ? probe->sent_us : lag_us;
    }
  }
  (void)json_object_set_new(event, "obeyed", json_integer(num_good));
  (void)json_object_set_new(event, "stale", json_integer(num_stale));
  (void)json_object_set_new(event, "last_stale_us", json_integer(lag_us));
  (void)json_object_set_new(event, "sent_us", sent);
}

// --- changes -----------------------------------------------------------------------------

static void wait_ms(int64_t ms) {
  const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)nanosleep(&time, NULL);
}

static enum status find_ca(struct bench *bench, uint8_t out[STATE_SUBJECT_MAX_LEN],
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store_reader *reader = NULL;
  size_t len = 0;
  TRY(store_reader_new(&reader, bench->store, err));
  TRY(store_match(out, &len, reader, STATE_LEVEL_CA, bench->options->ca, err));

out:
  store_reader_free(reader);
  return st;
}

// change_once switches (id 0) or takes change *id back, and lets the probes ask.
static enum status change_once(struct bench *bench, uint64_t *id, const uint8_t *ca,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct switch_options *o = bench->options;
  const bool is_back = *id != 0;
  const struct store_change change = {.level = STATE_LEVEL_CA,
                                      .service = STATE_OUT_OF_SERVICE,
                                      .preferred = STORE_LEAVE,
                                      .dc = STORE_LEAVE,
                                      .author_uid = -1,
                                      .subject = bytes_of(ca, 32),
                                      .reason = bytes_text("bench"),
                                      .author = bytes_text("deputy-bench")};
  size_t num_open = 0;

  wait_ms(o->before_ms);
  for (; num_open < (size_t)o->probes; num_open++) {
    TRY(open_probe(bench, &bench->probes[num_open], err));
  }
  if (num_open > 0) {
    (void)usleep(SETTLE_US);
  }
  const int64_t asked_wall_us = clock_wall_us();
  const int64_t asked_us = clock_monotonic_us();
  TRY(is_back ? store_undo(bench->store, *id, "deputy-bench", clock_wall_s(), err)
              : store_apply(bench->store, id, &change, clock_wall_s(), err));
  const int64_t answered_us = clock_monotonic_us();
  send_probes(bench, answered_us);
  await(bench);
  json_t *event =
      json_pack("{s:s, s:s, s:I, s:I, s:I}", "what", is_back ? "restore" : "switch", "issuer",
                is_back ? o->ca : o->instead, "asked_wall_us", (json_int_t)asked_wall_us,
                "answered_wall_us", (json_int_t)(asked_wall_us + answered_us - asked_us), "took_us",
                (json_int_t)(answered_us - asked_us));
  judge(bench, event, is_back ? o->ca : o->instead);
  (void)json_array_append_new(bench->events, event);
  *id = is_back ? 0 : *id;
  wait_ms(o->after_ms);

out:
  num_open += st != STATUS_OK && num_open < (size_t)o->probes ? 1 : 0;
  for (size_t i = 0; i < num_open; i++) {
    close_probe(&bench->probes[i]);
  }
  return st;
}

static enum status make_shared(struct bench *bench, struct errmsg *err) {
  const struct switch_options *o = bench->options;
  const size_t num = (size_t)o->names;
  char(*texts)[NAME_ROOM] = calloc(num, sizeof(*texts));
  const char **names = calloc(num, sizeof(*names));
  enum status st = STATUS_MEMORY;
  for (size_t i = 0; texts != NULL && names != NULL && i < num; i++) {
    (void)snprintf(texts[i], NAME_ROOM, "n%llu.%.60s",
                   (unsigned long long)i * (unsigned long long)o->name_every, o->domain);
    names[i] = texts[i];
  }
  if (texts != NULL && names != NULL) {
    const struct tls13_options tls = {.names = names,
                                      .num_names = num,
                                      .share = TLS13_SHARE_REUSED,
                                      .suites = {tls13_suite_by_name("aes128")},
                                      .num_suites = 1};
    st = tls13_shared_new(&bench->shared, &tls, err);
  }
  free(names);
  free(texts);
  return st;
}

static enum status measure(struct bench *bench, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_options how = {.mode = STORE_WRITE};
  uint8_t ca[STATE_SUBJECT_MAX_LEN];
  TRY(bench_resolve(&bench->target, bench->options->target, err));
  TRY(make_shared(bench, err));
  TRY(store_open(&bench->store, bench->options->store, &how, err));
  TRY(find_ca(bench, ca, err));
  for (int64_t i = 0; i < bench->options->rounds; i++) {
    uint64_t id = 0;
    TRY(change_once(bench, &id, ca, err));
    TRY(change_once(bench, &id, ca, err));
  }

out:
  return st;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  struct bench *bench = calloc(1, sizeof(*bench));
  enum status st = STATUS_MEMORY;
  if (bench != NULL) {
    bench->options = arg;
    bench->events = json_array();
    st = measure(bench, err);
    (void)json_object_set_new(summary, "events", bench->events);
    (void)json_object_set_new(summary, "probes_failed",
                              json_integer((json_int_t)bench->num_failed));
    store_close(bench->store);
    tls13_shared_free(bench->shared);
  }
  free(bench);
  return st;
}

const struct subcommand store_switch_subcommand = {
    .name = "switch-store",
    .summary = "switches a CA of a store, and asks a proxy's workers about it",
    .help = "Switches a CA of a store and asks who has obeyed.",
    .options = options,
    .options_len = sizeof(struct switch_options),
    .run = run,
};
