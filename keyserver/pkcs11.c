// SPDX-License-Identifier: Apache-2.0
#include "keyserver/pkcs11.h"

#include <dlfcn.h>
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <string.h>

#include "common/base/sandbox.h"

// --- modules -------------------------------------------------------------------------------

CK_RV pkcs11_initialize(struct pkcs11_module *module) {
  CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
  const CK_RV rv = module->calls->C_Initialize(&args);
  return rv == CKR_CRYPTOKI_ALREADY_INITIALIZED ? CKR_OK : rv;
}

enum status pkcs11_load(struct pkcs11_module *out, const char *path, struct errmsg *err) {
  CK_C_GetFunctionList get_list = NULL;
  CK_RV rv = CKR_OK;

  *out = (struct pkcs11_module){0};
  // LOCAL: its OpenSSL and our BoringSSL must not find each other.
  out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (out->handle == NULL) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be loaded: %s%s", path, dlerror(),
                      sandbox_hint(sandbox_state()->has_modules ? 0 : EACCES));
  }
  *(void **)&get_list = dlsym(out->handle, "C_GetFunctionList");
  if (get_list == NULL || get_list(&out->calls) != CKR_OK || out->calls == NULL) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: is no PKCS #11 module", path);
  }
  rv = pkcs11_initialize(out);
  if (rv != CKR_OK) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "%s: cannot be initialised: error 0x%lx", path, rv);
  }
  return STATUS_OK;
}

bool pkcs11_is_lost(CK_RV rv) {
  switch (rv) {
    case CKR_HOST_MEMORY:
    case CKR_SLOT_ID_INVALID:
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED:
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_MEMORY:
    case CKR_DEVICE_REMOVED:
    case CKR_KEY_HANDLE_INVALID:
    case CKR_OBJECT_HANDLE_INVALID:
    case CKR_SESSION_CLOSED:
    case CKR_SESSION_COUNT:
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_USER_NOT_LOGGED_IN:
    case CKR_CRYPTOKI_NOT_INITIALIZED:
      return true;
    default:
      return false;
  }
}

bool pkcs11_is_pin_refused(CK_RV rv) {
  switch (rv) {
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
    case CKR_PIN_EXPIRED:
    case CKR_PIN_LOCKED:
    case CKR_USER_PIN_NOT_INITIALIZED:
      return true;
    default:
      return false;
  }
}

// --- slots ---------------------------------------------------------------------------------

static bool fits_library(const struct pkcs11_module *module, const struct pkcs11_uri *uri) {
  CK_INFO info;

  if (module->calls->C_GetInfo(&info) != CKR_OK) {
    return false;
  }
  return pkcs11_uri_fits(uri, PKCS11_LIBRARY_MANUFACTURER,
                         bytes_of(info.manufacturerID, sizeof info.manufacturerID)) &&
         pkcs11_uri_fits(uri, PKCS11_LIBRARY_DESCRIPTION,
                         bytes_of(info.libraryDescription, sizeof info.libraryDescription));
}

static bool fits_slot(const struct pkcs11_module *module, CK_SLOT_ID slot,
                      const struct pkcs11_uri *uri) {
  CK_SLOT_INFO info;

  if (uri->values[PKCS11_SLOT_ID].is_set && uri->slot_id != slot) {
    return false;
  }
  if (module->calls->C_GetSlotInfo(slot, &info) != CKR_OK) {
    return false;
  }
  return pkcs11_uri_fits(uri, PKCS11_SLOT_MANUFACTURER,
                         bytes_of(info.manufacturerID, sizeof info.manufacturerID)) &&
         pkcs11_uri_fits(uri, PKCS11_SLOT_DESCRIPTION,
                         bytes_of(info.slotDescription, sizeof info.slotDescription));
}

static bool fits_token(const struct pkcs11_module *module, CK_SLOT_ID slot, CK_FLAGS *flags,
                       const struct pkcs11_uri *uri) {
  CK_TOKEN_INFO info;

  if (module->calls->C_GetTokenInfo(slot, &info) != CKR_OK ||
      (info.flags & CKF_TOKEN_INITIALIZED) == 0) {
    return false;
  }
  *flags = info.flags;
  return pkcs11_uri_fits(uri, PKCS11_TOKEN, bytes_of(info.label, sizeof info.label)) &&
         pkcs11_uri_fits(uri, PKCS11_MANUFACTURER,
                         bytes_of(info.manufacturerID, sizeof info.manufacturerID)) &&
         pkcs11_uri_fits(uri, PKCS11_MODEL, bytes_of(info.model, sizeof info.model)) &&
         pkcs11_uri_fits(uri, PKCS11_SERIAL, bytes_of(info.serialNumber, sizeof info.serialNumber));
}

enum status pkcs11_find_slot(CK_SLOT_ID *out, CK_FLAGS *out_flags,
                             const struct pkcs11_module *module, const struct pkcs11_uri *uri,
                             struct errmsg *err) {
  CK_SLOT_ID slots[PKCS11_MAX_SLOTS];
  CK_ULONG num = 0;
  size_t num_fit = 0;
  CK_RV rv = module->calls->C_GetSlotList(CK_TRUE, NULL, &num);  // lets it look for new ones

  num = PKCS11_MAX_SLOTS;
  rv = rv == CKR_OK ? module->calls->C_GetSlotList(CK_TRUE, slots, &num) : rv;
  if (rv != CKR_OK || num > PKCS11_MAX_SLOTS) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "its slots cannot be listed: error 0x%lx", rv);
  }
  for (CK_ULONG i = 0; i < num && fits_library(module, uri); i++) {
    CK_FLAGS flags = 0;
    if (fits_slot(module, slots[i], uri) && fits_token(module, slots[i], &flags, uri)) {
      *out = slots[i];
      *out_flags = flags;
      num_fit++;
    }
  }
  if (num_fit > 1) {
    return errmsg_set(err, STATUS_CONFIG,
                      "%zu tokens fit; say more in the URI, as serial=", num_fit);
  }
  return num_fit == 1 ? STATUS_OK : errmsg_set(err, STATUS_UNAVAILABLE, "no such token is there");
}

// --- objects ---------------------------------------------------------------------------------

static enum status find_objects(CK_OBJECT_HANDLE found[2], CK_ULONG *out_num,
                                const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                                CK_ATTRIBUTE *wanted, CK_ULONG num_wanted, struct errmsg *err) {
  CK_RV rv = module->calls->C_FindObjectsInit(session, wanted, num_wanted);

  *out_num = 0;
  if (rv == CKR_OK) {
    rv = module->calls->C_FindObjects(session, found, 2, out_num);
    (void)module->calls->C_FindObjectsFinal(session);
  }
  return rv == CKR_OK ? STATUS_OK
                      : errmsg_set(err, STATUS_UNAVAILABLE,
                                   "the token's objects cannot be searched: error 0x%lx", rv);
}

enum status pkcs11_find_key(CK_OBJECT_HANDLE *out, const struct pkcs11_module *module,
                            CK_SESSION_HANDLE session, const struct pkcs11_uri *uri,
                            struct errmsg *err) {
  const struct pkcs11_value *object = &uri->values[PKCS11_OBJECT];
  const struct pkcs11_value *id = &uri->values[PKCS11_ID];
  CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
  CK_ATTRIBUTE wanted[3] = {{CKA_CLASS, &class, sizeof class}};
  CK_ULONG num_wanted = 1;
  CK_OBJECT_HANDLE found[2] = {0};
  CK_ULONG num = 0;
  enum status st = STATUS_OK;

  if (object->is_set) {
    wanted[num_wanted++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)object->data, object->len};
  }
  if (id->is_set) {
    wanted[num_wanted++] = (CK_ATTRIBUTE){CKA_ID, (void *)(uintptr_t)id->data, id->len};
  }
  st = find_objects(found, &num, module, session, wanted, num_wanted, err);
  if (st != STATUS_OK) {
    return st;
  }
  if (num > 1) {
    return errmsg_set(err, STATUS_CONFIG, "more than one private key fits; give object= and id=");
  }
  *out = found[0];
  return num == 1 ? STATUS_OK
                  : errmsg_set(err, STATUS_NOT_FOUND, "there is no such private key on the token");
}

// read_attribute: STATUS_NOT_FOUND when the object has none, or will not tell.
static enum status read_attribute(struct bytes *out, uint8_t buffer[PKCS11_MAX_ATTRIBUTE_LEN],
                                  const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                                  CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type) {
  CK_ATTRIBUTE attribute = {type, buffer, PKCS11_MAX_ATTRIBUTE_LEN};
  const CK_RV rv = module->calls->C_GetAttributeValue(session, object, &attribute, 1);

  if (rv != CKR_OK || attribute.ulValueLen == 0 ||
      attribute.ulValueLen > PKCS11_MAX_ATTRIBUTE_LEN) {
    return STATUS_NOT_FOUND;
  }
  *out = bytes_of(buffer, attribute.ulValueLen);
  return STATUS_OK;
}

// --- public keys -------------------------------------------------------------------------------

static enum status parse_spki(EVP_PKEY **out, CBB *cbb) {
  uint8_t *der = NULL;
  size_t len = 0;
  CBS cbs;

  *out = NULL;
  if (!CBB_finish(cbb, &der, &len)) {
    CBB_cleanup(cbb);
    return STATUS_MEMORY;
  }
  CBS_init(&cbs, der, len);
  *out = EVP_parse_public_key(&cbs);
  OPENSSL_free(der);
  if (*out != NULL && CBS_len(&cbs) == 0 && key_kind_of(*out) != KEY_KIND_NONE) {
    return STATUS_OK;
  }
  EVP_PKEY_free(*out);
  *out = NULL;
  ERR_clear_error();
  return STATUS_FORMAT;
}

// CKA_EC_POINT is a DER OCTET STRING (PKCS #11 v2.40, section 2.3.3); some tokens
// give what is in it.
static struct bytes point_of(struct bytes value) {
  CBS cbs;
  CBS inside;

  CBS_init(&cbs, value.data, value.len);
  if (CBS_get_asn1(&cbs, &inside, CBS_ASN1_OCTETSTRING) && CBS_len(&cbs) == 0) {
    return bytes_of(CBS_data(&inside), CBS_len(&inside));
  }
  return value;
}

static bool is_edwards(struct bytes params) {
  static const uint8_t oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};  // RFC 8410, section 3
  static const uint8_t name[] =
      "\x13\x0c"
      "edwards25519";  // PKCS #11 v3.0: PrintableString
  return bytes_equal(params, bytes_of(oid, sizeof oid)) ||
         bytes_equal(params, bytes_of(name, sizeof name - 1));
}

enum status pkcs11_public_from_parts(EVP_PKEY **out, struct bytes params, struct bytes value) {
  static const uint8_t id_ec[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};  // RFC 5480
  static const uint8_t id_ed25519[] = {0x2b, 0x65, 0x70};
  const struct bytes point = point_of(value);
  const bool is_ed = is_edwards(params);
  CBB cbb;
  CBB spki;
  CBB algorithm;
  CBB oid;
  CBB bits;

  *out = NULL;
  if (!CBB_init(&cbb, 128)) {
    return STATUS_MEMORY;
  }
  if (!CBB_add_asn1(&cbb, &spki, CBS_ASN1_SEQUENCE) ||
      !CBB_add_asn1(&spki, &algorithm, CBS_ASN1_SEQUENCE) ||
      !CBB_add_asn1(&algorithm, &oid, CBS_ASN1_OBJECT) ||
      !CBB_add_bytes(&oid, is_ed ? id_ed25519 : id_ec, is_ed ? sizeof id_ed25519 : sizeof id_ec) ||
      (!is_ed && !CBB_add_bytes(&algorithm, params.data, params.len)) ||
      !CBB_add_asn1(&spki, &bits, CBS_ASN1_BITSTRING) || !CBB_add_u8(&bits, 0) ||
      !CBB_add_bytes(&bits, point.data, point.len)) {
    CBB_cleanup(&cbb);
    return STATUS_MEMORY;
  }
  return parse_spki(out, &cbb);
}

static enum status rsa_from_parts(EVP_PKEY **out, struct bytes modulus, struct bytes exponent) {
  BIGNUM *n = BN_bin2bn(modulus.data, modulus.len, NULL);
  BIGNUM *e = BN_bin2bn(exponent.data, exponent.len, NULL);
  RSA *rsa = RSA_new();
  EVP_PKEY *key = EVP_PKEY_new();
  enum status st = STATUS_FORMAT;

  if (n != NULL && e != NULL && rsa != NULL && RSA_set0_key(rsa, n, e, NULL)) {
    n = NULL;
    e = NULL;
    if (key != NULL && EVP_PKEY_set1_RSA(key, rsa) && key_kind_of(key) != KEY_KIND_NONE) {
      *out = key;
      key = NULL;
      st = STATUS_OK;
    }
  }
  BN_free(n);
  BN_free(e);
  RSA_free(rsa);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return st;
}

// find_public finds the public key object with the id, else the label, of `key`.
static bool find_public(CK_OBJECT_HANDLE *out, const struct pkcs11_module *module,
                        CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key) {
  static const CK_ATTRIBUTE_TYPE types[] = {CKA_ID, CKA_LABEL};

  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    uint8_t buffer[PKCS11_MAX_ATTRIBUTE_LEN];
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_OBJECT_HANDLE found[2] = {0};
    struct bytes value = {0};
    CK_ULONG num = 0;
    CK_ATTRIBUTE wanted[2] = {{CKA_CLASS, &class, sizeof class}};
    if (read_attribute(&value, buffer, module, session, key, types[i]) != STATUS_OK) {
      continue;
    }
    wanted[1] = (CK_ATTRIBUTE){types[i], buffer, value.len};
    if (find_objects(found, &num, module, session, wanted, 2, NULL) == STATUS_OK && num == 1) {
      *out = found[0];
      return true;
    }
  }
  return false;
}

// read_public_of reads the parts from one object, private or public.
static enum status read_public_of(EVP_PKEY **out, const struct pkcs11_module *module,
                                  CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object) {
  uint8_t first_buffer[PKCS11_MAX_ATTRIBUTE_LEN];
  uint8_t second_buffer[PKCS11_MAX_ATTRIBUTE_LEN];
  struct bytes first = {0};
  struct bytes second = {0};
  CK_KEY_TYPE type = 0;
  CK_ATTRIBUTE wanted = {CKA_KEY_TYPE, &type, sizeof type};
  const CK_RV rv = module->calls->C_GetAttributeValue(session, object, &wanted, 1);
  const bool is_rsa = type == CKK_RSA;

  if (rv != CKR_OK) {
    return pkcs11_is_lost(rv) ? STATUS_UNAVAILABLE : STATUS_FORMAT;
  }
  if (!is_rsa && type != CKK_EC && type != CKK_EC_EDWARDS) {
    return STATUS_FORMAT;
  }
  if (read_attribute(&first, first_buffer, module, session, object,
                     is_rsa ? CKA_MODULUS : CKA_EC_PARAMS) != STATUS_OK ||
      read_attribute(&second, second_buffer, module, session, object,
                     is_rsa ? CKA_PUBLIC_EXPONENT : CKA_EC_POINT) != STATUS_OK) {
    return STATUS_NOT_FOUND;
  }
  return is_rsa ? rsa_from_parts(out, first, second) : pkcs11_public_from_parts(out, first, second);
}

enum status pkcs11_read_public(EVP_PKEY **out, const struct pkcs11_module *module,
                               CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key,
                               struct errmsg *err) {
  CK_OBJECT_HANDLE public_key = 0;
  enum status st = read_public_of(out, module, session, key);

  if (st == STATUS_NOT_FOUND && find_public(&public_key, module, session, key)) {
    st = read_public_of(out, module, session, public_key);
  }
  if (st == STATUS_OK || st == STATUS_UNAVAILABLE) {
    return st;
  }
  return errmsg_set(err, STATUS_FORMAT,
                    "the token tells no public key of a kind that is used here; give the "
                    "certificate");
}

// --- signatures --------------------------------------------------------------------------------

enum status pkcs11_ec_signature(uint8_t *out, size_t max, size_t *out_len, struct bytes raw,
                                size_t field_len) {
  ECDSA_SIG *sig = NULL;
  BIGNUM *r = NULL;
  BIGNUM *s = NULL;
  CBB cbb;
  enum status st = STATUS_CRYPTO;

  *out_len = 0;
  if (raw.len != 2 * field_len) {
    return STATUS_CRYPTO;
  }
  sig = ECDSA_SIG_new();
  r = BN_bin2bn(raw.data, field_len, NULL);
  s = BN_bin2bn(raw.data + field_len, field_len, NULL);
  if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s)) {
    r = NULL;
    s = NULL;
    if (CBB_init_fixed(&cbb, out, max) && ECDSA_SIG_marshal(&cbb, sig) &&
        CBB_finish(&cbb, NULL, out_len)) {
      st = STATUS_OK;
    }
  }
  BN_free(r);
  BN_free(s);
  ECDSA_SIG_free(sig);
  return st;
}

static CK_RV call_sign(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                       CK_OBJECT_HANDLE key, CK_MECHANISM *mechanism, struct bytes data,
                       uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len) {
  CK_ULONG len = SCHEME_MAX_SIGNATURE_LEN;
  CK_RV rv = module->calls->C_SignInit(session, mechanism, key);

  *out_len = 0;
  if (rv == CKR_OK) {
    rv = module->calls->C_Sign(session, (CK_BYTE *)(uintptr_t)data.data, data.len, out, &len);
  }
  if (rv == CKR_OK && len > SCHEME_MAX_SIGNATURE_LEN) {
    return CKR_FUNCTION_REJECTED;
  }
  *out_len = rv == CKR_OK ? len : 0;
  return rv;
}

static CK_RV sign_ecdsa(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                        CK_OBJECT_HANDLE key, EVP_PKEY *public_key,
                        uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len,
                        struct bytes digest) {
  const size_t field_len = ((size_t)EVP_PKEY_bits(public_key) + 7) / 8;
  CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
  uint8_t raw[SCHEME_MAX_SIGNATURE_LEN];
  size_t raw_len = 0;
  CK_RV rv = CKR_OK;

  // A longer digest counts by its first bits (FIPS 186-4, section 6.4); not every
  // token cuts it by itself. All our curves have whole bytes but P-521, which no
  // digest reaches.
  digest.len = digest.len > field_len ? field_len : digest.len;
  rv = call_sign(module, session, key, &mechanism, digest, raw, &raw_len);
  if (rv == CKR_OK && pkcs11_ec_signature(out, SCHEME_MAX_SIGNATURE_LEN, out_len,
                                          bytes_of(raw, raw_len), field_len) != STATUS_OK) {
    rv = CKR_FUNCTION_REJECTED;
  }
  return rv;
}

static CK_RV sign_pss(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                      CK_OBJECT_HANDLE key, uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len,
                      struct bytes digest) {
  // RFC 8446, section 4.2.3: MGF1 with the same hash, the salt as long as the digest.
  CK_RSA_PKCS_PSS_PARAMS params = {CKM_SHA512, CKG_MGF1_SHA512, digest.len};
  CK_MECHANISM mechanism = {CKM_RSA_PKCS_PSS, &params, sizeof params};

  if (digest.len == 32) {
    params.hashAlg = CKM_SHA256;
    params.mgf = CKG_MGF1_SHA256;
  } else if (digest.len == 48) {
    params.hashAlg = CKM_SHA384;
    params.mgf = CKG_MGF1_SHA384;
  }
  return call_sign(module, session, key, &mechanism, digest, out, out_len);
}

static CK_RV sign_pkcs1(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                        CK_OBJECT_HANDLE key, uint8_t out[SCHEME_MAX_SIGNATURE_LEN],
                        size_t *out_len, struct bytes digest) {
  const int nid = digest.len == 32 ? NID_sha256 : digest.len == 48 ? NID_sha384 : NID_sha512;
  CK_MECHANISM mechanism = {CKM_RSA_PKCS, NULL, 0};
  uint8_t *info = NULL;
  size_t info_len = 0;
  int is_new = 0;
  CK_RV rv = CKR_HOST_MEMORY;

  if (RSA_add_pkcs1_prefix(&info, &info_len, &is_new, nid, digest.data, digest.len)) {
    rv = call_sign(module, session, key, &mechanism, bytes_of(info, info_len), out, out_len);
  }
  if (is_new) {
    OPENSSL_free(info);
  }
  return rv;
}

CK_RV pkcs11_sign(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                  CK_OBJECT_HANDLE key, EVP_PKEY *public_key, const struct scheme *scheme,
                  uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len, struct bytes digest) {
  CK_MECHANISM eddsa = {CKM_EDDSA, NULL, 0};

  switch (key_kind_of(public_key)) {
    case KEY_KIND_RSA:
      return scheme->is_pss ? sign_pss(module, session, key, out, out_len, digest)
                            : sign_pkcs1(module, session, key, out, out_len, digest);
    case KEY_KIND_ED25519:
      return call_sign(module, session, key, &eddsa, digest, out, out_len);
    case KEY_KIND_P256:
    case KEY_KIND_P384:
    case KEY_KIND_P521:
      return sign_ecdsa(module, session, key, public_key, out, out_len, digest);
    case KEY_KIND_NONE:
    default:
      return CKR_KEY_TYPE_INCONSISTENT;
  }
}
