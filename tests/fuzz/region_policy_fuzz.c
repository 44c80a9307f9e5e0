// SPDX-License-Identifier: Apache-2.0
// Targets: region_policy_parse, region_policy_format, region_policy_admits,
// region_attribute_parse. The first line is a policy, the others are a server's
// attributes. What parses is written, parses to the same, and decides the same; a
// server without attributes is admitted by nothing.
#include <stdint.h>
#include <string.h>

#include "common/wire/region_policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct bytes next_line(struct bytes *rest) {
  const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, '\n', rest->len);
  const struct bytes line =
      bytes_of(rest->data, end == NULL ? rest->len : (size_t)(end - rest->data));
  const size_t used = end == NULL ? line.len : line.len + 1;
  rest->data = used == 0 ? rest->data : rest->data + used;
  rest->len -= used;
  return line;
}

static size_t read_attributes(struct region_attribute *out, struct bytes rest) {
  size_t num = 0;
  while (rest.len > 0 && num < REGION_MAX_ATTRIBUTES) {
    struct errmsg err = {0};
    const struct bytes line = next_line(&rest);
    if (region_attribute_parse(&out[num], line, &err) == STATUS_OK) {
      CHECK(out[num].name[0] != '\0' && out[num].value[0] != '\0');
      num++;
    } else {
      CHECK(err.text[0] != '\0' && out[num].name[0] == '\0');
    }
  }
  return num;
}

static void check_the_same(const struct region_policy *a, const struct region_policy *b) {
  CHECK(a->num_nodes == b->num_nodes && a->num_terms == b->num_terms);
  for (size_t i = 0; i < a->num_nodes; i++) {
    CHECK(a->nodes[i].kind == b->nodes[i].kind);
  }
  CHECK(a->texts_len == b->texts_len && memcmp(a->texts, b->texts, a->texts_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static struct region_policy policy;
  static struct region_policy again;
  static struct region_attribute attributes[REGION_MAX_ATTRIBUTES];
  static char text[REGION_POLICY_MAX_TEXT_LEN];
  struct bytes rest = bytes_of(data, len);
  struct errmsg err = {0};
  const enum status st = region_policy_parse(&policy, next_line(&rest), &err);
  const size_t num = read_attributes(attributes, rest);

  CHECK(!region_policy_admits(&policy, NULL, 0));
  if (st != STATUS_OK) {
    CHECK(err.text[0] != '\0');
    CHECK(!region_policy_admits(&policy, attributes, num));
    return 0;
  }
  CHECK(region_policy_format(text, sizeof text, &policy) == STATUS_OK);
  if (strlen(text) > REGION_POLICY_MAX_LEN) {
    return 0;  // blanks were added
  }
  CHECK(region_policy_parse(&again, bytes_text(text), &err) == STATUS_OK);
  check_the_same(&policy, &again);
  CHECK(region_policy_admits(&policy, attributes, num) ==
        region_policy_admits(&again, attributes, num));
  for (size_t i = 0; i < policy.num_terms; i++) {
    const char *name = NULL;
    const char *value = NULL;
    region_policy_term(&name, &value, &policy, i);
    CHECK(strlen(name) <= REGION_MAX_NAME_LEN && strlen(value) <= REGION_MAX_VALUE_LEN);
  }
  return 0;
}
