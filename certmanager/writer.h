// SPDX-License-Identifier: Apache-2.0
// writer: staples on their way into the store. They come one at a time on the loop, and
// are written many in one transaction, off it. What could not be written stays, and is
// written with the next. An audit line follows each that is on the disk.
//
//   loop: writer_add ... writer_take -> job: writer_write -> loop: writer_done
#ifndef DEPUTY_CERTMANAGER_WRITER_H_
#define DEPUTY_CERTMANAGER_WRITER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "certmanager/stats.h"
#include "certstore/store.h"
#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/sink.h"

#define WRITER_MAX_WAITING 4096u  // staples; beyond, chains are not asked about for the moment

struct waiting_staple;
STAILQ_HEAD(waiting_list, waiting_staple);

struct writer {
  struct sink *audit;
  struct stats *stats;
  struct waiting_list waiting;
  size_t num_waiting;
  // The job's, from take to done.
  struct waiting_list batch;
  size_t num_batch;
  uint64_t from_version;  // of the store, before and after the write
  uint64_t to_version;
  enum status st;
  struct errmsg err;
};

void writer_init(struct writer *writer, struct sink *audit, struct stats *stats);
// writer_add copies. STATUS_MEMORY, STATUS_LIMIT (a response that no store takes).
enum status writer_add(struct writer *writer, uint64_t chain, const struct store_staple *staple);
bool writer_is_full(const struct writer *writer);
// writer_take hands what waits to the job; false: nothing does.
bool writer_take(struct writer *writer);
// writer_write keeps the batch: all of it or, with writer->st, nothing.
void writer_write(struct writer *writer, struct store *store);
// writer_done puts back what was not written.
void writer_done(struct writer *writer);
void writer_cleanup(struct writer *writer);

#endif  // DEPUTY_CERTMANAGER_WRITER_H_
