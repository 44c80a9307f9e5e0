// SPDX-License-Identifier: Apache-2.0
// Targets: the decoders and encoders of store_record. The first byte says which; what
// decodes is written to the same bytes.
#include <stdint.h>
#include <stdlib.h>

#include "common/wire/store_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint8_t again[STORE_CHAIN_RECORD_MAX_LEN];

#define ROUND_TRIP(type, in)                                                          \
  do {                                                                                \
    struct type value;                                                                \
    size_t again_len = 0;                                                             \
    if (type##_decode(&value, in) == STATUS_OK) {                                     \
      CHECK(type##_encode(again, sizeof(again), &again_len, &value) == STATUS_OK);    \
      CHECK(bytes_equal(bytes_of(again, again_len), in));                             \
      CHECK(type##_encode(again, again_len - 1, &again_len, &value) == STATUS_LIMIT); \
    }                                                                                 \
  } while (0)

static void check_name(struct bytes in) {
  struct store_name name;
  ROUND_TRIP(store_name, in);
  if (store_name_decode(&name, in) == STATUS_OK) {
    CHECK(name.num_slots > 0 && name.num_slots <= STORE_MAX_SLOTS);
    CHECK(in.len <= STORE_NAME_RECORD_MAX_LEN);
  }
}

static void check_state(struct bytes in) {
  struct store_words words;
  ROUND_TRIP(store_state, in);
  (void)!store_words_decode(&words, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  if (len == 0) {
    return 0;
  }
  struct bytes in = bytes_of(data + 1, len - 1);
  switch (data[0] % 7) {
    case 0:
      check_name(in);
      break;
    case 1:
      ROUND_TRIP(store_chain, in);
      break;
    case 2:
      ROUND_TRIP(store_staple, in);
      break;
    case 3:
      check_state(in);
      break;
    case 4:
      ROUND_TRIP(store_change, in);
      break;
    case 5:
      ROUND_TRIP(store_ca, in);
      break;
    default:
      ROUND_TRIP(store_revoked, in);
      break;
  }
  return 0;
}
