// SPDX-License-Identifier: Apache-2.0
#include "common/wire/ticket_keys.h"

#include <openssl/bytestring.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#define TIME_LEN 20u  // 2026-11-22T06:00:00Z

static int hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_secret(uint8_t out[TICKET_KEYS_SECRET_LEN], struct bytes text) {
  if (text.len != (size_t)2 * TICKET_KEYS_SECRET_LEN) {
    return false;
  }
  for (size_t i = 0; i < TICKET_KEYS_SECRET_LEN; i++) {
    const int high = hex_digit(text.data[2 * i]);
    const int low = hex_digit(text.data[2 * i + 1]);
    if (high < 0 || low < 0) {
      return false;
    }
    out[i] = (uint8_t)(high << 4 | low);
  }
  return true;
}

// number reads `len` decimal digits within [min, max], or returns -1.
static int number(const uint8_t *text, size_t len, int min, int max) {
  int value = 0;

  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9') {
      return -1;
    }
    value = 10 * value + (text[i] - '0');
  }
  return value < min || value > max ? -1 : value;
}

static bool read_time(int64_t *out_s, const uint8_t text[TIME_LEN]) {
  static const char form[] = "____-__-__T__:__:__Z";
  const int month = number(text + 5, 2, 1, 12);
  struct tm tm = {.tm_year = number(text, 4, 1970, 9999) - 1900,
                  .tm_mon = month - 1,
                  .tm_mday = number(text + 8, 2, 1, 31),
                  .tm_hour = number(text + 11, 2, 0, 23),
                  .tm_min = number(text + 14, 2, 0, 59),
                  .tm_sec = number(text + 17, 2, 0, 59)};
  const int day = tm.tm_mday;

  for (size_t i = 0; i < TIME_LEN; i++) {
    if (form[i] != '_' && text[i] != (uint8_t)form[i]) {
      return false;
    }
  }
  if (tm.tm_year < 0 || month < 0 || day < 0 || tm.tm_hour < 0 || tm.tm_min < 0 || tm.tm_sec < 0) {
    return false;
  }
  *out_s = timegm(&tm);
  return tm.tm_mday == day;  // there is no 31st of November
}

static const char *add(struct ticket_keys *out, struct bytes line) {
  const size_t at = out->num;

  if (line.len < TIME_LEN + 1 || line.data[TIME_LEN] != ' ' ||
      !read_time(&out->keys[at].from_s, line.data)) {
    return "a line is a time as 2026-11-22T06:00:00Z, a space and a key";
  }
  if (!read_secret(out->keys[at].secret,
                   bytes_of(line.data + TIME_LEN + 1, line.len - TIME_LEN - 1))) {
    return "a key is 64 hexadecimal digits";
  }
  if (at > 0 && out->keys[at].from_s <= out->keys[at - 1].from_s) {
    return "its time is not after that of the key before";
  }
  for (size_t i = 0; i < at; i++) {
    if (memcmp(out->keys[i].secret, out->keys[at].secret, TICKET_KEYS_SECRET_LEN) == 0) {
      return "the same key was there before";
    }
  }
  out->num += 1;
  return NULL;
}

static struct bytes take_line(struct bytes *rest) {
  const uint8_t *end = memchr(rest->data, '\n', rest->len);
  const size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
  const struct bytes line = bytes_of(rest->data, len);
  const size_t used = end == NULL ? len : len + 1;

  *rest = bytes_of(rest->data + used, rest->len - used);
  return line;
}

enum status ticket_keys_parse(struct ticket_keys *out, struct bytes text, size_t *out_line,
                              const char **out_why) {
  memset(out, 0, sizeof *out);
  *out_line = 0;
  *out_why = NULL;
  while (text.len > 0) {
    const struct bytes line = take_line(&text);

    *out_line += 1;
    if (line.len == 0 || line.data[0] == '#') {
      continue;
    }
    if (out->num == TICKET_KEYS_MAX) {
      *out_why = "there are more than 8 keys; remove the oldest";
      return STATUS_LIMIT;
    }
    *out_why = add(out, line);
    if (*out_why != NULL) {
      return STATUS_FORMAT;
    }
  }
  if (out->num == 0) {
    *out_why = "there is no key in it";
    return STATUS_FORMAT;
  }
  return STATUS_OK;
}

size_t ticket_keys_current(const struct ticket_keys *keys, int64_t now_s, int64_t *out_next_s) {
  size_t current = 0;

  while (current + 1 < keys->num && keys->keys[current + 1].from_s <= now_s) {
    current++;
  }
  *out_next_s = current + 1 < keys->num ? keys->keys[current + 1].from_s : INT64_MAX;
  return current;
}

// --- from one process to the next ------------------------------------------------------------

#define SET_VERSION 1

size_t ticket_key_set_encode(uint8_t out[TICKET_KEY_SET_MAX_LEN],
                             const struct ticket_key_set *set) {
  CBB cbb;
  uint8_t *bytes = NULL;
  size_t len = 0;

  CHECK(set->num >= 1 && set->num <= TICKET_KEYS_MAX && set->age_ms >= 0);
  CHECK(CBB_init_fixed(&cbb, out, TICKET_KEY_SET_MAX_LEN) && CBB_add_u8(&cbb, SET_VERSION) &&
        CBB_add_u8(&cbb, set->is_shared ? 1 : 0) && CBB_add_u64(&cbb, (uint64_t)set->age_ms) &&
        CBB_add_u8(&cbb, (uint8_t)set->num) &&
        CBB_add_bytes(&cbb, set->secrets[0], set->num * TICKET_KEYS_SECRET_LEN) &&
        CBB_finish(&cbb, &bytes, &len));
  return len;
}

enum status ticket_key_set_decode(struct ticket_key_set *out, struct bytes in) {
  CBS cbs;
  uint8_t version = 0;
  uint8_t is_shared = 0;
  uint8_t num = 0;
  uint64_t age_ms = 0;

  memset(out, 0, sizeof *out);
  CBS_init(&cbs, in.data, in.len);
  if (!CBS_get_u8(&cbs, &version) || version != SET_VERSION || !CBS_get_u8(&cbs, &is_shared) ||
      is_shared > 1 || !CBS_get_u64(&cbs, &age_ms) || age_ms > INT64_MAX ||
      !CBS_get_u8(&cbs, &num) || num < 1 || num > TICKET_KEYS_MAX ||
      CBS_len(&cbs) != (size_t)num * TICKET_KEYS_SECRET_LEN) {
    return STATUS_FORMAT;
  }
  out->is_shared = is_shared == 1;
  out->age_ms = (int64_t)age_ms;
  out->num = num;
  return CBS_copy_bytes(&cbs, out->secrets[0], CBS_len(&cbs)) ? STATUS_OK : STATUS_FORMAT;
}
