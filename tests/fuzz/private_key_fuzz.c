// SPDX-License-Identifier: Apache-2.0
// Target: pem_private_key_der. What is found is never longer than its base64.
#include <openssl/err.h>
#include <stdint.h>

#include "common/tls/pem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct secret der = {0};
  struct errmsg err;

  if (pem_private_key_der(&der, bytes_of(data, len), "key.pem", &err) == STATUS_OK) {
    CHECK(der.len <= len);
    secret_wipe(&der);
  }
  CHECK(der.data == NULL);
  CHECK(ERR_peek_error() == 0);
  return 0;
}
