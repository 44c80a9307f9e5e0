// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_issuers.h"

#include "proxy/dc/dc_schedule.h"

void dc_issuers_reset(struct dc_issuers *issuers, unsigned num) {
  issuers->num = num < DC_ISSUERS_MAX ? num : DC_ISSUERS_MAX;
  issuers->first = 0;
  issuers->num_under_way = 0;
  for (unsigned i = 0; i < DC_ISSUERS_MAX; i++) {
    issuers->items[i] = (struct dc_issuer){.window = SIZE_MAX};
  }
}

static bool is_full(const struct dc_issuers *issuers, const struct dc_issuer *issuer) {
  return issuers->num_under_way >= issuers->max_under_way ||
         (issuer->window < issuers->batch && issuer->num_under_way > 0);
}

int dc_issuers_choose(const struct dc_issuers *issuers, uint32_t avoided, uint32_t open,
                      int64_t now_ms) {
  int found = DC_ISSUERS_NONE;
  for (unsigned i = 0; i < issuers->num; i++) {
    const unsigned at = (issuers->first + i) % issuers->num;
    const struct dc_issuer *issuer = &issuers->items[at];
    if ((avoided & 1u << at) != 0 || issuer->pause_ends_ms > now_ms) {
      continue;
    }
    if ((open & 1u << at) != 0 || !is_full(issuers, issuer)) {
      return (int)at;
    }
    found = DC_ISSUERS_BUSY;
  }
  return found;
}

void dc_issuers_begin(struct dc_issuers *issuers, unsigned i) {
  issuers->items[i].num_under_way += 1;
  issuers->num_under_way += 1;
}

void dc_issuers_end(struct dc_issuers *issuers, unsigned i, bool is_failed, int64_t now_ms) {
  struct dc_issuer *issuer = &issuers->items[i];
  issuer->num_under_way -= 1;
  issuers->num_under_way -= 1;
  if (!is_failed) {
    issuers->first = i;
    issuer->num_failures = 0;
    issuer->pause_ends_ms = 0;
    if (issuer->window <= SIZE_MAX / DC_ISSUERS_GROWTH) {
      issuer->window *= DC_ISSUERS_GROWTH;
    }
  } else if (issuer->pause_ends_ms <= now_ms) {
    // Batches that were under way together fail as one.
    issuer->num_failures += 1;
    issuer->window = DC_ISSUERS_FIRST;
    issuer->pause_ends_ms = now_ms + dc_pause_ms(issuers->retry_min_ms, issuers->retry_max_ms,
                                                 issuer->num_failures, issuers->random());
  }
}

int64_t dc_issuers_wait_ms(const struct dc_issuers *issuers, int64_t now_ms, int64_t max_ms) {
  int64_t wait_ms = max_ms;
  for (unsigned i = 0; i < issuers->num; i++) {
    const int64_t left_ms = issuers->items[i].pause_ends_ms - now_ms;
    if (left_ms <= 0) {
      return max_ms;
    }
    wait_ms = left_ms < wait_ms ? left_ms : wait_ms;
  }
  return wait_ms;
}
