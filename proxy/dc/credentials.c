// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/credentials.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proxy/dc/dc_issuers.h"
#include "proxy/dc/dc_keys.h"
#include "proxy/dc/dc_leaf.h"
#include "proxy/dc/dc_names.h"
#include "proxy/dc/dc_schedule.h"
#include "proxy/dc/heat.h"
#include "proxy/worker.h"

#define TICK_MIN_MS 10   // between two looks at what is due
#define TICK_MAX_MS 250  // between two looks at the workers' heat
#define OTHER_LEVEL 0.5  // what a handshake counts for a level that did not answer it
#define UNFIT_MS 60000   // until a leaf that may not delegate now is looked at again
#define LINES_PER_S 10   // of the log, for credentials that came
// Measured (docs/deputy-proxy.md, "How many, and which"): with its places in the schedule.
#define BYTES_OF_RECORD (sizeof(struct dc_leaf) + 80)

struct credentials {
  struct loop *loop;
  struct grace *grace;
  struct timer timer;
  struct worker *const *workers;
  size_t num_workers;
  struct site *site;
  struct dc_schedule schedule;
  struct dc_issuers issuers;
  uint64_t generation;  // of the issuers
  struct dc_fetch *fetch;
  struct dc_keys keys;
  struct dc_leaves leaves;
  struct dc_names names;
  uint64_t num_ended;
  uint64_t results[DC_RESULT_NUM];
  uint64_t faults[DC_FAULT_NUM];
};

// --- times and terms -------------------------------------------------------------------

static int64_t now_ms(const struct credentials *c) { return loop_now_ms(c->loop); }
static int64_t wall_ms(void) { return clock_wall_us() / 1000; }

static uint64_t random_number(void) {
  uint64_t random = 0;
  RAND_bytes((uint8_t *)&random, sizeof(random));
  return random;
}

static int64_t lifetime_s(const struct credentials *c, const struct chain *chain, int64_t now_s) {
  int64_t wanted = c->site->options.dc.lifetime_ms / 1000;
  // RFC 9345, section 4: not past the certificate; strictly before is what Fizz wants.
  int64_t left = chain->info.not_after_s - now_s - 1;
  return wanted < left ? wanted : left;
}

// Is a credential for this chain of any use now?
static bool is_fit(const struct credentials *c, const struct chain *chain, int64_t now_s) {
  return now_s >= chain->info.not_before_s &&
         lifetime_s(c, chain, now_s) > c->site->options.dc.margin_ms / 1000;
}

// May it have one at all, by the configuration of now?
static bool may_have(const struct credentials *c, const struct dc_leaf *leaf) {
  const struct options *options = &c->site->options;
  return leaf->chains != NULL && options_has_issuers(options) &&
         (leaf->num_configured > 0 || options->store.may_use_dc);
}

// What has no chain can come back by a name of the store alone.
static bool may_keep(const struct credentials *c, const struct dc_leaf *leaf) {
  const struct options *options = &c->site->options;
  return leaf->chains != NULL ? may_have(c, leaf)
                              : options_has_issuers(options) && options->store.may_use_dc;
}

// --- leaves come and go ------------------------------------------------------------------

static void drop(struct credentials *c, struct dc_leaf *leaf) {
  dc_leaf_drop(leaf, c->grace);
  dc_schedule_drop(&c->schedule, &leaf->entry);
}

// Its chains have changed: what it is now, and whether it is anything at all.
static void settle(struct credentials *c, struct dc_leaf *leaf) {
  const enum dc_standing standing = leaf->num_configured > 0 ? DC_CONFIGURED
                                    : leaf->chains != NULL   ? DC_CACHED
                                                             : DC_LOOSE;
  if (standing == DC_LOOSE && !leaf->entry.is_held && leaf->entry.queue != DC_QUEUE_ASKED) {
    dc_leaves_remove(&c->leaves, &c->schedule, leaf);
    return;
  }
  if (standing == DC_CONFIGURED || leaf->entry.standing != (int8_t)standing) {
    dc_schedule_stand(&c->schedule, &leaf->entry, standing, now_ms(c));
  }
}

static void attach(struct credentials *c, struct chain *chain, bool is_configured) {
  struct dc_leaf *leaf = NULL;
  // Never an RSA leaf: clients abort on its credentials (cert.h).
  if (!chain->info.may_delegate || chain->supply != NULL) {
    return;
  }
  leaf = dc_leaves_get(&c->leaves, &c->schedule, chain->info.sha256);
  if (leaf == NULL) {
    return;
  }
  dc_leaf_attach(leaf, chain, is_configured, c->grace);
  settle(c, leaf);
  if (leaf->entry.is_held) {
    dc_schedule_set_event(&c->schedule, &leaf->entry, dc_leaf_event_ms(leaf, clock_wall_s()));
  }
}

static void attach_name(struct credentials *c, const struct cert_name *name, bool is_configured) {
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      attach(c, name->levels[i].chains[j], is_configured);
    }
  }
  dc_names_add(&c->names, name);
}

static void detach(struct credentials *c, struct chain *chain, bool is_configured) {
  struct dc_leaf *leaf = chain->supply;
  if (leaf == NULL) {
    return;
  }
  dc_leaf_detach(chain, is_configured);
  // Names leave the cache and come back; what was configured away was meant to go.
  if (is_configured && leaf->chains == NULL && leaf->entry.is_held) {
    drop(c, leaf);
  }
  settle(c, leaf);
}

static void detach_name(struct credentials *c, const struct cert_name *name, bool is_configured) {
  dc_names_remove(&c->names, name);
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      detach(c, name->levels[i].chains[j], is_configured);
    }
  }
}

static void make_room(struct credentials *c) {
  struct dc_entry *coldest = NULL;
  while ((coldest = dc_schedule_evict(&c->schedule, now_ms(c))) != NULL) {
    struct dc_leaf *leaf = dc_leaf_of(coldest);
    dc_leaf_drop(leaf, c->grace);
    settle(c, leaf);
  }
}

// --- answers -------------------------------------------------------------------------------

static void accept_credential(struct credentials *c, struct dc_leaf *leaf, struct dc_item *item) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  const int64_t now_s = clock_wall_s();
  const int64_t margin_s = c->site->options.dc.margin_ms / 1000;
  char when[CLOCK_RFC3339_LEN];

  dc_leaf_put(leaf, &item->key, &item->dc, item->dc_len, item->ends_s, c->grace);
  dc_schedule_put(&c->schedule, &leaf->entry, (leaf->ends_s - now_s) * 1000,
                  (leaf->ends_s - margin_s) * 1000, dc_leaf_event_ms(leaf, now_s), wall_ms());
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_info(0, "dc_renewed", "path=%s ends=%s held=%" PRIu64, dc_leaf_name(leaf),
             clock_format_rfc3339(when, leaf->ends_s), num_held);
  }
  make_room(c);
}

// Of a batch that failed before it got to one leaf or another, only the first is named.
static void log_failure(const struct dc_batch *batch, const struct dc_item *item,
                        const struct dc_leaf *leaf) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  if (item->details != NULL && log_gate_pass(&gate, 5, &num_held)) {
    log_warn(0, "dc_failed",
             "path=%s issuer=%s reason=%s details=\"%s\" failures=%u batch=%zu held=%" PRIu64,
             dc_leaf_name(leaf), batch->url, item->why, item->details, leaf->entry.num_failures,
             batch->num, num_held);
  }
}

static void reject(struct credentials *c, struct dc_leaf *leaf, const struct dc_batch *batch,
                   const struct dc_item *item) {
  const uint32_t all = (1u << c->issuers.num) - 1;
  leaf->why = item->why;
  if (item->result == DC_RESULT_NO_CONNECTION) {
    dc_schedule_return(&c->schedule, &leaf->entry);  // the issuer pauses, not the leaf
  } else {
    leaf->avoided |= batch->generation == c->generation ? 1u << batch->issuer : 0;
    if ((leaf->avoided & all) == all) {
      leaf->avoided = 0;
      dc_schedule_fail(&c->schedule, &leaf->entry, item->is_firm, now_ms(c));
    } else {
      dc_schedule_return(&c->schedule, &leaf->entry);  // to the next issuer
    }
  }
  log_failure(batch, item, leaf);
}

static void take_item(struct credentials *c, const struct dc_batch *batch, struct dc_item *item) {
  struct dc_leaf *leaf = item->owner;
  c->results[item->result] += 1;
  c->faults[item->fault] += 1;
  if (item->result == DC_RESULT_OK && may_keep(c, leaf)) {
    accept_credential(c, leaf, item);
    return;
  }
  if (item->result == DC_RESULT_OK) {
    dc_schedule_rest(&c->schedule, &leaf->entry);
  } else {
    reject(c, leaf, batch, item);
  }
  settle(c, leaf);
}

static void on_batch(void *arg, struct dc_batch *batch) {
  struct credentials *c = arg;
  if (batch->generation == c->generation) {
    dc_issuers_end(&c->issuers, batch->issuer, batch->is_failed, now_ms(c));
  }
  for (size_t i = 0; i < batch->num; i++) {
    take_item(c, batch, &batch->items[i]);
  }
  timer_arm_ms(&c->timer, 0);
}

// --- asking --------------------------------------------------------------------------------

// Batches that are being filled, one for each issuer.
struct filling {
  struct dc_batch *batches[DC_ISSUERS_MAX];
  uint32_t open;
};

static void send_batch(struct filling *filling, unsigned issuer) {
  dc_batch_send(filling->batches[issuer]);
  filling->batches[issuer] = NULL;
  filling->open &= ~(1u << issuer);
}

static struct dc_batch *batch_for(struct credentials *c, struct filling *filling, unsigned issuer) {
  struct dc_batch *batch = filling->batches[issuer];
  if (batch == NULL) {
    batch = dc_fetch_new_batch(c->fetch, &c->site->options, issuer,
                               dc_issuers_window(&c->issuers, issuer));
    if (batch != NULL) {
      batch->generation = c->generation;
      filling->batches[issuer] = batch;
      filling->open |= 1u << issuer;
      dc_issuers_begin(&c->issuers, issuer);
    }
  }
  return batch;
}

// Adds one leaf to a batch; false: that is all for now.
static bool ask(struct credentials *c, struct filling *filling, struct dc_leaf *leaf) {
  const int64_t now_s = clock_wall_s();
  struct dc_batch *batch = NULL;
  int issuer = 0;
  if (!may_have(c, leaf)) {
    dc_schedule_rest(&c->schedule, &leaf->entry);
    return true;
  }
  if (!is_fit(c, leaf->chains, now_s)) {
    dc_schedule_put_off(&c->schedule, &leaf->entry, UNFIT_MS, now_ms(c));
    return true;
  }
  issuer = dc_issuers_choose(&c->issuers, leaf->avoided, filling->open, now_ms(c));
  if (issuer == DC_ISSUERS_NONE) {  // those that are left to it have a pause
    leaf->avoided = 0;
    dc_schedule_fail(&c->schedule, &leaf->entry, false, now_ms(c));
    return true;
  }
  batch = issuer < 0 ? NULL : batch_for(c, filling, (unsigned)issuer);
  if (batch == NULL || dc_batch_add(batch, leaf, leaf->chains, dc_keys_get(&c->keys, now_ms(c)),
                                    lifetime_s(c, leaf->chains, now_s)) != STATUS_OK) {
    dc_schedule_return(&c->schedule, &leaf->entry);
    return false;
  }
  if (batch->num == batch->room) {
    send_batch(filling, (unsigned)issuer);
  }
  return true;
}

static void ask_all(struct credentials *c) {
  struct filling filling = {0};
  bool is_more = true;
  while (is_more && dc_issuers_choose(&c->issuers, 0, filling.open, now_ms(c)) >= 0) {
    struct dc_entry *entry = dc_schedule_next(&c->schedule, now_ms(c), wall_ms());
    is_more = entry != NULL && ask(c, &filling, dc_leaf_of(entry));
  }
  for (unsigned i = 0; i < DC_ISSUERS_MAX; i++) {
    if (filling.batches[i] != NULL) {
      send_batch(&filling, i);
    }
  }
}

// --- the clock -------------------------------------------------------------------------------

static void on_note(void *arg, uint32_t number, unsigned level) {
  struct credentials *c = arg;
  const struct dc_name *name = dc_names_find(&c->names, number);
  for (size_t i = 0; name != NULL && i < name->num; i++) {
    struct dc_leaf *leaf = name->leaves[i].leaf;
    if (may_have(c, leaf)) {
      dc_schedule_want(&c->schedule, &leaf->entry,
                       name->leaves[i].level == level ? 1.0 : OTHER_LEVEL, now_ms(c));
    }
  }
}

static void look_at_ends(struct credentials *c) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  struct dc_entry *entry = NULL;
  while ((entry = dc_schedule_event(&c->schedule, wall_ms())) != NULL) {
    struct dc_leaf *leaf = dc_leaf_of(entry);
    const int64_t now_s = clock_wall_s();
    if (now_s <= leaf->ends_s) {
      dc_leaf_refresh(leaf, c->grace);  // a staple has ended; below API version 32 of no effect
      dc_schedule_set_event(&c->schedule, entry, dc_leaf_event_ms(leaf, now_s));
      continue;
    }
    // What has ended is of no use to anybody: the key goes.
    c->num_ended += 1;
    if (entry->queue != DC_QUEUE_IDLE && entry->standing != DC_LOOSE &&
        log_gate_pass(&gate, 5, &num_held)) {
      log_error(0, "dc_ended", "path=%s reason=%s held=%" PRIu64, dc_leaf_name(leaf),
                leaf->why == NULL ? "none" : leaf->why, num_held);
    }
    drop(c, leaf);
    settle(c, leaf);
  }
}

static void on_tick(void *arg) {
  struct credentials *c = arg;
  int64_t next_ms = TICK_MAX_MS;
  if (c->site == NULL || !options_has_issuers(&c->site->options)) {
    return;
  }
  for (size_t i = 0; i < c->num_workers; i++) {
    heat_drain(&c->workers[i]->heat, on_note, c);
  }
  look_at_ends(c);
  dc_keys_expire(&c->keys, now_ms(c));
  ask_all(c);
  // When issuers are busy or pause, what is due waits for them.
  if (dc_issuers_choose(&c->issuers, 0, 0, now_ms(c)) >= 0) {
    next_ms = dc_schedule_wait_ms(&c->schedule, now_ms(c), wall_ms(), next_ms);
  } else {
    next_ms = dc_issuers_wait_ms(&c->issuers, now_ms(c), next_ms);
  }
  timer_arm_ms(&c->timer, next_ms < TICK_MIN_MS ? TICK_MIN_MS : next_ms);
}

// --- sites -----------------------------------------------------------------------------------

// The names of a site that are to be supplied.
static bool is_supplied(const struct site *site, const struct cert_name *name) {
  return options_has_issuers(&site->options) && policy_of(name)->may_use_dc;
}

void credentials_prepare(struct credentials *c, struct site *site) {
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(site->store, &num);
  for (size_t i = 0; i < num; i++) {
    for (size_t j = 0; is_supplied(site, names[i]) && j < names[i]->num_levels; j++) {
      const struct cert_level *level = &names[i]->levels[j];
      for (size_t k = 0; k < level->num_chains; k++) {
        struct chain *chain = level->chains[k];
        const struct dc_leaf *leaf = dc_leaves_find(&c->leaves, chain->info.sha256);
        // Nobody reads it yet.
        if (leaf != NULL && leaf->key != NULL && atomic_load(&chain->dc) == NULL) {
          atomic_store_explicit(&chain->dc, dc_leaf_make(leaf, chain), memory_order_release);
        }
      }
    }
  }
}

static void apply_options(struct credentials *c, const struct options *options) {
  const struct dc_options *dc = &options->dc;
  const struct dc_limits limits = {
      .max_held = dc->max_held,
      .per_s = dc->per_s,
      .life_ms = dc->lifetime_ms,
      .retry_min_ms = dc->retry_min_ms,
      .retry_max_ms = dc->retry_max_ms,
  };
  dc_schedule_set_limits(&c->schedule, &limits);
  dc_keys_set_policy(&c->keys, dc->keys, dc->key_rotation_ms);
  c->issuers.batch = (size_t)dc->batch;
  c->issuers.max_under_way = (unsigned)dc->max_batches;
  c->issuers.retry_min_ms = dc->retry_min_ms;
  c->issuers.retry_max_ms = dc->retry_max_ms;
  // Who was away may be another one now.
  dc_issuers_reset(&c->issuers, (unsigned)options->issuers.num_urls);
  c->generation += 1;
}

static void drop_if_forbidden(void *arg, struct dc_leaf *leaf) {
  struct credentials *c = arg;
  leaf->avoided = 0;
  if (leaf->entry.is_held && !may_keep(c, leaf)) {
    drop(c, leaf);
    if (leaf->entry.queue != DC_QUEUE_ASKED) {
      dc_schedule_rest(&c->schedule, &leaf->entry);
    }
    settle(c, leaf);
  }
}

void credentials_set_site(struct credentials *c, struct site *site) {
  struct site *earlier = c->site;
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(site->store, &num);
  c->site = site;
  apply_options(c, &site->options);
  for (size_t i = 0; i < num; i++) {
    if (is_supplied(site, names[i])) {
      attach_name(c, names[i], true);
    }
  }
  names = earlier == NULL ? NULL : certstore_names(earlier->store, &num);
  for (size_t i = 0; names != NULL && i < num; i++) {
    detach_name(c, names[i], true);
  }
  dc_leaves_each(&c->leaves, drop_if_forbidden, c);
  make_room(c);
  dc_schedule_hurry(&c->schedule);
  timer_arm_ms(&c->timer, 0);
}

// --- names in the cache -----------------------------------------------------------------------

// The leaf of the earlier name at the same level, or its first.
static const struct dc_leaf *earlier_leaf(const struct cert_name *earlier, size_t level) {
  const struct dc_leaf *found = NULL;
  for (size_t i = 0; i < earlier->num_levels; i++) {
    for (size_t j = 0; j < earlier->levels[i].num_chains; j++) {
      const struct dc_leaf *leaf = earlier->levels[i].chains[j]->supply;
      if (leaf != NULL && (found == NULL || i == level)) {
        found = leaf;
      }
    }
  }
  return found;
}

// A name with new certificates is as hot as it was: nobody should have to ask first.
static void inherit(struct credentials *c, const struct cert_name *name,
                    const struct cert_name *earlier) {
  for (size_t i = 0; i < name->num_levels; i++) {
    const struct dc_leaf *from = earlier_leaf(earlier, i);
    for (size_t j = 0; from != NULL && j < name->levels[i].num_chains; j++) {
      struct dc_leaf *leaf = name->levels[i].chains[j]->supply;
      if (leaf != NULL && leaf != from && may_have(c, leaf)) {
        dc_schedule_inherit(&c->schedule, &leaf->entry, &from->entry, now_ms(c));
      }
    }
  }
}

void credentials_change(struct credentials *c, struct ready *in, struct ready *out) {
  if (in != NULL) {
    attach_name(c, &in->name, false);
  }
  if (in != NULL && out != NULL && c->site != NULL) {
    inherit(c, &in->name, &out->name);
  }
  if (out != NULL) {
    detach_name(c, &out->name, false);
  }
}

// --- the rest -----------------------------------------------------------------------------------

void credentials_hurry(struct credentials *c) {
  dc_schedule_hurry(&c->schedule);
  timer_arm_ms(&c->timer, 0);
}

const char *credentials_why(const struct credentials *c, const struct chain *chain) {
  const struct dc_leaf *leaf = chain->supply;
  if (c->site == NULL || !options_has_issuers(&c->site->options)) {
    return "no issuer is configured";
  }
  if (leaf == NULL) {
    return "no name with this chain may use one";
  }
  if (leaf->why != NULL) {
    return leaf->why;
  }
  if (!is_fit(c, chain, clock_wall_s())) {
    return "the certificate is not valid long enough";
  }
  switch ((enum dc_queue)leaf->entry.queue) {
    case DC_QUEUE_ASKED:
      return "asked for";
    case DC_QUEUE_MISSING:
      return "its turn comes";
    case DC_QUEUE_IDLE:
      return "no client has wanted one lately";
    default:
      return NULL;
  }
}

size_t credentials_num_missing(const struct credentials *c) {
  struct credentials_counts counts;
  credentials_count(c, &counts);
  return counts.num_wanted - counts.num_ready;
}

void credentials_count(const struct credentials *c, struct credentials_counts *out) {
  const struct dc_schedule *s = &c->schedule;
  *out = (struct credentials_counts){
      .num_kept = s->num_held_loose,
      .max_ready = (size_t)s->limits.max_held,
      .num_due = dc_schedule_num(s, DC_QUEUE_MISSING) + dc_schedule_num(s, DC_QUEUE_EXPIRING),
      .num_asked = s->num_asked,
      .num_waiting = dc_schedule_num(s, DC_QUEUE_WAITING),
      .num_leaves = c->leaves.num,
      .num_issuers = c->issuers.num,
      .num_keys_made = dc_key_num_made(),
      .num_evicted = s->num_evicted,
      .num_no_room = s->num_no_room,
      .num_let_go = s->num_let_go,
      .num_ended = c->num_ended,
  };
  out->num_ready = dc_schedule_num_held(s) - out->num_kept;
  out->num_wanted =
      out->num_ready + dc_schedule_num(s, DC_QUEUE_MISSING) + s->num_asked_new + s->num_waiting_new;
  out->bytes = dc_schedule_num_held(s) * tls_dc_memory() + out->num_leaves * BYTES_OF_RECORD;
  for (unsigned i = 0; i < c->issuers.num; i++) {
    out->num_issuers_paused += c->issuers.items[i].pause_ends_ms > loop_now_ms(c->loop) ? 1u : 0u;
  }
  for (size_t i = 0; i < c->num_workers; i++) {
    out->num_heat_lost += counter_get(&c->workers[i]->heat.num_lost);
  }
  for (unsigned i = 0; i < DC_RESULT_NUM; i++) {
    out->results[i] = c->results[i];
  }
  for (unsigned i = 0; i < DC_FAULT_NUM; i++) {
    out->faults[i] = c->faults[i];
  }
}

enum status credentials_new(struct credentials **out, struct loop *loop, struct grace *grace,
                            struct worker *const *workers, size_t num_workers) {
  enum status st = STATUS_OK;
  // Until there is a site.
  static const struct dc_limits none = {0, 1, 1000, 1000, 1000};
  struct credentials *c = calloc(1, sizeof(*c));

  *out = NULL;
  if (c == NULL) {
    return STATUS_MEMORY;
  }
  c->loop = loop;
  c->grace = grace;
  c->workers = workers;
  c->num_workers = num_workers;
  c->issuers.random = random_number;
  dc_schedule_init(&c->schedule, &none, random_number, loop_now_ms(loop));
  TRY(dc_fetch_new(&c->fetch, loop, on_batch, c));
  TRY(timer_init(&c->timer, loop, on_tick, c));
  *out = c;
  c = NULL;

out:
  credentials_free(c);
  return st;
}

void credentials_free(struct credentials *c) {
  if (c == NULL) {
    return;
  }
  dc_fetch_free(c->fetch, NULL);
  dc_names_cleanup(&c->names);
  dc_leaves_cleanup(&c->leaves);
  dc_schedule_cleanup(&c->schedule);
  dc_keys_cleanup(&c->keys);
  timer_cleanup(&c->timer);
  free(c);
}
