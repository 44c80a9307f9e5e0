// SPDX-License-Identifier: Apache-2.0
// Targets: ticket_keys_parse, ticket_keys_current, ticket_key_set_decode. What parses has one
// to eight keys in rising order, of which one seals at any time; a set that decodes encodes to
// the same bytes.
#include <stdint.h>
#include <string.h>

#include "common/wire/ticket_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_set(const uint8_t *data, size_t len) {
  struct ticket_key_set set;
  uint8_t again[TICKET_KEY_SET_MAX_LEN];

  if (ticket_key_set_decode(&set, bytes_of(data, len)) == STATUS_OK) {
    CHECK(set.num >= 1 && set.num <= TICKET_KEYS_MAX && set.age_ms >= 0);
    CHECK(ticket_key_set_encode(again, &set) == len && memcmp(again, data, len) == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct ticket_keys keys;
  size_t line = 0;
  const char *why = NULL;
  int64_t next_s = 0;

  check_set(data, len);
  if (ticket_keys_parse(&keys, bytes_of(data, len), &line, &why) != STATUS_OK) {
    CHECK(why != NULL);
    return 0;
  }
  CHECK(why == NULL && keys.num >= 1 && keys.num <= TICKET_KEYS_MAX);
  CHECK(ticket_keys_current(&keys, INT64_MIN, &next_s) == 0);
  for (size_t i = 0; i < keys.num; i++) {
    CHECK(i == 0 || keys.keys[i].from_s > keys.keys[i - 1].from_s);
    CHECK(ticket_keys_current(&keys, keys.keys[i].from_s, &next_s) == i);
    CHECK(next_s == (i + 1 < keys.num ? keys.keys[i + 1].from_s : INT64_MAX));
  }
  return 0;
}
