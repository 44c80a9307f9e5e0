// SPDX-License-Identifier: Apache-2.0
// Four recognisers, one per purpose. Each either fills `out` and returns NULL
// or says in a sentence why the message is not of its form. They do not know
// of each other: that no message has two purposes is checked, not assumed.
#include "common/wire/signing_input.h"

#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/nid.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <string.h>

#include "common/wire/scheme.h"

#define NUM_SPACES 64u
#define SIXTEEN_SPACES "                "
#define RANDOM_LEN 32u
#define CURVE_TYPE_NAMED 3u    // RFC 8422, section 5.4
#define POINT_UNCOMPRESSED 4u  // RFC 8422, section 5.1.2: the only format left
#define TLS13_SERVER "TLS 1.3, server CertificateVerify"
#define TLS13_CLIENT "TLS 1.3, client CertificateVerify"

static const char *const purpose_names[PURPOSE_NUM] = {
    [PURPOSE_NONE] = "none",         [PURPOSE_TLS13] = "tls13",
    [PURPOSE_TLS12] = "tls12",       [PURPOSE_DC] = "dc",
    [PURPOSE_CSR] = "csr",           [PURPOSE_BLIND] = "blind",
    [PURPOSE_GENERATE] = "generate",
};

const char *purpose_name(enum purpose purpose) {
  return (unsigned)purpose < PURPOSE_NUM ? purpose_names[purpose] : "unknown";
}

enum status purpose_from_name(enum purpose *out, const char *name) {
  *out = PURPOSE_NONE;
  for (int i = PURPOSE_TLS13; i < PURPOSE_NUM; i++) {  // "none" is nobody's purpose
    if (strcmp(purpose_names[i], name) == 0) {
      *out = (enum purpose)i;
      return STATUS_OK;
    }
  }
  return STATUS_NOT_FOUND;
}

// skip_context takes the context string with its terminating zero.
static bool skip_context(CBS *cbs, const char *context) {
  const size_t len = strlen(context) + 1;
  return CBS_len(cbs) >= len && memcmp(CBS_data(cbs), context, len) == 0 && CBS_skip(cbs, len);
}

static bool skip_spaces(CBS *cbs) {
  static const char spaces[] = SIXTEEN_SPACES SIXTEEN_SPACES SIXTEEN_SPACES SIXTEEN_SPACES;
  _Static_assert(sizeof(spaces) - 1 == NUM_SPACES, "RFC 8446, section 4.4.3");
  return CBS_len(cbs) >= NUM_SPACES && memcmp(CBS_data(cbs), spaces, NUM_SPACES) == 0 &&
         CBS_skip(cbs, NUM_SPACES);
}

static const char *parse_tls13(struct signing_input *out, CBS cbs) {
  if (!skip_spaces(&cbs)) {
    return "no 64 spaces at the start";
  }
  if (skip_context(&cbs, TLS13_CLIENT)) {
    return "a TLS 1.3 client's CertificateVerify: this project signs as a server only";
  }
  if (!skip_context(&cbs, TLS13_SERVER)) {
    return "64 spaces, but no context string that is signed here";
  }
  // RFC 8446, section 4.4.1: the cipher suite's hash, SHA-256 or SHA-384.
  if (CBS_len(&cbs) != SHA256_DIGEST_LENGTH && CBS_len(&cbs) != SHA384_DIGEST_LENGTH) {
    return "a TLS 1.3 CertificateVerify whose transcript hash is not of 32 or 48 bytes";
  }
  out->transcript_hash = bytes_of(CBS_data(&cbs), CBS_len(&cbs));
  return NULL;
}

// check_credential: RFC 9345, section 4. Only what makes the credential one at
// all; whether this client may have it is policy, and the key server's matter.
static const char *check_credential(const struct dc *dc) {
  const struct scheme *scheme = scheme_find(dc->verify_scheme);
  const struct scheme *algorithm = scheme_find(dc->algorithm);
  const enum key_kind kind = key_kind_of_spki(dc->spki);
  if (kind == KEY_KIND_NONE) {
    return "a credential whose public key is of no kind that is used here";
  }
  if (scheme == NULL || !scheme_fits_tls13(scheme, kind)) {
    return "a credential whose scheme does not fit its public key";
  }
  if (kind == KEY_KIND_RSA) {
    return "a credential for an rsaEncryption key, which RFC 9345 section 3 forbids";
  }
  if (algorithm == NULL || !algorithm->may_sign_tls13) {
    return "a credential to be signed with an algorithm that is not used here";
  }
  return NULL;
}

static const char *parse_dc(struct signing_input *out, CBS cbs) {
  CBS certificate;
  if (!skip_spaces(&cbs)) {
    return "no 64 spaces at the start";
  }
  if (skip_context(&cbs, DC_CONTEXT_CLIENT)) {
    return "a client's delegated credential: this project issues for servers only";
  }
  if (!skip_context(&cbs, DC_CONTEXT_SERVER)) {
    return "64 spaces, but no context string that is signed here";
  }
  if (!CBS_get_asn1_element(&cbs, &certificate, CBS_ASN1_SEQUENCE)) {
    return "a credential input without one DER SEQUENCE as its certificate";
  }
  if (CBS_len(&certificate) > DC_MAX_CERTIFICATE_LEN) {
    return "a credential input whose certificate is too long";
  }
  switch (dc_credential_decode(&out->dc, &cbs)) {
    case STATUS_OK:
      break;
    case STATUS_LIMIT:
      return "a credential whose public key is too long";
    default:
      return "a credential input that is cut inside its Credential";
  }
  if (!CBS_get_u16(&cbs, &out->dc.algorithm) || CBS_len(&cbs) != 0) {
    return "a credential input that does not end with its algorithm";
  }
  out->certificate = bytes_of(CBS_data(&certificate), CBS_len(&certificate));
  return check_credential(&out->dc);
}

// The groups whose ECDHE parameters may be signed, RFC 8422 section 5.4.
enum { GROUP_P256, GROUP_P384, GROUP_P521, GROUP_X25519, NUM_GROUPS };
static const struct group {
  uint16_t code;
  uint8_t point_len;
  int nid;  // NID_undef: any bytes are a point (RFC 7748, section 5)
} groups[NUM_GROUPS] = {
    [GROUP_P256] = {SSL_CURVE_SECP256R1, 65, NID_X9_62_prime256v1},
    [GROUP_P384] = {SSL_CURVE_SECP384R1, 97, NID_secp384r1},
    [GROUP_P521] = {SSL_CURVE_SECP521R1, 133, NID_secp521r1},
    [GROUP_X25519] = {SSL_CURVE_X25519, 32, NID_undef},
};

// Made once: asking BoringSSL for a group by name takes a lock each time.
static EC_GROUP *ec_groups[NUM_GROUPS];
static pthread_once_t ec_groups_once = PTHREAD_ONCE_INIT;

static void make_ec_groups(void) {
  for (size_t i = 0; i < NUM_GROUPS; i++) {
    if (groups[i].nid != NID_undef) {
      ec_groups[i] = EC_GROUP_new_by_curve_name(groups[i].nid);
    }
  }
}

static bool is_on_curve(size_t group, struct bytes point) {
  EC_POINT *parsed;
  bool is_good;
  if (pthread_once(&ec_groups_once, make_ec_groups) != 0 || ec_groups[group] == NULL) {
    return false;
  }
  parsed = EC_POINT_new(ec_groups[group]);
  is_good =
      parsed != NULL && EC_POINT_oct2point(ec_groups[group], parsed, point.data, point.len, NULL);
  EC_POINT_free(parsed);
  ERR_clear_error();  // the answer says it all
  return is_good;
}

static const char *check_point(size_t group, struct bytes point) {
  if (point.len != groups[group].point_len) {
    return "TLS 1.2 parameters whose point is not as long as its curve wants";
  }
  if (groups[group].nid == NID_undef) {
    return NULL;
  }
  if (point.data[0] != POINT_UNCOMPRESSED) {
    return "TLS 1.2 parameters whose point is compressed";
  }
  return is_on_curve(group, point) ? NULL : "TLS 1.2 parameters whose point is not on its curve";
}

static const char *parse_tls12(struct signing_input *out, CBS cbs) {
  CBS point;
  uint8_t curve_type;
  uint16_t code;
  if (!CBS_skip(&cbs, RANDOM_LEN + RANDOM_LEN) || !CBS_get_u8(&cbs, &curve_type) ||
      curve_type != CURVE_TYPE_NAMED || !CBS_get_u16(&cbs, &code)) {
    return "none of the forms that are signed here";
  }
  if (!CBS_get_u8_length_prefixed(&cbs, &point) || CBS_len(&cbs) != 0) {
    return "TLS 1.2 parameters that do not end with their point";
  }
  for (size_t i = 0; i < NUM_GROUPS; i++) {
    if (groups[i].code == code) {
      out->group = code;
      return check_point(i, bytes_of(CBS_data(&point), CBS_len(&point)));
    }
  }
  return "TLS 1.2 parameters of a curve that is not used here";
}

// skip_oid takes a DER OBJECT IDENTIFIER that is not empty.
static bool skip_oid(CBS *cbs) {
  CBS oid;
  return CBS_get_asn1(cbs, &oid, CBS_ASN1_OBJECT) && CBS_len(&oid) != 0;
}

static bool skip_any(CBS *cbs) {
  CBS element;
  return CBS_get_any_asn1_element(cbs, &element, NULL, NULL);
}

// is_rdn: RelativeDistinguishedName, RFC 5280 section 4.1.2.4.
static bool is_rdn(CBS rdn) {
  if (CBS_len(&rdn) == 0) {
    return false;
  }
  while (CBS_len(&rdn) != 0) {
    CBS pair;
    if (!CBS_get_asn1(&rdn, &pair, CBS_ASN1_SEQUENCE) || !skip_oid(&pair) || !skip_any(&pair) ||
        CBS_len(&pair) != 0) {
      return false;
    }
  }
  return true;
}

static bool skip_name(CBS *cbs) {
  CBS name;
  if (!CBS_get_asn1(cbs, &name, CBS_ASN1_SEQUENCE)) {
    return false;
  }
  while (CBS_len(&name) != 0) {
    CBS rdn;
    if (!CBS_get_asn1(&name, &rdn, CBS_ASN1_SET) || !is_rdn(rdn)) {
      return false;
    }
  }
  return true;
}

// is_attribute: RFC 2986, section 4.1: a type and a SET of at least one value.
static bool is_attribute(CBS attribute) {
  CBS values;
  if (!skip_oid(&attribute) || !CBS_get_asn1(&attribute, &values, CBS_ASN1_SET) ||
      CBS_len(&attribute) != 0 || CBS_len(&values) == 0) {
    return false;
  }
  while (CBS_len(&values) != 0) {
    if (!skip_any(&values)) {
      return false;
    }
  }
  return true;
}

static bool skip_attributes(CBS *cbs) {
  CBS attributes;
  if (!CBS_get_asn1(cbs, &attributes, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0)) {
    return false;
  }
  while (CBS_len(&attributes) != 0) {
    CBS attribute;
    if (!CBS_get_asn1(&attributes, &attribute, CBS_ASN1_SEQUENCE) || !is_attribute(attribute)) {
      return false;
    }
  }
  return true;
}

static const char *parse_csr(struct signing_input *out, CBS cbs) {
  CBS info;
  CBS spki;
  uint64_t version;
  if (CBS_len(&cbs) > SIGNING_INPUT_MAX_CSR_LEN) {
    return "longer than a certification request may be";
  }
  if (!CBS_get_asn1(&cbs, &info, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0) {
    return "not one DER SEQUENCE";
  }
  if (!CBS_get_asn1_uint64(&info, &version) || version != 0) {
    return "a DER SEQUENCE, but not a certification request of version 0";
  }
  if (!skip_name(&info)) {
    return "a certification request whose subject is malformed";
  }
  if (!CBS_get_asn1_element(&info, &spki, CBS_ASN1_SEQUENCE)) {
    return "a certification request without a public key";
  }
  if (!skip_attributes(&info) || CBS_len(&info) != 0) {
    return "a certification request whose attributes are malformed";
  }
  out->csr_spki = bytes_of(CBS_data(&spki), CBS_len(&spki));
  if (key_kind_of_spki(out->csr_spki) == KEY_KIND_NONE) {
    return "a certification request whose public key is of no kind that is used here";
  }
  return NULL;
}

static const struct recogniser {
  enum purpose purpose;
  const char *(*parse)(struct signing_input *out, CBS cbs);
} recognisers[] = {
    {PURPOSE_TLS13, parse_tls13},
    {PURPOSE_DC, parse_dc},
    {PURPOSE_TLS12, parse_tls12},
    {PURPOSE_CSR, parse_csr},
};

// nearest picks whose reason a person should read: the form that the message
// seems to be meant as.
static enum purpose nearest(struct bytes message) {
  static const char dc_start[] = "TLS, ";
  const size_t dc_len = sizeof(dc_start) - 1;
  CBS cbs;
  CBS content;
  CBS_init(&cbs, message.data, message.len);
  if (skip_spaces(&cbs) && (CBS_len(&cbs) == 0 || CBS_data(&cbs)[0] != CURVE_TYPE_NAMED)) {
    return CBS_len(&cbs) >= dc_len && memcmp(CBS_data(&cbs), dc_start, dc_len) == 0 ? PURPOSE_DC
                                                                                    : PURPOSE_TLS13;
  }
  CBS_init(&cbs, message.data, message.len);
  return CBS_get_asn1(&cbs, &content, CBS_ASN1_SEQUENCE) && CBS_len(&cbs) == 0 ? PURPOSE_CSR
                                                                               : PURPOSE_TLS12;
}

static enum status refuse(struct signing_input *out, const char *why) {
  *out = (struct signing_input){.purpose = PURPOSE_NONE, .why = why};
  return STATUS_FORMAT;
}

enum status signing_input_parse(struct signing_input *out, struct bytes message) {
  struct signing_input found = {.purpose = PURPOSE_NONE};
  const char *why = NULL;
  CBS cbs;

  if (message.len == 0) {
    return refuse(out, "empty");
  }
  if (message.len > SIGNING_INPUT_MAX_LEN) {
    return refuse(out, "longer than any message that is signed here");
  }
  const enum purpose near = nearest(message);
  CBS_init(&cbs, message.data, message.len);
  for (size_t i = 0; i < sizeof(recognisers) / sizeof(recognisers[0]); i++) {
    struct signing_input one = {.purpose = recognisers[i].purpose};
    const char *reason = recognisers[i].parse(&one, cbs);
    if (reason != NULL) {
      why = recognisers[i].purpose == near ? reason : why;
    } else if (found.purpose != PURPOSE_NONE) {
      return refuse(out, "fits two purposes at once, as no honest message does");
    } else {
      found = one;
    }
  }
  if (found.purpose == PURPOSE_NONE) {
    return refuse(out, why);
  }
  *out = found;
  return STATUS_OK;
}
