// SPDX-License-Identifier: Apache-2.0
#include "common/base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/common/base/scratch.h"

static const struct config_option options[] = {
    {.name = "workers", .type = CONFIG_INT, .fallback = "2", .help = "Threads that serve."},
    {.type = CONFIG_END},
};
static const struct program program = {"deputy-test", "tests", "/etc/deputy/test.json",
                                       options,       NULL,    false};

static enum status parse(struct program_args *out, struct errmsg *err, int argc,
                         const char *const *args) {
  char *argv[8] = {NULL};
  for (int i = 0; i < argc; i++) {
    argv[i] = (char *)(uintptr_t)args[i];
  }
  return program_parse_args(out, &program, argc, argv, err);
}
#define PARSE(...)                                                                  \
  parse(&args, &err, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), \
        (const char *[]){__VA_ARGS__})

static void reads_every_form_of_an_option(void **state) {
  struct program_args args = {0};
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(PARSE("p"), STATUS_OK);
  assert_string_equal(args.config_path, "/etc/deputy/test.json");
  assert_int_equal(args.log_level, LOG_LEVEL_INFO);
  assert_false(args.is_check_only);
  assert_false(args.is_done);
  assert_int_equal(PARSE("p", "-c", "a.json", "--check-config"), STATUS_OK);
  assert_string_equal(args.config_path, "a.json");
  assert_true(args.is_check_only);
  assert_int_equal(PARSE("p", "--config=b.json", "--log-level", "debug"), STATUS_OK);
  assert_string_equal(args.config_path, "b.json");
  assert_int_equal(args.log_level, LOG_LEVEL_DEBUG);
}

static void says_what_is_wrong_with_the_command_line(void **state) {
  struct program_args args = {0};
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(PARSE("p", "--confg", "x"), STATUS_CONFIG);
  assert_string_equal(err.text, "unknown option \"--confg\"; see deputy-test --help");
  assert_int_equal(PARSE("p", "stray"), STATUS_CONFIG);
  assert_int_equal(PARSE("p", "--config"), STATUS_CONFIG);
  assert_string_equal(err.text, "--config needs a value; see deputy-test --help");
  assert_int_equal(PARSE("p", "--config="), STATUS_CONFIG);
  assert_int_equal(PARSE("p", "--check-config=yes"), STATUS_CONFIG);
  assert_string_equal(err.text, "--check-config takes no value; see deputy-test --help");
  assert_int_equal(PARSE("p", "--log-level=loud"), STATUS_CONFIG);
  assert_string_equal(err.text, "--log-level is \"loud\"; it may be error, warn, info or debug");
}

// Runs `fn` in a child whose output goes to the file `name`; returns its exit code.
static int run_child(int (*fn)(void), const char *name) {
  const char *path = scratch_path(name);
  int how = 0;
  pid_t child = fork();
  if (child == 0) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    (void)dup2(fd, STDOUT_FILENO);
    (void)dup2(fd, STDERR_FILENO);
    how = fn();
    (void)fflush(stdout);
    _exit(how);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFEXITED(how));
  return WEXITSTATUS(how);
}

static void assert_output(const char *name, const char *const *parts) {
  char *text = scratch_read(scratch_path(name));
  for (size_t i = 0; parts[i] != NULL; i++) {
    if (strstr(text, parts[i]) == NULL) {
      fail_msg("no \"%s\" in: %s", parts[i], text);
    }
  }
  free(text);
}

static int answer(const char *flag) {
  struct program_args args = {0};
  struct errmsg err = {0};
  return PARSE("p", flag) == STATUS_OK && args.is_done ? 0 : 1;
}
static int answer_help(void) { return answer("--help"); }
static int answer_version(void) { return answer("-V"); }
static int answer_reference(void) { return answer("--config-reference"); }

static void answers_questions_about_itself(void **state) {
  (void)state;
  assert_int_equal(run_child(answer_help, "help"), 0);
  assert_output("help", (const char *[]){"deputy-test: tests\n", "--config FILE", "--check-config",
                                         "--log-level", "--config-reference", "--version",
                                         "/etc/deputy/test.json", "docs/deputy-test.md", NULL});
  assert_int_equal(run_child(answer_version, "version"), 0);
  assert_output("version", (const char *[]){"deputy-test ", NULL});
  assert_int_equal(run_child(answer_reference, "reference"), 0);
  assert_output("reference",
                (const char *[]){"| `workers` | number | `2` |  | Threads that serve. |", NULL});
}

static int fail_with_sentence(void) {
  const struct errmsg err = {"test.json:3: workers is 0; it may be 1 to 9"};
  return program_fail(&program, STATUS_CONFIG, &err);
}
static int fail_without_sentence(void) { return program_fail(&program, STATUS_TIMEOUT, NULL); }

static void failure_is_one_sentence_and_an_exit_code(void **state) {
  (void)state;
  assert_int_equal(run_child(fail_with_sentence, "a"), 2);
  assert_output(
      "a", (const char *[]){"deputy-test: test.json:3: workers is 0; it may be 1 to 9\n", NULL});
  assert_int_equal(run_child(fail_without_sentence, "b"), 1);
  assert_output("b", (const char *[]){"deputy-test: timeout\n", NULL});
}

#define EXPECT(condition)                    \
  do {                                       \
    if (!(condition)) {                      \
      (void)printf("not: %s\n", #condition); \
      return 1;                              \
    }                                        \
  } while (0)

static int harden(void) {
  struct rlimit core = {1, 1};
  struct sigaction on_pipe;
  EXPECT(program_harden(NULL) == STATUS_OK);
  EXPECT(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0);
  EXPECT(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
  EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
  EXPECT(umask(0) == 077);
  EXPECT(sigaction(SIGPIPE, NULL, &on_pipe) == 0 && on_pipe.sa_handler == SIG_IGN);
  return 0;
}

static int harden_without_descriptors(void) {
  int fd = -1;
  (void)close(STDIN_FILENO);
  (void)close(STDERR_FILENO);
  EXPECT(program_harden(NULL) == STATUS_OK);
  EXPECT(fcntl(STDIN_FILENO, F_GETFD) == 0 && fcntl(STDERR_FILENO, F_GETFD) == 0);
  fd = open("/dev/null", O_RDONLY);
  EXPECT(fd > STDERR_FILENO);
  return 0;
}

static int raise_nofile(void) {
  struct rlimit limit = {0};
  struct rlimit low = {0};
  EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  low = limit;
  low.rlim_cur = 16;
  EXPECT(setrlimit(RLIMIT_NOFILE, &low) == 0);
  EXPECT(program_raise_nofile() == (int64_t)limit.rlim_max);
  EXPECT(getrlimit(RLIMIT_NOFILE, &low) == 0 && low.rlim_cur == limit.rlim_max);
  return 0;
}

static void hardens_the_process(void **state) {
  (void)state;
  assert_int_equal(run_child(harden, "harden"), 0);
  assert_int_equal(run_child(harden_without_descriptors, "descriptors"), 0);
  assert_int_equal(run_child(raise_nofile, "nofile"), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_every_form_of_an_option),
      cmocka_unit_test(says_what_is_wrong_with_the_command_line),
      cmocka_unit_test_setup_teardown(answers_questions_about_itself, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(failure_is_one_sentence_and_an_exit_code, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(hardens_the_process, scratch_make, scratch_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
