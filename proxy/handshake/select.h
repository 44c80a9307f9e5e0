// SPDX-License-Identifier: Apache-2.0
// select: which signature answers a handshake (the design's fixed rule), within
// BoringSSL's certificate callback, where the client's lists are known: name,
// chain, and whether the client may be given the delegated credential. No
// allocation of ours, no lock, no system call.
#ifndef DEPUTY_PROXY_HANDSHAKE_SELECT_H_
#define DEPUTY_PROXY_HANDSHAKE_SELECT_H_

#include <openssl/ssl.h>
#include <stdint.h>

#include "common/base/bytes.h"

struct conn;
struct tls_dc;

// select_on_client_hello: SSL_CTX_set_select_certificate_cb. Versions and groups are chosen
// next: by the policy of the name asked for, as far as it can be told without a look into
// a store on disk (its names have one policy together).
enum ssl_select_cert_result_t select_on_client_hello(const SSL_CLIENT_HELLO *hello);

// select_on_certificate: SSL_CTX_set_cert_cb; `arg` is the view. 1: installed;
// 0: refused, the fitting alert is under way and conn->hs->failure says why.
int select_on_certificate(SSL *ssl, void *arg);

// select_decide is its first half: leaves name, policy and choice in conn->hs, and lends
// the DC that this client is to have (NULL: the chain alone). 1: decided; 0: refused, as
// above; -1: come again. In the certificate callback only.
int select_decide(SSL *ssl, struct conn *conn, struct bytes sni, struct tls_dc **out_dc);

// select_on_alpn: SSL_CTX_set_alpn_select_cb; the name's policy decides. Comes
// after the certificate callback.
int select_on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                   unsigned in_len, void *arg);

#endif  // DEPUTY_PROXY_HANDSHAKE_SELECT_H_
