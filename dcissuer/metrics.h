// SPDX-License-Identifier: Apache-2.0
// metrics: the issuer's figures in Prometheus' text format.
#ifndef DEPUTY_DCISSUER_METRICS_H_
#define DEPUTY_DCISSUER_METRICS_H_

#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "common/http/http_server.h"
#include "common/keyclient/keyclient.h"
#include "common/net/reload.h"
#include "dcissuer/stats.h"

// What is shown beside the counters; all borrowed for the call.
struct metrics_view {
  const struct stats *stats;
  const struct reload *reload;
  const struct keyclient *keyclient;
  const struct http_server *api;
  const struct http_server *plain;  // NULL: none
  const struct sink *audit;
  size_t num_batches;
  size_t num_signatures;
  size_t num_certificates;
  size_t num_cached;
  bool is_draining;
};

void metrics_write(struct metrics_text *text, const struct metrics_view *view);

#endif  // DEPUTY_DCISSUER_METRICS_H_
