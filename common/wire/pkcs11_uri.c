// SPDX-License-Identifier: Apache-2.0
#include "common/wire/pkcs11_uri.h"

#include <string.h>
#include <strings.h>

#include "common/wire/writer.h"

#define SCHEME "pkcs11:"
#define FIRST_QUERY PKCS11_MODULE_NAME

// The longest values are those of PKCS #11's own fields (CK_INFO, CK_SLOT_INFO,
// CK_TOKEN_INFO); of names and ids, what a struct pkcs11_value holds.
static const struct row {
  const char *name;
  size_t max_len;
} rows[PKCS11_NUM_ATTRIBUTES] = {
    [PKCS11_LIBRARY_MANUFACTURER] = {"library-manufacturer", 32},
    [PKCS11_LIBRARY_DESCRIPTION] = {"library-description", 32},
    [PKCS11_LIBRARY_VERSION] = {"library-version", 7},
    [PKCS11_SLOT_MANUFACTURER] = {"slot-manufacturer", 32},
    [PKCS11_SLOT_DESCRIPTION] = {"slot-description", 64},
    [PKCS11_SLOT_ID] = {"slot-id", 20},
    [PKCS11_MANUFACTURER] = {"manufacturer", 32},
    [PKCS11_MODEL] = {"model", 16},
    [PKCS11_SERIAL] = {"serial", 16},
    [PKCS11_TOKEN] = {"token", 32},
    [PKCS11_ID] = {"id", PKCS11_URI_MAX_VALUE_LEN},
    [PKCS11_OBJECT] = {"object", PKCS11_URI_MAX_VALUE_LEN},
    [PKCS11_TYPE] = {"type", 10},
    [PKCS11_MODULE_NAME] = {"module-name", PKCS11_URI_MAX_VALUE_LEN},
    [PKCS11_MODULE_PATH] = {"module-path", PKCS11_URI_MAX_VALUE_LEN},
    [PKCS11_PIN_SOURCE] = {"pin-source", PKCS11_URI_MAX_VALUE_LEN},
    [PKCS11_PIN_VALUE] = {"pin-value", PKCS11_URI_MAX_VALUE_LEN},
};

const char *pkcs11_attribute_name(enum pkcs11_attribute attribute) {
  return (unsigned)attribute < PKCS11_NUM_ATTRIBUTES ? rows[attribute].name : "unknown";
}

// --- characters ------------------------------------------------------------------------

static bool is_alphanumeric(uint8_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// RFC 7512, section 2.3: pk11-pchar and pk11-qchar, without pct-encoded.
static bool is_allowed(uint8_t c, bool is_query) {
  static const char reserved[] = "-._~:[]@!$'()*+,=";
  if (is_alphanumeric(c) || (c != 0 && strchr(reserved, c) != NULL)) {
    return true;
  }
  return is_query ? c == '/' || c == '?' || c == '|' : c == '&';
}

static int hex_value(uint8_t c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// decode_char takes one character off `in`: itself, or %XX. -1: it may not stand there.
static int decode_char(struct bytes *in, bool is_query) {
  const uint8_t c = in->data[0];

  if (c != '%') {
    in->data++;
    in->len--;
    return is_allowed(c, is_query) ? c : -1;
  }
  if (in->len < 3 || hex_value(in->data[1]) < 0 || hex_value(in->data[2]) < 0) {
    return -1;
  }
  const int value = hex_value(in->data[1]) * 16 + hex_value(in->data[2]);
  in->data += 3;
  in->len -= 3;
  return value;
}

// --- parsing ---------------------------------------------------------------------------

static const char *decode_value(struct pkcs11_value *out, struct bytes text, size_t max_len,
                                bool is_query) {
  out->is_set = true;
  while (text.len > 0) {
    const int c = decode_char(&text, is_query);
    if (c < 0) {
      return "a character that has to be percent-encoded";
    }
    if (out->len == max_len) {
      return "a value that is longer than any token's";
    }
    out->data[out->len++] = (uint8_t)c;
  }
  return NULL;
}

static bool is_word(const struct pkcs11_value *value, const char *word) {
  return value->len == strlen(word) && memcmp(value->data, word, value->len) == 0;
}

static bool is_decimal(const uint8_t *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9') {
      return false;
    }
  }
  return len > 0;
}

static bool parse_slot_id(uint64_t *out, const struct pkcs11_value *value) {
  *out = 0;
  for (size_t i = 0; i < value->len; i++) {
    const uint64_t digit = (uint64_t)(value->data[i] - '0');
    if (*out > (UINT64_MAX - digit) / 10) {
      return false;
    }
    *out = *out * 10 + digit;
  }
  return true;
}

// RFC 7512: library-version is M.N, or M alone.
static bool is_version(const struct pkcs11_value *value) {
  const uint8_t *dot = memchr(value->data, '.', value->len);
  const size_t len = dot == NULL ? value->len : (size_t)(dot - value->data);

  return is_decimal(value->data, len) && (dot == NULL || is_decimal(dot + 1, value->len - len - 1));
}

static const char *check_value(struct pkcs11_uri *uri, enum pkcs11_attribute attribute) {
  static const char *const types[] = {"public", "private", "cert", "secret-key", "data"};
  const struct pkcs11_value *value = &uri->values[attribute];

  if (attribute == PKCS11_LIBRARY_VERSION) {
    return is_version(value) ? NULL : "library-version is not a number or two with a dot";
  }
  if (attribute == PKCS11_SLOT_ID) {
    return is_decimal(value->data, value->len) && parse_slot_id(&uri->slot_id, value)
               ? NULL
               : "slot-id is not a decimal number";
  }
  if (attribute != PKCS11_TYPE) {
    return NULL;
  }
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    if (is_word(value, types[i])) {
      return NULL;
    }
  }
  return "type is none of public, private, cert, secret-key, data";
}

static bool is_vendor_name(struct bytes name) {
  for (size_t i = 0; i < name.len; i++) {
    if (!is_alphanumeric(name.data[i]) && name.data[i] != '-' && name.data[i] != '_') {
      return false;
    }
  }
  return name.len > 0;
}

static int find_row(struct bytes name, bool is_query) {
  const int first = is_query ? (int)FIRST_QUERY : 0;
  const int end = is_query ? (int)PKCS11_NUM_ATTRIBUTES : (int)FIRST_QUERY;

  for (int i = first; i < end; i++) {
    if (bytes_equal(name, bytes_text(rows[i].name))) {
      return i;
    }
  }
  return -1;
}

static const char *parse_attribute(struct pkcs11_uri *uri, struct bytes text, bool is_query) {
  const uint8_t *equals = memchr(text.data, '=', text.len);
  struct bytes name;
  struct bytes value;
  struct pkcs11_value skipped = {0};
  const char *why = NULL;
  int at = 0;

  if (equals == NULL) {
    return "an attribute without \"=\"";
  }
  name = bytes_of(text.data, (size_t)(equals - text.data));
  value = bytes_of(equals + 1, text.len - name.len - 1);
  at = find_row(name, is_query);
  if (at < 0 && is_query && is_vendor_name(name) && find_row(name, false) < 0) {
    return decode_value(&skipped, value, sizeof skipped.data, true);
  }
  if (at < 0) {
    return "an attribute that is not known";
  }
  if (uri->values[at].is_set) {
    return "an attribute that comes twice";
  }
  why = decode_value(&uri->values[at], value, rows[at].max_len, is_query);
  return why != NULL ? why : check_value(uri, (enum pkcs11_attribute)at);
}

// parse_part reads the attributes of path or query.
static const char *parse_part(struct pkcs11_uri *uri, struct bytes text, bool is_query) {
  const uint8_t separator = is_query ? '&' : ';';

  for (;;) {
    const uint8_t *end = text.len == 0 ? NULL : memchr(text.data, separator, text.len);
    const size_t len = end == NULL ? text.len : (size_t)(end - text.data);
    const char *why =
        len == 0 ? "an empty attribute" : parse_attribute(uri, bytes_of(text.data, len), is_query);
    if (why != NULL) {
      return why;
    }
    if (end == NULL) {
      return NULL;
    }
    text = bytes_of(end + 1, text.len - len - 1);
  }
}

static const char *parse(struct pkcs11_uri *uri, struct bytes text) {
  const size_t scheme_len = strlen(SCHEME);
  const uint8_t *mark = NULL;
  struct bytes path;
  const char *why = NULL;

  if (text.len > PKCS11_URI_MAX_LEN) {
    return "it is too long";
  }
  // RFC 3986, section 3.1: schemes know no case.
  if (text.len < scheme_len || strncasecmp((const char *)text.data, SCHEME, scheme_len) != 0) {
    return "it does not begin with \"pkcs11:\"";
  }
  text = bytes_of(text.data + scheme_len, text.len - scheme_len);
  mark = text.len == 0 ? NULL : memchr(text.data, '?', text.len);
  path = bytes_of(text.data, mark == NULL ? text.len : (size_t)(mark - text.data));
  if (path.len > 0) {
    why = parse_part(uri, path, false);
  }
  if (why == NULL && mark != NULL) {
    why = parse_part(uri, bytes_of(mark + 1, text.len - path.len - 1), true);
  }
  return why;
}

enum status pkcs11_uri_parse(struct pkcs11_uri *out, struct bytes text, const char **why) {
  const char *reason = NULL;

  *out = (struct pkcs11_uri){0};
  reason = parse(out, text);
  if (reason != NULL) {
    *out = (struct pkcs11_uri){0};
  }
  if (why != NULL) {
    *why = reason;
  }
  return reason == NULL ? STATUS_OK : STATUS_FORMAT;
}

// --- and back ----------------------------------------------------------------------------

static void write_value(struct writer *w, const struct pkcs11_value *value, bool is_query) {
  static const char digits[] = "0123456789ABCDEF";

  for (size_t i = 0; i < value->len; i++) {
    const uint8_t c = value->data[i];
    if (is_allowed(c, is_query)) {
      writer_u8(w, c);
    } else {
      writer_u8(w, '%');
      writer_u8(w, (uint8_t)digits[c >> 4]);
      writer_u8(w, (uint8_t)digits[c & 15]);
    }
  }
}

enum status pkcs11_uri_format(char *out, size_t max, const struct pkcs11_uri *uri) {
  struct writer w = writer_of((uint8_t *)out, max);
  bool is_first = true;
  size_t len = 0;

  writer_bytes(&w, bytes_text(SCHEME));
  for (int i = 0; i < (int)PKCS11_NUM_ATTRIBUTES; i++) {
    const bool is_query = i >= (int)FIRST_QUERY;
    if (i == (int)FIRST_QUERY) {
      is_first = true;
    }
    if (!uri->values[i].is_set) {
      continue;
    }
    if (!is_first || is_query) {
      writer_u8(&w, is_first ? '?' : is_query ? '&' : ';');
    }
    is_first = false;
    writer_bytes(&w, bytes_text(rows[i].name));
    writer_u8(&w, '=');
    write_value(&w, &uri->values[i], is_query);
  }
  writer_u8(&w, 0);
  return writer_finish(&w, &len);
}

bool pkcs11_uri_fits(const struct pkcs11_uri *uri, enum pkcs11_attribute attribute,
                     struct bytes padded) {
  const struct pkcs11_value *value = &uri->values[attribute];
  size_t len = padded.len;

  if (!value->is_set) {
    return true;
  }
  while (len > 0 && padded.data[len - 1] == ' ') {
    len--;
  }
  return value->len == len && (len == 0 || memcmp(value->data, padded.data, len) == 0);
}

bool pkcs11_uri_equal(const struct pkcs11_uri *a, const struct pkcs11_uri *b) {
  for (int i = 0; i < (int)PKCS11_NUM_ATTRIBUTES; i++) {
    if (a->values[i].is_set != b->values[i].is_set ||
        !bytes_equal(bytes_of(a->values[i].data, a->values[i].len),
                     bytes_of(b->values[i].data, b->values[i].len))) {
      return false;
    }
  }
  return true;
}
