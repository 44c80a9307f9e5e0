// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/metrics.h"

#include "common/base/audit_log.h"
#include "common/base/sandbox.h"
#include "common/keyclient/report.h"
#include "version.h"

#define PREFIX "deputy_dcissuer_"

static void write_work(struct metrics_text *text, const struct metrics_view *view) {
  static const char *const request_words[REQUEST_NUM_ERRORS] = {
      [REQUEST_BAD] = "bad_request",
      [REQUEST_UNAUTHORIZED] = "unauthorized",
      [REQUEST_NOT_ALLOWED] = "not_allowed",
      [REQUEST_TOO_MANY_ENTRIES] = "too_many_entries",
      [REQUEST_BUSY] = "busy",
  };
  const struct stats *stats = view->stats;
  const struct histogram *latency = &stats->latency;

  metrics_one(text, PREFIX "issued_total", METRIC_COUNTER, "Delegated credentials issued.",
              (double)counter_get(&stats->num_issued));
  metrics_family(text, PREFIX "refused_total", METRIC_COUNTER, "Entries refused, by error code.");
  for (int i = ISSUE_OK + 1; i < ISSUE_NUM_ERRORS; i++) {
    metrics_sample(text, PREFIX "refused_total", (double)counter_get(&stats->num_refused[i]),
                   "reason", issue_error_word((enum issue_error)i), NULL);
  }
  metrics_one(text, PREFIX "requests_total", METRIC_COUNTER, "Requests for credentials.",
              (double)counter_get(&stats->num_requests));
  metrics_family(text, PREFIX "requests_refused_total", METRIC_COUNTER,
                 "Requests refused as a whole, by error code.");
  for (int i = REQUEST_OK + 1; i < REQUEST_NUM_ERRORS; i++) {
    metrics_sample(text, PREFIX "requests_refused_total",
                   (double)counter_get(&stats->num_requests_refused[i]), "reason", request_words[i],
                   NULL);
  }
  metrics_family(text, PREFIX "request_seconds", METRIC_HISTOGRAM,
                 "From a whole request to its reply.");
  metrics_histogram(text, PREFIX "request_seconds", NULL, NULL, &latency, 1);
  metrics_one(text, PREFIX "requests_in_work", METRIC_GAUGE, "Requests in work now.",
              (double)view->num_batches);
  metrics_one(text, PREFIX "signatures_in_work", METRIC_GAUGE, "Signatures at the key servers now.",
              (double)view->num_signatures);
}

static void write_state(struct metrics_text *text, const struct metrics_view *view) {
  metrics_family(text, PREFIX "build_info", METRIC_GAUGE, "Always 1; the version is the label.");
  metrics_sample(text, PREFIX "build_info", 1, "version", DEPUTY_VERSION, NULL);
  metrics_one(text, PREFIX "certificates", METRIC_GAUGE, "Certificates that are configured.",
              (double)view->num_certificates);
  metrics_one(text, PREFIX "certificates_cached", METRIC_GAUGE,
              "Certificates from requests that are kept parsed.", (double)view->num_cached);
  metrics_one(text, PREFIX "draining", METRIC_GAUGE, "1 while SIGTERM is being obeyed.",
              view->is_draining ? 1 : 0);
  sandbox_metrics(text, PREFIX "sandbox_active");
  metrics_family(text, PREFIX "reloads_total", METRIC_COUNTER, "Reloads, by result.");
  metrics_sample(text, PREFIX "reloads_total", (double)view->reload->num_good, "result", "ok",
                 NULL);
  metrics_sample(text, PREFIX "reloads_total", (double)view->reload->num_failed, "result", "failed",
                 NULL);
  audit_log_metrics(text, PREFIX, view->audit);
}

static void write_key_servers(struct metrics_text *text, const struct keyclient *keyclient) {
  const struct keyclient_stats *stats = keyclient_stats(keyclient);
  const struct histogram *latency = &stats->latency;

  metrics_one(text, PREFIX "key_servers_ready", METRIC_GAUGE,
              "Key servers with at least one open connection.",
              (double)keyclient_num_ready(keyclient));
  metrics_one(text, PREFIX "key_server_requests_total", METRIC_COUNTER,
              "Signatures asked of the key servers since the last change of their configuration.",
              (double)counter_get(&stats->num_requests));
  metrics_one(text, PREFIX "key_server_signed_total", METRIC_COUNTER, "Signatures received.",
              (double)counter_get(&stats->num_signed));
  metrics_family(text, PREFIX "key_server_failed_total", METRIC_COUNTER,
                 "Signatures not received, by reason.");
  for (int i = STATUS_OK + 1; i < STATUS_NUM; i++) {
    metrics_sample(text, PREFIX "key_server_failed_total",
                   (double)counter_get(&stats->num_failed[i]), "reason",
                   status_name((enum status)i), NULL);
  }
  metrics_one(text, PREFIX "key_server_failovers_total", METRIC_COUNTER,
              "Requests tried again at another key server.",
              (double)counter_get(&stats->num_failovers));
  metrics_one(text, PREFIX "key_server_attempt_timeouts_total", METRIC_COUNTER,
              "Requests that a key server did not answer in its share of the time.",
              (double)counter_get(&stats->num_attempt_timeouts));
  metrics_one(text, PREFIX "key_server_late_replies_total", METRIC_COUNTER,
              "Replies after their deadline or of an unknown id.",
              (double)counter_get(&stats->num_late_replies));
  metrics_one(text, PREFIX "key_server_bad_replies_total", METRIC_COUNTER,
              "Malformed replies; their connections were dropped.",
              (double)counter_get(&stats->num_bad_replies));
  metrics_one(text, PREFIX "key_server_connects_total", METRIC_COUNTER, "Connections opened.",
              (double)counter_get(&stats->num_connects));
  metrics_one(text, PREFIX "key_server_connect_failures_total", METRIC_COUNTER,
              "Connections that could not be opened.",
              (double)counter_get(&stats->num_connect_failed));
  metrics_one(text, PREFIX "key_server_disconnects_total", METRIC_COUNTER,
              "Open connections that were lost.", (double)counter_get(&stats->num_disconnects));
  metrics_family(text, PREFIX "key_server_seconds", METRIC_HISTOGRAM,
                 "From asking for a signature to having it.");
  metrics_histogram(text, PREFIX "key_server_seconds", NULL, NULL, &latency, 1);
}

// One family for both listeners: the offset of a counter makes the table short.
static void write_http(struct metrics_text *text, const struct metrics_view *view) {
  static const struct {
    const char *name;
    enum metric_type type;
    const char *help;
    size_t offset;
  } rows[] = {
      {PREFIX "http_requests_total", METRIC_COUNTER, "HTTP requests that were routed.",
       offsetof(struct http_server_stats, num_requests)},
      {PREFIX "http_connections_total", METRIC_COUNTER, "Connections accepted.",
       offsetof(struct http_server_stats, num_connections)},
      {PREFIX "http_connections", METRIC_GAUGE, "Connections open now.",
       offsetof(struct http_server_stats, num_open)},
      {PREFIX "http_connections_refused_total", METRIC_COUNTER,
       "Connections closed at once, over limits.max_connections.",
       offsetof(struct http_server_stats, num_refused)},
      {PREFIX "tls_handshakes_failed_total", METRIC_COUNTER, "TLS handshakes that failed.",
       offsetof(struct http_server_stats, num_handshake_failed)},
      {PREFIX "http_malformed_total", METRIC_COUNTER, "Requests that are not acceptable HTTP.",
       offsetof(struct http_server_stats, num_malformed)},
      {PREFIX "http_too_large_total", METRIC_COUNTER, "Requests with too large a head or body.",
       offsetof(struct http_server_stats, num_too_large)},
      {PREFIX "http_timeouts_total", METRIC_COUNTER, "Requests or replies not through in time.",
       offsetof(struct http_server_stats, num_timeouts)},
      {PREFIX "http_cut_total", METRIC_COUNTER, "Connections that ended within a request or reply.",
       offsetof(struct http_server_stats, num_cut)},
  };
  const struct http_server *servers[] = {view->api, view->plain};

  metrics_family(text, PREFIX "client_certificates_refused_total", METRIC_COUNTER,
                 "Handshakes that failed for the client's certificate, by reason.");
  for (int i = TLS_REFUSAL_NONE + 1; i < TLS_REFUSAL_NUM; i++) {
    metrics_sample(text, PREFIX "client_certificates_refused_total",
                   (double)http_server_stats(view->api)->num_untrusted[i], "reason",
                   tls_refusal_name((enum tls_refusal)i), NULL);
  }
  static const char *const names[] = {"api", "metrics"};

  for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
    metrics_family(text, rows[row].name, rows[row].type, rows[row].help);
    for (size_t i = 0; i < 2 && servers[i] != NULL; i++) {
      const char *stats = (const char *)http_server_stats(servers[i]);
      const _Atomic uint64_t *value = (const void *)(stats + rows[row].offset);
      metrics_sample(text, rows[row].name,
                     (double)atomic_load_explicit(value, memory_order_relaxed), "listener",
                     names[i], NULL);
    }
  }
}

void metrics_write(struct metrics_text *text, const struct metrics_view *view) {
  write_work(text, view);
  write_state(text, view);
  write_key_servers(text, view->keyclient);
  keyclient_report_metrics(text, PREFIX, &view->keyclient, 1);
  write_http(text, view);
}
