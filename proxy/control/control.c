// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/control.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/program.h"
#include "common/net/ready.h"
#include "common/tls/features.h"
#include "proxy/connection/access_log.h"
#include "proxy/control/control_internal.h"
#include "proxy/handshake/ticketing.h"
#include "version.h"

#define OTHER_FILES 128  // descriptors that are not connections

const struct options *control_options(const struct control *control) {
  return control->sites.current != NULL ? &control->sites.current->options
                                        : &control->start_options;
}

// --- signals and time --------------------------------------------------------------------

static void on_hangup(void *arg) {
  struct errmsg err = {0};
  (void)reload_now(arg, NULL, &err);
}

static void on_reopen(void *arg) {
  struct control *control = arg;
  log_reopen();
  access_log_reopen();
  sink_reopen(control->audit.sink);
}

static void on_watch_audit(void *arg) {
  struct control *control = arg;
  audit_log_watch(&control->audit, "switches are made without it");
  timer_arm_ms(&control->watch_audit, AUDIT_LOG_WATCH_MS);
}

static enum status watch_signals(struct control *control) {
  enum status st = STATUS_OK;
  TRY(loop_on_signal(control->loop, SIGHUP, on_hangup, control));
  TRY(loop_on_signal(control->loop, SIGUSR1, on_reopen, control));
  TRY(loop_on_signal(control->loop, SIGTERM, drain_or_end, control));
  TRY(loop_on_signal(control->loop, SIGINT, drain_or_end, control));
out:
  return st;
}

// --- start -------------------------------------------------------------------------------

enum status control_new(struct control **out, const char *config_path, struct options *options) {
  enum status st = STATUS_OK;
  struct control *control = calloc(1, sizeof(*control));

  *out = NULL;
  if (control == NULL) {
    return STATUS_MEMORY;
  }
  control->config_path = config_path;
  services_init(&control->services);
  control->start_options = *options;
  *options = (struct options){0};
  control->started_s = clock_wall_s();
  control->started_ms = clock_monotonic_ms();
  control->num_workers = (size_t)control->start_options.num_workers;
  if (control->num_workers == 0) {
    long num = sysconf(_SC_NPROCESSORS_ONLN);
    control->num_workers = num < 1                     ? 1
                           : num > OPTIONS_MAX_WORKERS ? OPTIONS_MAX_WORKERS
                                                       : (size_t)num;
  }
  TRY(loop_new(&control->loop));
  TRY(states_new(&control->states));
  TRY(origins_new(&control->origins, control->loop));
  TRY(tickets_new(&control->tickets, &ticketing_hooks));
  TRY(memory_watch_new(&control->memory, control->loop));
  TRY(ticket_schedule_init(&control->ticket_schedule, control->loop, control->tickets));
  TRY(timer_init(&control->watch_audit, control->loop, on_watch_audit, control));
  TRY(drain_init(control));
  TRY(changeover_init(control));
  *out = control;
  control = NULL;

out:
  control_free(control);
  return st;
}

enum status control_inherit(struct control *control, enum program_takeover takeover,
                            struct errmsg *err) {
  return changeover_inherit(control, takeover, err);
}

enum status control_bind(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct listeners none = {0};
  TRY(listeners_open(&control->listeners, &control->start_options, &none,
                     &control->changeover.inherited, control->num_workers, err));
  TRY(services_bind(control, err));
  inherit_cleanup(&control->changeover.inherited);
out:
  return st;
}

enum status control_load(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &control->start_options;
  const char *path = options->states == NULL ? "" : options->states;
  struct plan plan = {0};

  TRY(access_log_open(options->access_log_file, err));
  TRY(audit_log_open(&control->audit, &options->audit.log, err));
  if (options->states != NULL && control->changeover.takeover == NULL) {
    state_file_sweep(path);
  }
  TRY(state_file_open(&control->state_file, control->loop, control->states, path, err));
  TRY(site_new(&plan.site, &control->start_options, control->states, control->origins, NULL, err));
  control->sites.current = plan.site;
  control->sites.all = plan.site;
  options = &control->sites.current->options;
  if (options->store.path != NULL) {
    TRY(served_store_open(&control->store, control->loop, control->states, &options->store, err));
  }
out:
  return st;
}

static void on_name_changed(void *arg, struct ready *in, struct ready *out) {
  struct control *control = arg;
  credentials_change(control->credentials, in, out);
}

// --- workers -----------------------------------------------------------------------------

// How many connections a worker may have: what was asked for, or what descriptors
// there are; each connection needs one for the client and one for the origin.
static size_t max_conns_per_worker(const struct control *control) {
  int64_t max = control->sites.current->options.limits.connections;
  int64_t num_workers = (int64_t)control->num_workers;
  int64_t num_files = program_raise_nofile() - OTHER_FILES - 64 * num_workers;
  int64_t possible = num_files / 2 > num_workers ? num_files / 2 : num_workers;
  if (max == 0 || max > possible) {
    max = possible;
  }
  return (size_t)((max + num_workers - 1) / num_workers);
}

static enum status make_workers(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct loop *loops[OPTIONS_MAX_WORKERS];
  TRY(address_table_new(&control->addresses, max_conns_per_worker(control) * control->num_workers));
  control->host = (struct worker_host){
      .loop = control->loop,
      .arg = control,
      .lookup = served_store_lookup(control->store),
      .num_workers = control->num_workers,
      .addresses = control->addresses,
      .memory = control->memory,
      .origins = control->origins,
      .on_view_entered = sites_on_view_entered,
      .on_view_released = sites_on_view_released,
      .on_drained = drain_on_drained,
  };
  for (size_t i = 0; i < control->num_workers; i++) {
    TRY(worker_new(&control->workers[i], (unsigned)i, &control->host,
                   max_conns_per_worker(control)));
    loops[i] = control->workers[i]->loop;
  }
  TRY(grace_new(&control->grace, control->loop, loops, control->num_workers));
  TRY(conn_lister_new(&control->lister, control->loop, control->workers, control->num_workers));
  TRY(watchdog_new(&control->watchdog, control->loop, loops, control->num_workers));
  origins_serve(control->origins, control->grace, control->workers, control->num_workers);
  if (control->store != NULL) {
    TRY(served_store_start(control->store, control->grace, control->workers, control->num_workers,
                           err));
  }
out:
  return st;
}

// --- serving -----------------------------------------------------------------------------

void control_announce(const struct control *control) {
  struct ready_listener ready[OPTIONS_MAX_LISTENERS + 2];
  struct errmsg err = {0};
  char text[LOG_SENTENCE_LEN];
  size_t num = 0;
  for (; num < control->listeners.num; num++) {
    const struct listener *listener = &control->listeners.items[num];
    ready[num] = (struct ready_listener){listener->name, listener->kept[0]};
  }
  if (control->services.metrics_kept_fd >= 0) {
    ready[num++] = (struct ready_listener){"metrics", control->services.metrics_kept_fd};
  }
  if (control->services.admin_kept_fd >= 0) {
    ready[num++] = (struct ready_listener){"admin", control->services.admin_kept_fd};
  }
  ready_notify_main_pid();
  if (ready_announce(ready, num, &err) != STATUS_OK) {
    // Nobody reads it; serve all the same.
    log_warn(0, "not_announced", "reason=%s", log_sentence(text, err.text));
  }
  program_is_ready();
  log_info(0, "tls_library", "%s", tls_features());
  log_info(0, "serving", "version=%s workers=%zu names=%zu", DEPUTY_VERSION, control->num_workers,
           control->sites.current->options.num_names);
}

enum status control_start(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct plan plan = {0};

  TRY(make_workers(control, err));
  TRY(credentials_new(&control->credentials, control->loop, control->grace, control->workers,
                      control->num_workers));
  if (control->store != NULL) {
    served_store_on_change(control->store, on_name_changed, control);
  }
  TRY(watch_signals(control));
  plan.site = control->sites.current;
  st = plan_views(&plan, control, err);
  plan.site = NULL;
  TRY(st);
  TRY(services_start(control, err));
  if (control->changeover.takeover != NULL) {
    TRY(changeover_begin(control));
  } else {
    TRY(listeners_begin(&control->listeners, err));
    TRY(services_open(control, err));
  }
  for (size_t i = 0; i < control->num_workers; i++) {
    TRY(worker_start(control->workers[i]));
  }
  // From here on the first site is one like any other.
  plan.site = control->sites.current;
  plan.listeners = control->listeners;
  control->listeners = (struct listeners){0};
  control->sites.current = NULL;
  control->sites.all = NULL;
  plan_commit(&plan, control);
  timer_arm_ms(&control->watch_audit, AUDIT_LOG_WATCH_MS);
  if (control->changeover.succession == NULL) {
    control_announce(control);
  }

out:
  plan_cleanup(&plan);
  return st;
}

enum status control_serve(struct control *control, struct errmsg *err) {
  loop_run(control->loop);
  log_info(0, "stopped", "accepted_reloads=%llu", (unsigned long long)control->sites.num_reloads);
  *err = control->changeover.failure;
  return control->changeover.failure.text[0] == '\0' ? STATUS_OK : STATUS_UNAVAILABLE;
}

// --- end ---------------------------------------------------------------------------------

void control_free(struct control *control) {
  if (control == NULL) {
    return;
  }
  for (size_t i = 0; i < control->num_workers && control->workers[i] != NULL; i++) {
    worker_join(control->workers[i]);
  }
  changeover_cleanup(&control->changeover);
  conn_lister_free(control->lister);
  served_store_end_tasks(control->store);
  services_cleanup(&control->services);
  credentials_free(control->credentials);
  grace_free(control->grace);
  watchdog_free(control->watchdog);
  served_store_stop(control->store);
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_free(control->workers[i]);
  }
  sites_cleanup(&control->sites);
  origins_free(control->origins);
  served_store_free(control->store);
  address_table_free(control->addresses);
  memory_watch_free(control->memory);
  listeners_close(&control->listeners);
  tickets_free(control->tickets);
  state_file_close(control->state_file);
  states_free(control->states);
  ticket_schedule_cleanup(&control->ticket_schedule);
  timer_cleanup(&control->watch_audit);
  timer_cleanup(&control->drain.limit);
  audit_log_close(&control->audit);
  access_log_close();
  options_cleanup(&control->start_options);
  loop_free(control->loop);
  free(control);
}
