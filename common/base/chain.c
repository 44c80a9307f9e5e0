// SPDX-License-Identifier: Apache-2.0
#include "common/base/chain.h"

#include <openssl/sha.h>
#include <string.h>

#define MAX_DIGITS 20u  // of a number of 64 bits

static const char seq_key[] = ",\"seq\":";
static const char chain_key[] = ",\"chain\":\"";
static const char end[] = "\"}";

#define SEQ_KEY_LEN (sizeof seq_key - 1)
#define CHAIN_KEY_LEN (sizeof chain_key - 1)
#define END_LEN (sizeof end - 1)
#define SEAL_LEN (CHAIN_KEY_LEN + 2 * (size_t)CHAIN_HASH_LEN + END_LEN)  // behind the number

_Static_assert(CHAIN_SEAL_MAX_LEN >= SEQ_KEY_LEN + MAX_DIGITS + SEAL_LEN - 1,
               "a seal takes the place of the closing brace");

static void hash_line(uint8_t out[CHAIN_HASH_LEN], const uint8_t previous[CHAIN_HASH_LEN],
                      struct bytes covered) {
  SHA256_CTX ctx;
  SHA256_Init(&ctx);
  SHA256_Update(&ctx, previous, CHAIN_HASH_LEN);
  SHA256_Update(&ctx, covered.data, covered.len);
  SHA256_Final(out, &ctx);
}

bool chain_may_seal(struct bytes line) {
  return line.len > 2 && line.data[0] == '{' && line.data[line.len - 1] == '}';
}

static size_t put_number(uint8_t *out, uint64_t number) {
  uint8_t digits[MAX_DIGITS];
  size_t at = sizeof digits;

  do {
    digits[--at] = (uint8_t)('0' + number % 10);
    number /= 10;
  } while (number != 0);
  memcpy(out, digits + at, sizeof digits - at);
  return sizeof digits - at;
}

size_t chain_add(struct chain *chain, uint8_t *out, struct bytes line) {
  char hex[2 * CHAIN_HASH_LEN + 1];
  size_t len = line.len - 1;  // without the brace

  memcpy(out, line.data, len);
  memcpy(out + len, seq_key, SEQ_KEY_LEN);
  len += SEQ_KEY_LEN;
  chain->seq++;
  len += put_number(out + len, chain->seq);
  hash_line(chain->hash, chain->hash, bytes_of(out, len));
  memcpy(out + len, chain_key, CHAIN_KEY_LEN);
  len += CHAIN_KEY_LEN;
  bytes_to_hex(hex, bytes_of(chain->hash, CHAIN_HASH_LEN));
  memcpy(out + len, hex, sizeof hex - 1);
  len += sizeof hex - 1;
  memcpy(out + len, end, END_LEN);
  return len + END_LEN;
}

// read_number reads the decimal number, without leading zeros and behind seq_key,
// that ends `text`.
static enum status read_number(uint64_t *out, struct bytes text) {
  size_t at = text.len;
  uint64_t number = 0;

  while (at > 0 && text.data[at - 1] >= '0' && text.data[at - 1] <= '9') {
    at--;
  }
  if (text.len - at == 0 || text.len - at > MAX_DIGITS || text.data[at] == '0' ||
      at < SEQ_KEY_LEN || memcmp(text.data + at - SEQ_KEY_LEN, seq_key, SEQ_KEY_LEN) != 0) {
    return STATUS_FORMAT;
  }
  for (; at < text.len; at++) {
    const uint64_t digit = (uint64_t)(text.data[at] - '0');
    if (number > (UINT64_MAX - digit) / 10) {
      return STATUS_FORMAT;
    }
    number = 10 * number + digit;
  }
  *out = number;
  return STATUS_OK;
}

enum status chain_read(struct chain_seal *out, struct bytes line) {
  char hex[2 * CHAIN_HASH_LEN + 1];
  char again[2 * CHAIN_HASH_LEN + 1];
  const uint8_t *seal = NULL;
  enum status st = STATUS_OK;

  *out = (struct chain_seal){0};
  if (line.len <= SEAL_LEN || line.data[0] != '{') {
    return STATUS_FORMAT;
  }
  seal = line.data + line.len - SEAL_LEN;
  if (memcmp(seal, chain_key, CHAIN_KEY_LEN) != 0 ||
      memcmp(seal + SEAL_LEN - END_LEN, end, END_LEN) != 0) {
    return STATUS_FORMAT;
  }
  out->covered = bytes_of(line.data, line.len - SEAL_LEN);
  memcpy(hex, seal + CHAIN_KEY_LEN, sizeof hex - 1);
  hex[sizeof hex - 1] = '\0';
  TRY(bytes_from_hex(out->hash, sizeof out->hash, hex));
  bytes_to_hex(again, bytes_of(out->hash, sizeof out->hash));
  if (memcmp(hex, again, sizeof hex) != 0) {
    TRY(STATUS_FORMAT);  // capitals: not written by us
  }
  TRY(read_number(&out->seq, out->covered));

out:
  return st == STATUS_OK ? STATUS_OK : STATUS_FORMAT;
}

bool chain_follows(const struct chain_seal *seal, const uint8_t previous[CHAIN_HASH_LEN]) {
  uint8_t hash[CHAIN_HASH_LEN];

  hash_line(hash, previous, seal->covered);
  return memcmp(hash, seal->hash, sizeof hash) == 0;
}
