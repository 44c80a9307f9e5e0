// SPDX-License-Identifier: Apache-2.0
#include "common/base/audit_log.h"

#include <stdio.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/chain.h"
#include "common/base/log.h"

// A line for each head would say no more than one for the newest.
#define HEAD_EVERY_WATCHES 60

const char *audit_log_change(const struct audit_log_options *a, const struct audit_log_options *b) {
  const struct {
    const char *name;
    bool is_same;
  } rows[] = {
      {"audit.path", config_same_text(a->path, b->path)},
      {"audit.buffer", a->buffer_len == b->buffer_len},
      {"audit.chain", a->is_chained == b->is_chained},
      {"audit.rotate_size", a->rotate_len == b->rotate_len},
      {"audit.rotate_age", a->rotate_age_ms == b->rotate_age_ms},
      {"audit.rotate_keep", a->rotate_keep == b->rotate_keep},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    if (!rows[i].is_same) {
      return rows[i].name;
    }
  }
  return NULL;
}

enum status audit_log_open(struct audit_log *log, const struct audit_log_options *options,
                           struct errmsg *err) {
  const struct sink_options sink = {
      .path = options->path,
      .ring_len = (size_t)options->buffer_len,
      .is_chained = options->is_chained,
      .rotate_len = (uint64_t)options->rotate_len,
      .rotate_age_ms = options->rotate_age_ms,
      .num_keep = (unsigned)options->rotate_keep,
  };

  *log = (struct audit_log){.is_chained = options->is_chained};
  return sink_open_with(&log->sink, &sink, err);
}

static void log_head(struct audit_log *log, const struct chain *head) {
  char hash[2 * CHAIN_HASH_LEN + 1];

  if (head->seq != log->logged_head) {
    log->logged_head = head->seq;
    log_info(0, "audit_head", "seq=%llu chain=%s", (unsigned long long)head->seq,
             bytes_to_hex(hash, bytes_of(head->hash, sizeof(head->hash))));
  }
}

void audit_log_watch(struct audit_log *log, const char *consequence) {
  const bool is_failing = sink_is_failing(log->sink);

  if (is_failing && !log->is_failing) {
    log_error(0, "audit_failing", "the audit file cannot be written: %s", consequence);
  } else if (!is_failing && log->is_failing) {
    log_info(0, "audit_recovered", "lost=%llu", (unsigned long long)sink_num_lost(log->sink));
  }
  log->is_failing = is_failing;
  if (++log->num_watches % HEAD_EVERY_WATCHES == 0) {
    struct chain head;
    sink_head(log->sink, &head);
    log_head(log, &head);
  }
}

uint64_t audit_log_num_chained(const struct audit_log *log) {
  struct chain head = {0};
  if (log->is_chained) {
    sink_head(log->sink, &head);
  }
  return head.seq;
}

void audit_log_metrics(struct metrics_text *text, const char *prefix, const struct sink *sink) {
  char name[96];
  // sink_head takes the sink's mutex.
  struct chain head;

  sink_head((struct sink *)sink, &head);
  (void)snprintf(name, sizeof(name), "%saudit_lost_total", prefix);
  metrics_family(text, name, METRIC_COUNTER, "Audit lines that could not be kept.");
  metrics_sample(text, name, (double)sink_num_lost(sink), NULL);
  (void)snprintf(name, sizeof(name), "%saudit_failing", prefix);
  metrics_family(text, name, METRIC_GAUGE, "1 while the audit file cannot be written.");
  metrics_sample(text, name, sink_is_failing(sink) ? 1 : 0, NULL);
  (void)snprintf(name, sizeof(name), "%saudit_chain_lines", prefix);
  metrics_family(text, name, METRIC_GAUGE,
                 "Number of the last line in the audit file; 0 without chain.");
  metrics_sample(text, name, (double)head.seq, NULL);
  (void)snprintf(name, sizeof(name), "%saudit_rotations_total", prefix);
  metrics_family(text, name, METRIC_COUNTER,
                 "Times that the audit file was moved aside, by result.");
  metrics_sample(text, name, (double)sink_num_rotations(sink, false), "result", "done", NULL);
  metrics_sample(text, name, (double)sink_num_rotations(sink, true), "result", "failed", NULL);
}

void audit_log_close(struct audit_log *log) {
  struct chain head = {0};

  sink_close_at(log->sink, &head);
  log->sink = NULL;
  if (head.seq > 0) {
    log_head(log, &head);
  }
}
