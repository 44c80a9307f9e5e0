// SPDX-License-Identifier: Apache-2.0
// loop: one thread's event loop, and the only place besides common/http that
// includes event2/ headers. A callback notes what happened and returns soon;
// nothing here or in a callback blocks. Unless said otherwise every call is for
// the loop's own thread, or before it runs.
#ifndef DEPUTY_COMMON_NET_LOOP_H_
#define DEPUTY_COMMON_NET_LOOP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

struct event_base;
struct loop;

// loop_new returns a new loop. STATUS_MEMORY, STATUS_SYSTEM.
enum status loop_new(struct loop **out);
void loop_free(struct loop *loop);

// loop_run serves until loop_stop. loop_stop may come from any thread.
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
// loop_is_running says whether the caller stands inside loop_run.
bool loop_is_running(const struct loop *loop);

// loop_post runs fn(arg) on the loop's thread, soon, in the order posted by
// each thread. Threads: any. Never blocks beyond a short mutex; posts made
// before loop_free are run or, if the loop has ended, dropped: `arg` must not
// be the only owner of memory then.
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

// loop_now_ms is the monotonic time of this round of the loop: the clock is read
// when the round's first callback asks.
int64_t loop_now_ms(struct loop *loop);

// loop_base lends libevent's object to the modules that need it (common/http); it is
// made when first asked for, and costs the loop a system call for each wake-up. It
// aborts without memory.
struct event_base *loop_base(struct loop *loop);

// loop_on_signal calls fn(arg) on the loop for a POSIX signal, until loop_free.
// One loop of the process takes signals.
enum status loop_on_signal(struct loop *loop, int signo, void (*fn)(void *arg), void *arg);

// --- timers ------------------------------------------------------------------
// All-zero is not armed. Embedded in the owner, who cleans it up before himself
// and before the loop.
struct timer {
  struct loop *loop;
  void (*fn)(void *arg);
  void *arg;
  int64_t due_ms;
  size_t place;  // private: among the armed ones; 0: not armed
};
// timer_init makes a timer that is not armed. STATUS_MEMORY.
enum status timer_init(struct timer *t, struct loop *loop, void (*fn)(void *arg), void *arg);
// timer_arm_ms calls fn(arg) once, never before `after_ms` have passed; it
// replaces an earlier time.
void timer_arm_ms(struct timer *t, int64_t after_ms);
void timer_cancel(struct timer *t);
bool timer_is_armed(const struct timer *t);
void timer_cleanup(struct timer *t);

// --- descriptors ---------------------------------------------------------------
// Edge-triggered, both directions registered once: one epoll_ctl in the life of
// a descriptor. The callback gets what became ready; the owner remembers it
// until a call says EAGAIN.
//
// IO_ENDED comes when the peer has ended its direction or the connection is broken:
// from then on reading goes on until it gives 0 or an error. Before, a read that
// gave less than it could have taken has emptied the socket (epoll(7), question 9),
// and the owner may wait for the next event without trying again.
enum { IO_READABLE = 1, IO_WRITABLE = 2, IO_ENDED = 4 };

struct io {
  struct loop *loop;
  int fd;
  uint32_t events;  // private
  bool is_watched;  // private
  void (*fn)(void *arg, unsigned ready);
  void *arg;
};
// io_init watches `fd` (borrowed, non-blocking). STATUS_MEMORY, STATUS_SYSTEM.
enum status io_init(struct io *io, struct loop *loop, int fd, void (*fn)(void *arg, unsigned ready),
                    void *arg);

// io_init_listener is for listening sockets: readable only, level-triggered, so
// that an accept which is put off (fairness, no descriptors left) is offered
// again in the next round. While paused it costs nothing.
enum status io_init_listener(struct io *io, struct loop *loop, int fd,
                             void (*fn)(void *arg, unsigned ready), void *arg);
void io_pause(struct io *io);
enum status io_resume(struct io *io);  // STATUS_SYSTEM

void io_cleanup(struct io *io);  // stop watching; does not close
// io_close stops watching and closes, in one system call. The descriptor has not
// been duplicated.
void io_close(struct io *io);

#endif  // DEPUTY_COMMON_NET_LOOP_H_
