// SPDX-License-Identifier: Apache-2.0
// freshness: for how long an HTTP answer may be used again without asking. RFC 9111,
// section 4.2, as a cache of one's own: s-maxage is for others. Threads: any.
#ifndef DEPUTY_COMMON_HTTP_FRESHNESS_H_
#define DEPUTY_COMMON_HTTP_FRESHNESS_H_

#include <stdbool.h>
#include <stdint.h>

#define FRESHNESS_MAX_S ((int64_t)400 * 24 * 3600)  // longer is cut

struct http_freshness {
  bool is_said;     // by Cache-Control or Expires
  int64_t fresh_s;  // from now; 0: ask again
};

// http_freshness_read takes the values of the headers (NULL: not there). What cannot be
// understood counts as not fresh (section 4.2.1).
struct http_freshness http_freshness_read(const char *cache_control, const char *expires,
                                          const char *date, const char *age, int64_t now_s);

// http_retry_after_s: Retry-After in seconds from now (RFC 9110, section 10.2.3); 0: not
// said, or not understood.
int64_t http_retry_after_s(const char *value, int64_t now_s);

#endif  // DEPUTY_COMMON_HTTP_FRESHNESS_H_
