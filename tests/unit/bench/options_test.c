// SPDX-License-Identifier: Apache-2.0
#include "bench/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct options {
  const char *target;
  bool flag;
  int64_t count;
  double rate;
  int64_t time_ms;
  int64_t len;
  int word;
};

static const char *const words[] = {"one", "two", NULL};
#define FIELD(name) offsetof(struct options, name)
// clang-format off
static const struct option_row table[] = {
  {"target", OPTION_TEXT, FIELD(target), .is_required = true, .help = "a text"},
  {"flag", OPTION_FLAG, FIELD(flag), .help = "a flag"},
  {"count", OPTION_COUNT, FIELD(count), .fallback = "7", .min = 1, .max = 10, .help = "a count"},
  {"rate", OPTION_NUMBER, FIELD(rate), .min = 0.5, .max = 100, .help = "a number"},
  {"time", OPTION_DURATION, FIELD(time_ms), .fallback = "10s", .min = 1, .max = 60000,
   .help = "a time"},
  {"size", OPTION_SIZE, FIELD(len), .min = 1, .max = 1e12, .help = "a size"},
  {"word", OPTION_WORD, FIELD(word), .fallback = "two", .words = words, .help = "a word"},
  {0},
};
// clang-format on

static struct options o;
static struct errmsg err;
static bool is_done;

static enum status parse(const char *line) {
  static char copy[256];
  char *argv[16] = {"x"};
  int argc = 1;
  o = (struct options){0};
  err = (struct errmsg){0};
  (void)strncpy(copy, line, sizeof(copy) - 1);
  for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
    argv[argc++] = word;
  }
  return options_parse(&o, &is_done, table, argc, argv, &err);
}

static void assert_complains(const char *line, const char *about) {
  assert_int_equal(parse(line), STATUS_CONFIG);
  if (strstr(err.text, about) == NULL) {
    fail_msg("\"%s\" says nothing of \"%s\"", err.text, about);
  }
}

static void fills_in_defaults(void **state) {
  (void)state;
  assert_int_equal(parse("--target a:1"), STATUS_OK);
  assert_string_equal(o.target, "a:1");
  assert_int_equal(o.count, 7);
  assert_int_equal(o.time_ms, 10000);
  assert_int_equal(o.word, 1);
  assert_false(o.flag);
  assert_false(is_done);
}

static void reads_every_type(void **state) {
  (void)state;
  assert_int_equal(
      parse("--target=b --flag --count 10 --rate=0.5 --time 250ms --size 64KiB --word one"),
      STATUS_OK);
  assert_string_equal(o.target, "b");
  assert_true(o.flag);
  assert_int_equal(o.count, 10);
  assert_true(o.rate == 0.5);
  assert_int_equal(o.time_ms, 250);
  assert_int_equal(o.len, 65536);
  assert_int_equal(o.word, 0);
  assert_int_equal(parse("--target b --size 1000"), STATUS_OK);
  assert_int_equal(o.len, 1000);
}

static void help_needs_nothing_else(void **state) {
  (void)state;
  assert_int_equal(parse("--nonsense --help"), STATUS_OK);
  assert_true(is_done);
}

static void complains_with_the_option_and_what_it_may_be(void **state) {
  (void)state;
  assert_complains("", "--target is required");
  assert_complains("--target a --tarnget b", "unknown option \"--tarnget\"");
  assert_complains("--target a extra", "\"extra\" is not an option");
  assert_complains("--target", "--target needs a value");
  assert_complains("--target a --count 11", "from 1 to 10");
  assert_complains("--target a --count 0", "from 1 to 10");
  assert_complains("--target a --count 5x", "not a number");
  assert_complains("--target a --rate nan", "not a number");
  assert_complains("--target a --rate 0.1", "from 0.5 to 100");
  assert_complains("--target a --time 5", "a time is written");
  assert_complains("--target a --time 2m", "from 1 to 60000 ms");
  assert_complains("--target a --size 5q", "a size is written");
  assert_complains("--target a --word three", "one, two");
  assert_complains("--target a --flag=yes", "takes no value");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fills_in_defaults),
      cmocka_unit_test(reads_every_type),
      cmocka_unit_test(help_needs_nothing_else),
      cmocka_unit_test(complains_with_the_option_and_what_it_may_be),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
