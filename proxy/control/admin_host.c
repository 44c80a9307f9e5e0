// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/admin_host.h"

#include "proxy/control/control_internal.h"
#include "proxy/control/report.h"

static const struct certstore *store(void *arg) {
  const struct control *control = arg;
  return control->sites.current->store;
}

static const char *why_no_dc(void *arg, const struct chain *chain) {
  const struct control *control = arg;
  return credentials_why(control->credentials, chain);
}

static bool may_use_dc(void *arg, const struct cert_name *name) {
  const struct control *control = arg;
  const struct policy *policy = policy_of(name);  // none: a name of the store
  return options_has_issuers(&control->sites.current->options) &&
         (policy != NULL ? policy : &control->sites.current->of_store)->may_use_dc;
}

static void on_states_changed(void *arg) {
  struct control *control = arg;
  credentials_hurry(control->credentials);
}

static struct store_log_limits log_limits(void *arg) {
  const struct control *control = arg;
  const struct store_place_options *options = &control->sites.current->options.store;
  return (struct store_log_limits){.max_num = (uint64_t)options->max_log,
                                   .max_age_s = options->max_log_age_ms / 1000};
}

static void list_connections(void *arg, struct http_request *request) {
  struct control *control = arg;
  conn_lister_ask(control->lister, request);
}

static void hand_over(void *arg, struct http_request *request) {
  struct control *control = arg;
  handover_ask(control->changeover.handover, request);
}

static bool is_handed_over(void *arg) {
  const struct control *control = arg;
  return handover_is_claimed(control->changeover.handover);
}

static void drain(void *arg) {
  struct control *control = arg;
  if (!control->drain.is_draining) {
    drain_or_end(control);
  }
}

struct admin_host admin_host_of(struct control *control) {
  struct admin_host host = {
      .arg = control,
      .state_file = control->state_file,
      .states = control->states,
      .audit = control->audit.sink,
      .has_store = control->store != NULL,
      .store = store,
      .write_metrics = report_write_metrics,
      .add_status = report_add_status,
      .why_no_dc = why_no_dc,
      .may_use_dc = may_use_dc,
      .reload = reload_now,
      .on_states_changed = on_states_changed,
      .list_connections = list_connections,
      .hand_over = hand_over,
      .is_handed_over = is_handed_over,
      .drain = drain,
      .log_limits = log_limits,
  };
  if (control->store != NULL) {
    host.in_store = served_store_host(control->store);
  }
  return host;
}
