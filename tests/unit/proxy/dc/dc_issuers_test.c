// SPDX-License-Identifier: Apache-2.0
// Whom to ask, how much, and how heat gets there: the small parts around the schedule.
#include "proxy/dc/dc_issuers.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// cmocka needs the four above first.
#include <cmocka.h>

#include "proxy/dc/dc_keys.h"
#include "proxy/dc/heat.h"

static uint64_t fake_random(void) { return 12345; }

static struct dc_issuers two(void) {
  struct dc_issuers issuers = {.batch = 100,
                               .max_under_way = 3,
                               .retry_min_ms = 1000,
                               .retry_max_ms = 60000,
                               .random = fake_random};
  dc_issuers_reset(&issuers, 2);
  return issuers;
}

static void fail_once(struct dc_issuers *issuers, unsigned i, int64_t now_ms) {
  dc_issuers_begin(issuers, i);
  dc_issuers_end(issuers, i, true, now_ms);
}

static void the_next_is_asked_while_one_pauses(void **state) {
  struct dc_issuers issuers = two();
  (void)state;
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), 0);
  assert_int_equal(dc_issuers_choose(&issuers, 1, 0, 0), 1);
  assert_int_equal(dc_issuers_choose(&issuers, 3, 0, 0), DC_ISSUERS_NONE);
  fail_once(&issuers, 0, 0);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), 1);
  assert_int_equal(dc_issuers_wait_ms(&issuers, 0, 99999), 99999);
  fail_once(&issuers, 1, 0);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), DC_ISSUERS_NONE);
  const int64_t wait = dc_issuers_wait_ms(&issuers, 0, 99999);
  assert_in_range(wait, 500, 1000);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, wait), 0);
  // Who serves is asked on.
  dc_issuers_begin(&issuers, 1);
  dc_issuers_end(&issuers, 1, false, wait);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 99999), 1);
}

static void no_more_batches_than_allowed(void **state) {
  struct dc_issuers issuers = two();
  (void)state;
  for (unsigned i = 0; i < 3; i++) {
    assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), 0);
    dc_issuers_begin(&issuers, 0);
  }
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), DC_ISSUERS_BUSY);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 1, 0), 0);  // a batch with room
  dc_issuers_end(&issuers, 0, false, 0);
  assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 0), 0);
}

static void pauses_grow_and_batches_that_fail_together_count_once(void **state) {
  struct dc_issuers issuers = two();
  int64_t now = 0;
  (void)state;
  for (unsigned i = 0; i < 3; i++) {
    dc_issuers_begin(&issuers, 0);
  }
  for (unsigned i = 0; i < 3; i++) {
    dc_issuers_end(&issuers, 0, true, now);
  }
  assert_int_equal(issuers.items[0].num_failures, 1);
  for (unsigned i = 1; i < 20; i++) {
    now = issuers.items[0].pause_ends_ms;
    fail_once(&issuers, 0, now);
    const int64_t full = i < 6 ? INT64_C(1000) << i : 60000;
    assert_in_range(issuers.items[0].pause_ends_ms - now, full / 2, full);
  }
}

static void who_comes_back_is_not_run_over(void **state) {
  struct dc_issuers issuers = two();
  const size_t sizes[] = {4, 16, 64, 100, 100};
  (void)state;
  dc_issuers_reset(&issuers, 1);
  assert_int_equal(dc_issuers_window(&issuers, 0), 100);
  fail_once(&issuers, 0, 0);
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 1000), 0);
    assert_int_equal(dc_issuers_window(&issuers, 0), sizes[i]);
    dc_issuers_begin(&issuers, 0);
    // One at a time, until it has the full size again.
    assert_int_equal(dc_issuers_choose(&issuers, 0, 0, 1000), sizes[i] < 100 ? DC_ISSUERS_BUSY : 0);
    dc_issuers_end(&issuers, 0, false, 1000);
  }
}

// --- keys --------------------------------------------------------------------------------------

static void shared_keys_last_for_their_period(void **state) {
  struct dc_keys keys = {0};
  (void)state;
  dc_keys_set_policy(&keys, DC_KEYS_PER_NAME, 1000);
  assert_null(dc_keys_get(&keys, 0));
  dc_keys_set_policy(&keys, DC_KEYS_SHARED, 1000);
  const uint64_t num_made = dc_key_num_made();
  EVP_PKEY *first = dc_keys_get(&keys, 0);
  EVP_PKEY *same = dc_keys_get(&keys, 999);
  assert_non_null(first);
  assert_ptr_equal(first, same);
  EVP_PKEY *second = dc_keys_get(&keys, 1000);
  assert_int_equal(EVP_PKEY_cmp(first, second), 0);
  assert_int_equal(dc_key_num_made(), num_made + 2);
  // Over, it is let go of even if nobody asks.
  dc_keys_expire(&keys, 1999);
  assert_non_null(keys.shared);
  dc_keys_expire(&keys, 2000);
  assert_null(keys.shared);
  // Another period or policy begins with a new one.
  EVP_PKEY *third = dc_keys_get(&keys, 2000);
  dc_keys_set_policy(&keys, DC_KEYS_SHARED, 500);
  assert_null(keys.shared);
  EVP_PKEY_free(first);
  EVP_PKEY_free(same);
  EVP_PKEY_free(second);
  EVP_PKEY_free(third);
  dc_keys_cleanup(&keys);
}

// --- heat --------------------------------------------------------------------------------------

struct seen {
  size_t num;
  uint32_t names[4];
  unsigned levels[4];
};

static void see(void *arg, uint32_t name, unsigned level) {
  struct seen *seen = arg;
  if (seen->num < 4) {
    seen->names[seen->num] = name;
    seen->levels[seen->num] = level;
  }
  seen->num += 1;
}

static void heat_arrives_and_what_does_not_fit_is_counted(void **state) {
  struct heat *heat = calloc(1, sizeof(*heat));
  struct seen seen = {0};
  (void)state;
  assert_non_null(heat);
  // Past the end of the 32 bits that count notes, too.
  atomic_store(&heat->head, UINT32_MAX - 1);
  atomic_store(&heat->tail, UINT32_MAX - 1);
  heat_note(heat, 0, 3);  // a name that nobody asks for
  heat_note(heat, 7, 1);
  heat_note(heat, HEAT_NUM_NAMES - 1, 15);
  heat_note(heat, 9, 0);
  heat_drain(heat, see, &seen);
  assert_int_equal(seen.num, 3);
  assert_int_equal(seen.names[0], 7);
  assert_int_equal(seen.levels[0], 1);
  assert_int_equal(seen.names[1], HEAT_NUM_NAMES - 1);
  assert_int_equal(seen.levels[1], 15);
  for (unsigned i = 0; i < HEAT_ROOM + 5; i++) {
    heat_note(heat, 1 + i, 0);
  }
  assert_int_equal(counter_get(&heat->num_lost), 5);
  seen.num = 0;
  heat_drain(heat, see, &seen);
  assert_int_equal(seen.num, HEAT_ROOM);
  assert_int_equal(seen.names[0], 1);
  heat_drain(heat, see, &seen);
  assert_int_equal(seen.num, HEAT_ROOM);
  free(heat);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_next_is_asked_while_one_pauses),
      cmocka_unit_test(no_more_batches_than_allowed),
      cmocka_unit_test(pauses_grow_and_batches_that_fail_together_count_once),
      cmocka_unit_test(who_comes_back_is_not_run_over),
      cmocka_unit_test(shared_keys_last_for_their_period),
      cmocka_unit_test(heat_arrives_and_what_does_not_fit_is_counted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
