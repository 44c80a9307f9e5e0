// SPDX-License-Identifier: Apache-2.0
// Targets: http_head_measure, http_head_parse, http_chunked_decode. The input is
// what a client sends: a head, and behind it a body in chunks. Where a head ends
// must not depend on how it comes; what parses is written again from its parts
// and parses to the same; a chunked body is the same in one piece and in bytes.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/http_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_INPUT_LEN 20000u

static size_t put(uint8_t *out, size_t at, struct bytes in) {
  if (in.len > 0) {
    memcpy(out + at, in.data, in.len);
  }
  return at + in.len;
}

static size_t write_head(uint8_t *out, const struct http_head *head) {
  size_t at = put(out, 0, head->method);
  at = put(out, at, bytes_text(" "));
  at = put(out, at, head->target);
  at = put(out, at, bytes_text(head->is_http10 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n"));
  for (size_t i = 0; i < head->num_fields; i++) {
    at = put(out, at, head->fields[i].name);
    at = put(out, at, bytes_text(": "));
    at = put(out, at, head->fields[i].value);
    at = put(out, at, bytes_text("\r\n"));
  }
  return put(out, at, bytes_text("\r\n"));
}

static void check_head(struct bytes in) {
  // One more byte for each field's blank, which the input may lack.
  static uint8_t again[MAX_INPUT_LEN + HTTP_HEAD_MAX_FIELDS];
  struct http_head head;
  struct http_head other;
  size_t len = 0;
  if (http_head_parse(&head, in) != STATUS_OK) {
    CHECK(head.refusal >= 400 && head.refusal < 600 && head.why != NULL);
    return;
  }
  CHECK(head.refusal == 0 && !(head.is_chunked && head.content_length > 0));
  len = write_head(again, &head);
  CHECK(http_head_parse(&other, bytes_of(again, len)) == STATUS_OK);
  CHECK(other.num_fields == head.num_fields && other.content_length == head.content_length &&
        other.is_chunked == head.is_chunked && other.is_last == head.is_last &&
        other.expects_continue == head.expects_continue);
}

static enum status decode(struct bytes in, size_t step, uint8_t *out, size_t *out_len,
                          size_t *out_used) {
  struct http_chunked chunked = {0};
  enum status st = STATUS_AGAIN;
  *out_len = 0;
  *out_used = 0;
  while (*out_used < in.len && st == STATUS_AGAIN) {
    size_t used = 0;
    struct bytes run = {0};
    size_t len = in.len - *out_used < step ? in.len - *out_used : step;
    st = http_chunked_decode(&chunked, bytes_of(in.data + *out_used, len), &used, &run);
    CHECK(used > 0 && used <= len && run.len <= used);
    *out_len = put(out, *out_len, run);
    *out_used += used;
  }
  return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static uint8_t whole[MAX_INPUT_LEN];
  static uint8_t bytewise[MAX_INPUT_LEN];
  struct bytes in = bytes_of(data, len);
  size_t scanned = 0;
  size_t head_len = 0;
  size_t lens[2];
  size_t used[2];
  enum status st = STATUS_AGAIN;
  enum status st_bytes = STATUS_AGAIN;
  if (len > MAX_INPUT_LEN) {
    return 0;
  }
  st = http_head_measure(&scanned, in, &head_len);
  scanned = 0;
  for (size_t i = 1; i <= len && st_bytes == STATUS_AGAIN; i++) {
    size_t other_len = 0;
    st_bytes = http_head_measure(&scanned, bytes_of(data, i), &other_len);
    CHECK(st_bytes != STATUS_OK || other_len == head_len);
  }
  CHECK(st == st_bytes);
  check_head(in);
  if (st == STATUS_OK) {
    check_head(bytes_of(data, head_len));
    in = bytes_of(data + head_len, len - head_len);
  }
  st = decode(in, in.len, whole, &lens[0], &used[0]);
  st_bytes = decode(in, 1, bytewise, &lens[1], &used[1]);
  CHECK(st == st_bytes && lens[0] == lens[1] && used[0] == used[1]);
  CHECK(memcmp(whole, bytewise, lens[0]) == 0);
  return 0;
}
