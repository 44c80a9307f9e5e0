// SPDX-License-Identifier: Apache-2.0
#include "certmanager/catalog.h"

#include <stdlib.h>

#define FIRST_ROOM 256u

enum status tally_add(struct tally *tally, uint64_t chain) {
  if (tally->num == tally->room) {
    const size_t room = tally->room == 0 ? FIRST_ROOM : tally->room * 2;
    struct tally_entry *entries = reallocarray(tally->entries, room, sizeof(*entries));
    if (entries == NULL) {
      return STATUS_MEMORY;
    }
    tally->entries = entries;
    tally->room = room;
  }
  tally->entries[tally->num++] = (struct tally_entry){.chain = chain, .num_names = 1};
  return STATUS_OK;
}

static int compare(const void *a, const void *b) {
  const struct tally_entry *left = a;
  const struct tally_entry *right = b;
  return left->chain < right->chain ? -1 : left->chain > right->chain ? 1 : 0;
}

void tally_finish(struct tally *tally) {
  size_t kept = 0;
  if (tally->num == 0) {
    return;
  }
  qsort(tally->entries, tally->num, sizeof(*tally->entries), compare);
  for (size_t i = 1; i < tally->num; i++) {
    struct tally_entry *last = &tally->entries[kept];
    if (tally->entries[i].chain != last->chain) {
      tally->entries[++kept] = tally->entries[i];
    } else if (last->num_names < UINT32_MAX) {
      last->num_names += tally->entries[i].num_names;
    }
  }
  tally->num = kept + 1;
}

void tally_cleanup(struct tally *tally) {
  free(tally->entries);
  *tally = (struct tally){0};
}

enum status catalog_merge(struct catalog *catalog, const struct tally *tally,
                          void (*on_gone)(void *arg, const struct catalog_entry *entry),
                          void *arg) {
  struct catalog_entry *entries = NULL;
  size_t at = 0;

  if (tally->num > 0) {
    entries = calloc(tally->num, sizeof(*entries));
    if (entries == NULL) {
      return STATUS_MEMORY;
    }
  }
  for (size_t i = 0; i < tally->num; i++) {
    for (; at < catalog->num && catalog->entries[at].chain < tally->entries[i].chain; at++) {
      on_gone(arg, &catalog->entries[at]);
    }
    if (at < catalog->num && catalog->entries[at].chain == tally->entries[i].chain) {
      entries[i] = catalog->entries[at++];
    }
    entries[i].chain = tally->entries[i].chain;
    entries[i].num_names = tally->entries[i].num_names;
  }
  for (; at < catalog->num; at++) {
    on_gone(arg, &catalog->entries[at]);
  }
  free(catalog->entries);
  *catalog = (struct catalog){.entries = entries, .num = tally->num};
  return STATUS_OK;
}

struct catalog_entry *catalog_find(const struct catalog *catalog, uint64_t chain) {
  size_t low = 0;
  size_t high = catalog->num;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (catalog->entries[middle].chain < chain) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < catalog->num && catalog->entries[low].chain == chain ? &catalog->entries[low] : NULL;
}

size_t catalog_take_unlooked(struct catalog *catalog, uint64_t *out, size_t max) {
  size_t num = 0;
  for (; catalog->next_look < catalog->num && num < max; catalog->next_look++) {
    const struct catalog_entry *entry = &catalog->entries[catalog->next_look];
    if ((entry->flags & CATALOG_LOOKED) == 0) {
      out[num++] = entry->chain;
    }
  }
  return num;
}

void catalog_cleanup(struct catalog *catalog) {
  free(catalog->entries);
  *catalog = (struct catalog){0};
}
