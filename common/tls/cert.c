// SPDX-License-Identifier: Apache-2.0
#include "common/tls/cert.h"

#include <ctype.h>
#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pool.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/pem.h"
#include "common/tls/tls_error.h"

#define OID_DELEGATION_USAGE "1.3.6.1.4.1.44363.44"  // RFC 9345, section 4.2
#define OID_TLS_FEATURE "1.3.6.1.5.5.7.1.24"         // RFC 7633, section 6
#define TLS_FEATURE_STATUS_REQUEST 5u
#define RSA_MIN_BITS 2048
#define RSA_MAX_BITS 8192
#define SECONDS_IN_A_DAY 86400

// --- one certificate -----------------------------------------------------------

// parse_x509 returns a new X509 of all of `der`, or NULL.
static X509 *parse_x509(struct bytes der) {
  const uint8_t *at = der.data;
  X509 *x509 = d2i_X509(NULL, &at, (long)der.len);

  if (x509 != NULL && at != der.data + der.len) {
    X509_free(x509);
    x509 = NULL;
  }
  ERR_clear_error();
  return x509;
}

static enum status time_to_posix(int64_t *out, const ASN1_TIME *time) {
#if defined(BORINGSSL_API_VERSION) && BORINGSSL_API_VERSION >= 32
  return ASN1_TIME_to_posix(time, out) ? STATUS_OK : STATUS_FORMAT;
#else
  ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
  int days = 0;
  int seconds = 0;
  int ok = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, time);

  ASN1_TIME_free(epoch);
  if (!ok) {
    ERR_clear_error();
    return STATUS_FORMAT;
  }
  *out = (int64_t)days * SECONDS_IN_A_DAY + seconds;
  return STATUS_OK;
#endif
}

// spki_identify: SHA-256 of the whole, SHA-1 of the bits of its subjectPublicKey
// (RFC 5280, section 4.2.1.2, method 1).
enum status key_identify_spki(uint8_t out_key_id[32], uint8_t out_ski[20], struct bytes spki) {
  CBS cbs;
  CBS sequence;
  CBS algorithm;
  CBS bits;
  uint8_t unused = 0;

  CBS_init(&cbs, spki.data, spki.len);
  if (!CBS_get_asn1(&cbs, &sequence, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0 ||
      !CBS_get_asn1(&sequence, &algorithm, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&sequence, &bits, CBS_ASN1_BITSTRING) || CBS_len(&sequence) != 0 ||
      !CBS_get_u8(&bits, &unused) || unused != 0) {
    return STATUS_FORMAT;
  }
  SHA256(spki.data, spki.len, out_key_id);
  SHA1(CBS_data(&bits), CBS_len(&bits), out_ski);
  return STATUS_OK;
}

static enum status read_key(struct cert_info *out, X509 *x509) {
  uint8_t *spki = NULL;
  int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &spki);
  EVP_PKEY *key = X509_get_pubkey(x509);
  enum status st = STATUS_FORMAT;

  if (len > 0) {
    st = key_identify_spki(out->key_id, out->ski, bytes_of(spki, (size_t)len));
  }
  // A kind that nobody here signs with is no fault of the certificate.
  out->kind = key == NULL ? KEY_KIND_NONE : key_kind_of(key);
  ERR_clear_error();
  EVP_PKEY_free(key);
  OPENSSL_free(spki);
  return st;
}

static enum status read_ca_id(struct cert_info *out, X509 *x509) {
  const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(x509);
  uint8_t *name = NULL;
  int len;

  if (aki != NULL && ASN1_STRING_length(aki) > 0) {
    SHA256(ASN1_STRING_get0_data(aki), (size_t)ASN1_STRING_length(aki), out->ca_id);
    return STATUS_OK;
  }
  len = i2d_X509_NAME(X509_get_issuer_name(x509), &name);
  if (len <= 0) {
    return STATUS_FORMAT;
  }
  SHA256(name, (size_t)len, out->ca_id);
  OPENSSL_free(name);
  return STATUS_OK;
}

// find_extension borrows the value of an extension by its dotted OID, NULL if the
// certificate has none.
static X509_EXTENSION *find_extension(const X509 *x509, const char *oid) {
  ASN1_OBJECT *object = OBJ_txt2obj(oid, 1 /* dotted only */);
  int index = object == NULL ? -1 : X509_get_ext_by_OBJ(x509, object, -1);

  ASN1_OBJECT_free(object);
  return index < 0 ? NULL : X509_get_ext(x509, index);
}

static struct bytes extension_value(X509_EXTENSION *extension) {
  const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(extension);

  return bytes_of(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
}

// RFC 9345, section 4.2: "The extension MUST be marked non-critical"; its value is
// an ASN.1 NULL.
static bool has_delegation_usage(const X509 *x509) {
  static const uint8_t null[] = {0x05, 0x00};
  X509_EXTENSION *extension = find_extension(x509, OID_DELEGATION_USAGE);

  return extension != NULL && !X509_EXTENSION_get_critical(extension) &&
         bytes_equal(extension_value(extension), bytes_of(null, sizeof null));
}

// RFC 7633, section 4.1: Features ::= SEQUENCE OF INTEGER.
static bool is_must_staple(const X509 *x509) {
  X509_EXTENSION *extension = find_extension(x509, OID_TLS_FEATURE);
  struct bytes value;
  CBS cbs;
  CBS features;
  uint64_t feature = 0;

  if (extension == NULL) {
    return false;
  }
  value = extension_value(extension);
  CBS_init(&cbs, value.data, value.len);
  if (!CBS_get_asn1(&cbs, &features, CBS_ASN1_SEQUENCE)) {
    return false;
  }
  while (CBS_get_asn1_uint64(&features, &feature)) {
    if (feature == TLS_FEATURE_STATUS_REQUEST) {
      return true;
    }
  }
  return false;
}

static enum status read_extensions(struct cert_info *out, X509 *x509) {
  uint32_t flags = X509_get_extension_flags(x509);

  if (flags & EXFLAG_INVALID) {
    return STATUS_FORMAT;
  }
  // Without KeyUsage X509_get_key_usage says "everything"; a DC needs it said.
  out->has_digital_signature =
      (flags & EXFLAG_KUSAGE) && (X509_get_key_usage(x509) & X509v3_KU_DIGITAL_SIGNATURE);
  out->has_delegation_usage = has_delegation_usage(x509);
  out->is_must_staple = is_must_staple(x509);
  out->may_delegate = out->has_delegation_usage && out->has_digital_signature &&
                      out->kind != KEY_KIND_NONE && out->kind != KEY_KIND_RSA;
  return STATUS_OK;
}

// --- its texts -------------------------------------------------------------------

// take_text copies what was written to `bio` as a string, cut to fit.
static enum status take_text(char out[CERT_TEXT_LEN], BIO *bio) {
  const uint8_t *data = NULL;
  size_t len = 0;

  if (!BIO_mem_contents(bio, &data, &len)) {
    return STATUS_MEMORY;
  }
  if (len >= CERT_TEXT_LEN) {
    len = CERT_TEXT_LEN - 1;
  }
  if (len > 0) {
    memcpy(out, data, len);
  }
  out[len] = '\0';
  return STATUS_OK;
}

static enum status print_name(char out[CERT_TEXT_LEN], const X509_NAME *name) {
  BIO *bio = BIO_new(BIO_s_mem());
  enum status st = STATUS_MEMORY;

  if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_ONELINE & ~XN_FLAG_SPC_EQ) >= 0) {
    st = take_text(out, bio);
  }
  ERR_clear_error();
  BIO_free(bio);
  return st;
}

static enum status print_issuer(char out[CERT_TEXT_LEN], const X509_NAME *name) {
  int index = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  enum status st = STATUS_MEMORY;
  BIO *bio;

  if (index < 0) {
    return print_name(out, name);
  }
  bio = BIO_new(BIO_s_mem());
  if (bio != NULL &&
      ASN1_STRING_print_ex(
          bio, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, index)),
          ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB | ASN1_STRFLGS_UTF8_CONVERT) >= 0) {
    st = take_text(out, bio);
  }
  ERR_clear_error();
  BIO_free(bio);
  return st;
}

static enum status print_serial(char *out, size_t max, const ASN1_INTEGER *serial) {
  size_t len = (size_t)ASN1_STRING_length(serial);

  if (2 * len + 2 > max) {
    return STATUS_FORMAT;  // RFC 5280, section 4.1.2.2: at most 20 octets
  }
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) {
    *out++ = '-';
  }
  bytes_to_hex(out, bytes_of(ASN1_STRING_get0_data(serial), len));
  return STATUS_OK;
}

// --- its names -------------------------------------------------------------------

// lower_name returns a new lower-case copy of a dNSName, or NULL when it holds
// anything but printable ASCII (a NUL inside has fooled others).
static char *lower_name(struct bytes in) {
  char *name = malloc(in.len + 1);

  if (name == NULL) {
    return NULL;
  }
  for (size_t i = 0; i < in.len; i++) {
    if (in.data[i] <= ' ' || in.data[i] > '~') {
      free(name);
      return NULL;
    }
    name[i] = (char)tolower(in.data[i]);
  }
  name[in.len] = '\0';
  return name;
}

static enum status add_name(struct cert_info *out, const ASN1_IA5STRING *text) {
  char *name;

  if (out->num_names == CERT_MAX_NAMES) {
    return STATUS_LIMIT;
  }
  if (ASN1_STRING_length(text) == 0) {
    return STATUS_FORMAT;
  }
  name = lower_name(bytes_of(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text)));
  if (name == NULL) {
    return STATUS_FORMAT;
  }
  out->names[out->num_names++] = name;
  return STATUS_OK;
}

static enum status read_names(struct cert_info *out, const X509 *x509) {
  enum status st = STATUS_OK;
  int critical = 0;
  GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, &critical, NULL);
  size_t num;

  if (names == NULL) {
    return critical == -1 ? STATUS_OK : STATUS_FORMAT;  // -1: there is none
  }
  num = sk_GENERAL_NAME_num(names);
  out->names = calloc(num < CERT_MAX_NAMES ? num + 1 : CERT_MAX_NAMES, sizeof *out->names);
  if (out->names == NULL) {
    TRY(STATUS_MEMORY);
  }
  for (size_t i = 0; i < num; i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

    if (name->type == GEN_DNS) {
      TRY(add_name(out, name->d.dNSName));
    }
  }

out:
  GENERAL_NAMES_free(names);
  return st;
}

enum status cert_info_read(struct cert_info *out, struct bytes der, struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *part = "it is not one DER certificate";
  X509 *x509 = NULL;

  memset(out, 0, sizeof *out);
  if (der.len > CERT_MAX_LEN) {
    part = "it is too long";
    TRY(STATUS_LIMIT);
  }
  x509 = parse_x509(der);
  if (x509 == NULL) {
    TRY(STATUS_FORMAT);
  }
  SHA256(der.data, der.len, out->sha256);
  part = "its validity";
  TRY(time_to_posix(&out->not_before_s, X509_get0_notBefore(x509)));
  TRY(time_to_posix(&out->not_after_s, X509_get0_notAfter(x509)));
  part = "its public key";
  TRY(read_key(out, x509));
  part = "its extensions";
  TRY(read_extensions(out, x509));
  part = "its issuer";
  TRY(read_ca_id(out, x509));
  TRY(print_issuer(out->issuer, X509_get_issuer_name(x509)));
  part = "its subject";
  TRY(print_name(out->subject, X509_get_subject_name(x509)));
  part = "its serial number";
  TRY(print_serial(out->serial, sizeof out->serial, X509_get0_serialNumber(x509)));
  part = "its names";
  TRY(read_names(out, x509));

out:
  X509_free(x509);
  ERR_clear_error();
  if (st != STATUS_OK) {
    cert_info_cleanup(out);
    st = errmsg_set(err, st, "the certificate cannot be used: %s (%s)", part, status_name(st));
  }
  return st;
}

void cert_info_cleanup(struct cert_info *info) {
  for (size_t i = 0; i < info->num_names; i++) {
    free(info->names[i]);
  }
  free(info->names);
  memset(info, 0, sizeof *info);
}

static bool name_covers(const char *name, const char *host) {
  const char *dot;

  if (strcasecmp(name, host) == 0) {
    return true;
  }
  // RFC 6125, section 6.4.3: "*" is the whole left-most label and stands for one.
  dot = strchr(host, '.');
  return name[0] == '*' && name[1] == '.' && dot != NULL && dot != host && dot[1] != '\0' &&
         strcasecmp(name + 1, dot) == 0;
}

bool cert_info_covers(const struct cert_info *info, const char *host) {
  for (size_t i = 0; i < info->num_names; i++) {
    if (name_covers(info->names[i], host)) {
      return true;
    }
  }
  return false;
}

// --- chains ------------------------------------------------------------------------

struct chain_reader {
  CRYPTO_BUFFER **out;
  size_t num;
  const char *path;
  struct cert_pool *pool;
  X509 *last;
};

static enum status add_to_chain(void *arg, struct bytes der, struct errmsg *err) {
  struct chain_reader *reader = arg;
  X509 *x509 = NULL;

  if (reader->num == CERT_MAX_IN_CHAIN) {
    return errmsg_set(err, STATUS_LIMIT, "%s: more than %u certificates", reader->path,
                      CERT_MAX_IN_CHAIN);
  }
  x509 = parse_x509(der);
  if (x509 == NULL) {
    return errmsg_set(err, STATUS_FORMAT, "%s: certificate %zu cannot be parsed", reader->path,
                      reader->num + 1);
  }
  if (reader->last != NULL && X509_check_issued(x509, reader->last) != X509_V_OK) {
    X509_free(x509);
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: certificate %zu did not issue certificate %zu; order them leaf first, "
                      "each followed by its issuer",
                      reader->path, reader->num + 1, reader->num);
  }
  X509_free(reader->last);
  reader->last = x509;
  reader->out[reader->num] = cert_pool_take(reader->num == 0 ? NULL : reader->pool, der);
  if (reader->out[reader->num] == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", reader->path);
  }
  reader->num++;
  return STATUS_OK;
}

enum status cert_chain_read(CRYPTO_BUFFER *out[CERT_MAX_IN_CHAIN], size_t *out_num,
                            const char *path, struct cert_pool *pool, struct errmsg *err) {
  struct chain_reader reader = {.out = out, .path = path, .pool = pool};
  enum status st = pem_read_certificates(path, CERT_FILE_MAX_LEN, add_to_chain, &reader, err);

  X509_free(reader.last);
  ERR_clear_error();
  *out_num = reader.num;
  if (st != STATUS_OK) {
    cert_chain_give(out, reader.num, pool);
    *out_num = 0;
  }
  return st;
}

void cert_chain_give(CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN], size_t num, struct cert_pool *pool) {
  for (size_t i = 0; i < num; i++) {
    cert_pool_give(i == 0 ? NULL : pool, chain[i]);
    chain[i] = NULL;
  }
}

void cert_chain_free(CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN], size_t num) {
  cert_chain_give(chain, num, NULL);
}

// --- keys --------------------------------------------------------------------------

static EVP_PKEY *parse_pkcs8(CBS *cbs) { return EVP_parse_private_key(cbs); }

static EVP_PKEY *parse_sec1(CBS *cbs) {
  EC_KEY *ec = EC_KEY_parse_private_key(cbs, NULL);
  EVP_PKEY *key = ec == NULL ? NULL : EVP_PKEY_new();

  if (key != NULL && !EVP_PKEY_set1_EC_KEY(key, ec)) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  EC_KEY_free(ec);
  return key;
}

static EVP_PKEY *parse_pkcs1(CBS *cbs) {
  RSA *rsa = RSA_parse_private_key(cbs);
  EVP_PKEY *key = rsa == NULL ? NULL : EVP_PKEY_new();

  if (key != NULL && !EVP_PKEY_set1_RSA(key, rsa)) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  RSA_free(rsa);
  return key;
}

// parse_private_key tries the three syntaxes; none can be taken for another.
static EVP_PKEY *parse_private_key(struct bytes der) {
  static EVP_PKEY *(*const parsers[])(CBS * cbs) = {parse_pkcs8, parse_sec1, parse_pkcs1};
  EVP_PKEY *key = NULL;

  for (size_t i = 0; i < sizeof parsers / sizeof parsers[0] && key == NULL; i++) {
    CBS cbs;

    CBS_init(&cbs, der.data, der.len);
    key = parsers[i](&cbs);
    if (key != NULL && CBS_len(&cbs) != 0) {
      EVP_PKEY_free(key);
      key = NULL;
    }
  }
  ERR_clear_error();
  return key;
}

static bool is_key_we_sign_with(const EVP_PKEY *key) {
  enum key_kind kind = key_kind_of(key);

  if (kind == KEY_KIND_RSA) {
    return EVP_PKEY_bits(key) >= RSA_MIN_BITS && EVP_PKEY_bits(key) <= RSA_MAX_BITS;
  }
  return kind != KEY_KIND_NONE;
}

enum status key_parse(EVP_PKEY **out, struct bytes der, const char *name, struct errmsg *err) {
  EVP_PKEY *key = parse_private_key(der);

  *out = NULL;
  if (key == NULL) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: no private key that can be parsed (PEM or DER; PKCS#8, PKCS#1 or SEC1)",
                      name);
  }
  if (!is_key_we_sign_with(key)) {
    EVP_PKEY_free(key);
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: a kind of key that is not signed with here; use P-256, P-384, P-521, "
                      "Ed25519, or RSA of %d to %d bits",
                      name, RSA_MIN_BITS, RSA_MAX_BITS);
  }
  *out = key;
  return STATUS_OK;
}

enum status key_read(EVP_PKEY **out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct secret file = {0};
  struct secret der = {0};

  *out = NULL;
  TRY(secret_read_file(&file, path, CERT_FILE_MAX_LEN, true, err));
  st = pem_private_key_der(&der, bytes_of(file.data, file.len), path, err);
  if (st == STATUS_OK) {
    st = key_parse(out, bytes_of(der.data, der.len), path, err);
  } else if (st == STATUS_NOT_FOUND) {
    st = key_parse(out, bytes_of(file.data, file.len), path, err);
  }

out:
  secret_wipe(&der);
  secret_wipe(&file);
  return st;
}

enum status key_spki(uint8_t **out, size_t *out_len, const EVP_PKEY *key) {
  CBB cbb;

  *out = NULL;
  if (!CBB_init(&cbb, 128) || !EVP_marshal_public_key(&cbb, key) ||
      !CBB_finish(&cbb, out, out_len)) {
    CBB_cleanup(&cbb);
    ERR_clear_error();
    return STATUS_CRYPTO;
  }
  return STATUS_OK;
}

enum status key_identify(uint8_t out_key_id[32], uint8_t out_ski[20], const EVP_PKEY *key) {
  uint8_t *spki = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  TRY(key_spki(&spki, &len, key));
  TRY(key_identify_spki(out_key_id, out_ski, bytes_of(spki, len)));

out:
  OPENSSL_free(spki);
  return st;
}
