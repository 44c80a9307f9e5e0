// SPDX-License-Identifier: Apache-2.0
#include "bench/tls13_flight.h"

#include <openssl/bytestring.h>
#include <string.h>

static const char *const fault_names[TLS13_FAULT_NUM] = {
    [TLS13_OK] = "ok",
    [TLS13_FAULT_DECODE] = "decode",
    [TLS13_FAULT_VERSION] = "version",
    [TLS13_FAULT_RETRY] = "hello_retry",
    [TLS13_FAULT_SUITE] = "suite",
    [TLS13_FAULT_GROUP] = "group",
    [TLS13_FAULT_PSK] = "psk",
    [TLS13_FAULT_UNEXPECTED] = "unexpected_message",
    [TLS13_FAULT_RECORD] = "bad_record",
    [TLS13_FAULT_TOO_LONG] = "too_long",
    [TLS13_FAULT_CERTIFICATE_REQUEST] = "certificate_request",
    [TLS13_FAULT_CERTIFICATE] = "bad_certificate",
    [TLS13_FAULT_DC] = "dc",
    [TLS13_FAULT_DC_UNASKED] = "dc_unasked",
    [TLS13_FAULT_SCHEME] = "scheme",
    [TLS13_FAULT_SIGNATURE] = "bad_signature",
    [TLS13_FAULT_FINISHED] = "bad_finished",
    [TLS13_FAULT_ALERT] = "alert",
    [TLS13_FAULT_KEY_UPDATE] = "key_update",
    [TLS13_FAULT_MEMORY] = "memory",
};

const char *tls13_fault_name(enum tls13_fault fault) {
  return (unsigned)fault < TLS13_FAULT_NUM ? fault_names[fault] : "unknown";
}

static struct bytes bytes_of_cbs(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

// SHA-256 of "HelloRetryRequest", RFC 8446 section 4.1.3.
static const uint8_t retry_random[32] = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};

static bool read_hello_extension(struct tls13_server_hello *out, uint16_t type, CBS *body) {
  CBS share;
  switch (type) {
    case TLS13_EXT_SUPPORTED_VERSIONS:
      return CBS_get_u16(body, &out->version) && CBS_len(body) == 0;
    case TLS13_EXT_KEY_SHARE:
      if (!CBS_get_u16(body, &out->group)) {
        return false;
      }
      if (out->is_retry) {
        return CBS_len(body) == 0;
      }
      if (!CBS_get_u16_length_prefixed(body, &share) || CBS_len(body) != 0) {
        return false;
      }
      out->share = bytes_of_cbs(&share);
      return true;
    case TLS13_EXT_PRE_SHARED_KEY:
      out->has_psk = true;
      return CBS_get_u16(body, &out->psk) && CBS_len(body) == 0;
    default:
      return true;  // a cookie of a retry; anything else is judged by nobody here
  }
}

enum tls13_fault tls13_server_hello_decode(struct tls13_server_hello *out, struct bytes body) {
  CBS cbs;
  CBS random;
  CBS session_id;
  CBS extensions;
  CBS extension;
  uint16_t type = 0;
  uint8_t compression = 0;
  *out = (struct tls13_server_hello){0};
  CBS_init(&cbs, body.data, body.len);
  if (!CBS_get_u16(&cbs, &out->version) || !CBS_get_bytes(&cbs, &random, 32) ||
      !CBS_get_u8_length_prefixed(&cbs, &session_id) || CBS_len(&session_id) > 32 ||
      !CBS_get_u16(&cbs, &out->suite) || !CBS_get_u8(&cbs, &compression) || compression != 0) {
    return TLS13_FAULT_DECODE;
  }
  out->session_id = bytes_of_cbs(&session_id);
  out->is_retry = memcmp(CBS_data(&random), retry_random, sizeof(retry_random)) == 0;
  if (CBS_len(&cbs) == 0) {
    return TLS13_OK;  // TLS 1.2 or older, without extensions
  }
  if (!CBS_get_u16_length_prefixed(&cbs, &extensions) || CBS_len(&cbs) != 0) {
    return TLS13_FAULT_DECODE;
  }
  while (CBS_len(&extensions) > 0) {
    if (!CBS_get_u16(&extensions, &type) || !CBS_get_u16_length_prefixed(&extensions, &extension) ||
        !read_hello_extension(out, type, &extension)) {
      return TLS13_FAULT_DECODE;
    }
  }
  return TLS13_OK;
}

enum tls13_fault tls13_encrypted_extensions_decode(struct tls13_encrypted_extensions *out,
                                                   struct bytes body) {
  CBS cbs;
  CBS extensions;
  CBS extension;
  CBS list;
  CBS protocol;
  uint16_t type = 0;
  *out = (struct tls13_encrypted_extensions){0};
  CBS_init(&cbs, body.data, body.len);
  if (!CBS_get_u16_length_prefixed(&cbs, &extensions) || CBS_len(&cbs) != 0) {
    return TLS13_FAULT_DECODE;
  }
  while (CBS_len(&extensions) > 0) {
    if (!CBS_get_u16(&extensions, &type) || !CBS_get_u16_length_prefixed(&extensions, &extension)) {
      return TLS13_FAULT_DECODE;
    }
    if (type == TLS13_EXT_ALPN) {
      if (!CBS_get_u16_length_prefixed(&extension, &list) || CBS_len(&extension) != 0 ||
          !CBS_get_u8_length_prefixed(&list, &protocol) || CBS_len(&list) != 0) {
        return TLS13_FAULT_DECODE;
      }
      out->alpn = bytes_of_cbs(&protocol);
    }
  }
  return TLS13_OK;
}

// The extensions of one CertificateEntry; those of the leaf go into `out`, others
// are only walked over (RFC 9345, section 4.1.1: a DC elsewhere is ignored).
static bool read_entry_extensions(struct tls13_certificate *out, CBS *extensions, bool is_leaf) {
  CBS extension;
  CBS response;
  uint16_t type = 0;
  uint8_t kind = 0;
  while (CBS_len(extensions) > 0) {
    if (!CBS_get_u16(extensions, &type) || !CBS_get_u16_length_prefixed(extensions, &extension)) {
      return false;
    }
    if (!is_leaf) {
      continue;
    }
    if (type == TLS13_EXT_DELEGATED_CREDENTIAL) {
      out->dc = bytes_of_cbs(&extension);
    } else if (type == TLS13_EXT_STATUS_REQUEST) {
      if (!CBS_get_u8(&extension, &kind) || kind != 1 ||
          !CBS_get_u24_length_prefixed(&extension, &response) || CBS_len(&extension) != 0) {
        return false;
      }
      out->staple = bytes_of_cbs(&response);
    }
  }
  return true;
}

enum tls13_fault tls13_certificate_decode(struct tls13_certificate *out, struct bytes body) {
  CBS cbs;
  CBS context;
  CBS list;
  CBS certificate;
  CBS extensions;
  *out = (struct tls13_certificate){0};
  CBS_init(&cbs, body.data, body.len);
  if (!CBS_get_u8_length_prefixed(&cbs, &context) || CBS_len(&context) != 0 ||
      !CBS_get_u24_length_prefixed(&cbs, &list) || CBS_len(&cbs) != 0) {
    return TLS13_FAULT_DECODE;
  }
  while (CBS_len(&list) > 0) {
    const bool is_leaf = out->num == 0;
    if (!CBS_get_u24_length_prefixed(&list, &certificate) || CBS_len(&certificate) == 0 ||
        !CBS_get_u16_length_prefixed(&list, &extensions) ||
        !read_entry_extensions(out, &extensions, is_leaf)) {
      return TLS13_FAULT_DECODE;
    }
    if (is_leaf) {
      out->leaf = bytes_of_cbs(&certificate);
    }
    out->num += 1;
  }
  return out->num == 0 ? TLS13_FAULT_DECODE : TLS13_OK;
}

enum tls13_fault tls13_certificate_verify_decode(struct tls13_certificate_verify *out,
                                                 struct bytes body) {
  CBS cbs;
  CBS signature;
  *out = (struct tls13_certificate_verify){0};
  CBS_init(&cbs, body.data, body.len);
  if (!CBS_get_u16(&cbs, &out->scheme) || !CBS_get_u16_length_prefixed(&cbs, &signature) ||
      CBS_len(&cbs) != 0) {
    return TLS13_FAULT_DECODE;
  }
  out->signature = bytes_of_cbs(&signature);
  return TLS13_OK;
}

enum tls13_fault tls13_new_session_ticket_decode(struct tls13_new_session_ticket *out,
                                                 struct bytes body) {
  CBS cbs;
  CBS nonce;
  CBS ticket;
  CBS extensions;
  *out = (struct tls13_new_session_ticket){0};
  CBS_init(&cbs, body.data, body.len);
  if (!CBS_get_u32(&cbs, &out->lifetime_s) || !CBS_get_u32(&cbs, &out->age_add) ||
      !CBS_get_u8_length_prefixed(&cbs, &nonce) || !CBS_get_u16_length_prefixed(&cbs, &ticket) ||
      CBS_len(&ticket) == 0 || !CBS_get_u16_length_prefixed(&cbs, &extensions) ||
      CBS_len(&cbs) != 0) {
    return TLS13_FAULT_DECODE;
  }
  out->nonce = bytes_of_cbs(&nonce);
  out->ticket = bytes_of_cbs(&ticket);
  return TLS13_OK;
}
