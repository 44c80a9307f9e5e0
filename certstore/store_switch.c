// SPDX-License-Identifier: Apache-2.0
#include "certstore/store_switch.h"

#include <inttypes.h>
#include <string.h>

#define COUNT_EVERY 16384u

// One order on its way.
struct judging {
  struct store_ruling *ruling;
  struct store *store;
  struct store_reader *reader;
  const struct store_order *order;
  int64_t now_s;
  const struct store_watcher *watcher;
  struct errmsg *err;
};

static bool is_of_id(const struct store_order *order) {
  return order->level == STATE_LEVEL_KEY || order->level == STATE_LEVEL_CA;
}

// --- levels to go to ----------------------------------------------------------------

static bool has_usable(const struct store_reader *reader, const struct store_name *name,
                       unsigned level, int64_t now_s) {
  for (size_t i = 0; i < name->num_slots; i++) {
    if (name->slots[i].level == level &&
        store_judge(reader, &name->slots[i], now_s, NULL) == STORE_USABLE) {
      return true;
    }
  }
  return false;
}

static bool has_level(const struct store_name *name, unsigned level) {
  for (size_t i = 0; i < name->num_slots; i++) {
    if (name->slots[i].level == level) {
      return true;
    }
  }
  return false;
}

// choose_level: the first usable level that does not serve the name now.
static enum status choose_level(const struct judging *judging, const struct store_name *name) {
  const struct store_order *order = judging->order;
  struct store_choice now;
  struct store_choice then;
  struct store_supposition gone = {.is_level_gone = true};
  if (store_choose(&now, judging->reader, order->subject, name, judging->now_s, NULL, NULL, NULL) !=
      STATUS_OK) {
    return errmsg_set(judging->err, STATUS_REFUSED, "%.*s has no chain to go to",
                      (int)order->subject.len, (const char *)order->subject.data);
  }
  gone.level = now.slot->level;
  if (store_choose(&then, judging->reader, order->subject, name, judging->now_s, NULL, NULL,
                   &gone) != STATUS_OK ||
      then.is_last_resort) {
    return errmsg_set(judging->err, STATUS_REFUSED,
                      "%.*s has no other usable level to go to; name one and use force, if it "
                      "shall go there as soon as that is usable",
                      (int)order->subject.len, (const char *)order->subject.data);
  }
  judging->ruling->preferred = then.slot->level + 1U;
  return STATUS_OK;
}

static enum status judge_name(const struct judging *judging) {
  enum status st = STATUS_OK;
  const struct store_order *order = judging->order;
  struct store_ruling *ruling = judging->ruling;
  struct store_name name;
  bool is_usable = order->beside.num_usable > 0;

  ruling->preferred = order->preferred;
  ruling->label = order->beside.label;
  if (order->beside.label == NULL) {
    st = store_find_exact(judging->reader, &name, order->subject);
    if (st != STATUS_OK) {
      return errmsg_set(judging->err, st, "%.*s is not a name in this store, or cannot be read",
                        (int)order->subject.len, (const char *)order->subject.data);
    }
    if (order->preferred == 0) {
      TRY(choose_level(judging, &name));
    }
    ruling->label = store_level_name(ruling->preferred - 1);
    if (!has_level(&name, ruling->preferred - 1)) {
      TRY(errmsg_set(judging->err, STATUS_NOT_FOUND, "%.*s has no level \"%s\"",
                     (int)order->subject.len, (const char *)order->subject.data, ruling->label));
    }
    is_usable = has_usable(judging->reader, &name, ruling->preferred - 1, judging->now_s);
  }
  ruling->was_forced = !is_usable;
  if (!is_usable && !order->is_forced) {
    TRY(errmsg_set(judging->err, STATUS_REFUSED,
                   "the level \"%s\" of %.*s has nothing usable; with force, it will be served as "
                   "soon as it has",
                   ruling->label, (int)order->subject.len, (const char *)order->subject.data));
  }

out:
  return st;
}

struct counting {
  const struct judging *judging;
  uint64_t num_done;
  uint64_t num_all;
  bool is_ended;
};

static bool count_name(void *arg, struct bytes key, const struct store_name *name) {
  struct counting *counting = arg;
  const struct judging *judging = counting->judging;
  const struct store_watcher *watcher = judging->watcher;
  (void)key;
  judging->ruling->num_usable +=
      has_usable(judging->reader, name, judging->order->preferred - 1, judging->now_s) ? 1 : 0;
  judging->ruling->num_names++;
  counting->num_done++;
  if (watcher != NULL && counting->num_done % COUNT_EVERY == 0 &&
      !watcher->progress(watcher->arg, counting->num_done, counting->num_all)) {
    counting->is_ended = true;
  }
  return !counting->is_ended;
}

static enum status judge_fleet(const struct judging *judging) {
  enum status st = STATUS_OK;
  const struct store_order *order = judging->order;
  struct store_ruling *ruling = judging->ruling;
  struct counting counting = {.judging = judging};
  struct store_counts counts;

  if (order->preferred == 0) {
    return errmsg_set(judging->err, STATUS_FORMAT, "to which level shall all names go?");
  }
  ruling->preferred = order->preferred;
  ruling->label =
      order->beside.label != NULL ? order->beside.label : store_level_name(order->preferred - 1);
  ruling->num_names = order->beside.num_names;
  ruling->num_usable = order->beside.num_usable;
  TRY(store_count(&counts, judging->reader, judging->err));
  counting.num_all = counts.num_names;
  if (store_each_name(judging->reader, count_name, &counting) != STATUS_OK) {
    TRY(errmsg_set(judging->err, STATUS_FORMAT,
                   "the store cannot be read: see `deputyctl store verify`"));
  }
  if (counting.is_ended) {
    TRY(STATUS_CLOSED);
  }
  ruling->has_counts = true;
  ruling->was_forced = ruling->num_usable == 0;
  if (ruling->num_usable == 0 && !order->is_forced) {
    TRY(errmsg_set(judging->err, STATUS_REFUSED,
                   "none of %" PRIu64
                   " names has anything usable at the level \"%s\"; with force, each goes there as "
                   "soon as it has",
                   ruling->num_names, ruling->label));
  }

out:
  return st;
}

// --- keys and CAs ----------------------------------------------------------------------

// drill counts who would be left with nothing.
static enum status drill(const struct judging *judging) {
  const struct store_order *order = judging->order;
  const struct store_watcher *watcher = judging->watcher;
  struct store_ruling *ruling = judging->ruling;
  enum status st = store_drill(&ruling->drill, judging->reader, order->level, order->subject,
                               judging->now_s, watcher != NULL ? watcher->progress : NULL,
                               watcher != NULL ? watcher->arg : NULL);
  if (st == STATUS_NOT_FOUND && order->beside.has_subject) {
    struct store_counts counts = {0};
    st = store_count(&counts, judging->reader, judging->err);
    ruling->drill.num_names = counts.num_names;
  }
  if (st == STATUS_CLOSED) {
    return st;
  }
  if (st != STATUS_OK) {
    return errmsg_set(judging->err, st, "the drill failed (%s): see `deputyctl store verify`",
                      status_name(st));
  }
  ruling->has_counts = true;
  ruling->num_names = order->beside.num_names + ruling->drill.num_names;
  ruling->num_moved = order->beside.num_moved + ruling->drill.num_moved;
  ruling->num_partly = order->beside.num_partly + ruling->drill.num_partly;
  ruling->num_without_backup = order->beside.num_without_backup + ruling->drill.num_without_backup;
  ruling->was_forced = ruling->num_without_backup > 0;
  return STATUS_OK;
}

static enum status judge_service(const struct judging *judging) {
  enum status st = STATUS_OK;
  const struct store_order *order = judging->order;
  const struct store_ruling *ruling = judging->ruling;
  if (order->preferred != 0 || order->dc != STORE_DC_LEAVE) {
    return errmsg_set(judging->err, STATUS_FORMAT,
                      "a level is for names and the fleet: a key or CA goes out of service, and "
                      "each name to its first usable chain");
  }
  if (order->is_in_service && order->is_compromised) {
    return errmsg_set(judging->err, STATUS_FORMAT, "what is compromised cannot be in service");
  }
  if (order->is_in_service || order->is_forced) {
    return STATUS_OK;
  }
  TRY(drill(judging));
  if (ruling->num_without_backup > 0) {
    const char *first = order->beside.first;
    TRY(errmsg_set(judging->err, STATUS_REFUSED,
                   "%" PRIu64 " of %" PRIu64
                   " names would be left with nothing usable (the first is %s); give them another "
                   "chain, or use force",
                   ruling->num_without_backup, ruling->num_names,
                   first != NULL ? first : ruling->drill.without_backup[0]));
  }

out:
  return st;
}

// --- writing ---------------------------------------------------------------------------

static struct store_change change_of(const struct store_order *order, unsigned preferred) {
  struct store_change change = {
      .level = (uint8_t)order->level,
      .preferred = STORE_LEAVE,
      .dc = order->dc == STORE_DC_LEAVE ? STORE_LEAVE : (uint8_t)order->dc,
      .is_compromised = order->is_compromised,
      .author_uid = order->author_uid,
      .until_s = order->until_s,
      .subject = order->subject,
      .reason = bytes_text(order->reason),
      .author = bytes_text(order->author),
  };
  if (is_of_id(order)) {
    change.service = order->is_in_service ? STATE_IN_SERVICE : STATE_OUT_OF_SERVICE;
  } else if (order->dc == STORE_DC_LEAVE) {
    change.preferred = (uint8_t)preferred;
  }
  return change;
}

// find_in_force: the last change that stands for the subject and speaks of the same thing (a
// level of chains, or credentials) is the one that counts.
static bool find_in_force(uint64_t *out_id, const struct judging *judging,
                          const struct store_change *wanted) {
  uint64_t ids[STORE_MAX_STANDING];
  size_t num = 0;
  if (store_standing(judging->reader, ids, &num, judging->order->level, judging->order->subject,
                     judging->now_s) != STATUS_OK) {
    return false;
  }
  while (num-- > 0) {
    struct store_change there;
    if (store_get_change(judging->reader, &there, ids[num]) != STATUS_OK) {
      return false;
    }
    if ((there.dc != STORE_LEAVE) == (wanted->dc != STORE_LEAVE)) {
      *out_id = ids[num];
      return there.service == wanted->service && there.is_compromised == wanted->is_compromised &&
             there.preferred == wanted->preferred && there.dc == wanted->dc &&
             there.until_s == wanted->until_s;
    }
  }
  return false;
}

static enum status keep(const struct judging *judging) {
  enum status st = STATUS_OK;
  struct store_ruling *ruling = judging->ruling;
  const struct store_change change = change_of(judging->order, ruling->preferred);
  uint64_t id = 0;
  if (find_in_force(&id, judging, &change)) {
    ruling->is_already = true;
    ruling->id = id;
    return STATUS_OK;
  }
  if (change.service == STATE_OUT_OF_SERVICE && judging->order->is_forced) {
    // At once, and counted then by the snapshot from before.
    st = store_apply(judging->store, &ruling->id, &change, judging->now_s, judging->err);
    if (st == STATUS_OK) {
      (void)!drill(judging);
    }
    if (st != STATUS_UNAVAILABLE) {
      return st;
    }
  }
  // The map can only be made larger while nobody looks.
  store_reader_park(judging->reader);
  return store_apply(judging->store, &ruling->id, &change, judging->now_s, judging->err);
}

enum status store_switch(struct store_ruling *out, struct store *store, struct store_reader *reader,
                         const struct store_order *order, int64_t now_s,
                         const struct store_watcher *watcher, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct judging judging = {out, store, reader, order, now_s, watcher, err};
  *out = (struct store_ruling){0};
  if (is_of_id(order)) {
    TRY(judge_service(&judging));
  } else {
    if (order->is_compromised || order->is_in_service) {
      TRY(errmsg_set(err, STATUS_FORMAT, "to be in service, or compromised, is for keys and CAs"));
    }
    if (order->dc == STORE_DC_LEAVE) {
      TRY(order->level == STATE_LEVEL_NAME ? judge_name(&judging) : judge_fleet(&judging));
    }
  }
  TRY(keep(&judging));

out:
  return st;
}

void store_ruling_cleanup(struct store_ruling *ruling) { store_drill_cleanup(&ruling->drill); }

enum status store_restore(uint64_t out_ids[STORE_MAX_STANDING], size_t *out_num,
                          struct store *store, struct store_reader *reader, enum state_level level,
                          struct bytes subject, const char *author, int64_t now_s,
                          struct errmsg *err) {
  enum status st = STATUS_OK;
  uint64_t ids[STORE_MAX_STANDING];
  size_t num = 0;

  *out_num = 0;
  TRY(store_standing(reader, ids, &num, level, subject, now_s));
  for (size_t i = 0; i < num; i++) {
    struct store_change change;
    TRY(store_get_change(reader, &change, ids[i]));
    if (change.dc == STORE_LEAVE) {
      out_ids[(*out_num)++] = ids[i];
    }
  }
  if (*out_num == 0) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND, "no switch stands for this %s", state_level_name(level)));
  }
  store_reader_park(reader);
  TRY(store_undo_all(store, out_ids, *out_num, author, now_s, err));

out:
  return st;
}
