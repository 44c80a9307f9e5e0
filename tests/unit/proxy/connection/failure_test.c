// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "proxy/connection/conn.h"
#include "proxy/counters.h"

static enum failure of_ssl(int reason, uint8_t *alert) {
  return failure_of_error(ERR_PACK(ERR_LIB_SSL, reason), alert);
}

static void names_are_complete_and_differ(void **state) {
  (void)state;
  for (unsigned i = 0; i < FAILURE_NUM; i++) {
    assert_non_null(failure_name((enum failure)i));
    for (unsigned j = 0; j < i; j++) {
      assert_string_not_equal(failure_name((enum failure)i), failure_name((enum failure)j));
    }
  }
  for (unsigned i = 0; i < OUTCOME_NUM; i++) {
    assert_non_null(outcome_name((enum outcome)i));
  }
  for (unsigned i = 0; i < REFUSAL_NUM; i++) {
    assert_non_null(refusal_name((enum refusal)i));
  }
  for (unsigned i = 0; i < CONN_NUM_STATES; i++) {
    assert_non_null(conn_state_name((enum conn_state)i));
  }
}

static void reasons_of_the_library_are_told_apart(void **state) {
  (void)state;
  static const struct {
    int reason;
    enum failure failure;
  } rows[] = {
      {SSL_R_HTTP_REQUEST, FAILURE_PLAINTEXT},
      {SSL_R_UNSUPPORTED_PROTOCOL, FAILURE_VERSION},
      {SSL_R_NO_SHARED_CIPHER, FAILURE_CIPHER},
      {SSL_R_NO_SHARED_GROUP, FAILURE_GROUP},
      {SSL_R_NO_COMMON_SIGNATURE_ALGORITHMS, FAILURE_SCHEME},
      {SSL_R_NO_APPLICATION_PROTOCOL, FAILURE_ALPN},
      {SSL_R_DECODE_ERROR, FAILURE_BAD_HELLO},
      {SSL_R_WRONG_VERSION_NUMBER, FAILURE_NOT_TLS},
      {SSL_R_UNEXPECTED_MESSAGE, FAILURE_PROTOCOL},
      {ERR_R_MALLOC_FAILURE, FAILURE_INTERNAL},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    uint8_t alert = 99;
    assert_int_equal(of_ssl(rows[i].reason, &alert), rows[i].failure);
    assert_int_equal(alert, 0);
  }
}

static void alerts_are_named(void **state) {
  (void)state;
  uint8_t alert = 0;
  assert_int_equal(of_ssl(SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER, &alert), FAILURE_ALERT);
  assert_int_equal(alert, 47);
  assert_string_equal(alert_name(alert), "illegal_parameter");
  assert_int_equal(of_ssl(SSL_R_TLSV1_ALERT_UNKNOWN_CA, &alert), FAILURE_ALERT);
  assert_string_equal(alert_name(alert), "unknown_ca");
  assert_int_equal(of_ssl(SSL_AD_REASON_OFFSET + 200, &alert), FAILURE_ALERT);
  assert_int_equal(alert, 200);
  assert_string_equal(alert_name(alert), "unassigned");
  // A close_notify in the handshake is no failure of TLS's.
  assert_int_equal(of_ssl(SSL_R_SSLV3_ALERT_CLOSE_NOTIFY, &alert), FAILURE_CLOSED);
}

static void other_libraries_count_as_protocol(void **state) {
  (void)state;
  uint8_t alert = 0;
  assert_int_equal(failure_of_error(ERR_PACK(ERR_LIB_EC, 100), &alert), FAILURE_PROTOCOL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_complete_and_differ),
      cmocka_unit_test(reasons_of_the_library_are_told_apart),
      cmocka_unit_test(alerts_are_named),
      cmocka_unit_test(other_libraries_count_as_protocol),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
