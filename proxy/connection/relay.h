// SPDX-License-Identifier: Apache-2.0
// relay: bytes both ways between a client and an origin that knows nothing of
// TLS. This is what a listener speaks after the handshake; HTTP will be another
// module with this header's calls.
//
//   up    client --recv--> in --SSL_read--> up --send--> origin
//   down  origin --recv--> down --SSL_write--> out --send--> client
//
// Back-pressure. A direction's reader stops while the writer has bytes that the
// other side does not take (the high mark: a block) and starts again when all of
// them are gone (the low mark: none). So a connection that is stuck holds one
// block for each direction, and one that is idle holds none.
//
// Ends. The client's close_notify (or FIN) becomes shutdown(SHUT_WR) towards the
// origin; the origin's FIN becomes our close_notify. Each direction goes on
// without the other. A reset of the origin's gives no close_notify: the client can
// tell that something is missing.
#ifndef DEPUTY_PROXY_CONNECTION_RELAY_H_
#define DEPUTY_PROXY_CONNECTION_RELAY_H_

#include "proxy/connection/conn.h"

// So many blocks each way before other connections of the worker get their turn.
#define RELAY_MAX_TURNS 4

enum relay {
  RELAY_WAIT,           // for an event
  RELAY_AGAIN,          // more can be done now, but others wait
  RELAY_HALF,           // WAIT, and one direction has ended
  RELAY_DONE,           // both have ended; what is in `out` may still be under way
  RELAY_CLIENT_BROKEN,  // no more to or from the client
  RELAY_CLIENT_WRONG,   // the client broke TLS; an alert may be in `out`
  RELAY_ORIGIN_BROKEN,  // no more from the origin; what came before is in `out`
  RELAY_NO_MEMORY,
};

// relay_run moves what can be moved now.
enum relay relay_run(struct conn *conn);

#endif  // DEPUTY_PROXY_CONNECTION_RELAY_H_
