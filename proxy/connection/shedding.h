// SPDX-License-Identifier: Apache-2.0
// shedding: what an operator is shown of connections that were refused, and whether
// some are being refused now: gauges, and a part of GET /v1/status. What was refused is
// a counter of metrics.c (connections_refused_total).
//
// Threads: control's.
#ifndef DEPUTY_PROXY_CONNECTION_SHEDDING_H_
#define DEPUTY_PROXY_CONNECTION_SHEDDING_H_

#include <jansson.h>

#include "common/base/metrics.h"
#include "proxy/memory_watch.h"
#include "proxy/worker.h"

// What is looked at; all borrowed for the call.
struct shedding_source {
  struct worker *const *workers;
  size_t num_workers;
  const struct memory_watch *memory;
};

void shedding_write_metrics(const struct shedding_source *source, struct metrics_text *text);

// shedding_add_status adds "handshakes_under_way", "shedding" and "refused" to the object.
void shedding_add_status(const struct shedding_source *source, json_t *object);

#endif  // DEPUTY_PROXY_CONNECTION_SHEDDING_H_
