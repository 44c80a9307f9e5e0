// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/keyclient/keyclient.h"
#include "tests/unit/common/base/scratch.h"

static char ca[256];
static char certificate[256];
static char key[256];

static void write_file(char path[256], const char *name, const char *content) {
  (void)snprintf(path, 256, "%s", scratch_path(name));
  scratch_write(path, content, 0600);
}

static int setup(void **state) {
  scratch_make(state);
  write_file(ca, "ca", "one");
  write_file(certificate, "certificate", "two");
  write_file(key, "key", "three");
  return 0;
}

static struct keyclient_config config_of(struct keyclient_server_config *servers) {
  return (struct keyclient_config){
      .servers = servers,
      .num_servers = 2,
      .tls = {.ca = ca, .certificate = certificate, .key = key},
      .deadline_ms = 1,
      .attempt_ms = 2,
      .connect_ms = 3,
      .num_connections = 4,
      .ping_ms = 5,
      .resolve_ms = 6,
      .hedge_percent = 7,
  };
}

static bool is_same(const struct keyclient_config *a, const uint8_t id[32]) {
  uint8_t of_a[32] = {0};
  struct errmsg err = {0};
  assert_int_equal(keyclient_config_id(of_a, a, &err), STATUS_OK);
  return memcmp(of_a, id, 32) == 0;
}

static void every_member_counts(void **state) {
  char first[] = "a:1";
  char second[] = "b:1";
  char name[] = "b";
  struct keyclient_server_config servers[] = {{first, NULL}, {second, NULL}};
  struct keyclient_server_config named[] = {{first, NULL}, {second, name}};
  struct keyclient_server_config swapped[] = {{second, NULL}, {first, NULL}};
  const struct keyclient_config config = config_of(servers);
  struct keyclient_config other = config;
  int64_t *const numbers[] = {&other.deadline_ms,     &other.attempt_ms, &other.connect_ms,
                              &other.num_connections, &other.ping_ms,    &other.resolve_ms,
                              &other.hedge_percent};
  struct errmsg err = {0};
  uint8_t id[32] = {0};
  (void)state;

  assert_int_equal(keyclient_config_id(id, &config, &err), STATUS_OK);
  assert_true(is_same(&other, id));
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    *numbers[i] += 1;
    assert_false(is_same(&other, id));
    other = config;
  }
  other.allow_tls12 = true;
  assert_false(is_same(&other, id));
  other = config;
  other.servers = named;
  assert_false(is_same(&other, id));
  other.servers = swapped;
  assert_false(is_same(&other, id));
  other = config;
  other.num_servers = 1;
  assert_false(is_same(&other, id));
}

static void files_count_by_their_content(void **state) {
  char address[] = "a:1";
  struct keyclient_server_config servers[] = {{address, NULL}, {address, NULL}};
  const struct keyclient_config config = config_of(servers);
  struct errmsg err = {0};
  uint8_t id[32] = {0};
  (void)state;

  assert_int_equal(keyclient_config_id(id, &config, &err), STATUS_OK);
  write_file(key, "key", "four");
  assert_false(is_same(&config, id));
  write_file(key, "key", "three");
  assert_true(is_same(&config, id));
  write_file(ca, "ca", "onetwo");  // the same bytes in another file are not the same
  write_file(certificate, "certificate", "");
  assert_false(is_same(&config, id));
}

static void with_revocation_lists_no_two_are_the_same(void **state) {
  char address[] = "a:1";
  char list[] = "crl";
  char *lists[] = {list};
  struct keyclient_server_config servers[] = {{address, NULL}, {address, NULL}};
  struct keyclient_config config = config_of(servers);
  struct errmsg err = {0};
  uint8_t id[32] = {0};
  (void)state;

  config.tls.crl = lists;
  config.tls.num_crl = 1;
  assert_int_equal(keyclient_config_id(id, &config, &err), STATUS_OK);
  assert_false(is_same(&config, id));
}

static void a_file_that_is_missing_is_named(void **state) {
  char address[] = "a:1";
  char nowhere[] = "/nowhere/key.pem";
  struct keyclient_server_config servers[] = {{address, NULL}, {address, NULL}};
  struct keyclient_config config = config_of(servers);
  struct errmsg err = {0};
  uint8_t id[32] = {0};
  (void)state;

  config.tls.key = nowhere;
  assert_int_equal(keyclient_config_id(id, &config, &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "key_servers.tls"));
  assert_non_null(strstr(err.text, nowhere));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(every_member_counts, setup, scratch_remove),
      cmocka_unit_test_setup_teardown(files_count_by_their_content, setup, scratch_remove),
      cmocka_unit_test_setup_teardown(with_revocation_lists_no_two_are_the_same, setup,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(a_file_that_is_missing_is_named, setup, scratch_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
