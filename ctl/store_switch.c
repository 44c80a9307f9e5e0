// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certstore/store_switch.h"
#include "common/base/clock.h"
#include "ctl/author.h"
#include "ctl/grid.h"
#include "ctl/show.h"
#include "ctl/store.h"

// A subject as it was found, and as people know it.
struct subject {
  enum state_level level;
  uint8_t bytes[STATE_SUBJECT_MAX_LEN];
  size_t len;
  char text[STATE_SUBJECT_MAX_LEN];       // the name, or the id in hex
  char known_as[STORE_TEXT_MAX_LEN + 1];  // a CA's issuer name
};

static struct bytes bytes_of_subject(const struct subject *subject) {
  return bytes_of(subject->bytes, subject->len);
}

static void describe(struct subject *subject, const struct store_reader *reader) {
  struct store_ca ca;
  if (subject->level == STATE_LEVEL_KEY || subject->level == STATE_LEVEL_CA) {
    (void)bytes_to_hex(subject->text, bytes_of_subject(subject));
  } else {
    (void)snprintf(subject->text, sizeof(subject->text), "%.*s", (int)subject->len,
                   (const char *)subject->bytes);
  }
  if (subject->level == STATE_LEVEL_CA && store_get_ca(reader, &ca, subject->bytes) == STATUS_OK) {
    (void)snprintf(subject->known_as, sizeof(subject->known_as), "%.*s", (int)ca.issuer.len,
                   (const char *)ca.issuer.data);
  }
}

static enum status find_subject(struct subject *out, const struct store_reader *reader,
                                const struct store_args *args, struct errmsg *err) {
  *out = (struct subject){0};
  enum status st = store_subject(&out->level, out->bytes, &out->len, reader, args, err);
  if (st == STATUS_OK) {
    describe(out, reader);
  }
  return st;
}

static enum ctl_exit end(enum status st, const struct errmsg *err) {
  if (st == STATUS_OK) {
    return CTL_DONE;
  }
  (void)store_complain(err);
  return st == STATUS_CONFIG ? CTL_USAGE : CTL_FAILED;
}

static void put_time(json_t *json, const char *key, int64_t at_s) {
  char text[CLOCK_RFC3339_LEN];
  (void)json_object_set_new(
      json, key, at_s == 0 ? json_null() : json_string(clock_format_rfc3339(text, at_s)));
}

// --- drill -------------------------------------------------------------------------------

static bool on_progress(void *arg, uint64_t done, uint64_t all) {
  store_progress_show(arg, done, all, done, "names");
  return true;
}

static json_t *list_to_json(const char (*names)[256], uint64_t num) {
  json_t *list = json_array();
  for (uint64_t i = 0; i < num && i < STORE_DRILL_LISTED; i++) {
    (void)json_array_append_new(list, json_string(names[i]));
  }
  return list;
}

static void print_list(const char *title, const char (*names)[256], uint64_t num) {
  if (num == 0) {
    return;
  }
  (void)printf("%s:\n", title);
  for (uint64_t i = 0; i < num && i < 20; i++) {
    (void)printf("  ");
    grid_clean(stdout, names[i]);
    (void)printf("\n");
  }
  if (num > 20) {
    (void)printf("  and %" PRIu64 " more (--json lists %u)\n", num - 20, STORE_DRILL_LISTED);
  }
}

static void print_left(const char *text, int64_t end_s, int64_t now_s) {
  char left[SHOW_LEFT_LEN];
  char end_text[CLOCK_RFC3339_LEN];
  char now_text[CLOCK_RFC3339_LEN];
  (void)printf("  %10s  %s\n",
               show_left(left, end_s == 0 ? NULL : clock_format_rfc3339(end_text, end_s),
                         clock_format_rfc3339(now_text, now_s)),
               text);
}

// The numbers of a report, for both ways of showing it.
struct number {
  const char *key;
  const char *text;
  uint64_t value;
};
#define NUM_NUMBERS 7

static void read_numbers(struct number out[NUM_NUMBERS], const struct store_drill_report *report) {
  const struct number numbers[NUM_NUMBERS] = {
      {"num_names", "names", report->num_names},
      {"num_moved", "would move", report->num_moved},
      {"num_without_backup", "would have nothing usable", report->num_without_backup},
      {"num_partly", "would have nothing for RSA-only clients", report->num_partly},
      {"num_unusable_already", "have nothing usable already", report->num_unusable_already},
      {"num_same_ca", "have two levels from one CA", report->num_same_ca},
      {"num_staples", "would move to a chain with a good staple", report->num_staples},
  };
  memcpy(out, numbers, sizeof(numbers));
}

static void print_drill(const struct subject *subject, const struct store_drill_report *report,
                        int64_t now_s) {
  struct number numbers[NUM_NUMBERS];
  read_numbers(numbers, report);
  (void)printf("drill: if this were out of service: %s ", state_level_name(subject->level));
  grid_clean(stdout, subject->known_as[0] != '\0' ? subject->known_as : subject->text);
  (void)printf("\n");
  for (size_t i = 0; i < NUM_NUMBERS; i++) {
    (void)printf("  %10" PRIu64 "  %s\n", numbers[i].value, numbers[i].text);
  }
  print_left("left to the first end of a backup's leaf", report->oldest_backup_ends_s, now_s);
  print_left("left to the first end of a backup's staple", report->oldest_staple_ends_s, now_s);
  print_list("names without a backup", (const char(*)[256])report->without_backup,
             report->num_without_backup);
  print_list("names with two levels from one CA", (const char(*)[256])report->same_ca,
             report->num_same_ca);
  (void)printf("%s\n", report->num_without_backup == 0 ? "ready" : "NOT READY");
}

static json_t *drill_to_json(const struct subject *subject, const struct store_drill_report *report,
                             int64_t now_s, double seconds) {
  struct number numbers[NUM_NUMBERS];
  read_numbers(numbers, report);
  json_t *json =
      json_pack("{s:s, s:s, s:b, s:f}", "level", state_level_name(subject->level), "subject",
                subject->text, "ready", report->num_without_backup == 0, "seconds", seconds);
  if (subject->known_as[0] != '\0') {
    (void)json_object_set_new(json, "known_as", json_string(subject->known_as));
  }
  for (size_t i = 0; i < NUM_NUMBERS; i++) {
    (void)json_object_set_new(json, numbers[i].key, json_integer((json_int_t)numbers[i].value));
  }
  put_time(json, "now", now_s);
  put_time(json, "oldest_backup_ends_at", report->oldest_backup_ends_s);
  put_time(json, "oldest_staple_ends_at", report->oldest_staple_ends_s);
  (void)json_object_set_new(
      json, "without_backup",
      list_to_json((const char(*)[256])report->without_backup, report->num_without_backup));
  (void)json_object_set_new(json, "same_ca",
                            list_to_json((const char(*)[256])report->same_ca, report->num_same_ca));
  return json;
}

static enum status drill(struct store_drill_report *out, const struct store_reader *reader,
                         const struct subject *subject, const struct store_args *args,
                         int64_t now_s, struct errmsg *err) {
  struct store_progress progress;
  store_progress_begin(&progress, args, "drill");
  enum status st = store_drill(out, reader, subject->level, bytes_of_subject(subject), now_s,
                               on_progress, &progress);
  store_progress_end(&progress);
  return st == STATUS_OK
             ? st
             : errmsg_set(err, st, "the drill failed (%s): see `deputyctl store verify`",
                          status_name(st));
}

enum ctl_exit store_run_drill(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct store_drill_report report = {0};
  struct subject subject;
  int64_t now_s = clock_wall_s();
  int64_t began_us = clock_monotonic_us();
  bool is_ready = false;
  enum status st = STATUS_OK;

  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  TRY(find_subject(&subject, reader, args, &err));
  TRY(drill(&report, reader, &subject, args, now_s, &err));
  is_ready = report.num_without_backup == 0;
  if (args->is_json) {
    store_print_json(
        drill_to_json(&subject, &report, now_s, (double)(clock_monotonic_us() - began_us) / 1e6));
  } else {
    print_drill(&subject, &report, now_s);
  }

out:
  store_drill_cleanup(&report);
  store_end(store, reader);
  return st != STATUS_OK ? end(st, &err) : is_ready ? CTL_DONE : CTL_NOT_READY;
}

// --- switch ------------------------------------------------------------------------------

// make_order says what is asked, in the words of the store; store_switch judges it.
static enum status make_order(struct store_order *out, const struct subject *subject,
                              const struct store_args *args, int64_t now_s, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned level = 0;
  bool has_id = subject->level == STATE_LEVEL_KEY || subject->level == STATE_LEVEL_CA;
  *out = (struct store_order){.level = subject->level,
                              .subject = bytes_of_subject(subject),
                              .dc = STORE_DC_LEAVE,
                              .is_in_service = args->is_in_service,
                              .is_compromised = args->is_compromised,
                              .is_forced = args->is_forced,
                              .reason = args->reason,
                              .author_uid = (int64_t)getuid()};
  if (has_id ? args->to != NULL : args->is_compromised || args->is_in_service) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "--to is for names and the fleet; --compromised and --in-service for keys and "
                   "CAs"));
  }
  if (args->until != NULL) {
    TRY(show_until(&out->until_s, args->until, now_s, err));
  }
  if (args->to != NULL) {
    if (store_level_from_name(&level, args->to) != STATUS_OK) {
      TRY(errmsg_set(err, STATUS_CONFIG, "\"%s\" is no level: primary, backup, spare2 ... spare7",
                     args->to));
    }
    out->preferred = level + 1;
  } else if (subject->level == STATE_LEVEL_FLEET) {
    TRY(errmsg_set(err, STATUS_CONFIG, "--fleet needs --to LEVEL"));
  }

out:
  return st;
}

static json_t *ruling_to_json(const struct subject *subject, const struct store_ruling *ruling) {
  json_t *json = json_pack("{s:I, s:s, s:s, s:b}", "id", (json_int_t)ruling->id, "level",
                           state_level_name(subject->level), "subject", subject->text, "already",
                           ruling->is_already);
  const struct {
    const char *key;
    uint64_t value;
  } rows[] = {
      {"num_names", ruling->num_names},
      {"num_moved", ruling->num_moved},
      {"num_without_backup", ruling->num_without_backup},
      {"num_partly", ruling->num_partly},
      {"num_usable", ruling->num_usable},
  };
  for (size_t i = 0; ruling->has_counts && i < sizeof(rows) / sizeof(rows[0]); i++) {
    (void)json_object_set_new(json, rows[i].key, json_integer((json_int_t)rows[i].value));
  }
  if (ruling->label != NULL) {
    (void)json_object_set_new(json, "to", json_string(ruling->label));
  }
  return json;
}

static void print_ruling(const struct subject *subject, const struct store_ruling *ruling) {
  (void)printf("switch %" PRIu64 ": %s ", ruling->id, state_level_name(subject->level));
  grid_clean(stdout, subject->known_as[0] != '\0' ? subject->known_as : subject->text);
  (void)printf("%s%s%s\n", ruling->label != NULL ? " to " : "",
               ruling->label != NULL ? ruling->label : "",
               ruling->is_already ? " (in force already)" : "");
  if (ruling->has_counts && ruling->was_forced) {
    (void)fprintf(
        stderr, "deputyctl: forced: %" PRIu64 " of %" PRIu64 " names %s\n",
        subject->level == STATE_LEVEL_FLEET ? ruling->num_names : ruling->num_without_backup,
        ruling->num_names,
        subject->level == STATE_LEVEL_FLEET ? "have nothing usable there, and stay"
                                            : "have nothing usable left");
  }
}

enum ctl_exit store_run_switch(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct subject subject;
  struct store_order order;
  struct store_ruling ruling = {0};
  struct store_progress progress;
  const struct store_watcher watcher = {on_progress, &progress};
  char name[128];
  int64_t now_s = clock_wall_s();
  enum status st = STATUS_OK;

  if (args->reason == NULL) {
    TRY(errmsg_set(&err, STATUS_CONFIG, "store switch needs --reason"));
  }
  ctl_author(name);
  TRY(store_begin(&store, &reader, args, STORE_STATES, &err));
  TRY(find_subject(&subject, reader, args, &err));
  TRY(make_order(&order, &subject, args, now_s, &err));
  order.author = name;
  store_progress_begin(&progress, args, "drill");
  st = store_switch(&ruling, store, reader, &order, now_s, &watcher, &err);
  store_progress_end(&progress);
  TRY(st);
  if (args->is_json) {
    store_print_json(ruling_to_json(&subject, &ruling));
  } else {
    print_ruling(&subject, &ruling);
  }

out:
  store_ruling_cleanup(&ruling);
  store_end(store, reader);
  return end(st, &err);
}

static enum status read_id(uint64_t *out, const char *text, struct errmsg *err) {
  char *rest = NULL;
  *out = strtoull(text, &rest, 10);
  return *out >= 1 && *rest == '\0' && text[0] != '-'
             ? STATUS_OK
             : errmsg_set(err, STATUS_CONFIG, "\"%.60s\" is not the ID of a switch", text);
}

// take_back is by ID, or all that stands for a subject.
static enum status take_back(uint64_t ids[STORE_MAX_STANDING], size_t *num, struct store *store,
                             struct store_reader *reader, const struct store_args *args,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  struct subject subject;
  char name[128];
  ctl_author(name);
  if (args->num_words == 0) {
    TRY(find_subject(&subject, reader, args, err));
    TRY(store_restore(ids, num, store, reader, subject.level, bytes_of_subject(&subject), name,
                      clock_wall_s(), err));
    goto out;
  }
  *num = 1;
  TRY(read_id(&ids[0], args->words[0], err));
  store_reader_park(reader);
  TRY(store_undo(store, ids[0], name, clock_wall_s(), err));

out:
  return st;
}

enum ctl_exit store_run_restore(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  uint64_t ids[STORE_MAX_STANDING];
  size_t num = 0;
  json_t *list = json_array();
  enum status st = STATUS_OK;

  if ((args->num_words == 0) == !store_has_subject(args)) {
    TRY(errmsg_set(&err, STATUS_CONFIG,
                   "store restore needs an ID (see `deputyctl store switches`), or one of --name, "
                   "--key, --ca, --fleet"));
  }
  TRY(store_begin(&store, &reader, args, STORE_STATES, &err));
  TRY(take_back(ids, &num, store, reader, args, &err));
  for (size_t i = 0; i < num; i++) {
    (void)json_array_append_new(list, json_integer((json_int_t)ids[i]));
    if (!args->is_json) {
      (void)printf("restored: %" PRIu64 "\n", ids[i]);
    }
  }
  if (args->is_json) {
    store_print_json(
        json_pack("{s:I, s:O, s:b}", "id", (json_int_t)ids[0], "ids", list, "restored", 1));
  }

out:
  json_decref(list);
  store_end(store, reader);
  return end(st, &err);
}

// --- switches ------------------------------------------------------------------------------

struct listing {
  const struct store_args *args;
  const struct store_reader *reader;
  struct grid grid;
  json_t *list;
  int64_t now_s;
};

static const char *action_of(const struct store_change *change, char out[64]) {
  if (change->service != STATE_SILENT) {
    (void)snprintf(out, 64, "%s of service%s",
                   change->service == STATE_OUT_OF_SERVICE ? "out" : "kept, not out",
                   change->is_compromised ? ", compromised" : "");
  } else if (change->preferred != STORE_LEAVE && change->preferred > 0 &&
             change->preferred <= STORE_MAX_LEVELS) {
    (void)snprintf(out, 64, "to %s", store_level_name(change->preferred - 1U));
  } else {
    (void)snprintf(out, 64, "%s", change->dc == 0 ? "DCs off" : change->dc == 1 ? "DCs on" : "-");
  }
  return out;
}

static void add_row(struct listing *listing, uint64_t id, const struct store_change *change,
                    const struct subject *subject, const char *standing) {
  char when[CLOCK_RFC3339_LEN];
  char until[CLOCK_RFC3339_LEN];
  char action[64];
  struct grid *grid = &listing->grid;
  grid_addf(grid, "%" PRIu64, id);
  grid_add(grid, clock_format_rfc3339(when, change->at_s));
  grid_add(grid, state_level_name(subject->level));
  grid_addf(grid, "%s", subject->known_as[0] != '\0' ? subject->known_as : subject->text);
  grid_add(grid, action_of(change, action));
  grid_addf(grid, "%.*s", (int)change->author.len, (const char *)change->author.data);
  grid_add(grid, change->until_s == 0 ? "-" : clock_format_rfc3339(until, change->until_s));
  grid_add(grid, standing);
  grid_addf(grid, "%.*s", (int)change->reason.len, (const char *)change->reason.data);
}

static json_t *text_to_json(struct bytes text) {
  json_t *json = json_stringn((const char *)text.data, text.len);
  return json != NULL ? json : json_string("?");  // not UTF-8
}

static void add_json(struct listing *listing, uint64_t id, const struct store_change *change,
                     const struct subject *subject, const char *standing) {
  char action[64];
  json_t *json = json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:b}", "id", (json_int_t)id, "level",
                           state_level_name(subject->level), "subject", subject->text, "action",
                           action_of(change, action), "standing", standing, "author_uid",
                           (json_int_t)change->author_uid, "compromised", change->is_compromised);
  put_time(json, "at", change->at_s);
  put_time(json, "until", change->until_s);
  (void)json_object_set_new(json, "author", text_to_json(change->author));
  (void)json_object_set_new(json, "reason", text_to_json(change->reason));
  if (change->is_undone) {
    (void)json_object_set_new(json, "undone_by", text_to_json(change->undone_by));
    put_time(json, "undone_at", change->undone_at_s);
  }
  (void)json_array_append_new(listing->list, json);
}

static bool on_change(void *arg, uint64_t id, const struct store_change *change) {
  struct listing *listing = arg;
  struct subject subject = {.level = (enum state_level)change->level, .len = change->subject.len};
  bool is_over = change->until_s != 0 && change->until_s <= listing->now_s;
  const char *standing = change->is_undone ? "restored" : is_over ? "ended" : "stands";
  if (listing->args->is_standing && (change->is_undone || is_over)) {
    return true;
  }
  if (subject.len > 0) {
    memcpy(subject.bytes, change->subject.data, subject.len);
  }
  describe(&subject, listing->reader);
  if (listing->args->is_json) {
    add_json(listing, id, change, &subject, standing);
  } else {
    add_row(listing, id, change, &subject, standing);
  }
  return true;
}

enum ctl_exit store_run_switches(const struct store_args *args) {
  static const char *const heading[] = {"ID", "WHEN",  "LEVEL", "SUBJECT", "ACTION",
                                        "BY", "UNTIL", "NOW",   "REASON",  NULL};
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct listing listing = {.args = args, .now_s = clock_wall_s()};
  enum status st = STATUS_OK;

  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  listing.reader = reader;
  listing.list = json_array();
  if (!args->is_json) {
    grid_init(&listing.grid, heading);
  }
  st = store_each_change(reader, on_change, &listing);
  if (!args->is_json) {
    (void)grid_print(&listing.grid, stdout);  // what could be read, even if not all
  }
  if (st != STATUS_OK) {
    TRY(errmsg_set(&err, st, "the log is damaged: see `deputyctl store verify`"));
  }
  if (args->is_json) {
    store_print_json(json_pack("{s:O}", "switches", listing.list));
  }

out:
  json_decref(listing.list);
  store_end(store, reader);
  return end(st, &err);
}

// --- one name --------------------------------------------------------------------------------

static json_t *slot_to_json(const struct store_reader *reader, const struct store_slot *slot,
                            bool serves, int64_t now_s) {
  char hex[65];
  struct store_ca ca;
  struct store_staple staple;
  json_t *json = json_pack(
      "{s:s, s:I, s:s, s:b, s:s, s:b, s:b}", "level", store_level_name(slot->level), "chain",
      (json_int_t)slot->chain_id, "kind", key_kind_name(slot->facts.kind), "serves", serves,
      "state", store_fault_name(store_judge(reader, slot, now_s, NULL)), "delegation_usage",
      slot->facts.has_delegation_usage, "must_staple", slot->facts.is_must_staple);
  (void)json_object_set_new(json, "key",
                            json_string(bytes_to_hex(hex, bytes_of(slot->facts.key_id, 32))));
  (void)json_object_set_new(json, "ca",
                            json_string(bytes_to_hex(hex, bytes_of(slot->facts.ca_id, 32))));
  if (store_get_ca(reader, &ca, slot->facts.ca_id) == STATUS_OK) {
    (void)json_object_set_new(json, "issuer", text_to_json(ca.issuer));
  }
  put_time(json, "not_before", slot->facts.not_before_s);
  put_time(json, "not_after", slot->facts.not_after_s);
  put_time(
      json, "staple_ends_at",
      store_get_staple(reader, &staple, slot->chain_id) == STATUS_OK ? staple.next_update_s : 0);
  return json;
}

static void print_slots(const json_t *slots, int64_t now_s) {
  static const char *const heading[] = {"LEVEL", "STATE", "KIND",   "ISSUER", "CA",
                                        "KEY",   "LEFT",  "STAPLE", NULL};
  static const char *const texts[] = {"kind", "issuer"};
  struct grid grid;
  char now[CLOCK_RFC3339_LEN];
  char left[SHOW_LEFT_LEN];
  size_t i = 0;
  const json_t *slot = NULL;
  (void)clock_format_rfc3339(now, now_s);
  grid_init(&grid, heading);
  json_array_foreach (slots, i, slot) {
    grid_add(&grid, json_string_value(json_object_get(slot, "level")));
    grid_addf(&grid, "%s%s", json_is_true(json_object_get(slot, "serves")) ? "serves, " : "",
              json_string_value(json_object_get(slot, "state")));
    for (size_t j = 0; j < 2; j++) {
      grid_add(&grid, json_string_value(json_object_get(slot, texts[j])));
    }
    grid_addf(&grid, "%.*s", SHOW_ID_DIGITS, json_string_value(json_object_get(slot, "ca")));
    grid_addf(&grid, "%.*s", SHOW_ID_DIGITS, json_string_value(json_object_get(slot, "key")));
    grid_add(&grid, show_left(left, json_string_value(json_object_get(slot, "not_after")), now));
    grid_add(&grid,
             show_left(left, json_string_value(json_object_get(slot, "staple_ends_at")), now));
  }
  (void)grid_print(&grid, stdout);
}

enum ctl_exit store_run_find(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct store_name name;
  struct store_choice choice = {0};
  char host[STORE_NAME_MAX_LEN + 1];
  int64_t now_s = clock_wall_s();
  json_t *slots = json_array();
  enum status st = STATUS_OK;

  TRY(store_host(host, args->words[0], &err));
  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  st = host[0] == '*' ? store_find_exact(reader, &name, bytes_text(host))
                      : store_find(reader, &name, bytes_text(host));
  if (st != STATUS_OK) {
    TRY(errmsg_set(&err, st, "\"%s\" is not in this store, nor under a wildcard", host));
  }
  (void)!store_choose(&choice, reader, bytes_text(host), &name, now_s, NULL, NULL, NULL);
  for (size_t i = 0; i < name.num_slots; i++) {
    (void)json_array_append_new(
        slots, slot_to_json(reader, &name.slots[i], choice.slot == &name.slots[i], now_s));
  }
  if (args->is_json) {
    store_print_json(json_pack("{s:s, s:O}", "name", host, "chains", slots));
  } else {
    print_slots(slots, now_s);
  }

out:
  json_decref(slots);
  store_end(store, reader);
  return end(st, &err);
}

static enum status remove_names(struct store_txn *txn, void *arg, struct errmsg *err) {
  const struct store_args *args = arg;
  enum status st = STATUS_OK;
  for (size_t i = 0; i < args->num_words; i++) {
    char host[STORE_NAME_MAX_LEN + 1];
    TRY(store_host(host, args->words[i], err));
    TRY(store_remove_name(txn, host, err));
  }

out:
  return st;
}

enum ctl_exit store_run_remove(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  enum status st = STATUS_OK;
  TRY(store_begin(&store, NULL, args, STORE_WRITE, &err));
  TRY(store_write(store, remove_names, (void *)(uintptr_t)args, &err));
  if (args->is_json) {
    store_print_json(json_pack("{s:I}", "removed", (json_int_t)args->num_words));
  } else {
    (void)printf("removed %zu names\n", args->num_words);
  }

out:
  store_end(store, NULL);
  return end(st, &err);
}
