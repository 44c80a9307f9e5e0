// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/deadline.h"

#include <stddef.h>

static void unlink_one(struct deadline *d) {
  d->prev->next = d->next;
  d->next->prev = d->prev;
  d->next = NULL;
  d->prev = NULL;
}

void deadline_clear(struct deadline *d) {
  if (d->next != NULL) {
    unlink_one(d);
  }
}

static void wake_at(struct deadlines *ds, int64_t at_ms, int64_t now_ms) {
  ds->wakes_ms = at_ms;
  timer_arm_ms(&ds->timer, at_ms - now_ms);
}

void deadline_set(struct deadlines *ds, struct deadline *d, unsigned queue, int64_t limit_ms) {
  struct deadline *head = NULL;
  int64_t now_ms = loop_now_ms(ds->loop);

  CHECK(queue < DEADLINE_NUM_QUEUES);
  deadline_clear(d);
  if (limit_ms == 0) {
    return;
  }
  head = &ds->queues[queue];
  d->at_ms = now_ms + limit_ms;
  d->prev = head->prev;
  d->next = head;
  head->prev->next = d;
  head->prev = d;
  // The timer often is armed for an earlier one already; it is not touched then.
  if (d->at_ms + DEADLINE_GRAIN_MS < ds->wakes_ms) {
    wake_at(ds, d->at_ms + DEADLINE_GRAIN_MS, now_ms);
  }
}

struct deadline *deadline_first(const struct deadlines *ds, unsigned queue) {
  const struct deadline *head = &ds->queues[queue];
  CHECK(queue < DEADLINE_NUM_QUEUES);
  return head->next == head ? NULL : head->next;
}

static void on_timer(void *arg) {
  struct deadlines *ds = arg;
  int64_t now_ms = loop_now_ms(ds->loop);
  int64_t next_ms = INT64_MAX;

  ds->wakes_ms = INT64_MAX;
  for (unsigned i = 0; i < DEADLINE_NUM_QUEUES; i++) {
    struct deadline *head = &ds->queues[i];
    // What on_due does may change any queue: always look at the head anew.
    while (head->next != head && head->next->at_ms <= now_ms) {
      struct deadline *due = head->next;
      unlink_one(due);
      ds->on_due(ds->arg, due);
    }
  }
  for (unsigned i = 0; i < DEADLINE_NUM_QUEUES; i++) {
    const struct deadline *head = &ds->queues[i];
    if (head->next != head && head->next->at_ms < next_ms) {
      next_ms = head->next->at_ms;
    }
  }
  if (next_ms != INT64_MAX) {
    wake_at(ds, next_ms + DEADLINE_GRAIN_MS, now_ms);
  }
}

enum status deadlines_init(struct deadlines *ds, struct loop *loop,
                           void (*on_due)(void *arg, struct deadline *deadline), void *arg) {
  *ds = (struct deadlines){.loop = loop, .on_due = on_due, .arg = arg, .wakes_ms = INT64_MAX};
  for (unsigned i = 0; i < DEADLINE_NUM_QUEUES; i++) {
    ds->queues[i].next = &ds->queues[i];
    ds->queues[i].prev = &ds->queues[i];
  }
  return timer_init(&ds->timer, loop, on_timer, ds);
}

void deadlines_cleanup(struct deadlines *ds) { timer_cleanup(&ds->timer); }
