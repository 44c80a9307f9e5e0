// SPDX-License-Identifier: Apache-2.0
// dispatch: one packet in, exactly one reply out. Decodes it, has it judged
// (request.c), signed (sign.c), audited (audit.c) and counted, and encodes what
// came of it. Called by peer.c for each whole packet; writes into the
// connection's output buffer, so that the replies of one round leave together.
// What would take long goes to the signer threads (slow.h), and is audited,
// counted and encoded when it comes back.
#ifndef DEPUTY_KEYSERVER_DISPATCH_H_
#define DEPUTY_KEYSERVER_DISPATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/jsonline.h"
#include "common/base/sink.h"
#include "common/wire/frame.h"
#include "keyserver/audit.h"
#include "keyserver/request.h"
#include "keyserver/slow.h"
#include "keyserver/stats.h"

// Room for the reply to a packet with a body of this length: a pong repeats the
// payload, everything else fits in a padded packet and a little more.
#define DISPATCH_REPLY_LEN(body_len) (FRAME_PAD_TO_LEN + SIGN_MAX_LEN + (body_len))

// One for each worker.
struct dispatcher {
  struct stats *stats;
  struct sink *audit;
  bool must_audit;            // no signature leaves without its line
  struct slow_table *slow;    // NULL: everything is signed at once
  struct snapshot *snapshot;  // borrowed; that askers' keys are of
  int64_t sign_limit_ms;      // how long a slow signature may take
  struct jsonline line;       // scratch
};

// What a packet cost, in units of a P-256 signature, for sharing time.
struct dispatched {
  size_t reply_len;  // 0: the reply comes by slow_events
  unsigned cost;
};

// dispatch_judge is what decides about a decoded request, ping excepted: what
// request_judge says, and what this server does not do.
enum refusal dispatch_judge(const struct snapshot *snapshot, struct request *req,
                            struct asker *asker, int64_t wall_us);

// dispatch_packet answers the packet of `header` and `body` into `out`, which
// holds `max` >= DISPATCH_REPLY_LEN(body.len) bytes. There is always a reply;
// `owner` NULL: at once.
struct dispatched dispatch_packet(struct dispatcher *d, struct asker *asker,
                                  struct slow_owner *owner, const struct audit_subject *subject,
                                  const struct frame_header *header, struct bytes body,
                                  uint8_t *out, size_t max);

// dispatch_slow writes the reply of a slow request, of at most SLOW_REPLY_LEN
// bytes; dispatch_gone records one that nobody waits for any more.
size_t dispatch_slow(struct dispatcher *d, const struct audit_subject *subject,
                     const struct slow_request *slow, const struct slow_result *result,
                     uint8_t *out, size_t max);
void dispatch_gone(struct dispatcher *d, const struct audit_subject *subject,
                   const struct slow_request *slow);

#endif  // DEPUTY_KEYSERVER_DISPATCH_H_
