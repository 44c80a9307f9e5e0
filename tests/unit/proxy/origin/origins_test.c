// SPDX-License-Identifier: Apache-2.0
// The registry of origins with a DNS server on the same loop, which answers with
// what the test says at the moment.
#include "proxy/origin/origins.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "proxy/origin/origins_internal.h"
#include "proxy/site.h"

#define HEADER_LEN 12
#define NOTHING 0xff  // as an answer: SERVFAIL
#define LIMIT_MS 30000
#define ROUND_MS 20

static struct {
  struct io io;
  int fd;
  struct address address;
  uint8_t hosts[4];  // of 192.0.2.x, ended by 0
  unsigned num_asked;
} dns;

static struct loop *loop;
static struct origins *origins;
static struct origin_pool pool;
static struct pool_options options;
static struct server_options servers[2];
static struct site site;
static struct timer tick;
static struct timer end;
static bool (*is_done)(void);

// --- DNS (RFC 1035, section 4) ------------------------------------------------------

static void on_question(void *arg, unsigned ready) {
  uint8_t data[512 + 64];
  struct sockaddr_storage from;
  socklen_t from_len = sizeof(from);
  (void)arg;
  (void)ready;
  while (recvfrom(dns.fd, data, 512, 0, (struct sockaddr *)&from, &from_len) > HEADER_LEN) {
    // The question is one name, type, class; its type is the byte before the class's two.
    size_t len = HEADER_LEN;
    bool is_a = false;
    while (data[len] != 0) {
      len += 1u + data[len];
    }
    len += 5;
    is_a = data[len - 3] == 1;
    data[2] = 0x81;
    data[3] = dns.hosts[0] == NOTHING ? 0x82 : 0x80;
    memset(data + 6, 0, 6);
    for (size_t i = 0; is_a && dns.hosts[0] != NOTHING && dns.hosts[i] != 0; i++) {
      const uint8_t record[] = {0xc0, HEADER_LEN, 0, 1, 0,   1, 0, 0,
                                0,    60,         0, 4, 192, 0, 2, dns.hosts[i]};
      memcpy(data + len, record, sizeof(record));
      len += sizeof(record);
      data[7] += 1;
    }
    dns.num_asked += 1;
    (void)sendto(dns.fd, data, len, 0, (struct sockaddr *)&from, from_len);
  }
}

static void answer_with(uint8_t a, uint8_t b) {
  dns.hosts[0] = a;
  dns.hosts[1] = b;
  dns.hosts[2] = 0;
}

static bool dns_init(void) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  dns.address.len = sizeof(in);
  dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return dns.fd >= 0 && bind(dns.fd, (struct sockaddr *)&in, sizeof(in)) == 0 &&
         getsockname(dns.fd, (struct sockaddr *)&dns.address.storage, &dns.address.len) == 0 &&
         io_init(&dns.io, loop, dns.fd, on_question, NULL) == STATUS_OK;
}

// --- the loop -------------------------------------------------------------------------

static void on_tick(void *arg) {
  (void)arg;
  if (is_done()) {
    loop_stop(loop);
  } else {
    timer_arm_ms(&tick, ROUND_MS);
  }
}

static void on_end(void *arg) {
  (void)arg;
  loop_stop(loop);
}

static void run_until(bool (*done)(void)) {
  is_done = done;
  timer_arm_ms(&tick, 0);
  timer_arm_ms(&end, LIMIT_MS);
  loop_run(loop);
  assert_true(done());
}

static int set_up(void **state) {
  (void)state;
  if (loop_new(&loop) != STATUS_OK || timer_init(&tick, loop, on_tick, NULL) != STATUS_OK ||
      timer_init(&end, loop, on_end, NULL) != STATUS_OK || !dns_init() ||
      origins_new(&origins, loop) != STATUS_OK ||
      resolver_new_with(&origins->resolver, loop, &dns.address) != STATUS_OK) {
    return -1;
  }
  servers[0] = (struct server_options){.address = (char *)(uintptr_t) "app.test:80", .weight = 1};
  servers[1] = (struct server_options){.address = (char *)(uintptr_t) "127.0.0.1:1", .weight = 2};
  options = (struct pool_options){.name = (char *)(uintptr_t) "web",
                                  .servers = servers,
                                  .num_servers = 1,
                                  .resolve_ms = ROUND_MS,
                                  .max_failures = 1,
                                  .retry_min_ms = LIMIT_MS,
                                  .retry_max_ms = LIMIT_MS,
                                  .check.timeout_ms = 1000};
  site = (struct site){.pools = &pool, .num_pools = 1};
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  origins_pool_cleanup(&pool);
  origins_free(origins);
  io_close(&dns.io);
  timer_cleanup(&tick);
  timer_cleanup(&end);
  loop_free(loop);
  return 0;
}

static void start(void) {
  struct errmsg err = {0};
  assert_int_equal(origins_pool_init(origins, &pool, &options, 0, &err), STATUS_OK);
  origins_set_site(origins, &site);
}

// The endpoint 192.0.2.`last` of the pool's set; NULL: none.
static struct endpoint *find(uint8_t last) {
  const struct origin_set *set = origin_pool_set(&pool);
  for (size_t i = 0; i < set->num; i++) {
    const struct sockaddr_in *in =
        (const struct sockaddr_in *)&set->places[i].endpoint->address.storage;
    if ((ntohl(in->sin_addr.s_addr) & 0xff) == last && ntohs(in->sin_port) == 80) {
      return set->places[i].endpoint;
    }
  }
  return NULL;
}

static bool has_1_and_2(void) { return find(1) != NULL && find(2) != NULL; }
static bool has_2_and_3(void) { return find(1) == NULL && find(2) != NULL && find(3) != NULL; }
static bool is_resolved(void) { return !atomic_load(&pool.is_resolving); }
static bool was_asked_often(void) { return dns.num_asked > 8; }
static bool none_is_leaving(void) { return origins->leaving == NULL; }

// --- tests ----------------------------------------------------------------------------

static void names_are_looked_up_again(void **state) {
  struct endpoint *leaving = NULL;
  struct endpoint *staying = NULL;
  (void)state;
  answer_with(1, 2);
  start();
  assert_false(is_resolved());
  assert_int_equal(origin_pool_set(&pool)->num, 0);
  run_until(has_1_and_2);
  assert_true(is_resolved());
  // A connection counts in one that goes; what is known of one that stays is kept.
  leaving = find(1);
  staying = find(2);
  atomic_fetch_add(&leaving->num_open, 1);
  atomic_store(&staying->state, ENDPOINT_OUT);
  answer_with(3, 2);
  run_until(has_2_and_3);
  assert_ptr_equal(find(2), staying);
  assert_int_equal(atomic_load(&staying->state), ENDPOINT_OUT);
  assert_int_equal(origin_pool_set(&pool)->num, 2);
  assert_ptr_equal(origins->leaving, leaving);
  assert_string_equal(leaving->origin->address, "app.test:80");
  atomic_fetch_sub(&leaving->num_open, 1);
  run_until(none_is_leaving);
}

static void what_is_known_stays_when_dns_fails(void **state) {
  (void)state;
  answer_with(1, 2);
  start();
  run_until(has_1_and_2);
  answer_with(NOTHING, 0);
  dns.num_asked = 0;
  run_until(was_asked_often);
  assert_true(has_1_and_2());
}

static void a_first_failure_ends_the_waiting(void **state) {
  (void)state;
  answer_with(NOTHING, 0);
  options.num_servers = 2;
  start();
  assert_false(is_resolved());
  assert_int_equal(origin_pool_set(&pool)->num, 1);
  run_until(is_resolved);
  assert_int_equal(origin_pool_set(&pool)->num, 1);
  answer_with(1, 2);
  run_until(has_1_and_2);
  assert_int_equal(origin_pool_set(&pool)->num, 3);
  assert_false(origin_pool_set(&pool)->is_even);
}

static void a_reload_keeps_what_is_the_same(void **state) {
  struct origin_pool before;
  struct errmsg err = {0};
  struct endpoint *kept = NULL;
  (void)state;
  answer_with(1, 2);
  start();
  run_until(has_1_and_2);
  kept = find(1);
  atomic_fetch_add(&kept->num_open, 1);
  counter_add(&kept->origin->num_connected, 7);
  // A second site, then the end of the first. (A pool knows its own place: no copies.)
  assert_int_equal(origins_pool_init(origins, &before, &options, 0, &err), STATUS_OK);
  site.pools = &before;
  origins_set_site(origins, &site);
  origins_pool_cleanup(&pool);
  assert_int_equal(origin_pool_set(&before)->num, 2);
  assert_int_equal(counter_get(&kept->origin->num_connected), 7);
  assert_ptr_equal(origins->all->endpoints->origin, kept->origin);
  assert_null(origins->leaving);
  // Without any site it is gone, once its connection is.
  origins_pool_cleanup(&before);
  assert_non_null(origins->leaving);
  assert_int_equal(counter_get(&kept->origin->num_connected), 7);
  atomic_fetch_sub(&kept->num_open, 1);
  run_until(none_is_leaving);
  assert_null(origins->all);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(names_are_looked_up_again, set_up, tear_down),
      cmocka_unit_test_setup_teardown(what_is_known_stays_when_dns_fails, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_first_failure_ends_the_waiting, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_reload_keeps_what_is_the_same, set_up, tear_down),
  };
  return cmocka_run_group_tests_name("origins", tests, NULL, NULL);
}
