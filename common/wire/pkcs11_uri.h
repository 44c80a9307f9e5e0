// SPDX-License-Identifier: Apache-2.0
// pkcs11_uri: the URI that names a key on a token (RFC 7512), as
// "pkcs11:token=web;object=www;type=private". Text in, attributes out, and back; no
// I/O, no allocation. The text comes from our own configuration file.
//
// Strict where a slip would name another key: an attribute twice, one we do not
// know in the path (it would have narrowed the choice), characters that should
// have been percent-encoded, and values longer than the token's own fields.
// Vendor attributes of the query (RFC 7512, section 2.3) are skipped.
#ifndef DEPUTY_COMMON_WIRE_PKCS11_URI_H_
#define DEPUTY_COMMON_WIRE_PKCS11_URI_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define PKCS11_URI_MAX_LEN 4096u       // of the text
#define PKCS11_URI_MAX_VALUE_LEN 255u  // of one decoded value

enum pkcs11_attribute {
  // Path, in the order in which they are written.
  PKCS11_LIBRARY_MANUFACTURER,
  PKCS11_LIBRARY_DESCRIPTION,
  PKCS11_LIBRARY_VERSION,
  PKCS11_SLOT_MANUFACTURER,
  PKCS11_SLOT_DESCRIPTION,
  PKCS11_SLOT_ID,
  PKCS11_MANUFACTURER,
  PKCS11_MODEL,
  PKCS11_SERIAL,
  PKCS11_TOKEN,
  PKCS11_ID,
  PKCS11_OBJECT,
  PKCS11_TYPE,
  // Query.
  PKCS11_MODULE_NAME,
  PKCS11_MODULE_PATH,
  PKCS11_PIN_SOURCE,
  PKCS11_PIN_VALUE,
  PKCS11_NUM_ATTRIBUTES,
};

// One decoded value; not terminated, and of any bytes.
struct pkcs11_value {
  bool is_set;
  uint8_t len;
  uint8_t data[PKCS11_URI_MAX_VALUE_LEN];
};

struct pkcs11_uri {
  struct pkcs11_value values[PKCS11_NUM_ATTRIBUTES];
  uint64_t slot_id;  // of PKCS11_SLOT_ID
};

const char *pkcs11_attribute_name(enum pkcs11_attribute attribute);  // "slot-id"

// pkcs11_uri_parse fills *out. STATUS_FORMAT with a static sentence in *why (may
// be NULL); *out is then all zero.
enum status pkcs11_uri_parse(struct pkcs11_uri *out, struct bytes text, const char **why);

// pkcs11_uri_format writes the text with a terminator; `max` of
// PKCS11_URI_MAX_TEXT_LEN is always enough. STATUS_LIMIT.
#define PKCS11_URI_MAX_TEXT_LEN (PKCS11_NUM_ATTRIBUTES * (3u * PKCS11_URI_MAX_VALUE_LEN + 32u))
enum status pkcs11_uri_format(char *out, size_t max, const struct pkcs11_uri *uri);

// pkcs11_uri_equal: do both say the same?
bool pkcs11_uri_equal(const struct pkcs11_uri *a, const struct pkcs11_uri *b);

// pkcs11_uri_fits: is the attribute absent, or this text? A field of a token is
// padded with spaces, which do not count.
bool pkcs11_uri_fits(const struct pkcs11_uri *uri, enum pkcs11_attribute attribute,
                     struct bytes padded);

#endif  // DEPUTY_COMMON_WIRE_PKCS11_URI_H_
