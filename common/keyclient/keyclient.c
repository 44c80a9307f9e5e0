// SPDX-License-Identifier: Apache-2.0
// The caller's side of keyclient.h; making one, ending it, and its tick.
#include "common/keyclient/keyclient.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "common/keyclient/internal.h"
#include "common/net/address.h"
#include "common/wire/signing_input.h"

const char *keyclient_failure_name(enum keyclient_failure failure) {
  static const char *const names[] = {
      [KEYCLIENT_TIMEOUT] = "timeout", [KEYCLIENT_LOST] = "lost",   [KEYCLIENT_CONNECT] = "connect",
      [KEYCLIENT_NO_KEY] = "no_key",   [KEYCLIENT_ERROR] = "error", [KEYCLIENT_REFUSED] = "refused",
  };
  return (unsigned)failure < KEYCLIENT_NUM_FAILURES ? names[failure] : "unknown";
}

// --- the caller's side ---------------------------------------------------------------------

enum status keyclient_sign(uint64_t *out_id, struct keyclient *kc,
                           const struct sign_request *request,
                           void (*fn)(void *arg, const struct sign_answer *answer), void *arg) {
  enum status st = STATUS_OK;
  struct request *req = NULL;

  *out_id = 0;
  if (request->message.len > SIGNING_INPUT_MAX_LEN || kc->num_requests >= KEYCLIENT_MAX_REQUESTS) {
    return STATUS_LIMIT;
  }
  TRY(kc_request_new(&req, kc, request));
  req->fn = fn;
  req->arg = arg;
  counter_add_own(&kc->stats.num_requests, 1);
  kc_request_start(kc, req);
  *out_id = req->id;

out:
  return st;
}

void keyclient_cancel(struct keyclient *kc, uint64_t id) { kc_request_cancel(kc, id); }

const struct keyclient_stats *keyclient_stats(const struct keyclient *kc) { return &kc->stats; }

size_t keyclient_num_servers(const struct keyclient *kc) { return kc->num_servers; }

const char *keyclient_server_name(const struct keyclient *kc, size_t index) {
  return kc->servers[index].label;
}

const struct keyclient_server_stats *keyclient_server_stats(const struct keyclient *kc,
                                                            size_t index) {
  return &kc->servers[index].stats;
}

unsigned keyclient_num_ready(const struct keyclient *kc) {
  return atomic_load_explicit(&kc->num_ready, memory_order_relaxed);
}

// --- the tick --------------------------------------------------------------------------------

static void on_tick(void *arg) {
  struct keyclient *kc = arg;
  const int64_t now_ms = loop_now_ms(kc->loop);

  for (size_t i = 0; i < kc->num_servers; i++) {
    struct server *server = &kc->servers[i];
    kc_health_tick(server, now_ms);  // first: a probe needs a connection without a ping
    for (size_t k = 0; k < server->num_links; k++) {
      kc_health_tick_link(&server->links[k], now_ms);
    }
  }
  timer_arm_ms(&kc->tick, KEYCLIENT_TICK_MS);
}

// --- making and ending ---------------------------------------------------------------------

#define ROOM(field) sizeof(((struct server *)NULL)->field)

static enum status read_server(char host[ROOM(host)], uint16_t *out_port, const char **out_name,
                               const struct keyclient_server_config *from, struct errmsg *err) {
  const char *name = from->name != NULL && from->name[0] != '\0' ? from->name : host;
  *out_name = name;
  if (address_split_host(host, out_port, from->address, err) != STATUS_OK) {
    return STATUS_CONFIG;
  }
  if (strlen(name) >= ROOM(name) || strlen(from->address) >= ROOM(label)) {
    return errmsg_set(err, STATUS_CONFIG, "key server name \"%s\" is too long", name);
  }
  return STATUS_OK;
}

enum status keyclient_check_servers(const struct keyclient_config *config, struct errmsg *err) {
  for (size_t i = 0; i < config->num_servers; i++) {
    char host[ROOM(host)];
    const char *name = NULL;
    uint16_t port = 0;
    if (read_server(host, &port, &name, &config->servers[i], err) != STATUS_OK) {
      errmsg_prefix(err, "key_servers.servers[%zu].address", i);
      return STATUS_CONFIG;
    }
  }
  return STATUS_OK;
}

static enum status server_init(struct keyclient *kc, const struct keyclient_server_config *from,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  struct server *server = &kc->servers[kc->num_servers];
  const char *name = NULL;

  TRY(read_server(server->host, &server->port, &name, from, err));
  memcpy(server->name, name, strlen(name) + 1);
  memcpy(server->label, from->address, strlen(from->address) + 1);
  server->kc = kc;
  server->index = (unsigned)kc->num_servers;
  kc->order[kc->num_servers] = (uint8_t)kc->num_servers;
  kc->num_servers++;
  TAILQ_INIT(&server->hedging);
  kc_health_init(server);
  st = kc_pool_init(server, kc->num_connections);
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "no memory");
  }
out:
  return st;
}

static enum status init(struct keyclient *kc, const struct keyclient_config *config,
                        const struct address *dns, struct errmsg *err) {
  enum status st = STATUS_OK;

  if (config->num_servers > KEYCLIENT_MAX_SERVERS) {
    return errmsg_set(err, STATUS_CONFIG, "more than %d key servers", KEYCLIENT_MAX_SERVERS);
  }
  TRY(timer_init(&kc->deadlines, kc->loop, kc_request_on_deadlines, kc));
  TRY(timer_init(&kc->tick, kc->loop, on_tick, kc));
  TRY(dns != NULL ? resolver_new_with(&kc->resolver, kc->loop, dns)
                  : resolver_new(&kc->resolver, kc->loop));
  TRY(tls_context_client(&kc->tls, &config->tls, config->allow_tls12, err));
  for (size_t i = 0; i < config->num_servers; i++) {
    TRY(server_init(kc, &config->servers[i], err));
  }
  for (size_t i = 0; i < kc->num_servers; i++) {
    kc_pool_plan(&kc->servers[i]);
  }
  timer_arm_ms(&kc->tick, KEYCLIENT_TICK_MS);

out:
  return st;
}

enum status keyclient_new_with(struct keyclient **out, struct loop *loop,
                               const struct keyclient_config *config, const struct address *dns,
                               struct errmsg *err) {
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
  kc->num_connections = config->num_connections > 0 ? (size_t)config->num_connections : 1;
  kc->ping_ms = config->ping_ms > 0 ? config->ping_ms : KEYCLIENT_PING_MS;
  kc->resolve_ms = config->resolve_ms > 0 ? config->resolve_ms : KEYCLIENT_RESOLVE_MS;
  hedge_budget_init(&kc->budget, config->hedge_percent);
  TAILQ_INIT(&kc->life);
  TAILQ_INIT(&kc->waiting);
  TAILQ_INIT(&kc->expiring);
  TAILQ_INIT(&kc->spare);
  TRY(init(kc, config, dns, err));
  *out = kc;
  kc = NULL;

out:
  keyclient_free(kc);
  return st;
}

enum status keyclient_new(struct keyclient **out, struct loop *loop,
                          const struct keyclient_config *config, struct errmsg *err) {
  return keyclient_new_with(out, loop, config, NULL, err);
}

void keyclient_free(struct keyclient *kc) {
  if (kc == NULL) {
    return;
  }
  kc_requests_free(kc);
  for (size_t i = 0; i < kc->num_servers; i++) {
    kc_pool_cleanup(&kc->servers[i]);
  }
  resolver_free(kc->resolver);
  SSL_CTX_free(kc->tls);
  timer_cleanup(&kc->deadlines);
  timer_cleanup(&kc->tick);
  free(kc);
}
