// SPDX-License-Identifier: Apache-2.0
#include "common/net/job.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/join.h"

struct queue {
  struct job *first;
  struct job *last;
};

struct jobs {
  struct loop *loop;
  pthread_t thread;
  pthread_mutex_t lock;  // guards what follows
  pthread_cond_t wake;
  struct queue waiting;
  struct queue finished;
  bool is_ending;
  bool is_posted;  // a collect is on its way to the loop
};

static void queue_push(struct queue *queue, struct job *job) {
  job->next = NULL;
  if (queue->last != NULL) {
    queue->last->next = job;
  } else {
    queue->first = job;
  }
  queue->last = job;
}

static struct job *queue_pop(struct queue *queue) {
  struct job *job = queue->first;
  if (job != NULL) {
    queue->first = job->next;
    if (queue->first == NULL) {
      queue->last = NULL;
    }
  }
  return job;
}

static void collect(void *arg) {
  struct jobs *jobs = arg;
  (void)pthread_mutex_lock(&jobs->lock);
  struct queue finished = jobs->finished;
  jobs->finished = (struct queue){0};
  jobs->is_posted = false;
  (void)pthread_mutex_unlock(&jobs->lock);
  for (struct job *job = queue_pop(&finished); job != NULL; job = queue_pop(&finished)) {
    job->done(job->arg);  // may free the job, or start it again
  }
}

static void *run(void *arg) {
  struct jobs *jobs = arg;
  (void)pthread_mutex_lock(&jobs->lock);
  for (;;) {
    struct job *job = queue_pop(&jobs->waiting);
    if (job == NULL && jobs->is_ending) {
      break;
    }
    if (job == NULL) {
      (void)pthread_cond_wait(&jobs->wake, &jobs->lock);
      continue;
    }
    (void)pthread_mutex_unlock(&jobs->lock);
    job->work(job->arg);
    (void)pthread_mutex_lock(&jobs->lock);
    queue_push(&jobs->finished, job);
    if (!jobs->is_posted && !jobs->is_ending) {
      jobs->is_posted = true;
      loop_post(jobs->loop, collect, jobs);
    }
  }
  (void)pthread_mutex_unlock(&jobs->lock);
  return NULL;
}

enum status jobs_new(struct jobs **out, struct loop *loop) {
  struct jobs *jobs = calloc(1, sizeof(*jobs));
  sigset_t all;
  sigset_t before;

  *out = NULL;
  if (jobs == NULL) {
    return STATUS_MEMORY;
  }
  jobs->loop = loop;
  (void)pthread_mutex_init(&jobs->lock, NULL);
  (void)pthread_cond_init(&jobs->wake, NULL);
  // Signals are the loop's: a thread inherits the mask it is started under.
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&jobs->thread, NULL, run, jobs);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed != 0) {
    (void)pthread_cond_destroy(&jobs->wake);
    (void)pthread_mutex_destroy(&jobs->lock);
    free(jobs);
    errno = failed;
    return STATUS_SYSTEM;
  }
  *out = jobs;
  return STATUS_OK;
}

void jobs_start(struct jobs *jobs, struct job *job) {
  (void)pthread_mutex_lock(&jobs->lock);
  CHECK(!jobs->is_ending);
  queue_push(&jobs->waiting, job);
  (void)pthread_cond_signal(&jobs->wake);
  (void)pthread_mutex_unlock(&jobs->lock);
}

static void ask_to_end(struct jobs *jobs) {
  (void)pthread_mutex_lock(&jobs->lock);
  jobs->is_ending = true;
  (void)pthread_cond_signal(&jobs->wake);
  (void)pthread_mutex_unlock(&jobs->lock);
}

// The thread has ended.
static void free_jobs(struct jobs *jobs) {
  (void)pthread_cond_destroy(&jobs->wake);
  (void)pthread_mutex_destroy(&jobs->lock);
  free(jobs);
}

void jobs_free(struct jobs *jobs) {
  if (jobs != NULL) {
    ask_to_end(jobs);
    (void)pthread_join(jobs->thread, NULL);
    free_jobs(jobs);
  }
}

bool jobs_end(struct jobs *jobs, int64_t limit_ms) {
  if (jobs == NULL) {
    return true;
  }
  ask_to_end(jobs);
  if (!join_by(jobs->thread, clock_monotonic_ms() + limit_ms)) {
    return false;
  }
  free_jobs(jobs);
  return true;
}
