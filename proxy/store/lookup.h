// SPDX-License-Identifier: Apache-2.0
// lookup: what a handshake sees of the store: a name that is in it rather than in the
// configuration is found in a cache of ready names (certstore/cache.h); one that is not
// there is asked for (loader.h), while the connection waits in LOOKUP and the loop goes
// on. And the states by which its chain is chosen are those of this moment, whoever wrote
// them last (served_store.h).
//
// Threads: workers, but where control is named. No lock; an allocation or a system call
// only for a name that is not in the cache.
#ifndef DEPUTY_PROXY_STORE_LOOKUP_H_
#define DEPUTY_PROXY_STORE_LOOKUP_H_

#include <stdbool.h>

#include "certstore/cache.h"
#include "certstore/certstore.h"

struct ask;
struct conn;
struct desk;
struct loader;
struct state_follower;
struct store_handle;
struct worker;

struct lookup {
  const struct store_handle *handle;
  const struct cache *cache;
  const struct state_follower *follower;
  struct loader *loader;
  struct desk *desks;  // what each worker has of its own
};

// lookup_init borrows the loader with all that it knows, and these workers. Control;
// STATUS_MEMORY. lookup_cleanup: after the workers. All-zero is fine.
enum status lookup_init(struct lookup *lookup, struct loader *loader, struct worker *const *workers,
                        size_t num_workers);
void lookup_cleanup(struct lookup *lookup);

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
