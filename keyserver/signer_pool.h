// SPDX-License-Identifier: Apache-2.0
// signer_pool: threads for what takes long (RSA above 2048 bits, hardware tokens,
// making keys), so that it delays nobody. A worker submits a job; a signer thread
// runs it; the job comes back to the loop it belongs to by an inbox.
//
// What has nothing to do with each other has a lane of its own, with its own
// threads and its own bounded queue: a token that hangs holds up its own keys and
// nobody else's. Within a lane the clients take turns (flows), and one of them
// can fill at most half of the queue.
//
// Jobs carry all they need and are known to their owner by id only: whoever
// waited for one may be gone when it comes back.
//
// Threads: as said with each call.
#ifndef DEPUTY_KEYSERVER_SIGNER_POOL_H_
#define DEPUTY_KEYSERVER_SIGNER_POOL_H_

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"

#define SIGNER_MAX_LANES 32u
#define SIGNER_MAX_THREADS 64u     // of one lane
#define SIGNER_NUM_FLOWS 64u       // clients are spread over these by their key
#define SIGNER_IDLE_MS 1000        // how often on_idle is called while nothing waits
#define SIGNER_STOP_LIMIT_MS 2000  // a thread that is still in a job by then is left behind

struct signer_pool;
struct signer_inbox;

// Embedded first in the submitter's own struct.
struct signer_job {
  uint64_t id;                           // the submitter's
  unsigned flow;                         // any number: taken modulo SIGNER_NUM_FLOWS
  struct signer_inbox *inbox;            // where it goes when it is done
  void (*work)(struct signer_job *job);  // on a signer thread; may block
  void (*free)(struct signer_job *job);  // on any thread
  struct signer_job *next;               // private
};

// Where finished jobs arrive: fn(arg, job) on `loop`, which takes the job.
// Embedded in its owner, who outlives the pool's threads.
struct signer_inbox {
  struct loop *loop;
  void (*fn)(void *arg, struct signer_job *job);
  void *arg;
  pthread_mutex_t lock;
  struct signer_job *first;
  struct signer_job *last;
  bool is_posted;
  bool is_ready;
};

void signer_inbox_init(struct signer_inbox *inbox, struct loop *loop,
                       void (*fn)(void *arg, struct signer_job *job), void *arg);
// signer_inbox_put hands over a job. Any thread, while the loop exists.
void signer_inbox_put(struct signer_inbox *inbox, struct signer_job *job);
// signer_inbox_cleanup frees what nobody has taken. All-zero is allowed.
void signer_inbox_cleanup(struct signer_inbox *inbox);

// What a lane is. Borrowed texts live as long as the pool.
struct signer_lane_config {
  const char *name;      // for metrics and logs
  unsigned num_threads;  // at most SIGNER_MAX_THREADS
  unsigned max_queued;
  int nice;  // of the threads: they give way to the workers (thread_turn.h)
  // on_idle, if not NULL, is called on a thread of the lane about once in
  // SIGNER_IDLE_MS while no job waits.
  void (*on_idle)(void *arg);
  void *arg;
};

// What a lane has to show.
struct signer_lane_stats {
  const char *name;
  uint64_t num_queued;   // now
  uint64_t num_running;  // now
  uint64_t num_done;     // ever
  uint64_t num_full;     // refused as the queue was full
  uint64_t num_cancelled;
};

// signer_pool_new makes a pool without lanes. STATUS_MEMORY.
enum status signer_pool_new(struct signer_pool **out);

// signer_pool_add_lane starts a lane's threads; *out is what signer_pool_submit
// takes. One thread at a time. STATUS_LIMIT, STATUS_MEMORY, STATUS_SYSTEM.
enum status signer_pool_add_lane(struct signer_pool *pool, unsigned *out,
                                 const struct signer_lane_config *config);

// signer_pool_submit takes the job. Any thread.
//   STATUS_LIMIT        the queue, or this flow's half of it, is full
//   STATUS_UNAVAILABLE  there is no such lane, or the pool has stopped
// The job is still the caller's then.
enum status signer_pool_submit(struct signer_pool *pool, unsigned lane, struct signer_job **job);

// signer_pool_cancel frees the queued job of this inbox and id; false: it is not
// queued any more (it will arrive in the inbox, or has). Any thread.
bool signer_pool_cancel(struct signer_pool *pool, unsigned lane, const struct signer_inbox *inbox,
                        uint64_t id);

unsigned signer_pool_num_lanes(const struct signer_pool *pool);
void signer_pool_stats(struct signer_lane_stats *out, struct signer_pool *pool, unsigned lane);

// signer_pool_stop frees what is queued, takes nothing more, and waits for the
// threads, SIGNER_STOP_LIMIT_MS at most. False: a thread hangs in somebody
// else's code; it touches no inbox any more, but what its job uses must stay.
bool signer_pool_stop(struct signer_pool *pool);

// signer_pool_free stops and frees, except what a thread that hangs still needs.
// NULL is allowed.
void signer_pool_free(struct signer_pool *pool);

#endif  // DEPUTY_KEYSERVER_SIGNER_POOL_H_
