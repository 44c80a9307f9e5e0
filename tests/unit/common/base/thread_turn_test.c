// SPDX-License-Identifier: Apache-2.0
#include "common/base/thread_turn.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

// As of <linux/sched/types.h>, which cannot be had together with <pthread.h>.
struct attr {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;
  uint64_t deadline;
  uint64_t period;
  uint32_t util_min;
  uint32_t util_max;
};

static void get(struct attr *attr) {
  assert_int_equal(syscall(SYS_sched_getattr, 0, attr, sizeof *attr, 0), 0);
}

static void *tell_short(void *arg) {
  thread_turn_yield(getpriority(PRIO_PROCESS, 0) + 3);
  get(&((struct attr *)arg)[0]);
  thread_turn_short();
  get(&((struct attr *)arg)[1]);
  return NULL;
}

static void short_turns_change_nothing_else(void **state) {
  struct attr own[2] = {{.size = sizeof own[0]}, {.size = sizeof own[0]}};
  struct attr of_thread[2] = {{.size = sizeof own[0]}, {.size = sizeof own[0]}};
  pthread_t thread;
  (void)state;
  get(&own[0]);
  if (own[0].policy != SCHED_OTHER) {
    skip();
  }
  assert_int_equal(pthread_create(&thread, NULL, tell_short, of_thread), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  get(&own[1]);

  assert_int_equal(of_thread[0].nice, own[0].nice + 3);  // it gives way
  assert_int_equal(of_thread[1].nice, of_thread[0].nice);
  assert_int_equal(of_thread[1].policy, SCHED_OTHER);
  assert_int_equal(of_thread[1].flags, of_thread[0].flags);
  if (of_thread[0].runtime != 0) {  // the kernel knows slices
    assert_int_equal(of_thread[1].runtime, THREAD_TURN_MIN_US * 1000);
  }
  // Nobody else's turns have changed.
  assert_int_equal(own[1].nice, own[0].nice);
  assert_int_equal(own[1].runtime, own[0].runtime);
}

static void *be_realtime(void *arg) {
  const struct sched_param low = {.sched_priority = 1};
  struct attr *attr = arg;
  if (sched_setscheduler(0, SCHED_RR, &low) != 0) {
    return (void *)(intptr_t)errno;
  }
  thread_turn_short();
  get(attr);
  return NULL;
}

static void another_policy_is_left_alone(void **state) {
  struct attr attr = {.size = sizeof attr};
  pthread_t thread;
  void *error = NULL;
  (void)state;
  assert_int_equal(pthread_create(&thread, NULL, be_realtime, &attr), 0);
  assert_int_equal(pthread_join(thread, &error), 0);
  if (error != NULL) {
    skip();
  }
  assert_int_equal(attr.policy, SCHED_RR);
  assert_int_equal(attr.priority, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(short_turns_change_nothing_else),
      cmocka_unit_test(another_policy_is_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
