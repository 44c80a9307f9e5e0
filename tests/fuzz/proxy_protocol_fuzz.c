// SPDX-License-Identifier: Apache-2.0
// Targets: proxy_v2_decode, proxy_v2_encode, proxy_v1_encode. What decodes is
// written again if it is within our limits; that decodes too, and is written to the
// same bytes. Its addresses always make a line of version 1.
#include <stdint.h>
#include <string.h>

#include "common/wire/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define TEXT_LEN (PROXY_V2_MAX_TLV_LEN + 2)

static void check_inside(struct bytes run, struct bytes header) {
  CHECK(run.data == NULL || (run.data > header.data && run.len < header.len &&
                             run.data + run.len <= header.data + header.len));
}

// to_text cuts a run at our limit or its first zero.
static const char *to_text(char out[TEXT_LEN], struct bytes run) {
  const size_t len = run.len < TEXT_LEN - 1 ? run.len : TEXT_LEN - 1;
  if (len > 0) {
    memcpy(out, run.data, len);
  }
  out[len] = '\0';
  return out;
}

static void check_line(const struct proxy_decoded *decoded) {
  const struct proxy_header header = {
      .source = (const struct sockaddr *)&decoded->source,
      .destination = (const struct sockaddr *)&decoded->destination,
  };
  uint8_t line[PROXY_V1_MAX_LEN];
  size_t len = 0;
  CHECK(proxy_v1_encode(line, sizeof(line), &len, &header) == STATUS_OK);
  CHECK(len >= 15 && memcmp(line, "PROXY ", 6) == 0 && line[len - 2] == '\r');
  CHECK(memchr(line, '\n', len) == line + len - 1);
}

static enum status encode(uint8_t *out, size_t *out_len, const struct proxy_decoded *decoded) {
  char version[TEXT_LEN];
  char cipher[TEXT_LEN];
  const struct proxy_header header = {
      .source = decoded->is_local ? NULL : (const struct sockaddr *)&decoded->source,
      .destination = decoded->is_local ? NULL : (const struct sockaddr *)&decoded->destination,
      .alpn = decoded->alpn,
      .authority = decoded->authority,
      .has_tls = decoded->has_tls,
      .tls_version = to_text(version, decoded->tls_version),
      .tls_cipher = to_text(cipher, decoded->tls_cipher),
      .has_client_cert = decoded->has_client_cert,
      .has_client_cert_in_session = decoded->has_client_cert_in_session,
      .is_client_verified = decoded->is_client_verified,
      .client_cn = decoded->client_cn,
  };
  return proxy_v2_encode(out, 2 * PROXY_V2_MAX_LEN, out_len, &header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static uint8_t once[2 * PROXY_V2_MAX_LEN];
  static uint8_t twice[2 * PROXY_V2_MAX_LEN];
  size_t header_len = 0;
  size_t once_len = 0;
  size_t twice_len = 0;
  struct proxy_decoded decoded;
  struct proxy_decoded again;
  const enum status st = proxy_v2_decode(&decoded, &header_len, bytes_of(data, len));
  if (st != STATUS_OK) {
    CHECK(header_len == 0);
    CHECK(st == STATUS_FORMAT || st == STATUS_AGAIN || st == STATUS_LIMIT);
    return 0;
  }
  CHECK(header_len >= 16 && header_len <= len && header_len <= PROXY_V2_MAX_DECODE_LEN);
  check_inside(decoded.alpn, bytes_of(data, header_len));
  check_inside(decoded.authority, bytes_of(data, header_len));
  check_inside(decoded.tls_version, bytes_of(data, header_len));
  check_inside(decoded.tls_cipher, bytes_of(data, header_len));
  check_inside(decoded.client_cn, bytes_of(data, header_len));
  check_line(&decoded);
  if (encode(once, &once_len, &decoded) != STATUS_OK) {
    CHECK(decoded.alpn.len > PROXY_V2_MAX_TLV_LEN || decoded.authority.len > PROXY_V2_MAX_TLV_LEN ||
          decoded.tls_version.len > PROXY_V2_MAX_TLV_LEN ||
          decoded.tls_cipher.len > PROXY_V2_MAX_TLV_LEN ||
          decoded.client_cn.len > PROXY_V2_MAX_TLV_LEN);
    return 0;
  }
  CHECK(proxy_v2_decode(&again, &header_len, bytes_of(once, once_len)) == STATUS_OK);
  CHECK(header_len == once_len);
  CHECK(again.is_local == decoded.is_local && again.has_tls == decoded.has_tls);
  CHECK(bytes_equal(again.alpn, decoded.alpn));
  CHECK(bytes_equal(again.authority, decoded.authority));
  if (decoded.has_tls) {
    CHECK(bytes_equal(again.client_cn, decoded.client_cn));
    CHECK(again.is_client_verified == decoded.is_client_verified);
  }
  CHECK(encode(twice, &twice_len, &again) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(once, once_len), bytes_of(twice, twice_len)));
  return 0;
}
