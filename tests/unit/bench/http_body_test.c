// SPDX-License-Identifier: Apache-2.0
#include "bench/http_body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct http_body body;

static int reset(void **state) {
  (void)state;
  memset(&body, 0, sizeof(body));
  return 0;
}

static enum status take(const char *text) { return http_body_take(&body, bytes_text(text)); }

static void finds_the_end_of_a_response(void **state) {
  (void)state;
  assert_int_equal(take("HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  5\r\n\r\nhel"),
                   STATUS_OK);
  assert_false(body.is_done);
  assert_int_equal(body.status_code, 200);
  assert_int_equal(take("lo"), STATUS_OK);
  assert_true(body.is_done);
}

static void takes_a_response_byte_by_byte_and_then_the_next(void **state) {
  static const char text[] = "HTTP/1.0 404 no\r\nContent-Length: 2\r\n\r\nab";
  (void)state;
  for (int turn = 0; turn < 2; turn++) {
    http_body_reset(&body);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
      assert_false(body.is_done);
      assert_int_equal(http_body_take(&body, bytes_of(text + i, 1)), STATUS_OK);
    }
    assert_true(body.is_done);
    assert_int_equal(body.status_code, 404);
  }
}

static void an_empty_body_is_done_with_the_head(void **state) {
  (void)state;
  assert_int_equal(take("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n"), STATUS_OK);
  assert_true(body.is_done);
}

static void refuses_bytes_behind_the_response(void **state) {
  (void)state;
  assert_int_equal(take("HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\nab"), STATUS_FORMAT);
}

static void refuses_what_has_no_length(void **state) {
  (void)state;
  assert_int_equal(take("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"), STATUS_FORMAT);
  (void)reset(state);
  assert_int_equal(take("HTTP/1.1 200 x\r\nContent-Length: -1\r\n\r\n"), STATUS_FORMAT);
  (void)reset(state);
  assert_int_equal(take("HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999\r\n\r\n"),
                   STATUS_FORMAT);
  (void)reset(state);
  assert_int_equal(take("SSH-2.0-x\r\n\r\n"), STATUS_FORMAT);
}

static void refuses_a_head_that_never_ends(void **state) {
  enum status st = take("HTTP/1.1 200 x\r\n");
  (void)state;
  for (size_t i = 0; i < HTTP_BODY_MAX_HEAD_LEN && st == STATUS_OK; i++) {
    st = take("a");
  }
  assert_int_equal(st, STATUS_LIMIT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(finds_the_end_of_a_response, reset),
      cmocka_unit_test_setup(takes_a_response_byte_by_byte_and_then_the_next, reset),
      cmocka_unit_test_setup(an_empty_body_is_done_with_the_head, reset),
      cmocka_unit_test_setup(refuses_bytes_behind_the_response, reset),
      cmocka_unit_test_setup(refuses_what_has_no_length, reset),
      cmocka_unit_test_setup(refuses_a_head_that_never_ends, reset),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
