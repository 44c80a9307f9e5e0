// SPDX-License-Identifier: Apache-2.0
#include "certstore/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/state_private.h"
#include "certstore/table.h"
#include "common/base/clock.h"

#define KEY_MAX_LEN (STATE_SUBJECT_MAX_LEN + 1)  // level, subject, terminator
#define KEPT_WHEN_FULL ((size_t)STATE_MAX_CHANGES - STATE_MAX_CHANGES / 4)

// What a subject says, before it is stored where workers read it.
struct words {
  uint32_t service;
  uint32_t preferred;
  bool is_dc_off;
  bool is_compromised;
};

// A subject, found by its key: the level as one character, then the subject.
struct subject {
  struct state state;
  struct words words;
  uint64_t round;  // of the recount that touched it last
  char key[];
};

struct states {
  struct states *base;  // of a draft: whose objects it uses; else NULL
  struct table table;   // of struct subject
  struct state_change *changes;
  size_t num_changes;
  size_t num_room;
  uint64_t next_id;
  uint64_t round;
};

static const char *const level_names[STATE_NUM_LEVELS] = {
    [STATE_LEVEL_NAME] = "name",
    [STATE_LEVEL_KEY] = "key",
    [STATE_LEVEL_CA] = "ca",
    [STATE_LEVEL_FLEET] = "fleet",
};

const char *state_level_name(enum state_level level) {
  CHECK((unsigned)level < STATE_NUM_LEVELS);
  return level_names[level];
}

enum status state_level_from_name(enum state_level *out, const char *name) {
  for (unsigned i = 0; i < STATE_NUM_LEVELS; i++) {
    if (strcmp(level_names[i], name) == 0) {
      *out = (enum state_level)i;
      return STATUS_OK;
    }
  }
  return STATUS_NOT_FOUND;
}

const char *state_service_name(enum state_service service) {
  static const char *const names[STATE_NUM_SERVICES] = {"silent", "in", "out"};
  CHECK((unsigned)service < STATE_NUM_SERVICES);
  return names[service];
}

enum status states_new(struct states **out) {
  struct states *states = calloc(1, sizeof(*states));
  if (states == NULL) {
    return STATUS_MEMORY;
  }
  states->next_id = 1;
  *out = states;
  return STATUS_OK;
}

void states_free(struct states *states) {
  if (states == NULL) {
    return;
  }
  for (size_t i = 0; i < states->table.num_places; i++) {
    free(states->table.entries[i].value);
  }
  table_cleanup(&states->table);
  free(states->changes);
  free(states);
}

// --- subjects ----------------------------------------------------------------

static bool make_key(char out[KEY_MAX_LEN], enum state_level level, const char *subject) {
  int len = snprintf(out, KEY_MAX_LEN, "%c%s", '0' + (int)level, subject);
  return len > 0 && (size_t)len < KEY_MAX_LEN;
}

static struct subject *find_subject(const struct states *states, const struct state_change *c) {
  char key[KEY_MAX_LEN];
  CHECK(make_key(key, c->level, c->subject));
  return table_find(&states->table, bytes_text(key));
}

static struct subject *get_subject(struct states *states, enum state_level level,
                                   const char *subject) {
  char key[KEY_MAX_LEN];
  if (!make_key(key, level, subject)) {
    return NULL;
  }
  struct subject *found = table_find(&states->table, bytes_text(key));
  if (found != NULL) {
    return found;
  }
  size_t len = strlen(key);
  found = calloc(1, sizeof(*found) + len + 1);
  if (found == NULL) {
    return NULL;
  }
  memcpy(found->key, key, len + 1);
  if (table_put(&states->table, bytes_of(found->key, len), found) != STATUS_OK) {
    free(found);
    return NULL;
  }
  return found;
}

struct state *states_get(struct states *states, enum state_level level, const char *subject) {
  struct states *owner = states->base != NULL ? states->base : states;
  struct subject *found = get_subject(owner, level, subject);
  return found != NULL ? &found->state : NULL;
}

// --- from changes to words -----------------------------------------------------

static void say(struct words *words, const struct state_change *c) {
  if (c->is_undone) {
    return;
  }
  if (c->level == STATE_LEVEL_KEY || c->level == STATE_LEVEL_CA) {
    words->service = (uint32_t)c->service;
    words->is_compromised = c->is_compromised;
    return;
  }
  if (c->preferred != STATE_PREFERRED_LEAVE) {
    words->preferred = c->preferred;
  }
  if (c->dc >= 0) {
    words->is_dc_off = c->dc == 0;
  }
}

// publish stores the words where workers look. A word is stored only if it
// differs, so that a change never disturbs the cache lines of other subjects; and
// in full order, so that whoever was told of the change finds it made.
static void publish(struct subject *subject) {
  struct state *state = &subject->state;
  const struct words *words = &subject->words;
  // Compromised first: no session may slip in between by resumption.
  if (atomic_load(&state->is_compromised) != words->is_compromised) {
    atomic_store(&state->is_compromised, words->is_compromised);
  }
  if (atomic_load(&state->service) != words->service) {
    atomic_store(&state->service, words->service);
  }
  if (atomic_load(&state->preferred) != words->preferred) {
    atomic_store(&state->preferred, words->preferred);
  }
  if (atomic_load(&state->is_dc_off) != words->is_dc_off) {
    atomic_store(&state->is_dc_off, words->is_dc_off);
  }
}

static void recount_one(struct states *states, const struct state_change *changed) {
  struct subject *subject = find_subject(states, changed);
  CHECK(subject != NULL);
  subject->words = (struct words){0};
  for (size_t i = 0; i < states->num_changes; i++) {
    const struct state_change *c = &states->changes[i];
    if (c->level == changed->level && strcmp(c->subject, changed->subject) == 0) {
      say(&subject->words, c);
    }
  }
  publish(subject);
}

// touch finds the subject of a change, silent when this round meets it first.
static struct subject *touch(struct states *states, const struct state_change *c) {
  struct subject *subject = find_subject(states, c);
  CHECK(subject != NULL);
  if (subject->round != states->round) {
    subject->round = states->round;
    subject->words = (struct words){0};
  }
  return subject;
}

// recount_all computes the words of every subject that `states` speak of now, or
// that one of the `num` changes before spoke of, and publishes them.
static void recount_all(struct states *states, const struct state_change *before, size_t num) {
  states->round++;
  for (size_t i = 0; i < states->num_changes; i++) {
    say(&touch(states, &states->changes[i])->words, &states->changes[i]);
  }
  for (size_t i = 0; i < num; i++) {
    (void)touch(states, &before[i]);
  }
  for (size_t i = 0; i < num; i++) {
    publish(touch(states, &before[i]));
  }
  for (size_t i = 0; i < states->num_changes; i++) {
    publish(touch(states, &states->changes[i]));
  }
}

// --- changes -------------------------------------------------------------------

static bool is_id(const char *subject) {
  return strlen(subject) == 64 && strspn(subject, "0123456789abcdef") == 64;
}

static bool is_lower_text(const char *subject) {
  for (const char *p = subject; *p != '\0'; p++) {
    if ((unsigned char)*p <= ' ' || (*p >= 'A' && *p <= 'Z') || (unsigned char)*p >= 0x7f) {
      return false;
    }
  }
  return *subject != '\0';
}

static bool fits(const char *text, size_t max) { return memchr(text, '\0', max) != NULL; }

bool state_change_is_sound(const struct state_change *c) {
  if ((unsigned)c->level >= STATE_NUM_LEVELS || !fits(c->subject, sizeof(c->subject)) ||
      !fits(c->reason, sizeof(c->reason)) || !fits(c->author, sizeof(c->author)) ||
      !fits(c->undone_by, sizeof(c->undone_by))) {
    return false;
  }
  if (c->level == STATE_LEVEL_KEY || c->level == STATE_LEVEL_CA) {
    return is_id(c->subject) && (unsigned)c->service < STATE_NUM_SERVICES &&
           c->preferred == STATE_PREFERRED_LEAVE && c->dc == -1;
  }
  bool is_subject_ok =
      c->level == STATE_LEVEL_FLEET ? c->subject[0] == '\0' : is_lower_text(c->subject);
  return is_subject_ok && c->service == STATE_SILENT && !c->is_compromised &&
         (c->preferred <= STATE_MAX_PREFERRED || c->preferred == STATE_PREFERRED_LEAVE) &&
         c->dc >= -1 && c->dc <= 1;
}

// forget_undone makes room in a full list: of the changes that are undone, the
// oldest go, until a quarter is free. (The audit log has them still.)
static void forget_undone(struct states *states) {
  size_t excess = states->num_changes - KEPT_WHEN_FULL;
  size_t kept = 0;
  for (size_t i = 0; i < states->num_changes; i++) {
    if (excess > 0 && states->changes[i].is_undone) {
      excess--;
      continue;
    }
    if (kept != i) {
      states->changes[kept] = states->changes[i];
    }
    kept++;
  }
  states->num_changes = kept;
}

static enum status make_room(struct states *states, size_t num) {
  if (num <= states->num_room) {
    return STATUS_OK;
  }
  size_t num_room = states->num_room < 8 ? 16 : states->num_room * 2;
  num_room = num_room < num ? num : num_room;
  struct state_change *changes = realloc(states->changes, num_room * sizeof(*changes));
  if (changes == NULL) {
    return STATUS_MEMORY;
  }
  states->changes = changes;
  states->num_room = num_room;
  return STATUS_OK;
}

enum status states_apply(struct states *states, struct state_change *change) {
  enum status st = STATUS_OK;
  change->is_undone = false;
  change->undone_by[0] = '\0';
  change->undone_at_s = 0;
  if (!state_change_is_sound(change)) {
    return STATUS_FORMAT;
  }
  if (states_get(states, change->level, change->subject) == NULL) {
    return STATUS_MEMORY;
  }
  if (states->num_changes >= STATE_MAX_CHANGES) {
    forget_undone(states);
  }
  if (states->num_changes >= STATE_MAX_CHANGES || states->next_id >= INT64_MAX) {
    return STATUS_LIMIT;
  }
  st = make_room(states, states->num_changes + 1);
  if (st != STATUS_OK) {
    return st;
  }
  change->id = states->next_id++;
  change->at_s = clock_wall_s();
  states->changes[states->num_changes++] = *change;
  if (states->base == NULL) {
    recount_one(states, change);
  }
  return STATUS_OK;
}

static struct state_change *find_change(const struct states *states, uint64_t id) {
  size_t low = 0;
  size_t high = states->num_changes;
  while (low < high) {  // ids ascend
    size_t middle = low + (high - low) / 2;
    if (states->changes[middle].id < id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < states->num_changes && states->changes[low].id == id ? &states->changes[low] : NULL;
}

enum status states_undo(struct states *states, uint64_t id, const char *author, int64_t now_s) {
  struct state_change *change = find_change(states, id);
  if (change == NULL) {
    return STATUS_NOT_FOUND;
  }
  if (change->is_undone) {
    return STATUS_EXISTS;
  }
  change->is_undone = true;
  (void)snprintf(change->undone_by, sizeof(change->undone_by), "%s", author);
  change->undone_at_s = now_s;
  if (states->base == NULL) {
    recount_one(states, change);
  }
  return STATUS_OK;
}

const struct state_change *states_list(const struct states *states, size_t *out_num) {
  *out_num = states->num_changes;
  return states->changes;
}

const struct state_change *states_find(const struct states *states, uint64_t id) {
  return find_change(states, id);
}

// --- drafts ----------------------------------------------------------------------

enum status states_draft(struct states **out, struct states *states) {
  enum status st = STATUS_OK;
  struct states *draft = NULL;

  CHECK(states->base == NULL);
  TRY(states_new(&draft));
  draft->base = states;
  draft->next_id = states->next_id;
  TRY(make_room(draft, states->num_changes + 1));
  if (states->changes != NULL && draft->changes != NULL) {
    memcpy(draft->changes, states->changes, states->num_changes * sizeof(*states->changes));
  }
  draft->num_changes = states->num_changes;
  *out = draft;
  draft = NULL;

out:
  states_free(draft);
  return st;
}

void states_adopt(struct states *states, struct states **draft) {
  struct states *from = *draft;
  CHECK(from->base == states && from->next_id >= states->next_id);
  struct state_change *before = states->changes;
  size_t num_before = states->num_changes;
  states->changes = from->changes;
  states->num_changes = from->num_changes;
  states->num_room = from->num_room;
  states->next_id = from->next_id;
  recount_all(states, before, num_before);
  free(before);
  from->changes = NULL;
  from->num_changes = 0;
  states_free(from);
  *draft = NULL;
}

// --- for state_json.c --------------------------------------------------------------

uint64_t states_next_id(const struct states *states) { return states->next_id; }

enum status states_put_all(struct states *states, const struct state_change *changes, size_t num,
                           uint64_t next_id) {
  CHECK(states->base == NULL && states->num_changes == 0);
  for (size_t i = 0; i < num; i++) {
    if (states_get(states, changes[i].level, changes[i].subject) == NULL) {
      return STATUS_MEMORY;
    }
  }
  enum status st = make_room(states, num);
  if (st != STATUS_OK) {
    return st;
  }
  if (num > 0) {
    CHECK(states->changes != NULL);
    memcpy(states->changes, changes, num * sizeof(*changes));
  }
  states->num_changes = num;
  states->next_id = next_id;
  recount_all(states, NULL, 0);
  return STATUS_OK;
}
