// SPDX-License-Identifier: Apache-2.0
// jansson forgets where a value stood, so the text, which it found to be JSON,
// is walked a second time when there is a mistake to report.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/config_internal.h"

#define MAX_STEPS (2 * CONFIG_MAX_DEPTH + 2)

struct cursor {
  const char *at;
  const char *end;
};

static char peek(const struct cursor *c) { return c->at < c->end ? *c->at : '\0'; }

static void skip_space(struct cursor *c) {
  while (c->at < c->end && strchr(" \t\r\n", *c->at) != NULL && *c->at != '\0') {
    c->at += 1;
  }
}

// Steps over a string; the cursor is on its opening quote.
static void skip_string(struct cursor *c) {
  c->at += 1;
  while (c->at < c->end && *c->at != '"') {
    c->at += *c->at == '\\' && c->at + 1 < c->end ? 2 : 1;
  }
  if (c->at < c->end) {
    c->at += 1;
  }
}

// Steps over any value, by counting brackets.
static void skip_value(struct cursor *c) {
  size_t depth = 0;
  do {
    char now = peek(c);
    if (now == '"') {
      skip_string(c);
      continue;
    }
    if (now == '{' || now == '[') {
      depth += 1;
    } else if (now == '}' || now == ']') {
      depth -= 1;
    } else if (now == ',' && depth == 0) {
      return;
    }
    c->at += 1;
  } while (c->at < c->end && (depth > 0 || strchr(",}] \t\r\n", peek(c)) == NULL));
}

// Compares as jansson did: a key may be written with escapes.
static bool key_is(const char *start, const char *end, const char *name) {
  json_t *key = json_loadb(start, (size_t)(end - start), JSON_DECODE_ANY, NULL);
  bool is_same = key != NULL && json_is_string(key) && strcmp(json_string_value(key), name) == 0;
  json_decref(key);
  return is_same;
}

// From "{" to the value of the member `name`; *out_key is where its key stands.
static bool enter_member(struct cursor *c, const char *name, const char **out_key) {
  c->at += 1;
  for (;;) {
    const char *start = NULL;
    bool is_found = false;
    skip_space(c);
    start = c->at;
    if (peek(c) != '"') {
      return false;
    }
    skip_string(c);
    is_found = key_is(start, c->at, name);
    skip_space(c);
    c->at += c->at < c->end ? 1 : 0;  // the colon
    skip_space(c);
    if (is_found) {
      *out_key = start;
      return true;
    }
    skip_value(c);
    skip_space(c);
    if (peek(c) != ',') {
      return false;
    }
    c->at += 1;
  }
}

// From "[" to element `index`.
static bool enter_element(struct cursor *c, size_t index) {
  c->at += 1;
  for (size_t i = 0; i < index; i++) {
    skip_space(c);
    skip_value(c);
    skip_space(c);
    if (peek(c) != ',') {
      return false;
    }
    c->at += 1;
  }
  skip_space(c);
  return c->at < c->end;
}

static size_t steps_to(const struct config_place *steps[MAX_STEPS],
                       const struct config_place *place) {
  size_t num = 0;
  for (const struct config_place *p = place; p != NULL; p = p->parent) {
    num += 1;
  }
  CHECK(num <= MAX_STEPS);
  for (size_t i = num; i > 0; i--, place = place->parent) {
    steps[i - 1] = place;
  }
  return num;
}

size_t config_line_of(const struct config_source *source, const struct config_place *place) {
  const struct config_place *steps[MAX_STEPS];
  size_t num = steps_to(steps, place);
  struct cursor c = {source->text, source->text + source->len};
  const char *found = NULL;
  size_t line = 1;

  skip_space(&c);
  found = c.at;
  for (size_t i = 0; i < num; i++) {
    if (steps[i]->name != NULL) {
      if (peek(&c) != '{' || !enter_member(&c, steps[i]->name, &found)) {
        break;
      }
    } else {
      if (peek(&c) != '[' || !enter_element(&c, steps[i]->index)) {
        break;
      }
      found = c.at;
    }
  }
  for (const char *p = source->text; p < found; p++) {
    line += *p == '\n' ? 1 : 0;
  }
  return line;
}

char *config_place_format(char out[CONFIG_PLACE_MAX_LEN], const struct config_place *place) {
  const struct config_place *steps[MAX_STEPS];
  size_t num = steps_to(steps, place);
  size_t len = 0;

  if (num == 0) {
    (void)snprintf(out, CONFIG_PLACE_MAX_LEN, "the file");
    return out;
  }
  out[0] = '\0';
  for (size_t i = 0; i < num && len < CONFIG_PLACE_MAX_LEN; i++) {
    size_t room = CONFIG_PLACE_MAX_LEN - len;
    int n = steps[i]->name == NULL
                ? snprintf(out + len, room, "[%zu]", steps[i]->index)
                : snprintf(out + len, room, "%s%s", i == 0 ? "" : ".", steps[i]->name);
    len += n < 0 ? 0 : (size_t)n;
  }
  return out;
}

enum status config_fail(const struct config_source *source, const struct config_place *place,
                        const char *format, ...) {
  va_list args;
  if (source->err == NULL) {
    return STATUS_CONFIG;
  }
  va_start(args, format);
  (void)vsnprintf(source->err->text, sizeof(source->err->text), format, args);
  va_end(args);
  errmsg_prefix(source->err, "%s:%zu", source->name, config_line_of(source, place));
  return STATUS_CONFIG;
}
