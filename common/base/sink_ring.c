// SPDX-License-Identifier: Apache-2.0
#include "common/base/sink_ring.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/sink.h"

#define MIN_LEN (32u << 10)
#define HEADER_LEN 4
#define ALIGN 8
#define RECORD_MAX_LEN (SINK_LINE_MAX_LEN + 1 + HEADER_LEN + ALIGN)

enum status sink_ring_init(struct sink_ring *ring, size_t len) {
  uint64_t rounded = MIN_LEN;
  _Static_assert(MIN_LEN > 2 * RECORD_MAX_LEN, "the smallest ring holds some lines");
  while (rounded < len) {
    rounded *= 2;
  }
  // calloc: every header starts as "not committed".
  ring->data = calloc(1, rounded);
  if (ring->data == NULL) {
    return STATUS_MEMORY;
  }
  ring->len = rounded;
  atomic_init(&ring->head, 0);
  atomic_init(&ring->tail, 0);
  return STATUS_OK;
}

void sink_ring_cleanup(struct sink_ring *ring) {
  free(ring->data);
  ring->data = NULL;
}

static _Atomic uint32_t *header_at(const struct sink_ring *ring, uint64_t position) {
  // ALIGN and malloc's own alignment make this cast sound.
  return (_Atomic uint32_t *)(void *)(ring->data + (position & (ring->len - 1)));
}

static uint64_t record_len(uint64_t content_len) {
  return (HEADER_LEN + content_len + ALIGN - 1) / ALIGN * ALIGN;
}

static void copy_in(const struct sink_ring *ring, uint64_t position, const uint8_t *from,
                    size_t len) {
  uint64_t at = position & (ring->len - 1);
  size_t first = len < ring->len - at ? len : (size_t)(ring->len - at);
  memcpy(ring->data + at, from, first);
  memcpy(ring->data, from + first, len - first);
}

// Copies out and zeroes behind itself.
static void copy_out(const struct sink_ring *ring, uint64_t position, uint8_t *to, size_t len) {
  uint64_t at = position & (ring->len - 1);
  size_t first = len < ring->len - at ? len : (size_t)(ring->len - at);
  memcpy(to, ring->data + at, first);
  memcpy(to + first, ring->data, len - first);
  memset(ring->data + at, 0, first);
  memset(ring->data, 0, len - first);
}

// Reserves `need` bytes; acquiring tail makes the consumer's zeroes ours.
static bool reserve(struct sink_ring *ring, uint64_t need, uint64_t *out_position) {
  uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  for (;;) {
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    // A stale head may lie behind tail: then the exchange below fails anyway.
    if (head >= tail && head - tail + need > ring->len) {
      return false;
    }
    if (atomic_compare_exchange_weak(&ring->head, &head, head + need)) {
      *out_position = head;
      return true;
    }
  }
}

bool sink_ring_put(struct sink_ring *ring, struct bytes line) {
  static const uint8_t newline = '\n';
  uint64_t position = 0;
  if (!reserve(ring, record_len(line.len + 1), &position)) {
    return false;
  }
  if (line.len > 0) {
    copy_in(ring, position + HEADER_LEN, line.data, line.len);
  }
  copy_in(ring, position + HEADER_LEN + line.len, &newline, 1);
  // Sequentially consistent, not just release: sink.c relies on the order of
  // this store and its load of the writer's mode.
  atomic_store(header_at(ring, position), (uint32_t)(line.len + 1));
  return true;
}

size_t sink_ring_take(struct sink_ring *ring, uint8_t *out, size_t room) {
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
  size_t taken = 0;

  while (tail != head) {
    uint32_t len = atomic_load_explicit(header_at(ring, tail), memory_order_acquire);
    if (len == 0 || len > room - taken) {
      break;
    }
    copy_out(ring, tail + HEADER_LEN, out + taken, len);
    atomic_store_explicit(header_at(ring, tail), 0, memory_order_relaxed);
    taken += len;
    tail += record_len(len);
  }
  atomic_store_explicit(&ring->tail, tail, memory_order_release);
  return taken;
}

bool sink_ring_has_line(const struct sink_ring *ring) {
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  return atomic_load(&ring->head) != tail && atomic_load(header_at(ring, tail)) != 0;
}

uint64_t sink_ring_used(const struct sink_ring *ring) {
  // tail first: it never passes the head that is read after it.
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
  return atomic_load_explicit(&ring->head, memory_order_relaxed) - tail;
}
