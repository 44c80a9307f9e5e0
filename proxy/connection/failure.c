// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stddef.h>

static const char *const names[FAILURE_NUM] = {
    [FAILURE_NONE] = "none",
    [FAILURE_SILENT] = "silent",
    [FAILURE_SCAN] = "scan",
    [FAILURE_TIMEOUT] = "timeout",
    [FAILURE_DISPLACED] = "displaced",
    [FAILURE_CLOSED] = "closed",
    [FAILURE_RESET] = "reset",
    [FAILURE_PLAINTEXT] = "plaintext_http",
    [FAILURE_NOT_TLS] = "not_tls",
    [FAILURE_PROXY_HEADER] = "proxy_header",
    [FAILURE_ADDRESS] = "address_limit",
    [FAILURE_BAD_HELLO] = "malformed",
    [FAILURE_PROTOCOL] = "protocol",
    [FAILURE_VERSION] = "version",
    [FAILURE_CIPHER] = "cipher",
    [FAILURE_GROUP] = "group",
    [FAILURE_SCHEME] = "scheme",
    [FAILURE_ALPN] = "alpn",
    [FAILURE_UNKNOWN_NAME] = "unknown_name",
    [FAILURE_NO_CHAIN] = "no_chain",
    [FAILURE_CLIENT_CERT] = "client_certificate",
    [FAILURE_NO_CLIENT_CERT] = "client_certificate_missing",
    [FAILURE_ALERT] = "alert",
    [FAILURE_KEY_TIMEOUT] = "key_server_timeout",
    [FAILURE_KEY_REFUSED] = "key_server_refused",
    [FAILURE_KEY_NOT_FOUND] = "key_not_found",
    [FAILURE_KEY_UNAVAILABLE] = "key_server_unavailable",
    [FAILURE_KEY_BAD] = "key_server_bad_signature",
    [FAILURE_LOOKUP_TIMEOUT] = "store_timeout",
    [FAILURE_LOOKUP] = "store_unreadable",
    [FAILURE_INTERNAL] = "internal",
};

const char *failure_name(enum failure failure) {
  return failure < FAILURE_NUM ? names[failure] : "unknown";
}

// BoringSSL's reasons that tell more than "the protocol was broken".
static const struct {
  int reason;
  enum failure failure;
} reasons[] = {
    {SSL_R_HTTP_REQUEST, FAILURE_PLAINTEXT},
    {SSL_R_HTTPS_PROXY_REQUEST, FAILURE_PLAINTEXT},
    {SSL_R_WRONG_VERSION_NUMBER, FAILURE_NOT_TLS},
    {SSL_R_UNSUPPORTED_PROTOCOL, FAILURE_VERSION},
    {SSL_R_INAPPROPRIATE_FALLBACK, FAILURE_VERSION},
    {SSL_R_NO_SHARED_CIPHER, FAILURE_CIPHER},
    {SSL_R_NO_SHARED_GROUP, FAILURE_GROUP},
    {SSL_R_NO_COMMON_SIGNATURE_ALGORITHMS, FAILURE_SCHEME},
    {SSL_R_NO_APPLICATION_PROTOCOL, FAILURE_ALPN},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, FAILURE_NO_CLIENT_CERT},
    {SSL_R_DECODE_ERROR, FAILURE_BAD_HELLO},
    {SSL_R_CLIENTHELLO_PARSE_FAILED, FAILURE_BAD_HELLO},
    {SSL_R_CLIENTHELLO_TLSEXT, FAILURE_BAD_HELLO},
    {SSL_R_PARSE_TLSEXT, FAILURE_BAD_HELLO},
    {SSL_R_ERROR_PARSING_EXTENSION, FAILURE_BAD_HELLO},
    {SSL_R_DUPLICATE_EXTENSION, FAILURE_BAD_HELLO},
    {SSL_R_DUPLICATE_KEY_SHARE, FAILURE_BAD_HELLO},
    {SSL_R_MISSING_EXTENSION, FAILURE_BAD_HELLO},
    {SSL_R_MISSING_KEY_SHARE, FAILURE_BAD_HELLO},
    {SSL_R_NO_CIPHERS_SPECIFIED, FAILURE_BAD_HELLO},
    {SSL_R_NO_GROUPS_SPECIFIED, FAILURE_BAD_HELLO},
    {SSL_R_INVALID_COMPRESSION_LIST, FAILURE_BAD_HELLO},
    {SSL_R_NO_COMPRESSION_SPECIFIED, FAILURE_BAD_HELLO},
    {SSL_R_EXCESSIVE_MESSAGE_SIZE, FAILURE_BAD_HELLO},
    {SSL_R_ENCRYPTED_LENGTH_TOO_LONG, FAILURE_BAD_HELLO},
    {SSL_R_RECORD_LENGTH_MISMATCH, FAILURE_BAD_HELLO},
    {SSL_R_LENGTH_MISMATCH, FAILURE_BAD_HELLO},
    {SSL_R_BAD_ECPOINT, FAILURE_BAD_HELLO},
    {SSL_R_PRE_SHARED_KEY_MUST_BE_LAST, FAILURE_BAD_HELLO},
    {SSL_R_SSL3_EXT_INVALID_SERVERNAME, FAILURE_BAD_HELLO},
    {ERR_R_MALLOC_FAILURE, FAILURE_INTERNAL},
    {ERR_R_INTERNAL_ERROR, FAILURE_INTERNAL},
};

enum failure failure_of_error(uint32_t packed_error, uint8_t *out_alert) {
  int reason = ERR_GET_REASON(packed_error);
  *out_alert = 0;
  if (ERR_GET_LIB(packed_error) != ERR_LIB_SSL) {
    return FAILURE_PROTOCOL;
  }
  if (reason == SSL_AD_REASON_OFFSET + SSL_AD_CLOSE_NOTIFY) {
    return FAILURE_CLOSED;
  }
  if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255) {
    *out_alert = (uint8_t)(reason - SSL_AD_REASON_OFFSET);
    return FAILURE_ALERT;
  }
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
    if (reasons[i].reason == reason) {
      return reasons[i].failure;
    }
  }
  return FAILURE_PROTOCOL;
}

// RFC 8446, section 6, and the ones before it that clients still send.
static const struct {
  uint8_t alert;
  const char *name;
} alerts[] = {
    {0, "close_notify"},
    {10, "unexpected_message"},
    {20, "bad_record_mac"},
    {22, "record_overflow"},
    {30, "decompression_failure"},
    {40, "handshake_failure"},
    {41, "no_certificate"},
    {42, "bad_certificate"},
    {43, "unsupported_certificate"},
    {44, "certificate_revoked"},
    {45, "certificate_expired"},
    {46, "certificate_unknown"},
    {47, "illegal_parameter"},
    {48, "unknown_ca"},
    {49, "access_denied"},
    {50, "decode_error"},
    {51, "decrypt_error"},
    {70, "protocol_version"},
    {71, "insufficient_security"},
    {80, "internal_error"},
    {86, "inappropriate_fallback"},
    {90, "user_canceled"},
    {100, "no_renegotiation"},
    {109, "missing_extension"},
    {110, "unsupported_extension"},
    {112, "unrecognized_name"},
    {113, "bad_certificate_status_response"},
    {115, "unknown_psk_identity"},
    {116, "certificate_required"},
    {120, "no_application_protocol"},
    {121, "ech_required"},
};

const char *alert_name(uint8_t alert) {
  for (size_t i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++) {
    if (alerts[i].alert == alert) {
      return alerts[i].name;
    }
  }
  return "unassigned";
}
