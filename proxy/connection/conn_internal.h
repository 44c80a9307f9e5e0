// SPDX-License-Identifier: Apache-2.0
// How a step of a connection ends: in another state, or with what it waits for.
#ifndef DEPUTY_PROXY_CONNECTION_CONN_INTERNAL_H_
#define DEPUTY_PROXY_CONNECTION_CONN_INTERNAL_H_

#include "proxy/connection/conn.h"

enum step { STEP_GO, STEP_WAIT };

// What a step waits for; events for both directions are registered once and for
// all, so this only says it to the reader.
enum wait {
  CLIENT_READABLE,
  CLIENT_WRITABLE,
  ORIGIN_READY,
  KEY_SERVER,
  STORE,
  ANY_READY,
  NEXT_ROUND,
};

static inline enum step conn_wait_for(const struct conn *conn, enum wait what) {
  (void)conn;
  (void)what;
  return STEP_WAIT;
}

// conn_enter changes the state, and sets its deadline.
enum step conn_enter(struct conn *conn, enum conn_state next);

// conn_finish ends with `outcome`; whoever said something before keeps the last word.
enum step conn_finish(struct conn *conn, enum outcome outcome, enum conn_state next);

// conn_set_deadline has the time of `state` begin again.
void conn_set_deadline(struct conn *conn, enum conn_state state);

#endif  // DEPUTY_PROXY_CONNECTION_CONN_INTERNAL_H_
