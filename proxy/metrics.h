// SPDX-License-Identifier: Apache-2.0
// metrics: everything the proxy counts, in the Prometheus text format, as
// deputy_proxy_*. Labels come from closed lists, except names, of which at most
// METRICS_MAX_NAMES are shown.
#ifndef DEPUTY_PROXY_METRICS_H_
#define DEPUTY_PROXY_METRICS_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "proxy/dc/credentials.h"
#include "proxy/site.h"
#include "proxy/worker.h"

#define METRICS_MAX_NAMES 1000

// What is shown; all borrowed for the call. Control thread.
struct metrics_source {
  struct worker *const *workers;
  size_t num_workers;
  // The connections to key servers of each worker; NULL: changing just now.
  const struct keyclient *const *keyclients;
  const struct site *site;
  const struct credentials *credentials;
  int64_t started_s;
  uint64_t num_reloads;
  uint64_t num_reloads_failed;
  const struct sink *audit;
};

void metrics_write(const struct metrics_source *source, struct metrics_text *text);

// metrics_num_open counts connections now.
uint64_t metrics_num_open(const struct metrics_source *source);
// metrics_num_handshakes counts those a source authenticated, of both versions.
uint64_t metrics_num_handshakes(const struct metrics_source *source, enum source by);

#endif  // DEPUTY_PROXY_METRICS_H_
