// SPDX-License-Identifier: Apache-2.0
#include "common/base/bytes.h"

#include <openssl/base64.h>
#include <stdlib.h>
#include <string.h>

struct bytes bytes_text(const char *text) {
  return bytes_of(text, text == NULL ? 0 : strlen(text));
}

bool bytes_equal(struct bytes a, struct bytes b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

char *bytes_to_hex(char *out, struct bytes in) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < in.len; i++) {
    out[2 * i] = digits[in.data[i] >> 4];
    out[2 * i + 1] = digits[in.data[i] & 15];
  }
  out[2 * in.len] = '\0';
  return out;
}

static int hex_value(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return -1;
}

enum status bytes_from_hex(uint8_t *out, size_t len, const char *text) {
  for (size_t i = 0; i < len; i++) {
    // The first digit is tested before the second is read: the text may end.
    int high = hex_value(text[2 * i]);
    int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);
    if (low < 0) {
      return STATUS_FORMAT;
    }
    out[i] = (uint8_t)(high << 4 | low);
  }
  return text[2 * len] == '\0' ? STATUS_OK : STATUS_FORMAT;
}

char *bytes_to_base64(struct bytes in) {
  size_t len = 0;
  char *text = NULL;
  if (!EVP_EncodedLength(&len, in.len)) {
    return NULL;
  }
  text = malloc(len);  // counts the terminator
  if (text != NULL) {
    text[EVP_EncodeBlock((uint8_t *)text, in.data, in.len)] = '\0';
  }
  return text;
}

enum status bytes_from_base64(uint8_t **out, size_t *out_len, struct bytes text, size_t max) {
  size_t room = 0;
  size_t len = 0;
  uint8_t *data = NULL;

  *out = NULL;
  *out_len = 0;
  if (!EVP_DecodedLength(&room, text.len)) {
    return STATUS_FORMAT;
  }
  // room still counts the padding, at most two bytes.
  if (room > max && room - max > 2) {
    return STATUS_LIMIT;
  }
  data = malloc(room + 1);
  if (data == NULL) {
    return STATUS_MEMORY;
  }
  if (room > 0 && !EVP_DecodeBase64(data, &len, room, text.data, text.len)) {
    free(data);
    return STATUS_FORMAT;
  }
  if (len > max) {
    free(data);
    return STATUS_LIMIT;
  }
  *out = data;
  *out_len = len;
  return STATUS_OK;
}

uint8_t *bytes_copy(struct bytes in) {
  uint8_t *copy = malloc(in.len + 1);
  if (copy != NULL && in.len > 0) {
    memcpy(copy, in.data, in.len);
  }
  return copy;
}
