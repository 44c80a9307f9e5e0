// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ctl/ctl.h"

static enum ctl_exit never(const struct ctl_args *args) {
  (void)args;
  return CTL_DONE;
}

static const struct ctl_command commands[] = {
    {"look", "[NAME]", 0, 0, 0, 0, 1, never, "", ""},
    {"move", "", CTL_SUBJECTS | CTL_TO | CTL_REASON | CTL_FORCE, CTL_REASON, CTL_SUBJECTS, 0, 0,
     never, "", ""},
    {0},
};

static struct ctl_args args;
static const struct ctl_command *command;
static struct errmsg err;

// parse splits at spaces: "move --ca X" is deputyctl's command line after its name.
static enum status parse(const char *line) {
  static char copy[512];
  static char *argv[32] = {(char *)"deputyctl"};
  int argc = 1;
  char *rest = NULL;
  memcpy(copy, line, strlen(line) + 1);
  for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
    argv[argc++] = strcmp(word, "''") == 0 ? (char *)"" : word;
  }
  err.text[0] = '\0';
  return ctl_parse(&args, &command, commands, argc, argv, &err);
}

static void assert_refused(const char *line, const char *sentence) {
  assert_int_equal(parse(line), STATUS_CONFIG);
  if (strstr(err.text, sentence) == NULL) {
    fail_msg("%s: \"%s\" does not say \"%s\"", line, err.text, sentence);
  }
}

static void reads_options_before_and_after_the_command(void **state) {
  (void)state;
  assert_int_equal(parse("--json move --ca X --reason why --socket /s"), STATUS_OK);
  assert_string_equal(command->name, "move");
  assert_true(args.is_json);
  assert_string_equal(args.ca, "X");
  assert_string_equal(args.reason, "why");
  assert_string_equal(args.socket, "/s");
  assert_int_equal(args.given, CTL_CA | CTL_REASON);
  assert_int_equal(parse("look a.test"), STATUS_OK);
  assert_string_equal(args.words[0], "a.test");
}

static void finds_the_socket(void **state) {
  (void)state;
  (void)unsetenv(CTL_SOCKET_VARIABLE);
  assert_int_equal(parse("look"), STATUS_OK);
  assert_string_equal(args.socket, CTL_DEFAULT_SOCKET);
  (void)setenv(CTL_SOCKET_VARIABLE, "/from/env", 1);
  assert_int_equal(parse("look"), STATUS_OK);
  assert_string_equal(args.socket, "/from/env");
  assert_int_equal(parse("look --socket /s"), STATUS_OK);
  assert_string_equal(args.socket, "/s");
  (void)setenv(CTL_SOCKET_VARIABLE, "", 1);
  assert_int_equal(parse("look"), STATUS_OK);
  assert_string_equal(args.socket, CTL_DEFAULT_SOCKET);
  (void)unsetenv(CTL_SOCKET_VARIABLE);
}

static void helps_without_checking_the_rest(void **state) {
  (void)state;
  assert_int_equal(parse("--help"), STATUS_OK);
  assert_null(command);
  assert_int_equal(parse("move --help"), STATUS_OK);
  assert_string_equal(command->name, "move");
  assert_true(args.is_help);
  assert_int_equal(parse("-h"), STATUS_OK);
  assert_true(args.is_help);
  assert_int_equal(parse("--version"), STATUS_OK);
  assert_true(args.is_version);
}

static void says_what_is_wrong(void **state) {
  (void)state;
  assert_refused("", "which command?");
  assert_refused("fly", "unknown command \"fly\"");
  assert_refused("look --bogus", "unknown option --bogus");
  assert_refused("look --socket", "--socket needs a value");
  assert_refused("look --reason x", "look does not take --reason");
  assert_refused("look a b", "usage: deputyctl look [NAME]");
  assert_refused("look a b c", "usage: deputyctl look [NAME]");
  assert_refused("move --ca X", "move needs --reason");
  assert_refused("move --reason x", "exactly one of --name, --key, --ca, --fleet");
  assert_refused("move --reason x --ca X --fleet", "exactly one of");
  assert_refused("move --reason x --ca X --ca Y", "--ca is given twice");
  assert_refused("move --reason '' --ca X", "--reason is empty");
  assert_refused("move --reason \xff --ca X", "--reason is not UTF-8");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_options_before_and_after_the_command),
      cmocka_unit_test(finds_the_socket),
      cmocka_unit_test(helps_without_checking_the_rest),
      cmocka_unit_test(says_what_is_wrong),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
