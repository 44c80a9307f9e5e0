// SPDX-License-Identifier: Apache-2.0
#include "common/wire/pem_block.h"

#include <string.h>

#define BEGIN "-----BEGIN "
#define END "-----END "
#define DASHES "-----"
#define LABEL_MAX_LEN 64u
#define CUT_LEN (sizeof(BEGIN) - 2)  // as much of a mark may end the window

// find returns where `word` starts in `in`, or in.len.
static size_t find(struct bytes in, const char *word) {
  const uint8_t *at = in.len == 0 ? NULL : memmem(in.data, in.len, word, strlen(word));
  return at == NULL ? in.len : (size_t)(at - in.data);
}

static struct bytes after(struct bytes in, size_t offset) {
  return bytes_of(in.data + offset, in.len - offset);
}

static bool is_label(struct bytes label, const char *text) {
  return bytes_equal(label, bytes_text(text));
}

static enum pem_kind kind_of(struct bytes label) {
  if (is_label(label, "CERTIFICATE") || is_label(label, "X509 CERTIFICATE")) {
    return PEM_CERTIFICATE;
  }
  return find(label, "PRIVATE KEY") < label.len ? PEM_PRIVATE_KEY : PEM_OTHER;
}

// What an unfinished block means: more may come, unless it is too long already.
static enum status unfinished(struct bytes text, bool is_all) {
  if (text.len > PEM_BLOCK_MAX_LEN) {
    return STATUS_LIMIT;
  }
  return is_all ? STATUS_FORMAT : STATUS_AGAIN;
}

// read_end checks that `rest` (from the end mark on) closes the label.
static enum status read_end(size_t *out_len, struct bytes rest, struct bytes label, bool is_all,
                            struct bytes whole) {
  size_t len = strlen(END) + label.len + strlen(DASHES);
  if (rest.len < len) {
    return unfinished(whole, is_all);
  }
  if (!bytes_equal(bytes_of(rest.data + strlen(END), label.len), label) ||
      memcmp(rest.data + len - strlen(DASHES), DASHES, strlen(DASHES)) != 0) {
    return STATUS_FORMAT;
  }
  *out_len = len;
  return STATUS_OK;
}

enum status pem_next(struct pem_block *out, struct bytes *text, bool is_all) {
  enum status st = STATUS_OK;
  size_t begin = find(*text, BEGIN);
  *out = (struct pem_block){0};
  if (begin == text->len) {
    // The window may end within a mark.
    size_t kept = is_all ? 0 : text->len < CUT_LEN ? text->len : CUT_LEN;
    *text = after(*text, text->len - kept);
    return STATUS_NOT_FOUND;
  }
  *text = after(*text, begin);
  struct bytes rest = after(*text, strlen(BEGIN));
  size_t label_len =
      find(bytes_of(rest.data, rest.len < LABEL_MAX_LEN ? rest.len : LABEL_MAX_LEN), DASHES);
  if (label_len >= rest.len) {
    return unfinished(*text, is_all);
  }
  struct bytes label = bytes_of(rest.data, label_len);
  if (label_len == LABEL_MAX_LEN || memchr(label.data, '\n', label.len) != NULL) {
    return STATUS_FORMAT;
  }
  rest =
      after(rest, label_len + strlen(DASHES) <= rest.len ? label_len + strlen(DASHES) : rest.len);
  size_t end = find(rest, END);
  if (end == rest.len) {
    return unfinished(*text, is_all);
  }
  size_t end_len = 0;
  TRY(read_end(&end_len, after(rest, end), label, is_all, *text));
  if (end > PEM_BLOCK_MAX_LEN) {
    return STATUS_LIMIT;
  }
  out->kind = kind_of(label);
  out->body = bytes_of(rest.data, end);
  *text = after(rest, end + end_len);

out:
  return st;
}

// One more than the value of a base64 digit; 0: it may not stand there. These are
// certificates: no need for constant time.
#define BLANK 65
#define PAD 66
// clang-format off
static const uint8_t digits[256] = {
    ['A'] = 1, ['B'] = 2, ['C'] = 3, ['D'] = 4, ['E'] = 5, ['F'] = 6, ['G'] = 7, ['H'] = 8,
    ['I'] = 9, ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
    ['='] = PAD, ['\t'] = BLANK, ['\n'] = BLANK, ['\r'] = BLANK, [' '] = BLANK,
};
// clang-format on

// Four digits become three bytes; each '=' in place of a digit is a byte less.
struct group {
  uint32_t bits;
  unsigned num;       // digits and pads so far
  unsigned num_pads;  // at the end only, two at most
  bool is_last;       // padded: nothing may follow
};

static bool group_add(struct group *group, uint8_t digit) {
  bool is_pad = digit == PAD;
  if (digit == 0 || group->is_last || (is_pad ? group->num < 2 : group->num_pads > 0)) {
    return false;
  }
  group->bits = group->bits << 6 | (is_pad ? 0U : digit - 1U);
  group->num++;
  group->num_pads += is_pad ? 1 : 0;
  return true;
}

enum status pem_decode(uint8_t *out, size_t max, size_t *out_len, struct bytes body) {
  struct group group = {0};
  size_t len = 0;
  *out_len = 0;
  for (size_t i = 0; i < body.len; i++) {
    uint8_t digit = digits[body.data[i]];
    if (digit == BLANK) {
      continue;
    }
    if (!group_add(&group, digit)) {
      return STATUS_FORMAT;
    }
    if (group.num < 4) {
      continue;
    }
    if (3 - group.num_pads > max - len) {
      return STATUS_LIMIT;
    }
    for (unsigned j = 0; j < 3 - group.num_pads; j++) {
      out[len++] = (uint8_t)(group.bits >> (16 - 8 * j));
    }
    group = (struct group){.is_last = group.num_pads > 0};
  }
  if (group.num != 0) {
    return STATUS_FORMAT;
  }
  *out_len = len;
  return STATUS_OK;
}
