// SPDX-License-Identifier: Apache-2.0
#include "certstore/store.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/unit/certstore/store_fixture.h"

#define DAY_S ((int64_t)86400)

static struct store *store;
static const char *folder;
static struct errmsg err;

static int make_store(void **state) {
  (void)state;
  folder = fixture_folder();
  store = fixture_open(folder, STORE_CREATE);
  err.text[0] = '\0';
  return 0;
}

static int close_store(void **state) {
  (void)state;
  store_close(store);
  store = NULL;
  return 0;
}

static struct store_reader *reader_of(void) {
  struct store_reader *reader = NULL;
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  return reader;
}

static void add(const struct fixture_chain *chain, unsigned level) {
  if (fixture_add(store, chain, level, false, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
}

static void assert_says(const char *part) {
  if (strstr(err.text, part) == NULL) {
    fail_msg("\"%s\" does not say \"%s\"", err.text, part);
  }
}

static struct store_name find(const char *host) {
  struct store_name name = {0};
  struct store_reader *reader = reader_of();
  enum status st = store_find(reader, &name, bytes_text(host));
  store_reader_free(reader);
  if (st != STATUS_OK) {
    name.num_slots = 0;
  }
  return name;
}

// --- filing ------------------------------------------------------------------------------

static void finds_what_was_added(void **state) {
  (void)state;
  const struct fixture_chain *primary =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:A.test,DNS:*.a.test"}, NULL);
  const struct fixture_chain *backup =
      fixture_chain(1, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  struct store_chain chain;
  struct bytes issuer;
  uint64_t id = 0;
  uint8_t sha256[32];
  add(primary, 0);
  add(backup, 1);
  struct store_name name = find("a.TEST.");
  assert_int_equal(name.num_slots, 2);
  assert_int_equal(name.slots[0].level, 0);
  assert_int_equal(name.slots[1].level, 1);
  assert_int_equal(find("x.a.test").num_slots, 1);
  assert_int_equal(find("x.y.a.test").num_slots, 0);
  assert_int_equal(find("b.test").num_slots, 0);
  struct store_reader *reader = reader_of();
  assert_int_equal(store_get_chain(reader, &chain, name.slots[1].chain_id), STATUS_OK);
  assert_true(bytes_equal(chain.leaf, backup->certs[0]));
  assert_int_equal(store_get_issuer(reader, &issuer, chain.issuers.data), STATUS_OK);
  assert_true(bytes_equal(issuer, backup->certs[1]));
  SHA256(backup->certs[0].data, backup->certs[0].len, sha256);
  assert_int_equal(store_find_leaf(reader, &id, sha256), STATUS_OK);
  assert_true(id == name.slots[1].chain_id);
  store_reader_free(reader);
  assert_true(fixture_verify(store));
}

static void keeps_a_leaf_once(void **state) {
  (void)state;
  struct store_counts counts;
  const struct fixture_chain *chain =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  add(chain, 0);
  add(chain, 0);
  struct store_reader *reader = reader_of();
  assert_int_equal(store_count(&counts, reader, &err), STATUS_OK);
  assert_int_equal(counts.num_chains, 1);
  assert_int_equal(counts.num_issuers, 1);
  store_reader_free(reader);
}

static void keeps_the_later_of_two_unless_told(void **state) {
  (void)state;
  int64_t now_s = clock_wall_s();
  const struct fixture_chain *old = fixture_chain(
      0, &(struct test_cert){.cn = "a", .names = "DNS:a.test", .not_before_s = now_s - 9 * DAY_S},
      NULL);
  const struct fixture_chain *new = fixture_chain(
      0, &(struct test_cert){.cn = "a", .names = "DNS:a.test", .not_before_s = now_s - 1 * DAY_S},
      NULL);
  add(old, 0);
  uint64_t old_id = find("a.test").slots[0].chain_id;
  add(new, 0);
  uint64_t new_id = find("a.test").slots[0].chain_id;
  assert_true(old_id != new_id);
  add(old, 0);
  assert_true(find("a.test").slots[0].chain_id == new_id);
  assert_int_equal(fixture_add(store, old, 0, true, &err), STATUS_OK);
  assert_true(find("a.test").slots[0].chain_id == old_id);
}

static void refuses_the_same_key_as_backup(void **state) {
  (void)state;
  const struct test_cert spec = {.cn = "a", .names = "DNS:a.test"};
  const struct fixture_chain *primary = fixture_chain(0, &spec, NULL);
  const struct fixture_chain *backup = fixture_chain(1, &spec, primary->key);
  add(primary, 0);
  assert_int_equal(fixture_add(store, backup, 1, false, &err), STATUS_REFUSED);
  assert_says("same key");
  assert_int_equal(find("a.test").num_slots, 1);
  // Nothing of it is left behind.
  struct store_counts counts;
  struct store_reader *reader = reader_of();
  assert_int_equal(store_count(&counts, reader, &err), STATUS_OK);
  assert_int_equal(counts.num_chains, 1);
  store_reader_free(reader);
}

struct issues {
  const struct fixture_chain *chain;
  unsigned level;
  unsigned num[STORE_NUM_ISSUES];
};

static bool on_issue(void *arg, enum store_issue issue, uint32_t source, const char *sentence) {
  struct issues *issues = arg;
  (void)source;
  assert_true(strlen(sentence) > 10);
  issues->num[issue]++;
  return true;
}

static enum status add_and_listen(struct store_txn *txn, void *arg, struct errmsg *e) {
  struct issues *issues = arg;
  store_on_issue(txn, on_issue, issues);
  return store_add(txn,
                   &(struct store_addition){
                       .certs = issues->chain->certs, .num_certs = 2, .level = issues->level},
                   e);
}

static void warns_of_the_same_ca_and_of_an_expired_backup(void **state) {
  (void)state;
  int64_t now_s = clock_wall_s();
  struct issues issues = {.level = 1};
  add(fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL), 0);
  issues.chain = fixture_chain(0,
                               &(struct test_cert){.cn = "a",
                                                   .names = "DNS:a.test",
                                                   .not_before_s = now_s - 9 * DAY_S,
                                                   .not_after_s = now_s - DAY_S},
                               NULL);
  assert_int_equal(store_write(store, add_and_listen, &issues, &err), STATUS_OK);
  assert_int_equal(issues.num[STORE_ISSUE_SAME_CA], 1);
  assert_int_equal(issues.num[STORE_ISSUE_EXPIRED_BACKUP], 1);
  assert_int_equal(find("a.test").num_slots, 2);
}

static void refuses_what_does_not_fit(void **state) {
  (void)state;
  const struct fixture_chain *good =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  const struct fixture_chain *other =
      fixture_chain(1, &(struct test_cert){.cn = "b", .names = "DNS:b.test"}, NULL);
  struct fixture_chain chain = {.certs = {good->certs[0], other->certs[1]}};
  assert_int_equal(fixture_add(store, &chain, 0, false, &err), STATUS_REFUSED);
  assert_says("did not issue");
  chain = (struct fixture_chain){.certs = {good->certs[1], good->certs[1]}};
  assert_int_equal(fixture_add(store, &chain, 0, false, &err), STATUS_REFUSED);
  assert_says("CA's");
  chain = (struct fixture_chain){.certs = {bytes_text("0\x82 no certificate"), good->certs[1]}};
  assert_int_equal(fixture_add(store, &chain, 0, false, &err), STATUS_FORMAT);
  assert_says("does not parse");
  assert_int_equal(
      fixture_add(store, fixture_chain(0, &(struct test_cert){.cn = "a"}, NULL), 0, false, &err),
      STATUS_REFUSED);
  assert_says("no DNS name");
}

static enum status add_for_other(struct store_txn *txn, void *arg, struct errmsg *e) {
  static const char *const names[] = {"a.test", "b.test"};
  const struct fixture_chain *chain = arg;
  return store_add(txn,
                   &(struct store_addition){
                       .certs = chain->certs, .num_certs = 2, .names = names, .num_names = 2},
                   e);
}

static void refuses_a_name_that_the_leaf_does_not_cover(void **state) {
  (void)state;
  struct fixture_chain *chain =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  assert_int_equal(store_write(store, add_for_other, chain, &err), STATUS_REFUSED);
  assert_says("b.test");
  assert_int_equal(find("a.test").num_slots, 0);
}

// --- transactions ------------------------------------------------------------------------

struct many {
  unsigned num_runs;
  uint8_t *filler;
  size_t len;
};

// Fills the map: staples of names that nobody has, as large as they come.
static enum status add_much(struct store_txn *txn, void *arg, struct errmsg *e) {
  struct many *many = arg;
  enum status st = STATUS_OK;
  many->num_runs++;
  for (uint64_t id = 1; id <= 200; id++) {
    const struct store_staple staple = {.next_update_s = 1,
                                        .response = bytes_of(many->filler, many->len)};
    TRY(store_put_staple(txn, id, &staple, e));
  }

out:
  return st;
}

static void grows_the_map_by_itself(void **state) {
  (void)state;
  struct many many = {.filler = calloc(1, STORE_STAPLE_MAX_LEN), .len = STORE_STAPLE_MAX_LEN};
  struct store_counts counts;
  store_close(store);
  folder = fixture_folder();
  const struct store_options options = {.mode = STORE_CREATE, .map_len = 1 << 20};
  assert_int_equal(store_open(&store, folder, &options, &err), STATUS_OK);
  assert_int_equal(store_write(store, add_much, &many, &err), STATUS_OK);
  assert_true(many.num_runs > 1);
  struct store_reader *reader = reader_of();
  assert_int_equal(store_count(&counts, reader, &err), STATUS_OK);
  assert_int_equal(counts.num_staples, 200);
  // While a reader holds the map it cannot grow: nothing is done, and it says so.
  many.num_runs = 0;
  for (int i = 0; i < 8 && store_write(store, add_much, &many, &err) == STATUS_OK; i++) {
  }
  store_reader_free(reader);
  assert_int_equal(store_write(store, add_much, &many, &err), STATUS_OK);
  free(many.filler);
}

static void shows_a_reader_one_state_until_it_asks(void **state) {
  (void)state;
  struct store_name name;
  const struct fixture_chain *chain =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  struct store_reader *reader = reader_of();
  uint64_t version = store_chains_version(store);
  add(chain, 0);
  assert_true(store_chains_version(store) > version);
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_NOT_FOUND);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_OK);
  store_reader_park(reader);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_OK);
  store_reader_free(reader);
}

// --- files -------------------------------------------------------------------------------

static enum status open_again(enum store_mode mode) {
  store_close(store);
  store = NULL;
  return store_open(&store, folder, &(struct store_options){.mode = mode}, &err);
}

static const char *path_of(const char *name) {
  static char path[4096];
  (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
  return path;
}

static void write_at(const char *name, off_t at, const void *data, size_t len) {
  int fd = open(path_of(name), O_WRONLY | O_CLOEXEC);
  assert_true(fd >= 0 && pwrite(fd, data, len, at) == (ssize_t)len);
  assert_int_equal(close(fd), 0);
}

static void refuses_where_no_store_is(void **state) {
  (void)state;
  store_close(store);
  store = NULL;
  folder = fixture_folder();
  assert_int_equal(store_open(&store, folder, &(struct store_options){.mode = STORE_WRITE}, &err),
                   STATUS_NOT_FOUND);
  assert_says("Import certificates");
  assert_int_equal(mkdir(folder, 0700), 0);
  assert_int_equal(store_open(&store, folder, &(struct store_options){.mode = STORE_READ}, &err),
                   STATUS_NOT_FOUND);
  assert_says("no store in this folder");
}

static void refuses_damaged_files_with_a_remedy(void **state) {
  (void)state;
  static const char zeros[8192] = {0};
  add(fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL), 0);
  assert_int_equal(open_again(STORE_READ), STATUS_OK);
  // Cut off: pages that the file says it has are missing.
  store_close(store);
  store = NULL;
  assert_int_equal(truncate(path_of("chains-1.mdb"), 12288), 0);
  assert_int_equal(open_again(STORE_READ), STATUS_FORMAT);
  assert_says("cut off");
  assert_says("Put back a copy");
  // Both of LMDB's first pages are gone.
  write_at("chains-1.mdb", 0, zeros, sizeof(zeros));
  assert_int_equal(open_again(STORE_WRITE), STATUS_FORMAT);
  assert_says("damaged");
  assert_says("Put back a copy");
}

static void refuses_a_later_format(void **state) {
  (void)state;
  // The version is the byte after the name of the format.
  static const char mark[] = "deputy-store\x01";
  char *data = malloc(1 << 20);
  store_close(store);
  store = NULL;
  int fd = open(path_of("states.mdb"), O_RDWR | O_CLOEXEC);
  ssize_t len = read(fd, data, 1 << 20);
  assert_true(fd >= 0 && len > 0);
  for (char *at = data;
       (at = memmem(at, (size_t)(data + len - at), mark, sizeof(mark) - 1)) != NULL; at++) {
    assert_int_equal(pwrite(fd, "\x02", 1, at - data + (off_t)sizeof(mark) - 2), 1);
  }
  assert_int_equal(close(fd), 0);
  free(data);
  assert_int_equal(open_again(STORE_READ), STATUS_REFUSED);
  assert_says("version 2");
  assert_says("export");
}

static void verify_finds_a_changed_byte(void **state) {
  (void)state;
  char *data = malloc(1 << 20);
  const struct fixture_chain *chain =
      fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL);
  add(chain, 0);
  store_close(store);
  store = NULL;
  int fd = open(path_of("chains-1.mdb"), O_RDWR | O_CLOEXEC);
  ssize_t len = read(fd, data, 1 << 20);
  assert_true(fd >= 0 && len > 0);
  // The leaf's last byte: part of its signature, so that all else still parses.
  for (char *at = data; (at = memmem(at, (size_t)(data + len - at), chain->certs[0].data,
                                     chain->certs[0].len)) != NULL;
       at++) {
    char *last = at + chain->certs[0].len - 1;
    *last = (char)(*last ^ 1);
    assert_int_equal(pwrite(fd, last, 1, last - data), 1);
  }
  assert_int_equal(close(fd), 0);
  free(data);
  assert_int_equal(open_again(STORE_READ), STATUS_OK);
  assert_false(fixture_verify(store));
}

static void compacts_and_says_that_it_did(void **state) {
  (void)state;
  uint64_t num_dropped = 0;
  struct store_counts counts;
  int64_t now_s = clock_wall_s();
  for (int i = 9; i > 0; i--) {
    add(fixture_chain(0,
                      &(struct test_cert){
                          .cn = "a", .names = "DNS:a.test", .not_before_s = now_s - i * DAY_S},
                      NULL),
        0);
  }
  assert_false(store_is_replaced(store));
  assert_int_equal(store_compact(&store, &num_dropped, &err), STATUS_OK);
  assert_int_equal(num_dropped, 8);
  assert_int_equal(find("a.test").num_slots, 1);
  assert_true(fixture_verify(store));
  struct store_reader *reader = reader_of();
  assert_int_equal(store_count(&counts, reader, &err), STATUS_OK);
  assert_int_equal(counts.generation, 2);
  assert_int_equal(counts.num_chains, 1);
  store_reader_free(reader);
  assert_int_equal(access(path_of("chains-1.mdb"), F_OK), -1);
}

// --- states ------------------------------------------------------------------------------

static struct store_words words_of(enum state_level level, struct bytes subject, int64_t now_s) {
  struct store_words words;
  struct store_reader *reader = reader_of();
  assert_int_equal(store_get_words(reader, &words, level, subject, now_s), STATUS_OK);
  store_reader_free(reader);
  return words;
}

static uint64_t say(enum state_level level, struct bytes subject, struct store_change change,
                    int64_t now_s) {
  uint64_t id = 0;
  bool has_id = level == STATE_LEVEL_KEY || level == STATE_LEVEL_CA;
  change.level = (uint8_t)level;
  change.subject = subject;
  change.preferred = has_id ? STORE_LEAVE : change.preferred;
  change.dc = STORE_LEAVE;
  change.reason = bytes_text("test");
  change.author = bytes_text("ann");
  if (store_apply(store, &id, &change, now_s, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return id;
}

static const uint8_t some_id[32] = {1, 2, 3};

static void undo_in_any_order_leaves_what_still_stands(void **state) {
  (void)state;
  struct bytes key = bytes_of(some_id, 32);
  uint64_t out =
      say(STATE_LEVEL_KEY, key,
          (struct store_change){.service = STATE_OUT_OF_SERVICE, .is_compromised = true}, 10);
  uint64_t in = say(STATE_LEVEL_KEY, key, (struct store_change){.service = STATE_IN_SERVICE}, 11);
  assert_int_equal(words_of(STATE_LEVEL_KEY, key, 12).service, STATE_IN_SERVICE);
  assert_int_equal(store_undo(store, in, "bob", 13, &err), STATUS_OK);
  assert_int_equal(words_of(STATE_LEVEL_KEY, key, 14).service, STATE_OUT_OF_SERVICE);
  assert_true(words_of(STATE_LEVEL_KEY, key, 14).is_compromised);
  assert_int_equal(store_undo(store, in, "bob", 13, &err), STATUS_EXISTS);
  assert_int_equal(store_undo(store, 99, "bob", 13, &err), STATUS_NOT_FOUND);
  assert_int_equal(store_undo(store, out, "bob", 13, &err), STATUS_OK);
  assert_int_equal(words_of(STATE_LEVEL_KEY, key, 14).service, STATE_SILENT);
  assert_int_equal(words_of(STATE_LEVEL_CA, key, 14).service, STATE_SILENT);
  assert_true(fixture_verify(store));
}

static void a_switch_ends_by_itself(void **state) {
  (void)state;
  struct bytes name = bytes_text("a.test");
  (void)say(STATE_LEVEL_NAME, name, (struct store_change){.preferred = 1}, 10);
  (void)say(STATE_LEVEL_NAME, name, (struct store_change){.preferred = 2, .until_s = 20}, 11);
  assert_int_equal(words_of(STATE_LEVEL_NAME, name, 19).preferred, 2);
  assert_int_equal(words_of(STATE_LEVEL_NAME, name, 20).preferred, 1);
  // The next write of the subject forgets what has ended.
  (void)say(STATE_LEVEL_NAME, name, (struct store_change){.preferred = 3}, 30);
  assert_int_equal(words_of(STATE_LEVEL_NAME, name, 31).preferred, 3);
  assert_true(fixture_verify(store));
  uint64_t id = 0;
  const struct store_change late = {
      .level = STATE_LEVEL_FLEET, .preferred = 1, .dc = STORE_LEAVE, .until_s = 5};
  assert_int_equal(store_apply(store, &id, &late, 10, &err), STATUS_FORMAT);
  assert_says("past");
}

static void states_survive_closing(void **state) {
  (void)state;
  (void)say(STATE_LEVEL_CA, bytes_of(some_id, 32),
            (struct store_change){.service = STATE_OUT_OF_SERVICE}, 10);
  uint64_t version = store_states_version(store);
  assert_int_equal(open_again(STORE_READ), STATUS_OK);
  assert_true(store_states_version(store) == version);
  assert_int_equal(words_of(STATE_LEVEL_CA, bytes_of(some_id, 32), 11).service,
                   STATE_OUT_OF_SERVICE);
  uint64_t id = 0;
  const struct store_change change = {
      .level = STATE_LEVEL_FLEET, .preferred = 1, .dc = STORE_LEAVE};
  assert_int_equal(store_apply(store, &id, &change, 10, &err), STATUS_REFUSED);
}

// --- choosing ----------------------------------------------------------------------------

static void drill_and_switch_of_a_ca(void **state) {
  (void)state;
  int64_t now_s = clock_wall_s();
  struct store_drill_report report;
  uint8_t ca[STATE_SUBJECT_MAX_LEN];
  size_t len = 0;
  const struct test_cert one = {.cn = "a", .names = "DNS:a.test"};
  const struct test_cert two = {.cn = "b", .names = "DNS:b.test"};
  add(fixture_chain(0, &one, NULL), 0);
  add(fixture_chain(1, &one, NULL), 1);
  add(fixture_chain(0, &two, NULL), 0);
  struct store_reader *reader = reader_of();
  assert_int_equal(store_match(ca, &len, reader, STATE_LEVEL_CA, "ca one", &err), STATUS_OK);
  assert_int_equal(store_match(ca, &len, reader, STATE_LEVEL_CA, "ca three", &err),
                   STATUS_NOT_FOUND);
  assert_int_equal(store_match(ca, &len, reader, STATE_LEVEL_CA, "CA One", &err), STATUS_OK);
  assert_int_equal(
      store_drill(&report, reader, STATE_LEVEL_CA, bytes_of(ca, len), now_s, NULL, NULL),
      STATUS_OK);
  assert_int_equal(report.num_names, 2);
  assert_int_equal(report.num_moved, 2);
  assert_int_equal(report.num_without_backup, 1);
  assert_string_equal(report.without_backup[0], "b.test");
  store_drill_cleanup(&report);
  (void)say(STATE_LEVEL_CA, bytes_of(ca, len),
            (struct store_change){.service = STATE_OUT_OF_SERVICE}, now_s);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  struct store_name name;
  struct store_choice choice;
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_OK);
  assert_int_equal(
      store_choose(&choice, reader, bytes_text("a.test"), &name, now_s, NULL, NULL, NULL),
      STATUS_OK);
  assert_int_equal(choice.slot->level, 1);
  assert_false(choice.is_last_resort);
  assert_int_equal(store_find(reader, &name, bytes_text("b.test")), STATUS_OK);
  assert_int_equal(
      store_choose(&choice, reader, bytes_text("b.test"), &name, now_s, NULL, NULL, NULL),
      STATUS_OK);
  assert_true(choice.is_last_resort);
  store_reader_free(reader);
}

static void finds_keys_by_prefix(void **state) {
  (void)state;
  char hex[65];
  uint8_t id[STATE_SUBJECT_MAX_LEN];
  size_t len = 0;
  add(fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL), 0);
  add(fixture_chain(0, &(struct test_cert){.cn = "b", .names = "DNS:b.test"}, NULL), 0);
  struct store_name name = find("b.test");
  (void)bytes_to_hex(hex, bytes_of(name.slots[0].facts.key_id, 32));
  struct store_reader *reader = reader_of();
  for (size_t digits = 8; digits <= 64; digits++) {
    char typed[65];
    (void)snprintf(typed, sizeof(typed), "%.*s", (int)digits, hex);
    assert_int_equal(store_match(id, &len, reader, STATE_LEVEL_KEY, typed, &err), STATUS_OK);
    assert_memory_equal(id, name.slots[0].facts.key_id, 32);
  }
  assert_int_equal(store_match(id, &len, reader, STATE_LEVEL_KEY, "0123456", &err),
                   STATUS_NOT_FOUND);
  store_reader_free(reader);
}

static void must_staple_and_revoked_are_obeyed(void **state) {
  (void)state;
  int64_t now_s = clock_wall_s();
  add(fixture_chain(
          0, &(struct test_cert){.cn = "a", .names = "DNS:a.test", .is_must_staple = true}, NULL),
      0);
  struct store_name name = find("a.test");
  struct store_reader *reader = reader_of();
  assert_int_equal(store_judge(reader, &name.slots[0], now_s, NULL), STORE_NO_STAPLE);
  assert_int_equal(store_judge(reader, &name.slots[0], now_s + 400 * DAY_S, NULL), STORE_EXPIRED);
  assert_int_equal(store_judge(reader, &name.slots[0], now_s - DAY_S, NULL), STORE_NOT_YET_VALID);
  store_reader_free(reader);
}

// Bytes of the process's memory that are pages of this file; -1: the kernel does not tell.
static long mapped_of(const char *path) {
  char line[512];
  long sum = -1;
  bool is_it = false;
  FILE *file = fopen("/proc/self/smaps", "re");
  while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
    long kib = 0;
    unsigned long from = 0;
    if (sscanf(line, "%lx-", &from) == 1 && strchr(line, ':') > strchr(line, ' ')) {  // NOLINT
      line[strcspn(line, "\n")] = '\0';
      is_it = strlen(line) > strlen(path) && strcmp(line + strlen(line) - strlen(path), path) == 0;
    } else if (is_it && sscanf(line, "Rss: %ld kB", &kib) == 1) {  // NOLINT(cert-err34-c)
      sum = (sum < 0 ? 0 : sum) + kib * 1024;
    }
  }
  if (file != NULL) {
    (void)fclose(file);
  }
  return sum;
}

static void gives_pages_back(void **state) {
  (void)state;
  char path[512];
  add(fixture_chain(0, &(struct test_cert){.cn = "a", .names = "DNS:a.test"}, NULL), 0);
  store_close(store);
  store = fixture_open(folder, STORE_READ);
  (void)snprintf(path, sizeof(path), "%s/chains-1.mdb", folder);
  struct store_reader *reader = reader_of();
  struct store_name name;
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_OK);
  long before = mapped_of(path);
  store_release_pages(reader);
  if (before >= 0) {
    assert_true(before > 0);
    assert_int_equal(mapped_of(path), 0);
  }
  assert_int_equal(store_find(reader, &name, bytes_text("a.test")), STATUS_OK);
  assert_int_equal(name.num_slots, 1);
  store_reader_free(reader);
}

// --- the lock file of a process that was killed -----------------------------------------

// Takes the lock file as its maker does, tells so, and makes nothing of it.
static void be_slow_maker(const char *lock_path, int tell_fd) {
  struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
  int fd = open(lock_path, O_RDWR | O_TRUNC | O_CLOEXEC);
  if (fd >= 0 && fcntl(fd, F_SETLK, &all) == 0 && write(tell_fd, "", 1) == 1) {
    for (;;) {
      (void)pause();
    }
  }
  _exit(1);
}

// is_waiting: does a process wait for a lock of a file (proc(5), /proc/locks)?
static bool is_waiting(pid_t pid) {
  char line[256];
  char want[32];
  bool found = false;
  FILE *locks = fopen("/proc/locks", "re");
  (void)snprintf(want, sizeof(want), " %d ", (int)pid);
  while (locks != NULL && fgets(line, sizeof(line), locks) != NULL) {
    found = found || (strstr(line, "->") != NULL && strstr(line, want) != NULL);
  }
  if (locks != NULL) {
    (void)fclose(locks);
  }
  return found;
}

static void opens_when_the_maker_of_a_lock_file_was_killed(void **state) {
  (void)state;
  char path[512];
  char byte = 0;
  int told[2];
  int status = 0;
  store_close(store);
  store = NULL;
  (void)snprintf(path, sizeof(path), "%s/chains-1.mdb-lock", folder);
  assert_int_equal(pipe2(told, O_CLOEXEC), 0);
  const pid_t maker = fork();
  if (maker == 0) {
    be_slow_maker(path, told[1]);
  }
  assert_int_equal(read(told[0], &byte, 1), 1);
  const pid_t opener = fork();
  if (opener == 0) {
    struct store *seen = NULL;
    enum status st = store_open(&seen, folder, &(struct store_options){.mode = STORE_READ}, &err);
    (void)fprintf(stderr, "%s", err.text);
    store_close(seen);
    _exit(st == STATUS_OK ? 0 : 1);
  }
  const int64_t until_ms = clock_monotonic_ms() + 20000;
  while (!is_waiting(opener) && clock_monotonic_ms() < until_ms &&
         waitpid(opener, &status, WNOHANG) == 0) {
  }
  assert_int_equal(kill(maker, SIGKILL), 0);
  assert_int_equal(waitpid(maker, &status, 0), maker);
  assert_int_equal(waitpid(opener, &status, 0), opener);
  assert_int_equal(status, 0);
  (void)close(told[0]);
  (void)close(told[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_store, close_store)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(finds_what_was_added),
      TEST(keeps_a_leaf_once),
      TEST(keeps_the_later_of_two_unless_told),
      TEST(refuses_the_same_key_as_backup),
      TEST(warns_of_the_same_ca_and_of_an_expired_backup),
      TEST(refuses_what_does_not_fit),
      TEST(refuses_a_name_that_the_leaf_does_not_cover),
      TEST(grows_the_map_by_itself),
      TEST(shows_a_reader_one_state_until_it_asks),
      TEST(refuses_where_no_store_is),
      TEST(refuses_damaged_files_with_a_remedy),
      TEST(refuses_a_later_format),
      TEST(verify_finds_a_changed_byte),
      TEST(compacts_and_says_that_it_did),
      TEST(undo_in_any_order_leaves_what_still_stands),
      TEST(a_switch_ends_by_itself),
      TEST(states_survive_closing),
      TEST(drill_and_switch_of_a_ca),
      TEST(finds_keys_by_prefix),
      TEST(must_staple_and_revoked_are_obeyed),
      TEST(gives_pages_back),
      TEST(opens_when_the_maker_of_a_lock_file_was_killed),
  };
  return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
