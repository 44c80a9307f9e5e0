// SPDX-License-Identifier: Apache-2.0
// memory_watch: how much memory the process has, for a ceiling above which no new
// connections are taken. What counts is what the kernel says is resident and not a
// file's (statm: resident less shared): heap, stacks and all that libraries keep. The
// pages of a store on disk are not in it, as the kernel takes them back when it wants
// to; nor are the kernel's own buffers of sockets.
//
// Memory that was freed may still be the allocator's. So before the ceiling counts as
// reached, and from time to time while it does, what is free is given back.
//
// Threads: made and looked at by control; memory_watch_is_over by any.
#ifndef DEPUTY_PROXY_MEMORY_WATCH_H_
#define DEPUTY_PROXY_MEMORY_WATCH_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"

#define MEMORY_WATCH_EVERY_MS 100
#define MEMORY_WATCH_TRIM_EVERY_MS 1000

struct memory_watch;

// memory_watch_new opens what it reads later on: before the sandbox is entered.
// STATUS_MEMORY; without /proc there is no ceiling, which the log says when one is set.
enum status memory_watch_new(struct memory_watch **out, struct loop *loop);
void memory_watch_free(struct memory_watch *watch);

// memory_watch_set changes the ceiling; 0: none, and nothing is read but on demand.
void memory_watch_set(struct memory_watch *watch, int64_t max_bytes);

// memory_watch_bytes reads what there is now; -1: it cannot be read.
int64_t memory_watch_bytes(const struct memory_watch *watch);

// memory_watch_is_over: is there more than the ceiling, by the last look? Once over, it
// ends under 95 % of the ceiling.
bool memory_watch_is_over(const struct memory_watch *watch);

// memory_watch_next is the rule: whether `bytes` are over `max_bytes`, having been or not.
bool memory_watch_next(bool is_over, int64_t bytes, int64_t max_bytes);

#endif  // DEPUTY_PROXY_MEMORY_WATCH_H_
