// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/common/base/scratch.h"

static void assert_content(const char *path, const char *expected) {
  char *text = scratch_read(path);
  assert_string_equal(text, expected);
  free(text);
}

static void reads_a_file_of_any_length(void **state) {
  static const size_t lens[] = {0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 100000};
  const char *path = scratch_path("file");
  (void)state;
  for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
    char *text = calloc(1, lens[i] + 1);
    uint8_t *back = NULL;
    size_t back_len = 0;
    assert_non_null(text);
    memset(text, 'x', lens[i]);
    scratch_write(path, text, 0600);
    assert_int_equal(file_read(&back, &back_len, path, lens[i], NULL), STATUS_OK);
    assert_int_equal(back_len, lens[i]);
    assert_memory_equal(back, text, lens[i] + 1);  // the terminator too
    free(back);
    free(text);
  }
}

static void refuses_a_file_longer_than_its_limit(void **state) {
  struct errmsg err = {0};
  const char *path = scratch_path("file");
  uint8_t *back = NULL;
  size_t len = 0;
  (void)state;
  scratch_write(path, "12345", 0600);
  assert_int_equal(file_read(&back, &len, path, 4, &err), STATUS_LIMIT);
  assert_null(back);
  assert_non_null(strstr(err.text, "longer than 4 bytes"));
  assert_int_equal(file_read(&back, &len, "/dev/zero", 100000, &err), STATUS_LIMIT);
  assert_int_equal(file_read(&back, &len, scratch_path("none"), 4, &err), STATUS_SYSTEM);
  assert_int_equal(errno, ENOENT);
  assert_int_equal(file_read(&back, &len, scratch_path("."), 4, &err), STATUS_SYSTEM);
}

static void replaces_a_file_and_leaves_nothing_else(void **state) {
  const char *path = scratch_path("state");
  struct stat info;
  (void)state;
  assert_int_equal(file_replace(path, bytes_text("one"), NULL), STATUS_OK);
  assert_content(path, "one");
  assert_int_equal(stat(path, &info), 0);
  assert_int_equal(info.st_mode & 07777, 0600);
  assert_int_equal(file_replace(path, bytes_text("two, longer"), NULL), STATUS_OK);
  assert_content(path, "two, longer");
  assert_int_equal(file_replace(path, bytes_of(NULL, 0), NULL), STATUS_OK);
  assert_content(path, "");
  assert_int_equal(scratch_num_files(), 1);
}

static void failed_replacement_keeps_the_old_file(void **state) {
  const char *path = scratch_path("state");
  const struct rlimit small = {2, 2};
  struct errmsg err = {0};
  int how = 0;
  pid_t child = 0;
  (void)state;
  assert_int_equal(file_replace(path, bytes_text("old"), NULL), STATUS_OK);
  assert_int_equal(file_replace(scratch_path("none/state"), bytes_text("x"), &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "none/state"));
  child = fork();
  if (child == 0) {
    // The disk is full after two bytes.
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)setrlimit(RLIMIT_FSIZE, &small);
    _exit(file_replace(path, bytes_text("new"), NULL) == STATUS_SYSTEM ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_int_equal(how, 0);
  assert_content(path, "old");
  assert_int_equal(scratch_num_files(), 1);
}

static void appends_whole_records_or_none(void **state) {
  const char *path = scratch_path("log");
  const struct rlimit small = {6, 6};
  struct errmsg err = {0};
  int how = 0;
  pid_t child = 0;
  (void)state;
  assert_int_equal(file_append_sync(path, bytes_text("one\n"), NULL), STATUS_OK);
  child = fork();
  if (child == 0) {
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)setrlimit(RLIMIT_FSIZE, &small);
    _exit(file_append_sync(path, bytes_text("half\n"), NULL) == STATUS_SYSTEM ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_int_equal(how, 0);
  assert_content(path, "one\n");
  assert_int_equal(file_append_sync(path, bytes_text("two\n"), NULL), STATUS_OK);
  assert_content(path, "one\ntwo\n");
  assert_int_equal(file_append_sync("/dev/full", bytes_text("x"), &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "No space"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(reads_a_file_of_any_length, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(refuses_a_file_longer_than_its_limit, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(replaces_a_file_and_leaves_nothing_else, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(failed_replacement_keeps_the_old_file, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(appends_whole_records_or_none, scratch_make, scratch_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
