// SPDX-License-Identifier: Apache-2.0
// lookup: names that are in the store (certstore/store.h) rather than in the
// configuration: found in a cache of ready names (certstore/cache.h); one that is not
// there is read on a thread of its own, while its connections wait in LOOKUP and the
// loop goes on.
//
//   worker                      control                     loader
//   lookup_find: miss, ask --post--> one load for each name --job--> reads, makes ready
//   LOOKUP: woken          <--post-- into the cache         <--done--
//
// States: what is in memory was read from the store at some version of its states; each
// handshake compares that with the version of now (a few loads). If they differ, the
// worker itself reads the words of its name's subjects from the store, lock-free, until
// the control thread has brought the memory up to date. So a switch by any process
// counts at the next handshake, and nothing is posted for it.
//
// Threads: as each section says. The store is opened and closed by control alone; when a
// compaction has replaced its file, workers are first seen to have let go of it.
#ifndef DEPUTY_PROXY_STORE_LOOKUP_H_
#define DEPUTY_PROXY_STORE_LOOKUP_H_

#include <jansson.h>
#include <stdbool.h>

#include "certstore/cache.h"
#include "common/base/metrics.h"
#include "proxy/grace.h"
#include "proxy/site.h"
#include "proxy/store/store_task.h"

struct conn;
struct worker;
struct lookup;

// --- control ---------------------------------------------------------------------------

// lookup_open opens the store of the options; as store_open, and STATUS_MEMORY.
enum status lookup_open(struct lookup **out, struct loop *loop, struct states *states,
                        const struct store_place_options *options, struct errmsg *err);

// lookup_start prepares for these workers (borrowed, as `grace`): before they run.
// STATUS_MEMORY, STATUS_SYSTEM, STATUS_LIMIT.
enum status lookup_start(struct lookup *lookup, struct grace *grace, struct worker *const *workers,
                         size_t num_workers, struct errmsg *err);

// lookup_on_change: `fn` hears of names that enter and leave the cache, while nobody
// has freed the latter: `in` or `out` may be NULL; when
// neither is, `in` takes the place of `out` under the same name.
void lookup_on_change(struct lookup *lookup,
                      void (*fn)(void *arg, struct ready *in, struct ready *out), void *arg);

// lookup_set_site: its configured names follow the store's states from now on.
void lookup_set_site(struct lookup *lookup, const struct site *site);

// lookup_store_host is for the admin API: the store as it asks for it.
struct store_host lookup_store_host(struct lookup *lookup);

// lookup_add_status adds what GET /v1/status tells of the store.
void lookup_add_status(struct lookup *lookup, json_t *object);

void lookup_write_metrics(const struct lookup *lookup, struct metrics_text *text);

// lookup_end_tasks waits for those that run; no done is called any more. Then whoever asked
// may go. The loop has ended. NULL allowed.
void lookup_end_tasks(struct lookup *lookup);
// lookup_stop waits for the loader and closes the store: workers and loop have ended.
void lookup_stop(struct lookup *lookup);
// lookup_free: after the workers (connections hold names). NULL allowed.
void lookup_free(struct lookup *lookup);

// --- workers ---------------------------------------------------------------------------

// One connection's wait, and the name that it holds. All-zero is none.
struct looking {
  struct conn *conn;
  struct looking *next;  // of those that wait for the same
  struct looking **link;
  struct ask *ask;  // NULL: not waiting
  enum status st;   // of the load that was waited for
  unsigned num_tries;
  struct ready *ready;  // held; NULL: a configured name, or none
};

enum lookup_answer {
  LOOKUP_FOUND,   // hs->name is set and held
  LOOKUP_ABSENT,  // not in the store
  LOOKUP_WAIT,    // the handshake is to wait: conn_run is called when there is more to say
  LOOKUP_FAILED,  // too many wait, or the store cannot be read
};
enum lookup_answer lookup_find(struct conn *conn, struct bytes sni);

// lookup_is_over: may a handshake that waited go on?
bool lookup_is_over(const struct conn *conn);
// lookup_release ends the wait and lets go of the name.
void lookup_release(struct conn *conn);

// lookup_choose is certstore_choose for hs->name, by the states of this moment. Sets
// hs->is_resume_off when a compromise is among what only the store knows as yet.
enum status lookup_choose(struct choice *out, struct conn *conn, int64_t now_s,
                          bool (*takes)(void *arg, enum key_kind kind), void *arg);

#endif  // DEPUTY_PROXY_STORE_LOOKUP_H_
