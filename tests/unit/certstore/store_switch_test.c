// SPDX-License-Identifier: Apache-2.0
#include "certstore/store_switch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "certstore/ready.h"
#include "common/base/clock.h"
#include "tests/unit/certstore/store_fixture.h"

#define DAY_S ((int64_t)86400)
#define SMALL_MAP_LEN ((size_t)256 << 10)
#define NUM_SERVERS 2
#define NUM_THREADS 3
#define NUM_CHANGES 1200
#define LIMIT_US ((int64_t)60 * 1000 * 1000)

static struct store *store;
static struct store_reader *reader;
static const char *folder;
static struct errmsg err;
static int64_t now_s;

static int begin(void **state) {
  (void)state;
  fixture_init();
  now_s = clock_wall_s();
  return 0;
}

static int make_store(void **state) {
  (void)state;
  folder = fixture_folder();
  store = fixture_open(folder, STORE_CREATE);
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  store_reader_park(reader);
  err.text[0] = '\0';
  return 0;
}

static int close_store(void **state) {
  (void)state;
  store_reader_free(reader);
  store_close(store);
  reader = NULL;
  store = NULL;
  return 0;
}

static struct fixture_chain *add(unsigned ca, const char *name, unsigned level) {
  char names[300];
  (void)snprintf(names, sizeof(names), "DNS:%s", name);
  struct fixture_chain *chain =
      fixture_chain(ca, &(struct test_cert){.cn = "x", .names = names}, NULL);
  assert_int_equal(fixture_add(store, chain, level, false, &err), STATUS_OK);
  return chain;
}

static struct store_order order_of(enum state_level level, struct bytes subject) {
  return (struct store_order){.level = level,
                              .subject = subject,
                              .dc = STORE_DC_LEAVE,
                              .reason = "test",
                              .author = "ann",
                              .author_uid = 7};
}

// ask leaves the ruling's numbers in *out.
static enum status ask(struct store_ruling *out, const struct store_order *order) {
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  enum status st = store_switch(out, store, reader, order, now_s, NULL, &err);
  store_ruling_cleanup(out);
  store_reader_park(reader);
  return st;
}

static struct store_words words_of(enum state_level level, struct bytes subject) {
  struct store_words words;
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(store_get_words(reader, &words, level, subject, now_s), STATUS_OK);
  store_reader_park(reader);
  return words;
}

static struct bytes ca_of(const char *name, unsigned level) {
  static uint8_t ids[4][32];
  static unsigned at;
  struct store_name found;
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(store_find_exact(reader, &found, bytes_text(name)), STATUS_OK);
  uint8_t *id = ids[at++ % 4];
  memcpy(id, found.slots[level].facts.ca_id, 32);
  store_reader_park(reader);
  return bytes_of(id, 32);
}

// --- the rule ------------------------------------------------------------------------

static void refuses_a_ca_that_leaves_names_with_nothing_unless_forced(void **state) {
  (void)state;
  struct store_ruling ruling;
  add(0, "a.test", 0);
  add(0, "b.test", 0);
  add(1, "b.test", 1);
  struct store_order order = order_of(STATE_LEVEL_CA, ca_of("a.test", 0));
  assert_int_equal(ask(&ruling, &order), STATUS_REFUSED);
  assert_non_null(strstr(err.text, "1 of 2 names would be left with nothing usable"));
  assert_int_equal(ruling.num_without_backup, 1);
  assert_int_equal(words_of(STATE_LEVEL_CA, order.subject).service, STATE_SILENT);
  order.is_forced = true;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_true(ruling.was_forced && ruling.has_counts);
  assert_int_equal(ruling.num_without_backup, 1);
  assert_int_equal(ruling.num_moved, 2);
  assert_int_equal(words_of(STATE_LEVEL_CA, order.subject).service, STATE_OUT_OF_SERVICE);
  uint64_t id = ruling.id;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_true(ruling.is_already && ruling.id == id);
  // Another word for the same CA is another change.
  order.is_compromised = true;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_true(!ruling.is_already && ruling.id > id);
}

static void counts_names_beside_the_store(void **state) {
  (void)state;
  struct store_ruling ruling;
  add(0, "a.test", 0);
  add(1, "a.test", 1);
  struct store_order order = order_of(STATE_LEVEL_CA, ca_of("a.test", 0));
  order.beside = (struct store_beside){
      .has_subject = true, .num_names = 5, .num_without_backup = 2, .first = "conf.test"};
  assert_int_equal(ask(&ruling, &order), STATUS_REFUSED);
  assert_non_null(strstr(err.text, "2 of 6 names"));
  assert_non_null(strstr(err.text, "conf.test"));
  // A CA that only they have is no stranger.
  static const uint8_t theirs[32] = {9};
  order = order_of(STATE_LEVEL_CA, bytes_of(theirs, 32));
  assert_int_equal(ask(&ruling, &order), STATUS_NOT_FOUND);
  order.beside = (struct store_beside){.has_subject = true, .num_names = 5, .num_moved = 3};
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_int_equal(ruling.num_moved, 3);
}

static void refuses_levels_with_nothing_usable(void **state) {
  (void)state;
  struct store_ruling ruling;
  add(0, "a.test", 0);
  add(1, "a.test", 1);
  add(0, "b.test", 0);
  struct store_order order = order_of(STATE_LEVEL_NAME, bytes_text("b.test"));
  assert_int_equal(ask(&ruling, &order), STATUS_REFUSED);  // it has no other
  order.preferred = 2;
  assert_int_equal(ask(&ruling, &order), STATUS_NOT_FOUND);  // no such level
  order = order_of(STATE_LEVEL_NAME, bytes_text("a.test"));
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_int_equal(ruling.preferred, 2);
  assert_string_equal(ruling.label, "backup");
  order = order_of(STATE_LEVEL_FLEET, (struct bytes){0});
  assert_int_equal(ask(&ruling, &order), STATUS_FORMAT);  // where to?
  order.preferred = 2;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);  // one has it, one stays
  assert_int_equal(ruling.num_usable, 1);
  order.preferred = 3;
  assert_int_equal(ask(&ruling, &order), STATUS_REFUSED);
  assert_non_null(strstr(err.text, "none of 2 names"));
  order.is_forced = true;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_true(ruling.was_forced);
}

static void takes_back_all_of_a_subject_but_credentials(void **state) {
  (void)state;
  struct store_ruling ruling;
  uint64_t ids[STORE_MAX_STANDING];
  size_t num = 0;
  const struct bytes name = bytes_text("a.test");
  add(0, "a.test", 0);
  add(1, "a.test", 1);
  struct store_order order = order_of(STATE_LEVEL_NAME, name);
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  order.preferred = 1;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  order = order_of(STATE_LEVEL_NAME, name);
  order.dc = 0;
  assert_int_equal(ask(&ruling, &order), STATUS_OK);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(
      store_restore(ids, &num, store, reader, STATE_LEVEL_NAME, name, "bob", now_s, &err),
      STATUS_OK);
  assert_int_equal(num, 2);
  struct store_words words = words_of(STATE_LEVEL_NAME, name);
  assert_true(words.preferred == 0 && words.is_dc_off);
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  assert_int_equal(
      store_restore(ids, &num, store, reader, STATE_LEVEL_NAME, name, "bob", now_s, &err),
      STATUS_NOT_FOUND);
  assert_true(fixture_verify(store));
}

// --- the log -----------------------------------------------------------------------------

static uint64_t num_changes(void) {
  struct store_counts counts = {0};
  assert_int_equal(store_reader_refresh(reader), STATUS_OK);
  store_count_records(&counts, reader);
  store_reader_park(reader);
  return counts.num_changes;
}

static void forgets_only_what_stands_no_longer(void **state) {
  (void)state;
  uint64_t id = 0;
  uint64_t num = 0;
  struct store_change change = {.level = STATE_LEVEL_FLEET,
                                .preferred = 2,
                                .dc = STORE_LEAVE,
                                .reason = bytes_text("test"),
                                .author = bytes_text("ann")};
  struct store_log_limits limits = {.max_num = 1};
  for (int i = 0; i < 6; i++) {
    change.until_s = i == 2 ? now_s + 1 : 0;  // the third ends by itself
    assert_int_equal(store_apply(store, &id, &change, now_s - 10 * DAY_S, &err), STATUS_OK);
  }
  assert_int_equal(store_undo(store, 1, "ann", now_s, &err), STATUS_OK);
  assert_int_equal(store_undo(store, 6, "ann", now_s, &err), STATUS_OK);
  assert_int_equal(store_trim_log(store, &num, &limits, now_s + 2, &err), STATUS_OK);
  assert_int_equal(num, 2);  // the first and the third; of the last only its id is needed
  assert_int_equal(num_changes(), 4);
  now_s += 2;
  assert_int_equal(words_of(STATE_LEVEL_FLEET, (struct bytes){0}).preferred, 2);
  assert_true(fixture_verify(store));
  assert_int_equal(store_apply(store, &id, &change, now_s, &err), STATUS_OK);
  assert_int_equal(id, 7);
  // By age: the sixth is no longer the last.
  limits = (struct store_log_limits){.max_age_s = 5 * DAY_S};
  assert_int_equal(store_trim_log(store, &num, &limits, now_s, &err), STATUS_OK);
  assert_int_equal(num, 1);
  limits.max_age_s = 20 * DAY_S;
  assert_int_equal(store_undo(store, 2, "ann", now_s, &err), STATUS_OK);
  assert_int_equal(store_trim_log(store, &num, &limits, now_s, &err), STATUS_OK);
  assert_int_equal(num, 0);
  assert_true(fixture_verify(store));
}

static void takes_over_once(void **state) {
  (void)state;
  static const uint8_t key[32] = {1};
  const struct store_change changes[] = {
      {.level = STATE_LEVEL_KEY,
       .service = STATE_OUT_OF_SERVICE,
       .preferred = STORE_LEAVE,
       .dc = STORE_LEAVE,
       .at_s = 100,
       .subject = bytes_of(key, 32),
       .reason = bytes_text("one"),
       .author = bytes_text("ann")},
      {.level = STATE_LEVEL_FLEET,
       .preferred = 2,
       .dc = STORE_LEAVE,
       .is_undone = true,
       .at_s = 200,
       .undone_at_s = 300,
       .reason = bytes_text("two"),
       .author = bytes_text("ann"),
       .undone_by = bytes_text("bob")},
  };
  assert_int_equal(store_take_over(store, changes, 2, now_s, &err), STATUS_OK);
  assert_int_equal(words_of(STATE_LEVEL_KEY, bytes_of(key, 32)).service, STATE_OUT_OF_SERVICE);
  assert_int_equal(words_of(STATE_LEVEL_FLEET, (struct bytes){0}).preferred, 0);
  assert_true(fixture_verify(store));
  assert_int_equal(store_take_over(store, changes, 2, now_s, &err), STATUS_EXISTS);
  assert_int_equal(num_changes(), 2);
}

// --- what nobody has -----------------------------------------------------------------------

static enum status remove_b(struct store_txn *txn, void *arg, struct errmsg *why) {
  (void)arg;
  return store_remove_name(txn, "b.test", why);
}

static void compaction_drops_issuers_and_cas_of_nobody(void **state) {
  (void)state;
  struct store_counts counts = {0};
  uint64_t num = 0;
  add(1, "b.test", 0);
  add(0, "a.test", 0);
  assert_int_equal(store_write(store, remove_b, NULL, &err), STATUS_OK);
  store_reader_free(reader);
  assert_int_equal(store_compact(&store, &num, &err), STATUS_OK);
  assert_int_equal(num, 1);
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  store_count_records(&counts, reader);
  assert_int_equal(counts.num_issuers, 1);
  assert_int_equal(counts.num_cas, 1);
  assert_true(fixture_verify(store));
}

struct revoking {
  uint64_t chain_id;
  uint8_t reason;
};

static enum status note_revoked(struct store_txn *txn, void *arg, struct errmsg *why) {
  const struct revoking *revoking = arg;
  const struct store_revoked revoked = {.since_s = 1, .noted_s = 2, .reason = revoking->reason};
  return store_put_revoked(txn, revoking->chain_id, &revoked, why);
}

static void a_revocation_ends_sessions_by_its_reason(void **state) {
  (void)state;
  struct store_name name;
  struct ready_mark mark = {{0}};
  add(0, "a.test", 0);
  for (uint8_t reason = 0; reason <= 10; reason++) {
    struct ready *ready = NULL;
    bool is_harmless = reason == 3 || reason == 4 || reason == 5 || reason == 9;
    if (reason == 7) {
      continue;  // RFC 5280 does not use it
    }
    assert_int_equal(store_reader_refresh(reader), STATUS_OK);
    assert_int_equal(store_find_exact(reader, &name, bytes_text("a.test")), STATUS_OK);
    struct revoking revoking = {name.slots[0].chain_id, reason};
    store_reader_park(reader);
    if (store_write(store, note_revoked, &revoking, &err) != STATUS_OK) {
      fail_msg("%u: %s", reason, err.text);
    }
    assert_int_equal(store_reader_refresh(reader), STATUS_OK);
    assert_int_equal(ready_load(&ready, reader, bytes_text("a.test"), &mark, NULL, NULL, &err),
                     STATUS_OK);
    assert_non_null(ready);  // a reason that changes is news
    assert_true(ready->name.levels[0].chains[0]->is_revoked);
    assert_int_equal(ready->name.levels[0].chains[0]->is_resume_off, !is_harmless);
    mark = ready->mark;
    ready_unref(ready);
    store_reader_park(reader);
  }
}

// --- a map that grows under readers ------------------------------------------------------

// One server: threads that look without a lock, and open the store anew when it has outgrown
// its map. They are done when they have seen the last word.
struct server {
  struct store *store;
  _Atomic bool must_let_go;
  _Atomic int num_done;
};

static _Atomic int *num_opened;  // of all processes: servers that have the small map

static void *serve(void *arg) {
  struct server *server = arg;
  struct store_reader *mine = NULL;
  struct store_words words = {0};
  if (store_reader_new(&mine, server->store, NULL) != STATUS_OK) {
    server->must_let_go = true;
    return NULL;
  }
  while (!server->must_let_go && words.preferred != 3) {
    (void)store_states_version(server->store);
    enum status st = store_reader_refresh(mine);
    if (st == STATUS_OK) {
      st = store_get_words(mine, &words, STATE_LEVEL_FLEET, (struct bytes){0}, now_s);
      store_reader_park(mine);
    }
    if (st != STATUS_OK) {
      server->must_let_go = true;
    }
  }
  store_reader_free(mine);
  server->num_done += words.preferred == 3 ? 1 : 0;
  return NULL;
}

// run_server returns how many times it has opened the store; 0: it gave up.
static int run_server(void) {
  const struct store_options options = {
      .mode = STORE_STATES, .is_serving = true, .map_len = SMALL_MAP_LEN};
  int64_t end_us = clock_monotonic_us() + LIMIT_US;
  bool is_counted = false;
  for (int num = 1; clock_monotonic_us() < end_us; num++) {
    struct server server = {0};
    pthread_t threads[NUM_THREADS];
    if (store_open(&server.store, folder, &options, NULL) != STATUS_OK) {
      continue;
    }
    if (!is_counted) {
      *num_opened += 1;
      is_counted = true;
    }
    for (size_t i = 0; i < NUM_THREADS; i++) {
      (void)pthread_create(&threads[i], NULL, serve, &server);
    }
    for (size_t i = 0; i < NUM_THREADS; i++) {
      (void)pthread_join(threads[i], NULL);
    }
    store_close(server.store);
    if (server.num_done == NUM_THREADS) {
      return num;
    }
  }
  return 0;
}

static void a_map_grows_under_readers_of_other_processes(void **state) {
  (void)state;
  pid_t pids[NUM_SERVERS];
  char text[STORE_TEXT_MAX_LEN + 1];
  uint64_t id = 0;
  memset(text, 'x', sizeof(text));
  text[STORE_TEXT_MAX_LEN] = '\0';
  store_reader_free(reader);
  reader = NULL;
  store_close(store);
  folder = fixture_folder();
  const struct store_options options = {.mode = STORE_CREATE, .map_len = SMALL_MAP_LEN};
  assert_int_equal(store_open(&store, folder, &options, &err), STATUS_OK);
  num_opened =
      mmap(NULL, sizeof(*num_opened), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(num_opened, MAP_FAILED);
  for (size_t i = 0; i < NUM_SERVERS; i++) {
    pids[i] = fork();
    if (pids[i] == 0) {
      int num = run_server();
      _exit(num > 1 ? 0 : 1 + num);  // 2: the map was never too small
    }
  }
  for (int64_t end_us = clock_monotonic_us() + LIMIT_US;
       *num_opened < NUM_SERVERS && clock_monotonic_us() < end_us;) {
    (void)usleep(1000);
  }
  struct store_change *changes = calloc(NUM_CHANGES, sizeof(*changes));
  assert_non_null(changes);
  for (size_t i = 0; i < NUM_CHANGES; i++) {
    changes[i] = (struct store_change){.level = STATE_LEVEL_FLEET,
                                       .preferred = 2,
                                       .dc = STORE_LEAVE,
                                       .is_undone = true,
                                       .at_s = 1,
                                       .undone_at_s = 2,
                                       .reason = bytes_text(text),
                                       .author = bytes_text(text),
                                       .undone_by = bytes_text(text)};
  }
  assert_int_equal(store_take_over(store, changes, NUM_CHANGES, now_s, &err), STATUS_OK);
  struct store_change last = changes[0];
  for (int i = 0; i < 20; i++) {
    last.preferred = i == 19 ? 3 : 2;
    assert_int_equal(store_apply(store, &id, &last, now_s, &err), STATUS_OK);
  }
  free(changes);
  for (size_t i = 0; i < NUM_SERVERS; i++) {
    int status = 0;
    assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
    assert_int_equal(status, 0);
  }
  (void)munmap(num_opened, sizeof(*num_opened));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_store, close_store)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(refuses_a_ca_that_leaves_names_with_nothing_unless_forced),
      TEST(counts_names_beside_the_store),
      TEST(refuses_levels_with_nothing_usable),
      TEST(takes_back_all_of_a_subject_but_credentials),
      TEST(forgets_only_what_stands_no_longer),
      TEST(takes_over_once),
      TEST(compaction_drops_issuers_and_cas_of_nobody),
      TEST(a_revocation_ends_sessions_by_its_reason),
      TEST(a_map_grows_under_readers_of_other_processes),
  };
  return cmocka_run_group_tests(tests, begin, fixture_end);
}
