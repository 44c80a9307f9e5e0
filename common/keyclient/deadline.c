// SPDX-License-Identifier: Apache-2.0
// Time: what is due of requests, in lists that are each in the order of their times, and
// one timer for all of them.
#include "common/keyclient/internal.h"

void kc_request_arm(struct keyclient *kc, int64_t due_ms) {
  if (due_ms < kc->armed_due_ms) {
    const int64_t after_ms = due_ms - loop_now_ms(kc->loop);
    kc->armed_due_ms = due_ms;
    timer_arm_ms(&kc->deadlines, after_ms > 0 ? after_ms : 0);
  }
}

// --- time ----------------------------------------------------------------------------------

// expire: the next server is asked as well. The one that was asked before may still
// answer.
static void expire(struct keyclient *kc, struct attempt *attempt) {
  struct request *req = attempt->req;
  struct server *server = attempt->link->server;

  attempt->is_expired = true;
  TAILQ_REMOVE(&kc->expiring, attempt, in_expiring);
  req->num_live--;
  kc_health_failed(server, KEYCLIENT_TIMEOUT);
  if (req->fn != NULL) {
    counter_add_own(&kc->stats.num_attempt_timeouts, 1);
    req->tried |= server_bit(server);
    kc_request_go_on(kc, req);
  }
}

static void end_wait(struct keyclient *kc, struct request *req) {
  kc_request_stop_waiting(kc, req);
  if (req->num_open == 0) {
    kc_request_give_up(kc, req);
  }
}

// hedge sends a copy to the next server; the one that was asked first stays asked.
static void hedge(struct keyclient *kc, struct request *req) {
  struct link *link = NULL;

  kc_request_stop_hedging(req);
  if (req->num_live != 1 || req->num_attempts >= KEYCLIENT_MAX_ATTEMPTS) {
    return;
  }
  link = order_pick(kc, req, true);
  if (link == NULL) {
    return;
  }
  if (!hedge_budget_spend(&kc->budget)) {
    counter_add_own(&kc->stats.num_hedges_denied, 1);
    return;
  }
  if (kc_request_send(kc, req, link, true)) {
    counter_add_own(&link->server->stats.num_hedges, 1);
  }
}

// end: the deadline. What servers owe to the request is not waited for any longer.
static void end(struct keyclient *kc, struct request *req) {
  for (unsigned i = 0; i < req->num_attempts; i++) {
    struct attempt *attempt = &req->attempts[i];
    if (attempt->link != NULL) {
      if (!attempt->is_expired) {
        kc_health_failed(attempt->link->server, KEYCLIENT_TIMEOUT);
      }
      attempt_close(kc, attempt);
    }
  }
  if (req->fn != NULL) {
    kc_request_finish(kc, req, STATUS_TIMEOUT, bytes_of(NULL, 0));
  } else {
    kc_request_forget(kc, req);
  }
}

static void arm_next(struct keyclient *kc) {
  const struct request *req = TAILQ_FIRST(&kc->life);
  const struct attempt *attempt = TAILQ_FIRST(&kc->expiring);

  if (req != NULL) {
    kc_request_arm(kc, req->due_ms);
  }
  if (attempt != NULL) {
    kc_request_arm(kc, attempt->due_ms);
  }
  req = TAILQ_FIRST(&kc->waiting);
  if (req != NULL) {
    kc_request_arm(kc, req->wait_due_ms);
  }
  for (size_t i = 0; i < kc->num_servers; i++) {
    req = TAILQ_FIRST(&kc->servers[i].hedging);
    if (req != NULL) {
      kc_request_arm(kc, req->hedge_due_ms);
    }
  }
}

// All lists are in the order of their times.
void kc_request_on_deadlines(void *arg) {
  struct keyclient *kc = arg;
  const int64_t now_ms = loop_now_ms(kc->loop);
  struct request *req = NULL;
  struct attempt *attempt = NULL;

  kc->armed_due_ms = INT64_MAX;
  while ((req = TAILQ_FIRST(&kc->life)) != NULL && req->due_ms <= now_ms) {
    end(kc, req);
  }
  while ((attempt = TAILQ_FIRST(&kc->expiring)) != NULL && attempt->due_ms <= now_ms) {
    expire(kc, attempt);
  }
  while ((req = TAILQ_FIRST(&kc->waiting)) != NULL && req->wait_due_ms <= now_ms) {
    end_wait(kc, req);
  }
  for (size_t i = 0; i < kc->num_servers; i++) {
    while ((req = TAILQ_FIRST(&kc->servers[i].hedging)) != NULL && req->hedge_due_ms <= now_ms) {
      hedge(kc, req);
    }
  }
  arm_next(kc);
}
