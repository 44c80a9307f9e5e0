// SPDX-License-Identifier: Apache-2.0
#include "certmanager/switcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certmanager/audit.h"
#include "certmanager/stats.h"
#include "certstore/chain.h"
#include "certstore/store_write.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#define MAX_JUDGED 1000u  // in one call, before others get the loop
#define FIRST_ROOM 64u

const char *switch_verdict_name(enum switch_verdict verdict) {
  static const char *const names[SWITCH_NUM_VERDICTS] = {
      [SWITCH_NOT_JUDGED] = "not_judged",
      [SWITCH_MADE] = "made",
      [SWITCH_WAITS] = "waits",
      [SWITCH_TOO_MANY] = "too_many",
      [SWITCH_OUT_ALREADY] = "out_already",
      [SWITCH_KEPT_IN] = "kept_in",
      [SWITCH_RESTORED] = "restored",
      [SWITCH_GONE] = "gone",
      [SWITCH_FAILED] = "failed",
  };
  return (unsigned)verdict < SWITCH_NUM_VERDICTS ? names[verdict] : "?";
}

enum switch_verdict switch_judge(const struct switch_case *of, struct ceiling *ceiling,
                                 uint64_t max, int64_t monotonic_s) {
  if (of->said == STATE_OUT_OF_SERVICE) {
    return SWITCH_OUT_ALREADY;
  }
  if (of->said == STATE_IN_SERVICE) {
    return SWITCH_KEPT_IN;
  }
  if (of->was_restored) {
    return SWITCH_RESTORED;
  }
  switch (ceiling_take(ceiling, of->num_names, max, monotonic_s)) {
    case CEILING_TAKEN:
      return SWITCH_MADE;
    case CEILING_WAIT:
      return SWITCH_WAITS;
    default:
      return SWITCH_TOO_MANY;
  }
}

// --- sightings ---------------------------------------------------------------------------

void switcher_init(struct switcher *switcher, struct sink *audit, struct stats *stats) {
  *switcher = (struct switcher){.audit = audit, .stats = stats};
}

enum status switcher_see(uint32_t *out_place, struct switcher *switcher,
                         const struct sighting *sighting) {
  size_t place = switcher->num;
  *out_place = 0;
  if (switcher->num_free > 0) {
    for (place = 0; switcher->sightings[place].chain != 0; place++) {
    }
    switcher->num_free--;
    switcher->next = place < switcher->next ? place : switcher->next;
  } else if (switcher->num == switcher->room) {
    const size_t room = switcher->room == 0 ? FIRST_ROOM : switcher->room * 2;
    struct sighting *sightings = NULL;
    if (room >= UINT32_MAX) {
      return STATUS_LIMIT;
    }
    sightings = reallocarray(switcher->sightings, room, sizeof(*sightings));
    if (sightings == NULL) {
      return STATUS_MEMORY;
    }
    switcher->sightings = sightings;
    switcher->room = room;
  }
  switcher->num += place == switcher->num ? 1 : 0;
  switcher->sightings[place] = *sighting;
  switcher->sightings[place].verdict = SWITCH_NOT_JUDGED;
  *out_place = (uint32_t)place + 1;
  return STATUS_OK;
}

void switcher_forget(struct switcher *switcher, uint32_t place) {
  if (place > 0 && place <= switcher->num && switcher->sightings[place - 1].chain != 0) {
    switcher->sightings[place - 1] = (struct sighting){0};
    switcher->num_free++;
  }
}

size_t switcher_num(const struct switcher *switcher) { return switcher->num - switcher->num_free; }

void switcher_cleanup(struct switcher *switcher) {
  free(switcher->sightings);
  switcher->sightings = NULL;
  switcher->num = 0;
  switcher->room = 0;
  switcher->num_free = 0;
}

// --- what is known of a key --------------------------------------------------------------

struct name_count {
  const struct catalog *catalog;
  uint64_t num;
};

static bool count_chain(void *arg, uint64_t chain) {
  struct name_count *count = arg;
  const struct catalog_entry *entry = catalog_find(count->catalog, chain);
  count->num += entry == NULL ? 0 : entry->num_names;
  return true;
}

// Chains of one key are in one level of a name at most, so nobody is counted twice: but
// for an RSA and another chain, whose keys differ.
static enum status count_names(uint64_t *out, const struct store_reader *reader,
                               const struct catalog *catalog, const uint8_t key_id[32]) {
  struct name_count count = {.catalog = catalog};
  enum status st = store_each_chain_of_key(reader, key_id, count_chain, &count);
  *out = count.num;
  return st;
}

static bool is_ours(const struct store_change *change) {
  return change->level == STATE_LEVEL_KEY && change->subject.len == 32 &&
         change->author.len == strlen(SWITCHER_AUTHOR) &&
         memcmp(change->author.data, SWITCHER_AUTHOR, change->author.len) == 0;
}

struct search {
  const uint8_t *key_id;
  bool is_found;
};

static bool find_restored(void *arg, uint64_t id, const struct store_change *change) {
  struct search *search = arg;
  (void)id;
  search->is_found =
      is_ours(change) && change->is_undone && memcmp(change->subject.data, search->key_id, 32) == 0;
  return !search->is_found;
}

struct recall {
  struct switcher *switcher;
  const struct store_reader *reader;
  const struct catalog *catalog;
  int64_t now_s;
  int64_t monotonic_s;
  enum status st;
};

static bool recall_change(void *arg, uint64_t id, const struct store_change *change) {
  struct recall *recall = arg;
  const int64_t age_s = recall->now_s - change->at_s;
  uint64_t num = 0;
  (void)id;
  if (is_ours(change) && age_s <= CEILING_WINDOW_S) {
    recall->st = count_names(&num, recall->reader, recall->catalog, change->subject.data);
    // A clock that was set back makes it younger than it is, never older.
    ceiling_note(&recall->switcher->ceiling, num, recall->monotonic_s - (age_s > 0 ? age_s : 0));
  }
  return recall->st == STATUS_OK;
}

enum status switcher_recall(struct switcher *switcher, const struct store_reader *reader,
                            const struct catalog *catalog, int64_t now_s, int64_t monotonic_s) {
  struct recall recall = {.switcher = switcher,
                          .reader = reader,
                          .catalog = catalog,
                          .now_s = now_s,
                          .monotonic_s = monotonic_s};
  enum status st = store_each_change(reader, recall_change, &recall);
  return st != STATUS_OK ? st : recall.st;
}

// --- judging -----------------------------------------------------------------------------

static enum switch_verdict judge(struct planned_switch *plan, struct switcher *switcher,
                                 const struct store_reader *reader, const struct catalog *catalog,
                                 uint64_t max, int64_t now_s, int64_t monotonic_s) {
  struct switch_case of = {0};
  struct store_chain chain;
  struct store_words words;
  struct search search = {.key_id = plan->key_id};
  enum status st = store_get_chain(reader, &chain, plan->chain);

  if (st == STATUS_NOT_FOUND) {
    return SWITCH_GONE;
  }
  if (st != STATUS_OK) {
    return SWITCH_FAILED;
  }
  memcpy(plan->key_id, chain.facts.key_id, sizeof(plan->key_id));
  if (store_get_words(reader, &words, STATE_LEVEL_KEY, bytes_of(plan->key_id, 32), now_s) !=
          STATUS_OK ||
      count_names(&of.num_names, reader, catalog, plan->key_id) != STATUS_OK) {
    return SWITCH_FAILED;
  }
  of.said = (enum state_service)words.service;
  if (of.said == STATE_SILENT) {
    if (store_each_change(reader, find_restored, &search) != STATUS_OK) {
      return SWITCH_FAILED;
    }
    of.was_restored = search.is_found;
  }
  plan->num_names = of.num_names;
  return switch_judge(&of, &switcher->ceiling, max, monotonic_s);
}

// note tells of a verdict that is not the last one.
static void note(struct switcher *switcher, const struct planned_switch *plan,
                 enum switch_verdict verdict, const struct store_reader *reader) {
  struct sighting *sighting = &switcher->sightings[plan->place];
  struct store_chain chain;
  struct jsonline line;

  if (verdict == SWITCH_OUT_ALREADY && sighting->verdict == SWITCH_MADE) {
    return;  // by us
  }
  if (sighting->verdict == verdict) {
    return;
  }
  sighting->verdict = (uint8_t)verdict;
  counter_add(&switcher->stats->num_verdicts[verdict], 1);
  audit_begin(&line, "switch_withheld", plan->chain,
              store_get_chain(reader, &chain, plan->chain) == STATUS_OK ? &chain : NULL);
  jsonline_cstr(&line, "why", switch_verdict_name(verdict));
  jsonline_int(&line, "num_names", (int64_t)plan->num_names);
  audit_end(switcher->audit, &line);
  if (verdict == SWITCH_TOO_MANY) {
    log_error(0, "switch_withheld",
              "chain=%llu names=%llu why=\"more names than revocation.ceiling: a person has to "
              "switch\"",
              (unsigned long long)plan->chain, (unsigned long long)plan->num_names);
  }
}

static bool is_planned(const struct switcher *switcher, const uint8_t key_id[32]) {
  for (size_t i = 0; i < switcher->num_batch; i++) {
    if (memcmp(switcher->batch[i].key_id, key_id, 32) == 0) {
      return true;
    }
  }
  return false;
}

// has_same_key: is the chain's key in the batch? Then it is judged when that is done.
static bool has_planned_key(const struct switcher *switcher, const struct store_reader *reader,
                            uint64_t chain_id) {
  struct store_chain chain;
  return switcher->num_batch > 0 && store_get_chain(reader, &chain, chain_id) == STATUS_OK &&
         is_planned(switcher, chain.facts.key_id);
}

bool switcher_judge(struct switcher *switcher, const struct store_reader *reader,
                    const struct catalog *catalog, uint64_t ceiling, int64_t until_ms,
                    int64_t now_s, int64_t monotonic_s) {
  switcher->num_batch = 0;
  switcher->until_s = until_ms > 0 ? now_s + (until_ms + 999) / 1000 : 0;
  if (switcher->next >= switcher->num && monotonic_s >= switcher->again_s) {
    switcher->next = 0;
    switcher->again_s = monotonic_s + SWITCHER_AGAIN_S;
  }
  for (unsigned i = 0;
       i < MAX_JUDGED && switcher->next < switcher->num && switcher->num_batch < SWITCHER_MAX_BATCH;
       i++) {
    const struct sighting *sighting = &switcher->sightings[switcher->next];
    struct planned_switch *plan = &switcher->batch[switcher->num_batch];
    *plan = (struct planned_switch){
        .place = switcher->next, .chain = sighting->chain, .sighting = *sighting};
    if (plan->chain != 0) {
      if (has_planned_key(switcher, reader, plan->chain)) {
        break;
      }
      const enum switch_verdict verdict =
          judge(plan, switcher, reader, catalog, ceiling, now_s, monotonic_s);
      if (verdict == SWITCH_MADE) {
        switcher->num_batch++;
      } else {
        note(switcher, plan, verdict, reader);
      }
      if (verdict == SWITCH_WAITS) {
        break;  // and those behind it as well: first come, first switched
      }
    }
    switcher->next++;
  }
  return switcher->num_batch > 0;
}

// --- making it so ------------------------------------------------------------------------

static const char *source_name(uint8_t source) { return source == SIGHTING_OCSP ? "ocsp" : "crl"; }

static void apply(struct switcher *switcher, struct planned_switch *plan, struct store *store) {
  char reason[STORE_TEXT_MAX_LEN + 1];
  char revoked_at[CLOCK_RFC3339_LEN] = "an unknown time";
  const struct sighting *sighting = &plan->sighting;

  if (sighting->revoked_s != 0) {
    (void)clock_format_rfc3339(revoked_at, sighting->revoked_s);
  }
  (void)snprintf(reason, sizeof(reason),
                 "its CA has revoked the leaf of chain %llu at %s (%s), says %s",
                 (unsigned long long)plan->chain, revoked_at, audit_reason_name(sighting->reason),
                 sighting->source == SIGHTING_OCSP ? "its OCSP responder" : "its revocation list");
  const struct store_change change = {
      .level = STATE_LEVEL_KEY,
      .service = STATE_OUT_OF_SERVICE,
      .preferred = STORE_LEAVE,
      .dc = STORE_LEAVE,
      .is_compromised = chain_reason_ends_sessions(sighting->reason),
      .author_uid = getuid(),
      .until_s = switcher->until_s,
      .subject = bytes_of(plan->key_id, sizeof(plan->key_id)),
      .reason = bytes_text(reason),
      .author = bytes_text(SWITCHER_AUTHOR),
  };
  plan->st = store_apply(store, &plan->change_id, &change, clock_wall_s(), &switcher->err);
}

static void tell(struct switcher *switcher, const struct planned_switch *plan,
                 const struct store_reader *reader) {
  struct jsonline line;
  struct store_chain chain;
  const bool has_chain =
      reader != NULL && store_get_chain(reader, &chain, plan->chain) == STATUS_OK;

  audit_begin(&line, plan->st == STATUS_OK ? "switch" : "switch_failed", plan->chain,
              has_chain ? &chain : NULL);
  jsonline_int(&line, "num_names", (int64_t)plan->num_names);
  jsonline_cstr(&line, "source", source_name(plan->sighting.source));
  jsonline_cstr(&line, "reason", audit_reason_name(plan->sighting.reason));
  if (plan->st == STATUS_OK) {
    jsonline_int(&line, "switch", (int64_t)plan->change_id);
    audit_time(&line, "until", switcher->until_s);
  } else {
    jsonline_cstr(&line, "why", switcher->err.text);
  }
  audit_end(switcher->audit, &line);
}

void switcher_apply(struct switcher *switcher, struct store *store) {
  struct store_reader *reader = NULL;
  switcher->err = (struct errmsg){0};
  for (size_t i = 0; i < switcher->num_batch; i++) {
    apply(switcher, &switcher->batch[i], store);
  }
  if (store_reader_new(&reader, store, NULL) != STATUS_OK) {
    reader = NULL;
  }
  for (size_t i = 0; i < switcher->num_batch; i++) {
    tell(switcher, &switcher->batch[i], reader);
  }
  store_reader_free(reader);
}

void switcher_done(struct switcher *switcher) {
  for (size_t i = 0; i < switcher->num_batch; i++) {
    const struct planned_switch *plan = &switcher->batch[i];
    struct sighting *sighting = &switcher->sightings[plan->place];
    const enum switch_verdict verdict = plan->st == STATUS_OK ? SWITCH_MADE : SWITCH_FAILED;
    counter_add(&switcher->stats->num_verdicts[verdict], 1);
    if (plan->st == STATUS_OK) {
      counter_add(&switcher->stats->num_names_moved, plan->num_names);
      log_warn(0, "switched", "chain=%llu switch=%llu names=%llu reason=%s",
               (unsigned long long)plan->chain, (unsigned long long)plan->change_id,
               (unsigned long long)plan->num_names, audit_reason_name(plan->sighting.reason));
    } else {
      log_error(0, "switch_failed", "chain=%llu why=\"%s\"", (unsigned long long)plan->chain,
                switcher->err.text);
    }
    if (sighting->chain == plan->chain) {  // it may have gone meanwhile
      sighting->verdict = (uint8_t)verdict;
    }
  }
  switcher->num_batch = 0;
}
