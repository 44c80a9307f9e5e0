// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin/balance.h"

// Steps by the golden ratio visit a circle evenly, whatever its length: shares come
// interleaved, not one origin's after the other's.
#define GOLDEN UINT32_C(0x9e3779b9)

struct choosing {
  struct origin_set *set;
  const uint32_t *tried;
  size_t num_tried;
  uint64_t client;
};

static bool is_in_service(const struct origin_set *set, const struct endpoint *endpoint) {
  unsigned state = endpoint_state(endpoint);
  if (set->is_alone) {
    state &= ~(unsigned)ENDPOINT_OUT;
  }
  return state == 0;
}

static bool may_take(const struct choosing *by, size_t at) {
  const struct endpoint *endpoint = by->set->places[at].endpoint;
  if (!is_in_service(by->set, endpoint) || endpoint_is_full(endpoint)) {
    return false;
  }
  for (size_t i = 0; i < by->num_tried; i++) {
    if (by->tried[i] == endpoint->id) {
      return false;
    }
  }
  return true;
}

static uint32_t step(struct origin_set *set) {
  return atomic_fetch_add_explicit(&set->cursor, 1, memory_order_relaxed);
}

// The place whose share of the circle has the point.
static size_t place_at(const struct origin_set *set, uint32_t point) {
  size_t low = 0;
  size_t high = set->num;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (set->places[middle].weight_before <= point) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

static size_t turn(struct origin_set *set) {
  const uint32_t cursor = step(set);
  if (set->is_even) {
    return cursor % set->num;
  }
  return place_at(set,
                  (uint32_t)(((uint64_t)(uint32_t)(cursor * GOLDEN) * set->total_weight) >> 32));
}

static struct endpoint *choose_in_turn(const struct choosing *by) {
  struct origin_set *set = by->set;
  size_t at = 0;
  // Who is out passes its turn on to all the others, not to its neighbour alone.
  for (size_t i = 0; i < set->num; i++) {
    at = turn(set);
    if (may_take(by, at)) {
      return set->places[at].endpoint;
    }
  }
  for (size_t i = 0; i < set->num; i++) {
    at = at + 1 < set->num ? at + 1 : 0;
    if (may_take(by, at)) {
      return set->places[at].endpoint;
    }
  }
  return NULL;
}

static struct endpoint *choose_least(const struct choosing *by) {
  struct origin_set *set = by->set;
  const struct origin_place *best = NULL;
  uint64_t best_load = 0;
  // Among equals it is each one's turn.
  size_t at = step(set) % set->num;
  for (size_t i = 0; i < set->num; i++) {
    const struct origin_place *place = &set->places[at];
    const uint64_t load =
        (uint64_t)atomic_load_explicit(&place->endpoint->num_open, memory_order_relaxed) + 1;
    if ((best == NULL || load * best->weight < best_load * place->weight) && may_take(by, at)) {
      best = place;
      best_load = load;
    }
    at = at + 1 < set->num ? at + 1 : 0;
  }
  return best == NULL ? NULL : best->endpoint;
}

static uint64_t mix(uint64_t x) {
  // The finalizer of splitmix64.
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

// Highest random weight: each endpoint draws a number for this client, the highest
// wins; with a weight of n it draws n times. Whoever comes or goes changes the
// answer for its own clients alone.
static struct endpoint *choose_by_client(const struct choosing *by) {
  const struct origin_set *set = by->set;
  struct endpoint *best = NULL;
  uint64_t best_draw = 0;
  for (size_t at = 0; at < set->num; at++) {
    struct endpoint *endpoint = set->places[at].endpoint;
    const uint32_t num_draws = set->is_even ? 1 : set->places[at].weight;
    if (!may_take(by, at)) {
      continue;
    }
    for (uint32_t i = 0; i < num_draws; i++) {
      const uint64_t draw = mix(by->client ^ mix(endpoint->hash + i));
      if (best == NULL || draw > best_draw) {
        best = endpoint;
        best_draw = draw;
      }
    }
  }
  return best;
}

static struct endpoint *choose(const struct choosing *by, enum balance balance) {
  if (by->set->num <= 1) {
    return by->set->num == 1 && may_take(by, 0) ? by->set->places[0].endpoint : NULL;
  }
  switch (balance) {
    case BALANCE_LEAST_CONNECTIONS:
      return choose_least(by);
    case BALANCE_HASH_CLIENT:
      return choose_by_client(by);
    case BALANCE_ROUND_ROBIN:
      break;
  }
  return choose_in_turn(by);
}

struct endpoint *balance_choose(struct origin_set *set, enum balance balance, uint64_t client,
                                const uint32_t *tried, size_t num_tried) {
  struct choosing by = {set, tried, num_tried, client};
  struct endpoint *endpoint = NULL;
  for (; by.set != NULL && endpoint == NULL; by.set = by.set->reserve) {
    endpoint = choose(&by, balance);
  }
  return endpoint;
}

bool balance_is_full(const struct origin_set *set) {
  for (; set != NULL; set = set->reserve) {
    for (size_t i = 0; i < set->num; i++) {
      const struct endpoint *endpoint = set->places[i].endpoint;
      if (is_in_service(set, endpoint) && endpoint_is_full(endpoint)) {
        return true;
      }
    }
  }
  return false;
}

static void fill(struct origin_set *set) {
  set->total_weight = 0;
  set->is_even = true;
  for (size_t i = 0; i < set->num; i++) {
    set->places[i].weight_before = set->total_weight;
    set->total_weight += set->places[i].weight;
    set->is_even = set->is_even && set->places[i].weight == set->places[0].weight;
  }
}

void balance_fill(struct origin_set *set) {
  fill(set);
  if (set->reserve != NULL) {
    fill(set->reserve);
  }
  set->is_alone = set->num == 1 && set->reserve == NULL;
}

uint64_t balance_hash(const void *data, size_t len) {
  const uint8_t *bytes = data;
  uint64_t hash = len;
  for (size_t i = 0; i < len; i++) {
    hash = mix(hash + bytes[i] + 1);
  }
  return hash;
}
