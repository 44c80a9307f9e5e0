// SPDX-License-Identifier: Apache-2.0
// heat: which names' handshakes want a delegated credential, told by a worker to the
// control thread: a ring of its own for each worker, which writes it without a lock, a
// locked instruction or a call. What does not fit is counted and forgotten: heat is an
// estimate.
//
// Threads: heat_note on the worker's, heat_drain on control's.
#ifndef DEPUTY_PROXY_DC_HEAT_H_
#define DEPUTY_PROXY_DC_HEAT_H_

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/metrics.h"

#define HEAT_ROOM 8192u     // notes: more than one core's handshakes between two drains
#define HEAT_LEVEL_BITS 4u  // of a note; the rest is the name's number
#define HEAT_NUM_NAMES (1u << (32u - HEAT_LEVEL_BITS))

struct heat {
  _Atomic uint32_t head;  // the worker's
  struct counter num_lost;
  char apart[64];  // control's stores are not to take the worker's line away
  _Atomic uint32_t tail;
  uint32_t notes[HEAT_ROOM];
};

// heat_note: a handshake of the name (0: nobody asks for it), answered from this level.
static inline void heat_note(struct heat *heat, uint32_t name, unsigned level) {
  const uint32_t head = atomic_load_explicit(&heat->head, memory_order_relaxed);
  if (name == 0) {
    return;
  }
  if (head - atomic_load_explicit(&heat->tail, memory_order_acquire) == HEAT_ROOM) {
    counter_add_own(&heat->num_lost, 1);
    return;
  }
  heat->notes[head % HEAT_ROOM] = name << HEAT_LEVEL_BITS | level;
  atomic_store_explicit(&heat->head, head + 1, memory_order_release);
}

// heat_drain calls fn for each note.
static inline void heat_drain(struct heat *heat,
                              void (*fn)(void *arg, uint32_t name, unsigned level), void *arg) {
  const uint32_t head = atomic_load_explicit(&heat->head, memory_order_acquire);
  uint32_t tail = atomic_load_explicit(&heat->tail, memory_order_relaxed);
  for (; tail != head; tail++) {
    const uint32_t note = heat->notes[tail % HEAT_ROOM];
    fn(arg, note >> HEAT_LEVEL_BITS, note & ((1u << HEAT_LEVEL_BITS) - 1));
  }
  atomic_store_explicit(&heat->tail, tail, memory_order_release);
}

#endif  // DEPUTY_PROXY_DC_HEAT_H_
