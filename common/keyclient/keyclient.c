// SPDX-License-Identifier: Apache-2.0
// Requests: from keyclient_sign to the one callback. Each is in one of three
// places, and `place` below is the only code that moves it:
//
//   sign --> AT A LINK <--> WAITING --> answered, given up
//                |             ^
//                +-------------+  link lost, no other there
#include "common/keyclient/keyclient.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/keyclient/internal.h"
#include "common/net/address.h"
#include "common/wire/signing_input.h"

// --- the table of ids ------------------------------------------------------------------

// On the wire an id has 32 bits; no request lives until they come round again.
static struct request **bucket_of(struct keyclient *kc, uint32_t wire_id) {
  return &kc->buckets[wire_id & (KEYCLIENT_NUM_BUCKETS - 1)];
}

static struct request **find(struct keyclient *kc, uint32_t wire_id) {
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

static struct request *request_new(struct keyclient *kc) {
  struct request *req = TAILQ_FIRST(&kc->spare);

  if (req != NULL) {
    TAILQ_REMOVE(&kc->spare, req, in_life);
    kc->num_spare--;
    return req;
  }
  return malloc(sizeof *req);
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

static void stop_attempt(struct keyclient *kc, struct request *req) {
  if (req->is_timed) {
    TAILQ_REMOVE(&kc->attempts, req, in_attempt);
    req->is_timed = false;
  }
}

static void arm_deadlines(struct keyclient *kc, int64_t due_ms) {
  if (due_ms < kc->armed_due_ms) {
    const int64_t after_ms = due_ms - loop_now_ms(kc->loop);
    kc->armed_due_ms = due_ms;
    timer_arm_ms(&kc->deadlines, after_ms > 0 ? after_ms : 0);
  }
}

static void start_attempt(struct keyclient *kc, struct request *req) {
  stop_attempt(kc, req);
  req->attempt_due_ms = loop_now_ms(kc->loop) + kc->attempt_ms;
  req->is_timed = true;
  TAILQ_INSERT_TAIL(&kc->attempts, req, in_attempt);
  arm_deadlines(kc, req->attempt_due_ms);
}

static struct request_list *turn_of(struct keyclient *kc, const struct request *req) {
  return req->link != NULL ? &req->link->requests : &kc->waiting;
}

// forget takes the request out of everything; it is the caller's to free.
static void forget(struct keyclient *kc, struct request *req) {
  struct request **at = find(kc, (uint32_t)req->id);

  CHECK(*at == req);
  *at = req->next_in_bucket;
  TAILQ_REMOVE(&kc->life, req, in_life);
  TAILQ_REMOVE(turn_of(kc, req), req, in_turn);
  stop_attempt(kc, req);
  kc->num_requests--;
}

// finish answers: the request is out of every list before the callback runs, so
// that it may ask again or cancel others.
static void finish(struct keyclient *kc, struct request *req, enum status st,
                   struct bytes signature) {
  const struct sign_answer answer = {.st = st, .code = req->code, .signature = signature};

  forget(kc, req);
  if (st == STATUS_OK) {
    counter_add_own(&kc->stats.num_signed, 1);
    histogram_add_us(&kc->stats.latency, (uint64_t)(clock_monotonic_us() - req->started_us));
  } else {
    counter_add_own(&kc->stats.num_failed[st], 1);
  }
  req->fn(req->arg, &answer);
  request_free(kc, req);
}

// --- where to -----------------------------------------------------------------------------------

static uint32_t bit_of(const struct server *server) { return UINT32_C(1) << server->index; }

static struct link *least_busy(struct server *server, bool with_suspects) {
  struct link *best = NULL;

  for (size_t i = 0; i < server->num_links; i++) {
    struct link *link = &server->links[i];
    if (link_may_take(link) && (with_suspects || !link_is_suspect(link)) &&
        (best == NULL || link_num_unanswered(link) < link_num_unanswered(best))) {
      best = link;
    }
  }
  return best;
}

// pick takes the first server that has not had its chance; one that owes answers
// for too long comes after all others.
static struct link *pick(struct keyclient *kc, const struct request *req) {
  for (int with_suspects = 0; with_suspects < 2; with_suspects++) {
    for (size_t i = 0; i < kc->num_servers; i++) {
      struct server *server = &kc->servers[i];
      struct link *link = NULL;
      if (server->num_open == 0 || (req->tried & bit_of(server)) != 0) {
        continue;
      }
      link = least_busy(server, with_suspects != 0);
      if (link != NULL) {
        return link;
      }
    }
  }
  return NULL;
}

// place sends the request to the best link there is. False: there is none.
static bool place(struct keyclient *kc, struct request *req) {
  struct link *link = pick(kc, req);

  if (link == NULL || link_send(link, req) != STATUS_OK) {
    return false;
  }
  if (req->num_attempts > 0) {
    counter_add_own(&kc->stats.num_failovers, 1);
  }
  TAILQ_REMOVE(turn_of(kc, req), req, in_turn);
  req->link = link;
  req->num_attempts++;
  TAILQ_INSERT_TAIL(turn_of(kc, req), req, in_turn);
  start_attempt(kc, req);
  return true;
}

static bool all_tried(const struct keyclient *kc, const struct request *req) {
  for (size_t i = 0; i < kc->num_servers; i++) {
    if ((req->tried & bit_of(&kc->servers[i])) == 0) {
      return false;
    }
  }
  return true;
}

// wake_servers: a server that came back must not be missed for the rest of a long
// pause. One connection to each is tried; the others follow in their own time.
static void wake_servers(struct keyclient *kc, const struct request *req) {
  for (size_t i = 0; i < kc->num_servers; i++) {
    struct server *server = &kc->servers[i];
    if (server->num_open == 0 && (req->tried & bit_of(server)) == 0 && server->num_links > 0) {
      link_wake(&server->links[0]);
    }
  }
}

// wait leaves the request to the next link that opens, for as long as an attempt.
static void wait(struct keyclient *kc, struct request *req) {
  TAILQ_REMOVE(turn_of(kc, req), req, in_turn);
  req->link = NULL;
  TAILQ_INSERT_TAIL(turn_of(kc, req), req, in_turn);
  start_attempt(kc, req);
  wake_servers(kc, req);
}

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

// move_on is for a request whose server will not answer it.
static void move_on(struct keyclient *kc, struct request *req) {
  if (all_tried(kc, req) || req->num_attempts >= KEYCLIENT_MAX_ATTEMPTS) {
    finish(kc, req, status_of(req->code), bytes_of(NULL, 0));
  } else if (!place(kc, req)) {
    wait(kc, req);
  }
}

// --- what links say ------------------------------------------------------------------------------

void link_has_room(struct link *link) {
  struct keyclient *kc = link->server->kc;
  struct request *req = TAILQ_FIRST(&kc->waiting);

  while (req != NULL && link_may_take(link)) {
    struct request *next = TAILQ_NEXT(req, in_turn);
    (void)place(kc, req);
    req = next;
  }
}

void link_lost(struct link *link) {
  struct keyclient *kc = link->server->kc;
  struct request *req = NULL;

  while ((req = TAILQ_FIRST(&link->requests)) != NULL) {
    // It leaves the list, to another one or for good; the analyzer cannot see that.
    move_on(kc, req);  // NOLINT(clang-analyzer-unix.Malloc)
  }
}

void link_answered(struct link *link, uint32_t id, enum status st, enum frame_error code,
                   struct bytes signature) {
  struct keyclient *kc = link->server->kc;
  struct request *req = *find(kc, id);

  // An error counts from the server that was asked last; a signature is welcome
  // from any that was asked.
  if (req == NULL || (st != STATUS_OK && req->link != link)) {
    counter_add_own(&kc->stats.num_late_replies, 1);
    return;
  }
  req->code = code;
  if (st == STATUS_OK) {
    finish(kc, req, STATUS_OK, signature);
    return;
  }
  req->tried |= bit_of(link->server);
  if (frame_error_may_failover(code)) {
    move_on(kc, req);
  } else {
    finish(kc, req, status_of(code), bytes_of(NULL, 0));
  }
}

// --- time ----------------------------------------------------------------------------------

// end_attempt: the next server is asked as well. The one that was asked before may
// still answer, so without a next one the request stays where it is.
static void end_attempt(struct keyclient *kc, struct request *req) {
  stop_attempt(kc, req);
  if (req->link == NULL) {
    finish(kc, req, status_of(req->code), bytes_of(NULL, 0));
    return;
  }
  counter_add_own(&kc->stats.num_attempt_timeouts, 1);
  req->tried |= bit_of(req->link->server);
  if (req->num_attempts < KEYCLIENT_MAX_ATTEMPTS) {
    (void)place(kc, req);
  }
}

static void on_deadlines(void *arg) {
  struct keyclient *kc = arg;
  const int64_t now_ms = loop_now_ms(kc->loop);
  struct request *req = NULL;

  kc->armed_due_ms = INT64_MAX;
  while ((req = TAILQ_FIRST(&kc->life)) != NULL && req->due_ms <= now_ms) {
    finish(kc, req, STATUS_TIMEOUT, bytes_of(NULL, 0));
  }
  while ((req = TAILQ_FIRST(&kc->attempts)) != NULL && req->attempt_due_ms <= now_ms) {
    end_attempt(kc, req);
  }
  // Both lists are in the order of their times.
  if ((req = TAILQ_FIRST(&kc->attempts)) != NULL) {
    arm_deadlines(kc, req->attempt_due_ms);
  }
  if ((req = TAILQ_FIRST(&kc->life)) != NULL) {
    arm_deadlines(kc, req->due_ms);
  }
}

static void on_tick(void *arg) {
  struct keyclient *kc = arg;

  for (size_t i = 0; i < kc->num_servers; i++) {
    for (size_t k = 0; k < kc->servers[i].num_links; k++) {
      link_tick(&kc->servers[i].links[k]);
    }
  }
  timer_arm_ms(&kc->tick, KEYCLIENT_TICK_MS);
}

// --- the caller's side ---------------------------------------------------------------------

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

static void enter(struct keyclient *kc, struct request *req) {
  struct request **bucket = NULL;

  req->id = next_id(kc);
  bucket = bucket_of(kc, (uint32_t)req->id);
  req->next_in_bucket = *bucket;
  *bucket = req;
  req->started_us = clock_monotonic_us();
  req->due_ms = loop_now_ms(kc->loop) + kc->deadline_ms;
  req->link = NULL;
  req->is_timed = false;
  req->num_attempts = 0;
  req->tried = 0;
  req->code = FRAME_ERROR_NONE;
  TAILQ_INSERT_TAIL(&kc->life, req, in_life);
  TAILQ_INSERT_TAIL(&kc->waiting, req, in_turn);
  kc->num_requests++;
  arm_deadlines(kc, req->due_ms);
}

enum status keyclient_sign(uint64_t *out_id, struct keyclient *kc,
                           const struct sign_request *request,
                           void (*fn)(void *arg, const struct sign_answer *answer), void *arg) {
  enum status st = STATUS_OK;
  struct request *req = NULL;

  *out_id = 0;
  if (request->message.len > SIGNING_INPUT_MAX_LEN || kc->num_requests >= KEYCLIENT_MAX_REQUESTS) {
    return STATUS_LIMIT;
  }
  req = request_new(kc);
  if (req == NULL) {
    return STATUS_MEMORY;
  }
  req->message = req->room;
  TRY(fill(req, request));
  req->fn = fn;
  req->arg = arg;
  counter_add_own(&kc->stats.num_requests, 1);
  enter(kc, req);
  *out_id = req->id;
  if (!place(kc, req)) {
    wait(kc, req);
  }
  req = NULL;

out:
  if (req != NULL) {
    request_free(kc, req);
  }
  return st;
}

void keyclient_cancel(struct keyclient *kc, uint64_t id) {
  struct request *req = *find(kc, (uint32_t)id);

  if (req != NULL && req->id == id) {
    forget(kc, req);
    request_free(kc, req);
  }
}

const struct keyclient_stats *keyclient_stats(const struct keyclient *kc) { return &kc->stats; }

unsigned keyclient_num_ready(const struct keyclient *kc) {
  return atomic_load_explicit(&kc->num_ready, memory_order_relaxed);
}

// --- making and ending ---------------------------------------------------------------------

static enum status server_init(struct keyclient *kc, const struct keyclient_server_config *from,
                               int64_t num_links, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct server *server = &kc->servers[kc->num_servers];
  const char *name = NULL;

  if (address_split_host(server->host, &server->port, from->address, err) != STATUS_OK) {
    return STATUS_CONFIG;
  }
  name = from->name != NULL && from->name[0] != '\0' ? from->name : server->host;
  if (strlen(name) >= sizeof server->name) {
    return errmsg_set(err, STATUS_CONFIG, "key server name \"%s\" is too long", name);
  }
  memcpy(server->name, name, strlen(name) + 1);
  server->kc = kc;
  server->index = (unsigned)kc->num_servers;
  server->links = calloc((size_t)num_links, sizeof(struct link));
  if (server->links == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  kc->num_servers++;
  for (int64_t i = 0; i < num_links; i++) {
    TRY(link_init(&server->links[i], server));
    server->num_links++;
  }

out:
  return st;
}

static enum status init(struct keyclient *kc, const struct keyclient_config *config,
                        struct errmsg *err) {
  enum status st = STATUS_OK;

  if (config->num_servers > KEYCLIENT_MAX_SERVERS) {
    return errmsg_set(err, STATUS_CONFIG, "more than %d key servers", KEYCLIENT_MAX_SERVERS);
  }
  TRY(timer_init(&kc->deadlines, kc->loop, on_deadlines, kc));
  TRY(timer_init(&kc->tick, kc->loop, on_tick, kc));
  TRY(resolver_new(&kc->resolver, kc->loop));
  TRY(tls_context_client(&kc->tls, &config->tls, config->allow_tls12, err));
  for (size_t i = 0; i < config->num_servers; i++) {
    TRY(server_init(kc, &config->servers[i], config->num_connections, err));
  }
  for (size_t i = 0; i < kc->num_servers; i++) {
    for (size_t k = 0; k < kc->servers[i].num_links; k++) {
      link_connect(&kc->servers[i].links[k]);
    }
  }
  timer_arm_ms(&kc->tick, KEYCLIENT_TICK_MS);

out:
  return st;
}

enum status keyclient_new(struct keyclient **out, struct loop *loop,
                          const struct keyclient_config *config, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct keyclient *kc = calloc(1, sizeof *kc);

  *out = NULL;
  if (kc == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  kc->loop = loop;
  kc->armed_due_ms = INT64_MAX;
  kc->deadline_ms = config->deadline_ms;
  kc->attempt_ms = config->attempt_ms;
  kc->connect_ms = config->connect_ms;
  kc->ping_ms = KEYCLIENT_PING_MS;
  TAILQ_INIT(&kc->life);
  TAILQ_INIT(&kc->attempts);
  TAILQ_INIT(&kc->waiting);
  TAILQ_INIT(&kc->spare);
  TRY(init(kc, config, err));
  *out = kc;
  kc = NULL;

out:
  keyclient_free(kc);
  return st;
}

// free_requests frees a list whose heads are not used again.
static void free_requests(struct request_list *list, bool is_spare) {
  struct request *next = NULL;

  for (struct request *req = TAILQ_FIRST(list); req != NULL; req = next) {
    next = TAILQ_NEXT(req, in_life);
    if (!is_spare && req->message != req->room) {
      free(req->message);
    }
    free(req);
  }
}

void keyclient_free(struct keyclient *kc) {
  if (kc == NULL) {
    return;
  }
  free_requests(&kc->life, false);
  free_requests(&kc->spare, true);
  for (size_t i = 0; i < kc->num_servers; i++) {
    for (size_t k = 0; k < kc->servers[i].num_links; k++) {
      link_cleanup(&kc->servers[i].links[k]);
    }
    free(kc->servers[i].links);
  }
  resolver_free(kc->resolver);
  SSL_CTX_free(kc->tls);
  timer_cleanup(&kc->deadlines);
  timer_cleanup(&kc->tick);
  free(kc);
}
