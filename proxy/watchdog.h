// SPDX-License-Identifier: Apache-2.0
// watchdog: tells the service manager that we live (sd_watchdog_enabled(3):
// WATCHDOG_USEC, WATCHDOG_PID), as long as every worker's loop, and control's own,
// answers. A worker that hangs says nothing, so neither do we, and the service manager
// ends and restarts us: better than a share of the visitors who wait in vain.
//
//   control: tick --post--> every worker: here
//   control: the next tick: have all answered? then WATCHDOG=1 and the next round
//
// Threads: control.
#ifndef DEPUTY_PROXY_WATCHDOG_H_
#define DEPUTY_PROXY_WATCHDOG_H_

#include <stddef.h>

#include "common/base/status.h"
#include "common/net/loop.h"

struct watchdog;

// watchdog_new begins, if the service manager wants to hear of us; else *out is NULL.
// The workers' loops (borrowed) outlive it. STATUS_MEMORY.
enum status watchdog_new(struct watchdog **out, struct loop *control, struct loop *const *workers,
                         size_t num_workers);

// watchdog_stop: somebody else speaks for the service now. NULL is allowed.
void watchdog_stop(struct watchdog *watchdog);

// watchdog_free: when the workers have ended. NULL is allowed.
void watchdog_free(struct watchdog *watchdog);

#endif  // DEPUTY_PROXY_WATCHDOG_H_
