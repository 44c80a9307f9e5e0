// SPDX-License-Identifier: Apache-2.0
// seccomp (seccomp(2)): the system calls of our programs, by name; libseccomp makes
// the filter. What is on the hot path is allowed without a look at its arguments:
// then the kernel (5.11 and later) knows the answer before it runs the filter.
#include <errno.h>
#include <linux/prctl.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/sandbox_internal.h"

#ifdef __clang__  // libseccomp's own macros leave a field out
#pragma clang diagnostic ignored "-Wmissing-field-initializers"
#endif

#ifndef PR_SET_VMA  // glibc's malloc names its memory, since 2.38
#define PR_SET_VMA 0x53564d41
#endif

#define SOCKET_TYPE_MASK 0xfU  // below SOCK_CLOEXEC and SOCK_NONBLOCK

// What every one of our programs, and the libraries under it, may do.
static const char *const allowed[] = {
    // Bytes in and out.
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "lseek",
    "recvfrom", "sendto", "recvmsg", "sendmsg", "recvmmsg", "sendmmsg", "close", "close_range",
    // Sockets that are there; new ones are looked at below.
    "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername", "getsockopt",
    "setsockopt",
    // Waiting.
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
    "poll", "ppoll", "select", "pselect6", "eventfd2", "timerfd_create", "timerfd_settime",
    "timerfd_gettime", "signalfd4", "pipe", "pipe2", "nanosleep", "clock_nanosleep",
    // Files, as far as Landlock and modes let.
    "open", "openat", "openat2", "stat", "lstat", "fstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64",
    "getcwd", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir",
    "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "ftruncate", "truncate", "fallocate",
    "fsync", "fdatasync", "sync_file_range", "msync", "flock", "fadvise64", "dup", "dup2", "dup3",
    "fcntl", "umask", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "utimensat",
    // Memory; mappings of code are looked at below.
    "brk", "munmap", "mremap", "madvise", "mlock", "mlock2", "munlock", "munlockall", "mincore",
    "membarrier",
    // Threads and signals; new threads are looked at below.
    "futex", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "sched_yield",
    "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_get_priority_max",
    "sched_get_priority_min", "getpriority", "gettid", "getcpu", "exit", "exit_group",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending",
    "sigaltstack", "restart_syscall",
    // Time, chance and who we are.
    "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "getrandom", "getpid",
    "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    "getpgrp", "getrusage", "getrlimit", "uname", "sysinfo"};

// What no honest line does: the end.
static const char *const deadly[] = {
    // Other programs and processes.
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev",
    "process_madvise", "pidfd_getfd", "pidfd_send_signal", "kcmp", "tkill",
    // Who we are.
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
    "setgroups", "capset", "personality", "setns", "unshare", "chroot", "pivot_root",
    // The system around us.
    "mount", "umount2", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "swapon", "swapoff", "reboot", "kexec_load", "kexec_file_load", "init_module",
    "finit_module", "delete_module", "sethostname", "setdomainname", "settimeofday",
    "clock_settime", "clock_adjtime", "adjtimex", "acct", "quotactl", "syslog", "vhangup", "mknod",
    "mknodat", "name_to_handle_at", "open_by_handle_at", "fanotify_init", "iopl", "ioperm",
    "modify_ldt", "uselib",
    // Ways into the kernel that have been taken before.
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "memfd_secret",
    "vmsplice", "migrate_pages", "move_pages"};

// What a sanitizer's runtime does at the end of a program, and the symbolizer that
// it starts. Such builds are for tests: what is not deadly is allowed in them.
static const char *const of_sanitizers[] = {"execve", "fork",        "vfork",
                                            "ptrace", "personality", "process_vm_readv"};

// --- rules ------------------------------------------------------------------------

struct filter {
  scmp_filter_ctx ctx;
  int result;  // of the first rule that failed, a negated errno
};

static void add_rule(struct filter *f, uint32_t action, const char *name, unsigned num,
                     const struct scmp_arg_cmp *cmps) {
  const int nr = seccomp_syscall_resolve_name(name);
  int result = 0;

  if (SANDBOX_IS_INSTRUMENTED && action == SCMP_ACT_ALLOW) {
    return;  // is the default there
  }
  // A call that libseccomp or this processor does not know cannot be made by a
  // library that is older than it; the default answers.
  if (f->result != 0 || nr == __NR_SCMP_ERROR) {
    return;
  }
  result = seccomp_rule_add_array(f->ctx, action, nr, num, cmps);
  if (result != -EDOM) {
    f->result = result;
  }
}

static void allow(struct filter *f, const char *name) {
  add_rule(f, SCMP_ACT_ALLOW, name, 0, NULL);
}

static void rule_1(struct filter *f, uint32_t action, const char *name, struct scmp_arg_cmp cmp) {
  add_rule(f, action, name, 1, &cmp);
}

static bool is_of_sanitizers(const char *name) {
  for (size_t i = 0; i < sizeof of_sanitizers / sizeof of_sanitizers[0]; i++) {
    if (SANDBOX_IS_INSTRUMENTED && strcmp(name, of_sanitizers[i]) == 0) {
      return true;
    }
  }
  return false;
}

// New threads, but no new processes. clone3 has its flags in memory, where no filter
// looks: glibc takes clone when there is no clone3.
static void add_threads(struct filter *f) {
  rule_1(f, SCMP_ACT_ALLOW, "clone", SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  if (!SANDBOX_IS_INSTRUMENTED) {
    rule_1(f, SCMP_ACT_KILL_PROCESS, "clone", SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
  }
  // thread_turn.h; without CAP_SYS_NICE nobody is harmed by what it may say of itself.
  rule_1(f, SCMP_ACT_ALLOW, "setpriority", SCMP_A0_64(SCMP_CMP_EQ, PRIO_PROCESS));
  rule_1(f, SCMP_ACT_ALLOW, "sched_getattr", SCMP_A0_64(SCMP_CMP_EQ, 0));
  rule_1(f, SCMP_ACT_ALLOW, "sched_setattr", SCMP_A0_64(SCMP_CMP_EQ, 0));
  // abort and pthread_kill; nobody else's threads.
  rule_1(f, SCMP_ACT_ALLOW, "tgkill", SCMP_A0_64(SCMP_CMP_EQ, (uint64_t)getpid()));
  rule_1(f, SCMP_ACT_ALLOW, "kill", SCMP_A0_64(SCMP_CMP_EQ, (uint64_t)getpid()));
}

// Memory that is code: only where modules are loaded.
static void add_memory(struct filter *f, unsigned needs) {
  static const char *const calls[] = {"mmap", "mprotect"};
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    if ((needs & SANDBOX_MODULES) != 0) {
      allow(f, calls[i]);
    } else {
      rule_1(f, SCMP_ACT_ALLOW, calls[i], SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    if ((needs & SANDBOX_MODULES) == 0 && !SANDBOX_IS_INSTRUMENTED) {
      // A library that would like to load another one is told no, and goes without.
      rule_1(f, SCMP_ACT_ERRNO(EPERM), calls[i],
             SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
    }
  }
}

static void add_internet_socket(struct filter *f, int family, int type, int protocol) {
  const struct scmp_arg_cmp cmps[] = {
      SCMP_A0_64(SCMP_CMP_EQ, (uint64_t)family),
      SCMP_A1_64(SCMP_CMP_MASKED_EQ, SOCKET_TYPE_MASK, (uint64_t)type),
      SCMP_A2_64(SCMP_CMP_EQ, (uint64_t)protocol),
  };
  add_rule(f, SCMP_ACT_ALLOW, "socket", 3, cmps);
}

// UNIX sockets always (readiness); TCP and UDP for those who connect, and not their
// relatives (SCTP, MPTCP), which Landlock does not see. getaddrinfo looks at the
// interfaces by a netlink socket, and does without. All other families end it.
static void add_sockets(struct filter *f, unsigned needs) {
  static const int families[] = {AF_INET, AF_INET6};
  rule_1(f, SCMP_ACT_ALLOW, "socket", SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX));
  rule_1(f, SCMP_ACT_ALLOW, "socketpair", SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX));
  if ((needs & (SANDBOX_CONNECT | SANDBOX_LISTEN | SANDBOX_MODULES)) != 0) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
      add_internet_socket(f, families[i], SOCK_STREAM, 0);
      add_internet_socket(f, families[i], SOCK_STREAM, IPPROTO_TCP);
      add_internet_socket(f, families[i], SOCK_DGRAM, 0);
      add_internet_socket(f, families[i], SOCK_DGRAM, IPPROTO_UDP);
    }
  }
  if ((needs & (SANDBOX_LISTEN | SANDBOX_MODULES)) != 0) {
    allow(f, "bind");
    allow(f, "listen");
  }
  rule_1(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), "socket", SCMP_A0_64(SCMP_CMP_EQ, AF_NETLINK));
  for (uint64_t family = AF_UNIX + 1; family < AF_NETLINK; family++) {
    if (family != AF_INET && family != AF_INET6) {
      rule_1(f, SCMP_ACT_KILL_PROCESS, "socket", SCMP_A0_64(SCMP_CMP_EQ, family));
    }
  }
  rule_1(f, SCMP_ACT_KILL_PROCESS, "socket", SCMP_A0_64(SCMP_CMP_GT, AF_NETLINK));
}

static void add_rest(struct filter *f) {
  static const uint64_t prctls[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS,
                                    PR_SET_VMA};
  static const uint64_t ioctls[] = {FIONBIO, FIONREAD, FIOCLEX, TCGETS};
  // Words put into the terminal of whoever started us.
  static const uint64_t deadly_ioctls[] = {TIOCSTI, TIOCLINUX};

  for (size_t i = 0; i < sizeof prctls / sizeof prctls[0]; i++) {
    rule_1(f, SCMP_ACT_ALLOW, "prctl", SCMP_A0_64(SCMP_CMP_EQ, prctls[i]));
  }
  for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++) {
    rule_1(f, SCMP_ACT_ALLOW, "ioctl", SCMP_A1_64(SCMP_CMP_EQ, ioctls[i]));
  }
  for (size_t i = 0; i < sizeof deadly_ioctls / sizeof deadly_ioctls[0]; i++) {
    rule_1(f, SCMP_ACT_KILL_PROCESS, "ioctl", SCMP_A1_64(SCMP_CMP_EQ, deadly_ioctls[i]));
  }
  // Our own limits; the hard ones stay for who has no rights.
  rule_1(f, SCMP_ACT_ALLOW, "prlimit64", SCMP_A0_64(SCMP_CMP_EQ, 0));
}

// --- the filter -------------------------------------------------------------------

static int set_up(scmp_filter_ctx ctx) {
  int result = 0;
  // Every thread; there should be one. Old kernels also slow a confined process down
  // against code that runs inside it and guesses (SSB): we run none of others.
  const struct {
    enum scmp_filter_attr attr;
    uint32_t value;
  } attrs[] = {
      {SCMP_FLTATR_CTL_TSYNC, 1},
      {SCMP_FLTATR_CTL_LOG, 1},
      {SCMP_FLTATR_CTL_SSB, 1},
      {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
  };
  for (size_t i = 0; i < sizeof attrs / sizeof attrs[0] && result == 0; i++) {
    result = seccomp_attr_set(ctx, attrs[i].attr, attrs[i].value);
    result = result == -EOPNOTSUPP ? 0 : result;  // an older kernel; all but a comfort
  }
  // A tree instead of a list: faster for calls whose arguments are looked at.
  (void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
  return result;
}

static void add_all(struct filter *f, unsigned needs) {
  for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
    allow(f, allowed[i]);
  }
  for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
    if (!is_of_sanitizers(deadly[i])) {
      add_rule(f, SCMP_ACT_KILL_PROCESS, deadly[i], 0, NULL);
    }
  }
  add_threads(f);
  add_memory(f, needs);
  add_sockets(f, needs);
  add_rest(f);
}

enum status sandbox_seccomp_enter(const struct sandbox_spec *spec, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct filter f = {
      .ctx = seccomp_init(SANDBOX_IS_INSTRUMENTED ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(ENOSYS))};
  int result = 0;

  if (f.ctx == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for the system call filter");
  }
  f.result = set_up(f.ctx);
  add_all(&f, spec->needs);
  if (f.result != 0) {
    TRY(errmsg_set(err, STATUS_SYSTEM, "the system call filter cannot be made: %s",
                   strerror(-f.result)));
  }
  result = seccomp_load(f.ctx);
  if (result != 0) {
    TRY(errmsg_set(err, STATUS_UNAVAILABLE, "the kernel takes no system call filter: %s",
                   strerror(-result)));
  }

out:
  seccomp_release(f.ctx);
  return st;
}
