// SPDX-License-Identifier: Apache-2.0
#include "bench/load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench/load_private.h"

#define MAX_EVENTS 256
#define PROGRESS_NS 1000000000LL

// --- arrivals --------------------------------------------------------------------------

// The first measured handshake starts the clocks; `due_ns` is when it was to begin.
static void start_measuring(struct load *load, int64_t due_ns) {
  if (load->recorder->measure_start_ns != 0 || load->num_begun < load->options->warmup) {
    return;
  }
  recorder_start_measuring(load->recorder);
  load->now_ns = recorder_now_ns();
  if (load->options->duration_ms > 0 && load->options->num_held == 0) {
    load->deadline_ns = due_ns + load->options->duration_ms * NS_PER_MS;
  }
}

static bool has_count_left(const struct load *load) {
  const struct load_options *o = load->options;
  return o->count == 0 || load->num_begun < o->count + o->warmup;
}

static int64_t num_busy(const struct load *load) { return load->num_open - load->num_held; }

// At most so many in one round: when each fails at once, events (a signal) must
// still be seen.
static void fill_closed(struct load *load) {
  for (int i = 0;
       i < MAX_EVENTS && num_busy(load) < load->options->concurrency && has_count_left(load) &&
       !TAILQ_EMPTY(&load->free) && load->now_ns >= load->pause_end_ns;
       i++) {
    start_measuring(load, recorder_now_ns());
    if (load->deadline_ns != 0 && recorder_now_ns() >= load->deadline_ns) {
      return;
    }
    load_conn_begin(load, 0, false);
  }
}

// Starts every arrival that is due and for which there is a place. One that finds
// none stays due, and is charged for its wait.
static void fill_open(struct load *load) {
  for (int i = 0;
       i < MAX_EVENTS && has_count_left(load) && num_busy(load) < load->options->concurrency; i++) {
    const int64_t due_ns = pacer_due_ns(&load->pacer);
    start_measuring(load, due_ns);
    if (due_ns > recorder_now_ns() || (load->deadline_ns != 0 && due_ns >= load->deadline_ns)) {
      return;
    }
    pacer_take(&load->pacer);
    load_conn_begin(load, due_ns, false);
  }
}

static void fill_prime(struct load *load) {
  while (load->num_open < load->options->concurrency &&
         load->num_begun < load->options->num_tickets) {
    load_conn_begin(load, 0, true);
  }
}

// --- phases --------------------------------------------------------------------------

static void compact_tickets(struct load *load) {
  size_t num = 0;
  for (size_t i = 0; i < (size_t)load->options->num_tickets; i++) {
    if (load->slots[i].is_there) {
      load->slots[num++] = load->slots[i];
    }
  }
  load->num_tickets = num;
}

static void enter_run(struct load *load) {
  load->phase = PHASE_RUN;
  load->num_begun = 0;
  if (load->options->rate_per_s > 0) {
    pacer_init(&load->pacer, load->options->pacer, load->options->rate_per_s, recorder_now_ns(),
               load->options->seed);
  }
}

static bool has_arrivals_left(const struct load *load) {
  if (!has_count_left(load)) {
    return false;
  }
  if (load->deadline_ns == 0) {
    return true;
  }
  return load->options->rate_per_s > 0 ? pacer_due_ns(&load->pacer) < load->deadline_ns
                                       : load->now_ns < load->deadline_ns;
}

// What was due and could not even be started is a failure of the server's: every
// place was taken by connections that it did not answer.
static void fail_unstarted(struct load *load) {
  while (load->options->rate_per_s > 0 && has_arrivals_left(load)) {
    const struct sample s = {.number = (uint64_t)load->num_begun,
                             .scheduled_ns = pacer_due_ns(&load->pacer),
                             .failure = "not_started"};
    recorder_add(load->recorder, &s);
    pacer_take(&load->pacer);
    load->num_begun += 1;
  }
}

static void enter_drain(struct load *load, bool is_interrupted) {
  load->phase = PHASE_DRAIN;
  recorder_stop_measuring(load->recorder);
  for (size_t i = 0; i < load->num_conns; i++) {
    struct conn *conn = &load->conns[i];
    if (conn->load == NULL || conn->fd < 0) {
      continue;
    }
    if (conn->state == CONN_HELD) {
      load->num_held -= 1;
      conn->state = CONN_RESPONSE;
      load_conn_close(conn);
    } else if (is_interrupted && conn->state != CONN_CLOSING) {
      load_conn_fail(conn, FAILURE_ABANDONED);
    }
  }
}

static void advance_run(struct load *load) {
  if (load->options->rate_per_s > 0) {
    fill_open(load);
  } else {
    fill_closed(load);
  }
  if (load->deadline_ns != 0 &&
      load->now_ns >= load->deadline_ns + load->options->timeout_ms * NS_PER_MS) {
    fail_unstarted(load);
  }
  // Connections that only wait for the server's goodbye are not waited for.
  if (has_arrivals_left(load) || !TAILQ_EMPTY(&load->waiting)) {
    return;
  }
  if (load->num_held > 0) {
    load->phase = PHASE_HOLD;
    recorder_stop_measuring(load->recorder);
    load->hold_end_ns =
        load->options->duration_ms == 0 ? 0 : load->now_ns + load->options->duration_ms * NS_PER_MS;
    (void)fprintf(stderr, "deputy-bench: holding %lld connections\n", (long long)load->num_held);
    return;
  }
  enter_drain(load, false);
}

static enum status advance(struct load *load, struct errmsg *err) {
  switch (load->phase) {
    case PHASE_PRIME:
      fill_prime(load);
      if (load->num_open > 0 || load->num_begun < load->options->num_tickets) {
        break;
      }
      if (load->num_tickets == 0) {
        return errmsg_set(
            err, STATUS_UNAVAILABLE, "no ticket came from the server in %lld full handshakes%s%s%s",
            (long long)load->options->num_tickets,
            load->prime_failure[0] == '\0' ? "" : "; the last failure: ", load->prime_failure,
            load->options->primes_with_request
                ? ""
                : "; some send them only with a response: try --prime-request");
      }
      compact_tickets(load);
      enter_run(load);
      advance_run(load);
      break;
    case PHASE_RUN:
      advance_run(load);
      break;
    case PHASE_HOLD:
      if (load->hold_end_ns != 0 && load->now_ns >= load->hold_end_ns) {
        enter_drain(load, false);
      }
      break;
    case PHASE_DRAIN:
      break;
  }
  return STATUS_OK;
}

// --- the loop ------------------------------------------------------------------------

static void expire(struct load *load, struct conn_list *list) {
  struct conn *conn = NULL;
  while ((conn = TAILQ_FIRST(list)) != NULL && conn->deadline_ns <= load->now_ns) {
    load_conn_time_out(conn);
  }
}

static void sooner(int64_t *due_ns, int64_t other_ns) {
  if (other_ns != 0 && (*due_ns == 0 || other_ns < *due_ns)) {
    *due_ns = other_ns;
  }
}

// When something is to be done even if no event comes.
static int64_t next_due_ns(const struct load *load) {
  int64_t due_ns = 0;
  const struct conn *conn = TAILQ_FIRST(&load->waiting);
  sooner(&due_ns, conn == NULL ? 0 : conn->deadline_ns);
  conn = TAILQ_FIRST(&load->lingering);
  sooner(&due_ns, conn == NULL ? 0 : conn->deadline_ns);
  if (load->phase == PHASE_RUN) {
    const bool has_place = num_busy(load) < load->options->concurrency;
    if (load->options->rate_per_s > 0 && has_place && has_arrivals_left(load)) {
      sooner(&due_ns, pacer_due_ns(&load->pacer));
    }
    if (load->pause_end_ns > load->now_ns) {
      sooner(&due_ns, load->pause_end_ns);
    }
    if (load->deadline_ns != 0) {
      sooner(&due_ns, load->now_ns < load->deadline_ns
                          ? load->deadline_ns
                          : load->deadline_ns + load->options->timeout_ms * NS_PER_MS);
    }
  }
  if (load->phase == PHASE_HOLD) {
    sooner(&due_ns, load->hold_end_ns);
  }
  if (load->options->shows_progress) {
    sooner(&due_ns, load->progress_ns + PROGRESS_NS);
  }
  return due_ns;
}

// Sets the timer only when its time changed: deadlines seldom do, and each setting
// is a system call.
static void set_timer(struct load *load, int64_t *set_ns) {
  const int64_t due_ns = next_due_ns(load);
  // A later time may wait until the timer fires early, once; an earlier one may not.
  if (due_ns == 0 || due_ns == *set_ns ||
      (*set_ns != 0 && *set_ns > load->now_ns && due_ns > *set_ns)) {
    return;
  }
  const struct itimerspec spec = {
      .it_value = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000}};
  (void)timerfd_settime(load->timer, TFD_TIMER_ABSTIME, &spec, NULL);
  *set_ns = due_ns;
}

static void show_progress(struct load *load) {
  const struct recorder *r = load->recorder;
  if (!load->options->shows_progress || load->now_ns < load->progress_ns + PROGRESS_NS) {
    return;
  }
  const double seconds = (double)(load->now_ns - load->progress_ns) / 1e9;
  const uint64_t num = r->num_ok + r->num_warmup;
  (void)fprintf(stderr, "deputy-bench: %.1f s: %llu ok, %llu failed, %lld open, %.0f/s\n",
                (double)(load->now_ns - r->zero_ns) / 1e9, (unsigned long long)r->num_ok,
                (unsigned long long)r->num_failed, (long long)load->num_open,
                (double)(num - load->progress_num) / seconds);
  load->progress_ns = load->now_ns;
  load->progress_num = num;
}

static void take_signal(struct load *load) {
  struct signalfd_siginfo info;
  if (read(load->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
    load->result->is_interrupted = true;
    enter_drain(load, true);
    // A second one, or a server that does not close: no more waiting.
    struct conn *conn = NULL;
    while ((conn = TAILQ_FIRST(&load->lingering)) != NULL) {
      load_conn_release(conn);
    }
  }
}

static void take_events(struct load *load, const struct epoll_event *events, int num,
                        int64_t *timer_ns) {
  for (int i = 0; i < num; i++) {
    uint64_t expirations = 0;
    if (events[i].data.ptr == &load->timer) {
      (void)!read(load->timer, &expirations, sizeof(expirations));
      *timer_ns = 0;
    } else if (events[i].data.ptr == &load->signals) {
      take_signal(load);
    } else {
      load->now_ns = recorder_now_ns();
      load_conn_on_event(events[i].data.ptr, events[i].events);
    }
  }
}

// A closed loop that stopped only to look at events.
static bool has_more_to_begin(const struct load *load) {
  return load->phase == PHASE_RUN && load->options->rate_per_s <= 0 && has_arrivals_left(load) &&
         num_busy(load) < load->options->concurrency && !TAILQ_EMPTY(&load->free) &&
         load->now_ns >= load->pause_end_ns;
}

static enum status serve(struct load *load, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct epoll_event events[MAX_EVENTS];
  int64_t timer_ns = 0;

  while (true) {
    load->now_ns = recorder_now_ns();
    expire(load, &load->waiting);
    expire(load, &load->lingering);
    TRY(advance(load, err));
    if (load->phase == PHASE_DRAIN && load->num_open == 0) {
      break;
    }
    set_timer(load, &timer_ns);
    const int num = epoll_wait(load->epoll, events, MAX_EVENTS, has_more_to_begin(load) ? 0 : -1);
    if (num < 0 && errno != EINTR) {
      st = errmsg_set(err, STATUS_SYSTEM, "epoll_wait: %s", strerror(errno));
      goto out;
    }
    take_events(load, events, num, &timer_ns);
    show_progress(load);
  }

out:
  return st;
}

// --- set-up ----------------------------------------------------------------------------

static enum status watch(struct load *load, int fd, void *tag, struct errmsg *err) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
  if (fd < 0 || epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "no event loop: %s", strerror(errno));
  }
  return STATUS_OK;
}

static enum status open_loop(struct load *load, const sigset_t *signals, struct errmsg *err) {
  enum status st = STATUS_OK;
  (void)prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
  load->epoll = epoll_create1(EPOLL_CLOEXEC);
  load->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  load->signals = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
  TRY(watch(load, load->timer, &load->timer, err));
  TRY(watch(load, load->signals, &load->signals, err));

out:
  return st;
}

static enum status make_conns(struct load *load, struct errmsg *err) {
  const struct load_options *o = load->options;
  load->num_conns = (size_t)(o->concurrency + o->num_held);
  load->conns = calloc(load->num_conns, sizeof(*load->conns));
  load->read_buffer = malloc(LOAD_READ_BUFFER_LEN);
  if (o->num_tickets > 0) {
    load->slots = calloc((size_t)o->num_tickets, sizeof(*load->slots));
  }
  if (load->conns == NULL || load->read_buffer == NULL ||
      (o->num_tickets > 0 && load->slots == NULL)) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for %zu connections", load->num_conns);
  }
  TAILQ_INIT(&load->free);
  TAILQ_INIT(&load->waiting);
  TAILQ_INIT(&load->lingering);
  for (size_t i = 0; i < load->num_conns; i++) {
    load->conns[i].fd = -1;
    TAILQ_INSERT_TAIL(&load->free, &load->conns[i], link);
  }
  return STATUS_OK;
}

static void close_fd(int fd) {
  if (fd >= 0) {
    (void)close(fd);
  }
}

static void load_cleanup(struct load *load) {
  for (size_t i = 0; load->conns != NULL && i < load->num_conns; i++) {
    close_fd(load->conns[i].fd);
    tls13_client_cleanup(&load->conns[i].client);
    buffer_cleanup(&load->conns[i].out);
  }
  free(load->conns);
  free(load->slots);
  free(load->read_buffer);
  tls13_shared_free(load->shared);
  close_fd(load->epoll);
  close_fd(load->timer);
  close_fd(load->signals);
}

enum status load_run(struct load_result *out, const struct load_options *options,
                     const struct tls13_options *tls, struct recorder *recorder,
                     struct errmsg *err) {
  enum status st = STATUS_OK;
  struct tls13_options tls_options = *tls;
  struct load load = {.options = options,
                      .result = out,
                      .recorder = recorder,
                      .epoll = -1,
                      .timer = -1,
                      .signals = -1};
  sigset_t signals;
  sigset_t before;

  *out = (struct load_result){0};
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)sigaddset(&signals, SIGTERM);
  (void)sigprocmask(SIG_BLOCK, &signals, &before);
  tls_options.on_data = load_conn_on_data;
  tls_options.on_ticket = options->num_tickets > 0 ? load_conn_on_ticket : NULL;
  TRY(tls13_shared_new(&load.shared, &tls_options, err));
  TRY(make_conns(&load, err));
  TRY(open_loop(&load, &signals, err));
  load.progress_ns = recorder_now_ns();
  if (options->num_tickets > 0) {
    load.phase = PHASE_PRIME;
  } else {
    enter_run(&load);
  }
  TRY(serve(&load, err));

out:
  recorder_stop_measuring(recorder);
  load_cleanup(&load);
  (void)sigprocmask(SIG_SETMASK, &before, NULL);
  return st;
}
