// SPDX-License-Identifier: Apache-2.0
// metrics: what GET /metrics of the key server says, in the text format of
// Prometheus. All names begin with deputy_keyserver_.
#ifndef DEPUTY_KEYSERVER_METRICS_H_
#define DEPUTY_KEYSERVER_METRICS_H_

#include "common/base/metrics.h"
#include "keyserver/server.h"

// metrics_write appends everything. Control thread.
void metrics_write(struct metrics_text *text, const struct server *server);

#endif  // DEPUTY_KEYSERVER_METRICS_H_
