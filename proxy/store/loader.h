// SPDX-License-Identifier: Apache-2.0
// loader: reads names out of the store, on a thread of its own: page faults, parsing and
// the making of TLS objects happen there. One name is read once, however many workers
// miss it; what was found goes into the cache (name_cache.h), and all who asked are told.
//
//   worker: miss --load_ask--> control: one load for each name --job--> loader reads
//   worker: on_answered <----- control: into the cache         <--done--
//
// Threads: control, but where another is named.
#ifndef DEPUTY_PROXY_STORE_LOADER_H_
#define DEPUTY_PROXY_STORE_LOADER_H_

#include "common/net/job.h"
#include "proxy/store/name_cache.h"
#include "proxy/store/store_handle.h"

#define LOADER_NUM_BUCKETS 256u  // of loads under way

struct load;
struct loader;

// What a worker asks. Embedded in the asker, who leaves it alone between its post to
// control and on_answered. The loader ends before it.
struct load_ask {
  struct loader *loader;
  struct cache_query query;  // load_ask_set
  struct loop *loop;         // the asker's: where on_answered is called
  void (*on_answered)(void *arg);
  void *arg;
  enum status st;         // STATUS_OK: look again, as the name or its absence is in the cache
  struct load_ask *next;  // private
};

struct loader {
  struct loop *loop;
  struct jobs *jobs;
  struct store_handle *handle;
  struct name_cache *names;
  struct cert_pool *pool;  // intermediates are kept once
  struct load *buckets[LOADER_NUM_BUCKETS];
  struct load *held;  // while the store is opened anew
  bool has_outdated;  // a name has come that was read before the latest import
  bool has_mapped;    // jobs since pages were last given back
  struct job release;
  unsigned num_mapped;  // the thread's: names whose pages are mapped
  struct counter num_loaded, num_unknown, num_failed;
};

// loader_init: all borrowed. STATUS_MEMORY. loader_start starts the thread:
// STATUS_MEMORY, STATUS_SYSTEM.
enum status loader_init(struct loader *loader, struct loop *loop, struct store_handle *handle,
                        struct name_cache *names);
enum status loader_start(struct loader *loader);
// loader_stop waits for the thread; the loop has ended. loader_cleanup: after the cache.
void loader_stop(struct loader *loader);
void loader_cleanup(struct loader *loader);

// load_ask_set copies the query. The asker's thread.
void load_ask_set(struct load_ask *ask, const struct cache_query *query);
// loader_on_ask takes a struct load_ask; what a worker posts.
void loader_on_ask(void *ask);

// loader_restart: the store has been opened anew.
void loader_restart(struct loader *loader);
// loader_release_if_idle lets the kernel have back what loads have mapped
// (store_pages.c), once none is under way.
void loader_release_if_idle(struct loader *loader);

// --- for others who read names on this thread (renewal.h) -----------------------------

// loader_run has a job run on the thread; its done has to call loader_done.
void loader_run(struct loader *loader, struct job *job);
void loader_done(struct loader *loader);

// On the thread: loader_begin moves its reader to the newest snapshot, of *out_version of
// the chains; as store_reader_refresh. loader_read is ready_load by that. loader_end:
// after `num` names were read.
enum status loader_begin(struct loader *loader, uint64_t *out_version);
enum status loader_read(struct loader *loader, struct ready **out, struct bytes name,
                        const struct ready_mark *known, struct errmsg *err);
void loader_end(struct loader *loader, size_t num);

#endif  // DEPUTY_PROXY_STORE_LOADER_H_
