// SPDX-License-Identifier: Apache-2.0
#include "common/wire/dc.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wire/scheme.h"
#include "common/wire/signing_input.h"
#include "tests/unit/common/wire/vectors.h"

// A vector, taken apart.
struct leaf {
  uint8_t der[VECTOR_CERT_MAX_LEN];
  struct bytes certificate;
  EVP_PKEY *key;
  uint8_t credential[DC_MAX_LEN];
  size_t credential_len;
};

static void leaf_init(struct leaf *leaf, size_t vector, const char *credential) {
  const uint8_t *at = leaf->der;
  X509 *x509;
  leaf->certificate = bytes_of(leaf->der, vector_certificate(leaf->der, &vector_dcs[vector]));
  x509 = d2i_X509(NULL, &at, (long)leaf->certificate.len);
  assert_non_null(x509);
  leaf->key = X509_get_pubkey(x509);
  assert_non_null(leaf->key);
  X509_free(x509);
  leaf->credential_len =
      vector_unhex(leaf->credential, sizeof(leaf->credential),
                   credential == NULL ? vector_dcs[vector].credential : credential);
}

static void leaf_cleanup(struct leaf *leaf) {
  EVP_PKEY_free(leaf->key);
  ERR_clear_error();
}

static struct bytes credential_of(const struct leaf *leaf) {
  return bytes_of(leaf->credential, leaf->credential_len);
}

// is_good does what a receiver does: decode, build the input, verify.
static bool is_good(const struct leaf *leaf, struct bytes credential) {
  struct dc dc;
  const struct scheme *scheme;
  uint8_t *input = NULL;
  size_t input_len = 0;
  bool good;
  if (dc_decode(&dc, credential) != STATUS_OK) {
    return false;
  }
  scheme = scheme_find(dc.algorithm);
  if (scheme == NULL || !scheme_fits_tls13(scheme, key_kind_of(leaf->key))) {
    return false;
  }
  assert_int_equal(dc_signing_input(&input, &input_len, leaf->certificate, &dc), STATUS_OK);
  good = scheme_verify(scheme, leaf->key, bytes_of(input, input_len), dc.signature) == STATUS_OK;
  free(input);
  return good;
}

static void decodes_vectors_and_writes_them_again(void **state) {
  (void)state;
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    struct leaf leaf;
    uint8_t again[DC_MAX_LEN];
    size_t again_len = 0;
    struct dc dc;
    leaf_init(&leaf, i, NULL);
    assert_int_equal(dc_decode(&dc, credential_of(&leaf)), STATUS_OK);
    assert_int_equal(dc.valid_time_s, 2332800);
    assert_int_equal(dc.verify_scheme, 0x0403);
    assert_int_equal(dc.spki.len, 91);
    assert_ptr_equal(dc.spki.data, leaf.credential + 9);
    assert_ptr_equal(dc.credential.data, leaf.credential);
    assert_int_equal(dc.credential.len, 100);
    assert_int_equal(dc.algorithm, vector_dcs[i].algorithm);
    assert_ptr_equal(dc.signature.data, leaf.credential + 104);
    assert_int_equal(dc.signature.len, leaf.credential_len - 104);
    assert_int_equal(dc_expiry_s(&dc, VECTOR_NOT_BEFORE_S), VECTOR_EXPIRY_S);
    assert_int_equal(key_kind_of_spki(dc.spki), KEY_KIND_P256);

    dc.credential = bytes_of(NULL, 0);  // is not what is written
    assert_int_equal(dc_encode(again, sizeof(again), &again_len, &dc), STATUS_OK);
    assert_int_equal(again_len, leaf.credential_len);
    assert_memory_equal(again, leaf.credential, again_len);
    leaf_cleanup(&leaf);
  }
}

static void signing_inputs_are_those_of_the_vectors(void **state) {
  (void)state;
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    struct leaf leaf;
    uint8_t *input = NULL;
    size_t input_len = 0;
    struct dc dc;
    leaf_init(&leaf, i, NULL);
    assert_int_equal(dc_decode(&dc, credential_of(&leaf)), STATUS_OK);
    assert_int_equal(dc_signing_input(&input, &input_len, leaf.certificate, &dc), STATUS_OK);
    assert_int_equal(input_len, vector_dcs[i].input_len);
    vector_assert_sha256(bytes_of(input, input_len), vector_dcs[i].input_sha256);
    free(input);
    leaf_cleanup(&leaf);
  }
}

static void vectors_verify_under_their_certificates_and_no_other(void **state) {
  struct leaf leaves[VECTOR_NUM_DCS];
  (void)state;
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    leaf_init(&leaves[i], i, NULL);
  }
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    for (size_t j = 0; j < VECTOR_NUM_DCS; j++) {
      assert_int_equal(is_good(&leaves[i], credential_of(&leaves[j])), i == j);
    }
  }
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    leaf_cleanup(&leaves[i]);
  }
}

// The scheme fits another key: it is the certificate in the input that matters.
static void a_credential_belongs_to_one_certificate(void **state) {
  struct leaf leaf;
  (void)state;
  leaf_init(&leaf, VECTOR_DC_P256, NULL);
  assert_true(is_good(&leaf, credential_of(&leaf)));
  leaf.der[leaf.certificate.len - 1] ^= 1;  // a renewed leaf with the same key
  assert_false(is_good(&leaf, credential_of(&leaf)));
  leaf_cleanup(&leaf);
}

static void refuses_a_credential_of_the_client_context(void **state) {
  struct leaf leaf;
  struct dc dc;
  (void)state;
  leaf_init(&leaf, VECTOR_DC_P256, VECTOR_DC_CLIENT);
  assert_int_equal(dc_decode(&dc, credential_of(&leaf)), STATUS_OK);
  assert_false(is_good(&leaf, credential_of(&leaf)));
  leaf_cleanup(&leaf);
}

static void each_flipped_bit_is_noticed(void **state) {
  struct leaf leaf;
  (void)state;
  leaf_init(&leaf, VECTOR_DC_P256, NULL);
  for (size_t bit = 0; bit < 8 * leaf.credential_len; bit++) {
    leaf.credential[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    assert_false(is_good(&leaf, credential_of(&leaf)));
    leaf.credential[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
  assert_true(is_good(&leaf, credential_of(&leaf)));
  leaf_cleanup(&leaf);
}

static void refuses_each_cut_and_each_added_byte(void **state) {
  static const struct dc empty = {0};
  (void)state;
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    struct leaf leaf;
    struct dc dc;
    leaf_init(&leaf, i, NULL);
    for (size_t len = 0; len < leaf.credential_len; len++) {
      assert_int_equal(dc_decode(&dc, bytes_of(leaf.credential, len)), STATUS_FORMAT);
      assert_memory_equal(&dc, &empty, sizeof(dc));
      assert_int_equal(
          dc_decode(&dc, bytes_of(leaf.credential + leaf.credential_len - len, len)) == STATUS_OK,
          false);
    }
    leaf.credential[leaf.credential_len] = 0;
    assert_int_equal(dc_decode(&dc, bytes_of(leaf.credential, leaf.credential_len + 1)),
                     STATUS_FORMAT);
    leaf_cleanup(&leaf);
  }
}

// write_dc builds one by hand, of any lengths.
static struct bytes write_dc(uint8_t out[2 * DC_MAX_LEN], size_t spki_len, size_t signature_len) {
  CBB cbb;
  CBB run;
  size_t len = 0;
  assert_int_equal(CBB_init_fixed(&cbb, out, (size_t)2 * DC_MAX_LEN), 1);
  assert_true(CBB_add_u32(&cbb, 1) && CBB_add_u16(&cbb, 0x0403) &&
              CBB_add_u24_length_prefixed(&cbb, &run) && CBB_add_zeros(&run, spki_len) &&
              CBB_add_u16(&cbb, 0x0403) && CBB_add_u16_length_prefixed(&cbb, &run) &&
              CBB_add_zeros(&run, signature_len) && CBB_finish(&cbb, NULL, &len));
  return bytes_of(out, len);
}

static void limits_of_decoding_are_exact(void **state) {
  static uint8_t data[2 * DC_MAX_LEN];
  struct dc dc;
  (void)state;
  assert_int_equal(dc_decode(&dc, write_dc(data, DC_MAX_SPKI_LEN, 1)), STATUS_OK);
  assert_int_equal(dc_decode(&dc, write_dc(data, DC_MAX_SPKI_LEN + 1, 1)), STATUS_LIMIT);
  assert_int_equal(dc_decode(&dc, write_dc(data, 1, DC_MAX_SIGNATURE_LEN)), STATUS_OK);
  assert_int_equal(dc_decode(&dc, write_dc(data, 1, DC_MAX_SIGNATURE_LEN + 1)), STATUS_LIMIT);
  assert_int_equal(dc_decode(&dc, write_dc(data, 0, 1)), STATUS_FORMAT);
  assert_int_equal(dc_decode(&dc, write_dc(data, 1, 0)), STATUS_FORMAT);
  assert_int_equal(dc_decode(&dc, bytes_of(data, DC_MAX_LEN + 1)), STATUS_LIMIT);
}

static void limits_of_writing_are_exact(void **state) {
  static const uint8_t zeros[DC_MAX_CERTIFICATE_LEN + 1] = {0};
  static uint8_t data[2 * DC_MAX_LEN];
  struct dc dc = {.spki = bytes_of(zeros, 1), .signature = bytes_of(zeros, 1)};
  uint8_t *input = NULL;
  size_t len = 1;
  (void)state;
  assert_int_equal(dc_encode(data, 15, &len, &dc), STATUS_OK);
  assert_int_equal(len, 15);
  assert_int_equal(dc_encode(data, 14, &len, &dc), STATUS_LIMIT);
  assert_int_equal(len, 0);
  dc.signature.len = DC_MAX_SIGNATURE_LEN + 1;
  assert_int_equal(dc_encode(data, sizeof(data), &len, &dc), STATUS_LIMIT);
  dc.signature.len = 0;
  assert_int_equal(dc_encode(data, sizeof(data), &len, &dc), STATUS_LIMIT);
  dc.signature.len = 1;
  for (size_t i = 0; i < 2; i++) {
    dc.spki.len = i == 0 ? 0 : DC_MAX_SPKI_LEN + 1;
    assert_int_equal(dc_encode(data, sizeof(data), &len, &dc), STATUS_LIMIT);
    assert_int_equal(dc_signing_input(&input, &len, bytes_of(zeros, 1), &dc), STATUS_LIMIT);
    assert_null(input);
  }
  dc.spki.len = DC_MAX_SPKI_LEN;
  assert_int_equal(dc_signing_input(&input, &len, bytes_of(zeros, 0), &dc), STATUS_LIMIT);
  assert_int_equal(dc_signing_input(&input, &len, bytes_of(zeros, sizeof(zeros)), &dc),
                   STATUS_LIMIT);
  assert_null(input);
  assert_int_equal(dc_signing_input(&input, &len, bytes_of(zeros, sizeof(zeros) - 1), &dc),
                   STATUS_OK);
  assert_true(len <= SIGNING_INPUT_MAX_LEN);
  free(input);
}

static void valid_time_counts_from_not_before(void **state) {
  uint32_t out = 0;
  (void)state;
  // 25 days after notBefore, for two days.
  assert_int_equal(
      dc_valid_time(&out, VECTOR_NOT_BEFORE_S, VECTOR_NOT_BEFORE_S + 25 * 86400, 2 * 86400),
      STATUS_OK);
  assert_int_equal(out, 2332800);
  assert_int_equal(dc_valid_time(&out, 0, 0, 0), STATUS_OK);
  assert_int_equal(out, 0);
  assert_int_equal(dc_valid_time(&out, 0, 0, UINT32_MAX), STATUS_OK);
  assert_int_equal(out, UINT32_MAX);
  assert_int_equal(dc_valid_time(&out, -100, -50, 10), STATUS_OK);
  assert_int_equal(out, 60);
}

static void refuses_a_valid_time_that_does_not_fit(void **state) {
  uint32_t out = 1;
  (void)state;
  assert_int_equal(dc_valid_time(&out, 0, 0, (int64_t)UINT32_MAX + 1), STATUS_LIMIT);
  assert_int_equal(out, 0);
  assert_int_equal(dc_valid_time(&out, 100, 50, 49), STATUS_LIMIT);  // ends before notBefore
  assert_int_equal(dc_valid_time(&out, INT64_MIN, INT64_MAX, 1), STATUS_LIMIT);
  assert_int_equal(dc_valid_time(&out, 0, INT64_MAX, 1), STATUS_LIMIT);
  assert_int_equal(dc_valid_time(&out, INT64_MAX, INT64_MIN, 0), STATUS_LIMIT);
}

static void expiry_does_not_overflow(void **state) {
  const struct dc dc = {.valid_time_s = UINT32_MAX};
  (void)state;
  assert_true(dc_expiry_s(&dc, 0) == (int64_t)UINT32_MAX);
  assert_true(dc_expiry_s(&dc, INT64_MAX - 1) == INT64_MAX);
}

static void proof_input_says_what_is_asked_for(void **state) {
  static const char context[] = "Deputy, delegated credential key possession";
  uint8_t spki[128];
  uint8_t hash[32];
  uint8_t out[DC_PROOF_MAX_LEN];
  size_t len = 0;
  (void)state;
  const size_t spki_len = vector_unhex(spki, sizeof(spki), VECTOR_P256_SPKI);
  memset(hash, 0xab, sizeof(hash));
  assert_int_equal(dc_proof_input(out, &len, hash, 172800, 0x0403, bytes_of(spki, spki_len)),
                   STATUS_OK);
  assert_int_equal(len, 64 + sizeof(context) + 32 + 8 + 2 + spki_len);
  for (size_t i = 0; i < 64; i++) {
    assert_int_equal(out[i], 0x20);
  }
  const uint8_t *at = out + 64;
  assert_memory_equal(at, context, sizeof(context));  // with its zero
  at += sizeof(context);
  assert_memory_equal(at, hash, 32);
  assert_memory_equal(at + 32, "\x00\x00\x00\x00\x00\x02\xa3\x00\x04\x03", 10);
  assert_memory_equal(at + 42, spki, spki_len);
}

static void proof_input_is_no_message_that_a_key_server_signs(void **state) {
  uint8_t spki[128];
  uint8_t hash[32] = {0};
  uint8_t out[DC_PROOF_MAX_LEN];
  size_t len = 0;
  struct signing_input input;
  (void)state;
  const size_t spki_len = vector_unhex(spki, sizeof(spki), VECTOR_P256_SPKI);
  assert_int_equal(dc_proof_input(out, &len, hash, 172800, 0x0403, bytes_of(spki, spki_len)),
                   STATUS_OK);
  assert_int_equal(signing_input_parse(&input, bytes_of(out, len)), STATUS_FORMAT);
  assert_int_equal(input.purpose, PURPOSE_NONE);
}

static void refuses_a_proof_beyond_its_limits(void **state) {
  static const uint8_t zeros[DC_MAX_SPKI_LEN + 1] = {0};
  uint8_t out[DC_PROOF_MAX_LEN];
  size_t len = 0;
  (void)state;
  assert_int_equal(dc_proof_input(out, &len, zeros, 0, 0, bytes_of(zeros, DC_MAX_SPKI_LEN)),
                   STATUS_OK);
  assert_int_equal(len, DC_PROOF_MAX_LEN);
  assert_int_equal(dc_proof_input(out, &len, zeros, 0, 0, bytes_of(zeros, DC_MAX_SPKI_LEN + 1)),
                   STATUS_LIMIT);
  assert_int_equal(len, 0);
  assert_int_equal(dc_proof_input(out, &len, zeros, 0, 0, bytes_of(zeros, 0)), STATUS_LIMIT);
  assert_int_equal(dc_proof_input(out, &len, zeros, -1, 0, bytes_of(zeros, 1)), STATUS_LIMIT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decodes_vectors_and_writes_them_again),
      cmocka_unit_test(signing_inputs_are_those_of_the_vectors),
      cmocka_unit_test(vectors_verify_under_their_certificates_and_no_other),
      cmocka_unit_test(a_credential_belongs_to_one_certificate),
      cmocka_unit_test(refuses_a_credential_of_the_client_context),
      cmocka_unit_test(each_flipped_bit_is_noticed),
      cmocka_unit_test(refuses_each_cut_and_each_added_byte),
      cmocka_unit_test(limits_of_decoding_are_exact),
      cmocka_unit_test(limits_of_writing_are_exact),
      cmocka_unit_test(valid_time_counts_from_not_before),
      cmocka_unit_test(refuses_a_valid_time_that_does_not_fit),
      cmocka_unit_test(expiry_does_not_overflow),
      cmocka_unit_test(proof_input_says_what_is_asked_for),
      cmocka_unit_test(proof_input_is_no_message_that_a_key_server_signs),
      cmocka_unit_test(refuses_a_proof_beyond_its_limits),
  };
  return cmocka_run_group_tests_name("dc", tests, NULL, NULL);
}
