// SPDX-License-Identifier: Apache-2.0
// Target: chain_read. What is read has one form only: sealed anew after the same
// line it is the same but for the hash, and a right hash is found right.
#include <stdint.h>
#include <string.h>

#include "common/base/chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_again(const struct chain_seal *seal, struct bytes line) {
  static uint8_t out[1u << 16];
  static uint8_t again[1u << 16];
  // The line as it was before the seal.
  const uint8_t *comma = seal->covered.data + seal->covered.len;
  struct chain chain = {.seq = seal->seq - 1};
  size_t len = 0;

  while (*--comma != ',') {
  }
  len = (size_t)(comma - seal->covered.data);
  if (len + 1 + CHAIN_SEAL_MAX_LEN > sizeof out) {
    return;
  }
  memcpy(out, seal->covered.data, len);
  out[len] = '}';
  if (!chain_may_seal(bytes_of(out, len + 1))) {
    return;
  }
  len = chain_add(&chain, again, bytes_of(out, len + 1));
  CHECK(len == line.len);
  CHECK(memcmp(again, line.data, seal->covered.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct chain_seal seal;
  const uint8_t zeros[CHAIN_HASH_LEN] = {0};

  if (chain_read(&seal, bytes_of(data, len)) == STATUS_OK) {
    CHECK(seal.seq > 0 && seal.covered.len < len);
    (void)chain_follows(&seal, zeros);
    check_again(&seal, bytes_of(data, len));
  }
  return 0;
}
