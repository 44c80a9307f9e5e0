// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "common/base/config_internal.h"

// The path of a nested table, as "names[].limits".
struct heading {
  const struct heading *parent;
  const struct config_option *option;
};

static const char *const types[] = {
    [CONFIG_END] = "",
    [CONFIG_TEXT] = "text",
    [CONFIG_PATH] = "path",
    [CONFIG_BOOL] = "true or false",
    [CONFIG_INT] = "number",
    [CONFIG_DURATION] = "duration",
    [CONFIG_SIZE] = "size",
    [CONFIG_WORD] = "word",
    [CONFIG_TEXTS] = "list of texts",
    [CONFIG_PATHS] = "list of paths",
    [CONFIG_OBJECT] = "object, see below",
    [CONFIG_OBJECTS] = "list of objects, see below",
};

// NOLINTBEGIN(misc-no-recursion): as deep as our own tables
static void print_heading(FILE *file, const struct heading *heading) {
  if (heading->parent != NULL) {
    print_heading(file, heading->parent);
    (void)fputs(".", file);
  }
  (void)fprintf(file, "%s%s", heading->option->name,
                heading->option->type == CONFIG_OBJECTS ? "[]" : "");
}

// A bar would end the cell.
static void print_cell(FILE *file, const char *text) {
  for (const char *c = text; *c != '\0'; c++) {
    if (*c == '|') {
      (void)fputc('\\', file);
    }
    (void)fputc(*c, file);
  }
}

static bool is_list(enum config_type type) {
  return type == CONFIG_TEXTS || type == CONFIG_PATHS || type == CONFIG_OBJECTS;
}

static void print_default(FILE *file, const struct config_option *option) {
  if (option->is_required) {
    (void)fputs("required", file);
  } else if (option->fallback == NULL || option->fallback[0] == '\0') {
    (void)fputs("none", file);
  } else {
    (void)fputs("`", file);
    print_cell(file, option->fallback);
    (void)fputs("`", file);
  }
}

static void print_range(FILE *file, const struct config_option *option) {
  char range[CONFIG_RANGE_LEN];
  if (option->type == CONFIG_WORD) {
    for (size_t i = 0; option->words[i] != NULL; i++) {
      (void)fprintf(file, "%s`%s`", i == 0 ? "" : ", ", option->words[i]);
    }
    return;
  }
  (void)fputs(config_format_range(range, option), file);
  if (range[0] != '\0' && is_list(option->type)) {
    (void)fputs(" elements", file);
  } else if (range[0] != '\0' && option->type == CONFIG_TEXT) {
    (void)fputs(" characters", file);
  }
}

static void print_row(FILE *file, const struct config_option *option) {
  (void)fprintf(file, "| `%s` | %s | ", option->name, types[option->type]);
  print_default(file, option);
  (void)fputs(" | ", file);
  print_range(file, option);
  (void)fputs(" | ", file);
  print_cell(file, option->help == NULL ? "" : option->help);
  (void)fputs(" |\n", file);
}

static void print_table(FILE *file, const struct config_option *table,
                        const struct heading *parent) {
  (void)fputs("| Option | Type | Default | Range | Effect |\n| --- | --- | --- | --- | --- |\n",
              file);
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    print_row(file, option);
  }
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    const struct heading heading = {parent, option};
    if (option->type != CONFIG_OBJECT && option->type != CONFIG_OBJECTS) {
      continue;
    }
    (void)fputs("\n### `", file);
    print_heading(file, &heading);
    (void)fputs("`\n\n", file);
    print_table(file, option->children, &heading);
  }
}

// NOLINTEND(misc-no-recursion)

void config_print_reference(FILE *file, const struct config_option *table) {
  (void)fputs(
      "The file is one JSON object. Durations are texts with a unit: `ms`, `s`, `m`, `h` or `d`.\n"
      "Sizes are bytes, or texts with `KiB`, `MiB` or `GiB`. Relative paths start at the file's\n"
      "own folder.\n\n",
      file);
  print_table(file, table, NULL);
}
