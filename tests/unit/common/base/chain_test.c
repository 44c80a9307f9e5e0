// SPDX-License-Identifier: Apache-2.0
#include "common/base/chain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// Made with another program, from the description in chain.h.
#define HASH_1 "32dc14855f61dd0481ced1e54d78ed822d884f1c7b28ffa47d9053f83b8db93f"
#define HASH_2 "f548dffc1cc1bbdffe50564c2150f9f535718cb4fd954d5e3a7acc18ecbf4360"

static size_t add(struct chain *chain, char out[256], const char *line) {
  const size_t len = chain_add(chain, (uint8_t *)out, bytes_text(line));
  assert_true(len < 256 && len <= strlen(line) + CHAIN_SEAL_MAX_LEN);
  out[len] = '\0';
  return len;
}

static void seals_and_reads_again(void **state) {
  struct chain chain = {0};
  struct chain_seal seal;
  char first[256];
  char second[256];
  uint8_t zeros[CHAIN_HASH_LEN] = {0};
  uint8_t hash[CHAIN_HASH_LEN];
  (void)state;

  (void)add(&chain, first, "{\"a\":1}");
  assert_string_equal(first, "{\"a\":1,\"seq\":1,\"chain\":\"" HASH_1 "\"}");
  assert_int_equal(chain.seq, 1);
  assert_int_equal(chain_read(&seal, bytes_text(first)), STATUS_OK);
  assert_int_equal(seal.seq, 1);
  assert_memory_equal(seal.hash, chain.hash, sizeof seal.hash);
  assert_true(chain_follows(&seal, zeros));
  memcpy(hash, chain.hash, sizeof hash);

  (void)add(&chain, second, "{\"b\":\"x\"}");
  assert_string_equal(second, "{\"b\":\"x\",\"seq\":2,\"chain\":\"" HASH_2 "\"}");
  assert_int_equal(chain_read(&seal, bytes_text(second)), STATUS_OK);
  assert_int_equal(seal.seq, 2);
  assert_true(chain_follows(&seal, hash));
  assert_false(chain_follows(&seal, zeros));
}

static void a_changed_byte_shows(void **state) {
  struct chain chain = {0};
  struct chain_seal seal;
  char line[256];
  const uint8_t zeros[CHAIN_HASH_LEN] = {0};
  size_t len = 0;
  (void)state;

  len = add(&chain, line, "{\"client\":\"a.test\",\"result\":\"refused\"}");
  for (size_t i = 0; i < len; i++) {
    line[i] ^= 1;
    assert_false(chain_read(&seal, bytes_of(line, len)) == STATUS_OK &&
                 chain_follows(&seal, zeros));
    line[i] ^= 1;
  }
  assert_int_equal(chain_read(&seal, bytes_of(line, len)), STATUS_OK);
  assert_true(chain_follows(&seal, zeros));
}

static void refuses_what_is_no_seal(void **state) {
  struct chain chain = {.seq = 41};
  struct chain_seal seal;
  char line[256];
  const char *const bad[] = {"", "{", "{}", "{\"a\":1}", "\n", "{\"seq\":1,\"chain\":\"\"}"};
  size_t len = 0;
  (void)state;

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(chain_read(&seal, bytes_text(bad[i])), STATUS_FORMAT);
  }
  len = add(&chain, line, "{\"a\":1}");
  assert_int_equal(chain_read(&seal, bytes_of(line, len - 1)), STATUS_FORMAT);
  assert_int_equal(chain_read(&seal, bytes_of(line + 1, len - 1)), STATUS_FORMAT);
  line[len - 10] = 'A';  // hex is written in small letters
  assert_int_equal(chain_read(&seal, bytes_of(line, len)), STATUS_FORMAT);
}

static void numbers_have_one_form(void **state) {
  static const struct {
    const char *number;
    bool is_good;
  } rows[] = {{"1", true},
              {"18446744073709551615", true},
              {"18446744073709551616", false},
              {"99999999999999999999", false},
              {"100000000000000000000", false},
              {"0", false},
              {"01", false},
              {"", false},
              {"-1", false}};
  char line[256];
  struct chain_seal seal;
  (void)state;

  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    (void)snprintf(line, sizeof line, "{\"a\":1,\"seq\":%s,\"chain\":\"%064d\"}", rows[i].number,
                   7);
    assert_int_equal(chain_read(&seal, bytes_text(line)),
                     rows[i].is_good ? STATUS_OK : STATUS_FORMAT);
  }
}

static void the_longest_number_fits(void **state) {
  struct chain chain = {.seq = UINT64_MAX - 1};
  char line[256];
  (void)state;
  assert_int_equal(add(&chain, line, "{\"a\":1}"), 7 + CHAIN_SEAL_MAX_LEN);
}

static void only_objects_may_be_sealed(void **state) {
  (void)state;
  assert_true(chain_may_seal(bytes_text("{\"a\":1}")));
  assert_false(chain_may_seal(bytes_text("{}")));
  assert_false(chain_may_seal(bytes_text("")));
  assert_false(chain_may_seal(bytes_text("{\"a\":1")));
  assert_false(chain_may_seal(bytes_text("text}")));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(seals_and_reads_again),   cmocka_unit_test(a_changed_byte_shows),
      cmocka_unit_test(refuses_what_is_no_seal), cmocka_unit_test(numbers_have_one_form),
      cmocka_unit_test(the_longest_number_fits), cmocka_unit_test(only_objects_may_be_sealed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
