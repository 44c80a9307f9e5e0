// SPDX-License-Identifier: Apache-2.0
// Which server is asked next, and over which connection. The order by distance changes
// seldom and is kept; what may change with every request is looked at for each.
#include "common/keyclient/internal.h"

// What speaks against a server. It does not shut it out: the least bad one is asked.
enum {
  BAD_LINK = 1,  // all that is left are connections to be closed
  BAD_SLOW = 2,  // owes answers for too long, or has just closed a connection
  BAD_BREAKER = 4,
  BAD_KEY = 8,  // said it has not got the key: surely a wasted attempt
};

// --- the order -----------------------------------------------------------------------------

static bool is_nearer(int64_t one_us, int64_t other_us) {
  const int64_t quarter_us = other_us / 4;
  const int64_t margin_us =
      quarter_us > KEYCLIENT_ORDER_MARGIN_US ? quarter_us : KEYCLIENT_ORDER_MARGIN_US;
  return one_us + margin_us <= other_us;
}

// Neighbours change places only when the second is clearly nearer: two that are much the
// same stay as they are. Each pass moves a server past those it is nearer than. The
// unmeasured keep their places, and nobody back.
void order_sort(uint8_t *order, size_t num, const int64_t *distance_us) {
  for (size_t pass = 1; pass < num; pass++) {
    uint8_t *before = NULL;
    for (size_t i = 0; i < num; i++) {
      if (distance_us[order[i]] < 0) {
        continue;
      }
      if (before != NULL && is_nearer(distance_us[order[i]], distance_us[*before])) {
        const uint8_t nearer = order[i];
        order[i] = *before;
        *before = nearer;
      }
      before = &order[i];
    }
  }
}

void order_update(struct keyclient *kc) {
  int64_t distance_us[KEYCLIENT_MAX_SERVERS];

  for (size_t i = 0; i < kc->num_servers; i++) {
    distance_us[i] = latency_distance_us(&kc->servers[i].latency);
  }
  order_sort(kc->order, kc->num_servers, distance_us);
  for (size_t i = 0; i < kc->num_servers; i++) {
    atomic_store_explicit(&kc->servers[kc->order[i]].stats.place.value, i + 1,
                          memory_order_relaxed);
  }
}

// --- the choice ----------------------------------------------------------------------------

struct choice {
  struct link *link;
  unsigned bad;
};

static unsigned badness_of_link(const struct link *link, int64_t now_ms) {
  const bool is_slow =
      link_owes_ms(link) > link->server->suspect_ms || now_ms < link->shun_until_ms;
  return (link->is_leaving ? (unsigned)BAD_LINK : 0) | (is_slow ? (unsigned)BAD_SLOW : 0);
}

// choose_link starts behind the connection that it took last, so that all addresses of a
// name are used also when little is asked.
static struct choice choose_link(struct server *server, int64_t now_ms) {
  struct choice best = {NULL, UINT32_MAX};

  for (size_t n = 0; n < server->num_links; n++) {
    struct link *link = &server->links[(server->turn + n) % server->num_links];
    unsigned bad = 0;
    if (!link_may_take(link)) {
      continue;
    }
    bad = badness_of_link(link, now_ms);
    if (bad < best.bad ||
        (bad == best.bad && link_num_unanswered(link) < link_num_unanswered(best.link))) {
      best = (struct choice){link, bad};
    }
  }
  if (best.link != NULL) {
    server->turn = (size_t)(best.link - server->links) + 1;
  }
  return best;
}

static unsigned badness_of_server(const struct server *server, uint32_t lacking) {
  return ((lacking & server_bit(server)) != 0 ? (unsigned)BAD_KEY : 0) |
         (server->breaker.state != BREAKER_CLOSED ? (unsigned)BAD_BREAKER : 0);
}

static void count_skipped(struct keyclient *kc, uint32_t skipped) {
  for (size_t i = 0; skipped != 0; i++, skipped >>= 1) {
    if ((skipped & 1) != 0) {
      counter_add_own(&kc->servers[i].stats.num_skipped, 1);
    }
  }
}

struct link *order_pick(struct keyclient *kc, const struct request *req, bool is_hedge) {
  const int64_t now_ms = loop_now_ms(kc->loop);
  const uint32_t lacking = key_notes_find(&kc->notes, req->ski, now_ms);
  const uint32_t done = req->tried | req->asked;
  struct choice best = {NULL, UINT32_MAX};
  uint32_t skipped = 0;

  for (size_t i = 0; i < kc->num_servers && best.bad != 0; i++) {
    struct server *server = &kc->servers[kc->order[i]];
    struct choice choice;
    if (server->num_open == 0 || (done & server_bit(server)) != 0) {
      continue;
    }
    choice = choose_link(server, now_ms);
    if (choice.link == NULL) {
      continue;
    }
    choice.bad |= badness_of_server(server, lacking);
    if ((choice.bad & BAD_KEY) != 0) {
      skipped |= server_bit(server);
    }
    if (choice.bad < best.bad) {
      best = choice;
    }
  }
  if (best.link == NULL || (is_hedge && best.bad > BAD_LINK)) {
    return NULL;
  }
  if (skipped != 0 && (best.bad & BAD_KEY) == 0) {
    count_skipped(kc, skipped);
  }
  return best.link;
}
