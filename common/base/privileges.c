// SPDX-License-Identifier: Apache-2.0
#include "common/base/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// The bounding set is what execve could ever give back. Dropping from it takes a
// capability itself, so it comes first, and who has none of that loses nothing.
static void drop_bounding_set(void) {
  for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
    (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
  }
}

// Empties the sets that setresuid leaves (inheritable), and those that a starter
// gave a plain user (ambient, and with it effective: a low port, by systemd).
static enum status drop_capabilities(struct errmsg *err) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
  struct __user_cap_data_struct left[_LINUX_CAPABILITY_U32S_3] = {0};

  (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &head, none) != 0 || syscall(SYS_capget, &head, left) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "capabilities cannot be given up: %s", strerror(errno));
  }
  return memcmp(left, none, sizeof left) == 0
             ? STATUS_OK
             : errmsg_set(err, STATUS_SYSTEM, "capabilities are still there after giving them up");
}

static enum status become(const struct passwd *user, struct errmsg *err) {
  // Groups first: afterwards there is no right left to change them.
  if (initgroups(user->pw_name, user->pw_gid) != 0 ||
      setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
      setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "cannot become user \"%s\": %s", user->pw_name,
                      strerror(errno));
  }
  // A kernel or a filter that says yes and does nothing must not go unnoticed.
  if (setuid(0) == 0 || geteuid() != user->pw_uid || getegid() != user->pw_gid) {
    return errmsg_set(err, STATUS_SYSTEM, "root's rights could not be given up for \"%s\"",
                      user->pw_name);
  }
  // A change of user resets it to what fs.suid_dumpable says (prctl(2)).
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "the process cannot be made undumpable: %s",
                      strerror(errno));
  }
  return STATUS_OK;
}

// find_user: NULL where none was asked for.
static enum status find_user(const struct passwd **out, const char *name, struct errmsg *err) {
  *out = NULL;
  if (name == NULL || name[0] == '\0') {
    return STATUS_OK;
  }
  errno = 0;
  *out = getpwnam(name);  // before any thread starts
  if (*out == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "there is no user \"%s\"%s%s", name,
                      errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
  }
  if ((*out)->pw_uid == 0) {
    return errmsg_set(err, STATUS_CONFIG, "user \"%s\" is root; name one with fewer rights", name);
  }
  return STATUS_OK;
}

enum status privileges_check_user(const char *name, struct errmsg *err) {
  const struct passwd *user = NULL;
  return find_user(&user, name, err);
}

enum status privileges_drop(const char *name, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct passwd *user = NULL;

  TRY(find_user(&user, name, err));
  if (user != NULL) {
    drop_bounding_set();
    if (geteuid() != user->pw_uid || getuid() != user->pw_uid) {
      TRY(become(user, err));
    }
  }
  if (geteuid() != 0) {
    TRY(drop_capabilities(err));
  }

out:
  return st;
}

enum status privileges_lock_memory(struct errmsg *err) {
  const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  struct rlimit now = {0};

  // Root may lift the limit, and must do so before it drops its rights: with
  // MCL_FUTURE every later allocation counts.
  if (setrlimit(RLIMIT_MEMLOCK, &all) != 0 &&
      (getrlimit(RLIMIT_MEMLOCK, &now) != 0 || now.rlim_cur != RLIM_INFINITY)) {
    return errmsg_set(err, STATUS_REFUSED,
                      "memory is not locked: the limit is %llu bytes; raise it (LimitMEMLOCK= of "
                      "systemd, ulimit -l)",
                      (unsigned long long)now.rlim_cur);
  }
  // MCL_ONFAULT: pages are locked when used, so thread stacks and reserves cost
  // nothing.
  if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "memory is not locked: %s", strerror(errno));
  }
  return STATUS_OK;
}
