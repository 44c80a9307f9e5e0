// SPDX-License-Identifier: Apache-2.0
// http_body: finds the end of HTTP/1.1 responses on one connection, by their
// Content-Length: as much of HTTP as measuring a keep-alive connection takes.
// Bytes in, no I/O. Used by load.c.
#ifndef DEPUTY_BENCH_HTTP_BODY_H_
#define DEPUTY_BENCH_HTTP_BODY_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define HTTP_BODY_MAX_HEAD_LEN 8192U

// All-zero waits for a response's first byte.
struct http_body {
  char head[HTTP_BODY_MAX_HEAD_LEN];
  size_t head_len;
  bool has_head;
  bool is_done;  // the response is whole
  int status_code;
  uint64_t left;  // of the body
};

// http_body_reset waits for the next response.
void http_body_reset(struct http_body *body);

// http_body_take reads on. Bytes behind the response's end are a fault, as nothing
// was asked for yet. STATUS_FORMAT (no head, or one without Content-Length),
// STATUS_LIMIT.
enum status http_body_take(struct http_body *body, struct bytes in);

#endif  // DEPUTY_BENCH_HTTP_BODY_H_
