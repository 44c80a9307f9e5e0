// SPDX-License-Identifier: Apache-2.0
#include "proxy/grace.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define NUM_WORKERS 3

struct worker {
  struct loop *loop;
  pthread_t thread;
  _Atomic bool is_held;  // it sits in a callback
  _Atomic bool may_go;
};

static struct loop *control;
static struct worker workers[NUM_WORKERS];
static struct grace *grace;
static int num_freed;
static struct timer end;

static void *run(void *arg) {
  struct worker *worker = arg;
  loop_run(worker->loop);
  return NULL;
}

static void on_end(void *arg) {
  (void)arg;
  loop_stop(control);
}

static int set_up(void **state) {
  (void)state;
  struct loop *loops[NUM_WORKERS];
  num_freed = 0;
  if (loop_new(&control) != STATUS_OK || timer_init(&end, control, on_end, NULL) != STATUS_OK) {
    return -1;
  }
  for (size_t i = 0; i < NUM_WORKERS; i++) {
    atomic_store(&workers[i].is_held, false);
    atomic_store(&workers[i].may_go, false);
    if (loop_new(&workers[i].loop) != STATUS_OK ||
        pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) {
      return -1;
    }
    loops[i] = workers[i].loop;
  }
  return grace_new(&grace, control, loops, NUM_WORKERS) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_WORKERS; i++) {
    loop_stop(workers[i].loop);
    (void)pthread_join(workers[i].thread, NULL);
  }
  grace_free(grace);
  for (size_t i = 0; i < NUM_WORKERS; i++) {
    loop_free(workers[i].loop);
  }
  timer_cleanup(&end);
  loop_free(control);
  return 0;
}

static void run_control_ms(int64_t ms) {
  timer_arm_ms(&end, ms);
  loop_run(control);
}

static void on_free(void *arg) {
  num_freed += 1;
  free(arg);
}

static void on_last(void *arg) {
  on_free(arg);
  loop_stop(control);
}

// A worker in the middle of a callback, with a pointer to something shared.
static void hold(void *arg) {
  struct worker *worker = arg;
  atomic_store(&worker->is_held, true);
  while (!atomic_load(&worker->may_go)) {
    (void)usleep(1000);
  }
}

static void frees_when_all_have_passed(void **state) {
  (void)state;
  grace_after(grace, on_last, malloc(1));
  loop_run(control);
  assert_int_equal(num_freed, 1);
}

static void waits_for_the_one_that_may_still_read(void **state) {
  (void)state;
  loop_post(workers[1].loop, hold, &workers[1]);
  while (!atomic_load(&workers[1].is_held)) {
    (void)usleep(1000);
  }
  grace_after(grace, on_last, malloc(1));
  run_control_ms(100);
  assert_int_equal(num_freed, 0);
  atomic_store(&workers[1].may_go, true);
  loop_run(control);
  assert_int_equal(num_freed, 1);
}

static void later_ones_wait_for_a_round_of_their_own(void **state) {
  (void)state;
  loop_post(workers[0].loop, hold, &workers[0]);
  while (!atomic_load(&workers[0].is_held)) {
    (void)usleep(1000);
  }
  grace_after(grace, on_free, malloc(1));
  for (int i = 0; i < 10; i++) {
    grace_after(grace, on_free, malloc(1));
  }
  grace_after(grace, on_last, malloc(1));
  atomic_store(&workers[0].may_go, true);
  // The order within a round is nobody's business: run until it is quiet.
  run_control_ms(300);
  run_control_ms(300);
  assert_int_equal(num_freed, 12);
}

static void again(void *arg) {
  on_free(arg);
  if (num_freed < 5) {
    grace_after(grace, again, malloc(1));
  } else {
    loop_stop(control);
  }
}

static void callback_may_ask_again(void **state) {
  (void)state;
  grace_after(grace, again, malloc(1));
  loop_run(control);
  assert_int_equal(num_freed, 5);
}

static void end_frees_what_waits(void **state) {
  (void)state;
  grace_after(grace, on_free, malloc(1));
  grace_after(grace, on_free, malloc(1));
  // tear_down frees both; a leak or a double free would be seen by the sanitizer.
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(frees_when_all_have_passed, set_up, tear_down),
      cmocka_unit_test_setup_teardown(waits_for_the_one_that_may_still_read, set_up, tear_down),
      cmocka_unit_test_setup_teardown(later_ones_wait_for_a_round_of_their_own, set_up, tear_down),
      cmocka_unit_test_setup_teardown(callback_may_ask_again, set_up, tear_down),
      cmocka_unit_test_setup_teardown(end_frees_what_waits, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
