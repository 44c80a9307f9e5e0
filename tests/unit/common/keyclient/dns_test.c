// SPDX-License-Identifier: Apache-2.0
// A key server's name and its addresses, by a DNS server (RFC 1035) that is a socket on the
// same loop: it answers A queries with the addresses in `answers`, last octets of 127.0.0.x.
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/net/address.h"
#include "tests/unit/common/keyclient/stand.h"

#define HEADER_LEN 12
#define TYPE_A 1
#define SERVFAIL 2

static struct {
  int fd;
  struct io io;
  struct address address;
  uint8_t answers[4];
  size_t num_answers;
  bool is_broken;
  unsigned num_asked;
} dns;

static void answer(uint8_t *packet, size_t len, size_t max, const struct sockaddr_in *from) {
  size_t at = HEADER_LEN;
  uint16_t type = 0;

  while (at < len && packet[at] != 0) {
    at += 1u + packet[at];
  }
  at += 5;  // the root label, type, class
  if (at > len) {
    return;
  }
  type = (uint16_t)(packet[at - 4] << 8 | packet[at - 3]);
  packet[2] = 0x84;
  packet[3] = dns.is_broken ? SERVFAIL : 0;
  memset(packet + 6, 0, 6);
  for (size_t i = 0; !dns.is_broken && type == TYPE_A && i < dns.num_answers; i++) {
    const uint8_t record[] = {0xc0, HEADER_LEN, 0, TYPE_A, 0,   1, 0, 0,
                              0,    60,         0, 4,      127, 0, 0, dns.answers[i]};
    assert_true(at + sizeof record <= max);
    memcpy(packet + at, record, sizeof record);
    at += sizeof record;
    packet[7]++;
  }
  (void)sendto(dns.fd, packet, at, 0, (const struct sockaddr *)from, sizeof *from);
}

static void on_query(void *arg, unsigned ready) {
  uint8_t packet[512];
  struct sockaddr_in from;
  socklen_t from_len = sizeof from;
  ssize_t len = 0;

  (void)arg;
  (void)ready;
  while ((len = recvfrom(dns.fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &from_len)) >
         HEADER_LEN) {
    dns.num_asked++;
    answer(packet, (size_t)len, sizeof packet, &from);
  }
}

static int setup_dns(void **state) {
  (void)setup(state);
  memset(&dns, 0, sizeof dns);
  dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  assert_int_equal(address_parse(&dns.address, "127.0.0.1:0", NULL), STATUS_OK);
  assert_int_equal(bind(dns.fd, (struct sockaddr *)&dns.address.storage, dns.address.len), 0);
  assert_int_equal(address_of_local(&dns.address, dns.fd), STATUS_OK);
  assert_int_equal(io_init(&dns.io, loop, dns.fd, on_query, NULL), STATUS_OK);
  return 0;
}

static int teardown_dns(void **state) {
  keyclient_free(kc);
  kc = NULL;
  io_close(&dns.io);
  return teardown(state);
}

static void set_answers(size_t num, const uint8_t *last_octets) {
  memcpy(dns.answers, last_octets, num);
  dns.num_answers = num;
}

// start starts the fakes 0 to num - 1 at 127.0.0.1, .2, .3, on one port, and a client that
// knows them by one name.
static void start(size_t num) {
  static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3"};
  static char name[] = "keys.test";
  static char text[32];

  for (size_t i = 0; i < num; i++) {
    fakes[i].host = hosts[i];
    fakes[i].port = fakes[0].port;
    start_fake((int)i, FAKE_SIGN);
  }
  (void)snprintf(text, sizeof text, "keys.stand.test:%u", fakes[0].port);
  servers[0].address = text;
  servers[0].name = name;
  config.num_servers = 1;
  config.resolve_ms = 100;
  start_configured(&dns.address);
}

static bool have_peers(const unsigned num[NUM_FAKES]) {
  for (int i = 0; i < NUM_FAKES; i++) {
    if (fakes[i].loop != NULL && fake_keyserver_num_peers(&fakes[i]) != num[i]) {
      return false;
    }
  }
  return true;
}

static unsigned want_peers[NUM_FAKES];
static bool are_peers_there(void) { return have_peers(want_peers); }
static void run_until_peers(unsigned a, unsigned b, unsigned c) {
  want_peers[0] = a;
  want_peers[1] = b;
  want_peers[2] = c;
  run_until(are_peers_there);
}

static void ask_many(unsigned num) {
  for (unsigned i = 0; i < num; i++) {
    (void)ask();
    assert_answers(1, STATUS_OK);
  }
}

static const struct keyclient_stats *stats(void) { return keyclient_stats(kc); }

// --- tests ---------------------------------------------------------------------------------

static void uses_all_addresses(void **state) {
  (void)state;
  config.num_connections = 2;
  set_answers(3, (uint8_t[]){1, 2, 3});
  start(3);
  run_until_peers(1, 1, 1);
  ask_many(12);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(fakes[i].num_requests, 4);
  }
}

static void spreads_connections(void **state) {
  (void)state;
  config.num_connections = 4;
  set_answers(2, (uint8_t[]){1, 2});
  start(2);
  run_until_peers(2, 2, 0);
}

static void connects_to_an_address_that_is_new(void **state) {
  (void)state;
  config.num_connections = 2;
  set_answers(1, (uint8_t[]){1});
  start(2);
  run_until_peers(2, 0, 0);
  set_answers(2, (uint8_t[]){1, 2});
  run_until_peers(1, 1, 0);
  assert_int_equal(counter_get(&stats()->num_disconnects), 0);
}

// The server knows of a connection before the client may use it.
static bool has_connected_twice(void) { return counter_get(&stats()->num_connects) == 2; }

static void drains_an_address_that_left(void **state) {
  (void)state;
  set_answers(1, (uint8_t[]){1});
  start(2);
  run_until_peers(1, 0, 0);
  fakes[0].manner = FAKE_LATE;
  fakes[0].delay_ms = 2500;
  (void)ask();
  set_answers(1, (uint8_t[]){2});
  run_until_peers(1, 1, 0);  // it owes an answer
  run_until(has_connected_twice);
  assert_int_equal(got.num, 0);
  ask_many(1);  // by the new one
  assert_int_equal(fakes[1].num_requests, 1);
  run_until_peers(0, 1, 0);
  run_until_answered(1);
  assert_int_equal(got.st[0], STATUS_OK);
  forget_answers();
  ask_many(5);
  assert_int_equal(fakes[0].num_requests, 1);
  // All without an error.
  assert_int_equal(counter_get(&stats()->num_disconnects), 0);
  assert_int_equal(counter_get(&stats()->num_connect_failed), 0);
  assert_int_equal(counter_get(&stats()->num_late_replies), 0);
  assert_int_equal(counter_get(&keyclient_server_stats(kc, 0)->num_drained), 1);
}

// What left is used until what came can be: a wrong answer of DNS takes nothing away.
static bool is_new_address_tried(void) { return counter_get(&stats()->num_connect_failed) > 1; }

static void keeps_an_address_until_there_is_another(void **state) {
  (void)state;
  set_answers(1, (uint8_t[]){1});
  start(1);
  run_until_peers(1, 0, 0);
  set_answers(1, (uint8_t[]){9});  // nobody is there
  run_until(is_new_address_tried);
  ask_many(3);
  assert_int_equal(fakes[0].num_requests, 3);
}

static bool has_dns_failed(void) { return counter_get(&stats()->num_resolve_failed) > 0; }

static void knows_the_addresses_when_dns_fails(void **state) {
  (void)state;
  set_answers(1, (uint8_t[]){1});
  start(1);
  run_until_peers(1, 0, 0);
  dns.is_broken = true;
  run_until(has_dns_failed);
  ask_many(1);
  fake_keyserver_drop(&fakes[0]);
  run_until_ready(0);
  run_until_ready(1);
  ask_many(1);
}

static void waits_for_dns(void **state) {
  (void)state;
  dns.is_broken = true;
  start(1);
  run_until(has_dns_failed);
  assert_int_equal(keyclient_num_ready(kc), 0);
  set_answers(1, (uint8_t[]){1});
  dns.is_broken = false;
  run_until_ready(1);
  ask_many(1);
}

// One address of several is dead (as ::1 of a host that has IPv4 only): nothing is slower.
static void does_without_a_dead_address(void **state) {
  (void)state;
  config.num_connections = 2;
  set_answers(2, (uint8_t[]){1, 9});
  start(1);
  run_until_peers(2, 0, 0);
  assert_in_range(counter_get(&stats()->num_connect_failed), 1, 3);
  ask_many(3);
  assert_int_equal(counter_get(&keyclient_server_stats(kc, 0)->breaker), BREAKER_CLOSED);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_dns, teardown_dns)
  const struct CMUnitTest tests[] = {
      TEST(uses_all_addresses),
      TEST(spreads_connections),
      TEST(connects_to_an_address_that_is_new),
      TEST(drains_an_address_that_left),
      TEST(keeps_an_address_until_there_is_another),
      TEST(knows_the_addresses_when_dns_fails),
      TEST(waits_for_dns),
      TEST(does_without_a_dead_address),
  };
  return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
