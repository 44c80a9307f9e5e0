// SPDX-License-Identifier: Apache-2.0
#include "keyserver/watch.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"

#define SETTLE_MS 50
#define DEADLINE_MS 20000

static struct loop *loop;
static struct watch *watch;
static struct timer timer;
static unsigned num_changes;
static char base[64];
static char folder[80];

static bool is_wanted(const char *name) {
  const size_t len = strlen(name);
  return len > 4 && strcmp(name + len - 4, ".key") == 0;
}

static void on_changed(void *arg) {
  assert_ptr_equal(arg, &num_changes);
  num_changes++;
  loop_stop(loop);
}

static void on_timer(void *arg) {
  (void)arg;
  loop_stop(loop);
}

static void run_for_ms(int64_t ms) {
  timer_arm_ms(&timer, ms);
  loop_run(loop);
  timer_cancel(&timer);
}

// expect_change waits for the next one; then there is none of what came before.
static void expect_change(void) {
  const unsigned before = num_changes;
  const int64_t begun_us = clock_monotonic_us();

  while (num_changes == before) {
    assert_true(clock_monotonic_us() - begun_us < INT64_C(1000) * DEADLINE_MS);
    run_for_ms(DEADLINE_MS);
  }
  assert_int_equal(num_changes, before + 1);
}

static const char *path_of(const char *name) {
  static char path[PATH_MAX];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void put(const char *name) {
  const int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, "x", 1), 1);
  close(fd);
}

static void drop(const char *name) { assert_int_equal(unlink(path_of(name)), 0); }

static void set(bool is_removal_only, int64_t since_us) {
  const struct watch_folder folders[] = {{folder, is_removal_only}};
  assert_int_equal(watch_set(watch, folders, 1, SETTLE_MS, since_us), STATUS_OK);
}

// expect_nothing_before shows by a change that does count that none before it did.
static void expect_nothing_before(void) {
  const unsigned before = num_changes;
  run_for_ms(3 * SETTLE_MS);
  assert_int_equal(num_changes, before);
}

static int make(void **state) {
  (void)state;
  (void)strcpy(base, "/tmp/watch_test.XXXXXX");
  assert_non_null(mkdtemp(base));
  (void)snprintf(folder, sizeof folder, "%s/keys", base);
  assert_int_equal(mkdir(folder, 0700), 0);
  num_changes = 0;
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(timer_init(&timer, loop, on_timer, NULL), STATUS_OK);
  assert_int_equal(watch_new(&watch, loop, is_wanted, on_changed, &num_changes), STATUS_OK);
  return 0;
}

static int clean(void **state) {
  char command[128];
  (void)state;
  watch_free(watch);
  timer_cleanup(&timer);
  loop_free(loop);
  (void)snprintf(command, sizeof command, "rm -rf '%s'", base);
  return system(command);  // NOLINT(cert-env33-c): a path of our own making
}

static void many_changes_are_one(void **state) {
  char name[16];
  (void)state;
  set(false, 0);
  for (unsigned i = 0; i < 500; i++) {
    (void)snprintf(name, sizeof name, "%u.key", i);
    put(name);
  }
  expect_change();
  expect_nothing_before();
}

static void what_comes_goes_and_changes_counts(void **state) {
  (void)state;
  set(false, 0);
  put("a.key");
  expect_change();
  assert_int_equal(chmod(path_of("a.key"), 0644), 0);
  expect_change();
  put("a.key");
  expect_change();
  drop("a.key");
  expect_change();
}

static void other_names_do_not_count(void **state) {
  (void)state;
  set(false, 0);
  put("README");
  put(".a.key");
  put("a.key.new.123456");
  expect_nothing_before();
  put("..data");  // what others may be links to
  expect_change();
}

static void only_removals_count_where_asked(void **state) {
  (void)state;
  set(true, 0);
  put("a.key");
  expect_nothing_before();
  drop("a.key");
  expect_change();
}

static void a_path_named_twice_has_the_events_of_both(void **state) {
  const struct watch_folder folders[] = {{folder, false}, {folder, true}};
  (void)state;
  assert_int_equal(watch_set(watch, folders, 2, SETTLE_MS, 0), STATUS_OK);
  put("a.key");
  expect_change();
}

static void what_never_rests_is_read_all_the_same(void **state) {
  const int64_t begun_us = clock_monotonic_us();
  (void)state;
  set(false, 0);
  while (num_changes == 0) {
    assert_true(clock_monotonic_us() - begun_us < INT64_C(1000) * DEADLINE_MS);
    put("a.key");
    run_for_ms(SETTLE_MS / 5);
  }
  assert_true(clock_monotonic_us() - begun_us >= INT64_C(1000) * SETTLE_MS);
}

static void a_folder_that_was_changed_since_counts(void **state) {
  const int64_t loaded_us = clock_file_us();
  (void)state;
  put("a.key");  // after it was read and before it is watched
  set(false, loaded_us);
  expect_change();
  set(false, clock_file_us() + 1000000);
  expect_nothing_before();
}

static void folders_are_replaced(void **state) {
  (void)state;
  set(false, 0);
  assert_int_equal(watch_set(watch, NULL, 0, SETTLE_MS, 0), STATUS_OK);
  put("a.key");
  expect_nothing_before();
  set(false, 0);
  put("b.key");
  set(false, 0);  // again, with a change that is not read yet
  expect_change();
}

static void a_folder_that_goes_is_found_again(void **state) {
  char away[96];
  (void)state;
  set(false, 0);
  (void)snprintf(away, sizeof away, "%s/away", base);
  assert_int_equal(rename(folder, away), 0);
  expect_change();
  assert_int_equal(mkdir(folder, 0700), 0);  // another of the same name
  expect_change();
  put("a.key");
  expect_change();
  (void)snprintf(folder, sizeof folder, "%s/away", base);
  put("b.key");  // the old one is nobody's concern
  expect_nothing_before();
}

static void a_folder_that_is_not_there_yet_is_waited_for(void **state) {
  (void)state;
  assert_int_equal(rmdir(folder), 0);
  set(false, 0);
  expect_nothing_before();
  assert_int_equal(mkdir(folder, 0700), 0);
  expect_change();
  put("a.key");
  expect_change();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(many_changes_are_one, make, clean),
      cmocka_unit_test_setup_teardown(what_comes_goes_and_changes_counts, make, clean),
      cmocka_unit_test_setup_teardown(other_names_do_not_count, make, clean),
      cmocka_unit_test_setup_teardown(only_removals_count_where_asked, make, clean),
      cmocka_unit_test_setup_teardown(a_path_named_twice_has_the_events_of_both, make, clean),
      cmocka_unit_test_setup_teardown(what_never_rests_is_read_all_the_same, make, clean),
      cmocka_unit_test_setup_teardown(a_folder_that_was_changed_since_counts, make, clean),
      cmocka_unit_test_setup_teardown(folders_are_replaced, make, clean),
      cmocka_unit_test_setup_teardown(a_folder_that_goes_is_found_again, make, clean),
      cmocka_unit_test_setup_teardown(a_folder_that_is_not_there_yet_is_waited_for, make, clean),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
