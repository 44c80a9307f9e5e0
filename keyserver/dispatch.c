// SPDX-License-Identifier: Apache-2.0
#include "keyserver/dispatch.h"

#include "common/base/clock.h"

#define US_PER_S 1000000
#define NS_PER_US 1000
#define US_PER_MS 1000
#define GENERATE_LIMIT_MS 60000  // the primes of RSA-4096 can take many seconds

// Encoding into room that is large enough can only fail by a fault of ours.
static size_t encode_error(uint8_t *out, size_t max, uint32_t id, enum refusal refusal) {
  size_t len = 0;
  CHECK(frame_encode_error(out, max, &len, id, refusal_code(refusal)) == STATUS_OK);
  return len;
}

static size_t encode_reply(uint8_t *out, size_t max, uint32_t id, uint8_t opcode,
                           struct bytes payload) {
  size_t len = 0;
  CHECK(frame_encode_response(out, max, &len, id, opcode, payload) == STATUS_OK);
  return len;
}

static enum refusal decode(struct request *req, const struct frame_header *header,
                           struct bytes body) {
  req->frame.id = header->id;
  if (header->major != FRAME_VERSION_MAJOR) {
    return REFUSAL_VERSION;
  }
  if (frame_body_decode(&req->frame, body) != STATUS_OK) {
    req->frame = (struct frame){.id = header->id};  // nothing of it is to be trusted
    return REFUSAL_FORMAT;
  }
  req->frame.id = header->id;
  return REFUSAL_NONE;
}

// audit: the line is written before the reply is. When it cannot be kept, policy
// says whether the signature may leave all the same.
static enum refusal audit(struct dispatcher *d, const struct audit_subject *subject,
                          const struct request *req, enum refusal refusal, int64_t wall_us) {
  if (audit_write(d->audit, &d->line, subject, req, refusal, wall_us) == STATUS_OK ||
      refusal != REFUSAL_NONE) {
    return refusal;
  }
  if (d->must_audit) {
    return REFUSAL_AUDIT;
  }
  counter_add_own(&d->stats->num_unaudited, 1);
  return REFUSAL_NONE;
}

static void count(struct stats *stats, const struct request *req, enum refusal refusal) {
  if (refusal == REFUSAL_NONE) {
    counter_add_own(&stats->num_signed[req->purpose], 1);
    if (req->key != NULL) {  // else one was made
      counter_add_own(&stats->num_by_kind[req->key->kind], 1);
    }
  } else {
    counter_add_own(&stats->num_refused[req->purpose], 1);
    counter_add_own(&stats->num_refusals[refusal], 1);
  }
}

// finish audits, counts and encodes what came of a request.
static size_t finish(struct dispatcher *d, const struct audit_subject *subject,
                     const struct request *req, enum refusal refusal, struct bytes payload,
                     int64_t wall_us, uint8_t *out, size_t max) {
  refusal = audit(d, subject, req, refusal, wall_us);
  count(d->stats, req, refusal);
  return refusal == REFUSAL_NONE ? encode_reply(out, max, req->frame.id, FRAME_OP_SUCCESS, payload)
                                 : encode_error(out, max, req->frame.id, refusal);
}

// defer hands a request over that would take long.
static enum refusal defer(struct dispatcher *d, struct slow_owner *owner,
                          const struct audit_subject *subject, const struct request *req,
                          struct bytes body, int64_t wall_us) {
  const int64_t limit_ms = req->purpose == PURPOSE_GENERATE ? GENERATE_LIMIT_MS : d->sign_limit_ms;
  const int64_t due_ms = clock_monotonic_us() / US_PER_MS + limit_ms;

  switch (slow_start(d->slow, owner, subject->client.spki_sha256[0], d->snapshot, req, body,
                     wall_us, due_ms)) {
    case STATUS_OK:
      return REFUSAL_NONE;
    case STATUS_LIMIT:
      return REFUSAL_QUEUE_FULL;
    default:
      return REFUSAL_INTERNAL;
  }
}

static bool is_slow(const struct dispatcher *d, const struct slow_owner *owner,
                    const struct request *req) {
  return (req->purpose == PURPOSE_GENERATE || req->key->is_slow) && owner != NULL &&
         d->slow != NULL && d->slow->pool != NULL;
}

enum refusal dispatch_judge(const struct snapshot *snapshot, struct request *req,
                            struct asker *asker, int64_t wall_us) {
  const enum refusal refusal =
      request_judge(req, asker, wall_us / US_PER_S, clock_monotonic_us() * NS_PER_US);

  if (refusal == REFUSAL_NONE && req->purpose == PURPOSE_GENERATE &&
      (snapshot == NULL || snapshot->options.generation.folder == NULL)) {
    return REFUSAL_GENERATE_OFF;
  }
  return refusal;
}

struct dispatched dispatch_packet(struct dispatcher *d, struct asker *asker,
                                  struct slow_owner *owner, const struct audit_subject *subject,
                                  const struct frame_header *header, struct bytes body,
                                  uint8_t *out, size_t max) {
  struct request req = {0};
  uint8_t signature[SIGN_MAX_LEN];
  size_t signature_len = 0;
  struct dispatched done = {.cost = 1};
  enum refusal refusal = REFUSAL_NONE;
  int64_t wall_us = 0;

  refusal = decode(&req, header, body);
  if (refusal == REFUSAL_NONE && req.frame.has_opcode && req.frame.opcode == FRAME_OP_PING) {
    counter_add_own(&d->stats->num_pings, 1);
    done.reply_len = encode_reply(out, max, header->id, FRAME_OP_PONG, req.frame.payload);
    return done;
  }
  wall_us = clock_wall_us();
  if (refusal == REFUSAL_NONE) {
    refusal = dispatch_judge(d->snapshot, &req, asker, wall_us);
  }
  if (refusal == REFUSAL_NONE && is_slow(d, owner, &req)) {
    refusal = defer(d, owner, subject, &req, body, wall_us);
    if (refusal == REFUSAL_NONE) {
      return done;  // its reply comes later
    }
  } else if (refusal == REFUSAL_NONE && req.purpose == PURPOSE_GENERATE) {
    refusal = REFUSAL_GENERATE_OFF;  // without signer threads
  } else if (refusal == REFUSAL_NONE) {
    refusal = request_sign(&req.job, signature, &signature_len);
    done.cost = req.key->cost;
  }
  done.reply_len =
      finish(d, subject, &req, refusal, bytes_of(signature, signature_len), wall_us, out, max);
  return done;
}

size_t dispatch_slow(struct dispatcher *d, const struct audit_subject *subject,
                     const struct slow_request *slow, const struct slow_result *result,
                     uint8_t *out, size_t max) {
  return finish(d, subject, &slow->req, result->refusal, result->payload, slow->wall_us, out, max);
}

void dispatch_gone(struct dispatcher *d, const struct audit_subject *subject,
                   const struct slow_request *slow) {
  (void)audit(d, subject, &slow->req, REFUSAL_CLIENT_GONE, slow->wall_us);
  count(d->stats, &slow->req, REFUSAL_CLIENT_GONE);
}
