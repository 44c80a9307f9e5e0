// SPDX-License-Identifier: Apache-2.0
// shake: SSL_do_handshake at a place of the stack where it is fast, whoever calls.
//
// BoringSSL's X25519 reads and writes its field elements 16 bytes at a time, over and
// over at one place of the stack. Where that place lies across the end of a page each
// access waits for the one before: a key takes 16 us and not 10.5, a handshake 4 % more.
// Which place it is follows from how deep the caller stands, so that any change above
// could hit one of the two bad ones of a page's 256. From here the stack goes on at the
// top of a page, and all of X25519 happens within it (2.6 KB further down).
#ifndef DEPUTY_COMMON_TLS_SHAKE_H_
#define DEPUTY_COMMON_TLS_SHAKE_H_

#include <openssl/ssl.h>

// tls_shake_hands is SSL_do_handshake.
int tls_shake_hands(SSL *ssl);

#endif  // DEPUTY_COMMON_TLS_SHAKE_H_
