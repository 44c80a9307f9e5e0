// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/name_cache.h"

#include <stdlib.h>
#include <string.h>

#define ABSENT_FIRM_MS 1000  // an unknown name stays unknown, whatever is imported
#define ABSENT_MS 30000      // and so long if nothing is
#define ABSENT_PER_READY 4   // places for unknown names, to one for a known name

// --- what leaves ----------------------------------------------------------------------

static void drop_ready(void *arg) { ready_unref(arg); }

static void tell_change(struct name_cache *names, struct ready *in, struct ready *out) {
  if (names->on_change != NULL) {
    names->on_change(names->arg, in, out);
  }
}

static void retire_ready(void *arg, struct ready *ready) {
  struct name_cache *names = arg;
  struct ready *in = names->entering;
  if (in != NULL && strcmp(in->name.name, ready->name.name) == 0) {
    names->entering = NULL;
    tell_change(names, in, ready);
  } else {
    tell_change(names, NULL, ready);
  }
  grace_after(names->grace, drop_ready, ready);
}

static void retire_absent(void *arg, struct cache_absent *absent) {
  struct name_cache *names = arg;
  grace_after(names->grace, free, absent);
}

// --- what enters ----------------------------------------------------------------------

bool name_cache_put(struct name_cache *names, struct ready *ready) {
  if (!state_follower_update(names->follower, ready)) {
    ready_unref(ready);
    return false;
  }
  names->entering = ready;
  cache_put(names->cache, ready);
  if (names->entering != NULL) {
    names->entering = NULL;
    tell_change(names, ready, NULL);
  }
  return true;
}

void name_cache_put_absent(struct name_cache *names, const struct cache_host *host,
                           uint64_t chains_version) {
  int64_t now_ms = loop_now_ms(names->loop);
  // Without memory the next handshake asks again.
  (void)!cache_put_absent(names->cache, host, now_ms + ABSENT_FIRM_MS, now_ms + ABSENT_MS,
                          chains_version);
}

enum status name_cache_init(struct name_cache *names, struct loop *loop,
                            struct state_follower *follower, size_t max) {
  const struct cache_hooks hooks = {names, retire_ready, retire_absent};
  names->loop = loop;
  names->follower = follower;
  return cache_new(&names->cache, max, ABSENT_PER_READY * max, &hooks);
}

void name_cache_cleanup(struct name_cache *names) {
  cache_free(names->cache);
  names->cache = NULL;
}
