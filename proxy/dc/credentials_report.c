// SPDX-License-Identifier: Apache-2.0
#include "common/tls/dc_check.h"
#include "proxy/dc/credentials.h"

#define PREFIX "deputy_proxy_dc_"

static const struct {
  const char *name;
  const char *help;
  size_t at;
} gauges[] = {
    {"chains", "Leaves of names in memory that are to have a delegated credential.",
     offsetof(struct credentials_counts, num_wanted)},
    {"ready", "Of these, leaves that have one.", offsetof(struct credentials_counts, num_ready)},
    {"kept", "Credentials whose names have left the cache, kept while there is room.",
     offsetof(struct credentials_counts, num_kept)},
    {"max", "The most that are kept in memory.", offsetof(struct credentials_counts, max_ready)},
    {"due", "Leaves that are to be asked for as soon as their turn comes.",
     offsetof(struct credentials_counts, num_due)},
    {"asked", "Leaves that issuers are asked for now.",
     offsetof(struct credentials_counts, num_asked)},
    {"waiting", "Leaves that wait after a failure, or until they fit.",
     offsetof(struct credentials_counts, num_waiting)},
    {"leaves", "Leaves in memory that may delegate, wanted or not.",
     offsetof(struct credentials_counts, num_leaves)},
    {"bytes", "Memory that credentials, keys and their records take, estimated.",
     offsetof(struct credentials_counts, bytes)},
};

static void put_counts(const struct credentials_counts *counts, struct metrics_text *text) {
  char name[64];
  for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++) {
    const size_t *value = (const void *)((const char *)counts + gauges[i].at);
    (void)snprintf(name, sizeof(name), PREFIX "%s", gauges[i].name);
    metrics_gauge(text, name, gauges[i].help, (double)*value);
  }
  metrics_gauge(text, PREFIX "chains_without", "Leaves that are to have one and have none now.",
                (double)(counts->num_wanted - counts->num_ready));
  metrics_gauge(text, PREFIX "issuers_paused", "Issuers that are left alone after a failure.",
                counts->num_issuers_paused);
}

static void put_gone(const struct credentials_counts *counts, struct metrics_text *text) {
  const struct {
    const char *reason;
    uint64_t value;
  } rows[] = {
      {"room", counts->num_evicted},
      {"ended", counts->num_ended},
      {"idle", counts->num_let_go},
      {"no_room", counts->num_no_room},
  };
  metrics_family(text, PREFIX "evicted_total", METRIC_COUNTER,
                 "Credentials that went: room for a hotter one; ended before there was another; "
                 "idle: not renewed, as nobody wanted it; no_room: wanted, not asked for, as all "
                 "that is there is hotter.");
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    metrics_sample(text, PREFIX "evicted_total", (double)rows[i].value, "reason", rows[i].reason,
                   NULL);
  }
}

void credentials_write_metrics(const struct credentials *c, struct metrics_text *text) {
  struct credentials_counts counts;
  credentials_count(c, &counts);
  metrics_family(text, PREFIX "fetches_total", METRIC_COUNTER,
                 "Delegated credentials asked for, by what came of it.");
  for (unsigned i = 0; i < DC_RESULT_NUM; i++) {
    metrics_sample(text, PREFIX "fetches_total", (double)counts.results[i], "result",
                   dc_result_name((enum dc_result)i), NULL);
  }
  metrics_family(text, PREFIX "faults_total", METRIC_COUNTER,
                 "Delegated credentials that an issuer answered with and that did not pass.");
  for (unsigned i = DC_FAULT_NONE + 1; i < DC_FAULT_NUM; i++) {
    metrics_sample(text, PREFIX "faults_total", (double)counts.faults[i], "fault",
                   dc_fault_name((enum dc_fault)i), NULL);
  }
  put_counts(&counts, text);
  put_gone(&counts, text);
  metrics_family(text, PREFIX "keys_made_total", METRIC_COUNTER, "Keys of delegated credentials.");
  metrics_sample(text, PREFIX "keys_made_total", (double)counts.num_keys_made, NULL);
  metrics_family(text, PREFIX "heat_lost_total", METRIC_COUNTER,
                 "Handshakes whose wish for a credential was not counted, as too many came.");
  metrics_sample(text, PREFIX "heat_lost_total", (double)counts.num_heat_lost, NULL);
}

json_t *credentials_status(const struct credentials *c) {
  struct credentials_counts counts;
  json_t *failures = json_object();
  credentials_count(c, &counts);
  if (counts.num_issuers == 0) {
    json_decref(failures);
    return NULL;
  }
  for (unsigned i = DC_RESULT_OK + 1; i < DC_RESULT_NUM; i++) {
    (void)json_object_set_new(failures, dc_result_name((enum dc_result)i),
                              json_integer((json_int_t)counts.results[i]));
  }
  return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "ready",
                   (json_int_t)counts.num_ready, "wanted", (json_int_t)counts.num_wanted, "due",
                   (json_int_t)counts.num_due, "asked", (json_int_t)counts.num_asked, "waiting",
                   (json_int_t)counts.num_waiting, "kept", (json_int_t)counts.num_kept, "max",
                   (json_int_t)counts.max_ready, "bytes", (json_int_t)counts.bytes, "evicted",
                   (json_int_t)counts.num_evicted, "ended", (json_int_t)counts.num_ended,
                   "issuers_paused", (json_int_t)counts.num_issuers_paused, "failures", failures);
}
