// SPDX-License-Identifier: Apache-2.0
// handover: the serving proxy's half of an upgrade: it lends its listening sockets to
// a new process (takeover.h) and stops when that one serves. As no program may be
// started from within the sandbox, the operator or the service manager starts the new
// one; it asks on the admin socket.
//
//   new                                     old
//   POST /v1/takeover ------------------->  who asks must be this user, or root
//   <-- 100, one end of a socket pair       all else goes over the pair:
//   <-- {"socket": ...} and descriptors     every listening socket, both have it now
//   <-- {"end": true, "changes": ...}       how many switches there are
//   reads all it needs
//   {"step": "claim", "changes": ...} --->  the same still? Then no more changes
//   <-- ticket keys, if it asked for them
//   <-- {"ok": "claim"}
//   accepts, too
//   {"step": "complete"} ---------------->  accepts no more, drains, ends
//
// The ticket keys are bytes (ticket_key_set, common/wire/ticket_keys.h), which begin as no JSON
// does; they are wiped here, and in memory only there.
//
// Until "complete" the old one serves. When the pair is closed, by whichever accident,
// or the new one takes too long after its claim, all is as it was: a connection that
// waits in a queue is in a socket that the old one still has.
//
// An operator who switches while the new one reads is obeyed by the old one, and the
// claim refused, so that no switch is lost. Threads: control.
#ifndef DEPUTY_PROXY_UPGRADE_HANDOVER_H_
#define DEPUTY_PROXY_UPGRADE_HANDOVER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/http/http_server.h"
#include "common/net/loop.h"
#include "common/wire/ticket_keys.h"
#include "proxy/upgrade/inherit.h"

#define HANDOVER_CLAIM_LIMIT_MS 30000  // from the claim to "complete"
#define HANDOVER_STAMP_LEN 80

// What the pair is asked in, and its longest message.
#define HANDOVER_MESSAGE_MAX_LEN 4096
#define HANDOVER_FDS_MAX 200  // in one message; the kernel's limit is 253 (SCM_MAX_FD)

// A socket to be lent; borrowed.
struct handover_socket {
  enum inherit_kind kind;
  const char *text;  // the address as configured
  const int *fds;
  size_t num;
};

// What handover needs of the proxy.
struct handover_host {
  void *arg;
  // Fills `out` (room for `max`) and returns how many there are.
  size_t (*sockets)(void *arg, struct handover_socket *out, size_t max);
  // Names the switches as they are. STATUS_UNAVAILABLE with the sentence: they would be
  // lost, or one is being made.
  enum status (*stamp)(void *arg, char out[HANDOVER_STAMP_LEN], struct errmsg *err);
  bool (*is_stopping)(void *arg);
  // Writes the keys of session tickets, which are wiped when they are sent; the length.
  size_t (*ticket_keys)(void *arg, uint8_t out[TICKET_KEY_SET_MAX_LEN]);
  // The new process serves. `is_same_unit`: of the same unit of the service manager.
  void (*on_complete)(void *arg, bool is_same_unit);
};

struct handover;

// handover_new: `host` is borrowed. STATUS_MEMORY.
enum status handover_new(struct handover **out, struct loop *loop,
                         const struct handover_host *host);

// handover_ask answers POST /v1/takeover.
void handover_ask(struct handover *handover, struct http_request *request);

// handover_is_claimed: nothing may be changed here any more.
bool handover_is_claimed(const struct handover *handover);

void handover_free(struct handover *handover);  // NULL allowed

#endif  // DEPUTY_PROXY_UPGRADE_HANDOVER_H_
