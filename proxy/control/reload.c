// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/reload.h"

#include "common/base/log.h"
#include "common/net/ready.h"
#include "proxy/config/lasting.h"
#include "proxy/control/control_internal.h"

// --- what is in use ----------------------------------------------------------------------

void sites_on_view_entered(void *arg, struct view *view) {
  struct control *control = arg;
  if (view->site == control->sites.current) {
    control->sites.keyclients[view->worker->index] = view->keys->client;
  }
}

static void drop_site(struct sites *sites, struct site *site) {
  struct site **at = &sites->all;
  while (*at != site) {
    at = &(*at)->next;
  }
  *at = site->next;
  site_free(site);
}

void sites_on_view_released(void *arg, struct view *view) {
  struct control *control = arg;
  struct sites *sites = &control->sites;
  struct view **at = &sites->views;
  struct site *site = NULL;

  for (site = sites->all; site != view->site; site = site->next) {
  }
  while (*at != view) {
    at = &(*at)->next;
  }
  *at = view->next;
  view_free(view);
  site->num_views -= 1;
  if (site->num_views == 0 && site != sites->current) {
    drop_site(sites, site);
  }
}

void sites_cleanup(struct sites *sites) {
  while (sites->views != NULL) {
    struct view *next = sites->views->next;
    view_free(sites->views);
    sites->views = next;
  }
  while (sites->all != NULL) {
    drop_site(sites, sites->all);
  }
}

// --- preparing ---------------------------------------------------------------------------

void plan_cleanup(struct plan *plan) {
  for (size_t i = 0; i < OPTIONS_MAX_WORKERS; i++) {
    view_free(plan->views[i]);
  }
  listeners_close(&plan->listeners);
  site_free(plan->site);
  *plan = (struct plan){0};
}

enum status plan_views(struct plan *plan, struct control *control, struct errmsg *err) {
  for (size_t i = 0; i < control->num_workers; i++) {
    enum status st =
        view_new(&plan->views[i], control->workers[i], plan->site, control->tickets, err);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

// --- putting in force --------------------------------------------------------------------

void plan_commit(struct plan *plan, struct control *control) {
  struct sites *sites = &control->sites;
  struct site *site = plan->site;

  listeners_replace(&control->listeners, &plan->listeners);
  site->next = sites->all;
  site->num_views = control->num_workers;
  sites->all = site;
  sites->current = site;
  memory_watch_set(control->memory, site->options.limits.memory);
  ticket_schedule_put(&control->ticket_schedule, site);
  credentials_set_site(control->credentials, site);
  if (control->store != NULL) {
    served_store_set_site(control->store, site);
  }
  origins_set_site(control->origins, site);
  for (size_t i = 0; i < control->num_workers; i++) {
    struct listening_plan listening = {0};
    CHECK(plan->views[i] != NULL);
    if (succession_is_over(control->changeover.succession)) {
      listeners_plan(&listening, &control->listeners, i, control->num_workers);
    }
    plan->views[i]->next = sites->views;
    sites->views = plan->views[i];
    sites->keyclients[i] = NULL;
    worker_post_site(control->workers[i], plan->views[i], &listening);
  }
  *plan = (struct plan){0};
}

// --- reload ------------------------------------------------------------------------------

static void note_ignored(void *arg, const char *option) {
  log_warn(0, "reload_ignores", "option=%s remedy=restart", option);
  (void)json_array_append_new(arg, json_string(option));
}

static enum status try_reload(struct control *control, json_t *ignored, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct options options = {0};
  struct plan plan = {0};

  TRY(options_load(&options, control->config_path, err));
  TRY(site_new(&plan.site, &options, control->states, control->origins, control->sites.current,
               err));
  TRY(listeners_open(&plan.listeners, &plan.site->options, &control->listeners, NULL,
                     control->num_workers, err));
  TRY(plan_views(&plan, control, err));
  credentials_prepare(control->credentials, plan.site);
  lasting_compare(&control->sites.current->options, &plan.site->options, note_ignored, ignored);
  lasting_keep(&control->sites.current->options, &plan.site->options);
  plan_commit(&plan, control);

out:
  plan_cleanup(&plan);
  options_cleanup(&options);
  return st;
}

enum status reload_now(void *arg, json_t *ignored, struct errmsg *err) {
  struct control *control = arg;
  struct errmsg reason = {0};
  char text[LOG_SENTENCE_LEN];
  enum status st = STATUS_OK;

  ready_notify_reloading();
  if (control->drain.is_draining) {
    st = errmsg_set(&reason, STATUS_REFUSED, "the proxy is about to stop");
  } else if (changeover_is_under_way(&control->changeover)) {
    st = errmsg_set(&reason, STATUS_REFUSED, "one process is taking over from another");
  } else {
    st = try_reload(control, ignored, &reason);
  }
  if (st == STATUS_OK) {
    control->sites.num_reloads += 1;
    log_info(0, "reloaded", "path=%s", control->config_path);
  } else {
    control->sites.num_reloads_failed += 1;
    (void)errmsg_set(err, st, "%s", reason.text[0] == '\0' ? status_name(st) : reason.text);
    log_error(0, "reload_failed", "path=%s reason=%s effect=the_earlier_configuration_stays",
              control->config_path, log_sentence(text, err->text));
  }
  ready_notify("READY=1");
  return st;
}
