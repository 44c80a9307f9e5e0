// SPDX-License-Identifier: Apache-2.0
// breaker: keeps requests away from a key server that fails, until a ping has shown that
// it is well again.
//
//   CLOSED --- BREAKER_IN_ROW failures in a row, or a half of at least ---> OPEN
//     ^        BREAKER_MIN_NUM requests in BREAKER_WINDOW_MS                 |   ^
//     |                                                        pause is over |   | no pong
//     +-------------------------- pong -------------------------------- HALF_OPEN
//
// The pause starts at BREAKER_FIRST_MS, doubles with each opening up to BREAKER_LAST_MS,
// and has 25 % jitter; it starts small again when the breaker was closed for
// BREAKER_CALM_MS. Pure: the caller has the clock and the random number. One thread;
// all-zero is closed.
#ifndef DEPUTY_COMMON_KEYCLIENT_BREAKER_H_
#define DEPUTY_COMMON_KEYCLIENT_BREAKER_H_

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_IN_ROW 5u
#define BREAKER_MIN_NUM 20u
#define BREAKER_WINDOW_MS 10000
#define BREAKER_FIRST_MS 500
#define BREAKER_LAST_MS 30000
#define BREAKER_CALM_MS 60000

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_NUM_STATES };
const char *breaker_state_name(enum breaker_state state);  // "half_open"

struct breaker {
  enum breaker_state state;
  unsigned num_in_row;  // failures
  unsigned num_good;    // in the window
  unsigned num_bad;
  int64_t window_ms;  // when it began
  int64_t opened_ms;
  int64_t closed_ms;
  int64_t probe_ms;       // no ping before
  unsigned num_openings;  // without calm between
};

// breaker_note_good: an answer in time to a request that was sent at `sent_ms`. It
// closes an open breaker when it was asked after the opening, as happens when there is
// no other server. breaker_note_bad: a failure. Both return whether the state is another.
bool breaker_note_good(struct breaker *breaker, int64_t sent_ms, int64_t now_ms);
bool breaker_note_bad(struct breaker *breaker, int64_t now_ms, uint16_t random);

// breaker_may_probe: the pause is over. breaker_probe: the ping is under way.
// breaker_probe_done: it was answered, or was not. Without a probe it does nothing.
// Returns whether the state is another.
bool breaker_may_probe(const struct breaker *breaker, int64_t now_ms);
void breaker_probe(struct breaker *breaker);
bool breaker_probe_done(struct breaker *breaker, bool is_good, int64_t now_ms, uint16_t random);

#endif  // DEPUTY_COMMON_KEYCLIENT_BREAKER_H_
