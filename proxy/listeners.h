// SPDX-License-Identifier: Apache-2.0
// listeners: the sockets on which TLS is accepted, as the configuration names
// them. Each has one descriptor for each worker (SO_REUSEPORT), so that the kernel
// spreads connections and no two workers share a queue. A reload keeps those whose
// name and address stay: their queues are not disturbed.
//
// Sockets that were there before us (inherit.h) are all taken, as each has a queue with
// connections of its own, which would be lost with it. Are they more than workers,
// some workers accept from several; are they fewer, further sockets join them in the
// end (listeners_begin), or, where that cannot be (one socket of the service manager, a
// UNIX socket), workers share.
//
// Threads: control.
#ifndef DEPUTY_PROXY_LISTENERS_H_
#define DEPUTY_PROXY_LISTENERS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "proxy/config/options.h"
#include "proxy/upgrade/inherit.h"
#include "proxy/worker.h"

struct listener {
  uint64_t id;  // never used again in this process; not 0
  char *name;
  char *text;              // the address as configured
  struct address address;  // as bound: with the port that the kernel chose
  bool is_deferred;
  bool is_new;
  int *kept;  // each distinct socket once, control's own descriptors: to be handed on
  size_t num_kept;
  size_t num_begun;  // of these, those to which connections come; the others are bound
  int *fds;          // the workers' descriptors: the i-th is for worker i % num_workers
  size_t num_fds;
};

struct listeners {
  struct listener *items;
  size_t num;
};

// listeners_open makes the listeners of a configuration: those of `current` (may be
// empty) that stay, by id and without descriptors; new ones of what is `inherited`
// (may be NULL), or bound. `current` is not changed, so failing leaves everything as it
// was. STATUS_CONFIG (address), STATUS_SYSTEM (cannot bind), STATUS_LIMIT (too many
// inherited sockets for so few workers), STATUS_MEMORY.
enum status listeners_open(struct listeners *out, const struct options *options,
                           const struct listeners *current, struct inherited *inherited,
                           size_t num_workers, struct errmsg *err);

// listeners_begin lets connections come to the sockets that join inherited ones: not
// before somebody is about to accept. STATUS_SYSTEM with the sentence.
enum status listeners_begin(struct listeners *listeners, struct errmsg *err);

// listeners_replace puts `next` in force (taken): what stays keeps its sockets.
void listeners_replace(struct listeners *current, struct listeners *next);

// listeners_plan hands worker `index` its part; new descriptors change hands.
void listeners_plan(struct listening_plan *out, struct listeners *listeners, size_t index,
                    size_t num_workers);

// listeners_let_go closes control's own descriptors: only workers have the sockets
// now, and whoever was given them.
void listeners_let_go(struct listeners *listeners);

// listeners_close closes what no worker has taken, and frees.
void listeners_close(struct listeners *listeners);

#endif  // DEPUTY_PROXY_LISTENERS_H_
