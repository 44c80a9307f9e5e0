// SPDX-License-Identifier: Apache-2.0
// peer: one client's connection, from accept to close: who it is, what it may
// do, and the turn of packets in, replies out.
//
//   accept --> HANDSHAKE --> SERVING --> CLOSING          any state --> ended
//                               |           ^
//                               +-----------+  its EOF, a limit, draining
//
// A turn ends when the input has no whole packet left, when the worker's time is
// due to others (PEER_TURN_COST), or when the client does not read what it asked
// for (limits.max_unread); in the latter two the stream calls again.
//
// Threads: all calls on the worker's own.
#ifndef DEPUTY_KEYSERVER_PEER_H_
#define DEPUTY_KEYSERVER_PEER_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "keyserver/slow.h"

// One connection's share of a round, in units of a P-256 signature: 1 ms.
#define PEER_TURN_COST 64u
// Draining: a connection that was quiet for PEER_QUIET_MS has nothing in hand and is closed.
// One that is never quiet, as a proxy's under load, is closed after PEER_BUSY_MS, between two
// requests (after twice that, wherever it is): what comes after that is asked of another
// server by whoever sees the end. Once all is sent, the client has PEER_LINGER_MS to close
// its side.
#define PEER_QUIET_MS 50
#define PEER_BUSY_MS 500
#define PEER_LINGER_MS 1000

struct worker;
struct peer;

// peer_accept takes the accepted descriptor `fd` (closed on failure) and adds the
// peer to the worker's list. STATUS_MEMORY, STATUS_SYSTEM.
enum status peer_accept(struct worker *worker, int *fd);

// peer_sweep looks at the connection from time to time: it ends one whose packet
// has been under way for too long and, while draining (for `draining_ms`, else -1), one
// that is quiet. The peer may be gone afterwards.
void peer_sweep(struct peer *peer, int64_t now_ms, int64_t draining_ms);

// peer_check looks at a client again after a reload: one that would not be let in any
// more is dropped. It may verify signatures.
void peer_check(struct peer *peer);

// peer_free closes at once. The worker's list is left.
void peer_free(struct peer *peer);

// peer_slow_events get what signer threads have answered; arg is the worker's
// dispatcher.
extern const struct slow_events peer_slow_events;

// peer_next walks the worker's list.
struct peer *peer_next(const struct peer *peer);

#endif  // DEPUTY_KEYSERVER_PEER_H_
