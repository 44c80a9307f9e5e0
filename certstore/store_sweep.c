// SPDX-License-Identifier: Apache-2.0
// What no chain has any more: certificates of issuers, and CAs.
#include <stdlib.h>
#include <string.h>

#include "certstore/store_private.h"

static bool take_key(void *arg, struct bytes key, struct bytes value) {
  struct store_unused *set = arg;
  (void)value;
  if (key.len == 32 && set->num < set->room) {
    memcpy(set->keys[set->num++], key.data, 32);
  }
  return true;
}

// take_all fills a set with all keys of a table, which come in order.
static enum status take_all(struct store_unused *set, MDB_txn *txn, const struct store *store,
                            enum store_table table) {
  set->room = store_num(txn, store->tables[table]);
  set->keys = calloc(set->room + 1, sizeof(*set->keys));
  set->is_used = calloc(set->room + 1, sizeof(*set->is_used));
  if (set->keys == NULL || set->is_used == NULL) {
    return STATUS_MEMORY;
  }
  return store_walk(txn, store->tables[table], take_key, set);
}

static int compare(const void *a, const void *b) { return memcmp(a, b, 32); }

static void mark(struct store_unused *set, const uint8_t key[32]) {
  const uint8_t(*found)[32] = bsearch(key, set->keys, set->num, 32, compare);
  if (found != NULL) {
    set->is_used[found - (const uint8_t(*)[32])set->keys] = true;
  }
}

struct marking {
  struct store_unused *issuers;
  struct store_unused *cas;
  enum status st;
};

static bool mark_chain(void *arg, struct bytes key, struct bytes value) {
  struct marking *marking = arg;
  struct store_chain chain;
  (void)key;
  marking->st = store_chain_decode(&chain, value);
  if (marking->st != STATUS_OK) {
    return false;
  }
  for (size_t i = 0; i < chain.num_issuers; i++) {
    mark(marking->issuers, chain.issuers.data + 32 * i);
  }
  mark(marking->cas, chain.facts.ca_id);
  return true;
}

static void keep_unused(struct store_unused *set) {
  size_t num = 0;
  for (size_t i = 0; i < set->num; i++) {
    if (!set->is_used[i]) {
      memmove(set->keys[num++], set->keys[i], 32);
    }
  }
  set->num = num;
}

enum status store_find_unused(struct store_unused *out_issuers, struct store_unused *out_cas,
                              MDB_txn *txn, const struct store *store) {
  enum status st = STATUS_OK;
  struct marking marking = {.issuers = out_issuers, .cas = out_cas};
  TRY(take_all(out_issuers, txn, store, TABLE_ISSUERS));
  TRY(take_all(out_cas, txn, store, TABLE_CAS));
  TRY(store_walk(txn, store->tables[TABLE_CHAINS], mark_chain, &marking));
  TRY(marking.st);
  keep_unused(out_issuers);
  keep_unused(out_cas);

out:
  return st;
}

void store_unused_cleanup(struct store_unused *set) {
  free(set->keys);
  free(set->is_used);
  *set = (struct store_unused){0};
}
