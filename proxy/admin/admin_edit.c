// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin_edit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proxy/admin/admin_view.h"

#define NAMES_IN_SENTENCE 3u

// --- what a switch may do ----------------------------------------------------------

// names_in_sentence writes "a, b, c and 9 more".
static void names_in_sentence(char *out, size_t max, const struct cert_name *const *names,
                              size_t num) {
  size_t len = 0;
  out[0] = '\0';
  for (size_t i = 0; i < num && i < NAMES_IN_SENTENCE && len < max; i++) {
    int n = snprintf(out + len, max - len, "%s%s", i == 0 ? "" : ", ", names[i]->name);
    len += n > 0 ? (size_t)n : 0;
  }
  if (num > NAMES_IN_SENTENCE && len < max) {
    (void)snprintf(out + len, max - len, " and %zu more", num - NAMES_IN_SENTENCE);
  }
}

static void put_counts(struct admin_change *change, const struct drill_report *report) {
  (void)admin_put(change->answer, "num_moved", json_integer((json_int_t)report->num_moved));
  (void)admin_put(change->answer, "num_without_backup",
                  json_integer((json_int_t)report->num_without_backup));
  (void)admin_put(change->answer, "num_partly", json_integer((json_int_t)report->num_partly));
  (void)admin_put(change->answer, "without_backup",
                  admin_view_names_of(report->without_backup, report->num_without_backup));
}

// drill answers what taking a key or CA out of service would leave behind; without
// force, no name may be left with nothing.
static enum status drill(struct admin_change *change, const struct certstore *store,
                         struct errmsg *err) {
  struct drill_report report;
  enum status st = certstore_drill(&report, store, change->level, change->subject, clock_wall_s());
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the %s %s cannot be looked at (%s)",
                      state_level_name(change->level), change->subject, status_name(st));
  }
  put_counts(change, &report);
  if (report.num_partly > 0) {
    admin_change_warn(change, "clients that take only RSA have no usable chain left for %zu names",
                      report.num_partly);
  }
  if (report.num_without_backup > 0) {
    char names[3 * (CERTSTORE_NAME_MAX_LEN + 2) + 64];
    names_in_sentence(names, sizeof(names), report.without_backup, report.num_without_backup);
    if (change->asked.is_forced) {
      admin_change_warn(change, "forced: %zu of %zu names have nothing usable left: %s",
                        report.num_without_backup, report.num_names, names);
    } else {
      st = errmsg_set(err, STATUS_REFUSED,
                      "%zu of %zu names would be left with nothing usable: %s; give them another "
                      "chain, or use force",
                      report.num_without_backup, report.num_names, names);
    }
  }
  drill_report_cleanup(&report);
  return st;
}

static bool says_the_same(const struct state_change *a, const struct state_change *b) {
  return a->service == b->service && a->is_compromised == b->is_compromised &&
         a->preferred == b->preferred && a->dc == b->dc;
}

// find_in_force finds the last change that stands for the subject and speaks of the
// same thing (a level of chains, or credentials).
static const struct state_change *find_in_force(const struct states *states,
                                                const struct state_change *like) {
  size_t num = 0;
  const struct state_change *list = states_list(states, &num);
  for (size_t i = num; i-- > 0;) {
    const struct state_change *c = &list[i];
    if (!c->is_undone && c->level == like->level && strcmp(c->subject, like->subject) == 0 &&
        (c->dc >= 0) == (like->dc >= 0)) {
      return c;
    }
  }
  return NULL;
}

// apply puts the wanted change into the draft, unless it is in force already.
static enum status apply(struct admin_change *change, struct states *draft,
                         struct state_change *wanted, struct errmsg *err) {
  (void)admin_put(change->answer, "action", json_string(admin_action(wanted)));
  const struct state_change *now = find_in_force(draft, wanted);
  if (now != NULL && says_the_same(now, wanted)) {
    change->is_already = true;
    change->ids[change->num_ids++] = now->id;
    return STATUS_EXISTS;  // on_done knows that this is no failure
  }
  (void)snprintf(wanted->reason, sizeof(wanted->reason), "%s", change->asked.reason);
  (void)snprintf(wanted->author, sizeof(wanted->author), "%s", change->asked.author);
  wanted->author_uid = change->uid;
  enum status st = states_apply(draft, wanted);
  if (st == STATUS_LIMIT) {
    return errmsg_set(err, st, "%u switches stand: restore some that are no longer needed",
                      STATE_MAX_CHANGES);
  }
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the change cannot be made (%s)", status_name(st));
  }
  change->ids[change->num_ids++] = wanted->id;
  return STATUS_OK;
}

static struct state_change change_of(const struct admin_change *change) {
  struct state_change out = {
      .level = change->level, .preferred = STATE_PREFERRED_LEAVE, .dc = -1, .author_uid = -1};
  (void)snprintf(out.subject, sizeof(out.subject), "%s", change->subject);
  return out;
}

static enum status make_service(struct admin_change *change, struct states *draft,
                                const struct certstore *store, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct state_change wanted = change_of(change);
  bool is_in = strcmp(change->asked.service, "in") == 0;
  if (change->asked.to[0] != '\0') {
    return errmsg_set(err, STATUS_FORMAT,
                      "\"to\" is for names and the fleet: a key or CA goes out of service, and "
                      "each name to its first usable chain");
  }
  if (is_in && change->asked.is_compromised) {
    return errmsg_set(err, STATUS_FORMAT, "what is compromised cannot be in service");
  }
  wanted.service = is_in ? STATE_IN_SERVICE : STATE_OUT_OF_SERVICE;
  wanted.is_compromised = change->asked.is_compromised;
  if (!is_in) {
    TRY(drill(change, store, err));
  }
  TRY(apply(change, draft, &wanted, err));

out:
  return st;
}

static bool is_level_usable(const struct cert_name *name, size_t index, int64_t now_s) {
  const struct cert_level *level = &name->levels[index];
  for (size_t i = 0; i < level->num_chains; i++) {
    if (chain_judge(level->chains[i], now_s) == CHAIN_USABLE) {
      return true;
    }
  }
  return false;
}

// find_label returns 1 + the index of the name's level with this label, or 0.
static uint32_t find_label(const struct cert_name *name, const char *label) {
  for (uint32_t i = 0; i < name->num_levels; i++) {
    if (strcmp(name->levels[i].chains[0]->label, label) == 0) {
      return i + 1;
    }
  }
  return 0;
}

static void labels_in_sentence(char *out, size_t max, const struct cert_name *name) {
  size_t len = 0;
  out[0] = '\0';
  for (size_t i = 0; i < name->num_levels && len < max; i++) {
    int n = snprintf(out + len, max - len, "%s%.64s", i == 0 ? "" : ", ",
                     name->levels[i].chains[0]->label);
    len += n > 0 ? (size_t)n : 0;
  }
}

// choose_level finds where a name shall go: the level that was asked for, else the
// first usable one that does not answer now.
static enum status choose_level(uint32_t *out, struct admin_change *change,
                                const struct certstore *store, const struct cert_name *name,
                                struct errmsg *err) {
  int64_t now_s = clock_wall_s();
  struct choice now;
  if (change->asked.to[0] != '\0') {
    char labels[640];
    labels_in_sentence(labels, sizeof(labels), name);
    *out = find_label(name, change->asked.to);
    return *out != 0 ? STATUS_OK
                     : errmsg_set(err, STATUS_NOT_FOUND, "%s has no level \"%s\"; it has: %s",
                                  name->name, change->asked.to, labels);
  }
  enum status st = certstore_choose(&now, store, name, now_s, NULL, NULL);
  for (uint32_t i = 0; i < name->num_levels; i++) {
    if ((st != STATUS_OK || i != now.level) && is_level_usable(name, i, now_s)) {
      *out = i + 1;
      return STATUS_OK;
    }
  }
  return errmsg_set(err, STATUS_REFUSED,
                    "%s has no other usable level to go to; name one with \"to\" and use force, if "
                    "it shall go there as soon as that is usable",
                    name->name);
}

enum status admin_edit_choose_level(uint32_t *out, bool *out_is_usable, struct admin_change *change,
                                    const struct certstore *store, const struct cert_name *name,
                                    struct errmsg *err) {
  enum status st = choose_level(out, change, store, name, err);
  *out_is_usable = st == STATUS_OK && is_level_usable(name, *out - 1, clock_wall_s());
  return st;
}

static enum status make_name(struct admin_change *change, struct states *draft,
                             const struct certstore *store, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct state_change wanted = change_of(change);
  const struct cert_name *name = certstore_find_exact(store, change->subject);
  uint32_t preferred = 0;

  CHECK(name != NULL);  // it was matched just now
  TRY(choose_level(&preferred, change, store, name, err));
  const char *label = name->levels[preferred - 1].chains[0]->label;
  if (!is_level_usable(name, preferred - 1, clock_wall_s())) {
    if (!change->asked.is_forced) {
      TRY(errmsg_set(err, STATUS_REFUSED,
                     "the level \"%s\" of %s has nothing usable; with force, it will be served as "
                     "soon as it has",
                     label, name->name));
    }
    admin_change_warn(change,
                      "forced: the level \"%s\" has nothing usable and is not served until it has",
                      label);
  }
  (void)admin_put(change->answer, "to", json_string(label));
  wanted.preferred = preferred;
  TRY(apply(change, draft, &wanted, err));

out:
  return st;
}

// Labels belong to names; for the fleet one must mean the same place in each name that has it.
enum status admin_edit_find_fleet_level(uint32_t *out, size_t *out_num_usable,
                                        const struct admin_change *change,
                                        const struct certstore *store, struct errmsg *err) {
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(store, &num);
  int64_t now_s = clock_wall_s();

  *out = 0;
  *out_num_usable = 0;
  if (change->asked.to[0] == '\0') {
    return errmsg_set(err, STATUS_FORMAT, "\"to\" is missing: which level shall all names go to?");
  }
  for (size_t i = 0; i < num; i++) {
    uint32_t found = find_label(names[i], change->asked.to);
    if (found != 0 && *out != 0 && found != *out) {
      return errmsg_set(err, STATUS_FORMAT,
                        "\"%s\" is level %u of some names and %u of others: switch names, keys or "
                        "CAs instead",
                        change->asked.to, (unsigned)*out, (unsigned)found);
    }
    *out = found != 0 ? found : *out;
    *out_num_usable += found != 0 && is_level_usable(names[i], found - 1, now_s) ? 1 : 0;
  }
  return STATUS_OK;
}

// make_fleet prefers a level for all names that do not say otherwise.
static enum status make_fleet(struct admin_change *change, struct states *draft,
                              const struct certstore *store, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct state_change wanted = change_of(change);
  size_t num = 0;
  size_t num_usable = 0;
  const char *to = change->asked.to;

  (void)certstore_names(store, &num);
  TRY(admin_edit_find_fleet_level(&wanted.preferred, &num_usable, change, store, err));
  if (wanted.preferred == 0) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND, "no name has a level \"%s\"", to));
  }
  (void)admin_put(change->answer, "num_usable", json_integer((json_int_t)num_usable));
  if (num_usable == 0 && !change->asked.is_forced) {
    TRY(errmsg_set(err, STATUS_REFUSED,
                   "none of %zu names has anything usable at the level \"%s\"; with force, each "
                   "goes there as soon as it has",
                   num, to));
  }
  if (num_usable < num) {
    admin_change_warn(
        change, "%zu of %zu names have nothing usable at the level \"%s\" and stay where they are",
        num - num_usable, num, to);
  }
  (void)admin_put(change->answer, "to", json_string(to));
  TRY(apply(change, draft, &wanted, err));

out:
  return st;
}

// --- the three edits ---------------------------------------------------------------

enum status admin_edit_switch(void *arg, struct states *draft, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = arg;
  const struct admin_host *host = change->changes->host;
  const struct certstore *store = host->store(host->arg);
  const struct asked *asked = &change->asked;

  TRY(admin_change_read_level(change, err));
  if (asked->until[0] != '\0') {
    TRY(errmsg_set(err, STATUS_FORMAT,
                   "\"until\" is for a proxy with a store: switches in a file of states do not end "
                   "by themselves"));
  }
  TRY(certstore_match(change->subject, store, change->level, asked->subject, err));
  if (asked->service[0] != '\0' && strcmp(asked->service, "out") != 0 &&
      strcmp(asked->service, "in") != 0) {
    TRY(errmsg_set(err, STATUS_FORMAT, "\"service\" must be out or in"));
  }
  if (change->level == STATE_LEVEL_KEY || change->level == STATE_LEVEL_CA) {
    TRY(make_service(change, draft, store, err));
    goto out;
  }
  if (asked->service[0] != '\0' || asked->is_compromised) {
    TRY(errmsg_set(err, STATUS_FORMAT, "\"service\" and \"compromised\" are for keys and CAs"));
  }
  TRY(change->level == STATE_LEVEL_NAME ? make_name(change, draft, store, err)
                                        : make_fleet(change, draft, store, err));

out:
  return st;
}

// find_standing_subject finds the subject as changes have it, for one that is no
// longer in the store.
static bool find_standing_subject(struct admin_change *change, const struct states *states) {
  size_t num = 0;
  const struct state_change *list = states_list(states, &num);
  for (size_t i = 0; i < num; i++) {
    if (!list[i].is_undone && list[i].level == change->level &&
        strcasecmp(list[i].subject, change->asked.subject) == 0) {
      (void)snprintf(change->subject, sizeof(change->subject), "%s", list[i].subject);
      return true;
    }
  }
  return false;
}

static enum status undo(struct admin_change *change, struct states *draft, uint64_t id,
                        struct errmsg *err) {
  enum status st = states_undo(draft, id, change->asked.author, clock_wall_s());
  if (st == STATUS_NOT_FOUND) {
    return errmsg_set(err, st, "there is no switch %" PRIu64, id);
  }
  if (st == STATUS_EXISTS) {
    return errmsg_set(err, st, "switch %" PRIu64 " was restored already", id);
  }
  change->ids[change->num_ids++] = id;
  return st;
}

// restore_subject takes back all that stands for the subject, but for what was said
// of delegated credentials: that is for POST /v1/dc.
static enum status restore_subject(struct admin_change *change, struct states *draft,
                                   struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct admin_host *host = change->changes->host;
  size_t num = 0;

  TRY(admin_change_read_level(change, err));
  st = certstore_match(change->subject, host->store(host->arg), change->level,
                       change->asked.subject, err);
  if (st == STATUS_NOT_FOUND && find_standing_subject(change, draft)) {
    st = STATUS_OK;
  }
  if (st != STATUS_OK) {
    goto out;
  }
  const struct state_change *list = states_list(draft, &num);
  for (size_t i = num; i-- > 0 && change->num_ids < ADMIN_MAX_RESTORED;) {
    if (!list[i].is_undone && list[i].dc < 0 && list[i].level == change->level &&
        strcmp(list[i].subject, change->subject) == 0) {
      TRY(undo(change, draft, list[i].id, err));
    }
  }
  if (change->num_ids == 0) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND, "no switch stands for the %s %s", change->asked.level,
                   change->subject));
  }

out:
  return st;
}

enum status admin_edit_restore(void *arg, struct states *draft, struct errmsg *err) {
  struct admin_change *change = arg;
  (void)admin_put(change->answer, "action", json_string("restore"));
  if ((change->asked.id != 0) == (change->asked.level[0] != '\0')) {
    return errmsg_set(err, STATUS_FORMAT, "give either \"id\", or \"level\" and \"subject\"");
  }
  if (change->asked.id == 0) {
    return restore_subject(change, draft, err);
  }
  const struct state_change *found = states_find(draft, change->asked.id);
  if (found != NULL) {
    change->level = found->level;
    (void)snprintf(change->subject, sizeof(change->subject), "%s", found->subject);
  }
  return undo(change, draft, change->asked.id, err);
}

enum status admin_edit_dc(void *arg, struct states *draft, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct admin_change *change = arg;
  const struct admin_host *host = change->changes->host;
  const struct certstore *store = host->store(host->arg);
  struct state_change wanted;

  if (change->asked.is_fleet == (change->asked.name[0] != '\0')) {
    TRY(errmsg_set(err, STATUS_FORMAT, "give either \"name\", or \"fleet\": true"));
  }
  change->level = change->asked.is_fleet ? STATE_LEVEL_FLEET : STATE_LEVEL_NAME;
  TRY(certstore_match(change->subject, store, change->level, change->asked.name, err));
  if (change->asked.is_enabled && !change->asked.is_fleet &&
      atomic_load(&certstore_fleet(store)->is_dc_off)) {
    admin_change_warn(change,
                      "delegated credentials are off for the whole fleet, and so for this name");
  }
  wanted = change_of(change);
  wanted.dc = change->asked.is_enabled ? 1 : 0;
  TRY(apply(change, draft, &wanted, err));

out:
  return st;
}

// --- its way ---------------------------------------------------------------------------

static void on_done(void *arg, enum status st, bool is_kept, const struct errmsg *err) {
  struct admin_change *change = arg;
  struct admin_changes *changes = change->changes;
  if (st != STATUS_OK && !change->is_already) {
    admin_change_refuse(change, st,
                        st == STATUS_TIMEOUT
                            ? "the disk does not answer; the change is not in force yet and "
                              "will be as soon as it is written"
                            : err->text);
    return;
  }
  if (change->is_already) {
    is_kept = state_file_is_kept(changes->host->state_file);
  } else if (!is_kept) {
    changes->num_unkept++;
    admin_change_warn(change, "in force, but in memory only: it does not survive a restart%s%s",
                      err == NULL ? "" : ": ", err == NULL ? "" : err->text);
  }
  const char *known_as =
      change->level == STATE_LEVEL_CA
          ? admin_name_of_ca(changes->host->store(changes->host->arg), change->subject)
          : NULL;
  admin_change_answer(change, is_kept, known_as);
}

void admin_edit_begin(struct admin_change *change,
                      enum status (*make)(void *arg, struct states *draft, struct errmsg *err)) {
  change->edit = (struct state_edit){
      .make = make, .done = on_done, .arg = change, .is_forced = change->asked.is_forced};
  if (state_file_edit(change->changes->host->state_file, &change->edit) != STATUS_OK) {
    admin_change_refuse(change, STATUS_UNAVAILABLE, "too many changes wait for the disk");
  }
}
