// SPDX-License-Identifier: Apache-2.0
// catalog: the chains of the store that some name has, as the manager knows them: how many
// names each has, what is asked about it, and whether its CA revoked it. Made anew from a
// walk over the store's names whenever they change; what stays keeps its place in the
// schedules. 24 bytes for each chain. No I/O. Threads: the loop's; a tally, any one.
#ifndef DEPUTY_CERTMANAGER_CATALOG_H_
#define DEPUTY_CERTMANAGER_CATALOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

// What a walk has found: each chain with the number of names that have it.
struct tally_entry {
  uint64_t chain;
  uint32_t num_names;
};
// All-zero is empty.
struct tally {
  struct tally_entry *entries;
  size_t num;
  size_t room;  // private
};
enum status tally_add(struct tally *tally, uint64_t chain);  // STATUS_MEMORY
// tally_finish sorts by chain and adds up: afterwards each chain is there once.
void tally_finish(struct tally *tally);
void tally_cleanup(struct tally *tally);

enum {
  CATALOG_LOOKED = 1,        // its leaf was read
  CATALOG_ASKED = 2,         // `item` is its place in staple_fetch
  CATALOG_LISTED = 4,        // it is in revocation_watch
  CATALOG_REVOKED_OCSP = 8,  // says its responder
  CATALOG_REVOKED_LIST = 16,
};
#define CATALOG_REVOKED (CATALOG_REVOKED_OCSP | CATALOG_REVOKED_LIST)

struct catalog_entry {
  uint64_t chain;
  uint32_t num_names;
  uint32_t item;
  uint32_t sighting;  // 1 + its place among those seen revoked (switcher.h); 0: none
  uint8_t flags;
};

// All-zero is empty.
struct catalog {
  struct catalog_entry *entries;  // by chain
  size_t num;
  size_t next_look;  // private
};

// catalog_merge makes the catalog that of the tally (finished). on_gone hears of each
// chain that is in it no more, before it goes. STATUS_MEMORY: all is as before.
enum status catalog_merge(struct catalog *catalog, const struct tally *tally,
                          void (*on_gone)(void *arg, const struct catalog_entry *entry), void *arg);
struct catalog_entry *catalog_find(const struct catalog *catalog, uint64_t chain);  // or NULL

// catalog_take_unlooked gives the next chains whose leaves were not read yet, in order,
// each once after a merge; returns how many.
size_t catalog_take_unlooked(struct catalog *catalog, uint64_t *out, size_t max);
void catalog_cleanup(struct catalog *catalog);

#endif  // DEPUTY_CERTMANAGER_CATALOG_H_
