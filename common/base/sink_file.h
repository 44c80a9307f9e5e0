// SPDX-License-Identifier: Apache-2.0
// sink_file: the file that a sink writes, as its thread sees it: what is to be
// written next, half-written lines, rotation, and the chain (chain.h). Private to
// the sink; all calls are its thread's, after sink_file_init.
//
// Lines come out of the ring into `raw` and leave as a batch: the very bytes, or
// sealed copies. What a batch could not write is taken back (the file is cut after
// its last whole line) and made anew for the next attempt, which may go to another
// file; so no half line stays behind, and the chain in a file has no gap.
#ifndef DEPUTY_COMMON_BASE_SINK_FILE_H_
#define DEPUTY_COMMON_BASE_SINK_FILE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/chain.h"
#include "common/base/errmsg.h"
#include "common/base/jsonline.h"
#include "common/base/sink.h"
#include "common/base/sink_ring.h"
#include "common/base/status.h"

// Lines of our own that a chain gets, in the order in which they are written. Bits.
enum sink_mark {
  SINK_MARK_START = 1 << 0,   // a new chain
  SINK_MARK_RESUME = 1 << 1,  // after a restart, in the same file
  SINK_MARK_FILE = 1 << 2,    // the first line of a new file
  SINK_MARK_LOST = 1 << 3,    // lines were lost
};

struct sink_file {
  char *path;  // NULL: standard error
  uint64_t rotate_len;
  int64_t rotate_age_ms;
  unsigned num_keep;
  bool is_chained;
  int fd;
  bool is_regular;
  uint64_t len;        // of a regular file
  int64_t born_us;     // wall clock
  bool has_lines;      // others than marks
  int64_t retry_ms;    // no rotation before
  bool needs_newline;  // the file ends within a line
  // Taken from the ring, from `at` on not written.
  uint8_t *raw;
  size_t raw_len;
  size_t raw_at;
  // The batch under way: `batch_len` 0: none.
  const uint8_t *batch;
  size_t batch_len;
  size_t batch_done;
  size_t batch_raw_end;    // where it ends in `raw`
  unsigned batch_marks;    // with which it begins
  uint64_t batch_lost;     // that its mark counts
  struct chain batch_end;  // the chain at its end
  // The chain.
  uint8_t *sealed;
  struct chain chain;  // as it is in the file
  unsigned marks;      // still to be written
  uint64_t num_lost;   // that marks have told of
  size_t torn_len;     // of a line that a crash cut off
  uint8_t torn_sha256[32];
  struct jsonline line;
  // Counted for the owner.
  uint64_t num_rotations;
  uint64_t num_rotate_failures;
};

// sink_file_init opens the file. STATUS_SYSTEM, STATUS_MEMORY, with the sentence;
// then *file is clean.
enum status sink_file_init(struct sink_file *file, const struct sink_options *options,
                           struct errmsg *err);
void sink_file_cleanup(struct sink_file *file);

// sink_file_fill prepares a batch, unless one is under way, of the lines of `ring`
// and what else is due; false: there is nothing to write.
bool sink_file_fill(struct sink_file *file, struct sink_ring *ring, uint64_t num_lost);

enum sink_written {
  SINK_WRITTEN_ALL,
  SINK_WRITTEN_FULL,    // a pipe takes no more at present
  SINK_WRITTEN_FAILED,  // the rest has been taken back
};
// sink_file_write writes what the batch still holds.
enum sink_written sink_file_write(struct sink_file *file);

// sink_file_is_empty: nothing is under way, and all that was taken from the ring is written.
bool sink_file_is_empty(const struct sink_file *file);

// sink_file_reopen opens the path again; if that fails the old file stays.
void sink_file_reopen(struct sink_file *file);

// sink_file_rotate_if_due. On failure the old file is written on, and a line on
// standard error says why.
void sink_file_rotate_if_due(struct sink_file *file);

// sink_file_age_left_ms: until age calls for a rotation; -1: never.
int64_t sink_file_age_left_ms(const struct sink_file *file);

#endif  // DEPUTY_COMMON_BASE_SINK_FILE_H_
