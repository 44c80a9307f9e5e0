// SPDX-License-Identifier: Apache-2.0
#include "common/wire/signing_input.h"

#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/common/wire/vectors.h"

#define TLS13 "TLS 1.3, server CertificateVerify"

// A message under construction.
struct message {
  uint8_t data[SIGNING_INPUT_MAX_LEN + 64];
  size_t len;
};

static void put(struct message *m, const void *data, size_t len) {
  assert_true(m->len + len <= sizeof(m->data));
  memcpy(m->data + m->len, data, len);
  m->len += len;
}

static void put_byte(struct message *m, unsigned byte) {
  const uint8_t one = (uint8_t)byte;
  put(m, &one, 1);
}

static void put_run(struct message *m, uint8_t byte, size_t len) {
  for (size_t i = 0; i < len; i++) {
    put_byte(m, byte);
  }
}

static void put_hex(struct message *m, const char *hex) {
  m->len += vector_unhex(m->data + m->len, sizeof(m->data) - m->len, hex);
}

static struct bytes bytes_in(const struct message *m) { return bytes_of(m->data, m->len); }

static void start_signed(struct message *m, const char *context) {
  m->len = 0;
  put_run(m, 0x20, 64);
  put(m, context, strlen(context) + 1);
}

static void assert_purpose(struct bytes message, enum purpose purpose) {
  struct signing_input input;
  assert_int_equal(signing_input_parse(&input, message), STATUS_OK);
  assert_int_equal(input.purpose, purpose);
  assert_null(input.why);
  assert_int_equal(ERR_peek_error(), 0);
}

// assert_refused also sees that nothing of what was parsed remains.
static void assert_refused(struct bytes message, const char *why) {
  struct signing_input input;
  memset(&input, 0xee, sizeof(input));
  assert_int_equal(signing_input_parse(&input, message), STATUS_FORMAT);
  assert_int_equal(input.purpose, PURPOSE_NONE);
  assert_non_null(input.why);
  if (why != NULL && strstr(input.why, why) == NULL) {
    fail_msg("refused with \"%s\", not with \"%s\"", input.why, why);
  }
  assert_null(input.transcript_hash.data);
  assert_null(input.certificate.data);
  assert_null(input.dc.spki.data);
  assert_null(input.csr_spki.data);
  assert_int_equal(input.group, 0);
  assert_int_equal(ERR_peek_error(), 0);
}

// assert_none_or: a damaged message may still be of its own form, but of no
// other.
static void assert_none_or(struct bytes message, enum purpose purpose) {
  struct signing_input input;
  if (signing_input_parse(&input, message) == STATUS_OK) {
    assert_int_equal(input.purpose, purpose);
  } else {
    assert_int_equal(input.purpose, PURPOSE_NONE);
    assert_non_null(input.why);
  }
}

static void flip_each_bit(const struct message *m, enum purpose purpose) {
  static struct message flipped;
  flipped = *m;
  for (size_t bit = 0; bit < 8 * m->len; bit++) {
    flipped.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    assert_none_or(bytes_in(&flipped), purpose);
    flipped.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
}

// TLS 1.3.

static void recognises_tls13(void **state) {
  static struct message m;
  struct signing_input input;
  (void)state;
  for (size_t len = 0; len <= 100; len++) {
    start_signed(&m, TLS13);
    put_run(&m, 0x5a, len);
    if (len != 32 && len != 48) {
      assert_refused(bytes_in(&m), "transcript hash is not of 32 or 48 bytes");
      continue;
    }
    assert_int_equal(signing_input_parse(&input, bytes_in(&m)), STATUS_OK);
    assert_int_equal(input.purpose, PURPOSE_TLS13);
    assert_int_equal(input.transcript_hash.len, len);
    assert_ptr_equal(input.transcript_hash.data, m.data + m.len - len);
  }
}

static void refuses_what_is_almost_tls13(void **state) {
  static const char *const contexts[] = {"TLS 1.3, server CertificateVerifY",
                                         "TLS 1.3, server CertificateVerif",
                                         "TLS 1.3, server CertificateVerify ",
                                         "TLS 1.2, server CertificateVerify",
                                         "Deputy, delegated credential key possession",
                                         "Exported Authenticator",
                                         ""};
  static struct message m;
  (void)state;
  for (size_t i = 0; i < sizeof(contexts) / sizeof(contexts[0]); i++) {
    start_signed(&m, contexts[i]);
    put_run(&m, 0x5a, 32);
    assert_refused(bytes_in(&m), NULL);
  }
  for (size_t num_spaces = 0; num_spaces < 128; num_spaces++) {
    m.len = 0;
    put_run(&m, 0x20, num_spaces);
    put(&m, TLS13, sizeof(TLS13));
    put_run(&m, 0x5a, 32);
    assert_none_or(bytes_in(&m), num_spaces == 64 ? PURPOSE_TLS13 : PURPOSE_NONE);
  }
  start_signed(&m, TLS13);
  m.data[64 + sizeof(TLS13) - 1] = 1;  // the separator
  put_run(&m, 0x5a, 32);
  assert_refused(bytes_in(&m), "no context string");
}

static void refuses_a_client_of_tls13_by_name(void **state) {
  static struct message m;
  (void)state;
  start_signed(&m, "TLS 1.3, client CertificateVerify");
  put_run(&m, 0x5a, 32);
  assert_refused(bytes_in(&m), "client's CertificateVerify");
}

static void damaged_tls13_is_nothing_else(void **state) {
  static struct message m;
  (void)state;
  start_signed(&m, TLS13);
  put_run(&m, 0x5a, 48);
  flip_each_bit(&m, PURPOSE_TLS13);
}

// Delegated credentials.

static void put_credential(struct message *m, uint16_t scheme, const char *spki) {
  const size_t spki_len = strlen(spki) / 2;
  put(m, "\x00\x23\x98\x80", 4);
  put_byte(m, scheme >> 8);
  put_byte(m, scheme & 0xff);
  put_byte(m, 0);
  put_byte(m, (unsigned)(spki_len >> 8));
  put_byte(m, (unsigned)(spki_len & 0xff));
  put_hex(m, spki);
}

static void put_certificate(struct message *m, size_t vector) {
  m->len += vector_certificate(m->data + m->len, &vector_dcs[vector]);
}

// build_dc makes a credential input that differs from a good one as told.
static void build_dc(struct message *m, const char *context, uint16_t scheme, const char *spki,
                     uint16_t algorithm) {
  start_signed(m, context);
  put_certificate(m, VECTOR_DC_P256);
  put_credential(m, scheme, spki);
  put_byte(m, algorithm >> 8);
  put_byte(m, algorithm & 0xff);
}

static void recognises_the_inputs_of_credentials(void **state) {
  (void)state;
  for (size_t i = 0; i < VECTOR_NUM_DCS; i++) {
    uint8_t certificate[VECTOR_CERT_MAX_LEN];
    uint8_t credential[DC_MAX_LEN];
    uint8_t *data = NULL;
    size_t len = 0;
    struct signing_input input;
    struct dc dc;
    const size_t certificate_len = vector_certificate(certificate, &vector_dcs[i]);
    const size_t credential_len =
        vector_unhex(credential, sizeof(credential), vector_dcs[i].credential);
    assert_int_equal(dc_decode(&dc, bytes_of(credential, credential_len)), STATUS_OK);
    assert_int_equal(dc_signing_input(&data, &len, bytes_of(certificate, certificate_len), &dc),
                     STATUS_OK);

    assert_int_equal(signing_input_parse(&input, bytes_of(data, len)), STATUS_OK);
    assert_int_equal(input.purpose, PURPOSE_DC);
    assert_true(bytes_equal(input.certificate, bytes_of(certificate, certificate_len)));
    assert_true(bytes_equal(input.dc.credential, dc.credential));
    assert_true(bytes_equal(input.dc.spki, dc.spki));
    assert_int_equal(input.dc.valid_time_s, dc.valid_time_s);
    assert_int_equal(input.dc.verify_scheme, dc.verify_scheme);
    assert_int_equal(input.dc.algorithm, dc.algorithm);
    assert_int_equal(input.dc.signature.len, 0);

    for (size_t cut = 0; cut < len; cut++) {
      assert_refused(bytes_of(data, cut), NULL);
    }
    free(data);
  }
}

static void refuses_credentials_by_name(void **state) {
  static const char big_spki[] = "30820401";
  static struct message m;
  (void)state;
  build_dc(&m, DC_CONTEXT_SERVER, 0x0403, VECTOR_P256_SPKI, 0x0403);
  assert_purpose(bytes_in(&m), PURPOSE_DC);
  put_byte(&m, 0);
  assert_refused(bytes_in(&m), "does not end with its algorithm");

  build_dc(&m, DC_CONTEXT_CLIENT, 0x0403, VECTOR_P256_SPKI, 0x0403);
  assert_refused(bytes_in(&m), "a client's delegated credential");

  build_dc(&m, DC_CONTEXT_SERVER, 0x0503, VECTOR_P256_SPKI, 0x0403);
  assert_refused(bytes_in(&m), "scheme does not fit its public key");
  build_dc(&m, DC_CONTEXT_SERVER, 0x0203, VECTOR_P256_SPKI, 0x0403);
  assert_refused(bytes_in(&m), "scheme does not fit its public key");

  build_dc(&m, DC_CONTEXT_SERVER, 0x0403, VECTOR_P256_SPKI, 0x0401);
  assert_refused(bytes_in(&m), "an algorithm that is not used here");
  build_dc(&m, DC_CONTEXT_SERVER, 0x0403, VECTOR_P256_SPKI, 0x0203);
  assert_refused(bytes_in(&m), "an algorithm that is not used here");

  build_dc(&m, DC_CONTEXT_SERVER, 0x0804, VECTOR_RSA_SPKI, 0x0403);
  assert_refused(bytes_in(&m), "rsaEncryption");
  build_dc(&m, DC_CONTEXT_SERVER, 0x0807, VECTOR_ED25519_SPKI, 0x0403);
  assert_purpose(bytes_in(&m), PURPOSE_DC);

  build_dc(&m, DC_CONTEXT_SERVER, 0x0403, "3003020101", 0x0403);
  assert_refused(bytes_in(&m), "public key is of no kind");

  start_signed(&m, DC_CONTEXT_SERVER);
  put_certificate(&m, VECTOR_DC_P256);
  put(&m, "\x00\x00\x00\x01\x04\x03\x00\x04\x01", 9);
  put_hex(&m, big_spki);
  put_run(&m, 0, 0x401 - 4 + 2);
  assert_refused(bytes_in(&m), "public key is too long");
}

static void refuses_what_is_not_one_der_certificate(void **state) {
  static struct message m;
  (void)state;
  // Not a SEQUENCE.
  start_signed(&m, DC_CONTEXT_SERVER);
  put(&m, "\x31\x02\x05\x00", 4);
  put_credential(&m, 0x0403, VECTOR_P256_SPKI);
  put(&m, "\x04\x03", 2);
  assert_refused(bytes_in(&m), "one DER SEQUENCE");

  // Lengths in more bytes than needed, and of no stated end.
  start_signed(&m, DC_CONTEXT_SERVER);
  put(&m, "\x30\x81\x02\x05\x00", 5);
  put_credential(&m, 0x0403, VECTOR_P256_SPKI);
  put(&m, "\x04\x03", 2);
  assert_refused(bytes_in(&m), "one DER SEQUENCE");
  start_signed(&m, DC_CONTEXT_SERVER);
  put(&m, "\x30\x80\x05\x00\x00\x00", 6);
  put_credential(&m, 0x0403, VECTOR_P256_SPKI);
  put(&m, "\x04\x03", 2);
  assert_refused(bytes_in(&m), "one DER SEQUENCE");

  // Two certificates.
  start_signed(&m, DC_CONTEXT_SERVER);
  put_certificate(&m, VECTOR_DC_P256);
  put_certificate(&m, VECTOR_DC_P384);
  put_credential(&m, 0x0403, VECTOR_P256_SPKI);
  put(&m, "\x04\x03", 2);
  assert_refused(bytes_in(&m), NULL);

  // One byte beyond the limit.
  for (size_t over = 0; over < 2; over++) {
    const size_t content_len = DC_MAX_CERTIFICATE_LEN - 4 + over;
    start_signed(&m, DC_CONTEXT_SERVER);
    put(&m, "\x30\x82", 2);
    put_byte(&m, (unsigned)(content_len >> 8));
    put_byte(&m, (unsigned)(content_len & 0xff));
    put_run(&m, 0, content_len);
    put_credential(&m, 0x0403, VECTOR_P256_SPKI);
    put(&m, "\x04\x03", 2);
    if (over == 0) {
      assert_purpose(bytes_in(&m), PURPOSE_DC);
    } else {
      assert_refused(bytes_in(&m), "certificate is too long");
    }
  }
}

static void damaged_credential_input_is_nothing_else(void **state) {
  static struct message m;
  (void)state;
  build_dc(&m, DC_CONTEXT_SERVER, 0x0403, VECTOR_P256_SPKI, 0x0403);
  flip_each_bit(&m, PURPOSE_DC);
}

// TLS 1.2.

static const struct curve {
  uint16_t group;
  int nid;
  size_t point_len;
  size_t message_len;
} curves[] = {
    {29, NID_undef, 32, 100},
    {23, NID_X9_62_prime256v1, 65, 133},
    {24, NID_secp384r1, 97, 165},
    {25, NID_secp521r1, 133, 201},
};
#define NUM_CURVES (sizeof(curves) / sizeof(curves[0]))

static void put_point(struct message *m, const struct curve *curve, point_conversion_form_t form) {
  EC_KEY *key;
  uint8_t point[256];
  size_t len;
  if (curve->nid == NID_undef) {
    put_run(m, 0xff, 32);  // any 32 bytes
    return;
  }
  key = EC_KEY_new_by_curve_name(curve->nid);
  assert_non_null(key);
  assert_int_equal(EC_KEY_generate_key(key), 1);
  len = EC_POINT_point2oct(EC_KEY_get0_group(key), EC_KEY_get0_public_key(key), form, point,
                           sizeof(point), NULL);
  assert_true(len > 0);
  put(m, point, len);
  EC_KEY_free(key);
}

static void put_params(struct message *m, unsigned curve_type, unsigned group, size_t point_len) {
  put_byte(m, curve_type);
  put_byte(m, group >> 8);
  put_byte(m, group & 0xff);
  put_byte(m, (unsigned)point_len);
}

static void build_tls12(struct message *m, const struct curve *curve, uint8_t random_byte) {
  m->len = 0;
  put_run(m, random_byte, 64);
  put_params(m, 3, curve->group, curve->point_len);
  put_point(m, curve, POINT_CONVERSION_UNCOMPRESSED);
  assert_int_equal(m->len, curve->message_len);
}

// Randoms may be anything: also 64 spaces, or the start of a DER SEQUENCE.
static void recognises_tls12_of_each_curve_whatever_the_randoms(void **state) {
  static const uint8_t random_bytes[] = {0x00, 0x20, 0x30, 0x54, 0xff};
  static struct message m;
  (void)state;
  for (size_t i = 0; i < NUM_CURVES; i++) {
    for (size_t j = 0; j < sizeof(random_bytes); j++) {
      struct signing_input input;
      build_tls12(&m, &curves[i], random_bytes[j]);
      assert_int_equal(signing_input_parse(&input, bytes_in(&m)), STATUS_OK);
      assert_int_equal(input.purpose, PURPOSE_TLS12);
      assert_int_equal(input.group, curves[i].group);
      assert_int_equal(ERR_peek_error(), 0);
    }
  }
}

static void refuses_tls12_that_is_cut_or_longer(void **state) {
  static struct message m;
  (void)state;
  for (size_t i = 0; i < NUM_CURVES; i++) {
    build_tls12(&m, &curves[i], 0x11);
    for (size_t cut = 0; cut < m.len; cut++) {
      assert_refused(bytes_of(m.data, cut), NULL);
    }
    put_byte(&m, 0);
    assert_refused(bytes_in(&m), "do not end with their point");
  }
}

static void refuses_points_of_the_wrong_length(void **state) {
  static struct message m;
  (void)state;
  for (size_t i = 0; i < NUM_CURVES; i++) {
    for (size_t j = 0; j < NUM_CURVES; j++) {
      // The point of another curve, and each length around the right one.
      m.len = 0;
      put_run(&m, 0x11, 64);
      put_params(&m, 3, curves[i].group, curves[j].point_len);
      put_point(&m, &curves[j], POINT_CONVERSION_UNCOMPRESSED);
      if (i != j) {
        assert_refused(bytes_in(&m), "not as long as its curve wants");
      }
    }
    for (size_t len = 0; len < 256; len++) {
      m.len = 0;
      put_run(&m, 0x11, 64);
      put_params(&m, 3, curves[i].group, len);
      put_run(&m, 4, len);
      if (curves[i].nid == NID_undef && len == 32) {
        assert_purpose(bytes_in(&m), PURPOSE_TLS12);
      } else {
        assert_refused(bytes_in(&m), NULL);
      }
    }
  }
}

static void refuses_points_off_the_curve_or_in_another_form(void **state) {
  static struct message m;
  (void)state;
  for (size_t i = 1; i < NUM_CURVES; i++) {
    build_tls12(&m, &curves[i], 0x11);
    m.data[m.len - 1] ^= 1;
    assert_refused(bytes_in(&m), "not on its curve");
    m.data[m.len - 1] ^= 1;
    for (unsigned form = 0; form <= UINT8_MAX; form++) {  // hybrid is 6 and 7
      m.data[68] = (uint8_t)form;
      assert_none_or(bytes_in(&m), form == 4 ? PURPOSE_TLS12 : PURPOSE_NONE);
    }
    // Compressed, with its own length and padded to the usual one.
    m.len = 0;
    put_run(&m, 0x11, 64);
    put_params(&m, 3, curves[i].group, (curves[i].point_len + 1) / 2);
    put_point(&m, &curves[i], POINT_CONVERSION_COMPRESSED);
    assert_refused(bytes_in(&m), "not as long as its curve wants");
    put_run(&m, 0, curves[i].message_len - m.len);
    m.data[67] = (uint8_t)curves[i].point_len;
    assert_refused(bytes_in(&m), "compressed");
    // Infinity, and nothing.
    m.len = 0;
    put_run(&m, 0x11, 64);
    put_params(&m, 3, curves[i].group, 1);
    put_byte(&m, 0);
    assert_refused(bytes_in(&m), "not as long as its curve wants");
  }
}

static void refuses_other_curves_and_explicit_ones(void **state) {
  static struct message m;
  (void)state;
  for (unsigned group = 0; group <= UINT16_MAX; group++) {
    if (group >= 23 && group <= 25) {
      continue;  // need a point on the curve; tested above
    }
    m.len = 0;
    put_run(&m, 0x11, 64);
    put_params(&m, 3, group, 32);
    put_run(&m, 9, 32);
    assert_none_or(bytes_in(&m), group == 29 ? PURPOSE_TLS12 : PURPOSE_NONE);
  }
  for (unsigned curve_type = 0; curve_type <= UINT8_MAX; curve_type++) {
    build_tls12(&m, &curves[0], 0x11);
    m.data[64] = (uint8_t)curve_type;
    assert_none_or(bytes_in(&m), curve_type == 3 ? PURPOSE_TLS12 : PURPOSE_NONE);
  }
}

static void refuses_finite_field_parameters(void **state) {
  static struct message m;
  (void)state;
  m.len = 0;
  put_run(&m, 0x11, 64);
  for (size_t i = 0; i < 3; i++) {  // p, g, Ys of TLS 1.2 DHE
    put(&m, "\x01\x00", 2);
    put_run(&m, 0xcc, 256);
  }
  assert_refused(bytes_in(&m), NULL);
}

static void damaged_tls12_is_nothing_else(void **state) {
  static struct message m;
  (void)state;
  for (size_t i = 0; i < NUM_CURVES; i++) {
    build_tls12(&m, &curves[i], 0x20);
    flip_each_bit(&m, PURPOSE_TLS12);
  }
}

// Certification requests.

// build_csr makes a real one, as certmanager would: subject, SAN, key.
static void build_csr(struct message *m, const char *name) {
  X509_REQ *req = X509_REQ_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  EVP_PKEY *key = EVP_PKEY_new();
  STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
  uint8_t *der = NULL;
  CBS cbs;
  CBS outer;
  CBS info;
  int der_len;
  assert_true(EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
  assert_true(X509_REQ_set_version(req, 0) && X509_REQ_set_pubkey(req, key));
  if (name != NULL) {
    X509_EXTENSION *san =
        X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name, "DNS:a.test,DNS:*.b.test");
    assert_non_null(san);
    assert_true(X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(req), NID_commonName,
                                           MBSTRING_UTF8, (const uint8_t *)name, -1, -1, 0));
    assert_true(sk_X509_EXTENSION_push(extensions, san) > 0);
    assert_true(X509_REQ_add_extensions(req, extensions));
  }
  assert_true(X509_REQ_sign(req, key, EVP_sha256()) > 0);
  der_len = i2d_X509_REQ(req, &der);
  assert_true(der_len > 0);
  CBS_init(&cbs, der, (size_t)der_len);
  assert_true(CBS_get_asn1(&cbs, &outer, CBS_ASN1_SEQUENCE) &&
              CBS_get_asn1_element(&outer, &info, CBS_ASN1_SEQUENCE));
  m->len = 0;
  put(m, CBS_data(&info), CBS_len(&info));
  OPENSSL_free(der);
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  EVP_PKEY_free(key);
  X509_REQ_free(req);
}

static void recognises_certification_requests(void **state) {
  static struct message m;
  struct signing_input input;
  CBS spki;
  EVP_PKEY *key;
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    build_csr(&m, i == 0 ? NULL : "a.test");
    assert_int_equal(signing_input_parse(&input, bytes_in(&m)), STATUS_OK);
    assert_int_equal(input.purpose, PURPOSE_CSR);
    CBS_init(&spki, input.csr_spki.data, input.csr_spki.len);
    key = EVP_parse_public_key(&spki);
    assert_non_null(key);
    assert_int_equal(CBS_len(&spki), 0);
    EVP_PKEY_free(key);
    for (size_t cut = 0; cut < m.len; cut++) {
      assert_refused(bytes_of(m.data, cut), NULL);
    }
    put_byte(&m, 0);
    assert_refused(bytes_in(&m), NULL);
  }
}

static void damaged_request_is_nothing_else(void **state) {
  static struct message m;
  (void)state;
  build_csr(&m, "a.test");
  flip_each_bit(&m, PURPOSE_CSR);
}

// A request by hand: SEQUENCE { version, name, SPKI, attributes }, each given
// as hex.
static void build_request(struct message *m, const char *version, const char *name,
                          const char *spki, const char *attributes) {
  static struct message content;
  content.len = 0;
  put_hex(&content, version);
  put_hex(&content, name);
  put_hex(&content, spki);
  put_hex(&content, attributes);
  m->len = 0;
  put_byte(m, 0x30);
  if (content.len >= 256) {
    put_byte(m, 0x82);
    put_byte(m, (unsigned)(content.len >> 8));
  } else if (content.len >= 128) {
    put_byte(m, 0x81);
  }
  put_byte(m, (unsigned)(content.len & 0xff));
  put(m, content.data, content.len);
}

#define V0 "020100"
#define CN_A "300c310a300806035504030c0161"
#define ATTR "a00c300a06032a0304310304010a"

static void walks_a_request_to_its_last_byte(void **state) {
  static const struct {
    const char *version, *name, *spki, *attributes, *why;
  } cases[] = {
      {V0, "3000", VECTOR_ED25519_SPKI, "a000", NULL},
      {V0, CN_A, VECTOR_P256_SPKI, "a000", NULL},
      {V0, CN_A, VECTOR_RSA_SPKI, ATTR, NULL},
      {"020101", CN_A, VECTOR_P256_SPKI, "a000", "of version 0"},
      {"02020000", CN_A, VECTOR_P256_SPKI, "a000", "of version 0"},
      {"0200", CN_A, VECTOR_P256_SPKI, "a000", "of version 0"},
      {"", CN_A, VECTOR_P256_SPKI, "a000", "of version 0"},
      {"a003020102", CN_A, VECTOR_P256_SPKI, "a000", "of version 0"},  // a certificate's start
      {V0, "3100", VECTOR_P256_SPKI, "a000", "subject is malformed"},
      {V0, "30023100", VECTOR_P256_SPKI, "a000", "subject is malformed"},  // empty SET
      {V0,
       "30043002"
       "0500",
       VECTOR_P256_SPKI, "a000", "subject is malformed"},  // SEQ for SET
      {V0, "300d310b300906035504030c016100", VECTOR_P256_SPKI, "a000", "subject is malformed"},
      {V0,
       "300b3109300706020c0160"
       "0500",
       VECTOR_P256_SPKI, "a000", "subject is malformed"},
      {V0, "30093107300506000c0161", VECTOR_P256_SPKI, "a000", "subject is malformed"},
      {V0, CN_A, "", "a000", "without a public key"},
      {V0, CN_A, "3000", "a000", "public key is of no kind"},
      {V0, CN_A, VECTOR_P256_SPKI, "", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "3000", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "8000", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a100", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a0000500", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a0020500", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a0023000", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a009300706032a03043100", "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI,
       "a00d300b06032a030431030401"
       "0a00",
       "attributes are malformed"},
      {V0, CN_A, VECTOR_P256_SPKI, "a00c300a06032a0304310304020a", "attributes are malformed"},
  };
  static struct message m;
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    build_request(&m, cases[i].version, cases[i].name, cases[i].spki, cases[i].attributes);
    if (cases[i].why == NULL) {
      assert_purpose(bytes_in(&m), PURPOSE_CSR);
    } else {
      assert_refused(bytes_in(&m), cases[i].why);
    }
  }
}

static void refuses_other_der_that_keys_sign(void **state) {
  static struct message m;
  CBS cbs;
  CBS outer;
  CBS tbs;
  uint8_t certificate[VECTOR_CERT_MAX_LEN];
  (void)state;
  // A whole certificate, and the part of it that a CA signs.
  const size_t len = vector_certificate(certificate, &vector_dcs[VECTOR_DC_P256]);
  assert_refused(bytes_of(certificate, len), "not a certification request");
  CBS_init(&cbs, certificate, len);
  assert_true(CBS_get_asn1(&cbs, &outer, CBS_ASN1_SEQUENCE) &&
              CBS_get_asn1_element(&outer, &tbs, CBS_ASN1_SEQUENCE));
  assert_refused(bytes_of(CBS_data(&tbs), CBS_len(&tbs)), "not a certification request");

  // A version 1 certificate's: its serial number 0 stands where the version of
  // a request does, its algorithm where the subject does.
  build_request(&m, V0, "300a06082a8648ce3d040302", CN_A, VECTOR_P256_SPKI);
  assert_refused(bytes_in(&m), "subject is malformed");

  // A PKCS#8 key.
  build_request(&m, V0, "301306072a8648ce3d020106082a8648ce3d030107", "04020500", "");
  assert_refused(bytes_in(&m), "subject is malformed");
}

static void request_is_der_and_not_too_long(void **state) {
  static const struct {
    uint8_t tag;
    const char *oid;
  } levels[] = {{0xa0, ""}, {0x30, ""}, {0x31, "06012a"}, {0x04, ""}};
  static struct message m;
  (void)state;
  build_request(&m, V0, "3000", VECTOR_ED25519_SPKI, "a000");
  assert_purpose(bytes_in(&m), PURPOSE_CSR);
  // The same with its length in one more byte: BER, not DER.
  memmove(m.data + 3, m.data + 2, m.len - 2);
  m.data[2] = m.data[1];
  m.data[1] = 0x81;
  m.len++;
  assert_refused(bytes_in(&m), NULL);

  for (size_t over = 0; over < 2; over++) {
    // One attribute of one OCTET STRING fills it up.
    const size_t len = SIGNING_INPUT_MAX_CSR_LEN + over;
    size_t left = len - 4 - 3 - 2 - 44;  // head, version, name, SPKI
    m.len = 0;
    put(&m, "\x30\x82", 2);
    put_byte(&m, (unsigned)((len - 4) >> 8));
    put_byte(&m, (unsigned)((len - 4) & 0xff));
    put_hex(&m, V0 "3000");
    put_hex(&m, VECTOR_ED25519_SPKI);
    for (size_t i = 0; i < 4; i++) {
      put_hex(&m, levels[i].oid);
      left -= strlen(levels[i].oid) / 2 + 4;
      put_byte(&m, levels[i].tag);
      put_byte(&m, 0x82);
      put_byte(&m, (unsigned)(left >> 8));
      put_byte(&m, (unsigned)(left & 0xff));
    }
    put_run(&m, 0, left);
    assert_int_equal(m.len, len);
    if (over == 0) {
      assert_purpose(bytes_in(&m), PURPOSE_CSR);
    } else {
      assert_refused(bytes_in(&m), "longer than a certification request may be");
    }
  }
}

// Messages made to fit two purposes: certification requests of exactly the
// length of a TLS 1.2 input, with the ECDHE parameters in their free bytes.

// put_two_purposes hides parameters in an attribute's value.
static void put_two_purposes(struct message *m, const struct curve *curve) {
  const size_t len = curve->message_len;
  m->len = 0;
  put_byte(m, 0x30);
  if (len - 2 >= 128) {
    put_byte(m, 0x81);
  }
  put_byte(m, (unsigned)(len - m->len - 1));
  put_hex(m, V0 "3000");
  put_hex(m, VECTOR_ED25519_SPKI);
  put_byte(m, 0xa0);
  put_byte(m, (unsigned)(len - m->len - 1));
  put_byte(m, 0x30);
  put_byte(m, (unsigned)(len - m->len - 1));
  put_hex(m, "06012a");
  put_byte(m, 0x31);
  put_byte(m, (unsigned)(len - m->len - 1));
  put_byte(m, 0x04);
  put_byte(m, (unsigned)(len - m->len - 1));
  put_run(m, 0, 64 - m->len);
  put_params(m, 3, curve->group, curve->point_len);
  put_point(m, curve, POINT_CONVERSION_UNCOMPRESSED);
  assert_int_equal(m->len, len);
}

// For P-521 there is no room for that. Here the parameters begin in the subject
// and end with the request: the point's Y is the rest of the subject, the
// whole SPKI and the empty attributes, and X was computed to go with it.
static const char two_purposes_p521[] =
    "3081c602010030819231818f30818c06035504030c8184616161616161616161616161616161616161616161"
    "61616161616161616161616161616161616161610300198504012fef7b6fa0945d3dad54102e5a69f587e43f"
    "2d10f4b843654e53deeb75c0013ce628f1df0611daa4245059135a46ae65f0aa048eef4aab3b9fc25d2b749c"
    "971caf0000000000000000000000000000000000000000302a300506032b657003210074d0d220f9d2a0ffe7"
    "91d26dbf07fbea3e364c30a73e738f62ec142533aae5d2a000";

static void refuses_what_fits_two_purposes(void **state) {
  static struct message m;
  (void)state;
  for (size_t i = 0; i < NUM_CURVES; i++) {
    if (curves[i].group == 25) {
      m.len = 0;
      put_hex(&m, two_purposes_p521);
      assert_int_equal(m.len, curves[i].message_len);
    } else {
      put_two_purposes(&m, &curves[i]);
    }
    assert_refused(bytes_in(&m), "two purposes");

    // It truly fits each: with the other form broken, it is the one.
    const size_t version_at = m.data[1] == 0x81 ? 5 : 4;
    m.data[version_at] = 1;
    assert_purpose(bytes_in(&m), PURPOSE_TLS12);
    m.data[version_at] = 0;
    m.data[64] = 2;
    assert_purpose(bytes_in(&m), PURPOSE_CSR);
    m.data[64] = 3;
    assert_refused(bytes_in(&m), "two purposes");
  }
}

static void refuses_what_is_nothing(void **state) {
  static struct message m;
  (void)state;
  assert_refused(bytes_of(NULL, 0), "empty");
  for (size_t len = 1; len < 300; len++) {  // digests are among them
    for (unsigned byte = 0; byte <= UINT8_MAX; byte += 0x10) {
      m.len = 0;
      put_run(&m, (uint8_t)byte, len);
      assert_refused(bytes_in(&m), NULL);
    }
  }
  m.len = 0;
  put_run(&m, 0, SIGNING_INPUT_MAX_LEN + 1);
  assert_refused(bytes_in(&m), "longer than any message");
}

static void names_purposes(void **state) {
  enum purpose purpose;
  (void)state;
  for (int i = PURPOSE_TLS13; i < PURPOSE_NUM; i++) {
    assert_int_equal(purpose_from_name(&purpose, purpose_name((enum purpose)i)), STATUS_OK);
    assert_int_equal(purpose, i);
  }
  assert_string_equal(purpose_name(PURPOSE_TLS13), "tls13");
  assert_string_equal(purpose_name(PURPOSE_DC), "dc");
  assert_string_equal(purpose_name(PURPOSE_NUM), "unknown");
  assert_int_equal(purpose_from_name(&purpose, "none"), STATUS_NOT_FOUND);
  assert_int_equal(purpose_from_name(&purpose, "TLS13"), STATUS_NOT_FOUND);
  assert_int_equal(purpose_from_name(&purpose, ""), STATUS_NOT_FOUND);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(recognises_tls13),
      cmocka_unit_test(refuses_what_is_almost_tls13),
      cmocka_unit_test(refuses_a_client_of_tls13_by_name),
      cmocka_unit_test(damaged_tls13_is_nothing_else),
      cmocka_unit_test(recognises_the_inputs_of_credentials),
      cmocka_unit_test(refuses_credentials_by_name),
      cmocka_unit_test(refuses_what_is_not_one_der_certificate),
      cmocka_unit_test(damaged_credential_input_is_nothing_else),
      cmocka_unit_test(recognises_tls12_of_each_curve_whatever_the_randoms),
      cmocka_unit_test(refuses_tls12_that_is_cut_or_longer),
      cmocka_unit_test(refuses_points_of_the_wrong_length),
      cmocka_unit_test(refuses_points_off_the_curve_or_in_another_form),
      cmocka_unit_test(refuses_other_curves_and_explicit_ones),
      cmocka_unit_test(refuses_finite_field_parameters),
      cmocka_unit_test(damaged_tls12_is_nothing_else),
      cmocka_unit_test(recognises_certification_requests),
      cmocka_unit_test(damaged_request_is_nothing_else),
      cmocka_unit_test(walks_a_request_to_its_last_byte),
      cmocka_unit_test(refuses_other_der_that_keys_sign),
      cmocka_unit_test(request_is_der_and_not_too_long),
      cmocka_unit_test(refuses_what_fits_two_purposes),
      cmocka_unit_test(refuses_what_is_nothing),
      cmocka_unit_test(names_purposes),
  };
  return cmocka_run_group_tests_name("signing_input", tests, NULL, NULL);
}
