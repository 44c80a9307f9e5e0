// SPDX-License-Identifier: Apache-2.0
// table: finds a pointer by a run of bytes; the index behind names, leaves and
// states. Filled on one thread; once filled, any number of threads may look at
// the same time, without a lock and without allocation. Keyed by SipHash with a
// random key, as the names that a proxy is given may be chosen by others.
#ifndef DEPUTY_CERTSTORE_TABLE_H_
#define DEPUTY_CERTSTORE_TABLE_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

struct table_entry {
  uint64_t hash;
  struct bytes key;
  void *value;  // NULL: the place is free
};

// All-zero is empty.
struct table {
  struct table_entry *entries;
  size_t num_places;  // a power of two, at least twice num
  size_t num;
  uint64_t seed[2];
};

// table_put files `value` (not NULL) under `key`, whose bytes it borrows for the
// table's life. STATUS_EXISTS: the key is taken, nothing changed; STATUS_MEMORY.
enum status table_put(struct table *table, struct bytes key, void *value);

// table_find returns what was filed under `key`, or NULL. Threads: any.
void *table_find(const struct table *table, struct bytes key);

// table_cleanup frees the index, not the values.
void table_cleanup(struct table *table);

#endif  // DEPUTY_CERTSTORE_TABLE_H_
