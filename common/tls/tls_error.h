// SPDX-License-Identifier: Apache-2.0
// tls_error: BoringSSL's per-thread error queue as one short text. Whoever
// knows what a failure means drains the queue into its log line; nobody leaves
// errors behind for the next caller.
#ifndef DEPUTY_COMMON_TLS_TLS_ERROR_H_
#define DEPUTY_COMMON_TLS_TLS_ERROR_H_

#include <openssl/base.h>
#include <stddef.h>

#include "common/base/status.h"

#define TLS_ERROR_TEXT_LEN 160

// tls_error_drain writes the oldest reason ("WRONG_VERSION_NUMBER"; "" if none)
// and empties the queue. Returns out.
char *tls_error_drain(char *out, size_t out_len);

// tls_generation: "before 32" or the number, for --version and start-up lines.
const char *tls_generation(void);

#endif  // DEPUTY_COMMON_TLS_TLS_ERROR_H_
