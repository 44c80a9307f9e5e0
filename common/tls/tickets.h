// SPDX-License-Identifier: Apache-2.0
// tickets: session tickets sealed by keys that rotate, or that machines share, with our own facts
// inside the seal: when resumption must end (the DC's end bounds it) and which chain authenticated
// the session. A ticket past its end, of an unknown key, or of a chain that was taken out of
// service is ignored: a full handshake follows. RFC 8446 section 4.6.1; RFC 9345 leaves this to the
// server.
#ifndef DEPUTY_COMMON_TLS_TICKETS_H_
#define DEPUTY_COMMON_TLS_TICKETS_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

#define TICKET_SECRET_LEN 32u  // what name and AES-256-GCM key of a ticket key come from
#define TICKET_NUM_KEYS 3u     // of tickets_rotate: current first, then earlier ones
#define TICKET_MAX_KEYS 8u     // of tickets_set

// Facts that go into and come out of a ticket.
struct ticket_facts {
  int64_t ends_s;  // resumption stops here (wall clock)
  uint8_t leaf_sha256[32];
};

struct tickets;

// What the server supplies. Both run on the connection's thread in the handshake.
struct ticket_hooks {
  // on_seal fills the facts of the session that is being ticketed. A resumed
  // connection gets new tickets too: their end must not be later than that of the
  // facts that may_resume saw, or resumption would never end.
  void (*on_seal)(SSL *ssl, struct ticket_facts *out);
  // may_resume decides on a ticket that opened and has not ended.
  bool (*may_resume)(SSL *ssl, const struct ticket_facts *facts);
};

// tickets_new makes a set with one fresh random key.
enum status tickets_new(struct tickets **out, const struct ticket_hooks *hooks);
void tickets_free(struct tickets *tickets);

// tickets_rotate makes a new current key and keeps TICKET_NUM_KEYS - 1 earlier
// ones. One thread rotates; handshakes of any thread go on meanwhile without a
// lock. A dropped key is wiped by the next rotation, when nobody reads it any more.
//   STATUS_AGAIN  all room is taken by keys that are still being read; the keys are
//                 as before
enum status tickets_rotate(struct tickets *tickets);

// tickets_set makes these the keys, and drops all others: secrets[current] seals, each
// opens. Sets of the same secrets open each other's tickets, on all machines. Keys that
// are there already stay as they are. As tickets_rotate, and STATUS_CRYPTO.
enum status tickets_set(struct tickets *tickets, const uint8_t *const *secrets, size_t num,
                        size_t current);

// tickets_copy_secrets copies the secrets of the keys in use, the one that seals last, as
// tickets_set takes them with current = num - 1; returns how many. The caller wipes `out`.
// On the thread that rotates.
size_t tickets_copy_secrets(const struct tickets *tickets,
                            uint8_t out[TICKET_MAX_KEYS][TICKET_SECRET_LEN]);

// tickets_key_name borrows the name of the key that seals (16 bytes, no secret), for logs:
// on the thread that rotates, until it does so again.
#define TICKET_NAME_LEN 16u
const uint8_t *tickets_key_name(const struct tickets *tickets);

// tickets_attach makes `ctx` seal and open with this set, which must outlive it, and
// keeps no sessions by id; `lifetime_s` bounds the lifetime that clients are told and
// the session's own. STATUS_MEMORY.
enum status tickets_attach(SSL_CTX *ctx, struct tickets *tickets, uint32_t lifetime_s);

#endif  // DEPUTY_COMMON_TLS_TICKETS_H_
