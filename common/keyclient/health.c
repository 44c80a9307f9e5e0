// SPDX-License-Identifier: Apache-2.0
// What is known of each server: how far it is, how long it takes, whether it fails; and
// the pings that find out. Gauges are stored when they change.
#include <openssl/rand.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/keyclient/internal.h"

#define US_PER_MS 1000
#define FADE_MS 60000  // p95 forgets a half in this time
#define DOUBT_MS 2000  // from one doubt that is looked into to the next
#define LINES_PER_S 5

static uint16_t random_16(void) {
  uint16_t random = 0;
  RAND_bytes((uint8_t *)&random, sizeof random);
  return random;
}

int64_t keyclient_jitter_ms(int64_t ms) {
  return ms * 3 / 4 + ms * random_16() / (INT64_C(2) * UINT16_MAX);
}

static void set(struct counter *gauge, int64_t value) {
  atomic_store_explicit(&gauge->value, value > 0 ? (uint64_t)value : 0, memory_order_relaxed);
}

// --- latency -------------------------------------------------------------------------------

// publish also works out what follows from the latency: when to hedge, and when an answer
// is owed for so long that others are asked first.
static void publish(struct server *server) {
  const struct keyclient *kc = server->kc;
  const struct latency *latency = &server->latency;
  const int64_t p95_ms = latency_p95_us(latency) / US_PER_MS;

  server->hedge_after_ms = hedge_after_ms(latency, kc->attempt_ms);
  server->suspect_ms = kc->attempt_ms;
  if (latency_p95_us(latency) > 0) {
    const int64_t ms = p95_ms * KEYCLIENT_SUSPECT_P95S;
    server->suspect_ms = ms < KEYCLIENT_SUSPECT_MS ? KEYCLIENT_SUSPECT_MS : ms;
    server->suspect_ms = server->suspect_ms < kc->attempt_ms ? server->suspect_ms : kc->attempt_ms;
  }
  set(&server->stats.srtt_us, latency->srtt_us);
  set(&server->stats.rttvar_us, latency->rttvar_us);
  set(&server->stats.distance_us, latency_distance_us(latency));
  set(&server->stats.hedge_after_us,
      kc->budget.percent > 0 ? server->hedge_after_ms * US_PER_MS : 0);
}

// --- the breaker ---------------------------------------------------------------------------

static void on_breaker(struct server *server) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  const enum breaker_state state = server->breaker.state;

  set(&server->stats.breaker, (int64_t)state);
  if (state == BREAKER_OPEN) {
    counter_add_own(&server->stats.num_openings, 1);
  }
  if (!log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    return;
  }
  if (state == BREAKER_OPEN) {
    log_warn(0, "key_server_avoided", "server=%s probe_ms=%lld held=%llu", server->label,
             (long long)(server->breaker.probe_ms - server->breaker.opened_ms),
             (unsigned long long)num_held);
  } else {
    log_info(0, "key_server_used_again", "server=%s held=%llu", server->label,
             (unsigned long long)num_held);
  }
}

static void note_bad(struct server *server) {
  if (breaker_note_bad(&server->breaker, loop_now_ms(server->kc->loop), random_16())) {
    on_breaker(server);
  }
}

static void end_probe(struct link *link, bool is_good) {
  struct server *server = link->server;

  if (!link->is_probe) {
    return;
  }
  link->is_probe = false;
  if (breaker_probe_done(&server->breaker, is_good, loop_now_ms(server->kc->loop), random_16())) {
    on_breaker(server);
  }
}

static void probe(struct link *link) {
  link->is_probe = true;
  breaker_probe(&link->server->breaker);
  set(&link->server->stats.breaker, BREAKER_HALF_OPEN);
}

// ping_one sends a ping over one connection; where the last one is not answered yet, this
// one would not be either. NULL: there is none.
static struct link *ping_one(struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    struct link *link = &server->links[i];
    if (link->state == LINK_OPEN && link->pinged_us == 0 && link_ping(link) == STATUS_OK) {
      return link;
    }
  }
  return NULL;
}

// --- events ----------------------------------------------------------------------------------

void kc_health_init(struct server *server) {
  server->hedge_after_ms = -1;
  server->suspect_ms = server->kc->attempt_ms;
}

void kc_health_answered(struct server *server, const struct attempt *attempt, int64_t us) {
  counter_add_own(&server->stats.num_answered, 1);
  latency_add_answer(&server->latency, us);
  publish(server);
  if (!attempt->is_expired && breaker_note_good(&server->breaker, attempt->sent_us / US_PER_MS,
                                                loop_now_ms(server->kc->loop))) {
    on_breaker(server);
  }
}

void kc_health_ponged(struct link *link) {
  struct server *server = link->server;

  if (link->pinged_us == 0) {
    return;  // not asked for
  }
  latency_add_ping(&server->latency, clock_monotonic_us() - link->pinged_us);
  link->pinged_us = 0;
  link->is_ping_overdue = false;
  publish(server);
  order_update(server->kc);
  end_probe(link, true);
  if (link->num_to_ping > 0) {
    link->num_to_ping--;
    (void)link_ping(link);
  }
}

void kc_health_failed(struct server *server, enum keyclient_failure failure) {
  counter_add_own(&server->stats.num_failed[failure], 1);
  server->is_unreachable = failure == KEYCLIENT_CONNECT;
  note_bad(server);
}

// kc_health_opened measures at once: until then the order is that of the configuration. A
// server that was avoided because it could not be connected is probed without a pause.
void kc_health_opened(struct link *link) {
  struct server *server = link->server;
  const bool may_probe = breaker_may_probe(&server->breaker, loop_now_ms(server->kc->loop)) ||
                         (server->breaker.state == BREAKER_OPEN && server->is_unreachable);

  counter_add_own(&server->stats.num_connections, 1);
  link->num_to_ping = latency_distance_us(&server->latency) < 0 ? LATENCY_NUM_PINGS - 1 : 0;
  if (link_ping(link) == STATUS_OK && may_probe) {
    probe(link);
  }
}

void kc_health_closed(struct link *link) {
  counter_add_own(&link->server->stats.num_connections, UINT64_MAX);  // one less
  end_probe(link, false);
  link->pinged_us = 0;
  link->is_ping_overdue = false;
  link->num_to_ping = 0;
}

// --- time --------------------------------------------------------------------------------------

void kc_health_tick_link(struct link *link, int64_t now_ms) {
  struct keyclient *kc = link->server->kc;
  const int64_t owes_ms = link_owes_ms(link);

  if (link->state != LINK_OPEN) {
    return;
  }
  if (owes_ms > kc->deadline_ms + KEYCLIENT_STALL_MS) {
    link_drop(link, "it does not answer");
    return;
  }
  if (link->pinged_us != 0 && !link->is_ping_overdue &&
      clock_monotonic_us() - link->pinged_us > kc->attempt_ms * US_PER_MS) {
    link->is_ping_overdue = true;
    end_probe(link, false);
  }
  // Requests that were answered elsewhere, or cancelled, say nothing of this one.
  if (owes_ms > kc->attempt_ms) {
    note_bad(link->server);
  }
  if (link->pinged_us == 0 && now_ms - link->sent_ms > link->quiet_ms) {
    (void)link_ping(link);
  }
}

// look_closer measures the distance anew: all that it rests on is replaced.
static void look_closer(struct server *server, int64_t now_ms) {
  struct link *link = NULL;

  if (!latency_is_in_doubt(&server->latency) || now_ms - server->doubted_ms < DOUBT_MS) {
    return;
  }
  link = ping_one(server);
  if (link != NULL) {
    server->doubted_ms = now_ms;
    link->num_to_ping = LATENCY_NUM_PINGS - 1;
  }
}

void kc_health_tick(struct server *server, int64_t now_ms) {
  if (breaker_may_probe(&server->breaker, now_ms)) {
    struct link *link = ping_one(server);
    if (link != NULL) {
      probe(link);
    }
  }
  look_closer(server, now_ms);
  if (now_ms - server->faded_ms >= FADE_MS) {
    server->faded_ms = now_ms;
    latency_fade(&server->latency);
    publish(server);
  }
}
