// SPDX-License-Identifier: Apache-2.0
// Targets: cert_info_read, cert_info_covers. The issuer reads certificates that its
// clients send. What is read is whole: every text ends inside its field, and each
// name that is not a wildcard covers itself.
#include <openssl/err.h>
#include <stdint.h>
#include <string.h>

#include "common/tls/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_info(const struct cert_info *info) {
  CHECK(memchr(info->subject, '\0', sizeof info->subject) != NULL);
  CHECK(memchr(info->issuer, '\0', sizeof info->issuer) != NULL);
  CHECK(memchr(info->serial, '\0', sizeof info->serial) != NULL);
  CHECK(info->num_names <= CERT_MAX_NAMES);
  CHECK(!info->may_delegate ||
        (info->has_delegation_usage && info->has_digital_signature && info->kind != KEY_KIND_RSA));
  for (size_t i = 0; i < info->num_names; i++) {
    CHECK(info->names[i][0] != '\0');
    CHECK(cert_info_covers(info, info->names[i]));
  }
  (void)cert_info_covers(info, "a.b.test");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct cert_info info;
  struct errmsg err;

  if (cert_info_read(&info, bytes_of(data, len), &err) == STATUS_OK) {
    check_info(&info);
    cert_info_cleanup(&info);
  }
  CHECK(ERR_peek_error() == 0);
  return 0;
}
