// SPDX-License-Identifier: Apache-2.0
// state: the switch. What operators and watchers have said about a name, a key,
// a CA or the fleet. Each subject has one small object that lives as long as the
// process; chains and names point at theirs and read it, with one relaxed load
// each, on every handshake. So marking a CA out of service is one store, whatever
// the number of names under it, and the next handshake of every worker obeys.
//
// Changes are made by the control thread only: drafted, written to a file that is
// replaced atomically (proxy/admin/state_file.h; so a switch that was answered survives
// kill -9), then adopted, which makes them visible, then answered.
#ifndef DEPUTY_CERTSTORE_STATE_H_
#define DEPUTY_CERTSTORE_STATE_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define STATE_SUBJECT_MAX_LEN 256u
#define STATE_REASON_MAX_LEN 256u
#define STATE_AUTHOR_MAX_LEN 128u
#define STATE_MAX_CHANGES 10000u        // kept; beyond, the oldest that are undone go
#define STATE_FILE_MAX_LEN (32u << 20)  // bytes of a saved text

// state_change.preferred: this change says nothing about the level of chains.
#define STATE_PREFERRED_LEAVE UINT32_MAX

// Narrowest first: the first level that speaks wins.
enum state_level {
  STATE_LEVEL_NAME,
  STATE_LEVEL_KEY,
  STATE_LEVEL_CA,
  STATE_LEVEL_FLEET,
  STATE_NUM_LEVELS
};
const char *state_level_name(enum state_level level);  // "name", "key", "ca", "fleet"
enum status state_level_from_name(enum state_level *out, const char *name);  // STATUS_NOT_FOUND

// What is said. SILENT: nothing.
enum state_service { STATE_SILENT, STATE_IN_SERVICE, STATE_OUT_OF_SERVICE, STATE_NUM_SERVICES };
const char *state_service_name(enum state_service service);  // "silent", "in", "out"

// One subject. Words are read by workers without a lock.
struct state {
  // KEY, CA: enum state_service. NAME, FLEET: unused.
  _Atomic uint32_t service;
  // NAME, FLEET: 1 + the index of the level of chains that is preferred; 0: silent.
  _Atomic uint32_t preferred;
  // NAME, FLEET: delegated credentials are not to be used.
  _Atomic bool is_dc_off;
  // KEY, CA: out of service for compromise: sessions it authenticated are not
  // resumed.
  _Atomic bool is_compromised;
};

struct states;

enum status states_new(struct states **out);
void states_free(struct states *states);

// states_get returns the subject's object, made silent when it is new; it lives
// as long as `states`. `subject` is a lower-case name, or 32 bytes of key or CA
// id as 64 hex digits; "" for the fleet. Control thread. NULL: no memory, or a
// subject that is too long.
struct state *states_get(struct states *states, enum state_level level, const char *subject);

// One change, as asked, kept and shown.
struct state_change {
  uint64_t id;  // set by states_apply; never reused
  enum state_level level;
  char subject[STATE_SUBJECT_MAX_LEN];
  enum state_service service;  // KEY, CA
  uint32_t preferred;          // NAME, FLEET: as in struct state, or STATE_PREFERRED_LEAVE
  int dc;                      // NAME, FLEET: -1 leave, 0 off, 1 on
  bool is_compromised;         // KEY, CA
  char reason[STATE_REASON_MAX_LEN];
  char author[STATE_AUTHOR_MAX_LEN];
  int64_t author_uid;  // who was on the socket (SO_PEERCRED); -1: not known
  int64_t at_s;        // wall clock, set by states_apply
  bool is_undone;
  char undone_by[STATE_AUTHOR_MAX_LEN];
  int64_t undone_at_s;
};

// states_apply remembers the change with its id and makes it visible (on a draft:
// does not). STATUS_FORMAT: not a change (subject or words that do not belong to
// the level); STATUS_LIMIT: STATE_MAX_CHANGES stand, none of them undone;
// STATUS_MEMORY. On failure nothing has changed.
enum status states_apply(struct states *states, struct state_change *change);

// states_undo takes change `id` back: the subject says again what it said before
// (or what later changes that stand say). STATUS_NOT_FOUND, STATUS_EXISTS (undone
// already).
enum status states_undo(struct states *states, uint64_t id, const char *author, int64_t now_s);

// states_list lends all changes in order, oldest first, until the next call that
// changes something. states_find lends one, or NULL.
const struct state_change *states_list(const struct states *states, size_t *out_num);
const struct state_change *states_find(const struct states *states, uint64_t id);

// A draft is a copy of the changes on which states_apply, states_undo, states_list
// and states_save work as usual while nobody sees it. Its objects are those of
// `states`, which must outlive it. Free with states_free, or adopt it.
enum status states_draft(struct states **out, struct states *states);

// states_adopt takes the draft (NULL afterwards) and makes what it says visible:
// each word of each subject is stored once, and only if it differs. It cannot
// fail: what needed memory was made with the draft. The draft must have been made
// from `states` as they are now: one draft at a time.
void states_adopt(struct states *states, struct states **draft);

// states_save returns new text (JSON; free) of everything, or NULL: no memory, or
// a text that is not UTF-8. states_load reads it back into an empty `states` and
// makes it visible: STATUS_FORMAT with the sentence and the remedy; `states` is
// then as it was.
char *states_save(const struct states *states);
enum status states_load(struct states *states, const char *text, size_t len, const char *path,
                        struct errmsg *err);

#endif  // DEPUTY_CERTSTORE_STATE_H_
