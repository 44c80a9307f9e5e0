// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/keyclient/keyclient.h"
#include "proxy/connection/admit.h"
#include "proxy/connection/conn.h"
#include "proxy/connection/transport.h"
#include "proxy/handshake/signer.h"

#define ACCEPT_MAX 64            // accepts in one round
#define ACCEPT_DRAIN_MAX 100000  // when the queue is emptied for the last time
#define ACCEPT_RETRY_MS 100      // after descriptors or memory ran out
#define DOOR_MS 200              // from the word to drain to the last look into the queues

// What a worker keeps in hand for its connections.
#define KEPT_CONNS 4096
#define KEPT_BLOCKS 64
#define KEPT_HANDSHAKES 512
#define KEPT_SIGNINGS 64

// --- accepting ---------------------------------------------------------------------

static bool is_out_of_resources(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_accept_retry(void *arg) {
  struct listening *listening = arg;
  if (io_resume(&listening->io) != STATUS_OK) {
    timer_arm_ms(&listening->retry, ACCEPT_RETRY_MS);
  }
}

static void back_off(struct listening *listening) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  count(&listening->worker->counters.refused[REFUSAL_DESCRIPTORS]);
  io_pause(&listening->io);
  timer_arm_ms(&listening->retry, ACCEPT_RETRY_MS);
  if (log_gate_pass(&gate, 1, &num_held)) {
    log_error(0, "accept_paused", "reason=\"%s\" held=%llu", strerror(errno),
              (unsigned long long)num_held);
  }
}

// Accepts at most `max`, and returns how many came; fewer: the queue is empty.
static unsigned accept_some(struct listening *listening, unsigned max) {
  unsigned num = 0;
  while (num < max) {
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int fd = -1;
    peer.ss_family = AF_UNSPEC;
    fd = accept4(listening->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      num += 1;
      admit(listening, fd, &peer);
    } else if (errno == EAGAIN) {
      break;
    } else if (is_out_of_resources(errno)) {
      back_off(listening);
      break;
    }
    // Anything else is about the one connection that was not to be (accept(2)).
  }
  return num;
}

// The queue is level-triggered, so one accept for each event is enough; when more
// wait, more are taken at a time, so that a burst costs few rounds of the loop.
static void on_acceptable(void *arg, unsigned ready) {
  struct listening *listening = arg;
  unsigned num = accept_some(listening, listening->budget);
  (void)ready;
  if (num == listening->budget) {
    listening->budget = num * 2 < ACCEPT_MAX ? num * 2 : ACCEPT_MAX;
  } else {
    listening->budget = num > 1 ? num : 1;
  }
}

static void stop_listening(struct listening *listening) {
  if (listening->id != 0) {
    io_cleanup(&listening->io);
    timer_cleanup(&listening->retry);
    (void)close(listening->fd);
    *listening = (struct listening){.fd = -1};
  }
}

static void start_listening(struct worker *worker, uint64_t id, int fd, bool is_tcp) {
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    struct listening *listening = &worker->listening[i];
    if (listening->id != 0) {
      continue;
    }
    *listening =
        (struct listening){.worker = worker, .id = id, .fd = fd, .is_tcp = is_tcp, .budget = 1};
    if (timer_init(&listening->retry, worker->loop, on_accept_retry, listening) != STATUS_OK ||
        io_init_listener(&listening->io, worker->loop, fd, on_acceptable, listening) != STATUS_OK) {
      log_error(0, "listen_failed", "worker=%u reason=no_memory", worker->index);
      stop_listening(listening);
    }
    return;
  }
  CHECK(false);  // twice the number that a configuration may have
}

// Where the plan has a listening socket; plan->num: nowhere.
static size_t index_in(const struct listening_plan *plan, uint64_t id) {
  size_t i = 0;
  while (i < plan->num && plan->items[i].id != id) {
    i++;
  }
  return i;
}

// Before the plan's site is in force: who waits at a socket that goes is still served, and
// by the rules under which it was opened.
static void stop_others(struct worker *worker, const struct listening_plan *plan) {
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    struct listening *listening = &worker->listening[i];
    if (listening->id != 0 && index_in(plan, listening->id) == plan->num) {
      // Those who have connected already are served; later ones find the port closed.
      (void)accept_some(listening, ACCEPT_DRAIN_MAX);
      stop_listening(listening);
    }
  }
}

static void listen_by(struct worker *worker, const struct listening_plan *plan) {
  for (size_t i = 0; i < plan->num; i++) {
    if (plan->items[i].fd >= 0) {
      start_listening(worker, plan->items[i].id, plan->items[i].fd, plan->items[i].is_tcp);
    }
  }
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    struct listening *listening = &worker->listening[i];
    if (listening->id != 0) {
      const size_t at = index_in(plan, listening->id);
      CHECK(at < plan->num);  // stop_others
      listening->index = plan->items[at].index;
    }
  }
}

// --- what control says -----------------------------------------------------------------

struct site_message {
  struct worker *worker;
  struct view *view;
  struct listening_plan plan;
};

static void on_site(void *arg) {
  struct site_message *message = arg;
  if (!message->worker->is_draining) {
    stop_others(message->worker, &message->plan);
  }
  if (message->view != NULL) {
    view_enter(message->view);
  }
  if (!message->worker->is_draining) {
    listen_by(message->worker, &message->plan);
  }
  free(message);
}

void worker_post_site(struct worker *worker, struct view *view, const struct listening_plan *plan) {
  struct site_message *message = malloc(sizeof(*message));
  // Some workers have the site already: there is no way back (as in loop_post).
  CHECK(message != NULL);
  *message = (struct site_message){worker, view, *plan};
  loop_post(worker->loop, on_site, message);
}

void worker_post_listening(struct worker *worker, const struct listening_plan *plan) {
  worker_post_site(worker, NULL, plan);
}

static void on_drained(void *arg) {
  struct worker *worker = arg;
  worker->host->on_drained(worker->host->arg, worker);
}

static void tell_if_drained(struct worker *worker) {
  if (worker->is_draining && worker->num_conns == 0 && !worker->is_drained) {
    worker->is_drained = true;
    loop_post(worker->host->loop, on_drained, worker);
  }
}

// The last look into the queues; who waits there is served.
static void leave_door(struct worker *worker) {
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    if (worker->listening[i].id != 0) {
      (void)accept_some(&worker->listening[i], ACCEPT_DRAIN_MAX);
      stop_listening(&worker->listening[i]);
    }
  }
  timer_cancel(&worker->door);
  worker->is_draining = true;
  tell_if_drained(worker);
}

static void on_door(void *arg) { leave_door(arg); }

static void on_leave(void *arg) { leave_door(arg); }

// With TCP_DEFER_ACCEPT there may be clients who are connected and whose first bytes are under
// way: they are in no queue yet, and closing the socket would reset them. They get the time
// that such bytes take; who comes meanwhile is queued at once.
static void on_drain(void *arg) {
  struct worker *worker = arg;
  const int none = 0;
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    if (worker->listening[i].id != 0 && worker->listening[i].is_tcp) {
      (void)setsockopt(worker->listening[i].fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &none, sizeof(none));
    }
  }
  timer_arm_ms(&worker->door, DOOR_MS);
}

void worker_post_drain(struct worker *worker, bool has_heir) {
  loop_post(worker->loop, has_heir ? on_leave : on_drain, worker);
}

static void end_all(struct worker *worker) {
  while (worker->all != NULL) {
    conn_end(worker->all);
  }
}

static void on_end(void *arg) {
  struct worker *worker = arg;
  leave_door(worker);
  end_all(worker);
  tell_if_drained(worker);
}

void worker_post_end(struct worker *worker) { loop_post(worker->loop, on_end, worker); }

static void on_origins(void *arg) {
  struct worker *worker = arg;
  for (struct conn *conn = worker->all; conn != NULL; conn = conn->next) {
    if (conn->state == CONN_CONNECT && conn->origin.fd < 0) {
      worker_run_later(worker, conn);
    }
  }
}

void worker_post_origins(struct worker *worker) { loop_post(worker->loop, on_origins, worker); }

// --- for connections -----------------------------------------------------------------------

int64_t worker_now_s(struct worker *worker) {
  int64_t round_ms = loop_now_ms(worker->loop);
  if (worker->round_ms != round_ms) {
    worker->round_ms = round_ms;
    worker->now_s = clock_wall_s();
  }
  return worker->now_s;
}

static void on_later(void *arg) {
  struct worker *worker = arg;
  struct conn *conn = worker->later;
  // What asks again while these run comes in the round after.
  worker->later = NULL;
  worker->later_end = &worker->later;
  while (conn != NULL) {
    struct conn *next = conn->next_later;
    worker->later_now = next;
    conn->is_later = false;
    conn->next_later = NULL;
    conn_run(conn);
    conn = worker->later_now;
  }
}

void worker_run_later(struct worker *worker, struct conn *conn) {
  if (conn->is_later || conn->is_in_line) {
    return;
  }
  if (worker->later == NULL) {
    loop_post(worker->loop, on_later, worker);
  }
  conn->is_later = true;
  conn->next_later = NULL;
  *worker->later_end = conn;
  worker->later_end = &conn->next_later;
}

void worker_adopt(struct worker *worker, struct conn *conn) {
  worker->next_id += 1;
  // Ids of all workers differ, and say where a connection lives.
  conn->id = worker->next_id << 8 | (worker->index & 0xff);
  conn->next = worker->all;
  conn->link = &worker->all;
  if (conn->next != NULL) {
    conn->next->link = &conn->next;
  }
  worker->all = conn;
  worker->num_conns += 1;
}

static bool unqueue(struct conn **head, struct conn *conn, struct conn ***end) {
  for (struct conn **at = head; *at != NULL; at = &(*at)->next_later) {
    if (*at == conn) {
      *at = conn->next_later;
      if (end != NULL && *end == &conn->next_later) {
        *end = at;
      }
      return true;
    }
  }
  return false;
}

void worker_forget(struct worker *worker, struct conn *conn) {
  if (conn->is_later && !unqueue(&worker->later, conn, &worker->later_end)) {
    (void)unqueue(&worker->later_now, conn, NULL);
  }
  turns_forget(worker, conn);
  *conn->link = conn->next;
  if (conn->next != NULL) {
    conn->next->link = conn->link;
  }
  worker->num_conns -= 1;
  tell_if_drained(worker);
}

// --- life ------------------------------------------------------------------------------------

static void on_due(void *arg, struct deadline *deadline) {
  (void)arg;
  conn_expire(deadline);
}

enum status worker_new(struct worker **out, unsigned index, const struct worker_host *host,
                       size_t max_conns) {
  enum status st = STATUS_OK;
  struct worker *worker = calloc(1, sizeof(*worker));

  *out = NULL;
  if (worker == NULL) {
    return STATUS_MEMORY;
  }
  worker->index = index;
  worker->host = host;
  worker->max_conns = max_conns;
  worker->later_end = &worker->later;
  turns_init(worker);
  worker->conns = (struct pool){.size = sizeof(struct conn), .max_free = KEPT_CONNS};
  worker->blocks = (struct pool){.size = sizeof(struct block), .max_free = KEPT_BLOCKS};
  worker->handshakes = (struct pool){.size = sizeof(struct handshake), .max_free = KEPT_HANDSHAKES};
  worker->signings = (struct pool){.size = sizeof(struct signing), .max_free = KEPT_SIGNINGS};
  TRY(loop_new(&worker->loop));
  TRY(deadlines_init(&worker->deadlines, worker->loop, on_due, worker));
  TRY(transport_new(&worker->bio, worker));
  TRY(admit_init(worker));
  TRY(timer_init(&worker->door, worker->loop, on_door, worker));
  *out = worker;
  worker = NULL;

out:
  worker_free(worker);
  return st;
}

static void *run_thread(void *arg) {
  struct worker *worker = arg;
  char name[16];
  // By the thread itself: another's name is a file, which the sandbox does not reach.
  (void)snprintf(name, sizeof(name), "worker-%u", worker->index);
  (void)pthread_setname_np(pthread_self(), name);
  loop_run(worker->loop);
  end_all(worker);
  return NULL;
}

enum status worker_start(struct worker *worker) {
  enum status st = STATUS_OK;
  sigset_t all;
  sigset_t before;

  // Signals are for the control loop.
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  errno = pthread_create(&worker->thread, NULL, run_thread, worker);
  if (errno != 0) {
    st = STATUS_SYSTEM;
  } else {
    worker->is_started = true;
  }
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return st;
}

void worker_join(struct worker *worker) {
  if (worker->is_started) {
    loop_stop(worker->loop);
    (void)pthread_join(worker->thread, NULL);
    worker->is_started = false;
  }
}

void worker_free(struct worker *worker) {
  if (worker == NULL) {
    return;
  }
  for (size_t i = 0; i < sizeof(worker->listening) / sizeof(worker->listening[0]); i++) {
    stop_listening(&worker->listening[i]);
  }
  if (worker->view != NULL) {
    view_close(worker->view);
  }
  admit_cleanup(worker);
  timer_cleanup(&worker->door);
  BIO_free(worker->bio);
  deadlines_cleanup(&worker->deadlines);
  loop_free(worker->loop);
  origin_sessions_cleanup(&worker->origin_sessions);
  pool_cleanup(&worker->conns);
  pool_cleanup(&worker->blocks);
  pool_cleanup(&worker->handshakes);
  pool_cleanup(&worker->signings);
  free(worker);
}
