// SPDX-License-Identifier: Apache-2.0
// The writer thread sleeps until a producer finds it idle and wakes it. After
// each write it lingers for a moment without asking to be woken, so that under
// load producers make no system call at all and the lines of LINGER_MS share
// one write.
#include "common/base/sink.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/join.h"
#include "common/base/sink_file.h"
#include "common/base/sink_ring.h"

#define BATCH_LEN (64u << 10)
#define LINGER_MS 5
#define RETRY_MS 100         // between attempts while failing
#define WAIT_WRITABLE_MS 50  // a pipe that is full; then orders are looked at
#define CLOSE_LIMIT_MS 2000

// What the writer is doing, as far as producers care.
enum mode { MODE_BUSY, MODE_LINGER, MODE_IDLE };

struct sink {
  struct sink_ring ring;
  _Atomic int mode;
  _Atomic uint32_t wake_seq;  // futex: the writer sleeps on it
  _Atomic uint32_t done_seq;  // futex: flushers sleep on it
  _Atomic uint64_t done;      // ring position up to which all is in the kernel
  _Atomic uint64_t num_lost;
  _Atomic bool is_failing;
  bool is_chained;  // beside what producers read anyway
  _Atomic bool is_stopping;
  _Atomic bool is_reopening;
  _Atomic bool is_hurried;  // somebody flushes: do not linger
  _Atomic uint64_t num_rotations;
  _Atomic uint64_t num_rotate_failures;
  pthread_mutex_t head_lock;
  struct chain head;
  // The writer's own.
  pthread_t thread;
  struct sink_file file;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t limit_ms) {
  struct timespec limit = {.tv_sec = limit_ms / 1000, .tv_nsec = limit_ms % 1000 * 1000000};
  (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, limit_ms < 0 ? NULL : &limit, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
  atomic_fetch_add(word, 1);
  (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

// --- the writer: writing -----------------------------------------------------

static void tell_flushers(struct sink *sink) {
  atomic_store(&sink->done, atomic_load_explicit(&sink->ring.tail, memory_order_relaxed));
  if (atomic_exchange(&sink->is_hurried, false)) {
    futex_wake(&sink->done_seq);
  }
}

static void wait_writable(const struct sink *sink) {
  struct pollfd ready = {.fd = sink->file.fd, .events = POLLOUT};
  (void)poll(&ready, 1, WAIT_WRITABLE_MS);
}

static void publish_head(struct sink *sink) {
  if (sink->file.is_chained) {
    (void)pthread_mutex_lock(&sink->head_lock);
    sink->head = sink->file.chain;
    (void)pthread_mutex_unlock(&sink->head_lock);
  }
}

// Writes what the batch still holds. Returns false when it has to be tried
// again: the reason is then a full pipe or the failing state.
static bool write_batch(struct sink *sink) {
  const enum sink_written written = sink_file_write(&sink->file);

  if (written == SINK_WRITTEN_FULL) {
    wait_writable(sink);
    return false;
  }
  publish_head(sink);
  atomic_store(&sink->is_failing, written == SINK_WRITTEN_FAILED);
  if (written == SINK_WRITTEN_FAILED) {
    return false;
  }
  if (sink_file_is_empty(&sink->file)) {
    tell_flushers(sink);
  }
  return true;
}

static void rotate_if_due(struct sink *sink) {
  sink_file_rotate_if_due(&sink->file);
  atomic_store_explicit(&sink->num_rotations, sink->file.num_rotations, memory_order_relaxed);
  atomic_store_explicit(&sink->num_rotate_failures, sink->file.num_rotate_failures,
                        memory_order_relaxed);
}

// --- the writer: sleeping ----------------------------------------------------

static bool has_orders(struct sink *sink) {
  return atomic_load(&sink->is_stopping) || atomic_load(&sink->is_reopening) ||
         atomic_load(&sink->is_hurried);
}

// The order matters: announce the mode, then look once more. A producer commits
// its line, then looks at the mode. Both sides are sequentially consistent, so
// at least one of them sees the other.
static void sleep_until_line(struct sink *sink) {
  uint32_t seen = atomic_load(&sink->wake_seq);
  atomic_store(&sink->mode, MODE_IDLE);
  if (!sink_ring_has_line(&sink->ring) && !has_orders(sink)) {
    futex_wait(&sink->wake_seq, seen, sink_file_age_left_ms(&sink->file));
  }
  atomic_store(&sink->mode, MODE_BUSY);
}

// For a fixed time, unless somebody presses. While the file fails, a stop or a
// flush does not end the wait, so that the writer never spins.
static void sleep_lingering(struct sink *sink, int64_t limit_ms) {
  uint32_t seen = atomic_load(&sink->wake_seq);
  atomic_store(&sink->mode, MODE_LINGER);
  if (!has_orders(sink) || atomic_load(&sink->is_failing)) {
    futex_wait(&sink->wake_seq, seen, limit_ms);
  }
  atomic_store(&sink->mode, MODE_BUSY);
}

// One attempt to move lines on; false when the writer should end.
static bool writer_step(struct sink *sink, bool *was_busy) {
  if (atomic_exchange(&sink->is_reopening, false)) {
    sink_file_reopen(&sink->file);
  }
  rotate_if_due(sink);
  if (sink_file_fill(&sink->file, &sink->ring, sink_num_lost(sink))) {
    *was_busy = true;
    if (write_batch(sink)) {
      if (sink_ring_used(&sink->ring) < BATCH_LEN && sink_file_is_empty(&sink->file)) {
        sleep_lingering(sink, LINGER_MS);
      }
    } else if (atomic_load(&sink->is_failing)) {
      sleep_lingering(sink, RETRY_MS);
    }
    return true;
  }
  tell_flushers(sink);
  if (atomic_load(&sink->is_stopping)) {
    return false;
  }
  if (*was_busy) {
    *was_busy = false;
    sleep_lingering(sink, LINGER_MS);
  } else {
    sleep_until_line(sink);
  }
  return true;
}

static void *writer_main(void *arg) {
  struct sink *sink = arg;
  int64_t give_up_ms = INT64_MAX;
  bool was_busy = false;

  // By the thread itself: another's name is a file, which the sandbox does not reach.
  (void)pthread_setname_np(pthread_self(), "sink");
  while (writer_step(sink, &was_busy) && clock_monotonic_ms() < give_up_ms) {
    if (atomic_load(&sink->is_stopping) && give_up_ms == INT64_MAX) {
      give_up_ms = clock_monotonic_ms() + CLOSE_LIMIT_MS;
    }
  }
  return NULL;
}

// --- for everybody -----------------------------------------------------------

static enum status start_writer(struct sink *sink) {
  sigset_t all;
  sigset_t before;
  int reason = 0;
  // Signals are for the threads that have a loop.
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  reason = pthread_create(&sink->thread, NULL, writer_main, sink);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (reason != 0) {
    errno = reason;
    return STATUS_SYSTEM;
  }
  return STATUS_OK;
}

static void free_all(struct sink *sink) {
  sink_ring_cleanup(&sink->ring);
  sink_file_cleanup(&sink->file);
  (void)pthread_mutex_destroy(&sink->head_lock);
  free(sink);
}

enum status sink_open_with(struct sink **out, const struct sink_options *options,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct sink *sink = aligned_alloc(_Alignof(struct sink), sizeof(struct sink));

  *out = NULL;
  if (sink == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", options->path);
  }
  memset(sink, 0, sizeof(*sink));
  sink->file.fd = -1;
  sink->is_chained = options->is_chained;
  (void)pthread_mutex_init(&sink->head_lock, NULL);
  st = sink_ring_init(&sink->ring, options->ring_len);
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "%s: no memory for a ring of %zu bytes", options->path,
                     options->ring_len);
    goto out;
  }
  TRY(sink_file_init(&sink->file, options, err));
  sink->head = sink->file.chain;
  st = start_writer(sink);
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "%s: its thread cannot start: %s", options->path, strerror(errno));
    goto out;
  }
  *out = sink;
  sink = NULL;

out:
  if (sink != NULL) {
    free_all(sink);
  }
  return st;
}

enum status sink_open(struct sink **out, const char *path, size_t ring_len, struct errmsg *err) {
  const struct sink_options options = {.path = path, .ring_len = ring_len};
  return sink_open_with(out, &options, err);
}

static void wake_for_line(struct sink *sink) {
  int mode = atomic_load(&sink->mode);
  bool is_pressing = mode == MODE_IDLE ||
                     (mode == MODE_LINGER && sink_ring_used(&sink->ring) > sink->ring.len / 2);
  // Only one of those who see it pays for the call.
  if (is_pressing && atomic_compare_exchange_strong(&sink->mode, &mode, MODE_BUSY)) {
    futex_wake(&sink->wake_seq);
  }
}

enum status sink_write(struct sink *sink, struct bytes line) {
  if (line.len > SINK_LINE_MAX_LEN) {
    atomic_fetch_add_explicit(&sink->num_lost, 1, memory_order_relaxed);
    return STATUS_LIMIT;
  }
  if (sink->is_chained && !chain_may_seal(line)) {
    atomic_fetch_add_explicit(&sink->num_lost, 1, memory_order_relaxed);
    return STATUS_FORMAT;
  }
  if (atomic_load_explicit(&sink->is_failing, memory_order_relaxed) ||
      !sink_ring_put(&sink->ring, line)) {
    atomic_fetch_add_explicit(&sink->num_lost, 1, memory_order_relaxed);
    return STATUS_UNAVAILABLE;
  }
  wake_for_line(sink);
  return STATUS_OK;
}

void sink_reopen(struct sink *sink) {
  atomic_store(&sink->is_reopening, true);
  futex_wake(&sink->wake_seq);
}

enum status sink_flush(struct sink *sink, int64_t limit_ms) {
  uint64_t target = atomic_load(&sink->ring.head);
  int64_t end_ms = clock_monotonic_ms() + limit_ms;

  while (atomic_load(&sink->done) < target) {
    uint32_t seen = atomic_load(&sink->done_seq);
    int64_t left_ms = end_ms - clock_monotonic_ms();
    if (left_ms <= 0) {
      return atomic_load(&sink->is_failing) ? STATUS_UNAVAILABLE : STATUS_TIMEOUT;
    }
    atomic_store(&sink->is_hurried, true);
    futex_wake(&sink->wake_seq);
    if (atomic_load(&sink->done) < target) {
      futex_wait(&sink->done_seq, seen, left_ms < 50 ? left_ms : 50);
    }
  }
  return STATUS_OK;
}

uint64_t sink_num_lost(const struct sink *sink) {
  return atomic_load_explicit(&sink->num_lost, memory_order_relaxed);
}

void sink_head(struct sink *sink, struct chain *out) {
  (void)pthread_mutex_lock(&sink->head_lock);
  *out = sink->head;
  (void)pthread_mutex_unlock(&sink->head_lock);
}

uint64_t sink_num_rotations(const struct sink *sink, bool have_failed) {
  return atomic_load_explicit(have_failed ? &sink->num_rotate_failures : &sink->num_rotations,
                              memory_order_relaxed);
}

bool sink_is_failing(const struct sink *sink) {
  return atomic_load_explicit(&sink->is_failing, memory_order_relaxed);
}

void sink_close_at(struct sink *sink, struct chain *out_head) {
  *out_head = (struct chain){0};
  if (sink == NULL) {
    return;
  }
  atomic_store(&sink->is_stopping, true);
  futex_wake(&sink->wake_seq);
  // A blocking standard error that nobody reads could hold the writer for ever:
  // then its memory stays with it, and the program ends.
  if (!join_by(sink->thread, clock_monotonic_ms() + INT64_C(2) * CLOSE_LIMIT_MS)) {
    (void)pthread_detach(sink->thread);
    return;
  }
  *out_head = sink->file.chain;
  free_all(sink);
}

void sink_close(struct sink *sink) {
  struct chain head;
  sink_close_at(sink, &head);
}
