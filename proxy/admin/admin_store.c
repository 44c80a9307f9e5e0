// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "certstore/store_switch.h"
#include "common/base/clock.h"
#include "proxy/admin/admin_change_internal.h"
#include "proxy/admin/admin_edit.h"
#include "proxy/admin/admin_view.h"

#define BOTH_MEAN "\"%.200s\" means one %s in the configuration and another in the store: say more"

// A change on its way through the store. From start to done it is the task's.
struct admin_store_change {
  struct store_task task;
  struct admin_change *change;
  struct store_order order;
  struct store_log_limits limits;
  uint8_t subject[STATE_SUBJECT_MAX_LEN];
  size_t subject_len;
  bool is_known;  // the configuration has the subject
  char typed[STATE_SUBJECT_MAX_LEN];
  char to[STATE_SUBJECT_MAX_LEN];     // the level's label in the configuration
  char first[STATE_SUBJECT_MAX_LEN];  // of the configuration's names without a backup
  uint64_t id;                        // restore: of one change
  // What came of it.
  enum status st;
  struct errmsg err;
  struct store_ruling ruling;
  uint64_t ids[STORE_MAX_STANDING];
  size_t num_ids;
  char known_as[STORE_TEXT_MAX_LEN + 1];
};

static bool is_of_id(enum state_level level) {
  return level == STATE_LEVEL_KEY || level == STATE_LEVEL_CA;
}

// --- subjects ------------------------------------------------------------------------

// A subject as bytes of the store, and as the API writes it.
static void take_text(struct admin_store_change *out, enum state_level level, const char *text) {
  if (is_of_id(level)) {
    (void)!bytes_from_hex(out->subject, 32, text);
    out->subject_len = 32;
  } else {
    out->subject_len = strlen(text);
    memcpy(out->subject, text, out->subject_len);
  }
}

static void write_text(char out[STATE_SUBJECT_MAX_LEN], enum state_level level,
                       const struct bytes subject) {
  if (is_of_id(level)) {
    (void)bytes_to_hex(out, subject);
  } else {
    (void)snprintf(out, STATE_SUBJECT_MAX_LEN, "%.*s", (int)subject.len,
                   (const char *)subject.data);
  }
}

// find_configured looks for what was typed among configured names. Not to be found there is
// no failure.
static enum status find_configured(struct admin_store_change *own, struct errmsg *err) {
  struct admin_change *change = own->change;
  const struct admin_host *host = change->changes->host;
  enum status st =
      certstore_match(change->subject, host->store(host->arg), change->level, own->typed, err);
  own->is_known = st == STATUS_OK;
  if (st == STATUS_OK) {
    take_text(own, change->level, change->subject);
  } else {
    change->subject[0] = '\0';
  }
  return st == STATUS_NOT_FOUND ? STATUS_OK : st;
}

// find_subject, on the task: as the store has it.
static enum status find_subject(struct admin_store_change *own, const struct store_reader *reader) {
  const enum state_level level = own->change->level;
  uint8_t found[STATE_SUBJECT_MAX_LEN];
  size_t len = 0;
  struct store_ca ca;
  enum status st = store_match(found, &len, reader, level, own->typed, &own->err);
  if (st == STATUS_OK && own->is_known &&
      (len != own->subject_len || memcmp(found, own->subject, len) != 0)) {
    return errmsg_set(&own->err, STATUS_FORMAT, BOTH_MEAN, own->typed, state_level_name(level));
  }
  if (st == STATUS_OK) {
    memcpy(own->subject, found, len);
    own->subject_len = len;
  } else if (own->is_known && st == STATUS_NOT_FOUND) {
    own->err.text[0] = '\0';
    st = STATUS_OK;
  }
  if (st == STATUS_OK && level == STATE_LEVEL_CA &&
      store_get_ca(reader, &ca, own->subject) == STATUS_OK) {
    (void)snprintf(own->known_as, sizeof(own->known_as), "%.*s", (int)ca.issuer.len,
                   (const char *)ca.issuer.data);
  }
  return st;
}

// --- what the configuration says (control) ---------------------------------------------

static void put_beside(struct admin_store_change *own, const struct drill_report *report) {
  struct store_beside *beside = &own->order.beside;
  beside->num_names = report->num_names;
  beside->num_moved = report->num_moved;
  beside->num_without_backup = report->num_without_backup;
  beside->num_partly = report->num_partly;
  if (report->num_without_backup > 0) {
    (void)snprintf(own->first, sizeof(own->first), "%s", report->without_backup[0]->name);
    beside->first = own->first;
  }
}

static enum status look_at_service(struct admin_store_change *own, const struct certstore *store,
                                   struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = own->change;
  struct drill_report report = {0};
  size_t num = 0;

  if (change->asked.to[0] != '\0') {
    return errmsg_set(err, STATUS_FORMAT,
                      "\"to\" is for names and the fleet: a key or CA goes out of service, and "
                      "each name to its first usable chain");
  }
  own->order.is_in_service = strcmp(change->asked.service, "in") == 0;
  own->order.is_compromised = change->asked.is_compromised;
  (void)certstore_names(store, &num);
  own->order.beside.num_names = num;
  own->order.beside.has_subject = own->is_known;
  if (own->is_known && !own->order.is_in_service) {
    TRY(certstore_drill(&report, store, change->level, change->subject, clock_wall_s()));
    put_beside(own, &report);
  }

out:
  drill_report_cleanup(&report);
  return st;
}

static enum status read_store_level(unsigned *out, const char *label, struct errmsg *err) {
  unsigned level = 0;
  if (store_level_from_name(&level, label) != STATUS_OK) {
    return errmsg_set(err, STATUS_NOT_FOUND,
                      "\"%.64s\" is no level of the store: primary, backup, spare2 ... spare7",
                      label);
  }
  *out = level + 1;
  return STATUS_OK;
}

static enum status look_at_name(struct admin_store_change *own, const struct certstore *store,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = own->change;
  bool is_usable = false;
  if (!own->is_known) {
    return change->asked.to[0] == '\0'
               ? STATUS_OK
               : read_store_level(&own->order.preferred, change->asked.to, err);
  }
  const struct cert_name *name = certstore_find_exact(store, change->subject);
  CHECK(name != NULL);  // it was matched just now
  TRY(admin_edit_choose_level(&own->order.preferred, &is_usable, change, store, name, err));
  (void)snprintf(own->to, sizeof(own->to), "%s",
                 name->levels[own->order.preferred - 1].chains[0]->label);
  own->order.beside.label = own->to;
  own->order.beside.num_usable = is_usable ? 1 : 0;

out:
  return st;
}

// The fleet's level is a place: of configured names the one with this label; in the store
// they have names of their own.
static enum status look_at_fleet(struct admin_store_change *own, const struct certstore *store,
                                 struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *to = own->change->asked.to;
  struct errmsg unknown = {0};
  unsigned level = 0;
  size_t num = 0;
  size_t num_usable = 0;

  (void)certstore_names(store, &num);
  TRY(admin_edit_find_fleet_level(&own->order.preferred, &num_usable, own->change, store, err));
  if (read_store_level(&level, to, &unknown) != STATUS_OK && own->order.preferred == 0) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND, "no name has a level \"%s\"", to));
  }
  if (level != 0 && own->order.preferred != 0 && level != own->order.preferred) {
    TRY(errmsg_set(err, STATUS_FORMAT,
                   "\"%s\" is level %u of configured names and %u of the store's: switch names, "
                   "keys or CAs instead",
                   to, own->order.preferred, level));
  }
  own->order.preferred = level != 0 ? level : own->order.preferred;
  (void)snprintf(own->to, sizeof(own->to), "%s", to);
  own->order.beside =
      (struct store_beside){.num_names = num, .num_usable = num_usable, .label = own->to};

out:
  return st;
}

static enum status look_at_switch(struct admin_store_change *own, const struct certstore *store,
                                  struct errmsg *err) {
  const struct asked *asked = &own->change->asked;
  if (asked->service[0] != '\0' && strcmp(asked->service, "out") != 0 &&
      strcmp(asked->service, "in") != 0) {
    return errmsg_set(err, STATUS_FORMAT, "\"service\" must be out or in");
  }
  if (is_of_id(own->change->level)) {
    return look_at_service(own, store, err);
  }
  if (asked->service[0] != '\0' || asked->is_compromised) {
    return errmsg_set(err, STATUS_FORMAT, "\"service\" and \"compromised\" are for keys and CAs");
  }
  return own->change->level == STATE_LEVEL_NAME ? look_at_name(own, store, err)
                                                : look_at_fleet(own, store, err);
}

// --- on the task -----------------------------------------------------------------------

static bool on_progress(void *arg, uint64_t done, uint64_t all) {
  const struct store_host *host = arg;
  (void)done;
  (void)all;
  return !host->must_let_go(host->arg);
}

// What is forgotten of the log is no matter of the switch that is made.
static void trim(const struct admin_store_change *own, struct store *store) {
  uint64_t num = 0;
  struct errmsg err = {0};
  (void)!store_trim_log(store, &num, &own->limits, clock_wall_s(), &err);
}

static void work_switch(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_store_change *own = arg;
  const struct admin_host *host = own->change->changes->host;
  const struct store_watcher watcher = {on_progress, (void *)(uintptr_t)&host->in_store};
  own->st = find_subject(own, reader);
  if (own->st != STATUS_OK) {
    return;
  }
  own->order.subject = bytes_of(own->subject, own->subject_len);
  own->st =
      store_switch(&own->ruling, store, reader, &own->order, clock_wall_s(), &watcher, &own->err);
  if (own->st == STATUS_OK) {
    own->ids[0] = own->ruling.id;
    own->num_ids = 1;
    trim(own, store);
  }
}

static enum status restore_one(struct admin_store_change *own, struct store *store,
                               struct store_reader *reader) {
  struct store_change change;
  enum status st = store_get_change(reader, &change, own->id);
  if (st != STATUS_OK) {
    return errmsg_set(&own->err, st, "there is no switch %" PRIu64, own->id);
  }
  own->change->level = (enum state_level)change.level;
  own->subject_len = change.subject.len;
  if (change.subject.len > 0) {
    memcpy(own->subject, change.subject.data, change.subject.len);
  }
  own->ids[0] = own->id;
  own->num_ids = 1;
  store_reader_park(reader);
  return store_undo(store, own->id, own->order.author, clock_wall_s(), &own->err);
}

// take_as_typed: of what is in neither store nor configuration any more something may stand
// all the same.
static bool take_as_typed(struct admin_store_change *own) {
  const enum state_level level = own->change->level;
  size_t len = strlen(own->typed);
  if (is_of_id(level) && len != 64) {
    return false;
  }
  for (size_t i = 0; i < len; i++) {
    char c = own->typed[i];
    own->typed[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  }
  own->subject_len = is_of_id(level) ? 32 : len;
  memcpy(own->subject, own->typed, is_of_id(level) ? 0 : len);
  return !is_of_id(level) || bytes_from_hex(own->subject, 32, own->typed) == STATUS_OK;
}

static enum status restore_all(struct admin_store_change *own, struct store *store,
                               struct store_reader *reader) {
  enum status st = find_subject(own, reader);
  if (st == STATUS_NOT_FOUND && take_as_typed(own)) {
    st = STATUS_OK;
  }
  return st != STATUS_OK ? st
                         : store_restore(own->ids, &own->num_ids, store, reader, own->change->level,
                                         bytes_of(own->subject, own->subject_len),
                                         own->order.author, clock_wall_s(), &own->err);
}

static void work_restore(void *arg, struct store *store, struct store_reader *reader) {
  struct admin_store_change *own = arg;
  own->st = own->id != 0 ? restore_one(own, store, reader) : restore_all(own, store, reader);
}

// --- answering ---------------------------------------------------------------------------

static void put_names_without(struct admin_change *change, const struct admin_store_change *own) {
  json_t *list = json_array();
  const struct store_drill_report *drill = &own->ruling.drill;
  if (own->first[0] != '\0') {
    (void)json_array_append_new(list, json_string(own->first));
  }
  for (uint64_t i = 0;
       drill->without_backup != NULL && i < drill->num_without_backup && i < STORE_DRILL_LISTED;
       i++) {
    (void)json_array_append_new(list, json_string(drill->without_backup[i]));
  }
  (void)admin_put(change->answer, "without_backup", list);
}

static void put_service_counts(struct admin_change *change, const struct admin_store_change *own) {
  const struct store_ruling *ruling = &own->ruling;
  (void)admin_put(change->answer, "num_moved", json_integer((json_int_t)ruling->num_moved));
  (void)admin_put(change->answer, "num_without_backup",
                  json_integer((json_int_t)ruling->num_without_backup));
  (void)admin_put(change->answer, "num_partly", json_integer((json_int_t)ruling->num_partly));
  put_names_without(change, own);
  if (ruling->num_partly > 0) {
    admin_change_warn(change,
                      "clients that take only RSA have no usable chain left for %" PRIu64 " names",
                      ruling->num_partly);
  }
  if (ruling->num_without_backup > 0 && change->asked.is_forced) {
    admin_change_warn(change, "forced: %" PRIu64 " of %" PRIu64 " names have nothing usable left",
                      ruling->num_without_backup, ruling->num_names);
  }
}

static void put_counts(struct admin_change *change, const struct admin_store_change *own) {
  const struct store_ruling *ruling = &own->ruling;
  if (ruling->label != NULL) {
    (void)admin_put(change->answer, "to", json_string(ruling->label));
  }
  if (change->level == STATE_LEVEL_NAME && ruling->was_forced) {
    admin_change_warn(change,
                      "forced: the level \"%s\" has nothing usable and is not served until it has",
                      ruling->label);
  }
  if (!ruling->has_counts) {
    return;
  }
  if (is_of_id(change->level)) {
    put_service_counts(change, own);
    return;
  }
  (void)admin_put(change->answer, "num_usable", json_integer((json_int_t)ruling->num_usable));
  if (ruling->num_usable < ruling->num_names) {
    admin_change_warn(change,
                      "%" PRIu64 " of %" PRIu64
                      " names have nothing usable at the level \"%s\" and stay where they are",
                      ruling->num_names - ruling->num_usable, ruling->num_names, ruling->label);
  }
}

static void start(struct admin_store_change *own);

static void on_done(void *arg, enum status st) {
  struct admin_store_change *own = arg;
  struct admin_change *change = own->change;
  const struct admin_host *host = change->changes->host;
  st = st == STATUS_OK ? own->st : st;
  if (st == STATUS_CLOSED) {  // had to let go of the store
    store_ruling_cleanup(&own->ruling);
    start(own);
    return;
  }
  if (own->subject_len > 0 || change->level == STATE_LEVEL_FLEET) {
    write_text(change->subject, change->level, bytes_of(own->subject, own->subject_len));
  }
  put_counts(change, own);
  if (st != STATUS_OK) {
    admin_change_refuse(change, st,
                        own->err.text[0] != '\0' ? own->err.text : "the store cannot be read");
    return;
  }
  change->is_already = own->ruling.is_already;
  change->num_ids = own->num_ids;
  memcpy(change->ids, own->ids, own->num_ids * sizeof(own->ids[0]));
  host->in_store.catch_up(host->in_store.arg);
  const char *known_as = own->known_as[0] != '\0' ? own->known_as
                         : change->level == STATE_LEVEL_CA
                             ? admin_name_of_ca(host->store(host->arg), change->subject)
                             : NULL;
  admin_change_answer(change, true, known_as);
}

static void start(struct admin_store_change *own) {
  const struct store_host *host = &own->change->changes->host->in_store;
  if (host->start(host->arg, &own->task) != STATUS_OK) {
    admin_change_refuse(own->change, STATUS_UNAVAILABLE, "too many changes wait for the disk");
  }
}

// --- reading ---------------------------------------------------------------------------

static enum status read_until(int64_t *out, const char *text, struct errmsg *err) {
  if (text[0] == '\0' || clock_parse_rfc3339(out, text) == STATUS_OK) {
    return STATUS_OK;
  }
  return errmsg_set(err, STATUS_FORMAT, "\"until\" must be a time as 2026-11-30T12:00:00Z");
}

static enum status read_switch(struct admin_store_change *own, const struct certstore *store,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = own->change;
  TRY(admin_change_read_level(change, err));
  TRY(read_until(&own->order.until_s, change->asked.until, err));
  (void)snprintf(own->typed, sizeof(own->typed), "%s", change->asked.subject);
  TRY(find_configured(own, err));
  TRY(look_at_switch(own, store, err));
  (void)admin_put(change->answer, "action",
                  json_string(!is_of_id(change->level)   ? "prefer"
                              : own->order.is_in_service ? "in"
                                                         : "out"));

out:
  return st;
}

static enum status read_restore(struct admin_store_change *own, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = own->change;
  (void)admin_put(change->answer, "action", json_string("restore"));
  if ((change->asked.id != 0) == (change->asked.level[0] != '\0')) {
    return errmsg_set(err, STATUS_FORMAT, "give either \"id\", or \"level\" and \"subject\"");
  }
  own->id = change->asked.id;
  if (own->id == 0) {
    TRY(admin_change_read_level(change, err));
    (void)snprintf(own->typed, sizeof(own->typed), "%s", change->asked.subject);
    TRY(find_configured(own, err));
  }

out:
  return st;
}

static enum status read_dc(struct admin_store_change *own, const struct certstore *store,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = own->change;
  const struct asked *asked = &change->asked;
  if (asked->is_fleet == (asked->name[0] != '\0')) {
    return errmsg_set(err, STATUS_FORMAT, "give either \"name\", or \"fleet\": true");
  }
  change->level = asked->is_fleet ? STATE_LEVEL_FLEET : STATE_LEVEL_NAME;
  (void)admin_put(change->answer, "action", json_string(asked->is_enabled ? "dc_on" : "dc_off"));
  (void)snprintf(own->typed, sizeof(own->typed), "%s", asked->name);
  TRY(find_configured(own, err));
  own->order.dc = asked->is_enabled ? 1 : 0;
  if (asked->is_enabled && !asked->is_fleet && atomic_load(&certstore_fleet(store)->is_dc_off)) {
    admin_change_warn(change,
                      "delegated credentials are off for the whole fleet, and so for this name");
  }

out:
  return st;
}

void admin_store_change_begin(struct admin_change *change) {
  enum status st = STATUS_OK;
  const struct admin_host *host = change->changes->host;
  const struct certstore *store = host->store(host->arg);
  struct errmsg err = {0};
  struct admin_store_change *own = calloc(1, sizeof(*own));

  if (own == NULL) {
    admin_change_refuse(change, STATUS_MEMORY, "no memory");
    return;
  }
  change->store = own;
  own->change = change;
  own->limits = host->log_limits(host->arg);
  own->task = (struct store_task){
      .kind = STORE_TASK_CHANGE, .work = work_switch, .done = on_done, .arg = own};
  host->in_store.catch_up(host->in_store.arg);
  if (strcmp(change->event, "restore") == 0) {
    own->task.work = work_restore;
    TRY(read_restore(own, &err));
  } else if (strcmp(change->event, "dc") == 0) {
    own->order.dc = STORE_DC_LEAVE;
    TRY(read_dc(own, store, &err));
  } else {
    own->order.dc = STORE_DC_LEAVE;
    TRY(read_switch(own, store, &err));
  }
  own->order.level = change->level;
  own->order.is_forced = change->asked.is_forced;
  own->order.reason = change->asked.reason;
  own->order.author = change->asked.author;
  own->order.author_uid = change->uid;
  start(own);
  return;

out:
  if (err.text[0] == '\0') {
    (void)errmsg_set(&err, st, "the change cannot be made (%s)", status_name(st));
  }
  admin_change_refuse(change, st, err.text);
}

void admin_store_change_free(struct admin_store_change *change) {
  if (change != NULL) {
    store_ruling_cleanup(&change->ruling);
    free(change);
  }
}
