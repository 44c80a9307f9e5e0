// SPDX-License-Identifier: Apache-2.0
// Targets: keygen_request_decode, keygen_reply_decode and what encodes them. What
// decodes encodes back to the same bytes, and a good label makes no path.
#include <stdint.h>
#include <string.h>

#include "common/wire/keygen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_request(struct bytes in) {
  uint8_t out[KEYGEN_MAX_REQUEST_LEN];
  struct keygen_request request;
  size_t len = 0;

  if (keygen_request_decode(&request, in) != STATUS_OK) {
    return;
  }
  CHECK(keygen_key_kind(request.kind) != KEY_KIND_NONE);
  CHECK(memchr(request.label.data, '/', request.label.len) == NULL);
  CHECK(request.label.data[0] != '.' && request.label.data[0] != '-');
  CHECK(keygen_request_encode(out, sizeof out, &len, &request) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(out, len), in));
}

static void check_reply(struct bytes in) {
  static uint8_t out[FRAME_SKI_LEN + 2 + UINT16_MAX];
  struct keygen_reply reply;
  size_t len = 0;

  if (keygen_reply_decode(&reply, in) != STATUS_OK) {
    return;
  }
  CHECK(keygen_reply_encode(out, sizeof out, &len, &reply) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(out, len), in));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  check_request(bytes_of(data, len));
  check_reply(bytes_of(data, len));
  return 0;
}
