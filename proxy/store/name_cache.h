// SPDX-License-Identifier: Apache-2.0
// name_cache: the one place that puts names of the store into the cache of ready names
// (certstore/cache.h) and knows what leaves it: a name gets its words before anybody sees
// it, what has left is freed by grace, and who fetches credentials hears of both.
//
// Threads: control. (Workers read `cache`, by its own rules.)
#ifndef DEPUTY_PROXY_STORE_NAME_CACHE_H_
#define DEPUTY_PROXY_STORE_NAME_CACHE_H_

#include "certstore/cache.h"
#include "proxy/store/state_follower.h"

struct name_cache {
  struct cache *cache;
  struct loop *loop;
  struct grace *grace;  // before the first name comes
  struct state_follower *follower;
  // Hears of names that enter and leave, while nobody has freed the latter: `in` or `out`
  // may be NULL; when neither is, `in` takes the place of `out` under the same name.
  void (*on_change)(void *arg, struct ready *in, struct ready *out);
  void *arg;
  struct ready *entering;  // while it is put into the cache, and has not been told of
};

// name_cache_init is for `max` names, and more that are known to be absent; the rest is
// borrowed. STATUS_MEMORY. name_cache_cleanup: after the workers. All-zero is fine.
enum status name_cache_init(struct name_cache *names, struct loop *loop,
                            struct state_follower *follower, size_t max);
void name_cache_cleanup(struct name_cache *names);

// name_cache_put takes the caller's reference. False: its states cannot be read, and
// without them nothing may be served.
bool name_cache_put(struct name_cache *names, struct ready *ready);

// name_cache_put_absent: a snapshot of the chains, of that version, had no such name.
void name_cache_put_absent(struct name_cache *names, const struct cache_host *host,
                           uint64_t chains_version);

#endif  // DEPUTY_PROXY_STORE_NAME_CACHE_H_
