// SPDX-License-Identifier: Apache-2.0
// fault: what a client did wrong once the handshake was over, as a closed list for
// metrics; and which of BoringSSL's errors means which. What it did wrong before is
// failure.h's.
#ifndef DEPUTY_PROXY_CONNECTION_FAULT_H_
#define DEPUTY_PROXY_CONNECTION_FAULT_H_

#include <stdint.h>

enum fault {
  FAULT_BAD_RECORD,      // forged, replayed or damaged; or not TLS any more
  FAULT_OVERSIZED,       // a record longer than RFC 8446, section 5.2, allows
  FAULT_EMPTY_RECORDS,   // too many in a row
  FAULT_WARNING_ALERTS,  // the same
  FAULT_KEY_UPDATES,     // the same
  FAULT_RENEGOTIATION,
  FAULT_ALERT,  // a fatal one, which ends the connection
  FAULT_OTHER,  // a message that may not come here, or breaks the grammar
  FAULT_NUM,
};

// fault_name: a word for metrics, "key_updates".
const char *fault_name(enum fault fault);

// fault_of_error translates a code of ERR_peek_error.
enum fault fault_of_error(uint32_t packed_error);

#endif  // DEPUTY_PROXY_CONNECTION_FAULT_H_
