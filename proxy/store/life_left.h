// SPDX-License-Identifier: Apache-2.0
// life_left: when, of all chains of the names in the cache, the first certificate, the first
// staple and the first delegated credential end: what an operator is to be woken by, without
// a gauge for each of a million names.
//
// Who asks moves it on: each look goes over the next LIFE_LEFT_NAMES names of the cache, and
// what is told is of the last whole round. A cache of the usual size is one round for each look.
//
// Threads: control.
#ifndef DEPUTY_PROXY_STORE_LIFE_LEFT_H_
#define DEPUTY_PROXY_STORE_LIFE_LEFT_H_

#include <stddef.h>
#include <stdint.h>

#include "certstore/cache.h"

#define LIFE_LEFT_NAMES ((size_t)65536)  // some milliseconds

enum life { LIFE_CERTIFICATE, LIFE_STAPLE, LIFE_DC, LIFE_NUM };

// All-zero is before the first look.
struct life_left {
  size_t at;                 // cache_each
  int64_t ends_s[LIFE_NUM];  // of the round under way; 0: none yet
  int64_t told_s[LIFE_NUM];  // of the last whole round; 0: there is none
};

// life_left_look moves on; `told_s` is up to date if the round ended.
void life_left_look(struct life_left *left, const struct cache *cache);

const char *life_name(enum life life);  // "certificate"

#endif  // DEPUTY_PROXY_STORE_LIFE_LEFT_H_
