// SPDX-License-Identifier: Apache-2.0
// store: what one look into a certificate store costs, for names that
// make-certificates made. Three depths, each timed by itself: the name's record; that
// and the choice of a chain (states, validity); both and the chain with its issuer.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "certstore/store.h"
#include "common/base/clock.h"

enum { DEPTH_FIND, DEPTH_CHOOSE, DEPTH_CHAIN, NUM_DEPTHS };
static const char *const depth_names[NUM_DEPTHS] = {"find", "choose", "chain"};

struct look_options {
  const char *store;
  const char *domain;
  int64_t names;
  int64_t hot;
  int64_t count;
};

// clang-format off
static const struct option_row options[] = {
  {"store", OPTION_TEXT, offsetof(struct look_options, store), .is_required = true,
   .help = "the store"},
  {"domain", OPTION_TEXT, offsetof(struct look_options, domain), .fallback = "bench.test",
   .help = "as make-certificates was told"},
  {"names", OPTION_COUNT, offsetof(struct look_options, names), .fallback = "1000", .min = 1,
   .max = 100000000, .help = "names in the store"},
  {"hot", OPTION_COUNT, offsetof(struct look_options, hot), .fallback = "0", .min = 0,
   .max = 100000000, .help = "look only at this many of them; 0: at all"},
  {"count", OPTION_COUNT, offsetof(struct look_options, count), .fallback = "200000", .min = 100,
   .max = 10000000, .help = "looks at each depth"},
  {0},
};
// clang-format on

static int64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static enum status look(const struct store_reader *reader, int depth, struct bytes host,
                        int64_t now_s) {
  enum status st = STATUS_OK;
  struct store_name name;
  struct store_choice choice;
  struct store_chain chain;
  struct bytes issuer;
  TRY(store_find(reader, &name, host));
  if (depth >= DEPTH_CHOOSE) {
    TRY(store_choose(&choice, reader, host, &name, now_s, NULL, NULL, NULL));
  }
  if (depth >= DEPTH_CHAIN) {
    TRY(store_get_chain(reader, &chain, choice.slot->chain_id));
    TRY(store_get_issuer(reader, &issuer, chain.issuers.data));
  }

out:
  return st;
}

static int compare(const void *a, const void *b) {
  int64_t one = *(const int64_t *)a;
  int64_t two = *(const int64_t *)b;
  return (one > two) - (one < two);
}

static enum status run_depth(json_t *summary, struct store_reader *reader, int depth,
                             const struct look_options *o, int64_t *taken_ns, struct errmsg *err) {
  uint64_t state = 88172645463325252ULL;  // xorshift: the same names in each run
  uint64_t num = (uint64_t)(o->hot > 0 && o->hot < o->names ? o->hot : o->names);
  int64_t now_s = clock_wall_s();
  for (int64_t i = 0; i < o->count; i++) {
    char host[128];
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    int len =
        snprintf(host, sizeof(host), "n%llu.%.60s", (unsigned long long)(state % num), o->domain);
    int64_t began_ns = now_ns();
    enum status st = store_reader_refresh(reader);
    st = st == STATUS_OK ? look(reader, depth, bytes_of(host, (size_t)len), now_s) : st;
    taken_ns[i] = now_ns() - began_ns;
    if (st != STATUS_OK) {
      return errmsg_set(err, st, "%s: not found, or cannot be read", host);
    }
  }
  qsort(taken_ns, (size_t)o->count, sizeof(*taken_ns), compare);
  json_t *result = json_pack("{s:I, s:I, s:I}", "p50_ns", (json_int_t)taken_ns[o->count / 2],
                             "p99_ns", (json_int_t)taken_ns[o->count * 99 / 100], "max_ns",
                             (json_int_t)taken_ns[o->count - 1]);
  (void)json_object_set_new(summary, depth_names[depth], result);
  return STATUS_OK;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct look_options *o = arg;
  const struct store_options how = {.mode = STORE_READ, .is_serving = true};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  int64_t *taken_ns = calloc((size_t)o->count, sizeof(*taken_ns));
  int64_t began_us = clock_monotonic_us();

  if (taken_ns == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  TRY(store_open(&store, o->store, &how, err));
  TRY(store_reader_new(&reader, store, err));
  (void)json_object_set_new(summary, "open_us", json_integer(clock_monotonic_us() - began_us));
  for (int depth = 0; depth < NUM_DEPTHS; depth++) {
    TRY(run_depth(summary, reader, depth, o, taken_ns, err));
  }

out:
  store_reader_free(reader);
  store_close(store);
  free(taken_ns);
  return st;
}

const struct subcommand store_look_subcommand = {
    .name = "store",
    .summary = "what a look into a certificate store costs",
    .help = "Looks names up in a store, as a handshake does.",
    .options = options,
    .options_len = sizeof(struct look_options),
    .run = run,
};
