// SPDX-License-Identifier: Apache-2.0
#include "certmanager/keeper.h"

#include <stdlib.h>

#include "certmanager/audit.h"
#include "certmanager/catalog.h"
#include "certmanager/scan.h"
#include "certmanager/switcher.h"
#include "certmanager/writer.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/http/http_client.h"
#include "common/revocation/revocation_watch.h"

#define TICK_MS 1000
#define GATHER_MS 100          // staples that come within are one transaction
#define WRITE_AGAIN_MS 10000   // after a disk that refused
#define SCAN_AGAIN_MS 10000    // after a walk that failed
#define SCAN_SHARE 10          // at most a tenth of the time is spent on walks
#define NO_VERSION UINT64_MAX  // never a store's
#define LOGGED_PER_S 5

struct keeper {
  struct keeper_options given;
  const struct options *options;         // of the start
  struct revocation_options revocation;  // of now
  int64_t poll_s;                        // of responders; 0: as staples need it
  struct store *store;                   // NULL: it could not be opened anew
  struct store_reader *reader;           // the loop's
  struct jobs *jobs;                     // the thread that works on the store
  struct jobs *checks;                   // the thread that checks responders' answers
  struct http_client *http;
  struct staple_fetch *fetch;      // NULL: nobody is to be asked
  struct revocation_watch *watch;  // NULL: policy off
  struct catalog catalog;
  struct writer writer;
  struct switcher switcher;
  struct timer tick;
  struct timer gather;
  uint64_t seen_version;  // of the store's chains, that the catalog shows
  uint64_t num_asked;
  uint64_t num_listed;
  bool has_scanned;
  bool needs_reopen;
  int64_t scan_not_before_ms;
  int64_t write_not_before_ms;

  // One of each at a time; while it runs, what stands below it is the job's.
  bool is_scanning;
  struct job scan;
  struct tally tally;
  uint64_t scan_version;
  enum status scan_st;
  struct errmsg scan_err;
  int64_t scan_us;

  bool is_looking;
  struct job look;
  struct look looks[SCAN_MAX_LOOKS];
  size_t num_looks;
  enum status look_st;
  struct errmsg look_err;

  bool is_writing;
  struct job write;

  bool is_switching;
  struct job switch_job;
};

static void go_on(struct keeper *keeper);

// --- the store ---------------------------------------------------------------------------

static void close_store(struct keeper *keeper) {
  store_reader_free(keeper->reader);
  keeper->reader = NULL;
  store_close(keeper->store);
  keeper->store = NULL;
}

static enum status open_store(struct keeper *keeper, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_options how = {.mode = STORE_WRITE};
  TRY(store_open(&keeper->store, keeper->options->store, &how, err));
  TRY(store_reader_new(&keeper->reader, keeper->store, err));

out:
  if (st != STATUS_OK) {
    close_store(keeper);
  }
  return st;
}

static bool has_job(const struct keeper *keeper) {
  return keeper->is_scanning || keeper->is_looking || keeper->is_writing || keeper->is_switching;
}

// reopen takes some milliseconds, on the loop: nobody waits for an answer from here.
static void reopen(struct keeper *keeper) {
  static struct log_gate gate;
  struct errmsg err = {0};
  uint64_t num_held = 0;
  char quoted[ERRMSG_MAX_LEN];

  close_store(keeper);
  if (open_store(keeper, &err) != STATUS_OK) {
    if (log_gate_pass(&gate, 1, &num_held)) {
      log_error(0, "store_unavailable", "reason=%s",
                log_quote(quoted, sizeof(quoted), bytes_text(err.text)));
    }
    return;
  }
  counter_add(&keeper->given.stats->num_reopens, 1);
  keeper->needs_reopen = false;
  keeper->seen_version = NO_VERSION;
  keeper->write_not_before_ms = 0;
  log_info(0, "store_opened", "reason=\"it was compacted\"");
}

static bool refresh(struct keeper *keeper) {
  return keeper->reader != NULL && store_reader_refresh(keeper->reader) == STATUS_OK;
}

// --- revoked -----------------------------------------------------------------------------

static void see_revoked(struct keeper *keeper, struct catalog_entry *entry, uint8_t flag,
                        const struct sighting *sighting, const char *url) {
  static struct log_gate gate;
  struct store_chain chain;
  struct jsonline line;
  uint64_t num_held = 0;
  bool has_chain = false;

  if ((entry->flags & flag) != 0 || keeper->revocation.policy == REVOCATION_OFF) {
    return;
  }
  if (entry->sighting == 0 &&
      switcher_see(&entry->sighting, &keeper->switcher, sighting) != STATUS_OK) {
    return;  // no memory: the next poll brings it again
  }
  entry->flags |= flag;
  has_chain = refresh(keeper) && store_get_chain(keeper->reader, &chain, entry->chain) == STATUS_OK;
  counter_add(flag == CATALOG_REVOKED_OCSP ? &keeper->given.stats->num_seen_ocsp
                                           : &keeper->given.stats->num_seen_list,
              1);
  audit_begin(&line, "revoked", entry->chain, has_chain ? &chain : NULL);
  jsonline_cstr(&line, "source", flag == CATALOG_REVOKED_OCSP ? "ocsp" : "crl");
  jsonline_cstr(&line, "reason", audit_reason_name(sighting->reason));
  audit_time(&line, "revoked_at", sighting->revoked_s);
  jsonline_int(&line, "num_names", entry->num_names);
  if (url != NULL) {
    jsonline_cstr(&line, "list", url);
  }
  audit_end(keeper->given.audit, &line);
  if (log_gate_pass(&gate, LOGGED_PER_S, &num_held)) {
    log_warn(0, "revoked", "chain=%llu names=%u source=%s reason=%s held_back=%llu",
             (unsigned long long)entry->chain, entry->num_names,
             flag == CATALOG_REVOKED_OCSP ? "ocsp" : "crl", audit_reason_name(sighting->reason),
             (unsigned long long)num_held);
  }
}

// take_back: the CA says again that the leaf is good (it was on hold). A switch that was
// made stays: to move names back is a person's decision.
static void take_back(struct keeper *keeper, struct catalog_entry *entry, uint8_t flag) {
  struct store_chain chain;
  struct jsonline line;
  bool has_chain = false;

  if ((entry->flags & flag) == 0) {
    return;
  }
  has_chain = refresh(keeper) && store_get_chain(keeper->reader, &chain, entry->chain) == STATUS_OK;
  entry->flags = (uint8_t)(entry->flags & ~flag);
  if ((entry->flags & CATALOG_REVOKED) == 0) {
    switcher_forget(&keeper->switcher, entry->sighting);
    entry->sighting = 0;
  }
  counter_add(&keeper->given.stats->num_taken_back, 1);
  audit_begin(&line, "revoked_no_more", entry->chain, has_chain ? &chain : NULL);
  jsonline_cstr(&line, "source", flag == CATALOG_REVOKED_OCSP ? "ocsp" : "crl");
  audit_end(keeper->given.audit, &line);
  log_warn(0, "revoked_no_more", "chain=%llu", (unsigned long long)entry->chain);
}

// --- what responders say -----------------------------------------------------------------

static enum status on_load(void *arg, uint64_t chain_id, struct staple_work *out) {
  struct keeper *keeper = arg;
  struct store_chain chain;
  struct store_staple staple;
  enum status st = STATUS_OK;

  *out = (struct staple_work){0};
  // What cannot be kept is not asked for.
  if (!refresh(keeper) || writer_is_full(&keeper->writer)) {
    return STATUS_UNAVAILABLE;
  }
  TRY(store_get_chain(keeper->reader, &chain, chain_id));
  out->leaf = chain.leaf;
  if (chain.num_issuers > 0) {
    TRY(store_get_issuer(keeper->reader, &out->issuer, chain.issuers.data));
  }
  if (store_get_staple(keeper->reader, &staple, chain_id) == STATUS_OK) {
    out->this_update_s = staple.this_update_s;
    out->next_update_s = staple.next_update_s;
  }

out:
  return st;
}

static void keep(struct keeper *keeper, uint64_t chain, const struct ocsp_ask_result *ask) {
  const struct store_staple staple = {.this_update_s = ask->answer.this_update_s,
                                      .next_update_s = ask->answer.next_update_s,
                                      .fetched_s = clock_wall_s(),
                                      .response = ask->response};
  if (!keeper->options->staples.is_on) {
    return;
  }
  if (writer_add(&keeper->writer, chain, &staple) != STATUS_OK) {
    log_error(0, "staple_lost", "chain=%llu reason=\"no memory\"", (unsigned long long)chain);
  } else if (!timer_is_armed(&keeper->gather)) {
    timer_arm_ms(&keeper->gather, GATHER_MS);
  }
}

static void log_failure(uint64_t chain, const struct staple_result *result) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  char quoted[ERRMSG_MAX_LEN];
  if (result->ask != NULL && log_gate_pass(&gate, LOGGED_PER_S, &num_held)) {
    log_warn(0, "no_staple", "chain=%llu outcome=%s fault=%s reason=%s held_back=%llu",
             (unsigned long long)chain, staple_outcome_name(result->outcome),
             ocsp_ask_fault_name(result->ask),
             log_quote(quoted, sizeof(quoted), bytes_text(result->ask->err.text)),
             (unsigned long long)num_held);
  }
}

static void on_asked(void *arg, uint64_t chain, const struct staple_result *result) {
  struct keeper *keeper = arg;
  struct catalog_entry *entry = catalog_find(&keeper->catalog, chain);

  if (entry == NULL) {
    return;  // it went while it was asked about
  }
  switch (result->outcome) {
    case STAPLE_NEW:
      keep(keeper, chain, result->ask);
      take_back(keeper, entry, CATALOG_REVOKED_OCSP);
      break;
    case STAPLE_SAME:
      take_back(keeper, entry, CATALOG_REVOKED_OCSP);
      break;
    case STAPLE_REVOKED:
      see_revoked(keeper, entry, CATALOG_REVOKED_OCSP,
                  &(struct sighting){.chain = chain,
                                     .revoked_s = result->ask->answer.revoked_s,
                                     .reason = (uint8_t)result->ask->answer.reason,
                                     .source = SIGHTING_OCSP},
                  NULL);
      go_on(keeper);
      break;
    case STAPLE_NO_SOURCE:
      entry->flags = (uint8_t)(entry->flags & ~CATALOG_ASKED);
      keeper->num_asked--;
      break;
    default:
      log_failure(chain, result);
      break;
  }
}

// --- what lists say ----------------------------------------------------------------------

static void on_change(void *arg, uint64_t chain, const struct revocation_change *change) {
  struct keeper *keeper = arg;
  struct catalog_entry *entry = catalog_find(&keeper->catalog, chain);

  if (entry == NULL) {
    return;
  }
  if (change->status == REVOCATION_REVOKED) {
    see_revoked(keeper, entry, CATALOG_REVOKED_LIST,
                &(struct sighting){.chain = chain,
                                   .revoked_s = change->revoked_s,
                                   .reason = (uint8_t)change->reason,
                                   .source = SIGHTING_LIST},
                change->url);
    if (!timer_is_armed(&keeper->gather)) {
      timer_arm_ms(&keeper->gather, GATHER_MS);  // many come at once
    }
  } else if (change->status == REVOCATION_GOOD) {
    take_back(keeper, entry, CATALOG_REVOKED_LIST);
  }
}

static void on_point(void *arg, const struct revocation_point *point) {
  static struct log_gate gate;
  struct keeper *keeper = arg;
  struct stats *stats = keeper->given.stats;
  const char *fault = NULL;
  char quoted[ERRMSG_MAX_LEN];
  uint64_t num_held = 0;

  if (point->fetch_fault != FETCH_NO_FAULT) {
    counter_add(&stats->num_list_fetch_faults[point->fetch_fault], 1);
    fault = fetch_fault_name(point->fetch_fault);
  } else if (point->fault != CRL_NO_FAULT) {
    counter_add(&stats->num_list_faults[point->fault], 1);
    fault = crl_fault_name(point->fault);
  } else {
    counter_add(&stats->num_list_answers, 1);
  }
  if (fault != NULL && log_gate_pass(&gate, LOGGED_PER_S, &num_held)) {
    log_warn(0, "no_list", "url=%s fault=%s leaves=%zu held_back=%llu",
             log_quote(quoted, sizeof(quoted), bytes_text(point->url)), fault, point->num_leaves,
             (unsigned long long)num_held);
  }
}

// --- chains that come and go -------------------------------------------------------------

// pair reads leaf and issuer of a chain; false: they are not there.
static bool pair(struct keeper *keeper, struct bytes *leaf, struct bytes *issuer, uint64_t id) {
  struct store_chain chain;
  if (!refresh(keeper) || store_get_chain(keeper->reader, &chain, id) != STATUS_OK ||
      chain.num_issuers == 0 ||
      store_get_issuer(keeper->reader, issuer, chain.issuers.data) != STATUS_OK) {
    return false;
  }
  *leaf = chain.leaf;
  return true;
}

static void on_gone(void *arg, const struct catalog_entry *entry) {
  struct keeper *keeper = arg;
  struct bytes leaf;
  struct bytes issuer;

  if ((entry->flags & CATALOG_ASKED) != 0) {
    staple_fetch_remove(keeper->fetch, entry->item);
    keeper->num_asked--;
  }
  if ((entry->flags & CATALOG_LISTED) != 0) {
    keeper->num_listed--;
    // A chain that a compaction has dropped by now stays in the watch till a restart: 32
    // bytes, and changes that nobody is told.
    if (pair(keeper, &leaf, &issuer, entry->chain)) {
      revocation_watch_remove(keeper->watch, entry->chain, leaf, issuer);
    }
  }
  switcher_forget(&keeper->switcher, entry->sighting);
}

static void run_scan(void *arg) {
  struct keeper *keeper = arg;
  const int64_t began_us = clock_monotonic_us();
  keeper->scan_err = (struct errmsg){0};
  keeper->scan_st =
      scan_names(&keeper->tally, &keeper->scan_version, keeper->store, &keeper->scan_err);
  keeper->scan_us = clock_monotonic_us() - began_us;
}

static void take_scan(struct keeper *keeper) {
  const size_t num_before = keeper->catalog.num;
  if (catalog_merge(&keeper->catalog, &keeper->tally, on_gone, keeper) != STATUS_OK) {
    keeper->scan_st = STATUS_MEMORY;
    return;
  }
  keeper->seen_version = keeper->scan_version;
  if (!keeper->has_scanned) {
    if (!refresh(keeper) ||
        switcher_recall(&keeper->switcher, keeper->reader, &keeper->catalog, clock_wall_s(),
                        clock_monotonic_ms() / 1000) != STATUS_OK) {
      keeper->scan_st = STATUS_UNAVAILABLE;  // no switch before the last minute's are known
      return;
    }
    keeper->has_scanned = true;
  }
  if (num_before != keeper->catalog.num) {
    log_info(0, "chains", "num=%zu before=%zu", keeper->catalog.num, num_before);
  }
}

static void on_scanned(void *arg) {
  struct keeper *keeper = arg;
  char quoted[ERRMSG_MAX_LEN];
  const int64_t now_ms = clock_monotonic_ms();

  keeper->is_scanning = false;
  if (keeper->scan_st == STATUS_OK) {
    take_scan(keeper);
  }
  tally_cleanup(&keeper->tally);
  if (keeper->scan_st == STATUS_OK) {
    counter_add(&keeper->given.stats->num_scans, 1);
    keeper->scan_not_before_ms = now_ms + SCAN_SHARE * keeper->scan_us / 1000;
  } else {
    counter_add(&keeper->given.stats->num_scans_failed, 1);
    keeper->seen_version = NO_VERSION;
    keeper->scan_not_before_ms = now_ms + SCAN_AGAIN_MS;
    log_error(0, "scan_failed", "status=%s reason=%s", status_name(keeper->scan_st),
              log_quote(quoted, sizeof(quoted), bytes_text(keeper->scan_err.text)));
  }
  go_on(keeper);
}

static void run_look(void *arg) {
  struct keeper *keeper = arg;
  keeper->look_err = (struct errmsg){0};
  keeper->look_st = scan_looks(keeper->looks, keeper->num_looks, keeper->store, keeper->poll_s,
                               &keeper->look_err);
}

// enter puts a chain into the schedules. What fails for want of memory is looked at again.
static enum status enter(struct keeper *keeper, struct catalog_entry *entry,
                         const struct look *look) {
  enum status st = STATUS_OK;
  struct bytes leaf;
  struct bytes issuer;

  if (look->has_responder && look->has_issuer && keeper->fetch != NULL &&
      (entry->flags & CATALOG_ASKED) == 0) {
    TRY(staple_fetch_add(&entry->item, keeper->fetch, entry->chain, look->due_s));
    entry->flags |= CATALOG_ASKED;
    keeper->num_asked++;
  }
  if (look->has_lists && look->has_issuer && keeper->watch != NULL &&
      (entry->flags & CATALOG_LISTED) == 0) {
    if (!pair(keeper, &leaf, &issuer, entry->chain)) {
      TRY(STATUS_UNAVAILABLE);
    }
    st = revocation_watch_add(keeper->watch, entry->chain, leaf, issuer);
    if (st == STATUS_OK) {
      entry->flags |= CATALOG_LISTED;
      keeper->num_listed++;
    } else if (st == STATUS_NOT_FOUND || st == STATUS_FORMAT) {
      st = STATUS_OK;  // nobody to ask
    }
  }

out:
  if (st == STATUS_OK) {
    entry->flags |= CATALOG_LOOKED;
  }
  return st;
}

static void on_looked(void *arg) {
  struct keeper *keeper = arg;
  enum status st = keeper->look_st;

  keeper->is_looking = false;
  for (size_t i = 0; i < keeper->num_looks && st == STATUS_OK; i++) {
    struct catalog_entry *entry = catalog_find(&keeper->catalog, keeper->looks[i].chain);
    if (entry != NULL) {
      st = enter(keeper, entry, &keeper->looks[i]);
    }
  }
  if (st != STATUS_OK) {
    log_error(0, "look_failed", "status=%s", status_name(st));
    keeper->seen_version = NO_VERSION;  // with the next walk it is looked for again
    keeper->scan_not_before_ms = clock_monotonic_ms() + SCAN_AGAIN_MS;
    return;
  }
  go_on(keeper);
}

// --- writing -----------------------------------------------------------------------------

static void run_write(void *arg) {
  struct keeper *keeper = arg;
  writer_write(&keeper->writer, keeper->store);
}

static void on_written(void *arg) {
  struct keeper *keeper = arg;
  struct writer *writer = &keeper->writer;
  struct stats *stats = keeper->given.stats;
  char quoted[ERRMSG_MAX_LEN];

  keeper->is_writing = false;
  atomic_store(&stats->is_write_failing, writer->st != STATUS_OK && writer->st != STATUS_CLOSED);
  if (writer->st == STATUS_OK) {
    // Our own change is none that the catalog must hear of, unless there was another.
    if (keeper->seen_version == writer->from_version &&
        writer->to_version == writer->from_version + 1) {
      keeper->seen_version = writer->to_version;
    }
  } else if (writer->st == STATUS_CLOSED) {
    keeper->needs_reopen = true;
  } else {
    counter_add(&stats->num_writes_failed, 1);
    keeper->write_not_before_ms = clock_monotonic_ms() + WRITE_AGAIN_MS;
    log_error(0, "write_failed", "staples=%zu reason=%s", writer->num_batch,
              log_quote(quoted, sizeof(quoted), bytes_text(writer->err.text)));
  }
  writer_done(writer);
  go_on(keeper);
}

static void run_switch(void *arg) {
  struct keeper *keeper = arg;
  switcher_apply(&keeper->switcher, keeper->store);
}

static void on_switched(void *arg) {
  struct keeper *keeper = arg;
  keeper->is_switching = false;
  switcher_done(&keeper->switcher);
  go_on(keeper);
}

// --- what is to be done next -------------------------------------------------------------

static void start(struct keeper *keeper, struct jobs *jobs, struct job *job, bool *is_under_way,
                  void (*work)(void *arg), void (*done)(void *arg)) {
  // A map that has to grow can do so only while nobody reads it.
  store_reader_park(keeper->reader);
  *is_under_way = true;
  *job = (struct job){.work = work, .done = done, .arg = keeper};
  jobs_start(jobs, job);
}

static void go_on_looking(struct keeper *keeper) {
  uint64_t chains[SCAN_MAX_LOOKS];
  if (keeper->is_looking) {
    return;
  }
  keeper->num_looks = catalog_take_unlooked(&keeper->catalog, chains, SCAN_MAX_LOOKS);
  for (size_t i = 0; i < keeper->num_looks; i++) {
    keeper->looks[i] = (struct look){.chain = chains[i]};
  }
  if (keeper->num_looks > 0) {
    start(keeper, keeper->jobs, &keeper->look, &keeper->is_looking, run_look, on_looked);
  }
}

static void go_on_switching(struct keeper *keeper) {
  const struct revocation_options *revocation = &keeper->revocation;
  if (keeper->is_switching || revocation->policy != REVOCATION_SWITCH || !keeper->has_scanned ||
      switcher_num(&keeper->switcher) == 0 || !refresh(keeper)) {
    return;
  }
  if (switcher_judge(&keeper->switcher, keeper->reader, &keeper->catalog,
                     (uint64_t)revocation->ceiling, revocation->until_ms, clock_wall_s(),
                     clock_monotonic_ms() / 1000)) {
    // Not behind a write of staples, which may wait for an import to end.
    start(keeper, keeper->given.jobs, &keeper->switch_job, &keeper->is_switching, run_switch,
          on_switched);
  }
}

// go_on starts what has to be done and is not under way. Any callback may call it.
static void go_on(struct keeper *keeper) {
  const int64_t now_ms = clock_monotonic_ms();

  if (keeper->store == NULL || keeper->needs_reopen) {
    return;  // the tick sees to it
  }
  if (!keeper->is_writing && now_ms >= keeper->write_not_before_ms &&
      !timer_is_armed(&keeper->gather) && writer_take(&keeper->writer)) {
    start(keeper, keeper->jobs, &keeper->write, &keeper->is_writing, run_write, on_written);
  }
  go_on_switching(keeper);
  if (!keeper->is_scanning && now_ms >= keeper->scan_not_before_ms &&
      store_chains_version(keeper->store) != keeper->seen_version && !keeper->is_writing) {
    start(keeper, keeper->jobs, &keeper->scan, &keeper->is_scanning, run_scan, on_scanned);
  }
  go_on_looking(keeper);
}

static void on_gathered(void *arg) { go_on(arg); }

static void on_tick(void *arg) {
  struct keeper *keeper = arg;
  timer_arm_ms(&keeper->tick, TICK_MS);
  if (keeper->store == NULL || store_is_replaced(keeper->store)) {
    keeper->needs_reopen = true;
  }
  if (keeper->needs_reopen && !has_job(keeper)) {
    reopen(keeper);
  }
  if (keeper->reader != NULL) {
    store_reader_park(keeper->reader);  // pages of the past can be used again
  }
  go_on(keeper);
}

// --- beginning and end -------------------------------------------------------------------

static enum status start_asking(struct keeper *keeper) {
  enum status st = STATUS_OK;
  const struct options *options = keeper->options;
  const struct staple_fetch_options staples = {
      .loop = keeper->given.loop,
      .http = keeper->http,
      .jobs = keeper->checks,
      .max_open = (size_t)options->staples.max_open,
      .max_open_per_responder = (size_t)options->staples.max_open_per_responder,
      .limit_ms = options->staples.limit_ms,
      .poll_s = keeper->poll_s,
      .ca_path = options->ca,
      .load = on_load,
      .done = on_asked,
      .arg = keeper,
  };
  const struct revocation_watch_options lists = {
      .loop = keeper->given.loop,
      .http = keeper->http,
      .jobs = keeper->given.jobs,
      .max_open = (size_t)options->revocation.max_open_lists,
      .max_len = (size_t)options->revocation.max_list_len,
      .poll_s = options->revocation.poll_ms / 1000,
      .ca_path = options->ca,
      .on_change = on_change,
      .on_point = on_point,
      .arg = keeper,
  };
  if (options->staples.is_on || staples.poll_s > 0) {
    TRY(staple_fetch_new(&keeper->fetch, &staples));
  }
  if (options->revocation.policy != REVOCATION_OFF) {
    TRY(revocation_watch_new(&keeper->watch, &lists));
  }

out:
  return st;
}

enum status keeper_new(struct keeper **out, const struct keeper_options *options,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct keeper *keeper = calloc(1, sizeof(*keeper));

  *out = NULL;
  if (keeper == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  keeper->given = *options;
  keeper->options = options->options;
  keeper->revocation = options->options->revocation;
  keeper->poll_s =
      keeper->revocation.policy == REVOCATION_OFF ? 0 : keeper->revocation.ocsp_poll_ms / 1000;
  keeper->seen_version = NO_VERSION;
  writer_init(&keeper->writer, options->audit, options->stats);
  switcher_init(&keeper->switcher, options->audit, options->stats);
  TRY(open_store(keeper, err));
  TRY(timer_init(&keeper->tick, options->loop, on_tick, keeper));
  TRY(timer_init(&keeper->gather, options->loop, on_gathered, keeper));
  TRY(http_client_new(&keeper->http, options->loop));
  TRY(jobs_new(&keeper->jobs, options->loop));
  TRY(jobs_new(&keeper->checks, options->loop));
  TRY(start_asking(keeper));
  timer_arm_ms(&keeper->tick, 0);
  *out = keeper;
  keeper = NULL;

out:
  if (st != STATUS_OK && err->text[0] == '\0') {
    (void)errmsg_set(err, st, "cannot begin: %s", status_name(st));
  }
  keeper_free(keeper);
  return st;
}

void keeper_reload(struct keeper *keeper, const struct revocation_options *revocation) {
  // The watch is there or is not, from the start.
  if ((revocation->policy == REVOCATION_OFF) == (keeper->revocation.policy == REVOCATION_OFF)) {
    keeper->revocation.policy = revocation->policy;
  }
  keeper->revocation.ceiling = revocation->ceiling;
  keeper->revocation.until_ms = revocation->until_ms;
  keeper->switcher.again_s = 0;  // all are judged again
  go_on(keeper);
}

void keeper_free(struct keeper *keeper) {
  if (keeper == NULL) {
    return;
  }
  jobs_free(keeper->jobs);
  jobs_free(keeper->checks);
  if (keeper->is_writing) {
    writer_done(&keeper->writer);
  }
  if (keeper->store != NULL && writer_take(&keeper->writer)) {
    writer_write(&keeper->writer, keeper->store);
  }
  staple_fetch_free(keeper->fetch);
  revocation_watch_free(keeper->watch);
  http_client_free(keeper->http);
  timer_cleanup(&keeper->tick);
  timer_cleanup(&keeper->gather);
  tally_cleanup(&keeper->tally);
  catalog_cleanup(&keeper->catalog);
  writer_cleanup(&keeper->writer);
  switcher_cleanup(&keeper->switcher);
  close_store(keeper);
  free(keeper);
}

void keeper_read_view(const struct keeper *keeper, struct keeper_view *out) {
  *out = (struct keeper_view){
      .has_store = keeper->store != NULL,
      .has_scanned = keeper->has_scanned,
      .num_chains = keeper->catalog.num,
      .num_asked = keeper->num_asked,
      .num_listed = keeper->num_listed,
      .num_lists = keeper->watch == NULL ? 0 : revocation_watch_num_points(keeper->watch),
      .num_revoked = switcher_num(&keeper->switcher),
      .num_waiting = keeper->writer.num_waiting + keeper->writer.num_batch,
      .ceiling_used = ceiling_used(&keeper->switcher.ceiling, clock_monotonic_ms() / 1000),
      .scan_us = keeper->is_scanning ? 0 : keeper->scan_us,
      .has_fetch = keeper->fetch != NULL,
  };
  if (keeper->fetch != NULL) {
    staple_fetch_read_stats(keeper->fetch, &out->fetch);
  }
}
