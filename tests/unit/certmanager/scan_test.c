// SPDX-License-Identifier: Apache-2.0
#include "certmanager/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/certstore/store_fixture.h"

#define HOUR_S ((int64_t)3600)
#define NOW_S ((int64_t)1800000000)

static void a_restart_asks_when_a_staple_needs_it(void **state) {
  (void)state;
  // None, or one that has ended: now.
  assert_int_equal(scan_due_s(0, 0, 0, 0, NOW_S), 0);
  assert_int_equal(scan_due_s(NOW_S - HOUR_S, NOW_S, NOW_S - HOUR_S, 0, NOW_S), 0);
  // A fresh one: at about half its life, whatever was fetched when.
  for (unsigned i = 0; i < 100; i++) {
    const int64_t due_s = scan_due_s(NOW_S, NOW_S + 100 * HOUR_S, NOW_S, 0, NOW_S);
    assert_in_range(due_s, NOW_S + 45 * HOUR_S, NOW_S + 55 * HOUR_S);
  }
}

static void what_is_overdue_only_for_a_poll_is_spread(void **state) {
  (void)state;
  int64_t least_s = INT64_MAX;
  int64_t most_s = 0;
  // Fetched half an hour ago, poll one hour: in half an hour.
  assert_int_equal(
      scan_due_s(NOW_S - HOUR_S / 2, NOW_S + 100 * HOUR_S, NOW_S - HOUR_S / 2, HOUR_S, NOW_S),
      NOW_S + HOUR_S / 2);
  for (unsigned i = 0; i < 1000; i++) {
    const int64_t due_s =
        scan_due_s(NOW_S - 9 * HOUR_S, NOW_S + 100 * HOUR_S, NOW_S - 9 * HOUR_S, HOUR_S, NOW_S);
    assert_in_range(due_s, NOW_S, NOW_S + HOUR_S);
    least_s = due_s < least_s ? due_s : least_s;
    most_s = due_s > most_s ? due_s : most_s;
  }
  assert_true(most_s - least_s > HOUR_S / 2);
  // One that is due anyway is not put off by the poll.
  assert_true(scan_due_s(NOW_S - 90 * HOUR_S, NOW_S + 10 * HOUR_S, NOW_S - 90 * HOUR_S, HOUR_S,
                         NOW_S) <= NOW_S);
}

static void reads_names_and_where_to_ask(void **state) {
  (void)state;
  struct errmsg err = {0};
  struct store *store = fixture_open(fixture_folder(), STORE_CREATE);
  struct tally tally = {0};
  uint64_t version = 0;
  struct look looks[4];

  assert_int_equal(scan_names(&tally, &version, store, &err), STATUS_OK);
  assert_int_equal(tally.num, 0);
  tally_cleanup(&tally);
  const struct test_cert both = {.cn = "a",
                                 .names = "DNS:a.test,DNS:b.test",
                                 .ocsp_url = "http://ocsp.test/",
                                 .crl_url = "http://crl.test/"};
  const struct test_cert none = {.cn = "c", .names = "DNS:a.test"};
  assert_int_equal(fixture_add(store, fixture_chain(0, &both, NULL), 0, false, &err), STATUS_OK);
  assert_int_equal(fixture_add(store, fixture_chain(1, &none, NULL), 1, false, &err), STATUS_OK);
  assert_int_equal(scan_names(&tally, &version, store, &err), STATUS_OK);
  assert_int_equal(version, store_chains_version(store));
  assert_int_equal(tally.num, 2);
  assert_int_equal(tally.entries[0].num_names, 2);
  assert_int_equal(tally.entries[1].num_names, 1);
  looks[0] = (struct look){.chain = tally.entries[0].chain};
  looks[1] = (struct look){.chain = tally.entries[1].chain};
  looks[2] = (struct look){.chain = 999};
  assert_int_equal(scan_looks(looks, 3, store, 0, &err), STATUS_OK);
  assert_true(looks[0].has_responder && looks[0].has_lists && looks[0].has_issuer);
  assert_int_equal(looks[0].due_s, 0);
  assert_true(!looks[1].has_responder && !looks[1].has_lists && !looks[1].has_issuer);
  assert_true(!looks[2].has_responder && !looks[2].has_lists && !looks[2].has_issuer);
  tally_cleanup(&tally);
  store_close(store);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_restart_asks_when_a_staple_needs_it),
      cmocka_unit_test(what_is_overdue_only_for_a_poll_is_spread),
      cmocka_unit_test(reads_names_and_where_to_ask),
  };
  return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
