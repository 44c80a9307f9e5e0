// SPDX-License-Identifier: Apache-2.0
// state_file: keeps the switches. A change goes into a draft, the draft into a
// file that is replaced atomically (on a thread beside the loop), and only then is
// it adopted, so that every worker sees it, and answered: what an operator was told
// is in force is in the file, whatever dies next. One change at a time, in the
// order asked. Everything here is for the loop's thread.
//
//   waiting --> writing --> adopted, answered
//                  |
//                  +-- the file cannot be written: refused; or, if forced, adopted
//                  |   in memory only (and written as soon as that works again)
//                  +-- the disk does not answer: the asker is told that the change
//                      comes into force when it does; or, if forced, adopted
#ifndef DEPUTY_PROXY_ADMIN_STATE_FILE_H_
#define DEPUTY_PROXY_ADMIN_STATE_FILE_H_

#include <stdbool.h>
#include <stdint.h>

#include "certstore/state.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/net/loop.h"

#define STATE_FILE_MAX_WAITING 64u      // edits; more are refused
#define STATE_FILE_WRITE_LIMIT_MS 5000  // a write that takes longer is stuck
#define STATE_FILE_RETRY_MS 10000       // after a write failed, if something is to be kept

struct state_file;

// One change as asked. Embedded in the asker, who keeps it until done has run.
struct state_edit {
  // make puts the change into the draft. Anything but STATUS_OK refuses it: nothing
  // is written, and done gets the status and the sentence.
  enum status (*make)(void *arg, struct states *draft, struct errmsg *err);
  // done is called once, from the loop, never from within state_file_edit.
  //   STATUS_OK           in force; `is_kept`: and in the file
  //   STATUS_SYSTEM ...   the file cannot be written; nothing has changed
  //   STATUS_TIMEOUT      the disk does not answer; comes into force when it does
  //   STATUS_UNAVAILABLE  the disk has not answered for a while; nothing has changed
  // else what `make` said.
  void (*done)(void *arg, enum status st, bool is_kept, const struct errmsg *err);
  void *arg;
  bool is_forced;           // in force even if it cannot be kept
  struct state_edit *next;  // private
};

// state_file_check reads the switches at `path` into `states` as state_file_open does, and makes
// nothing; no file is no switch. What state_file_open returns.
enum status state_file_check(struct states *states, const char *path, struct errmsg *err);

// state_file_open reads the switches at `path` into `states` (empty until then)
// and makes them visible; "" keeps them in memory only. A path where there is no
// file gets an empty one.
// Failures stop the start, with the sentence and the remedy:
//   STATUS_SYSTEM  it cannot be read, or not be made
//   STATUS_FORMAT  it is damaged, or of a later version
//   STATUS_LIMIT, STATUS_MEMORY
enum status state_file_open(struct state_file **out, struct loop *loop, struct states *states,
                            const char *path, struct errmsg *err);

// state_file_sweep removes what a killed writer left beside the file at `path`: before
// state_file_open, and not while another process may be writing it (handover.h).
void state_file_sweep(const char *path);

// state_file_set_limits replaces STATE_FILE_WRITE_LIMIT_MS and STATE_FILE_RETRY_MS,
// for tests.
void state_file_set_limits(struct state_file *file, int64_t write_limit_ms, int64_t retry_ms);

// state_file_close waits for the write under way. Edits that wait get no answer.
// When the loop has ended. NULL is allowed.
void state_file_close(struct state_file *file);

// state_file_edit asks for a change. STATUS_UNAVAILABLE: too many wait; done will
// not be called.
enum status state_file_edit(struct state_file *file, struct state_edit *edit);

// state_file_is_kept: is all that is in force in the file, as far as is known?
bool state_file_is_kept(const struct state_file *file);

// state_file_is_settled: is all that was asked in the file, or answered as refused? Then
// another process that reads the file knows what this one does.
bool state_file_is_settled(const struct state_file *file);

// state_file_write_metrics writes the families deputy_states_*.
void state_file_write_metrics(const struct state_file *file, struct metrics_text *text);

#endif  // DEPUTY_PROXY_ADMIN_STATE_FILE_H_
