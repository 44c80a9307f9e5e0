// SPDX-License-Identifier: Apache-2.0
#include "common/base/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum status privileges_drop(const char *name, struct errmsg *err) {
  const struct passwd *user = NULL;

  if (name == NULL || name[0] == '\0') {
    return STATUS_OK;
  }
  errno = 0;
  user = getpwnam(name);  // before any thread starts
  if (user == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "there is no user \"%s\"%s%s", name,
                      errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
  }
  if (user->pw_uid == 0) {
    return errmsg_set(err, STATUS_CONFIG, "user \"%s\" is root; name one with fewer rights", name);
  }
  if (geteuid() == user->pw_uid && getuid() == user->pw_uid) {
    return STATUS_OK;
  }
  // Groups first: afterwards there is no right left to change them.
  if (initgroups(user->pw_name, user->pw_gid) != 0 ||
      setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
      setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "cannot become user \"%s\": %s", name, strerror(errno));
  }
  // A kernel or a filter that says yes and does nothing must not go unnoticed.
  if (setuid(0) == 0 || geteuid() != user->pw_uid || getegid() != user->pw_gid) {
    return errmsg_set(err, STATUS_SYSTEM, "root's rights could not be given up for \"%s\"", name);
  }
  return STATUS_OK;
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
