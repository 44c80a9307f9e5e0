// SPDX-License-Identifier: Apache-2.0
#include "common/wire/store_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static uint8_t out[STORE_CHAIN_RECORD_MAX_LEN];
static size_t out_len;

static struct store_slot slot_of(uint8_t level, uint64_t id, enum key_kind kind) {
  struct store_slot slot = {.level = level, .chain_id = id};
  slot.facts.kind = kind;
  slot.facts.not_before_s = -5;
  slot.facts.not_after_s = INT64_MAX;
  slot.facts.is_must_staple = true;
  memset(slot.facts.key_id, (int)id, 32);
  return slot;
}

static enum status decode_name(struct store_name *name, size_t len) {
  return store_name_decode(name, bytes_of(out, len));
}

static void name_comes_back(void **state) {
  (void)state;
  struct store_name name = {.num_slots = 3};
  struct store_name again;
  name.slots[0] = slot_of(0, 7, KEY_KIND_P256);
  name.slots[1] = slot_of(0, 1ULL << 63, KEY_KIND_RSA);
  name.slots[2] = slot_of(7, 9, KEY_KIND_ED25519);
  assert_int_equal(store_name_encode(out, sizeof(out), &out_len, &name), STATUS_OK);
  assert_int_equal(out_len, 2 + 3 * STORE_SLOT_LEN);
  assert_int_equal(decode_name(&again, out_len), STATUS_OK);
  assert_int_equal(again.num_slots, 3);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(again.slots[i].level, name.slots[i].level);
    assert_true(again.slots[i].chain_id == name.slots[i].chain_id);
    assert_true(store_facts_equal(&again.slots[i].facts, &name.slots[i].facts));
  }
}

static void refuses_slots_out_of_order_or_twice(void **state) {
  (void)state;
  struct store_name name = {.num_slots = 2};
  struct store_name again;
  name.slots[0] = slot_of(1, 7, KEY_KIND_P256);
  name.slots[1] = slot_of(0, 8, KEY_KIND_P256);
  assert_int_equal(store_name_encode(out, sizeof(out), &out_len, &name), STATUS_OK);
  assert_int_equal(decode_name(&again, out_len), STATUS_FORMAT);
  name.slots[1] = slot_of(1, 8, KEY_KIND_P384);  // a second one that is not RSA
  assert_int_equal(store_name_encode(out, sizeof(out), &out_len, &name), STATUS_OK);
  assert_int_equal(decode_name(&again, out_len), STATUS_FORMAT);
}

static void tells_a_later_version_from_damage(void **state) {
  (void)state;
  struct store_name name = {.num_slots = 1};
  name.slots[0] = slot_of(0, 7, KEY_KIND_P256);
  assert_int_equal(store_name_encode(out, sizeof(out), &out_len, &name), STATUS_OK);
  out[0] = STORE_RECORD_VERSION + 1;
  assert_int_equal(decode_name(&name, out_len), STATUS_REFUSED);
  out[0] = STORE_RECORD_VERSION;
  for (size_t len = 0; len < out_len; len++) {
    assert_int_equal(decode_name(&name, len), STATUS_FORMAT);
  }
  assert_int_equal(decode_name(&name, out_len + 1), STATUS_FORMAT);
}

static void chain_comes_back(void **state) {
  (void)state;
  static const uint8_t issuers[64] = {1, 2, 3};
  struct store_chain chain = {.added_s = 5,
                              .num_issuers = 2,
                              .issuers = bytes_of(issuers, sizeof(issuers)),
                              .leaf = bytes_text("leaf")};
  struct store_chain again;
  assert_int_equal(store_chain_encode(out, sizeof(out), &out_len, &chain), STATUS_OK);
  assert_int_equal(store_chain_decode(&again, bytes_of(out, out_len)), STATUS_OK);
  assert_true(bytes_equal(again.leaf, chain.leaf) && bytes_equal(again.issuers, chain.issuers));
  chain.num_issuers = 1;  // not as many as there are hashes
  assert_int_equal(store_chain_encode(out, sizeof(out), &out_len, &chain), STATUS_LIMIT);
}

static struct store_change change_of(uint8_t level, const char *subject) {
  return (struct store_change){.level = level,
                               .service = level == 1 || level == 2 ? 2 : 0,
                               .preferred = level == 1 || level == 2 ? STORE_LEAVE : 2,
                               .dc = STORE_LEAVE,
                               .author_uid = -1,
                               .at_s = 17,
                               .until_s = 99,
                               .subject = bytes_text(subject),
                               .reason = bytes_text("why"),
                               .author = bytes_text("ann")};
}

#define ID "0123456789abcdef0123456789abcdef"

static void change_comes_back(void **state) {
  (void)state;
  struct store_change change = change_of(2, ID);
  struct store_change again;
  change.is_compromised = true;
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_OK);
  assert_int_equal(store_change_decode(&again, bytes_of(out, out_len)), STATUS_OK);
  assert_true(again.is_compromised && !again.is_undone && again.author_uid == -1 &&
              again.at_s == 17 && again.until_s == 99);
  assert_true(bytes_equal(again.reason, change.reason));
}

static void change_says_only_what_its_level_can(void **state) {
  (void)state;
  struct store_change change = change_of(0, "a.test");
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_OK);
  change.service = 2;  // a name is not out of service
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_LIMIT);
  change = change_of(3, "x");  // the fleet has no name
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_LIMIT);
  change = change_of(1, "short");
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_LIMIT);
  change = change_of(1, ID);
  change.preferred = 1;
  assert_int_equal(store_change_encode(out, sizeof(out), &out_len, &change), STATUS_LIMIT);
}

static void state_comes_back_and_gives_its_words(void **state) {
  (void)state;
  struct store_state said = {.words = {.service = 2, .is_compromised = true, .until_s = 8},
                             .num_standing = 2,
                             .standing = {3, 9}};
  struct store_state again;
  struct store_words words;
  assert_int_equal(store_state_encode(out, sizeof(out), &out_len, &said), STATUS_OK);
  assert_int_equal(store_state_decode(&again, bytes_of(out, out_len)), STATUS_OK);
  assert_int_equal(again.num_standing, 2);
  assert_int_equal(store_words_decode(&words, bytes_of(out, out_len)), STATUS_OK);
  assert_true(words.service == 2 && words.is_compromised && words.until_s == 8);
  said.standing[1] = 3;  // ids ascend
  assert_int_equal(store_state_encode(out, sizeof(out), &out_len, &said), STATUS_OK);
  assert_int_equal(store_state_decode(&again, bytes_of(out, out_len)), STATUS_FORMAT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(name_comes_back),
      cmocka_unit_test(refuses_slots_out_of_order_or_twice),
      cmocka_unit_test(tells_a_later_version_from_damage),
      cmocka_unit_test(chain_comes_back),
      cmocka_unit_test(change_comes_back),
      cmocka_unit_test(change_says_only_what_its_level_can),
      cmocka_unit_test(state_comes_back_and_gives_its_words),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
