// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

#define MAX_SHIFT 20u
#define MIN_ROOM 64u
#define RANK_STEP 64.0            // of standing: more than heat can make up for
#define CONFIGURED_WEIGHT 0x1p-6  // a visit's share that being configured counts for
#define URGENCY_STEPS 24.0        // of a lifetime, each halves
#define MAX_PASSED_BY 256         // that do not fit, in one call

// The first four are queues.
enum heap { WAITING, RENEWAL, MISSING, EXPIRING, HELD, EVENTS };

// --- orders --------------------------------------------------------------------------

static double rank(const struct dc_entry *entry) {
  return entry->heat + RANK_STEP * entry->standing;
}

static double step_ms(const struct dc_schedule *s) {
  return (double)s->limits.life_ms / URGENCY_STEPS + 1;
}

// Of one that has a credential; the same for all but for a sum that time adds.
static double urgency(const struct dc_schedule *s, const struct dc_entry *entry) {
  return rank(entry) - (double)entry->last_ms / step_ms(s);
}

static bool is_before(struct dc_schedule *s, enum heap heap, const struct dc_entry *a,
                      const struct dc_entry *b) {
  s->num_compares += 1;
  switch (heap) {
    case WAITING:
    case RENEWAL:
      return a->at_ms < b->at_ms;
    case MISSING:
      return rank(a) > rank(b);
    case EXPIRING:
      return urgency(s, a) > urgency(s, b);
    case HELD:
      return rank(a) < rank(b);
    case EVENTS:
      return a->event_ms < b->event_ms;
  }
  return false;
}

// --- heaps ---------------------------------------------------------------------------

static unsigned place_of(enum heap heap) { return heap == HELD ? 1 : heap == EVENTS ? 2 : 0; }

static void set_place(struct dc_heap *in, enum heap heap, size_t at, struct dc_entry *entry) {
  in->items[at] = entry;
  entry->places[place_of(heap)] = (uint32_t)at;
}

static void sift_up(struct dc_schedule *s, enum heap heap, size_t at) {
  struct dc_heap *in = &s->heaps[heap];
  struct dc_entry *entry = in->items[at];
  while (at > 0 && is_before(s, heap, entry, in->items[(at - 1) / 2])) {
    set_place(in, heap, at, in->items[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  set_place(in, heap, at, entry);
}

static void sift_down(struct dc_schedule *s, enum heap heap, size_t at) {
  struct dc_heap *in = &s->heaps[heap];
  struct dc_entry *entry = in->items[at];
  size_t child = 2 * at + 1;
  while (child < in->num) {
    if (child + 1 < in->num && is_before(s, heap, in->items[child + 1], in->items[child])) {
      child += 1;
    }
    if (!is_before(s, heap, in->items[child], entry)) {
      break;
    }
    set_place(in, heap, at, in->items[child]);
    at = child;
    child = 2 * at + 1;
  }
  set_place(in, heap, at, entry);
}

static void heap_push(struct dc_schedule *s, enum heap heap, struct dc_entry *entry) {
  struct dc_heap *in = &s->heaps[heap];
  CHECK(in->num < s->room);
  in->items[in->num] = entry;
  in->num += 1;
  sift_up(s, heap, in->num - 1);
}

static void heap_move(struct dc_schedule *s, enum heap heap, const struct dc_entry *entry) {
  sift_up(s, heap, entry->places[place_of(heap)]);
  sift_down(s, heap, entry->places[place_of(heap)]);
}

static void heap_take(struct dc_schedule *s, enum heap heap, const struct dc_entry *entry) {
  struct dc_heap *in = &s->heaps[heap];
  const size_t at = entry->places[place_of(heap)];
  CHECK(at < in->num && in->items[at] == entry);
  in->num -= 1;
  if (at < in->num) {
    struct dc_entry *moved = in->items[in->num];
    set_place(in, heap, at, moved);
    heap_move(s, heap, moved);
  }
}

static struct dc_entry *heap_top(const struct dc_schedule *s, enum heap heap) {
  return s->heaps[heap].num == 0 ? NULL : s->heaps[heap].items[0];
}

static void heapify(struct dc_schedule *s, enum heap heap) {
  for (size_t i = s->heaps[heap].num; i > 0; i--) {
    sift_down(s, heap, i - 1);
  }
}

// --- queues --------------------------------------------------------------------------

static bool has_heap(uint8_t queue) {
  return queue >= DC_QUEUE_WAITING && queue <= DC_QUEUE_EXPIRING;
}
static enum heap heap_of(uint8_t queue) { return (enum heap)(queue - DC_QUEUE_WAITING); }

// Counts what depends on queue, standing and whether there is a credential: called before
// a change of these and after.
static void count_in(struct dc_schedule *s, const struct dc_entry *entry, size_t one) {
  if (entry->is_held) {
    s->num_held_loose += entry->standing == DC_LOOSE ? one : 0;
  } else {
    s->num_asked_new += entry->queue == DC_QUEUE_ASKED ? one : 0;
    s->num_waiting_new += entry->queue == DC_QUEUE_WAITING ? one : 0;
  }
}
static void count_out(struct dc_schedule *s, const struct dc_entry *entry) {
  count_in(s, entry, SIZE_MAX);  // as unsigned numbers have it: one less
}

static void leave_queue(struct dc_schedule *s, struct dc_entry *entry) {
  count_out(s, entry);
  if (has_heap(entry->queue)) {
    heap_take(s, heap_of(entry->queue), entry);
  } else if (entry->queue == DC_QUEUE_ASKED) {
    s->num_asked -= 1;
  }
  entry->queue = DC_QUEUE_IDLE;
  count_in(s, entry, 1);
}

static void enter_queue(struct dc_schedule *s, struct dc_entry *entry, enum dc_queue queue) {
  CHECK(entry->queue == DC_QUEUE_IDLE);
  count_out(s, entry);
  entry->queue = (uint8_t)queue;
  if (has_heap(entry->queue)) {
    heap_push(s, heap_of(entry->queue), entry);
  } else if (queue == DC_QUEUE_ASKED) {
    s->num_asked += 1;
  }
  count_in(s, entry, 1);
}

static void enter_due(struct dc_schedule *s, struct dc_entry *entry) {
  enter_queue(s, entry, entry->is_held ? DC_QUEUE_EXPIRING : DC_QUEUE_MISSING);
}

static void wait_until_ms(struct dc_schedule *s, struct dc_entry *entry, int64_t at_ms) {
  entry->at_ms = at_ms;
  enter_queue(s, entry, DC_QUEUE_WAITING);
}

static void hold(struct dc_schedule *s, struct dc_entry *entry) {
  count_out(s, entry);
  entry->is_held = true;
  entry->is_wanted = false;
  heap_push(s, HELD, entry);
  heap_push(s, EVENTS, entry);
  count_in(s, entry, 1);
}

static void unhold(struct dc_schedule *s, struct dc_entry *entry) {
  count_out(s, entry);
  heap_take(s, HELD, entry);
  heap_take(s, EVENTS, entry);
  entry->is_held = false;
  entry->is_wanted = false;
  count_in(s, entry, 1);
}

// Its heat or standing has changed.
static void reorder(struct dc_schedule *s, const struct dc_entry *entry) {
  if (entry->is_held) {
    heap_move(s, HELD, entry);
  }
  if (entry->queue == DC_QUEUE_MISSING || entry->queue == DC_QUEUE_EXPIRING) {
    heap_move(s, heap_of(entry->queue), entry);
  }
}

// --- entries -------------------------------------------------------------------------

void dc_schedule_init(struct dc_schedule *s, const struct dc_limits *limits,
                      uint64_t (*random)(void), int64_t now_ms) {
  *s = (struct dc_schedule){.limits = *limits, .random = random, .tokens_ms = now_ms};
  s->tokens = limits->per_s * 1000;
}

void dc_schedule_set_limits(struct dc_schedule *s, const struct dc_limits *limits) {
  const bool is_same_life = s->limits.life_ms == limits->life_ms;
  s->limits = *limits;
  s->tokens = limits->per_s * 1000;
  if (!is_same_life) {
    heapify(s, EXPIRING);
  }
}

void dc_schedule_cleanup(struct dc_schedule *s) {
  for (unsigned i = 0; i < DC_SCHEDULE_NUM_HEAPS; i++) {
    free((void *)s->heaps[i].items);
  }
  *s = (struct dc_schedule){0};
}

enum status dc_schedule_add(struct dc_schedule *s, struct dc_entry *entry) {
  if (s->num_entries == s->room) {
    const size_t room = s->room == 0 ? MIN_ROOM : s->room * 2;
    for (unsigned i = 0; i < DC_SCHEDULE_NUM_HEAPS; i++) {
      struct dc_entry **bigger =
          realloc((void *)s->heaps[i].items, room * sizeof(struct dc_entry *));
      if (bigger == NULL) {
        return STATUS_MEMORY;
      }
      s->heaps[i].items = bigger;
    }
    s->room = room;
  }
  *entry = (struct dc_entry){.heat = -INFINITY, .standing = DC_LOOSE};
  s->num_entries += 1;
  return STATUS_OK;
}

void dc_schedule_remove(struct dc_schedule *s, struct dc_entry *entry) {
  leave_queue(s, entry);
  if (entry->is_held) {
    unhold(s, entry);
  }
  s->num_entries -= 1;
}

// --- heat ----------------------------------------------------------------------------

// log2 of 2^a + 2^b.
static double add_log2(double a, double b) {
  const double high = a > b ? a : b;
  const double low = a > b ? b : a;
  return isinf(low) ? high : high + log2(1.0 + exp2(low - high));
}

static double time_log2(int64_t now_ms) {
  return (double)now_ms / (double)DC_SCHEDULE_HALF_LIFE_MS;
}

double dc_schedule_heat(const struct dc_entry *entry, int64_t now_ms) {
  return isinf(entry->heat) ? 0 : exp2(entry->heat - time_log2(now_ms));
}

// Wanted now, and in no queue: had none, or was not to be renewed.
static void wake(struct dc_schedule *s, struct dc_entry *entry) {
  if (entry->queue == DC_QUEUE_IDLE) {
    enter_due(s, entry);
  }
}

void dc_schedule_want(struct dc_schedule *s, struct dc_entry *entry, double weight,
                      int64_t now_ms) {
  entry->heat = add_log2(entry->heat, time_log2(now_ms) + log2(weight));
  entry->is_wanted = true;
  reorder(s, entry);
  wake(s, entry);
}

void dc_schedule_inherit(struct dc_schedule *s, struct dc_entry *entry, const struct dc_entry *from,
                         int64_t now_ms) {
  if (from->heat > entry->heat) {
    entry->heat = from->heat;
    reorder(s, entry);
  }
  if (from->is_held || from->queue != DC_QUEUE_IDLE) {
    dc_schedule_want(s, entry, CONFIGURED_WEIGHT, now_ms);
  }
}

void dc_schedule_stand(struct dc_schedule *s, struct dc_entry *entry, enum dc_standing standing,
                       int64_t now_ms) {
  count_out(s, entry);
  entry->standing = (int8_t)standing;
  count_in(s, entry, 1);
  if (standing == DC_CONFIGURED && isinf(entry->heat)) {
    entry->heat = time_log2(now_ms) + log2(CONFIGURED_WEIGHT);
  }
  reorder(s, entry);
  if (standing == DC_CONFIGURED) {
    wake(s, entry);
  } else if (standing == DC_LOOSE && entry->queue != DC_QUEUE_ASKED &&
             entry->queue != DC_QUEUE_RENEWAL) {
    leave_queue(s, entry);
  }
}

// --- asking --------------------------------------------------------------------------

static void advance(struct dc_schedule *s, int64_t now_ms, int64_t wall_ms) {
  struct dc_entry *entry = NULL;
  while ((entry = heap_top(s, WAITING)) != NULL && entry->at_ms <= now_ms) {
    leave_queue(s, entry);
    enter_due(s, entry);
  }
  while ((entry = heap_top(s, RENEWAL)) != NULL && entry->at_ms <= wall_ms) {
    leave_queue(s, entry);
    if (entry->standing == DC_CONFIGURED || (entry->standing == DC_CACHED && entry->is_wanted)) {
      enter_due(s, entry);
    } else {
      s->num_let_go += 1;  // serves to its end, and is asked for again when it is wanted
    }
  }
}

static void fill_tokens(struct dc_schedule *s, int64_t now_ms) {
  const int64_t most = s->limits.per_s * 1000;  // a second's worth is saved up
  s->tokens += (now_ms - s->tokens_ms) * s->limits.per_s;
  s->tokens = s->tokens < most ? s->tokens : most;
  s->tokens_ms = now_ms;
}

static bool fits(const struct dc_schedule *s, const struct dc_entry *entry) {
  const struct dc_entry *coldest = heap_top(s, HELD);
  return entry->is_held || (int64_t)(s->heaps[HELD].num + s->num_asked_new) < s->limits.max_held ||
         (coldest != NULL && rank(coldest) + DC_SCHEDULE_MARGIN < rank(entry));
}

// The more urgent of the two that lead.
static struct dc_entry *leader(const struct dc_schedule *s, int64_t wall_ms) {
  struct dc_entry *missing = heap_top(s, MISSING);
  struct dc_entry *expiring = heap_top(s, EXPIRING);
  if (missing == NULL || expiring == NULL) {
    return missing != NULL ? missing : expiring;
  }
  return urgency(s, expiring) + (double)wall_ms / step_ms(s) > rank(missing) ? expiring : missing;
}

struct dc_entry *dc_schedule_next(struct dc_schedule *s, int64_t now_ms, int64_t wall_ms) {
  struct dc_entry *entry = NULL;
  advance(s, now_ms, wall_ms);
  fill_tokens(s, now_ms);
  if (s->tokens < 1000) {
    return NULL;
  }
  for (unsigned i = 0; i < MAX_PASSED_BY; i++) {
    entry = leader(s, wall_ms);
    if (entry == NULL) {
      return NULL;
    }
    leave_queue(s, entry);
    if (fits(s, entry)) {
      s->tokens -= 1000;
      enter_queue(s, entry, DC_QUEUE_ASKED);
      return entry;
    }
    s->num_no_room += 1;
    if (entry->standing == DC_CONFIGURED) {
      wait_until_ms(s, entry,
                    now_ms + dc_pause_ms(DC_SCHEDULE_PARK_MS, DC_SCHEDULE_PARK_MS, 1, s->random()));
    }
  }
  return NULL;
}

void dc_schedule_put(struct dc_schedule *s, struct dc_entry *entry, int64_t life_ms,
                     int64_t last_ms, int64_t event_ms, int64_t wall_ms) {
  const int64_t half_ms = life_ms / 2;
  const int64_t jitter_ms = half_ms * DC_SCHEDULE_JITTER_PERCENT / 100;
  leave_queue(s, entry);
  if (entry->is_held) {
    unhold(s, entry);
  }
  entry->num_failures = 0;
  entry->last_ms = last_ms;
  entry->event_ms = event_ms;
  hold(s, entry);
  entry->at_ms =
      wall_ms + half_ms - jitter_ms + (int64_t)(s->random() % (uint64_t)(2 * jitter_ms + 1));
  enter_queue(s, entry, DC_QUEUE_RENEWAL);
}

int64_t dc_pause_ms(int64_t min_ms, int64_t max_ms, unsigned num, uint64_t random) {
  const unsigned shift = num == 0 ? 0 : num - 1 < MAX_SHIFT ? num - 1 : MAX_SHIFT;
  int64_t pause_ms = min_ms << shift;
  pause_ms = pause_ms < max_ms ? pause_ms : max_ms;
  return pause_ms / 2 + (int64_t)(random % (uint64_t)(pause_ms - pause_ms / 2 + 1));
}

void dc_schedule_fail(struct dc_schedule *s, struct dc_entry *entry, bool is_firm, int64_t now_ms) {
  const struct dc_limits *limits = &s->limits;
  if (entry->num_failures < UINT8_MAX) {
    entry->num_failures += 1;
  }
  leave_queue(s, entry);
  if (entry->standing != DC_LOOSE) {
    const int64_t min_ms = is_firm ? limits->retry_max_ms : limits->retry_min_ms;
    wait_until_ms(
        s, entry,
        now_ms + dc_pause_ms(min_ms, limits->retry_max_ms, entry->num_failures, s->random()));
  }
}

void dc_schedule_return(struct dc_schedule *s, struct dc_entry *entry) {
  leave_queue(s, entry);
  if (entry->standing != DC_LOOSE) {
    enter_due(s, entry);
  }
}

void dc_schedule_put_off(struct dc_schedule *s, struct dc_entry *entry, int64_t after_ms,
                         int64_t now_ms) {
  leave_queue(s, entry);
  wait_until_ms(s, entry, now_ms + after_ms);
}

void dc_schedule_rest(struct dc_schedule *s, struct dc_entry *entry) {
  leave_queue(s, entry);
  entry->is_wanted = false;
}

// --- what is held --------------------------------------------------------------------

struct dc_entry *dc_schedule_evict(struct dc_schedule *s, int64_t now_ms) {
  struct dc_entry *entry = heap_top(s, HELD);
  if ((int64_t)s->heaps[HELD].num <= s->limits.max_held) {
    return NULL;
  }
  s->num_evicted += 1;
  unhold(s, entry);
  if (entry->queue != DC_QUEUE_ASKED) {
    leave_queue(s, entry);
    if (entry->standing == DC_CONFIGURED) {
      wait_until_ms(s, entry,
                    now_ms + dc_pause_ms(DC_SCHEDULE_PARK_MS, DC_SCHEDULE_PARK_MS, 1, s->random()));
    }
  }
  return entry;
}

struct dc_entry *dc_schedule_event(const struct dc_schedule *s, int64_t wall_ms) {
  struct dc_entry *entry = heap_top(s, EVENTS);
  return entry != NULL && entry->event_ms <= wall_ms ? entry : NULL;
}

void dc_schedule_set_event(struct dc_schedule *s, struct dc_entry *entry, int64_t event_ms) {
  CHECK(entry->is_held);
  entry->event_ms = event_ms;
  heap_move(s, EVENTS, entry);
}

void dc_schedule_drop(struct dc_schedule *s, struct dc_entry *entry) {
  const bool is_wanted =
      entry->standing == DC_CONFIGURED || (entry->standing == DC_CACHED && entry->is_wanted);
  CHECK(entry->is_held);
  if (entry->queue == DC_QUEUE_EXPIRING || entry->queue == DC_QUEUE_RENEWAL) {
    leave_queue(s, entry);
  }
  unhold(s, entry);
  if (entry->queue == DC_QUEUE_IDLE && is_wanted) {
    enter_due(s, entry);
  }
}

void dc_schedule_hurry(struct dc_schedule *s) {
  struct dc_heap *waiting = &s->heaps[WAITING];
  size_t num_left = 0;
  const size_t num = waiting->num;
  for (size_t i = 0; i < num; i++) {
    struct dc_entry *entry = waiting->items[i];
    if (entry->is_held) {
      set_place(waiting, WAITING, num_left, entry);
      num_left += 1;
    } else {
      count_out(s, entry);
      entry->queue = DC_QUEUE_IDLE;
      entry->num_failures = 0;
      enter_due(s, entry);
    }
  }
  waiting->num = num_left;
  heapify(s, WAITING);
}

// --- the next time -------------------------------------------------------------------

static int64_t sooner(int64_t wait_ms, int64_t other_ms) {
  other_ms = other_ms < 0 ? 0 : other_ms;
  return other_ms < wait_ms ? other_ms : wait_ms;
}

int64_t dc_schedule_wait_ms(const struct dc_schedule *s, int64_t now_ms, int64_t wall_ms,
                            int64_t max_ms) {
  const struct dc_entry *waiting = heap_top(s, WAITING);
  const struct dc_entry *renewal = heap_top(s, RENEWAL);
  const struct dc_entry *event = heap_top(s, EVENTS);
  int64_t wait_ms = max_ms;
  if (waiting != NULL) {
    wait_ms = sooner(wait_ms, waiting->at_ms - now_ms);
  }
  if (renewal != NULL) {
    wait_ms = sooner(wait_ms, renewal->at_ms - wall_ms);
  }
  if (event != NULL) {
    wait_ms = sooner(wait_ms, event->event_ms - wall_ms);
  }
  if (s->heaps[MISSING].num + s->heaps[EXPIRING].num > 0) {
    const int64_t lacking = 1000 - s->tokens - (now_ms - s->tokens_ms) * s->limits.per_s;
    wait_ms = sooner(wait_ms, lacking / s->limits.per_s + (lacking > 0 ? 1 : 0));
  }
  return wait_ms;
}

size_t dc_schedule_num(const struct dc_schedule *s, enum dc_queue queue) {
  return queue == DC_QUEUE_ASKED    ? s->num_asked
         : has_heap((uint8_t)queue) ? s->heaps[heap_of((uint8_t)queue)].num
                                    : 0;
}

size_t dc_schedule_num_held(const struct dc_schedule *s) { return s->heaps[HELD].num; }
