// SPDX-License-Identifier: Apache-2.0
// One epoll of our own for descriptors and for the eventfd by which other threads
// wake the loop; timers in a heap. libevent's base is made only for those who ask
// for it (HTTP, name resolution, signals). Then its epoll is the one that blocks,
// and ours is a descriptor in it: one more system call for each wake-up, which
// loops that carry the load do without.
//
// The base is used by one thread only, so libevent's locks stay off.
#include "common/net/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/direct_io.h"
#include "common/net/loop_internal.h"

#define FIRST_NUM_POSTS 64
#define BATCH_MAX 128         // events taken at once
#define WAIT_MAX_MS 86400000  // of one wait; a later timer is looked at again then

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
  int epoll_fd;
  int wake_fd;
  int64_t now_ms;  // of this round; 0: nobody asked yet
  bool is_running;
  _Atomic bool is_stopping;
  struct timers timers;

  // The events of this round; those of an io that ends meanwhile are blotted out.
  struct epoll_event batch[BATCH_MAX];
  int batch_num;
  int batch_at;

  struct posts own;      // by the loop's own thread, within a round: no lock, no wake
  pthread_mutex_t lock;  // guards `waiting`
  struct posts waiting;  // by any thread
  struct posts running;  // those of the moment

  // For those who asked for libevent; NULL: nobody has.
  struct event_base *base;
  struct event *bridge;  // our epoll in libevent's
  struct event *alarm;   // our earliest timer in libevent's
  struct on_signal *signals;
};

// The loop that runs on this thread.
static _Thread_local struct loop *current;

// --- posting -----------------------------------------------------------------

static void wake(struct loop *loop) {
  const uint64_t one = 1;
  // EAGAIN means that the counter is full: the loop is awake anyway.
  ssize_t n = write(loop->wake_fd, &one, sizeof(one));
  CHECK(n == (ssize_t)sizeof(one) || errno == EAGAIN || errno == EINTR);
}

static void append(struct posts *posts, struct post post) {
  if (posts->num == posts->cap) {
    size_t cap = posts->cap == 0 ? FIRST_NUM_POSTS : posts->cap * 2;
    struct post *items = realloc(posts->items, cap * sizeof(*items));
    // A lost post would leave somebody waiting for ever.
    CHECK(items != NULL);
    posts->items = items;
    posts->cap = cap;
  }
  posts->items[posts->num++] = post;
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg) {
  bool was_empty = false;
  if (current == loop) {
    append(&loop->own, (struct post){fn, arg});
    return;
  }
  (void)pthread_mutex_lock(&loop->lock);
  was_empty = loop->waiting.num == 0;
  append(&loop->waiting, (struct post){fn, arg});
  (void)pthread_mutex_unlock(&loop->lock);
  if (was_empty) {
    wake(loop);
  }
}

static void swap_posts(struct posts *a, struct posts *b) {
  struct posts kept = *a;
  *a = *b;
  *b = kept;
}

// Runs what is in `running`, which then is empty and keeps its room.
static void run_posts(struct loop *loop) {
  for (size_t i = 0; i < loop->running.num; i++) {
    loop->running.items[i].fn(loop->running.items[i].arg);
  }
  loop->running.num = 0;
}

// Posts of this thread, those of the round that ends; later ones wait for the next.
static void run_own_posts(struct loop *loop) {
  if (loop->own.num > 0) {
    swap_posts(&loop->own, &loop->running);
    run_posts(loop);
  }
}

static void run_waiting_posts(struct loop *loop) {
  uint64_t count = 0;
  // Read before the queue is taken: a post after that wakes again.
  if (read(loop->wake_fd, &count, sizeof(count)) < 0) {
    CHECK(errno == EAGAIN || errno == EINTR);
  }
  (void)pthread_mutex_lock(&loop->lock);
  swap_posts(&loop->waiting, &loop->running);
  (void)pthread_mutex_unlock(&loop->lock);
  run_posts(loop);
}

// --- descriptors -------------------------------------------------------------

static unsigned ready_of(uint32_t events) {
  unsigned ready = 0;
  if ((events & EPOLLIN) != 0) {
    ready |= IO_READABLE;
  }
  if ((events & EPOLLOUT) != 0) {
    ready |= IO_WRITABLE;
  }
  if ((events & EPOLLRDHUP) != 0) {
    ready |= IO_READABLE | IO_ENDED;
  }
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    ready |= IO_READABLE | IO_WRITABLE | IO_ENDED;
  }
  return ready;
}

// Takes what epoll has, waiting at most `wait_ms`, and calls those concerned.
static void take_events(struct loop *loop, int wait_ms) {
  int num = direct_epoll_wait(loop->epoll_fd, loop->batch, BATCH_MAX, wait_ms);
  CHECK(num >= 0 || errno == EINTR);
  loop->batch_num = num < 0 ? 0 : num;
  for (loop->batch_at = 0; loop->batch_at < loop->batch_num; loop->batch_at++) {
    const struct epoll_event *event = &loop->batch[loop->batch_at];
    struct io *io = event->data.ptr;
    if ((void *)io == (void *)loop) {
      run_waiting_posts(loop);
    } else if (io != NULL) {
      io->fn(io->arg, ready_of(event->events));
    }
  }
  loop->batch_num = 0;
}

// No callback comes for what was taken in this round and ends before its turn.
static void blot_out(struct loop *loop, const struct io *io) {
  for (int i = loop->batch_at + 1; i < loop->batch_num; i++) {
    if (loop->batch[i].data.ptr == io) {
      loop->batch[i].data.ptr = NULL;
    }
  }
}

static enum status add(struct io *io) {
  struct epoll_event event = {.events = io->events, .data.ptr = io};
  if (epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_ADD, io->fd, &event) != 0) {
    return errno == ENOMEM ? STATUS_MEMORY : STATUS_SYSTEM;
  }
  io->is_watched = true;
  return STATUS_OK;
}

static enum status watch(struct io *io, struct loop *loop, int fd, uint32_t events,
                         void (*fn)(void *arg, unsigned ready), void *arg) {
  enum status st = STATUS_OK;
  *io = (struct io){.loop = loop, .fd = fd, .events = events, .fn = fn, .arg = arg};
  st = add(io);
  if (st != STATUS_OK) {
    *io = (struct io){.fd = -1};
  }
  return st;
}

enum status io_init(struct io *io, struct loop *loop, int fd, void (*fn)(void *arg, unsigned ready),
                    void *arg) {
  return watch(io, loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, fn, arg);
}

enum status io_init_listener(struct io *io, struct loop *loop, int fd,
                             void (*fn)(void *arg, unsigned ready), void *arg) {
  return watch(io, loop, fd, EPOLLIN, fn, arg);
}

void io_pause(struct io *io) {
  if (io->is_watched) {
    (void)epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    io->is_watched = false;
    blot_out(io->loop, io);
  }
}

enum status io_resume(struct io *io) { return io->is_watched ? STATUS_OK : add(io); }

void io_cleanup(struct io *io) {
  io_pause(io);
  *io = (struct io){.fd = -1};
}

void io_close(struct io *io) {
  if (io->loop != NULL) {
    if (io->is_watched) {
      blot_out(io->loop, io);
    }
    (void)close(io->fd);  // the kernel forgets it there too
  }
  *io = (struct io){.fd = -1};
}

// --- libevent ----------------------------------------------------------------

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
  if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0 &&
      event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_O1) == 0) {
    base = event_base_new_with_config(config);
  }
  event_config_free(config);
  return base;
}

static void on_bridge(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  take_events(arg, 0);
}

// Timers are run after each round anyway; this only ends the wait.
static void on_alarm(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  (void)arg;
}

struct event_base *loop_base(struct loop *loop) {
  if (loop->base == NULL) {
    loop->base = new_base();
    // Asked for at start-up, or for a first name to resolve: no way to go on.
    CHECK(loop->base != NULL);
    loop->bridge = event_new(loop->base, loop->epoll_fd, EV_READ | EV_PERSIST, on_bridge, loop);
    loop->alarm = evtimer_new(loop->base, on_alarm, loop);
    CHECK(loop->bridge != NULL && loop->alarm != NULL && event_add(loop->bridge, NULL) == 0);
  }
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
  on->event = evsignal_new(loop_base(loop), signo, on_signal, on);
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

// --- the loop ----------------------------------------------------------------

struct timers *loop_timers(struct loop *loop) {
  return &loop->timers;
}

enum status loop_new(struct loop **out) {
  enum status st = STATUS_OK;
  struct loop *loop = calloc(1, sizeof(*loop));
  struct epoll_event wake_event = {.events = EPOLLIN, .data.ptr = loop};

  *out = NULL;
  if (loop == NULL) {
    return STATUS_MEMORY;
  }
  (void)pthread_mutex_init(&loop->lock, NULL);
  loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (loop->wake_fd < 0 || loop->epoll_fd < 0 ||
      epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &wake_event) != 0) {
    st = STATUS_SYSTEM;
    goto out;
  }
  *out = loop;
  loop = NULL;

out:
  loop_free(loop);
  return st;
}

static void free_base(struct loop *loop) {
  while (loop->signals != NULL) {
    struct on_signal *next = loop->signals->next;
    event_free(loop->signals->event);
    free(loop->signals);
    loop->signals = next;
  }
  if (loop->base != NULL) {
    event_free(loop->bridge);
    event_free(loop->alarm);
    // The owners have cleaned up: what is left are libevent's own callbacks, of
    // name queries that were given up, and these free memory.
    (void)event_base_loop(loop->base, EVLOOP_NONBLOCK);
    event_base_free(loop->base);
  }
}

void loop_free(struct loop *loop) {
  if (loop == NULL) {
    return;
  }
  free_base(loop);
  if (loop->wake_fd >= 0) {
    (void)close(loop->wake_fd);
  }
  if (loop->epoll_fd >= 0) {
    (void)close(loop->epoll_fd);
  }
  (void)pthread_mutex_destroy(&loop->lock);
  free(loop->own.items);
  free(loop->waiting.items);
  free(loop->running.items);
  timers_cleanup(&loop->timers);
  free(loop);
}

// How long the next wait may be; -1: until something happens.
static int64_t wait_ms(const struct loop *loop) {
  int64_t due_ms = timers_due_ms(&loop->timers);
  int64_t left_ms = 0;
  if (loop->own.num > 0) {
    return 0;
  }
  if (due_ms == INT64_MAX) {
    return -1;
  }
  left_ms = due_ms - clock_monotonic_ms();
  return left_ms < 0 ? 0 : left_ms < WAIT_MAX_MS ? left_ms : WAIT_MAX_MS;
}

// The same wait, by libevent.
static void run_base(struct loop *loop) {
  int64_t ms = wait_ms(loop);
  if (ms > 0) {
    const struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    CHECK(event_add(loop->alarm, &after) == 0);
  } else if (ms < 0) {
    (void)event_del(loop->alarm);
  }
  // The bridge is always there, so only a broken epoll ends in -1 or 1. ONCE in both
  // cases: without it libevent goes on for as long as anything is ready.
  CHECK(event_base_loop(loop->base, EVLOOP_ONCE | (ms == 0 ? EVLOOP_NONBLOCK : 0)) == 0);
}

void loop_run(struct loop *loop) {
  struct loop *outer = current;
  current = loop;
  loop->is_running = true;
  while (!atomic_load(&loop->is_stopping)) {
    if (loop->base == NULL) {
      int64_t ms = wait_ms(loop);
      loop->now_ms = 0;  // read again by the first callback that asks
      take_events(loop, (int)ms);
    } else {
      loop->now_ms = 0;
      run_base(loop);
    }
    if (timers_due_ms(&loop->timers) != INT64_MAX) {
      timers_run(&loop->timers, loop_now_ms(loop));
    }
    run_own_posts(loop);
  }
  loop->is_running = false;
  atomic_store(&loop->is_stopping, false);
  current = outer;
}

bool loop_is_running(const struct loop *loop) { return loop->is_running; }

void loop_stop(struct loop *loop) {
  atomic_store(&loop->is_stopping, true);
  wake(loop);
}

int64_t loop_now_ms(struct loop *loop) {
  if (!loop->is_running) {
    return clock_monotonic_ms();
  }
  if (loop->now_ms == 0) {
    loop->now_ms = clock_monotonic_ms();
  }
  return loop->now_ms;
}
