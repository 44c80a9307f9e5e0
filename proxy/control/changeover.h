// SPDX-License-Identifier: Apache-2.0
// changeover: one process after the other (proxy/upgrade), as control has its part in it:
// of the new one, what it may have inherited and when it serves; of the old one, what it
// lends and when it drains.
//
// Threads: control.
#ifndef DEPUTY_PROXY_CONTROL_CHANGEOVER_H_
#define DEPUTY_PROXY_CONTROL_CHANGEOVER_H_

#include "common/base/errmsg.h"
#include "common/base/program.h"
#include "proxy/upgrade/handover.h"
#include "proxy/upgrade/inherit.h"
#include "proxy/upgrade/succession.h"
#include "proxy/upgrade/takeover.h"

struct control;

struct changeover {
  // From whom was before.
  struct inherited inherited;
  struct takeover *takeover;      // until the succession begins
  struct succession *succession;  // NULL: this is a start of its own
  struct errmsg failure;          // why the takeover came to nothing
  // To whoever comes after.
  struct handover *handover;
  struct handover_host handover_host;
};

// changeover_init is ready to be asked. STATUS_MEMORY.
enum status changeover_init(struct control *control);

// changeover_inherit is control_inherit.
enum status changeover_inherit(struct control *control, enum program_takeover takeover,
                               struct errmsg *err);

// changeover_begin goes on with the takeover that was begun by that: control_announce
// follows when all is ours, or a drain. STATUS_MEMORY.
enum status changeover_begin(struct control *control);

// changeover_is_under_way: to us, or from us?
bool changeover_is_under_way(const struct changeover *changeover);

// changeover_cleanup: the loop has ended.
void changeover_cleanup(struct changeover *changeover);

#endif  // DEPUTY_PROXY_CONTROL_CHANGEOVER_H_
