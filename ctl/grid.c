// SPDX-License-Identifier: Apache-2.0
#include "ctl/grid.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GAP 2u

// clean replaces control characters in place: those of ASCII, and U+0080 to U+009F,
// which some terminals obey too (in UTF-8 they are C2 80 to C2 9F).
static void clean(char *text) {
  for (char *p = text; *p != '\0'; p++) {
    unsigned char c = (unsigned char)p[0];
    unsigned char next = (unsigned char)p[1];
    if (c < ' ' || c == 0x7f) {
      *p = '?';
    } else if (c == 0xc2 && next >= 0x80 && next <= 0x9f) {
      p[0] = '?';
      p[1] = '?';
    }
  }
}

void grid_clean(FILE *file, const char *text) {
  char *copy = strdup(text);
  if (copy != NULL) {
    clean(copy);
    (void)fputs(copy, file);
  }
  free(copy);
}

// width counts characters, not bytes: continuation bytes of UTF-8 take no place.
static size_t width(const char *text) {
  size_t num = 0;
  for (; *text != '\0'; text++) {
    num += ((unsigned char)*text & 0xc0) != 0x80 ? 1 : 0;
  }
  return num;
}

void grid_add(struct grid *grid, const char *text) {
  if (grid->num_cells == grid->room) {
    size_t room = grid->room == 0 ? 64 : grid->room * 2;
    char **cells = realloc(grid->cells, room * sizeof(*cells));
    if (cells == NULL) {
      grid->is_failed = true;
      return;
    }
    grid->cells = cells;
    grid->room = room;
  }
  char *copy = strdup(text == NULL ? "" : text);
  if (copy == NULL) {
    grid->is_failed = true;
    return;
  }
  clean(copy);
  grid->cells[grid->num_cells++] = copy;
}

void grid_addf(struct grid *grid, const char *format, ...) {
  char *text = NULL;
  va_list args;
  va_start(args, format);
  int len = vasprintf(&text, format, args);
  va_end(args);
  if (len < 0) {
    grid->is_failed = true;
    return;
  }
  grid_add(grid, text);
  free(text);
}

void grid_init(struct grid *grid, const char *const *heading) {
  *grid = (struct grid){0};
  while (heading[grid->num_columns] != NULL && grid->num_columns < GRID_MAX_COLUMNS) {
    grid_add(grid, heading[grid->num_columns++]);
  }
}

static void print_row(const struct grid *grid, const size_t *widths, size_t first, FILE *file) {
  size_t last = grid->num_columns;
  while (last > 0 && grid->cells[first + last - 1][0] == '\0') {
    last--;
  }
  for (size_t i = 0; i < last; i++) {
    const char *cell = grid->cells[first + i];
    (void)fputs(cell, file);
    for (size_t pad = width(cell); i + 1 < last && pad < widths[i] + GAP; pad++) {
      (void)fputc(' ', file);
    }
  }
  (void)fputc('\n', file);
}

bool grid_print(struct grid *grid, FILE *file) {
  size_t widths[GRID_MAX_COLUMNS] = {0};
  bool is_ok = !grid->is_failed && grid->num_cells % grid->num_columns == 0;
  for (size_t i = 0; i < grid->num_cells && is_ok; i++) {
    size_t wide = width(grid->cells[i]);
    size_t *widest = &widths[i % grid->num_columns];
    *widest = wide > *widest ? wide : *widest;
  }
  for (size_t i = 0; i < grid->num_cells && is_ok; i += grid->num_columns) {
    print_row(grid, widths, i, file);
  }
  for (size_t i = 0; i < grid->num_cells; i++) {
    free(grid->cells[i]);
  }
  free(grid->cells);
  *grid = (struct grid){0};
  return is_ok;
}
