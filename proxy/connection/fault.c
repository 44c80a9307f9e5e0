// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/fault.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stddef.h>

static const char *const names[FAULT_NUM] = {
    [FAULT_BAD_RECORD] = "bad_record",
    [FAULT_OVERSIZED] = "oversized",
    [FAULT_EMPTY_RECORDS] = "empty_records",
    [FAULT_WARNING_ALERTS] = "warning_alerts",
    [FAULT_KEY_UPDATES] = "key_updates",
    [FAULT_RENEGOTIATION] = "renegotiation",
    [FAULT_ALERT] = "alert",
    [FAULT_OTHER] = "other",
};

static const struct {
  int reason;
  enum fault fault;
} reasons[] = {
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, FAULT_BAD_RECORD},
    {SSL_R_WRONG_VERSION_NUMBER, FAULT_BAD_RECORD},
    {SSL_R_BAD_PACKET_LENGTH, FAULT_BAD_RECORD},
    {SSL_R_INVALID_OUTER_RECORD_TYPE, FAULT_BAD_RECORD},
    {SSL_R_ENCRYPTED_LENGTH_TOO_LONG, FAULT_OVERSIZED},
    {SSL_R_DATA_LENGTH_TOO_LONG, FAULT_OVERSIZED},
    {SSL_R_EXCESSIVE_MESSAGE_SIZE, FAULT_OVERSIZED},
    {SSL_R_TOO_MANY_EMPTY_FRAGMENTS, FAULT_EMPTY_RECORDS},
    {SSL_R_TOO_MANY_WARNING_ALERTS, FAULT_WARNING_ALERTS},
    {SSL_R_TOO_MANY_KEY_UPDATES, FAULT_KEY_UPDATES},
    {SSL_R_NO_RENEGOTIATION, FAULT_RENEGOTIATION},
};

const char *fault_name(enum fault fault) { return names[fault]; }

enum fault fault_of_error(uint32_t packed_error) {
  int reason = ERR_GET_REASON(packed_error);
  if (ERR_GET_LIB(packed_error) != ERR_LIB_SSL) {
    // A record that cannot be opened is an error of the cipher.
    return ERR_GET_LIB(packed_error) == ERR_LIB_CIPHER ? FAULT_BAD_RECORD : FAULT_OTHER;
  }
  if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255) {
    return FAULT_ALERT;
  }
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
    if (reasons[i].reason == reason) {
      return reasons[i].fault;
    }
  }
  return FAULT_OTHER;
}
