// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "common/base/clock.h"

#define MAX_ITEMS 64

struct item {
  struct deadline deadline;
  int number;
  int64_t due_ms;  // when it was called for; 0: not yet
};

static struct loop *loop;
static struct deadlines deadlines;
static struct timer end;
static struct item items[MAX_ITEMS];
static int order[MAX_ITEMS];
static int num_due;
static void (*then)(struct item *item);

static void on_due(void *arg, struct deadline *deadline) {
  struct item *item = (struct item *)deadline;  // its first member
  (void)arg;
  item->due_ms = clock_monotonic_ms();
  order[num_due++] = item->number;
  assert_null(deadline->next);
  if (then != NULL) {
    then(item);
  }
}

static void on_end(void *arg) {
  (void)arg;
  loop_stop(loop);
}

static int set_up(void **state) {
  (void)state;
  num_due = 0;
  then = NULL;
  for (int i = 0; i < MAX_ITEMS; i++) {
    items[i] = (struct item){.number = i};
  }
  if (loop_new(&loop) != STATUS_OK || timer_init(&end, loop, on_end, NULL) != STATUS_OK) {
    return -1;
  }
  return deadlines_init(&deadlines, loop, on_due, NULL) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  timer_cleanup(&end);
  deadlines_cleanup(&deadlines);
  loop_free(loop);
  return 0;
}

static void run_ms(int64_t ms) {
  timer_arm_ms(&end, ms);
  loop_run(loop);
}

static void set(int number, unsigned queue, int64_t limit_ms) {
  deadline_set(&deadlines, &items[number].deadline, queue, limit_ms);
}

static void are_called_in_order_and_never_early(void **state) {
  (void)state;
  int64_t start_ms = clock_monotonic_ms();
  set(0, 0, 60);
  set(1, 1, 20);
  set(2, 0, 60);
  set(3, 2, 100);
  run_ms(250);
  assert_int_equal(num_due, 4);
  assert_int_equal(order[0], 1);
  assert_int_equal(order[1], 0);
  assert_int_equal(order[2], 2);
  assert_int_equal(order[3], 3);
  assert_true(items[1].due_ms - start_ms >= 20);
  assert_true(items[0].due_ms - start_ms >= 60);
  assert_true(items[3].due_ms - start_ms >= 100);
}

static void set_again_moves_it(void **state) {
  (void)state;
  int64_t start_ms = clock_monotonic_ms();
  set(0, 0, 30);
  set(1, 0, 30);
  set(0, 1, 120);  // another queue, later
  run_ms(300);
  assert_int_equal(num_due, 2);
  assert_int_equal(order[0], 1);
  assert_true(items[0].due_ms - start_ms >= 120);
}

static void cleared_is_not_called(void **state) {
  (void)state;
  set(0, 0, 20);
  set(1, 0, 20);
  deadline_clear(&items[0].deadline);
  deadline_clear(&items[0].deadline);  // twice is fine
  run_ms(100);
  assert_int_equal(num_due, 1);
  assert_int_equal(order[0], 1);
}

static void limit_of_zero_is_none(void **state) {
  (void)state;
  set(0, 0, 20);
  set(0, 0, 0);
  run_ms(80);
  assert_int_equal(num_due, 0);
}

// What happens when a connection expires: others of the queue may end with it.
static void clear_neighbours(struct item *item) {
  if (item->number == 0) {
    deadline_clear(&items[1].deadline);
    deadline_clear(&items[2].deadline);
    set(0, 1, 20);  // and it goes on in another state
    then = NULL;
  }
}

static void callback_may_change_the_queue(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) {
    set(i, 0, 20);
  }
  then = clear_neighbours;
  run_ms(200);
  assert_int_equal(num_due, 3);
  assert_int_equal(order[0], 0);
  assert_int_equal(order[1], 3);
  assert_int_equal(order[2], 0);
}

static void earlier_one_wakes_an_armed_timer(void **state) {
  (void)state;
  int64_t start_ms = clock_monotonic_ms();
  set(0, 0, 10000);
  set(1, 1, 20);
  run_ms(200);
  assert_int_equal(num_due, 1);
  assert_int_equal(order[0], 1);
  assert_true(items[1].due_ms - start_ms < 150);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(are_called_in_order_and_never_early, set_up, tear_down),
      cmocka_unit_test_setup_teardown(set_again_moves_it, set_up, tear_down),
      cmocka_unit_test_setup_teardown(cleared_is_not_called, set_up, tear_down),
      cmocka_unit_test_setup_teardown(limit_of_zero_is_none, set_up, tear_down),
      cmocka_unit_test_setup_teardown(callback_may_change_the_queue, set_up, tear_down),
      cmocka_unit_test_setup_teardown(earlier_one_wakes_an_armed_timer, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
