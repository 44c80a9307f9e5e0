// SPDX-License-Identifier: Apache-2.0
#include "certstore/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/unit/certstore/fakes.h"

static struct bench bench;

static int make_bench(void **state) {
  (void)state;
  bench_init(&bench);
  return 0;
}

static int free_bench(void **state) {
  (void)state;
  bench_cleanup(&bench);
  return 0;
}

static uint32_t service_of(unsigned key) {
  return atomic_load(&states_get(bench.states, STATE_LEVEL_KEY, bench_id(key))->service);
}

static void undo(uint64_t id) {
  assert_int_equal(states_undo(bench.states, id, "somebody", FAKE_NOW_S), STATUS_OK);
}

// --- words ---------------------------------------------------------------------------

static void gives_one_object_for_one_subject(void **state) {
  (void)state;
  struct state *name = states_get(bench.states, STATE_LEVEL_NAME, "a.test");
  assert_ptr_equal(states_get(bench.states, STATE_LEVEL_NAME, "a.test"), name);
  assert_ptr_not_equal(states_get(bench.states, STATE_LEVEL_NAME, "b.test"), name);
  assert_ptr_not_equal(states_get(bench.states, STATE_LEVEL_KEY, bench_id(1)),
                       states_get(bench.states, STATE_LEVEL_CA, bench_id(1)));
  assert_int_equal(atomic_load(&name->preferred), 0);
  // The table grows, the objects stay where they are.
  for (unsigned i = 0; i < 5000; i++) {
    assert_non_null(states_get(bench.states, STATE_LEVEL_KEY, bench_id(i)));
  }
  assert_ptr_equal(states_get(bench.states, STATE_LEVEL_NAME, "a.test"), name);
}

static void undo_in_any_order_leaves_what_still_stands(void **state) {
  (void)state;
  uint64_t out = bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  uint64_t in = bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_IN_SERVICE);
  assert_int_equal(service_of(1), STATE_IN_SERVICE);
  undo(in);
  assert_int_equal(service_of(1), STATE_OUT_OF_SERVICE);
  uint64_t in_again = bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_IN_SERVICE);
  undo(out);  // the later word stands
  assert_int_equal(service_of(1), STATE_IN_SERVICE);
  undo(in_again);
  assert_int_equal(service_of(1), STATE_SILENT);
}

static void a_dc_change_says_nothing_about_levels(void **state) {
  (void)state;
  const struct state *name = states_get(bench.states, STATE_LEVEL_NAME, "a.test");
  uint64_t level = bench_prefer(&bench, STATE_LEVEL_NAME, "a.test", 2);
  uint64_t dc = bench_dc(&bench, STATE_LEVEL_NAME, "a.test", false);
  assert_int_equal(atomic_load(&name->preferred), 2);
  assert_true(atomic_load(&name->is_dc_off));
  undo(level);
  assert_int_equal(atomic_load(&name->preferred), 0);
  assert_true(atomic_load(&name->is_dc_off));
  (void)bench_prefer(&bench, STATE_LEVEL_NAME, "a.test", 1);
  assert_true(atomic_load(&name->is_dc_off));  // nor the other way round
  undo(dc);
  assert_false(atomic_load(&name->is_dc_off));
}

static void refuses_to_undo_twice_or_what_never_was(void **state) {
  (void)state;
  uint64_t id = bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  assert_int_equal(states_undo(bench.states, id + 1, "", 0), STATUS_NOT_FOUND);
  assert_int_equal(states_undo(bench.states, 0, "", 0), STATUS_NOT_FOUND);
  undo(id);
  assert_int_equal(states_undo(bench.states, id, "", 0), STATUS_EXISTS);
  assert_string_equal(states_find(bench.states, id)->undone_by, "somebody");
  assert_int_equal(states_find(bench.states, id)->undone_at_s, FAKE_NOW_S);
}

static void refuses_changes_that_make_no_sense(void **state) {
  (void)state;
  size_t num = 0;
  struct state_change good = {.level = STATE_LEVEL_KEY,
                              .service = STATE_OUT_OF_SERVICE,
                              .preferred = STATE_PREFERRED_LEAVE,
                              .dc = -1};
  (void)snprintf(good.subject, sizeof(good.subject), "%s", bench_id(1));
  struct state_change bad[10];
  for (size_t i = 0; i < 10; i++) {
    bad[i] = good;
  }
  bad[0].subject[63] = '\0';                          // too short
  bad[1].subject[0] = 'A';                            // not lower case
  bad[2].preferred = 1;                               // not for keys
  bad[3].dc = 0;                                      // not for keys
  bad[4].service = (enum state_service)3;             // none
  bad[5].level = (enum state_level)4;                 // none
  bad[6].level = STATE_LEVEL_FLEET;                   // has no subject
  bad[7].level = STATE_LEVEL_NAME;                    // service is not for names
  memset(bad[8].reason, 'x', sizeof(bad[8].reason));  // has no end
  bad[9] = (struct state_change){.level = STATE_LEVEL_NAME, .preferred = 65, .dc = -1};
  (void)snprintf(bad[9].subject, sizeof(bad[9].subject), "a.test");
  for (size_t i = 0; i < 10; i++) {
    assert_int_equal(states_apply(bench.states, &bad[i]), STATUS_FORMAT);
  }
  (void)states_list(bench.states, &num);
  assert_int_equal(num, 0);
  assert_int_equal(states_apply(bench.states, &good), STATUS_OK);
}

static void remembers_who_when_and_why(void **state) {
  (void)state;
  struct state_change change = {.level = STATE_LEVEL_CA,
                                .service = STATE_OUT_OF_SERVICE,
                                .preferred = STATE_PREFERRED_LEAVE,
                                .dc = -1,
                                .is_compromised = true,
                                .reason = "key leaked",
                                .author = "ada",
                                .author_uid = 1000};
  (void)snprintf(change.subject, sizeof(change.subject), "%s", bench_id(9));
  clock_override_wall_s(FAKE_NOW_S);
  assert_int_equal(states_apply(bench.states, &change), STATUS_OK);
  clock_override_wall_s(0);
  const struct state_change *kept = states_find(bench.states, change.id);
  assert_string_equal(kept->reason, "key leaked");
  assert_string_equal(kept->author, "ada");
  assert_int_equal(kept->author_uid, 1000);
  assert_int_equal(kept->at_s, FAKE_NOW_S);
  assert_true(atomic_load(&states_get(bench.states, STATE_LEVEL_CA, bench_id(9))->is_compromised));
}

// --- drafts ---------------------------------------------------------------------------

static void a_draft_is_not_visible_until_it_is_adopted(void **state) {
  (void)state;
  struct states *draft = NULL;
  struct state_change change = {.level = STATE_LEVEL_KEY,
                                .service = STATE_OUT_OF_SERVICE,
                                .preferred = STATE_PREFERRED_LEAVE,
                                .dc = -1};
  (void)snprintf(change.subject, sizeof(change.subject), "%s", bench_id(1));
  uint64_t first = bench_say(&bench, STATE_LEVEL_KEY, bench_id(2), STATE_OUT_OF_SERVICE);
  assert_int_equal(states_draft(&draft, bench.states), STATUS_OK);
  assert_int_equal(states_apply(draft, &change), STATUS_OK);
  assert_int_equal(states_undo(draft, first, "me", 0), STATUS_OK);
  assert_int_equal(service_of(1), STATE_SILENT);
  assert_int_equal(service_of(2), STATE_OUT_OF_SERVICE);
  assert_null(states_find(bench.states, change.id));
  states_adopt(bench.states, &draft);
  assert_null(draft);
  assert_int_equal(service_of(1), STATE_OUT_OF_SERVICE);
  assert_int_equal(service_of(2), STATE_SILENT);
  assert_non_null(states_find(bench.states, change.id));
}

static void a_dropped_draft_leaves_no_trace(void **state) {
  (void)state;
  struct states *draft = NULL;
  char *before = states_save(bench.states);
  struct state_change change = {.level = STATE_LEVEL_FLEET, .preferred = 2, .dc = -1};
  assert_int_equal(states_draft(&draft, bench.states), STATUS_OK);
  assert_int_equal(states_apply(draft, &change), STATUS_OK);
  states_free(draft);
  char *after = states_save(bench.states);
  assert_string_equal(before, after);
  free(before);
  free(after);
}

// --- limits ----------------------------------------------------------------------------

static void forgets_the_oldest_undone_when_full_and_refuses_when_all_stand(void **state) {
  (void)state;
  size_t num = 0;
  struct state_change change = {.level = STATE_LEVEL_FLEET, .preferred = 1, .dc = -1};
  for (unsigned i = 0; i < STATE_MAX_CHANGES; i++) {
    assert_int_equal(states_apply(bench.states, &change), STATUS_OK);
  }
  assert_int_equal(states_apply(bench.states, &change), STATUS_LIMIT);
  undo(1);
  undo(3);
  assert_int_equal(states_apply(bench.states, &change), STATUS_OK);
  assert_int_equal(change.id, STATE_MAX_CHANGES + 1);  // never used again
  const struct state_change *list = states_list(bench.states, &num);
  assert_int_equal(num, STATE_MAX_CHANGES - 1);
  assert_int_equal(list[0].id, 2);
  assert_int_equal(list[1].id, 4);
}

static uint32_t random_state;

static uint32_t next_random(void) {  // xorshift: the same run each time
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

static void a_subject_that_is_forgotten_is_silent(void **state) {
  (void)state;
  struct states *draft = NULL;
  struct state_change change = {.level = STATE_LEVEL_FLEET, .preferred = 1, .dc = -1};
  uint64_t first = bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  for (unsigned i = 1; i < STATE_MAX_CHANGES; i++) {
    assert_int_equal(states_apply(bench.states, &change), STATUS_OK);
  }
  assert_int_equal(service_of(1), STATE_OUT_OF_SERVICE);
  assert_int_equal(states_draft(&draft, bench.states), STATUS_OK);
  assert_int_equal(states_undo(draft, first, "me", 0), STATUS_OK);
  assert_int_equal(states_apply(draft, &change), STATUS_OK);  // makes room by forgetting it
  states_adopt(bench.states, &draft);
  assert_null(states_find(bench.states, first));
  assert_int_equal(service_of(1), STATE_SILENT);
  // Ids go on where they were after a restart too, though there are fewer changes.
  struct bench other;
  bench_init(&other);
  char *text = states_save(bench.states);
  assert_int_equal(states_load(other.states, text, strlen(text), "file", NULL), STATUS_OK);
  uint64_t last = change.id;
  undo(last);
  assert_int_equal(states_undo(other.states, last, "me", 0), STATUS_OK);
  assert_int_equal(states_apply(other.states, &change), STATUS_OK);
  assert_int_equal(change.id, last + 1);
  free(text);
  bench_cleanup(&other);
}

// --- save and load -----------------------------------------------------------------------

static void assert_same_words(const struct state *a, const struct state *b) {
  assert_int_equal(atomic_load(&a->service), atomic_load(&b->service));
  assert_int_equal(atomic_load(&a->preferred), atomic_load(&b->preferred));
  assert_int_equal(atomic_load(&a->is_dc_off), atomic_load(&b->is_dc_off));
  assert_int_equal(atomic_load(&a->is_compromised), atomic_load(&b->is_compromised));
}

static void random_text(char *out, size_t max) {
  static const char *const parts[] = {"a", "\"", "\\", "\n", "\t", "é", "☂", "\x7f", " ", "{}"};
  size_t len = 0;
  out[0] = '\0';
  for (int i = (int)(next_random() >> 1) % 40; i > 0; i--) {
    const char *part =
        parts[(size_t)(int)(next_random() >> 1) % (sizeof(parts) / sizeof(parts[0]))];
    if (len + strlen(part) >= max) {
      break;
    }
    memcpy(out + len, part, strlen(part) + 1);
    len += strlen(part);
  }
}

static void random_change(struct state_change *out) {
  *out = (struct state_change){
      .level = (enum state_level)((int)(next_random() >> 1) % STATE_NUM_LEVELS),
      .preferred = STATE_PREFERRED_LEAVE,
      .dc = -1,
      .author_uid = (int)(next_random() >> 1) % 3 - 1};
  random_text(out->reason, sizeof(out->reason));
  random_text(out->author, sizeof(out->author));
  if (out->level == STATE_LEVEL_KEY || out->level == STATE_LEVEL_CA) {
    out->service = (enum state_service)((int)(next_random() >> 1) % STATE_NUM_SERVICES);
    out->is_compromised = (int)(next_random() >> 1) % 2 == 0;
    (void)snprintf(out->subject, sizeof(out->subject), "%s",
                   bench_id((unsigned)(int)(next_random() >> 1) % 6));
    return;
  }
  if (out->level == STATE_LEVEL_NAME) {
    (void)snprintf(out->subject, sizeof(out->subject), "%c.test",
                   'a' + (int)(next_random() >> 1) % 6);
  }
  if ((int)(next_random() >> 1) % 2 == 0) {
    out->preferred = (uint32_t)((int)(next_random() >> 1) % 5);
  }
  if (out->preferred == STATE_PREFERRED_LEAVE || (int)(next_random() >> 1) % 2 == 0) {
    out->dc = (int)(next_random() >> 1) % 2;
  }
}

// What is saved and loaded again says the same of every subject, and saves to the
// same bytes, whatever was applied and undone in whatever order.
static void loads_what_it_saved(void **state) {
  (void)state;
  for (unsigned round = 0; round < 100; round++) {
    struct bench one;
    struct bench two;
    struct errmsg err = {0};
    random_state = round + 1;
    bench_init(&one);
    bench_init(&two);
    for (int i = (int)(next_random() >> 1) % 60; i > 0; i--) {
      struct state_change change;
      random_change(&change);
      assert_int_equal(states_apply(one.states, &change), STATUS_OK);
      if ((int)(next_random() >> 1) % 3 == 0) {
        enum status st =
            states_undo(one.states, 1 + (uint64_t)(int)(next_random() >> 1) % change.id,
                        change.author, (int)(next_random() >> 1));
        assert_true(st == STATUS_OK || st == STATUS_EXISTS);
      }
    }
    char *text = states_save(one.states);
    assert_non_null(text);
    assert_int_equal(states_load(two.states, text, strlen(text), "file", &err), STATUS_OK);
    char *again = states_save(two.states);
    assert_string_equal(text, again);
    free(again);
    free(text);
    assert_same_words(states_get(one.states, STATE_LEVEL_FLEET, ""),
                      states_get(two.states, STATE_LEVEL_FLEET, ""));
    for (unsigned i = 0; i < 6; i++) {
      char name[8];
      (void)snprintf(name, sizeof(name), "%c.test", 'a' + i);
      assert_same_words(states_get(one.states, STATE_LEVEL_NAME, name),
                        states_get(two.states, STATE_LEVEL_NAME, name));
      assert_same_words(states_get(one.states, STATE_LEVEL_KEY, bench_id(i)),
                        states_get(two.states, STATE_LEVEL_KEY, bench_id(i)));
      assert_same_words(states_get(one.states, STATE_LEVEL_CA, bench_id(i)),
                        states_get(two.states, STATE_LEVEL_CA, bench_id(i)));
    }
    bench_cleanup(&one);
    bench_cleanup(&two);
  }
}

// A subject that a chain already points at (a store made before the load) says what
// the file says.
static void load_reaches_objects_that_are_held_already(void **state) {
  (void)state;
  struct bench other;
  bench_init(&other);
  bench_say(&other, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  char *text = states_save(other.states);
  const struct state *held = states_get(bench.states, STATE_LEVEL_KEY, bench_id(1));
  assert_int_equal(states_load(bench.states, text, strlen(text), "file", NULL), STATUS_OK);
  assert_int_equal(atomic_load(&held->service), STATE_OUT_OF_SERVICE);
  free(text);
  bench_cleanup(&other);
}

#define FILE_OF(changes) \
  "{\"format\":\"deputy-states\",\"version\":1,\"next_id\":3,\"changes\":[" changes "]}"
#define KEY_1 "0000000100000000000000000000000000000000000000000000000000000000"
#define CHANGE(id, level, subject, words)                                     \
  "{\"id\":" id ",\"level\":\"" level "\",\"subject\":\"" subject "\"," words \
  ",\"reason\":\"r\",\"author\":\"a\",\"author_uid\":0,\"at\":5}"
#define OUT "\"service\":\"out\",\"compromised\":false"

static void refuses_a_damaged_file_and_stays_empty(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",
      "{",
      "[]",
      "{}",
      "null",
      "{\"format\":\"other\",\"version\":1,\"next_id\":3,\"changes\":[]}",
      "{\"format\":\"deputy-states\",\"version\":2,\"next_id\":3,\"changes\":[]}",
      "{\"format\":\"deputy-states\",\"version\":1,\"next_id\":0,\"changes\":[]}",
      "{\"format\":\"deputy-states\",\"version\":1,\"next_id\":3,\"changes\":{}}",
      "{\"format\":\"deputy-states\",\"version\":1,\"next_id\":3}",
      "{\"format\":\"deputy-states\",\"version\":1,\"next_id\":3,\"changes\":[],\"more\":1}",
      FILE_OF("7"),
      FILE_OF(CHANGE("1", "key", KEY_1, OUT ",\"compromised\":false")),
      FILE_OF(CHANGE("3", "key", KEY_1, OUT)),  // id not below next_id
      FILE_OF(CHANGE("0", "key", KEY_1, OUT)),
      FILE_OF(CHANGE("1", "key", KEY_1, OUT) "," CHANGE("1", "key", KEY_1, OUT)),
      FILE_OF(CHANGE("2", "key", KEY_1, OUT) "," CHANGE("1", "key", KEY_1, OUT)),
      FILE_OF(CHANGE("1", "keys", KEY_1, OUT)),
      FILE_OF(CHANGE("1", "key", "00", OUT)),
      FILE_OF(CHANGE("1", "key", KEY_1, "\"service\":\"off\",\"compromised\":false")),
      FILE_OF(CHANGE("1", "key", KEY_1, "\"service\":\"out\"")),
      FILE_OF(CHANGE("1", "key", KEY_1, OUT ",\"dc\":true")),
      FILE_OF(CHANGE("1", "key", KEY_1, OUT ",\"until\":9")),
      FILE_OF(CHANGE("1", "key", KEY_1, OUT ",\"undone_at\":9")),
      FILE_OF(CHANGE("1", "name", "a.test", "\"preferred\":65")),
      FILE_OF(CHANGE("1", "name", "a.test", "\"preferred\":-1")),
      FILE_OF(CHANGE("1", "name", "a.test", "\"dc\":1")),
      FILE_OF(CHANGE("1", "name", "A.test", "\"dc\":true")),
      FILE_OF(CHANGE("1", "name", "", "\"dc\":true")),
      FILE_OF(CHANGE("1", "fleet", "a.test", "\"dc\":true")),
      FILE_OF("{\"id\":1,\"level\":\"fleet\",\"subject\":\"\",\"dc\":true}"),
  };
  static const char good[] = FILE_OF(CHANGE("1", "key", KEY_1, OUT));
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    struct errmsg err = {0};
    size_t num = 0;
    enum status st = states_load(bench.states, bad[i], strlen(bad[i]), "/x/states", &err);
    if (st != STATUS_FORMAT || strstr(err.text, "/x/states") == NULL) {
      fail_msg("%s: %s: %s", bad[i], status_name(st), err.text);
    }
    (void)states_list(bench.states, &num);
    assert_int_equal(num, 0);
  }
  assert_int_equal(service_of(1), STATE_SILENT);
  assert_int_equal(states_load(bench.states, good, strlen(good), "f", NULL), STATUS_OK);
}

// Cut anywhere, a file is refused: no prefix of it is a smaller history.
static void refuses_every_prefix_of_a_file(void **state) {
  (void)state;
  bench_say(&bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  bench_prefer(&bench, STATE_LEVEL_NAME, "a.test", 2);
  char *text = states_save(bench.states);
  struct bench other;
  bench_init(&other);
  for (size_t len = 0; len + 1 < strlen(text); len++) {
    assert_int_equal(states_load(other.states, text, len, "f", NULL), STATUS_FORMAT);
  }
  bench_cleanup(&other);
  free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_bench, free_bench)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(gives_one_object_for_one_subject),
      TEST(undo_in_any_order_leaves_what_still_stands),
      TEST(a_dc_change_says_nothing_about_levels),
      TEST(refuses_to_undo_twice_or_what_never_was),
      TEST(refuses_changes_that_make_no_sense),
      TEST(remembers_who_when_and_why),
      TEST(a_draft_is_not_visible_until_it_is_adopted),
      TEST(a_dropped_draft_leaves_no_trace),
      TEST(forgets_the_oldest_undone_when_full_and_refuses_when_all_stand),
      TEST(a_subject_that_is_forgotten_is_silent),
      TEST(loads_what_it_saved),
      TEST(load_reaches_objects_that_are_held_already),
      TEST(refuses_a_damaged_file_and_stays_empty),
      TEST(refuses_every_prefix_of_a_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
