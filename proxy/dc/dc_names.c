// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_names.h"

#include <stdlib.h>

#include "proxy/dc/heat.h"

#define MIN_ROOM 256u
#define MOST_LEAVES ((size_t)CERTSTORE_MAX_LEVELS * CERTSTORE_MAX_PER_LEVEL)

// Names are immutable but for this.
static _Atomic uint32_t *number_of(const struct cert_name *name) {
  return (_Atomic uint32_t *)&name->heat_number;
}

static struct dc_name *make(const struct cert_name *name) {
  struct dc_leaf *leaves[MOST_LEAVES];
  unsigned levels[MOST_LEAVES];
  struct dc_name *made = NULL;
  size_t num = 0;
  for (unsigned i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains && num < MOST_LEAVES; j++) {
      if (name->levels[i].chains[j]->supply != NULL) {
        leaves[num] = name->levels[i].chains[j]->supply;
        levels[num++] = i;
      }
    }
  }
  made = num == 0 ? NULL : calloc(1, sizeof(*made) + num * sizeof(made->leaves[0]));
  for (size_t i = 0; made != NULL && i < num; i++) {
    made->leaves[i].leaf = leaves[i];
    made->leaves[i].level = levels[i];
    made->num = i + 1;
  }
  return made;
}

static bool grow(struct dc_names *names) {
  const uint32_t room = names->room == 0 ? MIN_ROOM : names->room * 2;
  struct dc_name **items = NULL;
  uint32_t *unused = NULL;
  if (room > HEAT_NUM_NAMES) {
    return false;
  }
  items = realloc((void *)names->items, room * sizeof(struct dc_name *));
  names->items = items != NULL ? items : names->items;
  unused = realloc(names->unused, room * sizeof(*unused));
  names->unused = unused != NULL ? unused : names->unused;
  if (items == NULL || unused == NULL) {
    return false;
  }
  for (uint32_t i = room; i > names->room; i--) {
    items[i - 1] = NULL;
    if (i > 1) {
      unused[names->num_unused++] = i - 1;
    }
  }
  names->room = room;
  return true;
}

void dc_names_add(struct dc_names *names, const struct cert_name *name) {
  struct dc_name *made = make(name);
  uint32_t number = 0;
  if (made == NULL || (names->num_unused == 0 && !grow(names))) {
    free(made);
    return;
  }
  number = names->unused[--names->num_unused];
  names->items[number] = made;
  atomic_store_explicit(number_of(name), number, memory_order_relaxed);
}

void dc_names_remove(struct dc_names *names, const struct cert_name *name) {
  const uint32_t number = atomic_load_explicit(number_of(name), memory_order_relaxed);
  if (number != 0) {
    atomic_store_explicit(number_of(name), 0, memory_order_relaxed);
    free(names->items[number]);
    names->items[number] = NULL;
    names->unused[names->num_unused++] = number;
  }
}

const struct dc_name *dc_names_find(const struct dc_names *names, uint32_t number) {
  return number < names->room ? names->items[number] : NULL;
}

void dc_names_cleanup(struct dc_names *names) {
  for (uint32_t i = 0; i < names->room; i++) {
    free(names->items[i]);
  }
  free((void *)names->items);
  free(names->unused);
  *names = (struct dc_names){0};
}
