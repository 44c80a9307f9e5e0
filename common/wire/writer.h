// SPDX-License-Identifier: Apache-2.0
// writer: big-endian fields into the caller's buffer, for the encoders of this
// folder. CBB would do, but its older generation allocates even over a fixed
// buffer, and encoders run on the hot path. What does not fit is noted once
// and asked about once, at the end; nothing is written past `max`.
#ifndef DEPUTY_COMMON_WIRE_WRITER_H_
#define DEPUTY_COMMON_WIRE_WRITER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

struct writer {
  uint8_t *data;
  size_t max;
  size_t len;
  bool is_full;  // something did not fit; all after it is dropped
};

static inline struct writer writer_of(uint8_t *data, size_t max) {
  return (struct writer){.data = data, .max = max};
}

// writer_room makes room for `len` bytes, or returns NULL.
static inline uint8_t *writer_room(struct writer *w, size_t len) {
  uint8_t *room;
  if (w->is_full || len > w->max - w->len) {
    w->is_full = true;
    return NULL;
  }
  room = w->data + w->len;
  w->len += len;
  return room;
}

static inline void writer_bytes(struct writer *w, struct bytes run) {
  uint8_t *room = writer_room(w, run.len);
  if (room != NULL && run.len > 0) {
    memcpy(room, run.data, run.len);
  }
}

static inline void writer_fill(struct writer *w, uint8_t byte, size_t len) {
  uint8_t *room = writer_room(w, len);
  if (room != NULL) {
    memset(room, byte, len);
  }
}

// writer_uint writes the low `len` bytes of `value`.
static inline void writer_uint(struct writer *w, uint64_t value, size_t len) {
  uint8_t *room = writer_room(w, len);
  for (size_t i = 0; room != NULL && i < len; i++) {
    room[i] = (uint8_t)(value >> (8 * (len - 1 - i)));
  }
}

static inline void writer_u8(struct writer *w, uint8_t value) { writer_uint(w, value, 1); }
static inline void writer_u16(struct writer *w, uint16_t value) { writer_uint(w, value, 2); }
static inline void writer_u32(struct writer *w, uint32_t value) { writer_uint(w, value, 4); }

// writer_u16_at fills in a length that was left open at `at`, or notes that it
// does not fit 16 bits.
static inline void writer_u16_at(struct writer *w, size_t at, size_t value) {
  if (value > UINT16_MAX) {
    w->is_full = true;
  }
  if (!w->is_full) {
    w->data[at] = (uint8_t)(value >> 8);
    w->data[at + 1] = (uint8_t)value;
  }
}

// writer_finish tells how much there is: 0 and STATUS_LIMIT if not all fit.
static inline enum status writer_finish(const struct writer *w, size_t *out_len) {
  *out_len = w->is_full ? 0 : w->len;
  return w->is_full ? STATUS_LIMIT : STATUS_OK;
}

#endif  // DEPUTY_COMMON_WIRE_WRITER_H_
