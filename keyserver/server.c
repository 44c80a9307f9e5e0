// SPDX-License-Identifier: Apache-2.0
#include "keyserver/server.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/chain.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "common/net/ready.h"
#include "keyserver/generate.h"
#include "keyserver/metrics.h"
#include "keyserver/server_change.h"

#define LISTENER_NAME "keyless"
#define METRICS_NAME "metrics"
#define METRICS_MAX_CONNECTIONS 16
#define METRICS_MAX_BODY_LEN 1024
#define METRICS_SOCKET_MODE 0660
#define WATCH_DRAIN_MS 10
// Slow signatures take what the workers leave. At less than 19 a worker has to let one run
// so often that its p99 shows it: until the next tick, 4 ms at 250 Hz.
#define SIGNERS_NICE 19

// --- sockets -----------------------------------------------------------------------------

static size_t count_cores(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

// bind_one opens one socket for each worker. With port 0 the kernel chooses for
// the first, and the others share its choice.
static enum status bind_one(struct server *server, size_t index, const char *text,
                            struct errmsg *err) {
  struct address address;
  enum status st = address_parse(&address, text, err);

  if (st != STATUS_OK) {
    return STATUS_CONFIG;
  }
  if (address.storage.ss_family == AF_UNIX) {
    return errmsg_set(err, STATUS_CONFIG, "%s: key-server clients come by TCP; give host:port",
                      text);
  }
  for (size_t w = 0; w < server->num_workers; w++) {
    int *fd = &server->fds[w * server->num_listen + index];
    TRY(address_listen(fd, &address, server->num_workers > 1, 0, err));
    if (w == 0 && address_port(&address) == 0) {
      struct address chosen;
      TRY(address_of_local(&chosen, *fd));
      address_set_port(&address, address_port(&chosen));
    }
  }

out:
  return st;
}

static enum status bind_metrics(struct server *server, const char *text, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct address address;

  if (text == NULL) {
    return STATUS_OK;
  }
  TRY(address_parse_local(&address, text, "metrics.listen", err));
  TRY(address_listen(&server->metrics_fd, &address, false, METRICS_SOCKET_MODE, err));

out:
  return st;
}

enum status server_bind(struct server *server, struct snapshot *snapshot, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct options *options = &snapshot->options;
  size_t num_fds = 0;

  server->snapshot = snapshot_ref(snapshot);
  server->num_workers = options->num_workers > 0 ? (size_t)options->num_workers : count_cores();
  server->num_listen = options->num_listen;
  server->metrics_fd = -1;
  num_fds = server->num_workers * server->num_listen;
  server->fds = calloc(num_fds, sizeof(int));
  if (server->fds == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < num_fds; i++) {
    server->fds[i] = -1;
  }
  for (size_t i = 0; i < server->num_listen; i++) {
    TRY(bind_one(server, i, options->listen[i], err));
  }
  TRY(bind_metrics(server, options->metrics.listen, err));

out:
  return st;
}

static enum status announce(const struct server *server, struct errmsg *err) {
  struct ready_listener list[OPTIONS_MAX_LISTEN + 1];
  char names[OPTIONS_MAX_LISTEN][32];
  size_t num = 0;

  for (; num < server->num_listen; num++) {
    (void)snprintf(names[num], sizeof names[num], num == 0 ? "%s" : "%s%zu", LISTENER_NAME,
                   num + 1);
    list[num] = (struct ready_listener){names[num], server->workers[0].listeners[num].fd};
  }
  if (server->metrics_fd >= 0) {
    list[num++] = (struct ready_listener){METRICS_NAME, server->metrics_fd};
  }
  return ready_announce(list, num, err);
}

// --- HTTP ----------------------------------------------------------------------------------

static void on_metrics(void *arg, struct http_request *request) {
  struct server *server = arg;
  struct metrics_text text = {0};

  metrics_write(&text, server);
  http_reply_metrics(request, &text);
}

static void on_health(void *arg, struct http_request *request) {
  (void)arg;
  http_reply_json(request, 200, json_pack("{s:s}", "status", "ok"));
}

static void on_ready(void *arg, struct http_request *request) {
  const struct server *server = arg;

  if (server->is_draining) {
    http_reply_error(request, 503, "draining", "this key server is stopping");
  } else if (sink_is_failing(server->audit.sink)) {
    http_reply_error(request, 503, "audit", "the audit file cannot be written");
  } else {
    http_reply_json(request, 200, json_pack("{s:s}", "status", "ready"));
  }
}

// on_audit_head tells how far the chain of the audit file has come: for whoever
// notes it elsewhere, as what it proves it proves up to a head that is known.
static void on_audit_head(void *arg, struct http_request *request) {
  const struct server *server = arg;
  struct chain head;
  char hash[2 * CHAIN_HASH_LEN + 1];

  if (!server->audit.is_chained) {
    http_reply_error(request, 404, "no_chain", "audit.chain is off");
    return;
  }
  sink_head(server->audit.sink, &head);
  http_reply_json(request, 200,
                  json_pack("{s:I,s:s}", "seq", (json_int_t)head.seq, "chain",
                            bytes_to_hex(hash, bytes_of(head.hash, sizeof head.hash))));
}

static const struct http_route routes[] = {
    {"GET", "/metrics", on_metrics},
    {"GET", "/healthz", on_health},
    {"GET", "/readyz", on_ready},
    {"GET", "/audit-head", on_audit_head},
    {0},
};

static enum status start_metrics(struct server *server, struct errmsg *err) {
  const struct http_server_config config = {
      .routes = routes,
      .arg = server,
      .max_body_len = METRICS_MAX_BODY_LEN,
      .max_connections = METRICS_MAX_CONNECTIONS,
  };
  enum status st = STATUS_OK;

  if (server->metrics_fd < 0) {
    return STATUS_OK;
  }
  TRY(http_server_new(&server->metrics, server->loop, &config));
  TRY(http_server_listen(server->metrics, &server->metrics_fd, err));

out:
  return st;
}

// --- signals -----------------------------------------------------------------------------------

static void on_watch_audit(void *arg) {
  struct server *server = arg;

  audit_log_watch(&server->audit, server->snapshot->options.audit.when_unavailable == AUDIT_SIGN
                                      ? "signatures are made without it"
                                      : "nothing is signed");
  timer_arm_ms(&server->watch_audit, AUDIT_LOG_WATCH_MS);
}

static void on_reopen(void *arg) {
  struct server *server = arg;

  log_reopen();
  sink_reopen(server->audit.sink);
}

static void on_watch_drain(void *arg) {
  struct server *server = arg;

  for (size_t i = 0; i < server->num_workers; i++) {
    if (!worker_is_done(&server->workers[i])) {
      timer_arm_ms(&server->watch_drain, WATCH_DRAIN_MS);
      return;
    }
  }
  loop_stop(server->loop);
}

static void on_stop(void *arg) {
  struct server *server = arg;

  log_info(0, server->is_draining ? "stopping_now" : "draining", "connections=%zu",
           census_num(server->census));
  if (!server->is_draining) {
    server->is_draining = true;
    reload_stop(&server->reload);
    ready_notify("STOPPING=1");
  }
  for (size_t i = 0; i < server->num_workers; i++) {
    worker_drain(&server->workers[i]);
  }
  timer_arm_ms(&server->watch_drain, 0);
}

static enum status watch_signals(struct server *server) {
  enum status st = STATUS_OK;

  TRY(loop_on_signal(server->loop, SIGUSR1, on_reopen, server));
  TRY(loop_on_signal(server->loop, SIGTERM, on_stop, server));
  TRY(loop_on_signal(server->loop, SIGINT, on_stop, server));

out:
  return st;
}

// --- life --------------------------------------------------------------------------------------

static int64_t num_default_signers(void) {
  const size_t num = count_cores();
  return num < SIGNER_MAX_THREADS ? (int64_t)num : SIGNER_MAX_THREADS;
}

static enum status start_signers(struct server *server, unsigned *rsa_lane, unsigned *generate_lane,
                                 struct errmsg *err) {
  const struct options *options = &server->snapshot->options;
  const struct signer_lane_config rsa = {
      .name = "rsa",
      .num_threads =
          (unsigned)(options->num_signers > 0 ? options->num_signers : num_default_signers()),
      .max_queued = (unsigned)options->limits.max_queued,
      .nice = SIGNERS_NICE,
  };
  const struct signer_lane_config generate = {
      .name = "generate",
      .num_threads = 1,
      .max_queued = GENERATE_MAX_QUEUED,
      .nice = SIGNERS_NICE,
  };
  enum status st = STATUS_OK;

  TRY(signer_pool_new(&server->pool));
  TRY(signer_pool_add_lane(server->pool, rsa_lane, &rsa));
  TRY(signer_pool_add_lane(server->pool, generate_lane, &generate));
  TRY(token_start_lanes(server->tokens, server->pool, rsa.max_queued));

out:
  return st == STATUS_OK
             ? st
             : errmsg_set(err, st, "the signer threads cannot be started: %s", strerror(errno));
}

static enum status start_workers(struct server *server, struct errmsg *err) {
  const size_t len = server->num_workers * sizeof(struct worker);
  enum status st = STATUS_OK;
  unsigned rsa_lane = 0;
  unsigned generate_lane = 0;

  TRY(start_signers(server, &rsa_lane, &generate_lane, err));
  server->workers = aligned_alloc(_Alignof(struct worker), len);
  if (server->workers == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for %zu workers", server->num_workers);
  }
  memset(server->workers, 0, len);
  for (size_t i = 0; i < server->num_workers && st == STATUS_OK; i++) {
    st = worker_init(&server->workers[i], (unsigned)i, server->snapshot, server->census,
                     server->audit.sink, &server->fds[i * server->num_listen], server->num_listen);
    worker_use_pool(&server->workers[i], server->pool, rsa_lane, generate_lane, &server->made);
  }
  for (size_t i = 0; i < server->num_workers && st == STATUS_OK; i++) {
    st = worker_start(&server->workers[i]);
  }
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the workers cannot be started: %s", strerror(errno));
  }

out:
  return st;
}

enum status server_serve(struct server *server, const char *config_path, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct errmsg quiet = {0};

  server->config_path = config_path;
  server->reloaded_s = clock_wall_s();
  TRY(audit_log_open(&server->audit, &server->snapshot->options.audit.log, err));
  TRY(census_new(&server->census));
  TRY(loop_new(&server->loop));
  TRY(timer_init(&server->watch_drain, server->loop, on_watch_drain, server));
  TRY(timer_init(&server->watch_audit, server->loop, on_watch_audit, server));
  TRY(server_begin_changes(server));
  TRY(watch_signals(server));
  TRY(start_workers(server, err));
  server_watch_folders(server, server->snapshot);
  if (announce(server, &quiet) != STATUS_OK) {
    log_warn(0, "not_announced", "%s", quiet.text);
  }
  TRY(start_metrics(server, err));
  log_info(0, "serving", "workers=%zu keys=%zu grants=%zu", server->num_workers,
           keystore_num_keys(server->snapshot->keys), rights_num_grants(server->snapshot->rights));
  timer_arm_ms(&server->watch_audit, AUDIT_LOG_WATCH_MS);
  loop_run(server->loop);
  log_info(0, "stopped", "audit_lost=%llu", (unsigned long long)sink_num_lost(server->audit.sink));

out:
  return st;
}

void server_cleanup(struct server *server) {
  bool is_stuck = false;
  bool is_reload_stuck = false;

  // A reload that is under way ends first, unless a token's module hangs in it.
  is_reload_stuck = !server_end_reload(server);
  // A thread that hangs in a token keeps its job and, by it, a snapshot; the end
  // of the process takes them.
  is_stuck = server->pool != NULL && !signer_pool_stop(server->pool);
  server_forget_made(server);
  for (size_t i = 0; server->workers != NULL && i < server->num_workers; i++) {
    worker_cleanup(&server->workers[i]);
  }
  signer_pool_free(server->pool);
  free(server->workers);
  http_server_free(server->metrics);
  if (server->fds != NULL) {  // server_bind was called
    for (size_t i = 0; i < server->num_workers * server->num_listen; i++) {
      if (server->fds[i] >= 0) {
        close(server->fds[i]);
      }
    }
    if (server->metrics_fd >= 0) {
      close(server->metrics_fd);
    }
  }
  free(server->fds);
  server_end_changes(server);
  if (server->loop != NULL) {
    timer_cleanup(&server->watch_drain);
    timer_cleanup(&server->watch_audit);
    loop_free(server->loop);
  }
  census_free(server->census);
  audit_log_close(&server->audit);
  snapshot_unref(server->snapshot);
  if (is_reload_stuck) {
    // Nothing is torn down under a thread that may still wake up.
    log_warn(0, "reload_left_behind", "a reload hung for more than %d ms",
             SERVER_RELOAD_STOP_LIMIT_MS);
    log_close();
    _exit(0);
  }
  if (!is_stuck) {
    token_registry_free(server->tokens);
  }
  *server = (struct server){0};
}
