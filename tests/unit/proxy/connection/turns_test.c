// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proxy/connection/conn.h"
#include "proxy/worker.h"

#define NUM_CONNS 7
#define STEP_US (TURNS_ROUND_US / 2)  // two of them are a turn

static struct worker *worker;
static struct conn *conns[NUM_CONNS];
static size_t taken[4 * NUM_CONNS];
static size_t num_taken;
static size_t num_at_look[16];  // taken when the loop looked at its events
static size_t num_looks;
static struct conn *asks_again;

// In the place of conn.c's: a step of a handshake takes half a turn.
void conn_take_turn(struct conn *conn) {
  taken[num_taken++] = (size_t)conn->id;
  turns_spend(&worker->turns, STEP_US);
  if (conn == asks_again) {
    asks_again = NULL;
    assert_false(turns_may_go(worker));
    turns_wait(worker, conn);
  }
}

// What else the loop has to do comes between two rounds of turns.
static void look(void *arg) {
  (void)arg;
  num_at_look[num_looks++] = num_taken;
  if (worker->turns.first == NULL) {
    loop_stop(worker->loop);
  } else {
    loop_post(worker->loop, look, NULL);
  }
}

static int make_worker(void **state) {
  (void)state;
  worker = calloc(1, sizeof(*worker));
  num_taken = 0;
  num_looks = 0;
  asks_again = NULL;
  if (worker == NULL || loop_new(&worker->loop) != STATUS_OK) {
    return -1;
  }
  turns_init(worker);
  for (size_t i = 0; i < NUM_CONNS; i++) {
    conns[i] = calloc(1, sizeof(*conns[i]));
    conns[i]->worker = worker;
    conns[i]->id = i;
  }
  return 0;
}

static int free_worker(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_CONNS; i++) {
    free(conns[i]);
  }
  loop_free(worker->loop);
  free(worker);
  return 0;
}

static void begin(void *arg) {
  (void)arg;
  // What a turn holds goes on at once; the others stand in line.
  for (size_t i = 0; i < NUM_CONNS; i++) {
    if (turns_may_go(worker)) {
      conn_take_turn(conns[i]);
    } else {
      turns_wait(worker, conns[i]);
      turns_wait(worker, conns[i]);  // an event more is no second place
    }
  }
  assert_int_equal(num_taken, 2);
  loop_post(worker->loop, look, NULL);
}

static void each_round_has_one_turn_and_the_line_its_order(void **state) {
  (void)state;
  asks_again = conns[3];
  loop_post(worker->loop, begin, NULL);
  loop_run(worker->loop);
  static const size_t wanted[] = {0, 1, 2, 3, 4, 5, 6, 3};
  assert_int_equal(num_taken, sizeof(wanted) / sizeof(wanted[0]));
  assert_memory_equal(taken, wanted, sizeof(wanted));
  for (size_t i = 1; i < num_looks; i++) {
    assert_true(num_at_look[i] - num_at_look[i - 1] <= 2);
  }
  assert_int_equal(worker->admission.wait_us, 0);  // nobody waits any more
  assert_true(turns_may_go(worker) || worker->turns.left_us <= 0);
}

static void begin_and_end(void *arg) {
  begin(arg);
  turns_forget(worker, conns[2]);  // the first of the line, whose wait is measured
  turns_forget(worker, conns[2]);
  turns_forget(worker, conns[6]);  // and the last
  turns_forget(worker, conns[4]);
  turns_forget(worker, conns[0]);  // was never in it
  turns_wait(worker, conns[2]);
}

static void who_ends_leaves_the_line(void **state) {
  (void)state;
  loop_post(worker->loop, begin_and_end, NULL);
  loop_run(worker->loop);
  static const size_t wanted[] = {0, 1, 3, 5, 2};
  assert_int_equal(num_taken, sizeof(wanted) / sizeof(wanted[0]));
  assert_memory_equal(taken, wanted, sizeof(wanted));
  assert_null(worker->turns.first);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(each_round_has_one_turn_and_the_line_its_order, make_worker,
                                      free_worker),
      cmocka_unit_test_setup_teardown(who_ends_leaves_the_line, make_worker, free_worker),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
