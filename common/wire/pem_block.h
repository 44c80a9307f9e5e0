// SPDX-License-Identifier: Apache-2.0
// pem_block: the blocks of a PEM text (RFC 7468), one after the other, as they come
// in a window over a file: for imports of millions. Nothing is copied; private keys
// are told apart and never decoded.
#ifndef DEPUTY_COMMON_WIRE_PEM_BLOCK_H_
#define DEPUTY_COMMON_WIRE_PEM_BLOCK_H_

#include <stdbool.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define PEM_BLOCK_MAX_LEN (128u << 10)  // bytes of text of one block

enum pem_kind { PEM_CERTIFICATE, PEM_PRIVATE_KEY, PEM_OTHER };

struct pem_block {
  enum pem_kind kind;
  struct bytes body;  // between its two lines
};

// pem_next finds the next block in *text and moves *text past it; what is between
// blocks is passed over. `is_all`: nothing follows *text.
//   STATUS_NOT_FOUND  no block any more; *text is then empty
//   STATUS_AGAIN      a block begins at *text whose end is not there yet (never if
//                     is_all)
//   STATUS_FORMAT     it has no end, or its two lines do not fit each other
//   STATUS_LIMIT      it is longer than PEM_BLOCK_MAX_LEN
enum status pem_next(struct pem_block *out, struct bytes *text, bool is_all);

// pem_decode writes what a body stands for. STATUS_FORMAT: not base64;
// STATUS_LIMIT: more than max.
enum status pem_decode(uint8_t *out, size_t max, size_t *out_len, struct bytes body);

#endif  // DEPUTY_COMMON_WIRE_PEM_BLOCK_H_
