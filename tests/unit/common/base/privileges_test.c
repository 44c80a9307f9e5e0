// SPDX-License-Identifier: Apache-2.0
// Dropping rights is for good, so it is tried in a child.
#include "common/base/privileges.h"

#include <linux/capability.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void stays_what_it_is_without_a_name(void **state) {
  const uid_t before = geteuid();
  (void)state;
  assert_int_equal(privileges_drop(NULL, NULL), STATUS_OK);
  assert_int_equal(privileges_drop("", NULL), STATUS_OK);
  assert_int_equal(geteuid(), before);
}

static void refuses_users_that_are_none_or_root(void **state) {
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(privileges_drop("no-such-user-here", &err), STATUS_CONFIG);
  assert_non_null(strstr(err.text, "no-such-user-here"));
  assert_int_equal(privileges_drop("root", &err), STATUS_CONFIG);
  assert_non_null(strstr(err.text, "root"));
}

// in_child runs `fn` in a child and returns its exit code.
static int in_child(int (*fn)(void)) {
  int status = 0;
  const pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    _exit(fn());
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// has_no_capabilities: not one in any of the five sets that proc(5) shows.
static bool has_no_capabilities(void) {
  char line[256];
  int num = 0;
  FILE *status = fopen("/proc/self/status", "re");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    num += strncmp(line, "Cap", 3) == 0 && strstr(line, ":\t0000000000000000\n") != NULL;
  }
  if (status != NULL) {
    (void)fclose(status);
  }
  return num == 5;
}

// As systemd's AmbientCapabilities= gives a service a low port without root.
static int drop_what_was_lent(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct lent[_LINUX_CAPABILITY_U32S_3] = {0};
  const struct passwd *nobody = getpwnam("nobody");
  const uint32_t bit = 1U << CAP_NET_BIND_SERVICE;

  lent[0] = (struct __user_cap_data_struct){.effective = bit, .permitted = bit, .inheritable = bit};
  if (nobody == NULL || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 ||
      setresuid(nobody->pw_uid, nobody->pw_uid, nobody->pw_uid) != 0 ||
      syscall(SYS_capset, &head, lent) != 0 ||
      prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) != 0) {
    return 1;
  }
  if (privileges_drop(NULL, NULL) != STATUS_OK) {
    return 2;
  }
  (void)memset(lent, 0xff, sizeof lent);
  if (syscall(SYS_capget, &head, lent) != 0 || lent[0].effective != 0 || lent[0].permitted != 0 ||
      lent[0].inheritable != 0) {
    return 3;
  }
  return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_BIND_SERVICE, 0, 0) == 0 ? 0 : 4;
}

static int drop_for_good(void) {
  const struct passwd *nobody = getpwnam("nobody");
  gid_t groups[64];
  int num = 0;

  if (nobody == NULL || privileges_drop("nobody", NULL) != STATUS_OK) {
    return 1;
  }
  if (getuid() != nobody->pw_uid || geteuid() != nobody->pw_uid || getgid() != nobody->pw_gid ||
      getegid() != nobody->pw_gid) {
    return 2;
  }
  num = getgroups(64, groups);
  for (int i = 0; i < num; i++) {
    if (groups[i] == 0) {
      return 3;
    }
  }
  if (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0) {
    return 4;
  }
  if (!has_no_capabilities()) {
    return 5;
  }
  if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return 6;
  }
  // Who is that user already has nothing to do.
  return privileges_drop("nobody", NULL) == STATUS_OK ? 0 : 7;
}

static int drop_without_the_right(void) {
  const struct passwd *nobody = getpwnam("nobody");
  const struct passwd *daemon = NULL;
  if (nobody == NULL || setresuid(nobody->pw_uid, nobody->pw_uid, nobody->pw_uid) != 0) {
    return 1;
  }
  daemon = getpwnam("daemon");
  return daemon != NULL && privileges_drop("daemon", NULL) == STATUS_SYSTEM ? 0 : 2;
}

static void gives_root_up_for_good(void **state) {
  (void)state;
  if (geteuid() != 0) {
    skip();  // only root has something to give up
  }
  assert_int_equal(in_child(drop_for_good), 0);
  assert_int_equal(in_child(drop_without_the_right), 0);
  assert_int_equal(in_child(drop_what_was_lent), 0);
}

// With a limit that cannot be lifted, locking would make later allocations fail:
// then nothing is locked, and the sentence says what to do.
static int lock_with_a_low_limit(void) {
  const struct rlimit low = {65536, 65536};
  struct errmsg err = {0};
  const struct passwd *nobody = getpwnam("nobody");

  if (setrlimit(RLIMIT_MEMLOCK, &low) != 0 || nobody == NULL ||
      (geteuid() == 0 && setresuid(nobody->pw_uid, nobody->pw_uid, nobody->pw_uid) != 0)) {
    return 1;
  }
  if (privileges_lock_memory(&err) != STATUS_REFUSED || strstr(err.text, "65536") == NULL) {
    return 2;
  }
  return 0;
}

static void does_not_lock_memory_that_it_could_not_keep(void **state) {
  (void)state;
  assert_int_equal(in_child(lock_with_a_low_limit), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stays_what_it_is_without_a_name),
      cmocka_unit_test(refuses_users_that_are_none_or_root),
      cmocka_unit_test(gives_root_up_for_good),
      cmocka_unit_test(does_not_lock_memory_that_it_could_not_keep),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
