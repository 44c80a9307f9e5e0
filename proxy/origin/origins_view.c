// SPDX-License-Identifier: Apache-2.0
// What metrics and `deputyctl status` show of origins: those of the site in force, as
// many as are configured.
#include "proxy/origin/origins_internal.h"

#define PREFIX "deputy_proxy_"

static uint64_t num_open(const struct origin *origin) {
  uint64_t num = 0;
  for (struct endpoint *at = origin->endpoints; at != NULL; at = at->next) {
    num += atomic_load_explicit(&at->num_open, memory_order_relaxed);
  }
  return num;
}

static size_t num_in_service(const struct origin *origin) {
  size_t num = 0;
  for (const struct endpoint *at = origin->endpoints; at != NULL; at = at->next) {
    num += endpoint_state(at) == 0 ? 1 : 0;
  }
  return num;
}

static double value_up(const struct origin *origin) { return num_in_service(origin) > 0 ? 1 : 0; }
static double value_addresses(const struct origin *origin) { return (double)origin->num_listed; }
static double value_in_service(const struct origin *origin) {
  return (double)num_in_service(origin);
}
static double value_open(const struct origin *origin) { return (double)num_open(origin); }
static double value_connected(const struct origin *origin) {
  return (double)counter_get(&origin->num_connected);
}
static double value_seconds(const struct origin *origin) {
  return (double)counter_get(&origin->connect_us) / 1e6;
}

void origins_write_metrics(const struct origins *origins, struct metrics_text *text) {
  static const struct {
    const char *name;
    enum metric_type type;
    double (*value)(const struct origin *origin);
    const char *help;
  } rows[] = {
      {PREFIX "origin_up", METRIC_GAUGE, value_up,
       "Whether at least one address of the origin is in service."},
      {PREFIX "origin_addresses", METRIC_GAUGE, value_addresses, "Addresses of the origin."},
      {PREFIX "origin_addresses_in_service", METRIC_GAUGE, value_in_service,
       "Those that neither failed connections nor checks have taken out."},
      {PREFIX "origin_connections_open", METRIC_GAUGE, value_open,
       "Connections now, those being made included."},
      {PREFIX "origin_connections_total", METRIC_COUNTER, value_connected, "Connections made."},
      {PREFIX "origin_connecting_seconds_total", METRIC_COUNTER, value_seconds,
       "Time that making them took, in all."},
  };
  const char *failures = PREFIX "origin_failures_total";
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    metrics_family(text, rows[i].name, rows[i].type, rows[i].help);
    for (const struct origin *at = origins->all; at != NULL; at = at->next) {
      if (at->is_current) {
        metrics_sample(text, rows[i].name, rows[i].value(at), "pool", at->pool, "origin",
                       at->address, NULL);
      }
    }
  }
  metrics_family(text, failures, METRIC_COUNTER,
                 "Connections to the origin that failed, or that it broke off (reset).");
  for (const struct origin *at = origins->all; at != NULL; at = at->next) {
    for (unsigned i = 0; at->is_current && i < ORIGIN_FAILURE_NUM; i++) {
      metrics_sample(text, failures, (double)counter_get(&at->num_failed[i]), "pool", at->pool,
                     "origin", at->address, "reason", origin_failure_name((enum origin_failure)i),
                     NULL);
    }
  }
}

static const char *state_of(const struct origin *origin) {
  const size_t num = num_in_service(origin);
  if (origin->num_listed == 0) {
    return origin->is_resolved ? "unresolved" : "resolving";
  }
  return num == 0 ? "down" : num < origin->num_listed ? "partly" : "up";
}

json_t *origins_list(const struct origins *origins) {
  json_t *list = json_array();
  for (const struct origin *at = origins->all; at != NULL; at = at->next) {
    uint64_t num_failed = 0;
    const uint64_t num_connected = counter_get(&at->num_connected);
    if (!at->is_current) {
      continue;
    }
    for (unsigned i = 0; i < ORIGIN_FAILURE_NUM; i++) {
      num_failed += counter_get(&at->num_failed[i]);
    }
    // The list of all has the newest first.
    (void)json_array_insert_new(
        list, 0,
        json_pack(
            "{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "pool", at->pool, "name", at->address, "state",
            state_of(at), "addresses", (json_int_t)at->num_listed, "in_service",
            (json_int_t)num_in_service(at), "connections", (json_int_t)num_open(at), "connected",
            (json_int_t)num_connected, "connect_us",
            (json_int_t)(num_connected == 0 ? 0 : counter_get(&at->connect_us) / num_connected),
            "failures", (json_int_t)num_failed));
  }
  return list;
}
