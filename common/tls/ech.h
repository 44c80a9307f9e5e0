// SPDX-License-Identifier: Apache-2.0
// ech: keys of Encrypted ClientHello (RFC 9849): with them a server reads the name that a
// client asks for, and nobody else on the way does.
#ifndef DEPUTY_COMMON_TLS_ECH_H_
#define DEPUTY_COMMON_TLS_ECH_H_

#include <openssl/ssl.h>
#include <stddef.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define ECH_MAX_FILES 8u
#define ECH_FILE_MAX_LEN (16u << 10)  // bytes
#define ECH_CONFIG_MAX_LEN 4096u      // of one ECHConfigList

// ech_keys_load reads files of RFC 9934's form: one PRIVATE KEY (PKCS #8, X25519) and one
// ECHCONFIG (an ECHConfigList), readable by their owner only. The configurations of the
// first file are what clients with outdated ones are given (retry_configs); the others
// only decrypt. New; SSL_ECH_KEYS_free.
//   STATUS_SYSTEM, STATUS_REFUSED  as secret_read_file
//   STATUS_FORMAT  not of this form, a key that does not belong to the configuration, two
//                  configurations with one id
//   STATUS_LIMIT, STATUS_MEMORY
enum status ech_keys_load(SSL_ECH_KEYS **out, char *const *paths, size_t num, struct errmsg *err);

#endif  // DEPUTY_COMMON_TLS_ECH_H_
