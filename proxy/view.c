// SPDX-License-Identifier: Apache-2.0
#include "proxy/view.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "proxy/handshake/front.h"
#include "proxy/worker.h"

// --- connections to key servers ----------------------------------------------------

static void key_access_drop(struct key_access *keys) {
  if (keys == NULL) {
    return;
  }
  keys->num_users -= 1;
  if (keys->num_users == 0) {
    keyclient_free(keys->client);
    free(keys);
  }
}

static enum status key_access_new(struct key_access **out, const struct view *view,
                                  struct errmsg *err) {
  enum status st = STATUS_OK;
  struct key_access *keys = calloc(1, sizeof(*keys));
  if (keys == NULL) {
    return STATUS_MEMORY;
  }
  memcpy(keys->id, view->site->key_servers_id, sizeof(keys->id));
  keys->num_users = 1;
  st = keyclient_new(&keys->client, view->worker->loop, &view->site->options.key_servers, err);
  if (st != STATUS_OK) {
    free(keys);
    return st;
  }
  *out = keys;
  return STATUS_OK;
}

// The same key servers are not connected to anew.
static void find_keys(struct view *view, const struct view *earlier) {
  struct errmsg err = {0};
  enum status st = STATUS_OK;
  if (earlier == NULL || memcmp(earlier->keys->id, view->site->key_servers_id,
                                sizeof(view->site->key_servers_id)) != 0) {
    st = key_access_new(&view->keys, view, &err);
    if (st == STATUS_OK) {
      return;
    }
    // The configuration was tried before (site_load); this is memory, or a file
    // that changed in between.
    log_error(0, "key_servers_kept", "worker=%u reason=%s %s", view->worker->index, status_name(st),
              err.text);
    CHECK(earlier != NULL);
  }
  view->keys = earlier->keys;
  view->keys->num_users += 1;
}

// --- views ---------------------------------------------------------------------------

enum status view_new(struct view **out, struct worker *worker, const struct site *site,
                     struct tickets *tickets, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct view *view = calloc(1, sizeof(*view));

  *out = NULL;
  if (view == NULL) {
    return STATUS_MEMORY;
  }
  view->worker = worker;
  view->site = site;
  st = front_context_new(&view->ctx, view, tickets, err);
  if (st != STATUS_OK) {
    view_free(view);
    return st;
  }
  *out = view;
  return STATUS_OK;
}

void view_free(struct view *view) {
  if (view != NULL) {
    SSL_CTX_free(view->ctx);
    free(view);
  }
}

static void on_released(void *arg) {
  struct view *view = arg;
  const struct worker_host *host = view->worker->host;
  host->on_view_released(host->arg, view);
}

void view_close(struct view *view) {
  key_access_drop(view->keys);
  view->keys = NULL;
}

void view_drop(struct view *view) {
  CHECK(view->num_users > 0);
  view->num_users -= 1;
  if (view->num_users == 0) {
    view_close(view);
    loop_post(view->worker->host->loop, on_released, view);
  }
}

static void on_entered(void *arg) {
  struct view *view = arg;
  const struct worker_host *host = view->worker->host;
  host->on_view_entered(host->arg, view);
}

void view_enter(struct view *view) {
  struct worker *worker = view->worker;
  struct view *earlier = worker->view;

  find_keys(view, earlier);
  worker->view = view_hold(view);
  // Posts of one thread arrive in order: control hears of the end after this.
  loop_post(worker->host->loop, on_entered, view);
  if (earlier != NULL) {
    view_drop(earlier);
  }
}
