// SPDX-License-Identifier: Apache-2.0
#include "ctl/members.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/certs.h"

#define KEY_1 "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
#define KEY_2 "MCowBQYDK2VuAyEA3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
#define EU "{\"name\": \"eu-1\", \"public_key\": \"" KEY_1 "\", \"attributes\": [\"region: EU\"]}"

static int teardown(void **state) {
  (void)state;
  test_remove_files();
  return 0;
}

static size_t admitted(struct sealing_recipient *out, const struct members *members,
                       const char *text) {
  struct region_policy policy;
  assert_int_equal(region_policy_parse(&policy, bytes_text(text), NULL), STATUS_OK);
  return members_admitted(out, members, &policy);
}

// The sample of the manual: the policies beside it choose as the page says.
static void reads_the_sample(void **state) {
  struct members members;
  struct errmsg err = {0};
  struct sealing_recipient out[3];
  (void)state;

  if (members_read(&members, MEMBERS_SAMPLE, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_int_equal(members.num, 3);
  assert_int_equal(admitted(out, &members, "region: EU"), 2);
  assert_string_equal(out[0].name, "eu-1");
  assert_string_equal(out[1].name, "eu-2");
  assert_int_equal(admitted(out, &members, "(region: EU) and (not country: FR)"), 1);
  assert_string_equal(out[0].name, "eu-1");
  assert_int_equal(admitted(out, &members, "not datacenter: \"paris 2\""), 0);
  assert_int_equal(admitted(out, &members, "datacenter: \"paris 2\""), 1);
  assert_true(members_have(&members, "Country"));
  assert_false(members_have(&members, "contry"));
  members_cleanup(&members);
}

static void assert_refused(const char *list, const char *sentence) {
  char text[1024];
  struct members members;
  struct errmsg err = {0};
  const int len = snprintf(text, sizeof text, "{\"members\": [%s]}", list);

  test_write_file("members.json", text, (size_t)len, 0644);
  assert_int_not_equal(members_read(&members, test_path("members.json"), &err), STATUS_OK);
  members_cleanup(&members);
  if (strstr(err.text, sentence) == NULL || strstr(err.text, "members.json:") == NULL) {
    fail_msg("%s: \"%s\" does not say \"%s\"", list, err.text, sentence);
  }
}

static void says_what_is_wrong(void **state) {
  (void)state;
  assert_refused("", "1 to 256");
  assert_refused("{\"name\": \"eu-1\", \"attributes\": [\"a: b\"]}", "public_key");
  assert_refused("{\"name\": \"e/u\", \"public_key\": \"" KEY_1 "\", \"attributes\": [\"a: b\"]}",
                 "members[0] (e/u): a name is letters");
  assert_refused("{\"name\": \"eu\", \"public_key\": \"AAAA\", \"attributes\": [\"a: b\"]}",
                 "members[0] (eu): public_key is not the base64 of an X25519 key");
  assert_refused("{\"name\": \"eu\", \"public_key\": \"" KEY_1
                 "\", \"attributes\": [\"a: b\", \"region EU\"]}",
                 "members[0] (eu): attributes[1]: column 8: expected ':'");
  assert_refused("{\"name\": \"eu\", \"public_key\": \"" KEY_1 "\", \"attributes\": []}",
                 "attributes");
  assert_refused(EU ", " EU, "members[1] (eu-1): another member has this name");
  assert_refused(EU ", {\"name\": \"eu-2\", \"public_key\": \"" KEY_1
                    "\", \"attributes\": [\"a: b\"]}",
                 "members[1] (eu-2): eu-1 has the same public key");
  assert_refused(EU ", {\"name\": \"eu-1\", \"public_key\": \"" KEY_2
                    "\", \"attributes\": [\"a: b\"]}",
                 "another member has this name");
  assert_refused("{\"name\": \"eu\", \"publick_key\": \"\", \"attributes\": []}",
                 "did you mean \"public_key\"");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_the_sample),
      cmocka_unit_test_teardown(says_what_is_wrong, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
