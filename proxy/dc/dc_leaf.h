// SPDX-License-Identifier: Apache-2.0
// dc_leaf: a leaf that may delegate, by its hash: its credential and key, if it has one,
// and the chains in memory that show it (of names in the cache, of the configuration, of
// two sites while one replaces the other). A credential is of one leaf (RFC 9345, section
// 4), so it is asked for once, whatever the number of names under the leaf, and goes on
// when chains come and go.
//
// Threads: control. Workers see chain->dc alone, swapped in whole and given up by grace.
#ifndef DEPUTY_PROXY_DC_DC_LEAF_H_
#define DEPUTY_PROXY_DC_DC_LEAF_H_

#include "certstore/chain.h"
#include "proxy/dc/dc_schedule.h"
#include "proxy/grace.h"

struct dc_leaf {
  struct dc_entry entry;  // first: dc_leaf_of
  uint8_t sha256[32];
  struct dc_leaf *next;   // in its bucket
  struct chain *chains;   // by chain->supply_next
  size_t num_configured;  // of these, of configured names
  // The credential in force; key NULL: none.
  EVP_PKEY *key;
  uint8_t *dc;
  size_t dc_len;
  int64_t ends_s;
  uint32_t avoided;  // issuers that failed it since it was last asked for
  const char *why;   // the last failure, static
};

static inline struct dc_leaf *dc_leaf_of(struct dc_entry *entry) { return (void *)entry; }

struct dc_leaves {
  struct dc_leaf **buckets;
  size_t num_buckets;  // a power of two
  size_t num;
};

struct dc_leaf *dc_leaves_find(const struct dc_leaves *leaves, const uint8_t sha256[32]);
// dc_leaves_get finds it, or makes it and adds it to the schedule. NULL: no memory.
struct dc_leaf *dc_leaves_get(struct dc_leaves *leaves, struct dc_schedule *schedule,
                              const uint8_t sha256[32]);
// dc_leaves_remove frees a leaf without chains; its key is wiped with its last handshake.
void dc_leaves_remove(struct dc_leaves *leaves, struct dc_schedule *schedule, struct dc_leaf *leaf);
// dc_leaves_each calls fn for each, which may remove it.
void dc_leaves_each(struct dc_leaves *leaves, void (*fn)(void *arg, struct dc_leaf *leaf),
                    void *arg);
void dc_leaves_cleanup(struct dc_leaves *leaves);

// dc_leaf_attach: the chain, which has no leaf yet, has this one, and what it has.
void dc_leaf_attach(struct dc_leaf *leaf, struct chain *chain, bool is_configured,
                    struct grace *grace);
void dc_leaf_detach(struct chain *chain, bool is_configured);

// dc_leaf_make returns what a chain with this leaf is to show, or NULL.
struct tls_dc *dc_leaf_make(const struct dc_leaf *leaf, const struct chain *chain);

// dc_leaf_put takes the key and the credential, and puts them in force.
void dc_leaf_put(struct dc_leaf *leaf, EVP_PKEY **key, uint8_t **dc, size_t dc_len, int64_t ends_s,
                 struct grace *grace);
// dc_leaf_refresh makes anew what chains show: a staple has ended.
void dc_leaf_refresh(const struct dc_leaf *leaf, struct grace *grace);
void dc_leaf_drop(struct dc_leaf *leaf, struct grace *grace);

// dc_leaf_event_ms is when there is something to do about the credential: its end, or
// that of a staple that a chain shows with it (wall clock).
int64_t dc_leaf_event_ms(const struct dc_leaf *leaf, int64_t now_s);

// dc_leaf_name is what logs call it.
const char *dc_leaf_name(const struct dc_leaf *leaf);

#endif  // DEPUTY_PROXY_DC_DC_LEAF_H_
