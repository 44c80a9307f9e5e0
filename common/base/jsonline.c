// SPDX-License-Identifier: Apache-2.0
#include "common/base/jsonline.h"

#include <string.h>

#include "common/base/clock.h"

// The closing brace and, in the sink, the newline must always fit.
#define ROOM (SINK_LINE_MAX_LEN - 1)

static void put(struct jsonline *line, const char *text, size_t len) {
  if (line->is_cut || len > ROOM - line->len) {
    line->is_cut = true;
    return;
  }
  memcpy(line->text + line->len, text, len);
  line->len += len;
}

static void put_key(struct jsonline *line, const char *key) {
  if (line->len > 1) {
    put(line, ",", 1);
  }
  put(line, "\"", 1);
  put(line, key, strlen(key));
  put(line, "\":", 2);
}

static void put_escaped(struct jsonline *line, uint8_t byte) {
  static const char digits[] = "0123456789abcdef";
  char text[6] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
  if (byte == '"' || byte == '\\') {
    text[1] = (char)byte;
    put(line, text, 2);
  } else {
    put(line, text, sizeof(text));
  }
}

static bool is_plain(uint8_t byte) {
  return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

void jsonline_begin(struct jsonline *line) {
  line->text[0] = '{';
  line->len = 1;
  line->is_cut = false;
}

void jsonline_text(struct jsonline *line, const char *key, struct bytes value) {
  size_t start = 0;
  put_key(line, key);
  put(line, "\"", 1);
  for (size_t i = 0; i < value.len && !line->is_cut; i++) {
    if (is_plain(value.data[i])) {
      continue;
    }
    put(line, (const char *)value.data + start, i - start);
    put_escaped(line, value.data[i]);
    start = i + 1;
  }
  if (value.len > start) {
    put(line, (const char *)value.data + start, value.len - start);
  }
  put(line, "\"", 1);
}

void jsonline_cstr(struct jsonline *line, const char *key, const char *value) {
  jsonline_text(line, key, bytes_text(value));
}

void jsonline_hex(struct jsonline *line, const char *key, struct bytes value) {
  put_key(line, key);
  put(line, "\"", 1);
  if (line->is_cut || value.len > (ROOM - line->len) / 2) {
    line->is_cut = true;
    return;
  }
  // bytes_to_hex ends with a terminator: the last byte of text is kept free.
  bytes_to_hex(line->text + line->len, value);
  line->len += 2 * value.len;
  put(line, "\"", 1);
}

void jsonline_int(struct jsonline *line, const char *key, int64_t value) {
  char digits[24];
  size_t at = sizeof(digits);
  // As unsigned, so that the smallest number has a magnitude too.
  uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  do {
    digits[--at] = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  if (value < 0) {
    digits[--at] = '-';
  }
  put_key(line, key);
  put(line, digits + at, sizeof(digits) - at);
}

void jsonline_bool(struct jsonline *line, const char *key, bool value) {
  put_key(line, key);
  put(line, value ? "true" : "false", value ? 4 : 5);
}

void jsonline_time(struct jsonline *line, const char *key, int64_t wall_us) {
  char text[CLOCK_RFC3339_LEN];
  jsonline_cstr(line, key, clock_format_rfc3339_us(text, wall_us, 6));
}

enum status jsonline_end(struct jsonline *line, struct bytes *out) {
  if (line->is_cut) {
    *out = bytes_of(NULL, 0);
    return STATUS_LIMIT;
  }
  line->text[line->len] = '}';  // ROOM leaves one byte for it
  *out = bytes_of(line->text, line->len + 1);
  return STATUS_OK;
}
