// SPDX-License-Identifier: Apache-2.0
// address_table: how many connections each client address has, and how fast it opens
// new ones: an IPv4 address by itself, of IPv6 the first 64 bits, which is what one
// subscriber is given. Asked by admit.c, for the limits of the configuration.
//
// A table that remembers addresses could be filled by whoever has many. This one
// remembers none: it is a count-min sketch of fixed size. Each address has a cell in
// each of two rows, at places that a keyed hash chooses; it shares a cell with others,
// and the smaller of its two is the answer. So a count may be too large where addresses
// are very many, and never too small; nobody can choose whom he shares with, nothing is
// evicted, and nothing is allocated after the start.
//
// Threads: any. Cells are atomic; two workers that meet in one cell may let one more
// connection in than the rate allows, and never lose a count.
#ifndef DEPUTY_PROXY_CONNECTION_ADDRESS_TABLE_H_
#define DEPUTY_PROXY_CONNECTION_ADDRESS_TABLE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/status.h"

#define ADDRESS_TABLE_ROWS 2
#define ADDRESS_TABLE_MIN_CELLS 4096u
#define ADDRESS_TABLE_MAX_CELLS (1u << 20)

struct address_table;

// address_table_new makes a table that is exact, nearly, for `num_connections` at a
// time: two cells for each, in each row, of 12 bytes. STATUS_MEMORY.
enum status address_table_new(struct address_table **out, size_t num_connections);
void address_table_free(struct address_table *table);

// address_table_key is where the address is counted; 0: it has none (a UNIX socket),
// and no limit.
uint64_t address_table_key(const struct address_table *table, const struct sockaddr_storage *peer);

// address_table_take_turn counts a new connection; false: the address has opened
// `per_s` within the last second, and this one was not counted.
bool address_table_take_turn(struct address_table *table, uint64_t key, int64_t per_s,
                             int64_t now_us);

// address_table_enter counts a connection that is there from now on; false: there are
// `max` of this address, and it was not counted. address_table_leave: it has ended.
bool address_table_enter(struct address_table *table, uint64_t key, int64_t max);
void address_table_leave(struct address_table *table, uint64_t key);

#endif  // DEPUTY_PROXY_CONNECTION_ADDRESS_TABLE_H_
