// SPDX-License-Identifier: Apache-2.0
// takeover: the new process's half of an upgrade (handover.h has the other and the
// picture): `deputy-proxy --takeover`.
//
//   takeover_ask        before root is given up: sockets come, nothing else has happened
//   (configuration, certificates, switches are read; workers are made)
//   takeover_step CLAIM     nothing is changed at the old one any more
//   (workers accept)
//   takeover_step COMPLETE  the old one drains
//
// Threads: takeover_ask before there are any, and waits; the rest on control's loop.
#ifndef DEPUTY_PROXY_UPGRADE_TAKEOVER_H_
#define DEPUTY_PROXY_UPGRADE_TAKEOVER_H_

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "proxy/upgrade/inherit.h"

#define TAKEOVER_ASK_LIMIT_MS 10000   // for the sockets to come
#define TAKEOVER_STEP_LIMIT_MS 10000  // for an answer

struct takeover;

enum takeover_step { TAKEOVER_CLAIM, TAKEOVER_COMPLETE };

// takeover_ask asks the proxy whose admin socket is at `path` for its listening
// sockets, and adds them to `into`. Always with a sentence:
//   STATUS_UNAVAILABLE  nobody serves there
//   STATUS_REFUSED      it does not hand over
//   STATUS_TIMEOUT, STATUS_FORMAT, STATUS_LIMIT, STATUS_SYSTEM, STATUS_MEMORY
enum status takeover_ask(struct takeover **out, struct inherited *into, const char *path,
                         struct errmsg *err);

// takeover_step says that we have come so far; done(arg) is called once, with what
// came of it: STATUS_OK, STATUS_REFUSED (the other says why), STATUS_CLOSED,
// STATUS_TIMEOUT, STATUS_FORMAT; the sentence lives as long as the call.
void takeover_step(struct takeover *takeover, struct loop *loop, enum takeover_step step,
                   void (*done)(void *arg, enum status st, const struct errmsg *err), void *arg);

// takeover_ticket_keys borrows the keys of session tickets that came with the answer to the
// claim (ticket_key_set, common/wire/ticket_keys.h), until takeover_free, which wipes them. None
// come from an earlier version.
struct bytes takeover_ticket_keys(const struct takeover *takeover);

// takeover_free lets go; before COMPLETE the other one then serves on. `reason`, if
// not NULL, tells it why. NULL is allowed.
void takeover_free(struct takeover *takeover, const char *reason);

#endif  // DEPUTY_PROXY_UPGRADE_TAKEOVER_H_
