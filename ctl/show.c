// SPDX-License-Identifier: Apache-2.0
#include "ctl/show.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "ctl/grid.h"

#define HOUR_S ((int64_t)3600)
#define DAY_S (24 * HOUR_S)
#define NAMES_SHOWN 20u  // of a drill's list

// --- parts -----------------------------------------------------------------------

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text == NULL ? "-" : text;
}

static const char *text_or_null(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key) {
  return json_is_true(json_object_get(object, key));
}

static long long number_of(const json_t *object, const char *key) {
  return (long long)json_integer_value(json_object_get(object, key));
}

// words_of makes words of one of the API's: "first_usable" is "first usable".
static void add_words(struct grid *grid, const char *word) {
  char text[64];
  (void)snprintf(text, sizeof(text), "%s", word);
  for (char *p = text; *p != '\0'; p++) {
    *p = (char)(*p == '_' ? ' ' : *p);
  }
  grid_add(grid, text);
}

static void add_id(struct grid *grid, const json_t *object, const char *key) {
  grid_addf(grid, "%.*s", SHOW_ID_DIGITS, text_of(object, key));
}

enum status show_time(int64_t *out_s, const char *text) { return clock_parse_rfc3339(out_s, text); }

enum status show_until(int64_t *out, const char *text, int64_t now_s, struct errmsg *err) {
  static const struct {
    char unit;
    int64_t seconds;
  } units[] = {{'m', 60}, {'h', 3600}, {'d', 86400}};
  char *rest = NULL;
  long long value = strtoll(text, &rest, 10);
  *out = 0;
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
    if (rest != text && rest[0] == units[i].unit && rest[1] == '\0' && value > 0 &&
        value <= 36500) {
      *out = now_s + value * units[i].seconds;
      return STATUS_OK;
    }
  }
  if (show_time(out, text) == STATUS_OK && *out > now_s) {
    return STATUS_OK;
  }
  return errmsg_set(err, STATUS_CONFIG,
                    "--until %.60s: neither a time to come, as 2026-11-30T12:00:00Z, nor a length, "
                    "as 90m, 36h or 7d",
                    text);
}

char *show_left(char out[SHOW_LEFT_LEN], const char *end, const char *now) {
  int64_t end_s = 0;
  int64_t now_s = 0;
  if (end == NULL || now == NULL || show_time(&end_s, end) != STATUS_OK ||
      show_time(&now_s, now) != STATUS_OK) {
    (void)snprintf(out, SHOW_LEFT_LEN, "-");
    return out;
  }
  bool is_over = end_s <= now_s;
  int64_t left = is_over ? now_s - end_s : end_s - now_s;
  long long value = (long long)left;
  char unit = 's';
  if (left >= 2 * DAY_S) {
    value = left / DAY_S;
    unit = 'd';
  } else if (left >= 2 * HOUR_S) {
    value = left / HOUR_S;
    unit = 'h';
  } else if (left >= 120) {
    value = left / 60;
    unit = 'm';
  }
  (void)snprintf(out, SHOW_LEFT_LEN, is_over ? "ended %lld%c ago" : "%lld%c", value, unit);
  return out;
}

static void add_left(struct grid *grid, const json_t *object, const char *key, const char *now) {
  char left[SHOW_LEFT_LEN];
  grid_add(grid, show_left(left, text_or_null(object, key), now));
}

// fault_text says why a chain is not usable.
static const char *fault_text(const json_t *chain) {
  static const struct {
    const char *fault;
    const char *text;
  } texts[] = {
      {"expired", "expired"},          {"not_yet_valid", "not yet valid"},
      {"revoked", "revoked"},          {"key_out", "key out of service"},
      {"ca_out", "CA out of service"}, {"no_staple", "must-staple, no staple"},
  };
  const char *fault = text_or_null(chain, "fault");
  if (fault == NULL) {
    return NULL;
  }
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    if (strcmp(texts[i].fault, fault) == 0) {
      return texts[i].text;
    }
  }
  return fault;
}

static const char *state_text(const json_t *chain) {
  const char *fault = fault_text(chain);
  if (is_true(chain, "serves")) {
    return fault == NULL ? "serves" : "serves as last resort";
  }
  if (fault != NULL) {
    return fault;
  }
  return is_true(chain, "serves_rsa_only") ? "serves RSA-only clients" : "ready";
}

// dc_text: the DC's remaining life, or why there is none.
static const char *dc_text(char left[SHOW_LEFT_LEN], const json_t *chain, const char *now,
                           const char *off) {
  const char *end = text_or_null(chain, "dc_ends_at");
  if (off != NULL) {
    return off;
  }
  return end != NULL ? show_left(left, end, now) : text_of(chain, "why_no_dc");
}

static const char *staple_text(char left[SHOW_LEFT_LEN], const json_t *chain, const char *now) {
  const char *end = text_or_null(chain, "staple_ends_at");
  if (end == NULL && is_true(chain, "must_staple")) {
    return "none!";
  }
  return show_left(left, end, now);
}

// --- names -------------------------------------------------------------------------

// off_text says who has DCs off for the name; NULL: nobody.
static const char *off_text(char out[64], const json_t *name) {
  const char *by = text_or_null(name, "dc_off_by");
  if (by == NULL) {
    return NULL;
  }
  (void)snprintf(out, 64, "off (%s)", by);
  return out;
}

static void add_name_row(struct grid *grid, const json_t *name, const json_t *chain, bool is_first,
                         const char *now) {
  char left[SHOW_LEFT_LEN];
  char off[64];
  grid_add(grid, is_first ? text_of(name, "name") : "");
  grid_add(grid, text_of(chain, "label"));
  grid_add(grid, state_text(chain));
  if (is_true(chain, "serves") || (is_first && text_or_null(name, "serves") == NULL)) {
    add_words(grid, text_of(name, "why"));
  } else {
    grid_add(grid, "");
  }
  grid_add(grid, text_of(chain, "kind"));
  grid_add(grid, text_of(chain, "issuer"));
  add_id(grid, chain, "ca_id");
  add_id(grid, chain, "key_id");
  add_left(grid, chain, "not_after", now);
  grid_add(grid, dc_text(left, chain, now, off_text(off, name)));
  grid_add(grid, staple_text(left, chain, now));
}

void show_names(FILE *file, const json_t *names, const char *now) {
  static const char *const heading[] = {"NAME", "CHAIN", "STATE", "WHY",     "KEY KIND", "ISSUER",
                                        "CA",   "KEY",   "LEFT",  "DC LEFT", "STAPLE",   NULL};
  struct grid grid;
  size_t i = 0;
  size_t j = 0;
  size_t k = 0;
  const json_t *name = NULL;
  const json_t *level = NULL;
  const json_t *chain = NULL;
  if (json_array_size(names) == 0) {
    (void)fprintf(file, "no names\n");
    return;
  }
  grid_init(&grid, heading);
  json_array_foreach (names, i, name) {
    json_array_foreach (json_object_get(name, "levels"), j, level) {
      json_array_foreach (json_object_get(level, "chains"), k, chain) {
        add_name_row(&grid, name, chain, j == 0 && k == 0, now);
      }
    }
  }
  (void)grid_print(&grid, file);
}

static void show_line(FILE *file, const char *what, const char *text) {
  (void)fprintf(file, "    %-10s ", what);
  grid_clean(file, text);
  (void)fputc('\n', file);
}

static void show_name_chain(FILE *file, const json_t *chain, const char *now, const char *off) {
  char left[SHOW_LEFT_LEN];
  char text[512];
  const char *staple = text_or_null(chain, "staple_ends_at");
  (void)fprintf(file, "  ");
  grid_clean(file, text_of(chain, "label"));
  (void)fprintf(file, ": %s\n", state_text(chain));
  show_line(file, "file", text_of(chain, "path"));
  show_line(file, "subject", text_of(chain, "subject"));
  show_line(file, "issuer", text_of(chain, "issuer"));
  show_line(file, "serial", text_of(chain, "serial"));
  show_line(file, "leaf", text_of(chain, "leaf_sha256"));
  (void)snprintf(text, sizeof(text), "%s, service: %s", text_of(chain, "ca_id"),
                 text_of(chain, "ca_service"));
  show_line(file, "CA", text);
  (void)snprintf(text, sizeof(text), "%s, %s, service: %s", text_of(chain, "key_id"),
                 text_of(chain, "kind"), text_of(chain, "key_service"));
  show_line(file, "key", text);
  (void)snprintf(text, sizeof(text), "%s to %s, left: %s", text_of(chain, "not_before"),
                 text_of(chain, "not_after"),
                 show_left(left, text_or_null(chain, "not_after"), now));
  show_line(file, "valid", text);
  (void)snprintf(text, sizeof(text), "%s%s", dc_text(left, chain, now, off),
                 text_or_null(chain, "dc_ends_at") != NULL && off == NULL ? " left" : "");
  show_line(file, "DC", text);
  (void)snprintf(text, sizeof(text), "%s%s%s",
                 staple == NULL ? "none" : show_left(left, staple, now),
                 staple == NULL ? "" : " left",
                 is_true(chain, "must_staple") ? " (the leaf must have one)" : "");
  show_line(file, "staple", text);
}

void show_name(FILE *file, const json_t *name, const char *now) {
  size_t i = 0;
  size_t j = 0;
  const json_t *level = NULL;
  const json_t *chain = NULL;
  char off[64];
  const char *dc_off = off_text(off, name);
  const char *preferred = text_or_null(name, "preferred");
  grid_clean(file, text_of(name, "name"));
  (void)fprintf(file, "\n  serves: ");
  grid_clean(file, text_of(name, "serves"));
  (void)fprintf(file, " (%s)\n", text_of(name, "why"));
  if (preferred != NULL || text_or_null(name, "preferred_by") != NULL) {
    (void)fprintf(file, "  preferred by the %s: ", text_of(name, "preferred_by"));
    grid_clean(file, preferred != NULL ? preferred : "a level it does not have");
    (void)fputc('\n', file);
  }
  (void)fprintf(file, "  delegated credentials: %s\n", dc_off == NULL ? "on" : dc_off);
  json_array_foreach (json_object_get(name, "levels"), i, level) {
    json_array_foreach (json_object_get(level, "chains"), j, chain) {
      show_name_chain(file, chain, now, dc_off);
    }
  }
}

// --- chains --------------------------------------------------------------------------

void show_chains(FILE *file, const json_t *chains, const char *now) {
  static const char *const heading[] = {"CHAIN",  "SUBJECT", "STATE", "NAMES", "KEY KIND",
                                        "ISSUER", "CA",      "KEY",   "LEFT",  "DC LEFT",
                                        "STAPLE", "FILE",    NULL};
  struct grid grid;
  size_t i = 0;
  const json_t *chain = NULL;
  char left[SHOW_LEFT_LEN];
  if (json_array_size(chains) == 0) {
    (void)fprintf(file, "no chains\n");
    return;
  }
  grid_init(&grid, heading);
  json_array_foreach (chains, i, chain) {
    const char *fault = fault_text(chain);
    grid_add(&grid, text_of(chain, "label"));
    grid_add(&grid, text_of(chain, "subject"));
    grid_add(&grid, fault == NULL ? "usable" : fault);
    grid_addf(&grid, "%lld", number_of(chain, "num_names"));
    grid_add(&grid, text_of(chain, "kind"));
    grid_add(&grid, text_of(chain, "issuer"));
    add_id(&grid, chain, "ca_id");
    add_id(&grid, chain, "key_id");
    add_left(&grid, chain, "not_after", now);
    grid_add(&grid, dc_text(left, chain, now, NULL));
    grid_add(&grid, staple_text(left, chain, now));
    grid_add(&grid, text_of(chain, "path"));
  }
  (void)grid_print(&grid, file);
}

// --- switches --------------------------------------------------------------------------

// action_text says in words what a change does.
static void action_text(char *out, size_t max, const json_t *change) {
  const char *action = text_of(change, "action");
  const char *to = text_or_null(change, "to");
  if (strcmp(action, "prefer") == 0) {
    (void)snprintf(out, max, "to %s", to == NULL ? "?" : to);
  } else if (strcmp(action, "out") == 0) {
    (void)snprintf(out, max, "out of service%s",
                   is_true(change, "compromised") ? ", compromised" : "");
  } else if (strcmp(action, "in") == 0) {
    (void)snprintf(out, max, "in service");
  } else if (strcmp(action, "dc_on") == 0 || strcmp(action, "dc_off") == 0) {
    (void)snprintf(out, max, "DCs %s", action + 3);
  } else {
    (void)snprintf(out, max, "%s", action);
  }
}

// subject_text names a subject as people know it: a CA by its name and short id.
static void subject_text(char *out, size_t max, const json_t *change) {
  const char *level = text_of(change, "level");
  const char *subject = text_of(change, "subject");
  const char *known_as = text_or_null(change, "known_as");
  bool is_id = strcmp(level, "key") == 0 || strcmp(level, "ca") == 0;
  if (strcmp(level, "fleet") == 0) {
    (void)snprintf(out, max, "all names");
  } else if (is_id && known_as != NULL) {
    (void)snprintf(out, max, "%s (%.*s)", known_as, SHOW_ID_DIGITS, subject);
  } else {
    (void)snprintf(out, max, "%.*s", is_id ? SHOW_ID_DIGITS : (int)max, subject);
  }
}

void show_switches(FILE *file, const json_t *switches) {
  static const char *const heading[] = {"ID", "WHEN", "LEVEL",  "SUBJECT", "ACTION",
                                        "BY", "NOW",  "REASON", NULL};
  struct grid grid;
  size_t i = 0;
  const json_t *change = NULL;
  char text[512];
  if (json_array_size(switches) == 0) {
    (void)fprintf(file, "no switches\n");
    return;
  }
  grid_init(&grid, heading);
  json_array_foreach (switches, i, change) {
    const json_t *undone = json_object_get(change, "undone");
    grid_addf(&grid, "%lld", number_of(change, "id"));
    grid_add(&grid, text_of(change, "at"));
    grid_add(&grid, text_of(change, "level"));
    subject_text(text, sizeof(text), change);
    grid_add(&grid, text);
    action_text(text, sizeof(text), change);
    grid_add(&grid, text);
    grid_add(&grid, text_of(change, "author"));
    if (json_is_object(undone)) {
      grid_addf(&grid, "restored by %s at %s", text_of(undone, "by"), text_of(undone, "at"));
    } else if (text_or_null(change, "until") != NULL) {
      grid_addf(&grid, "%s %s", is_true(change, "ended") ? "ended" : "stands until",
                text_of(change, "until"));
    } else {
      grid_add(&grid, "stands");
    }
    grid_add(&grid, text_of(change, "reason"));
  }
  (void)grid_print(&grid, file);
}

static void show_restored(FILE *file, const json_t *answer, const char *subject) {
  size_t i = 0;
  const json_t *id = NULL;
  (void)fprintf(file, "restored:");
  json_array_foreach (json_object_get(answer, "ids"), i, id) {
    (void)fprintf(file, " %lld", (long long)json_integer_value(id));
  }
  (void)fprintf(file, " (%s ", text_of(answer, "level"));
  grid_clean(file, subject);
  (void)fprintf(file, ")\n");
}

void show_change(FILE *file, FILE *warn, const json_t *answer) {
  char subject[512];
  char action[128];
  size_t i = 0;
  const json_t *warning = NULL;
  subject_text(subject, sizeof(subject), answer);
  action_text(action, sizeof(action), answer);
  if (strcmp(text_of(answer, "action"), "restore") == 0) {
    show_restored(file, answer, subject);
  } else {
    (void)fprintf(file, "%s %lld: %s ",
                  is_true(answer, "already") ? "already so, by switch" : "switch",
                  number_of(answer, "id"), text_of(answer, "level"));
    grid_clean(file, subject);
    (void)fprintf(file, ": ");
    grid_clean(file, action);
    if (json_is_integer(json_object_get(answer, "num_moved"))) {
      (void)fprintf(file, "; %lld names moved", number_of(answer, "num_moved"));
    }
    (void)fputc('\n', file);
  }
  json_array_foreach (json_object_get(answer, "warnings"), i, warning) {
    const char *text = json_string_value(warning);
    (void)fprintf(warn, "deputyctl: warning: ");
    grid_clean(warn, text == NULL ? "?" : text);
    (void)fputc('\n', warn);
  }
}

// --- drill -------------------------------------------------------------------------------

static void show_list(FILE *file, const char *title, const json_t *names, long long num) {
  size_t i = 0;
  const json_t *name = NULL;
  if (num == 0) {
    return;
  }
  (void)fprintf(file, "%s:\n", title);
  json_array_foreach (names, i, name) {
    const char *text = json_string_value(name);
    if (i == NAMES_SHOWN) {
      break;
    }
    (void)fprintf(file, "  ");
    grid_clean(file, text == NULL ? "?" : text);
    (void)fputc('\n', file);
  }
  if (num > (long long)i) {
    (void)fprintf(file, "  and %lld more (--json lists 1000)\n", num - (long long)i);
  }
}

void show_drill(FILE *file, const json_t *answer) {
  static const struct {
    const char *key;
    const char *text;
  } rows[] = {
      {"num_names", "names"},
      {"num_moved", "would move"},
      {"num_without_backup", "would have nothing usable"},
      {"num_partly", "would have nothing for RSA-only clients"},
      {"num_unusable_already", "have nothing usable already"},
      {"num_without_dc", "would move to a chain without a DC in memory"},
  };
  char subject[512];
  char left[SHOW_LEFT_LEN];
  const char *now = text_or_null(answer, "now");
  subject_text(subject, sizeof(subject), answer);
  (void)fprintf(file, "drill: if this were out of service: %s ", text_of(answer, "level"));
  grid_clean(file, subject);
  (void)fputc('\n', file);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    (void)fprintf(file, "  %8lld  %s\n", number_of(answer, rows[i].key), rows[i].text);
  }
  (void)fprintf(file, "  %8s  left to the first end of a backup's DC\n",
                show_left(left, text_or_null(answer, "oldest_dc_ends_at"), now));
  (void)fprintf(file, "  %8s  left to the first end of a backup's staple\n",
                show_left(left, text_or_null(answer, "oldest_staple_ends_at"), now));
  show_list(file, "names without a backup", json_object_get(answer, "without_backup"),
            number_of(answer, "num_without_backup"));
  (void)fprintf(file, "%s\n", is_true(answer, "ready") ? "ready" : "NOT READY");
}

// --- status --------------------------------------------------------------------------------

// add_element lists an object of a list by its name: "listeners main  127.0.0.1:443".
static void add_element(struct grid *grid, const char *label, const json_t *element) {
  const char *key = NULL;
  const json_t *value = NULL;
  char text[256] = "";
  size_t len = 0;
  json_object_foreach ((json_t *)(uintptr_t)element, key, value) {
    if (json_is_string(value) && strcmp(key, "name") != 0 && len < sizeof(text)) {
      int n = snprintf(text + len, sizeof(text) - len, "%s%s", len == 0 ? "" : " ",
                       json_string_value(value));
      len += n > 0 ? (size_t)n : 0;
    }
  }
  grid_addf(grid, "%s %s", label, text_of(element, "name"));
  grid_add(grid, text);
}

static bool is_key_servers(const char *key, const json_t *value) {
  return strcmp(key, "key_servers") == 0 && json_is_object(json_array_get(value, 0));
}

static bool is_origins(const char *key, const json_t *value) {
  return strcmp(key, "origins") == 0 && json_is_object(json_array_get(value, 0));
}

// add_members lists an object's members, nested ones as "workers connections".
// NOLINTBEGIN(misc-no-recursion): answers nest by two or three
static void add_members(struct grid *grid, const char *prefix, const json_t *object) {
  const char *key = NULL;
  const json_t *value = NULL;
  json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
    char label[256];
    (void)snprintf(label, sizeof(label), "%s%s%s", prefix, prefix[0] != '\0' ? " " : "", key);
    if (json_is_object(value)) {
      add_members(grid, label, value);
      continue;
    }
    if (is_key_servers(key, value) || is_origins(key, value)) {
      continue;  // a table of its own
    }
    for (char *p = label; *p != '\0'; p++) {
      *p = (char)(*p == '_' ? ' ' : *p);
    }
    if (json_is_object(json_array_get(value, 0))) {
      for (size_t i = 0; i < json_array_size(value); i++) {
        add_element(grid, label, json_array_get(value, i));
      }
      continue;
    }
    grid_add(grid, label);
    if (json_is_string(value)) {
      grid_add(grid, json_string_value(value));
    } else if (json_is_boolean(value)) {
      grid_add(grid, json_is_true(value) ? "yes" : "no");
    } else if (json_is_null(value)) {
      grid_add(grid, "-");
    } else {
      char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
      grid_add(grid, text);
      free(text);
    }
  }
}
// NOLINTEND(misc-no-recursion)

static void add_ms(struct grid *grid, const json_t *object, const char *key) {
  const long long us = number_of(object, key);
  if (us > 0) {
    grid_addf(grid, "%.1f ms", (double)us / 1000);
  } else {
    grid_add(grid, "-");
  }
}

static void show_key_servers(FILE *file, const json_t *servers) {
  static const char *const heading[] = {"KEY SERVER",  "STATE",     "DISTANCE", "ANSWERS IN",
                                        "CONNECTIONS", "IN FLIGHT", "ANSWERED", "FAILURES",
                                        "HEDGES",      NULL};
  struct grid grid;
  size_t i = 0;
  const json_t *server = NULL;
  if (!is_key_servers("key_servers", servers)) {
    return;
  }
  (void)fputc('\n', file);
  grid_init(&grid, heading);
  json_array_foreach (servers, i, server) {
    grid_add(&grid, text_of(server, "name"));
    grid_add(&grid, text_of(server, "state"));
    add_ms(&grid, server, "distance_us");
    add_ms(&grid, server, "srtt_us");
    grid_addf(&grid, "%lld", number_of(server, "connections"));
    grid_addf(&grid, "%lld", number_of(server, "in_flight"));
    grid_addf(&grid, "%lld", number_of(server, "answered"));
    grid_addf(&grid, "%lld", number_of(server, "failures"));
    grid_addf(&grid, "%lld", number_of(server, "hedges"));
  }
  (void)grid_print(&grid, file);
}

static void show_origins(FILE *file, const json_t *origins) {
  static const char *const heading[] = {"POOL",       "ORIGIN",      "STATE",
                                        "IN SERVICE", "CONNECTS IN", "CONNECTIONS",
                                        "CONNECTED",  "FAILURES",    NULL};
  struct grid grid;
  size_t i = 0;
  const json_t *origin = NULL;
  if (!is_origins("origins", origins)) {
    return;
  }
  (void)fputc('\n', file);
  grid_init(&grid, heading);
  json_array_foreach (origins, i, origin) {
    grid_add(&grid, text_of(origin, "pool"));
    grid_add(&grid, text_of(origin, "name"));
    grid_add(&grid, text_of(origin, "state"));
    grid_addf(&grid, "%lld of %lld", number_of(origin, "in_service"),
              number_of(origin, "addresses"));
    add_ms(&grid, origin, "connect_us");
    grid_addf(&grid, "%lld", number_of(origin, "connections"));
    grid_addf(&grid, "%lld", number_of(origin, "connected"));
    grid_addf(&grid, "%lld", number_of(origin, "failures"));
  }
  (void)grid_print(&grid, file);
}

void show_status(FILE *file, const json_t *answer) {
  static const char *const heading[] = {"WHAT", "NOW", NULL};
  struct grid grid;
  const json_t *names = json_object_get(answer, "names");
  const json_t *switches = json_object_get(answer, "switches");
  const json_t *shedding = json_object_get(answer, "shedding");
  grid_init(&grid, heading);
  add_members(&grid, "", answer);
  (void)grid_print(&grid, file);
  show_key_servers(file, json_object_get(answer, "key_servers"));
  show_origins(file, json_object_get(answer, "origins"));
  if (number_of(names, "on_last_resort") + number_of(names, "unserved") > 0) {
    (void)fprintf(file, "\nALERT: %lld names have nothing usable; see `deputyctl names`\n",
                  number_of(names, "on_last_resort") + number_of(names, "unserved"));
  }
  if (number_of(shedding, "busy_workers") > 0) {
    (void)fprintf(file,
                  "\nALERT: new connections are being refused, as handshakes fill %lld workers\n",
                  number_of(shedding, "busy_workers"));
  }
  if (json_is_true(json_object_get(shedding, "memory_ceiling"))) {
    (void)fprintf(file,
                  "\nALERT: new connections are being refused: memory is above limits.memory\n");
  }
  if (json_is_false(json_object_get(switches, "kept"))) {
    (void)fprintf(file, "\nALERT: switches are in memory only and do not survive a restart\n");
  }
}
