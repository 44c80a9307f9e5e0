// SPDX-License-Identifier: Apache-2.0
// batch: the requests in work. Each holds up to 1,000 entries, which are
// independent: judged a few at a time, in turns with the other batches, signed
// concurrently up to a bound, answered in order. A batch ends when each of its
// entries has, at the latest at its deadline; then the reply leaves.
//
//  entry:  waiting --> judged --> at the key server --> done
//              \-----------\--------------\--> refused, with a reason
#ifndef DEPUTY_DCISSUER_BATCH_H_
#define DEPUTY_DCISSUER_BATCH_H_

#include <sys/queue.h>

#include "common/base/sink.h"
#include "common/http/http_server.h"
#include "common/keyclient/keyclient.h"
#include "common/net/loop.h"
#include "dcissuer/cert_store.h"
#include "dcissuer/snapshot.h"
#include "dcissuer/stats.h"

#define BATCH_ENTRIES_PER_TURN 4u  // judged before another batch gets its turn: about 0.5 ms

struct batches;

// The connections to the key servers, shared by the batches that use them: after
// a reload the old ones live as long as somebody waits for them.
struct signer {
  LIST_ENTRY(signer) link;
  size_t num_refs;
  struct batches *batches;
  struct keyclient *keyclient;
};

// batches_new makes the place where batches are worked on. All arguments are
// borrowed for its life.
enum status batches_new(struct batches **out, struct loop *loop, struct cert_cache *cache,
                        struct sink *audit, struct stats *stats);
// batches_free ends those that are still there without a reply.
void batches_free(struct batches *batches);
size_t batches_num(const struct batches *batches);
size_t batches_num_signatures(const struct batches *batches);

// signer_new opens connections. What keyclient_new returns.
enum status signer_new(struct signer **out, struct batches *batches,
                       const struct keyclient_config *config, struct errmsg *err);
// signer_unref: the last one is freed a little later, since it may be a callback
// of the keyclient itself that lets go of it; at the latest by batches_free.
void signer_unref(struct signer *signer);  // NULL allowed

// batches_start takes a request over: it will be answered.
void batches_start(struct batches *batches, struct http_request *request, struct snapshot *snapshot,
                   struct signer *signer);

#endif  // DEPUTY_DCISSUER_BATCH_H_
