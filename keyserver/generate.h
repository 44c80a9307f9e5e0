// SPDX-License-Identifier: Apache-2.0
// generate: makes a private key on request, off the event loops, and stores it
// before anybody hears of it. slow.c submits the task for a request that
// request_judge has let through; a signer thread makes key and file; the control
// thread puts the key in force (server_change.c) and sends the task on to the worker that
// asked, which answers.
//
//   worker --submit--> signer thread --> control thread --> worker: reply
//
// One thread makes keys, so no two tasks race for a label.
#ifndef DEPUTY_KEYSERVER_GENERATE_H_
#define DEPUTY_KEYSERVER_GENERATE_H_

#include <stdint.h>

#include "common/base/status.h"
#include "common/wire/keygen.h"
#include "keyserver/keystore.h"
#include "keyserver/request.h"
#include "keyserver/signer_pool.h"
#include "keyserver/slow.h"
#include "keyserver/snapshot.h"

#define GENERATE_MAX_QUEUED 32u

struct generate_task {
  struct slow_task task;  // first; its inbox is the control thread's
  struct signer_inbox *reply_to;
  struct snapshot *snapshot;
  enum keygen_kind kind;
  char label[KEYGEN_MAX_LABEL_LEN + 1];
  struct key *key;      // made; NULL: not, or already in force
  uint64_t generation;  // of the snapshot that has it
};

// generate_task_new prepares a task: what is made is handed to `made`, and comes
// to `reply_to` from there. NULL: no memory.
struct generate_task *generate_task_new(uint64_t id, unsigned flow, const struct request *req,
                                        struct snapshot *snapshot, struct signer_inbox *made,
                                        struct signer_inbox *reply_to);

// generate_judge says whether a key of this label has room and a place: all that is
// asked before it is made, but for the rate.
enum refusal generate_judge(const struct snapshot *snapshot, const char *label);

struct generate_task *generate_task_of(struct signer_job *job);

#endif  // DEPUTY_KEYSERVER_GENERATE_H_
