// SPDX-License-Identifier: Apache-2.0
// opening: a connection from accept until bytes can be relayed: the steps of GREETING,
// HANDSHAKE, SIGNING, LOOKUP and CONNECT, and what is done when their time is up. The
// machine that calls them is in conn.c; conn.h draws it.
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_OPENING_H_
#define DEPUTY_PROXY_CONNECTION_OPENING_H_

#include "proxy/connection/conn_internal.h"

struct listening;

// opening_accept starts a connection on an accepted descriptor (taken in any case), which
// has been counted under `address_key`.
void opening_accept(struct listening *listening, int fd, const struct sockaddr_storage *peer,
                    uint64_t address_key);

enum step opening_greeting(struct conn *conn);
enum step opening_handshake(struct conn *conn);
enum step opening_signing(struct conn *conn);
enum step opening_lookup(struct conn *conn);
enum step opening_connect(struct conn *conn);

enum step opening_expire_handshake(struct conn *conn);  // GREETING, too
enum step opening_expire_signing(struct conn *conn);
enum step opening_expire_lookup(struct conn *conn);
enum step opening_expire_connect(struct conn *conn);

// opening_fail ends a handshake; an alert that is in conn->out still reaches the client.
// `reason` is for the log.
enum step opening_fail(struct conn *conn, enum failure failure, const char *reason);

#endif  // DEPUTY_PROXY_CONNECTION_OPENING_H_
