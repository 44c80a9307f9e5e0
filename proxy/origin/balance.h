// SPDX-License-Identifier: Apache-2.0
// balance: which endpoint of a pool is next. No clock, no memory of its own beyond
// the set's cursor, no system call. Threads: any, for one set at a time.
#ifndef DEPUTY_PROXY_ORIGIN_BALANCE_H_
#define DEPUTY_PROXY_ORIGIN_BALANCE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/origin/origin.h"

// balance_choose gives an endpoint that is in service and whose id is not among
// `tried`, or NULL when there is none; of the set's reserve when there is none in itself.
// The only endpoint of all is given although connections to it failed: there is nothing
// to be gained by waiting. `client` is the hash of the client's address, for
// BALANCE_HASH_CLIENT.
struct endpoint *balance_choose(struct origin_set *set, enum balance balance, uint64_t client,
                                const uint32_t *tried, size_t num_tried);

// balance_is_full: is there one that is in service, but has as many connections as it may?
bool balance_is_full(const struct origin_set *set);

// balance_fill computes what a set needs besides endpoints and weights.
void balance_fill(struct origin_set *set);

// balance_hash mixes bytes; the same everywhere and always.
uint64_t balance_hash(const void *data, size_t len);

#endif  // DEPUTY_PROXY_ORIGIN_BALANCE_H_
