// SPDX-License-Identifier: Apache-2.0
// dc_fetch: batches of delegated credentials, from an issuer and back. Keys, proofs, JSON
// and the checks of what comes (all that a client would check, and more) are the work of
// a thread of their own, so that the control loop only starts a call and gets results.
//
//   dc_fetch_new_batch, dc_batch_add ..., dc_batch_send
//        thread: keys and request --> loop: POST --> thread: answer and checks --> done
//
// Threads: control's loop. A batch that was sent is dc_fetch's until `done` has returned.
#ifndef DEPUTY_PROXY_DC_DC_FETCH_H_
#define DEPUTY_PROXY_DC_DC_FETCH_H_

#include <stdbool.h>

#include "certstore/chain.h"
#include "common/http/http_client.h"
#include "common/net/job.h"
#include "common/net/loop.h"
#include "common/tls/dc_check.h"
#include "proxy/config/options.h"

enum dc_result {
  DC_RESULT_OK,
  DC_RESULT_NO_CONNECTION,
  DC_RESULT_HTTP_STATUS,
  DC_RESULT_BAD_ANSWER,
  DC_RESULT_REFUSED,
  DC_RESULT_BAD_CREDENTIAL,
  DC_RESULT_NUM,
};
const char *dc_result_name(enum dc_result result);

struct dc_item {
  void *owner;
  uint8_t *leaf;  // a copy: the site, and its pool, may go first
  size_t leaf_len;
  struct cert_info info;  // without its names
  int64_t lifetime_s;
  EVP_PKEY *key;
  // The outcome; `why` and `details` say more of a failure, for logs.
  enum dc_result result;
  enum dc_fault fault;
  bool is_firm;  // the same question would be refused again
  const char *why;
  char *details;  // escaped; may be NULL
  uint8_t *dc;    // may be taken: set it to NULL
  size_t dc_len;
  int64_t ends_s;
};

struct dc_fetch;

struct dc_batch {
  struct dc_fetch *fetch;
  uint64_t generation;  // the caller's
  unsigned issuer;      // among the options'
  bool is_failed;       // as a whole: nothing came of it that is about one leaf
  size_t num, room;
  // Private.
  struct dc_batch *next;
  struct job job;
  struct tls_identity identity;  // copies
  char *url;
  int64_t timeout_ms;
  int64_t margin_s;
  int64_t max_life_s;
  char *body;
  uint8_t *answer;
  size_t answer_len;
  bool is_prepared;
  struct dc_item items[];
};

// dc_fetch_new: `done` hears of each batch that was sent. STATUS_MEMORY, STATUS_SYSTEM,
// STATUS_UNAVAILABLE.
enum status dc_fetch_new(struct dc_fetch **out, struct loop *loop,
                         void (*done)(void *arg, struct dc_batch *batch), void *arg);
// dc_fetch_free: no batch is heard of any more; `drop` is called for each that was sent.
void dc_fetch_free(struct dc_fetch *fetch, void (*drop)(struct dc_batch *batch));

// dc_fetch_new_batch: for `room` entries to that issuer. NULL: no memory.
struct dc_batch *dc_fetch_new_batch(struct dc_fetch *fetch, const struct options *options,
                                    unsigned issuer, size_t room);
// dc_batch_add: `key` (taken) or NULL: one of its own. STATUS_MEMORY: it was not added.
enum status dc_batch_add(struct dc_batch *batch, void *owner, const struct chain *chain,
                         EVP_PKEY *key, int64_t lifetime_s);
void dc_batch_send(struct dc_batch *batch);

#endif  // DEPUTY_PROXY_DC_DC_FETCH_H_
