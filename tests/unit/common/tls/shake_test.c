// SPDX-License-Identifier: Apache-2.0
#include "common/tls/shake.h"

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define PAGE_LEN 4096

static uintptr_t place;  // in its page, of a frame of the library's caller

static int on_read(BIO *bio, char *out, int len) {
  (void)out;
  (void)len;
  place = (uintptr_t)__builtin_frame_address(0) % PAGE_LEN;
  BIO_set_retry_read(bio);
  return -1;
}

static int shake(SSL *ssl) { return tls_shake_hands(ssl); }

// Each is called from another depth.
static __attribute__((noinline)) int shake_deeper(SSL *ssl) {
  volatile uint8_t room[208];
  memset((uint8_t *)room, 1, sizeof room);
  return tls_shake_hands(ssl) + 0 * room[0];
}

static __attribute__((noinline)) int shake_much_deeper(SSL *ssl) {
  volatile uint8_t room[3024];
  memset((uint8_t *)room, 1, sizeof room);
  return shake_deeper(ssl) + 0 * room[0];
}

static void goes_on_at_one_place_of_a_page(void **state) {
  int (*const calls[])(SSL * ssl) = {shake, shake_deeper, shake_much_deeper};
  BIO_METHOD *method = BIO_meth_new(0, "test");
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  uintptr_t first = 0;
  (void)state;

  assert_true(BIO_meth_set_read(method, on_read));
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    SSL *ssl = SSL_new(ctx);
    BIO *bio = BIO_new(method);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    place = PAGE_LEN;
    assert_int_equal(SSL_get_error(ssl, calls[i](ssl)), SSL_ERROR_WANT_READ);
    assert_in_range(place, 0, PAGE_LEN - 1);
    first = i == 0 ? place : first;
    assert_int_equal(place, first);
    SSL_free(ssl);
  }
  SSL_CTX_free(ctx);
  BIO_meth_free(method);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(goes_on_at_one_place_of_a_page),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
