// SPDX-License-Identifier: Apache-2.0
// A server's addresses, as DNS has them, and the connections to them: at least one to
// each, num_connections at least. A link is a slot; while one leaves, another takes its
// place, so that there are more slots than connections.
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/keyclient/internal.h"
#include "common/net/address.h"

#define LINES_PER_S 5

// --- addresses ---------------------------------------------------------------------------

static bool is_same(const struct address *a, const struct address *b) {
  return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

static struct place *place_of(struct server *server, const struct address *address) {
  for (size_t i = 0; i < server->num_places; i++) {
    if (is_same(&server->places[i].address, address)) {
      return &server->places[i];
    }
  }
  return NULL;
}

static bool is_resting(const struct place *place, int64_t now_ms) {
  return now_ms < place->rest_until_ms;
}

// num_at counts the connections to an address, made or being made.
static size_t num_at(const struct server *server, const struct place *place) {
  size_t num = 0;

  for (size_t i = 0; i < server->num_links; i++) {
    const struct link *link = &server->links[i];
    num += (link->state == LINK_CONNECTING || link->state == LINK_OPEN) && !link->is_leaving &&
                   is_same(&link->address, &place->address)
               ? 1
               : 0;
  }
  return num;
}

// kc_pool_choose takes the address with the fewest connections; one that could not be
// connected of late only when all are such, and then the one that has rested longest.
const struct address *kc_pool_choose(const struct server *server) {
  const int64_t now_ms = loop_now_ms(server->kc->loop);
  const struct place *best = NULL;
  size_t best_num = 0;

  for (size_t i = 0; i < server->num_places; i++) {
    const struct place *place = &server->places[i];
    const size_t num = num_at(server, place);
    const bool rests = is_resting(place, now_ms);
    const bool best_rests = best != NULL && is_resting(best, now_ms);
    if (best == NULL || (best_rests && !rests) ||
        (rests == best_rests &&
         (rests ? place->rest_until_ms < best->rest_until_ms : num < best_num))) {
      best = place;
      best_num = num;
    }
  }
  return best == NULL ? NULL : &best->address;
}

void kc_pool_note_connect(struct server *server, const struct address *address, bool is_good) {
  struct place *place = place_of(server, address);

  if (place != NULL) {
    place->rest_until_ms =
        is_good ? 0 : loop_now_ms(server->kc->loop) + keyclient_jitter_ms(KEYCLIENT_REST_MS);
  }
}

void kc_pool_shun(struct server *server, const struct address *address, int64_t until_ms) {
  for (size_t i = 0; i < server->num_links; i++) {
    struct link *link = &server->links[i];
    if (link->state == LINK_OPEN && is_same(&link->address, address)) {
      link->shun_until_ms = until_ms;
    }
  }
}

bool kc_pool_has(struct server *server, const struct address *address) {
  return place_of(server, address) != NULL;
}

// --- how many connections ------------------------------------------------------------------

// count_links counts those that are made or to be made, without the leaving ones.
static size_t count_links(const struct server *server) {
  size_t num = 0;

  for (size_t i = 0; i < server->num_links; i++) {
    const struct link *link = &server->links[i];
    num += link->state != LINK_UNUSED && !link->is_leaving ? 1 : 0;
  }
  return num;
}

static size_t num_wanted(const struct server *server) {
  const int64_t now_ms = loop_now_ms(server->kc->loop);
  size_t num = 0;

  for (size_t i = 0; i < server->num_places; i++) {
    num += is_resting(&server->places[i], now_ms) ? 0 : 1;
  }
  return num > server->kc->num_connections ? num : server->kc->num_connections;
}

bool kc_pool_is_surplus(const struct link *link) {
  return count_links(link->server) > num_wanted(link->server);
}

static struct link *unused_link(struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    if (server->links[i].state == LINK_UNUSED) {
      return &server->links[i];
    }
  }
  return NULL;
}

// is_uncovered: there is an address worth trying that has no connection.
static bool is_uncovered(const struct server *server) {
  const int64_t now_ms = loop_now_ms(server->kc->loop);

  for (size_t i = 0; i < server->num_places; i++) {
    if (!is_resting(&server->places[i], now_ms) && num_at(server, &server->places[i]) == 0) {
      return true;
    }
  }
  return false;
}

static bool is_all_open(const struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    const struct link *link = &server->links[i];
    if (link->state != LINK_UNUSED && link->state != LINK_OPEN) {
      return false;
    }
  }
  return true;
}

// leave_crowd: of the addresses the one with the most connections loses one.
static void leave_crowd(struct server *server) {
  struct link *worst = NULL;
  size_t worst_num = 1;

  for (size_t i = 0; i < server->num_links; i++) {
    struct link *link = &server->links[i];
    const struct place *place = place_of(server, &link->address);
    size_t num = 0;
    if (link->state != LINK_OPEN || link->is_leaving || place == NULL) {
      continue;
    }
    num = num_at(server, place);
    if (num > worst_num) {
      worst = link;
      worst_num = num;
    }
  }
  if (worst != NULL) {
    worst->is_leaving = true;
  }
}

static void retire_leaving(struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    link_retire(&server->links[i]);
  }
}

// A new connection is made before an old one is taken away: an address that has none while
// others have several gets one first, and then there is one too many.
void kc_pool_plan(struct server *server) {
  struct link *link = NULL;

  while (count_links(server) < num_wanted(server) && (link = unused_link(server)) != NULL) {
    link_connect(link);
    if (link->state == LINK_UNUSED) {
      break;
    }
  }
  if (is_all_open(server)) {
    link = unused_link(server);
    if (count_links(server) > num_wanted(server)) {
      leave_crowd(server);
    } else if (link != NULL && is_uncovered(server)) {
      link_connect(link);
    }
  }
  retire_leaving(server);
}

void kc_pool_wake(struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    if (link_wake(&server->links[i])) {
      return;
    }
  }
}

// --- DNS -----------------------------------------------------------------------------------

static void log_unresolved(const struct server *server, enum status st) {
  static struct log_gate gate;
  uint64_t num_held = 0;

  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_warn(0, "key_server_unresolved", "server=%s reason=%s known=%zu held=%llu", server->label,
             status_name(st), server->num_places, (unsigned long long)num_held);
  }
}

// take_addresses replaces the list; what is known of those that stay is kept.
static void take_addresses(struct server *server, const struct address *addresses, size_t num) {
  struct place places[RESOLVE_MAX_ADDRESSES] = {0};

  for (size_t i = 0; i < num; i++) {
    const struct place *known = place_of(server, &addresses[i]);
    places[i].address = addresses[i];
    if (known != NULL) {
      places[i] = *known;
    }
  }
  memcpy(server->places, places, sizeof server->places);
  server->num_places = num;
  for (size_t i = 0; i < server->num_links; i++) {
    struct link *link = &server->links[i];
    if (link->state == LINK_OPEN && place_of(server, &link->address) == NULL) {
      link->is_leaving = true;
    }
  }
}

static void on_addresses(void *arg, enum status st, const struct address *addresses, size_t num) {
  struct server *server = arg;

  server->query = NULL;
  server->resolved_ms = loop_now_ms(server->kc->loop);
  if (st == STATUS_OK && num > 0) {
    take_addresses(server, addresses, num);
  } else {
    // What is known stays: a DNS that fails must not take key servers away.
    counter_add_own(&server->kc->stats.num_resolve_failed, 1);
    log_unresolved(server, st);
  }
  for (size_t i = 0; i < server->num_links; i++) {
    if (server->links[i].state == LINK_RESOLVING) {
      link_connect(&server->links[i]);
    }
  }
  kc_pool_plan(server);
}

void kc_pool_resolve(struct server *server) {
  const int64_t now_ms = loop_now_ms(server->kc->loop);

  if (server->query != NULL ||
      (server->num_places > 0 &&
       (server->is_numeric || now_ms - server->resolved_ms < KEYCLIENT_FRESH_MS))) {
    return;
  }
  if (resolver_query(&server->query, server->kc->resolver, server->host, server->port, on_addresses,
                     server) != STATUS_OK) {
    server->query = NULL;
    counter_add_own(&server->kc->stats.num_resolve_failed, 1);
  }
}

static void on_resolve(void *arg) {
  struct server *server = arg;

  kc_pool_resolve(server);
  timer_arm_ms(&server->resolve, keyclient_jitter_ms(server->kc->resolve_ms));
}

// --- life ------------------------------------------------------------------------------------

enum status kc_pool_init(struct server *server, size_t num_connections) {
  enum status st = STATUS_OK;
  struct address address;
  size_t num = num_connections;

  server->is_numeric = address_from_host(&address, server->host, server->port) == STATUS_OK;
  TRY(timer_init(&server->resolve, server->kc->loop, on_resolve, server));
  if (server->is_numeric) {
    server->places[0].address = address;
    server->num_places = 1;
  } else {
    num = 2 * (num > RESOLVE_MAX_ADDRESSES ? num : RESOLVE_MAX_ADDRESSES);
    timer_arm_ms(&server->resolve, keyclient_jitter_ms(server->kc->resolve_ms));
  }
  server->links = calloc(num, sizeof(struct link));
  if (server->links == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num; i++) {
    TRY(link_init(&server->links[i], server));
    server->num_links++;
  }

out:
  return st;
}

void kc_pool_cleanup(struct server *server) {
  resolve_query_cancel(server->query);
  timer_cleanup(&server->resolve);
  for (size_t i = 0; i < server->num_links; i++) {
    link_cleanup(&server->links[i]);
  }
  free(server->links);
}
