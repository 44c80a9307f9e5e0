// SPDX-License-Identifier: Apache-2.0
// What of a store the admin API shows: names, switches, drills.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/ready.h"
#include "certstore/store.h"
#include "common/base/clock.h"
#include "proxy/admin/admin_store.h"
#include "proxy/admin/admin_view.h"

#define NEXT_NAME_PREFIX "@"  // of a page's start: names of the store after this one

// A question on its way to the store. From start to done it is the task's.
struct admin_look {
  LIST_ENTRY(admin_look) link;
  struct admin_looks *looks;
  struct http_request *request;
  struct store_task task;
  void (*answer)(struct admin_look *look);
  enum status st;
  struct errmsg err;
  // Names.
  char typed[STATE_SUBJECT_MAX_LEN];  // or the subject of a drill
  size_t limit;
  struct ready **names;
  size_t num_names;
  bool has_more;
  uint64_t num_all;
  // Switches.
  bool is_standing;
  size_t start;
  int64_t now_s;
  struct state_change *changes;
  int64_t *untils;
  size_t num_changes;
  // A drill.
  enum state_level level;
  bool is_known;  // the configuration has the subject
  json_t *body;
  char known_as[STORE_TEXT_MAX_LEN + 1];
  struct store_drill_report report;
};

static void look_free(struct admin_look *look) {
  LIST_REMOVE(look, link);
  for (size_t i = 0; i < look->num_names; i++) {
    ready_unref(look->names[i]);
  }
  free(look->names);
  free(look->changes);
  free(look->untils);
  json_decref(look->body);
  store_drill_cleanup(&look->report);
  free(look);
}

static void fail(struct admin_look *look, enum status st) {
  const char *why = look->err.text[0] != '\0' ? look->err.text : status_name(st);
  if (st == STATUS_NOT_FOUND) {
    http_reply_error(look->request, 404, "not_found", why);
  } else if (st == STATUS_FORMAT) {
    http_reply_error(look->request, 400, "bad_request", why);
  } else if (st == STATUS_MEMORY) {
    http_reply_error(look->request, 500, "internal", "no memory");
  } else {
    http_reply_error(look->request, 503, "store_unreadable", why);
  }
  look_free(look);
}

static void start(struct admin_look *look) {
  const struct store_host *host = &look->looks->host->in_store;
  if (host->start(host->arg, &look->task) != STATUS_OK) {
    (void)errmsg_set(&look->err, STATUS_UNAVAILABLE, "too many questions wait for the store");
    fail(look, STATUS_UNAVAILABLE);
  }
}

static void on_done(void *arg, enum status st) {
  struct admin_look *look = arg;
  st = st == STATUS_OK ? look->st : st;
  if (st == STATUS_CLOSED) {  // had to let go of the store
    store_drill_cleanup(&look->report);
    start(look);
  } else if (st != STATUS_OK) {
    fail(look, st);
  } else {
    look->answer(look);
    look_free(look);
  }
}

// begin returns a new look, or NULL: answered.
static struct admin_look *begin(struct admin_looks *looks, struct http_request *request,
                                void (*work)(void *arg, struct store *store,
                                             struct store_reader *reader),
                                void (*answer)(struct admin_look *look)) {
  struct admin_look *look = calloc(1, sizeof(*look));
  if (look == NULL) {
    http_reply_error(request, 500, "internal", "no memory");
    return NULL;
  }
  LIST_INSERT_HEAD(&looks->open, look, link);
  look->looks = looks;
  look->request = request;
  look->answer = answer;
  look->now_s = clock_wall_s();
  look->task =
      (struct store_task){.kind = STORE_TASK_LOOK, .work = work, .done = on_done, .arg = look};
  return look;
}

// reply_list answers {"now", KEY: [...], "total", "next"}; takes both.
static void reply_list(struct admin_look *look, const char *key, json_t *list, uint64_t total,
                       json_t *next) {
  http_reply_json(look->request, 200,
                  json_pack("{s:o,s:I,s:o,s:o}", "now", admin_time(look->now_s), "total",
                            (json_int_t)total, "next", next, key, list));
}

// --- names ---------------------------------------------------------------------------

// add_name makes a name ready to be shown, with its words.
static enum status add_name(struct admin_look *look, const struct store_reader *reader,
                            struct bytes name) {
  enum status st = STATUS_OK;
  struct certstore_words words;
  struct ready *ready = NULL;
  int64_t end_s = 0;

  TRY(ready_load(&ready, reader, name, NULL, NULL, NULL, &look->err));
  TRY(ready_read_words(&words, &end_s, reader, &ready->name, look->now_s));
  ready_put_words(ready, &words, end_s, 0);
  look->names[look->num_names++] = ready;
  ready = NULL;

out:
  ready_unref(ready);
  return st;
}

static void work_one_name(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_look *look = arg;
  const char *dot = strchr(look->typed, '.');
  char wildcard[STATE_SUBJECT_MAX_LEN + 1];
  (void)store;
  look->st = add_name(look, reader, bytes_text(look->typed));
  if (look->st == STATUS_NOT_FOUND && dot != NULL) {
    (void)snprintf(wildcard, sizeof(wildcard), "*%s", dot);
    look->st = add_name(look, reader, bytes_text(wildcard));
  }
  if (look->st == STATUS_NOT_FOUND) {
    (void)errmsg_set(&look->err, look->st, "no such name in the configuration or the store");
  }
}

struct page {
  struct admin_look *look;
  const struct store_reader *reader;
};

static bool on_name(void *arg, struct bytes name, const struct store_name *record) {
  struct page *page = arg;
  struct admin_look *look = page->look;
  (void)record;
  if (look->num_names == look->limit) {
    look->has_more = true;
    return false;
  }
  look->st = add_name(look, page->reader, name);
  return look->st == STATUS_OK;
}

static void work_names(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_look *look = arg;
  struct page page = {look, reader};
  struct store_counts counts = {0};
  enum status st = STATUS_OK;
  (void)store;
  store_count_records(&counts, reader);
  look->num_all = counts.num_names;
  look->st = STATUS_OK;
  st = store_each_name_after(reader, bytes_text(look->typed), on_name, &page);
  look->st = look->st == STATUS_OK ? st : look->st;
}

static void answer_names(struct admin_look *look) {
  const struct admin_host *host = look->looks->host;
  json_t *list = json_array();
  json_t *next = json_null();
  size_t num_configured = 0;
  for (size_t i = 0; i < look->num_names; i++) {
    // That of the cache has the credentials, too.
    const struct cert_name *name = &look->names[i]->name;
    const struct cert_name *cached = host->in_store.find(host->in_store.arg, name->name);
    (void)json_array_append_new(list,
                                admin_view_name(host, cached != NULL ? cached : name, look->now_s));
  }
  if (look->has_more) {
    next = json_sprintf(NEXT_NAME_PREFIX "%s", look->names[look->num_names - 1]->name.name);
  }
  (void)certstore_names(host->store(host->arg), &num_configured);
  reply_list(look, "names", list, num_configured + look->num_all, next);
}

static void answer_one_name(struct admin_look *look) {
  look->num_all = 1;
  answer_names(look);
}

// begin_names makes room for `limit` names, as `limit` they are asked for.
static struct admin_look *begin_names(struct admin_looks *looks, struct http_request *request,
                                      size_t limit,
                                      void (*work)(void *arg, struct store *store,
                                                   struct store_reader *reader),
                                      void (*answer)(struct admin_look *look)) {
  struct admin_look *look = begin(looks, request, work, answer);
  if (look == NULL) {
    return NULL;
  }
  look->limit = limit < ADMIN_STORE_MAX_NAMES ? limit : ADMIN_STORE_MAX_NAMES;
  look->names = calloc(look->limit, sizeof(struct ready *));
  if (look->names == NULL) {
    fail(look, STATUS_MEMORY);
    return NULL;
  }
  return look;
}

void admin_store_show_name(struct admin_looks *looks, struct http_request *request,
                           const char *host) {
  struct admin_look *look = begin_names(looks, request, 1, work_one_name, answer_one_name);
  size_t len = strlen(host);
  if (look == NULL) {
    return;
  }
  if (len >= sizeof(look->typed)) {
    (void)errmsg_set(&look->err, STATUS_NOT_FOUND, "that is longer than any host name");
    fail(look, STATUS_NOT_FOUND);
    return;
  }
  for (size_t i = 0; i < len; i++) {
    look->typed[i] = (char)(host[i] >= 'A' && host[i] <= 'Z' ? host[i] | 0x20 : host[i]);
  }
  start(look);
}

void admin_store_show_names(struct admin_looks *looks, struct http_request *request,
                            const char *after, size_t limit) {
  struct admin_look *look = begin_names(looks, request, limit, work_names, answer_names);
  if (look != NULL) {
    (void)snprintf(look->typed, sizeof(look->typed), "%s", after);
    start(look);
  }
}

// --- switches --------------------------------------------------------------------------

static void copy_text(char *out, size_t max, struct bytes text) {
  (void)snprintf(out, max, "%.*s", (int)text.len, (const char *)text.data);
}

static void copy_change(struct state_change *out, uint64_t id, const struct store_change *change) {
  bool has_id = change->level == STATE_LEVEL_KEY || change->level == STATE_LEVEL_CA;
  *out = (struct state_change){
      .id = id,
      .level = (enum state_level)change->level,
      .service = (enum state_service)change->service,
      .preferred = change->preferred == STORE_LEAVE ? STATE_PREFERRED_LEAVE : change->preferred,
      .dc = change->dc == STORE_LEAVE ? -1 : change->dc,
      .is_compromised = change->is_compromised,
      .author_uid = change->author_uid,
      .at_s = change->at_s,
      .is_undone = change->is_undone,
      .undone_at_s = change->undone_at_s,
  };
  if (has_id && change->subject.len == 32) {
    (void)bytes_to_hex(out->subject, change->subject);
  } else {
    copy_text(out->subject, sizeof(out->subject), change->subject);
  }
  copy_text(out->reason, sizeof(out->reason), change->reason);
  copy_text(out->author, sizeof(out->author), change->author);
  copy_text(out->undone_by, sizeof(out->undone_by), change->undone_by);
}

static bool on_change(void *arg, uint64_t id, const struct store_change *change) {
  struct admin_look *look = arg;
  bool is_over = change->is_undone || (change->until_s != 0 && change->until_s <= look->now_s);
  if (look->is_standing && is_over) {
    return true;
  }
  if (look->num_all >= look->start && look->num_changes < look->limit) {
    copy_change(&look->changes[look->num_changes], id, change);
    look->untils[look->num_changes] = change->until_s;
    look->num_changes++;
  }
  look->num_all++;
  return true;
}

static void work_switches(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_look *look = arg;
  (void)store;
  look->st = store_each_change(reader, on_change, look);
}

static void answer_switches(struct admin_look *look) {
  json_t *list = json_array();
  size_t end = look->start + look->num_changes;
  for (size_t i = 0; i < look->num_changes; i++) {
    json_t *view = admin_view_change(look->looks->host, &look->changes[i]);
    bool is_ended = look->untils[i] != 0 && look->untils[i] <= look->now_s;
    (void)admin_put(view, "until", admin_time(look->untils[i]));
    (void)admin_put(view, "ended", json_boolean(is_ended && !look->changes[i].is_undone));
    (void)admin_put(view, "stands", json_boolean(!is_ended && !look->changes[i].is_undone));
    (void)json_array_append_new(list, view);
  }
  reply_list(look, "switches", list, look->num_all,
             end < look->num_all ? json_integer((json_int_t)end) : json_null());
}

void admin_store_show_switches(struct admin_looks *looks, struct http_request *request,
                               bool is_standing, size_t start_at, size_t limit) {
  struct admin_look *look = begin(looks, request, work_switches, answer_switches);
  if (look == NULL) {
    return;
  }
  look->is_standing = is_standing;
  look->start = start_at;
  look->limit = limit < 1000 ? limit : 1000;
  look->changes = calloc(look->limit, sizeof(*look->changes));
  look->untils = calloc(look->limit, sizeof(*look->untils));
  if (look->changes == NULL || look->untils == NULL) {
    fail(look, STATUS_MEMORY);
    return;
  }
  start(look);
}

// --- drills ------------------------------------------------------------------------------

static bool on_progress(void *arg, uint64_t done, uint64_t all) {
  const struct store_host *host = arg;
  (void)done;
  (void)all;
  return !host->must_let_go(host->arg);
}

static void work_drill(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_look *look = arg;
  uint8_t subject[STATE_SUBJECT_MAX_LEN];
  size_t len = 0;
  struct store_ca ca;
  char text[STATE_SUBJECT_MAX_LEN];
  const struct admin_host *host = look->looks->host;
  (void)store;
  look->st = store_match(subject, &len, reader, look->level, look->typed, &look->err);
  if (look->st == STATUS_NOT_FOUND && look->is_known) {
    look->st = STATUS_OK;  // of the configuration alone
    return;
  }
  if (look->st != STATUS_OK) {
    return;
  }
  look->st = store_drill(&look->report, reader, look->level, bytes_of(subject, len), look->now_s,
                         on_progress, (void *)(uintptr_t)&host->in_store);
  if (look->level == STATE_LEVEL_CA && store_get_ca(reader, &ca, subject) == STATUS_OK) {
    copy_text(look->known_as, sizeof(look->known_as), ca.issuer);
  }
  if (look->level == STATE_LEVEL_KEY || look->level == STATE_LEVEL_CA) {
    (void)bytes_to_hex(text, bytes_of(subject, 32));
  } else {
    copy_text(text, sizeof(text), bytes_of(subject, len));
  }
  memcpy(look->typed, text, sizeof(text));
}

static void add_number(json_t *body, const char *key, uint64_t more) {
  const json_t *there = json_object_get(body, key);
  json_int_t sum = (there == NULL ? 0 : json_integer_value(there)) + (json_int_t)more;
  (void)admin_put(body, key, json_integer(sum));
}

static void add_names(json_t *body, const char *key, const char (*names)[256], uint64_t num) {
  json_t *list = json_object_get(body, key);
  if (list == NULL) {
    list = json_array();
    (void)admin_put(body, key, list);
  }
  for (uint64_t i = 0; names != NULL && i < num && i < STORE_DRILL_LISTED &&
                       json_array_size(list) < ADMIN_MAX_NAMES_SHOWN;
       i++) {
    (void)json_array_append_new(list, json_string(names[i]));
  }
}

static void answer_drill(struct admin_look *look) {
  const struct store_drill_report *report = &look->report;
  json_t *body = look->body != NULL ? json_incref(look->body) : json_object();
  const struct {
    const char *key;
    uint64_t value;
  } numbers[] = {
      {"num_names", report->num_names},
      {"num_moved", report->num_moved},
      {"num_without_backup", report->num_without_backup},
      {"num_partly", report->num_partly},
      {"num_unusable_already", report->num_unusable_already},
      {"num_same_ca", report->num_same_ca},
      {"num_staples", report->num_staples},
      {"num_without_dc", 0},
  };
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    add_number(body, numbers[i].key, numbers[i].value);
  }
  add_names(body, "without_backup", (const char(*)[256])report->without_backup,
            report->num_without_backup);
  add_names(body, "same_ca", (const char(*)[256])report->same_ca, report->num_same_ca);
  add_names(body, "moved", NULL, 0);
  if (look->body == NULL) {
    (void)admin_put(body, "level", json_string(state_level_name(look->level)));
    (void)admin_put(body, "subject", json_string(look->typed));
    (void)admin_put(body, "known_as",
                    look->known_as[0] != '\0' ? json_string(look->known_as) : json_null());
    (void)admin_put(body, "oldest_dc_ends_at", json_null());
    (void)admin_put(body, "oldest_staple_ends_at", admin_time(report->oldest_staple_ends_s));
  }
  (void)admin_put(body, "oldest_backup_ends_at", admin_time(report->oldest_backup_ends_s));
  (void)admin_put(
      body, "ready",
      json_boolean(json_integer_value(json_object_get(body, "num_without_backup")) == 0));
  (void)admin_put(body, "now", admin_time(look->now_s));
  http_reply_json(look->request, 200, body);
}

void admin_store_drill(struct admin_looks *looks, struct http_request *request,
                       enum state_level level, const char *subject, json_t *body) {
  struct admin_look *look = begin(looks, request, work_drill, answer_drill);
  if (look == NULL) {
    json_decref(body);
    return;
  }
  look->level = level;
  look->body = body;
  look->is_known = body != NULL;
  (void)snprintf(look->typed, sizeof(look->typed), "%s", subject);
  start(look);
}

// --- life ----------------------------------------------------------------------------------

void admin_store_init(struct admin_looks *looks, const struct admin_host *host) {
  *looks = (struct admin_looks){.host = host};
  LIST_INIT(&looks->open);
}

void admin_store_cleanup(struct admin_looks *looks) {
  struct admin_look *next = NULL;
  for (struct admin_look *look = LIST_FIRST(&looks->open); look != NULL; look = next) {
    next = LIST_NEXT(look, link);
    http_reply_error(look->request, 503, "ending", "the proxy is ending");
    look_free(look);
  }
}
