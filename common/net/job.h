// SPDX-License-Identifier: Apache-2.0
// job: work that may block (a file that is written and synced), off the loop: one
// thread runs work(arg), one job after the other in the order they were started;
// then done(arg) runs on the loop.
#ifndef DEPUTY_COMMON_NET_JOB_H_
#define DEPUTY_COMMON_NET_JOB_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"

struct jobs;

// Embedded in the owner, who keeps it until done has run or jobs_free has
// returned. From jobs_start on, what `arg` points to is the thread's until done.
struct job {
  void (*work)(void *arg);  // on the thread; may block
  void (*done)(void *arg);  // on the loop
  void *arg;
  struct job *next;  // private
};

// jobs_new starts the thread. STATUS_MEMORY, STATUS_SYSTEM.
enum status jobs_new(struct jobs **out, struct loop *loop);

// jobs_start hands the job over. The loop's thread only.
void jobs_start(struct jobs *jobs, struct job *job);

// jobs_free waits for the jobs that were started, the waiting ones included: what
// was to be written is written. No done runs any more, not even for those whose
// work had ended; their owners clean up by themselves. Only when the loop has ended
// for good (or never ran). NULL is allowed.
void jobs_free(struct jobs *jobs);

// jobs_end is jobs_free with an end to its patience. False: a job still runs after
// `limit_ms`. Then nothing is freed, and `jobs`, that job and all it points to must
// stay as they are until the process ends.
bool jobs_end(struct jobs *jobs, int64_t limit_ms);

#endif  // DEPUTY_COMMON_NET_JOB_H_
