// SPDX-License-Identifier: Apache-2.0
#include "ctl/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ctl/grid.h"

// What a show function writes, as text; free.
static char *text;
static size_t text_len;
static FILE *file;

static void open_text(void) {
  file = open_memstream(&text, &text_len);
  assert_non_null(file);
}

static void assert_text(const char *expected) {
  (void)fclose(file);
  assert_string_equal(text, expected);
  free(text);
}

static json_t *json(const char *source) {
  json_error_t error;
  json_t *out = json_loads(source, 0, &error);
  if (out == NULL) {
    fail_msg("line %d: %s", error.line, error.text);
  }
  return out;
}

// --- grids -------------------------------------------------------------------------

static void aligns_columns_and_ends_lines_early(void **state) {
  (void)state;
  static const char *const heading[] = {"A", "LONGER", "C", NULL};
  struct grid grid;
  grid_init(&grid, heading);
  grid_add(&grid, "wide cell");
  grid_add(&grid, "x");
  grid_add(&grid, "");
  grid_add(&grid, "é☂");
  grid_addf(&grid, "%d", 7);
  grid_add(&grid, "end");
  open_text();
  assert_true(grid_print(&grid, file));
  assert_text(
      "A          LONGER  C\n"
      "wide cell  x\n"
      "é☂         7       end\n");
}

static void lets_nothing_control_the_terminal(void **state) {
  (void)state;
  static const char *const heading[] = {"A", NULL};
  struct grid grid;
  grid_init(&grid, heading);
  grid_add(&grid,
           "\x1b[2Jx\n\x7f\xc2\x9b"
           "0m \xc3\xa9");
  open_text();
  assert_true(grid_print(&grid, file));
  assert_text("A\n?[2Jx????0m \xc3\xa9\n");
}

static void prints_no_unfinished_row(void **state) {
  (void)state;
  static const char *const heading[] = {"A", "B", NULL};
  struct grid grid;
  grid_init(&grid, heading);
  grid_add(&grid, "alone");
  open_text();
  assert_false(grid_print(&grid, file));
  assert_text("");
}

// --- times -------------------------------------------------------------------------

static void assert_left(const char *end, const char *expected) {
  char left[SHOW_LEFT_LEN];
  assert_string_equal(show_left(left, end, "2026-11-22T00:00:00Z"), expected);
}

static void says_how_long_is_left(void **state) {
  (void)state;
  assert_left("2027-01-22T00:00:00Z", "61d");
  assert_left("2026-11-24T00:00:00Z", "2d");
  assert_left("2026-11-23T23:59:59Z", "47h");
  assert_left("2026-11-22T02:00:00Z", "2h");
  assert_left("2026-11-22T01:59:00Z", "119m");
  assert_left("2026-11-22T00:01:59Z", "119s");
  assert_left("2026-11-22T00:00:00Z", "ended 0s ago");
  assert_left("2026-11-18T23:00:00Z", "ended 3d ago");
  assert_left(NULL, "-");
  assert_left("tomorrow", "-");
  assert_left("2026-11-22T00:00:00+01:00", "-");
}

// --- answers -----------------------------------------------------------------------

static const char names_json[] =
    "[{\"name\":\"a.test\",\"serves\":\"backup\",\"why\":\"name_preferred\",\"usable\":true,"
    "\"preferred\":\"backup\",\"preferred_by\":\"name\",\"dc\":true,\"dc_off_by\":null,\"levels\":["
    "{\"label\":\"primary\",\"chains\":[{\"label\":\"primary\",\"kind\":\"p256\",\"issuer\":"
    "\"One\","
    "\"ca_id\":\"00112233445566778899\",\"key_id\":\"aabbccddeeff00112233\",\"fault\":\"ca_out\","
    "\"usable\":false,\"serves\":false,\"serves_rsa_only\":false,\"must_staple\":true,"
    "\"staple_ends_at\":null,\"not_after\":\"2026-12-22T00:00:00Z\",\"dc_ends_at\":null,"
    "\"why_no_dc\":\"RSA leaf\"}]},"
    "{\"label\":\"backup\",\"chains\":[{\"label\":\"backup\",\"kind\":\"p256\",\"issuer\":\"Two\","
    "\"ca_id\":\"ff112233445566778899\",\"key_id\":\"bbbbccddeeff00112233\",\"fault\":null,"
    "\"usable\":true,\"serves\":true,\"serves_rsa_only\":false,\"must_staple\":false,"
    "\"staple_ends_at\":\"2026-11-26T00:00:00Z\",\"not_after\":\"2027-01-22T00:00:00Z\","
    "\"dc_ends_at\":\"2026-11-23T00:00:00Z\",\"why_no_dc\":null}]}]}]";

static void shows_names_with_what_serves_and_why_not_the_others(void **state) {
  (void)state;
  json_t *names = json(names_json);
  open_text();
  show_names(file, names, "2026-11-22T00:00:00Z");
  assert_text(
      "NAME    CHAIN    STATE              WHY             KEY KIND  ISSUER  CA            KEY"
      "           LEFT  DC LEFT   STAPLE\n"
      "a.test  primary  CA out of service                  p256      One     001122334455  "
      "aabbccddeeff  30d   RSA leaf  none!\n"
      "        backup   serves             name preferred  p256      Two     ff1122334455  "
      "bbbbccddeeff  61d   24h       4d\n");
  json_decref(names);
}

static void shows_dcs_off_and_by_whom(void **state) {
  (void)state;
  json_t *names = json(names_json);
  json_t *name = json_array_get(names, 0);
  (void)json_object_set_new(name, "dc_off_by", json_string("fleet"));
  open_text();
  show_names(file, names, "2026-11-22T00:00:00Z");
  (void)fclose(file);
  assert_non_null(strstr(text, "off (fleet)"));
  assert_null(strstr(text, "24h"));
  free(text);
  open_text();
  show_name(file, name, "2026-11-22T00:00:00Z");
  (void)fclose(file);
  assert_non_null(strstr(text, "delegated credentials: off (fleet)\n"));
  assert_non_null(strstr(text, "  primary: CA out of service\n"));
  assert_non_null(strstr(text, "none (the leaf must have one)\n"));
  free(text);
  json_decref(names);
}

static void shows_switches(void **state) {
  (void)state;
  json_t *list = json(
      "[{\"id\":1,\"level\":\"ca\",\"subject\":\"00112233445566778899\",\"known_as\":\"CA One\","
      "\"action\":\"out\",\"to\":null,\"compromised\":true,\"reason\":\"leak\\u001b[0m\","
      "\"author\":\"ada\",\"at\":\"2026-11-22T00:00:00Z\",\"undone\":null},"
      "{\"id\":12,\"level\":\"name\",\"subject\":\"a.test\",\"known_as\":null,\"action\":"
      "\"prefer\","
      "\"to\":\"backup\",\"compromised\":false,\"reason\":\"try\",\"author\":\"bob\","
      "\"at\":\"2026-11-22T00:01:00Z\",\"undone\":{\"by\":\"eve\",\"at\":\"2026-11-22T00:02:00Z\"}}"
      "]");
  open_text();
  show_switches(file, list);
  assert_text(
      "ID  WHEN                  LEVEL  SUBJECT                ACTION                       BY   "
      "NOW                                      REASON\n"
      "1   2026-11-22T00:00:00Z  ca     CA One (001122334455)  out of service, compromised  ada  "
      "stands                                   leak?[0m\n"
      "12  2026-11-22T00:01:00Z  name   a.test                 to backup                    bob  "
      "restored by eve at 2026-11-22T00:02:00Z  try\n");
  json_decref(list);
}

static void shows_what_a_change_did_and_its_warnings(void **state) {
  (void)state;
  char *warned = NULL;
  size_t warned_len = 0;
  FILE *warn = open_memstream(&warned, &warned_len);
  json_t *answer = json(
      "{\"id\":7,\"ids\":[7],\"level\":\"ca\",\"subject\":\"00112233445566778899\",\"already\":"
      "false,"
      "\"action\":\"out\",\"num_moved\":3,\"warnings\":[\"first\",\"second\"]}");
  open_text();
  show_change(file, warn, answer);
  assert_text("switch 7: ca 001122334455: out of service; 3 names moved\n");
  (void)fclose(warn);
  assert_string_equal(warned, "deputyctl: warning: first\ndeputyctl: warning: second\n");
  free(warned);
  json_decref(answer);

  answer = json(
      "{\"id\":7,\"ids\":[7,4],\"level\":\"name\",\"subject\":\"a.test\",\"action\":\"restore\"}");
  open_text();
  show_change(file, stderr, answer);
  assert_text("restored: 7 4 (name a.test)\n");
  json_decref(answer);
}

static void shows_a_drill(void **state) {
  (void)state;
  json_t *answer = json(
      "{\"level\":\"ca\",\"subject\":\"00112233445566778899\",\"known_as\":\"CA One\","
      "\"ready\":false,\"num_names\":30,\"num_moved\":25,\"num_without_backup\":22,\"num_partly\":"
      "0,"
      "\"num_unusable_already\":1,\"num_without_dc\":2,\"now\":\"2026-11-22T00:00:00Z\","
      "\"oldest_dc_ends_at\":\"2026-11-22T12:00:00Z\",\"oldest_staple_ends_at\":null,"
      "\"without_backup\":[\"a\",\"b\"]}");
  json_t *names = json_object_get(answer, "without_backup");
  while (json_array_size(names) < 22) {
    (void)json_array_append_new(names, json_string("n"));
  }
  open_text();
  show_drill(file, answer);
  (void)fclose(file);
  assert_non_null(strstr(text, "ca CA One (001122334455)\n"));
  assert_non_null(strstr(text, "      22  would have nothing usable\n"));
  assert_non_null(strstr(text, "     12h  left to the first end of a backup's DC\n"));
  assert_non_null(strstr(text, "       -  left to the first end of a backup's staple\n"));
  assert_non_null(strstr(text, "  b\n"));
  assert_non_null(strstr(text, "  and 2 more"));
  assert_non_null(strstr(text, "NOT READY\n"));
  free(text);
  json_decref(answer);
}

static void shows_status_whatever_is_in_it(void **state) {
  (void)state;
  json_t *answer = json(
      "{\"version\":\"1\",\"names\":{\"total\":3,\"on_last_resort\":1,\"unserved\":1},"
      "\"switches\":{\"kept\":false},\"list\":[1,2],\"none\":null,"
      "\"key_servers\":[{\"name\":\"k:1\",\"state\":\"up\",\"distance_us\":1234,\"srtt_us\":0,"
      "\"answered\":12},{}],"
      "\"listeners\":[{\"name\":\"main\",\"address\":\"[::]:443\",\"x\":7},{}]}");
  open_text();
  show_status(file, answer);
  assert_text(
      "WHAT                  NOW\n"
      "version               1\n"
      "names total           3\n"
      "names on last resort  1\n"
      "names unserved        1\n"
      "switches kept         no\n"
      "list                  [1,2]\n"
      "none                  -\n"
      "listeners main        [::]:443\n"
      "listeners -\n"
      "\nKEY SERVER  STATE  DISTANCE  ANSWERS IN  CONNECTIONS  IN FLIGHT  ANSWERED  FAILURES  "
      "HEDGES\n"
      "k:1         up     1.2 ms    -           0            0          12        0         0\n"
      "-           -      -         -           0            0          0         0         0\n"
      "\nALERT: 2 names have nothing usable; see `deputyctl names`\n"
      "\nALERT: switches are in memory only and do not survive a restart\n");
  json_decref(answer);
}

// An answer of another version, or none of ours, shows gaps; nothing breaks.
static void survives_answers_without_what_it_expects(void **state) {
  (void)state;
  static const char *const odd[] = {
      "{}", "[]", "7", "\"x\"", "[{},7,null,\"x\"]", "[{\"levels\":[{\"chains\":[{},7]},7]}]"};
  for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
    json_error_t error;
    json_t *answer = json_loads(odd[i], JSON_DECODE_ANY, &error);
    assert_non_null(answer);
    open_text();
    show_status(file, answer);
    show_names(file, answer, NULL);
    show_name(file, answer, NULL);
    show_chains(file, answer, NULL);
    show_switches(file, answer);
    show_drill(file, answer);
    show_change(file, file, answer);
    (void)fclose(file);
    free(text);
    json_decref(answer);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(aligns_columns_and_ends_lines_early),
      cmocka_unit_test(lets_nothing_control_the_terminal),
      cmocka_unit_test(prints_no_unfinished_row),
      cmocka_unit_test(says_how_long_is_left),
      cmocka_unit_test(shows_names_with_what_serves_and_why_not_the_others),
      cmocka_unit_test(shows_dcs_off_and_by_whom),
      cmocka_unit_test(shows_switches),
      cmocka_unit_test(shows_what_a_change_did_and_its_warnings),
      cmocka_unit_test(shows_a_drill),
      cmocka_unit_test(shows_status_whatever_is_in_it),
      cmocka_unit_test(survives_answers_without_what_it_expects),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
