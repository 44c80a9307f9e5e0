// SPDX-License-Identifier: Apache-2.0
#include "ctl/flags.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_ROWS 64u
#define FIRST_VALUE 1000  // of getopt_long: none that is a character

void flags_print_help(const struct flags_table *table, unsigned bits) {
  (void)printf("\noptions:\n");
  for (size_t i = 0; i < table->num; i++) {
    const struct flags_row *row = &table->rows[i];
    char left[64];
    if ((row->bit & bits) != row->bit) {
      continue;
    }
    (void)snprintf(left, sizeof(left), "--%s%s%s", row->name, row->value != NULL ? " " : "",
                   row->value != NULL ? row->value : "");
    (void)printf("  %-18s  %s\n", left, row->help);
  }
}

const char *flags_names(char *out, size_t max, const struct flags_table *table, unsigned bits,
                        const char *separator) {
  size_t len = 0;
  out[0] = '\0';
  for (size_t i = 0; i < table->num && len < max; i++) {
    if ((table->rows[i].bit & bits) != 0) {
      int n =
          snprintf(out + len, max - len, "%s--%s", len == 0 ? "" : separator, table->rows[i].name);
      len += n > 0 ? (size_t)n : 0;
    }
  }
  return out;
}

// is_utf8: what goes into JSON must be.
static bool is_utf8(const char *text) {
  json_t *probe = json_string(text);
  json_decref(probe);
  return probe != NULL;
}

static enum status take(void *out, unsigned *given, const struct flags_row *row, char *value,
                        struct errmsg *err) {
  if (row->bit != 0 && (*given & row->bit) != 0) {
    return errmsg_set(err, STATUS_CONFIG, "--%s is given twice", row->name);
  }
  *given |= row->bit;
  if (row->text != FLAGS_NOWHERE) {
    if (value[0] == '\0') {
      return errmsg_set(err, STATUS_CONFIG, "--%s is empty", row->name);
    }
    if (row->bit != 0 && !is_utf8(value)) {
      return errmsg_set(err, STATUS_CONFIG, "--%s is not UTF-8", row->name);
    }
    memcpy((char *)out + row->text, &value, sizeof(value));
  } else if (row->flag != FLAGS_NOWHERE) {
    *((bool *)((char *)out + row->flag)) = true;
  }
  return STATUS_OK;
}

static const struct flags_row *help_row(const struct flags_table *table) {
  for (size_t i = 0; i < table->num; i++) {
    if (strcmp(table->rows[i].name, "help") == 0) {
      return &table->rows[i];
    }
  }
  CHECK(false);
  return NULL;
}

enum status flags_read(void *out, unsigned *given, const struct flags_table *table, int argc,
                       char **argv, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct flags_row *rows = table->rows;
  struct option options[MAX_ROWS + 1] = {0};

  CHECK(table->num <= MAX_ROWS);
  for (size_t i = 0; i < table->num; i++) {
    options[i] = (struct option){.name = rows[i].name,
                                 .has_arg = rows[i].value != NULL ? required_argument : no_argument,
                                 .val = (int)i + FIRST_VALUE};
  }
  opterr = 0;
  optind = 0;  // glibc: start over, also after an earlier call
  while (st == STATUS_OK) {
    int got = getopt_long(argc, argv, ":h", options, NULL);
    if (got == -1) {
      break;
    }
    if (got == ':') {
      return errmsg_set(err, STATUS_CONFIG, "--%s needs a value; see --help",
                        rows[optopt - FIRST_VALUE].name);
    }
    if (got == '?') {
      return errmsg_set(err, STATUS_CONFIG, "unknown option %s; see --help", argv[optind - 1]);
    }
    st = take(out, given, got == 'h' ? help_row(table) : &rows[got - FIRST_VALUE], optarg, err);
  }
  return st;
}
