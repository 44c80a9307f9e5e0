// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/life_left.h"

#include <stdatomic.h>
#include <string.h>

#include "common/tls/credential.h"

#define CHUNK 256

static const char *const names[LIFE_NUM] = {"certificate", "staple", "dc"};

const char *life_name(enum life life) { return names[life]; }

static void note(struct life_left *left, enum life life, int64_t ends_s) {
  if (ends_s != 0 && (left->ends_s[life] == 0 || ends_s < left->ends_s[life])) {
    left->ends_s[life] = ends_s;
  }
}

static void note_chain(struct life_left *left, const struct chain *chain) {
  // Control, which we are on, is who swaps and frees it.
  const struct tls_dc *dc = atomic_load_explicit(&chain->dc, memory_order_relaxed);
  note(left, LIFE_CERTIFICATE, chain->info.not_after_s);
  note(left, LIFE_STAPLE, chain->has_staple ? chain->staple_ends_s : 0);
  note(left, LIFE_DC, dc == NULL ? 0 : tls_dc_expiry_s(dc));
}

static void note_name(struct life_left *left, const struct cert_name *name) {
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      note_chain(left, name->levels[i].chains[j]);
    }
  }
}

void life_left_look(struct life_left *left, const struct cache *cache) {
  struct ready *found[CHUNK];
  for (size_t num_seen = 0; num_seen < LIFE_LEFT_NAMES; num_seen += CHUNK) {
    const size_t num = cache_each(cache, &left->at, found, CHUNK);
    for (size_t i = 0; i < num; i++) {
      note_name(left, &found[i]->name);
    }
    if (left->at == 0) {
      memcpy(left->told_s, left->ends_s, sizeof(left->told_s));
      memset(left->ends_s, 0, sizeof(left->ends_s));
      return;
    }
  }
}
