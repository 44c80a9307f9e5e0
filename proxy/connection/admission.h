// SPDX-License-Identifier: Apache-2.0
// admission: whether a worker takes on one more handshake, so that handshakes cannot
// starve the connections that are there. The judgement alone: no clock, no I/O, no
// connection (admit.c has those). Two things are limited:
//
// How many are under way. When the budget is used up, the oldest that stands still for
// long enough makes room; a client that means it is done after two round trips, so
// that it is those who hold handshakes open who lose them, not those who come. If there
// is none, the new one is refused.
//
// How long others wait for them. A pulse is sent through the worker's own queue of
// events; the time until it comes back is what a byte of a connection that is there
// would have waited. If the worker had more than `lag_us` of work to do before it, and
// handshakes took at least `share_percent` of the time, the worker is busy until it is
// half as much or handshakes have half of that share. Work is the thread's CPU time: a
// worker that others keep from running is late, but not with handshakes. As handshakes take
// turns, others seldom wait for long: it is the line of handshakes that grows, and a worker
// on which a handshake waits for more than `lag_us` of work is busy as well. A busy worker
// refuses new connections, as long as
// there is anybody to protect: a crowd after a start, when nobody is connected, is served
// in its order.
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_ADMISSION_H_
#define DEPUTY_PROXY_CONNECTION_ADMISSION_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADMISSION_PULSE_EVERY_US 10000
#define ADMISSION_BUSY_US 1000000      // a judgement older than this is none
#define ADMISSION_DISPLACE_US 1000000  // a handshake that stands still for so long may go

struct admission_limits {
  int64_t num_handshakes;  // 0: as many as there may be connections
  int64_t lag_us;          // 0: however long it takes
  int64_t share_percent;
};

// All-zero is a worker that has nothing to do.
struct admission {
  size_t num_handshakes;  // under way
  int64_t work_us;        // spent on handshakes since the pulse under way was sent
  int64_t sent_us;        // when that was; 0: none is under way
  int64_t sent_cpu_us;    // the thread's CPU time then
  int64_t judged_us;      // when the last one came back; 0: none has
  bool is_busy;           // by that one
  int64_t wait_us;        // of a handshake for its turn (turns.h), in CPU time
};

enum admission_answer {
  ADMISSION_YES,
  ADMISSION_DISPLACE,    // if the oldest handshake is ended first
  ADMISSION_HANDSHAKES,  // no: too many are under way
  ADMISSION_BUSY,        // no: others wait for too long
};

// admission_judge answers for a new connection. `num_others` connections are there that
// have a handshake behind them; `oldest_us` is how long the oldest handshake that waits
// for its client has done so, 0 when none does.
enum admission_answer admission_judge(const struct admission *admission,
                                      const struct admission_limits *limits, size_t num_others,
                                      int64_t oldest_us, int64_t now_us);

bool admission_is_busy(const struct admission *admission, int64_t now_us);

// admission_note_work: a handshake took so much of the worker's time.
static inline void admission_note_work(struct admission *admission, int64_t took_us) {
  admission->work_us += took_us;
}

// admission_note_wait: so much CPU time has passed until a handshake had its turn.
static inline void admission_note_wait(struct admission *admission, int64_t wait_us) {
  admission->wait_us = wait_us;
}

// admission_wants_pulse says whether one is to be sent now; admission_note_sent: it was.
// `cpu_us` is the CPU time of the thread so far.
bool admission_wants_pulse(const struct admission *admission, int64_t now_us);
void admission_note_sent(struct admission *admission, int64_t now_us, int64_t cpu_us);

// admission_on_pulse: the one under way came back. Returns how long it took.
int64_t admission_on_pulse(struct admission *admission, const struct admission_limits *limits,
                           int64_t now_us, int64_t cpu_us);

#endif  // DEPUTY_PROXY_CONNECTION_ADMISSION_H_
