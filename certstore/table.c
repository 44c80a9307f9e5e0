// SPDX-License-Identifier: Apache-2.0
#include "certstore/table.h"

#include <openssl/rand.h>
#include <openssl/siphash.h>
#include <stdlib.h>

#define TABLE_FIRST_NUM_PLACES 64u

static uint64_t hash_of(const struct table *table, struct bytes key) {
  return SIPHASH_24(table->seed, key.data, key.len);
}

// find_place returns where `key` is, or the free place where it would go. Places
// are never more than half taken, so the walk ends soon.
static struct table_entry *find_place(const struct table *table, struct bytes key, uint64_t hash) {
  size_t mask = table->num_places - 1;
  size_t i = (size_t)hash & mask;
  while (table->entries[i].value != NULL) {
    if (table->entries[i].hash == hash && bytes_equal(table->entries[i].key, key)) {
      break;
    }
    i = (i + 1) & mask;
  }
  return &table->entries[i];
}

static enum status grow(struct table *table) {
  struct table bigger = *table;
  if (table->num_places == 0) {
    bigger.num_places = TABLE_FIRST_NUM_PLACES;
    (void)RAND_bytes((uint8_t *)bigger.seed, sizeof(bigger.seed));  // cannot fail in BoringSSL
  } else {
    if (table->num_places > SIZE_MAX / 2) {
      return STATUS_LIMIT;
    }
    bigger.num_places = table->num_places * 2;
  }
  bigger.entries = calloc(bigger.num_places, sizeof(*bigger.entries));
  if (bigger.entries == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < table->num_places; i++) {
    const struct table_entry *entry = &table->entries[i];
    if (entry->value != NULL) {
      *find_place(&bigger, entry->key, entry->hash) = *entry;
    }
  }
  free(table->entries);
  *table = bigger;
  return STATUS_OK;
}

enum status table_put(struct table *table, struct bytes key, void *value) {
  CHECK(value != NULL);
  if (table->num >= table->num_places / 2) {
    enum status st = grow(table);
    if (st != STATUS_OK) {
      return st;
    }
  }
  uint64_t hash = hash_of(table, key);
  struct table_entry *place = find_place(table, key, hash);
  if (place->value != NULL) {
    return STATUS_EXISTS;
  }
  *place = (struct table_entry){hash, key, value};
  table->num++;
  return STATUS_OK;
}

void *table_find(const struct table *table, struct bytes key) {
  if (table->num_places == 0) {
    return NULL;
  }
  return find_place(table, key, hash_of(table, key))->value;
}

void table_cleanup(struct table *table) {
  free(table->entries);
  *table = (struct table){0};
}
