// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_leaf.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define MIN_BUCKETS 256u

// --- the table -----------------------------------------------------------------------

static size_t bucket_of(const uint8_t sha256[32], size_t num_buckets) {
  uint64_t hash = 0;
  memcpy(&hash, sha256, sizeof(hash));
  return (size_t)hash & (num_buckets - 1);
}

struct dc_leaf *dc_leaves_find(const struct dc_leaves *leaves, const uint8_t sha256[32]) {
  struct dc_leaf *leaf =
      leaves->num_buckets == 0 ? NULL : leaves->buckets[bucket_of(sha256, leaves->num_buckets)];
  while (leaf != NULL && memcmp(leaf->sha256, sha256, 32) != 0) {
    leaf = leaf->next;
  }
  return leaf;
}

static void link_leaf(struct dc_leaf **buckets, size_t num_buckets, struct dc_leaf *leaf) {
  struct dc_leaf **bucket = &buckets[bucket_of(leaf->sha256, num_buckets)];
  leaf->next = *bucket;
  *bucket = leaf;
}

static bool grow(struct dc_leaves *leaves) {
  const size_t num = leaves->num_buckets == 0 ? MIN_BUCKETS : leaves->num_buckets * 2;
  struct dc_leaf **buckets = calloc(num, sizeof(struct dc_leaf *));
  if (buckets == NULL) {
    return leaves->num_buckets > 0;  // longer chains, then
  }
  for (size_t i = 0; i < leaves->num_buckets; i++) {
    while (leaves->buckets[i] != NULL) {
      struct dc_leaf *leaf = leaves->buckets[i];
      leaves->buckets[i] = leaf->next;
      link_leaf(buckets, num, leaf);
    }
  }
  free((void *)leaves->buckets);
  leaves->buckets = buckets;
  leaves->num_buckets = num;
  return true;
}

struct dc_leaf *dc_leaves_get(struct dc_leaves *leaves, struct dc_schedule *schedule,
                              const uint8_t sha256[32]) {
  struct dc_leaf *leaf = dc_leaves_find(leaves, sha256);
  if (leaf != NULL || (leaves->num == leaves->num_buckets && !grow(leaves))) {
    return leaf;
  }
  leaf = calloc(1, sizeof(*leaf));
  if (leaf == NULL || dc_schedule_add(schedule, &leaf->entry) != STATUS_OK) {
    free(leaf);
    return NULL;
  }
  memcpy(leaf->sha256, sha256, 32);
  link_leaf(leaves->buckets, leaves->num_buckets, leaf);
  leaves->num += 1;
  return leaf;
}

static void forget_credential(struct dc_leaf *leaf) {
  EVP_PKEY_free(leaf->key);
  free(leaf->dc);
  leaf->key = NULL;
  leaf->dc = NULL;
  leaf->dc_len = 0;
  leaf->ends_s = 0;
}

void dc_leaves_remove(struct dc_leaves *leaves, struct dc_schedule *schedule,
                      struct dc_leaf *leaf) {
  struct dc_leaf **at = &leaves->buckets[bucket_of(leaf->sha256, leaves->num_buckets)];
  CHECK(leaf->chains == NULL);
  while (*at != leaf) {
    at = &(*at)->next;
  }
  *at = leaf->next;
  leaves->num -= 1;
  dc_schedule_remove(schedule, &leaf->entry);
  forget_credential(leaf);
  free(leaf);
}

void dc_leaves_each(struct dc_leaves *leaves, void (*fn)(void *arg, struct dc_leaf *leaf),
                    void *arg) {
  for (size_t i = 0; i < leaves->num_buckets; i++) {
    struct dc_leaf *leaf = leaves->buckets[i];
    while (leaf != NULL) {
      struct dc_leaf *next = leaf->next;
      fn(arg, leaf);
      leaf = next;
    }
  }
}

static void free_leaf(void *arg, struct dc_leaf *leaf) {
  (void)arg;
  forget_credential(leaf);
  free(leaf);
}

void dc_leaves_cleanup(struct dc_leaves *leaves) {
  dc_leaves_each(leaves, free_leaf, NULL);
  free((void *)leaves->buckets);
  *leaves = (struct dc_leaves){0};
}

// --- in force ------------------------------------------------------------------------

static void free_dc(void *arg) { tls_dc_unref(arg); }

// Swaps `dc` (may be NULL; taken) in. What was there goes when no worker can be reading
// it.
static void swap_dc(struct chain *chain, struct tls_dc *dc, struct grace *grace) {
  struct tls_dc *old = atomic_exchange_explicit(&chain->dc, dc, memory_order_acq_rel);
  if (old != NULL) {
    grace_after(grace, free_dc, old);
  }
}

struct tls_dc *dc_leaf_make(const struct dc_leaf *leaf, const struct chain *chain) {
  struct tls_dc *dc = NULL;
  enum status st = STATUS_OK;
  if (leaf->key == NULL) {
    return NULL;
  }
  st = tls_dc_new(&dc, chain_tls(chain, clock_wall_s()), bytes_of(leaf->dc, leaf->dc_len),
                  leaf->key, leaf->ends_s);
  if (st != STATUS_OK) {
    log_error(0, "dc_not_installed", "path=%s reason=%s", chain->path, status_name(st));
  }
  return dc;
}

static void put_in_force(const struct dc_leaf *leaf, struct chain *chain, struct grace *grace) {
  struct tls_dc *dc = dc_leaf_make(leaf, chain);
  if (dc != NULL) {
    swap_dc(chain, dc, grace);
  }
}

void dc_leaf_attach(struct dc_leaf *leaf, struct chain *chain, bool is_configured,
                    struct grace *grace) {
  CHECK(chain->supply == NULL);
  chain->supply = leaf;
  chain->supply_next = leaf->chains;
  chain->supply_link = &leaf->chains;
  if (leaf->chains != NULL) {
    leaf->chains->supply_link = &chain->supply_next;
  }
  leaf->chains = chain;
  leaf->num_configured += is_configured ? 1 : 0;
  if (atomic_load_explicit(&chain->dc, memory_order_relaxed) == NULL) {
    put_in_force(leaf, chain, grace);
  }
}

void dc_leaf_detach(struct chain *chain, bool is_configured) {
  struct dc_leaf *leaf = chain->supply;
  *chain->supply_link = chain->supply_next;
  if (chain->supply_next != NULL) {
    chain->supply_next->supply_link = chain->supply_link;
  }
  chain->supply = NULL;
  chain->supply_next = NULL;
  chain->supply_link = NULL;
  leaf->num_configured -= is_configured ? 1 : 0;
}

void dc_leaf_refresh(const struct dc_leaf *leaf, struct grace *grace) {
  for (struct chain *chain = leaf->chains; chain != NULL; chain = chain->supply_next) {
    put_in_force(leaf, chain, grace);
  }
}

void dc_leaf_put(struct dc_leaf *leaf, EVP_PKEY **key, uint8_t **dc, size_t dc_len, int64_t ends_s,
                 struct grace *grace) {
  forget_credential(leaf);
  leaf->key = *key;
  leaf->dc = *dc;
  *key = NULL;
  *dc = NULL;
  leaf->dc_len = dc_len;
  leaf->ends_s = ends_s;
  leaf->avoided = 0;
  leaf->why = NULL;
  dc_leaf_refresh(leaf, grace);
}

void dc_leaf_drop(struct dc_leaf *leaf, struct grace *grace) {
  for (struct chain *chain = leaf->chains; chain != NULL; chain = chain->supply_next) {
    swap_dc(chain, NULL, grace);
  }
  forget_credential(leaf);
}

int64_t dc_leaf_event_ms(const struct dc_leaf *leaf, int64_t now_s) {
  int64_t at_s = leaf->ends_s + 1;  // its last second is one of its own
  for (const struct chain *chain = leaf->chains; chain != NULL; chain = chain->supply_next) {
    if (chain->tls_bare != NULL && now_s < chain->staple_ends_s && chain->staple_ends_s < at_s) {
      at_s = chain->staple_ends_s;
    }
  }
  return at_s * 1000;
}

const char *dc_leaf_name(const struct dc_leaf *leaf) {
  return leaf->chains != NULL ? leaf->chains->path : "none";
}
