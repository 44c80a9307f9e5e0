// SPDX-License-Identifier: Apache-2.0
// sink: where finished lines go (log and audit). A writer never waits for a
// disk or a pipe: lines go into a bounded ring and a thread of the sink's own
// writes them, many in one system call. Several threads may write at once.
#ifndef DEPUTY_COMMON_BASE_SINK_H_
#define DEPUTY_COMMON_BASE_SINK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define SINK_LINE_MAX_LEN 4096            // longer lines are refused (STATUS_LIMIT)
#define SINK_DEFAULT_RING_LEN (1u << 20)  // bytes that may wait

struct sink;
struct chain;  // chain.h; certstore has a struct of this name too

// What a sink can be told at its start. All-zero but the path is a plain one.
struct sink_options {
  const char *path;       // "stderr": standard error
  size_t ring_len;        // bytes that may wait for the disk
  bool is_chained;        // seal lines (chain.h), which are JSON objects then
  uint64_t rotate_len;    // a file of so many bytes becomes PATH.1, PATH.1 becomes PATH.2,
                          // and so on; 0: never
  int64_t rotate_age_ms;  // the same for a file of this age; 0: never
  unsigned num_keep;      // old files, at least 1; what is older is removed
};

// sink_open starts a sink that appends to the file `path` (mode 0600), or to
// standard error for "stderr". STATUS_SYSTEM with the reason in err. A line that
// a crash cut off at the file's end is ended by a newline, and stays.
enum status sink_open(struct sink **out, const char *path, size_t ring_len, struct errmsg *err);
enum status sink_open_with(struct sink **out, const struct sink_options *options,
                           struct errmsg *err);

// sink_write queues one line; the newline is added. Never blocks; a line is in
// the kernel a few milliseconds later. Threads: any.
//   STATUS_LIMIT        the line is too long
//   STATUS_FORMAT       the sink seals lines, and this is no JSON object
//   STATUS_UNAVAILABLE  the ring is full, or the file cannot be written and
//                       the sink is failing; the line is lost and counted
enum status sink_write(struct sink *sink, struct bytes line);

// sink_reopen asks the writer to close and open the path again (log rotation).
void sink_reopen(struct sink *sink);

// sink_flush waits until what was written before the call is in the kernel, at
// most `limit_ms`. Not for event loops; for the end of a program and tests.
enum status sink_flush(struct sink *sink, int64_t limit_ms);

// sink_num_lost counts lines that were not kept since the start.
uint64_t sink_num_lost(const struct sink *sink);

// sink_is_failing says whether the last attempt to write failed.
bool sink_is_failing(const struct sink *sink);

// sink_head reads how far the chain in the file has come; all-zero without one.
// Threads: any, but a mutex is taken.
void sink_head(struct sink *sink, struct chain *out);

// sink_num_rotations counts those that were done, or have failed.
uint64_t sink_num_rotations(const struct sink *sink, bool have_failed);

// sink_close flushes (bounded), stops the thread and frees. NULL is allowed.
void sink_close(struct sink *sink);
// sink_close_at also tells how far the chain has come; all-zero if that is unknown.
void sink_close_at(struct sink *sink, struct chain *out_head);

#endif  // DEPUTY_COMMON_BASE_SINK_H_
