// SPDX-License-Identifier: Apache-2.0
// Pages of a store that look-ups have touched stay mapped, with their neighbours (the
// kernel maps sixteen at a time where it has them), and count as the process's memory
// although they are the page cache's: a million names looked up once would look like
// gigabytes.
#include <string.h>
#include <sys/mman.h>

#include "certstore/store_private.h"

// Of LMDB's file: a page begins with its number, page 0 is a meta page.
#define PAGE_HEADER_LEN 16u
#define META_MAGIC 0xBEEFC0DEu

// map_begin finds where the chains are mapped (LMDB does not tell): `inside` is in the page
// with the number that it says. NULL: what is there is not a store's first page.
static uint8_t *map_begin(const uint8_t *inside, size_t page_len) {
  const uint8_t *page = inside - (uintptr_t)inside % page_len;
  uint64_t number = 0;
  uint32_t magic = 0;
  memcpy(&number, page, sizeof(number));
  if (number > (uintptr_t)page / page_len) {
    return NULL;
  }
  const uint8_t *begin = page - number * page_len;
  memcpy(&magic, begin + PAGE_HEADER_LEN, sizeof(magic));
  return magic == META_MAGIC ? (uint8_t *)(uintptr_t)begin : NULL;
}

void store_release_pages(const struct store_reader *reader) {
  const struct store *store = reader->store;
  MDB_envinfo info;
  MDB_stat stat;
  struct bytes record;
  CHECK(!reader->is_parked);
  if (mdb_env_info(store->chains, &info) != 0 || mdb_env_stat(store->chains, &stat) != 0 ||
      store_get(reader->chains, store->tables[TABLE_META], bytes_text(STORE_FORMAT_KEY), &record) !=
          STATUS_OK) {
    return;
  }
  uint8_t *begin = map_begin(record.data, stat.ms_psize);
  if (begin != NULL) {
    // Not ours to lose: a shared mapping of the file is filled again from the page cache.
    (void)madvise(begin, info.me_mapsize, MADV_DONTNEED);
  }
}
