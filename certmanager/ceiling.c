// SPDX-License-Identifier: Apache-2.0
#include "certmanager/ceiling.h"

#define NUM_SLOTS (CEILING_WINDOW_S + 1)

uint64_t ceiling_used(const struct ceiling *ceiling, int64_t now_s) {
  uint64_t used = 0;
  for (unsigned i = 0; i < NUM_SLOTS; i++) {
    // A second counts until it is wholly past the window: 61 slots for 60 seconds.
    if (ceiling->taken[i] > 0 && ceiling->at_s[i] >= now_s - CEILING_WINDOW_S) {
      used += ceiling->taken[i];
    }
  }
  return used;
}

void ceiling_note(struct ceiling *ceiling, uint64_t num, int64_t at_s) {
  const unsigned slot = (unsigned)(((at_s % NUM_SLOTS) + NUM_SLOTS) % NUM_SLOTS);
  if (ceiling->at_s[slot] != at_s) {
    ceiling->at_s[slot] = at_s;
    ceiling->taken[slot] = 0;
  }
  ceiling->taken[slot] += num;
}

enum ceiling_answer ceiling_take(struct ceiling *ceiling, uint64_t num, uint64_t max,
                                 int64_t now_s) {
  const uint64_t used = ceiling_used(ceiling, now_s);
  if (num > max) {
    return CEILING_TOO_MANY;
  }
  if (used > max || num > max - used) {
    return CEILING_WAIT;
  }
  ceiling_note(ceiling, num, now_s);
  return CEILING_TAKEN;
}
