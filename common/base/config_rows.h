// SPDX-License-Identifier: Apache-2.0
// config_rows: what files with tables of options (config.h) have in common: short words
// for the rows, and rows that several programs have. For those files alone, as the
// words are short. More rows for tables: audit_log.h, sandbox.h, client_set.h.
#ifndef DEPUTY_COMMON_BASE_CONFIG_ROWS_H_
#define DEPUTY_COMMON_BASE_CONFIG_ROWS_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"

// Where a row's value is in `struct type`; a list has its length there, too.
#define PLACE(type, field) .offset = offsetof(struct type, field)
#define LIST(type, field, num) PLACE(type, field), .count_offset = offsetof(struct type, num)

// Durations, in the unit of min and max.
#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

// clang-format off
// The row for the member `log` of `holder`.
#define LOG_OPTION_ROW(holder)                                                              \
  {"log", CONFIG_PATH, .offset = offsetof(holder, log), .is_written = true,                 \
   .fallback = "stderr",                                                                    \
   .help = "Log file, or stderr; opened again on SIGUSR1; a change needs a restart"}

// The row for the member `listen` of `holder`, the listener of whoever watches the program
// (address_parse_local); `without` tells what there is when it is not given, or is empty.
#define METRICS_LISTEN_OPTION_ROW(holder, without)                                          \
  {"listen", CONFIG_TEXT, .offset = offsetof(holder, listen),                               \
   .help = "Address for GET /metrics, /healthz and /readyz in plain HTTP: loopback or "     \
           "\"unix:/path\"; " without "a change needs a restart"}
// clang-format on

#endif  // DEPUTY_COMMON_BASE_CONFIG_ROWS_H_
