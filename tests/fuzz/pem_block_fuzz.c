// SPDX-License-Identifier: Apache-2.0
// Targets: pem_next, pem_decode. A text that comes in two parts has the same blocks as
// one that comes whole, wherever it is cut (the first byte says where).
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/pem_block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_BLOCKS 256u

struct blocks {
  size_t num;
  struct bytes bodies[MAX_BLOCKS];
  enum status end;
};

static void read_all(struct blocks *out, struct bytes text) {
  struct pem_block block;
  out->num = 0;
  while (out->num < MAX_BLOCKS && (out->end = pem_next(&block, &text, true)) == STATUS_OK) {
    out->bodies[out->num++] = block.body;
  }
  CHECK(out->num == MAX_BLOCKS || out->end != STATUS_AGAIN);
}

// read_parts reads up to `cut` first, and the rest from where that ended.
static void read_parts(struct blocks *out, struct bytes text, size_t cut) {
  struct bytes part = bytes_of(text.data, cut);
  struct pem_block block;
  out->num = 0;
  while (out->num < MAX_BLOCKS && (out->end = pem_next(&block, &part, false)) == STATUS_OK) {
    out->bodies[out->num++] = block.body;
  }
  if (out->num == MAX_BLOCKS || (out->end != STATUS_NOT_FOUND && out->end != STATUS_AGAIN)) {
    return;
  }
  part = bytes_of(part.data, (size_t)(text.data + text.len - part.data));
  while (out->num < MAX_BLOCKS && (out->end = pem_next(&block, &part, true)) == STATUS_OK) {
    out->bodies[out->num++] = block.body;
  }
}

static void check_decode(struct bytes body) {
  size_t out_len = 0;
  uint8_t *out = malloc(body.len + 1);
  CHECK(out != NULL);
  if (pem_decode(out, body.len, &out_len, body) == STATUS_OK) {
    CHECK(out_len <= body.len / 4 * 3);
    CHECK(out_len == 0 || pem_decode(out, out_len - 1, &out_len, body) == STATUS_LIMIT);
  }
  free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static struct blocks whole;
  static struct blocks parts;
  if (len == 0) {
    return 0;
  }
  struct bytes text = bytes_of(data + 1, len - 1);
  read_all(&whole, text);
  for (size_t i = 0; i < whole.num; i++) {
    check_decode(whole.bodies[i]);
  }
  read_parts(&parts, text, (size_t)data[0] * text.len / 255);
  CHECK(whole.num == parts.num && whole.end == parts.end);
  for (size_t i = 0; i < whole.num; i++) {
    CHECK(whole.bodies[i].data == parts.bodies[i].data &&
          whole.bodies[i].len == parts.bodies[i].len);
  }
  return 0;
}
