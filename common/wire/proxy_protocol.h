// SPDX-License-Identifier: Apache-2.0
// proxy_protocol: the PROXY protocol version 2 header that tells an origin who
// the client is and how its TLS was made (haproxy's proxy-protocol.txt, section
// 2.2, with the TLVs of 2.2.1 to 2.2.6).
#ifndef DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_
#define DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define PROXY_V2_MAX_LEN 1024u  // what we write

struct proxy_header {
  const struct sockaddr *source;       // the client; AF_INET, AF_INET6 or AF_UNIX
  const struct sockaddr *destination;  // where it connected
  struct bytes alpn;       // PP2_TYPE_ALPN; empty: left out
  struct bytes authority;  // PP2_TYPE_AUTHORITY (SNI); empty: left out
  bool has_tls;
  const char *tls_version;  // "TLSv1.3"
  const char *tls_cipher;   // "TLS_AES_128_GCM_SHA256"
};

// proxy_v2_encode writes the header. STATUS_LIMIT when it does not fit `max`.
enum status proxy_v2_encode(uint8_t *out, size_t max, size_t *out_len,
                            const struct proxy_header *header);

// proxy_v2_decode reads one back (addresses copied; TLVs borrowed). *out_len is
// the header's whole length. STATUS_AGAIN: more bytes are needed. STATUS_FORMAT.
struct proxy_decoded {
  bool is_local;
  struct sockaddr_storage source;
  struct sockaddr_storage destination;
  struct bytes alpn;
  struct bytes authority;
  struct bytes tls_version;
  struct bytes tls_cipher;
};
enum status proxy_v2_decode(struct proxy_decoded *out, size_t *out_len, struct bytes in);

#endif  // DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_
