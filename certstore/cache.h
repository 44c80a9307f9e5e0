// SPDX-License-Identifier: Apache-2.0
// cache: the names of a store that are ready (ready.h), and for a short while those
// that are not in it, so that a look-up in memory answers most handshakes. Bounded: a
// host's place is one of a few that its hash allows, and when these are taken the one
// goes that no handshake has asked for since it was last looked at (second chance). An
// unknown name never drives out a known one: the two lie in tables apart.
//
// Threads: cache_find from any number of readers, at any time, without a lock, an
// allocation or a system call. All else on one thread, the owner's. What leaves the
// cache is handed to `retire`, which must keep it until no reader can still be in the
// callback in which it could have found it (proxy/grace.h).
#ifndef DEPUTY_CERTSTORE_CACHE_H_
#define DEPUTY_CERTSTORE_CACHE_H_

#include "certstore/ready.h"

#define CACHE_WAYS 8u  // places that one hash allows

struct cache;

// A name that is not in the store.
struct cache_absent {
  uint64_t hash;
  size_t name_len;
  int64_t firm_until_ms;  // until then whatever is imported
  int64_t ends_ms;        // and until then if nothing is
  uint64_t chains_version;
  _Atomic bool is_seen;
  char name[];
};

struct cache_host {
  uint64_t hash;
  struct bytes text;  // borrowed
};

struct cache_hooks {
  void *arg;
  // A name has left, with the cache's reference; or a name known to be absent (free).
  void (*retire_ready)(void *arg, struct ready *ready);
  void (*retire_absent)(void *arg, struct cache_absent *absent);
};

// cache_new: `max` names of each sort, rounded up to a power of two. STATUS_MEMORY.
enum status cache_new(struct cache **out, size_t max_ready, size_t max_absent,
                      const struct cache_hooks *hooks);
void cache_free(struct cache *cache);  // frees what is in it at once; NULL allowed

// cache_host_of: by a secret of this cache, as clients choose the names they ask for.
struct cache_host cache_host_of(const struct cache *cache, struct bytes name);

enum cache_answer { CACHE_MISS, CACHE_READY, CACHE_ABSENT };

// cache_find looks one name up as it is kept (lower case, "*.x"). CACHE_READY: *out is
// lent for the callback that the caller is in.
enum cache_answer cache_find(const struct cache *cache, struct ready **out,
                             const struct cache_host *host, int64_t now_ms,
                             uint64_t chains_version);

// A host as a client named it, and the wildcard that would cover it.
struct cache_query {
  struct cache_host exact;
  struct cache_host wildcard;  // empty text: none
  char exact_text[CERTSTORE_NAME_MAX_LEN + 1];
  char wildcard_text[CERTSTORE_NAME_MAX_LEN + 1];
};
// cache_query_of: false when `sni` is no host name. The query is not to be copied.
bool cache_query_of(struct cache_query *out, const struct cache *cache, struct bytes sni);

// cache_find_host finds the exact name, or the wildcard once the exact name is known to
// be absent. CACHE_MISS: one of the two is not known.
enum cache_answer cache_find_host(const struct cache *cache, struct ready **out,
                                  const struct cache_query *query, int64_t now_ms,
                                  uint64_t chains_version);

// cache_put takes the caller's reference; what was there under the name is retired.
void cache_put(struct cache *cache, struct ready *ready);
// cache_put_absent: STATUS_MEMORY. What was known of the name is retired.
enum status cache_put_absent(struct cache *cache, const struct cache_host *host,
                             int64_t firm_until_ms, int64_t ends_ms, uint64_t chains_version);

// cache_each hands out what lies in the next places after *at (from 0 on), at most
// `max`; it returns how many, and moves *at; all have been when *at is 0 again. Names
// that come meanwhile may be missed. The owner's thread.
size_t cache_each(const struct cache *cache, size_t *at, struct ready **out, size_t max);

struct cache_counts {
  size_t num_ready, max_ready;
  size_t num_absent, max_absent;
  uint64_t num_evicted, num_absent_evicted;
};
void cache_count(const struct cache *cache, struct cache_counts *out);  // the owner's thread

#endif  // DEPUTY_CERTSTORE_CACHE_H_
