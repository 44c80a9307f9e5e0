// SPDX-License-Identifier: Apache-2.0
#include "common/net/job.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#define NUM_JOBS 100

static struct loop *loop;
static struct jobs *jobs;
static pthread_t loop_thread;

struct task {
  struct job job;
  unsigned number;
  _Atomic bool is_worked;
  bool is_done;
  unsigned rounds_left;
};

static struct task tasks[NUM_JOBS];
static _Atomic unsigned num_worked;
static unsigned num_done;
static _Atomic bool may_work;

static int make_jobs(void **state) {
  (void)state;
  loop_thread = pthread_self();
  num_done = 0;
  atomic_store(&num_worked, 0);
  atomic_store(&may_work, true);
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(jobs_new(&jobs, loop), STATUS_OK);
  return 0;
}

static int free_jobs(void **state) {
  (void)state;
  atomic_store(&may_work, true);
  jobs_free(jobs);
  loop_free(loop);
  return 0;
}

static void work(void *arg) {
  struct task *task = arg;
  sigset_t mask;
  while (!atomic_load(&may_work)) {
    (void)usleep(100);
  }
  // cmocka's assertions are for the test's own thread.
  CHECK(!pthread_equal(pthread_self(), loop_thread));
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGTERM) == 1);
  CHECK(atomic_fetch_add(&num_worked, 1) == task->number);  // one after the other, in order
  atomic_store(&task->is_worked, true);
}

static void done(void *arg) {
  struct task *task = arg;
  assert_true(pthread_equal(pthread_self(), loop_thread));
  assert_true(atomic_load(&task->is_worked));
  assert_false(task->is_done);
  assert_int_equal(task->number, num_done);
  task->is_done = true;
  num_done++;
  if (num_done == NUM_JOBS) {
    loop_stop(loop);
  }
}

static void start(unsigned number) {
  tasks[number] = (struct task){.number = number};
  tasks[number].job = (struct job){.work = work, .done = done, .arg = &tasks[number]};
  jobs_start(jobs, &tasks[number].job);
}

static void works_on_a_thread_and_tells_the_loop_in_order(void **state) {
  (void)state;
  for (unsigned i = 0; i < NUM_JOBS; i++) {
    start(i);
  }
  loop_run(loop);
  assert_int_equal(num_done, NUM_JOBS);
}

static void again(void *arg) {
  struct task *task = arg;
  if (--task->rounds_left == 0) {
    loop_stop(loop);
    return;
  }
  jobs_start(jobs, &task->job);
}

static void nothing(void *arg) { (void)arg; }

static void a_done_may_start_its_job_again(void **state) {
  (void)state;
  struct task task = {.rounds_left = 1000};
  task.job = (struct job){.work = nothing, .done = again, .arg = &task};
  jobs_start(jobs, &task.job);
  loop_run(loop);
  assert_int_equal(task.rounds_left, 0);
}

static void end_waits_no_longer_than_it_was_told(void **state) {
  (void)state;
  atomic_store(&may_work, false);
  start(0);
  assert_false(jobs_end(jobs, 20));
  atomic_store(&may_work, true);
  assert_true(jobs_end(jobs, 60000));
  jobs = NULL;
  assert_int_equal(atomic_load(&num_worked), 1);
}

static void free_finishes_what_was_started_and_tells_nobody(void **state) {
  (void)state;
  atomic_store(&may_work, false);
  for (unsigned i = 0; i < NUM_JOBS; i++) {
    start(i);
  }
  atomic_store(&may_work, true);
  jobs_free(jobs);
  jobs = NULL;
  assert_int_equal(atomic_load(&num_worked), NUM_JOBS);
  assert_int_equal(num_done, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_jobs, free_jobs)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(works_on_a_thread_and_tells_the_loop_in_order),
      TEST(a_done_may_start_its_job_again),
      TEST(free_finishes_what_was_started_and_tells_nobody),
      TEST(end_waits_no_longer_than_it_was_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
