// SPDX-License-Identifier: Apache-2.0
#include "certmanager/writer.h"

#include <stdlib.h>
#include <string.h>

#include "certmanager/audit.h"
#include "certstore/store_write.h"

struct waiting_staple {
  STAILQ_ENTRY(waiting_staple) link;
  uint64_t chain;
  int64_t this_update_s;
  int64_t next_update_s;
  int64_t fetched_s;
  int64_t old_next_update_s;  // of the one that it takes the place of; 0: none
  bool is_left;               // out of the transaction
  size_t len;
  uint8_t response[];
};

void writer_init(struct writer *writer, struct sink *audit, struct stats *stats) {
  *writer = (struct writer){.audit = audit, .stats = stats};
  STAILQ_INIT(&writer->waiting);
  STAILQ_INIT(&writer->batch);
}

enum status writer_add(struct writer *writer, uint64_t chain, const struct store_staple *staple) {
  struct waiting_staple *waiting = NULL;
  if (staple->response.len > STORE_STAPLE_MAX_LEN) {
    return STATUS_LIMIT;
  }
  waiting = malloc(sizeof(*waiting) + staple->response.len);
  if (waiting == NULL) {
    return STATUS_MEMORY;
  }
  *waiting = (struct waiting_staple){.chain = chain,
                                     .this_update_s = staple->this_update_s,
                                     .next_update_s = staple->next_update_s,
                                     .fetched_s = staple->fetched_s,
                                     .len = staple->response.len};
  memcpy(waiting->response, staple->response.data, staple->response.len);
  STAILQ_INSERT_TAIL(&writer->waiting, waiting, link);
  writer->num_waiting++;
  return STATUS_OK;
}

bool writer_is_full(const struct writer *writer) {
  return writer->num_waiting + writer->num_batch >= WRITER_MAX_WAITING;
}

bool writer_take(struct writer *writer) {
  if (writer->num_waiting == 0) {
    return false;
  }
  STAILQ_CONCAT(&writer->batch, &writer->waiting);
  writer->num_batch += writer->num_waiting;
  writer->num_waiting = 0;
  return true;
}

static void free_list(struct waiting_list *list) {
  struct waiting_staple *waiting = NULL;
  while ((waiting = STAILQ_FIRST(list)) != NULL) {
    STAILQ_REMOVE_HEAD(list, link);
    free(waiting);
  }
}

// check_batch leaves out what has no chain any more (a compaction dropped it; a chain
// vanishes in no other way, and a compaction ends our transaction with STATUS_CLOSED), and
// what an import has brought a newer one for: nothing older takes the place of a staple.
static enum status check_batch(struct writer *writer, struct store *store) {
  struct store_reader *reader = NULL;
  struct waiting_staple *waiting = NULL;
  enum status st = store_reader_new(&reader, store, &writer->err);
  if (st != STATUS_OK) {
    return st;
  }
  STAILQ_FOREACH (waiting, &writer->batch, link) {
    struct store_chain chain;
    struct store_staple old;
    waiting->is_left = store_get_chain(reader, &chain, waiting->chain) != STATUS_OK;
    waiting->old_next_update_s = 0;
    if (!waiting->is_left && store_get_staple(reader, &old, waiting->chain) == STATUS_OK) {
      waiting->is_left = old.this_update_s >= waiting->this_update_s;
      waiting->old_next_update_s = old.next_update_s;
    }
  }
  store_reader_free(reader);
  return STATUS_OK;
}

static enum status change(struct store_txn *txn, void *arg, struct errmsg *err) {
  const struct writer *writer = arg;
  const struct waiting_staple *waiting = NULL;
  enum status st = STATUS_OK;
  STAILQ_FOREACH (waiting, &writer->batch, link) {
    const struct store_staple staple = {.this_update_s = waiting->this_update_s,
                                        .next_update_s = waiting->next_update_s,
                                        .fetched_s = waiting->fetched_s,
                                        .response = bytes_of(waiting->response, waiting->len)};
    if (!waiting->is_left) {
      TRY(store_put_staple(txn, waiting->chain, &staple, err));
    }
  }

out:
  return st;
}

static void tell(const struct writer *writer, const struct waiting_staple *waiting,
                 const struct store_reader *reader) {
  struct jsonline line;
  struct store_chain chain;
  const bool has_chain =
      reader != NULL && store_get_chain(reader, &chain, waiting->chain) == STATUS_OK;
  audit_begin(&line, "staple", waiting->chain, has_chain ? &chain : NULL);
  jsonline_bool(&line, "is_first", waiting->old_next_update_s == 0);
  audit_time(&line, "this_update", waiting->this_update_s);
  audit_time(&line, "next_update", waiting->next_update_s);
  audit_time(&line, "old_next_update", waiting->old_next_update_s);
  audit_end(writer->audit, &line);
}

static void tell_all(const struct writer *writer, struct store *store) {
  struct store_reader *reader = NULL;
  const struct waiting_staple *waiting = NULL;
  if (store_reader_new(&reader, store, NULL) != STATUS_OK) {
    reader = NULL;
  }
  STAILQ_FOREACH (waiting, &writer->batch, link) {
    if (waiting->is_left) {
      counter_add(&writer->stats->num_staples_left, 1);
    } else {
      counter_add(&writer->stats->num_staples_kept, 1);
      tell(writer, waiting, reader);
    }
  }
  store_reader_free(reader);
}

void writer_write(struct writer *writer, struct store *store) {
  enum status st = STATUS_OK;
  writer->err = (struct errmsg){0};
  TRY(check_batch(writer, store));
  writer->from_version = store_chains_version(store);
  TRY(store_write(store, change, writer, &writer->err));
  writer->to_version = store_chains_version(store);
  tell_all(writer, store);

out:
  writer->st = st;
}

void writer_done(struct writer *writer) {
  if (writer->st == STATUS_OK) {
    free_list(&writer->batch);
  } else {
    STAILQ_CONCAT(&writer->batch, &writer->waiting);  // the older first
    STAILQ_CONCAT(&writer->waiting, &writer->batch);
    writer->num_waiting += writer->num_batch;
  }
  writer->num_batch = 0;
}

void writer_cleanup(struct writer *writer) {
  if (writer->stats == NULL) {
    return;  // never begun
  }
  free_list(&writer->batch);
  free_list(&writer->waiting);
  writer->num_batch = 0;
  writer->num_waiting = 0;
}
