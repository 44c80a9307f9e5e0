// SPDX-License-Identifier: Apache-2.0
#include "keyserver/signer_pool.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/join.h"
#include "common/base/log.h"
#include "common/base/thread_turn.h"

#define MS_PER_S 1000

struct flow {
  struct signer_job *first;
  struct signer_job *last;
  unsigned num;
};

struct lane {
  struct signer_lane_config config;
  pthread_t threads[SIGNER_MAX_THREADS];
  unsigned num_threads;
  pthread_mutex_t lock;  // guards what follows
  pthread_cond_t wake;
  struct flow flows[SIGNER_NUM_FLOWS];
  uint64_t waiting;  // bit n: flow n has a job
  unsigned turn;     // the flow whose turn is next
  unsigned num_queued;
  unsigned num_running;
  uint64_t num_done;
  uint64_t num_full;
  uint64_t num_cancelled;
  bool is_idle_taken;  // a thread is in on_idle
  bool is_ending;
  bool is_abandoned;  // nobody listens any more
};

struct signer_pool {
  struct lane *lanes[SIGNER_MAX_LANES];
  atomic_uint num_lanes;
  bool is_stopped;  // control thread
  bool is_stuck;
};

// --- inboxes -----------------------------------------------------------------------------

void signer_inbox_init(struct signer_inbox *inbox, struct loop *loop,
                       void (*fn)(void *arg, struct signer_job *job), void *arg) {
  *inbox = (struct signer_inbox){.loop = loop, .fn = fn, .arg = arg, .is_ready = true};
  (void)pthread_mutex_init(&inbox->lock, NULL);
}

static void on_inbox(void *arg) {
  struct signer_inbox *inbox = arg;
  struct signer_job *job = NULL;
  struct signer_job *next = NULL;

  (void)pthread_mutex_lock(&inbox->lock);
  job = inbox->first;
  inbox->first = NULL;
  inbox->last = NULL;
  inbox->is_posted = false;
  (void)pthread_mutex_unlock(&inbox->lock);
  for (; job != NULL; job = next) {
    next = job->next;
    job->next = NULL;
    inbox->fn(inbox->arg, job);
  }
}

void signer_inbox_put(struct signer_inbox *inbox, struct signer_job *job) {
  bool must_post = false;

  job->next = NULL;
  (void)pthread_mutex_lock(&inbox->lock);
  if (inbox->last != NULL) {
    inbox->last->next = job;
  } else {
    inbox->first = job;
  }
  inbox->last = job;
  must_post = !inbox->is_posted;
  inbox->is_posted = true;
  (void)pthread_mutex_unlock(&inbox->lock);
  if (must_post) {
    loop_post(inbox->loop, on_inbox, inbox);
  }
}

void signer_inbox_cleanup(struct signer_inbox *inbox) {
  struct signer_job *next = NULL;

  if (!inbox->is_ready) {
    return;
  }
  for (struct signer_job *job = inbox->first; job != NULL; job = next) {
    next = job->next;
    job->free(job);
  }
  (void)pthread_mutex_destroy(&inbox->lock);
  *inbox = (struct signer_inbox){0};
}

// --- queues: the lane is locked --------------------------------------------------------------

static void push(struct lane *lane, struct signer_job *job) {
  const unsigned at = job->flow % SIGNER_NUM_FLOWS;
  struct flow *flow = &lane->flows[at];

  job->next = NULL;
  if (flow->last != NULL) {
    flow->last->next = job;
  } else {
    flow->first = job;
  }
  flow->last = job;
  flow->num++;
  lane->num_queued++;
  lane->waiting |= UINT64_C(1) << at;
}

// unlink takes the job behind `before` (NULL: the first) out of its flow.
static struct signer_job *unlink_job(struct lane *lane, unsigned at, struct signer_job *before) {
  struct flow *flow = &lane->flows[at];
  struct signer_job *job = before == NULL ? flow->first : before->next;

  if (before == NULL) {
    flow->first = job->next;
  } else {
    before->next = job->next;
  }
  if (flow->last == job) {
    flow->last = before;
  }
  flow->num--;
  lane->num_queued--;
  if (flow->num == 0) {
    lane->waiting &= ~(UINT64_C(1) << at);
  }
  return job;
}

// pop takes one job of the next flow that has any.
static struct signer_job *pop(struct lane *lane) {
  uint64_t from_turn = 0;
  unsigned at = 0;

  if (lane->waiting == 0) {
    return NULL;
  }
  from_turn = lane->waiting & (UINT64_MAX << lane->turn);
  at = (unsigned)__builtin_ctzll(from_turn != 0 ? from_turn : lane->waiting);
  lane->turn = (at + 1) % SIGNER_NUM_FLOWS;
  return unlink_job(lane, at, NULL);
}

static struct signer_job *find_and_unlink(struct lane *lane, const struct signer_inbox *inbox,
                                          uint64_t id) {
  for (unsigned at = 0; at < SIGNER_NUM_FLOWS; at++) {
    struct signer_job *before = NULL;
    for (struct signer_job *job = lane->flows[at].first; job != NULL; job = job->next) {
      if (job->id == id && job->inbox == inbox) {
        return unlink_job(lane, at, before);
      }
      before = job;
    }
  }
  return NULL;
}

// --- threads -----------------------------------------------------------------------------

static void wait_for_job(struct lane *lane) {
  struct timespec due;

  if (lane->config.on_idle == NULL || lane->is_idle_taken) {
    (void)pthread_cond_wait(&lane->wake, &lane->lock);
    return;
  }
  (void)clock_gettime(CLOCK_MONOTONIC, &due);
  due.tv_sec += SIGNER_IDLE_MS / MS_PER_S;
  lane->is_idle_taken = true;
  if (pthread_cond_timedwait(&lane->wake, &lane->lock, &due) == ETIMEDOUT && lane->waiting == 0 &&
      !lane->is_ending) {
    (void)pthread_mutex_unlock(&lane->lock);
    lane->config.on_idle(lane->config.arg);
    (void)pthread_mutex_lock(&lane->lock);
  }
  lane->is_idle_taken = false;
}

static void run_job(struct lane *lane, struct signer_job *job) {
  lane->num_running++;
  (void)pthread_mutex_unlock(&lane->lock);
  job->work(job);
  (void)pthread_mutex_lock(&lane->lock);
  lane->num_running--;
  lane->num_done++;
  if (lane->is_abandoned) {
    job->free(job);
  } else {
    signer_inbox_put(job->inbox, job);
  }
}

static void *run_lane(void *arg) {
  struct lane *lane = arg;

  if (lane->config.nice != 0) {
    // What has a thread here must not take time from the workers while they have
    // something to do.
    thread_turn_yield(lane->config.nice);
  }
  (void)pthread_mutex_lock(&lane->lock);
  while (!lane->is_ending) {
    struct signer_job *job = pop(lane);
    if (job != NULL) {
      run_job(lane, job);
    } else {
      wait_for_job(lane);
    }
  }
  (void)pthread_mutex_unlock(&lane->lock);
  return NULL;
}

// start_thread: signals are the control thread's.
static enum status start_thread(struct lane *lane) {
  sigset_t all;
  sigset_t before;
  int error = 0;

  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&lane->threads[lane->num_threads], NULL, run_lane, lane);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    errno = error;
    return STATUS_SYSTEM;
  }
  lane->num_threads++;
  return STATUS_OK;
}

// --- lanes ---------------------------------------------------------------------------------

static struct lane *lane_new(const struct signer_lane_config *config) {
  struct lane *lane = calloc(1, sizeof *lane);
  pthread_condattr_t attr;

  if (lane == NULL) {
    return NULL;
  }
  lane->config = *config;
  (void)pthread_mutex_init(&lane->lock, NULL);
  (void)pthread_condattr_init(&attr);
  (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  (void)pthread_cond_init(&lane->wake, &attr);
  (void)pthread_condattr_destroy(&attr);
  return lane;
}

static void drop_queue(struct lane *lane) {
  struct signer_job *job = NULL;

  while ((job = pop(lane)) != NULL) {
    job->free(job);
  }
}

static void tell_end(struct lane *lane) {
  (void)pthread_mutex_lock(&lane->lock);
  lane->is_ending = true;
  drop_queue(lane);
  (void)pthread_cond_broadcast(&lane->wake);
  (void)pthread_mutex_unlock(&lane->lock);
}

// join_threads returns false when one is still busy at `due_ms`.
static bool join_threads(struct lane *lane, int64_t due_ms) {
  bool is_stuck = false;

  for (unsigned i = 0; i < lane->num_threads; i++) {
    if (!join_by(lane->threads[i], due_ms)) {
      (void)pthread_detach(lane->threads[i]);
      is_stuck = true;
    }
  }
  lane->num_threads = 0;
  if (is_stuck) {
    (void)pthread_mutex_lock(&lane->lock);
    lane->is_abandoned = true;
    (void)pthread_mutex_unlock(&lane->lock);
    log_error(0, "signer_stuck", "lane=%s: a thread does not come back from its job",
              lane->config.name);
  }
  return !is_stuck;
}

static void lane_free(struct lane *lane) {
  (void)pthread_cond_destroy(&lane->wake);
  (void)pthread_mutex_destroy(&lane->lock);
  free(lane);
}

// --- the pool --------------------------------------------------------------------------------

enum status signer_pool_new(struct signer_pool **out) {
  *out = calloc(1, sizeof **out);
  return *out == NULL ? STATUS_MEMORY : STATUS_OK;
}

enum status signer_pool_add_lane(struct signer_pool *pool, unsigned *out,
                                 const struct signer_lane_config *config) {
  const unsigned at = atomic_load(&pool->num_lanes);
  enum status st = STATUS_OK;
  struct lane *lane = NULL;

  if (at == SIGNER_MAX_LANES || config->num_threads > SIGNER_MAX_THREADS) {
    return STATUS_LIMIT;
  }
  lane = lane_new(config);
  if (lane == NULL) {
    return STATUS_MEMORY;
  }
  for (unsigned i = 0; i < config->num_threads && st == STATUS_OK; i++) {
    st = start_thread(lane);
  }
  // Fewer threads than wished for are still a lane.
  if (lane->num_threads == 0) {
    lane_free(lane);
    return st;
  }
  pool->lanes[at] = lane;
  atomic_store(&pool->num_lanes, at + 1);
  *out = at;
  return STATUS_OK;
}

enum status signer_pool_submit(struct signer_pool *pool, unsigned index, struct signer_job **job) {
  enum status st = STATUS_OK;
  struct lane *lane = NULL;

  if (index >= atomic_load(&pool->num_lanes)) {
    return STATUS_UNAVAILABLE;
  }
  lane = pool->lanes[index];
  (void)pthread_mutex_lock(&lane->lock);
  if (lane->is_ending) {
    st = STATUS_UNAVAILABLE;
  } else if (lane->num_queued >= lane->config.max_queued ||
             lane->flows[(*job)->flow % SIGNER_NUM_FLOWS].num >=
                 (lane->config.max_queued + 1) / 2) {
    lane->num_full++;
    st = STATUS_LIMIT;
  } else {
    push(lane, *job);
    *job = NULL;
    (void)pthread_cond_signal(&lane->wake);
  }
  (void)pthread_mutex_unlock(&lane->lock);
  return st;
}

bool signer_pool_cancel(struct signer_pool *pool, unsigned index, const struct signer_inbox *inbox,
                        uint64_t id) {
  struct lane *lane = NULL;
  struct signer_job *job = NULL;

  if (index >= atomic_load(&pool->num_lanes)) {
    return false;
  }
  lane = pool->lanes[index];
  (void)pthread_mutex_lock(&lane->lock);
  job = find_and_unlink(lane, inbox, id);
  if (job != NULL) {
    lane->num_cancelled++;
  }
  (void)pthread_mutex_unlock(&lane->lock);
  if (job == NULL) {
    return false;
  }
  job->free(job);
  return true;
}

unsigned signer_pool_num_lanes(const struct signer_pool *pool) {
  return pool == NULL ? 0 : atomic_load(&pool->num_lanes);
}

void signer_pool_stats(struct signer_lane_stats *out, struct signer_pool *pool, unsigned index) {
  struct lane *lane = NULL;

  CHECK(index < atomic_load(&pool->num_lanes));
  lane = pool->lanes[index];
  (void)pthread_mutex_lock(&lane->lock);
  *out = (struct signer_lane_stats){
      .name = lane->config.name,
      .num_queued = lane->num_queued,
      .num_running = lane->num_running,
      .num_done = lane->num_done,
      .num_full = lane->num_full,
      .num_cancelled = lane->num_cancelled,
  };
  (void)pthread_mutex_unlock(&lane->lock);
}

bool signer_pool_stop(struct signer_pool *pool) {
  const unsigned num = atomic_load(&pool->num_lanes);
  int64_t due_ms = 0;

  if (pool->is_stopped) {
    return !pool->is_stuck;
  }
  pool->is_stopped = true;
  for (unsigned i = 0; i < num; i++) {
    tell_end(pool->lanes[i]);
  }
  due_ms = clock_monotonic_ms() + SIGNER_STOP_LIMIT_MS;
  for (unsigned i = 0; i < num; i++) {
    if (!join_threads(pool->lanes[i], due_ms)) {
      pool->is_stuck = true;
    }
  }
  return !pool->is_stuck;
}

// What a thread that hangs still uses is left to it. Named, so that it is no leak.
static struct signer_pool *volatile left_behind;

void signer_pool_free(struct signer_pool *pool) {
  if (pool == NULL) {
    return;
  }
  if (!signer_pool_stop(pool)) {
    left_behind = pool;
    return;
  }
  for (unsigned i = 0; i < atomic_load(&pool->num_lanes); i++) {
    lane_free(pool->lanes[i]);
  }
  free(pool);
}
