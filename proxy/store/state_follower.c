// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/state_follower.h"

#include "common/base/clock.h"
#include "common/base/log.h"

#define MIN_CHUNK 16   // names whose words are brought up to date in one go,
#define MAX_CHUNK 512  // and at most so many: workers may share the processor with control
#define NUM_CHUNKS 512

static int64_t sooner(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

// put_words brings one ready name up to date with control's reader.
static bool put_words(struct state_follower *follower, struct ready *ready, uint64_t version,
                      int64_t *out_end_s) {
  struct certstore_words words;
  enum status st = ready_read_words(&words, out_end_s, follower->handle->readers[READER_OF_CONTROL],
                                    &ready->name, clock_wall_s());
  if (st != STATUS_OK) {
    static struct log_gate gate;
    uint64_t num_held = 0;
    if (log_gate_pass(&gate, 1, &num_held)) {
      log_error(0, "states_unreadable", "name=%s reason=%s remedy=\"deputyctl store verify\"",
                ready->name.name, status_name(st));
    }
    return false;
  }
  // The version of a name vouches for the fleet's words as well.
  state_put_words(follower->fleet, &words.fleet);
  ready_put_words(ready, &words, *out_end_s, version);
  return true;
}

static void put_words_of_chain(struct state_follower *follower, const struct chain *chain,
                               const struct state *key, const struct state *ca) {
  char hex[65];
  struct state *own = NULL;
  own = states_get(follower->states, STATE_LEVEL_KEY,
                   bytes_to_hex(hex, bytes_of(chain->info.key_id, 32)));
  if (own != NULL) {
    state_put_words(own, key);
  }
  own = states_get(follower->states, STATE_LEVEL_CA,
                   bytes_to_hex(hex, bytes_of(chain->info.ca_id, 32)));
  if (own != NULL) {
    state_put_words(own, ca);
  }
}

static int64_t put_words_of_configured(struct state_follower *follower,
                                       const struct cert_name *name, int64_t now_s) {
  struct certstore_words words;
  int64_t end_s = 0;
  struct state *own = states_get(follower->states, STATE_LEVEL_NAME, name->name);
  if (own == NULL || ready_read_words(&words, &end_s, follower->handle->readers[READER_OF_CONTROL],
                                      name, now_s) != STATUS_OK) {
    return 0;
  }
  state_put_words(follower->fleet, &words.fleet);
  state_put_words(own, &words.name);
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      put_words_of_chain(follower, name->levels[i].chains[j], &words.keys[i][j], &words.cas[i][j]);
    }
  }
  return end_s;
}

// put_words_of_fleet is for when there are no configured names, and none in the cache.
static int64_t put_words_of_fleet(struct state_follower *follower, int64_t now_s) {
  struct store_words said;
  struct state words = {0};
  if (store_get_words(follower->handle->readers[READER_OF_CONTROL], &said, STATE_LEVEL_FLEET,
                      (struct bytes){0}, now_s) != STATUS_OK) {
    return 0;
  }
  atomic_init(&words.preferred, said.preferred);
  atomic_init(&words.is_dc_off, said.is_dc_off);
  state_put_words(follower->fleet, &words);
  return said.until_s;
}

// A handful of names: all at once. The version is shown when all words are in place.
static int64_t put_words_of_site(struct state_follower *follower, uint64_t version) {
  int64_t now_s = clock_wall_s();
  int64_t end_s = 0;
  size_t num = 0;
  const struct cert_name *const *names = NULL;
  if (follower->site == NULL) {
    return 0;
  }
  end_s = put_words_of_fleet(follower, now_s);
  names = certstore_names(follower->site->store, &num);
  for (size_t i = 0; i < num; i++) {
    end_s = sooner(end_s, put_words_of_configured(follower, names[i], now_s));
  }
  atomic_store_explicit(&follower->config_end_s, end_s, memory_order_relaxed);
  atomic_store_explicit(&follower->config_version, version, memory_order_release);
  return end_s;
}

// walk_states brings the next few names of the cache up to date; false: not all yet.
static bool walk_states(struct state_follower *follower) {
  struct ready *names[MAX_CHUNK];
  uint64_t version = 0;
  if (!store_handle_refresh(follower->handle, &version)) {
    return true;  // the next tick tries again
  }
  if (!follower->is_walking) {
    follower->is_walking = true;
    follower->walk_at = 0;
    follower->walk_version = version;
    follower->walk_end_s = put_words_of_site(follower, version);
  }
  size_t num = cache_each(follower->cache, &follower->walk_at, names, follower->chunk);
  for (size_t i = 0; i < num; i++) {
    int64_t end_s = 0;
    (void)put_words(follower, names[i], version, &end_s);
    follower->walk_end_s = sooner(follower->walk_end_s, end_s);
  }
  store_handle_park(follower->handle);
  if (follower->walk_at != 0) {
    return false;
  }
  follower->is_walking = false;
  follower->walked_version = follower->walk_version;
  follower->walked_end_s = follower->walk_end_s;
  return true;
}

static bool has_news(const struct state_follower *follower) {
  return follower->is_walking ||
         follower->walked_version != store_states_version(follower->handle->store) ||
         (follower->walked_end_s != 0 && clock_wall_s() >= follower->walked_end_s);
}

enum status state_follower_init(struct state_follower *follower, struct store_handle *handle,
                                const struct cache *cache, size_t max_cached,
                                struct states *states) {
  const size_t chunk = max_cached / NUM_CHUNKS;
  follower->handle = handle;
  follower->cache = cache;
  follower->states = states;
  follower->fleet = states_get(states, STATE_LEVEL_FLEET, "");
  follower->chunk = chunk < MIN_CHUNK ? MIN_CHUNK : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
  follower->walked_version = UINT64_MAX;
  atomic_store(&follower->config_version, UINT64_MAX);
  return follower->fleet == NULL ? STATUS_MEMORY : STATUS_OK;
}

bool state_follower_run(struct state_follower *follower) {
  return !has_news(follower) || walk_states(follower);
}

void state_follower_restart(struct state_follower *follower) {
  follower->is_walking = false;
  follower->walked_version = UINT64_MAX;
  (void)walk_states(follower);
}

// --- at once ----------------------------------------------------------------------------

void state_follower_set_site(struct state_follower *follower, const struct site *site) {
  uint64_t version = 0;
  follower->site = site;
  if (!follower->handle->is_closing && store_handle_refresh(follower->handle, &version)) {
    int64_t end_s = put_words_of_site(follower, version);
    follower->walked_end_s = sooner(follower->walked_end_s, end_s);
    store_handle_park(follower->handle);
  }
}

void state_follower_catch_up(struct state_follower *follower) {
  uint64_t version = 0;
  int64_t end_s = atomic_load_explicit(&follower->config_end_s, memory_order_relaxed);
  if (follower->handle->is_closing || !store_handle_refresh(follower->handle, &version)) {
    return;
  }
  if (atomic_load_explicit(&follower->config_version, memory_order_relaxed) != version ||
      (end_s != 0 && clock_wall_s() >= end_s)) {
    follower->walked_end_s = sooner(follower->walked_end_s, put_words_of_site(follower, version));
  }
  store_handle_park(follower->handle);
}

bool state_follower_update(struct state_follower *follower, struct ready *ready) {
  uint64_t version = 0;
  int64_t end_s = 0;
  bool is_good = store_handle_refresh(follower->handle, &version) &&
                 put_words(follower, ready, version, &end_s);
  store_handle_park(follower->handle);
  if (is_good) {
    follower->walked_end_s = sooner(follower->walked_end_s, end_s);
    follower->walk_end_s = sooner(follower->walk_end_s, end_s);
  }
  return is_good;
}
