// SPDX-License-Identifier: Apache-2.0
// A request's life: made, entered into the table of ids, answered, and kept a little
// longer, without its callback, while servers owe answers to it.
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/keyclient/internal.h"

// --- the table of ids ------------------------------------------------------------------

// On the wire an id has 32 bits; no request lives until they come round again.
static struct request **bucket_of(struct keyclient *kc, uint32_t wire_id) {
  return &kc->buckets[wire_id & (KEYCLIENT_NUM_BUCKETS - 1)];
}

struct request **kc_request_find(struct keyclient *kc, uint32_t wire_id) {
  struct request **at = bucket_of(kc, wire_id);
  while (*at != NULL && (uint32_t)(*at)->id != wire_id) {
    at = &(*at)->next_in_bucket;
  }
  return at;
}

static uint64_t next_id(struct keyclient *kc) {
  do {
    kc->last_id++;
  } while ((uint32_t)kc->last_id == 0);  // 0 is for pings
  return kc->last_id;
}

// --- life -----------------------------------------------------------------------------------

static enum status copy_message(struct request *req, struct bytes message) {
  req->message = req->room;
  if (message.len > sizeof req->room) {
    req->message = malloc(message.len);
    if (req->message == NULL) {
      req->message = req->room;
      return STATUS_MEMORY;
    }
  }
  if (message.len > 0) {
    memcpy(req->message, message.data, message.len);
  }
  req->message_len = message.len;
  return STATUS_OK;
}

static enum status fill(struct request *req, const struct sign_request *from) {
  req->opcode = from->opcode;
  req->is_digest = from->scheme->digest_len != 0;
  memcpy(req->ski, from->ski, sizeof req->ski);
  req->sni_len = from->sni.len < sizeof req->sni ? from->sni.len : sizeof req->sni;
  if (req->sni_len > 0) {
    memcpy(req->sni, from->sni.data, req->sni_len);
  }
  req->digest_len = 0;
  if (req->is_digest &&
      scheme_digest(from->scheme, req->digest, &req->digest_len, from->message) != STATUS_OK) {
    return STATUS_CRYPTO;
  }
  return copy_message(req, from->message);
}

static void request_free(struct keyclient *kc, struct request *req) {
  if (req->message != req->room) {
    free(req->message);
  }
  if (kc->num_spare < KEYCLIENT_MAX_SPARE) {
    TAILQ_INSERT_HEAD(&kc->spare, req, in_life);
    kc->num_spare++;
  } else {
    free(req);
  }
}

enum status kc_request_new(struct request **out, struct keyclient *kc,
                           const struct sign_request *from) {
  struct request *req = TAILQ_FIRST(&kc->spare);
  enum status st = STATUS_OK;

  *out = NULL;
  if (req != NULL) {
    TAILQ_REMOVE(&kc->spare, req, in_life);
    kc->num_spare--;
  } else {
    req = malloc(sizeof *req);
    if (req == NULL) {
      return STATUS_MEMORY;
    }
  }
  req->message = req->room;
  st = fill(req, from);
  if (st != STATUS_OK) {
    request_free(kc, req);
    return st;
  }
  *out = req;
  return STATUS_OK;
}

void kc_request_start(struct keyclient *kc, struct request *req) {
  struct request **bucket = NULL;

  req->id = next_id(kc);
  bucket = bucket_of(kc, (uint32_t)req->id);
  req->next_in_bucket = *bucket;
  *bucket = req;
  req->started_us = clock_monotonic_us();
  req->due_ms = loop_now_ms(kc->loop) + kc->deadline_ms;
  req->is_waiting = false;
  req->is_refused = false;
  req->hedging = NULL;
  req->num_attempts = 0;
  req->num_open = 0;
  req->num_live = 0;
  req->asked = 0;
  req->tried = 0;
  req->code = FRAME_ERROR_NONE;
  TAILQ_INSERT_TAIL(&kc->life, req, in_life);
  kc->num_requests++;
  kc_request_arm(kc, req->due_ms);
  hedge_budget_earn(&kc->budget);
  kc_request_go_on(kc, req);
}

void kc_request_cancel(struct keyclient *kc, uint64_t id) {
  struct request *req = *kc_request_find(kc, (uint32_t)id);

  if (req != NULL && req->id == id && req->fn != NULL) {
    kc_request_settle(kc, req);
    kc_request_forget_if_done(kc, req);
  }
}

// --- the end ----------------------------------------------------------------------------

void kc_request_stop_waiting(struct keyclient *kc, struct request *req) {
  if (req->is_waiting) {
    TAILQ_REMOVE(&kc->waiting, req, in_waiting);
    req->is_waiting = false;
  }
}

void kc_request_stop_hedging(struct request *req) {
  if (req->hedging != NULL) {
    TAILQ_REMOVE(&req->hedging->hedging, req, in_hedging);
    req->hedging = NULL;
  }
}

void attempt_close(struct keyclient *kc, struct attempt *attempt) {
  struct request *req = attempt->req;
  struct server *server = attempt->link->server;

  TAILQ_REMOVE(&attempt->link->attempts, attempt, in_link);
  if (!attempt->is_expired) {
    TAILQ_REMOVE(&kc->expiring, attempt, in_expiring);
    req->num_live--;
  }
  attempt->link = NULL;
  req->num_open--;
  req->asked &= ~server_bit(server);
  counter_add_own(&server->stats.num_in_flight, UINT64_MAX);  // one less
}

// forget takes the request out of everything and frees it.
void kc_request_forget(struct keyclient *kc, struct request *req) {
  struct request **at = kc_request_find(kc, (uint32_t)req->id);

  CHECK(*at == req && req->num_open == 0 && !req->is_waiting && req->hedging == NULL);
  *at = req->next_in_bucket;
  TAILQ_REMOVE(&kc->life, req, in_life);
  kc->num_requests--;
  if (kc->num_requests == 0) {
    timer_cancel(&kc->deadlines);  // no wake-up for nothing
    kc->armed_due_ms = INT64_MAX;
  }
  request_free(kc, req);
}

// settle: nobody waits for the request any more.
void kc_request_settle(struct keyclient *kc, struct request *req) {
  req->fn = NULL;
  kc_request_stop_waiting(kc, req);
  kc_request_stop_hedging(req);
}

void kc_request_forget_if_done(struct keyclient *kc, struct request *req) {
  if (req->num_open == 0) {
    kc_request_forget(kc, req);
  }
}

// finish answers. The request is settled before the callback runs, so that it may ask
// again or cancel others; nothing in it frees a settled request.
void kc_request_finish(struct keyclient *kc, struct request *req, enum status st,
                       struct bytes signature) {
  const struct sign_answer answer = {.st = st, .code = req->code, .signature = signature};
  void (*fn)(void *arg, const struct sign_answer *answer) = req->fn;
  void *arg = req->arg;

  kc_request_settle(kc, req);
  if (st == STATUS_OK) {
    counter_add_own(&kc->stats.num_signed, 1);
    histogram_add_us(&kc->stats.latency, (uint64_t)(clock_monotonic_us() - req->started_us));
  } else {
    counter_add_own(&kc->stats.num_failed[st], 1);
  }
  fn(arg, &answer);
  kc_request_forget_if_done(kc, req);
}

// free_list frees a list whose heads are not used again.
static void free_list(struct request_list *list, bool is_spare) {
  struct request *next = NULL;

  for (struct request *req = TAILQ_FIRST(list); req != NULL; req = next) {
    next = TAILQ_NEXT(req, in_life);
    if (!is_spare && req->message != req->room) {
      free(req->message);
    }
    free(req);
  }
}

void kc_requests_free(struct keyclient *kc) {
  free_list(&kc->life, false);
  free_list(&kc->spare, true);
}
