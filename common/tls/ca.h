// SPDX-License-Identifier: Apache-2.0
// ca: what a CA is known by to those that it issued. A leaf names it by its key
// identifier, or else by its name (cert_info's ca_id); people have its certificate, or
// the hash of its key.
#ifndef DEPUTY_COMMON_TLS_CA_H_
#define DEPUTY_COMMON_TLS_CA_H_

#include "common/tls/cert.h"

struct cert_ca {
  uint8_t key_id[32];  // SHA-256 of the SubjectPublicKeyInfo
  bool has_key_identifier;
  uint8_t id_by_key[32];   // the ca_id of leaves that give its key identifier
  uint8_t id_by_name[32];  // ... and of those that do not
  char subject[CERT_TEXT_LEN];
};

// cert_ca_read: of a CA's certificate. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status cert_ca_read(struct cert_ca *out, struct bytes der, struct errmsg *err);

// cert_ca_load reads it from a file: DER, or the first certificate in PEM. And
// STATUS_SYSTEM.
enum status cert_ca_load(struct cert_ca *out, const char *path, struct errmsg *err);

#endif  // DEPUTY_COMMON_TLS_CA_H_
