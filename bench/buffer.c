// SPDX-License-Identifier: Apache-2.0
#include "bench/buffer.h"

#include <stdlib.h>
#include <string.h>

enum status buffer_reserve(struct buffer *b, size_t len) {
  if (len > BUFFER_MAX_LEN || b->len > BUFFER_MAX_LEN - len) {
    return STATUS_LIMIT;
  }
  if (b->len + len <= b->cap) {
    return STATUS_OK;
  }
  size_t cap = b->cap == 0 ? 1024 : b->cap;
  while (cap < b->len + len) {
    cap *= 2;
  }
  uint8_t *data = realloc(b->data, cap);
  if (data == NULL) {
    return STATUS_MEMORY;
  }
  b->data = data;
  b->cap = cap;
  return STATUS_OK;
}

enum status buffer_add(struct buffer *b, struct bytes in) {
  enum status st = buffer_reserve(b, in.len);
  if (st == STATUS_OK && in.len > 0) {
    memcpy(b->data + b->len, in.data, in.len);
    b->len += in.len;
  }
  return st;
}

void buffer_drop(struct buffer *b, size_t len) {
  CHECK(len <= b->len);
  b->len -= len;
  if (b->len > 0 && len > 0) {
    memmove(b->data, b->data + len, b->len);
  }
}

void buffer_cleanup(struct buffer *b) {
  free(b->data);
  *b = (struct buffer){0};
}
