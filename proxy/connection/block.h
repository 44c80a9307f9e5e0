// SPDX-License-Identifier: Apache-2.0
// block: memory that a worker lends to its connections and gets back. Objects of
// one size stand in a free list of their worker (last returned, first lent: it
// is still in the cache), so that the hot path neither allocates nor locks.
// Blocks hold bytes in flight only: an idle connection has none.
//
// Threads: a pool belongs to one worker.
#ifndef DEPUTY_PROXY_CONNECTION_BLOCK_H_
#define DEPUTY_PROXY_CONNECTION_BLOCK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// --- pools of objects -----------------------------------------------------------
// All-zero but for size and max_free is an empty pool.
struct pool {
  size_t size;      // bytes of one object
  size_t max_free;  // more than this go back to malloc
  void *free_list;
  size_t num_free;
  size_t num_lent;
};

// pool_take lends an object with undefined content. NULL: no memory.
void *pool_take(struct pool *pool);
void pool_give(struct pool *pool, void *object);  // NULL allowed
void pool_cleanup(struct pool *pool);             // nothing may be lent

// --- blocks of bytes --------------------------------------------------------------
// Room for four full TLS records with their headers and tags, so that one system
// call moves 64 KiB of plaintext in either direction.
#define RECORD_MAX_LEN 16384u    // plaintext of a record, RFC 8446, section 5.1
#define RECORD_MAX_OVERHEAD 64u  // header, nonce, type, tag: more than any AEAD's
#define BLOCK_LEN ((size_t)4 * (RECORD_MAX_LEN + RECORD_MAX_OVERHEAD))

struct block {
  uint32_t start;  // the bytes are data[start] .. data[end - 1]
  uint32_t end;
  uint8_t data[BLOCK_LEN];
};

static inline size_t block_len(const struct block *block) {
  return block == NULL ? 0 : block->end - block->start;
}
static inline size_t block_room(const struct block *block) { return BLOCK_LEN - block->end; }

static inline uint8_t *block_bytes(struct block *block) { return block->data + block->start; }
static inline uint8_t *block_free(struct block *block) { return block->data + block->end; }

// block_use takes `len` bytes off the front; an empty block starts again.
static inline void block_use(struct block *block, size_t len) {
  block->start += (uint32_t)len;
  if (block->start == block->end) {
    block->start = 0;
    block->end = 0;
  }
}
static inline void block_add(struct block *block, size_t len) { block->end += (uint32_t)len; }

// block_borrow makes sure that *block is there. False: no memory.
static inline bool block_borrow(struct block **block, struct pool *pool) {
  if (*block == NULL) {
    *block = pool_take(pool);
    if (*block == NULL) {
      return false;
    }
    (*block)->start = 0;
    (*block)->end = 0;
  }
  return true;
}

// block_return gives *block back if it is empty.
static inline void block_return(struct block **block, struct pool *pool) {
  if (*block != NULL && block_len(*block) == 0) {
    pool_give(pool, *block);
    *block = NULL;
  }
}

#endif  // DEPUTY_PROXY_CONNECTION_BLOCK_H_
