// SPDX-License-Identifier: Apache-2.0
#include "keyserver/slow.h"

#include <stdlib.h>
#include <string.h>

#include "keyserver/generate.h"
#include "keyserver/token.h"

// One signature on its way through the pool. It borrows nothing but from its
// snapshot.
struct sign_task {
  struct slow_task task;  // first
  struct snapshot *snapshot;
  struct sign_job sign;
  uint8_t digest[];
};

static void free_task(struct signer_job *job) {
  struct sign_task *task = (struct sign_task *)(void *)job;
  snapshot_unref(task->snapshot);
  free(task);
}

static void sign_task_work(struct signer_job *job) {
  struct sign_task *task = (struct sign_task *)(void *)job;
  task->task.refusal = request_sign(&task->sign, task->task.payload, &task->task.len);
}

static struct sign_task *sign_task_new(const struct slow_request *slow, struct signer_inbox *inbox,
                                       unsigned flow) {
  const struct bytes digest = slow->req.job.digest;
  struct sign_task *task = calloc(1, sizeof *task + digest.len);

  if (task == NULL) {
    return NULL;
  }
  task->task.job = (struct signer_job){
      .id = slow->id, .flow = flow, .inbox = inbox, .work = sign_task_work, .free = free_task};
  task->snapshot = snapshot_ref(slow->snapshot);
  task->sign = slow->req.job;
  if (digest.len > 0) {
    memcpy(task->digest, digest.data, digest.len);
  }
  task->sign.digest = bytes_of(task->digest, digest.len);
  return task;
}

// job_new makes what the pool is to do for a request. NULL: no memory.
static struct signer_job *job_new(struct slow_table *table, const struct slow_request *slow,
                                  unsigned flow) {
  if (slow->req.purpose == PURPOSE_GENERATE) {
    struct generate_task *task =
        generate_task_new(slow->id, flow, &slow->req, slow->snapshot, table->made, &table->inbox);
    return task == NULL ? NULL : &task->task.job;
  }
  struct sign_task *task = sign_task_new(slow, &table->inbox, flow);
  return task == NULL ? NULL : &task->task.job;
}

static unsigned lane_of(const struct slow_table *table, const struct request *req) {
  if (req->purpose == PURPOSE_GENERATE) {
    return table->generate_lane;
  }
  return req->key->token != NULL ? token_key_lane(req->key->token) : table->rsa_lane;
}

// --- the lists -----------------------------------------------------------------------------

static struct slow_request **bucket_of(struct slow_table *table, uint64_t id) {
  return &table->buckets[id & (SLOW_NUM_BUCKETS - 1)];
}

static void add(struct slow_table *table, struct slow_request *slow) {
  struct slow_request **bucket = bucket_of(table, slow->id);
  struct slow_owner *owner = slow->owner;

  slow->next_in_bucket = *bucket;
  *bucket = slow;
  slow->next_of_owner = owner->first;
  if (owner->first != NULL) {
    owner->first->prev_of_owner = slow;
  }
  owner->first = slow;
  owner->num++;
  slow->older = table->newest;
  if (table->newest != NULL) {
    table->newest->newer = slow;
  } else {
    table->oldest = slow;
  }
  table->newest = slow;
  table->num++;
}

static void remove_by_age(struct slow_table *table, const struct slow_request *slow) {
  if (slow->older != NULL) {
    slow->older->newer = slow->newer;
  } else {
    table->oldest = slow->newer;
  }
  if (slow->newer != NULL) {
    slow->newer->older = slow->older;
  } else {
    table->newest = slow->older;
  }
}

static void take_out(struct slow_table *table, struct slow_request *slow) {
  struct slow_request **at = bucket_of(table, slow->id);

  while (*at != slow) {
    at = &(*at)->next_in_bucket;
  }
  *at = slow->next_in_bucket;
  if (slow->prev_of_owner != NULL) {
    slow->prev_of_owner->next_of_owner = slow->next_of_owner;
  } else {
    slow->owner->first = slow->next_of_owner;
  }
  if (slow->next_of_owner != NULL) {
    slow->next_of_owner->prev_of_owner = slow->prev_of_owner;
  }
  slow->owner->num--;
  remove_by_age(table, slow);
  table->num--;
}

static struct slow_request *find(struct slow_table *table, uint64_t id) {
  struct slow_request *slow = *bucket_of(table, id);

  while (slow != NULL && slow->id != id) {
    slow = slow->next_in_bucket;
  }
  return slow;
}

static void slow_free(struct slow_request *slow) {
  if (slow != NULL) {
    snapshot_unref(slow->snapshot);
    free(slow);
  }
}

// --- calls ---------------------------------------------------------------------------------

static struct slow_request *slow_new(struct slow_table *table, struct slow_owner *owner,
                                     struct snapshot *snapshot, const struct request *req,
                                     struct bytes body) {
  struct slow_request *slow = calloc(1, sizeof *slow + body.len);

  if (slow == NULL) {
    return NULL;
  }
  slow->id = ++table->last_id;
  slow->owner = owner;
  slow->snapshot = snapshot_ref(snapshot);
  memcpy(slow->body, body.data, body.len);
  request_move(&slow->req, req, body, slow->body);
  return slow;
}

enum status slow_start(struct slow_table *table, struct slow_owner *owner, unsigned flow,
                       struct snapshot *snapshot, const struct request *req, struct bytes body,
                       int64_t wall_us, int64_t due_ms) {
  enum status st = STATUS_OK;
  struct slow_request *slow = slow_new(table, owner, snapshot, req, body);
  struct signer_job *job = NULL;

  if (slow == NULL) {
    return STATUS_MEMORY;
  }
  slow->wall_us = wall_us;
  slow->due_ms = due_ms;
  slow->lane = lane_of(table, req);
  job = job_new(table, slow, flow);
  if (job == NULL) {
    slow_free(slow);
    return STATUS_MEMORY;
  }
  st = signer_pool_submit(table->pool, slow->lane, &job);
  if (st != STATUS_OK) {
    job->free(job);
    slow_free(slow);
    return st;
  }
  add(table, slow);
  return STATUS_OK;
}

// finish tells how it ended. The owner may be gone afterwards.
static void finish(struct slow_table *table, struct slow_request *slow,
                   const struct slow_result *result) {
  take_out(table, slow);
  table->events->on_done(table->arg, slow, result);
  slow_free(slow);
}

static void on_job(void *arg, struct signer_job *job) {
  struct slow_table *table = arg;
  const struct slow_task *task = (struct slow_task *)(void *)job;
  struct slow_request *slow = find(table, job->id);

  if (slow == NULL) {
    table->num_late++;
  } else {
    const struct slow_result result = {task->refusal, bytes_of(task->payload, task->len)};
    finish(table, slow, &result);
  }
  job->free(job);
}

void slow_drop_owner(struct slow_table *table, struct slow_owner *owner) {
  struct slow_request *next = NULL;

  for (struct slow_request *slow = owner->first; slow != NULL; slow = next) {
    next = slow->next_of_owner;
    (void)signer_pool_cancel(table->pool, slow->lane, &table->inbox, slow->id);
    take_out(table, slow);
    table->events->on_gone(table->arg, slow);
    slow_free(slow);
  }
}

void slow_expire(struct slow_table *table, int64_t now_ms) {
  struct slow_request *next = NULL;

  for (struct slow_request *slow = table->oldest; slow != NULL; slow = next) {
    const struct slow_result result = {.refusal = REFUSAL_SIGN_TIMEOUT};
    next = slow->newer;
    if (slow->due_ms > now_ms) {
      continue;
    }
    (void)signer_pool_cancel(table->pool, slow->lane, &table->inbox, slow->id);
    finish(table, slow, &result);
  }
}

void slow_init(struct slow_table *table, struct loop *loop, const struct slow_events *events,
               void *arg) {
  *table = (struct slow_table){.events = events, .arg = arg};
  signer_inbox_init(&table->inbox, loop, on_job, table);
}

void slow_cleanup(struct slow_table *table) {
  CHECK(table->num == 0);
  signer_inbox_cleanup(&table->inbox);
}
