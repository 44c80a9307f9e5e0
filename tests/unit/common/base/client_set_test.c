// SPDX-License-Identifier: Apache-2.0
#include "common/base/client_set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static char *text(const char *t) { return (char *)(uintptr_t)t; }

static bool has_name(const void *arg, const char *name) { return strcmp(arg, name) == 0; }

static void has_clients_by_name_and_by_key(void **state) {
  char *names[] = {text("a.test"), text("b.test")};
  char *hashes[] = {text("00000000000000000000000000000000000000000000000000000000000000Ff")};
  const struct client_set_options options = {
      .names = names, .num_names = 2, .spki_sha256 = hashes, .num_spki_sha256 = 1};
  struct client_set set = {0};
  struct errmsg err = {0};
  uint8_t spki[32] = {0};
  (void)state;
  assert_int_equal(client_set_read(&set, &options, &err), STATUS_OK);
  assert_true(client_set_has(&set, spki, has_name, "b.test"));
  assert_false(client_set_has(&set, spki, has_name, "c.test"));
  spki[31] = 0xff;
  assert_true(client_set_has(&set, spki, has_name, "c.test"));
  client_set_cleanup(&set);
  assert_false(client_set_has(&set, spki, has_name, "a.test"));
}

static void refuses_nobody_and_what_is_no_hash(void **state) {
  char *bad[] = {text(""), text("zz"),
                 text("00000000000000000000000000000000000000000000000000000000000000f"),
                 text("00000000000000000000000000000000000000000000000000000000000000ff0")};
  struct client_set_options options = {0};
  struct client_set set = {0};
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(client_set_read(&set, &options, &err), STATUS_CONFIG);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    options = (struct client_set_options){.spki_sha256 = &bad[i], .num_spki_sha256 = 1};
    assert_int_equal(client_set_read(&set, &options, &err), STATUS_CONFIG);
    assert_non_null(strstr(err.text, "64 hex digits"));
    assert_null(set.spki_sha256);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(has_clients_by_name_and_by_key),
      cmocka_unit_test(refuses_nobody_and_what_is_no_hash),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
