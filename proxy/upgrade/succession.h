// SPDX-License-Identifier: Apache-2.0
// succession: the order in which a new process takes over from a serving one, once it
// is whole (takeover.h does the talking):
//
//   WARM --> CLAIM --> accept --> COMPLETE --> serve
//                |                    |
//                +----- give_up <-----+        the old one serves on
//
// It warms up first, so that visitors do not pay for the change: key servers are
// connected, and delegated credentials fetched, or the issuers had their time.
//
// Threads: control.
#ifndef DEPUTY_PROXY_UPGRADE_SUCCESSION_H_
#define DEPUTY_PROXY_UPGRADE_SUCCESSION_H_

#include <stdbool.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "proxy/upgrade/takeover.h"

#define SUCCESSION_WARM_LIMIT_MS 5000  // then it goes on as it is
#define SUCCESSION_LOOK_MS 20          // between two looks whether it is warm

struct succession_host {
  void *arg;
  bool (*is_warm)(void *arg);
  // Sessions that the old one's tickets hold are ours to resume (ticket_key_set).
  void (*take_ticket_keys)(void *arg, struct bytes set);
  // From here on visitors come to us, too.
  enum status (*accept)(void *arg, struct errmsg *err);
  // The old one has let go: everything is ours.
  void (*serve)(void *arg);
  // It came to nothing: let those who were accepted finish, and end.
  void (*give_up)(void *arg, const char *reason);
};

struct succession;

// succession_begin takes `takeover`, and goes on by itself on the loop. STATUS_MEMORY.
enum status succession_begin(struct succession **out, struct loop *loop,
                             const struct succession_host *host, struct takeover **takeover);

// succession_is_over: is there nothing to wait for any more?
bool succession_is_over(const struct succession *succession);

void succession_free(struct succession *succession);  // NULL allowed

#endif  // DEPUTY_PROXY_UPGRADE_SUCCESSION_H_
