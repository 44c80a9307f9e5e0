// SPDX-License-Identifier: Apache-2.0
#include "common/tls/shake.h"

#define PAGE_LEN 4096

int tls_shake_hands(SSL *ssl) {
  // What is called next begins where this ends: at a multiple of its alignment.
  _Alignas(PAGE_LEN) volatile int result = SSL_do_handshake(ssl);
  return result;
}
