// SPDX-License-Identifier: Apache-2.0
#include "keyserver/metrics.h"

#include <string.h>

#include "common/base/chain.h"
#include "common/base/log.h"
#include "common/base/sandbox.h"
#include "common/wire/scheme.h"

#define P "deputy_keyserver_"

// sum adds up one counter of all workers, named by its place in struct stats.
static double sum(const struct server *server, size_t offset) {
  uint64_t total = 0;
  for (size_t i = 0; i < server->num_workers; i++) {
    const char *stats = (const char *)&server->workers[i].stats;
    total += counter_get((const struct counter *)(const void *)(stats + offset));
  }
  return (double)total;
}

#define SUM(field) sum(server, offsetof(struct stats, field))
#define SUM_AT(field, i) \
  sum(server, offsetof(struct stats, field) + (size_t)(i) * sizeof(struct counter))

static void write_requests(struct metrics_text *text, const struct server *server) {
  metrics_family(text, P "requests_total", METRIC_COUNTER,
                 "Requests answered, by purpose and result; purpose none: refused before it was "
                 "known.");
  for (int p = 0; p < PURPOSE_NUM; p++) {
    const char *name = purpose_name((enum purpose)p);
    if (p != PURPOSE_NONE) {
      metrics_sample(text, P "requests_total", SUM_AT(num_signed, p), "purpose", name, "result",
                     "signed", NULL);
    }
    metrics_sample(text, P "requests_total", SUM_AT(num_refused, p), "purpose", name, "result",
                   "refused", NULL);
  }
  metrics_family(text, P "refusals_total", METRIC_COUNTER, "Requests refused, by reason.");
  for (int r = REFUSAL_NONE + 1; r < REFUSAL_NUM; r++) {
    metrics_sample(text, P "refusals_total", SUM_AT(num_refusals, r), "reason",
                   refusal_name((enum refusal)r), NULL);
  }
  metrics_family(text, P "signatures_total", METRIC_COUNTER, "Signatures, by the key's kind.");
  for (int k = KEY_KIND_NONE + 1; k < STATS_NUM_KEY_KINDS; k++) {
    metrics_sample(text, P "signatures_total", SUM_AT(num_by_kind, k), "kind",
                   key_kind_name((enum key_kind)k), NULL);
  }
  metrics_total(text, P "pings_total", "Pings answered.", SUM(num_pings));
}

static void write_connections(struct metrics_text *text, const struct server *server) {
  static const char *const away_names[TURNED_AWAY_NUM] = {
      [TURNED_AWAY_TOTAL] = "max_connections",
      [TURNED_AWAY_CLIENT] = "max_connections_per_client",
      [TURNED_AWAY_MEMORY] = "memory",
  };
  metrics_gauge(text, P "connections_open", "Connections open now, handshakes included.",
                (double)census_num(server->census));
  metrics_total(text, P "connections_accepted_total", "TCP connections accepted.",
                SUM(num_accepted));
  metrics_total(text, P "handshakes_total", "TLS handshakes done.", SUM(num_opened));
  metrics_family(text, P "connections_refused_total", METRIC_COUNTER,
                 "Connections closed at their beginning, by reason.");
  for (int i = 0; i < TURNED_AWAY_NUM; i++) {
    metrics_sample(text, P "connections_refused_total", SUM_AT(num_turned_away, i), "reason",
                   away_names[i], NULL);
  }
  metrics_family(text, P "connections_closed_total", METRIC_COUNTER,
                 "Connections ended, by how; handshake_failed counts failed TLS handshakes.");
  for (int i = 0; i < STATS_NUM_ENDS; i++) {
    metrics_sample(text, P "connections_closed_total", SUM_AT(num_ends, i), "end",
                   tls_stream_end_name((enum tls_stream_end)i), NULL);
  }
  metrics_family(text, P "client_certificates_refused_total", METRIC_COUNTER,
                 "Handshakes that failed for the client's certificate, by reason.");
  for (int i = TLS_REFUSAL_NONE + 1; i < TLS_REFUSAL_NUM; i++) {
    metrics_sample(text, P "client_certificates_refused_total", SUM_AT(num_untrusted, i), "reason",
                   tls_refusal_name((enum tls_refusal)i), NULL);
  }
  metrics_family(text, P "connections_dropped_total", METRIC_COUNTER,
                 "Connections closed as a reload would let their client in no more, by reason.");
  for (int i = TLS_REFUSAL_NONE + 1; i < TLS_REFUSAL_NUM; i++) {
    metrics_sample(text, P "connections_dropped_total", SUM_AT(num_dropped, i), "reason",
                   tls_refusal_name((enum tls_refusal)i), NULL);
  }
  metrics_gauge(
      text, P "crl_next_update_seconds",
      "When the first of the revocation lists of tls.crl is out of date (POSIX); 0: none is used.",
      (double)trust_crl_ends_s(server->snapshot->tls));
  metrics_total(text, P "packet_timeouts_total",
                "Connections closed within a packet that took too long.", SUM(num_packet_timeouts));
  metrics_total(text, P "accept_errors_total",
                "Accepts that failed: descriptors or memory ran out.", SUM(num_accept_errors));
}

static void write_audit(struct metrics_text *text, const struct server *server) {
  audit_log_metrics(text, P, server->audit.sink);
  metrics_total(
      text, P "unaudited_signatures_total",
      "Signatures made although their audit line was lost (audit.when_unavailable is sign).",
      SUM(num_unaudited));
}

static void write_state(struct metrics_text *text, const struct server *server) {
  metrics_total(text, P "log_lost_total", "Log lines that could not be kept.",
                (double)log_num_lost());
  metrics_gauge(text, P "keys", "Private keys loaded.",
                (double)keystore_num_keys(server->snapshot->keys));
  metrics_family(text, P "sealed_keys", METRIC_GAUGE,
                 "Files with sealed keys in the key folders, by what became of them.");
  for (int o = 0; o < SEALED_NUM_OUTCOMES; o++) {
    metrics_sample(text, P "sealed_keys",
                   (double)keystore_num_sealed(server->snapshot->keys, (enum sealed_outcome)o),
                   "state", sealed_outcome_name((enum sealed_outcome)o), NULL);
  }
  metrics_gauge(text, P "grants", "Grants in force.",
                (double)rights_num_grants(server->snapshot->rights));
  metrics_gauge(text, P "workers", "Signing threads.", (double)server->num_workers);
  metrics_gauge(text, P "configuration_generation", "Grows with each reload that succeeded.",
                (double)server->snapshot->generation);
  metrics_gauge(text, P "configuration_loaded_seconds",
                "When keys and rights were last loaded (POSIX).", (double)server->reloaded_s);
  metrics_family(text, P "reloads_total", METRIC_COUNTER, "Reloads asked for, by result.");
  metrics_sample(text, P "reloads_total", (double)server->reload.num_good, "result", "done", NULL);
  metrics_sample(text, P "reloads_total", (double)server->reload.num_failed, "result", "failed",
                 NULL);
  sandbox_metrics(text, P "sandbox_active");
  metrics_gauge(text, P "draining", "1 from SIGTERM on.", server->is_draining ? 1 : 0);
}

static void write_lanes(struct metrics_text *text, const struct server *server) {
  static const struct {
    const char *name;
    enum metric_type type;
    const char *help;
    size_t offset;
  } families[] = {
      {P "slow_queued", METRIC_GAUGE, "Jobs that wait for a signer thread now.",
       offsetof(struct signer_lane_stats, num_queued)},
      {P "slow_running", METRIC_GAUGE, "Jobs that a signer thread works on now.",
       offsetof(struct signer_lane_stats, num_running)},
      {P "slow_done_total", METRIC_COUNTER, "Jobs done by signer threads.",
       offsetof(struct signer_lane_stats, num_done)},
      {P "slow_full_total", METRIC_COUNTER, "Jobs refused as the queue was full.",
       offsetof(struct signer_lane_stats, num_full)},
      {P "slow_cancelled_total", METRIC_COUNTER,
       "Jobs taken out of the queue: the client left, or the time was up.",
       offsetof(struct signer_lane_stats, num_cancelled)},
  };
  for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
    metrics_family(text, families[f].name, families[f].type, families[f].help);
    for (unsigned i = 0; i < signer_pool_num_lanes(server->pool); i++) {
      struct signer_lane_stats stats;
      uint64_t value = 0;
      signer_pool_stats(&stats, server->pool, i);
      memcpy(&value, (const char *)&stats + families[f].offset, sizeof value);
      metrics_sample(text, families[f].name, (double)value, "lane", stats.name, NULL);
    }
  }
}

static void write_tokens(struct metrics_text *text, const struct server *server) {
  static const struct {
    const char *name;
    const char *help;
    size_t offset;
  } counters[] = {
      {P "token_signatures_total", "Signatures that the token has made.",
       offsetof(struct token_stats, num_signed)},
      {P "token_failures_total", "Signatures that it has not: away, refused, or not good.",
       offsetof(struct token_stats, num_failed)},
      {P "token_lost_total", "Times that the token went away.",
       offsetof(struct token_stats, num_lost)},
      {P "token_opened_total", "Times that the token was opened.",
       offsetof(struct token_stats, num_opened)},
  };
  struct token_stats stats[TOKEN_MAX_TOKENS];
  const size_t num = token_num(server->tokens);

  for (size_t i = 0; i < num; i++) {
    token_stats_read(&stats[i], server->tokens, i);
  }
  metrics_family(text, P "token_up", METRIC_GAUGE, "1 while the token is there and logged in.");
  for (size_t i = 0; i < num; i++) {
    metrics_sample(text, P "token_up", stats[i].is_up ? 1 : 0, "token", stats[i].name, NULL);
  }
  metrics_family(text, P "token_pin_refused", METRIC_GAUGE,
                 "1 from the refusal of its PIN until the PIN file has changed.");
  for (size_t i = 0; i < num; i++) {
    metrics_sample(text, P "token_pin_refused", stats[i].is_pin_refused ? 1 : 0, "token",
                   stats[i].name, NULL);
  }
  for (size_t c = 0; c < sizeof counters / sizeof counters[0]; c++) {
    metrics_family(text, counters[c].name, METRIC_COUNTER, counters[c].help);
    for (size_t i = 0; i < num; i++) {
      uint64_t value = 0;
      memcpy(&value, (const char *)&stats[i] + counters[c].offset, sizeof value);
      metrics_sample(text, counters[c].name, (double)value, "token", stats[i].name, NULL);
    }
  }
}

void metrics_write(struct metrics_text *text, const struct server *server) {
  write_requests(text, server);
  write_connections(text, server);
  write_lanes(text, server);
  write_tokens(text, server);
  write_audit(text, server);
  write_state(text, server);
}
