// SPDX-License-Identifier: Apache-2.0
// fetch: one thing fetched by HTTP from an address that a certificate names, with the
// rules that such an address needs: a deadline over all, a bound on the answer,
// redirects few and narrow, requests that let the server say "unchanged". Used for OCSP
// and CRLs. Threads: the loop's.
//
// Where a fetch may go. The address in the certificate is taken as it is, private ones
// too: the CA wrote it into a certificate that the operator chose, and a CA of one's own
// has its responder inside. A redirect is another matter: on plain HTTP anybody on the
// way can write it, and it would make this process knock at doors of the inside
// network. So it stays with the scheme, and another host must have a public address.
#ifndef DEPUTY_COMMON_REVOCATION_FETCH_H_
#define DEPUTY_COMMON_REVOCATION_FETCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/http/freshness.h"
#include "common/http/http_client.h"

#define FETCH_MAX_REDIRECTS 3u
#define FETCH_MAX_VALIDATOR_LEN 256u  // bytes of an ETag or a Last-Modified; longer: unused

enum fetch_fault {
  FETCH_NO_FAULT,
  FETCH_TIMEOUT,
  FETCH_UNREACHABLE,         // no such host, nobody there
  FETCH_TLS,                 // the peer is not trusted
  FETCH_TOO_LONG,            // more than max_len bytes
  FETCH_BROKEN,              // ended early, or not HTTP
  FETCH_HTTP_STATUS,         // any but 200 (and 304 if asked for)
  FETCH_TOO_MANY_REDIRECTS,  // or one without a place
  FETCH_OTHER_SCHEME,        // a redirect to another scheme than before
  FETCH_INSIDE,              // a redirect to another host, which is not public
  FETCH_NO_MEMORY,
  FETCH_NUM_FAULTS,
};
const char *fetch_fault_name(enum fetch_fault fault);  // "timeout"; static
// fetch_is_transport: nobody answered: what a breaker counts.
bool fetch_is_transport(enum fetch_fault fault);

struct fetch_wish {
  const char *url;            // http:// or https://
  struct bytes post;          // empty: GET
  const char *post_type;      // Content-Type of it
  const char *accept;         // NULL: nothing said
  const char *etag;           // for If-None-Match; NULL or "": none
  const char *last_modified;  // for If-Modified-Since; the same
  int64_t limit_ms;           // for all of it
  size_t max_len;             // of the answer
  const char *ca_path;        // trust for https:// (NULL: the system's)
};

struct fetch_result {
  enum fetch_fault fault;
  int code;           // HTTP status, if there was one
  bool is_unchanged;  // 304
  struct bytes body;  // borrowed for the callback
  struct http_freshness freshness;
  int64_t retry_after_s;
  const char *etag;  // borrowed; NULL: none
  const char *last_modified;
  const char *message;  // what went wrong, for a person; ""
  const struct http_answer *answer;
};

// fetch_take_body hands the body over (free): what is long need not be copied.
uint8_t *fetch_take_body(const struct fetch_result *result);

struct fetch;

// fetch_start copies the wish; `fn` is called once, later, and may start others. The
// fetch ends with it. STATUS_MEMORY, STATUS_FORMAT (the URL).
enum status fetch_start(struct fetch **out, struct http_client *client,
                        const struct fetch_wish *wish,
                        void (*fn)(void *arg, const struct fetch_result *result), void *arg);
// fetch_cancel ends one whose callback has not run; it will not. NULL is allowed.
void fetch_cancel(struct fetch *fetch);

#endif  // DEPUTY_COMMON_REVOCATION_FETCH_H_
