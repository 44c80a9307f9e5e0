// SPDX-License-Identifier: Apache-2.0
// report: what one or several keyclients (one for each worker thread) know of each key
// server, as sums: for /metrics and for people. Threads: any, as long as the objects live.
#ifndef DEPUTY_COMMON_KEYCLIENT_REPORT_H_
#define DEPUTY_COMMON_KEYCLIENT_REPORT_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/metrics.h"
#include "common/keyclient/keyclient.h"

// One server. Times are means over the clients that have measured them; 0: none has.
struct keyclient_report {
  const char *server;  // "host:port"; borrowed of a client
  unsigned num_clients;
  unsigned num_up;                            // of them: with a connection
  unsigned num_breakers[BREAKER_NUM_STATES];  // of them: in this state
  uint64_t num_connections;
  uint64_t num_in_flight;
  uint64_t srtt_us;
  uint64_t rttvar_us;
  uint64_t distance_us;
  uint64_t hedge_after_us;
  uint64_t num_requests;
  uint64_t num_answered;
  uint64_t num_failed[KEYCLIENT_NUM_FAILURES];
  uint64_t num_hedges;
  uint64_t num_hedge_wins;
  uint64_t num_skipped;
  uint64_t num_openings;
  uint64_t num_drained;
  uint64_t num_pings;
};

// keyclient_report fills in one row for each server, in the order of the first client's
// configuration; clients that are NULL are left out. Returns how many rows; clients of
// different configurations (during a reload) may have more servers than fit, and the last
// of them are left out.
size_t keyclient_report(struct keyclient_report out[KEYCLIENT_MAX_SERVERS],
                        const struct keyclient *const *clients, size_t num);

// keyclient_report_state is a word for people: "up", "avoided" (breaker not closed),
// "down"; or "partly ..." of the latter two, when it is not so for all clients.
const char *keyclient_report_state(const struct keyclient_report *row);

// keyclient_report_metrics writes the families PREFIXkey_server_*{server="host:port"}.
void keyclient_report_metrics(struct metrics_text *text, const char *prefix,
                              const struct keyclient *const *clients, size_t num);

#endif  // DEPUTY_COMMON_KEYCLIENT_REPORT_H_
