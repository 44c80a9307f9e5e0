// SPDX-License-Identifier: Apache-2.0
// proxy_protocol: the PROXY protocol headers that tell an origin who the client is
// (haproxy's proxy-protocol.txt): version 1, a line of text (section 2.1), and
// version 2, which also says how its TLS was made (section 2.2, with the TLVs of
// 2.2.1 to 2.2.6) and which is read as well. Bytes in, struct out, and back; no I/O,
// no allocation.
#ifndef DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_
#define DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define PROXY_V1_MAX_LEN 107u           // section 2.1: all that a line may be
#define PROXY_V2_MAX_LEN 1024u          // what we write
#define PROXY_V2_MAX_TLV_LEN 255u       // of each value that we write: ALPN and names fit
#define PROXY_V2_MAX_DECODE_LEN 16384u  // what we read

struct proxy_header {
  // Each points into a struct sockaddr_storage that was zero before the kernel
  // filled it.
  const struct sockaddr *source;       // the client; AF_INET, AF_INET6 or AF_UNIX
  const struct sockaddr *destination;  // where it connected
  struct bytes alpn;                   // PP2_TYPE_ALPN; empty: left out
  struct bytes authority;              // PP2_TYPE_AUTHORITY (SNI); empty: left out
  bool has_tls;
  const char *tls_version;  // "TLSv1.3"; NULL: left out
  const char *tls_cipher;   // "ECDHE-RSA-AES128-GCM-SHA256"; NULL: left out
  // The client's certificate: whether it was presented in this very connection, or
  // in the session that was resumed; whether it was verified; its common name.
  bool has_client_cert;
  bool has_client_cert_in_session;
  bool is_client_verified;
  struct bytes client_cn;  // PP2_SUBTYPE_SSL_CN, UTF-8; empty: left out
};

// proxy_v1_encode writes the line of version 1, which has room for addresses only;
// those that are of UNIX sockets, missing or of different families make it
// "PROXY UNKNOWN". STATUS_LIMIT when it does not fit `max`; PROXY_V1_MAX_LEN does.
enum status proxy_v1_encode(uint8_t *out, size_t max, size_t *out_len,
                            const struct proxy_header *header);

// proxy_v2_encode writes the header. IPv4 addresses that a dual-stack socket
// shows as ::ffff:a.b.c.d are written as the IPv4 addresses they are. Without
// source or destination it is a LOCAL header (a health check of ours); where
// the two are of different families, or of one that PROXY does not know, the
// addresses are left out and the rest stays. STATUS_LIMIT when it does not fit
// `max` or a value is longer than PROXY_V2_MAX_TLV_LEN.
enum status proxy_v2_encode(uint8_t *out, size_t max, size_t *out_len,
                            const struct proxy_header *header);

// proxy_v2_decode reads one back (addresses copied; TLVs borrowed). *out_len is
// the header's whole length.
//   STATUS_AGAIN   what is there is right, but more bytes are needed
//   STATUS_FORMAT  no such header, a TLV of those below twice, or a wrong checksum
//   STATUS_LIMIT   it says it is longer than PROXY_V2_MAX_DECODE_LEN
struct proxy_decoded {
  bool is_local;                   // then all else is empty
  struct sockaddr_storage source;  // AF_UNSPEC: not told
  struct sockaddr_storage destination;
  struct bytes alpn;
  struct bytes authority;
  bool has_tls;
  struct bytes tls_version;
  struct bytes tls_cipher;
  bool has_client_cert;
  bool has_client_cert_in_session;
  bool is_client_verified;  // meaningful with one of the two above
  struct bytes client_cn;
};
enum status proxy_v2_decode(struct proxy_decoded *out, size_t *out_len, struct bytes in);

#endif  // DEPUTY_COMMON_WIRE_PROXY_PROTOCOL_H_
