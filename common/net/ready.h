// SPDX-License-Identifier: Apache-2.0
// ready: how a daemon says that it serves. On standard output, one line that
// scripts and tests read to learn the ports that the kernel chose for port 0:
//   {"ready":true,"listeners":[{"name":"keyless","address":"127.0.0.1:40213"}]}
// and to systemd (Type=notify) by its datagram protocol, sd_notify(3), written
// out here as it is one message and the library would bring more than it saves.
#ifndef DEPUTY_COMMON_NET_READY_H_
#define DEPUTY_COMMON_NET_READY_H_

#include <stddef.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

// A listening socket and what the daemon's configuration calls it.
struct ready_listener {
  const char *name;  // "keyless", "metrics", "admin"
  int fd;            // its bound address is asked of the kernel
};

// ready_announce prints the line (flushed, in one write) and sends READY=1. Call
// it once, when every listener accepts. STATUS_SYSTEM when an address cannot be
// read or nobody can read standard output; the daemon may serve all the same.
enum status ready_announce(const struct ready_listener *listeners, size_t num, struct errmsg *err);

// ready_notify sends a state to the service manager ("STOPPING=1",
// "WATCHDOG=1"), and does nothing without one. Never blocks, never fails
// visibly: a lost notice must not hurt those who are served.
void ready_notify(const char *state);

// ready_notify_reloading says RELOADING=1, with the time that systemd wants since 253;
// READY=1 follows when it is over.
void ready_notify_reloading(void);

// ready_notify_main_pid says that this process is the service's main one, which it is
// from now on if it has taken over from another.
void ready_notify_main_pid(void);

#endif  // DEPUTY_COMMON_NET_READY_H_
