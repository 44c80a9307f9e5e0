// SPDX-License-Identifier: Apache-2.0
// state_follower: what is in memory of the store's states: the words of the fleet, of the
// configured names with their keys and CAs, and of the names in the cache. Any process may
// write states; the follower sees their version change and brings memory up to date, the
// cache in chunks, as nothing waits for it: until a name's turn has come a handshake finds
// out that its words are not of now, and reads those itself (lookup.h).
//
// Threads: control, but where another is named.
#ifndef DEPUTY_PROXY_STORE_STATE_FOLLOWER_H_
#define DEPUTY_PROXY_STORE_STATE_FOLLOWER_H_

#include "certstore/cache.h"
#include "proxy/site.h"
#include "proxy/store/store_handle.h"

struct state_follower {
  struct store_handle *handle;
  const struct cache *cache;
  struct states *states;
  struct state *fleet;
  const struct site *site;  // NULL: none as yet

  // What the words of configured names and of the fleet are from, and when they end by
  // themselves (0: never).
  _Atomic uint64_t config_version;
  _Atomic int64_t config_end_s;

  size_t chunk;  // names in one go
  bool is_walking;
  size_t walk_at;
  uint64_t walk_version;
  int64_t walk_end_s;
  uint64_t walked_version;
  int64_t walked_end_s;  // the first end of a word in memory; 0: none
};

// state_follower_init follows the states in `handle` for a cache of at most `max_cached`
// (all borrowed). STATUS_MEMORY.
enum status state_follower_init(struct state_follower *follower, struct store_handle *handle,
                                const struct cache *cache, size_t max_cached,
                                struct states *states);

// state_follower_set_site: its configured names follow from now on.
void state_follower_set_site(struct state_follower *follower, const struct site *site);

// state_follower_run brings the next few names up to date if there is news. False: there
// are more.
bool state_follower_run(struct state_follower *follower);
// state_follower_restart begins anew, as the store has been opened anew.
void state_follower_restart(struct state_follower *follower);

// state_follower_catch_up does so at once for configured names and the fleet.
void state_follower_catch_up(struct state_follower *follower);
// state_follower_update does so at once for a name that is in the cache, or is about to
// be. False: its states cannot be read.
bool state_follower_update(struct state_follower *follower, struct ready *ready);

// state_follower_is_current: is what is in memory what `store` says now? Of `ready`; NULL:
// of configured names. Workers.
static inline bool state_follower_is_current(const struct state_follower *follower,
                                             const struct store *store, const struct ready *ready,
                                             int64_t now_s) {
  uint64_t version = atomic_load_explicit(
      ready != NULL ? &ready->states_version : &follower->config_version, memory_order_acquire);
  int64_t end_s = atomic_load_explicit(
      ready != NULL ? &ready->words_end_s : &follower->config_end_s, memory_order_relaxed);
  return version == store_states_version(store) && (end_s == 0 || now_s < end_s);
}

#endif  // DEPUTY_PROXY_STORE_STATE_FOLLOWER_H_
