// SPDX-License-Identifier: Apache-2.0
// pem: certificates and one private key out of PEM text. Internal to common/tls
// (cert.h and context.h are what others use).
#ifndef DEPUTY_COMMON_TLS_PEM_H_
#define DEPUTY_COMMON_TLS_PEM_H_

#include <openssl/base.h>
#include <stdbool.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/secret.h"
#include "common/base/status.h"

// pem_read_certificates calls `on_certificate` with the DER of each CERTIFICATE
// block of the file, in order, until it fails. `path` is of at most `max` bytes.
//   STATUS_REFUSED  the file holds a private key
//   STATUS_FORMAT   no certificate in it, or a damaged block
//   STATUS_LIMIT    a certificate longer than CERT_MAX_LEN
// and what secret_read_file and `on_certificate` return.
enum status pem_read_certificates(const char *path, size_t max,
                                  enum status (*on_certificate)(void *arg, struct bytes der,
                                                                struct errmsg *err),
                                  void *arg, struct errmsg *err);

// pem_private_key_der finds the one private key of `text` and decodes it to DER
// in *out, whatever its syntax (PKCS#8, PKCS#1, SEC1). `name` stands for the
// file in the sentence.
//   STATUS_NOT_FOUND  no PEM in it (DER, perhaps)
//   STATUS_REFUSED    encrypted
//   STATUS_FORMAT     damaged, or more than one key
enum status pem_private_key_der(struct secret *out, struct bytes text, const char *name,
                                struct errmsg *err);

#endif  // DEPUTY_COMMON_TLS_PEM_H_
