// SPDX-License-Identifier: Apache-2.0
#include "common/net/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/common/base/scratch.h"

#define WAIT_MS 10000

static struct address parse(const char *text) {
  struct address address = {0};
  struct errmsg err = {0};
  if (address_parse(&address, text, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return address;
}

static bool has_ipv6(void) {
  int fd = -1;
  struct address address = parse("[::1]:0");
  enum status st = address_listen(&fd, &address, false, 0, NULL);
  (void)close(fd);
  return st == STATUS_OK;
}

// --- texts -------------------------------------------------------------------

static void formats_what_it_parsed(void **state) {
  static const char *const texts[] = {
      "127.0.0.1:443",   "0.0.0.0:0", "255.255.255.255:65535", "[::1]:443",
      "[2001:db8::1]:1", "[::]:80",   "unix:/run/x.sock",      "unix:x"};
  char text[ADDRESS_TEXT_LEN];
  (void)state;
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    struct address address = parse(texts[i]);
    assert_string_equal(address_format(text, &address), texts[i]);
  }
}

static void star_is_every_address(void **state) {
  struct address address = parse("*:443");
  char text[ADDRESS_TEXT_LEN];
  (void)state;
  assert_int_equal(address_port(&address), 443);
  assert_string_equal(address_format(text, &address), has_ipv6() ? "*:443" : "0.0.0.0:443");
}

static void refuses_what_is_no_address(void **state) {
  static const char *const wrong[] = {
      "",
      ":",
      ":443",
      "127.0.0.1",
      "127.0.0.1:",
      "127.0.0.1:x",
      "1.2.3:4",
      "1.2.3.4:65536",
      "1.2.3.4:-1",
      "1.2.3.4:+1",
      "1.2.3.4: 1",
      "::1:443",
      "[::1]",
      "[::1]443",
      "[::1:443",
      "[]:443",
      "[*]:443",
      "[1.2.3.4]:443",
      "name.test:443",
      "1.2.3.4:000443",
      "unix:",
      "[::1%lo]:1",
      " 127.0.0.1:443",
      "[fe80::1]x:443",
      "**:1",
  };
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    struct address address;
    struct errmsg err = {0};
    if (address_parse(&address, wrong[i], &err) != STATUS_FORMAT) {
      fail_msg("accepted \"%s\"", wrong[i]);
    }
    assert_int_equal(address.len, 0);
    assert_true(strncmp(wrong[i], "unix:", 5) == 0 || strstr(err.text, "[::1]:443") != NULL);
  }
}

static void tells_local_addresses_from_others(void **state) {
  static const char *const local[] = {"127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "unix:/run/x"};
  static const char *const others[] = {"*:1",        "0.0.0.0:1",   "[::]:1",   "128.0.0.1:1",
                                       "10.0.0.1:1", "[fe80::1]:1", "nonsense", "localhost:1"};
  struct address address;
  (void)state;
  for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
    struct errmsg err = {0};
    assert_int_equal(address_parse_local(&address, local[i], "metrics.listen", &err), STATUS_OK);
  }
  for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
    struct errmsg err = {0};
    if (address_parse_local(&address, others[i], "metrics.listen", &err) != STATUS_CONFIG) {
      fail_msg("accepted \"%s\"", others[i]);
    }
    assert_int_equal(strncmp(err.text, "metrics.listen: ", 16), 0);
  }
}

static void refuses_a_path_longer_than_the_kernel_takes(void **state) {
  char text[200] = "unix:";
  struct address address;
  struct errmsg err = {0};
  (void)state;
  memset(text + 5, 'a', 107);
  assert_int_equal(address_parse(&address, text, &err), STATUS_OK);
  memset(text + 5, 'a', 108);
  assert_int_equal(address_parse(&address, text, &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "has 108 bytes; it may have 1 to 107"));
}

static void splits_host_and_port(void **state) {
  static const struct {
    const char *text;
    const char *host;
    uint16_t port;
  } rows[] = {{"name.test:443", "name.test", 443},
              {"10.0.0.1:1", "10.0.0.1", 1},
              {"[2001:db8::1]:80", "2001:db8::1", 80}};
  static const char *const wrong[] = {"name.test", "name.test:", ":1", "::1:80", "a:b:1", "[]:1"};
  char host[256];
  char longest[300];
  uint16_t port = 0;
  struct errmsg err = {0};
  (void)state;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    assert_int_equal(address_split_host(host, &port, rows[i].text, &err), STATUS_OK);
    assert_string_equal(host, rows[i].host);
    assert_int_equal(port, rows[i].port);
  }
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    assert_int_equal(address_split_host(host, &port, wrong[i], &err), STATUS_FORMAT);
  }
  memset(longest, 'a', 256);
  memcpy(longest + 255, ":1", 3);
  assert_int_equal(address_split_host(host, &port, longest, &err), STATUS_OK);
  assert_int_equal(strlen(host), 255);
  longest[255] = 'a';
  memcpy(longest + 256, ":1", 3);
  assert_int_equal(address_split_host(host, &port, longest, &err), STATUS_FORMAT);
}

// --- sockets -----------------------------------------------------------------

static int listen_on(const struct address *address, bool share_port) {
  struct errmsg err = {0};
  int fd = -1;
  if (address_listen(&fd, address, share_port, 0600, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_int_not_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  assert_int_not_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  return fd;
}

static void wait_for(int fd, short events) {
  struct pollfd ready = {.fd = fd, .events = events};
  assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
}

// Connects to `address`, checks both ends, and closes.
static void meet(int listener, const struct address *address) {
  struct address ends[2];
  char text[2][ADDRESS_TEXT_LEN];
  int client = -1;
  int server = -1;
  assert_int_equal(address_connect(&client, address), STATUS_OK);
  wait_for(client, POLLOUT);
  assert_int_equal(address_connect_result(client), STATUS_OK);
  wait_for(listener, POLLIN);
  server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  assert_true(server >= 0);
  assert_int_equal(address_of_local(&ends[0], client), STATUS_OK);
  assert_int_equal(address_of_peer(&ends[1], server), STATUS_OK);
  if (address->storage.ss_family == AF_INET) {
    int is_on = 0;
    socklen_t len = sizeof(is_on);
    assert_string_equal(address_format(text[0], &ends[0]), address_format(text[1], &ends[1]));
    assert_int_equal(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &is_on, &len), 0);
    assert_int_not_equal(is_on, 0);
  }
  (void)close(client);
  (void)close(server);
}

static struct address with_port_of(const char *host, int listener) {
  struct address address = parse(host);
  struct address bound;
  assert_int_equal(address_of_local(&bound, listener), STATUS_OK);
  address_set_port(&address, address_port(&bound));
  return address;
}

static void listens_and_connects_by_tcp(void **state) {
  struct address any = parse("127.0.0.1:0");
  int listener = listen_on(&any, false);
  struct address address = with_port_of("127.0.0.1:0", listener);
  (void)state;
  assert_int_not_equal(address_port(&address), 0);
  meet(listener, &address);
  (void)close(listener);
}

static void star_serves_both_families_and_brackets_only_one(void **state) {
  struct address star = parse("*:0");
  struct address six = parse("[::]:0");
  struct address four;
  int listener = -1;
  int both = -1;
  (void)state;
  if (!has_ipv6()) {
    skip();
  }
  both = listen_on(&star, false);
  four = with_port_of("127.0.0.1:0", both);
  meet(both, &four);
  four = with_port_of("[::1]:0", both);
  meet(both, &four);
  (void)close(both);
  listener = listen_on(&six, false);
  four = with_port_of("0.0.0.0:0", listener);
  // IPv4 of the same port is still free for somebody else.
  both = listen_on(&four, false);
  (void)close(both);
  (void)close(listener);
}

static void workers_share_a_port_when_asked(void **state) {
  struct address any = parse("127.0.0.1:0");
  int first = listen_on(&any, true);
  struct address address = with_port_of("127.0.0.1:0", first);
  struct errmsg err = {0};
  char expected[128];
  char text[ADDRESS_TEXT_LEN];
  int second = listen_on(&address, true);
  int third = -1;
  (void)state;
  assert_int_equal(address_listen(&third, &address, false, 0, &err), STATUS_SYSTEM);
  assert_int_equal(errno, EADDRINUSE);
  assert_int_equal(third, -1);
  (void)snprintf(expected, sizeof(expected), "cannot listen on %s: Address already in use",
                 address_format(text, &address));
  assert_string_equal(err.text, expected);
  (void)close(first);
  (void)close(second);
}

static void refused_connection_has_its_reason(void **state) {
  struct address any = parse("127.0.0.1:0");
  int listener = listen_on(&any, false);
  struct address address = with_port_of("127.0.0.1:0", listener);
  int client = -1;
  (void)state;
  (void)close(listener);
  if (address_connect(&client, &address) == STATUS_OK) {
    wait_for(client, POLLOUT);
    assert_int_equal(address_connect_result(client), STATUS_SYSTEM);
  }
  assert_int_equal(errno, ECONNREFUSED);
  (void)close(client);
}

// --- UNIX sockets ------------------------------------------------------------

static struct address unix_address(const char *path) {
  char text[256];
  (void)snprintf(text, sizeof(text), "unix:%s", path);
  return parse(text);
}

static void unix_socket_has_its_mode_and_replaces_a_dead_one(void **state) {
  const char *path = scratch_path("sock");
  struct address address = unix_address(path);
  struct stat info;
  struct errmsg err = {0};
  int other = -1;
  int listener = -1;
  (void)state;
  (void)close(listen_on(&address, false));  // the file stays behind
  assert_int_equal(stat(path, &info), 0);
  listener = listen_on(&address, false);
  assert_int_equal(stat(path, &info), 0);
  assert_int_equal(info.st_mode & 07777, 0600);
  meet(listener, &address);
  // A living one is not pushed aside.
  assert_int_equal(address_listen(&other, &address, false, 0600, &err), STATUS_SYSTEM);
  assert_int_equal(errno, EADDRINUSE);
  assert_non_null(strstr(err.text, path));
  // The look left a connection that ended at once; the next one is served.
  wait_for(listener, POLLIN);
  (void)close(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
  meet(listener, &address);
  (void)close(listener);
}

// Its server lives, but is slow: nobody may take its place.
static void unix_socket_with_a_full_queue_is_not_dead(void **state) {
  const char *path = scratch_path("sock");
  struct address address = unix_address(path);
  struct stat info;
  int clients[8];
  size_t num = 0;
  int fd = -1;
  int busy = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  (void)state;
  assert_int_equal(bind(busy, (struct sockaddr *)&address.storage, address.len), 0);
  assert_int_equal(listen(busy, 0), 0);
  while (num < 8 && address_connect(&clients[num], &address) == STATUS_OK) {
    num += 1;
  }
  assert_in_range(num, 1, 7);
  assert_int_equal(errno, EAGAIN);
  assert_int_equal(address_listen(&fd, &address, false, 0600, NULL), STATUS_SYSTEM);
  assert_int_equal(stat(path, &info), 0);
  while (num > 0) {
    (void)close(clients[--num]);
  }
  (void)close(busy);
}

static void unix_socket_never_replaces_a_file(void **state) {
  const char *path = scratch_path("file");
  struct address address = unix_address(path);
  char *text = NULL;
  int fd = -1;
  (void)state;
  scratch_write(path, "precious", 0600);
  assert_int_equal(address_listen(&fd, &address, false, 0600, NULL), STATUS_SYSTEM);
  text = scratch_read(path);
  assert_string_equal(text, "precious");
  free(text);
  // Nor what a link of that name points to.
  address = unix_address(scratch_path("link"));
  assert_int_equal(symlink(path, scratch_path("link")), 0);
  assert_int_equal(address_listen(&fd, &address, false, 0600, NULL), STATUS_SYSTEM);
  assert_int_equal(scratch_num_files(), 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formats_what_it_parsed),
      cmocka_unit_test(star_is_every_address),
      cmocka_unit_test(refuses_what_is_no_address),
      cmocka_unit_test(tells_local_addresses_from_others),
      cmocka_unit_test(refuses_a_path_longer_than_the_kernel_takes),
      cmocka_unit_test(splits_host_and_port),
      cmocka_unit_test(listens_and_connects_by_tcp),
      cmocka_unit_test(star_serves_both_families_and_brackets_only_one),
      cmocka_unit_test(workers_share_a_port_when_asked),
      cmocka_unit_test(refused_connection_has_its_reason),
      cmocka_unit_test_setup_teardown(unix_socket_has_its_mode_and_replaces_a_dead_one,
                                      scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(unix_socket_with_a_full_queue_is_not_dead, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(unix_socket_never_replaces_a_file, scratch_make,
                                      scratch_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
