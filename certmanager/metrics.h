// SPDX-License-Identifier: Apache-2.0
// metrics: what GET /metrics answers.
#ifndef DEPUTY_CERTMANAGER_METRICS_H_
#define DEPUTY_CERTMANAGER_METRICS_H_

#include <stdbool.h>

#include "certmanager/keeper.h"
#include "certmanager/stats.h"
#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "common/net/reload.h"

struct metrics_view {
  const struct stats *stats;
  const struct reload *reload;
  const struct keeper_view *keeper;  // NULL: another process does the work
  struct sink *audit;
};

void metrics_write(struct metrics_text *text, const struct metrics_view *view);

#endif  // DEPUTY_CERTMANAGER_METRICS_H_
