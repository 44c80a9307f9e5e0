// SPDX-License-Identifier: Apache-2.0
#include "common/wire/sealed_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NUM 2

static uint8_t filler[256];
static uint8_t ids[NUM][SEALED_KEY_ID_LEN];
static uint8_t encoded[SEALED_KEY_MAX_LEN];
static size_t encoded_len;
static struct sealed_key parsed;

// draft is a sealed key in all but its secrets.
static struct sealed_key *draft(void) {
  static struct sealed_key sealed;
  sealed = (struct sealed_key){
      .label = bytes_text("www"),
      .policy_text = bytes_text("region: EU"),
      .spki = bytes_of(filler, 91),
      .nonce = filler,
      .ciphertext = bytes_of(filler, 150),
      .num_recipients = NUM,
  };
  for (size_t i = 0; i < NUM; i++) {
    memset(ids[i], (int)i + 1, sizeof ids[i]);
    sealed.recipients[i] =
        (struct sealed_recipient){bytes_text(i == 0 ? "eu-1" : "eu-2"), ids[i], filler, filler};
  }
  return &sealed;
}

static enum status encode_and_parse(const struct sealed_key *sealed, struct errmsg *err) {
  assert_int_equal(sealed_key_encode(encoded, sizeof encoded, &encoded_len, sealed), STATUS_OK);
  return sealed_key_parse(&parsed, bytes_of(encoded, encoded_len), err);
}

static void assert_refused(const struct sealed_key *sealed, const char *sentence) {
  struct errmsg err = {0};
  assert_int_equal(encode_and_parse(sealed, &err), STATUS_FORMAT);
  if (strstr(err.text, sentence) == NULL) {
    fail_msg("\"%s\" does not say \"%s\"", err.text, sentence);
  }
}

static void reads_what_was_written(void **state) {
  (void)state;
  assert_int_equal(encode_and_parse(draft(), NULL), STATUS_OK);
  assert_true(bytes_equal(parsed.label, bytes_text("www")));
  assert_true(bytes_equal(parsed.policy_text, bytes_text("region: EU")));
  assert_int_equal(parsed.policy.num_terms, 1);
  assert_int_equal(parsed.spki.len, 91);
  assert_int_equal(parsed.num_recipients, NUM);
  assert_true(bytes_equal(parsed.recipients[1].name, bytes_text("eu-2")));
  assert_ptr_equal(sealed_key_find(&parsed, ids[1]), &parsed.recipients[1]);
  assert_null(sealed_key_find(&parsed, filler));
  assert_int_equal(parsed.ciphertext.len, 150);
  assert_int_equal(parsed.head.len, 8 + 1 + 1 + 3 + 2 + 10 + 2 + 91);
  assert_int_equal(parsed.bound.len + 150, encoded_len);
}

// No length lies about what follows: each cut, and each byte too many, is noticed.
static void refuses_every_cut_and_every_tail(void **state) {
  (void)state;
  assert_int_equal(encode_and_parse(draft(), NULL), STATUS_OK);
  for (size_t len = 0; len < encoded_len; len++) {
    struct errmsg err = {0};
    uint8_t *copy = bytes_copy(bytes_of(encoded, len));
    assert_int_equal(sealed_key_parse(&parsed, bytes_of(copy, len), &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "damaged"));
    free(copy);
  }
  assert_int_equal(sealed_key_parse(&parsed, bytes_of(encoded, encoded_len + 1), NULL),
                   STATUS_FORMAT);
}

static void refuses_other_versions_by_name(void **state) {
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(encode_and_parse(draft(), NULL), STATUS_OK);
  encoded[8] = 2;
  assert_int_equal(sealed_key_parse(&parsed, bytes_of(encoded, encoded_len), &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "version 2; this program knows version 1"));
  encoded[0] = 'd';
  assert_int_equal(sealed_key_parse(&parsed, bytes_of(encoded, encoded_len), &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "does not begin as one"));
}

static void refuses_what_no_sealer_writes(void **state) {
  static uint8_t long_spki[SCHEME_MAX_SPKI_LEN + 1];
  static uint8_t long_text[SEALED_KEY_MAX_CIPHERTEXT_LEN + 1];
  struct sealed_key *sealed = draft();
  (void)state;

  sealed->label = bytes_text("../www");
  assert_refused(sealed, "its label is none");
  sealed = draft();
  sealed->policy_text = bytes_text("region EU");
  assert_refused(sealed, "policy: column 8: expected ':'");
  sealed = draft();
  sealed->spki.len = 0;
  assert_refused(sealed, "public key");
  sealed->spki = bytes_of(long_spki, sizeof long_spki);
  assert_refused(sealed, "public key");
  sealed = draft();
  sealed->num_recipients = 0;
  assert_refused(sealed, "number of recipients");
  sealed = draft();
  sealed->recipients[1].name = bytes_text("a\nb");
  assert_refused(sealed, "recipient's name");
  sealed = draft();
  sealed->recipients[1].key_id = ids[0];
  assert_refused(sealed, "twice");
  sealed = draft();
  sealed->ciphertext.len = SEALED_KEY_TAG_LEN;
  assert_refused(sealed, "private key is of no possible length");
  sealed->ciphertext = bytes_of(long_text, sizeof long_text);
  assert_refused(sealed, "private key is of no possible length");
}

static void the_longest_fits(void **state) {
  static char policy[REGION_POLICY_MAX_LEN] = "region: EU";
  static char name[SEALED_KEY_MAX_NAME_LEN];
  static uint8_t many_ids[SEALED_KEY_MAX_RECIPIENTS][SEALED_KEY_ID_LEN];
  static uint8_t zeros[SEALED_KEY_MAX_CIPHERTEXT_LEN];
  struct sealed_key *sealed = draft();
  (void)state;

  memset(policy + strlen(policy), ' ', sizeof policy - strlen(policy));
  memset(name, 'n', sizeof name);
  sealed->label = bytes_of(name, sizeof name);
  sealed->policy_text = bytes_of(policy, sizeof policy);
  sealed->spki = bytes_of(zeros, SCHEME_MAX_SPKI_LEN);
  sealed->ciphertext = bytes_of(zeros, sizeof zeros);
  sealed->num_recipients = SEALED_KEY_MAX_RECIPIENTS;
  for (size_t i = 0; i < SEALED_KEY_MAX_RECIPIENTS; i++) {
    many_ids[i][0] = (uint8_t)i;
    sealed->recipients[i] =
        (struct sealed_recipient){bytes_of(name, sizeof name), many_ids[i], filler, filler};
  }
  assert_int_equal(encode_and_parse(sealed, NULL), STATUS_OK);
}

static void armour_comes_off_again(void **state) {
  static const size_t lens[] = {0, 1, 47, 48, 49, 4096, SEALED_KEY_MAX_LEN};
  static uint8_t data[SEALED_KEY_MAX_LEN];
  (void)state;
  for (size_t i = 0; i < sizeof data; i++) {
    data[i] = (uint8_t)(i * 7);
  }
  for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
    char *text = NULL;
    uint8_t *out = NULL;
    size_t text_len = 0;
    size_t len = 0;
    assert_int_equal(sealed_key_armour(&text, &text_len, bytes_of(data, lens[i])), STATUS_OK);
    assert_int_equal(sealed_key_unarmour(&out, &len, bytes_of(text, text_len), NULL), STATUS_OK);
    assert_true(bytes_equal(bytes_of(out, len), bytes_of(data, lens[i])));
    free(out);
    free(text);
  }
}

static void refuses_bad_armour(void **state) {
#define BEGIN "-----BEGIN DEPUTY SEALED KEY-----\n"
#define END "-----END DEPUTY SEALED KEY-----\n"
  static const struct {
    const char *text;
    const char *sentence;
  } bad[] = {
      {"", "does not begin"},
      {"x\n" BEGIN "QUJD\n" END, "does not begin"},
      {"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n", "does not begin"},
      {BEGIN "QUJD\n", "is cut"},
      {BEGIN "QUJD\n" END "x", "is cut"},
      {BEGIN, "is cut"},
      {BEGIN "QUJ\n" END, "base64 is damaged"},
      {BEGIN "QU-D\n" END, "base64 is damaged"},
      {BEGIN "QUJD\n" END BEGIN "QUJD\n" END, "base64 is damaged"},
  };
  uint8_t *out = NULL;
  size_t len = 0;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct errmsg err = {0};
    assert_int_equal(sealed_key_unarmour(&out, &len, bytes_text(bad[i].text), &err), STATUS_FORMAT);
    assert_null(out);
    if (strstr(err.text, bad[i].sentence) == NULL) {
      fail_msg("%s: \"%s\"", bad[i].text, err.text);
    }
  }
  assert_int_equal(
      sealed_key_unarmour(&out, &len, bytes_text("  \r\n" BEGIN " QU\r\nJD\t\n" END "\n\n"), NULL),
      STATUS_OK);
  assert_int_equal(len, 3);
  free(out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_what_was_written),
      cmocka_unit_test(refuses_every_cut_and_every_tail),
      cmocka_unit_test(refuses_other_versions_by_name),
      cmocka_unit_test(refuses_what_no_sealer_writes),
      cmocka_unit_test(the_longest_fits),
      cmocka_unit_test(armour_comes_off_again),
      cmocka_unit_test(refuses_bad_armour),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
