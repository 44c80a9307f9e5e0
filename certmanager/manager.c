// SPDX-License-Identifier: Apache-2.0
#include "certmanager/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "certmanager/keeper.h"
#include "certmanager/metrics.h"
#include "certmanager/stats.h"
#include "common/base/audit_log.h"
#include "common/base/log.h"
#include "common/http/http_server.h"
#include "common/net/address.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/net/ready.h"
#include "common/net/reload.h"

#define LOCK_NAME "certmanager.lock"
#define STANDBY_MS 1000
#define MAX_CONNECTIONS 64
#define MAX_BODY_LEN 1024
#define SOCKET_MODE 0660

struct manager {
  struct loop *loop;
  struct jobs *jobs;  // reloads, lists, switches
  const char *config_path;
  struct options options;                // of the start
  struct revocation_options revocation;  // of the last reload
  struct audit_log audit;
  struct timer watch_audit;
  struct http_server *server;
  struct stats stats;
  int socket;  // until it is taken
  int lock;
  struct keeper *keeper;  // NULL: standing by
  struct timer standby;

  struct reload reload;
  struct options loaded;  // the jobs' thread has it meanwhile
};

// --- routes ------------------------------------------------------------------------------

static void handle_healthz(void *arg, struct http_request *request) {
  (void)arg;
  http_reply_json(request, 200, json_pack("{s:b}", "alive", 1));
}

// One that stands by is ready for what it is there for, and says so.
static void handle_readyz(void *arg, struct http_request *request) {
  struct manager *manager = arg;
  struct keeper_view view = {0};
  if (manager->keeper == NULL) {
    http_reply_json(request, 200, json_pack("{s:b, s:b}", "ready", 1, "active", 0));
    return;
  }
  keeper_read_view(manager->keeper, &view);
  if (!view.has_store || atomic_load(&manager->stats.is_write_failing)) {
    http_reply_error(request, 503, "store_unavailable",
                     "the store cannot be opened or written: see the log");
  } else if (!view.has_scanned) {
    http_reply_error(request, 503, "starting", "the names of the store are being read");
  } else {
    http_reply_json(request, 200, json_pack("{s:b, s:b}", "ready", 1, "active", 1));
  }
}

static void handle_metrics(void *arg, struct http_request *request) {
  struct manager *manager = arg;
  struct metrics_text text = {0};
  struct keeper_view keeper = {0};
  const struct metrics_view view = {.stats = &manager->stats,
                                    .reload = &manager->reload,
                                    .keeper = manager->keeper != NULL ? &keeper : NULL,
                                    .audit = manager->audit.sink};
  if (manager->keeper != NULL) {
    keeper_read_view(manager->keeper, &keeper);
  }
  metrics_write(&text, &view);
  http_reply_metrics(request, &text);
}

static const struct http_route routes[] = {
    {"GET", "/healthz", handle_healthz},
    {"GET", "/readyz", handle_readyz},
    {"GET", "/metrics", handle_metrics},
    {0},
};

// --- who works ---------------------------------------------------------------------------

// take_lock: STATUS_AGAIN: another process has it.
static enum status take_lock(struct manager *manager, struct errmsg *err) {
  char *path = NULL;
  enum status st = STATUS_OK;

  if (manager->lock < 0) {
    if (asprintf(&path, "%s/" LOCK_NAME, manager->options.store) < 0) {
      return errmsg_set(err, STATUS_MEMORY, "no memory");
    }
    manager->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (manager->lock < 0) {
      const int reason = errno;
      st = errmsg_set(err, STATUS_SYSTEM,
                      "%s: %s%s. Import certificates to make a store, and run this as its owner",
                      path, strerror(reason), sandbox_hint(reason));
    }
    free(path);
  }
  if (st == STATUS_OK && flock(manager->lock, LOCK_EX | LOCK_NB) != 0) {
    st = errno == EWOULDBLOCK ? STATUS_AGAIN
                              : errmsg_set(err, STATUS_SYSTEM, "%s/" LOCK_NAME ": %s",
                                           manager->options.store, strerror(errno));
  }
  return st;
}

static enum status begin_work(struct manager *manager, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct keeper_options options = {.loop = manager->loop,
                                         .jobs = manager->jobs,
                                         .audit = manager->audit.sink,
                                         .stats = &manager->stats,
                                         .options = &manager->options};
  TRY(take_lock(manager, err));
  TRY(keeper_new(&manager->keeper, &options, err));
  keeper_reload(manager->keeper, &manager->revocation);
  log_info(0, "active", "store=%s", manager->options.store);

out:
  return st;
}

static void on_standby(void *arg) {
  static struct log_gate gate;
  struct manager *manager = arg;
  struct errmsg err = {0};
  uint64_t num_held = 0;
  char quoted[ERRMSG_MAX_LEN];
  const enum status st = begin_work(manager, &err);

  if (st == STATUS_OK) {
    return;
  }
  timer_arm_ms(&manager->standby, STANDBY_MS);
  if (st != STATUS_AGAIN && log_gate_pass(&gate, 1, &num_held)) {
    log_error(0, "take_over_failed", "reason=%s",
              log_quote(quoted, sizeof(quoted), bytes_text(err.text)));
  }
}

// --- reload ------------------------------------------------------------------------------

static enum status load(void *arg, int scope, struct errmsg *err) {
  struct manager *manager = arg;
  (void)scope;
  return options_load(&manager->loaded, manager->config_path, err);
}

static void warn_restart(const struct options *old, const struct options *new) {
  const struct revocation_options *a = &old->revocation;
  const struct revocation_options *b = &new->revocation;
  if (!config_same_text(old->store, new->store) || !config_same_text(old->ca, new->ca) ||
      !config_same_text(old->user, new->user) || !config_same_text(old->log, new->log) ||
      audit_log_change(&old->audit.log, &new->audit.log) != NULL ||
      !config_same_text(old->metrics.listen, new->metrics.listen) ||
      !sandbox_options_equal(&old->sandbox, &new->sandbox) ||
      old->staples.is_on != new->staples.is_on || old->staples.max_open != new->staples.max_open ||
      old->staples.max_open_per_responder != new->staples.max_open_per_responder ||
      old->staples.limit_ms != new->staples.limit_ms || a->poll_ms != b->poll_ms ||
      a->ocsp_poll_ms != b->ocsp_poll_ms || a->max_list_len != b->max_list_len ||
      a->max_open_lists != b->max_open_lists ||
      (a->policy == REVOCATION_OFF) != (b->policy == REVOCATION_OFF)) {
    log_warn(0, "reload_needs_restart",
             "reason=\"something else than revocation.policy, ceiling or until has changed\"");
  }
}

static enum status commit(void *arg, int scope, struct errmsg *err) {
  struct manager *manager = arg;
  (void)scope;
  (void)err;
  warn_restart(&manager->options, &manager->loaded);
  manager->revocation = manager->loaded.revocation;
  if (manager->keeper != NULL) {
    keeper_reload(manager->keeper, &manager->revocation);
  }
  log_info(0, "reloaded", "ceiling=%lld", (long long)manager->revocation.ceiling);
  return STATUS_OK;
}

static void end_reload(void *arg) {
  struct manager *manager = arg;
  options_cleanup(&manager->loaded);
}

static const struct reload_steps reload_steps = {
    .prepare = load, .commit = commit, .end = end_reload};

static void on_hup(void *arg) {
  struct manager *manager = arg;
  reload_ask(&manager->reload, 1);
}

static void on_usr1(void *arg) {
  const struct manager *manager = arg;
  log_reopen();
  sink_reopen(manager->audit.sink);
}

static void on_watch_audit(void *arg) {
  struct manager *manager = arg;
  audit_log_watch(&manager->audit, "staples and switches go on without it");
  timer_arm_ms(&manager->watch_audit, AUDIT_LOG_WATCH_MS);
}

static void on_term(void *arg) {
  const struct manager *manager = arg;
  ready_notify("STOPPING=1");
  loop_stop(manager->loop);
}

// --- beginning and end -------------------------------------------------------------------

enum status manager_new(struct manager **out, const char *config_path, struct options *options,
                        struct errmsg *err) {
  enum status st = STATUS_OK;
  struct address address = {0};
  struct manager *manager = calloc(1, sizeof(*manager));

  *out = NULL;
  if (manager == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  manager->socket = -1;
  manager->lock = -1;
  manager->config_path = config_path;
  manager->options = *options;
  manager->revocation = options->revocation;
  *options = (struct options){0};
  if (manager->options.metrics.listen != NULL) {
    TRY(address_parse(&address, manager->options.metrics.listen, err));
    TRY(address_listen(&manager->socket, &address, false, SOCKET_MODE, err));
  }
  *out = manager;
  manager = NULL;

out:
  manager_free(manager);
  return st;
}

const struct options *manager_options(const struct manager *manager) { return &manager->options; }

static enum status take_signals(struct manager *manager) {
  enum status st = STATUS_OK;
  TRY(loop_on_signal(manager->loop, SIGHUP, on_hup, manager));
  TRY(loop_on_signal(manager->loop, SIGUSR1, on_usr1, manager));
  TRY(loop_on_signal(manager->loop, SIGTERM, on_term, manager));
  TRY(loop_on_signal(manager->loop, SIGINT, on_term, manager));

out:
  return st;
}

static enum status start_listening(struct manager *manager, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct ready_listener listener = {.name = "metrics", .fd = manager->socket};
  const struct http_server_config config = {.routes = routes,
                                            .arg = manager,
                                            .max_body_len = MAX_BODY_LEN,
                                            .max_connections = MAX_CONNECTIONS};
  if (manager->socket < 0) {
    return ready_announce(&listener, 0, err);
  }
  TRY(http_server_new(&manager->server, manager->loop, &config));
  TRY(ready_announce(&listener, 1, err));
  TRY(http_server_listen(manager->server, &manager->socket, err));

out:
  return st;
}

enum status manager_start(struct manager *manager, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &manager->options;

  TRY(audit_log_open(&manager->audit, &options->audit.log, err));
  TRY(loop_new(&manager->loop));
  TRY(take_signals(manager));
  TRY(jobs_new(&manager->jobs, manager->loop));
  reload_init(&manager->reload, manager->jobs, &reload_steps, manager);
  TRY(timer_init(&manager->standby, manager->loop, on_standby, manager));
  TRY(timer_init(&manager->watch_audit, manager->loop, on_watch_audit, manager));
  timer_arm_ms(&manager->watch_audit, AUDIT_LOG_WATCH_MS);
  st = begin_work(manager, err);
  if (st == STATUS_AGAIN) {
    log_info(0, "standing_by", "store=%s", options->store);
    timer_arm_ms(&manager->standby, STANDBY_MS);
    st = STATUS_OK;
  }
  TRY(st);
  TRY(start_listening(manager, err));
  log_info(0, "started", "store=%s active=%d", options->store, manager->keeper != NULL ? 1 : 0);

out:
  if (st != STATUS_OK && err->text[0] == '\0') {
    (void)errmsg_set(err, st, "cannot start: %s", status_name(st));
  }
  return st;
}

void manager_run(struct manager *manager) {
  loop_run(manager->loop);
  log_info(0, "stopped", "staples_kept=%llu",
           (unsigned long long)counter_get(&manager->stats.num_staples_kept));
}

void manager_free(struct manager *manager) {
  if (manager == NULL) {
    return;
  }
  jobs_free(manager->jobs);  // before the keeper's watch over lists
  keeper_free(manager->keeper);
  http_server_free(manager->server);
  timer_cleanup(&manager->standby);
  timer_cleanup(&manager->watch_audit);
  loop_free(manager->loop);
  audit_log_close(&manager->audit);
  if (manager->socket >= 0) {
    (void)close(manager->socket);
  }
  if (manager->lock >= 0) {
    (void)close(manager->lock);
  }
  options_cleanup(&manager->loaded);
  options_cleanup(&manager->options);
  free(manager);
}
