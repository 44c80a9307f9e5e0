// SPDX-License-Identifier: Apache-2.0
#include "common/base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/common/base/config_sample.h"
#include "tests/unit/common/base/scratch.h"

static enum status parse(struct sample *out, const char *text, struct errmsg *err) {
  *out = (struct sample){0};
  return config_parse(out, sample_options, text, strlen(text), "s.json", "/etc/deputy", err);
}

// --- values ------------------------------------------------------------------

static void empty_object_has_all_defaults(void **state) {
  struct sample s;
  (void)state;
  assert_int_equal(parse(&s, "{\"user\":\"x\"}", NULL), STATUS_OK);
  assert_string_equal(s.log, "stderr");
  assert_true(s.is_on);
  assert_int_equal(s.workers, 4);
  assert_int_equal(s.mode, 1);
  assert_int_equal(s.num_listen, 2);
  assert_string_equal(s.listen[1], "[::1]:443");
  assert_int_equal(s.limits.handshake_ms, 10000);
  assert_int_equal(s.limits.buffer_len, 65536);
  assert_int_equal(s.num_names, 0);
  assert_null(s.tls.certificate);  // absent, so what it requires is not required
  assert_int_equal(s.tls.lifetime_ms, 172800000);
  config_cleanup(&s, sample_options);
}

static void reads_every_type(void **state) {
  struct sample s;
  struct errmsg err = {0};
  (void)state;
  if (parse(
          &s,
          "{\"user\": \"d\\u00e4\", \"log\": \"log/a.log\", \"on\": false, \"workers\": 7,\n"
          " \"mode\": \"switch\", \"listen\": [\"*:1\"], \"roots\": [\"/a\", \"b\", \"stderr\"],\n"
          " \"limits\": {\"handshake\": \"1500ms\", \"buffer\": 4096},\n"
          " \"tls\": {\"certificate\": \"c.pem\", \"lifetime\": \"7d\"},\n"
          " \"names\": [{\"name\": \"a.test\", \"chains\": [{\"certificate\": \"1.pem\"},\n"
          "   {\"certificate\": \"/2.pem\", \"lifetime\": \"2h\"}]},\n"
          "  {\"name\": \"b.test\", \"chains\": [{\"certificate\": \"3.pem\"}]}]}",
          &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_string_equal(s.user, "d\xc3\xa4");
  assert_string_equal(s.log, "/etc/deputy/log/a.log");
  assert_false(s.is_on);
  assert_int_equal(s.workers, 7);
  assert_int_equal(s.mode, 2);
  assert_int_equal(s.num_listen, 1);
  assert_int_equal(s.num_roots, 3);
  assert_string_equal(s.roots[0], "/a");
  assert_string_equal(s.roots[1], "/etc/deputy/b");
  assert_string_equal(s.roots[2], "stderr");
  assert_int_equal(s.limits.handshake_ms, 1500);
  assert_int_equal(s.limits.buffer_len, 4096);
  assert_string_equal(s.tls.certificate, "/etc/deputy/c.pem");
  assert_int_equal(s.tls.lifetime_ms, 604800000);
  assert_int_equal(s.num_names, 2);
  assert_int_equal(s.names[0].num_chains, 2);
  assert_string_equal(s.names[0].chains[1].certificate, "/2.pem");
  assert_int_equal(s.names[0].chains[1].lifetime_ms, 7200000);
  assert_int_equal(s.names[0].chains[0].lifetime_ms, 172800000);
  assert_string_equal(s.names[1].name, "b.test");
  config_cleanup(&s, sample_options);
  assert_null(s.names);
  assert_int_equal(s.num_names, 0);
  assert_null(s.user);
  config_cleanup(&s, sample_options);  // twice does no harm
}

static void reads_durations_and_sizes(void **state) {
  static const struct {
    const char *text;
    int64_t ms;
  } durations[] = {{"0s", 0},      {"250ms", 250},     {"10s", 10000},
                   {"5m", 300000}, {"48h", 172800000}, {"7d", 604800000}};
  static const char *const wrong[] = {"",    "s",   "10",  "-1s", "+1s",   "1.5s",
                                      "1 s", " 1s", "1s ", "1S",  "1h30m", "1w"};
  char text[CONFIG_UNIT_LEN];
  int64_t value = 0;
  (void)state;
  for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
    assert_int_equal(config_parse_duration(&value, durations[i].text), STATUS_OK);
    assert_int_equal(value, durations[i].ms);
  }
  assert_string_equal(config_format_duration(text, 172800000), "2d");
  assert_string_equal(config_format_duration(text, 1500), "1500ms");
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    assert_int_equal(config_parse_duration(&value, wrong[i]), STATUS_FORMAT);
  }
  assert_int_equal(config_parse_duration(&value, "9223372036854775808ms"), STATUS_LIMIT);
  assert_int_equal(config_parse_duration(&value, "9223372036854775807d"), STATUS_LIMIT);
  assert_int_equal(config_parse_size(&value, "64KiB"), STATUS_OK);
  assert_int_equal(value, 65536);
  assert_int_equal(config_parse_size(&value, "1GiB"), STATUS_OK);
  assert_int_equal(value, 1 << 30);
  assert_int_equal(config_parse_size(&value, "64KB"), STATUS_FORMAT);
  assert_string_equal(config_format_size(text, 65536), "64KiB");
  assert_string_equal(config_format_size(text, 65537), "65537B");
  assert_string_equal(config_format_size(text, 0), "0");
}

// --- mistakes ----------------------------------------------------------------

static void every_mistake_names_line_place_and_remedy(void **state) {
  static const char *const rows[][2] = {
      {"{\n\"usr\": 1}", "s.json:2: unknown option \"usr\" in the file; did you mean \"user\"?"},
      {"{\"uesr\": 1}", "s.json:1: unknown option \"uesr\" in the file; did you mean \"user\"?"},
      {"{\"user\":\"x\",\n\"names\":[{\n\"name\":\"a\",\n\"chians\":[]}]}",
       "s.json:4: unknown option \"chians\" in names[0]; did you mean \"chains\"?"},
      {"{\"user\":\"x\", \"tls\":\n{\"zebra\":1}}",
       "s.json:2: unknown option \"zebra\" in tls; it may have certificate, lifetime"},
      {"{\n}", "s.json:1: \"user\" is missing in the file; it must be a text"},
      {"\n\n[]", "s.json:3: the file must be an object in braces"},
      {"{\"user\":\"x\",\n\"tls\":[]}", "s.json:2: tls must be an object in braces"},
      {"{\"user\":\"x\",\n\"tls\":{}}",
       "s.json:2: \"certificate\" is missing in tls; it must be a path"},
      {"{\"user\":\"x\",\n\"names\":{}}", "s.json:2: names must be a list of objects"},
      {"{\"user\":\"x\",\n\"names\":[\n5]}", "s.json:3: names[0] must be an object in braces"},
      {"{\"user\":7}", "s.json:1: user must be a text, not a whole number"},
      {"{\"user\":\"\"}", "s.json:1: user has 0 characters; it may have 1 to 8"},
      {"{\"user\":\"123456789\"}", "s.json:1: user has 9 characters; it may have 1 to 8"},
      {"{\"user\":null}", "s.json:1: user must be a text, not null"},
      {"{\"user\":\"x\",\"log\":\"\"}", "s.json:1: log is empty; it must be a path"},
      {"{\"user\":\"x\",\"log\":true}", "s.json:1: log must be a path, not true"},
      {"{\"user\":\"x\",\"on\":1}", "s.json:1: on must be true or false, not a whole number"},
      {"{\"user\":\"x\",\"workers\":0}", "s.json:1: workers is 0; it may be 1 to 1024"},
      {"{\"user\":\"x\",\"workers\":1.5}",
       "s.json:1: workers must be a whole number, not a fraction"},
      {"{\"user\":\"x\",\"workers\":\"4\"}",
       "s.json:1: workers must be a whole number, not a text"},
      {"{\"user\":\"x\",\"mode\":\"swich\"}",
       "s.json:1: mode is \"swich\"; it may be off, report or switch; did you mean \"switch\"?"},
      {"{\"user\":\"x\",\"mode\":2}",
       "s.json:1: mode must be one of the words, not a whole number"},
      {"{\"user\":\"x\",\"listen\":\n\"*:1\"}",
       "s.json:1: listen must be a list of texts, not a text"},
      {"{\"user\":\"x\",\"listen\":[]}", "s.json:1: listen has 0 elements; it may have 1 to 3"},
      {"{\"user\":\"x\",\"listen\":[\n\"a\",\n[]]}",
       "s.json:3: listen[1] must be a text, not a list"},
      {"{\"user\":\"x\",\"roots\":[\n\"a\",\n\"\"]}",
       "s.json:3: roots[1] is empty; it must be a path"},
      {"{\"user\":\"x\",\"limits\":{\n\"handshake\":10}}",
       "s.json:2: limits.handshake must be a duration as \"250ms\", \"10s\", \"5m\", \"48h\" or "
       "\"7d\", not a whole number"},
      {"{\"user\":\"x\",\"limits\":{\n\"handshake\":\"10\"}}",
       "s.json:2: limits.handshake is \"10\"; it must be a duration as \"250ms\", \"10s\", "
       "\"5m\", \"48h\" or \"7d\""},
      {"{\"user\":\"x\",\"limits\":{\n\"handshake\":\"2h\"}}",
       "s.json:2: limits.handshake is 2h; it may be 100ms to 1m"},
      {"{\"user\":\"x\",\"limits\":{\n\"handshake\":\"99999999999999999999d\"}}",
       "s.json:2: limits.handshake is \"99999999999999999999d\", which is too large"},
      {"{\"user\":\"x\",\"limits\":{\"buffer\":\"1KiB\"}}",
       "s.json:1: limits.buffer is 1KiB; it may be at least 4KiB"},
      {"{\"user\":\"x\",\"limits\":{\"buffer\":-1}}",
       "s.json:1: limits.buffer is negative; it must be a size in bytes, or as \"64KiB\", "
       "\"16MiB\" or \"1GiB\""},
      {"{\"user\":\"x\",\"names\":[{\"name\":\"a\",\"chains\":[\n{\"certificate\":\"x\"},\n"
       "{\"certificate\":\n5}]}]}",
       "s.json:3: names[0].chains[1].certificate must be a path, not a whole number"},
      {"{\"user\":\"x\",\"names\":[{\"name\":\"a\",\n\"chains\":[]}]}",
       "s.json:2: names[0].chains has 0 elements; it may have 1 to 2"},
      {"{\"user\":\"x\",}",
       "s.json:1: not valid JSON: string or '}' expected near '}' (column 13)"},
      {"{\"user\":\"x\",\n\"user\":\"y\"}",
       "s.json:2: not valid JSON: duplicate object key near '\"user\"' (column 6)"},
      {"", "s.json:1: not valid JSON: '[' or '{' expected near end of file (column 1)"},
      {"{\"user\":\"x\"} x", "s.json:1: not valid JSON: end of file expected near 'x' (column 14)"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct sample s;
    struct sample zero = {0};
    struct errmsg err = {0};
    assert_int_equal(parse(&s, rows[i][0], &err), STATUS_CONFIG);
    assert_string_equal(err.text, rows[i][1]);
    assert_memory_equal(&s, &zero, sizeof(s));  // cleaned, so there is no leak either
    assert_int_equal(parse(&s, rows[i][0], NULL), STATUS_CONFIG);
  }
}

// Brackets, quotes and commas inside texts must not mislead the walk that looks
// for the line, nor keys written with escapes.
static void finds_the_line_behind_confusing_text(void **state) {
  struct sample s;
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(parse(&s,
                         "{\"user\": \"]},\\\"\", \"roots\": [\"a]\", \"\\\\\", \"{[\"],\n"
                         "\"limits\"  :  {  \"handshake\" : \"1s\" } ,\n"
                         "\"names\":[ {\"name\":\"}\", \"chains\":[{\"certificate\":\"{\"}]},\n"
                         "{\"n\\u0061me\":\"b\", \"chains\":[{\"certificate\":\"x\",\n"
                         "\"lifetime\":\"0s\"}]}], \"workers\":\n 9999}",
                         &err),
                   STATUS_CONFIG);
  assert_string_equal(err.text, "s.json:5: workers is 9999; it may be 1 to 1024");
  assert_int_equal(parse(&s, "{\"user\":\"x\",\n\"work\\u0065rs\":\n0}", &err), STATUS_CONFIG);
  assert_string_equal(err.text, "s.json:2: workers is 0; it may be 1 to 1024");
}

static void long_lists_of_options_are_cut(void **state) {
  static struct config_option many[61];
  static char names[60][16];
  struct errmsg err = {0};
  int64_t out = 0;
  (void)state;
  for (size_t i = 0; i < 60; i++) {
    (void)snprintf(names[i], sizeof(names[i]), "option_%zu", i);
    many[i] = (struct config_option){.name = names[i], .type = CONFIG_INT};
  }
  assert_int_equal(config_parse(&out, many, "{\"zzz\":1}", 9, "s.json", NULL, &err), STATUS_CONFIG);
  assert_non_null(strstr(err.text, "it may have option_0, option_1, "));
  assert_string_equal(err.text + strlen(err.text) - 3, "...");
}

static void refuses_too_many_elements_before_it_makes_room(void **state) {
  const size_t num = 1000001;
  char *text = malloc(2 * num + 64);
  struct sample s;
  struct errmsg err = {0};
  size_t len = 0;
  (void)state;
  assert_non_null(text);
  len = (size_t)sprintf(text, "{\"user\":\"x\",\"roots\":[0");
  for (size_t i = 1; i < num; i++) {
    text[len++] = ',';
    text[len++] = '0';
  }
  (void)snprintf(text + len, 3, "]}");
  assert_int_equal(parse(&s, text, &err), STATUS_CONFIG);
  assert_string_equal(err.text, "s.json:1: roots has more than 1000000 elements");
  free(text);
}

// --- files and the reference -------------------------------------------------

static void paths_start_at_the_folder_of_the_file(void **state) {
  const char *path = scratch_path("proxy.json");
  struct sample s = {0};
  struct errmsg err = {0};
  (void)state;
  scratch_write(path, "{\"user\":\"x\",\"log\":\"a.log\"}", 0600);
  assert_int_equal(config_load(&s, sample_options, path, &err), STATUS_OK);
  assert_string_equal(s.log, scratch_path("a.log"));
  config_cleanup(&s, sample_options);
  assert_int_equal(config_load(&s, sample_options, scratch_path("none.json"), &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "none.json: cannot be opened: No such file"));
  scratch_write(path, "{\n\"user\":1}", 0600);
  assert_int_equal(config_load(&s, sample_options, path, &err), STATUS_CONFIG);
  assert_non_null(strstr(err.text, "/proxy.json:2: user must be"));
}

static void reference_has_every_option(void **state) {
  static const char *const parts[] = {
      "| `user` | text | required | 1 to 8 characters | Who it runs as. |\n",
      "| `log` | path | `stderr` |  | A \\| in a cell. |\n",
      "| `on` | true or false | `true` |  |",
      "| `workers` | number | `4` | 1 to 1024 |",
      "| `mode` | word | `report` | `off`, `report`, `switch` |",
      "| `listen` | list of texts | `[\"127.0.0.1:443\", \"[::1]:443\"]` | 1 to 3 elements |",
      "| `roots` | list of paths | none |  |",
      "\n### `limits`\n",
      "| `handshake` | duration | `10s` | 100ms to 1m |",
      "| `buffer` | size | `64KiB` | at least 4KiB |",
      "\n### `names[].chains[]`\n",
      "| `lifetime` | duration | `48h` |  |",
  };
  char *text = NULL;
  size_t len = 0;
  FILE *file = open_memstream(&text, &len);
  (void)state;
  assert_non_null(file);
  config_print_reference(file, sample_options);
  assert_int_equal(fclose(file), 0);
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
    if (strstr(text, parts[i]) == NULL) {
      fail_msg("no \"%s\" in: %s", parts[i], text);
    }
  }
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empty_object_has_all_defaults),
      cmocka_unit_test(reads_every_type),
      cmocka_unit_test(reads_durations_and_sizes),
      cmocka_unit_test(every_mistake_names_line_place_and_remedy),
      cmocka_unit_test(finds_the_line_behind_confusing_text),
      cmocka_unit_test(long_lists_of_options_are_cut),
      cmocka_unit_test(refuses_too_many_elements_before_it_makes_room),
      cmocka_unit_test_setup_teardown(paths_start_at_the_folder_of_the_file, scratch_make,
                                      scratch_remove),
      cmocka_unit_test(reference_has_every_option),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
