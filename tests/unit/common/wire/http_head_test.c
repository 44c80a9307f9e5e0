// SPDX-License-Identifier: Apache-2.0
#include "common/wire/http_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define HOST "Host: a\r\n"

static struct http_head parse(const char *text) {
  struct http_head head;
  (void)http_head_parse(&head, bytes_text(text));
  return head;
}

static void assert_text(struct bytes in, const char *text) {
  assert_int_equal(in.len, strlen(text));
  assert_memory_equal(in.data, text, in.len);
}

static enum status measure(const char *text, size_t *out_len) {
  size_t scanned = 0;
  *out_len = 0;
  return http_head_measure(&scanned, bytes_text(text), out_len);
}

// --- measuring -------------------------------------------------------------------

static void finds_the_empty_line(void **state) {
  static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
  size_t len = 0;
  (void)state;
  assert_int_equal(measure(text, &len), STATUS_OK);
  assert_int_equal(len, strlen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  assert_int_equal(measure("GET / HTTP/1.1\r\nHost: a\r\n\r", &len), STATUS_AGAIN);
  assert_int_equal(measure("GET / HTTP/1.1\r\nHost: a\r\n", &len), STATUS_AGAIN);
  assert_int_equal(measure("", &len), STATUS_AGAIN);
}

static void finds_it_byte_by_byte(void **state) {
  static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  size_t scanned = 0;
  size_t len = 0;
  (void)state;
  for (size_t i = 1; i < strlen(text); i++) {
    assert_int_equal(http_head_measure(&scanned, bytes_of(text, i), &len), STATUS_AGAIN);
  }
  assert_int_equal(http_head_measure(&scanned, bytes_text(text), &len), STATUS_OK);
  assert_int_equal(len, strlen(text));
}

// A bare LF is a line's end to some and none to others.
static void refuses_other_line_ends(void **state) {
  static const char nul[] = "GET / HTTP/1.1\r\nA: \0\r\n\r\n";
  size_t scanned = 0;
  size_t len = 0;
  (void)state;
  assert_int_equal(measure("GET / HTTP/1.1\nHost: a\n\n", &len), STATUS_FORMAT);
  assert_int_equal(measure("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", &len), STATUS_FORMAT);
  assert_int_equal(measure("\n", &len), STATUS_FORMAT);
  assert_int_equal(http_head_measure(&scanned, bytes_of(nul, sizeof(nul) - 1), &len),
                   STATUS_FORMAT);
}

// --- heads ---------------------------------------------------------------------------

static void reads_a_request(void **state) {
  struct http_head head;
  (void)state;
  assert_int_equal(
      http_head_parse(&head,
                      bytes_text("POST /a/b?c=d HTTP/1.1\r\nhost: x:1\r\nContent-Length:  12 "
                                 "\t\r\nX-Empty:\r\nExpect: 100-Continue\r\n\r\n")),
      STATUS_OK);
  assert_text(head.method, "POST");
  assert_text(head.target, "/a/b?c=d");
  assert_int_equal(head.content_length, 12);
  assert_int_equal(head.num_fields, 4);
  assert_text(http_head_find(&head, "HOST"), "x:1");
  assert_text(http_head_find(&head, "x-empty"), "");
  assert_null(http_head_find(&head, "x").data);
  assert_true(head.expects_continue);
  assert_false(head.is_last || head.is_http10 || head.is_chunked);
}

static void knows_when_a_connection_ends(void **state) {
  (void)state;
  assert_false(parse("GET / HTTP/1.1\r\n" HOST "\r\n").is_last);
  assert_true(parse("GET / HTTP/1.0\r\n\r\n").is_last);
  assert_true(parse("GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n").is_last);
  assert_true(parse("GET / HTTP/1.1\r\n" HOST "Connection: TE , CLOSE\r\n\r\n").is_last);
  assert_true(
      parse("GET / HTTP/1.1\r\n" HOST "Connection: te\r\nconnection: close\r\n\r\n").is_last);
  assert_false(parse("GET / HTTP/1.1\r\n" HOST "Connection: closed\r\n\r\n").is_last);
}

static void refuses_each_fault_with_its_status(void **state) {
  static const struct {
    int code;
    const char *text;
  } cases[] = {
      {400, "GET /\r\n" HOST "\r\n"},
      {400, "GET  / HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET /  HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET / HTTP/1.1 \r\n" HOST "\r\n"},
      {400, " GET / HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET / http/1.1\r\n" HOST "\r\n"},
      {400, "GET / HTTP/1\r\n" HOST "\r\n"},
      {400, "GET / HTTP/1.10\r\n" HOST "\r\n"},
      {400, "G(T / HTTP/1.1\r\n" HOST "\r\n"},
      {505, "GET / HTTP/2.0\r\n" HOST "\r\n"},
      {400, "PRI * HTTP/2.0\r\n\r\n"},
      {501, "GETTTTTTTTTTTTTTTT / HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET http://a/ HTTP/1.1\r\n" HOST "\r\n"},
      {400, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"},
      {400, "CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET /\x80 HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET /a#b HTTP/1.1\r\n" HOST "\r\n"},
      {400, "GET / HTTP/1.1\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST HOST "\r\n"},
      {400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST "A: b\r\n folded\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST ": no name\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST "A: \x01\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST "A: \x7f\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 9999999999999999999\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\n" HOST
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {400, "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"},
      {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"},
      {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n"},
      {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n"},
      {417, "POST / HTTP/1.1\r\n" HOST "Expect: 200-ok\r\n\r\n"},
      {417, "POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n" HOST "\r\nmore"},
      {400, "GET / HTTP/1.1\r\n" HOST},
      {400, ""},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct http_head head;
    enum status st = http_head_parse(&head, bytes_text(cases[i].text));
    if (st != STATUS_FORMAT || head.refusal != cases[i].code || head.why == NULL) {
      fail_msg("case %zu: %d for \"%s\"", i, head.refusal, cases[i].text);
    }
  }
}

static void counts_fields(void **state) {
  char text[8192] = "GET / HTTP/1.1\r\nHost: a\r\n";
  size_t len = strlen(text);
  struct http_head head;
  (void)state;
  for (unsigned i = 1; i < HTTP_HEAD_MAX_FIELDS; i++) {
    len += (size_t)snprintf(text + len, sizeof(text) - len, "A: b\r\n");
  }
  (void)snprintf(text + len, sizeof(text) - len, "\r\n");
  assert_int_equal(http_head_parse(&head, bytes_text(text)), STATUS_OK);
  assert_int_equal(head.num_fields, HTTP_HEAD_MAX_FIELDS);
  (void)snprintf(text + len, sizeof(text) - len, "A: b\r\n\r\n");
  assert_int_equal(http_head_parse(&head, bytes_text(text)), STATUS_FORMAT);
  assert_int_equal(head.refusal, 431);
}

// --- chunks ----------------------------------------------------------------------------

// Decodes `text` in pieces of `step` bytes; the body goes to `out`.
static enum status decode(char *out, const char *text, size_t step) {
  struct http_chunked chunked = {0};
  enum status st = STATUS_AGAIN;
  size_t at = 0;
  *out = '\0';
  while (at < strlen(text) && st == STATUS_AGAIN) {
    size_t used = 0;
    struct bytes data = {0};
    size_t len = strlen(text) - at < step ? strlen(text) - at : step;
    st = http_chunked_decode(&chunked, bytes_of(text + at, len), &used, &data);
    assert_true(used > 0 && used <= len);
    if (data.len > 0) {
      (void)strncat(out, (const char *)data.data, data.len);
    }
    at += used;
  }
  if (st == STATUS_OK) {
    assert_string_equal(text + at, "rest");
  }
  return st;
}

static void decodes_chunks_however_they_come(void **state) {
  static const char text[] =
      "5\r\nhello\r\n1;a=b\r\n \r\n0005 ; x\r\nworld\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\nrest";
  char out[64];
  (void)state;
  for (size_t step = 1; step <= sizeof(text); step++) {
    assert_int_equal(decode(out, text, step), STATUS_OK);
    assert_string_equal(out, "hello world");
  }
  assert_int_equal(decode(out, "0\r\n\r\nrest", 3), STATUS_OK);
  assert_string_equal(out, "");
  assert_int_equal(decode(out, "A\r\n0123456789\r\n0\r\n\r\nrest", 4), STATUS_OK);
  assert_string_equal(out, "0123456789");
}

static void refuses_malformed_chunks(void **state) {
  static const char *const cases[] = {
      "\r\n",         "g\r\n",        "-1\r\n",           "+1\r\n",          " 1\r\nx\r\n",
      "1\nx\r\n",     "1\r\nxx\r\n",  "1\r\nx\n",         "1\r\nx\rx",       "1000000000000000\r\n",
      "0\r\nA\n\r\n", "0\r\n A\r\n",  "0\r\nA: \x01\r\n", "1;\x01\r\n",      "0\r\n\rx",
      "1\rx",         "0x1\r\nx\r\n", "1,\r\n",           "0\r\n:a\r\n\r\nz"};
  char out[64];
  (void)state;
  for (size_t i = 0; i + 1 < sizeof(cases) / sizeof(cases[0]); i++) {
    if (decode(out, cases[i], 1) != STATUS_FORMAT || decode(out, cases[i], 64) != STATUS_FORMAT) {
      fail_msg("case %zu", i);
    }
  }
}

static void bounds_what_is_no_data(void **state) {
  char text[8192];
  char out[64];
  (void)state;
  (void)memset(text, 'a', sizeof(text));
  text[0] = '1';
  text[1] = ';';
  text[HTTP_CHUNK_MAX_LINE_LEN + 1] = '\0';
  assert_int_equal(decode(out, text, 100), STATUS_FORMAT);
  (void)memset(text, 'a', sizeof(text));
  (void)memcpy(text, "0\r\n", 3);
  text[HTTP_CHUNK_MAX_TRAILER_LEN + 4] = '\0';
  assert_int_equal(decode(out, text, 100), STATUS_FORMAT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_the_empty_line),
      cmocka_unit_test(finds_it_byte_by_byte),
      cmocka_unit_test(refuses_other_line_ends),
      cmocka_unit_test(reads_a_request),
      cmocka_unit_test(knows_when_a_connection_ends),
      cmocka_unit_test(refuses_each_fault_with_its_status),
      cmocka_unit_test(counts_fields),
      cmocka_unit_test(decodes_chunks_however_they_come),
      cmocka_unit_test(refuses_malformed_chunks),
      cmocka_unit_test(bounds_what_is_no_data),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
