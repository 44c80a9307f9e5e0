// SPDX-License-Identifier: Apache-2.0
// Which chain answers (the design's fixed rule, as certstore_choose), from records; and
// a drill of it over all names.
#include <stdlib.h>
#include <string.h>

#include "certstore/store_private.h"

#define PROGRESS_EVERY 16384u

const char *store_fault_name(enum store_fault fault) {
  static const char *const names[STORE_NUM_FAULTS] = {
      [STORE_USABLE] = "usable",       [STORE_EXPIRED] = "expired",
      [STORE_REVOKED] = "revoked",     [STORE_NOT_YET_VALID] = "not_yet_valid",
      [STORE_KEY_OUT] = "key_out",     [STORE_CA_OUT] = "ca_out",
      [STORE_NO_STAPLE] = "no_staple",
  };
  CHECK((unsigned)fault < STORE_NUM_FAULTS);
  return names[fault];
}

// --- one chain -----------------------------------------------------------------------

// service_of: a record that cannot be read says nothing. (To end handshakes over it
// would be worse; `store verify` finds it.)
static uint8_t service_of(const struct store_reader *reader, enum state_level level,
                          const uint8_t id[32], const uint8_t *supposed, int64_t now_s) {
  struct store_words words;
  if (supposed != NULL && memcmp(id, supposed, 32) == 0) {
    return STATE_OUT_OF_SERVICE;
  }
  return store_get_words(reader, &words, level, bytes_of(id, 32), now_s) == STATUS_OK
             ? words.service
             : STATE_SILENT;
}

// The narrower word wins; a supposition stands for a word at its own level.
static enum store_fault judge_service(const struct store_reader *reader,
                                      const struct store_facts *facts, int64_t now_s,
                                      const struct store_supposition *supposed) {
  uint8_t key = service_of(reader, STATE_LEVEL_KEY, facts->key_id,
                           supposed != NULL ? supposed->key_id : NULL, now_s);
  if (key != STATE_SILENT) {
    return key == STATE_OUT_OF_SERVICE ? STORE_KEY_OUT : STORE_USABLE;
  }
  uint8_t ca = service_of(reader, STATE_LEVEL_CA, facts->ca_id,
                          supposed != NULL ? supposed->ca_id : NULL, now_s);
  return ca == STATE_OUT_OF_SERVICE ? STORE_CA_OUT : STORE_USABLE;
}

static bool has_good_staple(const struct store_reader *reader, uint64_t chain_id, int64_t now_s) {
  struct store_staple staple;
  return store_get_staple(reader, &staple, chain_id) == STATUS_OK && now_s < staple.next_update_s;
}

enum store_fault store_judge(const struct store_reader *reader, const struct store_slot *slot,
                             int64_t now_s, const struct store_supposition *supposed) {
  struct store_revoked revoked;
  // RFC 5280, section 4.1.2.5: both ends belong to the validity.
  if (now_s > slot->facts.not_after_s) {
    return STORE_EXPIRED;
  }
  if (now_s < slot->facts.not_before_s) {
    return STORE_NOT_YET_VALID;
  }
  if (store_get_revoked(reader, &revoked, slot->chain_id) != STATUS_NOT_FOUND) {
    return STORE_REVOKED;
  }
  enum store_fault fault = judge_service(reader, &slot->facts, now_s, supposed);
  if (fault != STORE_USABLE) {
    return fault;
  }
  // RFC 7633: a client that knows the feature refuses this leaf without a staple.
  if (slot->facts.is_must_staple && !has_good_staple(reader, slot->chain_id, now_s)) {
    return STORE_NO_STAPLE;
  }
  return STORE_USABLE;
}

// --- one name ------------------------------------------------------------------------

// One look at one name: what the functions below pass on.
struct look {
  const struct store_reader *reader;
  const struct store_name *name;
  int64_t now_s;
  bool (*takes)(void *arg, enum key_kind kind);
  void *arg;
  const struct store_supposition *supposed;
};

static bool fits(const struct look *look, const struct store_slot *slot) {
  return look->takes == NULL || look->takes(look->arg, slot->facts.kind);
}

static bool is_gone(const struct look *look, const struct store_slot *slot) {
  return look->supposed != NULL && look->supposed->is_level_gone &&
         look->supposed->level == slot->level;
}

// first_usable finds the first slot that may serve: of this level, or (-1) of any.
static const struct store_slot *first_usable(const struct look *look, int level) {
  for (size_t i = 0; i < look->name->num_slots; i++) {
    const struct store_slot *slot = &look->name->slots[i];
    if ((level < 0 || slot->level == level) && !is_gone(look, slot) && fits(look, slot) &&
        store_judge(look->reader, slot, look->now_s, look->supposed) == STORE_USABLE) {
      return slot;
    }
  }
  return NULL;
}

// last_resort: the last chain that is at least unexpired; one whose validity has not
// begun only if there is no other. Within a level the first.
static const struct store_slot *last_resort(const struct look *look) {
  const struct store_slot *found = NULL;
  const struct store_slot *not_begun = NULL;
  for (size_t i = 0; i < look->name->num_slots; i++) {
    const struct store_slot *slot = &look->name->slots[i];
    if (look->now_s > slot->facts.not_after_s || !fits(look, slot)) {
      continue;
    }
    const struct store_slot **place = look->now_s >= slot->facts.not_before_s ? &found : &not_begun;
    if (*place == NULL || (*place)->level != slot->level) {
      *place = slot;
    }
  }
  return found != NULL ? found : not_begun;
}

enum status store_choose(struct store_choice *out, const struct store_reader *reader,
                         struct bytes subject, const struct store_name *name, int64_t now_s,
                         bool (*takes)(void *arg, enum key_kind kind), void *arg,
                         const struct store_supposition *supposed) {
  const struct look look = {reader, name, now_s, takes, arg, supposed};
  struct store_words own = {0};
  struct store_words fleet = {0};
  (void)!store_get_words(reader, &own, STATE_LEVEL_NAME, subject, now_s);
  (void)!store_get_words(reader, &fleet, STATE_LEVEL_FLEET, (struct bytes){0}, now_s);
  unsigned preferred = own.preferred != 0 ? own.preferred : fleet.preferred;
  *out = (struct store_choice){.may_use_dc = !own.is_dc_off && !fleet.is_dc_off};
  if (preferred != 0) {
    out->slot = first_usable(&look, (int)preferred - 1);
  }
  if (out->slot == NULL) {
    out->slot = first_usable(&look, -1);
  }
  if (out->slot == NULL) {
    out->slot = last_resort(&look);
    out->is_last_resort = true;
  }
  return out->slot != NULL ? STATUS_OK : STATUS_NOT_FOUND;
}

// --- drill ---------------------------------------------------------------------------

static bool takes_rsa_only(void *arg, enum key_kind kind) {
  (void)arg;
  return kind == KEY_KIND_RSA;
}

struct drill {
  struct store_drill_report *report;
  const struct store_reader *reader;
  int64_t now_s;
  struct store_supposition supposed;
  bool suppose_level;  // the level that serves is taken away, of each name
  bool (*progress)(void *arg, uint64_t done, uint64_t all);
  void *arg;
  uint64_t num_all;
  uint64_t num_done;
  bool is_ended;
};

// What a name answers with before and under the supposition.
struct pair {
  struct store_choice before;
  struct store_choice after;
  bool was_usable;
  bool is_usable;
};

static void choose_pair(struct pair *out, const struct drill *drill, struct bytes subject,
                        const struct store_name *name,
                        bool (*takes)(void *arg, enum key_kind kind)) {
  out->was_usable = store_choose(&out->before, drill->reader, subject, name, drill->now_s, takes,
                                 NULL, NULL) == STATUS_OK &&
                    !out->before.is_last_resort;
  out->is_usable = store_choose(&out->after, drill->reader, subject, name, drill->now_s, takes,
                                NULL, &drill->supposed) == STATUS_OK &&
                   !out->after.is_last_resort;
}

static void list(char (*names)[256], uint64_t num, struct bytes name) {
  if (num < STORE_DRILL_LISTED && name.len < sizeof(names[0])) {
    memcpy(names[num], name.data, name.len);
    names[num][name.len] = '\0';
  }
}

// has_levels_of_one_ca: do two levels hang on the same CA? For a drill of a CA: on that.
static bool has_levels_of_one_ca(const struct drill *drill, const struct store_name *name) {
  for (size_t i = 0; i + 1 < name->num_slots; i++) {
    const uint8_t *ca_id = name->slots[i].facts.ca_id;
    if (drill->supposed.ca_id != NULL && memcmp(ca_id, drill->supposed.ca_id, 32) != 0) {
      continue;
    }
    for (size_t j = i + 1; j < name->num_slots; j++) {
      if (name->slots[i].level != name->slots[j].level &&
          memcmp(ca_id, name->slots[j].facts.ca_id, 32) == 0) {
        return true;
      }
    }
  }
  return false;
}

static int64_t earlier(int64_t a, int64_t b) {
  if (a == 0 || b == 0) {
    return a != 0 ? a : b;
  }
  return a < b ? a : b;
}

static void count_backup(const struct drill *drill, const struct store_slot *slot) {
  struct store_drill_report *report = drill->report;
  struct store_staple staple;
  report->oldest_backup_ends_s = earlier(report->oldest_backup_ends_s, slot->facts.not_after_s);
  if (store_get_staple(drill->reader, &staple, slot->chain_id) == STATUS_OK &&
      drill->now_s < staple.next_update_s) {
    report->num_staples++;
    report->oldest_staple_ends_s = earlier(report->oldest_staple_ends_s, staple.next_update_s);
  }
}

static bool has_rsa(const struct store_name *name) {
  for (size_t i = 0; i < name->num_slots; i++) {
    if (name->slots[i].facts.kind == KEY_KIND_RSA) {
      return true;
    }
  }
  return false;
}

static void drill_name(struct drill *drill, struct bytes subject, const struct store_name *name) {
  struct store_drill_report *report = drill->report;
  struct pair any;
  struct pair rsa = {0};
  choose_pair(&any, drill, subject, name, NULL);
  if (!any.was_usable) {
    report->num_unusable_already++;
    return;
  }
  if (drill->suppose_level) {
    drill->supposed.is_level_gone = true;
    drill->supposed.level = any.before.slot->level;
    choose_pair(&any, drill, subject, name, NULL);
  }
  // RSA-only clients may be answered by a chain of their own: they are asked for apart.
  if (has_rsa(name)) {
    choose_pair(&rsa, drill, subject, name, takes_rsa_only);
  }
  drill->supposed.is_level_gone = false;
  bool is_moved = !any.is_usable || any.before.slot != any.after.slot ||
                  (rsa.was_usable && (!rsa.is_usable || rsa.before.slot != rsa.after.slot));
  if (!is_moved) {
    return;
  }
  report->num_moved++;
  if (!any.is_usable) {
    list(report->without_backup, report->num_without_backup++, subject);
    return;
  }
  report->num_partly += rsa.was_usable && !rsa.is_usable ? 1 : 0;
  count_backup(drill, any.after.slot);
}

static bool on_name(void *arg, struct bytes key, const struct store_name *name) {
  struct drill *drill = arg;
  drill->num_done++;
  if (drill->progress != NULL && drill->num_done % PROGRESS_EVERY == 0 &&
      !drill->progress(drill->arg, drill->num_done, drill->num_all)) {
    drill->is_ended = true;
    return false;
  }
  if (has_levels_of_one_ca(drill, name)) {
    list(drill->report->same_ca, drill->report->num_same_ca++, key);
  }
  drill_name(drill, key, name);
  return true;
}

static enum status drill_one(struct drill *drill, struct bytes subject) {
  struct store_name name;
  enum status st = store_find_exact(drill->reader, &name, subject);
  if (st == STATUS_OK) {
    (void)on_name(drill, subject, &name);
  }
  return st;
}

// has_key_or_ca: is there such a subject at all?
static enum status has_key_or_ca(const struct store_reader *reader, enum state_level level,
                                 struct bytes subject) {
  uint8_t id[STATE_SUBJECT_MAX_LEN];
  char hex[65];
  size_t len = 0;
  if (subject.len != 32) {
    return STATUS_NOT_FOUND;
  }
  return store_match(id, &len, reader, level, bytes_to_hex(hex, subject), NULL);
}

enum status store_drill(struct store_drill_report *out, const struct store_reader *reader,
                        enum state_level level, struct bytes subject, int64_t now_s,
                        bool (*progress)(void *arg, uint64_t done, uint64_t all), void *arg) {
  enum status st = STATUS_OK;
  struct drill drill = {.report = out,
                        .reader = reader,
                        .now_s = now_s,
                        .progress = progress,
                        .arg = arg,
                        .suppose_level = level == STATE_LEVEL_NAME || level == STATE_LEVEL_FLEET};
  *out = (struct store_drill_report){0};
  out->num_names = store_num(reader->chains, reader->store->tables[TABLE_NAMES]);
  drill.num_all = out->num_names;
  out->without_backup = calloc(STORE_DRILL_LISTED, sizeof(out->without_backup[0]));
  out->same_ca = calloc(STORE_DRILL_LISTED, sizeof(out->same_ca[0]));
  if (out->without_backup == NULL || out->same_ca == NULL) {
    TRY(STATUS_MEMORY);
  }
  if (level == STATE_LEVEL_NAME) {
    TRY(drill_one(&drill, subject));
    goto out;
  }
  if (level != STATE_LEVEL_FLEET) {
    TRY(has_key_or_ca(reader, level, subject));
    drill.supposed.key_id = level == STATE_LEVEL_KEY ? subject.data : NULL;
    drill.supposed.ca_id = level == STATE_LEVEL_CA ? subject.data : NULL;
  }
  TRY(store_each_name(reader, on_name, &drill));
  st = drill.is_ended ? STATUS_CLOSED : STATUS_OK;

out:
  if (st != STATUS_OK) {
    store_drill_cleanup(out);
  }
  return st;
}

void store_drill_cleanup(struct store_drill_report *report) {
  free(report->without_backup);
  free(report->same_ca);
  *report = (struct store_drill_report){0};
}
