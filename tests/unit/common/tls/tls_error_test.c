// SPDX-License-Identifier: Apache-2.0
#include "common/tls/tls_error.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void tells_the_oldest_reason_and_empties_the_queue(void **state) {
  char text[TLS_ERROR_TEXT_LEN];
  (void)state;

  ERR_put_error(ERR_LIB_SSL, 0, SSL_R_WRONG_VERSION_NUMBER, "x.c", 1);
  ERR_put_error(ERR_LIB_SSL, 0, SSL_R_NO_SHARED_CIPHER, "x.c", 2);
  assert_ptr_equal(tls_error_drain(text, sizeof text), text);
  assert_string_equal(text, "WRONG_VERSION_NUMBER");
  assert_int_equal(ERR_peek_error(), 0);
  assert_string_equal(tls_error_drain(text, sizeof text), "");
}

static void cuts_what_does_not_fit(void **state) {
  char text[6];
  (void)state;

  ERR_put_error(ERR_LIB_SSL, 0, SSL_R_WRONG_VERSION_NUMBER, "x.c", 1);
  assert_string_equal(tls_error_drain(text, sizeof text), "WRONG");
}

static void has_a_text_for_every_code(void **state) {
  char text[TLS_ERROR_TEXT_LEN];
  (void)state;

  ERR_put_error(ERR_LIB_SSL, 0, 4000, "x.c", 1);
  assert_int_not_equal(tls_error_drain(text, sizeof text)[0], '\0');
}

static void names_the_generation(void **state) {
  (void)state;
#if defined(BORINGSSL_API_VERSION) && BORINGSSL_API_VERSION >= 32
  assert_in_range(strlen(tls_generation()), 2, 3);
  assert_in_range(tls_generation()[0], '0', '9');
#else
  assert_string_equal(tls_generation(), "before 32");
#endif
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tells_the_oldest_reason_and_empties_the_queue),
      cmocka_unit_test(cuts_what_does_not_fit),
      cmocka_unit_test(has_a_text_for_every_code),
      cmocka_unit_test(names_the_generation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
