// SPDX-License-Identifier: Apache-2.0
// worker: a thread with its own loop, its own listening sockets (SO_REUSEPORT)
// and its own connections. Workers share nothing on the hot path but immutable
// snapshots; the control thread (server.c) starts them, hands them new
// snapshots, and ends them.
#ifndef DEPUTY_KEYSERVER_WORKER_H_
#define DEPUTY_KEYSERVER_WORKER_H_

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/sink.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "common/tls/tls_stream.h"
#include "keyserver/census.h"
#include "keyserver/dispatch.h"
#include "keyserver/options.h"
#include "keyserver/slow.h"
#include "keyserver/snapshot.h"
#include "keyserver/stats.h"

struct peer;

struct worker {
  // Shared with the control thread.
  _Atomic(struct snapshot *) next_snapshot;  // handed over, not yet taken
  atomic_uint_fast64_t generation;           // of the snapshot in use
  atomic_bool is_done;                       // drained
  struct loop *loop;
  pthread_t thread;
  bool is_started;
  _Alignas(64) struct stats stats;
  // The thread's own.
  _Alignas(64) struct snapshot *snapshot;
  struct census *census;  // shared by all workers
  struct dispatcher dispatcher;
  struct slow_table slow;
  struct tls_stream_limits limits;
  struct worker_listener {
    struct worker *worker;
    int fd;  // owned
    struct io io;
  } listeners[OPTIONS_MAX_LISTEN];
  size_t num_listeners;
  bool is_accepting;
  bool is_draining;
  int64_t drain_began_ms;
  int64_t drain_due_ms;
  struct timer sweep;
  struct timer accept_again;  // after descriptors ran out
  struct peer *peers;         // doubly linked
  size_t num_peers;
  struct timer recheck;     // of clients, after a reload has changed who is let in
  struct peer *recheck_at;  // the next one
  uint64_t last_id;         // of connections, for log lines
  unsigned index;
};

// worker_init prepares a worker that serves `snapshot` (a reference is taken) on
// the listening sockets `fds` (taken). STATUS_MEMORY, STATUS_SYSTEM.
enum status worker_init(struct worker *worker, unsigned index, struct snapshot *snapshot,
                        struct census *census, struct sink *audit, int *fds, size_t num_fds);
// worker_use_pool gives it signer threads. Before worker_start.
void worker_use_pool(struct worker *worker, struct signer_pool *pool, unsigned rsa_lane,
                     unsigned generate_lane, struct signer_inbox *made);
// worker_start starts its thread. STATUS_SYSTEM.
enum status worker_start(struct worker *worker);
// worker_cleanup ends the thread, closes what is open and frees.
void worker_cleanup(struct worker *worker);

// From the control thread:
// worker_adopt hands over a new snapshot (a reference is taken).
void worker_adopt(struct worker *worker, struct snapshot *snapshot);
// worker_drain stops accepting, finishes what is in hand, and closes; bounded by
// limits.drain_timeout. A second call ends it now. worker_is_done tells.
void worker_drain(struct worker *worker);
bool worker_is_done(const struct worker *worker);

#endif  // DEPUTY_KEYSERVER_WORKER_H_
