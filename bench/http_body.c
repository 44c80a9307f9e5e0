// SPDX-License-Identifier: Apache-2.0
#include "bench/http_body.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_body_reset(struct http_body *body) {
  body->head_len = 0;
  body->has_head = false;
  body->is_done = false;
  body->status_code = 0;
  body->left = 0;
}

static bool parse_length(uint64_t *out, const char *text) {
  char *end = NULL;
  text += strspn(text, " \t");
  if (*text < '0' || *text > '9') {
    return false;
  }
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  *out = value;
  return errno == 0 && (*end == '\r' || *end == ' ' || *end == '\0');
}

// `head` is the whole head, ended by a zero in place of its last line break.
static enum status parse_head(struct http_body *body) {
  static const char name[] = "content-length:";
  const char *line = body->head;
  if (strncmp(line, "HTTP/1.1 ", 9) != 0 && strncmp(line, "HTTP/1.0 ", 9) != 0) {
    return STATUS_FORMAT;
  }
  body->status_code = atoi(line + 9);  // NOLINT(cert-err34-c): any number will do
  while ((line = strstr(line, "\r\n")) != NULL) {
    line += 2;
    if (strncasecmp(line, name, sizeof(name) - 1) == 0) {
      return parse_length(&body->left, line + sizeof(name) - 1) ? STATUS_OK : STATUS_FORMAT;
    }
  }
  return STATUS_FORMAT;
}

// Takes bytes of the head; *out_used says how many were its own.
static enum status take_head(struct http_body *body, struct bytes in, size_t *out_used) {
  for (size_t i = 0; i < in.len; i++) {
    if (body->head_len == HTTP_BODY_MAX_HEAD_LEN - 1) {
      return STATUS_LIMIT;
    }
    body->head[body->head_len++] = (char)in.data[i];
    if (in.data[i] == '\n' && body->head_len >= 4 &&
        memcmp(body->head + body->head_len - 4, "\r\n\r\n", 4) == 0) {
      body->head[body->head_len - 2] = '\0';
      body->has_head = true;
      *out_used = i + 1;
      return parse_head(body);
    }
  }
  *out_used = in.len;
  return STATUS_OK;
}

enum status http_body_take(struct http_body *body, struct bytes in) {
  size_t used = 0;
  if (!body->has_head) {
    enum status st = take_head(body, in, &used);
    if (st != STATUS_OK || !body->has_head) {
      return st;
    }
  }
  const size_t len = in.len - used;
  if (len > body->left || (body->is_done && len > 0)) {
    return STATUS_FORMAT;
  }
  body->left -= len;
  body->is_done = body->left == 0;
  return STATUS_OK;
}
