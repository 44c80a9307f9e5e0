// SPDX-License-Identifier: Apache-2.0
#include "bench/pacer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#define START 5000000000000LL

static void first_arrival_is_due_at_once(void **state) {
  (void)state;
  struct pacer p;
  pacer_init(&p, PACER_CONSTANT, 1000, START, 1);
  assert_int_equal(pacer_due_ns(&p), START);
  pacer_init(&p, PACER_POISSON, 1000, START, 1);
  assert_int_equal(pacer_due_ns(&p), START);
}

// 3 per second: an interval that is no whole number of nanoseconds.
static void constant_arrivals_do_not_drift(void **state) {
  (void)state;
  struct pacer p;
  pacer_init(&p, PACER_CONSTANT, 3, START, 1);
  for (int i = 0; i < 3000000; i++) {
    pacer_take(&p);
  }
  assert_true(llabs(pacer_due_ns(&p) - (START + 1000000LL * 1000000000)) <= 1);
}

// The times are those of the rate, however late somebody looks.
static void due_times_do_not_wait_for_anybody(void **state) {
  (void)state;
  struct pacer p;
  pacer_init(&p, PACER_CONSTANT, 100, START, 1);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(pacer_due_ns(&p), START + i * 10000000LL);
    assert_int_equal(pacer_due_ns(&p), START + i * 10000000LL);
    pacer_take(&p);
  }
}

static void poisson_arrivals_have_the_rate_and_the_spread(void **state) {
  (void)state;
  struct pacer p;
  const int num = 200000;
  double sum = 0;
  double squares = 0;
  int64_t last = START;
  pacer_init(&p, PACER_POISSON, 1000, START, 7);
  for (int i = 0; i < num; i++) {
    pacer_take(&p);
    const double gap = (double)(pacer_due_ns(&p) - last);
    assert_true(gap >= 0);
    last = pacer_due_ns(&p);
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / num;
  const double deviation = sqrt(squares / num - mean * mean);
  assert_true(fabs(mean - 1e6) < 1e4);       // 1 %
  assert_true(fabs(deviation - 1e6) < 2e4);  // exponential: as large as the mean
}

static void same_seed_gives_the_same_times(void **state) {
  (void)state;
  struct pacer a;
  struct pacer b;
  struct pacer c;
  int num_different = 0;
  pacer_init(&a, PACER_POISSON, 50, START, 3);
  pacer_init(&b, PACER_POISSON, 50, START, 3);
  pacer_init(&c, PACER_POISSON, 50, START, 4);
  for (int i = 0; i < 100; i++) {
    pacer_take(&a);
    pacer_take(&b);
    pacer_take(&c);
    assert_int_equal(pacer_due_ns(&a), pacer_due_ns(&b));
    num_different += pacer_due_ns(&a) != pacer_due_ns(&c);
  }
  assert_int_equal(num_different, 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(first_arrival_is_due_at_once),
      cmocka_unit_test(constant_arrivals_do_not_drift),
      cmocka_unit_test(due_times_do_not_wait_for_anybody),
      cmocka_unit_test(poisson_arrivals_have_the_rate_and_the_spread),
      cmocka_unit_test(same_seed_gives_the_same_times),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
