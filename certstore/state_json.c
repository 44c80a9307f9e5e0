// SPDX-License-Identifier: Apache-2.0
// The text in which states are kept: {"format", "version", "next_id", "changes"}.
// Written whole, read strictly: a field that is not known, or a value that does
// not fit, stops the start rather than lose what an operator has said.
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/state.h"
#include "certstore/state_private.h"

#define FORMAT_NAME "deputy-states"
#define FORMAT_VERSION 1

// --- writing ------------------------------------------------------------------

static bool put(json_t *object, const char *key, json_t *value) {
  return json_object_set_new(object, key, value) == 0;  // NULL value: fails
}

static bool put_words(json_t *object, const struct state_change *c) {
  if (c->level == STATE_LEVEL_KEY || c->level == STATE_LEVEL_CA) {
    return put(object, "service", json_string(state_service_name(c->service))) &&
           put(object, "compromised", json_boolean(c->is_compromised));
  }
  return (c->preferred == STATE_PREFERRED_LEAVE ||
          put(object, "preferred", json_integer((json_int_t)c->preferred))) &&
         (c->dc < 0 || put(object, "dc", json_boolean(c->dc)));
}

static json_t *change_to_json(const struct state_change *c) {
  json_t *object = json_object();
  bool is_ok = put(object, "id", json_integer((json_int_t)c->id)) &&
               put(object, "level", json_string(state_level_name(c->level))) &&
               put(object, "subject", json_string(c->subject)) && put_words(object, c) &&
               put(object, "reason", json_string(c->reason)) &&
               put(object, "author", json_string(c->author)) &&
               put(object, "author_uid", json_integer(c->author_uid)) &&
               put(object, "at", json_integer(c->at_s));
  if (is_ok && c->is_undone) {
    is_ok = put(object, "undone_by", json_string(c->undone_by)) &&
            put(object, "undone_at", json_integer(c->undone_at_s));
  }
  if (!is_ok) {
    json_decref(object);
    return NULL;
  }
  return object;
}

char *states_save(const struct states *states) {
  size_t num = 0;
  const struct state_change *changes = states_list(states, &num);
  json_t *list = json_array();
  json_t *root = json_object();
  char *text = NULL;
  bool is_ok = put(root, "format", json_string(FORMAT_NAME)) &&
               put(root, "version", json_integer(FORMAT_VERSION)) &&
               put(root, "next_id", json_integer((json_int_t)states_next_id(states)));
  for (size_t i = 0; i < num && is_ok; i++) {
    is_ok = json_array_append_new(list, change_to_json(&changes[i])) == 0;
  }
  if (is_ok && json_object_set(root, "changes", list) == 0) {
    text = json_dumps(root, JSON_INDENT(1));
  }
  json_decref(list);
  json_decref(root);
  return text;
}

// --- reading ------------------------------------------------------------------

// What is being read, for the sentence.
struct reading {
  const char *path;
  size_t index;  // of the change
  struct errmsg *err;
};

static enum status refuse(const struct reading *r, const char *what) {
  return errmsg_set(r->err, STATUS_FORMAT,
                    "%s: change %zu: %s; the file is damaged or from a later version. Put back a "
                    "copy of it, or move it away to start with no switch in force",
                    r->path, r->index, what);
}

static bool is_known_key(const char *key) {
  static const char *const known[] = {
      "id",     "level",  "subject", "service",    "preferred", "dc",       "compromised",
      "reason", "author", "at",      "author_uid", "undone_by", "undone_at"};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
    if (strcmp(known[i], key) == 0) {
      return true;
    }
  }
  return false;
}

// get_text copies a member that must be there, a text that fits.
static bool get_text(char *out, size_t max, const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_string(value) || json_string_length(value) >= max) {
    return false;
  }
  memcpy(out, json_string_value(value), json_string_length(value) + 1);
  return strlen(out) == json_string_length(value);
}

static bool get_int(int64_t *out, const json_t *object, const char *key, int64_t min) {
  const json_t *value = json_object_get(object, key);
  if (value == NULL || !json_is_integer(value) || json_integer_value(value) < min) {
    return false;
  }
  *out = json_integer_value(value);
  return true;
}

static bool get_service(struct state_change *out, const json_t *object) {
  const json_t *compromised = json_object_get(object, "compromised");
  char word[16];
  if (!json_is_boolean(compromised) || !get_text(word, sizeof(word), object, "service")) {
    return false;
  }
  out->is_compromised = json_is_true(compromised);
  for (unsigned i = 0; i < STATE_NUM_SERVICES; i++) {
    if (strcmp(word, state_service_name((enum state_service)i)) == 0) {
      out->service = (enum state_service)i;
      return true;
    }
  }
  return false;
}

// get_words reads what the level can say, and nothing else may be there.
static bool get_words(struct state_change *out, const json_t *object) {
  const json_t *preferred = json_object_get(object, "preferred");
  const json_t *dc = json_object_get(object, "dc");
  out->preferred = STATE_PREFERRED_LEAVE;
  out->dc = -1;
  if (out->level == STATE_LEVEL_KEY || out->level == STATE_LEVEL_CA) {
    return preferred == NULL && dc == NULL && get_service(out, object);
  }
  if (json_object_get(object, "service") != NULL ||
      json_object_get(object, "compromised") != NULL || (preferred == NULL && dc == NULL)) {
    return false;
  }
  if (preferred != NULL) {
    int64_t value = -1;
    if (!get_int(&value, object, "preferred", 0) || value > STATE_MAX_PREFERRED) {
      return false;
    }
    out->preferred = (uint32_t)value;
  }
  if (dc != NULL) {
    if (!json_is_boolean(dc)) {
      return false;
    }
    out->dc = json_is_true(dc) ? 1 : 0;
  }
  return true;
}

static enum status read_change(struct state_change *out, json_t *object, const struct reading *r) {
  const char *key;
  json_t *value;
  char level[16];
  int64_t id = 0;
  if (!json_is_object(object)) {
    return refuse(r, "not an object");
  }
  json_object_foreach (object, key, value) {
    if (!is_known_key(key)) {
      return refuse(r, "it has a field that this version does not know");
    }
  }
  if (!get_text(level, sizeof(level), object, "level") ||
      state_level_from_name(&out->level, level) != STATUS_OK) {
    return refuse(r, "\"level\" is not name, key, ca or fleet");
  }
  if (!get_int(&id, object, "id", 1) || !get_int(&out->at_s, object, "at", INT64_MIN) ||
      !get_int(&out->author_uid, object, "author_uid", -1)) {
    return refuse(r, "\"id\", \"at\" and \"author_uid\" are not all numbers in their range");
  }
  out->id = (uint64_t)id;
  if (!get_text(out->subject, sizeof(out->subject), object, "subject") ||
      !get_text(out->reason, sizeof(out->reason), object, "reason") ||
      !get_text(out->author, sizeof(out->author), object, "author")) {
    return refuse(r, "\"subject\", \"reason\" and \"author\" are not all texts that fit");
  }
  out->is_undone = json_object_get(object, "undone_at") != NULL;
  if (out->is_undone != (json_object_get(object, "undone_by") != NULL) ||
      (out->is_undone &&
       (!get_int(&out->undone_at_s, object, "undone_at", INT64_MIN) ||
        !get_text(out->undone_by, sizeof(out->undone_by), object, "undone_by")))) {
    return refuse(r, "\"undone_at\" and \"undone_by\" are not a number and a text");
  }
  if (!get_words(out, object) || !state_change_is_sound(out)) {
    return refuse(r, "what it says does not belong to its level");
  }
  return STATUS_OK;
}

static enum status read_changes(struct state_change **out, size_t *out_num, const json_t *list,
                                int64_t next_id, struct reading *r) {
  enum status st = STATUS_OK;
  size_t num = json_array_size(list);
  uint64_t last_id = 0;
  struct state_change *changes = calloc(num + 1, sizeof(*changes));

  if (changes == NULL) {
    return errmsg_set(r->err, STATUS_MEMORY, "%s: no memory", r->path);
  }
  for (size_t i = 0; i < num; i++) {
    r->index = i;
    TRY(read_change(&changes[i], json_array_get(list, i), r));
    if (changes[i].id <= last_id || changes[i].id >= (uint64_t)next_id) {
      TRY(refuse(r, "its id does not follow the one before it"));
    }
    last_id = changes[i].id;
  }
  *out = changes;
  *out_num = num;
  changes = NULL;

out:
  free(changes);
  return st;
}

static enum status check_frame(json_t *root, const char *path, struct errmsg *err) {
  const json_t *format = json_object_get(root, "format");
  int64_t version = 0;
  int64_t next_id = 0;
  if (!json_is_string(format) || strcmp(json_string_value(format), FORMAT_NAME) != 0 ||
      !get_int(&version, root, "version", 1)) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s is not a file of switches (\"format\" is not \"" FORMAT_NAME
                      "\"). Does the configuration name the right file?",
                      path);
  }
  if (version != FORMAT_VERSION) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s has version %" PRId64
                      ", this program knows version %d. Start the "
                      "version that wrote it",
                      path, version, FORMAT_VERSION);
  }
  if (json_object_size(root) != 4 || !get_int(&next_id, root, "next_id", 1) ||
      !json_is_array(json_object_get(root, "changes")) ||
      json_array_size(json_object_get(root, "changes")) > STATE_MAX_CHANGES) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: \"next_id\" or \"changes\" is missing or wrong; the file is damaged. "
                      "Put back a copy of it, or move it away to start with no switch in force",
                      path);
  }
  return STATUS_OK;
}

enum status states_load(struct states *states, const char *text, size_t len, const char *path,
                        struct errmsg *err) {
  enum status st = STATUS_OK;
  struct reading reading = {path, 0, err};
  struct state_change *changes = NULL;
  size_t num = 0;
  json_error_t error;
  int64_t next_id = 0;
  json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

  if (root == NULL) {
    TRY(errmsg_set(err, STATUS_FORMAT,
                   "%s:%d: the file of switches is damaged (%s). Put back a copy of it, or move "
                   "it away to start with no switch in force",
                   path, error.line, error.text));
  }
  TRY(check_frame(root, path, err));
  CHECK(get_int(&next_id, root, "next_id", 1));
  TRY(read_changes(&changes, &num, json_object_get(root, "changes"), next_id, &reading));
  st = states_put_all(states, changes, num, (uint64_t)next_id);
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s: no memory", path);
  }

out:
  free(changes);
  json_decref(root);
  return st;
}
