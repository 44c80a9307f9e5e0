// SPDX-License-Identifier: Apache-2.0
// http_head: the head of an HTTP/1.x request and the framing of its body, read
// strictly (RFC 9112): what two readers could understand differently is refused,
// so that nothing can be smuggled past the one that decides. Bytes in, struct
// out; no I/O, no allocation. Used by common/http ahead of libevent's parser.
#ifndef DEPUTY_COMMON_WIRE_HTTP_HEAD_H_
#define DEPUTY_COMMON_WIRE_HTTP_HEAD_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define HTTP_HEAD_MAX_FIELDS 100u
#define HTTP_HEAD_MAX_METHOD_LEN 16u
#define HTTP_CHUNK_MAX_LINE_LEN 256u      // size and extensions
#define HTTP_CHUNK_MAX_TRAILER_LEN 4096u  // all trailer lines

struct http_field {
  struct bytes name;
  struct bytes value;  // without the blanks around it
};

// All runs are borrowed from the parsed bytes.
struct http_head {
  struct bytes method;
  struct bytes target;  // origin-form: begins with '/'
  bool is_http10;
  bool is_last;           // HTTP/1.0, or "Connection: close"
  bool is_chunked;        // else content_length bytes follow
  bool expects_continue;  // RFC 9110, section 10.1.1
  uint64_t content_length;
  size_t num_fields;
  struct http_field fields[HTTP_HEAD_MAX_FIELDS];
  int refusal;      // the HTTP status to refuse with, 0 if none
  const char *why;  // a static sentence for that
};

// http_head_measure looks for the empty line that ends a head. `scanned` (0 at
// first) keeps the place between calls with more bytes of the same head:
//   STATUS_OK      *out_len bytes are the head, its empty line included
//   STATUS_AGAIN   more is needed
//   STATUS_FORMAT  a line ends otherwise than in CRLF, or a NUL
enum status http_head_measure(size_t *scanned, struct bytes in, size_t *out_len);

// http_head_parse reads a whole head, as measured. STATUS_FORMAT, with
// `refusal` and `why`, when it is not acceptable.
enum status http_head_parse(struct http_head *out, struct bytes in);

// http_head_find returns the field's value, the first if there are several, or
// {NULL, 0}. `name` in any case.
struct bytes http_head_find(const struct http_head *head, const char *name);

// A body in chunks (RFC 9112, section 7.1). All-zero is the start of one.
struct http_chunked {
  int state;
  uint64_t left;    // bytes of the chunk still to come
  size_t line_len;  // of the size line, or of all trailers
  size_t num_digits;
};

// http_chunked_decode reads from `in`, says how much it used, and lends at most
// one run of the body. Call again with the rest while STATUS_AGAIN and `in` is
// not used up. STATUS_OK: the body and its trailers are over. STATUS_FORMAT.
enum status http_chunked_decode(struct http_chunked *chunked, struct bytes in, size_t *out_used,
                                struct bytes *out_data);

#endif  // DEPUTY_COMMON_WIRE_HTTP_HEAD_H_
