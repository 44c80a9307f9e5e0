// SPDX-License-Identifier: Apache-2.0
// bytes: a borrowed run of bytes, and the texts it can become. Parsing is done
// with BoringSSL's CBS and CBB; nothing here cuts structures by hand.
#ifndef DEPUTY_COMMON_BASE_BYTES_H_
#define DEPUTY_COMMON_BASE_BYTES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

// Borrows; who owns the memory is said where one is handed out.
struct bytes {
  const uint8_t *data;
  size_t len;
};

static inline struct bytes bytes_of(const void *data, size_t len) {
  return (struct bytes){(const uint8_t *)data, len};
}

// bytes_text is the bytes of a C string without its terminator.
struct bytes bytes_text(const char *text);

// bytes_equal compares public values (not constant time; for secrets use
// CRYPTO_memcmp).
bool bytes_equal(struct bytes a, struct bytes b);

// bytes_to_hex writes 2 * len lower-case digits and a terminator; `out` holds
// at least 2 * in.len + 1 bytes. Returns out.
char *bytes_to_hex(char *out, struct bytes in);

// bytes_from_hex decodes exactly `len` bytes from a text of 2 * len digits.
// STATUS_FORMAT otherwise, and `out` is undefined.
enum status bytes_from_hex(uint8_t *out, size_t len, const char *text);

// bytes_to_base64 returns new, terminated standard padded base64, or NULL.
char *bytes_to_base64(struct bytes in);

// bytes_from_base64 decodes standard padded base64 of at most `max` decoded
// bytes into new memory (free). STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status bytes_from_base64(uint8_t **out, size_t *out_len, struct bytes text, size_t max);

// bytes_copy returns new memory with a copy, or NULL. An empty run gives a
// non-NULL pointer.
uint8_t *bytes_copy(struct bytes in);

#endif  // DEPUTY_COMMON_BASE_BYTES_H_
