// SPDX-License-Identifier: Apache-2.0
#include "certmanager/metrics.h"

#include "common/base/audit_log.h"
#include "common/base/sandbox.h"
#include "version.h"

#define PREFIX "deputy_certmanager_"

static void write_counter(struct metrics_text *text, const char *name, const char *help,
                          const struct counter *counter) {
  metrics_one(text, name, METRIC_COUNTER, help, (double)counter_get(counter));
}

static void write_process(struct metrics_text *text, const struct metrics_view *view) {
  metrics_family(text, PREFIX "build_info", METRIC_GAUGE, "Always 1; the version is the label.");
  metrics_sample(text, PREFIX "build_info", 1, "version", DEPUTY_VERSION, NULL);
  metrics_one(text, PREFIX "active", METRIC_GAUGE,
              "1 in the process that works on the store, 0 in one that stands by.",
              view->keeper != NULL ? 1 : 0);
  sandbox_metrics(text, PREFIX "sandbox_active");
  metrics_family(text, PREFIX "reloads_total", METRIC_COUNTER, "Reloads, by result.");
  metrics_sample(text, PREFIX "reloads_total", (double)view->reload->num_good, "result", "ok",
                 NULL);
  metrics_sample(text, PREFIX "reloads_total", (double)view->reload->num_failed, "result", "failed",
                 NULL);
  audit_log_metrics(text, PREFIX, view->audit);
}

static void write_writes(struct metrics_text *text, const struct stats *stats) {
  write_counter(text, PREFIX "staples_kept_total", "Staples written to the store.",
                &stats->num_staples_kept);
  write_counter(text, PREFIX "staples_left_total",
                "Staples not written: the store has a newer one, or the chain no more.",
                &stats->num_staples_left);
  write_counter(text, PREFIX "store_writes_failed_total",
                "Transactions that the store refused; their staples are tried again.",
                &stats->num_writes_failed);
  metrics_one(text, PREFIX "store_failing", METRIC_GAUGE, "1 while the store cannot be written.",
              atomic_load(&stats->is_write_failing) ? 1 : 0);
  write_counter(text, PREFIX "store_opened_again_total", "The store was compacted, or came back.",
                &stats->num_reopens);
  metrics_family(text, PREFIX "scans_total", METRIC_COUNTER,
                 "Walks over the store's names, after each change of it, by result.");
  metrics_sample(text, PREFIX "scans_total", (double)counter_get(&stats->num_scans), "result", "ok",
                 NULL);
  metrics_sample(text, PREFIX "scans_total", (double)counter_get(&stats->num_scans_failed),
                 "result", "failed", NULL);
}

static void write_revocations(struct metrics_text *text, const struct stats *stats) {
  metrics_family(text, PREFIX "revocations_seen_total", METRIC_COUNTER,
                 "Leaves seen revoked, by source.");
  metrics_sample(text, PREFIX "revocations_seen_total", (double)counter_get(&stats->num_seen_ocsp),
                 "source", "ocsp", NULL);
  metrics_sample(text, PREFIX "revocations_seen_total", (double)counter_get(&stats->num_seen_list),
                 "source", "crl", NULL);
  write_counter(text, PREFIX "revocations_taken_back_total",
                "Leaves that their CA says are good again.", &stats->num_taken_back);
  metrics_family(text, PREFIX "switches_total", METRIC_COUNTER,
                 "What became of leaves seen revoked under the policy \"switch\".");
  for (int i = SWITCH_MADE; i < SWITCH_NUM_VERDICTS; i++) {
    metrics_sample(text, PREFIX "switches_total", (double)counter_get(&stats->num_verdicts[i]),
                   "verdict", switch_verdict_name((enum switch_verdict)i), NULL);
  }
  write_counter(text, PREFIX "names_moved_total", "Names that were counted against the ceiling.",
                &stats->num_names_moved);
  metrics_family(text, PREFIX "lists_total", METRIC_COUNTER,
                 "Revocation lists asked for, by what came.");
  metrics_sample(text, PREFIX "lists_total", (double)counter_get(&stats->num_list_answers),
                 "result", "good", NULL);
  for (int i = FETCH_NO_FAULT + 1; i < FETCH_NUM_FAULTS; i++) {
    uint64_t num = counter_get(&stats->num_list_fetch_faults[i]);
    // One sample, wherever memory was missing.
    num += i == FETCH_NO_MEMORY ? counter_get(&stats->num_list_faults[CRL_NO_MEMORY]) : 0;
    metrics_sample(text, PREFIX "lists_total", (double)num, "result",
                   fetch_fault_name((enum fetch_fault)i), NULL);
  }
  for (int i = CRL_NO_FAULT + 1; i < CRL_NUM_FAULTS; i++) {
    if (i != CRL_NO_MEMORY) {
      metrics_sample(text, PREFIX "lists_total", (double)counter_get(&stats->num_list_faults[i]),
                     "result", crl_fault_name((enum crl_fault)i), NULL);
    }
  }
}

static void write_work(struct metrics_text *text, const struct keeper_view *view) {
  metrics_family(text, PREFIX "chains", METRIC_GAUGE, "Chains that some name has, by kind.");
  metrics_sample(text, PREFIX "chains", (double)view->num_chains, "kind", "all", NULL);
  metrics_sample(text, PREFIX "chains", (double)view->num_asked, "kind", "ocsp", NULL);
  metrics_sample(text, PREFIX "chains", (double)view->num_listed, "kind", "crl", NULL);
  metrics_one(text, PREFIX "lists", METRIC_GAUGE, "Revocation lists that are watched.",
              (double)view->num_lists);
  metrics_one(text, PREFIX "revoked", METRIC_GAUGE, "Leaves with a name that are seen revoked now.",
              (double)view->num_revoked);
  metrics_one(text, PREFIX "staples_to_write", METRIC_GAUGE, "Staples on their way to the store.",
              (double)view->num_waiting);
  metrics_one(text, PREFIX "ceiling_used", METRIC_GAUGE,
              "Names moved without a person in the last 60 seconds.", (double)view->ceiling_used);
  metrics_one(text, PREFIX "scan_seconds", METRIC_GAUGE, "What the last walk over the names took.",
              (double)view->scan_us / 1e6);
}

static void write_questions(struct metrics_text *text, const struct staple_fetch_stats *fetch) {
  metrics_one(text, PREFIX "questions_total", METRIC_COUNTER, "Questions to OCSP responders.",
              (double)fetch->num_asked);
  metrics_family(text, PREFIX "answers_total", METRIC_COUNTER, "What came of them.");
  for (int i = 0; i < STAPLE_NUM_OUTCOMES; i++) {
    metrics_sample(text, PREFIX "answers_total", (double)fetch->num_outcomes[i], "outcome",
                   staple_outcome_name((enum staple_outcome)i), NULL);
  }
  metrics_family(text, PREFIX "answers_failed_total", METRIC_COUNTER,
                 "Answers that did not come or cannot be believed, by fault.");
  for (int i = FETCH_NO_FAULT + 1; i < FETCH_NUM_FAULTS; i++) {
    metrics_sample(text, PREFIX "answers_failed_total", (double)fetch->num_fetch_faults[i], "fault",
                   fetch_fault_name((enum fetch_fault)i), "layer", "http", NULL);
  }
  for (int i = OCSP_NO_FAULT + 1; i < OCSP_NUM_FAULTS; i++) {
    metrics_sample(text, PREFIX "answers_failed_total", (double)fetch->num_ocsp_faults[i], "fault",
                   ocsp_fault_name((enum ocsp_fault)i), "layer", "ocsp", NULL);
  }
  metrics_one(text, PREFIX "questions_open", METRIC_GAUGE, "Questions on their way now.",
              (double)fetch->num_open);
  metrics_one(text, PREFIX "questions_waiting", METRIC_GAUGE,
              "Chains that are due, but for bounds.", (double)fetch->num_waiting);
  metrics_one(text, PREFIX "responders", METRIC_GAUGE, "Responders that are known.",
              (double)fetch->num_responders);
  metrics_one(text, PREFIX "responders_closed", METRIC_GAUGE,
              "Responders left alone for the moment, as they do not answer.",
              (double)fetch->num_responders_closed);
}

void metrics_write(struct metrics_text *text, const struct metrics_view *view) {
  write_process(text, view);
  write_writes(text, view->stats);
  write_revocations(text, view->stats);
  if (view->keeper != NULL) {
    write_work(text, view->keeper);
    if (view->keeper->has_fetch) {
      write_questions(text, &view->keeper->fetch);
    }
  }
}
