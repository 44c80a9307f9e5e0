// SPDX-License-Identifier: Apache-2.0
#include "bench/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"

#define HELP_COLUMN 26
#define HELP_WIDTH 96

static const char *const type_names[] = {
    [OPTION_FLAG] = "",         [OPTION_COUNT] = "N",   [OPTION_NUMBER] = "X",
    [OPTION_DURATION] = "TIME", [OPTION_SIZE] = "SIZE", [OPTION_TEXT] = "TEXT",
    [OPTION_WORD] = "WORD"};

static bool read_number(double *out, const char *text) {
  char *end = NULL;
  errno = 0;
  *out = strtod(text, &end);
  return errno == 0 && end != text && *end == '\0' && isfinite(*out);
}

static bool read_count(int64_t *out, const char *text) {
  char *end = NULL;
  errno = 0;
  *out = strtoll(text, &end, 10);
  return errno == 0 && end != text && *end == '\0';
}

static bool read_word(int *out, const struct option_row *row, const char *text) {
  for (int i = 0; row->words[i] != NULL; i++) {
    if (strcmp(row->words[i], text) == 0) {
      *out = i;
      return true;
    }
  }
  return false;
}

// Reads `text` into the row's field; *out_number is what the range is asked of.
static bool read_value(void *field, double *out_number, const struct option_row *row,
                       const char *text) {
  int64_t whole = 0;
  bool is_read = false;
  switch (row->type) {
    case OPTION_FLAG:
      *(bool *)field = true;
      return true;
    case OPTION_TEXT:
      *(const char **)field = text;
      return true;
    case OPTION_WORD:
      return read_word(field, row, text);
    case OPTION_NUMBER:
      is_read = read_number(out_number, text);
      *(double *)field = *out_number;
      return is_read;
    case OPTION_COUNT:
      is_read = read_count(&whole, text);
      break;
    case OPTION_DURATION:
      is_read = config_parse_duration(&whole, text) == STATUS_OK;
      break;
    case OPTION_SIZE:
      is_read = read_count(&whole, text) || config_parse_size(&whole, text) == STATUS_OK;
      break;
    case OPTION_END:
      break;
  }
  *(int64_t *)field = whole;
  *out_number = (double)whole;
  return is_read;
}

static enum status complain(const struct option_row *row, const char *text, struct errmsg *err) {
  char choices[256] = "";
  switch (row->type) {
    case OPTION_WORD:
      for (int i = 0; row->words[i] != NULL; i++) {
        const size_t len = strlen(choices);
        (void)snprintf(choices + len, sizeof(choices) - len, "%s%s", i == 0 ? "" : ", ",
                       row->words[i]);
      }
      return errmsg_set(err, STATUS_CONFIG, "--%s is \"%s\"; it may be %s", row->name, text,
                        choices);
    case OPTION_DURATION:
      return errmsg_set(err, STATUS_CONFIG, "--%s is \"%s\"; a time is written 250ms, 10s or 5m",
                        row->name, text);
    case OPTION_SIZE:
      return errmsg_set(err, STATUS_CONFIG, "--%s is \"%s\"; a size is written 4096 or 64KiB",
                        row->name, text);
    default:
      return errmsg_set(err, STATUS_CONFIG, "--%s is \"%s\", which is not a number", row->name,
                        text);
  }
}

static enum status apply(void *out, const struct option_row *row, const char *text,
                         struct errmsg *err) {
  double number = 0;
  if (!read_value((char *)out + row->offset, &number, row, text)) {
    return complain(row, text, err);
  }
  if (row->max != 0 && (number < row->min || number > row->max)) {
    return errmsg_set(err, STATUS_CONFIG, "--%s is %s; it must be from %.15g to %.15g%s", row->name,
                      text, row->min, row->max, row->type == OPTION_DURATION ? " ms" : "");
  }
  return STATUS_OK;
}

static const struct option_row *find(const struct option_row *table, const char *name, size_t len) {
  for (const struct option_row *row = table; row->type != OPTION_END; row++) {
    if (strlen(row->name) == len && strncmp(row->name, name, len) == 0) {
      return row;
    }
  }
  return NULL;
}

static enum status apply_defaults(void *out, const struct option_row *table, struct errmsg *err) {
  for (const struct option_row *row = table; row->type != OPTION_END; row++) {
    enum status st = row->fallback == NULL ? STATUS_OK : apply(out, row, row->fallback, err);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

// Takes the option at argv[*i], and the next word if that is its value.
static enum status take(void *out, const struct option_row *table, const struct option_row **found,
                        int *i, int argc, char **argv, struct errmsg *err) {
  const char *arg = argv[*i];
  if (strncmp(arg, "--", 2) != 0) {
    return errmsg_set(err, STATUS_CONFIG, "\"%s\" is not an option; see --help", arg);
  }
  const char *equals = strchr(arg, '=');
  const size_t len = equals == NULL ? strlen(arg + 2) : (size_t)(equals - arg - 2);
  const struct option_row *row = find(table, arg + 2, len);
  const char *value = equals == NULL ? NULL : equals + 1;
  if (row == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "unknown option \"%s\"; see --help", arg);
  }
  *found = row;
  if (row->type == OPTION_FLAG) {
    if (value != NULL) {
      return errmsg_set(err, STATUS_CONFIG, "--%s takes no value", row->name);
    }
    return apply(out, row, "", err);
  }
  if (value == NULL) {
    *i += 1;
    value = *i < argc ? argv[*i] : NULL;
  }
  if (value == NULL || value[0] == '\0') {
    return errmsg_set(err, STATUS_CONFIG, "--%s needs a value; see --help", row->name);
  }
  return apply(out, row, value, err);
}

enum status options_parse(void *out, bool *out_is_done, const struct option_row *table, int argc,
                          char **argv, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint64_t seen = 0;

  *out_is_done = false;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      *out_is_done = true;
      return STATUS_OK;
    }
  }
  TRY(apply_defaults(out, table, err));
  for (int i = 1; i < argc; i++) {
    const struct option_row *row = NULL;
    TRY(take(out, table, &row, &i, argc, argv, err));
    CHECK(row - table < 64);
    seen |= 1ULL << (row - table);
  }
  for (const struct option_row *row = table; row->type != OPTION_END; row++) {
    if (row->is_required && (seen & (1ULL << (row - table))) == 0) {
      st = errmsg_set(err, STATUS_CONFIG, "--%s is required; see --help", row->name);
      goto out;
    }
  }

out:
  return st;
}

// --- help ----------------------------------------------------------------------

static void print_wrapped(FILE *file, const char *text) {
  size_t column = HELP_COLUMN;
  while (*text != '\0') {
    const size_t len = strcspn(text, " ");
    if (column + len + 1 > HELP_WIDTH) {
      (void)fprintf(file, "\n%*s", HELP_COLUMN, "");
      column = HELP_COLUMN;
    } else if (column > HELP_COLUMN) {
      (void)fputc(' ', file);
      column += 1;
    }
    (void)fprintf(file, "%.*s", (int)len, text);
    column += len;
    text += len;
    text += strspn(text, " ");
  }
  (void)fputc('\n', file);
}

static void print_row(FILE *file, const struct option_row *row) {
  char text[1024];
  int len = snprintf(text, sizeof(text), "  --%s %s", row->name, type_names[row->type]);
  (void)fprintf(file, "%-*s", HELP_COLUMN, text);
  if (len >= HELP_COLUMN) {
    (void)fprintf(file, "\n%*s", HELP_COLUMN, "");
  }
  size_t used = (size_t)snprintf(text, sizeof(text), "%s", row->help);
  for (int i = 0; row->type == OPTION_WORD && row->words[i] != NULL; i++) {
    used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i == 0 ? ": " : ", ",
                             row->words[i]);
  }
  if (row->is_required) {
    (void)snprintf(text + used, sizeof(text) - used, " (required)");
  } else if (row->fallback != NULL) {
    (void)snprintf(text + used, sizeof(text) - used, " (default %s)", row->fallback);
  }
  print_wrapped(file, text);
}

void options_print_help(FILE *file, const struct option_row *table) {
  for (const struct option_row *row = table; row->type != OPTION_END; row++) {
    print_row(file, row);
  }
}
