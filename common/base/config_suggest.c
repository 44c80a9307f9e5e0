// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "common/base/config_internal.h"

#define NAME_MAX_LEN 48  // no option of ours is longer

static size_t min3(size_t a, size_t b, size_t c) {
  size_t least = a < b ? a : b;
  return least < c ? least : c;
}

// How many letters must be inserted, dropped, replaced, or swapped with their
// neighbour to make one name of the other: what a tired hand does.
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len) {
  size_t rows[3][NAME_MAX_LEN + 1];
  size_t *before = rows[0];
  size_t *last = rows[1];
  size_t *now = rows[2];

  memset(rows, 0, sizeof(rows));
  for (size_t k = 0; k <= b_len; k++) {
    last[k] = k;
  }
  for (size_t i = 1; i <= a_len; i++) {
    size_t *oldest = before;
    now[0] = i;
    for (size_t k = 1; k <= b_len; k++) {
      now[k] = min3(last[k] + 1, now[k - 1] + 1, last[k - 1] + (a[i - 1] != b[k - 1] ? 1 : 0));
      if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
          before[k - 2] + 1 < now[k]) {
        now[k] = before[k - 2] + 1;
      }
    }
    before = last;
    last = now;
    now = oldest;
  }
  return last[b_len];
}

const char *config_suggest(const char *name, struct config_names names) {
  const char *best = NULL;
  size_t len = strlen(name);
  // A third of the letters may be wrong: more is another word.
  size_t limit = len / 3 > 0 ? len / 3 : 1;
  const char *candidate = NULL;

  if (len == 0 || len > NAME_MAX_LEN) {
    return NULL;
  }
  for (size_t i = 0; (candidate = names.at(names.list, i)) != NULL; i++) {
    size_t candidate_len = strlen(candidate);
    size_t wrong = 0;
    if (candidate_len > NAME_MAX_LEN) {
      continue;
    }
    wrong = distance(name, len, candidate, candidate_len);
    if (wrong <= limit) {
      best = candidate;
      limit = wrong == 0 ? 0 : wrong - 1;
      if (wrong == 0) {
        break;
      }
    }
  }
  return best;
}
