// SPDX-License-Identifier: Apache-2.0
#include "common/base/thread_turn.h"

#include <linux/sched.h>
#include <linux/sched/types.h>  // not beside <sched.h>, which has the same struct
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void thread_turn_short(void) {
  struct sched_attr attr = {.size = sizeof attr};

  // glibc 2.36 has no wrappers for these two.
  if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0 ||
      (attr.sched_policy != SCHED_NORMAL && attr.sched_policy != SCHED_BATCH)) {
    return;
  }
  attr.sched_runtime = (uint64_t)THREAD_TURN_MIN_US * 1000;  // ns
  (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

void thread_turn_yield(int nice) { (void)setpriority(PRIO_PROCESS, (id_t)gettid(), nice); }
