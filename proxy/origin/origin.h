// SPDX-License-Identifier: Apache-2.0
// origin: where decrypted bytes go. A pool has origins (what the configuration
// lists), an origin has endpoints (socket addresses: one, or all that DNS gives for
// its name). Balancing chooses among the endpoints that are in service (balance.h);
// when connecting to one fails, before any byte was forwarded, another is tried.
//
//   control (origins.h): makes all of these, looks names up, checks endpoints
//   worker  (here):      chooses, connects, tells the origin who the client is
//
// Threads: workers read sets, which are immutable but for atomics, within one
// callback; what replaces one is freed by grace (grace.h). An endpoint stays while a
// connection counts in num_open.
#ifndef DEPUTY_PROXY_ORIGIN_ORIGIN_H_
#define DEPUTY_PROXY_ORIGIN_ORIGIN_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "common/net/loop.h"
#include "proxy/config/origin_options.h"
#include "proxy/origin/origin_tls.h"

#define ORIGIN_MAX_TRIES 8  // origins that one connection tries

// Why a connection to an origin was of no use.
enum origin_failure {
  ORIGIN_FAILURE_REFUSED,      // nobody listens there
  ORIGIN_FAILURE_TIMEOUT,      // no answer in time
  ORIGIN_FAILURE_UNREACHABLE,  // no way there
  ORIGIN_FAILURE_TLS,          // no TLS with it: its certificate, or something else
  ORIGIN_FAILURE_RESET,        // broken off by the origin, later
  ORIGIN_FAILURE_LOCAL,        // we have no descriptor, port or memory left
  ORIGIN_FAILURE_OTHER,
  ORIGIN_FAILURE_NUM,
};

const char *origin_failure_name(enum origin_failure failure);
enum origin_failure origin_failure_of(int error);  // an errno of connect

// One that the configuration lists; kept over reloads by its pool's name and its
// address.
struct origin {
  char *pool;
  char *address;  // as it was written
  struct counter num_connected;
  struct counter connect_us;  // sum
  struct counter num_failed[ORIGIN_FAILURE_NUM];
  _Atomic uint32_t max_open;  // connections to each address; 0: any number

  // Control's alone, as all below.
  struct origin *next;
  size_t num_users;  // pools of all sites
  char host[256];    // to be looked up; "": a fixed address
  uint16_t port;
  bool is_current;               // of the site in force
  bool is_resolved;              // it was looked up at least once, with or without success
  struct pool_options settings;  // of its pool in the site in force; texts are not to be used
  struct resolve_query *query;
  struct timer resolve;
  struct endpoint *endpoints;  // those that sets have
  size_t num_listed;           // of them
  size_t num_endpoints;        // these, and those that are leaving
  struct origins *origins;
};

// Why an endpoint is out of service: bits.
enum endpoint_state {
  ENDPOINT_OUT = 1,   // connections failed; it is probed
  ENDPOINT_DOWN = 2,  // the checks say so
};

struct endpoint {
  struct origin *origin;
  struct address address;
  uint64_t hash;                // of its address; the same on every machine
  uint32_t id;                  // of no other endpoint of this process
  _Atomic uint32_t num_open;    // connections, those being made included
  _Atomic uint32_t num_failed;  // connects in a row
  _Atomic uint32_t state;       // enum endpoint_state

  // Control's alone: the check or probe.
  struct endpoint *next;
  struct timer timer;
  struct io io;
  int fd;                    // -1: none is under way
  bool is_left;              // no set has it, and no worker can be reading one that had
  int64_t back_off_ms;       // while it is out
  int64_t last_back_off_ms;  // after which a probe brought it back; 0: none has
  uint64_t num_connected;    // of its origin, at that time
  bool is_doubted;           // taken out again since, of no use to any client
  unsigned num_good;
  unsigned num_bad;
};

static inline unsigned endpoint_state(const struct endpoint *endpoint) {
  return atomic_load_explicit(&endpoint->state, memory_order_relaxed);
}

static inline bool endpoint_is_full(const struct endpoint *endpoint) {
  const uint32_t max = atomic_load_explicit(&endpoint->origin->max_open, memory_order_relaxed);
  return max != 0 && atomic_load_explicit(&endpoint->num_open, memory_order_relaxed) >= max;
}

// endpoint_enter counts a connection in; false: it is full. (Two workers may have found room
// for one.)
static inline bool endpoint_enter(struct endpoint *endpoint) {
  const uint32_t max = atomic_load_explicit(&endpoint->origin->max_open, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&endpoint->num_open, 1, memory_order_relaxed) < max || max == 0) {
    return true;
  }
  (void)atomic_fetch_sub_explicit(&endpoint->num_open, 1, memory_order_release);
  return false;
}

// What a pool has now.
struct origin_set {
  _Atomic uint32_t cursor;  // whose turn it is
  bool is_even;             // all weights are the same
  bool is_alone;            // one endpoint is all that the pool has
  uint32_t total_weight;
  struct origin_set *reserve;  // the backups, in the same memory; NULL: none
  size_t num;
  struct origin_place {
    struct endpoint *endpoint;
    uint32_t weight;
    uint32_t weight_before;  // of those before it
  } places[];
};

// A site's.
struct origin_pool {
  const struct pool_options *options;
  SSL_CTX *tls;    // NULL: bytes are plain
  unsigned index;  // its queue of deadlines
  _Atomic(struct origin_set *) set;
  _Atomic bool is_resolving;  // a name of it has not been looked up yet

  struct origins *registry;  // control's alone, as all below
  struct origin_pool *next;
  struct origin *origins[OPTIONS_MAX_SERVERS];
};

static inline struct origin_set *origin_pool_set(struct origin_pool *pool) {
  return atomic_load_explicit(&pool->set, memory_order_acquire);
}

// --- a connection on its way to an origin ------------------------------------------------

// Part of the handshake's memory.
struct reach {
  struct origin_pool *pool;
  int64_t give_up_ms;                // loop_now_ms
  int64_t began_us;                  // the attempt under way
  uint32_t tried[ORIGIN_MAX_TRIES];  // ids of endpoints
  uint8_t num_tried;
  uint8_t last;  // enum origin_failure, if one was tried
};

struct conn;

// origin_begin chooses the pool; before the state CONNECT.
void origin_begin(struct conn *conn);

// origin_limit_ms is how long the next attempt may take, and origin_queue the queue
// for its deadline.
int64_t origin_limit_ms(const struct conn *conn);
unsigned origin_queue(const struct conn *conn);

enum reached {
  REACHED,        // conn->origin is connected
  REACH_WAITS,    // for what is under way, or for a name to be looked up
  REACH_ANOTHER,  // the same; a new attempt has begun
  REACH_NOBODY,   // no origin is left, reach.last says why if there were tries
  REACH_NO_MEMORY,
};

// origin_reach goes on with connecting.
enum reached origin_reach(struct conn *conn, void (*on_ready)(void *arg, unsigned ready));

// origin_expire: the attempt took too long.
void origin_expire(struct conn *conn);

// origin_note_reset: the origin broke the connection off.
void origin_note_reset(struct conn *conn);

// origin_leave closes the connection to the origin, if there is one.
void origin_leave(struct conn *conn);

// origin_greet puts what the origin is told first (the PROXY header) into
// conn->up. Called once, before any byte of the client's. (Where TLS is spoken, it has been
// sent before that.) STATUS_MEMORY, STATUS_LIMIT.
enum status origin_greet(struct conn *conn);

#endif  // DEPUTY_PROXY_ORIGIN_ORIGIN_H_
