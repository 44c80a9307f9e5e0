// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/issuer.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/sink.h"
#include "common/http/http_server.h"
#include "common/net/address.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/net/ready.h"
#include "common/net/reload.h"
#include "dcissuer/batch.h"
#include "dcissuer/metrics.h"

#define PLAIN_MAX_CONNECTIONS 64
#define PLAIN_MAX_BODY_LEN 1024
#define PLAIN_SOCKET_MODE 0660

struct issuer {
  struct loop *loop;
  struct jobs *jobs;
  const char *config_path;
  struct snapshot *snapshot;
  struct signer *signer;
  struct audit_log audit;
  struct cert_cache *cache;
  struct batches *batches;
  struct http_server *api;
  struct http_server *plain;
  struct stats stats;

  struct ready_listener listeners[OPTIONS_MAX_LISTEN + 1];  // the sockets, until they are taken
  int fds[OPTIONS_MAX_LISTEN + 1];
  size_t num_fds;

  bool is_draining;
  struct timer drain_limit;
  struct timer watch_audit;

  struct reload reload;
  struct snapshot *loaded;  // the jobs' thread has it meanwhile
};

// --- routes ------------------------------------------------------------------------

static void handle_issue(void *arg, struct http_request *request) {
  struct issuer *issuer = arg;
  batches_start(issuer->batches, request, issuer->snapshot, issuer->signer);
}

static void handle_healthz(void *arg, struct http_request *request) {
  (void)arg;
  http_reply_json(request, 200, json_pack("{s:b}", "alive", 1));
}

static void handle_readyz(void *arg, struct http_request *request) {
  const struct issuer *issuer = arg;
  if (issuer->is_draining) {
    http_reply_error(request, 503, "draining", "this issuer is about to end");
  } else if (keyclient_num_ready(issuer->signer->keyclient) == 0) {
    http_reply_error(request, 503, "key_server_unavailable", "no key server can be reached");
  } else {
    http_reply_json(request, 200, json_pack("{s:b}", "ready", 1));
  }
}

static void handle_metrics(void *arg, struct http_request *request) {
  const struct issuer *issuer = arg;
  struct metrics_text text = {0};
  const struct metrics_view view = {
      .stats = &issuer->stats,
      .reload = &issuer->reload,
      .keyclient = issuer->signer->keyclient,
      .api = issuer->api,
      .plain = issuer->plain,
      .audit = issuer->audit.sink,
      .num_batches = batches_num(issuer->batches),
      .num_signatures = batches_num_signatures(issuer->batches),
      .num_certificates = cert_set_num(issuer->snapshot->certificates),
      .num_cached = cert_cache_num(issuer->cache),
      .is_draining = issuer->is_draining,
  };
  metrics_write(&text, &view);
  http_reply_metrics(request, &text);
}

static const struct http_route plain_routes[] = {
    {"GET", "/healthz", handle_healthz},
    {"GET", "/readyz", handle_readyz},
    {"GET", "/metrics", handle_metrics},
    {0},
};

static const struct http_route api_routes[] = {
    {"POST", "/v1/delegated-credentials", handle_issue},
    {"GET", "/healthz", handle_healthz},
    {"GET", "/readyz", handle_readyz},
    {"GET", "/metrics", handle_metrics},
    {0},
};

// --- reload --------------------------------------------------------------------------

static enum status load(void *arg, int scope, struct errmsg *err) {
  struct issuer *issuer = arg;
  (void)scope;
  return snapshot_load(&issuer->loaded, issuer->config_path, err);
}

static void warn_restart(const struct options *old, const struct options *new) {
  if (!config_same_list(old->listen, old->num_listen, new->listen, new->num_listen) ||
      !config_same_text(old->metrics.listen, new->metrics.listen) ||
      !config_same_text(old->user, new->user) || !config_same_text(old->log, new->log) ||
      audit_log_change(&old->audit.log, &new->audit.log) != NULL ||
      !sandbox_options_equal(&old->sandbox, &new->sandbox)) {
    log_warn(0, "reload_needs_restart",
             "reason=\"listen, metrics.listen, user, sandbox, log or audit changed\"");
  }
}

// Everything has been prepared: what follows cannot fail halfway.
static enum status commit(void *arg, int scope, struct errmsg *err) {
  struct issuer *issuer = arg;
  struct snapshot *new = issuer->loaded;
  struct snapshot *old = issuer->snapshot;

  (void)scope;
  if (memcmp(new->key_servers_sha256, old->key_servers_sha256, 32) != 0) {
    struct signer *signer = NULL;
    enum status st = signer_new(&signer, issuer->batches, &new->options.key_servers, err);
    if (st != STATUS_OK) {
      return st;
    }
    signer_unref(issuer->signer);  // lives on while requests wait for it
    issuer->signer = signer;
  }
  policy_inherit(new->policy, old->policy);
  http_server_set_tls(issuer->api, new->tls);
  warn_restart(&old->options, &new->options);
  issuer->snapshot = new;
  issuer->loaded = NULL;
  snapshot_unref(old);
  log_info(0, "reloaded", "clients=%zu certificates=%zu", new->options.num_clients,
           cert_set_num(new->certificates));
  return STATUS_OK;
}

static void end_reload(void *arg) {
  struct issuer *issuer = arg;
  snapshot_unref(issuer->loaded);
  issuer->loaded = NULL;
}

static const struct reload_steps reload_steps = {
    .prepare = load, .commit = commit, .end = end_reload};

static void on_hup(void *arg) {
  struct issuer *issuer = arg;
  reload_ask(&issuer->reload, 1);
}

static void on_usr1(void *arg) {
  struct issuer *issuer = arg;
  log_reopen();
  sink_reopen(issuer->audit.sink);
}

static void on_watch_audit(void *arg) {
  struct issuer *issuer = arg;

  audit_log_watch(&issuer->audit, issuer->snapshot->options.audit.when_unavailable == AUDIT_ISSUE
                                      ? "credentials are issued without it"
                                      : "no credential is issued");
  timer_arm_ms(&issuer->watch_audit, AUDIT_LOG_WATCH_MS);
}

// --- the end -----------------------------------------------------------------------------

static void on_drained(void *arg) {
  const struct issuer *issuer = arg;
  loop_stop(issuer->loop);
}

static void on_drain_limit(void *arg) {
  const struct issuer *issuer = arg;
  log_warn(0, "drain_cut_short", "requests=%zu", batches_num(issuer->batches));
  loop_stop(issuer->loop);
}

// The plain listener stays, so that whoever watches sees the drain.
static void on_term(void *arg) {
  struct issuer *issuer = arg;
  if (issuer->is_draining) {
    return;
  }
  issuer->is_draining = true;
  reload_stop(&issuer->reload);
  ready_notify("STOPPING=1");
  log_info(0, "draining", "requests=%zu", batches_num(issuer->batches));
  timer_arm_ms(&issuer->drain_limit, issuer->snapshot->options.limits.drain_ms);
  http_server_drain(issuer->api, on_drained, issuer);
}

// --- the beginning ---------------------------------------------------------------------------

static enum status open_socket(struct issuer *issuer, const char *name, const char *text,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  struct address address = {0};
  int fd = -1;
  TRY(address_parse(&address, text, err));
  TRY(address_listen(&fd, &address, false, PLAIN_SOCKET_MODE, err));
  issuer->fds[issuer->num_fds] = fd;
  issuer->listeners[issuer->num_fds] = (struct ready_listener){.name = name, .fd = fd};
  issuer->num_fds++;

out:
  return st;
}

static enum status new_api(struct issuer *issuer) {
  const struct options *options = &issuer->snapshot->options;
  const struct http_server_config config = {
      .routes = api_routes,
      .arg = issuer,
      .max_body_len = (size_t)options->limits.max_body_len,
      .max_connections = (size_t)options->limits.max_connections,
      .tls = issuer->snapshot->tls,
      .limit_ms = options->limits.request_ms,
  };
  return http_server_new(&issuer->api, issuer->loop, &config);
}

static enum status new_plain(struct issuer *issuer) {
  const struct http_server_config config = {
      .routes = plain_routes,
      .arg = issuer,
      .max_body_len = PLAIN_MAX_BODY_LEN,
      .max_connections = PLAIN_MAX_CONNECTIONS,
  };
  return http_server_new(&issuer->plain, issuer->loop, &config);
}

enum status issuer_new(struct issuer **out, const char *config_path, struct snapshot **snapshot,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct issuer *issuer = calloc(1, sizeof(*issuer));
  const struct options *options = NULL;

  *out = NULL;
  if (issuer == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  issuer->config_path = config_path;
  issuer->snapshot = *snapshot;
  *snapshot = NULL;
  options = &issuer->snapshot->options;
  for (size_t i = 0; i < options->num_listen; i++) {
    TRY(open_socket(issuer, "api", options->listen[i], err));
  }
  if (options->metrics.listen != NULL) {
    TRY(open_socket(issuer, "metrics", options->metrics.listen, err));
  }
  *out = issuer;
  issuer = NULL;

out:
  issuer_free(issuer);
  return st;
}

const struct options *issuer_options(const struct issuer *issuer) {
  return &issuer->snapshot->options;
}

static enum status take_signals(struct issuer *issuer) {
  enum status st = STATUS_OK;
  TRY(loop_on_signal(issuer->loop, SIGHUP, on_hup, issuer));
  TRY(loop_on_signal(issuer->loop, SIGUSR1, on_usr1, issuer));
  TRY(loop_on_signal(issuer->loop, SIGTERM, on_term, issuer));
  TRY(loop_on_signal(issuer->loop, SIGINT, on_term, issuer));

out:
  return st;
}

static enum status start_listening(struct issuer *issuer, struct errmsg *err) {
  enum status st = STATUS_OK;
  size_t num_api = issuer->snapshot->options.num_listen;

  TRY(ready_announce(issuer->listeners, issuer->num_fds, err));
  for (size_t i = 0; i < issuer->num_fds; i++) {
    TRY(http_server_listen(i < num_api ? issuer->api : issuer->plain, &issuer->fds[i], err));
  }

out:
  return st;
}

enum status issuer_start(struct issuer *issuer, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &issuer->snapshot->options;

  TRY(audit_log_open(&issuer->audit, &options->audit.log, err));
  TRY(loop_new(&issuer->loop));
  TRY(take_signals(issuer));
  TRY(jobs_new(&issuer->jobs, issuer->loop));
  reload_init(&issuer->reload, issuer->jobs, &reload_steps, issuer);
  TRY(timer_init(&issuer->drain_limit, issuer->loop, on_drain_limit, issuer));
  TRY(timer_init(&issuer->watch_audit, issuer->loop, on_watch_audit, issuer));
  timer_arm_ms(&issuer->watch_audit, AUDIT_LOG_WATCH_MS);
  TRY(cert_cache_new(&issuer->cache, (size_t)options->limits.certificate_cache));
  TRY(batches_new(&issuer->batches, issuer->loop, issuer->cache, issuer->audit.sink,
                  &issuer->stats));
  TRY(signer_new(&issuer->signer, issuer->batches, &options->key_servers, err));
  TRY(new_api(issuer));
  if (options->metrics.listen != NULL) {
    TRY(new_plain(issuer));
  }
  TRY(start_listening(issuer, err));
  log_info(0, "started", "clients=%zu certificates=%zu", options->num_clients,
           cert_set_num(issuer->snapshot->certificates));

out:
  if (st != STATUS_OK && err->text[0] == '\0') {
    (void)errmsg_set(err, st, "cannot start: %s", status_name(st));
  }
  return st;
}

void issuer_run(struct issuer *issuer) {
  loop_run(issuer->loop);
  log_info(0, "stopped", "issued=%llu", (unsigned long long)counter_get(&issuer->stats.num_issued));
}

void issuer_free(struct issuer *issuer) {
  if (issuer == NULL) {
    return;
  }
  jobs_free(issuer->jobs);
  snapshot_unref(issuer->loaded);
  http_server_free(issuer->api);
  http_server_free(issuer->plain);
  signer_unref(issuer->signer);
  batches_free(issuer->batches);
  cert_cache_free(issuer->cache);
  snapshot_unref(issuer->snapshot);
  timer_cleanup(&issuer->drain_limit);
  timer_cleanup(&issuer->watch_audit);
  loop_free(issuer->loop);
  audit_log_close(&issuer->audit);
  for (size_t i = 0; i < issuer->num_fds; i++) {
    if (issuer->fds[i] >= 0) {
      (void)close(issuer->fds[i]);
    }
  }
  free(issuer);
}
