// SPDX-License-Identifier: Apache-2.0
// worker: one thread with its own event loop, its own listening sockets
// (SO_REUSEPORT: the kernel spreads connections), its own memory and counters.
// Workers share nothing on the hot path but what is immutable (sites) or atomic
// (states, the DC of a chain, ticket keys).
//
//   control --worker_post_...--> worker       the only way in
//   worker  --host callbacks---> control      posted to control's loop
#ifndef DEPUTY_PROXY_WORKER_H_
#define DEPUTY_PROXY_WORKER_H_

#include <openssl/bio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"
#include "proxy/config/options.h"
#include "proxy/connection/admission.h"
#include "proxy/connection/block.h"
#include "proxy/connection/deadline.h"
#include "proxy/connection/turns.h"
#include "proxy/counters.h"
#include "proxy/dc/heat.h"
#include "proxy/origin/origin_tls.h"
#include "proxy/view.h"

struct address_table;
struct conn;
struct memory_watch;
struct worker;

// Where a worker's news go; the functions run on `loop`'s thread.
struct worker_host {
  struct loop *loop;
  void *arg;
  struct lookup *lookup;  // NULL: there is no store
  size_t num_workers;
  struct address_table *addresses;
  struct memory_watch *memory;
  struct origins *origins;
  void (*on_view_entered)(void *arg, struct view *view);
  void (*on_view_released)(void *arg, struct view *view);
  void (*on_drained)(void *arg, struct worker *worker);
};

// One of the worker's listening sockets.
struct listening {
  struct worker *worker;
  uint64_t id;  // listener.id; 0: the slot is free
  int fd;
  bool is_tcp;
  size_t index;  // among those of the site in force
  struct io io;
  struct timer retry;  // runs while no descriptors are left
  unsigned budget;     // accepts in one round
};

// Sockets of one listener that a worker may have: more than one only if they were
// inherited from a proxy that had more workers.
#define LISTENING_MAX_SHARE ((size_t)8)
#define LISTENING_MAX (OPTIONS_MAX_LISTENERS * LISTENING_MAX_SHARE)

// What accept is to look like after a reload, for one worker.
struct listening_plan {
  struct {
    uint64_t id;
    size_t index;  // of its listener in the options
    int fd;        // a new socket, taken; -1: the slots with this id go on
    bool is_tcp;
  } items[LISTENING_MAX];
  size_t num;
};

struct worker {
  unsigned index;
  const struct worker_host *host;
  struct loop *loop;
  pthread_t thread;
  bool is_started;

  struct view *view;  // in force
  struct listening listening[2 * LISTENING_MAX];
  size_t num_conns;
  size_t max_conns;
  bool is_draining;
  bool is_drained;
  struct timer door;  // until it accepts no more

  // Who is let in (admit.h).
  struct admission admission;
  struct io pulse;
  struct timer pulse_again;
  int pulse_fd;

  struct turns turns;  // of handshakes

  // BoringSSL's calls of all connections go through one BIO, which finds the
  // connection here: set for the time of each call into the library (transport.h).
  struct conn *active;
  BIO *bio;

  struct origin_sessions origin_sessions;

  struct pool conns;
  struct pool blocks;
  struct pool handshakes;
  struct pool signings;
  struct deadlines deadlines;
  struct conn *all;    // every connection, doubly linked, for the drain's end
  struct conn *later;  // to be run in the next round, in order
  struct conn **later_end;
  struct conn *later_now;  // what is left of the round that is being run
  uint64_t next_id;
  int64_t round_ms;  // the round for which now_s was read
  int64_t now_s;

  struct worker_counters counters;
  struct heat heat;  // read by control
};

// worker_new makes a worker that knows no site yet; its thread starts with
// worker_start. STATUS_MEMORY, STATUS_SYSTEM.
enum status worker_new(struct worker **out, unsigned index, const struct worker_host *host,
                       size_t max_conns);
enum status worker_start(struct worker *worker);

// worker_post_site puts a view in force and listens by the plan (copied; its
// descriptors are taken). Any thread.
void worker_post_site(struct worker *worker, struct view *view, const struct listening_plan *plan);

// worker_post_listening is the same without another site.
void worker_post_listening(struct worker *worker, const struct listening_plan *plan);

// worker_post_drain: accept no more, after a short while in which those who have just
// connected get into the queues, which are emptied; `has_heir`: another process has the
// sockets, too, so at once;
// on_drained follows when no connection is left. worker_post_end closes what
// is left now.
void worker_post_drain(struct worker *worker, bool has_heir);
void worker_post_end(struct worker *worker);

// worker_post_origins: names of origins were looked up, whoever waits may go on.
void worker_post_origins(struct worker *worker);

// worker_join stops the loop and waits for the thread. worker_free: after that.
void worker_join(struct worker *worker);
void worker_free(struct worker *worker);

// --- for connections, on the worker's thread ----------------------------------------

// worker_now_s is the wall clock of this round of the loop.
int64_t worker_now_s(struct worker *worker);

static inline const struct limit_options *worker_limits(const struct worker *worker) {
  return &worker->view->site->options.limits;
}

// listening_trusts says whether a peer must tell first who the client is (greeting.h).
static inline bool listening_trusts(const struct listening *listening,
                                    const struct sockaddr_storage *peer) {
  return trust_has(&listening->worker->view->site->trusts[listening->index],
                   (const struct sockaddr *)peer);
}

// worker_run_later has conn_run called in the next round.
void worker_run_later(struct worker *worker, struct conn *conn);

// worker_adopt numbers a new connection and keeps it in its list; worker_forget
// takes it out again, before it is freed.
void worker_adopt(struct worker *worker, struct conn *conn);
void worker_forget(struct worker *worker, struct conn *conn);

#endif  // DEPUTY_PROXY_WORKER_H_
