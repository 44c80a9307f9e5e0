// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/address_table.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define SECOND_US INT64_C(1000000)

static struct address_table *table;

static int set_up(void **state) {
  (void)state;
  return address_table_new(&table, 1000) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  address_table_free(table);
  return 0;
}

static uint64_t key_of(const char *text) {
  struct sockaddr_storage peer = {.ss_family = AF_INET};
  if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&peer)->sin_addr) != 1) {
    peer.ss_family = AF_INET6;
    assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&peer)->sin6_addr), 1);
  }
  return address_table_key(table, &peer);
}

static uint64_t key_of_number(uint32_t number) {
  struct sockaddr_storage peer = {.ss_family = AF_INET};
  ((struct sockaddr_in *)&peer)->sin_addr.s_addr = htonl(number);
  return address_table_key(table, &peer);
}

static void who_is_the_same(void **state) {
  (void)state;
  const struct sockaddr_storage local = {.ss_family = AF_UNIX};
  assert_true(key_of("192.0.2.1") != key_of("192.0.2.2"));
  assert_true(key_of("192.0.2.1") == key_of("::ffff:192.0.2.1"));
  assert_true(key_of("2001:db8:1:2::1") == key_of("2001:db8:1:2:ffff:1:2:3"));
  assert_true(key_of("2001:db8:1:2::1") != key_of("2001:db8:1:3::1"));
  assert_true(key_of("::1") != 0);
  assert_true(address_table_key(table, &local) == 0);
}

static void places_are_secret(void **state) {
  (void)state;
  uint64_t before = key_of("192.0.2.1");
  struct address_table *first = table;
  assert_int_equal(address_table_new(&table, 1000), STATUS_OK);
  assert_true(key_of("192.0.2.1") != before);
  address_table_free(first);
}

static void connections_are_counted_by_address(void **state) {
  (void)state;
  uint64_t one = key_of("192.0.2.1");
  uint64_t other = key_of("192.0.2.2");
  for (int i = 0; i < 3; i++) {
    assert_true(address_table_enter(table, one, 3));
  }
  assert_false(address_table_enter(table, one, 3));
  assert_false(address_table_enter(table, one, 3));  // who was refused does not count
  assert_true(address_table_enter(table, other, 3));
  assert_true(address_table_enter(table, one, 4));
  address_table_leave(table, one);
  address_table_leave(table, one);
  assert_true(address_table_enter(table, one, 3));
  assert_false(address_table_enter(table, one, 3));
}

static void no_address_has_no_limit(void **state) {
  (void)state;
  for (int i = 0; i < 10; i++) {
    assert_true(address_table_enter(table, 0, 1));
    assert_true(address_table_take_turn(table, 0, 1, 5));
  }
  address_table_leave(table, 0);
}

static void rate_lets_a_second_through_at_once_and_then_evenly(void **state) {
  (void)state;
  uint64_t key = key_of("2001:db8::1");
  int64_t now_us = 77 * SECOND_US;
  for (int i = 0; i < 10; i++) {
    assert_true(address_table_take_turn(table, key, 10, now_us));
  }
  assert_false(address_table_take_turn(table, key, 10, now_us));
  assert_false(address_table_take_turn(table, key, 10, now_us + SECOND_US / 10 - 1));
  // Whoever tries all the time gets his rate, no less for it.
  for (int i = 1; i <= 20; i++) {
    assert_true(address_table_take_turn(table, key, 10, now_us + i * SECOND_US / 10));
    assert_false(address_table_take_turn(table, key, 10, now_us + i * SECOND_US / 10));
  }
  assert_true(address_table_take_turn(table, key_of("2001:db8:0:1::1"), 10, now_us));
  // After a rest all of it again, and no more.
  now_us += 3600 * SECOND_US;
  for (int i = 0; i < 10; i++) {
    assert_true(address_table_take_turn(table, key, 10, now_us));
  }
  assert_false(address_table_take_turn(table, key, 10, now_us));
}

// Many addresses share cells; with as many as the table is made for hardly anybody
// is taken for more than he is.
static void others_hardly_count(void **state) {
  (void)state;
  int num_wrong = 0;
  for (uint32_t i = 0; i < 1000; i++) {
    assert_true(address_table_enter(table, key_of_number(i), 1000000));
  }
  for (uint32_t i = 0; i < 10000; i++) {
    uint64_t key = key_of_number(0x10000000 + i);
    if (address_table_enter(table, key, 1)) {
      address_table_leave(table, key);
    } else {
      num_wrong += 1;
    }
  }
  // A cell is taken with probability 1000/4096; both are in one of 17.
  assert_in_range(num_wrong, 1, 1200);
}

#define NUM_THREADS 4
#define NUM_ROUNDS 20000

static void *come_and_go(void *arg) {
  uint64_t key = *(const uint64_t *)arg;
  for (int i = 0; i < NUM_ROUNDS; i++) {
    if (address_table_enter(table, key, 1000)) {
      (void)address_table_take_turn(table, key, 1000, (int64_t)i);
      address_table_leave(table, key);
    }
  }
  return NULL;
}

static void no_count_is_lost_between_threads(void **state) {
  (void)state;
  pthread_t threads[NUM_THREADS];
  uint64_t key = key_of("192.0.2.7");
  for (int i = 0; i < NUM_THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &key), 0);
  }
  for (int i = 0; i < NUM_THREADS; i++) {
    (void)pthread_join(threads[i], NULL);
  }
  assert_true(address_table_enter(table, key, 1));
  assert_false(address_table_enter(table, key, 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(who_is_the_same, set_up, tear_down),
      cmocka_unit_test_setup_teardown(places_are_secret, set_up, tear_down),
      cmocka_unit_test_setup_teardown(connections_are_counted_by_address, set_up, tear_down),
      cmocka_unit_test_setup_teardown(no_address_has_no_limit, set_up, tear_down),
      cmocka_unit_test_setup_teardown(rate_lets_a_second_through_at_once_and_then_evenly, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(others_hardly_count, set_up, tear_down),
      cmocka_unit_test_setup_teardown(no_count_is_lost_between_threads, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
