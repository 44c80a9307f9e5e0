// SPDX-License-Identifier: Apache-2.0
// admin_change_internal: one change on its way, for the two that make it: admin_edit.c
// (in a file of states) and admin_store.c (in a store).
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_INTERNAL_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_INTERNAL_H_

#include <jansson.h>

#include "certstore/state.h"
#include "proxy/admin/admin_change.h"
#include "proxy/admin/state_file.h"

#define ADMIN_MAX_RESTORED 1000u  // changes that one request takes back

// What was asked, by any of the three requests.
struct asked {
  char level[16];
  char subject[STATE_SUBJECT_MAX_LEN];
  char to[STATE_SUBJECT_MAX_LEN];  // label
  char service[8];                 // "out" (also when empty), "in"
  char name[STATE_SUBJECT_MAX_LEN];
  char reason[STATE_REASON_MAX_LEN];
  char author[STATE_AUTHOR_MAX_LEN];
  bool is_compromised;
  bool is_forced;
  bool is_fleet;
  bool is_enabled;
  char until[32];  // RFC 3339
  uint64_t id;
};

struct admin_change {
  LIST_ENTRY(admin_change) link;
  struct admin_changes *changes;
  struct http_request *request;
  const char *event;                 // "switch", "restore", "dc"
  struct state_edit edit;            // without a store
  struct admin_store_change *store;  // with one; NULL until it is asked
  struct asked asked;
  int64_t uid;

  // What make found and did.
  enum state_level level;
  char subject[STATE_SUBJECT_MAX_LEN];
  bool is_already;                   // nothing to do
  uint64_t ids[ADMIN_MAX_RESTORED];  // made, or taken back
  size_t num_ids;
  json_t *answer;  // members to be added to the answer, or to the refusal
};

// admin_change_warn adds to the answer's warnings.
void admin_change_warn(struct admin_change *change, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// These audit, answer, and free the change.
void admin_change_refuse(struct admin_change *change, enum status st, const char *why);
void admin_change_answer(struct admin_change *change, bool is_kept, const char *known_as);

// admin_change_read_level reads the level that was asked for. STATUS_FORMAT.
enum status admin_change_read_level(struct admin_change *change, struct errmsg *err);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_INTERNAL_H_
