// SPDX-License-Identifier: Apache-2.0
// deadline: how long each connection may stay where it is. Connections in one
// state have one limit, so those that entered first are due first: a state is a
// queue, entering is an append, and one timer of the worker looks at the heads.
// No timer per connection, no heap. (CONNECT has a queue for each pool of origins, as
// these differ.) Called by conn.c alone.
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_DEADLINE_H_
#define DEPUTY_PROXY_CONNECTION_DEADLINE_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"

#define DEADLINE_NUM_QUEUES 48
#define DEADLINE_GRAIN_MS 20  // a deadline may be noticed this much late

// Embedded in what has the deadline; all-zero is in no queue.
struct deadline {
  struct deadline *next;
  struct deadline *prev;
  int64_t at_ms;  // loop_now_ms
};

struct deadlines {
  struct deadline queues[DEADLINE_NUM_QUEUES];  // rings with these as heads
  struct timer timer;
  int64_t wakes_ms;  // when the timer will look; INT64_MAX: it is not armed
  struct loop *loop;
  void (*on_due)(void *arg, struct deadline *deadline);
  void *arg;
};

// deadlines_init: on_due(arg, d) is called for each that passes, after it has
// left its queue. STATUS_MEMORY.
enum status deadlines_init(struct deadlines *ds, struct loop *loop,
                           void (*on_due)(void *arg, struct deadline *deadline), void *arg);
void deadlines_cleanup(struct deadlines *ds);

// deadline_set (re)starts the clock: `d` is due `limit_ms` from now in `queue`.
// A limit of 0 is none. When a reload changed a queue's limit, one behind a
// longer one is noticed when that one is.
void deadline_set(struct deadlines *ds, struct deadline *d, unsigned queue, int64_t limit_ms);
void deadline_clear(struct deadline *d);

// deadline_first is the one that entered `queue` first; NULL: nothing is in it.
struct deadline *deadline_first(const struct deadlines *ds, unsigned queue);

#endif  // DEPUTY_PROXY_CONNECTION_DEADLINE_H_
