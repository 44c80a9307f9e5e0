// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>

#include "common/net/loop_internal.h"

#define FIRST_NUM_TIMERS 64

// --- the heap ------------------------------------------------------------------------
// heap[i] is not later than heap[2i + 1] and heap[2i + 2]; place is the index + 1.

static void put(struct timers *timers, size_t i, struct timer *t) {
  timers->heap[i] = t;
  t->place = i + 1;
}

static void sift_up(struct timers *timers, size_t i, struct timer *t) {
  while (i > 0) {
    size_t parent = (i - 1) / 2;
    if (timers->heap[parent]->due_ms <= t->due_ms) {
      break;
    }
    put(timers, i, timers->heap[parent]);
    i = parent;
  }
  put(timers, i, t);
}

static void sift_down(struct timers *timers, size_t i, struct timer *t) {
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= timers->num) {
      break;
    }
    if (child + 1 < timers->num && timers->heap[child + 1]->due_ms < timers->heap[child]->due_ms) {
      child += 1;
    }
    if (t->due_ms <= timers->heap[child]->due_ms) {
      break;
    }
    put(timers, i, timers->heap[child]);
    i = child;
  }
  put(timers, i, t);
}

static void insert(struct timers *timers, struct timer *t) {
  if (timers->num == timers->cap) {
    size_t cap = timers->cap == 0 ? FIRST_NUM_TIMERS : timers->cap * 2;
    struct timer **heap = realloc(timers->heap, cap * sizeof(struct timer *));
    // No deadline may get lost.
    CHECK(heap != NULL);
    timers->heap = heap;
    timers->cap = cap;
  }
  timers->num += 1;
  sift_up(timers, timers->num - 1, t);
}

static void take_out(struct timers *timers, struct timer *t) {
  size_t i = t->place - 1;
  struct timer *last = timers->heap[timers->num - 1];
  t->place = 0;
  timers->num -= 1;
  if (last == t) {
    return;
  }
  // The last one may belong above or below the gap.
  sift_up(timers, i, last);
  sift_down(timers, last->place - 1, last);
}

int64_t timers_due_ms(const struct timers *timers) {
  return timers->num == 0 ? INT64_MAX : timers->heap[0]->due_ms;
}

void timers_run(struct timers *timers, int64_t now_ms) {
  // At most as many as there were: a timer may arm itself for now, again and again.
  for (size_t left = timers->num; left > 0 && timers_due_ms(timers) <= now_ms; left--) {
    struct timer *t = timers->heap[0];
    take_out(timers, t);
    t->fn(t->arg);  // may free it
  }
}

void timers_cleanup(struct timers *timers) {
  free(timers->heap);
  *timers = (struct timers){0};
}

// --- timers ----------------------------------------------------------------------------

enum status timer_init(struct timer *t, struct loop *loop, void (*fn)(void *arg), void *arg) {
  *t = (struct timer){.loop = loop, .fn = fn, .arg = arg};
  return STATUS_OK;
}

void timer_arm_ms(struct timer *t, int64_t after_ms) {
  timer_cancel(t);
  t->due_ms = loop_now_ms(t->loop) + (after_ms < 0 ? 0 : after_ms);
  insert(loop_timers(t->loop), t);
}

void timer_cancel(struct timer *t) {
  if (t->place != 0) {
    take_out(loop_timers(t->loop), t);
  }
}

bool timer_is_armed(const struct timer *t) { return t->place != 0; }

void timer_cleanup(struct timer *t) {
  timer_cancel(t);
  *t = (struct timer){0};
}
