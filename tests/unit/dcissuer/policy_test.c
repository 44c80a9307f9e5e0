// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <cmocka.h>

#define SECOND INT64_C(1000000000)  // in ns

static char *text(const char *t) { return (char *)(uintptr_t)t; }

// One grant with these hosts, for the client "a.test".
static struct policy *policy_of(struct client_options *client, char **hosts, size_t num_hosts) {
  static char *names[] = {NULL};
  struct options options = {.clients = client, .num_clients = 1};
  struct policy *policy = NULL;
  struct errmsg err = {0};
  names[0] = text("A.test");
  client->label = text("label");
  client->who.names = names;
  client->who.num_names = 1;
  client->hosts = hosts;
  client->num_hosts = num_hosts;
  client->max_lifetime_ms = client->max_lifetime_ms == 0 ? 3600000 : client->max_lifetime_ms;
  assert_int_equal(policy_new(&policy, &options, &err), STATUS_OK);
  return policy;
}

static bool has_name(const void *arg, const char *name) { return strcasecmp(arg, name) == 0; }

static struct grant *grant_of(const struct policy *policy, const char *client) {
  static const uint8_t spki[32] = {0};
  struct client_rights rights;
  policy_of_client(&rights, policy, spki, has_name, client);
  return rights.num_grants == 0 ? NULL : rights.grants[0];
}

static void patterns_cover_what_they_say(void **state) {
  static const struct {
    const char *pattern;
    const char *name;
    bool covers;
  } cases[] = {
      {"demo.test", "demo.test", true},
      {"demo.test", "a.demo.test", false},
      {"demo.test", "demo.test.evil", false},
      {"demo.test", "xdemo.test", false},
      {"demo.test", "*.demo.test", false},
      {"*.test", "demo.test", true},
      {"*.test", "a.b.test", true},
      {"*.test", "*.test", true},
      {"*.test", "*.a.test", true},
      {"*.test", "test", false},
      {"*.test", ".test", false},
      {"*.test", "demo.test.evil", false},
      {"*.test", "demotest", false},
      {"*.a.test", "*.test", false},
      {"*.a.test", "b.test", false},
      {"*.a.test", "xa.test", false},
      {"*", "anything", true},
      {"*", "*", true},
      {"*", "", true},
      {"*.test", "", false},
      {"*.test", "*", false},
      {"127.0.0.1", "127.0.0.1", true},
      {"*.0.1", "127.0.0.1", true},  // whoever writes that means it
  };
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct client_options client = {0};
    char *hosts[] = {text(cases[i].pattern)};
    struct policy *policy = policy_of(&client, hosts, 1);
    if (grant_covers(grant_of(policy, "a.test"), cases[i].name) != cases[i].covers) {
      fail_msg("%s, %s", cases[i].pattern, cases[i].name);
    }
    policy_free(policy);
  }
}

static void finds_one_of_many(void **state) {
  enum { NUM = 3000 };
  static char texts[NUM][32];
  static char *hosts[NUM];
  struct client_options client = {0};
  struct policy *policy = NULL;
  struct grant *grant = NULL;
  char name[64];
  (void)state;
  for (int i = 0; i < NUM; i++) {
    (void)snprintf(texts[i], sizeof(texts[i]), "%s%d.test", i % 2 == 0 ? "" : "*.", i * 7919 % NUM);
    hosts[i] = texts[i];
  }
  policy = policy_of(&client, hosts, NUM);
  grant = grant_of(policy, "a.test");
  for (int i = 0; i < NUM; i++) {
    (void)snprintf(name, sizeof(name), "%s%d.test", i % 2 == 0 ? "" : "a.b.", i * 7919 % NUM);
    assert_true(grant_covers(grant, name));
    (void)snprintf(name, sizeof(name), "%s%dx.test", i % 2 == 0 ? "" : "a.b.", i * 7919 % NUM);
    assert_false(grant_covers(grant, name));
  }
  policy_free(policy);
}

static void default_is_to_deny(void **state) {
  struct client_options client = {0};
  char *hosts[] = {text("Demo.TEST")};
  struct policy *policy = policy_of(&client, hosts, 1);
  struct grant *grant = grant_of(policy, "a.test");
  (void)state;
  assert_non_null(grant);
  assert_true(grant_covers(grant, "demo.test"));
  assert_false(grant_covers(grant, "other.test"));
  assert_null(grant_of(policy, "b.test"));
  assert_int_equal(grant->max_lifetime_s, 3600);
  assert_true(grant_has_scheme(grant, scheme_by_name("ecdsa_secp256r1_sha256")));
  assert_false(grant_has_scheme(grant, scheme_by_name("ecdsa_secp384r1_sha384")));
  policy_free(policy);
}

static void clients_are_known_by_key_too(void **state) {
  char *hashes[] = {text("00000000000000000000000000000000000000000000000000000000000000Ff")};
  char *hosts[] = {text("*")};
  struct client_options client = {.label = text("x"),
                                  .who.spki_sha256 = hashes,
                                  .who.num_spki_sha256 = 1,
                                  .hosts = hosts,
                                  .num_hosts = 1,
                                  .max_lifetime_ms = 1000};
  struct options options = {.clients = &client, .num_clients = 1};
  struct policy *policy = NULL;
  struct client_rights rights;
  uint8_t spki[32] = {0};
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(policy_new(&policy, &options, &err), STATUS_OK);
  policy_of_client(&rights, policy, spki, has_name, "");
  assert_int_equal(rights.num_grants, 0);
  spki[31] = 0xff;
  policy_of_client(&rights, policy, spki, has_name, "");
  assert_int_equal(rights.num_grants, 1);
  policy_free(policy);
}

static void refuses_bad_hosts(void **state) {
  static const char *const bad[] = {
      "",   ".",  "*.",  "**",  "*.*.test", "a.*",           "a*.b",   "a..b",
      ".a", "a.", "a b", "a/b", "*test",    "\xc3\xa4.test", "*..test"};
  char *hosts[1];
  struct errmsg err;
  (void)state;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    char *names[] = {text("x")};
    struct client_options client = {
        .label = text("x"), .who.names = names, .who.num_names = 1, .hosts = hosts, .num_hosts = 1};
    struct options options = {.clients = &client, .num_clients = 1};
    struct policy *policy = NULL;
    hosts[0] = text(bad[i]);
    if (policy_new(&policy, &options, &err) != STATUS_CONFIG) {
      fail_msg("%s", bad[i]);
    }
    assert_null(policy);
  }
}

static void rate_bounds_bursts_and_the_long_run(void **state) {
  struct client_options client = {.rate_per_minute = 60, .burst = 5};
  char *hosts[] = {text("*")};
  struct policy *policy = policy_of(&client, hosts, 1);
  struct grant *grant = grant_of(policy, "a.test");
  int64_t now = 1000 * SECOND;
  unsigned num = 0;
  (void)state;
  for (int i = 0; i < 5; i++) {
    assert_true(rate_limit_take(&grant->rate, now));
  }
  assert_false(rate_limit_take(&grant->rate, now));
  assert_false(rate_limit_take(&grant->rate, now + SECOND - 1));
  assert_true(rate_limit_take(&grant->rate, now + SECOND));
  assert_false(rate_limit_take(&grant->rate, now + SECOND));
  // What is refused costs nothing, and a quiet time gives the burst back, once.
  for (int64_t t = 0; t < 600; t++) {
    for (int k = 0; k < 10; k++) {
      num += rate_limit_take(&grant->rate, now + 100 * SECOND + t * SECOND) ? 1 : 0;
    }
  }
  assert_int_equal(num, 5 + 599);
  policy_free(policy);
}

static void rate_zero_is_unlimited(void **state) {
  struct client_options client = {0};
  char *hosts[] = {text("*")};
  struct policy *policy = policy_of(&client, hosts, 1);
  struct grant *grant = grant_of(policy, "a.test");
  (void)state;
  for (int i = 0; i < 10000; i++) {
    assert_true(rate_limit_take(&grant->rate, 1));
  }
  policy_free(policy);
}

static void burst_defaults_to_a_minutes_worth(void **state) {
  struct client_options client = {.rate_per_minute = 7};
  char *hosts[] = {text("*")};
  struct policy *policy = policy_of(&client, hosts, 1);
  struct grant *grant = grant_of(policy, "a.test");
  unsigned num = 0;
  (void)state;
  while (rate_limit_take(&grant->rate, 1000 * SECOND)) {
    num++;
  }
  assert_int_equal(num, 7);
  policy_free(policy);
}

static void a_reload_inherits_what_is_used_up(void **state) {
  struct client_options client = {.rate_per_minute = 1, .burst = 1};
  char *hosts[] = {text("*")};
  struct policy *old = policy_of(&client, hosts, 1);
  struct policy *new = policy_of(&client, hosts, 1);
  int64_t now = 1000 * SECOND;
  (void)state;
  assert_true(rate_limit_take(&grant_of(old, "a.test")->rate, now));
  policy_inherit(new, old);
  policy_free(old);
  assert_false(rate_limit_take(&grant_of(new, "a.test")->rate, now));
  assert_true(rate_limit_take(&grant_of(new, "a.test")->rate, now + 60 * SECOND));
  policy_free(new);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(patterns_cover_what_they_say),
      cmocka_unit_test(finds_one_of_many),
      cmocka_unit_test(default_is_to_deny),
      cmocka_unit_test(clients_are_known_by_key_too),
      cmocka_unit_test(refuses_bad_hosts),
      cmocka_unit_test(rate_bounds_bursts_and_the_long_run),
      cmocka_unit_test(rate_zero_is_unlimited),
      cmocka_unit_test(burst_defaults_to_a_minutes_worth),
      cmocka_unit_test(a_reload_inherits_what_is_used_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
