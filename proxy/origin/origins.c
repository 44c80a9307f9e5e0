// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin/origins.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "proxy/origin/balance.h"
#include "proxy/origin/origins_internal.h"
#include "proxy/site.h"
#include "proxy/worker.h"

#define SWEEP_MS 1000          // endpoints that are gone are looked at this often
#define RESOLVE_FIRST_MS 1000  // after a first look-up that failed

int64_t origins_spread_ms(int64_t ms, uint32_t id) {
  // Fibonacci hashing: ids that follow each other are far apart.
  const uint32_t place = id * UINT32_C(0x9e3779b9) >> 22;  // of 1024
  return ms - ms / 10 + ms / 5 * (int64_t)place / 1024;
}

// --- endpoints -----------------------------------------------------------------------------

static void free_origin_if_unused(struct origin *origin) {
  struct origin **at = &origin->origins->all;
  // Connections reach it through the endpoints that they are counted in.
  if (origin->num_users > 0 || origin->num_endpoints > 0) {
    return;
  }
  while (*at != origin) {
    at = &(*at)->next;
  }
  *at = origin->next;
  resolve_query_cancel(origin->query);
  timer_cleanup(&origin->resolve);
  free(origin->pool);
  free(origin->address);
  free(origin);
}

static void free_endpoint(struct endpoint *endpoint) {
  struct origin *origin = endpoint->origin;
  origins_check_stop(endpoint);
  timer_cleanup(&endpoint->timer);
  free(endpoint);
  origin->num_endpoints -= 1;
  free_origin_if_unused(origin);
}

static void on_sweep(void *arg) {
  struct origins *origins = arg;
  struct endpoint **at = &origins->leaving;
  while (*at != NULL) {
    struct endpoint *endpoint = *at;
    // Acquire: whatever its last connection did with it is over.
    if (endpoint->is_left && atomic_load_explicit(&endpoint->num_open, memory_order_acquire) == 0) {
      *at = endpoint->next;
      free_endpoint(endpoint);
    } else {
      at = &endpoint->next;
    }
  }
  if (origins->leaving != NULL) {
    timer_arm_ms(&origins->sweep, SWEEP_MS);
  }
}

static void on_left(void *arg) {
  struct endpoint *endpoint = arg;
  endpoint->is_left = true;
}

// `endpoint` is in no set any more. `is_read`: a worker may be looking at one that
// had it all the same.
static void let_go(struct endpoint *endpoint, bool is_read) {
  struct origins *origins = endpoint->origin->origins;
  origins_check_stop(endpoint);
  endpoint->next = origins->leaving;
  origins->leaving = endpoint;
  endpoint->is_left = !is_read || origins->grace == NULL;
  if (!endpoint->is_left) {
    grace_after(origins->grace, on_left, endpoint);
  }
  if (origins->loop != NULL && !timer_is_armed(&origins->sweep)) {
    timer_arm_ms(&origins->sweep, SWEEP_MS);
  }
}

static enum status add_endpoint(struct origin *origin, const struct address *address) {
  enum status st = STATUS_OK;
  struct origins *origins = origin->origins;
  char text[ADDRESS_TEXT_LEN];
  struct endpoint *endpoint = calloc(1, sizeof(*endpoint));
  if (endpoint == NULL) {
    return STATUS_MEMORY;
  }
  endpoint->origin = origin;
  endpoint->address = *address;
  endpoint->fd = -1;
  origins->last_id += 1;
  endpoint->id = origins->last_id;
  (void)address_format(text, address);
  endpoint->hash = balance_hash(text, strlen(text));
  if (origins->loop != NULL) {
    st = timer_init(&endpoint->timer, origins->loop, origins_check_on_timer, endpoint);
    if (st != STATUS_OK) {
      free(endpoint);
      return st;
    }
  }
  endpoint->next = origin->endpoints;
  origin->endpoints = endpoint;
  origin->num_endpoints += 1;
  return STATUS_OK;
}

// --- sets ------------------------------------------------------------------------------------

static size_t count_endpoints(const struct origin_pool *pool, bool is_backup) {
  size_t num = 0;
  for (size_t i = 0; i < pool->options->num_servers; i++) {
    num += pool->options->servers[i].is_backup == is_backup ? pool->origins[i]->num_listed : 0;
  }
  return num;
}

static void add_places(struct origin_set *set, const struct origin_pool *pool, bool is_backup) {
  for (size_t i = 0; i < pool->options->num_servers; i++) {
    const struct server_options *server = &pool->options->servers[i];
    struct endpoint *endpoint = pool->origins[i]->endpoints;
    for (; endpoint != NULL && server->is_backup == is_backup; endpoint = endpoint->next) {
      set->places[set->num].endpoint = endpoint;
      set->places[set->num].weight = (uint32_t)server->weight;
      set->num += 1;
    }
  }
}

static size_t set_len(size_t num) {
  return sizeof(struct origin_set) + num * sizeof(struct origin_place);
}

static struct origin_set *make_set(const struct origin_pool *pool) {
  const size_t num = count_endpoints(pool, false);
  const size_t num_backups = count_endpoints(pool, true);
  struct origin_set *set = calloc(1, set_len(num) + (num_backups > 0 ? set_len(num_backups) : 0));
  _Static_assert(sizeof(struct origin_place) % alignof(struct origin_set) == 0,
                 "one set may follow another");
  if (set == NULL) {
    return NULL;
  }
  add_places(set, pool, false);
  if (num_backups > 0) {
    set->reserve = (struct origin_set *)(void *)((char *)set + set_len(num));
    add_places(set->reserve, pool, true);
  }
  balance_fill(set);
  return set;
}

static bool has_origin(const struct origin_pool *pool, const struct origin *origin) {
  for (size_t i = 0; i < pool->options->num_servers; i++) {
    if (pool->origins[i] == origin) {
      return true;
    }
  }
  return false;
}

static bool is_resolving(const struct origin_pool *pool) {
  for (size_t i = 0; i < pool->options->num_servers; i++) {
    if (!pool->origins[i]->is_resolved) {
      return true;
    }
  }
  return false;
}

// Gives the pools of all sites what `origin` has now.
static enum status publish(const struct origin *origin) {
  const struct origins *origins = origin->origins;
  for (struct origin_pool *pool = origins->pools; pool != NULL; pool = pool->next) {
    struct origin_set *set = NULL;
    if (!has_origin(pool, origin)) {
      continue;
    }
    set = make_set(pool);
    if (set == NULL) {
      return STATUS_MEMORY;
    }
    set = atomic_exchange_explicit(&pool->set, set, memory_order_acq_rel);
    if (origins->grace != NULL) {
      grace_after(origins->grace, free, set);
    } else {
      free(set);
    }
    atomic_store_explicit(&pool->is_resolving, is_resolving(pool), memory_order_release);
  }
  return STATUS_OK;
}

// --- names -----------------------------------------------------------------------------------

static bool has_address(const struct address *addresses, size_t num,
                        const struct address *address) {
  for (size_t i = 0; i < num; i++) {
    if (addresses[i].len == address->len &&
        memcmp(&addresses[i].storage, &address->storage, address->len) == 0) {
      return true;
    }
  }
  return false;
}

static bool has_endpoint(const struct origin *origin, const struct address *address) {
  const struct endpoint *endpoint = origin->endpoints;
  while (endpoint != NULL && !has_address(&endpoint->address, 1, address)) {
    endpoint = endpoint->next;
  }
  return endpoint != NULL;
}

static struct endpoint *unlist_gone(struct origin *origin, const struct address *addresses,
                                    size_t num) {
  struct endpoint *gone = NULL;
  struct endpoint **at = &origin->endpoints;
  while (*at != NULL) {
    struct endpoint *endpoint = *at;
    if (has_address(addresses, num, &endpoint->address)) {
      at = &endpoint->next;
    } else {
      *at = endpoint->next;
      endpoint->next = gone;
      gone = endpoint;
      origin->num_listed -= 1;
    }
  }
  return gone;
}

// What stays keeps its health. Without memory for the new sets nothing has changed
// for workers, so that nothing may be let go either.
static enum status take_addresses(struct origin *origin, const struct address *addresses,
                                  size_t num) {
  enum status st = STATUS_OK;
  struct endpoint *gone = NULL;
  bool is_changed = false;
  for (size_t i = 0; i < num; i++) {
    if (!has_endpoint(origin, &addresses[i])) {
      TRY(add_endpoint(origin, &addresses[i]));
      origin->num_listed += 1;
      is_changed = true;
    }
  }
  gone = unlist_gone(origin, addresses, num);
  if (!is_changed && gone == NULL) {
    return STATUS_OK;
  }
  log_info(0, "origin_resolved", "pool=%s origin=%s addresses=%zu", origin->pool, origin->address,
           origin->num_listed);
  st = publish(origin);
  while (gone != NULL) {
    struct endpoint *endpoint = gone;
    gone = endpoint->next;
    if (st == STATUS_OK) {
      let_go(endpoint, true);
    } else {
      endpoint->next = origin->endpoints;
      origin->endpoints = endpoint;
      origin->num_listed += 1;
    }
  }
  for (struct endpoint *at = origin->endpoints; at != NULL; at = at->next) {
    origins_check_plan(at);
  }
out:
  return st;
}

static void wake_workers(const struct origins *origins) {
  for (size_t i = 0; i < origins->num_workers; i++) {
    worker_post_origins(origins->workers[i]);
  }
}

static void log_unresolved(const struct origin *origin, enum status st) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  if (log_gate_pass(&gate, 1, &num_held)) {
    log_warn(0, "origin_unresolved", "pool=%s origin=%s reason=%s known=%zu held=%llu",
             origin->pool, origin->address, status_name(st), origin->num_listed,
             (unsigned long long)num_held);
  }
}

static void on_addresses(void *arg, enum status st, const struct address *addresses, size_t num) {
  struct origin *origin = arg;
  const bool is_first = !origin->is_resolved;
  int64_t again_ms = origin->settings.resolve_ms;

  origin->query = NULL;
  origin->is_resolved = true;
  if (st == STATUS_OK && num > 0) {
    st = take_addresses(origin, addresses, num);
  }
  if (st != STATUS_OK) {
    // What is known stays: a DNS that fails must not take origins away.
    log_unresolved(origin, st);
  }
  if (is_first) {
    (void)publish(origin);  // those who wait for it need wait no longer
    wake_workers(origin->origins);
  }
  if (origin->num_listed == 0 && again_ms > RESOLVE_FIRST_MS) {
    again_ms = RESOLVE_FIRST_MS;
  }
  if (origin->is_current) {
    timer_arm_ms(&origin->resolve, origins_spread_ms(again_ms, origin->port));
  }
}

static void on_resolve(void *arg) {
  struct origin *origin = arg;
  struct origins *origins = origin->origins;
  enum status st = STATUS_OK;
  if (origin->query != NULL) {
    return;
  }
  if (origins->resolver == NULL) {
    st = resolver_new(&origins->resolver, origins->loop);
  }
  if (st == STATUS_OK) {
    st = resolver_query(&origin->query, origins->resolver, origin->host, origin->port, on_addresses,
                        origin);
  }
  if (st != STATUS_OK) {
    origin->query = NULL;
    log_unresolved(origin, st);
    timer_arm_ms(&origin->resolve, RESOLVE_FIRST_MS);
  }
}

// --- origins -----------------------------------------------------------------------------------

static enum status set_target(struct origin *origin, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct errmsg ignored = {0};
  struct address address;
  if (address_parse(&address, origin->address, &ignored) == STATUS_OK) {
    TRY(add_endpoint(origin, &address));
    origin->num_listed = 1;
    origin->is_resolved = true;
  } else {
    TRY(address_split_host(origin->host, &origin->port, origin->address, err));
  }
out:
  return st;
}

static enum status new_origin(struct origin **out, struct origins *origins, const char *pool,
                              const char *text, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct origin *origin = calloc(1, sizeof(*origin));
  *out = NULL;
  if (origin == NULL) {
    return STATUS_MEMORY;
  }
  origin->origins = origins;
  origin->next = origins->all;
  origins->all = origin;
  origin->num_users = 1;
  origin->pool = strdup(pool);
  origin->address = strdup(text);
  st = origin->pool == NULL || origin->address == NULL ? STATUS_MEMORY : STATUS_OK;
  if (st == STATUS_OK && origins->loop != NULL) {
    st = timer_init(&origin->resolve, origins->loop, on_resolve, origin);
  }
  if (st == STATUS_OK) {
    st = set_target(origin, err);
  }
  if (st != STATUS_OK) {
    origin->num_users = 0;
    free_origin_if_unused(origin);
    return st;
  }
  *out = origin;
  return STATUS_OK;
}

static enum status use_origin(struct origin **out, struct origins *origins, const char *pool,
                              const char *text, struct errmsg *err) {
  for (struct origin *at = origins->all; at != NULL; at = at->next) {
    if (strcmp(at->pool, pool) == 0 && strcmp(at->address, text) == 0) {
      at->num_users += 1;
      *out = at;
      return STATUS_OK;
    }
  }
  return new_origin(out, origins, pool, text, err);
}

static void drop_origin(struct origin *origin) {
  origin->num_users -= 1;
  if (origin->num_users > 0) {
    return;
  }
  origin->is_current = false;
  timer_cancel(&origin->resolve);
  resolve_query_cancel(origin->query);
  origin->query = NULL;
  while (origin->endpoints != NULL) {
    struct endpoint *endpoint = origin->endpoints;
    origin->endpoints = endpoint->next;
    origin->num_listed -= 1;
    let_go(endpoint, false);
  }
  free_origin_if_unused(origin);
}

// --- pools -------------------------------------------------------------------------------------

enum status origins_pool_init(struct origins *origins, struct origin_pool *out,
                              const struct pool_options *options, unsigned index,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  struct origin_set *set = NULL;

  *out = (struct origin_pool){.options = options, .index = index, .registry = origins};
  out->next = origins->pools;
  origins->pools = out;
  for (size_t i = 0; i < options->num_servers; i++) {
    st = use_origin(&out->origins[i], origins, options->name, options->servers[i].address, err);
    if (st != STATUS_OK) {
      origins_pool_cleanup(out);
      return st;
    }
  }
  if (pool_has_tls(options)) {
    st = origin_tls_context_new(&out->tls, &options->tls, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "tls");
      origins_pool_cleanup(out);
      return st;
    }
  }
  set = make_set(out);
  if (set == NULL) {
    origins_pool_cleanup(out);
    return STATUS_MEMORY;
  }
  atomic_store_explicit(&out->set, set, memory_order_release);
  atomic_store_explicit(&out->is_resolving, is_resolving(out), memory_order_release);
  return STATUS_OK;
}

void origins_pool_cleanup(struct origin_pool *pool) {
  struct origin_pool **at = NULL;
  if (pool->registry == NULL) {
    return;
  }
  for (at = &pool->registry->pools; *at != pool; at = &(*at)->next) {
  }
  *at = pool->next;
  free(origin_pool_set(pool));
  SSL_CTX_free(pool->tls);
  for (size_t i = 0; i < pool->options->num_servers && pool->origins[i] != NULL; i++) {
    drop_origin(pool->origins[i]);
  }
  *pool = (struct origin_pool){0};
}

static void take_settings(struct origin *origin, const struct pool_options *options,
                          const struct server_options *server) {
  atomic_store_explicit(&origin->max_open, (uint32_t)server->max_connections, memory_order_relaxed);
  origin->is_current = true;
  origin->settings = *options;
  // What is the configuration's own may go before the origin does.
  origin->settings.name = NULL;
  origin->settings.servers = NULL;
  origin->settings.num_servers = 0;
}

void origins_set_site(struct origins *origins, const struct site *site) {
  for (struct origin *origin = origins->all; origin != NULL; origin = origin->next) {
    origin->is_current = false;
  }
  for (size_t i = 0; i < site->num_pools; i++) {
    for (size_t j = 0; j < site->pools[i].options->num_servers; j++) {
      const struct pool_options *options = site->pools[i].options;
      take_settings(site->pools[i].origins[j], options, &options->servers[j]);
    }
  }
  for (struct origin *origin = origins->all; origin != NULL; origin = origin->next) {
    if (!origin->is_current) {
      timer_cancel(&origin->resolve);
    } else if (origin->host[0] != '\0' && !timer_is_armed(&origin->resolve)) {
      on_resolve(origin);
    }
    for (struct endpoint *at = origin->endpoints; at != NULL; at = at->next) {
      origins_check_plan(at);
    }
  }
}

void origins_on_out(void *arg) {
  const struct origins *origins = arg;
  for (struct origin *origin = origins->all; origin != NULL; origin = origin->next) {
    for (struct endpoint *at = origin->endpoints; at != NULL; at = at->next) {
      // A pause that has begun goes on.
      if ((endpoint_state(at) & ENDPOINT_OUT) != 0 && at->back_off_ms == 0) {
        origins_check_plan(at);
      }
    }
  }
}

// --- life --------------------------------------------------------------------------------------

enum status origins_new(struct origins **out, struct loop *loop) {
  enum status st = STATUS_OK;
  struct origins *origins = calloc(1, sizeof(*origins));
  *out = NULL;
  if (origins == NULL) {
    return STATUS_MEMORY;
  }
  origins->loop = loop;
  if (loop != NULL) {
    st = timer_init(&origins->sweep, loop, on_sweep, origins);
    if (st != STATUS_OK) {
      free(origins);
      return st;
    }
  }
  *out = origins;
  return STATUS_OK;
}

void origins_serve(struct origins *origins, struct grace *grace, struct worker *const *workers,
                   size_t num_workers) {
  origins->grace = grace;
  origins->workers = workers;
  origins->num_workers = num_workers;
}

void origins_free(struct origins *origins) {
  if (origins == NULL) {
    return;
  }
  CHECK(origins->pools == NULL);
  while (origins->leaving != NULL) {
    struct endpoint *endpoint = origins->leaving;
    origins->leaving = endpoint->next;
    CHECK(atomic_load_explicit(&endpoint->num_open, memory_order_acquire) == 0);
    free_endpoint(endpoint);
  }
  CHECK(origins->all == NULL);
  timer_cleanup(&origins->sweep);
  resolver_free(origins->resolver);
  free(origins);
}
