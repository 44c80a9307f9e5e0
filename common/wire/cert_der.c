// SPDX-License-Identifier: Apache-2.0
#include "common/wire/cert_der.h"

#include <openssl/sha.h>
#include <string.h>

#define TAG_VERSION (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0)
#define TAG_ISSUER_UNIQUE_ID (CBS_ASN1_CONTEXT_SPECIFIC | 1)
#define TAG_SUBJECT_UNIQUE_ID (CBS_ASN1_CONTEXT_SPECIFIC | 2)
#define TAG_EXTENSIONS (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 3)
#define TAG_KEY_IDENTIFIER (CBS_ASN1_CONTEXT_SPECIFIC | 0)
#define TAG_DNS_NAME (CBS_ASN1_CONTEXT_SPECIFIC | 2)
#define TLS_FEATURE_STATUS_REQUEST 5u
#define MAX_EXTENSIONS 128u
#define SERIAL_MAX_LEN 30u  // RFC 5280 says 20; no more than this is told apart

static struct bytes rest_of(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

// --- times -----------------------------------------------------------------------

// two_digits returns 0 to 99, or -1.
static int two_digits(CBS *cbs) {
  uint8_t tens = 0;
  uint8_t units = 0;
  if (!CBS_get_u8(cbs, &tens) || !CBS_get_u8(cbs, &units) || tens < '0' || tens > '9' ||
      units < '0' || units > '9') {
    return -1;
  }
  return (tens - '0') * 10 + (units - '0');
}

static int days_in_month(int year, int month) {
  static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return days[month - 1] + (month == 2 && is_leap ? 1 : 0);
}

// Days from 1970-01-01; the year is counted from March, so that the leap day is last.
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
  int64_t y = month <= 2 ? year - 1 : year;
  int64_t era = (y >= 0 ? y : y - 399) / 400;
  int64_t year_of_era = y - era * 400;
  int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

// RFC 5280, section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050, both
// with seconds and Z. Which of the two stands for which year is not insisted on.
static bool read_time(int64_t *out, CBS *cbs) {
  CBS time;
  unsigned tag = 0;
  uint8_t zone = 0;
  if (!CBS_get_any_asn1(cbs, &time, &tag) ||
      (tag != CBS_ASN1_UTCTIME && tag != CBS_ASN1_GENERALIZEDTIME)) {
    return false;
  }
  int century = tag == CBS_ASN1_GENERALIZEDTIME ? two_digits(&time) : 0;
  int year = two_digits(&time);
  int month = two_digits(&time);
  int day = two_digits(&time);
  int hour = two_digits(&time);
  int minute = two_digits(&time);
  int second = two_digits(&time);
  if (century < 0 || year < 0 || month < 1 || month > 12 || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 59 || !CBS_get_u8(&time, &zone) || zone != 'Z' ||
      CBS_len(&time) != 0) {
    return false;
  }
  year += tag == CBS_ASN1_GENERALIZEDTIME ? century * 100 : (year < 50 ? 2000 : 1900);
  if (day < 1 || day > days_in_month(year, month)) {
    return false;
  }
  *out = days_from_civil(year, month, day) * 86400 + (int64_t)hour * 3600 + (int64_t)minute * 60 +
         second;
  return true;
}

// --- extensions ------------------------------------------------------------------

static bool read_basic_constraints(struct cert_der *out, CBS value) {
  CBS sequence;
  int is_ca = 0;
  if (!CBS_get_asn1(&value, &sequence, CBS_ASN1_SEQUENCE) || CBS_len(&value) != 0) {
    return false;
  }
  if (CBS_peek_asn1_tag(&sequence, CBS_ASN1_BOOLEAN) && !CBS_get_asn1_bool(&sequence, &is_ca)) {
    return false;
  }
  out->is_ca = is_ca != 0;
  return true;
}

static bool read_key_usage(struct cert_der *out, CBS value) {
  CBS bits;
  if (!CBS_get_asn1(&value, &bits, CBS_ASN1_BITSTRING) || CBS_len(&value) != 0 ||
      !CBS_is_valid_asn1_bitstring(&bits)) {
    return false;
  }
  out->has_digital_signature = CBS_asn1_bitstring_has_bit(&bits, 0) != 0;
  return true;
}

static bool read_aki(struct cert_der *out, CBS value) {
  CBS sequence;
  CBS id;
  int is_there = 0;
  if (!CBS_get_asn1(&value, &sequence, CBS_ASN1_SEQUENCE) || CBS_len(&value) != 0 ||
      !CBS_get_optional_asn1(&sequence, &id, &is_there, TAG_KEY_IDENTIFIER)) {
    return false;
  }
  if (is_there) {
    out->aki = rest_of(&id);
  }
  return true;
}

static bool read_ski(struct cert_der *out, CBS value) {
  CBS id;
  if (!CBS_get_asn1(&value, &id, CBS_ASN1_OCTETSTRING) || CBS_len(&value) != 0) {
    return false;
  }
  out->ski = rest_of(&id);
  return true;
}

static bool read_names(struct cert_der *out, CBS value) {
  CBS names;
  if (!CBS_get_asn1(&value, &names, CBS_ASN1_SEQUENCE) || CBS_len(&value) != 0) {
    return false;
  }
  out->names = rest_of(&names);
  while (CBS_len(&names) > 0) {
    CBS name;
    unsigned tag = 0;
    if (!CBS_get_any_asn1(&names, &name, &tag)) {
      return false;
    }
  }
  return true;
}

static bool read_tls_feature(struct cert_der *out, CBS value) {
  CBS features;
  uint64_t feature = 0;
  if (!CBS_get_asn1(&value, &features, CBS_ASN1_SEQUENCE)) {
    return true;  // as common/tls/cert.c: not a reason to refuse
  }
  while (CBS_get_asn1_uint64(&features, &feature)) {
    out->is_must_staple = out->is_must_staple || feature == TLS_FEATURE_STATUS_REQUEST;
  }
  return true;
}

static const struct extension {
  uint8_t oid[10];
  uint8_t oid_len;
  bool (*read)(struct cert_der *out, CBS value);  // NULL: DelegationUsage
} extensions[] = {
    {{0x55, 0x1d, 0x0e}, 3, read_ski},
    {{0x55, 0x1d, 0x0f}, 3, read_key_usage},
    {{0x55, 0x1d, 0x11}, 3, read_names},
    {{0x55, 0x1d, 0x13}, 3, read_basic_constraints},
    {{0x55, 0x1d, 0x23}, 3, read_aki},
    {{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18}, 8, read_tls_feature},
    {{0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xda, 0x4b, 0x2c}, 9, NULL},
};
#define NUM_EXTENSIONS (sizeof(extensions) / sizeof(extensions[0]))

static bool read_extension(struct cert_der *out, CBS *list, unsigned *seen) {
  static const uint8_t null[] = {0x05, 0x00};
  CBS extension;
  CBS oid;
  CBS value;
  int is_critical = 0;
  if (!CBS_get_asn1(list, &extension, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&extension, &oid, CBS_ASN1_OBJECT) ||
      (CBS_peek_asn1_tag(&extension, CBS_ASN1_BOOLEAN) &&
       !CBS_get_asn1_bool(&extension, &is_critical)) ||
      !CBS_get_asn1(&extension, &value, CBS_ASN1_OCTETSTRING) || CBS_len(&extension) != 0) {
    return false;
  }
  for (unsigned i = 0; i < NUM_EXTENSIONS; i++) {
    if (!CBS_mem_equal(&oid, extensions[i].oid, extensions[i].oid_len)) {
      continue;
    }
    // RFC 5280, section 4.2: no more than one of a kind.
    if ((*seen & (1u << i)) != 0) {
      return false;
    }
    *seen |= 1u << i;
    if (extensions[i].read != NULL) {
      return extensions[i].read(out, value);
    }
    // RFC 9345, section 4.2: not critical, and its value is an ASN.1 NULL.
    out->has_delegation_usage = !is_critical && CBS_mem_equal(&value, null, sizeof(null));
  }
  return true;
}

static bool read_extensions(struct cert_der *out, CBS *tbs) {
  CBS outer;
  CBS list;
  int is_there = 0;
  unsigned seen = 0;
  if (!CBS_get_optional_asn1(tbs, &outer, &is_there, TAG_EXTENSIONS)) {
    return false;
  }
  if (!is_there) {
    return true;
  }
  if (!CBS_get_asn1(&outer, &list, CBS_ASN1_SEQUENCE) || CBS_len(&outer) != 0) {
    return false;
  }
  for (unsigned num = 0; CBS_len(&list) > 0; num++) {
    if (num == MAX_EXTENSIONS || !read_extension(out, &list, &seen)) {
      return false;
    }
  }
  return true;
}

// --- the certificate -------------------------------------------------------------

static bool read_validity(struct cert_der *out, CBS *tbs) {
  CBS validity;
  return CBS_get_asn1(tbs, &validity, CBS_ASN1_SEQUENCE) &&
         read_time(&out->not_before_s, &validity) && read_time(&out->not_after_s, &validity) &&
         CBS_len(&validity) == 0;
}

static bool read_spki(struct cert_der *out, CBS *tbs) {
  CBS whole;
  CBS spki;
  CBS bits;
  uint8_t unused = 0;
  if (!CBS_get_asn1_element(tbs, &whole, CBS_ASN1_SEQUENCE)) {
    return false;
  }
  out->spki = rest_of(&whole);
  if (!CBS_get_asn1(&whole, &spki, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&spki, NULL, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&spki, &bits, CBS_ASN1_BITSTRING) || CBS_len(&spki) != 0 ||
      !CBS_get_u8(&bits, &unused) || unused != 0) {
    return false;
  }
  out->bits = rest_of(&bits);
  return true;
}

static bool read_element(struct bytes *out, CBS *cbs, unsigned tag) {
  CBS element;
  if (!CBS_get_asn1_element(cbs, &element, tag)) {
    return false;
  }
  *out = rest_of(&element);
  return true;
}

static bool read_tbs(struct cert_der *out, CBS *tbs) {
  CBS serial;
  return CBS_get_optional_asn1(tbs, NULL, NULL, TAG_VERSION) &&
         CBS_get_asn1(tbs, &serial, CBS_ASN1_INTEGER) && CBS_len(&serial) <= SERIAL_MAX_LEN &&
         CBS_is_valid_asn1_integer(&serial, NULL) && CBS_get_asn1(tbs, NULL, CBS_ASN1_SEQUENCE) &&
         read_element(&out->issuer, tbs, CBS_ASN1_SEQUENCE) && read_validity(out, tbs) &&
         read_element(&out->subject, tbs, CBS_ASN1_SEQUENCE) && read_spki(out, tbs) &&
         CBS_get_optional_asn1(tbs, NULL, NULL, TAG_ISSUER_UNIQUE_ID) &&
         CBS_get_optional_asn1(tbs, NULL, NULL, TAG_SUBJECT_UNIQUE_ID) &&
         read_extensions(out, tbs) && CBS_len(tbs) == 0;
}

// read_certificate reads all but the key itself.
static bool read_certificate(struct cert_der *out, struct bytes der) {
  CBS cbs;
  CBS certificate;
  CBS tbs;
  *out = (struct cert_der){0};
  CBS_init(&cbs, der.data, der.len);
  if (!CBS_get_asn1(&cbs, &certificate, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0 ||
      !CBS_get_asn1(&certificate, &tbs, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&certificate, NULL, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&certificate, NULL, CBS_ASN1_BITSTRING) || CBS_len(&certificate) != 0 ||
      !read_tbs(out, &tbs)) {
    *out = (struct cert_der){0};  // nobody goes on with half a certificate
    return false;
  }
  return true;
}

enum status cert_der_parse(struct cert_der *out, struct bytes der) {
  if (der.len > CERT_DER_MAX_LEN) {
    *out = (struct cert_der){0};
    return STATUS_LIMIT;
  }
  if (!read_certificate(out, der)) {
    return STATUS_FORMAT;
  }
  out->kind = key_kind_of_spki(out->spki);
  return STATUS_OK;
}

bool cert_der_is_ca(struct bytes der) {
  struct cert_der cert;
  return der.len <= CERT_DER_MAX_LEN && read_certificate(&cert, der) && cert.is_ca;
}

enum status cert_der_measure(size_t *out_len, struct bytes in) {
  // SEQUENCE and a length of one, two or three bytes in all: longer ones are above
  // the limit, shorter ones hold no certificate.
  *out_len = 0;
  if (in.len > 0 && in.data[0] != 0x30) {
    return STATUS_FORMAT;
  }
  if (in.len < 4) {
    return STATUS_AGAIN;
  }
  size_t len = 0;
  if (in.data[1] == 0x81) {
    len = 3 + (size_t)in.data[2];
  } else if (in.data[1] == 0x82) {
    len = 4 + ((size_t)in.data[2] << 8 | in.data[3]);
  } else {
    return in.data[1] > 0x82 && in.data[1] <= 0x84 ? STATUS_LIMIT : STATUS_FORMAT;
  }
  if (len > CERT_DER_MAX_LEN) {
    return STATUS_LIMIT;
  }
  *out_len = len;
  return STATUS_OK;
}

// --- names -----------------------------------------------------------------------

// lower_name copies a dNSName in lower case; false if no host can be called so.
static bool lower_name(char out[CERT_DER_MAX_NAME_LEN + 1], const CBS *name) {
  size_t len = CBS_len(name);
  if (len == 0 || len > CERT_DER_MAX_NAME_LEN) {
    return false;
  }
  for (size_t i = 0; i < len; i++) {
    uint8_t c = CBS_data(name)[i];
    if (c <= ' ' || c > '~') {
      return false;
    }
    out[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  }
  out[len] = '\0';
  return true;
}

bool cert_der_next_name(char out[CERT_DER_MAX_NAME_LEN + 1], struct bytes *names) {
  CBS cbs;
  CBS name;
  unsigned tag = 0;
  CBS_init(&cbs, names->data, names->len);
  while (CBS_get_any_asn1(&cbs, &name, &tag)) {
    if (tag == TAG_DNS_NAME && lower_name(out, &name)) {
      *names = rest_of(&cbs);
      return true;
    }
  }
  *names = (struct bytes){0};
  return false;
}

static bool name_covers(const char *name, const char *host) {
  if (strcmp(name, host) == 0) {
    return true;
  }
  const char *dot = strchr(host, '.');
  return name[0] == '*' && name[1] == '.' && host[0] != '*' && dot != NULL && dot != host &&
         dot[1] != '\0' && strcmp(name + 1, dot) == 0;
}

bool cert_der_covers(const struct cert_der *cert, const char *host) {
  char name[CERT_DER_MAX_NAME_LEN + 1];
  struct bytes names = cert->names;
  while (cert_der_next_name(name, &names)) {
    if (name_covers(name, host)) {
      return true;
    }
  }
  return false;
}

bool cert_der_is_issued_by(const struct cert_der *cert, const struct cert_der *issuer) {
  return bytes_equal(cert->issuer, issuer->subject) &&
         (cert->aki.len == 0 || issuer->ski.len == 0 || bytes_equal(cert->aki, issuer->ski));
}

// --- ids -------------------------------------------------------------------------

void cert_der_key_id(uint8_t out[32], const struct cert_der *cert) {
  SHA256(cert->spki.data, cert->spki.len, out);
}

void cert_der_ski(uint8_t out[20], const struct cert_der *cert) {
  SHA1(cert->bits.data, cert->bits.len, out);
}

void cert_der_ca_id(uint8_t out[32], const struct cert_der *cert) {
  const struct bytes id = cert->aki.len > 0 ? cert->aki : cert->issuer;
  SHA256(id.data, id.len, out);
}
