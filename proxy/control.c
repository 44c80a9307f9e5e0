// SPDX-License-Identifier: Apache-2.0
#include "proxy/control.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certstore/certstore.h"
#include "certstore/state.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/program.h"
#include "common/base/sink.h"
#include "common/http/http_server.h"
#include "common/keyclient/report.h"
#include "common/net/loop.h"
#include "common/net/ready.h"
#include "common/tls/features.h"
#include "common/tls/tickets.h"
#include "proxy/admin/admin.h"
#include "proxy/admin/state_file.h"
#include "proxy/connection/access_log.h"
#include "proxy/connection/address_table.h"
#include "proxy/connection/conn_list.h"
#include "proxy/connection/shedding.h"
#include "proxy/dc/credentials.h"
#include "proxy/grace.h"
#include "proxy/handshake/ticket_schedule.h"
#include "proxy/handshake/ticketing.h"
#include "proxy/listeners.h"
#include "proxy/memory_watch.h"
#include "proxy/metrics.h"
#include "proxy/site.h"
#include "proxy/store/served_store.h"
#include "proxy/upgrade/handover.h"
#include "proxy/upgrade/inherit.h"
#include "proxy/upgrade/succession.h"
#include "proxy/upgrade/takeover.h"
#include "proxy/watchdog.h"
#include "proxy/worker.h"
#include "version.h"

#define OTHER_FILES 128  // descriptors that are not connections
#define METRICS_MAX_CONNECTIONS 64

struct control {
  const char *config_path;
  struct options start_options;  // until control_load takes them
  struct loop *loop;
  struct audit_log audit;
  struct states *states;
  struct state_file *state_file;
  struct listeners listeners;
  struct tickets *tickets;
  struct worker_host host;
  struct worker *workers[OPTIONS_MAX_WORKERS];
  size_t num_workers;
  struct grace *grace;
  struct credentials *credentials;
  struct served_store *store;  // NULL: there is no store
  struct address_table *addresses;
  struct memory_watch *memory;
  struct origins *origins;

  struct site *site;   // in force
  struct site *sites;  // it, and those that handshakes still use
  struct view *views;  // that have not been released
  // For metrics: what a worker surely has; NULL while it changes.
  const struct keyclient *keyclients[OPTIONS_MAX_WORKERS];

  struct admin_host admin_host;
  struct admin *admin;
  struct http_server *metrics_server;
  struct ticket_schedule ticket_schedule;
  struct timer watch_audit;
  struct timer drain;
  bool is_draining;
  size_t num_drained;
  int64_t started_s;
  uint64_t num_reloads;
  uint64_t num_reloads_failed;
  int admin_fd;  // until they are served
  int metrics_fd;

  struct conn_lister *lister;
  struct watchdog *watchdog;  // NULL: nobody wants to hear
  struct inherited inherited;
  struct takeover *takeover;      // until the succession begins
  struct succession *succession;  // NULL: this is a start of its own
  struct errmsg failure;          // why the takeover came to nothing
  struct handover *handover;      // to whoever comes after
  struct handover_host handover_host;
  int admin_kept_fd;  // to be lent: the services have descriptors of their own
  int metrics_kept_fd;
};

const struct options *control_options(const struct control *control) {
  return control->site != NULL ? &control->site->options : &control->start_options;
}

// --- what workers say ----------------------------------------------------------------

static void on_view_entered(void *arg, struct view *view) {
  struct control *control = arg;
  if (view->site == control->site) {
    control->keyclients[view->worker->index] = view->keys->client;
  }
}

static void drop_site(struct control *control, struct site *site) {
  struct site **at = &control->sites;
  while (*at != site) {
    at = &(*at)->next;
  }
  *at = site->next;
  site_free(site);
}

static void on_view_released(void *arg, struct view *view) {
  struct control *control = arg;
  struct view **at = &control->views;
  struct site *site = NULL;

  for (site = control->sites; site != view->site; site = site->next) {
  }
  while (*at != view) {
    at = &(*at)->next;
  }
  *at = view->next;
  view_free(view);
  site->num_views -= 1;
  if (site->num_views == 0 && site != control->site) {
    drop_site(control, site);
  }
}

static void on_drained(void *arg, struct worker *worker) {
  struct control *control = arg;
  (void)worker;
  control->num_drained += 1;
  if (control->num_drained == control->num_workers) {
    loop_stop(control->loop);
  }
}

// --- putting a site in force -------------------------------------------------------------

// Everything a new site needs before anybody sees it.
struct plan {
  struct site *site;
  struct listeners listeners;
  struct view *views[OPTIONS_MAX_WORKERS];
};

static void plan_cleanup(struct plan *plan) {
  for (size_t i = 0; i < OPTIONS_MAX_WORKERS; i++) {
    view_free(plan->views[i]);
  }
  listeners_close(&plan->listeners);
  site_free(plan->site);
  *plan = (struct plan){0};
}

static enum status plan_views(struct plan *plan, struct control *control, struct errmsg *err) {
  for (size_t i = 0; i < control->num_workers; i++) {
    enum status st =
        view_new(&plan->views[i], control->workers[i], plan->site, control->tickets, err);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

// From here on there is no way back, and nothing that can fail.
static void put_in_force(struct control *control, struct plan *plan) {
  struct site *site = plan->site;

  listeners_replace(&control->listeners, &plan->listeners);
  site->next = control->sites;
  site->num_views = control->num_workers;
  control->sites = site;
  control->site = site;
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
    if (succession_is_over(control->succession)) {
      listeners_plan(&listening, &control->listeners, i, control->num_workers);
    }
    plan->views[i]->next = control->views;
    control->views = plan->views[i];
    control->keyclients[i] = NULL;
    worker_post_site(control->workers[i], plan->views[i], &listening);
  }
  *plan = (struct plan){0};
}

static bool is_same(const char *a, const char *b) {
  return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

// What only a new start can change. It stays as it is, which an operator should know.
static void warn_of_ignored(const struct options *now, const struct options *wanted) {
  const char *audit = audit_log_change(&now->audit.log, &wanted->audit.log);
  const struct {
    const char *name;
    bool is_same;
  } rows[] = {
      {"workers", now->num_workers == wanted->num_workers},
      {"admin.socket", is_same(now->admin.socket, wanted->admin.socket)},
      {"admin.mode", is_same(now->admin.mode, wanted->admin.mode)},
      {"metrics.listen", is_same(now->metrics.listen, wanted->metrics.listen)},
      {audit == NULL ? "audit" : audit, audit == NULL},
      {"states", is_same(now->states, wanted->states)},
      {"store.path", is_same(now->store.path, wanted->store.path)},
      {"store.cache", now->store.max_cached == wanted->store.max_cached},
      {"user", is_same(now->user, wanted->user)},
      {"sandbox", sandbox_options_equal(&now->sandbox, &wanted->sandbox)},
      {"log", is_same(now->log, wanted->log)},
      {"access_log_file", is_same(now->access_log_file, wanted->access_log_file)},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    if (!rows[i].is_same) {
      log_warn(0, "reload_ignores", "option=%s remedy=restart", rows[i].name);
    }
  }
}

static enum status try_reload(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct options options = {0};
  struct plan plan = {0};

  TRY(options_load(&options, control->config_path, err));
  TRY(site_new(&plan.site, &options, control->states, control->origins, control->site, err));
  TRY(listeners_open(&plan.listeners, &plan.site->options, &control->listeners, NULL,
                     control->num_workers, err));
  TRY(plan_views(&plan, control, err));
  credentials_prepare(control->credentials, plan.site);
  warn_of_ignored(&control->site->options, &plan.site->options);
  put_in_force(control, &plan);

out:
  plan_cleanup(&plan);
  options_cleanup(&options);
  return st;
}

static enum status reload(void *arg, struct errmsg *err) {
  struct control *control = arg;
  struct errmsg reason = {0};
  enum status st = STATUS_OK;

  ready_notify_reloading();
  if (control->is_draining) {
    st = errmsg_set(&reason, STATUS_REFUSED, "the proxy is about to stop");
  } else if (handover_is_claimed(control->handover) || !succession_is_over(control->succession)) {
    st = errmsg_set(&reason, STATUS_REFUSED, "one process is taking over from another");
  } else {
    st = try_reload(control, &reason);
  }
  if (st == STATUS_OK) {
    control->num_reloads += 1;
    log_info(0, "reloaded", "path=%s", control->config_path);
  } else {
    control->num_reloads_failed += 1;
    log_error(0, "reload_failed", "reason=\"%s\" effect=the_earlier_configuration_stays",
              reason.text[0] == '\0' ? status_name(st) : reason.text);
    (void)errmsg_set(err, st, "%s", reason.text[0] == '\0' ? status_name(st) : reason.text);
  }
  ready_notify("READY=1");
  return st;
}

// --- signals -------------------------------------------------------------------------------

static void on_hangup(void *arg) {
  struct errmsg err = {0};
  (void)reload(arg, &err);
}

static void on_reopen(void *arg) {
  struct control *control = arg;
  log_reopen();
  access_log_reopen();
  sink_reopen(control->audit.sink);
}

static void on_drain_over(void *arg) {
  struct control *control = arg;
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_post_end(control->workers[i]);
  }
}

static void close_fd(int *fd) {
  if (*fd >= 0) {
    (void)close(*fd);
    *fd = -1;
  }
}

static void begin_drain(struct control *control) {
  control->is_draining = true;
  log_info(0, "stopping", "limit_ms=%lld", (long long)control->site->options.limits.drain_ms);
  listeners_let_go(&control->listeners);
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_post_drain(control->workers[i]);
  }
  timer_arm_ms(&control->drain, control->site->options.limits.drain_ms);
}

static void on_terminate(void *arg) {
  struct control *control = arg;
  if (control->is_draining) {
    on_drain_over(control);  // asked twice: now
    return;
  }
  ready_notify("STOPPING=1");
  begin_drain(control);
}

static void on_watch_audit(void *arg) {
  struct control *control = arg;
  audit_log_watch(&control->audit, "switches are made without it");
  timer_arm_ms(&control->watch_audit, AUDIT_LOG_WATCH_MS);
}

// --- metrics and admin -----------------------------------------------------------------------

static struct metrics_source metrics_source(const struct control *control) {
  return (struct metrics_source){
      .workers = control->workers,
      .num_workers = control->num_workers,
      .keyclients = control->keyclients,
      .site = control->site,
      .credentials = control->credentials,
      .started_s = control->started_s,
      .num_reloads = control->num_reloads,
      .num_reloads_failed = control->num_reloads_failed,
      .audit = control->audit.sink,
  };
}

static struct shedding_source shedding_source(const struct control *control) {
  return (struct shedding_source){control->workers, control->num_workers, control->memory};
}

static void write_metrics(void *arg, struct metrics_text *text) {
  const struct control *control = arg;
  const struct metrics_source source = metrics_source(control);
  const struct shedding_source shedding = shedding_source(control);
  metrics_write(&source, text);
  ticket_schedule_write_metrics(&control->ticket_schedule, text);
  shedding_write_metrics(&shedding, text);
  origins_write_metrics(control->origins, text);
  if (control->store != NULL) {
    served_store_write_metrics(control->store, text);
  }
}

static void on_metrics(void *arg, struct http_request *request) {
  struct control *control = arg;
  struct metrics_text text = {0};
  write_metrics(control, &text);
  if (control->store == NULL) {
    state_file_write_metrics(control->state_file, &text);
  }
  if (text.is_failed) {
    http_reply_error(request, 503, "no_memory", "there is no memory for the metrics");
  } else {
    http_reply(request, 200, "text/plain; version=0.0.4", bytes_of(text.data, text.len));
  }
  metrics_text_cleanup(&text);
}

static const struct http_route metrics_routes[] = {{"GET", "/metrics", on_metrics}, {0}};

static const struct certstore *store(void *arg) {
  const struct control *control = arg;
  return control->site->store;
}

static json_t *list_listeners(const struct control *control) {
  json_t *list = json_array();
  for (size_t i = 0; i < control->listeners.num; i++) {
    const struct listener *listener = &control->listeners.items[i];
    char text[ADDRESS_TEXT_LEN];
    (void)json_array_append_new(list, json_pack("{s:s,s:s}", "name", listener->name, "address",
                                                address_format(text, &listener->address)));
  }
  return list;
}

// list_key_servers tells how the key servers are, by all workers together.
static json_t *list_key_servers(const struct control *control) {
  struct keyclient_report rows[KEYCLIENT_MAX_SERVERS];
  const size_t num = keyclient_report(rows, control->keyclients, control->num_workers);
  json_t *list = json_array();
  for (size_t i = 0; i < num; i++) {
    const struct keyclient_report *row = &rows[i];
    uint64_t num_failed = 0;
    for (size_t k = 0; k < KEYCLIENT_NUM_FAILURES; k++) {
      num_failed += row->num_failed[k];
    }
    (void)json_array_append_new(
        list,
        json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", row->server, "state",
                  keyclient_report_state(row), "connections", (json_int_t)row->num_connections,
                  "in_flight", (json_int_t)row->num_in_flight, "srtt_us", (json_int_t)row->srtt_us,
                  "distance_us", (json_int_t)row->distance_us, "answered",
                  (json_int_t)row->num_answered, "failures", (json_int_t)num_failed, "hedges",
                  (json_int_t)row->num_hedges));
  }
  return list;
}

static void add_status(void *arg, json_t *object) {
  const struct control *control = arg;
  const struct metrics_source source = metrics_source(control);
  const struct shedding_source shedding = shedding_source(control);
  json_t *handshakes = json_object();
  for (unsigned by = 0; by < SOURCE_NUM; by++) {
    (void)json_object_set_new(
        handshakes, source_name((enum source)by),
        json_integer((json_int_t)metrics_num_handshakes(&source, (enum source)by)));
  }
  (void)json_object_set_new(object, "version", json_string(DEPUTY_VERSION));
  (void)json_object_set_new(object, "log_level", json_string(log_level_name(log_get_level())));
  (void)json_object_set_new(object, "pid", json_integer((json_int_t)getpid()));
  (void)json_object_set_new(object, "uptime_s",
                            json_integer((json_int_t)(clock_wall_s() - control->started_s)));
  (void)json_object_set_new(object, "workers", json_integer((json_int_t)control->num_workers));
  (void)json_object_set_new(object, "connections",
                            json_integer((json_int_t)metrics_num_open(&source)));
  (void)json_object_set_new(object, "handshakes", handshakes);
  shedding_add_status(&shedding, object);
  (void)json_object_set_new(object, "listeners", list_listeners(control));
  (void)json_object_set_new(object, "key_servers", list_key_servers(control));
  (void)json_object_set_new(object, "origins", origins_list(control->origins));
  (void)json_object_set_new(object, "credentials", credentials_status(control->credentials));
  (void)json_object_set_new(object, "reloads", json_integer((json_int_t)control->num_reloads));
  if (control->store != NULL) {
    served_store_add_status(control->store, object);
  }
  (void)json_object_set_new(object, "is_draining", json_boolean(control->is_draining));
}

static const char *why_no_dc(void *arg, const struct chain *chain) {
  const struct control *control = arg;
  return credentials_why(control->credentials, chain);
}

static bool may_use_dc(void *arg, const struct cert_name *name) {
  const struct control *control = arg;
  const struct policy *policy = policy_of(name);  // none: a name of the store
  return options_has_issuers(&control->site->options) &&
         (policy != NULL ? policy : &control->site->of_store)->may_use_dc;
}

static void on_states_changed(void *arg) {
  struct control *control = arg;
  credentials_hurry(control->credentials);
}

static struct store_log_limits log_limits(void *arg) {
  const struct control *control = arg;
  const struct store_place_options *options = &control->site->options.store;
  return (struct store_log_limits){.max_num = (uint64_t)options->max_log,
                                   .max_age_s = options->max_log_age_ms / 1000};
}

static void on_name_changed(void *arg, struct ready *in, struct ready *out) {
  struct control *control = arg;
  credentials_change(control->credentials, in, out);
}

// --- being taken over --------------------------------------------------------------------------

static void put_socket(struct handover_socket *out, size_t *num, enum inherit_kind kind,
                       const char *text, const int *fd) {
  if (*fd >= 0) {
    out[(*num)++] = (struct handover_socket){.kind = kind, .text = text, .fds = fd, .num = 1};
  }
}

static size_t sockets_to_lend(void *arg, struct handover_socket *out, size_t max) {
  const struct control *control = arg;
  size_t num = 0;
  CHECK(control->listeners.num + 2 <= max);
  for (; num < control->listeners.num; num++) {
    const struct listener *listener = &control->listeners.items[num];
    out[num] = (struct handover_socket){.kind = INHERIT_CLIENT,
                                        .text = listener->text,
                                        .fds = listener->kept,
                                        .num = listener->num_kept};
  }
  put_socket(out, &num, INHERIT_ADMIN, control->site->options.admin.socket,
             &control->admin_kept_fd);
  put_socket(out, &num, INHERIT_METRICS, control->site->options.metrics.listen,
             &control->metrics_kept_fd);
  return num;
}

// Switches are only ever added, or undone: these numbers differ if anything does. The new
// process goes on with the audit's chain, of which it has read the last line.
static enum status stamp(void *arg, char out[HANDOVER_STAMP_LEN], struct errmsg *err) {
  const struct control *control = arg;
  size_t num = 0;
  size_t num_undone = 0;
  const struct state_change *changes = states_list(control->states, &num);
  for (size_t i = 0; i < num; i++) {
    num_undone += changes[i].is_undone ? 1 : 0;
  }
  if (control->store == NULL && !state_file_is_settled(control->state_file)) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      control->site->options.states == NULL
                          ? "there are switches, which no file keeps (states): they would be lost"
                          : "a switch is not on disk yet");
  }
  (void)snprintf(out, HANDOVER_STAMP_LEN, "%zu/%llu/%zu/%llu", num,
                 num == 0 ? 0ULL : (unsigned long long)changes[num - 1].id, num_undone,
                 (unsigned long long)audit_log_num_chained(&control->audit));
  return STATUS_OK;
}

static bool is_stopping(void *arg) {
  const struct control *control = arg;
  return control->is_draining || !succession_is_over(control->succession);
}

static size_t give_ticket_keys(void *arg, uint8_t out[TICKET_KEY_SET_MAX_LEN]) {
  const struct control *control = arg;
  return ticket_schedule_give(&control->ticket_schedule, out);
}

static void on_http_drained(void *arg) { (void)arg; }

static void on_succeeded(void *arg, bool is_same_unit) {
  struct control *control = arg;
  log_info(0, "taken_over", "effect=this_process_drains");
  watchdog_stop(control->watchdog);  // the new process speaks for the service
  close_fd(&control->admin_kept_fd);
  close_fd(&control->metrics_kept_fd);
  if (control->admin != NULL) {
    admin_stop(control->admin);
  }
  if (control->metrics_server != NULL) {
    http_server_drain(control->metrics_server, on_http_drained, NULL);
  }
  if (!is_same_unit) {
    ready_notify("STOPPING=1");  // of the unit: not while a process of it serves
  }
  if (!control->is_draining) {
    begin_drain(control);
  }
}

static void list_connections(void *arg, struct http_request *request) {
  struct control *control = arg;
  conn_lister_ask(control->lister, request);
}

static void hand_over(void *arg, struct http_request *request) {
  struct control *control = arg;
  handover_ask(control->handover, request);
}

static bool is_handed_over(void *arg) {
  const struct control *control = arg;
  return handover_is_claimed(control->handover);
}

static void drain(void *arg) {
  struct control *control = arg;
  if (!control->is_draining) {
    on_terminate(control);
  }
}

static enum status make_handover(struct control *control) {
  control->handover_host = (struct handover_host){
      .arg = control,
      .sockets = sockets_to_lend,
      .stamp = stamp,
      .is_stopping = is_stopping,
      .ticket_keys = give_ticket_keys,
      .on_complete = on_succeeded,
  };
  return handover_new(&control->handover, control->loop, &control->handover_host);
}

// --- services ------------------------------------------------------------------------------------

static enum status start_admin(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  if (control->admin_fd < 0) {
    return STATUS_OK;
  }
  control->admin_host = (struct admin_host){
      .arg = control,
      .state_file = control->state_file,
      .states = control->states,
      .audit = control->audit.sink,
      .has_store = control->store != NULL,
      .store = store,
      .write_metrics = write_metrics,
      .add_status = add_status,
      .why_no_dc = why_no_dc,
      .may_use_dc = may_use_dc,
      .reload = reload,
      .on_states_changed = on_states_changed,
      .list_connections = list_connections,
      .hand_over = hand_over,
      .is_handed_over = is_handed_over,
      .drain = drain,
      .log_limits = log_limits,
  };
  if (control->store != NULL) {
    control->admin_host.in_store = served_store_host(control->store);
  }
  TRY(admin_new(&control->admin, control->loop, &control->admin_host, err));
out:
  return st;
}

static enum status start_metrics(struct control *control) {
  enum status st = STATUS_OK;
  const struct http_server_config config = {
      .routes = metrics_routes,
      .arg = control,
      .max_connections = METRICS_MAX_CONNECTIONS,
  };
  if (control->metrics_fd < 0) {
    return STATUS_OK;
  }
  TRY(http_server_new(&control->metrics_server, control->loop, &config));
out:
  return st;
}

// Both keep a descriptor here, to be lent.
static enum status open_services(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  if (control->admin != NULL) {
    control->admin_kept_fd = fcntl(control->admin_fd, F_DUPFD_CLOEXEC, 3);
    TRY(admin_listen(control->admin, &control->admin_fd, err));
  }
  if (control->metrics_server != NULL) {
    control->metrics_kept_fd = fcntl(control->metrics_fd, F_DUPFD_CLOEXEC, 3);
    TRY(http_server_listen(control->metrics_server, &control->metrics_fd, err));
  }
out:
  return st;
}

// --- start -----------------------------------------------------------------------------------

enum status control_new(struct control **out, const char *config_path, struct options *options) {
  enum status st = STATUS_OK;
  struct control *control = calloc(1, sizeof(*control));

  *out = NULL;
  if (control == NULL) {
    return STATUS_MEMORY;
  }
  control->config_path = config_path;
  control->admin_fd = control->admin_kept_fd = -1;
  control->metrics_fd = control->metrics_kept_fd = -1;
  control->start_options = *options;
  *options = (struct options){0};
  control->started_s = clock_wall_s();
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
  TRY(timer_init(&control->drain, control->loop, on_drain_over, control));
  TRY(make_handover(control));
  *out = control;
  control = NULL;

out:
  control_free(control);
  return st;
}

static enum status bind_admin(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct admin_options *options = &control->start_options.admin;
  char text[ADDRESS_TEXT_LEN];
  char *end = NULL;
  unsigned long mode = strtoul(options->mode, &end, 8);
  struct address address = {0};
  bool is_foreign = false;

  if (options->socket == NULL) {
    return STATUS_OK;
  }
  if (*end != '\0' || mode > 0777) {
    return errmsg_set(err, STATUS_CONFIG, "admin.mode is \"%s\"; it must be octal, as 0660",
                      options->mode);
  }
  if ((size_t)snprintf(text, sizeof(text), "unix:%s", options->socket) >= sizeof(text)) {
    return errmsg_set(err, STATUS_CONFIG, "admin.socket: the path is too long");
  }
  control->admin_fd =
      inherit_take(&control->inherited, INHERIT_ADMIN, "admin", options->socket, &is_foreign);
  if (control->admin_fd < 0) {
    TRY(address_parse(&address, text, err));
    TRY(address_listen(&control->admin_fd, &address, false, (unsigned)mode, err));
  }
out:
  return st;
}

static enum status bind_metrics(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *listen = control->start_options.metrics.listen;
  struct address address = {0};
  bool is_foreign = false;
  if (listen != NULL) {
    control->metrics_fd =
        inherit_take(&control->inherited, INHERIT_METRICS, "metrics", listen, &is_foreign);
  }
  if (listen != NULL && control->metrics_fd < 0) {
    TRY(address_parse(&address, listen, err));
    TRY(address_listen(&control->metrics_fd, &address, false, 0, err));
  }
out:
  return st;
}

enum status control_inherit(struct control *control, enum program_takeover takeover,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *path = control->start_options.admin.socket;

  TRY(inherit_from_environment(&control->inherited, err));
  if (takeover == PROGRAM_TAKEOVER_NO) {
    goto out;
  }
  if (path == NULL) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "--takeover needs admin.socket, on which the running proxy is asked"));
  }
  st = takeover_ask(&control->takeover, &control->inherited, path, err);
  if (st == STATUS_UNAVAILABLE && takeover == PROGRAM_TAKEOVER_IF_RUNNING) {
    *err = (struct errmsg){0};
    st = STATUS_OK;
  }
out:
  return st;
}

enum status control_bind(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct listeners none = {0};
  TRY(listeners_open(&control->listeners, &control->start_options, &none, &control->inherited,
                     control->num_workers, err));
  TRY(bind_admin(control, err));
  TRY(bind_metrics(control, err));
  inherit_cleanup(&control->inherited);
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
  if (options->states != NULL && control->takeover == NULL) {
    state_file_sweep(path);
  }
  TRY(state_file_open(&control->state_file, control->loop, control->states, path, err));
  TRY(site_new(&plan.site, &control->start_options, control->states, control->origins, NULL, err));
  control->site = plan.site;
  control->sites = plan.site;
  options = &control->site->options;
  if (options->store.path != NULL) {
    TRY(served_store_open(&control->store, control->loop, control->states, &options->store, err));
  }
out:
  return st;
}

// How many connections a worker may have: what was asked for, or what descriptors
// there are; each connection needs one for the client and one for the origin.
static size_t max_conns_per_worker(const struct control *control) {
  int64_t max = control->site->options.limits.connections;
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
      .on_view_entered = on_view_entered,
      .on_view_released = on_view_released,
      .on_drained = on_drained,
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

// Says that we serve: on standard output, to the service manager, to who waits for
// --background.
static void announce(const struct control *control) {
  struct ready_listener ready[OPTIONS_MAX_LISTENERS + 2];
  struct errmsg err = {0};
  size_t num = 0;
  for (; num < control->listeners.num; num++) {
    const struct listener *listener = &control->listeners.items[num];
    ready[num] = (struct ready_listener){listener->name, listener->kept[0]};
  }
  if (control->metrics_kept_fd >= 0) {
    ready[num++] = (struct ready_listener){"metrics", control->metrics_kept_fd};
  }
  if (control->admin_kept_fd >= 0) {
    ready[num++] = (struct ready_listener){"admin", control->admin_kept_fd};
  }
  ready_notify_main_pid();
  if (ready_announce(ready, num, &err) != STATUS_OK) {
    log_warn(0, "not_announced", "reason=\"%s\"",
             err.text);  // nobody reads it; serve all the same
  }
  program_is_ready();
  log_info(0, "tls_library", "%s", tls_features());
  log_info(0, "serving", "version=%s workers=%zu names=%zu", DEPUTY_VERSION, control->num_workers,
           control->site->options.num_names);
}

// --- taking over -------------------------------------------------------------------------------

static bool is_warm(void *arg) {
  const struct control *control = arg;
  for (size_t i = 0; i < control->num_workers; i++) {
    if (control->keyclients[i] == NULL || keyclient_num_ready(control->keyclients[i]) == 0) {
      return false;
    }
  }
  return credentials_num_missing(control->credentials) == 0;
}

static void take_ticket_keys(void *arg, struct bytes set) {
  struct control *control = arg;
  const enum status st = ticket_schedule_take(&control->ticket_schedule, set);
  if (st != STATUS_OK) {
    log_warn(0, "ticket_keys_not_taken", "reason=%s effect=sessions_are_not_resumed",
             status_name(st));
  }
}

static enum status accept_too(void *arg, struct errmsg *err) {
  struct control *control = arg;
  enum status st = listeners_begin(&control->listeners, err);
  for (size_t i = 0; i < control->num_workers && st == STATUS_OK; i++) {
    struct listening_plan listening;
    listeners_plan(&listening, &control->listeners, i, control->num_workers);
    worker_post_listening(control->workers[i], &listening);
  }
  return st;
}

static void serve_alone(void *arg) {
  struct control *control = arg;
  struct errmsg err = {0};
  if (control->is_draining) {
    return;  // told to stop meanwhile
  }
  if (open_services(control, &err) != STATUS_OK) {
    log_error(0, "no_services", "reason=\"%s\" effect=no_admin_api", err.text);
  }
  announce(control);
}

static void give_up(void *arg, const char *reason) {
  struct control *control = arg;
  (void)errmsg_set(&control->failure, STATUS_UNAVAILABLE, "--takeover: %s", reason);
  if (!control->is_draining) {
    begin_drain(control);
  }
}

static enum status begin_succession(struct control *control) {
  const struct succession_host host = {
      .arg = control,
      .is_warm = is_warm,
      .take_ticket_keys = take_ticket_keys,
      .accept = accept_too,
      .serve = serve_alone,
      .give_up = give_up,
  };
  return succession_begin(&control->succession, control->loop, &host, &control->takeover);
}

static enum status watch_signals(struct control *control) {
  enum status st = STATUS_OK;
  TRY(loop_on_signal(control->loop, SIGHUP, on_hangup, control));
  TRY(loop_on_signal(control->loop, SIGUSR1, on_reopen, control));
  TRY(loop_on_signal(control->loop, SIGTERM, on_terminate, control));
  TRY(loop_on_signal(control->loop, SIGINT, on_terminate, control));
out:
  return st;
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
  plan.site = control->site;
  st = plan_views(&plan, control, err);
  plan.site = NULL;
  TRY(st);
  TRY(start_admin(control, err));
  TRY(start_metrics(control));
  if (control->takeover != NULL) {
    TRY(begin_succession(control));
  } else {
    TRY(listeners_begin(&control->listeners, err));
    TRY(open_services(control, err));
  }
  for (size_t i = 0; i < control->num_workers; i++) {
    TRY(worker_start(control->workers[i]));
  }
  plan.site = control->site;
  plan.listeners = control->listeners;
  control->listeners = (struct listeners){0};
  control->site = NULL;
  control->sites = NULL;
  put_in_force(control, &plan);
  timer_arm_ms(&control->watch_audit, AUDIT_LOG_WATCH_MS);
  if (control->succession == NULL) {
    announce(control);
  }

out:
  plan_cleanup(&plan);
  return st;
}

enum status control_serve(struct control *control, struct errmsg *err) {
  loop_run(control->loop);
  log_info(0, "stopped", "accepted_reloads=%llu", (unsigned long long)control->num_reloads);
  *err = control->failure;
  return control->failure.text[0] == '\0' ? STATUS_OK : STATUS_UNAVAILABLE;
}

// --- end ---------------------------------------------------------------------------------------

void control_free(struct control *control) {
  if (control == NULL) {
    return;
  }
  for (size_t i = 0; i < control->num_workers && control->workers[i] != NULL; i++) {
    worker_join(control->workers[i]);
  }
  succession_free(control->succession);
  takeover_free(control->takeover, "the new process ends");
  handover_free(control->handover);
  conn_lister_free(control->lister);
  served_store_end_tasks(control->store);
  admin_free(control->admin);
  http_server_free(control->metrics_server);
  credentials_free(control->credentials);
  grace_free(control->grace);
  watchdog_free(control->watchdog);
  served_store_stop(control->store);
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_free(control->workers[i]);
  }
  while (control->views != NULL) {
    struct view *next = control->views->next;
    view_free(control->views);
    control->views = next;
  }
  while (control->sites != NULL) {
    drop_site(control, control->sites);
  }
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
  timer_cleanup(&control->drain);
  audit_log_close(&control->audit);
  access_log_close();
  inherit_cleanup(&control->inherited);
  close_fd(&control->admin_fd);
  close_fd(&control->metrics_fd);
  close_fd(&control->admin_kept_fd);
  close_fd(&control->metrics_kept_fd);
  options_cleanup(&control->start_options);
  loop_free(control->loop);
  free(control);
}
