// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/address_table.h"

#include <netinet/in.h>
#include <openssl/rand.h>
#include <openssl/siphash.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US INT64_C(1000000)
#define SUBSCRIBER_LEN 8  // of an IPv6 address: a /64

struct address_table {
  uint64_t secret[2];
  size_t num_cells;  // of a row; a power of two
  _Atomic uint32_t *open[ADDRESS_TABLE_ROWS];
  // When the address has used up what it may open (GCRA's theoretical arrival time).
  _Atomic int64_t *used_up_us[ADDRESS_TABLE_ROWS];
};

enum status address_table_new(struct address_table **out, size_t num_connections) {
  struct address_table *table = calloc(1, sizeof(*table));
  size_t num = ADDRESS_TABLE_MIN_CELLS;

  *out = NULL;
  if (table == NULL) {
    return STATUS_MEMORY;
  }
  while (num < ADDRESS_TABLE_MAX_CELLS && num / 2 < num_connections) {
    num *= 2;
  }
  table->num_cells = num;
  RAND_bytes((uint8_t *)table->secret, sizeof(table->secret));
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    // Pages that no limit ever touches are never there.
    table->open[row] = calloc(num, sizeof(*table->open[row]));
    table->used_up_us[row] = calloc(num, sizeof(*table->used_up_us[row]));
    if (table->open[row] == NULL || table->used_up_us[row] == NULL) {
      address_table_free(table);
      return STATUS_MEMORY;
    }
  }
  *out = table;
  return STATUS_OK;
}

void address_table_free(struct address_table *table) {
  if (table == NULL) {
    return;
  }
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    free(table->open[row]);
    free(table->used_up_us[row]);
  }
  free(table);
}

uint64_t address_table_key(const struct address_table *table, const struct sockaddr_storage *peer) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};  // ::ffff:192.0.2.1
  const uint8_t *bytes = NULL;
  size_t len = sizeof(struct in_addr);
  uint64_t key = 0;

  if (peer->ss_family == AF_INET) {
    bytes = (const uint8_t *)&((const struct sockaddr_in *)peer)->sin_addr;
  } else if (peer->ss_family == AF_INET6) {
    bytes = ((const struct sockaddr_in6 *)peer)->sin6_addr.s6_addr;
    if (memcmp(bytes, mapped, sizeof(mapped)) == 0) {
      bytes += sizeof(mapped);
    } else {
      len = SUBSCRIBER_LEN;
    }
  } else {
    return 0;
  }
  key = SIPHASH_24(table->secret, bytes, len);
  return key == 0 ? 1 : key;
}

// The halves of the key are as good as two hashes.
static size_t cell_of(const struct address_table *table, uint64_t key, size_t row) {
  return (size_t)(key >> (32 * row)) & (table->num_cells - 1);
}

static void raise_to(_Atomic int64_t *cell, int64_t value) {
  int64_t seen = atomic_load_explicit(cell, memory_order_relaxed);
  while (seen < value && !atomic_compare_exchange_weak_explicit(
                             cell, &seen, value, memory_order_relaxed, memory_order_relaxed)) {
  }
}

bool address_table_take_turn(struct address_table *table, uint64_t key, int64_t per_s,
                             int64_t now_us) {
  const int64_t each_us = per_s < SECOND_US ? SECOND_US / per_s : 1;
  int64_t used_up_us = INT64_MAX;

  if (key == 0) {
    return true;
  }
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    int64_t seen_us = atomic_load_explicit(&table->used_up_us[row][cell_of(table, key, row)],
                                           memory_order_relaxed);
    used_up_us = seen_us < used_up_us ? seen_us : used_up_us;
  }
  used_up_us = used_up_us > now_us ? used_up_us : now_us;
  // A quiet address may open all of a second's worth at once.
  if (used_up_us + each_us > now_us + SECOND_US) {
    return false;
  }
  // Only as far as this address needs it: what shares a cell is not pushed on.
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    raise_to(&table->used_up_us[row][cell_of(table, key, row)], used_up_us + each_us);
  }
  return true;
}

bool address_table_enter(struct address_table *table, uint64_t key, int64_t max) {
  uint32_t num = UINT32_MAX;
  if (key == 0) {
    return true;
  }
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    uint32_t before = atomic_fetch_add_explicit(&table->open[row][cell_of(table, key, row)], 1,
                                                memory_order_relaxed);
    num = before < num ? before : num;
  }
  if ((int64_t)num < max) {
    return true;
  }
  address_table_leave(table, key);
  return false;
}

void address_table_leave(struct address_table *table, uint64_t key) {
  if (key == 0) {
    return;
  }
  for (size_t row = 0; row < ADDRESS_TABLE_ROWS; row++) {
    (void)atomic_fetch_sub_explicit(&table->open[row][cell_of(table, key, row)], 1,
                                    memory_order_relaxed);
  }
}
