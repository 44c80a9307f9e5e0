// SPDX-License-Identifier: Apache-2.0
#include "common/net/ready.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/net/address.h"

static int saved_stdout = -1;

// divert makes `fd` standard output; restore undoes that.
static void divert(int fd) {
  (void)fflush(stdout);
  saved_stdout = dup(STDOUT_FILENO);
  assert_true(saved_stdout >= 0);
  assert_int_equal(dup2(fd, STDOUT_FILENO), STDOUT_FILENO);
}

static void restore(void) {
  assert_int_equal(dup2(saved_stdout, STDOUT_FILENO), STDOUT_FILENO);
  close(saved_stdout);
}

static int listen_on(const char *text) {
  struct address address;
  int fd = -1;
  assert_int_equal(address_parse(&address, text, NULL), STATUS_OK);
  assert_int_equal(address_listen(&fd, &address, false, 0600, NULL), STATUS_OK);
  return fd;
}

static void prints_the_addresses_that_the_kernel_chose(void **state) {
  int ends[2];
  char text[1024] = {0};
  char path[64];
  struct ready_listener list[] = {{"keyless", -1}, {"admin", -1}};
  json_t *line = NULL;
  const char *address = NULL;
  enum status st = STATUS_OK;
  ssize_t len = 0;
  (void)state;

  (void)snprintf(path, sizeof path, "unix:/tmp/ready_test.%d", (int)getpid());
  list[0].fd = listen_on("127.0.0.1:0");
  list[1].fd = listen_on(path);
  assert_int_equal(pipe(ends), 0);
  divert(ends[1]);
  st = ready_announce(list, 2, NULL);
  restore();
  assert_int_equal(st, STATUS_OK);
  len = read(ends[0], text, sizeof text - 1);
  assert_true(len > 0);
  assert_ptr_equal(strchr(text, '\n'), text + len - 1);  // one line, whole
  line = json_loads(text, 0, NULL);
  assert_true(json_is_true(json_object_get(line, "ready")));
  address = json_string_value(
      json_object_get(json_array_get(json_object_get(line, "listeners"), 0), "address"));
  assert_memory_equal(address, "127.0.0.1:", 10);
  assert_string_not_equal(address, "127.0.0.1:0");
  address = json_string_value(
      json_object_get(json_array_get(json_object_get(line, "listeners"), 1), "address"));
  assert_string_equal(address, path);
  json_decref(line);
  (void)unlink(path + strlen("unix:"));
  for (int i = 0; i < 2; i++) {
    close(list[i].fd);
    close(ends[i]);
  }
}

static void says_when_nobody_can_read_it(void **state) {
  struct ready_listener none = {"none", -1};
  struct errmsg err = {0};
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  enum status st = STATUS_OK;
  (void)state;

  divert(full);
  st = ready_announce(NULL, 0, &err);
  restore();
  assert_int_equal(st, STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "readiness"));
  assert_int_equal(ready_announce(&none, 1, &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "none"));
  close(full);
}

// manager plays the service manager at `name` (abstract when it begins with '@').
static int manager(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const size_t len = strlen(name);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  memcpy(address.sun_path, name, len);
  if (name[0] == '@') {
    address.sun_path[0] = '\0';
  }
  assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                   0);
  return fd;
}

static void tells_the_service_manager(void **state) {
  static const char *const forms[] = {"/tmp/ready_test.notify.%d", "@ready_test.notify.%d"};
  (void)state;

  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    char name[64];
    char text[64] = {0};
    int fd = -1;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(name, sizeof name, forms[i], (int)getpid());
#pragma GCC diagnostic pop
    fd = manager(name);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    ready_notify("STOPPING=1");
    assert_int_equal(recv(fd, text, sizeof text, 0), 10);
    assert_string_equal(text, "STOPPING=1");
    close(fd);
    (void)unlink(name);
  }
}

static void needs_no_service_manager(void **state) {
  char longest[300];
  (void)state;

  memset(longest, 'x', sizeof longest - 1);
  longest[0] = '/';
  longest[sizeof longest - 1] = '\0';
  assert_int_equal(setenv("NOTIFY_SOCKET", longest, 1), 0);
  ready_notify("READY=1");
  assert_int_equal(setenv("NOTIFY_SOCKET", "relative", 1), 0);
  ready_notify("READY=1");
  assert_int_equal(setenv("NOTIFY_SOCKET", "/tmp/ready_test.nobody", 1), 0);
  ready_notify("READY=1");
  assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
  ready_notify("READY=1");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(prints_the_addresses_that_the_kernel_chose),
      cmocka_unit_test(says_when_nobody_can_read_it),
      cmocka_unit_test(tells_the_service_manager),
      cmocka_unit_test(needs_no_service_manager),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
