// SPDX-License-Identifier: Apache-2.0
// record_size: how much goes into one TLS record towards the client. A record can be
// used only when all of it has come. While TCP's window is small, a full one takes
// several round trips, and the client waits although most of it is there: so the first
// records of a connection, and those after a pause (in which the kernel's window has
// shrunk again), fit into a segment each. When the window has had time to open, records
// are full, which costs the least CPU time and the fewest bytes.
//
// No I/O, no clock of its own.
#ifndef DEPUTY_PROXY_CONNECTION_RECORD_SIZE_H_
#define DEPUTY_PROXY_CONNECTION_RECORD_SIZE_H_

#include <stddef.h>
#include <stdint.h>

#include "proxy/connection/block.h"

// With at most 29 bytes of header, nonce and tag (AEADs of TLS 1.2 and 1.3) this is 1398
// bytes: a segment of an Ethernet, with room for IPv6, TCP's options and a tunnel.
#define RECORD_SHORT_LEN 1369u
// 54 KiB: an initial window of ten segments (RFC 6928), doubled twice, is 40.
#define RECORD_NUM_SHORT 40u
// Longer than any usual retransmission timeout, after which the kernel begins again with
// the initial window (RFC 5681, section 4.1).
#define RECORD_PAUSE_MS 1000

// All-zero is that of a connection that begins.
struct record_size {
  uint32_t at_ms;     // when bytes came last; wraps, which is as good as a pause
  uint8_t num_short;  // records since a pause, up to RECORD_NUM_SHORT
};

// record_size_look: nothing is left to be sealed, and more is about to be asked for. After
// a pause it begins again.
static inline void record_size_look(struct record_size *size, int64_t now_ms) {
  if ((uint32_t)now_ms - size->at_ms > RECORD_PAUSE_MS) {
    size->num_short = 0;
  }
}

// record_size_came: there are bytes to be sealed.
static inline void record_size_came(struct record_size *size, int64_t now_ms) {
  size->at_ms = (uint32_t)now_ms;
}

// record_size_next is how many of `len` bytes go into the next record. The same until
// record_size_sealed or _look: the library wants to be asked again with what it could not
// seal before.
static inline size_t record_size_next(const struct record_size *size, size_t len) {
  const size_t max = size->num_short < RECORD_NUM_SHORT ? RECORD_SHORT_LEN : RECORD_MAX_LEN;
  return len < max ? len : max;
}

static inline void record_size_sealed(struct record_size *size) {
  if (size->num_short < RECORD_NUM_SHORT) {
    size->num_short += 1;
  }
}

// record_size_overhead is how much records may add to what fills `room` bytes at most.
static inline size_t record_size_overhead(const struct record_size *size, size_t room) {
  const size_t num_full = room / (RECORD_MAX_LEN + RECORD_MAX_OVERHEAD) + 1;
  return (num_full + RECORD_NUM_SHORT - size->num_short) * RECORD_MAX_OVERHEAD;
}

#endif  // DEPUTY_PROXY_CONNECTION_RECORD_SIZE_H_
