// SPDX-License-Identifier: Apache-2.0
// due: which of very many things is due next. A heap of 32-bit numbers by 32-bit seconds:
// 12 bytes for each, no pointer, no timer, O(log n) to set and to take. Threads: one.
#ifndef DEPUTY_COMMON_REVOCATION_DUE_H_
#define DEPUTY_COMMON_REVOCATION_DUE_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

#define DUE_MAX_ITEM 0x7fffffffu

struct due_entry {
  uint32_t at_s;
  uint32_t item;
};

// All-zero is empty.
struct due {
  struct due_entry *heap;  // private, as are the rest
  uint32_t *places;        // of each item in the heap, plus 1; 0: not in it
  uint32_t num;
  uint32_t num_room;
};

void due_cleanup(struct due *due);

// due_set says when `item` (a small number: an index of the caller's) is due, instead of
// what was said before. STATUS_MEMORY, STATUS_LIMIT; neither for one that was in before.
enum status due_set(struct due *due, uint32_t item, uint32_t at_s);
void due_remove(struct due *due, uint32_t item);  // if it is in

// due_first shows the next one without taking it. False: there is none.
bool due_first(const struct due *due, struct due_entry *out);

#endif  // DEPUTY_COMMON_REVOCATION_DUE_H_
