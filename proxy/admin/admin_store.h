// SPDX-License-Identifier: Apache-2.0
// admin_store: the admin API of a proxy that has a store on disk: its switches are the
// store's (certstore/store_switch.h has the rule), and its names are shown beside those of
// the configuration, which obey the same states. What touches the store runs on a task
// (store_task.h); the configuration is looked at here, on the control loop.
//
//   read --> what the configuration says --> task: what the store says, written --> answered
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_STORE_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_STORE_H_

#include <sys/queue.h>

#include "common/http/http_server.h"
#include "proxy/admin/admin.h"

#define ADMIN_STORE_MAX_NAMES 250u  // names of the store on one page

// --- changes (admin_change.c) --------------------------------------------------------

struct admin_change;
struct admin_store_change;

// admin_store_change_begin takes the change, which is read, to its answer.
void admin_store_change_begin(struct admin_change *change);
void admin_store_change_free(struct admin_store_change *change);  // NULL allowed

// --- looks (admin.c) -------------------------------------------------------------------

// Each answers the request, later. `looks` are those under way: admin_store_cleanup frees
// them when the loop and the store's tasks have ended.
struct admin_look;
struct admin_looks {
  const struct admin_host *host;
  LIST_HEAD(, admin_look) open;
};
void admin_store_init(struct admin_looks *looks, const struct admin_host *host);
void admin_store_cleanup(struct admin_looks *looks);

// admin_store_show_name: the name under which `host` is found.
void admin_store_show_name(struct admin_looks *looks, struct http_request *request,
                           const char *host);
// admin_store_show_names: a page of those after `after` ("": from the first).
void admin_store_show_names(struct admin_looks *looks, struct http_request *request,
                            const char *after, size_t limit);
void admin_store_show_switches(struct admin_looks *looks, struct http_request *request,
                               bool is_standing, size_t start, size_t limit);
// admin_store_drill adds to `body` (taken), which has what would become of configured names;
// NULL: none of them has the subject.
void admin_store_drill(struct admin_looks *looks, struct http_request *request,
                       enum state_level level, const char *subject, json_t *body);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_STORE_H_
