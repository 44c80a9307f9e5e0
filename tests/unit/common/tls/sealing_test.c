// SPDX-License-Identifier: Apache-2.0
#include "common/tls/sealing.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/tls/cert.h"
#include "tests/support/certs.h"

#define NUM 3
#define POLICY "region: EU"

static struct sealing_identity *identities[NUM];
static struct sealing_recipient recipients[NUM];
static EVP_PKEY *key;

static int setup(void **state) {
  static const char *const names[NUM] = {"eu-1", "eu-2", "us"};
  (void)state;
  key = test_key_new(KEY_KIND_P256);
  for (size_t i = 0; i < NUM; i++) {
    struct secret pem = {0};
    assert_int_equal(sealing_identity_new(&identities[i], &pem, NULL), STATUS_OK);
    recipients[i].name = names[i];
    memcpy(recipients[i].public_key, sealing_identity_public(identities[i]),
           SEALING_PUBLIC_KEY_LEN);
    secret_wipe(&pem);
  }
  return 0;
}

static int teardown(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM; i++) {
    sealing_identity_free(identities[i]);
  }
  EVP_PKEY_free(key);
  test_remove_files();
  return 0;
}

struct opened {
  struct sealed_key *sealed;
  uint8_t *bytes;
  EVP_PKEY *key;
  struct errmsg err;
};

static void opened_cleanup(struct opened *o) {
  EVP_PKEY_free(o->key);
  free(o->sealed);
  free(o->bytes);
}

static enum status open_text(struct opened *o, struct bytes text,
                             const struct sealing_identity *identity) {
  *o = (struct opened){0};
  const enum status st = sealing_read(&o->sealed, &o->bytes, text, &o->err);
  return st != STATUS_OK ? st : sealing_open(&o->key, o->sealed, identity, &o->err);
}

static char *seal(const EVP_PKEY *of, size_t num) {
  struct errmsg err = {0};
  char *text = NULL;
  size_t len = 0;
  if (sealing_seal(&text, &len, of, "www", bytes_text(POLICY), recipients, num, &err) !=
      STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_int_equal(strlen(text), len);
  return text;
}

static void recipients_open_and_others_do_not(void **state) {
  char *text = seal(key, 2);
  (void)state;
  for (size_t i = 0; i < NUM; i++) {
    struct opened o;
    const enum status st = open_text(&o, bytes_text(text), identities[i]);
    assert_int_equal(st, i < 2 ? STATUS_OK : STATUS_NOT_FOUND);
    if (i < 2) {
      assert_int_equal(EVP_PKEY_cmp(o.key, key), 1);
    } else {
      assert_null(o.key);
      assert_non_null(strstr(o.err.text, "not sealed to this identity"));
    }
    assert_true(bytes_equal(o.sealed->policy_text, bytes_text(POLICY)));
    opened_cleanup(&o);
  }
  free(text);
}

static void every_kind_of_key_comes_out_again(void **state) {
  static const enum key_kind kinds[] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521,
                                        KEY_KIND_ED25519, KEY_KIND_RSA};
  (void)state;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    EVP_PKEY *of = test_key_new(kinds[i]);
    char *text = seal(of, 1);
    struct opened o;
    assert_int_equal(open_text(&o, bytes_text(text), identities[0]), STATUS_OK);
    assert_int_equal(EVP_PKEY_cmp(o.key, of), 1);
    opened_cleanup(&o);
    free(text);
    EVP_PKEY_free(of);
  }
}

// Nothing is left out of the binding: each byte that is changed, from the label to
// the last of the tag, keeps the key shut.
static void no_changed_byte_opens(void **state) {
  char *text = seal(key, 2);
  uint8_t *bytes = NULL;
  size_t len = 0;
  struct sealed_key *sealed = malloc(sizeof *sealed);
  (void)state;

  assert_int_equal(sealed_key_unarmour(&bytes, &len, bytes_text(text), NULL), STATUS_OK);
  for (size_t i = 0; i < len; i++) {
    EVP_PKEY *opened = NULL;
    bytes[i] ^= 0x20;  // also a letter's case, which a policy does not know
    if (sealed_key_parse(sealed, bytes_of(bytes, len), NULL) == STATUS_OK) {
      assert_int_not_equal(sealing_open(&opened, sealed, identities[0], NULL), STATUS_OK);
    }
    assert_null(opened);
    bytes[i] ^= 0x20;
  }
  assert_int_equal(sealed_key_parse(sealed, bytes_of(bytes, len), NULL), STATUS_OK);
  free(sealed);
  free(bytes);
  free(text);
}

// remade writes `text` again after `change`, as somebody would who has no identity.
static char *remade(const char *text, void (*change)(struct sealed_key *sealed)) {
  static uint8_t encoded[SEALED_KEY_MAX_LEN];
  struct sealed_key *sealed = NULL;
  uint8_t *bytes = NULL;
  char *out = NULL;
  size_t len = 0;

  assert_int_equal(sealing_read(&sealed, &bytes, bytes_text(text), NULL), STATUS_OK);
  change(sealed);
  assert_int_equal(sealed_key_encode(encoded, sizeof encoded, &len, sealed), STATUS_OK);
  assert_int_equal(sealed_key_armour(&out, &len, bytes_of(encoded, len)), STATUS_OK);
  free(sealed);
  free(bytes);
  return out;
}

static void widen_policy(struct sealed_key *s) {
  s->policy_text = bytes_text("region: EU or region: US");
}
static void rename_key(struct sealed_key *s) { s->label = bytes_text("mail"); }
static void drop_recipient(struct sealed_key *s) { s->num_recipients = 1; }
static void rename_recipient(struct sealed_key *s) {
  s->recipients[1].name = bytes_text("elsewhere");
}
static void swap_recipients(struct sealed_key *s) {
  const struct sealed_recipient first = s->recipients[0];
  s->recipients[0] = s->recipients[1];
  s->recipients[1] = first;
}
// The US server writes its own id over that of another.
static void usurp_recipient(struct sealed_key *s) {
  s->recipients[1].key_id = sealing_identity_id(identities[2]);
}

static void no_remade_head_opens(void **state) {
  static void (*const changes[])(struct sealed_key *) = {
      widen_policy, rename_key, drop_recipient, rename_recipient, swap_recipients, usurp_recipient};
  char *text = seal(key, 2);
  (void)state;
  for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
    char *changed = remade(text, changes[i]);
    struct opened o;
    assert_int_equal(open_text(&o, bytes_text(changed), identities[0]), STATUS_CRYPTO);
    assert_non_null(strstr(o.err.text, "changed since it was sealed"));
    opened_cleanup(&o);
    free(changed);
  }
  char *usurped = remade(text, usurp_recipient);
  struct opened o;
  assert_int_equal(open_text(&o, bytes_text(usurped), identities[2]), STATUS_CRYPTO);
  assert_null(o.key);
  opened_cleanup(&o);
  free(usurped);
  free(text);
}

// One of the recipients knows the content key, and could put another public key
// into the head and encrypt anew; the key would then answer to a name that is not
// its own. Here it is done by sealing a key whose halves are no pair.
static void a_key_that_is_not_the_heads_is_refused(void **state) {
  EVP_PKEY *other = test_key_new(KEY_KIND_P256);
  char *text = seal(key, 1);
  struct sealed_key *sealed = NULL;
  uint8_t *bytes = NULL;
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  struct opened o;
  (void)state;

  // What sealing_open compares is in the head as parsed: put the other's key there
  // after the ciphertext's binding was computed.
  assert_int_equal(sealing_read(&sealed, &bytes, bytes_text(text), NULL), STATUS_OK);
  assert_int_equal(key_spki(&spki, &spki_len, other), STATUS_OK);
  sealed->spki = bytes_of(spki, spki_len);
  o = (struct opened){.sealed = sealed, .bytes = bytes};
  assert_int_equal(sealing_open(&o.key, sealed, identities[0], &o.err), STATUS_CRYPTO);
  assert_non_null(strstr(o.err.text, "not that of the public key"));
  assert_null(o.key);
  opened_cleanup(&o);
  OPENSSL_free(spki);
  free(text);
  EVP_PKEY_free(other);
}

static void two_sealings_share_no_secret(void **state) {
  char *a = seal(key, 1);
  char *b = seal(key, 1);
  struct opened one;
  struct opened two;
  (void)state;
  assert_int_equal(open_text(&one, bytes_text(a), identities[0]), STATUS_OK);
  assert_int_equal(open_text(&two, bytes_text(b), identities[0]), STATUS_OK);
  assert_int_not_equal(
      memcmp(one.sealed->recipients[0].enc, two.sealed->recipients[0].enc, SEALED_KEY_ENC_LEN), 0);
  assert_false(bytes_equal(one.sealed->ciphertext, two.sealed->ciphertext));
  opened_cleanup(&one);
  opened_cleanup(&two);
  free(a);
  free(b);
}

static void refuses_what_cannot_be_sealed(void **state) {
  struct sealing_recipient bad[2] = {recipients[0], recipients[0]};
  struct errmsg err = {0};
  char *text = NULL;
  size_t len = 0;
  (void)state;
  assert_int_equal(
      sealing_seal(&text, &len, key, "www", bytes_text("region EU"), recipients, 1, &err),
      STATUS_FORMAT);
  assert_int_equal(sealing_seal(&text, &len, key, "a/b", bytes_text(POLICY), recipients, 1, &err),
                   STATUS_FORMAT);
  assert_int_equal(sealing_seal(&text, &len, key, "www", bytes_text(POLICY), recipients, 0, &err),
                   STATUS_LIMIT);
  assert_int_equal(sealing_seal(&text, &len, key, "www", bytes_text(POLICY), bad, 2, &err),
                   STATUS_FORMAT);
  // RFC 9180, section 7.1.4: a point of small order gives a shared secret of zeros.
  memset(bad[0].public_key, 0, sizeof bad[0].public_key);
  assert_int_equal(sealing_seal(&text, &len, key, "www", bytes_text(POLICY), bad, 1, &err),
                   STATUS_CRYPTO);
  assert_non_null(strstr(err.text, "eu-1: nothing can be sealed"));
  assert_null(text);
}

static void identity_files_are_read_back(void **state) {
  struct sealing_identity *made = NULL;
  struct sealing_identity *read = NULL;
  struct secret pem = {0};
  struct errmsg err = {0};
  EVP_PKEY *other = test_key_new(KEY_KIND_P256);
  (void)state;

  assert_int_equal(sealing_identity_new(&made, &pem, &err), STATUS_OK);
  test_write_file("id.key", pem.data, pem.len, 0600);
  assert_int_equal(sealing_identity_read(&read, test_path("id.key"), &err), STATUS_OK);
  assert_memory_equal(sealing_identity_public(made), sealing_identity_public(read),
                      SEALING_PUBLIC_KEY_LEN);
  assert_memory_equal(sealing_identity_id(made), sealing_identity_id(read), SEALED_KEY_ID_LEN);
  sealing_identity_free(read);

  test_write_file("loose.key", pem.data, pem.len, 0644);
  assert_int_equal(sealing_identity_read(&read, test_path("loose.key"), &err), STATUS_REFUSED);
  assert_non_null(strstr(err.text, "0644"));
  test_write_file("cut.key", pem.data, pem.len / 2, 0600);
  assert_int_equal(sealing_identity_read(&read, test_path("cut.key"), &err), STATUS_FORMAT);
  test_write_file("empty.key", "", 0, 0600);
  assert_int_equal(sealing_identity_read(&read, test_path("empty.key"), &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "no identity of a key server"));
  test_write_key("p256.key", other, 0600);
  assert_int_equal(sealing_identity_read(&read, test_path("p256.key"), &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "no identity of a key server"));
  assert_int_equal(sealing_identity_read(&read, test_path("nowhere"), &err), STATUS_SYSTEM);
  assert_null(read);
  EVP_PKEY_free(other);
  secret_wipe(&pem);
  sealing_identity_free(made);
}

static void public_keys_are_read_raw_or_as_spki(void **state) {
  static const char *const bad[] = {"", "AAAA", "no base64 at all!",
                                    "MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
  uint8_t out[SEALING_PUBLIC_KEY_LEN];
  uint8_t again[SEALING_PUBLIC_KEY_LEN];
  char text[SEALING_PUBLIC_TEXT_LEN];
  (void)state;

  // RFC 8410, section 10.1 has an X25519 key in a certificate; this is its form.
  assert_int_equal(
      sealing_public_parse(out, "MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
      STATUS_OK);
  sealing_public_format(text, out);
  assert_string_equal(text, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
  assert_int_equal(sealing_public_parse(again, text), STATUS_OK);
  assert_memory_equal(out, again, sizeof out);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(sealing_public_parse(out, bad[i]), STATUS_FORMAT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(recipients_open_and_others_do_not),
      cmocka_unit_test(every_kind_of_key_comes_out_again),
      cmocka_unit_test(no_changed_byte_opens),
      cmocka_unit_test(no_remade_head_opens),
      cmocka_unit_test(a_key_that_is_not_the_heads_is_refused),
      cmocka_unit_test(two_sealings_share_no_secret),
      cmocka_unit_test(refuses_what_cannot_be_sealed),
      cmocka_unit_test(identity_files_are_read_back),
      cmocka_unit_test(public_keys_are_read_raw_or_as_spki),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
