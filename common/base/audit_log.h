// SPDX-License-Identifier: Apache-2.0
// audit_log: the file of a program's audit lines, as its configuration describes it,
// and what the operator hears of it: that it cannot be written, that it can again, and
// how far its chain (chain.h) has come. Lines are written to `sink`, from any thread;
// all else is the control thread's.
#ifndef DEPUTY_COMMON_BASE_AUDIT_LOG_H_
#define DEPUTY_COMMON_BASE_AUDIT_LOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "common/base/status.h"

#define AUDIT_LOG_WATCH_MS 1000  // between calls of audit_log_watch

// What an operator says, in each program's configuration.
struct audit_log_options {
  char *path;          // "stderr": standard error
  int64_t buffer_len;  // bytes that may wait for the disk
  bool is_chained;
  int64_t rotate_len;  // 0: never
  int64_t rotate_age_ms;
  int64_t rotate_keep;
};

// The rows of a config table for the member `log` of `holder`, all but `path`, of which
// each program tells what its lines are.
#define AUDIT_LOG_OPTION_ROWS(holder)                                                         \
  {.name = "buffer",                                                                          \
   .type = CONFIG_SIZE,                                                                       \
   .offset = offsetof(holder, log.buffer_len),                                                \
   .fallback = "4MiB",                                                                        \
   .min = 64 << 10,                                                                           \
   .max = 1 << 30,                                                                            \
   .help = "Lines that may wait for the disk; a change needs a restart"},                     \
      {.name = "chain",                                                                       \
       .type = CONFIG_BOOL,                                                                   \
       .offset = offsetof(holder, log.is_chained),                                            \
       .fallback = "false",                                                                   \
       .help =                                                                                \
           "Number the lines and bind each to the one before by a SHA-256, for `deputyctl "   \
           "keyserver verify-audit`; a change needs a restart"},                              \
      {.name = "rotate_size",                                                                 \
       .type = CONFIG_SIZE,                                                                   \
       .offset = offsetof(holder, log.rotate_len),                                            \
       .fallback = "0",                                                                       \
       .min = 0,                                                                              \
       .max = INT64_C(1) << 40,                                                               \
       .help =                                                                                \
           "A file of this size is moved to PATH.1, that one to PATH.2 and so on; 0: never; " \
           "a change needs a restart"},                                                       \
      {.name = "rotate_age",                                                                  \
       .type = CONFIG_DURATION,                                                               \
       .offset = offsetof(holder, log.rotate_age_ms),                                         \
       .fallback = "0s",                                                                      \
       .min = 0,                                                                              \
       .max = INT64_C(366) * 86400000,                                                        \
       .help = "The same for a file of this age; 0s: never; a change needs a restart"},       \
  {                                                                                           \
    .name = "rotate_keep", .type = CONFIG_INT, .offset = offsetof(holder, log.rotate_keep),   \
    .fallback = "30", .min = 1, .max = 1000,                                                  \
    .help = "Old files that are kept; what is older is removed; a change needs a restart"     \
  }

// audit_log_change names the first option in which the two differ, as "audit.path":
// a reload leaves it as it is. NULL: none. Static.
const char *audit_log_change(const struct audit_log_options *a, const struct audit_log_options *b);

struct audit_log {
  struct sink *sink;
  bool is_chained;
  bool is_failing;  // as of the last watch
  uint64_t num_watches;
  uint64_t logged_head;  // number of the line whose hash the program's log has
};

// audit_log_open opens the file and starts the sink. STATUS_SYSTEM, STATUS_MEMORY, with
// the sentence. `log` must not move; all-zero it may be closed.
enum status audit_log_open(struct audit_log *log, const struct audit_log_options *options,
                           struct errmsg *err);

// audit_log_watch, from a timer each AUDIT_LOG_WATCH_MS, logs when the file can be written
// no more (with `consequence`, as "nothing is signed") and when again, and once a minute
// the head of the chain: another file then bears witness against who cuts this one off.
void audit_log_watch(struct audit_log *log, const char *consequence);

// audit_log_num_chained is the number of the chain's last line; 0 without a chain. The
// sink's mutex is taken.
uint64_t audit_log_num_chained(const struct audit_log *log);

// audit_log_metrics writes PREFIXaudit_lost_total, _failing, _chain_lines, _rotations_total.
void audit_log_metrics(struct metrics_text *text, const char *prefix, const struct sink *sink);

// audit_log_close writes what waits (bounded), stops the sink and logs the last head.
void audit_log_close(struct audit_log *log);

#endif  // DEPUTY_COMMON_BASE_AUDIT_LOG_H_
