// SPDX-License-Identifier: Apache-2.0
// pkcs11: modules of PKCS #11 (v2.40), and single steps with them: load, find a
// slot, log in, find a key, read its public half, sign. No state but the module's
// own, no retries: token.c has both. What a module returns is not trusted to be
// of the right length or form.
#ifndef DEPUTY_KEYSERVER_PKCS11_H_
#define DEPUTY_KEYSERVER_PKCS11_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <p11-kit/pkcs11.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "common/wire/pkcs11_uri.h"
#include "common/wire/scheme.h"

#define PKCS11_MAX_SLOTS 256u
#define PKCS11_MAX_ATTRIBUTE_LEN 2048u

// A loaded module; never unloaded, as many do not bear it.
struct pkcs11_module {
  void *handle;
  CK_FUNCTION_LIST *calls;
};

// pkcs11_load loads and initialises. STATUS_SYSTEM, STATUS_UNAVAILABLE.
enum status pkcs11_load(struct pkcs11_module *out, const char *path, struct errmsg *err);
CK_RV pkcs11_initialize(struct pkcs11_module *module);

// pkcs11_is_lost: does this mean that token, session or handle are gone, rather
// than that the token does not want to do this?
bool pkcs11_is_lost(CK_RV rv);
// pkcs11_is_pin_refused: would showing the PIN again only cost tries?
bool pkcs11_is_pin_refused(CK_RV rv);

// pkcs11_find_slot finds the one token that the URI names.
// STATUS_UNAVAILABLE: none; STATUS_CONFIG: more than one.
enum status pkcs11_find_slot(CK_SLOT_ID *out, CK_FLAGS *out_flags,
                             const struct pkcs11_module *module, const struct pkcs11_uri *uri,
                             struct errmsg *err);

// pkcs11_find_key finds the one private key that the URI names.
// STATUS_NOT_FOUND, STATUS_CONFIG (more than one), STATUS_UNAVAILABLE.
enum status pkcs11_find_key(CK_OBJECT_HANDLE *out, const struct pkcs11_module *module,
                            CK_SESSION_HANDLE session, const struct pkcs11_uri *uri,
                            struct errmsg *err);

// pkcs11_read_public returns new: the public half of that key, from the object
// itself or the public key object beside it. STATUS_FORMAT, STATUS_UNAVAILABLE.
enum status pkcs11_read_public(EVP_PKEY **out, const struct pkcs11_module *module,
                               CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, struct errmsg *err);

// pkcs11_sign makes one signature in the form that TLS has it. CKR_OK, or what
// the module said.
CK_RV pkcs11_sign(const struct pkcs11_module *module, CK_SESSION_HANDLE session,
                  CK_OBJECT_HANDLE key, EVP_PKEY *public_key, const struct scheme *scheme,
                  uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len, struct bytes digest);

// pkcs11_ec_signature makes the DER of (r, s) of a raw signature of an EC key;
// pkcs11_public_from_parts a key of CKA_EC_PARAMS and CKA_EC_POINT. For tests.
enum status pkcs11_ec_signature(uint8_t *out, size_t max, size_t *out_len, struct bytes raw,
                                size_t field_len);
enum status pkcs11_public_from_parts(EVP_PKEY **out, struct bytes params, struct bytes point);

#endif  // DEPUTY_KEYSERVER_PKCS11_H_
