// SPDX-License-Identifier: Apache-2.0
// proc_cpu: the CPU time that other processes have used, all their threads, in
// nanoseconds: what a server's work costs is counted at the server, for exactly the
// measured part of a run. Linux's /proc/PID/task/TID/schedstat, and where the kernel
// has none, the ticks (10 ms) of /proc/PID/stat.
#ifndef DEPUTY_BENCH_PROC_CPU_H_
#define DEPUTY_BENCH_PROC_CPU_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define PROC_CPU_MAX_PIDS 64U

struct proc_cpu {
  pid_t pids[PROC_CPU_MAX_PIDS];
  size_t num;
};

// proc_cpu_parse reads "123,124". STATUS_CONFIG when it is no list of processes
// that are there.
enum status proc_cpu_parse(struct proc_cpu *out, const char *text, struct errmsg *err);

// proc_cpu_read_ns sums up. A process that has ended counts as nothing, so that the
// difference of two readings is then less than 0: no figure rather than a wrong one.
int64_t proc_cpu_read_ns(const struct proc_cpu *p);

#endif  // DEPUTY_BENCH_PROC_CPU_H_
