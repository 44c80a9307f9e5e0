// SPDX-License-Identifier: Apache-2.0
// Targets: cert_der_parse, cert_der_measure, cert_der_next_name, cert_der_covers. Where
// BoringSSL's parser (cert_info_read) reads the certificate as well, both have found the
// same: an import must file a chain under what the proxy will see in it.
#include <openssl/err.h>
#include <stdint.h>
#include <string.h>

#include "common/tls/cert.h"
#include "common/wire/cert_der.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_names(const struct cert_der *cert) {
  char name[CERT_DER_MAX_NAME_LEN + 1];
  struct bytes names = cert->names;
  while (cert_der_next_name(name, &names)) {
    CHECK(name[0] != '\0' && strlen(name) <= CERT_DER_MAX_NAME_LEN);
    CHECK(cert_der_covers(cert, name));
  }
  (void)cert_der_covers(cert, "a.b.test");
}

static void compare(const struct cert_der *cert, const struct cert_info *info) {
  uint8_t id[32];
  cert_der_key_id(id, cert);
  CHECK(memcmp(id, info->key_id, 32) == 0);
  cert_der_ca_id(id, cert);
  CHECK(memcmp(id, info->ca_id, 32) == 0);
  cert_der_ski(id, cert);
  CHECK(memcmp(id, info->ski, 20) == 0);
  CHECK(cert->kind == info->kind);
  CHECK(cert->not_before_s == info->not_before_s && cert->not_after_s == info->not_after_s);
  CHECK(cert->has_delegation_usage == info->has_delegation_usage);
  CHECK(cert->has_digital_signature == info->has_digital_signature);
  CHECK(cert->is_must_staple == info->is_must_staple);
  for (size_t i = 0; i < info->num_names; i++) {
    CHECK(strlen(info->names[i]) > CERT_DER_MAX_NAME_LEN || cert_der_covers(cert, info->names[i]));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct bytes in = bytes_of(data, len);
  struct cert_der cert;
  struct cert_info info;
  struct errmsg err;
  size_t measured = 0;
  if (cert_der_parse(&cert, in) != STATUS_OK) {
    CHECK(cert.spki.data == NULL && cert.names.data == NULL);
    return 0;
  }
  CHECK(cert_der_measure(&measured, in) == STATUS_OK && measured == len);
  check_names(&cert);
  (void)cert_der_is_issued_by(&cert, &cert);
  if (cert_info_read(&info, in, &err) == STATUS_OK) {
    compare(&cert, &info);
    cert_info_cleanup(&info);
  }
  CHECK(ERR_peek_error() == 0);
  return 0;
}
