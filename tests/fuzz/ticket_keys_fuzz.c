// SPDX-License-Identifier: Apache-2.0
// Targets: ticket_keys_parse, ticket_keys_current. What parses has one to eight keys in
// rising order, of which one seals at any time.
#include <stdint.h>

#include "common/wire/ticket_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct ticket_keys keys;
  size_t line = 0;
  const char *why = NULL;
  int64_t next_s = 0;

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
