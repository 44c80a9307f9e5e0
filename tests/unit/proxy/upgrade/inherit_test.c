// SPDX-License-Identifier: Apache-2.0
#include "proxy/upgrade/inherit.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int new_socket(bool is_listening) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  if (is_listening) {
    assert_int_equal(listen(fd, 1), 0);
  }
  return fd;
}

static void add(struct inherited *set, enum inherit_kind kind, const char *name, const char *text) {
  struct errmsg err = {0};
  int fd = new_socket(true);
  assert_int_equal(inherit_add(set, kind, name, text, &fd, &err), STATUS_OK);
  assert_int_equal(fd, -1);
}

static bool takes(struct inherited *set, enum inherit_kind kind, const char *name, const char *text,
                  bool is_foreign) {
  bool found = !is_foreign;
  int fd = inherit_take(set, kind, name, text, &found);
  if (fd < 0) {
    return false;
  }
  assert_int_equal(close(fd), 0);
  assert_int_equal(found, is_foreign);
  return true;
}

static void gives_each_socket_once(void **state) {
  (void)state;
  struct inherited set = {0};
  add(&set, INHERIT_CLIENT, NULL, "*:443");
  add(&set, INHERIT_CLIENT, NULL, "*:443");
  add(&set, INHERIT_ADMIN, NULL, "/run/x.sock");
  assert_false(takes(&set, INHERIT_CLIENT, "main", "*:8443", false));
  assert_false(takes(&set, INHERIT_METRICS, "metrics", "*:443", false));
  assert_false(takes(&set, INHERIT_METRICS, "metrics", NULL, false));
  assert_true(takes(&set, INHERIT_CLIENT, "main", "*:443", false));
  assert_true(takes(&set, INHERIT_CLIENT, "other", "*:443", false));
  assert_false(takes(&set, INHERIT_CLIENT, "main", "*:443", false));
  assert_true(takes(&set, INHERIT_ADMIN, "admin", "/run/x.sock", false));
  inherit_cleanup(&set);
}

static void finds_what_the_service_manager_opened_by_name(void **state) {
  (void)state;
  struct inherited set = {0};
  add(&set, INHERIT_ANY, "main", NULL);
  add(&set, INHERIT_ANY, "left", NULL);
  assert_false(takes(&set, INHERIT_CLIENT, "other", "main", true));
  assert_true(takes(&set, INHERIT_CLIENT, "main", "*:443", true));
  inherit_cleanup(&set);  // closes "left"
}

static void refuses_what_does_not_listen(void **state) {
  (void)state;
  struct inherited set = {0};
  struct errmsg err = {0};
  int fds[2] = {-1, -1};
  int fd = new_socket(false);
  assert_int_equal(inherit_add(&set, INHERIT_ANY, "main", NULL, &fd, &err), STATUS_REFUSED);
  assert_int_equal(fd, -1);
  assert_int_equal(pipe(fds), 0);
  assert_int_equal(inherit_add(&set, INHERIT_ANY, "pipe", NULL, &fds[0], &err), STATUS_REFUSED);
  (void)close(fds[1]);
  assert_int_equal(set.num, 0);
  inherit_cleanup(&set);
}

static void set_env(const char *pid, const char *num) {
  (void)setenv("LISTEN_PID", pid, 1);
  (void)setenv("LISTEN_FDS", num, 1);
  (void)setenv("LISTEN_FDNAMES", "main", 1);
}

static void heeds_only_variables_that_are_meant_for_it(void **state) {
  (void)state;
  static const char *const numbers[] = {"", "0", "-1", "x", "2x"};
  struct inherited set = {0};
  struct errmsg err = {0};
  char pid[24];
  (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
  set_env("1", "3");
  assert_int_equal(inherit_from_environment(&set, &err), STATUS_OK);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    set_env(pid, numbers[i]);
    assert_int_equal(inherit_from_environment(&set, &err), STATUS_OK);
    assert_null(getenv("LISTEN_FDS"));
  }
  assert_int_equal(set.num, 0);
  set_env(pid, "99999999");
  assert_int_equal(inherit_from_environment(&set, &err), STATUS_CONFIG);
  inherit_cleanup(&set);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gives_each_socket_once),
      cmocka_unit_test(finds_what_the_service_manager_opened_by_name),
      cmocka_unit_test(refuses_what_does_not_listen),
      cmocka_unit_test(heeds_only_variables_that_are_meant_for_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
