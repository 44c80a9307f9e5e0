// SPDX-License-Identifier: Apache-2.0
// config: reads a JSON configuration file into a struct by a table of options,
// so that names, ranges, defaults, units, error messages and the reference
// manual have one source. An unknown option, a wrong type or a value out of
// range stops with file, line, the option's path, and what was probably meant:
//   proxy.json:12: unknown option "chians" in names[0]; did you mean "chains"?
#ifndef DEPUTY_COMMON_BASE_CONFIG_H_
#define DEPUTY_COMMON_BASE_CONFIG_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define CONFIG_FILE_MAX_LEN (64u << 20)  // bytes
#define CONFIG_MAX_DEPTH 8

enum config_type {
  CONFIG_END = 0,   // closes a table
  CONFIG_TEXT,      // char *, new
  CONFIG_PATH,      // char *, new; relative paths start at the file's own folder; the
                    // word "stderr" stays what it is, for sinks
  CONFIG_BOOL,      // bool
  CONFIG_INT,       // int64_t
  CONFIG_DURATION,  // int64_t, milliseconds; written "250ms", "10s", "5m", "48h", "7d"
  CONFIG_SIZE,      // int64_t, bytes; written as a number or "64KiB", "16MiB", "1GiB"
  CONFIG_WORD,      // int, index into `words`
  CONFIG_TEXTS,     // char **, new, and size_t at count_offset
  CONFIG_PATHS,     // the same, paths
  CONFIG_OBJECT,    // the struct itself, by `children`
  CONFIG_OBJECTS,   // an array of structs of child_size, new, and size_t at count_offset
};

// One row per option. min and max bound INT, DURATION (ms), SIZE (bytes), the
// length of TEXT, and the number of elements of lists; both zero: unbounded, and
// max below min: no upper bound. An optional OBJECT that is absent gets its
// children's defaults; what is required inside it is then empty.
struct config_option {
  const char *name;
  enum config_type type;
  size_t offset;
  size_t count_offset;
  bool is_required;
  const char *fallback;  // the default as it would be written in the file, texts
                         // without quotes; NULL: zero/empty
  int64_t min;
  int64_t max;
  const char *const *words;              // NULL-terminated
  const struct config_option *children;  // OBJECT, OBJECTS
  size_t child_size;                     // OBJECTS
  bool is_written;                       // PATH: the program writes there (sandbox.h)
  const char *help;                      // one sentence: effect and unit
};

// config_load reads `path` into `out` (a zeroed struct that `table` describes).
// On failure `out` is cleaned. STATUS_SYSTEM, STATUS_LIMIT, STATUS_CONFIG; err
// always has the sentence.
enum status config_load(void *out, const struct config_option *table, const char *path,
                        struct errmsg *err);

// config_load_checked asks `check` as well: how options fit together, which a row cannot
// say. STATUS_CONFIG; its sentence needs no name of the file.
enum status config_load_checked(void *out, const struct config_option *table, const char *path,
                                enum status (*check)(const void *options, struct errmsg *err),
                                struct errmsg *err);

// config_parse is config_load on text; `name` stands for the file in messages and
// `folder` is where relative paths start.
enum status config_parse(void *out, const struct config_option *table, const char *text, size_t len,
                         const char *name, const char *folder, struct errmsg *err);

// config_cleanup frees what config_load made and zeroes it.
void config_cleanup(void *out, const struct config_option *table);

// config_each_path calls `fn` for each path in `options` (which `table` describes)
// that is set, of PATH and PATHS, with its row.
void config_each_path(const void *options, const struct config_option *table,
                      void (*fn)(void *arg, const struct config_option *row, const char *path),
                      void *arg);

// config_same_text, config_same_list: are two values of an option the same? NULL is as "".
bool config_same_text(const char *a, const char *b);
bool config_same_list(char *const *a, size_t num_a, char *const *b, size_t num_b);

// config_print_reference writes the table as Markdown: option, type and unit,
// default, range, effect; nested tables under their path.
void config_print_reference(FILE *file, const struct config_option *table);

// config_parse_duration and config_parse_size read the notation of DURATION and
// SIZE ("10s", "64KiB"). STATUS_FORMAT, STATUS_LIMIT. The others write it, in
// the largest unit that divides; they return out.
#define CONFIG_UNIT_LEN 32
enum status config_parse_duration(int64_t *out_ms, const char *text);
enum status config_parse_size(int64_t *out_len, const char *text);
char *config_format_duration(char out[CONFIG_UNIT_LEN], int64_t ms);
char *config_format_size(char out[CONFIG_UNIT_LEN], int64_t len);

#endif  // DEPUTY_COMMON_BASE_CONFIG_H_
