// SPDX-License-Identifier: Apache-2.0
// Where a request goes, and what comes of it.
//
//             +--> WAITING for a connection --+
//   start ----+              ^                +--> answered, given up
//             +--> ASKED ----+ all lost ------+
//                    one attempt; or several: hedged, expired
//
// kc_request_go_on is the only code that decides what comes next.
#include "common/base/clock.h"
#include "common/keyclient/internal.h"

// --- asking -----------------------------------------------------------------------------------

// plan_hedge: the list of a server stays in the order of its times, also when its p95 has
// become shorter.
static void plan_hedge(struct keyclient *kc, struct request *req, struct server *server) {
  const struct request *last = TAILQ_LAST(&server->hedging, request_list);

  if (server->hedge_after_ms < 0 || kc->budget.percent == 0 || kc->num_servers < 2) {
    return;
  }
  req->hedge_due_ms = loop_now_ms(kc->loop) + server->hedge_after_ms;
  if (last != NULL && last->hedge_due_ms > req->hedge_due_ms) {
    req->hedge_due_ms = last->hedge_due_ms;
  }
  req->hedging = server;
  TAILQ_INSERT_TAIL(&server->hedging, req, in_hedging);
  kc_request_arm(kc, req->hedge_due_ms);
}

bool kc_request_send(struct keyclient *kc, struct request *req, struct link *link, bool is_hedge) {
  struct attempt *attempt = &req->attempts[req->num_attempts];
  struct server *server = link->server;

  if (link_send(link, req) != STATUS_OK) {
    return false;
  }
  *attempt = (struct attempt){
      .req = req,
      .link = link,
      .sent_us = clock_monotonic_us(),
      .due_ms = loop_now_ms(kc->loop) + kc->attempt_ms,
      .is_hedge = is_hedge,
  };
  TAILQ_INSERT_TAIL(&link->attempts, attempt, in_link);
  TAILQ_INSERT_TAIL(&kc->expiring, attempt, in_expiring);
  req->num_attempts++;
  req->num_open++;
  req->num_live++;
  req->asked |= server_bit(server);
  counter_add_own(&server->stats.num_requests, 1);
  counter_add_own(&server->stats.num_in_flight, 1);
  kc_request_arm(kc, attempt->due_ms);
  return true;
}

// place sends the request to the best link there is. False: there is none.
bool kc_request_place(struct keyclient *kc, struct request *req) {
  struct link *link = order_pick(kc, req, false);
  const bool is_first = req->num_attempts == 0;

  if (link == NULL || !kc_request_send(kc, req, link, false)) {
    return false;
  }
  kc_request_stop_waiting(kc, req);
  if (is_first) {
    plan_hedge(kc, req, link->server);
  } else {
    kc_request_stop_hedging(req);
    counter_add_own(&kc->stats.num_failovers, 1);
  }
  return true;
}

// wake_servers: a server that came back must not be missed for the rest of a long
// pause. One connection to each is tried; the others follow in their own time.
static void wake_servers(struct keyclient *kc, const struct request *req) {
  for (size_t i = 0; i < kc->num_servers; i++) {
    struct server *server = &kc->servers[i];
    if (server->num_open == 0 && ((req->tried | req->asked) & server_bit(server)) == 0) {
      kc_pool_wake(server);
    }
  }
}

// wait leaves the request to the next link that opens, for as long as an attempt.
static void wait_for_link(struct keyclient *kc, struct request *req) {
  if (!req->is_waiting) {
    req->is_waiting = true;
    req->wait_due_ms = loop_now_ms(kc->loop) + kc->attempt_ms;
    TAILQ_INSERT_TAIL(&kc->waiting, req, in_waiting);
    kc_request_arm(kc, req->wait_due_ms);
  }
  wake_servers(kc, req);
}

// --- what comes next
// ------------------------------------------------------------------------------

static enum status status_of(enum frame_error code) {
  switch (code) {
    case FRAME_ERROR_KEY_NOT_FOUND:
      return STATUS_NOT_FOUND;
    case FRAME_ERROR_CRYPTOGRAPHY:
      return STATUS_CRYPTO;
    case FRAME_ERROR_RATE:
      return STATUS_LIMIT;
    case FRAME_ERROR_NONE:
    case FRAME_ERROR_READ:
    case FRAME_ERROR_INTERNAL:
    case FRAME_ERROR_REMOTE_CONFIG:
    case FRAME_ERROR_BUSY:
      return STATUS_UNAVAILABLE;
    default:
      return STATUS_REFUSED;
  }
}

void kc_request_give_up(struct keyclient *kc, struct request *req) {
  kc_request_finish(kc, req, status_of(req->code), bytes_of(NULL, 0));
}

static bool all_tried(const struct keyclient *kc, const struct request *req) {
  const uint32_t all = (UINT32_C(1) << kc->num_servers) - 1;
  return ((req->tried | req->asked) & all) == all;
}

// go_on: an attempt failed or took too long. While another one is live, that is waited
// for; one that is expired may still answer, and is all there is when all were tried.
void kc_request_go_on(struct keyclient *kc, struct request *req) {
  if (req->num_live > 0) {
    return;
  }
  if (!req->is_refused && !all_tried(kc, req) && req->num_attempts < KEYCLIENT_MAX_ATTEMPTS) {
    if (!kc_request_place(kc, req)) {
      wait_for_link(kc, req);
    }
  } else if (req->is_refused || req->num_open == 0) {
    kc_request_give_up(kc, req);
  }
}

// --- what links say ------------------------------------------------------------------------------

void kc_request_link_has_room(struct link *link) {
  struct keyclient *kc = link->server->kc;
  struct request *req = TAILQ_FIRST(&kc->waiting);

  while (req != NULL && link_may_take(link)) {
    struct request *next = TAILQ_NEXT(req, in_waiting);
    (void)kc_request_place(kc, req);
    req = next;
  }
}

void kc_request_link_lost(struct link *link, bool is_orderly) {
  struct keyclient *kc = link->server->kc;
  struct attempt *attempt = NULL;

  while ((attempt = TAILQ_FIRST(&link->attempts)) != NULL) {
    struct request *req = attempt->req;
    if (!is_orderly) {
      counter_add_own(&link->server->stats.num_failed[KEYCLIENT_LOST], 1);
    }
    // It leaves the list for good; the analyzer cannot see that.
    attempt_close(kc, attempt);  // NOLINT(clang-analyzer-unix.Malloc)
    if (req->fn == NULL) {
      kc_request_forget_if_done(kc, req);
    } else {
      kc_request_go_on(kc, req);
    }
  }
}

static struct attempt *attempt_at(struct request *req, const struct link *link) {
  for (unsigned i = 0; req != NULL && i < req->num_attempts; i++) {
    if (req->attempts[i].link == link) {
      return &req->attempts[i];
    }
  }
  return NULL;
}

static bool has_no_key(enum frame_error code) {
  return code == FRAME_ERROR_KEY_NOT_FOUND || code == FRAME_ERROR_NOT_AUTHORISED;
}

// note_error: what it says of the server, and of the key there.
static void note_error(struct server *server, const struct request *req, enum frame_error code) {
  struct keyclient *kc = server->kc;

  if (has_no_key(code)) {
    counter_add_own(&server->stats.num_failed[KEYCLIENT_NO_KEY], 1);
    if (kc->num_servers > 1) {
      key_notes_add(&kc->notes, req->ski, server->index, loop_now_ms(kc->loop));
    }
  } else if (code == FRAME_ERROR_CRYPTOGRAPHY) {
    // One key's matter: its errors must not keep requests for others away.
    counter_add_own(&server->stats.num_failed[KEYCLIENT_ERROR], 1);
  } else if (frame_error_may_failover(code)) {
    kc_health_failed(server, KEYCLIENT_ERROR);
  } else {
    counter_add_own(&server->stats.num_failed[KEYCLIENT_REFUSED], 1);
  }
}

// take_error: what a server says about itself, its keys or its rights, others may cure.
static void take_error(struct keyclient *kc, struct request *req, uint32_t bit, bool is_late,
                       enum frame_error code) {
  req->tried |= bit;
  if (is_late && req->num_open > 0) {
    counter_add_own(&kc->stats.num_late_replies, 1);
    return;  // the one that was asked after it decides
  }
  req->code = code;
  req->is_refused = !frame_error_may_failover(code);
  kc_request_go_on(kc, req);
}

void kc_request_answered(struct link *link, uint32_t id, enum status st, enum frame_error code,
                         struct bytes signature) {
  struct server *server = link->server;
  struct keyclient *kc = server->kc;
  struct request *req = *kc_request_find(kc, id);
  struct attempt *attempt = attempt_at(req, link);
  bool is_late = false;

  if (attempt == NULL) {
    counter_add_own(&kc->stats.num_late_replies, 1);
    return;
  }
  is_late = attempt->is_expired;
  if (st == STATUS_OK) {
    kc_health_answered(server, attempt, clock_monotonic_us() - attempt->sent_us);
    key_notes_drop(&kc->notes, req->ski, server->index);
  } else {
    note_error(server, req, code);
  }
  attempt_close(kc, attempt);
  if (req->fn == NULL) {
    counter_add_own(&kc->stats.num_late_replies, 1);
    kc_request_forget_if_done(kc, req);
  } else if (st == STATUS_OK) {
    req->code = FRAME_ERROR_NONE;
    if (attempt->is_hedge) {
      counter_add_own(&server->stats.num_hedge_wins, 1);
    }
    kc_request_finish(kc, req, STATUS_OK, signature);
  } else {
    take_error(kc, req, server_bit(server), is_late, code);
  }
}
