// SPDX-License-Identifier: Apache-2.0
// served_store: the store (certstore/store.h) as this proxy serves from it: names that are
// in it rather than in the configuration. This puts the parts together, and keeps time:
//
//   store_handle    the file and its readers; opened anew when it was compacted
//   name_cache      names that are ready, and those known to be absent
//   loader          reads a name that a worker misses, on a thread of its own
//   renewal         after an import, compares the cache with the store
//   state_follower  after a switch, brings the words in memory up to date
//   store_tasks     runs what operators ask, on threads of their own
//   lookup          what a handshake sees of all this (lookup.h)
//
// States: what is in memory was read from the store at some version of its states; each
// handshake compares that with the version of now (a few loads). If they differ, the
// worker itself reads the words of its name's subjects from the store, lock-free, until
// the control thread has brought the memory up to date. So a switch by any process
// counts at the next handshake, and nothing is posted for it.
//
// Threads: control.
#ifndef DEPUTY_PROXY_STORE_SERVED_STORE_H_
#define DEPUTY_PROXY_STORE_SERVED_STORE_H_

#include <jansson.h>

#include "certstore/ready.h"
#include "common/base/metrics.h"
#include "proxy/grace.h"
#include "proxy/site.h"
#include "proxy/store/store_task.h"

struct lookup;
struct served_store;
struct worker;

// served_store_open opens the store of the options; as store_open, and STATUS_MEMORY.
// The loop and the states are borrowed.
enum status served_store_open(struct served_store **out, struct loop *loop, struct states *states,
                              const struct store_place_options *options, struct errmsg *err);

// served_store_start prepares for these workers (borrowed, as `grace`): before they run.
// STATUS_MEMORY, STATUS_SYSTEM, STATUS_LIMIT.
enum status served_store_start(struct served_store *served, struct grace *grace,
                               struct worker *const *workers, size_t num_workers,
                               struct errmsg *err);

// served_store_on_change: `fn` hears of names that enter and leave the cache
// (name_cache.h).
void served_store_on_change(struct served_store *served,
                            void (*fn)(void *arg, struct ready *in, struct ready *out), void *arg);

// served_store_set_site: its configured names follow the store's states from now on.
void served_store_set_site(struct served_store *served, const struct site *site);

// served_store_lookup lends what workers ask; NULL: there is no store.
struct lookup *served_store_lookup(struct served_store *served);

// served_store_host is for the admin API: the store as it asks for it.
struct store_host served_store_host(struct served_store *served);

// served_store_add_status adds what GET /v1/status tells of the store.
void served_store_add_status(struct served_store *served, json_t *object);

void served_store_write_metrics(struct served_store *served, struct metrics_text *text);

// served_store_end_tasks waits for those that run; no done is called any more. Then whoever
// asked may go. The loop has ended. NULL allowed.
void served_store_end_tasks(struct served_store *served);
// served_store_stop waits for the loader and closes the store: workers and loop have ended.
void served_store_stop(struct served_store *served);
// served_store_free: after the workers (connections hold names). NULL allowed.
void served_store_free(struct served_store *served);

#endif  // DEPUTY_PROXY_STORE_SERVED_STORE_H_
