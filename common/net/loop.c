// SPDX-License-Identifier: Apache-2.0
// The base is used by one thread only, so libevent's locks stay off. What other
// threads post goes through a queue of our own and an eventfd.
#include "common/net/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define FIRST_NUM_POSTS 64

struct post {
  void (*fn)(void *arg);
  void *arg;
};

struct posts {
  struct post *items;
  size_t num;
  size_t cap;
};

struct on_signal {
  struct on_signal *next;
  struct event *event;
  void (*fn)(void *arg);
  void *arg;
};

struct loop {
  struct event_base *base;
  int64_t now_ms;  // of this round; 0: nobody asked yet
  bool is_running;
  struct on_signal *signals;
  struct event *wake_event;
  int wake_fd;
  _Atomic bool is_stopping;
  pthread_mutex_t lock;  // guards `waiting`
  struct posts waiting;  // filled by any thread
  struct posts running;  // emptied by the loop's thread
};

// --- posting -----------------------------------------------------------------

static void wake(struct loop *loop) {
  const uint64_t one = 1;
  // EAGAIN means that the counter is full: the loop is awake anyway.
  ssize_t n = write(loop->wake_fd, &one, sizeof(one));
  CHECK(n == (ssize_t)sizeof(one) || errno == EAGAIN || errno == EINTR);
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg) {
  bool was_empty = false;
  (void)pthread_mutex_lock(&loop->lock);
  if (loop->waiting.num == loop->waiting.cap) {
    size_t cap = loop->waiting.cap == 0 ? FIRST_NUM_POSTS : loop->waiting.cap * 2;
    struct post *items = realloc(loop->waiting.items, cap * sizeof(*items));
    // A lost post would leave somebody waiting for ever.
    CHECK(items != NULL);
    loop->waiting.items = items;
    loop->waiting.cap = cap;
  }
  was_empty = loop->waiting.num == 0;
  loop->waiting.items[loop->waiting.num++] = (struct post){fn, arg};
  (void)pthread_mutex_unlock(&loop->lock);
  if (was_empty) {
    wake(loop);
  }
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  struct loop *loop = arg;
  struct posts taken;
  uint64_t count = 0;
  (void)what;
  // Read before the queue is taken: a post after that wakes again.
  if (read((int)fd, &count, sizeof(count)) < 0) {
    CHECK(errno == EAGAIN || errno == EINTR);
  }
  (void)pthread_mutex_lock(&loop->lock);
  taken = loop->waiting;
  loop->waiting = loop->running;  // empty, but it has room
  loop->running = taken;
  (void)pthread_mutex_unlock(&loop->lock);
  for (size_t i = 0; i < loop->running.num; i++) {
    loop->running.items[i].fn(loop->running.items[i].arg);
  }
  loop->running.num = 0;
}

// --- the loop ----------------------------------------------------------------

// libevent prints on standard error unless told otherwise.
static void on_libevent_log(int severity, const char *text) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  if (severity > EVENT_LOG_DEBUG && log_gate_pass(&gate, 1, &num_held)) {
    log_warn(0, "libevent", "text=\"%s\" held=%" PRIu64, text, num_held);
  }
}

static void on_libevent_fatal(int code) {
  (void)code;  // the reason was logged
  check_failed("libevent", __FILE__, __LINE__);
}

static struct event_base *new_base(void) {
  struct event_base *base = NULL;
  struct event_config *config = NULL;
  // For the whole process; the same each time.
  event_set_log_callback(on_libevent_log);
  event_set_fatal_callback(on_libevent_fatal);
  config = event_config_new();
  if (config == NULL) {
    return NULL;
  }
  // No changelist: a descriptor is registered once, so there is nothing to save,
  // and a number that is closed and used again within a round stays simple.
  if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0 &&
      event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_O1) == 0) {
    base = event_base_new_with_config(config);
  }
  event_config_free(config);
  return base;
}

enum status loop_new(struct loop **out) {
  enum status st = STATUS_OK;
  struct loop *loop = calloc(1, sizeof(*loop));

  *out = NULL;
  if (loop == NULL) {
    return STATUS_MEMORY;
  }
  (void)pthread_mutex_init(&loop->lock, NULL);
  loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (loop->wake_fd < 0) {
    st = STATUS_SYSTEM;
    goto out;
  }
  loop->base = new_base();
  if (loop->base == NULL) {
    st = STATUS_SYSTEM;
    goto out;
  }
  loop->wake_event = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
  if (loop->wake_event == NULL || event_add(loop->wake_event, NULL) != 0) {
    st = STATUS_MEMORY;
    goto out;
  }
  *out = loop;
  loop = NULL;

out:
  loop_free(loop);
  return st;
}

void loop_free(struct loop *loop) {
  if (loop == NULL) {
    return;
  }
  while (loop->signals != NULL) {
    struct on_signal *next = loop->signals->next;
    event_free(loop->signals->event);
    free(loop->signals);
    loop->signals = next;
  }
  if (loop->wake_event != NULL) {
    event_free(loop->wake_event);
  }
  if (loop->base != NULL) {
    // The owners have cleaned up: what is left are libevent's own callbacks, of
    // name queries that were given up, and these free memory.
    (void)event_base_loop(loop->base, EVLOOP_NONBLOCK);
    event_base_free(loop->base);
  }
  if (loop->wake_fd >= 0) {
    (void)close(loop->wake_fd);
  }
  (void)pthread_mutex_destroy(&loop->lock);
  free(loop->waiting.items);
  free(loop->running.items);
  free(loop);
}

void loop_run(struct loop *loop) {
  loop->is_running = true;
  while (!atomic_load(&loop->is_stopping)) {
    loop->now_ms = 0;  // read again by the first callback that asks
    // The wake event is always there, so only a broken epoll ends in -1 or 1.
    CHECK(event_base_loop(loop->base, EVLOOP_ONCE) == 0);
  }
  loop->is_running = false;
  atomic_store(&loop->is_stopping, false);
}

bool loop_is_running(const struct loop *loop) { return loop->is_running; }

void loop_stop(struct loop *loop) {
  atomic_store(&loop->is_stopping, true);
  wake(loop);
}

int64_t loop_now_ms(const struct loop *loop) {
  if (!loop->is_running) {
    return clock_monotonic_ms();
  }
  if (loop->now_ms == 0) {
    // What a caller sees stays the same all round long: the cache is no change.
    ((struct loop *)(uintptr_t)loop)->now_ms = clock_monotonic_ms();
  }
  return loop->now_ms;
}

struct event_base *loop_base(struct loop *loop) {
  return loop->base;
}

static void on_signal(evutil_socket_t signo, short what, void *arg) {
  struct on_signal *on = arg;
  (void)signo;
  (void)what;
  on->fn(on->arg);
}

enum status loop_on_signal(struct loop *loop, int signo, void (*fn)(void *arg), void *arg) {
  struct on_signal *on = calloc(1, sizeof(*on));
  if (on == NULL) {
    return STATUS_MEMORY;
  }
  on->fn = fn;
  on->arg = arg;
  on->event = evsignal_new(loop->base, signo, on_signal, on);
  if (on->event == NULL || event_add(on->event, NULL) != 0) {
    if (on->event != NULL) {
      event_free(on->event);
    }
    free(on);
    return STATUS_SYSTEM;
  }
  on->next = loop->signals;
  loop->signals = on;
  return STATUS_OK;
}

// --- timers ------------------------------------------------------------------

static void add_timeout(const struct timer *t, int64_t after_ms) {
  struct timeval after = {.tv_sec = after_ms / 1000, .tv_usec = after_ms % 1000 * 1000};
  // Only memory for the heap can be missing, and no deadline may get lost.
  CHECK(event_add(t->event, &after) == 0);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg) {
  struct timer *t = arg;
  int64_t early_ms = t->due_ms - loop_now_ms(t->loop);
  (void)fd;
  (void)what;
  // libevent's clock is the kernel's coarse one and lags some milliseconds.
  if (early_ms > 0) {
    add_timeout(t, early_ms);
    return;
  }
  t->fn(t->arg);
}

enum status timer_init(struct timer *t, struct loop *loop, void (*fn)(void *arg), void *arg) {
  *t = (struct timer){.loop = loop, .fn = fn, .arg = arg};
  t->event = evtimer_new(loop->base, on_timeout, t);
  return t->event == NULL ? STATUS_MEMORY : STATUS_OK;
}

void timer_arm_ms(struct timer *t, int64_t after_ms) {
  if (after_ms < 0) {
    after_ms = 0;
  }
  t->due_ms = loop_now_ms(t->loop) + after_ms;
  add_timeout(t, after_ms);
}

void timer_cancel(struct timer *t) {
  if (t->event != NULL) {
    (void)event_del(t->event);
  }
}

bool timer_is_armed(const struct timer *t) {
  return t->event != NULL && event_pending(t->event, EV_TIMEOUT, NULL) != 0;
}

void timer_cleanup(struct timer *t) {
  if (t->event != NULL) {
    event_free(t->event);
  }
  *t = (struct timer){0};
}

// --- descriptors -------------------------------------------------------------

static void on_ready(evutil_socket_t fd, short what, void *arg) {
  struct io *io = arg;
  unsigned ready = 0;
  (void)fd;
  if ((what & EV_READ) != 0) {
    ready |= IO_READABLE;
  }
  if ((what & EV_WRITE) != 0) {
    ready |= IO_WRITABLE;
  }
  io->fn(io->arg, ready);
}

static enum status watch(struct io *io, struct loop *loop, int fd, short what,
                         void (*fn)(void *arg, unsigned ready), void *arg) {
  *io = (struct io){.loop = loop, .fd = fd, .fn = fn, .arg = arg};
  io->event = event_new(loop->base, fd, what, on_ready, io);
  if (io->event == NULL) {
    return STATUS_MEMORY;
  }
  if (event_add(io->event, NULL) != 0) {
    io_cleanup(io);
    return STATUS_SYSTEM;
  }
  return STATUS_OK;
}

enum status io_init(struct io *io, struct loop *loop, int fd, void (*fn)(void *arg, unsigned ready),
                    void *arg) {
  return watch(io, loop, fd, EV_READ | EV_WRITE | EV_ET | EV_PERSIST, fn, arg);
}

enum status io_init_listener(struct io *io, struct loop *loop, int fd,
                             void (*fn)(void *arg, unsigned ready), void *arg) {
  return watch(io, loop, fd, EV_READ | EV_PERSIST, fn, arg);
}

void io_pause(struct io *io) {
  if (io->event != NULL) {
    (void)event_del(io->event);
  }
}

enum status io_resume(struct io *io) {
  return event_add(io->event, NULL) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

void io_cleanup(struct io *io) {
  if (io->event != NULL) {
    event_free(io->event);
  }
  *io = (struct io){.fd = -1};
}
