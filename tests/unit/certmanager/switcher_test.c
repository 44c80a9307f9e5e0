// SPDX-License-Identifier: Apache-2.0
#include "certmanager/switcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "certmanager/scan.h"
#include "certmanager/stats.h"
#include "common/base/clock.h"
#include "tests/unit/certstore/store_fixture.h"

static struct store *store;
static struct store_reader *reader;
static struct catalog catalog;
static struct stats stats;
static struct switcher switcher;
static struct sink *sink;
static struct errmsg err;

static void on_gone(void *arg, const struct catalog_entry *entry) {
  (void)arg;
  (void)entry;
}

static void add(unsigned ca, const char *cn, const char *names) {
  const struct test_cert spec = {.cn = cn, .names = names};
  struct tally tally = {0};
  uint64_t version = 0;
  assert_int_equal(fixture_add(store, fixture_chain(ca, &spec, NULL), 0, false, &err), STATUS_OK);
  assert_int_equal(scan_names(&tally, &version, store, &err), STATUS_OK);
  assert_int_equal(catalog_merge(&catalog, &tally, on_gone, NULL), STATUS_OK);
  tally_cleanup(&tally);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
}

static uint64_t chain_of(const char *name) {
  struct store_name record;
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(store_find_exact(reader, &record, bytes_text(name)), STATUS_OK);
  return record.slots[0].chain_id;
}

static enum state_service said(const char *name) {
  struct store_chain chain;
  struct store_words words;
  assert_int_equal(store_get_chain(reader, &chain, chain_of(name)), STATUS_OK);
  assert_int_equal(store_get_words(reader, &words, STATE_LEVEL_KEY,
                                   bytes_of(chain.facts.key_id, 32), clock_wall_s()),
                   STATUS_OK);
  return (enum state_service)words.service;
}

static uint32_t see(const char *name, int reason) {
  uint32_t place = 0;
  const struct sighting sighting = {
      .chain = chain_of(name), .revoked_s = 1700000000, .reason = (uint8_t)reason};
  assert_int_equal(switcher_see(&place, &switcher, &sighting), STATUS_OK);
  return place;
}

// go judges and applies until nothing more may be done now; returns how many were made.
static size_t go(uint64_t ceiling, int64_t monotonic_s) {
  size_t num = 0;
  switcher.again_s = 0;
  for (;;) {
    assert_int_equal(store_reader_refresh(reader), STATUS_OK);
    if (!switcher_judge(&switcher, reader, &catalog, ceiling, 0, clock_wall_s(), monotonic_s)) {
      return num;
    }
    num += switcher.num_batch;
    store_reader_park(reader);
    switcher_apply(&switcher, store);
    switcher_done(&switcher);
  }
}

static uint64_t verdicts(enum switch_verdict verdict) {
  return counter_get(&stats.num_verdicts[verdict]);
}

static int make(void **state) {
  (void)state;
  store = fixture_open(fixture_folder(), STORE_CREATE);
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  assert_int_equal(sink_open(&sink, test_path("audit"), SINK_DEFAULT_RING_LEN, &err), STATUS_OK);
  stats = (struct stats){0};
  switcher_init(&switcher, sink, &stats);
  return 0;
}

static int unmake(void **state) {
  (void)state;
  switcher_cleanup(&switcher);
  catalog_cleanup(&catalog);
  sink_close(sink);
  store_reader_free(reader);
  store_close(store);
  return 0;
}

static void what_a_person_said_stands(void **state) {
  (void)state;
  struct ceiling ceiling = {0};
  const struct {
    struct switch_case of;
    enum switch_verdict verdict;
  } rows[] = {
      {{.said = STATE_OUT_OF_SERVICE, .num_names = 1}, SWITCH_OUT_ALREADY},
      {{.said = STATE_IN_SERVICE, .num_names = 1}, SWITCH_KEPT_IN},
      {{.was_restored = true, .num_names = 1}, SWITCH_RESTORED},
      {{.num_names = 4}, SWITCH_TOO_MANY},
      {{.num_names = 2}, SWITCH_MADE},
      {{.num_names = 2}, SWITCH_WAITS},
      {{.num_names = 1}, SWITCH_MADE},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    assert_int_equal(switch_judge(&rows[i].of, &ceiling, 3, 50), rows[i].verdict);
  }
  assert_int_equal(ceiling_used(&ceiling, 50), 3);  // refusals cost nothing
}

static void a_key_goes_out_of_service_once(void **state) {
  (void)state;
  struct store_change change;
  add(0, "a", "DNS:a.test,DNS:b.test");
  see("a.test", 1);
  assert_int_equal(go(10, 100), 1);
  assert_int_equal(said("a.test"), STATE_OUT_OF_SERVICE);
  assert_int_equal(ceiling_used(&switcher.ceiling, 100), 2);
  assert_int_equal(store_get_change(reader, &change, 1), STATUS_OK);
  assert_true(change.is_compromised);  // keyCompromise
  assert_int_equal(change.until_s, 0);
  assert_memory_equal(change.author.data, SWITCHER_AUTHOR, strlen(SWITCHER_AUTHOR));
  assert_int_equal(go(10, 400), 0);
  assert_int_equal(verdicts(SWITCH_MADE), 1);
  assert_int_equal(verdicts(SWITCH_OUT_ALREADY), 0);  // it was us
}

static void what_was_restored_is_left_alone(void **state) {
  (void)state;
  add(0, "a", "DNS:a.test");
  see("a.test", 4);
  assert_int_equal(go(10, 100), 1);
  assert_int_equal(store_undo(store, 1, "somebody", clock_wall_s(), &err), STATUS_OK);
  assert_int_equal(go(10, 400), 0);
  assert_int_equal(said("a.test"), STATE_SILENT);
  assert_int_equal(verdicts(SWITCH_RESTORED), 1);
  assert_int_equal(go(10, 500), 0);
  assert_int_equal(verdicts(SWITCH_RESTORED), 1);  // told once
}

static void the_ceiling_counts_names(void **state) {
  (void)state;
  add(0, "a", "DNS:a.test,DNS:b.test");
  add(0, "c", "DNS:c.test,DNS:d.test");
  add(0, "e", "DNS:e.test");
  add(0, "w", "DNS:w1.test,DNS:w2.test,DNS:w3.test,DNS:w4.test");
  see("w1.test", 0);
  see("a.test", 0);
  see("c.test", 0);
  see("e.test", 0);
  assert_int_equal(go(3, 1000), 1);  // a; c waits, and e behind it
  assert_int_equal(verdicts(SWITCH_TOO_MANY), 1);
  assert_int_equal(verdicts(SWITCH_WAITS), 1);
  assert_int_equal(go(3, 1060), 0);
  assert_int_equal(go(3, 1061), 2);
  assert_int_equal(said("w1.test"), STATE_SILENT);
  assert_int_equal(said("e.test"), STATE_OUT_OF_SERVICE);
  assert_int_equal(go(4, 1200), 1);  // a person raised it
}

static void a_new_process_knows_the_last_minute(void **state) {
  (void)state;
  add(0, "a", "DNS:a.test,DNS:b.test");
  add(0, "c", "DNS:c.test");
  see("a.test", 0);
  assert_int_equal(go(2, 1000), 1);
  switcher_cleanup(&switcher);
  switcher_init(&switcher, sink, &stats);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(switcher_recall(&switcher, reader, &catalog, clock_wall_s(), 5), STATUS_OK);
  assert_int_equal(ceiling_used(&switcher.ceiling, 5), 2);
  see("c.test", 0);
  assert_int_equal(go(2, 5), 0);
  assert_int_equal(go(2, 70), 1);
}

static void what_is_forgotten_is_not_switched(void **state) {
  (void)state;
  add(0, "a", "DNS:a.test");
  add(0, "b", "DNS:b.test");
  const uint32_t place = see("a.test", 6);
  assert_int_equal(switcher_num(&switcher), 1);
  switcher_forget(&switcher, place);
  switcher_forget(&switcher, place);
  switcher_forget(&switcher, 0);
  assert_int_equal(switcher_num(&switcher), 0);
  assert_int_equal(go(10, 100), 0);
  assert_int_equal(see("b.test", 0), place);  // its place is used again
  assert_int_equal(go(10, 100), 1);
  assert_int_equal(said("a.test"), STATE_SILENT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_a_person_said_stands),
      cmocka_unit_test_setup_teardown(a_key_goes_out_of_service_once, make, unmake),
      cmocka_unit_test_setup_teardown(what_was_restored_is_left_alone, make, unmake),
      cmocka_unit_test_setup_teardown(the_ceiling_counts_names, make, unmake),
      cmocka_unit_test_setup_teardown(a_new_process_knows_the_last_minute, make, unmake),
      cmocka_unit_test_setup_teardown(what_is_forgotten_is_not_switched, make, unmake),
  };
  return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
