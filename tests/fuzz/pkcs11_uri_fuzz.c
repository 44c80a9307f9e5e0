// SPDX-License-Identifier: Apache-2.0
// Targets: pkcs11_uri_parse, pkcs11_uri_format. What parses is written, parses to
// the same, and is then written to the same text.
#include <stdint.h>
#include <string.h>

#include "common/wire/pkcs11_uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static char once[PKCS11_URI_MAX_TEXT_LEN];
  static char twice[PKCS11_URI_MAX_TEXT_LEN];
  static struct pkcs11_uri uri;
  static struct pkcs11_uri again;
  const char *why = NULL;

  if (pkcs11_uri_parse(&uri, bytes_of(data, len), &why) != STATUS_OK) {
    CHECK(why != NULL && !uri.values[PKCS11_TOKEN].is_set);
    return 0;
  }
  CHECK(why == NULL);
  CHECK(pkcs11_uri_format(once, sizeof once, &uri) == STATUS_OK);
  // Everything in the longest form is more than a configuration may hold.
  if (strlen(once) > PKCS11_URI_MAX_LEN) {
    return 0;
  }
  CHECK(pkcs11_uri_parse(&again, bytes_text(once), NULL) == STATUS_OK);
  CHECK(pkcs11_uri_equal(&uri, &again) && uri.slot_id == again.slot_id);
  CHECK(pkcs11_uri_format(twice, sizeof twice, &again) == STATUS_OK);
  CHECK(strcmp(once, twice) == 0);
  return 0;
}
