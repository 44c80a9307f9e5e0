// SPDX-License-Identifier: Apache-2.0
#include "common/wire/region_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

// A server is written as its attributes between semicolons.
static size_t server_of(struct region_attribute *out, const char *text) {
  size_t num = 0;
  while (*text != '\0') {
    const size_t len = strcspn(text, ";");
    struct errmsg err = {0};
    if (region_attribute_parse(&out[num++], bytes_of(text, len), &err) != STATUS_OK) {
      fail_msg("%s: %s", text, err.text);
    }
    text += len + (text[len] == ';' ? 1 : 0);
  }
  return num;
}

static bool admits(const char *text, const char *server) {
  static struct region_policy policy;
  struct region_attribute attributes[REGION_MAX_ATTRIBUTES];
  struct errmsg err = {0};

  if (region_policy_parse(&policy, bytes_text(text), &err) != STATUS_OK) {
    fail_msg("%s: %s", text, err.text);
  }
  return region_policy_admits(&policy, attributes, server_of(attributes, server));
}

static void admits_by_region_and_country(void **state) {
  static const char policy[] = "(region: EU) and (not country: FR)";
  (void)state;
  assert_true(admits(policy, "region: EU;country: DE"));
  assert_false(admits(policy, "region: EU;country: FR"));
  assert_false(admits(policy, "region: US;country: DE"));
  assert_false(admits(policy, "country: DE"));
}

// What a server does not say admits it to nothing, also not under "not".
static void what_is_not_said_admits_nobody(void **state) {
  (void)state;
  assert_false(admits("region: EU", ""));
  assert_false(admits("not country: FR", ""));
  assert_false(admits("not country: FR", "region: EU"));
  assert_false(admits("not (country: FR and region: EU)", "region: EU"));
  assert_true(admits("not (country: FR and region: EU)", "region: US"));
  assert_true(admits("country: FR or region: EU", "region: EU"));
  assert_false(admits("not (country: FR or region: EU)", "region: US"));
  assert_false(admits("country: FR or not country: FR", "region: US"));
}

static void several_values_of_a_name_all_count(void **state) {
  (void)state;
  assert_true(admits("country: DE", "country: FR;country: DE"));
  assert_false(admits("not country: DE", "country: FR;country: DE"));
  assert_true(admits("not country: US", "country: FR;country: DE"));
}

static void not_binds_before_and_before_or(void **state) {
  (void)state;
  assert_true(admits("a: 1 or b: 1 and c: 1", "a: 1;b: 0;c: 0"));
  assert_false(admits("(a: 1 or b: 1) and c: 1", "a: 1;b: 0;c: 0"));
  assert_true(admits("b: 1 and c: 1 or a: 1", "a: 1;b: 0;c: 0"));
  assert_true(admits("not a: 1 or b: 1", "a: 1;b: 1"));
  assert_false(admits("not (a: 1 or b: 1)", "a: 0;b: 1"));
  assert_false(admits("not a: 1 and b: 1", "a: 1;b: 1"));
  assert_true(admits("not not a: 1", "a: 1"));
  assert_true(admits("a: 1 and not (b: 1 or c: 1) and not d: 1", "a: 1;b: 0;c: 0;d: 0"));
}

static void knows_no_case_of_names_and_values(void **state) {
  (void)state;
  assert_true(admits("Region: eu", "region: EU"));
  assert_false(admits("not region: eu", "REGION: Eu"));
}

static void takes_quoted_values(void **state) {
  (void)state;
  assert_true(admits("dc:\"rack 7 \\\"a\\\" \\\\\"", "dc: \"rack 7 \\\"A\\\" \\\\\""));
  assert_true(admits("dc : \"and\"", "dc: \"AND\""));
  assert_true(admits("\tdc:fra1/7.b-c_d", "dc: \"fra1/7.b-c_d\""));
}

static void assert_refused(const char *text, const char *sentence) {
  struct region_policy policy;
  struct errmsg err = {0};
  assert_int_not_equal(region_policy_parse(&policy, bytes_text(text), &err), STATUS_OK);
  if (strstr(err.text, sentence) == NULL) {
    fail_msg("%s: \"%s\" does not say \"%s\"", text, err.text, sentence);
  }
  assert_false(region_policy_admits(&policy, NULL, 0));
}

static void says_where_and_what_was_expected(void **state) {
  static const struct {
    const char *text;
    const char *sentence;
  } bad[] = {
      {"", "column 1: expected \"(\", \"not\" or a term as \"region: EU\", found the end"},
      {"   ", "column 4: expected"},
      {"region EU", "column 8: expected ':' after a name, found \"EU\""},
      {"region:", "column 8: expected a value, found the end"},
      {"region: and country: FR", "column 9: expected a value (in quotes, if it is this word)"},
      {"region: EU FR", "column 12: expected \"and\", \"or\" or the end, found \"FR\""},
      {"region: EU, region: US", "column 11: expected \"and\", \"or\" or the end, found ','"},
      {"(region: EU", "column 12: expected \")\" for the \"(\" of column 1, found the end"},
      {"(region: EU x", "column 13: expected \"and\", \"or\" or \")\", found \"x\""},
      {"region: EU)", "column 11: expected \"and\", \"or\" or the end, found ')'"},
      {"()", "column 2: expected \"(\""},
      {"region: EU and", "column 15: expected \"(\""},
      {"and region: EU", "column 1: expected \"(\""},
      {"region: EU AND country: FR", "column 12: expected \"and\""},
      {"NOT region: EU", "column 1: expected \"(\", \"not\" or a term"},
      {"not: x", "column 4: expected \"(\""},
      {"9a: x", "column 1: expected"},
      {"region: \"EU", "column 12: expected printable ASCII and then a '\"', found the end"},
      {"region: \"\"", "column 10: expected a value between the quotes"},
      {"region: \"a\\n\"", "column 12: expected '\"' or '\\' after a '\\', found \"n\""},
      {"region: \"\x01\"", "found byte 0x01"},
      {"region: EU\n", "column 11: expected \"and\", \"or\" or the end, found byte 0x0a"},
      {"region: Z\xc3\xbcrich", "column 10: expected \"and\", \"or\" or the end, found byte 0xc3"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_refused(bad[i].text, bad[i].sentence);
  }
}

static char repeated[8192];

// repeat writes `part` so often, then `end`.
static const char *repeat(const char *part, size_t num, const char *end) {
  size_t len = 0;
  for (size_t i = 0; i <= num; i++) {
    len += (size_t)snprintf(repeated + len, sizeof repeated - len, "%s", i < num ? part : end);
  }
  return repeated;
}

static void keeps_to_its_limits(void **state) {
  struct region_policy policy;
  (void)state;

  repeat("(", REGION_POLICY_MAX_DEPTH, "a: b))))))))))))))))))))))))))))))))");
  assert_int_equal(region_policy_parse(&policy, bytes_text(repeated), NULL), STATUS_OK);
  assert_refused(repeat("(", REGION_POLICY_MAX_DEPTH + 1, "a: b"),
                 "column 33: more than 32 levels");
  assert_refused(repeat("not ", REGION_POLICY_MAX_DEPTH + 1, "a: b"), "more than 32 levels");
  repeat("a: b or ", REGION_POLICY_MAX_TERMS - 1, "a: b");
  assert_int_equal(region_policy_parse(&policy, bytes_text(repeated), NULL), STATUS_OK);
  assert_int_equal(policy.num_terms, REGION_POLICY_MAX_TERMS);
  assert_refused(repeat("a: b or ", REGION_POLICY_MAX_TERMS, "a: b"), "more than 64 terms");
  assert_refused(repeat("not not not not not a: b or ", 37, "a: b"), "longer than 1024");
  assert_refused(repeat("not not not a:b or ", 52, "a: b"), "more than 255 terms and");
  assert_refused(repeat("n", REGION_MAX_NAME_LEN + 1, ": b"), "characters in a name");
  repeat("v", REGION_MAX_VALUE_LEN + 3, "");
  repeated[1] = ':';
  assert_refused(repeated, "column 3: more than 128 characters in a value");
  assert_refused(repeat(" ", REGION_POLICY_MAX_LEN, "a: b"), "longer than 1024 characters");
}

static void assert_written(const char *text, const char *shortest) {
  static char out[REGION_POLICY_MAX_TEXT_LEN];
  struct region_policy policy;
  assert_int_equal(region_policy_parse(&policy, bytes_text(text), NULL), STATUS_OK);
  assert_int_equal(region_policy_format(out, sizeof out, &policy), STATUS_OK);
  assert_string_equal(out, shortest);
  assert_int_equal(region_policy_format(out, strlen(shortest), &policy), STATUS_LIMIT);
}

static void writes_it_as_short_as_it_can_be(void **state) {
  (void)state;
  assert_written("((region:EU)) and ( not ((country : FR)) )", "region: EU and not country: FR");
  assert_written("(a:1 or b:2) and c:3", "(a: 1 or b: 2) and c: 3");
  assert_written("a:1 or (b:2 and c:3)", "a: 1 or b: 2 and c: 3");
  assert_written("a:1 and (b:2 and c:3)", "a: 1 and (b: 2 and c: 3)");
  assert_written("not (not (a:1))", "not not a: 1");
  assert_written("not (a:1 or b: \"x y\")", "not (a: 1 or b: \"x y\")");
  assert_written("a: \"or\"", "a: \"or\"");
}

static void shows_its_terms(void **state) {
  struct region_policy policy;
  const char *name = NULL;
  const char *value = NULL;
  (void)state;
  assert_int_equal(region_policy_parse(&policy, bytes_text("a: 1 and not (b: 2 or c: 3)"), NULL),
                   STATUS_OK);
  assert_int_equal(policy.num_terms, 3);
  region_policy_term(&name, &value, &policy, 2);
  assert_string_equal(name, "c");
  assert_string_equal(value, "3");
}

static void an_attribute_is_one_term(void **state) {
  static const char *const bad[] = {
      "",     "region", "region: EU and a: b", "not region: EU", "(region: EU)", "region: EU x",
      "or: x"};
  struct region_attribute attribute;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(region_attribute_parse(&attribute, bytes_text(bad[i]), NULL), STATUS_FORMAT);
    assert_string_equal(attribute.name, "");
  }
  assert_int_equal(region_attribute_parse(&attribute, bytes_text(" dc:  \"a b\" "), NULL),
                   STATUS_OK);
  assert_string_equal(attribute.name, "dc");
  assert_string_equal(attribute.value, "a b");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(admits_by_region_and_country),
      cmocka_unit_test(what_is_not_said_admits_nobody),
      cmocka_unit_test(several_values_of_a_name_all_count),
      cmocka_unit_test(not_binds_before_and_before_or),
      cmocka_unit_test(knows_no_case_of_names_and_values),
      cmocka_unit_test(takes_quoted_values),
      cmocka_unit_test(says_where_and_what_was_expected),
      cmocka_unit_test(keeps_to_its_limits),
      cmocka_unit_test(writes_it_as_short_as_it_can_be),
      cmocka_unit_test(shows_its_terms),
      cmocka_unit_test(an_attribute_is_one_term),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
