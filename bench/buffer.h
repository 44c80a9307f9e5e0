// SPDX-License-Identifier: Apache-2.0
// buffer: bytes that grow up to a limit; kept and used again by a connection's
// next life, so that a run allocates little.
#ifndef DEPUTY_BENCH_BUFFER_H_
#define DEPUTY_BENCH_BUFFER_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define BUFFER_MAX_LEN (1U << 20)

// All-zero is empty and may be cleaned.
struct buffer {
  uint8_t *data;
  size_t len;
  size_t cap;
};

// buffer_reserve makes room for `len` bytes behind what is there. STATUS_LIMIT
// (BUFFER_MAX_LEN), STATUS_MEMORY.
enum status buffer_reserve(struct buffer *b, size_t len);
enum status buffer_add(struct buffer *b, struct bytes in);
// buffer_drop takes `len` bytes off the front.
void buffer_drop(struct buffer *b, size_t len);
void buffer_cleanup(struct buffer *b);

#endif  // DEPUTY_BENCH_BUFFER_H_
