// SPDX-License-Identifier: Apache-2.0
#include "common/keyclient/report.h"

#include <stdio.h>
#include <string.h>

#define NAME_LEN 128
#define US_PER_S 1e6

// --- sums ----------------------------------------------------------------------------------

// A mean over those that have measured.
struct mean {
  uint64_t sum;
  uint64_t num;
};

struct means {
  struct mean srtt;
  struct mean rttvar;
  struct mean distance;
  struct mean hedge_after;
};

static void add(struct mean *mean, const struct counter *gauge) {
  const uint64_t value = counter_get(gauge);
  mean->sum += value;
  mean->num += value > 0 ? 1 : 0;
}

static uint64_t mean_of(const struct mean *mean) {
  return mean->num == 0 ? 0 : mean->sum / mean->num;
}

static struct keyclient_report *row_of(struct keyclient_report *rows, size_t *num_rows,
                                       const char *server) {
  for (size_t i = 0; i < *num_rows; i++) {
    if (strcmp(rows[i].server, server) == 0) {
      return &rows[i];
    }
  }
  if (*num_rows == KEYCLIENT_MAX_SERVERS) {
    return NULL;
  }
  rows[*num_rows] = (struct keyclient_report){.server = server};
  return &rows[(*num_rows)++];
}

static void add_server(struct keyclient_report *row, struct means *means,
                       const struct keyclient_server_stats *stats) {
  const uint64_t state = counter_get(&stats->breaker);

  row->num_clients++;
  row->num_up += counter_get(&stats->num_connections) > 0 ? 1 : 0;
  row->num_breakers[state < BREAKER_NUM_STATES ? state : BREAKER_OPEN]++;
  row->num_connections += counter_get(&stats->num_connections);
  row->num_in_flight += counter_get(&stats->num_in_flight);
  row->num_requests += counter_get(&stats->num_requests);
  row->num_answered += counter_get(&stats->num_answered);
  for (size_t i = 0; i < KEYCLIENT_NUM_FAILURES; i++) {
    row->num_failed[i] += counter_get(&stats->num_failed[i]);
  }
  row->num_hedges += counter_get(&stats->num_hedges);
  row->num_hedge_wins += counter_get(&stats->num_hedge_wins);
  row->num_skipped += counter_get(&stats->num_skipped);
  row->num_openings += counter_get(&stats->num_openings);
  row->num_drained += counter_get(&stats->num_drained);
  row->num_pings += counter_get(&stats->num_pings);
  add(&means->srtt, &stats->srtt_us);
  add(&means->rttvar, &stats->rttvar_us);
  add(&means->distance, &stats->distance_us);
  add(&means->hedge_after, &stats->hedge_after_us);
}

size_t keyclient_report(struct keyclient_report out[KEYCLIENT_MAX_SERVERS],
                        const struct keyclient *const *clients, size_t num) {
  struct means means[KEYCLIENT_MAX_SERVERS] = {0};
  size_t num_rows = 0;

  for (size_t i = 0; i < num; i++) {
    for (size_t k = 0; clients[i] != NULL && k < keyclient_num_servers(clients[i]); k++) {
      struct keyclient_report *row = row_of(out, &num_rows, keyclient_server_name(clients[i], k));
      if (row != NULL) {
        add_server(row, &means[row - out], keyclient_server_stats(clients[i], k));
      }
    }
  }
  for (size_t i = 0; i < num_rows; i++) {
    out[i].srtt_us = mean_of(&means[i].srtt);
    out[i].rttvar_us = mean_of(&means[i].rttvar);
    out[i].distance_us = mean_of(&means[i].distance);
    out[i].hedge_after_us = mean_of(&means[i].hedge_after);
  }
  return num_rows;
}

const char *keyclient_report_state(const struct keyclient_report *row) {
  if (row->num_up == 0) {
    return "down";
  }
  if (row->num_breakers[BREAKER_CLOSED] == 0) {
    return "avoided";
  }
  if (row->num_up < row->num_clients) {
    return "partly down";
  }
  return row->num_breakers[BREAKER_CLOSED] < row->num_clients ? "partly avoided" : "up";
}

// --- metrics ---------------------------------------------------------------------------------

enum kind { KIND_UINT, KIND_UINT64, KIND_US };

static const struct family {
  const char *name;
  const char *help;
  enum metric_type type;
  enum kind kind;
  size_t at;
} families[] = {
#define AT(field) offsetof(struct keyclient_report, field)
    {"key_server_up", "Threads that have a connection to the key server.", METRIC_GAUGE, KIND_UINT,
     AT(num_up)},
    {"key_server_connections", "Connections to the key server.", METRIC_GAUGE, KIND_UINT64,
     AT(num_connections)},
    {"key_server_in_flight", "Requests that it has not answered.", METRIC_GAUGE, KIND_UINT64,
     AT(num_in_flight)},
    {"key_server_srtt_seconds", "Smoothed time of its answers, signatures and pings.", METRIC_GAUGE,
     KIND_US, AT(srtt_us)},
    {"key_server_rttvar_seconds", "Smoothed deviation from that.", METRIC_GAUGE, KIND_US,
     AT(rttvar_us)},
    {"key_server_distance_seconds",
     "The least time of its last pings, by which key servers are ordered.", METRIC_GAUGE, KIND_US,
     AT(distance_us)},
    {"key_server_hedge_after_seconds",
     "When a request is sent to another key server as well; 0: never.", METRIC_GAUGE, KIND_US,
     AT(hedge_after_us)},
    {"key_server_sent_total", "Requests sent to it, hedges included.", METRIC_COUNTER, KIND_UINT64,
     AT(num_requests)},
    {"key_server_answered_total", "Signatures that it gave, also late ones.", METRIC_COUNTER,
     KIND_UINT64, AT(num_answered)},
    {"key_server_hedges_total", "Requests sent to it because another took long.", METRIC_COUNTER,
     KIND_UINT64, AT(num_hedges)},
    {"key_server_hedge_wins_total", "Of these, those that it answered first.", METRIC_COUNTER,
     KIND_UINT64, AT(num_hedge_wins)},
    {"key_server_skipped_total",
     "Requests that went past it, as it had said that it has not got the key.", METRIC_COUNTER,
     KIND_UINT64, AT(num_skipped)},
    {"key_server_breaker_openings_total", "How often failures made it be avoided.", METRIC_COUNTER,
     KIND_UINT64, AT(num_openings)},
    {"key_server_drained_total", "Connections that were closed in good order.", METRIC_COUNTER,
     KIND_UINT64, AT(num_drained)},
    {"key_server_pings_total", "Pings sent to it.", METRIC_COUNTER, KIND_UINT64, AT(num_pings)},
#undef AT
};

static double value_of(const struct keyclient_report *row, const struct family *family) {
  const void *at = (const char *)row + family->at;

  switch (family->kind) {
    case KIND_UINT:
      return (double)*(const unsigned *)at;
    case KIND_US:
      return (double)*(const uint64_t *)at / US_PER_S;
    default:
      return (double)*(const uint64_t *)at;
  }
}

static const char *name_of(char out[NAME_LEN], const char *prefix, const char *name) {
  (void)snprintf(out, NAME_LEN, "%s%s", prefix, name);
  return out;
}

static void put_breakers(struct metrics_text *text, const char *prefix,
                         const struct keyclient_report *rows, size_t num) {
  char name[NAME_LEN];

  metrics_family(text, name_of(name, prefix, "key_server_breaker"), METRIC_GAUGE,
                 "Threads whose circuit breaker for the key server is in this state.");
  for (size_t i = 0; i < num; i++) {
    for (unsigned state = 0; state < BREAKER_NUM_STATES; state++) {
      metrics_sample(text, name, (double)rows[i].num_breakers[state], "server", rows[i].server,
                     "state", breaker_state_name((enum breaker_state)state), NULL);
    }
  }
}

static void put_failures(struct metrics_text *text, const char *prefix,
                         const struct keyclient_report *rows, size_t num) {
  char name[NAME_LEN];

  metrics_family(text, name_of(name, prefix, "key_server_failures_total"), METRIC_COUNTER,
                 "Requests it did not give a signature for, and failed connects, by reason.");
  for (size_t i = 0; i < num; i++) {
    for (unsigned why = 0; why < KEYCLIENT_NUM_FAILURES; why++) {
      metrics_sample(text, name, (double)rows[i].num_failed[why], "server", rows[i].server,
                     "reason", keyclient_failure_name((enum keyclient_failure)why), NULL);
    }
  }
}

void keyclient_report_metrics(struct metrics_text *text, const char *prefix,
                              const struct keyclient *const *clients, size_t num) {
  struct keyclient_report rows[KEYCLIENT_MAX_SERVERS];
  const size_t num_rows = keyclient_report(rows, clients, num);
  char name[NAME_LEN];
  uint64_t num_denied = 0;

  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
    metrics_family(text, name_of(name, prefix, families[i].name), families[i].type,
                   families[i].help);
    for (size_t k = 0; k < num_rows; k++) {
      metrics_sample(text, name, value_of(&rows[k], &families[i]), "server", rows[k].server, NULL);
    }
  }
  put_breakers(text, prefix, rows, num_rows);
  put_failures(text, prefix, rows, num_rows);
  for (size_t i = 0; i < num; i++) {
    num_denied +=
        clients[i] == NULL ? 0 : counter_get(&keyclient_stats(clients[i])->num_hedges_denied);
  }
  metrics_family(text, name_of(name, prefix, "key_server_hedges_denied_total"), METRIC_COUNTER,
                 "Requests that would have been sent to a second key server, were it not for "
                 "the budget.");
  metrics_sample(text, name, (double)num_denied, NULL);
}
