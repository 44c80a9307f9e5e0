// SPDX-License-Identifier: Apache-2.0
// dc_issuers: which issuer is asked, and how much of it. The one that served last goes on
// being asked. One that fails as a whole (no connection, HTTP error, nothing but excuses)
// is left alone for a pause that grows, with jitter; meanwhile the next one is asked. Once
// it is asked again it gets a small batch, one at a time, and four times as much after
// each that succeeds: whoever comes back is not run over by all that has gathered. Pure.
#ifndef DEPUTY_PROXY_DC_DC_ISSUERS_H_
#define DEPUTY_PROXY_DC_DC_ISSUERS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DC_ISSUERS_MAX 8
#define DC_ISSUERS_FIRST 4u  // of the first batch after a failure
#define DC_ISSUERS_GROWTH 4u
#define DC_ISSUERS_BUSY (-1)  // all that may be asked are being asked
#define DC_ISSUERS_NONE (-2)  // there is a pause, or all are to be avoided

struct dc_issuer {
  unsigned num_failures;  // in a row
  unsigned num_under_way;
  size_t window;  // entries in a batch; less than the limit: it has failed lately
  int64_t pause_ends_ms;
};

struct dc_issuers {
  struct dc_issuer items[DC_ISSUERS_MAX];
  unsigned num;
  unsigned first;  // asked before the others
  size_t batch;
  unsigned max_under_way;  // batches, to all of them
  unsigned num_under_way;
  int64_t retry_min_ms;
  int64_t retry_max_ms;
  uint64_t (*random)(void);
};

// dc_issuers_reset forgets what was known of them. What is under way has no place here
// any more.
void dc_issuers_reset(struct dc_issuers *issuers, unsigned num);

// dc_issuers_choose finds who is to be asked by one that does not want those whose bits
// are set in `avoided`; those in `open` have room in a batch that has not left yet.
int dc_issuers_choose(const struct dc_issuers *issuers, uint32_t avoided, uint32_t open,
                      int64_t now_ms);

static inline size_t dc_issuers_window(const struct dc_issuers *issuers, unsigned i) {
  const size_t window = issuers->items[i].window;
  return window < issuers->batch ? window : issuers->batch;
}

void dc_issuers_begin(struct dc_issuers *issuers, unsigned i);
// dc_issuers_end: the batch is over; true: it failed as a whole.
void dc_issuers_end(struct dc_issuers *issuers, unsigned i, bool is_failed, int64_t now_ms);

// dc_issuers_wait_ms: when the first pause ends; `max_ms` if one may be asked as it is.
int64_t dc_issuers_wait_ms(const struct dc_issuers *issuers, int64_t now_ms, int64_t max_ms);

#endif  // DEPUTY_PROXY_DC_DC_ISSUERS_H_
