// SPDX-License-Identifier: Apache-2.0
// stats: what one worker counts. Written by its own thread without locked
// instructions, read by the control thread for /metrics (metrics.c).
#ifndef DEPUTY_KEYSERVER_STATS_H_
#define DEPUTY_KEYSERVER_STATS_H_

#include "common/base/metrics.h"
#include "common/tls/tls_stream.h"
#include "common/tls/trust.h"
#include "common/wire/signing_input.h"
#include "keyserver/request.h"

#define STATS_NUM_KEY_KINDS (KEY_KIND_ED25519 + 1)
#define STATS_NUM_ENDS (TLS_STREAM_OVERFLOW + 1)

// Why a connection was closed at its beginning.
enum turned_away {
  TURNED_AWAY_TOTAL,   // limits.max_connections
  TURNED_AWAY_CLIENT,  // limits.max_connections_per_client
  TURNED_AWAY_MEMORY,
  TURNED_AWAY_NUM,
};

struct stats {
  struct counter num_signed[PURPOSE_NUM];
  struct counter num_refused[PURPOSE_NUM];  // NONE: before the purpose was known
  struct counter num_refusals[REFUSAL_NUM];
  struct counter num_by_kind[STATS_NUM_KEY_KINDS];  // signatures by the key's kind
  struct counter num_pings;
  struct counter num_unaudited;  // signed although the audit line was lost
  struct counter num_accepted;
  struct counter num_opened;  // handshake done
  struct counter num_ends[STATS_NUM_ENDS];
  struct counter num_untrusted[TLS_REFUSAL_NUM];  // handshakes; NONE: not for the certificate
  struct counter num_dropped[TLS_REFUSAL_NUM];    // connections, after a reload
  struct counter num_packet_timeouts;
  struct counter num_turned_away[TURNED_AWAY_NUM];
  struct counter num_accept_errors;
};

#endif  // DEPUTY_KEYSERVER_STATS_H_
