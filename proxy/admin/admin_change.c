// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin_change.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/jsonline.h"
#include "common/base/log.h"
#include "proxy/admin/admin_body.h"
#include "proxy/admin/admin_change_internal.h"
#include "proxy/admin/admin_edit.h"
#include "proxy/admin/admin_store.h"
#include "proxy/admin/admin_view.h"

#define FIELD(name, type, member, is_required)                                           \
  {                                                                                      \
    (name), (type), offsetof(struct asked, member), sizeof(((struct asked *)0)->member), \
        (is_required)                                                                    \
  }

static const struct body_field switch_fields[] = {
    FIELD("level", BODY_TEXT, level, true),
    FIELD("subject", BODY_TEXT, subject, false),
    FIELD("to", BODY_TEXT, to, false),
    FIELD("service", BODY_TEXT, service, false),
    FIELD("reason", BODY_TEXT, reason, true),
    FIELD("author", BODY_TEXT, author, false),
    FIELD("until", BODY_TEXT, until, false),
    FIELD("compromised", BODY_BOOL, is_compromised, false),
    FIELD("force", BODY_BOOL, is_forced, false),
    {0},
};

static const struct body_field restore_fields[] = {
    FIELD("id", BODY_ID, id, false),
    FIELD("level", BODY_TEXT, level, false),
    FIELD("subject", BODY_TEXT, subject, false),
    FIELD("reason", BODY_TEXT, reason, false),
    FIELD("author", BODY_TEXT, author, false),
    FIELD("force", BODY_BOOL, is_forced, false),
    {0},
};

static const struct body_field dc_fields[] = {
    FIELD("name", BODY_TEXT, name, false),
    FIELD("fleet", BODY_BOOL, is_fleet, false),
    FIELD("enabled", BODY_BOOL, is_enabled, true),
    FIELD("reason", BODY_TEXT, reason, true),
    FIELD("author", BODY_TEXT, author, false),
    FIELD("force", BODY_BOOL, is_forced, false),
    {0},
};

// --- answering -------------------------------------------------------------------

static void change_free(struct admin_change *change) {
  LIST_REMOVE(change, link);
  admin_store_change_free(change->store);
  json_decref(change->answer);
  free(change);
}

void admin_change_warn(struct admin_change *change, const char *format, ...) {
  json_t *warnings = json_object_get(change->answer, "warnings");
  char text[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  (void)json_array_append_new(warnings, json_string(text));
}

// audit writes one line for each change that was asked, whatever came of it.
static void audit(const struct admin_change *change, const char *outcome, bool is_kept,
                  const char *why) {
  struct jsonline line;
  struct bytes text;
  jsonline_begin(&line);
  jsonline_time(&line, "time", clock_wall_us());
  jsonline_cstr(&line, "event", change->event);
  jsonline_cstr(&line, "outcome", outcome);
  jsonline_int(&line, "id", change->num_ids > 0 ? (int64_t)change->ids[0] : 0);
  jsonline_int(&line, "num_changes", (int64_t)change->num_ids);
  // What was refused before it was understood is written as it was asked.
  bool is_known = change->subject[0] != '\0' || change->level == STATE_LEVEL_FLEET;
  jsonline_cstr(&line, "level", is_known ? state_level_name(change->level) : change->asked.level);
  jsonline_cstr(&line, "subject", is_known ? change->subject : change->asked.subject);
  const json_t *action = json_object_get(change->answer, "action");
  jsonline_cstr(&line, "action", action == NULL ? "" : json_string_value(action));
  jsonline_cstr(&line, "to", change->asked.to);
  jsonline_cstr(&line, "until", change->asked.until);
  jsonline_bool(&line, "compromised", change->asked.is_compromised);
  jsonline_bool(&line, "forced", change->asked.is_forced);
  jsonline_bool(&line, "kept", is_kept);
  jsonline_cstr(&line, "author", change->asked.author);
  jsonline_int(&line, "author_uid", change->uid);
  jsonline_cstr(&line, "reason", change->asked.reason);
  jsonline_cstr(&line, "why", why);
  bool is_lost = jsonline_end(&line, &text) != STATUS_OK ||
                 (change->changes->host->audit != NULL &&
                  sink_write(change->changes->host->audit, text) != STATUS_OK);
  char subject[300];
  log_info(0, "states_change", "event=%s outcome=%s id=%" PRIu64 " level=%s subject=%s audit=%s",
           change->event, outcome, change->num_ids > 0 ? change->ids[0] : 0,
           state_level_name(change->level),
           log_quote(subject, sizeof(subject), bytes_text(change->subject)),
           is_lost ? "lost" : "written");
}

struct refusal {
  enum status st;
  int code;
  const char *error;
};

static const struct refusal *refusal_of(enum status st) {
  static const struct refusal refusals[] = {
      {STATUS_FORMAT, 400, "bad_request"},   {STATUS_NOT_FOUND, 404, "not_found"},
      {STATUS_REFUSED, 409, "no_backup"},    {STATUS_EXISTS, 409, "already"},
      {STATUS_LIMIT, 409, "too_many"},       {STATUS_SYSTEM, 503, "not_kept"},
      {STATUS_UNAVAILABLE, 503, "not_kept"}, {STATUS_TIMEOUT, 504, "disk_does_not_answer"},
      {STATUS_MEMORY, 500, "internal"},
  };
  for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
    if (refusals[i].st == st) {
      return &refusals[i];
    }
  }
  return &refusals[sizeof(refusals) / sizeof(refusals[0]) - 1];
}

void admin_change_refuse(struct admin_change *change, enum status st, const char *why) {
  const struct refusal *refusal = refusal_of(st);
  struct admin_changes *changes = change->changes;
  if (refusal->code >= 500) {
    changes->num_failed++;
  } else {
    changes->num_refused++;
  }
  audit(change, refusal->error, false, why);
  json_t *body = json_pack("{s:{s:s,s:s}}", "error", "code", refusal->error, "message", why);
  if (body != NULL && st == STATUS_REFUSED) {
    (void)json_object_update(json_object_get(body, "error"), change->answer);
  }
  http_reply_json(change->request, refusal->code, body);
  change_free(change);
}

static json_t *list_ids(const struct admin_change *change) {
  json_t *list = json_array();
  for (size_t i = 0; i < change->num_ids; i++) {
    (void)json_array_append_new(list, json_integer((json_int_t)change->ids[i]));
  }
  return list;
}

void admin_change_answer(struct admin_change *change, bool is_kept, const char *known_as) {
  struct admin_changes *changes = change->changes;
  if (change->is_already) {
    changes->num_already++;
  } else {
    changes->num_made++;
    if (changes->host->on_states_changed != NULL) {
      changes->host->on_states_changed(changes->host->arg);
    }
  }
  audit(change, change->is_already ? "already" : "done", is_kept, "");
  json_t *body =
      json_pack("{s:I,s:o,s:s,s:s,s:s?,s:b,s:b}", "id",
                (json_int_t)(change->num_ids > 0 ? change->ids[0] : 0), "ids", list_ids(change),
                "level", state_level_name(change->level), "subject", change->subject, "known_as",
                known_as, "already", (int)change->is_already, "kept", (int)is_kept);
  if (body != NULL) {
    (void)json_object_update(body, change->answer);
  }
  http_reply_json(change->request, 200, body);
  change_free(change);
}

// --- requests ------------------------------------------------------------------------

enum status admin_change_read_level(struct admin_change *change, struct errmsg *err) {
  if (state_level_from_name(&change->level, change->asked.level) != STATUS_OK) {
    return errmsg_set(err, STATUS_FORMAT, "\"level\" must be name, key, ca or fleet, not \"%s\"",
                      change->asked.level);
  }
  return STATUS_OK;
}

// begin reads the request and queues its change.
static void begin(struct admin_changes *changes, struct http_request *request, const char *event,
                  const struct body_field *fields,
                  enum status (*make)(void *arg, struct states *draft, struct errmsg *err)) {
  struct errmsg err = {0};
  if (!admin_body_may_post(request)) {
    return;
  }
  if (changes->host->is_handed_over != NULL && changes->host->is_handed_over(changes->host->arg)) {
    http_reply_error(request, 409, "taken_over",
                     "another process is taking over; ask it, in a moment");
    return;
  }
  struct admin_change *change = calloc(1, sizeof(*change));
  json_t *answer = json_pack("{s:[]}", "warnings");
  if (change == NULL || answer == NULL) {
    free(change);
    json_decref(answer);
    http_reply_error(request, 500, "internal", "no memory");
    return;
  }
  LIST_INSERT_HEAD(&changes->open, change, link);
  change->changes = changes;
  change->request = request;
  change->event = event;
  change->answer = answer;
  change->uid = http_request_peer_uid(request);
  enum status st = admin_body_read(&change->asked, fields, http_request_body(request), &err);
  if (st != STATUS_OK) {
    admin_change_refuse(change, st, err.text);
    return;
  }
  if (changes->host->has_store) {
    admin_store_change_begin(change);
    return;
  }
  admin_edit_begin(change, make);
}

void admin_change_switch(struct admin_changes *changes, struct http_request *request) {
  begin(changes, request, "switch", switch_fields, admin_edit_switch);
}

void admin_change_restore(struct admin_changes *changes, struct http_request *request) {
  begin(changes, request, "restore", restore_fields, admin_edit_restore);
}

void admin_change_dc(struct admin_changes *changes, struct http_request *request) {
  begin(changes, request, "dc", dc_fields, admin_edit_dc);
}

void admin_changes_init(struct admin_changes *changes, const struct admin_host *host) {
  *changes = (struct admin_changes){.host = host};
  LIST_INIT(&changes->open);
}

void admin_changes_cleanup(struct admin_changes *changes) {
  struct admin_change *next = NULL;
  for (struct admin_change *change = LIST_FIRST(&changes->open); change != NULL; change = next) {
    next = LIST_NEXT(change, link);
    http_reply_error(change->request, 503, "ending", "the proxy is ending");
    change_free(change);
  }
}

void admin_changes_write_metrics(const struct admin_changes *changes, struct metrics_text *text) {
  const struct {
    const char *outcome;
    uint64_t value;
  } rows[] = {
      {"done", changes->num_made},
      {"already", changes->num_already},
      {"refused", changes->num_refused},
      {"failed", changes->num_failed},
  };
  size_t num = 0;
  size_t num_standing = 0;
  const struct state_change *list = states_list(changes->host->states, &num);
  for (size_t i = 0; i < num; i++) {
    num_standing += list[i].is_undone ? 0 : 1;
  }
  metrics_family(text, "deputy_states_changes_total", METRIC_COUNTER,
                 "Switches, restores and dc settings asked for, by outcome.");
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    metrics_sample(text, "deputy_states_changes_total", (double)rows[i].value, "outcome",
                   rows[i].outcome, NULL);
  }
  metrics_family(text, "deputy_states_unkept_changes_total", METRIC_COUNTER,
                 "Changes that were forced through in memory only.");
  metrics_sample(text, "deputy_states_unkept_changes_total", (double)changes->num_unkept, NULL);
  if (changes->host->has_store) {
    return;  // what stands is known to the store
  }
  metrics_family(text, "deputy_states_standing", METRIC_GAUGE, "Changes that stand.");
  metrics_sample(text, "deputy_states_standing", (double)num_standing, NULL);
}
