// SPDX-License-Identifier: Apache-2.0
// admin: the operator's API of a running proxy: HTTP and JSON on a UNIX socket
// (docs/API.admin.md), served by the control loop. It reads and changes states;
// it never touches a worker. Used by deputyctl and by anything that scrapes
// /metrics.
#ifndef DEPUTY_PROXY_ADMIN_H_
#define DEPUTY_PROXY_ADMIN_H_

#include <jansson.h>

#include "certstore/certstore.h"
#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "common/net/loop.h"

// What admin needs of the proxy; filled by main, outlives the admin object. The
// callbacks run on the control loop.
struct admin_host {
  void *arg;
  struct states *states;
  const char *states_path;  // where they are kept; "" keeps them in memory only
  struct sink *audit;
  // The snapshot in force.
  const struct certstore *(*store)(void *arg);
  // Writes all metrics.
  void (*write_metrics)(void *arg, struct metrics_text *text);
  // Adds to GET /v1/status (version, uptime, workers, connections, listeners...).
  void (*add_status)(void *arg, json_t *object);
  // Reload; answers why not in err.
  enum status (*reload)(void *arg, struct errmsg *err);
  // Something changed: DCs for chains that now matter may be wanted sooner.
  void (*on_states_changed)(void *arg);
};

struct admin;
// admin_new serves on `fd` (a listening UNIX or loopback socket; taken).
enum status admin_new(struct admin **out, struct loop *loop, const struct admin_host *host, int *fd,
                      struct errmsg *err);
void admin_free(struct admin *admin);

#endif  // DEPUTY_PROXY_ADMIN_H_
