// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/due.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 64u

void due_cleanup(struct due *due) {
  free(due->heap);
  free(due->places);
  *due = (struct due){0};
}

// more_room: by a half, as this is most of what a million of them cost.
static uint32_t more_room(uint32_t have, uint32_t need) {
  uint32_t more = have < FIRST_ROOM ? FIRST_ROOM : have + have / 2;
  return more < need ? need : more;
}

// make_room: for every item that there may be, also when all are in at once. What was in
// once can therefore always come back.
static enum status make_room(struct due *due, uint32_t item) {
  uint32_t room = 0;
  uint32_t *places = NULL;
  struct due_entry *heap = NULL;

  if (item < due->num_room) {
    return STATUS_OK;
  }
  if (item > DUE_MAX_ITEM) {
    return STATUS_LIMIT;
  }
  room = more_room(due->num_room, item + 1);
  places = realloc(due->places, (size_t)room * sizeof(*places));
  due->places = places != NULL ? places : due->places;
  heap = realloc(due->heap, (size_t)room * sizeof(*heap));
  due->heap = heap != NULL ? heap : due->heap;
  if (places == NULL || heap == NULL) {
    return STATUS_MEMORY;
  }
  memset(places + due->num_room, 0, (size_t)(room - due->num_room) * sizeof(*places));
  due->num_room = room;
  return STATUS_OK;
}

static void put(struct due *due, uint32_t at, struct due_entry entry) {
  due->heap[at] = entry;
  due->places[entry.item] = at + 1;
}

static void sift_up(struct due *due, uint32_t at, struct due_entry entry) {
  while (at > 0 && due->heap[(at - 1) / 2].at_s > entry.at_s) {
    put(due, at, due->heap[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  put(due, at, entry);
}

static void sift_down(struct due *due, uint32_t at, struct due_entry entry) {
  for (;;) {
    uint32_t child = at * 2 + 1;
    if (child >= due->num) {
      break;
    }
    if (child + 1 < due->num && due->heap[child + 1].at_s < due->heap[child].at_s) {
      child++;
    }
    if (due->heap[child].at_s >= entry.at_s) {
      break;
    }
    put(due, at, due->heap[child]);
    at = child;
  }
  put(due, at, entry);
}

static void settle(struct due *due, uint32_t at, struct due_entry entry) {
  if (at > 0 && due->heap[(at - 1) / 2].at_s > entry.at_s) {
    sift_up(due, at, entry);
  } else {
    sift_down(due, at, entry);
  }
}

enum status due_set(struct due *due, uint32_t item, uint32_t at_s) {
  const struct due_entry entry = {at_s, item};
  const enum status st = make_room(due, item);

  if (st != STATUS_OK) {
    return st;
  }
  if (due->places[item] != 0) {
    settle(due, due->places[item] - 1, entry);
  } else {
    sift_up(due, due->num++, entry);
  }
  return STATUS_OK;
}

void due_remove(struct due *due, uint32_t item) {
  uint32_t at = 0;

  if (item >= due->num_room || due->places[item] == 0) {
    return;
  }
  at = due->places[item] - 1;
  due->places[item] = 0;
  due->num--;
  if (at != due->num) {
    settle(due, at, due->heap[due->num]);
  }
}

bool due_first(const struct due *due, struct due_entry *out) {
  if (due->num == 0) {
    return false;
  }
  *out = due->heap[0];
  return true;
}
