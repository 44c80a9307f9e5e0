// SPDX-License-Identifier: Apache-2.0
// reload: how a site comes into force, at the start and by a reload: prepared whole, then
// committed, or dropped with the reason; and how the one before goes, when no handshake
// uses it any more. Until the commit nothing has changed.
//
//   options, site, listeners, views --plan_commit--> workers enter, and release the former
//
// Threads: control.
#ifndef DEPUTY_PROXY_CONTROL_RELOAD_H_
#define DEPUTY_PROXY_CONTROL_RELOAD_H_

#include <jansson.h>

#include "common/base/errmsg.h"
#include "proxy/listeners.h"
#include "proxy/site.h"
#include "proxy/view.h"

struct control;

struct sites {
  struct site *current;  // in force
  struct site *all;      // it, and those that handshakes still use
  struct view *views;    // that have not been released
  // For metrics: what a worker surely has; NULL while it changes.
  const struct keyclient *keyclients[OPTIONS_MAX_WORKERS];
  uint64_t num_reloads;
  uint64_t num_reloads_failed;
};

// Everything a new site needs before anybody sees it.
struct plan {
  struct site *site;
  struct listeners listeners;
  struct view *views[OPTIONS_MAX_WORKERS];
};

// plan_views makes a view of plan->site for each worker; as view_new.
enum status plan_views(struct plan *plan, struct control *control, struct errmsg *err);

// plan_commit puts the plan in force; taken. There is no way back, and nothing that can
// fail.
void plan_commit(struct plan *plan, struct control *control);

// plan_cleanup drops what was not committed. All-zero is fine.
void plan_cleanup(struct plan *plan);

// reload_now reads the configuration's file again, for the control in `arg`. On failure,
// which is logged, counted and told in err, the earlier one stays. To `ignored`, an array or
// NULL, the names of options are added that have changed, and last (lasting.h).
enum status reload_now(void *arg, json_t *ignored, struct errmsg *err);

// What workers say (worker.h); the control in `arg`.
void sites_on_view_entered(void *arg, struct view *view);
void sites_on_view_released(void *arg, struct view *view);

// sites_cleanup frees all: the workers have ended.
void sites_cleanup(struct sites *sites);

#endif  // DEPUTY_PROXY_CONTROL_RELOAD_H_
