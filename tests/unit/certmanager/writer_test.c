// SPDX-License-Identifier: Apache-2.0
#include "certmanager/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/certstore/store_fixture.h"

static struct store *store;
static struct sink *sink;
static struct stats stats;
static struct writer writer;
static struct errmsg err;
static uint64_t chain;

static void add(uint64_t id, int64_t this_update_s, const char *text) {
  const struct store_staple staple = {.this_update_s = this_update_s,
                                      .next_update_s = this_update_s + 100,
                                      .fetched_s = this_update_s,
                                      .response = bytes_text(text)};
  assert_int_equal(writer_add(&writer, id, &staple), STATUS_OK);
}

static enum status write_all(void) {
  assert_true(writer_take(&writer));
  writer_write(&writer, store);
  const enum status st = writer.st;
  writer_done(&writer);
  return st;
}

static void assert_kept(const char *text) {
  struct store_reader *reader = NULL;
  struct store_staple staple;
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  assert_int_equal(store_get_staple(reader, &staple, chain), STATUS_OK);
  assert_int_equal(staple.response.len, strlen(text));
  assert_memory_equal(staple.response.data, text, strlen(text));
  store_reader_free(reader);
}

static void writes_many_at_once_and_nothing_older(void **state) {
  (void)state;
  assert_false(writer_take(&writer));
  add(chain, 1000, "first");
  add(chain + 1000, 1000, "of no chain");
  const uint64_t before = store_chains_version(store);
  assert_int_equal(write_all(), STATUS_OK);
  assert_int_equal(writer.from_version, before);
  assert_int_equal(writer.to_version, before + 1);  // one transaction
  assert_kept("first");
  assert_int_equal(counter_get(&stats.num_staples_kept), 1);
  assert_int_equal(counter_get(&stats.num_staples_left), 1);
  add(chain, 999, "older");
  assert_int_equal(write_all(), STATUS_OK);
  assert_kept("first");
  add(chain, 1001, "newer");
  assert_int_equal(write_all(), STATUS_OK);
  assert_kept("newer");
  assert_true(fixture_verify(store));
}

static void what_was_refused_is_written_with_the_next(void **state) {
  (void)state;
  store_close(store);
  const struct store_options options = {.mode = STORE_READ};
  const char *folder = *state;
  assert_int_equal(store_open(&store, folder, &options, &err), STATUS_OK);
  add(chain, 1000, "kept");
  assert_int_equal(write_all(), STATUS_REFUSED);
  assert_int_equal(writer.num_waiting, 1);
  store_close(store);
  store = fixture_open(folder, STORE_WRITE);
  assert_int_equal(write_all(), STATUS_OK);
  assert_int_equal(writer.num_waiting, 0);
  assert_kept("kept");
}

static void is_bounded(void **state) {
  (void)state;
  static const uint8_t much[STORE_STAPLE_MAX_LEN + 1];
  const struct store_staple staple = {.response = bytes_of(much, sizeof(much))};
  assert_int_equal(writer_add(&writer, chain, &staple), STATUS_LIMIT);
  for (unsigned i = 0; i < WRITER_MAX_WAITING; i++) {
    assert_false(writer_is_full(&writer));
    add(chain, 1000 + (int64_t)i, "x");
  }
  assert_true(writer_is_full(&writer));
  assert_true(writer_take(&writer));
  assert_true(writer_is_full(&writer));  // they are not on the disk yet
  writer_write(&writer, store);
  writer_done(&writer);
  assert_false(writer_is_full(&writer));
}

static int make(void **state) {
  struct store_name name;
  struct store_reader *reader = NULL;
  static const char *folder;
  const struct test_cert spec = {.cn = "a", .names = "DNS:a.test"};
  folder = fixture_folder();
  *state = (void *)(uintptr_t)folder;
  store = fixture_open(folder, STORE_CREATE);
  assert_int_equal(fixture_add(store, fixture_chain(0, &spec, NULL), 0, false, &err), STATUS_OK);
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  assert_int_equal(store_find_exact(reader, &name, bytes_text("a.test")), STATUS_OK);
  chain = name.slots[0].chain_id;
  store_reader_free(reader);
  assert_int_equal(sink_open(&sink, test_path("audit"), SINK_DEFAULT_RING_LEN, &err), STATUS_OK);
  stats = (struct stats){0};
  writer_init(&writer, sink, &stats);
  return 0;
}

static int unmake(void **state) {
  (void)state;
  writer_cleanup(&writer);
  sink_close(sink);
  store_close(store);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(writes_many_at_once_and_nothing_older, make, unmake),
      cmocka_unit_test_setup_teardown(what_was_refused_is_written_with_the_next, make, unmake),
      cmocka_unit_test_setup_teardown(is_bounded, make, unmake),
  };
  return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
