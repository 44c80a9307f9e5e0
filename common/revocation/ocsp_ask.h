// SPDX-License-Identifier: Apache-2.0
// ocsp_ask: one question to one OCSP responder, from the request to an answer that was
// checked. By GET where the request is short enough for caches (RFC 5019, section 5),
// and by POST when that gave nothing usable, be it a responder that knows no GET or a
// cache that holds something old. A nonce goes by POST. Threads: the loop's.
#ifndef DEPUTY_COMMON_REVOCATION_OCSP_ASK_H_
#define DEPUTY_COMMON_REVOCATION_OCSP_ASK_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/http/http_client.h"
#include "common/net/job.h"
#include "common/revocation/fetch.h"
#include "common/revocation/ocsp.h"

#define OCSP_ASK_LIMIT_MS 15000  // the whole of it, if the wish says nothing
#define OCSP_ASK_SKEW_S 300      // the same

struct ocsp_ask_wish {
  const char *url;
  struct bytes leaf;    // DER
  struct bytes issuer;  // DER; must be there: an answer that cannot be checked is none
  bool has_nonce;       // ask with one, and insist on it
  int64_t min_this_update_s;
  const char *etag;           // of the answer that is kept; NULL or "": none
  const char *last_modified;  // the same
  int64_t limit_ms;           // 0: OCSP_ASK_LIMIT_MS
  const char *ca_path;        // for https:// responders; NULL: the system's trust
  struct jobs *jobs;          // where the answer is checked; NULL: on the loop
};

struct ocsp_ask_result {
  enum fetch_fault fetch_fault;  // no answer came; else:
  enum ocsp_fault fault;         // it cannot be believed; else:
  bool is_unchanged;             // the one that is kept still counts (HTTP 304); else:
  struct ocsp_answer answer;     // what it says
  struct bytes response;         // DER, borrowed for the callback
  bool is_post;
  int code;  // HTTP status, 0: none
  struct http_freshness freshness;
  int64_t retry_after_s;
  const char *etag;  // borrowed; NULL: none
  const char *last_modified;
  struct errmsg err;  // the sentence, with either fault
};

// ocsp_ask_fault_name: of either fault, "none" if the answer is good to use.
const char *ocsp_ask_fault_name(const struct ocsp_ask_result *result);
bool ocsp_ask_is_usable(const struct ocsp_ask_result *result);

struct ocsp_ask;

// ocsp_ask_start copies the wish; `fn` is called once, later, and may start others.
// STATUS_MEMORY; STATUS_FORMAT (leaf, issuer or URL) with the sentence.
enum status ocsp_ask_start(struct ocsp_ask **out, struct http_client *client,
                           const struct ocsp_ask_wish *wish,
                           void (*fn)(void *arg, const struct ocsp_ask_result *result), void *arg,
                           struct errmsg *err);
// ocsp_ask_is_checking: the answer is with the thread of jobs. Until the callback has run,
// or jobs have ended (jobs_free), there is nothing that could be cancelled.
bool ocsp_ask_is_checking(const struct ocsp_ask *ask);
// ocsp_ask_cancel ends one whose callback has not run; it will not. NULL is allowed.
void ocsp_ask_cancel(struct ocsp_ask *ask);

#endif  // DEPUTY_COMMON_REVOCATION_OCSP_ASK_H_
