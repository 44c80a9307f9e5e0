// SPDX-License-Identifier: Apache-2.0
// admit: what a worker does with a connection that the kernel has just handed over,
// before anything is spent on it: it is taken, or closed and counted with the reason.
// In this order: limits.connections, limits.memory, the budget of handshakes
// (admission.h), the limits of an address (address_table.h); those of a trusted balancer's
// clients when its PROXY header has come. Called by worker.c.
//
// A refused client sees a reset: it has sent its ClientHello, which nobody read. An alert
// would cost what is to be saved.
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_ADMIT_H_
#define DEPUTY_PROXY_CONNECTION_ADMIT_H_

#include <stdbool.h>
#include <sys/socket.h>

#include "common/base/status.h"

struct conn;
struct listening;
struct worker;

// admit_init prepares a worker's pulse; it has a loop already. STATUS_MEMORY,
// STATUS_SYSTEM. admit_cleanup ends it before the loop; all-zero is allowed.
enum status admit_init(struct worker *worker);
void admit_cleanup(struct worker *worker);

// admit takes `fd` in any case.
void admit(struct listening *listening, int fd, const struct sockaddr_storage *peer);

// admit_client counts a connection for its client's address, once a PROXY header has said
// what that is (greeting.h). False: its limits are used up, which has been counted.
bool admit_client(struct conn *conn, const struct sockaddr_storage *client);

#endif  // DEPUTY_PROXY_CONNECTION_ADMIT_H_
