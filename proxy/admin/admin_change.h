// SPDX-License-Identifier: Apache-2.0
// admin_change: the requests that change states: switch, restore, dc. Each is read
// and checked, drilled, put through the state file, audited, and only then
// answered. Everything runs on the control loop.
//
//   read --> wait --> make (drilled: refused, or a draft) --> kept --> answered
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_H_

#include <sys/queue.h>

#include "common/base/metrics.h"
#include "common/http/http_server.h"
#include "proxy/admin/admin.h"

struct admin_change;

// All changes of one admin object.
struct admin_changes {
  const struct admin_host *host;
  LIST_HEAD(, admin_change) open;  // asked for, not answered
  uint64_t num_made;
  uint64_t num_already;  // asked for what is in force
  uint64_t num_refused;
  uint64_t num_failed;  // not written
  uint64_t num_unkept;  // forced through in memory only
};

void admin_changes_init(struct admin_changes *changes, const struct admin_host *host);
// admin_changes_cleanup drops what is open: the loop has ended.
void admin_changes_cleanup(struct admin_changes *changes);

// The handlers of POST /v1/switch, /v1/restore and /v1/dc.
void admin_change_switch(struct admin_changes *changes, struct http_request *request);
void admin_change_restore(struct admin_changes *changes, struct http_request *request);
void admin_change_dc(struct admin_changes *changes, struct http_request *request);

void admin_changes_write_metrics(const struct admin_changes *changes, struct metrics_text *text);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_CHANGE_H_
