// SPDX-License-Identifier: Apache-2.0
#include "common/net/reload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

// What happened, as letters: begin, prepare, commit (with the scope), end.
static struct {
  struct loop *loop;
  struct jobs *jobs;
  struct reload reload;
  char log[64];
  size_t len;
  unsigned num_left;  // of reloads, until the loop is stopped
  enum status prepared;
  enum status committed;
  _Atomic bool may_prepare;
} t;

static void note(char what) {
  CHECK(t.len + 1 < sizeof(t.log));
  t.log[t.len++] = what;
}

static void begin(void *arg) {
  (void)arg;
  note('b');
}

static enum status prepare(void *arg, int scope, struct errmsg *err) {
  (void)arg;
  while (!atomic_load(&t.may_prepare)) {
    (void)usleep(100);
  }
  note('p');
  note((char)('0' + scope));
  return t.prepared == STATUS_OK ? STATUS_OK : errmsg_set(err, t.prepared, "not to be read");
}

static enum status commit(void *arg, int scope, struct errmsg *err) {
  (void)arg;
  note('c');
  note((char)('0' + scope));
  return t.committed == STATUS_OK ? STATUS_OK : errmsg_set(err, t.committed, "not to be used");
}

static void end(void *arg) {
  (void)arg;
  note('e');
  assert_false(t.reload.is_running);
  if (--t.num_left == 0) {
    loop_stop(t.loop);
  }
}

static const struct reload_steps steps = {begin, prepare, commit, end};

static int setup(void **state) {
  (void)state;
  memset(&t, 0, sizeof(t));
  assert_int_equal(loop_new(&t.loop), STATUS_OK);
  assert_int_equal(jobs_new(&t.jobs, t.loop), STATUS_OK);
  reload_init(&t.reload, t.jobs, &steps, &t);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  atomic_store(&t.may_prepare, true);
  jobs_free(t.jobs);
  loop_free(t.loop);
  return 0;
}

static void run(unsigned num) {
  t.num_left = num;
  atomic_store(&t.may_prepare, true);
  loop_run(t.loop);
}

static void prepares_then_commits(void **state) {
  (void)state;
  reload_ask(&t.reload, 0);
  assert_false(t.reload.is_running);
  reload_ask(&t.reload, 1);
  assert_true(t.reload.is_running);
  run(1);
  assert_string_equal(t.log, "bp1c1e");
  assert_int_equal(t.reload.num_good, 1);
  assert_int_equal(t.reload.num_failed, 0);
}

static void what_was_asked_meanwhile_follows_once(void **state) {
  (void)state;
  reload_ask(&t.reload, 1);
  reload_ask(&t.reload, 1);
  reload_ask(&t.reload, 2);
  reload_ask(&t.reload, 1);
  run(2);
  assert_string_equal(t.log, "bp1c1ebp2c2e");
  assert_false(t.reload.is_running);
  assert_int_equal(t.reload.num_good, 2);
}

static void what_cannot_be_read_is_not_put_in_force(void **state) {
  (void)state;
  t.prepared = STATUS_CONFIG;
  reload_ask(&t.reload, 1);
  run(1);
  assert_string_equal(t.log, "bp1e");
  assert_int_equal(t.reload.num_good, 0);
  assert_int_equal(t.reload.num_failed, 1);
}

static void what_cannot_be_put_in_force_has_failed(void **state) {
  (void)state;
  t.committed = STATUS_MEMORY;
  reload_ask(&t.reload, 1);
  run(1);
  assert_string_equal(t.log, "bp1c1e");
  assert_int_equal(t.reload.num_good, 0);
  assert_int_equal(t.reload.num_failed, 1);
  t.committed = STATUS_OK;
  reload_ask(&t.reload, 1);
  run(1);
  assert_int_equal(t.reload.num_good, 1);
}

static void nothing_begins_or_comes_in_force_after_the_stop(void **state) {
  (void)state;
  reload_ask(&t.reload, 1);
  reload_ask(&t.reload, 1);
  reload_stop(&t.reload);
  run(1);
  assert_string_equal(t.log, "bp1e");
  reload_ask(&t.reload, 1);
  assert_false(t.reload.is_running);
  assert_int_equal(t.reload.num_good + t.reload.num_failed, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(prepares_then_commits, setup, teardown),
      cmocka_unit_test_setup_teardown(what_was_asked_meanwhile_follows_once, setup, teardown),
      cmocka_unit_test_setup_teardown(what_cannot_be_read_is_not_put_in_force, setup, teardown),
      cmocka_unit_test_setup_teardown(what_cannot_be_put_in_force_has_failed, setup, teardown),
      cmocka_unit_test_setup_teardown(nothing_begins_or_comes_in_force_after_the_stop, setup,
                                      teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
