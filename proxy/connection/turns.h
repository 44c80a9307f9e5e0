// SPDX-License-Identifier: Apache-2.0
// turns: handshakes take turns, so that those who are connected need not wait for them. A
// handshake costs a worker as much as hundreds of small requests; when many are ready at a
// time, they have TURNS_ROUND_US of each round of the loop, and the others stand in line, in the
// order in which they came. In between the loop takes events: bytes of a connection that is
// there wait for one turn at most, however many handshakes there are.
//
// How long the line is, in time of the processor, goes to the admission (admission.h), which
// refuses new connections before it gets too long.
//
//   conn_run --may go?--> (its steps) --turns_spend-->
//           \--no: turns_wait --> line --(next round)--> conn_take_turn
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_TURNS_H_
#define DEPUTY_PROXY_CONNECTION_TURNS_H_

#include <stdbool.h>
#include <stdint.h>

#define TURNS_ROUND_US 2000

struct conn;
struct worker;

struct turns {
  struct conn *first;  // by next_later
  struct conn **end;
  int64_t round_ms;  // loop_now_ms of the round that `left_us` is of
  int64_t left_us;
  const struct conn *mark;  // one of the line, whose wait is measured
  int64_t mark_cpu_us;      // the thread's CPU time when it came
};

// turns_init makes the worker's line empty.
void turns_init(struct worker *worker);

// turns_may_go: may a handshake that is ready go on at once?
bool turns_may_go(struct worker *worker);

// turns_wait puts a connection at the end of the line, once; conn_take_turn will be called.
void turns_wait(struct worker *worker, struct conn *conn);

// turns_spend: a handshake took so much of the round.
static inline void turns_spend(struct turns *turns, int64_t took_us) { turns->left_us -= took_us; }

// turns_forget takes a connection that ends out of the line.
void turns_forget(struct worker *worker, struct conn *conn);

#endif  // DEPUTY_PROXY_CONNECTION_TURNS_H_
