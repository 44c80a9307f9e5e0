// SPDX-License-Identifier: Apache-2.0
// services: the two places where the proxy itself is asked: the admin socket and the
// address for metrics. In the order of a start: bound with the first rights, made when
// there is something to tell, opened when the proxy serves. A descriptor of each is kept,
// to be lent to whoever comes after (proxy/upgrade/handover.h).
//
// Threads: control.
#ifndef DEPUTY_PROXY_CONTROL_SERVICES_H_
#define DEPUTY_PROXY_CONTROL_SERVICES_H_

#include "common/base/errmsg.h"
#include "common/http/http_server.h"
#include "proxy/admin/admin.h"

struct control;

struct services {
  int admin_fd;  // until they are opened
  int metrics_fd;
  int admin_kept_fd;
  int metrics_kept_fd;
  struct admin_host admin_host;
  struct admin *admin;  // NULL: not wanted; as the next
  struct http_server *metrics;
};

void services_init(struct services *services);

// services_bind takes the sockets that are inherited, and listens on the others.
// STATUS_CONFIG, and as address_listen.
enum status services_bind(struct control *control, struct errmsg *err);
// services_start makes the servers; as admin_new and http_server_new.
enum status services_start(struct control *control, struct errmsg *err);
// services_open has them serve; as admin_listen and http_server_listen.
enum status services_open(struct control *control, struct errmsg *err);

// services_stop: another process has the sockets; requests under way are answered.
void services_stop(struct services *services);
void services_cleanup(struct services *services);

// services_write_metrics counts what admin API and metrics have refused.
void services_write_metrics(const struct services *services, struct metrics_text *text);

#endif  // DEPUTY_PROXY_CONTROL_SERVICES_H_
