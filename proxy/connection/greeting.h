// SPDX-License-Identifier: Apache-2.0
// greeting: the PROXY header (version 2) with which a trusted peer, a balancer before us,
// says who the client is. It comes before the first byte of TLS; from then on the
// connection is that client's: in logs, in limits of addresses, in the choice of an origin
// and in what the origin is told. A header that stands for nobody (LOCAL, as health checks
// send) leaves the peer what it is.
//
// Threads: of the connection's worker.
#ifndef DEPUTY_PROXY_CONNECTION_GREETING_H_
#define DEPUTY_PROXY_CONNECTION_GREETING_H_

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/network.h"
#include "proxy/config/options.h"

// Whom a listener believes.
struct trust {
  struct network *networks;
  size_t num;
};

// trust_init reads the options of a listener. STATUS_CONFIG, STATUS_MEMORY.
enum status trust_init(struct trust *out, const struct listener_options *options,
                       struct errmsg *err);
void trust_cleanup(struct trust *trust);
bool trust_has(const struct trust *trust, const struct sockaddr *peer);

struct conn;

enum greeting {
  GREETING_OVER,     // conn->peer is the client
  GREETING_WAITS,    // for more bytes
  GREETING_LEFT,     // the peer is gone
  GREETING_WRONG,    // this is no header, or one that is too long
  GREETING_REFUSED,  // the client's address has used up its limits
};

// greeting_read takes the header off the front of what the peer sends.
enum greeting greeting_read(struct conn *conn);

#endif  // DEPUTY_PROXY_CONNECTION_GREETING_H_
