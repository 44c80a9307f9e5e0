// SPDX-License-Identifier: Apache-2.0
// flags: the options of a command line (--name NAME, --json) by a table, for deputyctl
// (args.c) and for `deputyctl store` (store.c), which have commands of their own.
#ifndef DEPUTY_CTL_FLAGS_H_
#define DEPUTY_CTL_FLAGS_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define FLAGS_NOWHERE SIZE_MAX

struct flags_row {
  const char *name;   // without the dashes
  unsigned bit;       // of what a command takes; 0: for all commands
  size_t text;        // where the text that follows goes (const char *, borrowed), or
  size_t flag;        // the bool that is set; both FLAGS_NOWHERE: the bit says it all
  const char *value;  // what the text is, in help; NULL: none follows
  const char *help;
};

struct flags_table {
  const struct flags_row *rows;
  size_t num;
};

// flags_print_help writes the options for a command that takes `bits`.
void flags_print_help(const struct flags_table *table, unsigned bits);

// flags_read fills `out` and the bits `*given`, and moves the other words to the end:
// optind is the first of them. -h is --help. What has a bit may be given once, and its
// text is UTF-8. STATUS_CONFIG with the sentence.
enum status flags_read(void *out, unsigned *given, const struct flags_table *table, int argc,
                       char **argv, struct errmsg *err);

// flags_names writes the options that have one of `bits`; returns out.
const char *flags_names(char *out, size_t max, const struct flags_table *table, unsigned bits,
                        const char *separator);

#endif  // DEPUTY_CTL_FLAGS_H_
