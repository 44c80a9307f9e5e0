// SPDX-License-Identifier: Apache-2.0
// grace: frees what workers may still be reading, once none can be: read-copy-
// update by message. A worker uses a shared object only within one callback of
// its loop; so when every worker has run a message that was posted after the
// object was taken out, nobody reads it any more.
//
//   control: swap the pointer, grace_after(old)  --post-->  every worker: passed
//   control: fn(old)                             <--post--  the last of them
//
// Threads: all calls on the control thread.
#ifndef DEPUTY_PROXY_GRACE_H_
#define DEPUTY_PROXY_GRACE_H_

#include <stddef.h>

#include "common/base/status.h"
#include "common/net/loop.h"

struct grace;

// grace_new is for these worker loops (borrowed; they outlive it).
enum status grace_new(struct grace **out, struct loop *control, struct loop *const *workers,
                      size_t num_workers);

// grace_after calls fn(arg) when every worker has passed. Calls made while a round
// is under way share the next one. Without memory `arg` is never freed: a leak, and nothing worse.
void grace_after(struct grace *grace, void (*fn)(void *arg), void *arg);

// grace_free runs what waits at once: the workers have ended.
void grace_free(struct grace *grace);

#endif  // DEPUTY_PROXY_GRACE_H_
