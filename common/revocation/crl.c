// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/crl.h"

#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#define TAG_CONSTRUCTED(n) (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | (n))
#define TAG_PRIMITIVE(n) (CBS_ASN1_CONTEXT_SPECIFIC | (n))
#define YEAR_BASE 1900
#define MAX_REASON 10

// id-ce, 2.5.29.x
static const uint8_t oid_crl_number[] = {0x55, 0x1d, 0x14};
static const uint8_t oid_reason[] = {0x55, 0x1d, 0x15};
static const uint8_t oid_delta[] = {0x55, 0x1d, 0x1b};
static const uint8_t oid_partition[] = {0x55, 0x1d, 0x1c};
static const uint8_t oid_certificate_issuer[] = {0x55, 0x1d, 0x1d};
static const uint8_t oid_authority_key[] = {0x55, 0x1d, 0x23};

static const struct {
  const char *name;
  const char *sentence;
} faults[CRL_NUM_FAULTS] = {
    [CRL_NO_FAULT] = {"none", ""},
    [CRL_MALFORMED] = {"malformed", "it is not a CRL in DER"},
    [CRL_OTHER_ISSUER] = {"other_issuer", "it is of another issuer than the leaf's"},
    [CRL_BAD_SIGNATURE] = {"bad_signature", "its signature does not verify"},
    [CRL_WEAK_ALGORITHM] = {"weak_algorithm",
                            "it is signed with an algorithm that is insecure or unknown"},
    [CRL_ISSUER_UNFIT] = {"issuer_unfit", "the leaf's issuer may not sign CRLs (its KeyUsage)"},
    [CRL_NOT_YET_VALID] = {"not_yet_valid", "its time has not begun: is the clock right?"},
    [CRL_EXPIRED] = {"expired", "its time has ended: the CA has not published a new one"},
    [CRL_NO_END] = {"no_end", "it has no nextUpdate, so nobody knows its end"},
    [CRL_REPLAYED] = {"replayed", "it is older than one that was seen before"},
    [CRL_DELTA] = {"delta", "it is a delta CRL, which says only what has changed"},
    [CRL_INDIRECT] = {"indirect", "it is an indirect CRL, which speaks for other issuers"},
    [CRL_NOT_COVERING] = {"not_covering", "it is a part of the CA's CRL in which the leaf is not"},
    [CRL_UNKNOWN_CRITICAL] = {"unknown_critical", "it has a critical extension that is unknown"},
    [CRL_NO_MEMORY] = {"no_memory", "no memory"},
    [CRL_BAD_CERTIFICATE] = {"bad_certificate", "the issuer's certificate cannot be read"},
};

const char *crl_fault_name(enum crl_fault fault) {
  return fault < CRL_NUM_FAULTS ? faults[fault].name : "?";
}

const char *crl_fault_sentence(enum crl_fault fault) {
  return fault < CRL_NUM_FAULTS ? faults[fault].sentence : "?";
}

#define FAULT_TRY(step)          \
  do {                           \
    fault = (step);              \
    if (fault != CRL_NO_FAULT) { \
      goto out;                  \
    }                            \
  } while (0)

static struct bytes bytes_of_cbs(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

static CBS cbs_of(struct bytes in) {
  CBS cbs;
  CBS_init(&cbs, in.data, in.len);
  return cbs;
}

// --- times ---------------------------------------------------------------------------

static bool read_digits(int *out, CBS *cbs, size_t num) {
  *out = 0;
  for (size_t i = 0; i < num; i++) {
    uint8_t c = 0;
    if (!CBS_get_u8(cbs, &c) || c < '0' || c > '9') {
      return false;
    }
    *out = *out * 10 + (c - '0');
  }
  return true;
}

// read_time reads what RFC 5280, section 4.1.2.5, allows of a Time: to the second, in UTC.
static bool read_time(int64_t *out, CBS *cbs) {
  CBS text;
  struct tm tm = {0};
  const bool is_utc_time = CBS_peek_asn1_tag(cbs, CBS_ASN1_UTCTIME);
  uint8_t z = 0;

  if (!CBS_get_asn1(cbs, &text, is_utc_time ? CBS_ASN1_UTCTIME : CBS_ASN1_GENERALIZEDTIME) ||
      !read_digits(&tm.tm_year, &text, is_utc_time ? 2 : 4) || !read_digits(&tm.tm_mon, &text, 2) ||
      !read_digits(&tm.tm_mday, &text, 2) || !read_digits(&tm.tm_hour, &text, 2) ||
      !read_digits(&tm.tm_min, &text, 2) || !read_digits(&tm.tm_sec, &text, 2) ||
      !CBS_get_u8(&text, &z) || z != 'Z' || CBS_len(&text) != 0) {
    return false;
  }
  if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
      tm.tm_min > 59 || tm.tm_sec > 59) {
    return false;
  }
  if (is_utc_time) {
    tm.tm_year += tm.tm_year < 50 ? 100 : 0;
  } else {
    tm.tm_year -= YEAR_BASE;
  }
  tm.tm_mon -= 1;
  *out = (int64_t)timegm(&tm);
  return true;
}

// --- the signature ---------------------------------------------------------------------

static const struct algorithm {
  uint8_t oid[9];
  uint8_t oid_len;
  int key_type;
  const EVP_MD *(*md)(void);  // NULL: the algorithm hashes by itself
} algorithms[] = {
    {{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}, 8, EVP_PKEY_EC, EVP_sha256},
    {{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03}, 8, EVP_PKEY_EC, EVP_sha384},
    {{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04}, 8, EVP_PKEY_EC, EVP_sha512},
    {{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}, 9, EVP_PKEY_RSA, EVP_sha256},
    {{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c}, 9, EVP_PKEY_RSA, EVP_sha384},
    {{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d}, 9, EVP_PKEY_RSA, EVP_sha512},
    {{0x2b, 0x65, 0x70}, 3, EVP_PKEY_ED25519, NULL},
};

static const struct algorithm *find_algorithm(CBS algorithm) {
  CBS inside;
  CBS oid;

  if (!CBS_get_asn1(&algorithm, &inside, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&inside, &oid, CBS_ASN1_OBJECT)) {
    return NULL;
  }
  for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
    if (CBS_mem_equal(&oid, algorithms[i].oid, algorithms[i].oid_len)) {
      return &algorithms[i];
    }
  }
  return NULL;
}

// The three parts of a CertificateList; tbs and algorithm are whole elements.
struct parts {
  CBS tbs;
  CBS algorithm;
  CBS signature;
};

static bool read_parts(struct parts *out, struct bytes list) {
  CBS cbs = cbs_of(list);
  CBS whole;
  uint8_t num_unused_bits = 0;

  return CBS_get_asn1(&cbs, &whole, CBS_ASN1_SEQUENCE) && CBS_len(&cbs) == 0 &&
         CBS_get_asn1_element(&whole, &out->tbs, CBS_ASN1_SEQUENCE) &&
         CBS_get_asn1_element(&whole, &out->algorithm, CBS_ASN1_SEQUENCE) &&
         CBS_get_asn1(&whole, &out->signature, CBS_ASN1_BITSTRING) && CBS_len(&whole) == 0 &&
         CBS_get_u8(&out->signature, &num_unused_bits) && num_unused_bits == 0;
}

static enum crl_fault check_signature(const struct parts *parts, X509 *issuer) {
  const struct algorithm *algorithm = find_algorithm(parts->algorithm);
  EVP_PKEY *key = X509_get_pubkey(issuer);
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  enum crl_fault fault = CRL_NO_FAULT;

  if (ctx == NULL) {
    fault = CRL_NO_MEMORY;
  } else if (algorithm == NULL) {
    fault = CRL_WEAK_ALGORITHM;
  } else if (key == NULL || EVP_PKEY_id(key) != algorithm->key_type ||
             !EVP_DigestVerifyInit(ctx, NULL, algorithm->md == NULL ? NULL : algorithm->md(), NULL,
                                   key) ||
             !EVP_DigestVerify(ctx, CBS_data(&parts->signature), CBS_len(&parts->signature),
                               CBS_data(&parts->tbs), CBS_len(&parts->tbs))) {
    fault = CRL_BAD_SIGNATURE;
  }
  EVP_MD_CTX_free(ctx);
  EVP_PKEY_free(key);
  return fault;
}

// --- the list's own fields ---------------------------------------------------------------

struct fields {
  CBS algorithm;  // elements
  CBS issuer;
  int64_t this_update_s;
  int64_t next_update_s;
  bool has_next_update;
  CBS entries;
  CBS extensions;
};

// TBSCertList, RFC 5280, section 5.1.
static bool read_fields(struct fields *out, CBS tbs) {
  CBS inside;
  CBS explicit_extensions;
  int has_extensions = 0;
  uint64_t version = 0;

  *out = (struct fields){0};
  if (!CBS_get_asn1(&tbs, &inside, CBS_ASN1_SEQUENCE) ||
      (CBS_peek_asn1_tag(&inside, CBS_ASN1_INTEGER) &&
       (!CBS_get_asn1_uint64(&inside, &version) || version != 1)) ||
      !CBS_get_asn1_element(&inside, &out->algorithm, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1_element(&inside, &out->issuer, CBS_ASN1_SEQUENCE) ||
      !read_time(&out->this_update_s, &inside)) {
    return false;
  }
  out->has_next_update = CBS_peek_asn1_tag(&inside, CBS_ASN1_UTCTIME) ||
                         CBS_peek_asn1_tag(&inside, CBS_ASN1_GENERALIZEDTIME);
  if ((out->has_next_update && !read_time(&out->next_update_s, &inside)) ||
      !CBS_get_optional_asn1(&inside, &out->entries, NULL, CBS_ASN1_SEQUENCE) ||
      !CBS_get_optional_asn1(&inside, &explicit_extensions, &has_extensions, TAG_CONSTRUCTED(0)) ||
      CBS_len(&inside) != 0) {
    return false;
  }
  return !has_extensions ||
         (version == 1 && CBS_len(&explicit_extensions) <= CRL_MAX_EXTENSIONS_LEN &&
          CBS_get_asn1(&explicit_extensions, &out->extensions, CBS_ASN1_SEQUENCE) &&
          CBS_len(&explicit_extensions) == 0);
}

struct extension {
  CBS oid;
  bool is_critical;
  CBS value;
};

// next_extension takes an Extension off the list; in DER, critical is there only if TRUE.
static bool next_extension(struct extension *out, CBS *list) {
  CBS inside;
  CBS critical;
  int has_critical = 0;
  uint8_t is_critical = 0;

  if (!CBS_get_asn1(list, &inside, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&inside, &out->oid, CBS_ASN1_OBJECT) ||
      !CBS_get_optional_asn1(&inside, &critical, &has_critical, CBS_ASN1_BOOLEAN) ||
      (has_critical && (!CBS_get_u8(&critical, &is_critical) || CBS_len(&critical) != 0)) ||
      !CBS_get_asn1(&inside, &out->value, CBS_ASN1_OCTETSTRING) || CBS_len(&inside) != 0) {
    return false;
  }
  out->is_critical = is_critical != 0;
  return true;
}

static bool is_oid(const struct extension *extension, const uint8_t oid[3]) {
  return CBS_mem_equal(&extension->oid, oid, 3);
}

static enum crl_fault read_extensions(struct crl *out, CBS list) {
  struct extension extension;

  while (CBS_len(&list) > 0) {
    if (!next_extension(&extension, &list)) {
      return CRL_MALFORMED;
    }
    if (is_oid(&extension, oid_delta)) {
      return CRL_DELTA;
    }
    if (is_oid(&extension, oid_partition)) {
      if (out->partition.len > 0 || CBS_len(&extension.value) == 0) {
        return CRL_MALFORMED;
      }
      out->partition = bytes_of_cbs(&extension.value);
    } else if (extension.is_critical && !is_oid(&extension, oid_crl_number) &&
               !is_oid(&extension, oid_authority_key)) {
      return CRL_UNKNOWN_CRITICAL;
    }
  }
  return CRL_NO_FAULT;
}

static bool is_name_of(CBS element, X509 *issuer) {
  const uint8_t *p = CBS_data(&element);
  X509_NAME *name = d2i_X509_NAME(NULL, &p, (long)CBS_len(&element));
  const bool is_same = name != NULL && X509_NAME_cmp(name, X509_get_subject_name(issuer)) == 0;

  X509_NAME_free(name);
  return is_same;
}

static enum crl_fault check_times(const struct fields *fields, const struct crl_query *query) {
  if (!fields->has_next_update) {
    return CRL_NO_END;
  }
  if (fields->this_update_s > query->now_s + query->skew_s) {
    return CRL_NOT_YET_VALID;
  }
  if (query->now_s >= fields->next_update_s + query->skew_s) {
    return CRL_EXPIRED;
  }
  return fields->this_update_s < query->min_this_update ? CRL_REPLAYED : CRL_NO_FAULT;
}

static enum crl_fault check_issuer(const struct fields *fields, X509 *issuer) {
  if (!is_name_of(fields->issuer, issuer)) {
    return CRL_OTHER_ISSUER;
  }
  // Without KeyUsage this says all bits.
  return (X509_get_key_usage(issuer) & X509v3_KU_CRL_SIGN) == 0 ? CRL_ISSUER_UNFIT : CRL_NO_FAULT;
}

enum crl_fault crl_open(struct crl *out, const struct crl_query *query, struct bytes list) {
  enum crl_fault fault = CRL_NO_FAULT;
  struct parts parts;
  struct fields fields;
  const uint8_t *p = query->issuer.data;
  X509 *issuer = d2i_X509(NULL, &p, (long)query->issuer.len);

  *out = (struct crl){0};
  if (issuer == NULL) {
    fault = CRL_BAD_CERTIFICATE;
    goto out;
  }
  if (!read_parts(&parts, list) || !read_fields(&fields, parts.tbs) ||
      !CBS_mem_equal(&parts.algorithm, CBS_data(&fields.algorithm), CBS_len(&fields.algorithm))) {
    fault = CRL_MALFORMED;
    goto out;
  }
  FAULT_TRY(check_issuer(&fields, issuer));
  FAULT_TRY(check_times(&fields, query));
  // Last, as it reads all of it.
  FAULT_TRY(check_signature(&parts, issuer));
  FAULT_TRY(read_extensions(out, fields.extensions));
  out->this_update_s = fields.this_update_s;
  out->next_update_s = fields.next_update_s;
  out->entries = bytes_of_cbs(&fields.entries);

out:
  ERR_clear_error();
  X509_free(issuer);
  return fault;
}

// --- does it cover the leaf ----------------------------------------------------------------

// IssuingDistributionPoint, RFC 5280, section 5.2.5. Its BOOLEANs are IMPLICIT.
struct partition {
  CBS names;  // of distributionPoint.fullName
  bool has_names;
  bool is_relative;
  bool is_users_only;
  bool is_cas_only;
  bool has_reasons;
  bool is_indirect;
  bool is_attributes_only;
};

static bool read_flag(bool *out, CBS *cbs, unsigned tag) {
  CBS value;
  int is_there = 0;
  uint8_t byte = 0;

  if (!CBS_get_optional_asn1(cbs, &value, &is_there, TAG_PRIMITIVE(tag)) ||
      (is_there && (!CBS_get_u8(&value, &byte) || CBS_len(&value) != 0))) {
    return false;
  }
  *out = byte != 0;
  return true;
}

static bool read_partition(struct partition *out, struct bytes value) {
  CBS cbs = cbs_of(value);
  CBS inside;
  CBS point;
  CBS reasons;
  int has_point = 0;
  int has_full = 0;
  int has_reasons = 0;

  *out = (struct partition){0};
  if (!CBS_get_asn1(&cbs, &inside, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0 ||
      !CBS_get_optional_asn1(&inside, &point, &has_point, TAG_CONSTRUCTED(0)) ||
      (has_point && !CBS_get_optional_asn1(&point, &out->names, &has_full, TAG_CONSTRUCTED(0)))) {
    return false;
  }
  out->has_names = has_full != 0;
  out->is_relative = has_point && !has_full;
  if (!read_flag(&out->is_users_only, &inside, 1) || !read_flag(&out->is_cas_only, &inside, 2) ||
      !CBS_get_optional_asn1(&inside, &reasons, &has_reasons, TAG_PRIMITIVE(3)) ||
      !read_flag(&out->is_indirect, &inside, 4) ||
      !read_flag(&out->is_attributes_only, &inside, 5) || CBS_len(&inside) != 0) {
    return false;
  }
  out->has_reasons = has_reasons != 0;
  return true;
}

static bool has_common_name(CBS names, const struct leaf_sources *sources) {
  CBS name;

  while (CBS_len(&names) > 0 && CBS_get_any_asn1_element(&names, &name, NULL, NULL)) {
    if (leaf_sources_has_point(sources, bytes_of_cbs(&name))) {
      return true;
    }
  }
  return false;
}

enum crl_fault crl_covers(const struct crl *crl, const struct leaf_sources *sources) {
  struct partition partition;

  if (crl->partition.len == 0) {
    return CRL_NO_FAULT;
  }
  if (!read_partition(&partition, crl->partition)) {
    return CRL_MALFORMED;
  }
  if (partition.is_indirect) {
    return CRL_INDIRECT;
  }
  if (partition.has_reasons || partition.is_relative || partition.is_attributes_only ||
      (sources->is_ca ? partition.is_users_only : partition.is_cas_only) ||
      (partition.has_names && !has_common_name(partition.names, sources))) {
    return CRL_NOT_COVERING;
  }
  return CRL_NO_FAULT;
}

// --- its entries -----------------------------------------------------------------------------

static enum crl_fault read_entry_extensions(struct crl_entry *out, CBS *list) {
  struct extension extension;
  CBS reason;
  uint8_t value = 0;

  while (CBS_len(list) > 0) {
    if (!next_extension(&extension, list)) {
      return CRL_MALFORMED;
    }
    if (is_oid(&extension, oid_certificate_issuer)) {
      return CRL_INDIRECT;
    }
    if (is_oid(&extension, oid_reason)) {
      if (!CBS_get_asn1(&extension.value, &reason, CBS_ASN1_ENUMERATED) ||
          !CBS_get_u8(&reason, &value) || CBS_len(&reason) != 0) {
        return CRL_MALFORMED;
      }
      out->reason = value <= MAX_REASON ? value : 0;
    } else if (extension.is_critical) {
      return CRL_UNKNOWN_CRITICAL;
    }
  }
  return CRL_NO_FAULT;
}

static enum crl_fault next_entry(struct crl_entry *out, CBS *list) {
  CBS inside;
  CBS serial;
  CBS extensions;

  *out = (struct crl_entry){0};
  if (!CBS_get_asn1(list, &inside, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&inside, &serial, CBS_ASN1_INTEGER) || CBS_len(&serial) == 0 ||
      !read_time(&out->revoked_s, &inside)) {
    return CRL_MALFORMED;
  }
  out->serial = bytes_of_cbs(&serial);
  if (CBS_len(&inside) == 0) {
    return CRL_NO_FAULT;
  }
  if (!CBS_get_asn1(&inside, &extensions, CBS_ASN1_SEQUENCE) || CBS_len(&inside) != 0) {
    return CRL_MALFORMED;
  }
  return read_entry_extensions(out, &extensions);
}

enum crl_fault crl_for_each(const struct crl *crl,
                            bool (*fn)(void *arg, const struct crl_entry *entry), void *arg) {
  CBS list = cbs_of(crl->entries);
  struct crl_entry entry;
  bool is_done = false;

  while (CBS_len(&list) > 0) {
    const enum crl_fault fault = next_entry(&entry, &list);
    if (fault != CRL_NO_FAULT) {
      return fault;
    }
    is_done = is_done || fn(arg, &entry);
  }
  return CRL_NO_FAULT;
}

struct search {
  struct bytes serial;
  struct crl_entry *out;
  bool is_found;
};

static bool compare(void *arg, const struct crl_entry *entry) {
  struct search *search = arg;

  if (bytes_equal(entry->serial, search->serial)) {
    *search->out = *entry;
    search->is_found = true;
  }
  return search->is_found;
}

enum crl_fault crl_find(struct crl_entry *out, bool *is_found, const struct crl *crl,
                        struct bytes serial) {
  struct search search = {.serial = serial, .out = out};
  const enum crl_fault fault = crl_for_each(crl, compare, &search);

  *is_found = search.is_found && fault == CRL_NO_FAULT;
  return fault;
}
