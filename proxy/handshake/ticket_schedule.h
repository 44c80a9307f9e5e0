// SPDX-License-Identifier: Apache-2.0
// ticket_schedule: which key seals session tickets, and when the next one does: keys of
// this process alone, made anew as time passes; or those of a file that several machines
// share (common/wire/ticket_keys.h), each from its own time on, by the wall clock.
//
//   site_new: ticket_schedule_read  -->  site.ticket_keys
//   put in force: ticket_schedule_put --> tickets_set, tickets_rotate (common/tls/tickets.h)
//
// Threads: control.
#ifndef DEPUTY_PROXY_HANDSHAKE_TICKET_SCHEDULE_H_
#define DEPUTY_PROXY_HANDSHAKE_TICKET_SCHEDULE_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "common/net/loop.h"
#include "common/tls/tickets.h"
#include "common/wire/ticket_keys.h"
#include "proxy/site.h"

struct ticket_schedule {
  struct timer timer;
  struct tickets *tickets;
  const struct site *site;
  int64_t rotated_ms;  // monotonic: since when the key that seals does so
  bool is_of_file;     // that key
  uint8_t name[TICKET_NAME_LEN];
  uint64_t num_changes;
};

// ticket_schedule_read reads the file into `out` (struct ticket_keys). STATUS_SYSTEM,
// STATUS_REFUSED (others may read it), STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status ticket_schedule_read(struct secret *out, const char *path, struct errmsg *err);

// ticket_schedule_init: nothing happens before the first put; `tickets` are borrowed, and
// have a key already.
enum status ticket_schedule_init(struct ticket_schedule *schedule, struct loop *loop,
                                 struct tickets *tickets);
// ticket_schedule_put follows this site (borrowed until the next) from now on. A key that
// is made anew by time is not made anew by this.
void ticket_schedule_put(struct ticket_schedule *schedule, const struct site *site);

// An upgrade hands the keys on, so that sessions are resumed across it.
// ticket_schedule_give writes the keys in use, as ticket_key_set (common/wire/ticket_keys.h);
// returns the number of bytes, which the caller wipes. ticket_schedule_take puts such keys in
// the place of this process's own, and goes on where the other was: after the first put. If
// the site has a file of keys, that counts alone. STATUS_FORMAT, STATUS_AGAIN, STATUS_CRYPTO:
// all is as it was.
size_t ticket_schedule_give(const struct ticket_schedule *schedule,
                            uint8_t out[TICKET_KEY_SET_MAX_LEN]);
enum status ticket_schedule_take(struct ticket_schedule *schedule, struct bytes set);

void ticket_schedule_cleanup(struct ticket_schedule *schedule);

void ticket_schedule_write_metrics(const struct ticket_schedule *schedule,
                                   struct metrics_text *text);

#endif  // DEPUTY_PROXY_HANDSHAKE_TICKET_SCHEDULE_H_
