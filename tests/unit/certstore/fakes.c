// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/certstore/fakes.h"

#include <stdio.h>
#include <string.h>

static void fill_id(uint8_t out[32], unsigned number) {
  memset(out, 0, 32);
  // The number comes first, so that a short prefix tells ids apart.
  for (unsigned i = 0; i < 4; i++) {
    out[i] = (uint8_t)(number >> (24 - 8 * i));
  }
  out[31] = 0xaa;
}

const char *bench_id(unsigned number) {
  static char texts[8][65];
  static unsigned next;
  uint8_t id[32];
  fill_id(id, number);
  return bytes_to_hex(texts[next++ % 8], bytes_of(id, sizeof(id)));
}

void bench_init(struct bench *bench) {
  *bench = (struct bench){0};
  CHECK(states_new(&bench->states) == STATUS_OK);
  CHECK(certstore_new(&bench->store, bench->states) == STATUS_OK);
}

void bench_cleanup(struct bench *bench) {
  certstore_free(bench->store);
  states_free(bench->states);
}

struct cert_name *bench_name(struct bench *bench, const char *name) {
  struct cert_name *out = NULL;
  CHECK(certstore_add_name(&out, bench->store, name, NULL, NULL) == STATUS_OK);
  return out;
}

struct chain *bench_chain(struct bench *bench, struct cert_name *name, size_t level, unsigned key,
                          unsigned ca, enum key_kind kind) {
  static char labels[CERTSTORE_MAX_LEVELS][16] = {"primary", "backup"};
  CHECK(bench->num_chains < FAKE_MAX_CHAINS && level < CERTSTORE_MAX_LEVELS);
  struct chain *chain = &bench->chains[bench->num_chains++];
  if (labels[level][0] == '\0') {
    (void)snprintf(labels[level], sizeof(labels[level]), "spare%zu", level);
  }
  *chain = (struct chain){.label = labels[level], .path = labels[level]};
  chain->info.kind = kind;
  chain->info.not_before_s = FAKE_NOW_S - 10 * FAKE_DAY_S;
  chain->info.not_after_s = FAKE_NOW_S + 10 * FAKE_DAY_S;
  fill_id(chain->info.key_id, key);
  fill_id(chain->info.ca_id, ca);
  fill_id(chain->info.sha256, (unsigned)bench->num_chains);
  (void)snprintf(chain->info.issuer, sizeof(chain->info.issuer), "CA %u", ca);
  chain->key_state = states_get(bench->states, STATE_LEVEL_KEY, bench_id(key));
  chain->ca_state = states_get(bench->states, STATE_LEVEL_CA, bench_id(ca));
  if (name != NULL) {
    struct cert_level *at = &name->levels[level];
    at->chains[at->num_chains++] = chain;
    name->num_levels = level + 1 > name->num_levels ? level + 1 : name->num_levels;
  }
  return chain;
}

static uint64_t apply(struct bench *bench, enum state_level level, const char *subject,
                      struct state_change change) {
  change.level = level;
  (void)snprintf(change.subject, sizeof(change.subject), "%s", subject);
  (void)snprintf(change.reason, sizeof(change.reason), "test");
  CHECK(states_apply(bench->states, &change) == STATUS_OK);
  return change.id;
}

uint64_t bench_say(struct bench *bench, enum state_level level, const char *subject,
                   enum state_service service) {
  return apply(
      bench, level, subject,
      (struct state_change){.service = service, .preferred = STATE_PREFERRED_LEAVE, .dc = -1});
}

uint64_t bench_prefer(struct bench *bench, enum state_level level, const char *subject,
                      uint32_t preferred) {
  return apply(bench, level, subject, (struct state_change){.preferred = preferred, .dc = -1});
}

uint64_t bench_dc(struct bench *bench, enum state_level level, const char *subject, bool is_on) {
  return apply(bench, level, subject,
               (struct state_change){.preferred = STATE_PREFERRED_LEAVE, .dc = is_on ? 1 : 0});
}

struct chain *bench_answer(const struct bench *bench, const struct cert_name *name) {
  struct choice choice;
  enum status st = certstore_choose(&choice, bench->store, name, FAKE_NOW_S, NULL, NULL);
  return st == STATUS_OK ? choice.chain : NULL;
}
