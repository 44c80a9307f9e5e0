// SPDX-License-Identifier: Apache-2.0
#include "keyserver/signer_pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#define NUM_MANY 2000u
#define MAX_ARRIVED (NUM_MANY + 16u)

struct test_job {
  struct signer_job job;  // first
  bool must_wait;         // for the gate
};

static struct {
  struct loop *loop;
  struct signer_pool *pool;
  struct signer_inbox inbox;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool is_open;  // the gate
  unsigned num_at_gate;
  atomic_uint num_freed;
  uint64_t arrived[MAX_ARRIVED];
  size_t num_arrived;
  size_t num_wanted;
  atomic_uint num_idle_calls;
} t;

static void free_job(struct signer_job *job) {
  atomic_fetch_add(&t.num_freed, 1);
  free(job);
}

static void work(struct signer_job *job) {
  const struct test_job *mine = (struct test_job *)(void *)job;

  if (!mine->must_wait) {
    return;
  }
  (void)pthread_mutex_lock(&t.lock);
  t.num_at_gate++;
  (void)pthread_cond_broadcast(&t.changed);
  while (!t.is_open) {
    (void)pthread_cond_wait(&t.changed, &t.lock);
  }
  (void)pthread_mutex_unlock(&t.lock);
}

static void on_job(void *arg, struct signer_job *job) {
  (void)arg;
  assert_in_range(t.num_arrived, 0, MAX_ARRIVED - 1);
  t.arrived[t.num_arrived++] = job->id;
  job->free(job);
  if (t.num_arrived == t.num_wanted) {
    loop_stop(t.loop);
  }
}

static void set_gate(bool is_open) {
  (void)pthread_mutex_lock(&t.lock);
  t.is_open = is_open;
  (void)pthread_cond_broadcast(&t.changed);
  (void)pthread_mutex_unlock(&t.lock);
}

static void wait_at_gate(unsigned num) {
  (void)pthread_mutex_lock(&t.lock);
  while (t.num_at_gate < num) {
    (void)pthread_cond_wait(&t.changed, &t.lock);
  }
  (void)pthread_mutex_unlock(&t.lock);
}

static enum status submit(unsigned lane, uint64_t id, unsigned flow, bool must_wait) {
  struct test_job *mine = calloc(1, sizeof *mine);
  struct signer_job *job = NULL;
  enum status st = STATUS_OK;

  assert_non_null(mine);
  mine->must_wait = must_wait;
  mine->job = (struct signer_job){
      .id = id, .flow = flow, .inbox = &t.inbox, .work = work, .free = free_job};
  job = &mine->job;
  st = signer_pool_submit(t.pool, lane, &job);
  if (st != STATUS_OK) {
    free(job);
  }
  return st;
}

static void run_until(size_t num) {
  t.num_wanted = num;
  if (t.num_arrived < num) {
    loop_run(t.loop);
  }
  assert_int_equal(t.num_arrived, num);
}

static unsigned add_lane(unsigned num_threads, unsigned max_queued) {
  const struct signer_lane_config config = {
      .name = "test", .num_threads = num_threads, .max_queued = max_queued, .nice = 1};
  unsigned lane = 99;
  assert_int_equal(signer_pool_add_lane(t.pool, &lane, &config), STATUS_OK);
  return lane;
}

static int setup(void **state) {
  (void)state;
  t.num_arrived = 0;
  t.num_at_gate = 0;
  t.is_open = false;
  atomic_store(&t.num_freed, 0);
  atomic_store(&t.num_idle_calls, 0);
  (void)pthread_mutex_init(&t.lock, NULL);
  (void)pthread_cond_init(&t.changed, NULL);
  assert_int_equal(loop_new(&t.loop), STATUS_OK);
  signer_inbox_init(&t.inbox, t.loop, on_job, NULL);
  assert_int_equal(signer_pool_new(&t.pool), STATUS_OK);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  set_gate(true);
  signer_pool_free(t.pool);
  signer_inbox_cleanup(&t.inbox);
  loop_free(t.loop);
  (void)pthread_cond_destroy(&t.changed);
  (void)pthread_mutex_destroy(&t.lock);
  return 0;
}

static void every_job_comes_back_once(void **state) {
  const unsigned lane = add_lane(4, NUM_MANY * 2);
  uint8_t seen[NUM_MANY] = {0};
  (void)state;

  for (uint64_t i = 0; i < NUM_MANY; i++) {
    assert_int_equal(submit(lane, i, (unsigned)i, false), STATUS_OK);
  }
  run_until(NUM_MANY);
  for (size_t i = 0; i < NUM_MANY; i++) {
    assert_in_range(t.arrived[i], 0, NUM_MANY - 1);
    assert_int_equal(seen[t.arrived[i]]++, 0);
  }
  assert_int_equal(atomic_load(&t.num_freed), NUM_MANY);
}

static void flows_take_turns(void **state) {
  static const uint64_t in_turn[] = {100, 1, 10, 20, 2, 3, 4};
  const unsigned lane = add_lane(1, 100);
  (void)state;

  assert_int_equal(submit(lane, 100, 0, true), STATUS_OK);
  wait_at_gate(1);
  for (uint64_t id = 1; id <= 4; id++) {
    assert_int_equal(submit(lane, id, 1, false), STATUS_OK);
  }
  assert_int_equal(submit(lane, 10, 2, false), STATUS_OK);
  assert_int_equal(submit(lane, 20, SIGNER_NUM_FLOWS + 3, false), STATUS_OK);
  set_gate(true);
  run_until(7);
  for (size_t i = 0; i < 7; i++) {
    assert_int_equal(t.arrived[i], in_turn[i]);
  }
}

static void the_queue_and_a_flow_s_half_of_it_are_bounded(void **state) {
  const unsigned lane = add_lane(1, 10);
  struct signer_lane_stats stats;
  (void)state;

  assert_int_equal(submit(lane, 100, 0, true), STATUS_OK);
  wait_at_gate(1);
  for (uint64_t id = 0; id < 5; id++) {
    assert_int_equal(submit(lane, id, 1, false), STATUS_OK);
  }
  assert_int_equal(submit(lane, 5, 1, false), STATUS_LIMIT);
  for (uint64_t id = 10; id < 15; id++) {
    assert_int_equal(submit(lane, id, (unsigned)id, false), STATUS_OK);
  }
  assert_int_equal(submit(lane, 15, 15, false), STATUS_LIMIT);
  signer_pool_stats(&stats, t.pool, lane);
  assert_int_equal(stats.num_queued, 10);
  assert_int_equal(stats.num_running, 1);
  assert_int_equal(stats.num_full, 2);
  assert_int_equal(submit(lane + 1, 1, 1, false), STATUS_UNAVAILABLE);
  set_gate(true);
  run_until(11);
}

static void a_lane_that_hangs_holds_up_no_other(void **state) {
  const unsigned stuck = add_lane(1, 10);
  const unsigned other = add_lane(1, 10);
  (void)state;

  assert_int_equal(submit(stuck, 1, 0, true), STATUS_OK);
  wait_at_gate(1);
  assert_int_equal(submit(stuck, 2, 0, false), STATUS_OK);
  assert_int_equal(submit(other, 3, 0, false), STATUS_OK);
  run_until(1);
  assert_int_equal(t.arrived[0], 3);
}

static void what_waits_can_be_cancelled(void **state) {
  const unsigned lane = add_lane(1, 10);
  struct signer_inbox other;
  (void)state;

  signer_inbox_init(&other, t.loop, on_job, NULL);
  assert_int_equal(submit(lane, 1, 0, true), STATUS_OK);
  wait_at_gate(1);
  for (uint64_t id = 2; id <= 4; id++) {
    assert_int_equal(submit(lane, id, 7, false), STATUS_OK);
  }
  assert_false(signer_pool_cancel(t.pool, lane, &t.inbox, 1));  // under way
  assert_false(signer_pool_cancel(t.pool, lane, &t.inbox, 9));
  assert_false(signer_pool_cancel(t.pool, lane, &other, 3));   // another's job of that id
  assert_true(signer_pool_cancel(t.pool, lane, &t.inbox, 4));  // the last
  assert_true(signer_pool_cancel(t.pool, lane, &t.inbox, 2));  // the first
  assert_false(signer_pool_cancel(t.pool, lane, &t.inbox, 2));
  assert_int_equal(submit(lane, 5, 7, false), STATUS_OK);
  set_gate(true);
  run_until(3);
  assert_int_equal(t.arrived[1], 3);
  assert_int_equal(t.arrived[2], 5);
  signer_inbox_cleanup(&other);
}

static void stopping_frees_what_waits(void **state) {
  const unsigned lane = add_lane(2, 100);
  (void)state;

  for (uint64_t id = 0; id < 50; id++) {
    assert_int_equal(submit(lane, id, (unsigned)id, false), STATUS_OK);
  }
  assert_true(signer_pool_stop(t.pool));
  assert_int_equal(submit(lane, 60, 0, false), STATUS_UNAVAILABLE);
  signer_inbox_cleanup(&t.inbox);
  assert_int_equal(atomic_load(&t.num_freed), 50);
}

static void a_thread_that_hangs_is_left_behind(void **state) {
  const unsigned lane = add_lane(1, 10);
  (void)state;

  assert_int_equal(submit(lane, 1, 0, true), STATUS_OK);
  wait_at_gate(1);
  assert_false(signer_pool_stop(t.pool));
  set_gate(true);  // it comes back after all: its job goes nowhere
  while (atomic_load(&t.num_freed) == 0) {
  }
  assert_int_equal(t.num_arrived, 0);
}

static void on_idle(void *arg) {
  (void)arg;
  atomic_fetch_add(&t.num_idle_calls, 1);
}

static void on_idle_is_called_by_one_thread_at_a_time(void **state) {
  const struct signer_lane_config config = {
      .name = "idle", .num_threads = 4, .max_queued = 4, .on_idle = on_idle};
  unsigned lane = 0;
  (void)state;

  assert_int_equal(signer_pool_add_lane(t.pool, &lane, &config), STATUS_OK);
  while (atomic_load(&t.num_idle_calls) < 2) {
  }
  assert_in_range(atomic_load(&t.num_idle_calls), 2, 3);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(every_job_comes_back_once),
      TEST(flows_take_turns),
      TEST(the_queue_and_a_flow_s_half_of_it_are_bounded),
      TEST(a_lane_that_hangs_holds_up_no_other),
      TEST(what_waits_can_be_cancelled),
      TEST(stopping_frees_what_waits),
      TEST(on_idle_is_called_by_one_thread_at_a_time),
      TEST(a_thread_that_hangs_is_left_behind),  // last: its pool stays for ever
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
