// SPDX-License-Identifier: Apache-2.0
// view: one worker's own access to a site: its SSL_CTX (an SSL_CTX shared by
// threads would share cache lines on every handshake) and its connections to the
// key servers. A connection holds its view from accept to the end of its
// handshake; when a reload has put another in force and the last holder lets go,
// the view ends and the control thread is told, so that it may free the site.
//
//   control: view_new  --post-->  worker: view_enter, holds ..., last view_drop
//   control: on_view_released, view_free  <--post--
//
// Threads: made and freed by control, who owns it; between view_enter and
// on_view_released of one worker, so that counts are plain integers.
#ifndef DEPUTY_PROXY_VIEW_H_
#define DEPUTY_PROXY_VIEW_H_

#include <openssl/ssl.h>
#include <stddef.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/keyclient/keyclient.h"
#include "common/tls/tickets.h"
#include "proxy/site.h"

struct worker;

// A keyclient that several views of one worker share.
struct key_access {
  struct keyclient *client;
  size_t num_users;
  uint8_t id[32];  // site.key_servers_id
};

struct view {
  struct worker *worker;
  const struct site *site;
  SSL_CTX *ctx;
  struct key_access *keys;  // NULL until view_enter
  size_t num_users;         // connections in their handshake, and the worker while in force
  struct view *next;        // for control's list
};

// view_new prepares what can fail for a reason in the configuration.
// STATUS_MEMORY, STATUS_CRYPTO.
enum status view_new(struct view **out, struct worker *worker, const struct site *site,
                     struct tickets *tickets, struct errmsg *err);

// view_enter puts the view in force on its worker's thread; the earlier one lives
// on for those who hold it. Connections to key servers are taken over from it when
// they are the same. If they cannot be made (no memory), the earlier ones are kept.
void view_enter(struct view *view);

static inline struct view *view_hold(struct view *view) {
  view->num_users += 1;
  return view;
}
// view_drop: the last user's tells control.
void view_drop(struct view *view);

// view_close is for a worker that ends: no connection is left, control is told
// nothing.
void view_close(struct view *view);

// view_free frees one that never entered, was released, or was closed.
void view_free(struct view *view);

#endif  // DEPUTY_PROXY_VIEW_H_
