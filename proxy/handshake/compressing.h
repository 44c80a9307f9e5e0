// SPDX-License-Identifier: Apache-2.0
// compressing: which prepared form of a certificate answers a handshake, and what that is
// worth (common/tls/compression.h does the rest).
#ifndef DEPUTY_PROXY_HANDSHAKE_COMPRESSING_H_
#define DEPUTY_PROXY_HANDSHAKE_COMPRESSING_H_

#include "common/tls/compression.h"

extern const struct tls_compression_hooks compressing_hooks;

#endif  // DEPUTY_PROXY_HANDSHAKE_COMPRESSING_H_
