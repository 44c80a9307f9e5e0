// SPDX-License-Identifier: Apache-2.0
// renewal: after an import the names in the cache are compared with the store, a chunk at
// a time, on the loader's thread; those that differ are made ready anew, and those that
// are gone leave the cache. Until then the earlier ones serve.
//
// Threads: control.
#ifndef DEPUTY_PROXY_STORE_RENEWAL_H_
#define DEPUTY_PROXY_STORE_RENEWAL_H_

#include "proxy/store/loader.h"

#define RENEWAL_CHUNK 64  // names that one job compares with the store

struct renewal {
  struct loader *loader;
  uint64_t renewed_version;  // of the chains, that all names in the cache have
  // The round under way.
  bool is_running;
  size_t at;         // cache_each; 0: a round is over
  uint64_t version;  // the earliest that the round has read
  // Its job: the thread's until done.
  struct job job;
  size_t num;
  struct ready *names[RENEWAL_CHUNK];
  struct ready *made[RENEWAL_CHUNK];
  enum status st[RENEWAL_CHUNK];
  struct counter num_renewed;
};

// renewal_init borrows the loader. renewal_start: what comes into the cache from now on
// has the version of now.
void renewal_init(struct renewal *renewal, struct loader *loader);
void renewal_start(struct renewal *renewal);

// renewal_run begins a round if the store's chains have changed since the last.
void renewal_run(struct renewal *renewal);
// renewal_restart: the store has been opened anew, and all names are to be compared.
void renewal_restart(struct renewal *renewal);

// renewal_stop: after loader_stop.
void renewal_stop(struct renewal *renewal);

#endif  // DEPUTY_PROXY_STORE_RENEWAL_H_
