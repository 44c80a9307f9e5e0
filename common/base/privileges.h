// SPDX-License-Identifier: Apache-2.0
// privileges: what a daemon that was started as root gives up before it looks
// at a byte of a peer, and the lock that keeps its memory out of the swap.
// Called by main, between binding low ports and serving; one thread only.
#ifndef DEPUTY_COMMON_BASE_PRIVILEGES_H_
#define DEPUTY_COMMON_BASE_PRIVILEGES_H_

#include "common/base/errmsg.h"
#include "common/base/status.h"

// privileges_check_user says of `name` what privileges_drop would: STATUS_CONFIG. NULL or "" is
// good.
enum status privileges_check_user(const char *name, struct errmsg *err);

// privileges_drop becomes the user `name` with that user's groups and no others,
// for good: no capability is left in any set. NULL or "" stays who it is; who is not
// root gives up the capabilities it was lent all the same. STATUS_CONFIG: no such
// user, or it is root; STATUS_SYSTEM: not allowed to change.
enum status privileges_drop(const char *name, struct errmsg *err);

// privileges_lock_memory keeps every page of the process, also those of later,
// out of the swap. STATUS_REFUSED: the limit on locked memory is too low to do
// so safely (later allocations would fail), nothing was locked; STATUS_SYSTEM.
// Worth a warning, not an end: encrypted swap, or none, is as good.
enum status privileges_lock_memory(struct errmsg *err);

#endif  // DEPUTY_COMMON_BASE_PRIVILEGES_H_
