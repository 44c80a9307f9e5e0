// SPDX-License-Identifier: Apache-2.0
// server: the control thread. Opens the sockets, starts the workers, then waits
// for signals: SIGHUP reloads, SIGUSR1 opens logs again, SIGTERM and SIGINT drain
// (a second one ends at once). It watches the key folders if it is to, and serves /metrics, so that
// a worker never has to.
#ifndef DEPUTY_KEYSERVER_SERVER_H_
#define DEPUTY_KEYSERVER_SERVER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/audit_log.h"
#include "common/base/errmsg.h"
#include "common/base/sink.h"
#include "common/base/status.h"
#include "common/http/http_server.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/net/reload.h"
#include "keyserver/census.h"
#include "keyserver/signer_pool.h"
#include "keyserver/snapshot.h"
#include "keyserver/token.h"
#include "keyserver/watch.h"
#include "keyserver/worker.h"

// How much a reload reads (common/net/reload.h).
enum reload_scope {
  RELOAD_NOTHING,
  RELOAD_KEYS,  // files in the watched folders have changed: the configuration stays
  RELOAD_ALL,   // SIGHUP
};

// All-zero is valid to clean.
struct server {
  const char *config_path;  // borrowed
  struct loop *loop;
  struct snapshot *snapshot;  // in force
  struct census *census;
  struct audit_log audit;
  struct signer_pool *pool;
  struct token_registry *tokens;
  struct signer_inbox made;     // new keys, stored and not yet in force
  struct signer_job *adopting;  // new keys that workers are yet to take over
  struct signer_job *held;      // new keys that wait for a reload to end
  struct jobs *jobs;
  struct reload reload;
  struct snapshot *reload_base;  // that was in force when a reload began, and still is
  struct snapshot *reload_next;  // what it has read
  struct watch *watch;           // of the key folders
  struct timer watch_adoption;
  size_t num_workers;
  struct worker *workers;
  // Listening sockets: num_listen for each worker, until the worker takes them.
  int *fds;
  size_t num_listen;
  int metrics_fd;  // -1: none, or taken
  struct http_server *metrics;
  struct timer watch_drain;
  struct timer watch_audit;
  bool is_draining;
  int64_t reloaded_s;  // wall clock of the last good load
};

// server_fill makes `snapshot` whole, see snapshot_fill.
enum status server_fill(struct server *server, struct snapshot *snapshot, struct errmsg *err);

// server_bind opens all listening sockets that `snapshot` (a reference is taken)
// names: the last use of low ports. STATUS_CONFIG, STATUS_SYSTEM.
enum status server_bind(struct server *server, struct snapshot *snapshot, struct errmsg *err);

// server_serve opens the audit log, starts the workers, announces readiness and
// returns after SIGTERM, when all is drained. STATUS_SYSTEM, STATUS_MEMORY.
enum status server_serve(struct server *server, const char *config_path, struct errmsg *err);

void server_cleanup(struct server *server);

#endif  // DEPUTY_KEYSERVER_SERVER_H_
