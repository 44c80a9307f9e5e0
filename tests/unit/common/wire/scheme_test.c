// SPDX-License-Identifier: Apache-2.0
#include "common/wire/scheme.h"

#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wire/frame.h"
#include "tests/unit/common/wire/vectors.h"

enum { KEY_P256, KEY_P384, KEY_P521, KEY_RSA, KEY_ED25519, NUM_KEYS };
static EVP_PKEY *keys[NUM_KEYS];
static const enum key_kind kinds[NUM_KEYS] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521,
                                              KEY_KIND_RSA, KEY_KIND_ED25519};

static const struct {
  uint16_t code;
  const char *name;
  size_t key;
  uint8_t opcode;
  bool may_sign_tls13;
} all[] = {
    {0x0403, "ecdsa_secp256r1_sha256", KEY_P256, 0x15, true},
    {0x0503, "ecdsa_secp384r1_sha384", KEY_P384, 0x16, true},
    {0x0603, "ecdsa_secp521r1_sha512", KEY_P521, 0x17, true},
    {0x0804, "rsa_pss_rsae_sha256", KEY_RSA, 0x35, true},
    {0x0805, "rsa_pss_rsae_sha384", KEY_RSA, 0x36, true},
    {0x0806, "rsa_pss_rsae_sha512", KEY_RSA, 0x37, true},
    {0x0401, "rsa_pkcs1_sha256", KEY_RSA, 0x05, false},
    {0x0501, "rsa_pkcs1_sha384", KEY_RSA, 0x06, false},
    {0x0601, "rsa_pkcs1_sha512", KEY_RSA, 0x07, false},
    {0x0807, "ed25519", KEY_ED25519, 0x18, true},
};
#define NUM_ALL (sizeof(all) / sizeof(all[0]))

static EVP_PKEY *new_ec_key(int nid) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(nid);
  assert_non_null(key);
  assert_non_null(ec);
  assert_int_equal(EC_KEY_generate_key(ec), 1);
  assert_int_equal(EVP_PKEY_assign_EC_KEY(key, ec), 1);
  return key;
}

static EVP_PKEY *new_rsa_key(int bits) {
  EVP_PKEY *key = EVP_PKEY_new();
  RSA *rsa = RSA_new();
  BIGNUM *e = BN_new();
  assert_non_null(key);
  assert_int_equal(BN_set_word(e, RSA_F4), 1);
  assert_int_equal(RSA_generate_key_ex(rsa, bits, e, NULL), 1);
  assert_int_equal(EVP_PKEY_assign_RSA(key, rsa), 1);
  BN_free(e);
  return key;
}

static EVP_PKEY *ed25519_of_vector(void) {
  uint8_t seed[32];
  EVP_PKEY *key;
  assert_int_equal(vector_unhex(seed, sizeof(seed), VECTOR_ED25519_SEED), 32);
  key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
  assert_non_null(key);
  return key;
}

static EVP_PKEY *public_of_vector(const char *hex) {
  uint8_t spki[512];
  CBS cbs;
  EVP_PKEY *key;
  CBS_init(&cbs, spki, vector_unhex(spki, sizeof(spki), hex));
  key = EVP_parse_public_key(&cbs);
  assert_non_null(key);
  return key;
}

static int make_keys(void **state) {
  (void)state;
  keys[KEY_P256] = new_ec_key(NID_X9_62_prime256v1);
  keys[KEY_P384] = new_ec_key(NID_secp384r1);
  keys[KEY_P521] = new_ec_key(NID_secp521r1);
  keys[KEY_RSA] = new_rsa_key(2048);
  keys[KEY_ED25519] = ed25519_of_vector();
  return 0;
}

static int free_keys(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_KEYS; i++) {
    EVP_PKEY_free(keys[i]);
  }
  return 0;
}

static void finds_each_scheme_by_code_name_and_opcode(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    assert_non_null(scheme);
    assert_int_equal(scheme->code, all[i].code);
    assert_string_equal(scheme->name, all[i].name);
    assert_int_equal(scheme->kind, kinds[all[i].key]);
    assert_int_equal(scheme->opcode, all[i].opcode);
    assert_int_equal(scheme->may_sign_tls13, all[i].may_sign_tls13);
    assert_ptr_equal(scheme_by_name(all[i].name), scheme);
    assert_ptr_equal(scheme_by_opcode(all[i].opcode, kinds[all[i].key]), scheme);
  }
}

static void finds_no_others(void **state) {
  // SHA-1, DSA, RSASSA-PSS keys, Ed448, and nothing.
  static const uint16_t codes[] = {0x0201, 0x0203, 0x0402, 0x0809, 0x0808, 0x0000};
  size_t num_found = 0;
  (void)state;
  for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
    assert_null(scheme_find(codes[i]));
  }
  for (uint32_t code = 0; code <= UINT16_MAX; code++) {
    num_found += scheme_find((uint16_t)code) != NULL ? 1 : 0;
  }
  assert_int_equal(num_found, NUM_ALL);
  assert_null(scheme_by_name(""));
  assert_null(scheme_by_name("ECDSA_SECP256R1_SHA256"));
  assert_null(scheme_by_name("ed25519 "));
}

// Which opcodes sign with which keys: RSA opcodes with RSA, Ed25519 with its
// own, ECDSA with any curve. Everything else is refused: another server once
// signed chosen bytes for any pair.
static void opcode_must_fit_the_kind_of_key(void **state) {
  (void)state;
  for (unsigned opcode = 0; opcode <= UINT8_MAX; opcode++) {
    for (size_t key = 0; key < NUM_KEYS; key++) {
      const struct scheme *scheme = scheme_by_opcode((uint8_t)opcode, kinds[key]);
      const bool is_ec = key <= KEY_P521;
      const bool want =
          (is_ec && opcode >= 0x15 && opcode <= 0x17) || (key == KEY_ED25519 && opcode == 0x18) ||
          (key == KEY_RSA &&
           ((opcode >= 0x05 && opcode <= 0x07) || (opcode >= 0x35 && opcode <= 0x37)));
      assert_int_equal(scheme != NULL, want);
      assert_true(scheme == NULL || scheme->opcode == opcode);
    }
    assert_null(scheme_by_opcode((uint8_t)opcode, KEY_KIND_NONE));
  }
}

static void tls13_ties_the_hash_to_the_curve(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    for (size_t key = 0; key < NUM_KEYS; key++) {
      assert_int_equal(scheme_fits_tls13(scheme, kinds[key]),
                       all[i].may_sign_tls13 && all[i].key == key);
      assert_int_equal(scheme_fits_key(scheme, kinds[key]),
                       all[i].key == key || (all[i].key <= KEY_P521 && key <= KEY_P521));
    }
    assert_false(scheme_fits_key(scheme, KEY_KIND_NONE));
    assert_false(scheme_fits_tls13(scheme, KEY_KIND_NONE));
  }
}

static struct bytes sign(uint8_t out[SCHEME_MAX_SIGNATURE_LEN], const struct scheme *scheme,
                         EVP_PKEY *key, const char *message) {
  size_t len = 0;
  assert_int_equal(
      scheme_sign(scheme, key, out, SCHEME_MAX_SIGNATURE_LEN, &len, bytes_text(message)),
      STATUS_OK);
  assert_true(len > 0);
  return bytes_of(out, len);
}

static void signs_and_verifies_with_each_scheme_and_key(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    for (size_t key = 0; key < NUM_KEYS; key++) {
      uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
      size_t len = 1;
      if (!scheme_fits_key(scheme, kinds[key])) {
        assert_int_equal(
            scheme_sign(scheme, keys[key], data, sizeof(data), &len, bytes_text("message")),
            STATUS_CRYPTO);
        assert_int_equal(len, 0);
        continue;
      }
      const struct bytes signature = sign(data, scheme, keys[key], "message");
      assert_int_equal(scheme_verify(scheme, keys[key], bytes_text("message"), signature),
                       STATUS_OK);
      assert_int_equal(scheme_verify(scheme, keys[key], bytes_text("messagf"), signature),
                       STATUS_CRYPTO);
      assert_int_equal(scheme_verify(scheme, keys[key], bytes_text("message"),
                                     bytes_of(signature.data, signature.len - 1)),
                       STATUS_CRYPTO);
      assert_int_equal(scheme_verify(scheme, keys[key], bytes_text("message"), bytes_of(data, 0)),
                       STATUS_CRYPTO);
    }
  }
  ERR_clear_error();
}

// The signature of one scheme is none of another, with the same key too: PSS
// is not PKCS#1, SHA-256 is not SHA-384.
static void verifies_only_under_its_own_scheme(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    EVP_PKEY *key = keys[all[i].key];
    uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
    const struct bytes signature = sign(data, scheme, key, "message");
    for (size_t j = 0; j < NUM_ALL; j++) {
      assert_int_equal(
          scheme_verify(scheme_find(all[j].code), key, bytes_text("message"), signature),
          i == j ? STATUS_OK : STATUS_CRYPTO);
    }
  }
  ERR_clear_error();
}

static void verifies_only_under_its_own_key(void **state) {
  EVP_PKEY *other = new_ec_key(NID_X9_62_prime256v1);
  const struct scheme *scheme = scheme_by_name("ecdsa_secp256r1_sha256");
  uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
  (void)state;
  const struct bytes signature = sign(data, scheme, keys[KEY_P256], "message");
  assert_int_equal(scheme_verify(scheme, other, bytes_text("message"), signature), STATUS_CRYPTO);
  EVP_PKEY_free(other);
  ERR_clear_error();
}

static void each_flipped_bit_of_a_signature_is_noticed(void **state) {
  const struct scheme *scheme = scheme_by_name("ecdsa_secp256r1_sha256");
  uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
  (void)state;
  const struct bytes signature = sign(data, scheme, keys[KEY_P256], "message");
  for (size_t bit = 0; bit < 8 * signature.len; bit++) {
    data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    assert_int_equal(scheme_verify(scheme, keys[KEY_P256], bytes_text("message"), signature),
                     STATUS_CRYPTO);
    data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
  ERR_clear_error();
}

static void salt_of_pss_is_as_long_as_the_digest(void **state) {
  RSA *rsa = EVP_PKEY_get0_RSA(keys[KEY_RSA]);
  const struct scheme *scheme = scheme_by_name("rsa_pss_rsae_sha256");
  uint8_t digest[SHA256_DIGEST_LENGTH];
  uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
  size_t len = 0;
  (void)state;
  SHA256((const uint8_t *)"message", 7, digest);
  assert_int_equal(RSA_sign_pss_mgf1(rsa, &len, data, sizeof(data), digest, sizeof(digest),
                                     EVP_sha256(), EVP_sha256(), 20),
                   1);
  assert_int_equal(scheme_verify(scheme, keys[KEY_RSA], bytes_text("message"), bytes_of(data, len)),
                   STATUS_CRYPTO);
  ERR_clear_error();
}

static void digest_is_that_of_the_scheme(void **state) {
  uint8_t want[64];
  uint8_t got[64];
  size_t len = 1;
  (void)state;
  SHA256((const uint8_t *)VECTOR_SIGNED, strlen(VECTOR_SIGNED), want);
  assert_int_equal(scheme_digest(scheme_find(0x0403), got, &len, bytes_text(VECTOR_SIGNED)),
                   STATUS_OK);
  assert_int_equal(len, 32);
  assert_memory_equal(got, want, 32);
  SHA384((const uint8_t *)VECTOR_SIGNED, strlen(VECTOR_SIGNED), want);
  assert_int_equal(scheme_digest(scheme_find(0x0805), got, &len, bytes_text(VECTOR_SIGNED)),
                   STATUS_OK);
  assert_int_equal(len, 48);
  assert_memory_equal(got, want, 48);
  SHA512((const uint8_t *)VECTOR_SIGNED, strlen(VECTOR_SIGNED), want);
  assert_int_equal(scheme_digest(scheme_find(0x0601), got, &len, bytes_text(VECTOR_SIGNED)),
                   STATUS_OK);
  assert_int_equal(len, 64);
  assert_memory_equal(got, want, 64);
  assert_int_equal(scheme_digest(scheme_find(0x0807), got, &len, bytes_text(VECTOR_SIGNED)),
                   STATUS_OK);
  assert_int_equal(len, 0);
}

// An ECDSA key would sign a digest of any length, and cut it.
static void signs_no_digest_of_another_length(void **state) {
  static const uint8_t zeros[128] = {0};
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    if (scheme->digest_len == 0) {
      continue;
    }
    for (size_t digest_len = 0; digest_len <= sizeof(zeros); digest_len++) {
      uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
      size_t len = 0;
      if (digest_len == scheme->digest_len && all[i].key == KEY_RSA) {
        continue;  // a good one is slow, and tested above
      }
      assert_int_equal(scheme_sign_digest(scheme, keys[all[i].key], data, sizeof(data), &len,
                                          bytes_of(zeros, digest_len)),
                       digest_len == scheme->digest_len ? STATUS_OK : STATUS_CRYPTO);
    }
  }
}

static void signs_into_no_less_than_the_longest_signature(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_ALL; i++) {
    const struct scheme *scheme = scheme_find(all[i].code);
    const size_t max = (size_t)EVP_PKEY_size(keys[all[i].key]);
    uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
    size_t len = 1;
    assert_int_equal(
        scheme_sign(scheme, keys[all[i].key], data, max - 1, &len, bytes_text("message")),
        STATUS_LIMIT);
    assert_int_equal(len, 0);
    assert_int_equal(scheme_sign(scheme, keys[all[i].key], data, max, &len, bytes_text("message")),
                     STATUS_OK);
    assert_true(len <= max);
  }
}

static void public_key_cannot_sign(void **state) {
  static const struct {
    const char *spki;
    const char *scheme;
  } cases[] = {{VECTOR_P256_SPKI, "ecdsa_secp256r1_sha256"},
               {VECTOR_RSA_SPKI, "rsa_pss_rsae_sha256"},
               {VECTOR_RSA_SPKI, "rsa_pkcs1_sha256"},
               {VECTOR_ED25519_SPKI, "ed25519"}};
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    EVP_PKEY *key = public_of_vector(cases[i].spki);
    uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
    size_t len = 1;
    assert_int_equal(scheme_sign(scheme_by_name(cases[i].scheme), key, data, sizeof(data), &len,
                                 bytes_text("message")),
                     STATUS_CRYPTO);
    assert_int_equal(len, 0);
    EVP_PKEY_free(key);
  }
  ERR_clear_error();
}

static struct bytes payload_of(uint8_t packet[VECTOR_PACKET_MAX_LEN], size_t vector) {
  const size_t len = vector_packet_bytes(packet, &vector_packets[vector]);
  struct frame frame;
  assert_int_equal(
      frame_body_decode(&frame, bytes_of(packet + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN)),
      STATUS_OK);
  return frame.payload;
}

static void verifies_signatures_of_another_implementation(void **state) {
  static const struct {
    const char *spki;
    const char *scheme;
    size_t vector;
  } cases[] = {{VECTOR_P256_SPKI, "ecdsa_secp256r1_sha256", VECTOR_ECDSA_RESPONSE},
               {VECTOR_RSA_SPKI, "rsa_pss_rsae_sha256", VECTOR_PSS_RESPONSE}};
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    EVP_PKEY *key = public_of_vector(cases[i].spki);
    const struct scheme *scheme = scheme_by_name(cases[i].scheme);
    uint8_t packet[VECTOR_PACKET_MAX_LEN];
    const struct bytes signature = payload_of(packet, cases[i].vector);
    assert_int_equal(scheme_verify(scheme, key, bytes_text(VECTOR_SIGNED), signature), STATUS_OK);
    assert_int_equal(scheme_verify(scheme, key, bytes_text("hello Keyless"), signature),
                     STATUS_CRYPTO);
    EVP_PKEY_free(key);
  }
  ERR_clear_error();
}

static void ed25519_signs_as_another_implementation_does(void **state) {
  uint8_t request[VECTOR_PACKET_MAX_LEN];
  uint8_t response[VECTOR_PACKET_MAX_LEN];
  uint8_t packet[VECTOR_PACKET_MAX_LEN];
  uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
  const struct scheme *scheme = scheme_by_opcode(FRAME_OP_ED25519, KEY_KIND_ED25519);
  size_t len = 0;
  size_t packet_len = 0;
  (void)state;
  const struct bytes message = payload_of(request, VECTOR_ED25519_REQUEST);
  assert_int_equal(scheme_sign(scheme, keys[KEY_ED25519], data, sizeof(data), &len, message),
                   STATUS_OK);
  assert_int_equal(frame_encode_response(packet, sizeof(packet), &packet_len, 5, FRAME_OP_SUCCESS,
                                         bytes_of(data, len)),
                   STATUS_OK);
  assert_int_equal(packet_len,
                   vector_packet_bytes(response, &vector_packets[VECTOR_ED25519_RESPONSE]));
  assert_memory_equal(packet, response, packet_len);
}

static void tells_kinds_of_keys(void **state) {
  EVP_PKEY *small = new_rsa_key(1024);
  EVP_PKEY *odd = new_ec_key(NID_secp224r1);
  (void)state;
  for (size_t key = 0; key < NUM_KEYS; key++) {
    assert_int_equal(key_kind_of(keys[key]), kinds[key]);
  }
  assert_int_equal(key_kind_of(small), KEY_KIND_NONE);
  assert_int_equal(key_kind_of(odd), KEY_KIND_NONE);
  assert_string_equal(key_kind_name(KEY_KIND_P256), "p256");
  assert_string_equal(key_kind_name(KEY_KIND_ED25519), "ed25519");
  assert_string_equal(key_kind_name(KEY_KIND_NONE), "none");
  EVP_PKEY_free(small);
  EVP_PKEY_free(odd);
}

static void short_rsa_key_neither_signs_nor_verifies(void **state) {
  EVP_PKEY *small = new_rsa_key(1024);
  const struct scheme *scheme = scheme_by_name("rsa_pkcs1_sha256");
  uint8_t digest[SHA256_DIGEST_LENGTH];
  uint8_t data[SCHEME_MAX_SIGNATURE_LEN];
  unsigned raw_len = 0;
  size_t len = 0;
  (void)state;
  assert_int_equal(scheme_sign(scheme, small, data, sizeof(data), &len, bytes_text("message")),
                   STATUS_CRYPTO);
  SHA256((const uint8_t *)"message", 7, digest);
  assert_int_equal(
      RSA_sign(NID_sha256, digest, sizeof(digest), data, &raw_len, EVP_PKEY_get0_RSA(small)), 1);
  assert_int_equal(scheme_verify(scheme, small, bytes_text("message"), bytes_of(data, raw_len)),
                   STATUS_CRYPTO);
  EVP_PKEY_free(small);
}

static void tells_kinds_of_spkis(void **state) {
  static const struct {
    const char *spki;
    enum key_kind kind;
  } cases[] = {{VECTOR_P256_SPKI, KEY_KIND_P256},
               {VECTOR_RSA_SPKI, KEY_KIND_RSA},
               {VECTOR_ED25519_SPKI, KEY_KIND_ED25519}};
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    uint8_t spki[512] = {0};
    const size_t len = vector_unhex(spki, sizeof(spki), cases[i].spki);
    assert_int_equal(key_kind_of_spki(bytes_of(spki, len)), cases[i].kind);
    assert_int_equal(key_kind_of_spki(bytes_of(spki, len + 1)), KEY_KIND_NONE);
    for (size_t cut = 0; cut < len; cut++) {
      assert_int_equal(key_kind_of_spki(bytes_of(spki, cut)), KEY_KIND_NONE);
    }
    assert_int_equal(ERR_peek_error(), 0);
  }
}

static void spki_off_the_curve_is_of_no_kind(void **state) {
  uint8_t spki[512];
  (void)state;
  const size_t len = vector_unhex(spki, sizeof(spki), VECTOR_P256_SPKI);
  spki[len - 1] ^= 1;
  assert_int_equal(key_kind_of_spki(bytes_of(spki, len)), KEY_KIND_NONE);
  assert_int_equal(ERR_peek_error(), 0);
}

static void overlong_spki_is_of_no_kind(void **state) {
  uint8_t *spki = calloc(1, SCHEME_MAX_SPKI_LEN + 1);
  (void)state;
  assert_non_null(spki);
  assert_int_equal(key_kind_of_spki(bytes_of(spki, SCHEME_MAX_SPKI_LEN + 1)), KEY_KIND_NONE);
  free(spki);
}

static void test_default_is_what_the_kind_signs_tls13_with(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_KEYS; i++) {
    const struct scheme *scheme = scheme_default(kinds[i]);
    assert_non_null(scheme);
    assert_true(scheme_fits_tls13(scheme, kinds[i]));
    assert_true(scheme->digest_len == 0 || scheme->kind != KEY_KIND_RSA ||
                scheme->digest_len == SHA256_DIGEST_LENGTH);
  }
  assert_null(scheme_default(KEY_KIND_NONE));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_default_is_what_the_kind_signs_tls13_with),
      cmocka_unit_test(finds_each_scheme_by_code_name_and_opcode),
      cmocka_unit_test(finds_no_others),
      cmocka_unit_test(opcode_must_fit_the_kind_of_key),
      cmocka_unit_test(tls13_ties_the_hash_to_the_curve),
      cmocka_unit_test(signs_and_verifies_with_each_scheme_and_key),
      cmocka_unit_test(verifies_only_under_its_own_scheme),
      cmocka_unit_test(verifies_only_under_its_own_key),
      cmocka_unit_test(each_flipped_bit_of_a_signature_is_noticed),
      cmocka_unit_test(salt_of_pss_is_as_long_as_the_digest),
      cmocka_unit_test(digest_is_that_of_the_scheme),
      cmocka_unit_test(signs_no_digest_of_another_length),
      cmocka_unit_test(signs_into_no_less_than_the_longest_signature),
      cmocka_unit_test(public_key_cannot_sign),
      cmocka_unit_test(verifies_signatures_of_another_implementation),
      cmocka_unit_test(ed25519_signs_as_another_implementation_does),
      cmocka_unit_test(tells_kinds_of_keys),
      cmocka_unit_test(short_rsa_key_neither_signs_nor_verifies),
      cmocka_unit_test(tells_kinds_of_spkis),
      cmocka_unit_test(spki_off_the_curve_is_of_no_kind),
      cmocka_unit_test(overlong_spki_is_of_no_kind),
  };
  return cmocka_run_group_tests_name("scheme", tests, make_keys, free_keys);
}
