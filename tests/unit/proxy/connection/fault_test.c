// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/fault.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void errors_are_translated(void **state) {
  (void)state;
  static const struct {
    uint32_t error;
    const char *name;
  } rows[] = {
      {ERR_PACK(ERR_LIB_SSL, SSL_R_TOO_MANY_KEY_UPDATES), "key_updates"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_TOO_MANY_EMPTY_FRAGMENTS), "empty_records"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_TOO_MANY_WARNING_ALERTS), "warning_alerts"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_NO_RENEGOTIATION), "renegotiation"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC), "bad_record"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_ENCRYPTED_LENGTH_TOO_LONG), "oversized"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_TLSV1_ALERT_INTERNAL_ERROR), "alert"},
      {ERR_PACK(ERR_LIB_SSL, SSL_R_UNEXPECTED_MESSAGE), "other"},
      {ERR_PACK(ERR_LIB_CIPHER, 101), "bad_record"},
      {ERR_PACK(ERR_LIB_SYS, SSL_R_NO_RENEGOTIATION), "other"},
      {0, "other"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    assert_string_equal(fault_name(fault_of_error(rows[i].error)), rows[i].name);
  }
}

static void each_has_a_name_of_its_own(void **state) {
  (void)state;
  for (unsigned i = 0; i < FAULT_NUM; i++) {
    assert_non_null(fault_name((enum fault)i));
    for (unsigned j = 0; j < i; j++) {
      assert_string_not_equal(fault_name((enum fault)i), fault_name((enum fault)j));
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_are_translated),
      cmocka_unit_test(each_has_a_name_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
