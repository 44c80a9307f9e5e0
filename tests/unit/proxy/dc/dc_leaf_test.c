// SPDX-License-Identifier: Apache-2.0
// Leaves, the chains that show them, and the numbers of names: what comes, goes and stays.
#include "proxy/dc/dc_leaf.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// cmocka needs the four above first.
#include <cmocka.h>

#include "common/base/clock.h"
#include "proxy/dc/dc_keys.h"
#include "proxy/dc/dc_names.h"
#include "proxy/dc/heat.h"
#include "tests/support/certs.h"

static const struct dc_limits limits = {1000, 1000, 48 * INT64_C(3600000), 1000, 60000};
static struct loop *control;
static struct loop *worker;
static struct grace *grace;
static struct dc_schedule schedule;
static struct dc_leaves leaves;
static EVP_PKEY *leaf_key;
static X509 *x509;
static struct bytes der;

static uint64_t fake_random(void) { return 42; }

static int set_up(void **state) {
  const struct test_cert spec = {
      .cn = "a.test", .names = "DNS:a.test", .has_delegation_usage = true};
  (void)state;
  if (loop_new(&control) != STATUS_OK || loop_new(&worker) != STATUS_OK ||
      grace_new(&grace, control, &worker, 1) != STATUS_OK) {
    return -1;
  }
  leaf_key = test_key_new(KEY_KIND_P256);
  x509 = test_cert_new(&spec, leaf_key, NULL, NULL);
  der = test_cert_der(x509);
  dc_schedule_init(&schedule, &limits, fake_random, 0);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  dc_leaves_cleanup(&leaves);
  dc_schedule_cleanup(&schedule);
  grace_free(grace);
  loop_free(worker);
  loop_free(control);
  X509_free(x509);
  EVP_PKEY_free(leaf_key);
  OPENSSL_free((void *)(uintptr_t)der.data);
  return 0;
}

// A chain with that leaf, as another name or another site would have.
static struct chain *new_chain(int64_t staple_ends_s) {
  static struct state silent;
  static const SSL_PRIVATE_KEY_METHOD method;
  struct errmsg err = {0};
  struct chain *chain = NULL;
  const struct chain_parts parts = {
      .label = "primary",
      .path = "a",
      .certs = &der,
      .num_certs = 1,
      .key_state = &silent,
      .ca_state = &silent,
      .staple = staple_ends_s == 0 ? bytes_of(NULL, 0) : bytes_text("as good as a staple"),
      .staple_ends_s = staple_ends_s,
  };
  assert_int_equal(chain_make(&chain, &parts, &method, NULL, &err), STATUS_OK);
  return chain;
}

static void put(struct dc_leaf *leaf, int64_t ends_s) {
  EVP_PKEY *key = dc_key_new();
  struct bytes dc = test_dc_new(x509, leaf_key, key, ends_s, 0);
  uint8_t *bytes = (uint8_t *)(uintptr_t)dc.data;
  dc_leaf_put(leaf, &key, &bytes, dc.len, ends_s, grace);
  assert_null(key);
  assert_null(bytes);
}

static void all_chains_of_a_leaf_have_its_credential(void **state) {
  const int64_t now_s = clock_wall_s();
  struct chain *first = new_chain(0);
  struct chain *second = new_chain(now_s + 600);
  struct chain *third = new_chain(0);
  (void)state;
  struct dc_leaf *leaf = dc_leaves_get(&leaves, &schedule, first->info.sha256);
  assert_ptr_equal(dc_leaves_get(&leaves, &schedule, third->info.sha256), leaf);
  dc_leaf_attach(leaf, first, true, grace);
  dc_leaf_attach(leaf, second, false, grace);
  assert_null(atomic_load(&first->dc));
  put(leaf, now_s + 3600);
  assert_non_null(atomic_load(&first->dc));
  assert_non_null(atomic_load(&second->dc));
  assert_int_equal(tls_dc_expiry_s(atomic_load(&first->dc)), now_s + 3600);
  // A staple that ends before is what has to be looked at first; then the end itself.
  assert_int_equal(dc_leaf_event_ms(leaf, now_s), (now_s + 600) * 1000);
  assert_int_equal(dc_leaf_event_ms(leaf, now_s + 600), (now_s + 3601) * 1000);
  // Who comes late has it at once; who goes keeps what it shows, and is left alone.
  dc_leaf_attach(leaf, third, false, grace);
  assert_non_null(atomic_load(&third->dc));
  dc_leaf_detach(second, false);
  struct tls_dc *kept = atomic_load(&second->dc);
  put(leaf, now_s + 7200);
  assert_ptr_equal(atomic_load(&second->dc), kept);
  assert_int_equal(tls_dc_expiry_s(atomic_load(&third->dc)), now_s + 7200);
  dc_leaf_drop(leaf, grace);
  assert_null(leaf->key);
  assert_null(leaf->dc);
  assert_null(atomic_load(&first->dc));
  assert_null(atomic_load(&third->dc));
  assert_int_equal(leaf->num_configured, 1);
  dc_leaf_detach(first, true);
  dc_leaf_detach(third, false);
  assert_null(leaf->chains);
  assert_int_equal(leaf->num_configured, 0);
  dc_leaves_remove(&leaves, &schedule, leaf);
  assert_null(dc_leaves_find(&leaves, first->info.sha256));
  chain_free(first);
  chain_free(second);
  chain_free(third);
}

static void remove_odd(void *arg, struct dc_leaf *leaf) {
  if (leaf->sha256[8] % 2 == 1) {
    dc_leaves_remove(&leaves, &schedule, leaf);
    *(size_t *)arg += 1;
  }
}

static void many_leaves_are_found_again(void **state) {
  uint8_t sha256[32] = {0};
  size_t num_removed = 0;
  (void)state;
  for (uint32_t i = 0; i < 5000; i++) {
    memcpy(sha256, &i, sizeof(i));
    sha256[8] = (uint8_t)i;
    assert_non_null(dc_leaves_get(&leaves, &schedule, sha256));
  }
  assert_int_equal(leaves.num, 5000);
  dc_leaves_each(&leaves, remove_odd, &num_removed);
  assert_int_equal(num_removed, 2500);
  for (uint32_t i = 0; i < 5000; i++) {
    memcpy(sha256, &i, sizeof(i));
    sha256[8] = (uint8_t)i;
    assert_int_equal(dc_leaves_find(&leaves, sha256) != NULL, i % 2 == 0);
  }
  assert_int_equal(schedule.num_entries, 2500);
}

static void names_have_numbers_that_lead_to_all_their_levels(void **state) {
  struct dc_names names = {0};
  struct chain *primary = new_chain(0);
  struct chain *backup = new_chain(0);
  struct chain *keyless = new_chain(0);
  struct cert_name a = {.num_levels = 3};
  struct cert_name b = {.num_levels = 1};
  struct cert_name none = {.num_levels = 1};
  (void)state;
  struct dc_leaf *leaf = dc_leaves_get(&leaves, &schedule, primary->info.sha256);
  dc_leaf_attach(leaf, primary, false, grace);
  dc_leaf_attach(leaf, backup, false, grace);
  a.levels[0] = (struct cert_level){{primary}, 1};
  a.levels[1] = (struct cert_level){{keyless}, 1};
  a.levels[2] = (struct cert_level){{keyless, backup}, 2};
  b.levels[0] = (struct cert_level){{backup}, 1};
  none.levels[0] = (struct cert_level){{keyless}, 1};
  dc_names_add(&names, &a);
  dc_names_add(&names, &none);
  assert_int_equal(none.heat_number, 0);  // nobody asks for it
  assert_int_not_equal(a.heat_number, 0);
  const struct dc_name *found = dc_names_find(&names, a.heat_number);
  assert_int_equal(found->num, 2);
  assert_ptr_equal(found->leaves[0].leaf, leaf);
  assert_int_equal(found->leaves[0].level, 0);
  assert_int_equal(found->leaves[1].level, 2);
  dc_names_add(&names, &b);
  assert_int_not_equal(a.heat_number, b.heat_number);
  const uint32_t was = a.heat_number;
  dc_names_remove(&names, &a);
  assert_int_equal(a.heat_number, 0);
  assert_null(dc_names_find(&names, was));
  dc_names_remove(&names, &a);  // has none any more
  assert_null(dc_names_find(&names, 0));
  assert_null(dc_names_find(&names, HEAT_NUM_NAMES - 1));
  struct cert_name more[600];
  for (size_t i = 0; i < 600; i++) {
    more[i] = b;
    more[i].heat_number = 0;
    dc_names_add(&names, &more[i]);
    assert_in_range(more[i].heat_number, 1, 602);
    assert_int_not_equal(more[i].heat_number, b.heat_number);
  }
  dc_leaf_detach(primary, false);
  dc_leaf_detach(backup, false);
  dc_names_cleanup(&names);
  chain_free(primary);
  chain_free(backup);
  chain_free(keyless);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(all_chains_of_a_leaf_have_its_credential, set_up, tear_down),
      cmocka_unit_test_setup_teardown(many_leaves_are_found_again, set_up, tear_down),
      cmocka_unit_test_setup_teardown(names_have_numbers_that_lead_to_all_their_levels, set_up,
                                      tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
