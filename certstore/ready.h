// SPDX-License-Identifier: Apache-2.0
// ready: one name of the store, made ready to answer handshakes: its chains with their
// TLS objects and staples, and the words of its states. Made by a loader (page faults
// and parsing happen there), put into the cache (cache.h), read by workers. Immutable
// but for the words, the DCs of its chains and the count of its users.
//
// A worker that finds one in the cache may use it for the callback that it is in; one
// that needs it longer takes a reference within that callback.
#ifndef DEPUTY_CERTSTORE_READY_H_
#define DEPUTY_CERTSTORE_READY_H_

#include <stdatomic.h>

#include "certstore/certstore.h"
#include "certstore/store.h"

// What was found in the store, in one number: another one, and the name is to be made
// ready anew. Not a secret, and not proof against malice: the store is ours.
struct ready_mark {
  uint8_t digest[32];
};

struct ready {
  _Atomic uint32_t num_refs;
  _Atomic bool is_seen;  // by a handshake since the cache's clock last passed
  uint64_t hash;         // the cache's
  size_t name_len;
  struct cert_name name;  // its levels are the store's, an unused one is empty
  struct ready_mark mark;
  // The version of the states that the words below are from, at least; UINT64_MAX: none
  // yet. And when they end by themselves; 0: never.
  _Atomic uint64_t states_version;
  _Atomic int64_t words_end_s;
  struct state state;
  struct state keys[CERTSTORE_MAX_LEVELS][CERTSTORE_MAX_PER_LEVEL];
  struct state cas[CERTSTORE_MAX_LEVELS][CERTSTORE_MAX_PER_LEVEL];
};

// ready_load reads the name (as it is kept: lower case, "*.x") and makes it ready, with
// one reference, the caller's; its words are silent, and of no version. With `known`
// that is still right nothing is made, and *out is NULL.
//   STATUS_NOT_FOUND  no such name
//   STATUS_FORMAT     a damaged record; STATUS_REFUSED a newer one; STATUS_CRYPTO,
//   STATUS_LIMIT      a leaf that cannot be served; STATUS_MEMORY
enum status ready_load(struct ready **out, const struct store_reader *reader, struct bytes name,
                       const struct ready_mark *known, const SSL_PRIVATE_KEY_METHOD *method,
                       struct cert_pool *pool, struct errmsg *err);

static inline struct ready *ready_ref(struct ready *ready) {
  atomic_fetch_add_explicit(&ready->num_refs, 1, memory_order_relaxed);
  return ready;
}
void ready_unref(struct ready *ready);  // any thread; NULL allowed

// ready_read_words reads what the store says at `now_s` of the name's subjects (also of a
// configured name's). `out_end_s`: until when, if nobody writes; 0: no end. No lock, no
// allocation. STATUS_FORMAT, STATUS_REFUSED: a damaged or newer record.
enum status ready_read_words(struct certstore_words *out, int64_t *out_end_s,
                             const struct store_reader *reader, const struct cert_name *name,
                             int64_t now_s);

// ready_put_words makes the words those of `ready`. One thread at a time.
void ready_put_words(struct ready *ready, const struct certstore_words *words, int64_t end_s,
                     uint64_t version);

// state_put_words copies the words of one subject, each only if it differs.
void state_put_words(struct state *out, const struct state *words);

#endif  // DEPUTY_CERTSTORE_READY_H_
