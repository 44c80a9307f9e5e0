// SPDX-License-Identifier: Apache-2.0
#include "common/base/join.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "common/base/clock.h"

#define LONG_MS 60000
#define SHORT_MS 30

static atomic_bool is_over;

static void *run(void *arg) {
  const struct timespec pause = {.tv_nsec = 1000000};
  (void)arg;
  while (!atomic_load(&is_over)) {
    (void)nanosleep(&pause, NULL);
  }
  return NULL;
}

static void waits_for_the_end_and_no_longer_than_it_may(void **state) {
  pthread_t thread;
  const int64_t begin_ms = clock_monotonic_ms();
  (void)state;

  atomic_store(&is_over, false);
  assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
  assert_false(join_by(thread, begin_ms));  // a time that has passed
  assert_false(join_by(thread, begin_ms + SHORT_MS));
  assert_true(clock_monotonic_ms() >= begin_ms + SHORT_MS);
  atomic_store(&is_over, true);
  assert_true(join_by(thread, clock_monotonic_ms() + LONG_MS));
  assert_true(clock_monotonic_ms() < begin_ms + LONG_MS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(waits_for_the_end_and_no_longer_than_it_may),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
