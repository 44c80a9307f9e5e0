// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config_internal.h"

#define SHOWN_LEN 60  // of a wrong value, in the sentence

// Borrows what one call of config_fill_value is about.
struct task {
  const struct config_option *option;
  const struct config_source *source;
  const struct config_place *place;
};

static const char *const written[] = {
    [CONFIG_END] = "",
    [CONFIG_TEXT] = "a text",
    [CONFIG_PATH] = "a path",
    [CONFIG_BOOL] = "true or false",
    [CONFIG_INT] = "a whole number",
    [CONFIG_DURATION] = "a duration as \"250ms\", \"10s\", \"5m\", \"48h\" or \"7d\"",
    [CONFIG_SIZE] = "a size in bytes, or as \"64KiB\", \"16MiB\" or \"1GiB\"",
    [CONFIG_WORD] = "one of the words",
    [CONFIG_TEXTS] = "a list of texts",
    [CONFIG_PATHS] = "a list of paths",
    [CONFIG_OBJECT] = "an object in braces",
    [CONFIG_OBJECTS] = "a list of objects",
};

const char *config_type_name(enum config_type type) { return written[type]; }

static const char *json_type_name(const json_t *value) {
  static const char *const names[] = {
      [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",
      [JSON_STRING] = "a text",    [JSON_INTEGER] = "a whole number",
      [JSON_REAL] = "a fraction",  [JSON_TRUE] = "true",
      [JSON_FALSE] = "false",      [JSON_NULL] = "null",
  };
  return names[json_typeof(value)];
}

static enum status wrong_type(const struct task *task, const json_t *value) {
  char path[CONFIG_PLACE_MAX_LEN];
  return config_fail(task->source, task->place, "%s must be %s, not %s",
                     config_place_format(path, task->place), written[task->option->type],
                     json_type_name(value));
}

static enum status no_memory(const struct task *task) {
  (void)errmsg_set(task->source->err, STATUS_MEMORY, "%s: no memory", task->source->name);
  return STATUS_MEMORY;
}

enum status config_check_range(const struct config_option *option, int64_t number,
                               const struct config_source *source,
                               const struct config_place *place) {
  char path[CONFIG_PLACE_MAX_LEN];
  char range[CONFIG_RANGE_LEN];
  char unit[CONFIG_UNIT_LEN];
  bool has_max = option->max >= option->min;

  if ((option->min == 0 && option->max == 0) ||
      (number >= option->min && (!has_max || number <= option->max))) {
    return STATUS_OK;
  }
  (void)config_place_format(path, place);
  (void)config_format_range(range, option);
  switch (option->type) {
    case CONFIG_TEXT:
      return config_fail(source, place, "%s has %" PRId64 " characters; it may have %s", path,
                         number, range);
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
    case CONFIG_OBJECTS:
      return config_fail(source, place, "%s has %" PRId64 " elements; it may have %s", path, number,
                         range);
    case CONFIG_DURATION:
      return config_fail(source, place, "%s is %s; it may be %s", path,
                         config_format_duration(unit, number), range);
    case CONFIG_SIZE:
      return config_fail(source, place, "%s is %s; it may be %s", path,
                         config_format_size(unit, number), range);
    default:
      return config_fail(source, place, "%s is %" PRId64 "; it may be %s", path, number, range);
  }
}

// --- texts and paths ---------------------------------------------------------

static enum status fill_text(char **out, const json_t *value, const struct task *task) {
  const char *text = json_string_value(value);
  if (text == NULL) {
    return wrong_type(task, value);
  }
  *out = strdup(text);
  return *out == NULL ? no_memory(task) : STATUS_OK;
}

static enum status fill_path(char **out, const json_t *value, const struct task *task) {
  char path[CONFIG_PLACE_MAX_LEN];
  const char *text = json_string_value(value);
  if (text == NULL) {
    return wrong_type(task, value);
  }
  if (text[0] == '\0') {
    return config_fail(task->source, task->place, "%s is empty; it must be a path",
                       config_place_format(path, task->place));
  }
  if (text[0] == '/' || strcmp(text, "stderr") == 0 || task->source->folder == NULL) {
    *out = strdup(text);
  } else if (asprintf(out, "%s/%s", task->source->folder, text) < 0) {
    *out = NULL;
  }
  return *out == NULL ? no_memory(task) : STATUS_OK;
}

static enum status fill_list(char ***out, size_t *count, const json_t *value,
                             const struct task *task) {
  size_t num = json_array_size(value);
  char **list = NULL;

  if (!json_is_array(value)) {
    return wrong_type(task, value);
  }
  if (num == 0) {
    return STATUS_OK;
  }
  list = calloc(num, sizeof(*list));
  if (list == NULL) {
    return no_memory(task);
  }
  *out = list;  // config_cleanup frees what is there when an element is wrong
  *count = num;
  for (size_t i = 0; i < num; i++) {
    const struct config_place element = {task->place, NULL, i};
    const bool is_path = task->option->type == CONFIG_PATHS;
    const struct config_option one = {.type = is_path ? CONFIG_PATH : CONFIG_TEXT};
    const struct task sub = {&one, task->source, &element};
    const json_t *item = json_array_get(value, i);
    enum status st = is_path ? fill_path(&list[i], item, &sub) : fill_text(&list[i], item, &sub);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

// --- numbers and words -------------------------------------------------------

static enum status fill_with_unit(int64_t *out, const json_t *value, const struct task *task) {
  char path[CONFIG_PLACE_MAX_LEN];
  const char *text = json_string_value(value);
  enum status st = STATUS_OK;
  if (text == NULL) {
    return wrong_type(task, value);
  }
  st = task->option->type == CONFIG_DURATION ? config_parse_duration(out, text)
                                             : config_parse_size(out, text);
  (void)config_place_format(path, task->place);
  if (st == STATUS_LIMIT) {
    return config_fail(task->source, task->place, "%s is \"%.*s\", which is too large", path,
                       SHOWN_LEN, text);
  }
  if (st != STATUS_OK) {
    return config_fail(task->source, task->place, "%s is \"%.*s\"; it must be %s", path, SHOWN_LEN,
                       text, written[task->option->type]);
  }
  return STATUS_OK;
}

static enum status fill_int(int64_t *out, const json_t *value, const struct task *task) {
  if (!json_is_integer(value)) {
    return wrong_type(task, value);
  }
  *out = json_integer_value(value);
  return STATUS_OK;
}

static enum status fill_size(int64_t *out, const json_t *value, const struct task *task) {
  char path[CONFIG_PLACE_MAX_LEN];
  if (json_is_string(value)) {
    return fill_with_unit(out, value, task);
  }
  if (json_is_integer(value) && json_integer_value(value) < 0) {
    return config_fail(task->source, task->place, "%s is negative; it must be %s",
                       config_place_format(path, task->place), written[CONFIG_SIZE]);
  }
  return fill_int(out, value, task);
}

static const char *word_at(const void *list, size_t i) { return ((const char *const *)list)[i]; }

// "a, b or c"
static void format_words(char *out, size_t out_len, const char *const *words) {
  size_t len = 0;
  out[0] = '\0';
  for (size_t i = 0; words[i] != NULL && len < out_len; i++) {
    const char *between = i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ";
    int n = snprintf(out + len, out_len - len, "%s%s", between, words[i]);
    len += n < 0 ? 0 : (size_t)n;
  }
}

static enum status fill_word(int *out, const json_t *value, const struct task *task) {
  char path[CONFIG_PLACE_MAX_LEN];
  char allowed[256];
  const char *text = json_string_value(value);
  const char *meant = NULL;
  if (text == NULL) {
    return wrong_type(task, value);
  }
  for (int i = 0; task->option->words[i] != NULL; i++) {
    if (strcmp(text, task->option->words[i]) == 0) {
      *out = i;
      return STATUS_OK;
    }
  }
  format_words(allowed, sizeof(allowed), task->option->words);
  meant = config_suggest(text, (struct config_names){word_at, task->option->words});
  return config_fail(task->source, task->place, "%s is \"%.*s\"; it may be %s%s%s%s",
                     config_place_format(path, task->place), SHOWN_LEN, text, allowed,
                     meant == NULL ? "" : "; did you mean \"", meant == NULL ? "" : meant,
                     meant == NULL ? "" : "\"?");
}

static enum status fill_bool(bool *out, const json_t *value, const struct task *task) {
  if (!json_is_boolean(value)) {
    return wrong_type(task, value);
  }
  *out = json_is_true(value);
  return STATUS_OK;
}

// --- one value ---------------------------------------------------------------

static enum status fill(void *field, size_t *count, const json_t *value, const struct task *task,
                        int64_t *out_number) {
  enum status st = STATUS_OK;
  switch (task->option->type) {
    case CONFIG_TEXT:
      TRY(fill_text(field, value, task));
      *out_number = (int64_t)strlen(*(char **)field);
      break;
    case CONFIG_PATH:
      TRY(fill_path(field, value, task));
      break;
    case CONFIG_BOOL:
      TRY(fill_bool(field, value, task));
      break;
    case CONFIG_WORD:
      TRY(fill_word(field, value, task));
      break;
    case CONFIG_INT:
      TRY(fill_int(field, value, task));
      *out_number = *(int64_t *)field;
      break;
    case CONFIG_DURATION:
      TRY(fill_with_unit(field, value, task));
      *out_number = *(int64_t *)field;
      break;
    case CONFIG_SIZE:
      TRY(fill_size(field, value, task));
      *out_number = *(int64_t *)field;
      break;
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
      TRY(fill_list(field, count, value, task));
      *out_number = (int64_t)*count;
      break;
    case CONFIG_END:
    case CONFIG_OBJECT:
    case CONFIG_OBJECTS:
      CHECK(false);
  }
out:
  return st;
}

enum status config_fill_value(void *field, size_t *count, const struct config_option *option,
                              const json_t *value, const struct config_source *source,
                              const struct config_place *place) {
  const struct task task = {option, source, place};
  int64_t number = 0;
  bool has_number =
      option->type != CONFIG_PATH && option->type != CONFIG_BOOL && option->type != CONFIG_WORD;
  enum status st = fill(field, count, value, &task, &number);
  if (st != STATUS_OK || !has_number) {
    return st;
  }
  return config_check_range(option, number, source, place);
}
