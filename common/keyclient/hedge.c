// SPDX-License-Identifier: Apache-2.0
#include "common/keyclient/hedge.h"

#define TOKEN 100  // hundredths, so that a percent of a request is a whole number
#define US_PER_MS 1000

void hedge_budget_init(struct hedge_budget *budget, int64_t percent) {
  budget->percent = percent;
  budget->saved = percent > 0 ? (int64_t)HEDGE_BURST * TOKEN : 0;
}

void hedge_budget_earn(struct hedge_budget *budget) {
  const int64_t most = (int64_t)HEDGE_BURST * TOKEN;

  budget->saved += budget->percent;
  if (budget->saved > most) {
    budget->saved = most;
  }
}

bool hedge_budget_spend(struct hedge_budget *budget) {
  if (budget->percent == 0 || budget->saved < TOKEN) {
    return false;
  }
  budget->saved -= TOKEN;
  return true;
}

int64_t hedge_after_ms(const struct latency *latency, int64_t attempt_ms) {
  const int64_t p95_us = latency_p95_us(latency);
  int64_t after_ms = (p95_us + US_PER_MS - 1) / US_PER_MS;

  if (p95_us == 0) {
    return -1;
  }
  after_ms = after_ms < HEDGE_MIN_MS ? HEDGE_MIN_MS : after_ms;
  return after_ms < attempt_ms ? after_ms : -1;
}
