// SPDX-License-Identifier: Apache-2.0
// The resolver asks a DNS server that is a thread of this test (RFC 1035,
// section 4). Names tell it what to answer:
//   two.test      A 192.0.2.1, A 192.0.2.2, AAAA 2001:db8::1
//   many.test     20 A records
//   empty.test    no records
//   silent.test   nothing at all
//   broken.test   SERVFAIL
//   any other     NXDOMAIN
#include "common/net/resolve.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"

#define LIMIT_MS 30000
#define HEADER_LEN 12
#define PACKET_MAX_LEN 512

enum { TYPE_A = 1, TYPE_AAAA = 28 };
enum { RCODE_OK = 0, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3 };

// --- the DNS server ----------------------------------------------------------

static struct server {
  pthread_t thread;
  int fd;
  struct address address;
  _Atomic int num_asked;
} server;

struct packet {
  uint8_t data[PACKET_MAX_LEN + 600];
  size_t len;
};

// The question's name as text in lower case; returns where the name ends.
static size_t read_name(const struct packet *packet, char name[256]) {
  size_t at = HEADER_LEN;
  size_t len = 0;
  while (at < packet->len && packet->data[at] != 0) {
    size_t label_len = packet->data[at++];
    for (size_t i = 0; i < label_len && at < packet->len && len < 254; i++) {
      name[len++] = (char)tolower(packet->data[at++]);
    }
    name[len++] = '.';
  }
  name[len > 0 ? len - 1 : 0] = '\0';
  return at + 1;
}

static void add_record(struct packet *packet, uint8_t type, const void *data, uint8_t len) {
  // The name as a pointer to the question's, class IN, TTL 60.
  const uint8_t head[12] = {0xc0, HEADER_LEN, 0, type, 0, 1, 0, 0, 0, 60, 0, len};
  memcpy(packet->data + packet->len, head, sizeof(head));
  memcpy(packet->data + packet->len + sizeof(head), data, len);
  packet->len += sizeof(head) + len;
  packet->data[7] = (uint8_t)(packet->data[7] + 1);  // ANCOUNT
}

static void add_numbered(struct packet *packet, uint8_t num) {
  for (uint8_t i = 1; i <= num; i++) {
    const uint8_t four[4] = {192, 0, 2, i};
    add_record(packet, TYPE_A, four, sizeof(four));
  }
}

// Makes the answer in place; false for none.
static bool answer(struct packet *packet) {
  static const uint8_t six[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
  char name[256];
  size_t name_end = read_name(packet, name);
  uint8_t type = packet->data[name_end + 1];

  packet->len = name_end + 4;
  packet->data[2] = 0x84;  // an answer, authoritative
  packet->data[3] = RCODE_OK;
  memset(packet->data + 6, 0, 6);
  if (strcmp(name, "silent.test") == 0) {
    return false;
  }
  if (strcmp(name, "broken.test") == 0) {
    packet->data[3] = RCODE_SERVFAIL;
  } else if (strcmp(name, "two.test") == 0) {
    if (type == TYPE_AAAA) {
      add_record(packet, TYPE_AAAA, six, sizeof(six));
    } else {
      add_numbered(packet, 2);
    }
  } else if (strcmp(name, "many.test") == 0) {
    add_numbered(packet, type == TYPE_A ? 20 : 0);
  } else if (strcmp(name, "empty.test") != 0) {
    packet->data[3] = RCODE_NXDOMAIN;
  }
  return true;
}

// Ends when it gets a packet without a question.
static void *serve(void *arg) {
  (void)arg;
  for (;;) {
    struct packet packet;
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    ssize_t n =
        recvfrom(server.fd, packet.data, PACKET_MAX_LEN, 0, (struct sockaddr *)&from, &from_len);
    if (n <= HEADER_LEN) {
      return NULL;
    }
    packet.len = (size_t)n;
    atomic_fetch_add(&server.num_asked, 1);
    if (answer(&packet)) {
      (void)sendto(server.fd, packet.data, packet.len, 0, (struct sockaddr *)&from, from_len);
    }
  }
}

static int start_server(void **state) {
  (void)state;
  server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (server.fd < 0 || address_parse(&server.address, "127.0.0.1:0", NULL) != STATUS_OK ||
      bind(server.fd, (struct sockaddr *)&server.address.storage, server.address.len) != 0 ||
      address_of_local(&server.address, server.fd) != STATUS_OK) {
    return -1;
  }
  return pthread_create(&server.thread, NULL, serve, NULL);
}

static int stop_server(void **state) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  (void)state;
  (void)sendto(fd, "", 1, 0, (struct sockaddr *)&server.address.storage, server.address.len);
  (void)pthread_join(server.thread, NULL);
  (void)close(fd);
  return close(server.fd);
}

// --- the resolver ------------------------------------------------------------

static struct loop *loop;
static struct resolver *resolver;
static struct timer limit;

static void on_limit(void *arg) {
  (void)arg;
  check_failed("the test ends in time", __FILE__, __LINE__);
}

static int make_resolver(void **state) {
  (void)state;
  if (loop_new(&loop) != STATUS_OK || timer_init(&limit, loop, on_limit, NULL) != STATUS_OK) {
    return -1;
  }
  timer_arm_ms(&limit, LIMIT_MS);
  return resolver_new_with(&resolver, loop, &server.address) == STATUS_OK ? 0 : -1;
}

static int free_resolver(void **state) {
  (void)state;
  timer_cleanup(&limit);
  resolver_free(resolver);
  loop_free(loop);
  resolver = NULL;
  return 0;
}

struct result {
  enum status st;
  size_t num;
  struct address addresses[RESOLVE_MAX_ADDRESSES];
  int num_calls;
};

static void on_result(void *arg, enum status st, const struct address *addresses, size_t num) {
  struct result *result = arg;
  result->st = st;
  result->num = num;
  memcpy(result->addresses, addresses, num * sizeof(addresses[0]));
  result->num_calls += 1;
  loop_stop(loop);
}

static struct result ask(const char *host) {
  struct result result = {.st = STATUS_NUM};
  struct resolve_query *query = NULL;
  assert_int_equal(resolver_query(&query, resolver, host, 443, on_result, &result), STATUS_OK);
  assert_int_equal(result.num_calls, 0);  // never before it returns
  loop_run(loop);
  assert_int_equal(result.num_calls, 1);
  return result;
}

static bool has_address(const struct result *result, const char *expected) {
  char text[ADDRESS_TEXT_LEN];
  for (size_t i = 0; i < result->num; i++) {
    if (strcmp(address_format(text, &result->addresses[i]), expected) == 0) {
      return true;
    }
  }
  return false;
}

static void finds_addresses_of_both_families(void **state) {
  struct result result = ask("two.test");
  (void)state;
  assert_int_equal(result.st, STATUS_OK);
  assert_int_equal(result.num, 3);
  assert_true(has_address(&result, "192.0.2.1:443"));
  assert_true(has_address(&result, "192.0.2.2:443"));
  assert_true(has_address(&result, "[2001:db8::1]:443"));
}

static void keeps_as_many_addresses_as_it_says(void **state) {
  struct result result = ask("many.test");
  (void)state;
  assert_int_equal(result.st, STATUS_OK);
  assert_int_equal(result.num, RESOLVE_MAX_ADDRESSES);
}

static void numeric_hosts_need_no_server(void **state) {
  int num_before = atomic_load(&server.num_asked);
  struct result four = ask("127.0.0.1");
  struct result six = ask("::1");
  (void)state;
  assert_int_equal(four.st, STATUS_OK);
  assert_true(has_address(&four, "127.0.0.1:443"));
  assert_true(has_address(&six, "[::1]:443"));
  assert_int_equal(atomic_load(&server.num_asked), num_before);
}

static void says_that_there_is_no_such_name(void **state) {
  struct result result = ask("none.test");
  (void)state;
  assert_int_equal(result.st, STATUS_NOT_FOUND);
  assert_int_equal(result.num, 0);
  result = ask("");
  assert_int_not_equal(result.st, STATUS_OK);
}

static void broken_server_is_told_from_a_missing_name(void **state) {
  struct result result = ask("broken.test");
  (void)state;
  assert_int_equal(result.st, STATUS_UNAVAILABLE);
  result = ask("empty.test");
  assert_int_equal(result.st, STATUS_UNAVAILABLE);
}

static void silent_server_ends_in_time(void **state) {
  int64_t begin_ms = clock_monotonic_ms();
  struct result result = ask("silent.test");
  (void)state;
  assert_int_equal(result.st, STATUS_UNAVAILABLE);
  assert_in_range(clock_monotonic_ms() - begin_ms, 1000, RESOLVE_LIMIT_MS + 2000);
}

// --- giving up ---------------------------------------------------------------

static void cancelled_query_stays_silent(void **state) {
  struct result cancelled = {0};
  struct result numeric = {0};
  struct resolve_query *query = NULL;
  (void)state;
  assert_int_equal(resolver_query(&query, resolver, "two.test", 1, on_result, &cancelled),
                   STATUS_OK);
  resolve_query_cancel(query);
  assert_int_equal(resolver_query(&query, resolver, "::1", 1, on_result, &numeric), STATUS_OK);
  resolve_query_cancel(query);
  assert_int_equal(ask("two.test").num, 3);
  assert_int_equal(ask("many.test").num, RESOLVE_MAX_ADDRESSES);
  assert_int_equal(cancelled.num_calls, 0);
  assert_int_equal(numeric.num_calls, 0);
  resolve_query_cancel(NULL);
}

static void freeing_the_resolver_ends_open_queries(void **state) {
  struct result open[3] = {{0}};
  struct resolve_query *query = NULL;
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(resolver_query(&query, resolver, i == 0 ? "silent.test" : "two.test", 1,
                                    on_result, &open[i]),
                     STATUS_OK);
  }
  resolver_free(resolver);
  resolver = NULL;
  loop_post(loop, (void (*)(void *))loop_stop, loop);
  loop_run(loop);
  assert_int_equal(open[0].num_calls + open[1].num_calls + open[2].num_calls, 0);
}

static void free_and_stop_later(void *arg, enum status st, const struct address *addresses,
                                size_t num) {
  (void)st;
  (void)addresses;
  (void)num;
  *(int *)arg += 1;
  resolver_free(resolver);
  resolver = NULL;
  loop_post(loop, (void (*)(void *))loop_stop, loop);
}

// In the round of one answer, while others are on their way.
static void resolver_may_be_freed_in_a_callback(void **state) {
  struct resolve_query *query = NULL;
  int num_calls = 0;
  (void)state;
  for (size_t i = 0; i < 8; i++) {
    assert_int_equal(resolver_query(&query, resolver, i % 2 == 0 ? "two.test" : "many.test", 1,
                                    free_and_stop_later, &num_calls),
                     STATUS_OK);
  }
  loop_run(loop);
  assert_int_equal(num_calls, 1);
}

// The machine's own settings, whatever they are: no name of the network is used.
static void system_resolver_knows_the_hosts_file(void **state) {
  struct result result = {0};
  struct resolver *other = NULL;
  struct resolve_query *query = NULL;
  (void)state;
  assert_int_equal(resolver_new(&other, loop), STATUS_OK);
  assert_int_equal(resolver_query(&query, other, "localhost", 80, on_result, &result), STATUS_OK);
  loop_run(loop);
  assert_int_equal(result.st, STATUS_OK);
  assert_true(has_address(&result, "127.0.0.1:80") || has_address(&result, "[::1]:80"));
  resolver_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_resolver, free_resolver)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(finds_addresses_of_both_families),
      TEST(keeps_as_many_addresses_as_it_says),
      TEST(numeric_hosts_need_no_server),
      TEST(says_that_there_is_no_such_name),
      TEST(broken_server_is_told_from_a_missing_name),
      TEST(silent_server_ends_in_time),
      TEST(cancelled_query_stays_silent),
      TEST(freeing_the_resolver_ends_open_queries),
      TEST(resolver_may_be_freed_in_a_callback),
      TEST(system_resolver_knows_the_hosts_file),
  };
  return cmocka_run_group_tests(tests, start_server, stop_server);
}
