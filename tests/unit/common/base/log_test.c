// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/sink.h"
#include "tests/unit/common/base/scratch.h"

static const char *path;

static int open_log(void **state) {
  if (scratch_make(state) != 0) {
    return -1;
  }
  path = scratch_path("log");
  clock_override_wall_s(1795308695);
  return log_init(path, LOG_LEVEL_INFO, NULL) == STATUS_OK ? 0 : -1;
}

static int remove_log(void **state) {
  log_close();
  clock_override_wall_s(0);
  return scratch_remove(state);
}

static void assert_log(const char *expected) {
  char *text = NULL;
  log_close();
  text = scratch_read(path);
  assert_string_equal(text, expected);
  free(text);
}

#define AT " 2026-11-22T00:51:35.000Z "

static void line_has_level_time_id_event_and_pairs(void **state) {
  (void)state;
  log_error(0, "stopped", "");
  log_warn(17, "slow", "ms=%d", 12);
  log_info(18446744073709551615u, "close", "in=%d out=%d", 1, 2);
  assert_log("error" AT
             "stopped\n"
             "warn" AT
             "conn=17 slow ms=12\n"
             "info" AT "conn=18446744073709551615 close in=1 out=2\n");
}

static void levels_below_are_silent(void **state) {
  (void)state;
  log_debug(1, "a", "b=%d", 1);
  assert_false(log_is_on(LOG_LEVEL_DEBUG));
  log_set_level(LOG_LEVEL_DEBUG);
  log_debug(1, "c", "d=%d", 2);
  log_set_level(LOG_LEVEL_ERROR);
  log_warn(1, "e", "");
  assert_true(log_is_on(LOG_LEVEL_ERROR));
  assert_log("debug" AT "conn=1 c d=2\n");
}

static void one_event_is_one_line(void **state) {
  char text[2 * SINK_LINE_MAX_LEN];
  char *content = NULL;
  (void)state;
  log_info(0, "odd", "text=%s", "a\nerror b\r\t\x1b[0m");
  memset(text, 'x', sizeof(text));
  text[sizeof(text) - 1] = '\0';
  log_info(0, "long", "%s", text);
  log_close();
  content = scratch_read(path);
  assert_non_null(strstr(content, "odd text=a error b   [0m\n"));
  assert_int_equal(strlen(strstr(content, "\n") + 1), SINK_LINE_MAX_LEN);
  free(content);
}

static void lines_before_log_init_go_to_standard_error(void **state) {
  const char *early = scratch_path("early");
  int saved = dup(STDERR_FILENO);
  int fd = open(early, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  char *text = NULL;
  (void)state;
  log_close();
  assert_true(dup2(fd, STDERR_FILENO) >= 0);
  log_warn(3, "early", "x=%d", 1);
  assert_true(dup2(saved, STDERR_FILENO) >= 0);
  (void)close(saved);
  (void)close(fd);
  text = scratch_read(early);
  assert_string_equal(text, "warn" AT "conn=3 early x=1\n");
  free(text);
}

// systemd.exec(5): the journal's stream is known by device and inode.
static void lines_for_the_journal_begin_with_a_priority(void **state) {
  const char *journal = scratch_path("journal");
  int saved = dup(STDERR_FILENO);
  int fd = open(journal, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  struct errmsg err = {0};
  struct stat info;
  char stream[64];
  char *text = NULL;
  (void)state;

  assert_int_equal(fstat(fd, &info), 0);
  (void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino);
  assert_true(dup2(fd, STDERR_FILENO) >= 0);
  // Another's stream: standard error is a file of its own.
  assert_int_equal(setenv("JOURNAL_STREAM", "1:2", 1), 0);
  assert_int_equal(log_init("stderr", LOG_LEVEL_DEBUG, &err), STATUS_OK);
  log_warn(0, "plain", "");
  assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
  assert_int_equal(log_init("stderr", LOG_LEVEL_DEBUG, &err), STATUS_OK);
  log_error(0, "one", "x=%d", 1);
  log_warn(0, "two", "");
  log_info(7, "three", "");
  log_debug(0, "four", "");
  log_raw(bytes_text("{\"five\":5}"));
  log_close();
  assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
  assert_int_equal(log_init("stderr", LOG_LEVEL_INFO, &err), STATUS_OK);  // of tests to come
  log_close();
  assert_true(dup2(saved, STDERR_FILENO) >= 0);
  (void)close(saved);
  (void)close(fd);
  text = scratch_read(journal);
  assert_string_equal(text, "warn" AT "plain\n<3>error" AT "one x=1\n<4>warn" AT "two\n<6>info" AT
                            "conn=7 three\n<7>debug" AT "four\n<6>{\"five\":5}\n");
  free(text);
}

static bool has_content(void *arg) {
  struct stat info;
  return stat(arg, &info) == 0 && info.st_size > 0;
}
static bool exists(void *arg) { return access(arg, F_OK) == 0; }

static void reopens_after_rotation(void **state) {
  (void)state;
  log_info(0, "one", "");
  scratch_wait(has_content, (void *)(uintptr_t)path, 10000);
  assert_int_equal(rename(path, scratch_path("log.1")), 0);
  log_reopen();
  scratch_wait(exists, (void *)(uintptr_t)path, 10000);
  log_info(0, "two", "");
  assert_int_equal(log_num_lost(), 0);
  assert_log("info" AT "two\n");
}

static void knows_its_levels_by_name(void **state) {
  enum log_level level = LOG_LEVEL_ERROR;
  (void)state;
  assert_int_equal(log_level_from_name(&level, "debug"), STATUS_OK);
  assert_int_equal(level, LOG_LEVEL_DEBUG);
  assert_int_equal(log_level_from_name(&level, "error"), STATUS_OK);
  assert_int_equal(level, LOG_LEVEL_ERROR);
  assert_int_equal(log_level_from_name(&level, "Error"), STATUS_NOT_FOUND);
  assert_int_equal(log_level_from_name(&level, ""), STATUS_NOT_FOUND);
}

// --- quoting -----------------------------------------------------------------

static void quotes_what_a_peer_sent(void **state) {
  char out[64];
  (void)state;
  assert_string_equal(log_quote(out, sizeof(out), bytes_text("demo.test")), "\"demo.test\"");
  assert_string_equal(log_quote(out, sizeof(out), bytes_of(NULL, 0)), "\"\"");
  assert_string_equal(log_quote(out, sizeof(out), bytes_of("a\"b\\c\n\0\xff", 8)),
                      "\"a\\\"b\\\\c\\x0a\\x00\\xff\"");
}

// At every size: terminated, between quotes, no escape cut in two.
static void cuts_quoted_text_to_fit(void **state) {
  char out[64];
  (void)state;
  assert_string_equal(log_quote(out, 10, bytes_text("abcdefgh")), "\"abcd...\"");
  assert_string_equal(log_quote(out, 10, bytes_text("abcdefg")), "\"abcdefg\"");
  assert_string_equal(log_quote(out, 10, bytes_text("\n\n\n")), "\"\\x0a...\"");
  for (size_t size = 0; size < 40; size++) {
    memset(out, 'X', sizeof(out));
    (void)log_quote(out, size, bytes_text("ab\"\x01\x02zz\x03\x04yyyyyyyyyyyyyyy"));
    assert_int_equal(out[size], 'X');  // nothing past the end
    if (size > 0) {
      assert_true(strnlen(out, size) < size);
    }
    if (size >= 6) {
      assert_int_equal(out[0], '"');
      assert_int_equal(out[strlen(out) - 1], '"');
    }
  }
}

// --- the gate ----------------------------------------------------------------

static struct log_gate shared_gate;
static _Atomic uint64_t num_passed;
static _Atomic uint64_t num_told;

static void *pass_often(void *arg) {
  (void)arg;
  for (int i = 0; i < 50000; i++) {
    uint64_t num_held = 0;
    if (log_gate_pass(&shared_gate, 5, &num_held)) {
      atomic_fetch_add(&num_passed, 1);
      atomic_fetch_add(&num_told, num_held);
    }
  }
  return NULL;
}

static void gate_counts_what_it_holds_back(void **state) {
  pthread_t threads[3];
  int64_t begin_ms = clock_monotonic_ms();
  uint64_t num_windows = 0;
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, pass_often, NULL), 0);
  }
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  }
  num_windows = (uint64_t)(clock_monotonic_ms() - begin_ms) / 1000 + 2;
  // Three threads may meet at a window's border and each see the old count.
  assert_in_range(atomic_load(&num_passed), 5, (5 + 3) * num_windows);
  assert_int_equal(
      atomic_load(&num_passed) + atomic_load(&num_told) + atomic_load(&shared_gate.num_held),
      150000);
}

static void gate_says_how_many_it_held(void **state) {
  struct log_gate gate = {0};
  uint64_t num_held = 0;
  (void)state;
  assert_false(log_gate_pass(&gate, 0, &num_held));
  assert_false(log_gate_pass(&gate, 0, &num_held));
  atomic_store(&gate.num_in_window, 0);
  assert_true(log_gate_pass(&gate, 1, &num_held));
  assert_int_equal(num_held, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_log, remove_log)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(line_has_level_time_id_event_and_pairs),
      TEST(levels_below_are_silent),
      TEST(one_event_is_one_line),
      TEST(lines_before_log_init_go_to_standard_error),
      TEST(reopens_after_rotation),
      TEST(lines_for_the_journal_begin_with_a_priority),
      cmocka_unit_test(knows_its_levels_by_name),
      cmocka_unit_test(quotes_what_a_peer_sent),
      cmocka_unit_test(cuts_quoted_text_to_fit),
      cmocka_unit_test(gate_counts_what_it_holds_back),
      cmocka_unit_test(gate_says_how_many_it_held),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
