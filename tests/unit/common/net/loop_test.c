// SPDX-License-Identifier: Apache-2.0
#include "common/net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"

#define LIMIT_MS 10000  // a test that lasts so long has failed

// libevent reads the coarse clock, which lags by up to a tick. How long that is
// depends on the kernel: here it is always 10 ms, since libevent finds this one.
int clock_gettime(clockid_t id, struct timespec *now) {
  const long tick_ns = 10000000;
  int result = (int)syscall(SYS_clock_gettime, id, now);
  if (id == CLOCK_MONOTONIC_COARSE) {
    now->tv_nsec -= now->tv_nsec % tick_ns;
  }
  return result;
}

static struct loop *loop;
static struct timer limit;

static void on_limit(void *arg) {
  (void)arg;
  check_failed("the test ends in time", __FILE__, __LINE__);
}

static int make_loop(void **state) {
  (void)state;
  if (loop_new(&loop) != STATUS_OK || timer_init(&limit, loop, on_limit, NULL) != STATUS_OK) {
    return -1;
  }
  timer_arm_ms(&limit, LIMIT_MS);
  return 0;
}

// The same with libevent asked for, whose epoll then is the one that waits.
static int make_loop_with_base(void **state) {
  if (make_loop(state) != 0) {
    return -1;
  }
  return loop_base(loop) != NULL ? 0 : -1;
}

static int free_loop(void **state) {
  (void)state;
  timer_cleanup(&limit);
  loop_free(loop);
  loop = NULL;
  return 0;
}

static void stop(void *arg) {
  (void)arg;
  loop_stop(loop);
}

// --- posts -------------------------------------------------------------------

#define NUM_THREADS 4
#define NUM_POSTS 5000

static struct poster {
  int num_posted;
  int num_run;
  bool is_in_order;
} posters[NUM_THREADS];
static int num_finished;

struct numbered {
  struct poster *poster;
  int number;
};

static void run_numbered(void *arg) {
  struct numbered *numbered = arg;
  struct poster *poster = numbered->poster;
  poster->is_in_order = poster->is_in_order && numbered->number == poster->num_run;
  poster->num_run += 1;
  free(numbered);
  if (poster->num_run == NUM_POSTS) {
    num_finished += 1;
    if (num_finished == NUM_THREADS) {
      loop_stop(loop);
    }
  }
}

static void *post_often(void *arg) {
  struct poster *poster = arg;
  for (int i = 0; i < NUM_POSTS; i++) {
    struct numbered *numbered = malloc(sizeof(*numbered));
    CHECK(numbered != NULL);
    *numbered = (struct numbered){poster, i};
    loop_post(loop, run_numbered, numbered);
  }
  return NULL;
}

static void runs_every_post_of_every_thread_in_order(void **state) {
  pthread_t threads[NUM_THREADS];
  (void)state;
  num_finished = 0;
  for (size_t i = 0; i < NUM_THREADS; i++) {
    posters[i] = (struct poster){.is_in_order = true};
    assert_int_equal(pthread_create(&threads[i], NULL, post_often, &posters[i]), 0);
  }
  loop_run(loop);
  for (size_t i = 0; i < NUM_THREADS; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(posters[i].num_run, NUM_POSTS);
    assert_true(posters[i].is_in_order);
  }
}

static int num_chained;
static void post_again(void *arg) {
  num_chained += 1;
  loop_post(loop, num_chained < 100 ? post_again : stop, arg);
}

static void post_may_post(void **state) {
  (void)state;
  num_chained = 0;
  assert_false(loop_is_running(loop));
  loop_post(loop, post_again, NULL);
  loop_run(loop);
  assert_int_equal(num_chained, 100);
}

static void posts_after_the_end_are_dropped(void **state) {
  (void)state;
  num_chained = 0;
  loop_post(loop, post_again, NULL);  // never run; LeakSanitizer sees the queue
}

// --- running -----------------------------------------------------------------

static void *stop_from_outside(void *arg) {
  loop_stop(arg);
  return NULL;
}

static void stops_from_any_thread_and_runs_again(void **state) {
  (void)state;
  for (int i = 0; i < 100; i++) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_from_outside, loop), 0);
    loop_run(loop);
    assert_int_equal(pthread_join(thread, NULL), 0);
  }
}

static int64_t first_ms;
static void waste_time(void *arg) {
  int64_t begin_ms = clock_monotonic_ms();
  (void)arg;
  first_ms = loop_now_ms(loop);
  while (clock_monotonic_ms() < begin_ms + 5) {
  }
  assert_int_equal(loop_now_ms(loop), first_ms);  // the same round
  loop_stop(loop);
}

static void time_stands_still_within_a_round(void **state) {
  (void)state;
  loop_post(loop, waste_time, NULL);
  loop_run(loop);
  assert_true(loop_now_ms(loop) >= first_ms + 5);
  loop_post(loop, stop, NULL);
}

// --- timers ------------------------------------------------------------------

static int num_fired;
static int64_t fired_ms;
static void on_fire(void *arg) {
  (void)arg;
  num_fired += 1;
  fired_ms = clock_monotonic_ms();
  loop_stop(loop);
}

static void wake_again(void *arg) { timer_arm_ms(arg, 1); }

// Other events wake the loop all the time, so that it often compares.
static void timer_is_never_early(void **state) {
  struct timer timer;
  struct timer other;
  (void)state;
  assert_int_equal(timer_init(&other, loop, wake_again, &other), STATUS_OK);
  timer_arm_ms(&other, 1);
  assert_int_equal(timer_init(&timer, loop, on_fire, NULL), STATUS_OK);
  for (int64_t ms = 0; ms < 40; ms++) {
    int64_t begin_ms = 0;
    while (clock_monotonic_ms() % 10 != 7) {  // late in the coarse clock's tick
    }
    begin_ms = clock_monotonic_ms();
    num_fired = 0;
    assert_false(timer_is_armed(&timer));
    timer_arm_ms(&timer, ms);
    assert_true(timer_is_armed(&timer));
    loop_run(loop);
    assert_int_equal(num_fired, 1);
    assert_true(fired_ms >= begin_ms + ms);
  }
  timer_cleanup(&other);
  timer_cleanup(&timer);
}

static void later_arming_replaces_and_cancelling_ends(void **state) {
  struct timer a;
  struct timer b;
  struct timer zero = {0};
  int64_t begin_ms = clock_monotonic_ms();
  (void)state;
  num_fired = 0;
  assert_int_equal(timer_init(&a, loop, on_fire, NULL), STATUS_OK);
  assert_int_equal(timer_init(&b, loop, on_fire, NULL), STATUS_OK);
  timer_arm_ms(&a, 1);
  timer_arm_ms(&b, 1);
  timer_arm_ms(&a, 30);
  timer_cancel(&b);
  timer_cancel(&b);
  timer_cancel(&zero);
  loop_run(loop);
  assert_int_equal(num_fired, 1);
  assert_true(fired_ms >= begin_ms + 30);
  timer_cleanup(&a);
  timer_cleanup(&b);
  timer_cleanup(&zero);
}

static void free_own_timer(void *arg) {
  timer_cleanup(arg);
  free(arg);
  loop_stop(loop);
}

static void timer_may_be_freed_in_its_callback(void **state) {
  struct timer *timer = malloc(sizeof(*timer));
  (void)state;
  assert_non_null(timer);
  assert_int_equal(timer_init(timer, loop, free_own_timer, timer), STATUS_OK);
  timer_arm_ms(timer, -5);  // a deadline that has passed
  loop_run(loop);
}

#define NUM_RANDOM_TIMERS 500

static struct timer random_timers[NUM_RANDOM_TIMERS];
static int64_t last_due_ms;
static int num_left;

static void on_random(void *arg) {
  struct timer *timer = arg;
  assert_false(timer_is_armed(timer));
  assert_true(timer->due_ms >= last_due_ms);
  assert_true(timer->due_ms <= clock_monotonic_ms());
  last_due_ms = timer->due_ms;
  num_left -= 1;
  if (num_left == 0) {
    loop_stop(loop);
  }
}

// Armed, moved and cancelled in every order, they come in the order they are due.
static void many_timers_come_in_order(void **state) {
  uint32_t random = 12345;
  (void)state;
  num_left = 0;
  last_due_ms = 0;
  for (int i = 0; i < NUM_RANDOM_TIMERS; i++) {
    assert_int_equal(timer_init(&random_timers[i], loop, on_random, &random_timers[i]), STATUS_OK);
  }
  for (int i = 0; i < 5 * NUM_RANDOM_TIMERS; i++) {
    struct timer *timer = NULL;
    random = random * 1103515245 + 12345;
    timer = &random_timers[(random >> 8) % NUM_RANDOM_TIMERS];
    if ((random >> 4) % 4 == 0) {
      timer_cancel(timer);
    } else {
      timer_arm_ms(timer, (int64_t)((random >> 16) % 60));
    }
  }
  for (int i = 0; i < NUM_RANDOM_TIMERS; i++) {
    num_left += timer_is_armed(&random_timers[i]) ? 1 : 0;
  }
  assert_true(num_left > 100);
  loop_run(loop);
  assert_int_equal(num_left, 0);
  for (int i = 0; i < NUM_RANDOM_TIMERS; i++) {
    timer_cleanup(&random_timers[i]);
  }
}

static int num_rearmed;
static void arm_for_now(void *arg) {
  num_rearmed += 1;
  timer_arm_ms(arg, 0);
}

// One that is always due lets the rest of the loop live.
static void timer_for_now_starves_nobody(void **state) {
  struct timer eager;
  struct timer end;
  (void)state;
  num_rearmed = 0;
  assert_int_equal(timer_init(&eager, loop, arm_for_now, &eager), STATUS_OK);
  assert_int_equal(timer_init(&end, loop, stop, NULL), STATUS_OK);
  timer_arm_ms(&eager, 0);
  timer_arm_ms(&end, 20);
  loop_run(loop);
  assert_true(num_rearmed > 1);
  timer_cleanup(&eager);
  timer_cleanup(&end);
}

// --- descriptors -------------------------------------------------------------

struct end {
  struct io io;
  int fd;
  unsigned ready;
  int num_calls;
};

static void on_ready(void *arg, unsigned ready) {
  struct end *end = arg;
  end->ready |= ready;
  end->num_calls += 1;
}

static void make_pair(struct end *a, int *b) {
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  *a = (struct end){.fd = fds[0]};
  *b = fds[1];
}

static void run_for_ms(int64_t ms) {
  struct timer timer;
  assert_int_equal(timer_init(&timer, loop, stop, NULL), STATUS_OK);
  timer_arm_ms(&timer, ms);
  loop_run(loop);
  timer_cleanup(&timer);
}

static void descriptor_reports_each_edge_once(void **state) {
  struct end end;
  char buffer[16];
  int peer = -1;
  (void)state;
  make_pair(&end, &peer);
  assert_int_equal(io_init(&end.io, loop, end.fd, on_ready, &end), STATUS_OK);
  run_for_ms(5);
  assert_int_equal(end.ready, IO_WRITABLE);
  assert_int_equal(end.num_calls, 1);
  run_for_ms(5);
  assert_int_equal(end.num_calls, 1);  // still writable: no news
  assert_int_equal(write(peer, "x", 1), 1);
  run_for_ms(5);
  assert_int_equal(end.ready & IO_READABLE, IO_READABLE);
  assert_int_equal(end.num_calls, 2);
  run_for_ms(5);
  assert_int_equal(end.num_calls, 2);  // still readable: no news
  assert_int_equal(read(end.fd, buffer, sizeof(buffer)), 1);
  end.ready = 0;
  (void)close(peer);
  run_for_ms(5);
  assert_int_equal(end.ready, IO_READABLE | IO_WRITABLE | IO_ENDED);  // hang-up
  io_cleanup(&end.io);
  io_cleanup(&end.io);
  (void)close(end.fd);
}

static void listener_is_offered_again_and_can_be_paused(void **state) {
  struct end end;
  int peer = -1;
  int num_before = 0;
  (void)state;
  make_pair(&end, &peer);
  assert_int_equal(io_init_listener(&end.io, loop, end.fd, on_ready, &end), STATUS_OK);
  assert_int_equal(write(peer, "x", 1), 1);
  run_for_ms(5);
  assert_int_equal(end.ready, IO_READABLE);
  assert_true(end.num_calls > 1);
  io_pause(&end.io);
  num_before = end.num_calls;
  run_for_ms(5);
  assert_int_equal(end.num_calls, num_before);
  assert_int_equal(io_resume(&end.io), STATUS_OK);
  run_for_ms(5);
  assert_true(end.num_calls > num_before);
  run_for_ms(0);  // a timer that is due has its turn beside what is always ready
  io_cleanup(&end.io);
  (void)close(end.fd);
  (void)close(peer);
}

static void end_of_the_peer_is_told(void **state) {
  struct end end;
  int peer = -1;
  (void)state;
  make_pair(&end, &peer);
  assert_int_equal(io_init(&end.io, loop, end.fd, on_ready, &end), STATUS_OK);
  assert_int_equal(write(peer, "x", 1), 1);
  run_for_ms(5);
  assert_int_equal(end.ready & IO_ENDED, 0);
  // Its last byte and its end in one event: a short read is not the last word.
  assert_int_equal(write(peer, "y", 1), 1);
  assert_int_equal(shutdown(peer, SHUT_WR), 0);
  run_for_ms(5);
  assert_int_equal(end.ready, IO_READABLE | IO_WRITABLE | IO_ENDED);
  io_close(&end.io);
  (void)close(peer);
}

static void closing_ends_watching_and_the_descriptor(void **state) {
  struct end end;
  int peer = -1;
  (void)state;
  make_pair(&end, &peer);
  assert_int_equal(io_init(&end.io, loop, end.fd, on_ready, &end), STATUS_OK);
  io_close(&end.io);
  assert_int_equal(fcntl(end.fd, F_GETFD), -1);
  assert_int_equal(send(peer, "x", 1, MSG_NOSIGNAL), -1);
  run_for_ms(5);
  assert_int_equal(end.num_calls, 0);
  io_close(&end.io);  // twice is harmless
  assert_int_equal(end.io.fd, -1);
  (void)close(peer);
}

// Two descriptors are ready in one round; the first callback ends both.
static struct end pair_ends[2];
static void end_both(void *arg, unsigned ready) {
  (void)ready;
  ((struct end *)arg)->num_calls += 1;
  io_cleanup(&pair_ends[0].io);
  (void)close(pair_ends[0].fd);
  io_close(&pair_ends[1].io);
  loop_stop(loop);
}

static void no_callback_comes_after_cleanup(void **state) {
  int peers[2];
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    make_pair(&pair_ends[i], &peers[i]);
    assert_int_equal(io_init(&pair_ends[i].io, loop, pair_ends[i].fd, end_both, &pair_ends[i]),
                     STATUS_OK);
  }
  loop_run(loop);
  assert_int_equal(pair_ends[0].num_calls + pair_ends[1].num_calls, 1);
  (void)close(peers[0]);
  (void)close(peers[1]);
}

static void number_of_a_closed_descriptor_can_be_used_again(void **state) {
  (void)state;
  for (int i = 0; i < 50; i++) {
    struct end end;
    int peer = -1;
    make_pair(&end, &peer);
    assert_int_equal(io_init(&end.io, loop, end.fd, on_ready, &end), STATUS_OK);
    run_for_ms(0);
    assert_int_equal(end.ready, IO_WRITABLE);
    io_cleanup(&end.io);
    (void)close(end.fd);
    (void)close(peer);
  }
}

static void refuses_a_descriptor_that_cannot_be_watched(void **state) {
  struct io io;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  (void)state;
  assert_int_equal(io_init(&io, loop, fd, on_ready, NULL), STATUS_SYSTEM);
  io_cleanup(&io);
  (void)close(fd);
}

// --- signals -----------------------------------------------------------------

static int num_hups;
static void on_hup(void *arg) {
  (void)arg;
  num_hups += 1;
  (void)kill(getpid(), SIGTERM);
}

static void *raise_signal(void *arg) {
  (void)arg;
  (void)kill(getpid(), SIGHUP);
  return NULL;
}

static void signals_are_callbacks(void **state) {
  pthread_t thread;
  (void)state;
  num_hups = 0;
  assert_int_equal(loop_on_signal(loop, SIGHUP, on_hup, NULL), STATUS_OK);
  assert_int_equal(loop_on_signal(loop, SIGTERM, stop, NULL), STATUS_OK);
  assert_int_equal(pthread_create(&thread, NULL, raise_signal, NULL), 0);
  loop_run(loop);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(num_hups, 1);
}

// Each test twice: the loop alone, and with libevent beside it.
#define TEST(name)                                             \
  cmocka_unit_test_setup_teardown(name, make_loop, free_loop), \
      cmocka_unit_test_setup_teardown(name, make_loop_with_base, free_loop)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(runs_every_post_of_every_thread_in_order),
      TEST(post_may_post),
      TEST(posts_after_the_end_are_dropped),
      TEST(stops_from_any_thread_and_runs_again),
      TEST(time_stands_still_within_a_round),
      TEST(timer_is_never_early),
      TEST(later_arming_replaces_and_cancelling_ends),
      TEST(timer_may_be_freed_in_its_callback),
      TEST(many_timers_come_in_order),
      TEST(timer_for_now_starves_nobody),
      TEST(descriptor_reports_each_edge_once),
      TEST(listener_is_offered_again_and_can_be_paused),
      TEST(end_of_the_peer_is_told),
      TEST(closing_ends_watching_and_the_descriptor),
      TEST(no_callback_comes_after_cleanup),
      TEST(number_of_a_closed_descriptor_can_be_used_again),
      TEST(refuses_a_descriptor_that_cannot_be_watched),
      TEST(signals_are_callbacks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
