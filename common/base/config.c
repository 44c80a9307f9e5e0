// SPDX-License-Identifier: Apache-2.0
#include "common/base/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config_internal.h"
#include "common/base/file.h"

#define LISTED_LEN 300  // of the known options, in a sentence

static void *field_of(void *out, const struct config_option *option) {
  return (char *)out + option->offset;
}

static size_t *count_of(void *out, const struct config_option *option) {
  return (size_t *)(void *)((char *)out + option->count_offset);
}

static const void *value_of(const void *options, const struct config_option *option) {
  return (const char *)options + option->offset;
}

static size_t num_of(const void *options, const struct config_option *option) {
  return *(const size_t *)(const void *)((const char *)options + option->count_offset);
}

// NOLINTBEGIN(misc-no-recursion): as deep as our own tables, not as the file
// --- cleaning ----------------------------------------------------------------

static void free_list(char ***list, size_t *count) {
  for (size_t i = 0; i < *count; i++) {
    free((*list)[i]);
  }
  free(*list);
  *list = NULL;
  *count = 0;
}

static void free_objects(void **objects, size_t *count, const struct config_option *option) {
  for (size_t i = 0; i < *count; i++) {
    config_cleanup((char *)*objects + i * option->child_size, option->children);
  }
  free(*objects);
  *objects = NULL;
  *count = 0;
}

static void clean_option(void *out, const struct config_option *option) {
  void *field = field_of(out, option);
  switch (option->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
      free(*(char **)field);
      *(char **)field = NULL;
      break;
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
      free_list(field, count_of(out, option));
      break;
    case CONFIG_OBJECT:
      config_cleanup(field, option->children);
      break;
    case CONFIG_OBJECTS:
      free_objects(field, count_of(out, option), option);
      break;
    case CONFIG_BOOL:
      *(bool *)field = false;
      break;
    case CONFIG_WORD:
      *(int *)field = 0;
      break;
    case CONFIG_INT:
    case CONFIG_DURATION:
    case CONFIG_SIZE:
      *(int64_t *)field = 0;
      break;
    case CONFIG_END:
      break;
  }
}

void config_cleanup(void *out, const struct config_option *table) {
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    clean_option(out, option);
  }
}

// --- paths -------------------------------------------------------------------

void config_each_path(const void *options, const struct config_option *table,
                      void (*fn)(void *arg, const struct config_option *row, const char *path),
                      void *arg) {
  for (const struct config_option *row = table; row->type != CONFIG_END; row++) {
    const void *value = value_of(options, row);
    if (row->type == CONFIG_PATH && *(char *const *)value != NULL) {
      fn(arg, row, *(char *const *)value);
    } else if (row->type == CONFIG_PATHS) {
      for (size_t i = 0; i < num_of(options, row); i++) {
        fn(arg, row, (*(char **const *)value)[i]);
      }
    } else if (row->type == CONFIG_OBJECT) {
      config_each_path(value, row->children, fn, arg);
    } else if (row->type == CONFIG_OBJECTS) {
      for (size_t i = 0; i < num_of(options, row); i++) {
        config_each_path(*(const char *const *)value + i * row->child_size, row->children, fn, arg);
      }
    }
  }
}

// --- comparing ---------------------------------------------------------------

bool config_same_text(const char *a, const char *b) {
  return strcmp(a == NULL ? "" : a, b == NULL ? "" : b) == 0;
}

bool config_same_list(char *const *a, size_t num_a, char *const *b, size_t num_b) {
  for (size_t i = 0; i < num_a && i < num_b; i++) {
    if (strcmp(a[i], b[i]) != 0) {
      return false;
    }
  }
  return num_a == num_b;
}

// --- unknown options ---------------------------------------------------------

static const char *option_at(const void *list, size_t i) {
  const struct config_option *option = (const struct config_option *)list + i;
  return option->type == CONFIG_END ? NULL : option->name;
}

static const struct config_option *find_option(const struct config_option *table,
                                               const char *name) {
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    if (strcmp(option->name, name) == 0) {
      return option;
    }
  }
  return NULL;
}

static void list_options(char out[LISTED_LEN], const struct config_option *table) {
  size_t len = 0;
  out[0] = '\0';
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    int n =
        snprintf(out + len, LISTED_LEN - len, "%s%s", option == table ? "" : ", ", option->name);
    len += n < 0 ? 0 : (size_t)n;
    if (len >= LISTED_LEN) {
      memcpy(out + LISTED_LEN - 4, "...", 4);
      return;
    }
  }
}

static enum status fail_unknown(const struct config_option *table, const char *name,
                                const struct config_source *source,
                                const struct config_place *place) {
  const struct config_place wrong = {place, name, 0};
  const char *meant = config_suggest(name, (struct config_names){option_at, table});
  char path[CONFIG_PLACE_MAX_LEN];
  char known[LISTED_LEN];

  (void)config_place_format(path, place);
  if (meant != NULL) {
    return config_fail(source, &wrong, "unknown option \"%.100s\" in %s; did you mean \"%s\"?",
                       name, path, meant);
  }
  list_options(known, table);
  return config_fail(source, &wrong, "unknown option \"%.100s\" in %s; it may have %s", name, path,
                     known);
}

static enum status check_names(const struct config_option *table, json_t *object,
                               const struct config_source *source,
                               const struct config_place *place) {
  const char *name = NULL;
  json_t *value = NULL;
  json_object_foreach (object, name, value) {
    if (find_option(table, name) == NULL) {
      return fail_unknown(table, name, source, place);
    }
  }
  return STATUS_OK;
}

// --- filling -----------------------------------------------------------------

static enum status fill_table(void *out, const struct config_option *table, json_t *object,
                              const struct config_source *source, const struct config_place *place);

static enum status fill_objects(void *out, const struct config_option *option, json_t *value,
                                const struct config_source *source,
                                const struct config_place *place) {
  enum status st = STATUS_OK;
  void **objects = field_of(out, option);
  size_t num = json_array_size(value);

  TRY(config_check_range(option, (int64_t)num, source, place));
  if (num == 0) {
    return STATUS_OK;
  }
  *objects = calloc(num, option->child_size);
  if (*objects == NULL) {
    return errmsg_set(source->err, STATUS_MEMORY, "%s: no memory", source->name);
  }
  *count_of(out, option) = num;
  for (size_t i = 0; i < num; i++) {
    const struct config_place element = {place, NULL, i};
    TRY(fill_table((char *)*objects + i * option->child_size, option->children,
                   json_array_get(value, i), source, &element));
  }
out:
  return st;
}

static enum status fill_option(void *out, const struct config_option *option, json_t *value,
                               const struct config_source *source,
                               const struct config_place *place) {
  char path[CONFIG_PLACE_MAX_LEN];
  if (json_array_size(value) > CONFIG_MAX_ELEMENTS) {
    return config_fail(source, place, "%s has more than %d elements",
                       config_place_format(path, place), CONFIG_MAX_ELEMENTS);
  }
  if (option->type == CONFIG_OBJECT) {
    return fill_table(field_of(out, option), option->children, value, source, place);
  }
  if (option->type != CONFIG_OBJECTS) {
    return config_fill_value(field_of(out, option), count_of(out, option), option, value, source,
                             place);
  }
  if (!json_is_array(value)) {
    return config_fail(source, place, "%s must be a list of objects",
                       config_place_format(path, place));
  }
  return fill_objects(out, option, value, source, place);
}

// The default as a JSON value. Texts are written in the table without quotes.
static json_t *parse_fallback(const struct config_option *option) {
  switch (option->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
    case CONFIG_DURATION:
    case CONFIG_WORD:
      return json_string(option->fallback);
    case CONFIG_SIZE: {
      json_t *number = json_loads(option->fallback, JSON_DECODE_ANY, NULL);
      return number != NULL ? number : json_string(option->fallback);
    }
    default:
      return json_loads(option->fallback, JSON_DECODE_ANY, NULL);
  }
}

static enum status fill_missing(void *out, const struct config_option *option,
                                const struct config_source *source,
                                const struct config_place *place) {
  enum status st = STATUS_OK;
  json_t *value = NULL;

  if (option->type == CONFIG_OBJECT) {
    // Nobody asked for it: what it requires is not required, its defaults count.
    return fill_table(field_of(out, option), option->children, NULL, source, place);
  }
  if (option->fallback == NULL) {
    return STATUS_OK;
  }
  value = parse_fallback(option);
  if (value == NULL) {
    return errmsg_set(source->err, STATUS_MEMORY, "%s: no memory for the default of %s",
                      source->name, option->name);
  }
  st = fill_option(out, option, value, source, place);
  CHECK(st != STATUS_CONFIG);  // a default that its own row refuses
  json_decref(value);
  return st;
}

static enum status fill_table(void *out, const struct config_option *table, json_t *object,
                              const struct config_source *source,
                              const struct config_place *place) {
  enum status st = STATUS_OK;
  char path[CONFIG_PLACE_MAX_LEN];

  if (object != NULL && !json_is_object(object)) {
    return config_fail(source, place, "%s must be an object in braces",
                       config_place_format(path, place));
  }
  TRY(check_names(table, object, source, place));
  for (const struct config_option *option = table; option->type != CONFIG_END; option++) {
    const struct config_place member = {place, option->name, 0};
    json_t *value = json_object_get(object, option->name);
    if (value != NULL) {
      TRY(fill_option(out, option, value, source, &member));
    } else if (option->is_required && object != NULL) {
      return config_fail(source, place, "\"%s\" is missing in %s; it must be %s", option->name,
                         config_place_format(path, place), config_type_name(option->type));
    } else {
      TRY(fill_missing(out, option, source, &member));
    }
  }
out:
  return st;
}

// NOLINTEND(misc-no-recursion)

// --- from text ---------------------------------------------------------------

enum status config_parse(void *out, const struct config_option *table, const char *text, size_t len,
                         const char *name, const char *folder, struct errmsg *err) {
  const struct config_source source = {text, len, name, folder, err};
  enum status st = STATUS_OK;
  json_error_t wrong;
  json_t *top = NULL;

  if (len > CONFIG_FILE_MAX_LEN) {
    return errmsg_set(err, STATUS_LIMIT, "%s: is longer than %u bytes", name, CONFIG_FILE_MAX_LEN);
  }
  // Of two options with one name, one would be ignored without a word.
  top = json_loadb(text, len, JSON_REJECT_DUPLICATES, &wrong);
  if (top == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "%s:%d: not valid JSON: %s (column %d)", name,
                      wrong.line < 1 ? 1 : wrong.line, wrong.text,
                      wrong.column < 1 ? 1 : wrong.column);
  }
  st = fill_table(out, table, top, &source, NULL);
  json_decref(top);
  if (st != STATUS_OK) {
    config_cleanup(out, table);
  }
  return st;
}

enum status config_load(void *out, const struct config_option *table, const char *path,
                        struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *text = NULL;
  size_t len = 0;
  const char *slash = strrchr(path, '/');
  char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path));

  if (folder == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
  }
  TRY(file_read(&text, &len, path, CONFIG_FILE_MAX_LEN, err));
  TRY(config_parse(out, table, (const char *)text, len, path, folder, err));

out:
  free(text);
  free(folder);
  return st;
}

enum status config_load_checked(void *out, const struct config_option *table, const char *path,
                                enum status (*check)(const void *options, struct errmsg *err),
                                struct errmsg *err) {
  enum status st = config_load(out, table, path, err);

  if (st != STATUS_OK) {
    return st;
  }
  st = check(out, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    config_cleanup(out, table);
  }
  return st;
}
