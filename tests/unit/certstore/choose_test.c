// SPDX-License-Identifier: Apache-2.0
// The fixed rule: which chain answers a handshake, level by level of the states.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/certstore/fakes.h"

// A name with two levels of two keys (1, 2) of two CAs (11, 12).
struct pair {
  struct bench bench;
  struct cert_name *name;
  struct chain *primary;
  struct chain *backup;
};

static struct pair pair;

static int make_pair(void **state) {
  (void)state;
  bench_init(&pair.bench);
  pair.name = bench_name(&pair.bench, "a.test");
  pair.primary = bench_chain(&pair.bench, pair.name, 0, 1, 11, KEY_KIND_P256);
  pair.backup = bench_chain(&pair.bench, pair.name, 1, 2, 12, KEY_KIND_P256);
  return 0;
}

static int free_pair(void **state) {
  (void)state;
  bench_cleanup(&pair.bench);
  return 0;
}

static void assert_answers(const struct chain *expected) {
  assert_ptr_equal(bench_answer(&pair.bench, pair.name), expected);
}

static void assert_judged(const struct chain *chain, enum chain_fault expected) {
  assert_string_equal(chain_fault_name(chain_judge(chain, FAKE_NOW_S)), chain_fault_name(expected));
}

// --- faults ----------------------------------------------------------------------

static void answers_with_the_first_level(void **state) {
  (void)state;
  assert_judged(pair.primary, CHAIN_USABLE);
  assert_answers(pair.primary);
}

static void passes_over_an_expired_chain(void **state) {
  (void)state;
  pair.primary->info.not_after_s = FAKE_NOW_S;  // the last second counts, RFC 5280, 4.1.2.5
  assert_answers(pair.primary);
  pair.primary->info.not_after_s = FAKE_NOW_S - 1;
  assert_judged(pair.primary, CHAIN_EXPIRED);
  assert_answers(pair.backup);
}

static void passes_over_a_chain_that_is_not_yet_valid(void **state) {
  (void)state;
  pair.primary->info.not_before_s = FAKE_NOW_S;
  assert_answers(pair.primary);
  pair.primary->info.not_before_s = FAKE_NOW_S + 1;
  assert_judged(pair.primary, CHAIN_NOT_YET_VALID);
  assert_answers(pair.backup);
}

static void passes_over_a_revoked_chain(void **state) {
  (void)state;
  pair.primary->is_revoked = true;
  assert_judged(pair.primary, CHAIN_REVOKED);
  assert_answers(pair.backup);
}

static void passes_over_must_staple_without_a_good_staple(void **state) {
  (void)state;
  pair.primary->info.is_must_staple = true;
  assert_judged(pair.primary, CHAIN_NO_STAPLE);
  assert_answers(pair.backup);
  pair.primary->has_staple = true;
  pair.primary->staple_ends_s = FAKE_NOW_S + 1;
  assert_answers(pair.primary);
  pair.primary->staple_ends_s = FAKE_NOW_S;
  assert_answers(pair.backup);
}

static void needs_no_staple_without_must_staple(void **state) {
  (void)state;
  pair.primary->has_staple = true;
  pair.primary->staple_ends_s = FAKE_NOW_S - 1;
  assert_answers(pair.primary);
}

// --- levels of states --------------------------------------------------------------

static void obeys_a_key_out_of_service(void **state) {
  (void)state;
  bench_say(&pair.bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  assert_judged(pair.primary, CHAIN_KEY_OUT);
  assert_answers(pair.backup);
}

static void obeys_a_ca_out_of_service(void **state) {
  (void)state;
  uint64_t id = bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_OUT_OF_SERVICE);
  assert_judged(pair.primary, CHAIN_CA_OUT);
  assert_answers(pair.backup);
  assert_int_equal(states_undo(pair.bench.states, id, "me", FAKE_NOW_S), STATUS_OK);
  assert_answers(pair.primary);
}

static void lets_a_key_in_service_outrank_its_ca_out(void **state) {
  (void)state;
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_OUT_OF_SERVICE);
  uint64_t id = bench_say(&pair.bench, STATE_LEVEL_KEY, bench_id(1), STATE_IN_SERVICE);
  assert_judged(pair.primary, CHAIN_USABLE);
  assert_answers(pair.primary);
  assert_int_equal(states_undo(pair.bench.states, id, "me", FAKE_NOW_S), STATUS_OK);
  assert_answers(pair.backup);
}

static void lets_a_key_out_outrank_its_ca_in_service(void **state) {
  (void)state;
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_IN_SERVICE);
  bench_say(&pair.bench, STATE_LEVEL_KEY, bench_id(1), STATE_OUT_OF_SERVICE);
  assert_judged(pair.primary, CHAIN_KEY_OUT);
}

static void puts_the_operators_level_first(void **state) {
  (void)state;
  struct choice choice;
  bench_prefer(&pair.bench, STATE_LEVEL_NAME, "a.test", 2);
  assert_answers(pair.backup);
  enum status st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_OK);
  assert_int_equal(choice.level, 1);
  assert_int_equal(choice_reason_of(pair.bench.store, pair.name, st, &choice),
                   CHOICE_NAME_PREFERRED);
}

static void leaves_the_operators_level_when_it_is_not_usable(void **state) {
  (void)state;
  bench_prefer(&pair.bench, STATE_LEVEL_NAME, "a.test", 2);
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(12), STATE_OUT_OF_SERVICE);
  assert_answers(pair.primary);
}

static void lets_the_name_outrank_the_fleet(void **state) {
  (void)state;
  struct choice choice;
  uint64_t fleet = bench_prefer(&pair.bench, STATE_LEVEL_FLEET, "", 2);
  enum status st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_ptr_equal(choice.chain, pair.backup);
  assert_int_equal(choice_reason_of(pair.bench.store, pair.name, st, &choice),
                   CHOICE_FLEET_PREFERRED);
  bench_prefer(&pair.bench, STATE_LEVEL_NAME, "a.test", 1);
  assert_answers(pair.primary);
  assert_int_equal(states_undo(pair.bench.states, fleet, "me", FAKE_NOW_S), STATUS_OK);
  assert_answers(pair.primary);
}

static void ignores_a_preferred_level_that_the_name_has_not(void **state) {
  (void)state;
  bench_prefer(&pair.bench, STATE_LEVEL_FLEET, "", 3);
  assert_answers(pair.primary);
  bench_prefer(&pair.bench, STATE_LEVEL_FLEET, "", 64);
  assert_answers(pair.primary);
}

static void forbids_dcs_by_name_or_fleet(void **state) {
  (void)state;
  struct choice choice;
  enum status st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_OK);
  assert_true(choice.may_use_dc);
  uint64_t off = bench_dc(&pair.bench, STATE_LEVEL_NAME, "a.test", false);
  st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_OK);
  assert_false(choice.may_use_dc);
  assert_int_equal(states_undo(pair.bench.states, off, "me", FAKE_NOW_S), STATUS_OK);
  bench_dc(&pair.bench, STATE_LEVEL_FLEET, "", false);
  bench_dc(&pair.bench, STATE_LEVEL_NAME, "a.test", true);
  st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_OK);
  assert_false(choice.may_use_dc);  // the fleet's word is a stop for all
}

// --- last resort -----------------------------------------------------------------------

static void serves_the_last_unexpired_chain_when_none_is_usable(void **state) {
  (void)state;
  struct choice choice;
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_OUT_OF_SERVICE);
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(12), STATE_OUT_OF_SERVICE);
  enum status st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_OK);
  assert_ptr_equal(choice.chain, pair.backup);
  assert_true(choice.is_last_resort);
  assert_int_equal(choice_reason_of(pair.bench.store, pair.name, st, &choice), CHOICE_LAST_RESORT);
  pair.backup->info.not_after_s = FAKE_NOW_S - 1;
  assert_answers(pair.primary);
}

static void prefers_a_last_resort_whose_time_has_begun(void **state) {
  (void)state;
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_OUT_OF_SERVICE);
  pair.backup->info.not_before_s = FAKE_NOW_S + 1;
  assert_answers(pair.primary);
  pair.primary->info.not_before_s = FAKE_NOW_S + 1;
  assert_answers(pair.backup);
  pair.primary->info.not_before_s = FAKE_NOW_S;
  pair.primary->info.not_after_s = FAKE_NOW_S - 1;
  assert_answers(pair.backup);
}

static void answers_nothing_when_all_is_expired(void **state) {
  (void)state;
  struct choice choice;
  pair.primary->info.not_after_s = FAKE_NOW_S - 1;
  pair.backup->info.not_after_s = FAKE_NOW_S - 1;
  enum status st = certstore_choose(&choice, pair.bench.store, pair.name, FAKE_NOW_S, NULL, NULL);
  assert_int_equal(st, STATUS_NOT_FOUND);
  assert_int_equal(choice_reason_of(pair.bench.store, pair.name, st, &choice), CHOICE_NONE);
}

static void answers_nothing_for_a_name_without_levels(void **state) {
  (void)state;
  assert_null(bench_answer(&pair.bench, bench_name(&pair.bench, "empty.test")));
}

// --- kinds of keys ------------------------------------------------------------------------

static bool takes_ecdsa(void *arg, enum key_kind kind) {
  (void)arg;
  return kind == KEY_KIND_P256;
}

static bool takes_rsa(void *arg, enum key_kind kind) {
  (void)arg;
  return kind == KEY_KIND_RSA;
}

static bool takes_nothing(void *arg, enum key_kind kind) {
  (void)arg;
  (void)kind;
  return false;
}

static struct chain *answer_for(const struct cert_name *name,
                                bool (*takes)(void *arg, enum key_kind kind)) {
  struct choice choice;
  enum status st = certstore_choose(&choice, pair.bench.store, name, FAKE_NOW_S, takes, NULL);
  return st == STATUS_OK ? choice.chain : NULL;
}

static void gives_each_client_a_kind_that_it_takes(void **state) {
  (void)state;
  struct cert_name *name = bench_name(&pair.bench, "both.test");
  struct chain *ecdsa = bench_chain(&pair.bench, name, 0, 3, 11, KEY_KIND_P256);
  struct chain *rsa = bench_chain(&pair.bench, name, 0, 4, 11, KEY_KIND_RSA);
  struct chain *backup = bench_chain(&pair.bench, name, 1, 5, 12, KEY_KIND_P256);
  assert_ptr_equal(answer_for(name, NULL), ecdsa);
  assert_ptr_equal(answer_for(name, takes_ecdsa), ecdsa);
  assert_ptr_equal(answer_for(name, takes_rsa), rsa);
  assert_null(answer_for(name, takes_nothing));

  // Within a level the other kind serves, before the next level does.
  bench_say(&pair.bench, STATE_LEVEL_KEY, bench_id(3), STATE_OUT_OF_SERVICE);
  assert_ptr_equal(answer_for(name, NULL), rsa);
  assert_ptr_equal(answer_for(name, takes_ecdsa), backup);
  // An RSA client whose only chain is out: the last resort is what it can verify.
  bench_say(&pair.bench, STATE_LEVEL_CA, bench_id(11), STATE_OUT_OF_SERVICE);
  assert_ptr_equal(answer_for(name, takes_rsa), rsa);
  assert_ptr_equal(answer_for(name, NULL), backup);
}

static void passes_over_a_preferred_level_that_the_client_cannot_verify(void **state) {
  (void)state;
  struct cert_name *name = bench_name(&pair.bench, "mixed.test");
  struct chain *rsa = bench_chain(&pair.bench, name, 0, 6, 11, KEY_KIND_RSA);
  (void)bench_chain(&pair.bench, name, 1, 7, 12, KEY_KIND_P256);
  bench_prefer(&pair.bench, STATE_LEVEL_NAME, "mixed.test", 2);
  assert_ptr_equal(answer_for(name, takes_rsa), rsa);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_pair, free_pair)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(answers_with_the_first_level),
      TEST(passes_over_an_expired_chain),
      TEST(passes_over_a_chain_that_is_not_yet_valid),
      TEST(passes_over_a_revoked_chain),
      TEST(passes_over_must_staple_without_a_good_staple),
      TEST(needs_no_staple_without_must_staple),
      TEST(obeys_a_key_out_of_service),
      TEST(obeys_a_ca_out_of_service),
      TEST(lets_a_key_in_service_outrank_its_ca_out),
      TEST(lets_a_key_out_outrank_its_ca_in_service),
      TEST(puts_the_operators_level_first),
      TEST(leaves_the_operators_level_when_it_is_not_usable),
      TEST(lets_the_name_outrank_the_fleet),
      TEST(ignores_a_preferred_level_that_the_name_has_not),
      TEST(forbids_dcs_by_name_or_fleet),
      TEST(serves_the_last_unexpired_chain_when_none_is_usable),
      TEST(prefers_a_last_resort_whose_time_has_begun),
      TEST(answers_nothing_when_all_is_expired),
      TEST(answers_nothing_for_a_name_without_levels),
      TEST(gives_each_client_a_kind_that_it_takes),
      TEST(passes_over_a_preferred_level_that_the_client_cannot_verify),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
