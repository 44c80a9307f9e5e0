// SPDX-License-Identifier: Apache-2.0
// secret: memory for key material. Wiped with OPENSSL_cleanse before it is
// freed, never copied by assignment, never printed.
#ifndef DEPUTY_COMMON_BASE_SECRET_H_
#define DEPUTY_COMMON_BASE_SECRET_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

// All-zero is empty and may be wiped.
struct secret {
  uint8_t *data;
  size_t len;
};

// secret_alloc makes room for `len` zero bytes. STATUS_MEMORY.
enum status secret_alloc(struct secret *out, size_t len);

// secret_read_file reads a whole file of at most `max` bytes through one
// descriptor, with no stdio buffer left behind:
//   STATUS_SYSTEM   it cannot be opened or read
//   STATUS_LIMIT    it is longer than max
//   STATUS_REFUSED  it is not a regular file, or its mode lets group or others
//                   read it (only when `must_be_private`)
enum status secret_read_file(struct secret *out, const char *path, size_t max, bool must_be_private,
                             struct errmsg *err);

// secret_wipe cleanses, frees, and leaves all-zero.
void secret_wipe(struct secret *s);

#endif  // DEPUTY_COMMON_BASE_SECRET_H_
