// SPDX-License-Identifier: Apache-2.0
// report: what control tells of everything: the text of /metrics, and GET /v1/status.
// The parts tell of themselves; this puts them together.
//
// Threads: control.
#ifndef DEPUTY_PROXY_CONTROL_REPORT_H_
#define DEPUTY_PROXY_CONTROL_REPORT_H_

#include <jansson.h>

#include "common/base/metrics.h"

// The control in `arg`.
void report_write_metrics(void *arg, struct metrics_text *text);
void report_add_status(void *arg, json_t *object);

#endif  // DEPUTY_PROXY_CONTROL_REPORT_H_
