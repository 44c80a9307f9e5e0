// SPDX-License-Identifier: Apache-2.0
// relay: bytes both ways between a client and an origin that knows nothing of
// TLS: the protocol (protocol.h) of a listener that knows no other.
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

#include "proxy/connection/protocol.h"

extern const struct protocol relay_protocol;

#endif  // DEPUTY_PROXY_CONNECTION_RELAY_H_
