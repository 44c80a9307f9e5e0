// SPDX-License-Identifier: Apache-2.0
// chain: binds the lines of an audit file to each other, so that one that is
// missing, changed or moved shows. The sink's thread seals each line; `deputyctl
// keyserver verify-audit` reads the seals again.
//
//   line as written:  {"time":...,"result":...,"seq":17,"chain":"HEX"}
//   HEX             = SHA-256(HEX of line 16, as 32 bytes || the text up to and
//                     with "seq":17, that is all before ,"chain":)
//
// The line before the first is 32 zero bytes. The hash has no key: who can write
// the file can make another chain that fits. What the chain proves, it proves
// against a head (number and hash of a line) that was noted elsewhere.
#ifndef DEPUTY_COMMON_BASE_CHAIN_H_
#define DEPUTY_COMMON_BASE_CHAIN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define CHAIN_HASH_LEN 32u
// What a seal adds to a line at most: ,"seq": 20 digits ,"chain":" 64 digits ".
#define CHAIN_SEAL_MAX_LEN 102u

// Up to where a chain has come: number and hash of its last line. All-zero: it has
// none yet.
struct chain {
  uint64_t seq;
  uint8_t hash[CHAIN_HASH_LEN];
};

// What a sealed line says of itself.
struct chain_seal {
  uint64_t seq;
  uint8_t hash[CHAIN_HASH_LEN];
  struct bytes covered;  // by the hash; borrowed from the line
};

// chain_may_seal says whether `line` is a JSON object with a member, as far as a
// seal needs it to be.
bool chain_may_seal(struct bytes line);

// chain_add writes `line` (chain_may_seal; without newline) with its seal to `out`,
// which has room for CHAIN_SEAL_MAX_LEN more bytes, and moves the chain on. It
// returns the length.
size_t chain_add(struct chain *chain, uint8_t *out, struct bytes line);

// chain_read finds the seal at the end of a line (without newline), and proves
// nothing. STATUS_FORMAT: there is none.
enum status chain_read(struct chain_seal *out, struct bytes line);

// chain_follows says whether the seal's hash is the right one after a line with
// the hash `previous`.
bool chain_follows(const struct chain_seal *seal, const uint8_t previous[CHAIN_HASH_LEN]);

#endif  // DEPUTY_COMMON_BASE_CHAIN_H_
