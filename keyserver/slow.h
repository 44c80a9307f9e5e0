// SPDX-License-Identifier: Apache-2.0
// slow: the requests of one worker that wait for a signer thread (signer_pool.h).
// dispatch.c hands over a request that may be signed but would take long; when the
// signature is there, or cannot be had, on_done gets it back, on the worker's loop,
// and the reply is written by peer.c. Each request ends in exactly one of:
//
//   on_done with what the thread made of it
//   on_done with REFUSAL_SIGN_TIMEOUT, after limits.sign_timeout
//   on_gone, as its connection went away; what is made of it is thrown away
//
// The threads know a request by its id alone. Keys and rights that it needs live
// as long as its reference to their snapshot.
//
// Threads: all calls on the worker's own.
#ifndef DEPUTY_KEYSERVER_SLOW_H_
#define DEPUTY_KEYSERVER_SLOW_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "keyserver/request.h"
#include "keyserver/signer_pool.h"
#include "keyserver/snapshot.h"

#define SLOW_NUM_BUCKETS 256u  // a power of two

// Most bytes of a reply to a slow request: what a connection keeps free for each.
#define SLOW_REPLY_LEN (FRAME_PAD_TO_LEN + 64u)

struct slow_request;

// Whose requests they are: one for each connection. All-zero is none.
struct slow_owner {
  struct slow_request *first;
  size_t num;
};

struct slow_request {
  uint64_t id;
  struct slow_owner *owner;
  struct request req;  // its runs point into `body`
  int64_t wall_us;     // when it was asked
  int64_t due_ms;
  unsigned lane;
  struct snapshot *snapshot;
  // Private: by id, of the same owner, by age.
  struct slow_request *next_in_bucket;
  struct slow_request *next_of_owner;
  struct slow_request *prev_of_owner;
  struct slow_request *newer;
  struct slow_request *older;
  uint8_t body[];
};

// What came of it. REFUSAL_NONE: `payload` is what the client gets.
struct slow_result {
  enum refusal refusal;
  struct bytes payload;
};

// What a task in the pool begins with: job and answer.
struct slow_task {
  struct signer_job job;
  enum refusal refusal;
  size_t len;
  uint8_t payload[SIGN_MAX_LEN];
};

struct slow_events {
  void (*on_done)(void *arg, struct slow_request *slow, const struct slow_result *result);
  void (*on_gone)(void *arg, struct slow_request *slow);
};

struct slow_table {
  struct signer_pool *pool;  // NULL: no threads; everything is signed at once
  unsigned rsa_lane;
  unsigned generate_lane;
  struct signer_inbox *made;  // where new keys go first (generate.h)
  struct signer_inbox inbox;
  const struct slow_events *events;
  void *arg;
  uint64_t last_id;
  uint64_t num_late;  // came back after their request had ended
  size_t num;
  struct slow_request *buckets[SLOW_NUM_BUCKETS];
  struct slow_request *oldest;
  struct slow_request *newest;
};

void slow_init(struct slow_table *table, struct loop *loop, const struct slow_events *events,
               void *arg);
// slow_cleanup when the pool's threads have ended, and after all owners are gone.
void slow_cleanup(struct slow_table *table);

// slow_start hands over a request that request_judge has let through; it is
// copied with the packet's `body`. `flow` tells clients apart. STATUS_LIMIT: too
// many wait; STATUS_MEMORY, STATUS_UNAVAILABLE. Then nothing has happened.
enum status slow_start(struct slow_table *table, struct slow_owner *owner, unsigned flow,
                       struct snapshot *snapshot, const struct request *req, struct bytes body,
                       int64_t wall_us, int64_t due_ms);

// slow_drop_owner ends all requests of an owner that goes away.
void slow_drop_owner(struct slow_table *table, struct slow_owner *owner);

// slow_expire ends what was due before `now_ms`.
void slow_expire(struct slow_table *table, int64_t now_ms);

#endif  // DEPUTY_KEYSERVER_SLOW_H_
