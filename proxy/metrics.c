// SPDX-License-Identifier: Apache-2.0
#include "proxy/metrics.h"

#include <stdatomic.h>

#include "common/base/audit_log.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/sandbox.h"
#include "common/keyclient/keyclient.h"
#include "common/keyclient/report.h"
#include "proxy/connection/access_log.h"
#include "version.h"

#define PREFIX "deputy_proxy_"
#define MAX_WORKERS OPTIONS_MAX_WORKERS

// --- sums over workers ---------------------------------------------------------------

// Where a counter is within the counters of each worker.
#define AT(field) offsetof(struct worker_counters, field)

static uint64_t sum(const struct metrics_source *source, size_t at) {
  uint64_t total = 0;
  for (size_t i = 0; i < source->num_workers; i++) {
    const char *counters = (const char *)&source->workers[i]->counters;
    total += counter_get((const struct counter *)(const void *)(counters + at));
  }
  return total;
}

static size_t nth(size_t at, size_t i) { return at + i * sizeof(struct counter); }

uint64_t metrics_num_open(const struct metrics_source *source) {
  uint64_t closed = sum(source, AT(closed));
  return sum(source, AT(accepted)) - closed;
}

static size_t at_handshakes(enum source by, enum version version) {
  return nth(AT(handshakes), (size_t)by * VERSION_NUM + (size_t)version);
}

uint64_t metrics_num_handshakes(const struct metrics_source *source, enum source by) {
  return sum(source, at_handshakes(by, VERSION_12)) + sum(source, at_handshakes(by, VERSION_13));
}

// --- families --------------------------------------------------------------------------

static void put_one(const struct metrics_source *source, struct metrics_text *text,
                    const char *name, const char *help, size_t at) {
  metrics_family(text, name, METRIC_COUNTER, help);
  metrics_sample(text, name, (double)sum(source, at), NULL);
}

struct row {
  const char *name;
  const char *help;
  const char *label;
  size_t at;
  unsigned first;
  unsigned num;
  const char *(*value)(unsigned i);
};

static const char *refusal_label(unsigned i) { return refusal_name((enum refusal)i); }
static const char *failure_label(unsigned i) { return failure_name((enum failure)i); }
static const char *client_label(unsigned i) { return tls_refusal_name((enum tls_refusal)i); }
static const char *fault_label(unsigned i) { return fault_name((enum fault)i); }
static const char *compression_label(unsigned i) {
  return tls_compression_name((enum tls_compression)i);
}
static const char *guard_label(unsigned i) { return tls_guard_name((enum tls_guard)i); }
static const char *outcome_label(unsigned i) { return outcome_name((enum outcome)i); }

static const struct row rows[] = {
    {PREFIX "connections_refused_total", "Connections closed at once, or not accepted, by reason.",
     "reason", AT(refused), 0, REFUSAL_NUM, refusal_label},
    {PREFIX "handshakes_failed_total", "Handshakes that did not come about, by reason.", "reason",
     AT(failures), FAILURE_NONE + 1, FAILURE_NUM, failure_label},
    {PREFIX "client_certificates_refused_total",
     "Handshakes refused for the certificate that the client showed, by reason.", "reason",
     AT(clients_refused), TLS_REFUSAL_EXPIRED, TLS_REFUSAL_NUM, client_label},
    {PREFIX "client_faults_total",
     "Connections that ended as the client broke TLS after the handshake, by what it did.",
     "reason", AT(faults), 0, FAULT_NUM, fault_label},
    {PREFIX "dc_guard_total",
     "Whether a client could be given the delegated credential (pass), and why not.", "cause",
     AT(guards), 0, TLS_GUARD_NUM, guard_label},
    {PREFIX "certificates_compressed_total", "Handshakes whose certificates went compressed.",
     "algorithm", AT(compressed), 0, TLS_COMPRESSION_NUM, compression_label},
    {PREFIX "certificates_compressed_anew_total",
     "Those that had to compress, as there was no prepared form.", "algorithm", AT(compressed_anew),
     0, TLS_COMPRESSION_NUM, compression_label},
    {PREFIX "connections_ended_total", "Connections by how they ended.", "outcome", AT(outcomes), 0,
     OUTCOME_NUM, outcome_label},
};

static void put_rows(const struct metrics_source *source, struct metrics_text *text) {
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    const struct row *row = &rows[i];
    metrics_family(text, row->name, METRIC_COUNTER, row->help);
    for (unsigned j = row->first; j < row->num; j++) {
      metrics_sample(text, row->name, (double)sum(source, nth(row->at, j)), row->label,
                     row->value(j), NULL);
    }
  }
}

static void put_handshakes(const struct metrics_source *source, struct metrics_text *text) {
  const char *name = PREFIX "handshakes_total";
  metrics_family(text, name, METRIC_COUNTER, "Handshakes by what authenticated them, and version.");
  for (unsigned by = 0; by < SOURCE_NUM; by++) {
    for (unsigned version = 0; version < VERSION_NUM; version++) {
      metrics_sample(text, name,
                     (double)sum(source, at_handshakes((enum source)by, (enum version)version)),
                     "source", source_name((enum source)by), "version",
                     version_name((enum version)version), NULL);
    }
  }
  name = PREFIX "handshake_seconds";
  metrics_family(text, name, METRIC_HISTOGRAM,
                 "Time from accept to the end of the handshake, by what authenticated it.");
  for (unsigned by = 0; by < SOURCE_NUM; by++) {
    const struct histogram *histograms[MAX_WORKERS];
    for (size_t i = 0; i < source->num_workers; i++) {
      histograms[i] = &source->workers[i]->counters.handshake_time[by];
    }
    metrics_histogram(text, name, "source", source_name((enum source)by), histograms,
                      source->num_workers);
  }
}

static void put_origin_time(const struct metrics_source *source, struct metrics_text *text) {
  const char *name = PREFIX "origin_connect_seconds";
  const struct histogram *histograms[MAX_WORKERS];
  for (size_t i = 0; i < source->num_workers; i++) {
    histograms[i] = &source->workers[i]->counters.origin_time;
  }
  metrics_family(text, name, METRIC_HISTOGRAM, "Time that a connection to an origin took.");
  metrics_histogram(text, name, NULL, NULL, histograms, source->num_workers);
}

static void put_alerts(const struct metrics_source *source, struct metrics_text *text) {
  const char *name = PREFIX "alerts_received_total";
  metrics_family(text, name, METRIC_COUNTER, "Fatal alerts that ended a handshake, by name.");
  for (unsigned i = 0; i < COUNTERS_NUM_ALERTS; i++) {
    uint64_t num = sum(source, nth(AT(alerts), i));
    if (num > 0) {
      char code[8];
      (void)snprintf(code, sizeof(code), "%u", i);
      metrics_sample(text, name, (double)num, "alert", alert_name((uint8_t)i), "code", code, NULL);
    }
  }
}

static void put_connections(const struct metrics_source *source, struct metrics_text *text) {
  const char *bytes = PREFIX "bytes_total";
  put_one(source, text, PREFIX "connections_accepted_total", "Connections accepted.", AT(accepted));
  metrics_gauge(text, PREFIX "connections_open", "Connections now.",
                (double)metrics_num_open(source));
  put_one(source, text, PREFIX "dc_rejected_total",
          "Handshakes that the client ended with illegal_parameter after it was given a "
          "delegated credential: a sign of skewed clocks or a bad credential.",
          AT(dc_rejected));
  put_one(source, text, PREFIX "last_resort_total",
          "Handshakes answered with a chain that is out of service, as nothing usable is left.",
          AT(last_resort));
  put_one(source, text, PREFIX "ech_accepted_total",
          "Handshakes whose server name came encrypted (ECH).", AT(ech_accepted));
  put_one(source, text, PREFIX "certificate_bytes_saved_total",
          "Bytes of certificates that compression saved.", AT(compressed_saved));
  put_one(source, text, PREFIX "store_waits_total",
          "Handshakes that waited for a name to be read from the store.", AT(lookups_waited));
  put_one(source, text, PREFIX "store_waits_shed_total",
          "Handshakes refused as too many names were being waited for.", AT(lookups_shed));
  put_one(source, text, PREFIX "store_states_read_total",
          "Handshakes that read the states from the store themselves, as a switch was new.",
          AT(states_read));
  put_one(source, text, PREFIX "store_states_unread_total",
          "Handshakes that went by earlier states, as the store could not be read.",
          AT(states_unread));
  metrics_family(text, bytes, METRIC_COUNTER, "Plain bytes relayed.");
  metrics_sample(text, bytes, (double)sum(source, AT(bytes_up)), "direction", "up", NULL);
  metrics_sample(text, bytes, (double)sum(source, AT(bytes_down)), "direction", "down", NULL);
}

// --- key servers -------------------------------------------------------------------------

static void put_keyclient_failures(const struct metrics_source *source, struct metrics_text *text) {
  const char *name = PREFIX "signatures_failed_total";
  metrics_family(text, name, METRIC_COUNTER, "Signatures that key servers did not give.");
  for (unsigned st = STATUS_OK + 1; st < STATUS_NUM; st++) {
    uint64_t num = 0;
    for (size_t i = 0; i < source->num_workers; i++) {
      if (source->keyclients[i] != NULL) {
        num += counter_get(&keyclient_stats(source->keyclients[i])->num_failed[st]);
      }
    }
    if (num > 0) {
      metrics_sample(text, name, (double)num, "reason", status_name((enum status)st), NULL);
    }
  }
}

static void put_keyclients(const struct metrics_source *source, struct metrics_text *text) {
  const struct histogram *histograms[MAX_WORKERS];
  size_t num = 0;
  uint64_t num_signed = 0;
  uint64_t num_failovers = 0;
  uint64_t num_bad = 0;
  uint64_t num_late = 0;
  unsigned num_ready = UINT32_MAX;

  for (size_t i = 0; i < source->num_workers; i++) {
    const struct keyclient_stats *stats = NULL;
    unsigned ready = 0;
    if (source->keyclients[i] == NULL) {
      continue;
    }
    stats = keyclient_stats(source->keyclients[i]);
    histograms[num++] = &stats->latency;
    num_signed += counter_get(&stats->num_signed);
    num_failovers += counter_get(&stats->num_failovers);
    num_bad += counter_get(&stats->num_bad_replies);
    num_late += counter_get(&stats->num_late_replies);
    ready = keyclient_num_ready(source->keyclients[i]);
    num_ready = ready < num_ready ? ready : num_ready;
  }
  metrics_gauge(text, PREFIX "key_servers_ready",
                "Key servers that can be asked now, by the worker that has the fewest.",
                num == 0 ? 0 : (double)num_ready);
  metrics_gauge(text, PREFIX "handshakes_signing", "Handshakes that wait for a key server.",
                (double)(sum(source, AT(signs_begun)) - sum(source, AT(signs_ended))));
  metrics_family(text, PREFIX "signatures_total", METRIC_COUNTER,
                 "Signatures that key servers gave.");
  metrics_sample(text, PREFIX "signatures_total", (double)num_signed, NULL);
  metrics_family(text, PREFIX "key_server_failovers_total", METRIC_COUNTER,
                 "Requests that were sent to another key server after a failure.");
  metrics_sample(text, PREFIX "key_server_failovers_total", (double)num_failovers, NULL);
  metrics_family(text, PREFIX "key_server_bad_replies_total", METRIC_COUNTER,
                 "Replies that were malformed; the connection was dropped.");
  metrics_sample(text, PREFIX "key_server_bad_replies_total", (double)num_bad, NULL);
  metrics_family(text, PREFIX "key_server_late_replies_total", METRIC_COUNTER,
                 "Replies that nobody waited for any more, or never had.");
  metrics_sample(text, PREFIX "key_server_late_replies_total", (double)num_late, NULL);
  metrics_family(text, PREFIX "signature_seconds", METRIC_HISTOGRAM,
                 "Time that a key server took for a signature.");
  metrics_histogram(text, PREFIX "signature_seconds", NULL, NULL, histograms, num);
  put_keyclient_failures(source, text);
  keyclient_report_metrics(text, PREFIX, source->keyclients, source->num_workers);
}

// --- names -----------------------------------------------------------------------------------

enum gauge { GAUGE_DC_LEFT, GAUGE_LEAF_LEFT, GAUGE_STAPLE_LEFT, GAUGE_USABLE };

static bool gauge_of(double *out, enum gauge gauge, const struct chain *chain, int64_t now_s) {
  const struct tls_dc *dc = NULL;
  switch (gauge) {
    case GAUGE_DC_LEFT:
      // Control, which we are on, is who swaps and frees it.
      dc = atomic_load_explicit(&chain->dc, memory_order_relaxed);
      *out = dc == NULL ? 0 : (double)(tls_dc_expiry_s(dc) - now_s);
      return chain->info.may_delegate;
    case GAUGE_LEAF_LEFT:
      *out = (double)(chain->info.not_after_s - now_s);
      return true;
    case GAUGE_STAPLE_LEFT:
      *out = (double)(chain->staple_ends_s - now_s);
      return chain->has_staple && chain->staple_ends_s != 0;
    case GAUGE_USABLE:
      *out = chain_judge(chain, now_s) == CHAIN_USABLE ? 1 : 0;
      return true;
  }
  return false;
}

static void put_name(struct metrics_text *text, const char *family, enum gauge gauge,
                     const struct cert_name *name, int64_t now_s) {
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      const struct chain *chain = name->levels[i].chains[j];
      double value = 0;
      if (gauge_of(&value, gauge, chain, now_s)) {
        metrics_sample(text, family, value, "name", name->name, "chain", chain->label, "kind",
                       key_kind_name(chain->info.kind), NULL);
      }
    }
  }
}

static void put_names(const struct metrics_source *source, struct metrics_text *text) {
  static const struct {
    enum gauge gauge;
    const char *family;
    const char *help;
  } gauges[] = {
      {GAUGE_DC_LEFT, PREFIX "dc_seconds_left",
       "Seconds until the delegated credential ends; 0: there is none."},
      {GAUGE_LEAF_LEFT, PREFIX "certificate_seconds_left", "Seconds until the leaf ends."},
      {GAUGE_STAPLE_LEFT, PREFIX "staple_seconds_left",
       "Seconds until the stapled OCSP response ends, after which it is left out."},
      {GAUGE_USABLE, PREFIX "chain_usable", "Whether the chain may answer handshakes."},
  };
  int64_t now_s = clock_wall_s();
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(source->site->store, &num);
  size_t num_shown = num < METRICS_MAX_NAMES ? num : METRICS_MAX_NAMES;

  for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++) {
    metrics_family(text, gauges[i].family, METRIC_GAUGE, gauges[i].help);
    for (size_t j = 0; j < num_shown; j++) {
      put_name(text, gauges[i].family, gauges[i].gauge, names[j], now_s);
    }
  }
  metrics_gauge(text, PREFIX "names", "Names served.", (double)num);
  metrics_gauge(text, PREFIX "names_not_shown", "Names that have no gauges of their own here.",
                (double)(num - num_shown));
}

static void put_process(const struct metrics_source *source, struct metrics_text *text) {
  metrics_family(text, PREFIX "info", METRIC_GAUGE, "What runs.");
  metrics_sample(text, PREFIX "info", 1, "version", DEPUTY_VERSION, NULL);
  metrics_gauge(text, PREFIX "start_time_seconds", "When it was started.",
                (double)source->started_s);
  metrics_gauge(text, PREFIX "workers", "Worker threads.", (double)source->num_workers);
  metrics_family(text, PREFIX "reloads_total", METRIC_COUNTER, "Reloads by result.");
  metrics_sample(text, PREFIX "reloads_total", (double)source->num_reloads, "result", "ok", NULL);
  metrics_sample(text, PREFIX "reloads_total", (double)source->num_reloads_failed, "result",
                 "failed", NULL);
  sandbox_metrics(text, PREFIX "sandbox_active");
  audit_log_metrics(text, PREFIX, source->audit);
  metrics_family(text, PREFIX "log_lines_lost_total", METRIC_COUNTER,
                 "Log lines that could not be kept.");
  metrics_sample(text, PREFIX "log_lines_lost_total", (double)log_num_lost(), NULL);
  metrics_gauge(text, PREFIX "log_failing", "1: lines of the log cannot be written, and wait.",
                log_is_failing() ? 1 : 0);
  metrics_gauge(text, PREFIX "access_log_failing", "The same for the access log's own file.",
                access_log_is_failing() ? 1 : 0);
  metrics_family(text, PREFIX "access_log_lines_lost_total", METRIC_COUNTER,
                 "Lines of the access log's own file that could not be kept.");
  metrics_sample(text, PREFIX "access_log_lines_lost_total", (double)access_log_num_lost(), NULL);
}

void metrics_write(const struct metrics_source *source, struct metrics_text *text) {
  put_process(source, text);
  put_connections(source, text);
  put_handshakes(source, text);
  put_rows(source, text);
  put_alerts(source, text);
  put_origin_time(source, text);
  put_keyclients(source, text);
  credentials_write_metrics(source->credentials, text);
  put_names(source, text);
}
