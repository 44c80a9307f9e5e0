// SPDX-License-Identifier: Apache-2.0
#include "common/wire/http_head.h"

#include <string.h>
#include <strings.h>

#define MAX_LENGTH_DIGITS 18u  // of Content-Length: fits 64 bits
#define MAX_CHUNK_DIGITS 15u   // hexadecimal: fits 60 bits

static enum status refuse(struct http_head *head, int code, const char *why) {
  head->refusal = code;
  head->why = why;
  return STATUS_FORMAT;
}

// RFC 9110, section 5.6.2: tchar.
static bool is_token_char(uint8_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct bytes in) {
  for (size_t i = 0; i < in.len; i++) {
    if (!is_token_char(in.data[i])) {
      return false;
    }
  }
  return in.len > 0;
}

static bool equals_folded(struct bytes in, const char *text) {
  return in.len == strlen(text) && strncasecmp((const char *)in.data, text, in.len) == 0;
}

static struct bytes trim(struct bytes in) {
  while (in.len > 0 && (in.data[0] == ' ' || in.data[0] == '\t')) {
    in.data++;
    in.len--;
  }
  while (in.len > 0 && (in.data[in.len - 1] == ' ' || in.data[in.len - 1] == '\t')) {
    in.len--;
  }
  return in;
}

// Cuts off what stands before `delimiter` and moves past it. False: none there.
static bool cut(struct bytes *rest, struct bytes *out, uint8_t delimiter) {
  const uint8_t *at = rest->len == 0 ? NULL : memchr(rest->data, delimiter, rest->len);
  if (at == NULL) {
    return false;
  }
  *out = bytes_of(rest->data, (size_t)(at - rest->data));
  *rest = bytes_of(at + 1, rest->len - out->len - 1);
  return true;
}

enum status http_head_measure(size_t *scanned, struct bytes in, size_t *out_len) {
  for (size_t i = *scanned; i < in.len; i++) {
    const uint8_t *at = in.data + i;
    if (*at == 0 || (*at == '\n' && (i == 0 || at[-1] != '\r')) ||
        (*at != '\n' && i > 0 && at[-1] == '\r')) {
      return STATUS_FORMAT;
    }
    if (*at == '\n' && i >= 3 && at[-2] == '\n') {
      *out_len = i + 1;
      return STATUS_OK;
    }
  }
  *scanned = in.len;
  return STATUS_AGAIN;
}

// The next line without its CRLF; the measure has seen that there is one.
static bool cut_line(struct bytes *rest, struct bytes *line) {
  if (!cut(rest, line, '\n') || line->len == 0 || line->data[line->len - 1] != '\r') {
    return false;
  }
  line->len--;
  return true;
}

static enum status parse_version(struct http_head *head, struct bytes version) {
  const uint8_t *v = version.data;
  if (version.len != 8 || memcmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' || v[6] != '.' ||
      v[7] < '0' || v[7] > '9') {
    return refuse(head, 400, "the request line is malformed");
  }
  if (v[5] != '1') {
    return refuse(head, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  }
  head->is_http10 = v[7] == '0';
  head->is_last = head->is_http10;
  return STATUS_OK;
}

// RFC 9112, section 3: one space on either side of the target, which is in
// origin-form as this is no proxy.
static enum status parse_request_line(struct http_head *head, struct bytes line) {
  if (!cut(&line, &head->method, ' ') || !cut(&line, &head->target, ' ') ||
      !is_token(head->method)) {
    return refuse(head, 400, "the request line is malformed");
  }
  if (head->method.len > HTTP_HEAD_MAX_METHOD_LEN) {
    return refuse(head, 501, "unknown method");
  }
  for (size_t i = 0; i < head->target.len; i++) {
    if (head->target.data[i] <= 0x20 || head->target.data[i] >= 0x7f) {
      return refuse(head, 400, "the request target holds bytes that must be encoded");
    }
  }
  if (head->target.len == 0 || head->target.data[0] != '/' ||
      memchr(head->target.data, '#', head->target.len) != NULL) {
    return refuse(head, 400, "the request target must be a path");
  }
  return parse_version(head, line);
}

static enum status parse_field(struct http_head *head, struct bytes line) {
  struct http_field field = {0};
  if (head->num_fields == HTTP_HEAD_MAX_FIELDS) {
    return refuse(head, 431, "too many header fields");
  }
  // A blank before the colon, and a folded line, are refused by is_token (RFC
  // 9112, sections 5.1 and 5.2).
  if (!cut(&line, &field.name, ':') || !is_token(field.name)) {
    return refuse(head, 400, "a header field is malformed");
  }
  field.value = trim(line);
  for (size_t i = 0; i < field.value.len; i++) {
    uint8_t c = field.value.data[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f) {
      return refuse(head, 400, "a header field holds a control character");
    }
  }
  head->fields[head->num_fields++] = field;
  return STATUS_OK;
}

struct bytes http_head_find(const struct http_head *head, const char *name) {
  for (size_t i = 0; i < head->num_fields; i++) {
    if (equals_folded(head->fields[i].name, name)) {
      return head->fields[i].value;
    }
  }
  return (struct bytes){0};
}

static size_t count_fields(const struct http_head *head, const char *name) {
  size_t num = 0;
  for (size_t i = 0; i < head->num_fields; i++) {
    num += equals_folded(head->fields[i].name, name) ? 1 : 0;
  }
  return num;
}

// RFC 9112, section 6: with both framings, or one of them twice, two readers may
// see two different requests.
static enum status parse_framing(struct http_head *head) {
  struct bytes length = http_head_find(head, "Content-Length");
  struct bytes coding = http_head_find(head, "Transfer-Encoding");
  size_t num_lengths = count_fields(head, "Content-Length");
  size_t num_codings = count_fields(head, "Transfer-Encoding");

  if (num_lengths + num_codings > 1) {
    return refuse(head, 400, "the length of the body is ambiguous");
  }
  if (num_codings == 1) {
    if (head->is_http10) {
      return refuse(head, 400, "HTTP/1.0 has no transfer codings");
    }
    if (!equals_folded(coding, "chunked")) {
      return refuse(head, 501, "the only transfer coding here is chunked");
    }
    head->is_chunked = true;
  }
  if (num_lengths == 1) {
    if (length.len == 0 || length.len > MAX_LENGTH_DIGITS) {
      return refuse(head, 400, "Content-Length is no number of bytes");
    }
    for (size_t i = 0; i < length.len; i++) {
      if (length.data[i] < '0' || length.data[i] > '9') {
        return refuse(head, 400, "Content-Length is no number of bytes");
      }
      head->content_length = head->content_length * 10 + (uint64_t)(length.data[i] - '0');
    }
  }
  return STATUS_OK;
}

static void parse_connection(struct http_head *head) {
  for (size_t i = 0; i < head->num_fields; i++) {
    struct bytes rest = head->fields[i].value;
    struct bytes option = {0};
    if (!equals_folded(head->fields[i].name, "Connection")) {
      continue;
    }
    while (cut(&rest, &option, ',')) {
      head->is_last |= equals_folded(trim(option), "close");
    }
    head->is_last |= equals_folded(trim(rest), "close");
  }
}

static enum status parse_meaning(struct http_head *head) {
  enum status st = STATUS_OK;
  size_t num_hosts = count_fields(head, "Host");
  size_t num_expects = count_fields(head, "Expect");

  // RFC 9112, section 3.2.
  if (num_hosts > 1 || (num_hosts == 0 && !head->is_http10)) {
    return refuse(head, 400, "one Host field is needed");
  }
  TRY(parse_framing(head));
  if (num_expects > 0 && !head->is_http10) {
    if (num_expects > 1 || !equals_folded(http_head_find(head, "Expect"), "100-continue")) {
      return refuse(head, 417, "the only expectation met here is 100-continue");
    }
    head->expects_continue = true;
  }
  parse_connection(head);

out:
  return st;
}

enum status http_head_parse(struct http_head *out, struct bytes in) {
  enum status st = STATUS_OK;
  struct bytes line = {0};

  *out = (struct http_head){0};
  if (!cut_line(&in, &line)) {
    return refuse(out, 400, "the request line is malformed");
  }
  TRY(parse_request_line(out, line));
  for (;;) {
    if (!cut_line(&in, &line)) {
      return refuse(out, 400, "a header field is malformed");
    }
    if (line.len == 0) {
      break;
    }
    TRY(parse_field(out, line));
  }
  if (in.len != 0) {
    return refuse(out, 400, "bytes follow the head");
  }
  st = parse_meaning(out);

out:
  return st;
}

// --- chunks --------------------------------------------------------------------

enum {
  CHUNK_SIZE,
  CHUNK_EXTENSION,
  CHUNK_SIZE_LF,
  CHUNK_DATA,
  CHUNK_DATA_CR,
  CHUNK_DATA_LF,
  CHUNK_TRAILER_START,  // of a line
  CHUNK_TRAILER,        // within one
  CHUNK_TRAILER_LF,
  CHUNK_END_LF,
  CHUNK_END,
};

static int hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
    return (c | 0x20) - 'a' + 10;
  }
  return -1;
}

static enum status step_size(struct http_chunked *ch, uint8_t c) {
  int digit = hex_digit(c);
  if (++ch->line_len > HTTP_CHUNK_MAX_LINE_LEN) {
    return STATUS_FORMAT;
  }
  if (ch->state == CHUNK_SIZE && digit >= 0) {
    if (++ch->num_digits > MAX_CHUNK_DIGITS) {
      return STATUS_FORMAT;
    }
    ch->left = ch->left << 4 | (uint64_t)digit;
    return STATUS_AGAIN;
  }
  if (ch->num_digits == 0) {
    return STATUS_FORMAT;
  }
  if (c == '\r') {
    ch->state = CHUNK_SIZE_LF;
    return STATUS_AGAIN;
  }
  // Extensions have no meaning here (RFC 9112, section 7.1.1), but a bare LF or
  // another control character has none anywhere.
  if ((c < 0x20 && c != '\t') || (ch->state == CHUNK_SIZE && c != ';' && c != ' ' && c != '\t')) {
    return STATUS_FORMAT;
  }
  ch->state = CHUNK_EXTENSION;
  return STATUS_AGAIN;
}

static enum status step_trailer(struct http_chunked *ch, uint8_t c) {
  if (++ch->line_len > HTTP_CHUNK_MAX_TRAILER_LEN) {
    return STATUS_FORMAT;
  }
  if (c == '\r') {
    ch->state = ch->state == CHUNK_TRAILER_START ? CHUNK_END_LF : CHUNK_TRAILER_LF;
    return STATUS_AGAIN;
  }
  if ((c < 0x20 && c != '\t') || (ch->state == CHUNK_TRAILER_START && !is_token_char(c))) {
    return STATUS_FORMAT;
  }
  ch->state = CHUNK_TRAILER;
  return STATUS_AGAIN;
}

// One byte that is no data.
static enum status step(struct http_chunked *ch, uint8_t c) {
  switch (ch->state) {
    case CHUNK_SIZE:
    case CHUNK_EXTENSION:
      return step_size(ch, c);
    case CHUNK_DATA_CR:
      ch->state = CHUNK_DATA_LF;
      return c == '\r' ? STATUS_AGAIN : STATUS_FORMAT;
    case CHUNK_TRAILER_START:
    case CHUNK_TRAILER:
      return step_trailer(ch, c);
    default:
      break;
  }
  if (c != '\n') {
    return STATUS_FORMAT;
  }
  switch (ch->state) {
    case CHUNK_SIZE_LF:
      ch->state = ch->left == 0 ? CHUNK_TRAILER_START : CHUNK_DATA;
      ch->line_len = 0;
      ch->num_digits = 0;
      return STATUS_AGAIN;
    case CHUNK_DATA_LF:
      ch->state = CHUNK_SIZE;
      return STATUS_AGAIN;
    case CHUNK_TRAILER_LF:
      ch->state = CHUNK_TRAILER_START;
      return STATUS_AGAIN;
    case CHUNK_END_LF:
      ch->state = CHUNK_END;
      return STATUS_OK;
    default:
      return STATUS_FORMAT;
  }
}

enum status http_chunked_decode(struct http_chunked *chunked, struct bytes in, size_t *out_used,
                                struct bytes *out_data) {
  size_t used = 0;
  *out_used = 0;
  *out_data = (struct bytes){0};
  while (used < in.len) {
    enum status st = STATUS_OK;
    if (chunked->state == CHUNK_DATA) {
      size_t len = in.len - used;
      if (len > chunked->left) {
        len = (size_t)chunked->left;
      }
      *out_data = bytes_of(in.data + used, len);
      *out_used = used + len;
      chunked->left -= len;
      chunked->state = chunked->left == 0 ? CHUNK_DATA_CR : CHUNK_DATA;
      return STATUS_AGAIN;
    }
    st = step(chunked, in.data[used++]);
    if (st != STATUS_AGAIN) {
      *out_used = used;
      return st;
    }
  }
  *out_used = used;
  return STATUS_AGAIN;
}
