// SPDX-License-Identifier: Apache-2.0
#include "common/net/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static bool has(const char *text, const char *host) {
  struct network network;
  struct errmsg err = {0};
  struct sockaddr_storage storage = {0};
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
  if (network_parse(&network, text, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  if (strcmp(host, "unix") == 0) {
    storage.ss_family = AF_UNIX;
  } else if (inet_pton(AF_INET, host, &in.sin_addr) == 1) {
    memcpy(&storage, &in, sizeof(in));
  } else {
    assert_int_equal(inet_pton(AF_INET6, host, &in6.sin6_addr), 1);
    memcpy(&storage, &in6, sizeof(in6));
  }
  return network_has(&network, (const struct sockaddr *)&storage);
}

static void ends_of_ranges_are_exact(void **state) {
  (void)state;
  assert_true(has("10.0.0.0/8", "10.0.0.0") && has("10.0.0.0/8", "10.255.255.255"));
  assert_false(has("10.0.0.0/8", "9.255.255.255") || has("10.0.0.0/8", "11.0.0.0"));
  assert_true(has("192.0.2.128/25", "192.0.2.128") && has("192.0.2.128/25", "192.0.2.255"));
  assert_false(has("192.0.2.128/25", "192.0.2.127"));
  assert_true(has("192.0.2.4/31", "192.0.2.5"));
  assert_false(has("192.0.2.4/31", "192.0.2.6"));
  assert_true(has("192.0.2.1", "192.0.2.1"));
  assert_false(has("192.0.2.1", "192.0.2.0"));
  assert_true(has("0.0.0.0/0", "255.1.2.3"));
  assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
  assert_false(has("2001:db8::/33", "2001:db8:8000::"));
  assert_true(has("::1", "::1"));
  assert_false(has("::1/128", "::2"));
}

static void families_do_not_mix(void **state) {
  (void)state;
  assert_true(has("192.0.2.0/24", "::ffff:192.0.2.7"));
  assert_false(has("192.0.2.0/24", "::ffff:192.0.3.7"));
  assert_false(has("::/0", "192.0.2.7") || has("::/0", "::ffff:192.0.2.7"));
  assert_false(has("0.0.0.0/0", "::1") || has("0.0.0.0/0", "unix") || has("::/0", "unix"));
  assert_true(has("unix", "unix"));
  assert_false(has("unix", "127.0.0.1"));
}

static void refuses_what_is_no_network(void **state) {
  const char *const texts[] = {
      "",       "10.0.0.0/33",    "10.0.0.0/",    "10.0.0.0/-1", "10.0.0/8", "10.0.0.1/8",
      "::/129", "2001:db8::1/64", "10.0.0.0/8x",  "10.0.0.0/ 8", "[::1]",    "localhost",
      "/8",     "unix:",          "192.0.2.1:80", "10.0.0.0/8/8"};
  struct network network;
  struct errmsg err = {0};
  (void)state;
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    err = (struct errmsg){0};
    assert_int_equal(network_parse(&network, texts[i], &err), STATUS_FORMAT);
    assert_true(err.text[0] != '\0');
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ends_of_ranges_are_exact),
      cmocka_unit_test(families_do_not_mix),
      cmocka_unit_test(refuses_what_is_no_network),
  };
  return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
