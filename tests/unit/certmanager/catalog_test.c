// SPDX-License-Identifier: Apache-2.0
#include "certmanager/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t gone[16];
static size_t num_gone;

static void on_gone(void *arg, const struct catalog_entry *entry) {
  (void)arg;
  assert_true(num_gone < 16);
  gone[num_gone++] = entry->chain;
}

static void merge(struct catalog *catalog, const uint64_t *chains, size_t num) {
  struct tally tally = {0};
  for (size_t i = 0; i < num; i++) {
    assert_int_equal(tally_add(&tally, chains[i]), STATUS_OK);
  }
  tally_finish(&tally);
  num_gone = 0;
  assert_int_equal(catalog_merge(catalog, &tally, on_gone, NULL), STATUS_OK);
  tally_cleanup(&tally);
}

static void a_tally_adds_up_in_order(void **state) {
  (void)state;
  struct tally tally = {0};
  tally_finish(&tally);
  assert_int_equal(tally.num, 0);
  for (uint64_t i = 0; i < 3000; i++) {
    assert_int_equal(tally_add(&tally, (i * 7919) % 1000), STATUS_OK);
  }
  tally_finish(&tally);
  assert_int_equal(tally.num, 1000);
  for (size_t i = 0; i < 1000; i++) {
    assert_int_equal(tally.entries[i].chain, i);
    assert_int_equal(tally.entries[i].num_names, 3);
  }
  tally_cleanup(&tally);
}

static void what_stays_keeps_what_is_known_of_it(void **state) {
  (void)state;
  struct catalog catalog = {0};
  merge(&catalog, (const uint64_t[]){5, 3, 9, 3}, 4);
  assert_int_equal(catalog.num, 3);
  assert_int_equal(catalog_find(&catalog, 3)->num_names, 2);
  assert_null(catalog_find(&catalog, 4));
  *catalog_find(&catalog, 5) =
      (struct catalog_entry){.chain = 5, .item = 77, .sighting = 8, .flags = CATALOG_ASKED};

  merge(&catalog, (const uint64_t[]){5, 5, 5, 10, 1}, 5);
  assert_int_equal(num_gone, 2);
  assert_int_equal(gone[0], 3);
  assert_int_equal(gone[1], 9);
  const struct catalog_entry *entry = catalog_find(&catalog, 5);
  assert_int_equal(entry->num_names, 3);
  assert_int_equal(entry->item, 77);
  assert_int_equal(entry->sighting, 8);
  assert_int_equal(entry->flags, CATALOG_ASKED);
  assert_int_equal(catalog_find(&catalog, 1)->flags, 0);
  assert_int_equal(catalog_find(&catalog, 10)->num_names, 1);

  merge(&catalog, NULL, 0);
  assert_int_equal(num_gone, 3);
  assert_int_equal(catalog.num, 0);
  assert_null(catalog_find(&catalog, 5));
  catalog_cleanup(&catalog);
}

static void each_new_chain_is_looked_at_once(void **state) {
  (void)state;
  struct catalog catalog = {0};
  uint64_t chains[4] = {0};
  merge(&catalog, (const uint64_t[]){1, 2, 3, 4, 5}, 5);
  assert_int_equal(catalog_take_unlooked(&catalog, chains, 3), 3);
  assert_int_equal(chains[2], 3);
  assert_int_equal(catalog_take_unlooked(&catalog, chains, 3), 2);
  assert_int_equal(catalog_take_unlooked(&catalog, chains, 3), 0);
  catalog_find(&catalog, 1)->flags = CATALOG_LOOKED;
  catalog_find(&catalog, 3)->flags = CATALOG_LOOKED;
  merge(&catalog, (const uint64_t[]){1, 3, 5, 6}, 4);
  // 5 was taken, and nobody said that it was read.
  assert_int_equal(catalog_take_unlooked(&catalog, chains, 4), 2);
  assert_int_equal(chains[0], 5);
  assert_int_equal(chains[1], 6);
  catalog_cleanup(&catalog);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_tally_adds_up_in_order),
      cmocka_unit_test(what_stays_keeps_what_is_known_of_it),
      cmocka_unit_test(each_new_chain_is_looked_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
