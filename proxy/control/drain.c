// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/drain.h"

#include "common/base/log.h"
#include "common/net/ready.h"
#include "proxy/control/control_internal.h"

// What is left is closed now.
static void end_now(struct control *control, const char *reason) {
  size_t num = 0;
  for (size_t i = 0; i < control->num_workers; i++) {
    const struct worker_counters *counters = &control->workers[i]->counters;
    const uint64_t num_closed = counter_get(&counters->closed);  // first: never more than accepted
    num += counter_get(&counters->accepted) - num_closed;
  }
  log_info(0, "drain_over", "reason=%s connections=%zu", reason, num);
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_post_end(control->workers[i]);
  }
}

static void on_limit(void *arg) { end_now(arg, "limit"); }

enum status drain_init(struct control *control) {
  return timer_init(&control->drain.limit, control->loop, on_limit, control);
}

void drain_begin(struct control *control, bool has_heir) {
  const struct limit_options *limits = &control->sites.current->options.limits;
  control->drain.is_draining = true;
  log_info(0, "stopping", "limit_ms=%lld", (long long)limits->drain_ms);
  listeners_let_go(&control->listeners);
  for (size_t i = 0; i < control->num_workers; i++) {
    worker_post_drain(control->workers[i], has_heir);
  }
  timer_arm_ms(&control->drain.limit, limits->drain_ms);
}

void drain_or_end(void *arg) {
  struct control *control = arg;
  if (control->drain.is_draining) {
    end_now(control, "asked_twice");
    return;
  }
  ready_notify("STOPPING=1");
  drain_begin(control, false);
}

void drain_on_drained(void *arg, struct worker *worker) {
  struct control *control = arg;
  (void)worker;
  control->drain.num_drained += 1;
  if (control->drain.num_drained == control->num_workers) {
    loop_stop(control->loop);
  }
}
