// SPDX-License-Identifier: Apache-2.0
#include "common/base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/errmsg.h"

static void every_status_has_its_own_name(void **state) {
  (void)state;
  for (int i = 0; i < STATUS_NUM; i++) {
    assert_non_null(status_name((enum status)i));
    assert_string_not_equal(status_name((enum status)i), "unknown");
    for (int k = 0; k < i; k++) {
      assert_string_not_equal(status_name((enum status)i), status_name((enum status)k));
    }
  }
  assert_string_equal(status_name(STATUS_NUM), "unknown");
}

static enum status fail_at(int step, int *num_done) {
  enum status st = STATUS_OK;
  TRY(step == 1 ? STATUS_LIMIT : STATUS_OK);
  *num_done = 1;
  TRY(step == 2 ? STATUS_TIMEOUT : STATUS_OK);
  *num_done = 2;
out:
  return st;
}

static void try_leaves_at_the_first_failure(void **state) {
  int num_done = 0;
  (void)state;
  assert_int_equal(fail_at(1, &num_done), STATUS_LIMIT);
  assert_int_equal(num_done, 0);
  assert_int_equal(fail_at(2, &num_done), STATUS_TIMEOUT);
  assert_int_equal(num_done, 1);
  assert_int_equal(fail_at(0, &num_done), STATUS_OK);
  assert_int_equal(num_done, 2);
}

static void check_aborts_in_every_build(void **state) {
  int how = 0;
  pid_t child = fork();
  (void)state;
  if (child == 0) {
    if (freopen("/dev/null", "w", stderr) == NULL) {
      _exit(1);
    }
    CHECK(how != 0);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFSIGNALED(how));
  assert_int_equal(WTERMSIG(how), SIGABRT);
}

static void errmsg_takes_null_and_returns_the_status(void **state) {
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(errmsg_set(NULL, STATUS_LIMIT, "x"), STATUS_LIMIT);
  errmsg_prefix(NULL, "x");
  assert_int_equal(errmsg_set(&err, STATUS_CONFIG, "%d of %s", 3, "four"), STATUS_CONFIG);
  assert_string_equal(err.text, "3 of four");
  errmsg_prefix(&err, "%s:%d", "file", 12);
  assert_string_equal(err.text, "file:12: 3 of four");
}

static void errmsg_is_cut_at_its_end(void **state) {
  struct errmsg err = {0};
  char text[2 * ERRMSG_MAX_LEN];
  (void)state;
  memset(text, 'a', sizeof(text));
  text[sizeof(text) - 1] = '\0';
  (void)errmsg_set(&err, STATUS_CONFIG, "%s", text);
  assert_int_equal(strlen(err.text), ERRMSG_MAX_LEN - 1);
  errmsg_prefix(&err, "front");
  assert_int_equal(strlen(err.text), ERRMSG_MAX_LEN - 1);
  assert_memory_equal(err.text, "front: aaa", 10);
  errmsg_prefix(&err, "%s", text);  // leaves room for the colon
  assert_int_equal(strlen(err.text), ERRMSG_MAX_LEN - 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_its_own_name),
      cmocka_unit_test(try_leaves_at_the_first_failure),
      cmocka_unit_test(check_aborts_in_every_build),
      cmocka_unit_test(errmsg_takes_null_and_returns_the_status),
      cmocka_unit_test(errmsg_is_cut_at_its_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
