// SPDX-License-Identifier: Apache-2.0
// http_client: HTTP requests out, by libcurl's multi interface on the loop:
// issuer, and later OCSP, CRL, ACME, etcd. Never blocks on the network; names are
// resolved by libcurl's own threads. Answers are whole and bounded. Connections
// are kept and used again. No redirect is followed, no proxy is taken from the
// environment, no file of the user's is read. Threads: the loop's.
#ifndef DEPUTY_COMMON_HTTP_HTTP_CLIENT_H_
#define DEPUTY_COMMON_HTTP_HTTP_CLIENT_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/loop.h"

struct http_client;

struct http_identity {    // mutual TLS, PEM files; all borrowed for the call
  const char *ca_path;    // trust anchors; NULL: the system's
  const char *cert_path;  // NULL: none
  const char *key_path;
};

struct http_answer {
  enum status st;       // OK: an HTTP answer came, whatever its code
  int code;             // HTTP status
  struct bytes body;    // borrowed for the callback
  const char *message;  // why not, for a person; "" if OK
  // Where a 3xx answer points, made absolute; NULL: nowhere. Nobody follows it.
  const char *redirect_url;
  void *private_call;
};

// http_answer_header borrows, for the callback, the value of a header of the answer (the
// first of several), or returns NULL.
const char *http_answer_header(const struct http_answer *answer, const char *name);

// http_answer_take_body hands the body over (free), NULL if there is none; answer->body
// stays valid with it.
uint8_t *http_answer_take_body(const struct http_answer *answer);

struct http_call {
  const char *url;  // https:// only, unless allow_http
  bool allow_http;
  const char *method;                    // "GET", "POST"
  const char *content_type;              // NULL: application/json
  struct bytes body;                     // copied
  const char *const *headers;            // more lines, "Name: value", NULL ends; NULL: none
  bool only_public;                      // not to an address of this machine or its networks
  int64_t limit_ms;                      // whole call
  size_t max_answer_len;                 // bytes; more: STATUS_LIMIT
  const struct http_identity *identity;  // NULL: no client certificate, system trust
};

// http_client_new: STATUS_MEMORY, or STATUS_UNAVAILABLE when libcurl does not start.
enum status http_client_new(struct http_client **out, struct loop *loop);
// http_client_free: open calls end without a callback. Not from within one.
void http_client_free(struct http_client *client);

// http_client_start starts a call; `fn` is called once, later. The id cancels it.
// It may start and cancel calls. STATUS_MEMORY, STATUS_FORMAT (the URL is none).
// What the answer's status can be:
//   STATUS_OK           an answer came, whatever its code
//   STATUS_TIMEOUT      limit_ms passed
//   STATUS_UNAVAILABLE  no such host, nobody there
//   STATUS_CRYPTO       TLS failed: the peer is not trusted, or does not trust us, or
//                       a PEM file cannot be used
//   STATUS_LIMIT        the answer is longer than max_answer_len
//   STATUS_CLOSED       the peer went away within the answer
//   STATUS_FORMAT       the answer is not HTTP, or the URL is malformed
//   STATUS_REFUSED      the URL's protocol is not allowed, or its address is not public
//   STATUS_MEMORY
enum status http_client_start(uint64_t *out_id, struct http_client *client,
                              const struct http_call *call,
                              void (*fn)(void *arg, const struct http_answer *answer), void *arg);
// http_client_cancel ends a call whose callback has not run; it will not. An id
// that is over is ignored.
void http_client_cancel(struct http_client *client, uint64_t id);

// http_client_check_library refuses a libcurl that is not the GnuTLS flavour.
enum status http_client_check_library(struct errmsg *err);

#endif  // DEPUTY_COMMON_HTTP_HTTP_CLIENT_H_
