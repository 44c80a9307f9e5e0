// SPDX-License-Identifier: Apache-2.0
// Every row of the purpose table, every refusal, and that what is allowed is
// allowed.
#include "keyserver/request.h"

#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "common/wire/dc.h"
#include "tests/support/certs.h"
#include "tests/unit/keyserver/fixture.h"

#define DAY (24 * 3600)
#define MESSAGE_MAX_LEN 4096u

static struct fixture fix;

static int setup(void **state) {
  (void)state;
  fixture_load(&fix, NULL);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fixture_cleanup(&fix);
  return 0;
}

// --- messages -----------------------------------------------------------------------

struct message {
  uint8_t data[MESSAGE_MAX_LEN];
  size_t len;
};

static void append(struct message *m, const void *data, size_t len) {
  assert_in_range(m->len + len, 0, sizeof m->data);
  memcpy(m->data + m->len, data, len);
  m->len += len;
}

static struct message tls13(size_t hash_len) {
  static const char context[] = "TLS 1.3, server CertificateVerify";
  struct message m = {0};
  uint8_t hash[64] = {7};

  memset(m.data, ' ', 64);
  m.len = 64;
  append(&m, context, sizeof context);
  append(&m, hash, hash_len);
  return m;
}

static struct message tls12(void) {
  static const uint8_t params[] = {3, 0, 29, 32};
  struct message m = {0};
  uint8_t zeros[64] = {0};

  append(&m, zeros, 64);
  append(&m, params, sizeof params);
  append(&m, zeros, 32);
  return m;
}

static struct message csr_of(EVP_PKEY *key) {
  X509_REQ *req = X509_REQ_new();
  uint8_t *der = NULL;
  int len = 0;
  struct message m = {0};
  CBS cbs;
  CBS whole;
  CBS info;

  assert_true(X509_REQ_set_pubkey(req, key));
  assert_true(X509_REQ_sign(req, key, EVP_sha256()));
  len = i2d_X509_REQ(req, &der);
  CBS_init(&cbs, der, (size_t)len);
  assert_true(CBS_get_asn1(&cbs, &whole, CBS_ASN1_SEQUENCE));
  assert_true(CBS_get_asn1_element(&whole, &info, CBS_ASN1_SEQUENCE));
  append(&m, CBS_data(&info), CBS_len(&info));
  OPENSSL_free(der);
  X509_REQ_free(req);
  return m;
}

struct dc_spec {
  enum fixture_key signer;
  X509 *leaf;          // NULL: the signer's own
  EVP_PKEY *key;       // NULL: fix.dc_key
  int64_t lifetime_s;  // 0: two days
  uint16_t scheme;     // 0: 0x0403
  uint16_t algorithm;  // 0: 0x0403
  bool is_client;      // the client's context
};

static struct message dc_of(const struct dc_spec *spec) {
  X509 *leaf = spec->leaf != NULL ? spec->leaf : fix.certs[spec->signer];
  struct bytes der = test_cert_der(leaf);
  struct cert_info info = {0};
  struct dc dc = {.verify_scheme = spec->scheme != 0 ? spec->scheme : 0x0403,
                  .algorithm = spec->algorithm != 0 ? spec->algorithm : 0x0403};
  uint8_t *spki = NULL;
  uint8_t *input = NULL;
  size_t len = 0;
  struct message m = {0};
  uint8_t *context = NULL;

  assert_int_equal(cert_info_read(&info, der, NULL), STATUS_OK);
  assert_int_equal(dc_valid_time(&dc.valid_time_s, info.not_before_s, clock_wall_s(),
                                 spec->lifetime_s != 0 ? spec->lifetime_s : 2 * DAY),
                   STATUS_OK);
  assert_int_equal(key_spki(&spki, &len, spec->key != NULL ? spec->key : fix.dc_key), STATUS_OK);
  dc.spki = bytes_of(spki, len);
  assert_int_equal(dc_signing_input(&input, &len, der, &dc), STATUS_OK);
  append(&m, input, len);
  if (spec->is_client) {
    context = memmem(m.data, m.len, "TLS, server", 11);
    for (int i = 0; i < 6; i++) {
      context[5 + i] = (uint8_t) "client"[i];  // in the place of "server"
    }
  }
  free(input);
  OPENSSL_free(spki);
  OPENSSL_free((void *)(uintptr_t)der.data);
  cert_info_cleanup(&info);
  return m;
}

// --- asking -------------------------------------------------------------------------

static uint8_t payload[MESSAGE_MAX_LEN];

static const struct key *key_of(enum fixture_key which) {
  uint8_t id[32];
  uint8_t ski[20];
  assert_int_equal(key_identify(id, ski, fix.pkeys[which]), STATUS_OK);
  return keystore_find(fix.keys, ski);
}

// prepare fills in the frame as an honest client would.
static void prepare(struct request *req, enum fixture_key which, uint8_t opcode,
                    const struct message *m) {
  const struct key *key = key_of(which);
  const struct scheme *scheme = scheme_by_opcode(opcode, key->kind);
  size_t len = 32;

  *req = (struct request){.frame = {.id = 1, .has_opcode = true, .opcode = opcode}};
  req->frame.ski = bytes_of(key->ski, sizeof key->ski);
  if (m == NULL) {
    req->frame.payload = bytes_of(payload, len);
    return;
  }
  req->frame.extra = bytes_of(m->data, m->len);
  if (opcode == FRAME_OP_ED25519) {
    req->frame.payload = req->frame.extra;
    req->frame.extra = bytes_of(NULL, 0);
    return;
  }
  if (scheme != NULL) {
    assert_int_equal(scheme_digest(scheme, payload, &len, req->frame.extra), STATUS_OK);
  }
  req->frame.payload = bytes_of(payload, len);
}

static enum refusal judge(struct request *req, const char *who) {
  struct asker asker;
  fixture_asker(&asker, &fix, who);
  return request_judge(req, &asker, clock_wall_s(), 1000000000);
}

static enum refusal ask(const char *who, enum fixture_key which, uint8_t opcode,
                        const struct message *m) {
  struct request req;
  enum refusal refusal = REFUSAL_NONE;

  prepare(&req, which, opcode, m);
  refusal = judge(&req, who);
  if (refusal == REFUSAL_NONE) {  // what may be signed can be, and verifies
    uint8_t signature[SIGN_MAX_LEN];
    size_t len = 0;
    assert_int_equal(sign_run(&req.job, signature, &len), STATUS_OK);
    if (m != NULL) {
      assert_int_equal(scheme_verify(req.job.scheme, fix.pkeys[which], bytes_of(m->data, m->len),
                                     bytes_of(signature, len)),
                       STATUS_OK);
    }
  }
  return refusal;
}

// --- what is allowed ------------------------------------------------------------------

static void signs_tls13_for_a_proxy(void **state) {
  struct message short_hash = tls13(32);
  struct message long_hash = tls13(48);
  (void)state;
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &short_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &long_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_P384, FRAME_OP_ECDSA_SHA384, &long_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_PSS_SHA256, &short_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_PSS_SHA384, &short_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_PSS_SHA512, &short_hash), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_ED25519, FRAME_OP_ED25519, &short_hash), REFUSAL_NONE);
}

static void signs_tls12_for_a_proxy(void **state) {
  struct message m = tls12();
  (void)state;
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &m), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA512, &m), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_RSA_SHA256, &m), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_PSS_SHA256, &m), REFUSAL_NONE);
  assert_int_equal(ask("proxy.test", FIX_ED25519, FRAME_OP_ED25519, &m), REFUSAL_NONE);
}

static void signs_credentials_for_an_issuer(void **state) {
  struct message p256 = dc_of(&(struct dc_spec){.signer = FIX_P256});
  struct message p384 = dc_of(&(struct dc_spec){.signer = FIX_P384, .algorithm = 0x0503});
  struct request req;
  (void)state;
  assert_int_equal(ask("issuer.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &p256), REFUSAL_NONE);
  assert_int_equal(ask("issuer.test", FIX_P384, FRAME_OP_ECDSA_SHA384, &p384), REFUSAL_NONE);
  prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &p256);
  assert_int_equal(judge(&req, "issuer.test"), REFUSAL_NONE);
  assert_in_range(req.dc_expiry_s, clock_wall_s() + 2 * DAY - 60, clock_wall_s() + 2 * DAY);
}

static void signs_requests_for_a_certmanager(void **state) {
  struct message p256 = csr_of(fix.pkeys[FIX_P256]);
  struct message rsa = csr_of(fix.pkeys[FIX_RSA]);
  (void)state;
  assert_int_equal(ask("certmanager.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &p256), REFUSAL_NONE);
  assert_int_equal(ask("certmanager.test", FIX_RSA, FRAME_OP_RSA_SHA256, &rsa), REFUSAL_NONE);
}

static void signs_a_bare_digest_only_where_it_is_written_down(void **state) {
  (void)state;
  assert_int_equal(ask("foreign.test", FIX_P256, FRAME_OP_ECDSA_SHA256, NULL), REFUSAL_NONE);
  assert_int_equal(ask("foreign.test", FIX_SHORT, FRAME_OP_ECDSA_SHA256, NULL),
                   REFUSAL_NOT_GRANTED);
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, NULL), REFUSAL_NOT_GRANTED);
  assert_int_equal(ask("issuer.test", FIX_P256, FRAME_OP_ECDSA_SHA256, NULL), REFUSAL_NOT_GRANTED);
}

static void remembers_rights_by_key(void **state) {
  struct asker asker;
  struct request req;
  (void)state;

  // As if every place in the memory were taken by the one key that it may use.
  fixture_asker(&asker, &fix, "foreign.test");
  for (size_t i = 0; i < ASKER_MEMORY_LEN; i++) {
    asker.memory[i].key = key_of(FIX_P256);
    rights_of_key(&asker.memory[i].rights, &asker.rights, key_of(FIX_P256));
  }
  for (int round = 0; round < 3; round++) {
    prepare(&req, FIX_SHORT, FRAME_OP_ECDSA_SHA256, NULL);
    assert_int_equal(request_judge(&req, &asker, clock_wall_s(), 0), REFUSAL_NOT_GRANTED);
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, NULL);
    assert_int_equal(request_judge(&req, &asker, clock_wall_s(), 0), REFUSAL_NONE);
  }
}

// --- the table of purposes ----------------------------------------------------------------

static void refuses_purposes_that_are_not_granted(void **state) {
  static const char *const who[] = {"proxy.test", "issuer.test", "certmanager.test", "foreign.test",
                                    "slow.test"};
  static const unsigned may[] = {1 << PURPOSE_TLS13 | 1 << PURPOSE_TLS12, 1 << PURPOSE_DC,
                                 1 << PURPOSE_CSR, 1 << PURPOSE_BLIND, 1 << PURPOSE_TLS13};
  const struct message messages[] = {
      [PURPOSE_TLS13] = tls13(32),
      [PURPOSE_TLS12] = tls12(),
      [PURPOSE_DC] = dc_of(&(struct dc_spec){.signer = FIX_P256}),
      [PURPOSE_CSR] = csr_of(fix.pkeys[FIX_P256]),
  };
  (void)state;

  for (size_t w = 0; w < sizeof who / sizeof who[0]; w++) {
    for (unsigned p = PURPOSE_TLS13; p <= PURPOSE_CSR; p++) {
      assert_int_equal(ask(who[w], FIX_P256, FRAME_OP_ECDSA_SHA256, &messages[p]),
                       (may[w] & (1u << p)) != 0 ? REFUSAL_NONE : REFUSAL_NOT_GRANTED);
    }
  }
}

static void refuses_a_client_without_grants_whatever_it_asks(void **state) {
  struct message m = tls13(32);
  struct request req;
  (void)state;

  assert_int_equal(ask("stranger.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &m),
                   REFUSAL_UNKNOWN_CLIENT);
  prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
  req.frame.ski = bytes_text("01234567890123456789");
  assert_int_equal(judge(&req, "stranger.test"), REFUSAL_UNKNOWN_CLIENT);
  assert_null(req.key);
}

// --- the packet -----------------------------------------------------------------------------

static void refuses_opcodes_it_does_not_serve(void **state) {
  struct message m = tls13(32);
  struct request req;
  (void)state;

  for (unsigned opcode = 0; opcode < 256; opcode++) {
    enum refusal want = REFUSAL_OPCODE;
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
    req.frame.opcode = (uint8_t)opcode;
    switch (opcode) {
      case FRAME_OP_SUCCESS:
      case FRAME_OP_PONG:
      case FRAME_OP_ERROR:
        want = REFUSAL_RESPONSE_OPCODE;
        break;
      case FRAME_OP_ECDSA_SHA256:
        want = REFUSAL_NONE;
        break;
      case FRAME_OP_ECDSA_SHA384:
      case FRAME_OP_ECDSA_SHA512:
        want = REFUSAL_DIGEST_LENGTH;
        break;
      case FRAME_OP_RSA_SHA256:
      case FRAME_OP_RSA_SHA384:
      case FRAME_OP_RSA_SHA512:
      case FRAME_OP_PSS_SHA256:
      case FRAME_OP_PSS_SHA384:
      case FRAME_OP_PSS_SHA512:
      case FRAME_OP_ED25519:
        want = REFUSAL_KEY_KIND;
        break;
      default:
        break;
    }
    assert_int_equal(judge(&req, "proxy.test"), want);
  }
  req.frame.has_opcode = false;
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_NO_OPCODE);
}

static void refuses_requests_without_a_key(void **state) {
  static const uint8_t zeros[FRAME_SKI_LEN];
  struct message m = tls13(32);
  struct request req;
  (void)state;

  prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
  req.frame.ski = bytes_of(NULL, 0);
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_NO_SKI);
  req.frame.ski = bytes_of(zeros, sizeof zeros);
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_NO_SKI);
  req.frame.ski = bytes_text("01234567890123456789");
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_NO_SUCH_KEY);
}

static void refuses_digests_of_wrong_length(void **state) {
  struct message m = tls13(32);
  struct request req;
  (void)state;

  for (size_t len = 0; len <= 64; len++) {
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
    req.frame.payload.len = len;
    assert_int_equal(judge(&req, "proxy.test"), len == 32 ? REFUSAL_NONE : REFUSAL_DIGEST_LENGTH);
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, NULL);  // blind: all the more
    req.frame.payload.len = len;
    assert_int_equal(judge(&req, "foreign.test"), len == 32 ? REFUSAL_NONE : REFUSAL_DIGEST_LENGTH);
  }
}

// --- message and digest -----------------------------------------------------------------------

static void refuses_a_digest_that_is_not_the_messages(void **state) {
  struct message m = tls13(32);
  struct message other = tls12();
  struct request req;
  (void)state;

  for (size_t i = 0; i < 32; i++) {
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
    payload[i] ^= 1;
    assert_int_equal(judge(&req, "proxy.test"), REFUSAL_DIGEST_DIFFERS);
  }
  // Ed25519: the payload is what is signed, so another message beside it is a lie.
  prepare(&req, FIX_ED25519, FRAME_OP_ED25519, &m);
  req.frame.extra = bytes_of(other.data, other.len);
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_DIGEST_DIFFERS);
  req.frame.extra = bytes_of(m.data, m.len);
  assert_int_equal(judge(&req, "proxy.test"), REFUSAL_NONE);
}

static void refuses_messages_without_a_purpose(void **state) {
  struct message m = tls13(32);
  struct message empty = {0};
  (void)state;

  for (size_t len = 33; len < 48; len++) {
    struct message odd = tls13(len);
    assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &odd), REFUSAL_NO_PURPOSE);
  }
  m.data[70] ^= 1;
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &m), REFUSAL_NO_PURPOSE);
  assert_int_equal(ask("foreign.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &m), REFUSAL_NO_PURPOSE);
  assert_int_equal(ask("foreign.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &empty),
                   REFUSAL_NO_PURPOSE);
  assert_int_equal(ask("proxy.test", FIX_ED25519, FRAME_OP_ED25519, &empty), REFUSAL_NO_PURPOSE);
}

static void refuses_schemes_that_tls13_does_not_have(void **state) {
  struct message m = tls13(32);
  (void)state;
  assert_int_equal(ask("proxy.test", FIX_RSA, FRAME_OP_RSA_SHA256, &m), REFUSAL_TLS13_SCHEME);
  assert_int_equal(ask("proxy.test", FIX_P256, FRAME_OP_ECDSA_SHA384, &m), REFUSAL_TLS13_SCHEME);
  assert_int_equal(ask("proxy.test", FIX_P384, FRAME_OP_ECDSA_SHA256, &m), REFUSAL_TLS13_SCHEME);
}

// --- credentials --------------------------------------------------------------------------------

static enum refusal ask_dc(const struct dc_spec *spec, uint8_t opcode) {
  struct message m = dc_of(spec);
  return ask("issuer.test", spec->signer, opcode, &m);
}

#define ASK_DC(...) ask_dc(&(struct dc_spec){__VA_ARGS__}, FRAME_OP_ECDSA_SHA256)

static void refuses_a_credential_of_another_key(void **state) {
  (void)state;
  assert_int_equal(ASK_DC(.signer = FIX_P256, .leaf = fix.certs[FIX_SHORT]), REFUSAL_DC_OTHER_KEY);
}

static void refuses_a_credential_that_the_certificate_does_not_allow(void **state) {
  const struct test_cert specs[] = {
      {.cn = "no delegation usage"},
      {.cn = "no key usage", .has_delegation_usage = true, .key_usage = ""},
      {.cn = "not to sign", .has_delegation_usage = true, .key_usage = "keyAgreement"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
    X509 *leaf = test_cert_new(&specs[i], fix.pkeys[FIX_P256], NULL, NULL);
    assert_int_equal(ASK_DC(.signer = FIX_P256, .leaf = leaf), REFUSAL_DC_USAGE);
    X509_free(leaf);
  }
}

static void refuses_a_credential_of_an_rsa_certificate(void **state) {
  const struct dc_spec spec = {.signer = FIX_RSA, .algorithm = 0x0804};
  (void)state;
  assert_int_equal(ask_dc(&spec, FRAME_OP_PSS_SHA256), REFUSAL_DC_USAGE);
}

static void refuses_an_algorithm_that_is_not_what_signs(void **state) {
  const struct dc_spec other = {.signer = FIX_P256, .algorithm = 0x0503};
  (void)state;
  assert_int_equal(ask_dc(&other, FRAME_OP_ECDSA_SHA256), REFUSAL_DC_ALGORITHM);
  assert_int_equal(ask_dc(&other, FRAME_OP_ECDSA_SHA384), REFUSAL_DC_ALGORITHM);
  assert_int_equal(ASK_DC(.signer = FIX_P384), REFUSAL_DC_ALGORITHM);
}

static void refuses_the_certificates_own_key(void **state) {
  (void)state;
  assert_int_equal(ASK_DC(.signer = FIX_P256, .key = fix.pkeys[FIX_P256]), REFUSAL_DC_OWN_KEY);
}

static void refuses_the_clients_context(void **state) {
  (void)state;
  assert_int_equal(ASK_DC(.signer = FIX_P256, .is_client = true), REFUSAL_NO_PURPOSE);
}

static void refuses_a_scheme_that_does_not_fit_the_credentials_key(void **state) {
  (void)state;
  assert_int_equal(ASK_DC(.signer = FIX_P256, .scheme = 0x0503), REFUSAL_NO_PURPOSE);
  assert_int_equal(ASK_DC(.signer = FIX_P256, .scheme = 0x0804), REFUSAL_NO_PURPOSE);
}

static void holds_lifetimes_to_every_policy(void **state) {
  const int64_t slack = REQUEST_CLOCK_SLACK_S;
  (void)state;
  // The issuer's grant says five days, with some slack for two clocks.
  assert_int_equal(ASK_DC(.signer = FIX_P256, .lifetime_s = 5 * DAY + slack - 5), REFUSAL_NONE);
  assert_int_equal(ASK_DC(.signer = FIX_P256, .lifetime_s = 5 * DAY + slack + 60),
                   REFUSAL_DC_LIFETIME);
  // The key's policy says one.
  assert_int_equal(ASK_DC(.signer = FIX_SHORT, .lifetime_s = DAY), REFUSAL_NONE);
  assert_int_equal(ASK_DC(.signer = FIX_SHORT, .lifetime_s = DAY + slack + 60),
                   REFUSAL_DC_LIFETIME);
  assert_int_equal(ASK_DC(.signer = FIX_P256, .lifetime_s = -60), REFUSAL_DC_ENDED);
}

static void never_goes_past_the_seven_days_of_the_rfc(void **state) {
  struct asker asker;
  struct request req;
  struct message m;
  (void)state;

  fixture_asker(&asker, &fix, "issuer.test");
  asker.rights.grants[0]->dc_max_lifetime_s = DC_MAX_LIFETIME_S;
  for (int over = -60; over <= 60; over += 120) {
    m = dc_of(&(struct dc_spec){.signer = FIX_P256, .lifetime_s = DC_MAX_LIFETIME_S + over});
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &m);
    assert_int_equal(request_judge(&req, &asker, clock_wall_s(), 0),
                     over < 0 ? REFUSAL_NONE : REFUSAL_DC_LIFETIME);
  }
  asker.rights.grants[0]->dc_max_lifetime_s = 5 * DAY;
}

static void refuses_a_credential_that_outlives_its_certificate(void **state) {
  const struct test_cert spec = {
      .cn = "ends", .has_delegation_usage = true, .not_after_s = clock_wall_s() + DAY};
  X509 *leaf = test_cert_new(&spec, fix.pkeys[FIX_P256], NULL, NULL);
  (void)state;
  assert_int_equal(ASK_DC(.signer = FIX_P256, .leaf = leaf, .lifetime_s = DAY - 60), REFUSAL_NONE);
  assert_int_equal(ASK_DC(.signer = FIX_P256, .leaf = leaf, .lifetime_s = DAY + 60),
                   REFUSAL_DC_PAST_CERTIFICATE);
  X509_free(leaf);
}

// --- the rest
// -------------------------------------------------------------------------------------

static void refuses_a_request_for_another_key(void **state) {
  struct message m = csr_of(fix.pkeys[FIX_SHORT]);
  (void)state;
  assert_int_equal(ask("certmanager.test", FIX_P256, FRAME_OP_ECDSA_SHA256, &m),
                   REFUSAL_CSR_OTHER_KEY);
}

static void refuses_schemes_that_the_keys_policy_leaves_out(void **state) {
  struct message m = tls12();
  (void)state;
  assert_int_equal(ask("proxy.test", FIX_SHORT, FRAME_OP_ECDSA_SHA384, &m), REFUSAL_SCHEME_POLICY);
  assert_int_equal(ask("proxy.test", FIX_SHORT, FRAME_OP_ECDSA_SHA256, &m), REFUSAL_NONE);
}

static void charges_only_what_it_signs(void **state) {
  struct message good = tls13(32);
  struct message bad = tls12();
  struct asker asker;
  struct request req;
  (void)state;

  fixture_asker(&asker, &fix, "slow.test");
  for (int i = 0; i < 100; i++) {
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &bad);
    assert_int_equal(request_judge(&req, &asker, clock_wall_s(), INT64_C(1) << 40),
                     REFUSAL_NOT_GRANTED);
  }
  for (int i = 0; i < 5; i++) {
    prepare(&req, FIX_P256, FRAME_OP_ECDSA_SHA256, &good);
    assert_int_equal(request_judge(&req, &asker, clock_wall_s(), INT64_C(1) << 40),
                     i < 3 ? REFUSAL_NONE : REFUSAL_RATE);
  }
}

static void has_a_name_and_a_code_for_each_refusal(void **state) {
  (void)state;
  for (int i = REFUSAL_NONE + 1; i < REFUSAL_NUM; i++) {
    assert_non_null(refusal_name((enum refusal)i));
    assert_int_not_equal(refusal_code((enum refusal)i), FRAME_ERROR_NONE);
    for (int k = 0; k < i; k++) {
      assert_string_not_equal(refusal_name((enum refusal)i), refusal_name((enum refusal)k));
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(signs_tls13_for_a_proxy),
      cmocka_unit_test(signs_tls12_for_a_proxy),
      cmocka_unit_test(signs_credentials_for_an_issuer),
      cmocka_unit_test(signs_requests_for_a_certmanager),
      cmocka_unit_test(signs_a_bare_digest_only_where_it_is_written_down),
      cmocka_unit_test(remembers_rights_by_key),
      cmocka_unit_test(refuses_purposes_that_are_not_granted),
      cmocka_unit_test(refuses_a_client_without_grants_whatever_it_asks),
      cmocka_unit_test(refuses_opcodes_it_does_not_serve),
      cmocka_unit_test(refuses_requests_without_a_key),
      cmocka_unit_test(refuses_digests_of_wrong_length),
      cmocka_unit_test(refuses_a_digest_that_is_not_the_messages),
      cmocka_unit_test(refuses_messages_without_a_purpose),
      cmocka_unit_test(refuses_schemes_that_tls13_does_not_have),
      cmocka_unit_test(refuses_a_credential_of_another_key),
      cmocka_unit_test(refuses_a_credential_that_the_certificate_does_not_allow),
      cmocka_unit_test(refuses_a_credential_of_an_rsa_certificate),
      cmocka_unit_test(refuses_an_algorithm_that_is_not_what_signs),
      cmocka_unit_test(refuses_the_certificates_own_key),
      cmocka_unit_test(refuses_the_clients_context),
      cmocka_unit_test(refuses_a_scheme_that_does_not_fit_the_credentials_key),
      cmocka_unit_test(holds_lifetimes_to_every_policy),
      cmocka_unit_test(never_goes_past_the_seven_days_of_the_rfc),
      cmocka_unit_test(refuses_a_credential_that_outlives_its_certificate),
      cmocka_unit_test(refuses_a_request_for_another_key),
      cmocka_unit_test(refuses_schemes_that_the_keys_policy_leaves_out),
      cmocka_unit_test(charges_only_what_it_signs),
      cmocka_unit_test(has_a_name_and_a_code_for_each_refusal),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
