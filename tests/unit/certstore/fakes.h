// SPDX-License-Identifier: Apache-2.0
// fakes: chains that are only facts, so that a test of the rule sets exactly what it
// is about. A bench is a store of one name (or more) on fresh states.
#ifndef DEPUTY_TESTS_UNIT_CERTSTORE_FAKES_H_
#define DEPUTY_TESTS_UNIT_CERTSTORE_FAKES_H_

#include "certstore/certstore.h"

#define FAKE_NOW_S ((int64_t)1800000000)
#define FAKE_DAY_S ((int64_t)86400)
#define FAKE_MAX_CHAINS 32

struct bench {
  struct states *states;
  struct certstore *store;
  struct chain chains[FAKE_MAX_CHAINS];
  size_t num_chains;
};

void bench_init(struct bench *bench);
void bench_cleanup(struct bench *bench);

struct cert_name *bench_name(struct bench *bench, const char *name);

// bench_chain makes a chain with the key `key` of the CA `ca` (any two numbers), of
// `kind`, good from ten days before FAKE_NOW_S to ten days after, and adds it at the
// level `level` of the name.
struct chain *bench_chain(struct bench *bench, struct cert_name *name, size_t level, unsigned key,
                          unsigned ca, enum key_kind kind);

// bench_id writes the subject of the key or CA with that number.
const char *bench_id(unsigned number);

// bench_say applies a change and returns its id.
uint64_t bench_say(struct bench *bench, enum state_level level, const char *subject,
                   enum state_service service);
uint64_t bench_prefer(struct bench *bench, enum state_level level, const char *subject,
                      uint32_t preferred);
uint64_t bench_dc(struct bench *bench, enum state_level level, const char *subject, bool is_on);

// The chain that answers at FAKE_NOW_S, or NULL.
struct chain *bench_answer(const struct bench *bench, const struct cert_name *name);

#endif  // DEPUTY_TESTS_UNIT_CERTSTORE_FAKES_H_
