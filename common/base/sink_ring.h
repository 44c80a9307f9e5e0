// SPDX-License-Identifier: Apache-2.0
// sink_ring: the bounded ring between those who write lines and the one thread
// that takes them out. Many producers, one consumer, no lock: a producer
// reserves room by moving `head`, copies its line, and commits by storing the
// record's header; the consumer stops at the first record not committed.
// Private to the sink.
#ifndef DEPUTY_COMMON_BASE_SINK_RING_H_
#define DEPUTY_COMMON_BASE_SINK_RING_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

// A record is a header of four bytes and the line with its newline, rounded up
// to eight bytes, so that a header never straddles the ring's end. The consumer
// zeroes what it has taken: a header of zero means "not committed yet".
struct sink_ring {
  uint8_t *data;
  uint64_t len;  // a power of two
  // Producers move head, the consumer moves tail; each on a cache line of its
  // own. Both only ever grow; the place is the number modulo len.
  _Alignas(64) _Atomic uint64_t head;
  _Alignas(64) _Atomic uint64_t tail;
};

// sink_ring_init makes a ring of at least `len` bytes. STATUS_MEMORY.
enum status sink_ring_init(struct sink_ring *ring, size_t len);
void sink_ring_cleanup(struct sink_ring *ring);

// sink_ring_put adds a line and its newline, or returns false when it does not
// fit. Threads: any.
bool sink_ring_put(struct sink_ring *ring, struct bytes line);

// sink_ring_take moves whole lines to `out` while they fit and are committed,
// and returns their length. `room` is more than one line. Consumer only.
size_t sink_ring_take(struct sink_ring *ring, uint8_t *out, size_t room);

// sink_ring_has_line says whether a take would give something. Consumer only.
bool sink_ring_has_line(const struct sink_ring *ring);

// sink_ring_used counts the bytes that wait. Threads: any.
uint64_t sink_ring_used(const struct sink_ring *ring);

#endif  // DEPUTY_COMMON_BASE_SINK_RING_H_
