// SPDX-License-Identifier: Apache-2.0
// protocol: what a listener speaks once the handshake is over and an origin is reached:
// one module with these calls. So far there is one, which forwards bytes as they come
// (relay.h); the machine (conn.c) knows of a connection no more than what run says.
//
//   CONNECT --> RELAY, HALF: run, after each event --> DRAIN --> CLOSED: free
//                            drain, end
//
// A connection in RELAY or HALF has two ends (conn.h), their TLS (transport.h, origin_tls.h)
// and blocks for what is under way; nothing of its handshake is left but what conn.h keeps
// for the access line.
#ifndef DEPUTY_PROXY_CONNECTION_PROTOCOL_H_
#define DEPUTY_PROXY_CONNECTION_PROTOCOL_H_

struct conn;

enum protocol_result {
  PROTOCOL_WAIT,           // for an event
  PROTOCOL_AGAIN,          // more can be done now, but others wait
  PROTOCOL_HALF,           // WAIT, and one direction has ended
  PROTOCOL_DONE,           // both have ended; what is in `out` may still be under way
  PROTOCOL_CLIENT_BROKEN,  // no more to or from the client
  PROTOCOL_CLIENT_WRONG,   // the client broke TLS; an alert may be in `out`
  PROTOCOL_ORIGIN_BROKEN,  // no more from the origin; what came before is in `out`
  PROTOCOL_NO_MEMORY,
};

// By number, as a connection keeps it in a byte.
enum protocol_id {
  PROTOCOL_BYTES,
  PROTOCOL_NUM,
};

struct protocol {
  // run moves what can be moved now.
  enum protocol_result (*run)(struct conn *conn);
  // The others may be NULL: nothing is to be done.
  // drain: the proxy is about to stop, and the connection should end when it next may;
  // run follows.
  void (*drain)(struct conn *conn);
  // end says the last words, into `out`, before we end the connection and its TLS.
  void (*end)(struct conn *conn);
  // free: what the module keeps for the connection goes with it.
  void (*free)(struct conn *conn);
};

#endif  // DEPUTY_PROXY_CONNECTION_PROTOCOL_H_
