// SPDX-License-Identifier: Apache-2.0
// config_internal: what the files of config share.
//   config.c            tables and objects: walks both side by side
//   config_value.c      one JSON value into one field
//   config_place.c      where in the file a mistake is, and the sentence
//   config_units.c      durations and sizes, both directions
//   config_suggest.c    what was probably meant
//   config_reference.c  the table as Markdown
#ifndef DEPUTY_COMMON_BASE_CONFIG_INTERNAL_H_
#define DEPUTY_COMMON_BASE_CONFIG_INTERNAL_H_

#include <jansson.h>

#include "common/base/config.h"

#define CONFIG_MAX_ELEMENTS 1000000  // of a list whose row sets no limit
#define CONFIG_PLACE_MAX_LEN 256     // "names[12].chains[0].certificate"

// The text being read; lives for one config_parse.
struct config_source {
  const char *text;
  size_t len;
  const char *name;
  const char *folder;
  struct errmsg *err;
};

// A step on the way from the top to a value: a member, or an element when name
// is NULL. The top itself is a NULL pointer. Lives on the walker's stack.
struct config_place {
  const struct config_place *parent;
  const char *name;
  size_t index;
};

// config_fail writes "file:line: sentence" with the line of `place`, and returns
// STATUS_CONFIG.
enum status config_fail(const struct config_source *source, const struct config_place *place,
                        const char *format, ...) __attribute__((format(printf, 3, 4)));

// config_place_format writes the path, as "names[0].chains"; "the file" for the
// top. Returns out.
char *config_place_format(char out[CONFIG_PLACE_MAX_LEN], const struct config_place *place);

// config_line_of finds the line on which the member or element begins. The text
// is known to be JSON.
size_t config_line_of(const struct config_source *source, const struct config_place *place);

// config_fill_value converts `value` for any type but OBJECT and OBJECTS.
enum status config_fill_value(void *field, size_t *count, const struct config_option *option,
                              const json_t *value, const struct config_source *source,
                              const struct config_place *place);

// config_check_range compares with min and max and names both when it fails.
enum status config_check_range(const struct config_option *option, int64_t number,
                               const struct config_source *source,
                               const struct config_place *place);

// config_format_range writes "1 to 1024", "at least 10s", or "" for no range.
#define CONFIG_RANGE_LEN 96
char *config_format_range(char out[CONFIG_RANGE_LEN], const struct config_option *option);

// config_type_name says what has to be written: "a duration as \"10s\"".
const char *config_type_name(enum config_type type);

// config_suggest returns the one of `num` names nearest to `name`, or NULL when
// none is near.
struct config_names {
  const char *(*at)(const void *list, size_t i);  // NULL at the end
  const void *list;
};
const char *config_suggest(const char *name, struct config_names names);

#endif  // DEPUTY_COMMON_BASE_CONFIG_INTERNAL_H_
