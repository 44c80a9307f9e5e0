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

// sink_open starts a sink that appends to the file `path` (mode 0600), or to
// standard error for "stderr". STATUS_SYSTEM with the reason in err.
enum status sink_open(struct sink **out, const char *path, size_t ring_len, struct errmsg *err);

// sink_write queues one line; the newline is added. Never blocks; a line is in
// the kernel a few milliseconds later. Threads: any.
//   STATUS_LIMIT        the line is too long
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

// sink_close flushes (bounded), stops the thread and frees. NULL is allowed.
void sink_close(struct sink *sink);

#endif  // DEPUTY_COMMON_BASE_SINK_H_
