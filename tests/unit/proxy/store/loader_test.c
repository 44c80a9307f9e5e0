// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "proxy/store/state_follower.h"
#include "tests/unit/certstore/store_fixture.h"

#define MAX_CACHED 64

// One loop is both control's and the worker's.
static struct loop *loop;
static struct grace *grace;
static struct states *states;
static struct store_handle handle;
static struct state_follower follower;
static struct name_cache names;
static struct loader loader;
static size_t num_waiting;
static const char *folder;
static struct errmsg err;

static void on_reopened(void *arg) {
  (void)arg;
  state_follower_restart(&follower);
  loader_restart(&loader);
}

static int set_up(void **state) {
  (void)state;
  static const struct test_cert host = {.cn = "a.test", .names = "DNS:a.test"};
  static const struct test_cert wild = {.cn = "w.test", .names = "DNS:*.w.test"};
  fixture_init();
  folder = fixture_folder();
  struct store *store = fixture_open(folder, STORE_CREATE);
  assert_int_equal(fixture_add(store, fixture_chain(0, &host, NULL), 0, false, &err), STATUS_OK);
  assert_int_equal(fixture_add(store, fixture_chain(1, &wild, NULL), 0, false, &err), STATUS_OK);
  store_close(store);

  handle = (struct store_handle){.on_reopened = on_reopened};
  follower = (struct state_follower){0};
  names = (struct name_cache){0};
  loader = (struct loader){0};
  num_waiting = 0;
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(grace_new(&grace, loop, &loop, 1), STATUS_OK);
  assert_int_equal(states_new(&states), STATUS_OK);
  assert_int_equal(store_handle_open(&handle, folder, &err), STATUS_OK);
  assert_int_equal(name_cache_init(&names, loop, &follower, MAX_CACHED), STATUS_OK);
  assert_int_equal(state_follower_init(&follower, &handle, names.cache, MAX_CACHED, states),
                   STATUS_OK);
  names.grace = grace;
  assert_int_equal(loader_init(&loader, loop, &handle, &names), STATUS_OK);
  assert_int_equal(loader_start(&loader), STATUS_OK);
  assert_int_equal(store_handle_start(&handle, grace, 1, &err), STATUS_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  loader_stop(&loader);
  grace_free(grace);
  store_handle_close(&handle);
  name_cache_cleanup(&names);
  loader_cleanup(&loader);
  store_handle_cleanup(&handle);
  states_free(states);
  loop_free(loop);
  fixture_cleanup();
  return 0;
}

static void on_answered(void *arg) {
  struct load_ask *ask = arg;
  assert_int_equal(ask->st, STATUS_OK);
  num_waiting -= 1;
  if (num_waiting == 0) {
    loop_stop(loop);
  }
}

// A worker has missed the name, and says so.
static void ask(struct load_ask *out, const char *host) {
  struct cache_query query;
  *out = (struct load_ask){.loader = &loader, .loop = loop, .on_answered = on_answered, .arg = out};
  assert_true(cache_query_of(&query, names.cache, bytes_text(host)));
  load_ask_set(out, &query);
  num_waiting += 1;
  loop_post(loop, loader_on_ask, out);
}

static void wait_for_answers(void) { loop_run(loop); }

static enum cache_answer look(const char *host) {
  struct cache_query query;
  struct ready *ready = NULL;
  assert_true(cache_query_of(&query, names.cache, bytes_text(host)));
  return cache_find_host(names.cache, &ready, &query, loop_now_ms(loop),
                         store_chains_version(handle.store));
}

static void reads_a_name_once_for_all_who_wait(void **state) {
  (void)state;
  struct load_ask asks[3];
  assert_int_equal(look("a.test"), CACHE_MISS);
  for (size_t i = 0; i < 3; i++) {
    ask(&asks[i], "a.test");
  }
  wait_for_answers();
  assert_int_equal(look("a.test"), CACHE_READY);
  assert_int_equal(counter_get(&loader.num_loaded), 1);
}

static void reads_no_name_that_came_while_the_question_was_under_way(void **state) {
  (void)state;
  struct load_ask first;
  struct load_ask late;
  ask(&first, "a.test");
  wait_for_answers();
  ask(&late, "a.test");  // had looked before that was over
  wait_for_answers();
  assert_int_equal(counter_get(&loader.num_loaded), 1);
  ask(&first, "unknown.test");
  wait_for_answers();
  ask(&late, "unknown.test");
  wait_for_answers();
  assert_int_equal(look("unknown.test"), CACHE_ABSENT);
  assert_int_equal(counter_get(&loader.num_unknown), 1);
}

static void reads_a_wildcard_once_for_its_hosts(void **state) {
  (void)state;
  struct load_ask asks[2];
  ask(&asks[0], "one.w.test");
  wait_for_answers();
  ask(&asks[1], "two.w.test");
  wait_for_answers();
  assert_int_equal(look("one.w.test"), CACHE_READY);
  assert_int_equal(look("two.w.test"), CACHE_READY);
  assert_int_equal(counter_get(&loader.num_loaded), 1);
  assert_int_equal(counter_get(&loader.num_unknown), 0);
}

static void holds_what_is_asked_while_the_store_is_opened_anew(void **state) {
  (void)state;
  struct load_ask asks[2];
  ask(&asks[0], "a.test");
  store_handle_reopen(&handle);
  assert_null(store_handle_shown(&handle));
  assert_true(atomic_load(&handle.must_let_go));
  ask(&asks[1], "unknown.test");
  wait_for_answers();
  assert_int_equal(counter_get(&handle.num_reopened), 1);
  assert_non_null(store_handle_shown(&handle));
  assert_false(atomic_load(&handle.must_let_go));
  assert_int_equal(handle.num_jobs, 0);
  assert_int_equal(look("a.test"), CACHE_READY);
  assert_int_equal(look("unknown.test"), CACHE_ABSENT);
}

static void lets_go_of_loads_at_the_end(void **state) {
  (void)state;
  struct load_ask held;
  struct load_ask under_way;
  ask(&under_way, "a.test");
  loader_on_ask(&under_way);  // at once: its post is never taken
  store_handle_reopen(&handle);
  ask(&held, "unknown.test");
  loader_on_ask(&held);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(reads_a_name_once_for_all_who_wait, set_up, tear_down),
      cmocka_unit_test_setup_teardown(reads_no_name_that_came_while_the_question_was_under_way,
                                      set_up, tear_down),
      cmocka_unit_test_setup_teardown(reads_a_wildcard_once_for_its_hosts, set_up, tear_down),
      cmocka_unit_test_setup_teardown(holds_what_is_asked_while_the_store_is_opened_anew, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(lets_go_of_loads_at_the_end, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
