// SPDX-License-Identifier: Apache-2.0
#include "keyserver/rights.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <cmocka.h>

#include "keyserver/key_pattern.h"
#include "tests/unit/keyserver/fixture.h"

#define NS_PER_S INT64_C(1000000000)

static struct fixture fix;

static const char config[] =
    "{\"listen\": [\"127.0.0.1:0\"], \"key_folders\": [\"%s\"],"
    " \"tls\": {\"ca\": \"x\", \"certificate\": \"x\", \"key\": \"x\"},"
    " \"audit\": {\"path\": \"stderr\"},"
    " \"clients\": ["
    "  {\"label\": \"first\", \"names\": [\"two.test\", \"one.test\"], \"keys\": [\"label:p256\"],"
    "   \"purposes\": [\"tls13\"], \"rate_per_s\": 100},"
    "  {\"label\": \"second\", \"names\": [\"two.test\"], \"keys\": [\"name:*.test\"],"
    "   \"purposes\": [\"tls13\", \"tls12\"], \"rate_per_s\": 5, \"burst\": 1},"
    "  {\"label\": \"by-key\","
    "   \"spki_sha256\": [\"0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\"],"
    "   \"keys\": [\"*\"], \"purposes\": [\"csr\"]}]}";

static int setup(void **state) {
  (void)state;
  fixture_load(&fix, config);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fixture_cleanup(&fix);
  return 0;
}

static bool has_name(const void *arg, const char *name) { return strcasecmp(arg, name) == 0; }

static void pinned(struct client_rights *out, uint8_t last_byte) {
  uint8_t spki[32];
  for (uint8_t i = 0; i < 32; i++) {
    spki[i] = (uint8_t)(i + 1);
  }
  spki[31] = last_byte;
  rights_of_client(out, fix.rights, spki, has_name, "three.test");
}

static void client(struct client_rights *out, const char *name, uint8_t first_byte) {
  uint8_t spki[32];
  for (uint8_t i = 0; i < 32; i++) {
    spki[i] = (uint8_t)(i + first_byte);
  }
  rights_of_client(out, fix.rights, spki, has_name, name);
}

static const struct key *labelled(const char *label) {
  for (size_t i = 0; i < keystore_num_keys(fix.keys); i++) {
    if (strcmp(keystore_key(fix.keys, i)->label, label) == 0) {
      return keystore_key(fix.keys, i);
    }
  }
  fail_msg("no key %s", label);
  return NULL;
}

static const char *grant_of(const struct key_rights *rights, enum purpose purpose) {
  return rights->by_purpose[purpose] == NULL ? "-" : rights->by_purpose[purpose]->label;
}

static void collects_all_grants_of_a_client(void **state) {
  struct client_rights rights;
  (void)state;
  client(&rights, "one.test", 9);
  assert_int_equal(rights.num_grants, 1);
  client(&rights, "TWO.test", 9);
  assert_int_equal(rights.num_grants, 2);
  client(&rights, "two.test", 1);
  assert_int_equal(rights.num_grants, 3);
  client(&rights, "three.test", 9);
  assert_int_equal(rights.num_grants, 0);
  pinned(&rights, 32);
  assert_int_equal(rights.num_grants, 1);
  pinned(&rights, 33);
  assert_int_equal(rights.num_grants, 0);
}

static void takes_the_first_grant_that_allows(void **state) {
  struct client_rights rights;
  struct key_rights p256;
  struct key_rights rsa;
  (void)state;

  client(&rights, "two.test", 9);
  rights_of_key(&p256, &rights, labelled("p256"));
  rights_of_key(&rsa, &rights, labelled("rsa"));
  assert_string_equal(grant_of(&p256, PURPOSE_TLS13), "first");
  assert_string_equal(grant_of(&p256, PURPOSE_TLS12), "second");
  assert_string_equal(grant_of(&rsa, PURPOSE_TLS13), "second");
  assert_string_equal(grant_of(&rsa, PURPOSE_DC), "-");
  assert_string_equal(grant_of(&rsa, PURPOSE_BLIND), "-");
  assert_string_equal(grant_of(&rsa, PURPOSE_NONE), "-");
}

static void gives_nothing_without_a_grant(void **state) {
  struct client_rights rights = {0};
  struct key_rights key;
  (void)state;
  client(&rights, "three.test", 9);
  rights_of_key(&key, &rights, labelled("p256"));
  for (int p = 0; p < PURPOSE_NUM; p++) {
    assert_null(key.by_purpose[p]);
  }
}

static int take(struct grant *grant, int64_t now_ns, int num) {
  int taken = 0;
  for (int i = 0; i < num; i++) {
    taken += rate_limit_take(&grant->rate, now_ns) ? 1 : 0;
  }
  return taken;
}

static void keeps_to_rate_and_burst(void **state) {
  struct client_rights rights;
  struct grant *hundred = NULL;
  struct grant *five = NULL;
  int taken = 0;
  (void)state;

  client(&rights, "two.test", 9);
  hundred = rights.grants[0];
  five = rights.grants[1];
  // No burst given: as many as in a second.
  assert_int_equal(take(hundred, 1000 * NS_PER_S, 1000), 100);
  assert_int_equal(take(hundred, 1000 * NS_PER_S + NS_PER_S / 10, 1000), 10);
  assert_int_equal(take(hundred, 5000 * NS_PER_S, 1000), 100);
  // A burst of one: evenly spaced.
  for (int64_t ms = 0; ms < 2000; ms += 10) {
    taken += take(five, 1000 * NS_PER_S + ms * 1000000, 3);
  }
  assert_int_equal(taken, 10);
}

static void does_not_limit_without_a_rate(void **state) {
  struct client_rights rights;
  (void)state;
  client(&rights, "three.test", 1);
  assert_int_equal(take(rights.grants[0], 1, 100000), 100000);
}

static void *take_many(void *arg) { return (void *)(intptr_t)take(arg, 9000 * NS_PER_S, 10000); }

static void counts_right_with_several_threads(void **state) {
  struct client_rights rights;
  pthread_t threads[4];
  int taken = 0;
  (void)state;

  client(&rights, "one.test", 9);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, take_many, rights.grants[0]), 0);
  }
  for (int i = 0; i < 4; i++) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    taken += (int)(intptr_t)result;
  }
  assert_int_equal(taken, 100);
}

// --- patterns ---------------------------------------------------------------------

static bool fits(const char *text, const struct key *key) {
  struct key_pattern pattern;
  assert_int_equal(key_pattern_parse(&pattern, text, NULL), STATUS_OK);
  return key_pattern_fits(&pattern, key);
}

static void patterns_fit_what_they_say(void **state) {
  static char name_1[] = "www.example.org";
  static char name_2[] = "*.wild.test";
  static char label[] = "shop";
  char *names[] = {name_1, name_2};
  struct key key = {.label = label, .names = names, .num_names = 2};
  (void)state;

  memset(key.ski, 0xAB, sizeof key.ski);
  assert_true(fits("*", &key));
  assert_true(fits("label:shop", &key));
  assert_false(fits("label:sho", &key));
  assert_false(fits("label:shop2", &key));
  assert_true(fits("ski:ABababababababababababababababababababab", &key));
  assert_false(fits("ski:abababababababababababababababababababac", &key));
  assert_true(fits("name:WWW.example.org", &key));
  assert_true(fits("name:*.example.org", &key));
  assert_true(fits("name:*.org", &key));
  assert_true(fits("name:*.wild.test", &key));
  assert_false(fits("name:a.wild.test", &key));
  assert_false(fits("name:example.org", &key));
  assert_false(fits("name:*.ample.org", &key));
  assert_false(fits("name:*.www.example.org", &key));
  assert_false(fits("name:shop", &key));
}

static void refuses_patterns_that_are_none(void **state) {
  static const char *const bad[] = {
      "", "shop", "label:", "name:", "ski:", "ski:ab", "SKI:ab", "*x", "label", "kind:x"};
  struct key_pattern pattern;
  struct errmsg err;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(key_pattern_parse(&pattern, bad[i], &err), STATUS_CONFIG);
    assert_non_null(strstr(err.text, bad[i]));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(collects_all_grants_of_a_client),
      cmocka_unit_test(takes_the_first_grant_that_allows),
      cmocka_unit_test(gives_nothing_without_a_grant),
      cmocka_unit_test(keeps_to_rate_and_burst),
      cmocka_unit_test(does_not_limit_without_a_rate),
      cmocka_unit_test(counts_right_with_several_threads),
      cmocka_unit_test(patterns_fit_what_they_say),
      cmocka_unit_test(refuses_patterns_that_are_none),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
