// SPDX-License-Identifier: Apache-2.0
// options: a subcommand's command line by a table, so that names, ranges, units,
// defaults, --help and the complaints have one source. "--name value" and
// "--name=value"; a flag takes none.
#ifndef DEPUTY_BENCH_OPTIONS_H_
#define DEPUTY_BENCH_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

enum option_type {
  OPTION_END = 0,   // closes a table
  OPTION_FLAG,      // bool
  OPTION_COUNT,     // int64_t
  OPTION_NUMBER,    // double
  OPTION_DURATION,  // int64_t, milliseconds; written "250ms", "10s", "5m"
  OPTION_SIZE,      // int64_t, bytes; written as a number or "64KiB", "1GiB"
  OPTION_TEXT,      // const char *, borrowed from argv
  OPTION_WORD,      // int, index into `words`
};

struct option_row {
  const char *name;  // without the dashes
  enum option_type type;
  size_t offset;
  const char *fallback;  // as it would be written; NULL: zero, and not shown
  double min;            // of COUNT, NUMBER, DURATION (ms), SIZE; max 0: no range
  double max;
  const char *const *words;  // NULL-terminated
  const char *help;          // effect and unit
  bool is_required;
};

// options_parse fills `out` with the defaults and what argv[1..] says. When it was
// "--help", *out_is_done is true and the rest undefined. STATUS_CONFIG, with the
// sentence.
enum status options_parse(void *out, bool *out_is_done, const struct option_row *table, int argc,
                          char **argv, struct errmsg *err);

// options_print_help writes a line or two for each row.
void options_print_help(FILE *file, const struct option_row *table);

#endif  // DEPUTY_BENCH_OPTIONS_H_
