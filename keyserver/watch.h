// SPDX-License-Identifier: Apache-2.0
// watch: notices that the files of some folders have changed, and waits for them
// to come to rest: a file is written in pieces, a thousand files come one by one,
// a certificate follows its key. Tells its owner once for all of that (server_change.c,
// which loads the keys again); what changed is not said, as the folders are read
// whole.
//
// Threads: the loop's.
#ifndef DEPUTY_KEYSERVER_WATCH_H_
#define DEPUTY_KEYSERVER_WATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/net/loop.h"

// While files go on changing, they are read after so many times the quiet time:
// somebody who writes without a pause does not keep everybody else's keys out.
#define WATCH_MAX_SETTLES 10

struct watch;

struct watch_folder {
  const char *path;
  // Only what leaves the folder counts: what comes is put there by ourselves.
  bool is_removal_only;
};

// watch_new makes one that watches nothing yet. `is_wanted` says which names
// count; changed(arg) runs on the loop. STATUS_MEMORY, STATUS_SYSTEM.
enum status watch_new(struct watch **out, struct loop *loop, bool (*is_wanted)(const char *name),
                      void (*changed)(void *arg), void *arg);
void watch_free(struct watch *watch);  // NULL is allowed

// watch_set replaces the folders (copied); none: it watches nothing. Changes of
// folders that stay are not lost meanwhile. A folder that has been changed since
// `since_us` (clock_file_us; 0: does not matter) counts as changed. One that cannot be
// watched is logged, and tried again until it can.
enum status watch_set(struct watch *watch, const struct watch_folder *folders, size_t num,
                      int64_t settle_ms, int64_t since_us);

#endif  // DEPUTY_KEYSERVER_WATCH_H_
