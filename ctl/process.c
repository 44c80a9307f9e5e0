// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/grid.h"

static void print_json(const json_t *json) {
  (void)json_dumpf(json, stdout, JSON_INDENT(2));
  (void)fputc('\n', stdout);
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text == NULL ? "-" : text;
}

static double number_of(const json_t *object, const char *key) {
  return json_number_value(json_object_get(object, key));
}

// --- connections -----------------------------------------------------------------------

// Adds "&key=value"; what is no letter, digit or one of -._:* is escaped.
static void add_query(char *out, size_t max, const char *key, const char *value) {
  size_t len = strlen(out);
  if (value == NULL) {
    return;
  }
  len += (size_t)snprintf(out + len, max - len, "%s%s=", strchr(out, '?') == NULL ? "?" : "&", key);
  for (; *value != '\0' && len + 4 < max; value++) {
    bool is_plain = (*value >= 'a' && *value <= 'z') || (*value >= 'A' && *value <= 'Z') ||
                    (*value >= '0' && *value <= '9') || strchr("-._:*", *value) != NULL;
    len += (size_t)snprintf(out + len, max - len, is_plain ? "%c" : "%%%02X",
                            (unsigned)(unsigned char)*value);
  }
}

static void show_connections(const json_t *answer) {
  static const char *const heading[] = {"ID",    "CLIENT", "NAME",    "STATE", "AGE",  "IDLE",
                                        "CHAIN", "SOURCE", "VERSION", "UP",    "DOWN", NULL};
  const json_t *list = json_object_get(answer, "connections");
  const json_t *row = NULL;
  size_t i = 0;
  struct grid grid;

  grid_init(&grid, heading);
  json_array_foreach (list, i, row) {
    grid_addf(&grid, "%.0f", number_of(row, "id"));
    grid_add(&grid, text_of(row, "client"));
    grid_add(&grid, text_of(row, "name"));
    grid_add(&grid, text_of(row, "state"));
    grid_addf(&grid, "%.1fs", number_of(row, "age_s"));
    grid_addf(&grid, "%.1fs", number_of(row, "idle_s"));
    grid_add(&grid, text_of(row, "chain"));
    grid_add(&grid, text_of(row, "source"));
    grid_add(&grid, text_of(row, "version"));
    grid_addf(&grid, "%.0f", number_of(row, "up"));
    grid_addf(&grid, "%.0f", number_of(row, "down"));
  }
  if (json_array_size(list) > 0) {
    (void)grid_print(&grid, stdout);
  }
  (void)printf("%zu of %.0f connections\n", json_array_size(list), number_of(answer, "total"));
}

enum ctl_exit ctl_run_connections(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  char path[1600] = "/v1/connections";
  add_query(path, sizeof(path), "name", args->name);
  add_query(path, sizeof(path), "state", args->state);
  add_query(path, sizeof(path), "client", args->address);
  add_query(path, sizeof(path), "older", args->older);
  add_query(path, sizeof(path), "limit", args->limit);
  enum ctl_exit code = ctl_ask_good(&answer, args, path, NULL);
  if (code == CTL_DONE && args->is_json) {
    print_json(answer.json);
  } else if (code == CTL_DONE) {
    show_connections(answer.json);
  }
  ctl_answer_cleanup(&answer);
  return code;
}

// --- log and end -------------------------------------------------------------------------

enum ctl_exit ctl_run_loglevel(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  enum ctl_exit code = CTL_DONE;
  if (args->num_words == 0) {
    code = ctl_ask_good(&answer, args, "/v1/status", NULL);
  } else {
    code = ctl_ask_good(&answer, args, "/v1/loglevel", json_pack("{s:s}", "level", args->words[0]));
  }
  if (code == CTL_DONE && args->is_json && args->num_words > 0) {
    print_json(answer.json);
  } else if (code == CTL_DONE && args->is_json) {
    (void)printf("{\"level\": \"%s\"}\n", text_of(answer.json, "log_level"));
  } else if (code == CTL_DONE && args->num_words > 0) {
    (void)printf("%s (before: %s)\n", text_of(answer.json, "level"),
                 text_of(answer.json, "before"));
  } else if (code == CTL_DONE) {
    (void)printf("%s\n", text_of(answer.json, "log_level"));
  }
  ctl_answer_cleanup(&answer);
  return code;
}

enum ctl_exit ctl_run_drain(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  enum ctl_exit code = ctl_ask_good(&answer, args, "/v1/drain", json_object());
  if (code == CTL_DONE && args->is_json) {
    print_json(answer.json);
  } else if (code == CTL_DONE) {
    (void)printf("the proxy accepts no more, and ends with its last connection\n");
  }
  ctl_answer_cleanup(&answer);
  return code;
}
