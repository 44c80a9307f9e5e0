// SPDX-License-Identifier: Apache-2.0
#include "common/base/jsonline.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct jsonline line;

static void assert_line(const char *expected) {
  struct bytes out = {0};
  assert_int_equal(jsonline_end(&line, &out), STATUS_OK);
  assert_int_equal(out.len, strlen(expected));
  assert_memory_equal(out.data, expected, out.len);
}

static void writes_every_kind_of_value(void **state) {
  (void)state;
  jsonline_begin(&line);
  assert_line("{}");
  jsonline_begin(&line);
  jsonline_time(&line, "time", 1795308695123456);
  jsonline_cstr(&line, "event", "sign");
  jsonline_hex(&line, "key", bytes_text("\x01\xab"));
  jsonline_hex(&line, "none", bytes_of(NULL, 0));
  jsonline_int(&line, "zero", 0);
  jsonline_int(&line, "least", INT64_MIN);
  jsonline_int(&line, "most", INT64_MAX);
  jsonline_bool(&line, "ok", true);
  jsonline_bool(&line, "late", false);
  jsonline_cstr(&line, "empty", NULL);
  assert_line(
      "{\"time\":\"2026-11-22T00:51:35.123456Z\",\"event\":\"sign\",\"key\":\"01ab\","
      "\"none\":\"\",\"zero\":0,\"least\":-9223372036854775808,\"most\":9223372036854775807,"
      "\"ok\":true,\"late\":false,\"empty\":\"\"}");
}

static void escapes_what_could_end_the_text_or_the_line(void **state) {
  (void)state;
  jsonline_begin(&line);
  jsonline_text(&line, "a", bytes_of("x\"y\\z\n\0\x7f\xc3\xa4", 10));
  assert_line("{\"a\":\"x\\\"y\\\\z\\u000a\\u0000\\u007f\\u00c3\\u00a4\"}");
}

// Whatever a peer sends, a reader gets one object back with the same bytes.
static void every_byte_survives_a_json_parser(void **state) {
  uint8_t all[256];
  struct bytes out = {0};
  json_t *object = NULL;
  const char *text = NULL;
  (void)state;
  for (size_t i = 0; i < sizeof(all); i++) {
    all[i] = (uint8_t)i;
  }
  jsonline_begin(&line);
  jsonline_text(&line, "all", bytes_of(all, sizeof(all)));
  assert_int_equal(jsonline_end(&line, &out), STATUS_OK);
  assert_null(memchr(out.data, '\n', out.len));
  object = json_loadb((const char *)out.data, out.len, JSON_ALLOW_NUL, NULL);
  assert_non_null(object);
  text = json_string_value(json_object_get(object, "all"));
  assert_non_null(text);
  // As UTF-8: one byte up to 0x7f, two above.
  assert_int_equal(json_string_length(json_object_get(object, "all")), 128 + 2 * 128);
  assert_memory_equal(text, all, 128);
  json_decref(object);
}

// The line either has all of it or is refused, at every length.
static void refuses_a_line_that_does_not_fit(void **state) {
  static uint8_t value[SINK_LINE_MAX_LEN];
  (void)state;
  memset(value, 'x', sizeof(value));
  for (size_t len = SINK_LINE_MAX_LEN - 40; len < SINK_LINE_MAX_LEN; len++) {
    struct bytes out = {0};
    enum status st = STATUS_OK;
    jsonline_begin(&line);
    jsonline_text(&line, "a", bytes_of(value, len));
    jsonline_int(&line, "b", 1);
    st = jsonline_end(&line, &out);
    if (len + strlen("{\"a\":\"\",\"b\":1}") <= SINK_LINE_MAX_LEN) {
      assert_int_equal(st, STATUS_OK);
      assert_int_equal(out.len, len + strlen("{\"a\":\"\",\"b\":1}"));
    } else {
      assert_int_equal(st, STATUS_LIMIT);
      assert_int_equal(out.len, 0);
    }
  }
  for (size_t len = SINK_LINE_MAX_LEN / 2 - 20; len < SINK_LINE_MAX_LEN / 2 + 1; len++) {
    struct bytes out = {0};
    jsonline_begin(&line);
    jsonline_hex(&line, "a", bytes_of(value, len));
    assert_int_equal(
        jsonline_end(&line, &out),
        2 * len + strlen("{\"a\":\"\"}") <= SINK_LINE_MAX_LEN ? STATUS_OK : STATUS_LIMIT);
  }
}

static void escaped_bytes_count_with_their_escapes(void **state) {
  static uint8_t value[SINK_LINE_MAX_LEN / 6 + 1];
  struct bytes out = {0};
  (void)state;
  jsonline_begin(&line);
  jsonline_text(&line, "a", bytes_of(value, sizeof(value)));
  assert_int_equal(jsonline_end(&line, &out), STATUS_LIMIT);
  jsonline_begin(&line);  // and is usable again
  jsonline_text(&line, "a", bytes_of(value, sizeof(value) - 10));
  assert_int_equal(jsonline_end(&line, &out), STATUS_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(writes_every_kind_of_value),
      cmocka_unit_test(escapes_what_could_end_the_text_or_the_line),
      cmocka_unit_test(every_byte_survives_a_json_parser),
      cmocka_unit_test(refuses_a_line_that_does_not_fit),
      cmocka_unit_test(escaped_bytes_count_with_their_escapes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
