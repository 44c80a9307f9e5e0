// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/staple_fetch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/revocation/due.h"
#include "common/revocation/sources.h"

#define DEFAULT_MAX_OPEN 32u
#define DEFAULT_MAX_OPEN_PER_RESPONDER 4u
#define MAX_RESPONDERS 1024u  // the last is for all that are one too many
#define NO_RESPONDER 0xffffu
#define NO_ITEM 0xffffffffu
#define FIRST_ROOM 64u

#define MAX_STARTS_PER_ROUND 64u  // loads of a chain, before others get the loop
#define MAX_SLEEP_S 60            // the wall clock may be set meanwhile

#define RETRY_FIRST_S 60
#define RETRY_LAST_S 3600
#define RETRY_LEAST_S 30
#define RETRY_AFTER_MAX_S INT64_C(21600)
#define MAX_FAILURES 16u
#define BREAK_AFTER 3u
#define BREAK_FIRST_S 30
#define BREAK_LAST_S 900

enum item_state { ITEM_FREE, ITEM_IDLE, ITEM_WAITING, ITEM_ASKING, ITEM_GONE };

// One chain. ITEM_GONE: removed while it stood in a queue, which frees it, or while an
// answer about it was being checked, after which it is freed.
struct item {
  uint64_t chain;
  uint32_t next;  // in its responder's queue, or among the free
  uint16_t responder;
  uint8_t num_failures;
  uint8_t state;
};

struct responder {
  char *origin;  // scheme, host and port
  uint32_t first;
  uint32_t last;  // of those who wait for it
  uint32_t num_open;
  uint32_t num_failures;  // in a row, of nobody answering
  int64_t closed_until_s;
};

// A question on its way.
struct question {
  LIST_ENTRY(question) link;
  struct staple_fetch *fetch;
  uint32_t item;
  uint16_t responder;
  int64_t this_update_s;
  int64_t next_update_s;
  struct ocsp_ask *ask;
};

struct staple_fetch {
  struct staple_fetch_options options;
  struct timer timer;
  struct due due;
  int64_t base_s;  // due times count from here
  struct item *items;
  uint32_t num_items;  // ever used
  uint32_t num_room;
  uint32_t first_free;
  struct responder *responders;
  uint32_t num_responders;
  uint32_t turn;  // whose queue is looked at first
  LIST_HEAD(, question) questions;
  struct staple_fetch_stats stats;
};

const char *staple_outcome_name(enum staple_outcome outcome) {
  static const char *const names[STAPLE_NUM_OUTCOMES] = {
      [STAPLE_NEW] = "new",
      [STAPLE_SAME] = "same",
      [STAPLE_REVOKED] = "revoked",
      [STAPLE_UNKNOWN] = "unknown",
      [STAPLE_UNFIT] = "unfit",
      [STAPLE_FAILED] = "failed",
      [STAPLE_NO_SOURCE] = "no_source",
  };
  return (unsigned)outcome < STAPLE_NUM_OUTCOMES ? names[outcome] : "?";
}

// --- times -----------------------------------------------------------------------------

// by_chance gives a number of `least` to `most`.
static int64_t by_chance(int64_t least, int64_t most) {
  return most <= least ? least : least + (int64_t)arc4random_uniform((uint32_t)(most - least) + 1u);
}

int64_t staple_due_s(int64_t this_update_s, int64_t next_update_s, int64_t fresh_s, int64_t now_s) {
  const int64_t life_s = next_update_s - this_update_s;
  const int64_t latest_s = this_update_s + life_s * 3 / 4;
  int64_t due_s = 0;

  if (life_s <= 0) {
    return now_s;
  }
  due_s = this_update_s + by_chance(life_s * 9 / 20, life_s * 11 / 20);
  if (due_s < now_s + fresh_s) {
    due_s = now_s + fresh_s + by_chance(0, life_s / 20);
  }
  return due_s > latest_s ? latest_s : due_s;
}

// backoff_s: twice as long each time, by chance half of that or all.
static int64_t backoff_s(unsigned num_failures, int64_t first_s, int64_t last_s) {
  int64_t delay_s = first_s;
  for (unsigned i = 1; i < num_failures && delay_s < last_s; i++) {
    delay_s *= 2;
  }
  delay_s = delay_s > last_s ? last_s : delay_s;
  return by_chance(delay_s / 2, delay_s);
}

static int64_t retry_s(const struct item *item, const struct question *question,
                       const struct ocsp_ask_result *ask, int64_t now_s) {
  int64_t delay_s = backoff_s(item->num_failures, RETRY_FIRST_S, RETRY_LAST_S);
  const int64_t left_s = question->next_update_s - now_s;

  if (left_s > 0 && delay_s > left_s / 8) {
    delay_s = left_s / 8 < RETRY_LEAST_S ? RETRY_LEAST_S : left_s / 8;
  }
  if (delay_s < ask->retry_after_s) {
    delay_s = ask->retry_after_s < RETRY_AFTER_MAX_S ? ask->retry_after_s : RETRY_AFTER_MAX_S;
  }
  return now_s + delay_s;
}

static uint32_t from_base(const struct staple_fetch *fetch, int64_t at_s) {
  const int64_t since_s = at_s - fetch->base_s;
  return since_s < 0 ? 0 : since_s > UINT32_MAX ? UINT32_MAX : (uint32_t)since_s;
}

static void set_due(struct staple_fetch *fetch, uint32_t index, int64_t at_s) {
  fetch->items[index].state = ITEM_IDLE;
  // It was in before, when it was added.
  CHECK(due_set(&fetch->due, index, from_base(fetch, at_s)) == STATUS_OK);
}

// --- items -------------------------------------------------------------------------------

static void let_go(struct staple_fetch *fetch, uint32_t index) {
  due_remove(&fetch->due, index);
  fetch->items[index] = (struct item){.next = fetch->first_free};
  fetch->first_free = index;
  fetch->stats.num_chains--;
}

static enum status take_item(uint32_t *out, struct staple_fetch *fetch) {
  if (fetch->first_free != NO_ITEM) {
    *out = fetch->first_free;
    fetch->first_free = fetch->items[*out].next;
    return STATUS_OK;
  }
  if (fetch->num_items == fetch->num_room) {
    const uint32_t room =
        fetch->num_room < FIRST_ROOM ? FIRST_ROOM : fetch->num_room + fetch->num_room / 2;
    struct item *items = NULL;
    if (room > DUE_MAX_ITEM) {
      return STATUS_LIMIT;
    }
    items = realloc(fetch->items, (size_t)room * sizeof(*items));
    if (items == NULL) {
      return STATUS_MEMORY;
    }
    fetch->items = items;
    fetch->num_room = room;
  }
  *out = fetch->num_items++;
  return STATUS_OK;
}

// --- responders ----------------------------------------------------------------------------

// origin_len: scheme, host and port of a URL.
static size_t origin_len(const char *url) {
  const char *host = strstr(url, "//");
  return host == NULL ? strlen(url) : (size_t)(host - url) + 2 + strcspn(host + 2, "/?#");
}

// find_responder finds or makes the responder of a URL. One too many shares the last.
static enum status find_responder(uint16_t *out, struct staple_fetch *fetch, const char *url) {
  const size_t len = origin_len(url);
  struct responder *more = NULL;
  char *origin = NULL;

  for (uint32_t i = 0; i < fetch->num_responders; i++) {
    const char *known = fetch->responders[i].origin;
    if (strncasecmp(known, url, len) == 0 && known[len] == '\0') {
      *out = (uint16_t)i;
      return STATUS_OK;
    }
  }
  if (fetch->num_responders == MAX_RESPONDERS) {
    *out = MAX_RESPONDERS - 1;
    return STATUS_OK;
  }
  origin = strndup(url, len);
  more = realloc(fetch->responders, (fetch->num_responders + 1) * sizeof(*more));
  if (origin == NULL || more == NULL) {
    free(origin);
    fetch->responders = more != NULL ? more : fetch->responders;
    return STATUS_MEMORY;
  }
  fetch->responders = more;
  more[fetch->num_responders] =
      (struct responder){.origin = origin, .first = NO_ITEM, .last = NO_ITEM};
  *out = (uint16_t)fetch->num_responders++;
  return STATUS_OK;
}

static bool may_ask(const struct staple_fetch *fetch, const struct responder *responder,
                    int64_t now_s) {
  const size_t max = responder->num_failures > 0 ? 1 : fetch->options.max_open_per_responder;
  return now_s >= responder->closed_until_s && responder->num_open < max;
}

static void join_queue(struct staple_fetch *fetch, uint32_t index, uint16_t number) {
  struct responder *responder = &fetch->responders[number];

  fetch->items[index].state = ITEM_WAITING;
  fetch->items[index].next = NO_ITEM;
  fetch->items[index].responder = number;
  if (responder->last == NO_ITEM) {
    responder->first = index;
  } else {
    fetch->items[responder->last].next = index;
  }
  responder->last = index;
  fetch->stats.num_waiting++;
}

static uint32_t leave_queue(struct staple_fetch *fetch, struct responder *responder) {
  const uint32_t index = responder->first;

  responder->first = fetch->items[index].next;
  if (responder->first == NO_ITEM) {
    responder->last = NO_ITEM;
  }
  fetch->stats.num_waiting--;
  return index;
}

static void note_answer(struct responder *responder, const struct ocsp_ask_result *ask,
                        int64_t now_s) {
  responder->num_open--;
  if (!fetch_is_transport(ask->fetch_fault)) {
    responder->num_failures = 0;
    responder->closed_until_s = 0;
    return;
  }
  responder->num_failures += responder->num_failures < MAX_FAILURES ? 1 : 0;
  if (responder->num_failures >= BREAK_AFTER) {
    responder->closed_until_s =
        now_s + backoff_s(responder->num_failures - BREAK_AFTER + 1, BREAK_FIRST_S, BREAK_LAST_S);
  }
}

// --- asking ------------------------------------------------------------------------------

static void pump(struct staple_fetch *fetch);

// outcome_of, and when to ask again.
static enum staple_outcome judge(int64_t *out_next_s, struct item *item,
                                 const struct question *question, const struct ocsp_ask_result *ask,
                                 int64_t now_s) {
  const struct ocsp_answer *answer = &ask->answer;
  const int64_t fresh_s = ask->freshness.fresh_s;
  enum staple_outcome outcome = STAPLE_FAILED;

  if (ocsp_ask_is_usable(ask) && ask->is_unchanged && question->next_update_s > now_s) {
    item->num_failures = 0;
    *out_next_s = staple_due_s(question->this_update_s, question->next_update_s, fresh_s, now_s);
    *out_next_s = *out_next_s <= now_s ? now_s + RETRY_FIRST_S : *out_next_s;
    return STAPLE_SAME;
  }
  if (ocsp_ask_is_usable(ask) && ocsp_may_staple(answer, ask->fault, now_s)) {
    outcome = answer->this_update_s == question->this_update_s ? STAPLE_SAME : STAPLE_NEW;
    *out_next_s = staple_due_s(answer->this_update_s, answer->next_update_s, fresh_s, now_s);
    if (*out_next_s > now_s) {
      item->num_failures = 0;
      return outcome;
    }
    // The CA has nothing newer yet, though half of the life is over: as after a failure.
  } else if (ask->fetch_fault == FETCH_NO_FAULT && ocsp_says_revoked(answer, ask->fault)) {
    outcome = STAPLE_REVOKED;
  } else if (ocsp_ask_is_usable(ask) && !ask->is_unchanged) {
    outcome = answer->status == OCSP_UNKNOWN ? STAPLE_UNKNOWN : STAPLE_UNFIT;
  }
  item->num_failures = (uint8_t)(item->num_failures + (item->num_failures < MAX_FAILURES ? 1 : 0));
  *out_next_s = retry_s(item, question, ask, now_s);
  return outcome;
}

static void count(struct staple_fetch_stats *stats, const struct staple_result *result) {
  stats->num_outcomes[result->outcome]++;
  if (result->ask != NULL && result->outcome == STAPLE_FAILED) {
    if (result->ask->fetch_fault != FETCH_NO_FAULT) {
      stats->num_fetch_faults[result->ask->fetch_fault]++;
    } else {
      stats->num_ocsp_faults[result->ask->fault]++;
    }
  }
}

static void on_asked(void *arg, const struct ocsp_ask_result *ask) {
  struct question *question = arg;
  struct staple_fetch *fetch = question->fetch;
  const int64_t now_s = clock_wall_s();
  struct item *item = &fetch->items[question->item];
  const uint64_t chain = item->chain;
  struct staple_result result = {.ask = ask};

  LIST_REMOVE(question, link);
  fetch->stats.num_open--;
  note_answer(&fetch->responders[question->responder], ask, now_s);
  if (item->state == ITEM_GONE) {
    let_go(fetch, question->item);
    free(question);
    pump(fetch);
    return;
  }
  result.outcome = judge(&result.next_s, item, question, ask, now_s);
  if (fetch->options.poll_s > 0 && result.next_s > now_s + fetch->options.poll_s) {
    result.next_s = now_s + by_chance(fetch->options.poll_s - fetch->options.poll_s / 10,
                                      fetch->options.poll_s);
  }
  set_due(fetch, question->item, result.next_s);
  count(&fetch->stats, &result);
  free(question);
  fetch->options.done(fetch->options.arg, chain, &result);
  pump(fetch);
}

// give_up tells that this chain has nobody to ask, and lets it go.
static void give_up(struct staple_fetch *fetch, uint32_t index) {
  const uint64_t chain = fetch->items[index].chain;
  const struct staple_result result = {.outcome = STAPLE_NO_SOURCE};

  let_go(fetch, index);
  count(&fetch->stats, &result);
  fetch->options.done(fetch->options.arg, chain, &result);
}

static enum status start_job(struct staple_fetch *fetch, uint32_t index, uint16_t responder,
                             const char *url, const struct staple_work *work) {
  const struct ocsp_ask_wish wish = {
      .url = url,
      .leaf = work->leaf,
      .issuer = work->issuer,
      .min_this_update_s = work->this_update_s,
      // "Unchanged" is of use only while the one that is kept is.
      .etag = work->next_update_s > clock_wall_s() ? work->etag : NULL,
      .last_modified = work->next_update_s > clock_wall_s() ? work->last_modified : NULL,
      .limit_ms = fetch->options.limit_ms,
      .ca_path = fetch->options.ca_path,
      .jobs = fetch->options.jobs,
  };
  struct question *question = calloc(1, sizeof(*question));
  enum status st = STATUS_OK;

  if (question == NULL) {
    return STATUS_MEMORY;
  }
  question->fetch = fetch;
  question->item = index;
  question->responder = responder;
  question->this_update_s = work->this_update_s;
  question->next_update_s = work->next_update_s;
  st = ocsp_ask_start(&question->ask, fetch->options.http, &wish, on_asked, question, NULL);
  if (st != STATUS_OK) {
    free(question);
    return st;
  }
  LIST_INSERT_HEAD(&fetch->questions, question, link);
  fetch->items[index].state = ITEM_ASKING;
  fetch->items[index].responder = responder;
  fetch->responders[responder].num_open++;
  fetch->stats.num_open++;
  fetch->stats.num_asked++;
  return STATUS_OK;
}

// ask loads a chain that is due and asks for it, or lines it up.
static enum status ask(struct staple_fetch *fetch, uint32_t index) {
  enum status st = STATUS_OK;
  struct staple_work work = {0};
  struct leaf_sources sources = {0};
  uint16_t responder = 0;

  TRY(fetch->options.load(fetch->options.arg, fetch->items[index].chain, &work));
  TRY(leaf_sources_read(&sources, work.leaf));
  if (sources.ocsp_url == NULL || work.issuer.len == 0) {
    st = STATUS_NOT_FOUND;
    goto out;
  }
  TRY(find_responder(&responder, fetch, sources.ocsp_url));
  if (!may_ask(fetch, &fetch->responders[responder], clock_wall_s())) {
    join_queue(fetch, index, responder);
  } else {
    TRY(start_job(fetch, index, responder, sources.ocsp_url, &work));
  }

out:
  leaf_sources_cleanup(&sources);
  return st;
}

static void take_turn(struct staple_fetch *fetch, uint32_t index) {
  switch (ask(fetch, index)) {
    case STATUS_OK:
      break;
    case STATUS_NOT_FOUND:
    case STATUS_FORMAT:  // a leaf that cannot be read has nobody to ask
    case STATUS_LIMIT:
      give_up(fetch, index);
      break;
    default:
      set_due(fetch, index, clock_wall_s() + backoff_s(1, RETRY_FIRST_S, RETRY_LAST_S));
      break;
  }
}

// --- whose turn it is -----------------------------------------------------------------------

// serve_queues gives each responder that may be asked one question, in turn.
static bool serve_queues(struct staple_fetch *fetch, int64_t now_s) {
  const uint32_t num = fetch->num_responders;
  bool is_any = false;

  for (uint32_t i = 0; i < num && fetch->stats.num_open < fetch->options.max_open; i++) {
    struct responder *responder = &fetch->responders[(fetch->turn + i) % num];
    if (responder->first != NO_ITEM && may_ask(fetch, responder, now_s)) {
      const uint32_t index = leave_queue(fetch, responder);
      is_any = true;
      if (fetch->items[index].state == ITEM_GONE) {
        let_go(fetch, index);
      } else {
        take_turn(fetch, index);  // responders may have moved
      }
    }
  }
  fetch->turn = num == 0 ? 0 : (fetch->turn + 1) % num;
  return is_any;
}

// serve_due takes one that is due: to be asked for, or into a known queue.
static bool serve_due(struct staple_fetch *fetch, int64_t now_s) {
  struct due_entry first;
  const struct item *item = NULL;

  if (!due_first(&fetch->due, &first) || first.at_s > from_base(fetch, now_s) ||
      fetch->stats.num_open >= fetch->options.max_open) {
    return false;
  }
  due_remove(&fetch->due, first.item);
  item = &fetch->items[first.item];
  if (item->responder != NO_RESPONDER &&
      !may_ask(fetch, &fetch->responders[item->responder], now_s)) {
    join_queue(fetch, first.item, item->responder);
  } else {
    take_turn(fetch, first.item);
  }
  return true;
}

static int64_t sleep_s(const struct staple_fetch *fetch, int64_t now_s) {
  struct due_entry first;
  int64_t sleep = MAX_SLEEP_S;

  if (due_first(&fetch->due, &first)) {
    const int64_t left = (int64_t)first.at_s - (int64_t)from_base(fetch, now_s);
    sleep = left < sleep ? left : sleep;
  }
  for (uint32_t i = 0; i < fetch->num_responders; i++) {
    const struct responder *responder = &fetch->responders[i];
    if (responder->first != NO_ITEM && responder->closed_until_s > now_s &&
        responder->closed_until_s - now_s < sleep) {
      sleep = responder->closed_until_s - now_s;
    }
  }
  return sleep < 0 ? 0 : sleep;
}

static void pump(struct staple_fetch *fetch) {
  const int64_t now_s = clock_wall_s();
  bool is_more = true;

  for (unsigned i = 0; is_more && i < MAX_STARTS_PER_ROUND; i++) {
    is_more = serve_queues(fetch, now_s);
    is_more = serve_due(fetch, now_s) || is_more;
  }
  if (is_more) {
    timer_arm_ms(&fetch->timer, 0);
  } else if (fetch->stats.num_open >= fetch->options.max_open || fetch->stats.num_chains == 0) {
    timer_cancel(&fetch->timer);  // the next answer, or the next chain, goes on
  } else {
    timer_arm_ms(&fetch->timer, sleep_s(fetch, now_s) * 1000);
  }
}

static void on_timer(void *arg) { pump(arg); }

// --- for the caller ---------------------------------------------------------------------------

enum status staple_fetch_new(struct staple_fetch **out,
                             const struct staple_fetch_options *options) {
  struct staple_fetch *fetch = calloc(1, sizeof(*fetch));

  *out = NULL;
  if (fetch == NULL || timer_init(&fetch->timer, options->loop, on_timer, fetch) != STATUS_OK) {
    free(fetch);
    return STATUS_MEMORY;
  }
  fetch->options = *options;
  if (fetch->options.max_open == 0) {
    fetch->options.max_open = DEFAULT_MAX_OPEN;
  }
  if (fetch->options.max_open_per_responder == 0) {
    fetch->options.max_open_per_responder = DEFAULT_MAX_OPEN_PER_RESPONDER;
  }
  fetch->base_s = clock_wall_s();
  fetch->first_free = NO_ITEM;
  LIST_INIT(&fetch->questions);
  *out = fetch;
  return STATUS_OK;
}

void staple_fetch_free(struct staple_fetch *fetch) {
  struct question *question = NULL;

  if (fetch == NULL) {
    return;
  }
  while ((question = LIST_FIRST(&fetch->questions)) != NULL) {
    LIST_REMOVE(question, link);
    ocsp_ask_cancel(question->ask);
    free(question);
  }
  for (uint32_t i = 0; i < fetch->num_responders; i++) {
    free(fetch->responders[i].origin);
  }
  free(fetch->responders);
  free(fetch->items);
  due_cleanup(&fetch->due);
  timer_cleanup(&fetch->timer);
  free(fetch);
}

enum status staple_fetch_add(uint32_t *out_item, struct staple_fetch *fetch, uint64_t chain,
                             int64_t due_s) {
  enum status st = take_item(out_item, fetch);
  struct due_entry first;

  if (st != STATUS_OK) {
    return st;
  }
  fetch->items[*out_item] =
      (struct item){.chain = chain, .responder = NO_RESPONDER, .state = ITEM_IDLE};
  fetch->stats.num_chains++;
  st = due_set(&fetch->due, *out_item, from_base(fetch, due_s));
  if (st != STATUS_OK) {
    let_go(fetch, *out_item);
    return st;
  }
  // Many come at once: the timer is set again only for one that is due before all others.
  if (due_first(&fetch->due, &first) && first.item == *out_item &&
      fetch->stats.num_open < fetch->options.max_open) {
    timer_arm_ms(&fetch->timer, sleep_s(fetch, clock_wall_s()) * 1000);
  }
  return STATUS_OK;
}

void staple_fetch_hurry(struct staple_fetch *fetch, uint32_t item) {
  if (fetch->items[item].state == ITEM_IDLE) {
    set_due(fetch, item, 0);
    timer_arm_ms(&fetch->timer, 0);
  }
}

void staple_fetch_remove(struct staple_fetch *fetch, uint32_t item) {
  struct question *question = NULL;

  if (fetch->items[item].state == ITEM_FREE) {
    return;  // let go with STAPLE_NO_SOURCE
  }
  if (fetch->items[item].state == ITEM_WAITING) {
    fetch->items[item].state = ITEM_GONE;
    return;
  }
  LIST_FOREACH (question, &fetch->questions, link) {
    if (question->item == item && ocsp_ask_is_checking(question->ask)) {
      fetch->items[item].state = ITEM_GONE;
      return;
    }
    if (question->item == item) {
      LIST_REMOVE(question, link);
      ocsp_ask_cancel(question->ask);
      fetch->responders[question->responder].num_open--;
      fetch->stats.num_open--;
      free(question);
      timer_arm_ms(&fetch->timer, 0);  // a place has become free
      break;
    }
  }
  let_go(fetch, item);
}

void staple_fetch_read_stats(const struct staple_fetch *fetch, struct staple_fetch_stats *out) {
  const int64_t now_s = clock_wall_s();

  *out = fetch->stats;
  out->num_responders = fetch->num_responders;
  for (uint32_t i = 0; i < fetch->num_responders; i++) {
    out->num_responders_closed += fetch->responders[i].closed_until_s > now_s ? 1 : 0;
  }
}
