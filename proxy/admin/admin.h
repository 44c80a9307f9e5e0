// SPDX-License-Identifier: Apache-2.0
// admin: the operator's API of a running proxy: HTTP and JSON on a UNIX socket
// (docs/API.admin.md), served by the control loop. It reads and changes states;
// it never touches a worker. Used by deputyctl and by anything that scrapes
// /metrics.
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_H_

#include <jansson.h>
#include <stdbool.h>

#include "certstore/certstore.h"
#include "certstore/store_write.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/sink.h"
#include "common/base/status.h"
#include "common/http/http_server.h"
#include "common/net/loop.h"
#include "proxy/admin/state_file.h"
#include "proxy/store/store_task.h"

// What admin needs of the proxy; filled by main, outlives the admin object. The
// callbacks run on the control loop; those marked so may be NULL.
struct admin_host {
  void *arg;
  struct state_file *state_file;  // opened by main, before anything is served
  struct states *states;          // the same that state_file keeps
  struct sink *audit;             // may be NULL
  bool has_store;                 // switches are kept in a store on disk, not here;
  struct store_host in_store;     // with one only, as log_limits
  struct store_log_limits (*log_limits)(void *arg);
  // The snapshot in force.
  const struct certstore *(*store)(void *arg);
  // Writes all metrics of the proxy (admin adds its own and the state file's).
  void (*write_metrics)(void *arg, struct metrics_text *text);
  // Adds to GET /v1/status (version, uptime, workers, connections, listeners...).
  void (*add_status)(void *arg, json_t *object);
  // Why the chain has no delegated credential: a short static phrase, as "RSA
  // leaf" or "asked for"; NULL when it is not known. Asked only when there is none.
  // May be NULL.
  const char *(*why_no_dc)(void *arg, const struct chain *chain);
  // Does the configuration let the name use delegated credentials? May be NULL.
  bool (*may_use_dc)(void *arg, const struct cert_name *name);
  // Reload; answers why not in err. `ignored`: an array, to which the names of options are
  // added that are otherwise now, and that a reload leaves as they were.
  enum status (*reload)(void *arg, json_t *ignored, struct errmsg *err);
  // Answers GET /v1/connections (conn_list.h).
  void (*list_connections)(void *arg, struct http_request *request);
  // Answers POST /v1/takeover (handover.h).
  void (*hand_over)(void *arg, struct http_request *request);
  // May nothing be changed here any more, as another process takes over? May be NULL.
  bool (*is_handed_over)(void *arg);
  // Stops in good order, as SIGTERM does.
  void (*drain)(void *arg);
  // Something changed: DCs for chains that now matter may be wanted sooner. May be
  // NULL.
  void (*on_states_changed)(void *arg);
};

struct admin;
// admin_new makes the API; admin_listen serves it on `fd` (a listening UNIX or
// loopback socket; taken), and may be called for several.
enum status admin_new(struct admin **out, struct loop *loop, const struct admin_host *host,
                      struct errmsg *err);
enum status admin_listen(struct admin *admin, int *fd, struct errmsg *err);

// admin_server lends the server, for its counters.
const struct http_server *admin_server(const struct admin *admin);

// admin_stop hears no further request; what is under way is answered.
void admin_stop(struct admin *admin);

// admin_free ends it when the loop has ended: requests under way get no answer,
// but a change that was being written is in the file (state_file_close). NULL is
// allowed.
void admin_free(struct admin *admin);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_H_
