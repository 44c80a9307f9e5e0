// SPDX-License-Identifier: Apache-2.0
// stats: what the issuer counts; written by its loop, shown by metrics.c.
#ifndef DEPUTY_DCISSUER_STATS_H_
#define DEPUTY_DCISSUER_STATS_H_

#include "common/base/metrics.h"
#include "dcissuer/issue.h"

// Why a whole request was refused.
enum request_error {
  REQUEST_OK,
  REQUEST_BAD,               // 400 bad_request: not JSON, or not of this form
  REQUEST_UNAUTHORIZED,      // 401: no client certificate
  REQUEST_NOT_ALLOWED,       // 403: a client with no right at all
  REQUEST_TOO_MANY_ENTRIES,  // 413
  REQUEST_BUSY,              // 503: limits.max_batches
  REQUEST_NUM_ERRORS,
};

struct stats {
  struct counter num_issued;
  struct counter num_refused[ISSUE_NUM_ERRORS];
  struct counter num_requests;
  struct counter num_requests_refused[REQUEST_NUM_ERRORS];
  struct counter num_audit_lost;
  struct histogram latency;  // of whole requests
};

#endif  // DEPUTY_DCISSUER_STATS_H_
