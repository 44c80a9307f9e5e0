// SPDX-License-Identifier: Apache-2.0
#include "keyserver/worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread_turn.h"
#include "common/tls/trust.h"
#include "common/wire/frame.h"
#include "keyserver/peer.h"

#define ACCEPT_BATCH 16      // connections of one wake-up; then others' turn
#define ACCEPT_AGAIN_MS 100  // after descriptors or memory ran out
#define SWEEP_MS 1000
#define SWEEP_DRAINING_MS 20
#define RECHECK_BATCH 4  // clients that are verified anew at a time: under a millisecond
#define RECHECK_PAUSE_MS 2
#define LINES_PER_S 5
#define US_PER_MS 1000

// --- accepting -------------------------------------------------------------------------

static void stop_accepting(struct worker *worker) {
  if (!worker->is_accepting) {
    return;
  }
  worker->is_accepting = false;
  for (size_t i = 0; i < worker->num_listeners; i++) {
    io_pause(&worker->listeners[i].io);
  }
}

static void on_accept_again(void *arg) {
  struct worker *worker = arg;

  if (worker->is_accepting || worker->is_draining) {
    return;
  }
  worker->is_accepting = true;
  for (size_t i = 0; i < worker->num_listeners; i++) {
    if (io_resume(&worker->listeners[i].io) != STATUS_OK) {
      timer_arm_ms(&worker->accept_again, ACCEPT_AGAIN_MS);
    }
  }
}

// note_accept_error: a client that left again is no matter; when descriptors or
// memory run out, trying again at once would only burn time.
static void note_accept_error(struct worker *worker, int error) {
  static struct log_gate gate;
  uint64_t num_held = 0;

  if (error == EAGAIN || error == EWOULDBLOCK || error == ECONNABORTED || error == EINTR) {
    return;
  }
  counter_add_own(&worker->stats.num_accept_errors, 1);
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_error(0, "accept_failed", "why=\"%s\" held=%llu", strerror(error),
              (unsigned long long)num_held);
  }
  stop_accepting(worker);
  timer_arm_ms(&worker->accept_again, ACCEPT_AGAIN_MS);
}

static void on_listener(void *arg, unsigned ready) {
  const struct worker_listener *listener = arg;
  struct worker *worker = listener->worker;

  (void)ready;
  for (int i = 0; i < ACCEPT_BATCH && worker->is_accepting; i++) {
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      note_accept_error(worker, errno);
      return;
    }
    (void)peer_accept(worker, &fd);  // counted there
  }
}

// --- time --------------------------------------------------------------------------------

static void finish(struct worker *worker) {
  atomic_store(&worker->is_done, true);
  loop_stop(worker->loop);
}

static void on_sweep(void *arg) {
  struct worker *worker = arg;
  const int64_t now_ms = loop_now_ms(worker->loop);
  struct peer *next = NULL;

  slow_expire(&worker->slow, clock_monotonic_us() / US_PER_MS);
  for (struct peer *peer = worker->peers; peer != NULL; peer = next) {
    next = peer_next(peer);
    peer_sweep(peer, now_ms, worker->is_draining ? now_ms - worker->drain_began_ms : -1);
  }
  if (worker->is_draining && (worker->peers == NULL || now_ms >= worker->drain_due_ms)) {
    finish(worker);
    return;
  }
  timer_arm_ms(&worker->sweep, worker->is_draining ? SWEEP_DRAINING_MS : SWEEP_MS);
}

// --- from the control thread -------------------------------------------------------------

static void use_snapshot(struct worker *worker, struct snapshot *snapshot) {
  const struct limit_options *limits = &snapshot->options.limits;

  snapshot_unref(worker->snapshot);
  worker->snapshot = snapshot;
  worker->limits = (struct tls_stream_limits){
      .handshake_ms = limits->handshake_ms,
      .idle_ms = limits->idle_ms,
      .write_ms = limits->write_ms,
      .max_input_len = FRAME_MAX_LEN,
      .max_output_len = (size_t)limits->max_unread_len,
  };
  worker->dispatcher.snapshot = snapshot;
  worker->dispatcher.sign_limit_ms = limits->sign_ms;
  worker->dispatcher.must_audit = snapshot->options.audit.when_unavailable == AUDIT_REFUSE;
  atomic_store(&worker->generation, snapshot->generation);
}

// on_recheck looks at some clients again, and leaves time for requests. A client
// that asks before its turn is looked at first (peer.c).
static void on_recheck(void *arg) {
  struct worker *worker = arg;

  for (int i = 0; i < RECHECK_BATCH && worker->recheck_at != NULL; i++) {
    struct peer *peer = worker->recheck_at;
    worker->recheck_at = peer_next(peer);
    peer_check(peer);
  }
  if (worker->recheck_at != NULL) {
    timer_arm_ms(&worker->recheck, RECHECK_PAUSE_MS);
  }
}

static void on_adopt(void *arg) {
  struct worker *worker = arg;
  struct snapshot *snapshot = atomic_exchange(&worker->next_snapshot, NULL);
  bool is_other_trust = false;

  if (snapshot == NULL) {
    return;  // an earlier post took it
  }
  is_other_trust =
      memcmp(trust_id(snapshot->tls), trust_id(worker->snapshot->tls), TRUST_ID_LEN) != 0;
  use_snapshot(worker, snapshot);
  if (is_other_trust) {
    worker->recheck_at = worker->peers;
    timer_arm_ms(&worker->recheck, 0);
  }
}

void worker_adopt(struct worker *worker, struct snapshot *snapshot) {
  snapshot_unref(atomic_exchange(&worker->next_snapshot, snapshot_ref(snapshot)));
  loop_post(worker->loop, on_adopt, worker);
}

static void close_listeners(struct worker *worker) {
  worker->is_accepting = false;
  for (size_t i = 0; i < worker->num_listeners; i++) {
    io_cleanup(&worker->listeners[i].io);
    if (worker->listeners[i].fd >= 0) {
      close(worker->listeners[i].fd);
      worker->listeners[i].fd = -1;
    }
  }
}

// accept_last takes what has connected already: closing the listener would reset
// connections that are in its queue.
static void accept_last(struct worker *worker) {
  for (size_t i = 0; i < worker->num_listeners; i++) {
    int fd = -1;
    while ((fd = accept4(worker->listeners[i].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
      (void)peer_accept(worker, &fd);
    }
  }
}

static void on_drain(void *arg) {
  struct worker *worker = arg;

  if (worker->is_draining) {
    finish(worker);
    return;
  }
  worker->is_draining = true;
  worker->drain_began_ms = loop_now_ms(worker->loop);
  worker->drain_due_ms = worker->drain_began_ms + worker->snapshot->options.limits.drain_ms;
  accept_last(worker);
  close_listeners(worker);
  timer_arm_ms(&worker->sweep, 0);
}

void worker_drain(struct worker *worker) { loop_post(worker->loop, on_drain, worker); }

bool worker_is_done(const struct worker *worker) { return atomic_load(&worker->is_done); }

// --- life ----------------------------------------------------------------------------------

static enum status watch_listeners(struct worker *worker, int *fds, size_t num_fds) {
  enum status st = STATUS_OK;

  CHECK(num_fds <= OPTIONS_MAX_LISTEN);
  for (size_t i = 0; i < num_fds; i++) {
    struct worker_listener *listener = &worker->listeners[i];
    listener->worker = worker;
    listener->fd = fds[i];
    fds[i] = -1;
    worker->num_listeners++;
    TRY(io_init_listener(&listener->io, worker->loop, listener->fd, on_listener, listener));
  }
  worker->is_accepting = true;

out:
  return st;
}

enum status worker_init(struct worker *worker, unsigned index, struct snapshot *snapshot,
                        struct census *census, struct sink *audit, int *fds, size_t num_fds) {
  enum status st = STATUS_OK;

  worker->index = index;
  worker->census = census;
  worker->dispatcher.stats = &worker->stats;
  worker->dispatcher.audit = audit;
  use_snapshot(worker, snapshot_ref(snapshot));
  TRY(loop_new(&worker->loop));
  slow_init(&worker->slow, worker->loop, &peer_slow_events, &worker->dispatcher);
  worker->dispatcher.slow = &worker->slow;
  TRY(timer_init(&worker->sweep, worker->loop, on_sweep, worker));
  TRY(timer_init(&worker->recheck, worker->loop, on_recheck, worker));
  TRY(timer_init(&worker->accept_again, worker->loop, on_accept_again, worker));
  TRY(watch_listeners(worker, fds, num_fds));
  timer_arm_ms(&worker->sweep, SWEEP_MS);

out:
  return st;
}

void worker_use_pool(struct worker *worker, struct signer_pool *pool, unsigned rsa_lane,
                     unsigned generate_lane, struct signer_inbox *made) {
  worker->slow.made = made;
  worker->slow.pool = pool;
  worker->slow.rsa_lane = rsa_lane;
  worker->slow.generate_lane = generate_lane;
}

static void *serve(void *arg) {
  struct worker *worker = arg;

  thread_turn_short();  // before a signer thread has had all of its turn
  loop_run(worker->loop);
  return NULL;
}

// worker_start: signals are the control thread's.
enum status worker_start(struct worker *worker) {
  sigset_t all;
  sigset_t before;
  int error = 0;

  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&worker->thread, NULL, serve, worker);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    errno = error;
    return STATUS_SYSTEM;
  }
  worker->is_started = true;
  return STATUS_OK;
}

void worker_cleanup(struct worker *worker) {
  if (worker->is_started) {
    loop_stop(worker->loop);
    pthread_join(worker->thread, NULL);
    worker->is_started = false;
  }
  while (worker->peers != NULL) {
    peer_free(worker->peers);
  }
  slow_cleanup(&worker->slow);
  close_listeners(worker);
  if (worker->loop != NULL) {
    timer_cleanup(&worker->sweep);
    timer_cleanup(&worker->recheck);
    timer_cleanup(&worker->accept_again);
    loop_free(worker->loop);
    worker->loop = NULL;
  }
  snapshot_unref(atomic_exchange(&worker->next_snapshot, NULL));
  snapshot_unref(worker->snapshot);
  worker->snapshot = NULL;
}
