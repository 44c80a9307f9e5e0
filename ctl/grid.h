// SPDX-License-Identifier: Apache-2.0
// grid: a table for people: columns as wide as they need to be, two spaces apart,
// no line longer than its last word. What came from outside cannot control the
// terminal: control characters become '?'.
#ifndef DEPUTY_CTL_GRID_H_
#define DEPUTY_CTL_GRID_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define GRID_MAX_COLUMNS 16u

struct grid {
  size_t num_columns;
  char **cells;  // row by row
  size_t num_cells;
  size_t room;
  bool is_failed;  // no memory: nothing is printed
};

// grid_init starts a table with this heading, one text per column, ended by NULL.
void grid_init(struct grid *grid, const char *const *heading);

// grid_add adds the next cell, left to right, row by row; copied. NULL is "".
void grid_add(struct grid *grid, const char *text);
void grid_addf(struct grid *grid, const char *format, ...) __attribute__((format(printf, 2, 3)));

// grid_print writes the whole and frees it. False: memory ran out, nothing written.
bool grid_print(struct grid *grid, FILE *file);

// grid_clean writes `text` with what could control a terminal replaced.
void grid_clean(FILE *file, const char *text);

#endif  // DEPUTY_CTL_GRID_H_
